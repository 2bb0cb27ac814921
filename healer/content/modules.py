"""Python content, loaded by path: what is missing or of the wrong kind is named with its file."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from healer.documents import nearest
from healer.domain.playbook import Scalar
from healer.errors import InvalidDocument, Problem


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
    except Exception as error:  # content may raise anything at all while it loads; it is reported, never swallowed
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = frames[-1].lineno or 0 if frames else 0
        raise InvalidDocument(Problem(str(path), line, "", f"cannot be loaded: {error!r}")) from error
    return module


def require(module: ModuleType, path: Path, *names: str) -> None:
    """Raises InvalidDocument naming everything that the file lacks."""
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise InvalidDocument(*(Problem(str(path), 0, name, "is missing", "see healer.sdk") for name in missing))


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
        if not (isinstance(value, wanted) or (wanted is float and isinstance(value, int))):
            text = f"{value!r} is not {wanted.__name__}"
            problems.append(Problem("config.yaml", 0, f"{key}.{name}", text))
    if problems:
        raise InvalidDocument(*problems)
    return module.Settings(**overrides)
