"""Reads a YAML file of faults, and says file, line and key for everything in it that cannot be.

faults:
  - {kind: uncorrectable_ecc, at: 20s, node: gpu-003, gpu: 5}
  - {kind: load_surge, at: 1m, rack: rack-2, duration: 5m}
  - {kind: job_stalled, at: 10m, node: gpu-004, gpu: 1, variant: kernel_spin, duration: 20m}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from healer.errors import InvalidDocument, Problem
from healer.sim.faults import Fault, FaultKind, objections
from healer.sim.layout import Layout, nearest

_KEYS = ("kind", "at", "node", "gpu", "rack", "duration", "severity", "variant", "ramp")
_REQUIRED = ("kind", "at")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)")
_FRACTION = re.compile(r"\d{0,9}\.?\d{1,9}")
_INDEX = re.compile(r"\d{1,9}")
_TEXT_TAG = "tag:yaml.org,2002:str"


def load_faults(path: Path, layout: Layout | None = None) -> tuple[Fault, ...]:
    """With a layout, the names of racks and nodes are checked too.

    Raises:
        InvalidDocument: with every problem of the file, not only the first.
    """
    return _Reader(str(path)).read(_text(path), layout)


class _Reader:
    """Collects problems while it reads, so that a person can mend them in one go."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[Problem] = []

    def read(self, text: str, layout: Layout | None) -> tuple[Fault, ...]:
        entries = self._entries(_compose(self._file, text))
        faults = [self._fault(entry, f"faults[{number}]", layout) for number, entry in enumerate(entries)]
        if self._problems:
            raise InvalidDocument(*self._problems)
        return tuple(fault for fault in faults if fault is not None)

    def _entries(self, root: yaml.Node | None) -> Sequence[yaml.Node]:
        if root is None:
            raise InvalidDocument(Problem(self._file, 1, "faults", "is missing", "the file is empty"))
        top = self._mapping(root, "", ("faults",))
        listed = top.get("faults")
        if isinstance(listed, yaml.SequenceNode):
            nodes: list[yaml.Node] = listed.value
            return nodes
        if listed is not None:
            self._note(listed, "faults", "is not a list", "begin each fault with '- kind: ...'")
        elif not self._problems:
            self._note(root, "faults", "is missing")
        return ()

    def _fault(self, entry: yaml.Node, key: str, layout: Layout | None) -> Fault | None:
        known_before = len(self._problems)
        values = self._mapping(entry, key, _KEYS)
        for name in _REQUIRED:
            if name not in values and isinstance(entry, yaml.MappingNode):
                self._note(entry, f"{key}.{name}", "is missing")
        kind = self._kind(values.get("kind"), f"{key}.kind")
        at_s = self._duration_s(values.get("at"), f"{key}.at")
        fault = Fault(
            kind=kind or FaultKind.UNCORRECTABLE_ECC,
            at_s=at_s or 0.0,
            node=self._name(values.get("node"), f"{key}.node"),
            gpu=self._gpu(values.get("gpu"), f"{key}.gpu"),
            rack=self._name(values.get("rack"), f"{key}.rack"),
            duration_s=self._duration_s(values.get("duration"), f"{key}.duration"),
            severity=self._fraction(values.get("severity"), f"{key}.severity"),
            variant=self._name(values.get("variant"), f"{key}.variant"),
            ramp_s=self._duration_s(values.get("ramp"), f"{key}.ramp"),
        )
        if len(self._problems) > known_before:
            return None  # what could be read may be judged only as a whole
        for wrong in objections(fault, layout):
            self._note(values[wrong.field], f"{key}.{wrong.field}", wrong.text, wrong.hint)
        return fault

    def _mapping(self, node: yaml.Node, key: str, known: Sequence[str]) -> Mapping[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self._note(node, key, "is not a mapping", f"its keys are {', '.join(known)}")
            return {}
        found: dict[str, yaml.Node] = {}
        for name_node, value in node.value:
            name = name_node.value if isinstance(name_node, yaml.ScalarNode) else "?"
            where = f"{key}.{name}" if key else name
            if name not in known:
                self._note(name_node, where, "is not a known key", nearest(name, known))
            elif name in found:
                self._note(name_node, where, "is given twice")
            else:
                found[name] = value
        return found

    def _kind(self, node: yaml.Node | None, key: str) -> FaultKind | None:
        text = self._scalar(node, key, "the name of a kind")
        if node is None or text is None:
            return None
        try:
            return FaultKind(text)
        except ValueError:
            self._note(node, key, f"{text!r} is not a known kind", nearest(text, [kind.value for kind in FaultKind]))
            return None

    def _name(self, node: yaml.Node | None, key: str) -> str | None:
        text = self._scalar(node, key, "a name")
        if node is not None and text is not None and node.tag != _TEXT_TAG:
            self._note(node, key, f"{text} is read as a number or a word of YAML's own", "put it in quotes")
            return None
        return text

    def _gpu(self, node: yaml.Node | None, key: str) -> int | None:
        text = self._matching(node, key, _INDEX, expected="a GPU's index on its node, such as 0")
        return None if text is None else int(text)

    def _fraction(self, node: yaml.Node | None, key: str) -> float | None:
        text = self._matching(node, key, _FRACTION, expected="a fraction, such as 0.5")
        return None if text is None else float(text)

    def _duration_s(self, node: yaml.Node | None, key: str) -> float | None:
        text = self._matching(node, key, _DURATION, expected="a duration, such as 20s or 5m")
        if text is None:
            return None
        number, unit = _DURATION.fullmatch(text).groups()  # type: ignore[union-attr]  # _matching has seen it match
        return float(number) * _UNIT_S[unit]

    def _matching(self, node: yaml.Node | None, key: str, form: re.Pattern[str], *, expected: str) -> str | None:
        text = self._scalar(node, key, expected)
        if node is None or text is None or form.fullmatch(text):
            return text
        self._note(node, key, f"{text!r} is not {expected}")
        return None

    def _scalar(self, node: yaml.Node | None, key: str, expected: str) -> str | None:
        if node is None:
            return None
        if isinstance(node, yaml.ScalarNode) and node.value:
            return str(node.value)
        self._note(node, key, f"is not {expected}")
        return None

    def _note(self, node: yaml.Node, key: str, text: str, hint: str = "") -> None:
        self._problems.append(Problem(self._file, node.start_mark.line + 1, key, text, hint))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidDocument(Problem(str(path), 0, "", f"cannot be read: {error.strerror}")) from error
    except UnicodeDecodeError as error:
        raise InvalidDocument(Problem(str(path), 0, "", f"is not UTF-8 text: {error.reason}")) from error


def _compose(file: str, text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InvalidDocument(Problem(file, mark.line + 1 if mark else 0, "", f"is not YAML: {said}")) from error
    except RecursionError as error:
        raise InvalidDocument(Problem(file, 0, "", "is nested too deeply to be a list of faults")) from error
