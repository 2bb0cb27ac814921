"""Programs that verbs run: by their arguments and never through a shell, within a timeout that all they start keeps."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import IO

from healer.errors import Rejected, Unavailable

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended; what its status means is its own affair.

    Attributes:
        output, errors: what it wrote, of each the first MiB.
    """

    status: int
    output: str
    errors: str


def run_program(*argv: str, timeout: timedelta) -> Ended:
    """Run it to its end. Raises Rejected if it cannot be started, Unavailable if it does not end in time: it is killed
    with all that it started, and what it has done by then is not known.
    """
    # Files, not pipes: a child that outlives it would hold a pipe open, and be waited for.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        limit_s = timeout.total_seconds()
        try:
            process = subprocess.Popen(  # noqa: S603 - the author of the verb says what is run
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise Rejected(argv[0], f"cannot be started: {error}") from error
        with process:
            try:
                status = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                raise Unavailable(argv[0], f"had not ended after {limit_s:g} s; it was killed") from None
            finally:
                _kill_all(process)
        return Ended(status, _written(output), _written(errors))


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """Its session is its own: what it has left running ends, too."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(_MOST_BYTES).decode(errors="replace")
