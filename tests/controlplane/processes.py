"""Programs that tests start and that never outlive the tests.

Each program leads its own process group, so that stopping it takes its children along, and it asks the kernel to be
killed when the thread that started it dies: a pytest that is itself killed leaves nothing running behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TAIL_LINES = 25


@dataclass(frozen=True, slots=True)
class Program:
    """One started program and the file that takes both its outputs."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def has_exited(self) -> bool:
        return self.process.poll() is not None

    def tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        return f"the last lines of {self.log.name}:\n" + "\n".join(f"  {line}" for line in lines)

    def kill(self) -> None:
        """Kills the whole group at once: nothing these programs hold is worth a graceful end."""
        if not self.has_exited():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(argv: Sequence[str | Path], *, setpriv: Path, folder: Path) -> Program:
    """Starts `argv` in `folder`. Call it from a thread that lives as long as the program shall."""
    name = Path(argv[0]).name
    log = folder / f"{name}.log"
    # setpriv arranges the death signal and then becomes the program; a preexec_fn is unsafe beside threads.
    command = [setpriv, "--pdeathsig", "KILL", "--", *argv]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    return Program(name=name, process=process, log=log)
