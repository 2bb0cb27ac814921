"""Slurm's own programs: by argv and without a shell, each within its timeout, and never an answer that is only empty.

With its controller gone `squeue --json` ends with status 0 and an empty list; what it could not do stands in `errors`.
And what people set in their environment for convenience (SQUEUE_USERS, SLURM_TOPO_LEN, ...) would cut lists short.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from healer.decoding import decode
from healer.errors import Unavailable

NAME = "slurm"
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"})
_CUT = ("SLURM_", "SQUEUE_", "SINFO_", "SCONTROL_")


class SlurmError(msgspec.Struct, frozen=True):
    """One thing that a program could not do."""

    description: str | None = None
    error: str | None = None

    def __str__(self) -> str:
        return self.description or self.error or "an error without words"


class _Answer(Protocol):
    @property
    def errors(self) -> Sequence[SlurmError]: ...


Answer = TypeVar("Answer", bound=_Answer)


class SlurmPrograms:
    """Attributes:
    folder: where the programs are; None for the PATH.
    config: slurm.conf; None for where Slurm itself looks.
    timeout_s: for each program. Slurm's own (MessageTimeout) is 10 s, and tried again.
    """

    def __init__(self, *, folder: Path | None = None, config: Path | None = None, timeout_s: float = 30.0) -> None:
        self._folder = folder
        self._config = config
        self._timeout_s = timeout_s

    def version(self) -> tuple[int, int]:
        """Of the programs, as (year, month). Raises Unavailable."""
        said = self.run("scontrol", "--version").decode(errors="replace")
        found = re.search(r"(\d+)\.(\d+)", said)
        if found is None:
            raise Unavailable(NAME, f"scontrol --version says {said.strip()!r}, and no version")
        return int(found[1]), int(found[2])

    def ask(self, kind: type[Answer], program: str, *arguments: str) -> Answer:
        """The program's JSON. Raises Unavailable for anything but a whole answer without errors."""
        said = self.run(program, *arguments)
        called = " ".join((program, *arguments))
        try:
            answer = decode(said, kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable(NAME, f"{called} does not say what Slurm says ({error})") from error
        if answer.errors:
            raise Unavailable(NAME, f"{called} fails: {'; '.join(map(str, answer.errors))}; check its controller")
        return answer

    def run(self, program: str, *arguments: str) -> bytes:
        """What it writes. Raises Unavailable when it is missing, too slow, or fails."""
        called = " ".join((program, *arguments))
        try:
            done = subprocess.run(  # noqa: S603  the programs are Slurm's, the arguments ours
                [self._path(program), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=self._environment(),
                timeout=self._timeout_s,
                check=False,
            )
        except FileNotFoundError:
            raise Unavailable(NAME, f"{program} is not on this machine; install Slurm's client programs") from None
        except subprocess.TimeoutExpired:
            raise Unavailable(NAME, f"{called} took more than {self._timeout_s:g} s") from None
        except OSError as error:
            raise Unavailable(NAME, f"{program} cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            words = " ".join(done.stderr.decode(errors="replace").split()) or "says nothing"
            raise Unavailable(NAME, f"{called} ended with status {done.returncode}: {words}")
        return done.stdout

    def _path(self, program: str) -> str:
        return program if self._folder is None else str(self._folder / program)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in _KEPT or not name.startswith(_CUT)}
        config = {} if self._config is None else {"SLURM_CONF": str(self._config)}
        return {**kept, **config, "LC_ALL": "C"}
