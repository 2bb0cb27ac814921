"""Python content, loaded by path: what is missing or of the wrong kind is named with its file."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from healer.documents import nearest
from healer.domain.finding import FailureMode
from healer.domain.playbook import Scalar
from healer.domain.signal import Signal
from healer.errors import InvalidDocument, Problem

_S = TypeVar("_S")
_T = TypeVar("_T")


def load_module(path: Path, *, prefix: str) -> ModuleType:
    """Run a content file as a module of its own. Raises InvalidDocument naming the line that failed."""
    name = f"{prefix}_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidDocument(Problem(str(path), 0, "", "not a Python file"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InvalidDocument(Problem(str(path), error.lineno or 0, "", f"syntax error: {error.msg}")) from error
    except (Exception, SystemExit) as error:  # content may raise anything while it loads; reported, never swallowed
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = frames[-1].lineno or 0 if frames else 0
        raise InvalidDocument(Problem(str(path), line, "", f"cannot be loaded: {error!r}")) from error
    return module


def load_each(sources: Iterable[_S], load: Callable[[_S], _T]) -> tuple[_T, ...]:
    """What `load` makes of each source. Raises InvalidDocument with the problems of all of them together."""
    loaded: list[_T] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            loaded.append(load(source))
        except InvalidDocument as error:
            problems += error.problems
    if problems:
        raise InvalidDocument(*problems)
    return tuple(loaded)


def require(module: ModuleType, path: Path, *names: str) -> None:
    """Raises InvalidDocument naming everything that the file lacks, or that is not what it should be."""
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise InvalidDocument(*(Problem(str(path), 0, name, "is missing", "see healer.sdk") for name in missing))
    _check_kinds(module, path)


def _check_kinds(module: ModuleType, path: Path) -> None:
    """Raises InvalidDocument for every name of the content contract that is there and not what it should be."""
    found = vars(module)
    functions = ("detect", "features", "build", "score", "judge")
    problems = [(n, "is not a function") for n in functions if n in found and not callable(found[n])]
    for name, kind in (("MODES", FailureMode), ("READS", Signal), ("REMEMBERS", Signal)):
        given = found.get(name, ())
        if not (isinstance(given, tuple) and all(isinstance(part, kind) for part in given)):
            problems.append((name, f"is not a tuple of {kind.__name__}"))
    settings = found["Settings"]
    if not (isinstance(settings, type) and dataclasses.is_dataclass(settings)):
        problems.append(("Settings", "is not a dataclass"))
    elif any(field.default is dataclasses.MISSING for field in dataclasses.fields(settings)):
        problems.append(("Settings", "has a field without a default"))
    if problems:
        raise InvalidDocument(*(Problem(str(path), 0, name, text, "see healer.sdk") for name, text in problems))


def settings_of(module: ModuleType, overrides: Mapping[str, Scalar], *, path: Path, key: str) -> Any:
    """The module's `Settings` with the deployment's overrides. Raises InvalidDocument: unknown or mistyped."""
    fields = {field.name: field for field in dataclasses.fields(module.Settings)}
    problems = []
    for name, value in overrides.items():
        if name not in fields:
            hint = nearest(name, fields) or f"known: {', '.join(fields)}"
            problems.append(Problem("config.yaml", 0, f"{key}.{name}", f"{path.name} has no such setting", hint))
            continue
        wanted = type(fields[name].default)
        # By exact type: a bool is an int to Python, and no number to people.
        if not (type(value) is wanted or (wanted is float and type(value) is int)):
            text = f"{value!r} is not {wanted.__name__}"
            problems.append(Problem("config.yaml", 0, f"{key}.{name}", text))
    if problems:
        raise InvalidDocument(*problems)
    return module.Settings(**overrides)
