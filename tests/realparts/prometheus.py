"""A real Prometheus for tests, or the one line that says how to get it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.controlplane import processes

_HOW_TO_GET = {"prometheus": "apt-get install prometheus"}
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Programs:
    prometheus: Path
    promtool: Path
    setpriv: Path


def find_prometheus() -> Programs | None:
    found = [shutil.which(name) for name in ("prometheus", "promtool", "setpriv")]
    return None if None in found else Programs(*(Path(str(path)) for path in found))


def require(part: str) -> Programs:
    """The programs of `part`; without them the test is skipped, or fails if HEALER_TEST_REQUIRE names the part."""
    found = find_prometheus()
    if found is not None:
        return found
    text = f"no {part} on this machine; to get it: {_HOW_TO_GET[part]}"
    if part in re.split(r"[,\s]+", os.environ.get("HEALER_TEST_REQUIRE", "")):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


class RunningPrometheus:
    """Scrapes what `scrape_configs` says every second, and keeps ten years.

    Attributes:
        scrape_configs: YAML below `scrape_configs:`, as a list.
        blocks: a folder of ready blocks to start with, as promtool makes them; it is written to.
    """

    def __init__(self, programs: Programs, *, scrape_configs: str = "[]", blocks: Path | None = None) -> None:
        self._programs = programs
        self._folder = tempfile.TemporaryDirectory(prefix="healer-prometheus-", ignore_cleanup_errors=True)
        self._data = blocks if blocks is not None else Path(self._folder.name) / "data"
        self._config = Path(self._folder.name) / "prometheus.yml"
        self._config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            f"scrape_configs:\n{textwrap.indent(scrape_configs, '  ')}\n",
            encoding="utf-8",
        )
        self._port = _free_port()
        self._program: processes.Program | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        argv: list[str | Path] = [
            self._programs.prometheus,
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self._data}",
            "--storage.tsdb.retention.time=10y",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]
        self._program = processes.start(argv, setpriv=self._programs.setpriv, folder=Path(self._folder.name))
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
        """Polls. Fails the test, with the end of the log, when it takes too long or when Prometheus has exited."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert self._program is not None
            if self._program.has_exited() or time.monotonic() > deadline:
                pytest.fail(f"waited for Prometheus until {what}; {self._program.tail()}", pytrace=False)
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _stop(self) -> None:
        if self._program is not None:
            self._program.kill()
        self._folder.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
