"""A program that serves HTTP on a port of this machine for as long as a test lasts."""

from __future__ import annotations

import os
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.controlplane import processes

_PATIENCE_S = 60.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class RunningServer:
    """Started on entry, ready once /-/ready answers, killed on exit.

    Attributes:
        folder: its own, gone when it stops.
        argv: to be set by the class that knows the program, before entry.
    """

    def __init__(self, name: str, setpriv: Path) -> None:
        self._name = name
        self._setpriv = setpriv
        self._temporary = tempfile.TemporaryDirectory(prefix="healer-part-", ignore_cleanup_errors=True)
        self._port = _free_port()
        self._program: processes.Program | None = None
        self.folder = Path(self._temporary.name)
        self.argv: list[str | Path] = []

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._program = processes.start(self.argv, setpriv=self._setpriv, folder=self.folder)
        try:
            self.wait_until(self._is_ready, "it is ready")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Polls. Fails the test, with the end of the log, when it takes too long or when the program has exited."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert self._program is not None
            if self._program.has_exited() or time.monotonic() > deadline:
                pytest.fail(f"waited for {self._name} until {what}; {self._program.tail()}", pytrace=False)
            time.sleep(0.05)

    def cpu_s(self) -> float:
        """The CPU seconds that it has used so far, of all its threads."""
        assert self._program is not None
        after_name = Path(f"/proc/{self._program.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        user, system = after_name.split()[11:13]
        return (int(user) + int(system)) / _TICKS_PER_S

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _stop(self) -> None:
        if self._program is not None:
            self._program.kill()
        self._temporary.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
