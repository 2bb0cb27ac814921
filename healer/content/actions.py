"""Verbs of a deployment's own: one or more classes per file, and those of installed packages.

actions/NAME.py        classes with plan, run, verify and undo (see healer.sdk)
healer.actions         the group of entry points by which a package offers such a class, or a module with some
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from healer.content.modules import load_each, load_module
from healer.content.own_verb import OwnVerb
from healer.domain.component import ComponentKind
from healer.errors import InvalidDocument, Problem
from healer.schema import Section
from healer.verb import Verbs

GROUP = "healer.actions"
_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_PARTS = {"plan": "world", "run": "ledger", "verify": "ledger", "undo": "ledger"}
_SEE = "see healer.sdk"


def load_actions(
    folder: Path | None, *, taken: Collection[str], installed: Iterable[EntryPoint] | None = None
) -> Verbs:
    """Those of every *.py in the folder and of every installed package, by name, each behind its boundary.

    Raises InvalidDocument with the problems of all of them together.

    Args:
        folder: none, or one that is not there, has none.
        taken: the names of healer's own verbs.
        installed: the entry points; None for those of this environment.
    """
    if folder is not None and folder.is_file():
        raise InvalidDocument(Problem(str(folder), 0, "playbooks.actions", "is a file", "name its folder"))
    paths = sorted(folder.glob("*.py")) if folder is not None else []
    offered = entry_points(group=GROUP) if installed is None else installed
    sources = [*(partial(_of_file, path) for path in paths), *(partial(_of_package, point) for point in offered)]
    found = [each for classes in load_each(sources, lambda source: source()) for each in classes]
    verbs = load_each(found, _checked)
    _check_names(found, taken)
    return {verb.name: verb for verb in verbs}


@dataclass(frozen=True, slots=True)
class _Class:
    """A class that is meant to be a verb, and the file in which what is wrong with it is to be put right."""

    kind: type[Any]
    file: str

    def problem(self, text: str, hint: str = _SEE, *, member: str = "") -> Problem:
        """On the line of the member, if it stands in the class itself, else on that of the class."""
        key = f"{self.kind.__name__}.{member}" if member else self.kind.__name__
        return Problem(self.file, self._line(member), key, text, hint)

    def _line(self, member: str) -> int:
        try:
            lines, first = inspect.getsourcelines(self.kind)
        except (OSError, TypeError):
            return 0
        pattern = re.compile(rf"\s+(?:def |async def |class )?{re.escape(member)}\b(?!\.)")
        within = (number for number, line in enumerate(lines) if member and pattern.match(line))
        return first + next(within, 0)


def _of_file(path: Path) -> list[_Class]:
    module = load_module(path, prefix="action")
    return [_Class(kind, str(path)) for kind in _meant(module, str(path), "")]


def _of_package(point: EntryPoint) -> list[_Class]:
    package = point.dist.name if point.dist is not None else point.module
    where, key = f"package {package}", f"{GROUP}.{point.name}"
    try:
        loaded = point.load()
    except (Exception, SystemExit) as error:  # a package may raise anything while it loads; reported, never swallowed
        text = f"{point.value} cannot be loaded: {error!r}"
        raise InvalidDocument(Problem(where, 0, key, text, "repair or remove the package")) from error
    if isinstance(loaded, ModuleType):
        kinds = _meant(loaded, where, key)
    elif isinstance(loaded, type):
        kinds = [loaded]
    else:
        text = f"{point.value} is neither a class nor a module"
        raise InvalidDocument(Problem(where, 0, key, text, _SEE))
    return [_Class(kind, inspect.getsourcefile(kind) or where) for kind in kinds]


def _meant(module: ModuleType, file: str, key: str) -> list[type]:
    """The module's own public classes that have a part of a verb. Raises InvalidDocument if there is none."""
    kinds = [
        each
        for name, each in vars(module).items()
        if isinstance(each, type)
        and not name.startswith("_")
        and f"{each.__module__}.".startswith(f"{module.__name__}.")
        and any(hasattr(each, part) for part in _PARTS)
    ]
    if not kinds:
        text = f"has no verb: no class with {', '.join(_PARTS)} whose name does not begin with _"
        raise InvalidDocument(Problem(file, 0, key, text, _SEE))
    return [*dict.fromkeys(kinds)]


def _checked(found: _Class) -> OwnVerb:
    """Raises InvalidDocument with everything that is wrong with the class."""
    problems = [*_wrong_attributes(found)]
    verb = _called(found, found.kind, "cannot be made without arguments", problems)
    problems += _wrong_parts(found, verb)
    if not problems and hasattr(found.kind, "rehearsed"):
        text = "rehearsed cannot be called without arguments: make it a @classmethod"
        stand_in = _called(found, found.kind.rehearsed, text, problems, member="rehearsed")
        problems += [
            found.problem(f"what it returns: {wrong.text}", wrong.hint, member="rehearsed")
            for wrong in _wrong_parts(found, stand_in)
        ]
    if problems:
        raise InvalidDocument(*problems)
    return OwnVerb(verb)


def _called(
    found: _Class, make: Callable[[], Any], otherwise: str, problems: list[Problem], *, member: str = ""
) -> Any:
    """What `make` returns; None, and one problem more, if it raises."""
    try:
        return make()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as while a file loads it may raise anything; it is reported
        problems.append(found.problem(f"{otherwise}: {error!r}", member=member))
        return None


def _wrong_attributes(found: _Class) -> Iterator[Problem]:
    kind = found.kind
    name = getattr(kind, "name", None)
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        yield found.problem(f"is {name!r}, and no name like asset.mark", member="name")
    if not hasattr(kind, "target"):
        yield found.problem("is missing", "a ComponentKind, or None for anything", member="target")
    elif not isinstance(kind.target, ComponentKind | None):
        text = f"is {kind.target!r}, neither a ComponentKind nor None"
        yield found.problem(text, member="target")
    for flag in ("disrupts", "keeps_work_away"):
        if not isinstance(getattr(kind, flag, None), bool):
            yield found.problem("is missing, or neither True nor False", member=flag)
    yield from _wrong_arguments(found)


def _wrong_arguments(found: _Class) -> Iterator[Problem]:
    arguments = getattr(found.kind, "Arguments", None)
    if not (isinstance(arguments, type) and issubclass(arguments, Section)):
        yield found.problem("is missing, or no subclass of Section", member="Arguments")
        return
    try:
        arguments.model_json_schema(by_alias=True)
    except Exception as error:  # noqa: BLE001 - pydantic's and the author's own types fail in many ways; it is reported
        yield found.problem(f"cannot be described in a schema: {error}", member="Arguments")


def _wrong_parts(found: _Class, verb: object) -> Iterator[Problem]:
    """What is wrong with the four methods of an instance; nothing, if there is none."""
    if verb is None:
        return
    for part, third in _PARTS.items():
        method = getattr(verb, part, None)
        if not callable(method):
            yield found.problem(f"{part} is missing, or no method", member=part)
        elif not _takes_three(method):
            yield found.problem(f"{part} does not take (self, arguments, target, {third})", member=part)
        elif inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method):
            yield found.problem(f"{part} is no plain function: it must return its outcome", member=part)


def _takes_three(method: Callable[..., object]) -> bool:
    try:
        inspect.signature(method).bind(None, None, None)
    except (TypeError, ValueError):
        return False
    return True


def _check_names(found: Iterable[_Class], taken: Collection[str]) -> None:
    """Raises InvalidDocument for each name that is healer's own, or that another one has already."""
    by_name: dict[str, _Class] = {}
    problems = []
    for each in found:
        name: str = each.kind.name
        if name in taken:
            problems.append(each.problem(f"{name} is a verb of healer's own", "choose another name", member="name"))
        elif name in by_name:
            other = by_name[name]
            text = f"{name} is also {other.kind.__name__} in {other.file}"
            problems.append(each.problem(text, "choose another name", member="name"))
        by_name[name] = each
    if problems:
        raise InvalidDocument(*problems)
