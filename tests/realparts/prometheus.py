"""A real Prometheus for tests, of either major release, or the one line that says how to get it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.realparts.programs import absent, fetched, installed
from tests.realparts.server import RunningServer


@dataclass(frozen=True, slots=True)
class Programs:
    prometheus: Path
    promtool: Path
    setpriv: Path


def find_prometheus(part: str = "prometheus") -> Programs | None:
    """`prometheus` is the system's own (2.42 on Debian 12), `prometheus3` a 3.x."""
    setpriv = installed("setpriv")
    if part == "prometheus3":
        prometheus, promtool = fetched("prometheus", "prometheus"), fetched("prometheus", "promtool")
    else:
        prometheus, promtool = installed("prometheus"), installed("promtool")
    if prometheus is None or promtool is None or setpriv is None:
        return None
    return Programs(prometheus, promtool, setpriv)


def require(part: str) -> Programs:
    """The programs of `part`; without them the test is skipped, or fails if HEALER_TEST_REQUIRE names the part."""
    return find_prometheus(part) or absent(part)


class RunningPrometheus(RunningServer):
    """Scrapes what `scrape_configs` says every `interval`, and keeps ten years.

    Attributes:
        scrape_configs: YAML below `scrape_configs:`, as a list.
        remote_write: YAML below `remote_write:`, as a list.
        blocks: a folder of ready blocks to start with, as promtool makes them; it is written to.
        arguments: further flags, such as `--web.enable-remote-write-receiver` or `--enable-feature=...`.
    """

    def __init__(
        self,
        programs: Programs,
        *,
        scrape_configs: str = "[]",
        remote_write: str = "[]",
        interval: str = "1s",
        blocks: Path | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__("Prometheus", programs.setpriv)
        config = self.folder / "prometheus.yml"
        config.write_text(
            f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\n"
            f"scrape_configs:\n{textwrap.indent(scrape_configs, '  ')}\n"
            f"remote_write:\n{textwrap.indent(remote_write, '  ')}\n",
            encoding="utf-8",
        )
        self.argv = [
            programs.prometheus,
            f"--config.file={config}",
            f"--storage.tsdb.path={blocks or self.folder / 'data'}",
            "--storage.tsdb.retention.time=10y",
            f"--web.listen-address={self.address}",
            "--log.level=warn",
            *arguments,
        ]
