"""Matcher: one condition on what an incident says of itself, as in Alertmanager."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from healer.documents import nearest
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode
from healer.domain.incident import Incident, Severity
from healer.domain.pattern import LONGEST_PATTERN, compiled, takes

_MOST_MATCHERS = 32
_LONGEST_TEXT = 2 * LONGEST_PATTERN + 100  # every character of a quoted value may be escaped
_TEXT = re.compile(r"([^\s=!~\"]*)\s*(=~|!~|!=|=)(?![=~])\s*(.*)", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')


class Label(StrEnum):
    """What can be matched. What an incident does not have is empty, as in Prometheus."""

    FAILURE_MODE = "failure_mode"
    KIND = "kind"
    SEVERITY = "severity"
    RACK = "rack"
    NODE = "node"
    GPU = "gpu"
    UUID = "uuid"
    JOB = "job"
    LINK = "link"


class Operator(StrEnum):
    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"

    @property
    def is_regex(self) -> bool:
        return self in {Operator.REGEX, Operator.NOT_REGEX}

    @property
    def is_negated(self) -> bool:
        return self in {Operator.NOT_EQUAL, Operator.NOT_REGEX}


# Labels whose values are all known; a value beside these is a mistake.
_VALUES: Mapping[Label, tuple[str, ...]] = {
    Label.FAILURE_MODE: tuple(FailureMode),
    Label.KIND: tuple(ComponentKind),
    Label.SEVERITY: tuple(Severity),
}
# Names as people give them, none like the other: an expression that takes all of them takes anything.
_ANY_NAMES = ("a", "Z", "7", "r7", "node-01.pod-2.example.com", "GPU-3f2a9c1e", "0:3", "training/llm_70b", "ü")


@dataclass(frozen=True, slots=True)
class Matcher:
    """Raises:
    ValueError: for a value that is no regular expression, or not printable.
    """

    name: Label
    operator: Operator
    value: str

    def __post_init__(self) -> None:
        if len(self.value) > LONGEST_PATTERN or not self.value.isprintable():
            raise ValueError(f"{self.name}: a value is at most {LONGEST_PATTERN} printable characters")
        if self.operator.is_regex:
            try:
                compiled(self.value)
            except ValueError as error:
                raise ValueError(f"{self.name}: {self.value!r} is not a regular expression: {error}") from error

    def matches(self, value: str) -> bool:
        """Regular expressions take the whole value."""
        return self._names(value) is not self.operator.is_negated

    def refusal(self) -> str:
        """Why the matcher cannot be meant, where all values are known; empty if it can."""
        values = _VALUES.get(self.name)
        if values is None or any(self._names(value) for value in values):
            return ""
        hint = nearest(self.value, values)
        return f"{self} names no {self.name.replace('_', ' ')} that there is" + (f" ({hint})" if hint else "")

    @property
    def narrows(self) -> bool:
        """Whether there is something that it leaves out, and it does not take what has no such value."""
        probes = _VALUES.get(self.name, _ANY_NAMES)
        return not self.matches("") and not all(self.matches(value) for value in probes)

    def _names(self, value: str) -> bool:
        return takes(self.value, value) if self.operator.is_regex else value == self.value

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{_quoted(self.value)}"


def parse_matcher(text: str) -> Matcher:
    r"""'rack=r7', 'failure_mode=~"Nvlink.*"'. Within quotes, \" and \\ stand for " and \. Raises ValueError."""
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"a matcher is at most {_LONGEST_TEXT} characters")
    parts = _TEXT.fullmatch(text.strip())
    if parts is None:
        raise ValueError(f'{text!r} is not a matcher; write it like rack=r7, node!=n3 or failure_mode=~"Nvlink.*"')
    name, operator, value = parts.groups()
    if name not in list(Label):
        raise ValueError(f"there is no label {name!r} ({nearest(name, Label) or 'known: ' + ', '.join(Label)})")
    if value.startswith('"'):
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:
            raise ValueError(f"{text!r} has a quote without its end")
        value = _ESCAPED.sub(r"\1", quoted[1])
    return Matcher(Label(name), Operator(operator), value)


def matchers_in(given: object) -> tuple[Matcher, ...]:
    """Names by label, {"rack": "r7"}, or a list of matchers as text. Raises ValueError."""
    match given:
        case Mapping():
            return tuple(parse_matcher(f"{label}={_quoted(_name(label, value))}") for label, value in given.items())
        case list() | tuple():
            return tuple(each if isinstance(each, Matcher) else parse_matcher(str(each)) for each in given)
        case _:
            raise ValueError("write it like {rack: r7} or ['rack=~\"r[12]\"', kind=gpu]")


def _name(label: object, value: object) -> str:
    match value:
        case str():
            return value
        case _:  # a number is not what was written: YAML makes 7 of 07
            raise ValueError(f"{label}: {value!r} is not a name; put it in quotes")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def checked_matchers(matchers: Iterable[Matcher]) -> tuple[Matcher, ...]:
    """Matchers that may silence something. Raises ValueError: none at all, or nothing that they would leave out."""
    checked = tuple(matchers)
    if not checked:
        raise ValueError("at least one matcher is needed, for example rack=r7")
    if len(checked) > _MOST_MATCHERS:
        raise ValueError(f"there are more than {_MOST_MATCHERS} matchers")
    for matcher in checked:
        if why := matcher.refusal():
            raise ValueError(why)
    if not any(matcher.narrows for matcher in checked):
        raise ValueError("this would silence everything: say what is meant, for example rack=r7")
    return checked


def covers(matchers: Iterable[Matcher], incident: Incident) -> bool:
    """Whether all match the incident: its component, or the part that is to blame, since a plan may work on either."""
    matchers = tuple(matchers)
    places = (incident.component, incident.culprit)
    found = (labels_of(incident, where) for where in places if where is not None)
    return any(all(matcher.matches(labels[matcher.name]) for matcher in matchers) for labels in found)


def labels_of(incident: Incident, where: Component) -> Mapping[Label, str]:
    return {
        Label.FAILURE_MODE: str(incident.failure_mode),
        Label.KIND: str(where.kind),
        Label.SEVERITY: str(incident.severity),
        Label.RACK: where.rack or "",
        Label.NODE: where.node or "",
        Label.GPU: where.gpu or "",
        Label.UUID: where.uuid or "",
        Label.JOB: where.job or "",
        Label.LINK: where.link or "",
    }
