"""A real VictoriaMetrics (single node) for tests, or the one line that says how to get it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.realparts.programs import absent, fetched, installed
from tests.realparts.server import RunningServer


@dataclass(frozen=True, slots=True)
class Programs:
    victoria_metrics: Path
    setpriv: Path


def find_victoriametrics() -> Programs | None:
    program, setpriv = fetched("victoria-metrics", "victoria-metrics"), installed("setpriv")
    return None if program is None or setpriv is None else Programs(program, setpriv)


def require() -> Programs:
    """Its programs; without them the test is skipped, or fails if HEALER_TEST_REQUIRE names `victoriametrics`."""
    return find_victoriametrics() or absent("victoriametrics")


class RunningVictoriaMetrics(RunningServer):
    """Scrapes what `scrape_configs` says every `interval`, keeps ten years, and takes remote write at /api/v1/write.

    Attributes:
        scrape_configs: YAML below `scrape_configs:`, as a list; none means that it scrapes nothing.
        arguments: further flags, such as `-search.latencyOffset=1s`.
    """

    def __init__(
        self, programs: Programs, *, scrape_configs: str = "", interval: str = "1s", arguments: Sequence[str] = ()
    ) -> None:
        super().__init__("VictoriaMetrics", programs.setpriv)
        self.argv = [
            programs.victoria_metrics,
            f"-storageDataPath={self.folder / 'data'}",
            "-retentionPeriod=10y",
            f"-httpListenAddr={self.address}",
            "-loggerLevel=WARN",
            *arguments,
        ]
        if scrape_configs:
            config = self.folder / "scrape.yml"
            text = f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\nscrape_configs:\n"
            config.write_text(text + textwrap.indent(scrape_configs, "  ") + "\n", encoding="utf-8")
            self.argv.append(f"-promscrape.config={config}")
