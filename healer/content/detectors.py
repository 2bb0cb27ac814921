"""Detectors: one failure family per file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from healer.content.modules import load_each, load_module, require, settings_of
from healer.domain.finding import FailureMode, Findings
from healer.domain.frame import Frame
from healer.domain.playbook import Scalar
from healer.domain.signal import Signal
from healer.errors import InvalidDocument, Problem


@dataclass(frozen=True, slots=True)
class Detector:
    """Attributes:
    remembers: the signals whose hours before the window it compares with.
    detect: the file's function with its settings already given.
    """

    name: str
    modes: tuple[FailureMode, ...]
    reads: tuple[Signal, ...]
    remembers: tuple[Signal, ...]
    detect: Callable[[Frame], Findings]


def load_detectors(
    folder: Path, *, settings: Mapping[str, Mapping[str, Scalar]], disabled: Sequence[str] = ()
) -> tuple[Detector, ...]:
    """Every *.py in the folder. Raises InvalidDocument with the problems of all of them together."""
    if not folder.is_dir():
        raise InvalidDocument(Problem(str(folder), 0, "detectors.path", "no such folder"))
    paths = {path.stem: path for path in sorted(folder.glob("*.py"))}
    strangers = [name for name in (*settings, *disabled) if name not in paths]
    if strangers:
        known = f"known: {', '.join(paths)}"
        raise InvalidDocument(
            *(Problem("config.yaml", 0, f"detectors.{name}", "no such detector", known) for name in strangers)
        )
    wanted = (path for name, path in paths.items() if name not in disabled)
    return load_each(wanted, lambda path: _load(path, settings.get(path.stem, {})))


def _load(path: Path, overrides: Mapping[str, Scalar]) -> Detector:
    module = load_module(path, prefix="detector")
    require(module, path, "MODES", "READS", "Settings", "detect")
    settings = settings_of(module, overrides, path=path, key=f"detectors.settings.{path.stem}")
    remembers = tuple(getattr(module, "REMEMBERS", ()))
    detect = partial(module.detect, settings=settings)
    return Detector(path.stem, tuple(module.MODES), tuple(module.READS), remembers, detect)
