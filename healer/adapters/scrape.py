"""Telemetry straight from the exporters, for fleets without a Prometheus, and as a second witness beside one.

Labels come out as Prometheus would have stored them (honor_labels off), so that everything behind a reading is the same
for both. A page is read line by line: one bad line costs that line, and every label block is parsed once, then known.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlencode, urlsplit

import msgspec
import numpy as np
import requests
from prometheus_client.parser import text_string_to_metric_families
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from healer.adapters.bounded_http import Answer, Bounds, exchange, redacted
from healer.domain.reading import Column, Labels, Reading
from healer.errors import Unavailable
from healer.telemetry.catalogue import SPELLINGS

_CONCURRENT = 64
_PAGE_LIMIT_BYTES = 16 << 20
_DISCOVERY_LIMIT_BYTES = 64 << 20
_DISCOVERY_HOLDS_FOR = timedelta(seconds=60)
_LINE_LIMIT = 1 << 14  # hostile lines cost the parser's time by the square of their length
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\s*")
_ACCEPT = "text/plain;version=0.0.4"

_Samples = tuple[list[Labels], list[float], list[float]]


@dataclass(frozen=True, slots=True)
class Page:
    """One exporter's page.

    Attributes:
        metrics: name -> labels, values, unix times, of the metrics that were wanted.
        lines: how many lines held a sample, of wanted metrics or not.
        bad: the first line that made no sense, or "".
    """

    metrics: Mapping[str, _Samples]
    lines: int
    bad: str


@dataclass(frozen=True, slots=True)
class _Target:
    """Attributes:
    labels: what Prometheus would attach, `instance` among them.
    known: label block -> finished labels, as of the last page.
    """

    url: str
    labels: Labels
    known: dict[str, Labels] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        return self.labels["instance"]


class _TargetGroup(msgspec.Struct):
    """One entry of a service discovery's answer (http_sd)."""

    targets: list[str]
    labels: dict[str, str] = {}


class ScrapeSource:
    """Attributes:
    targets: URLs, or host:port for http on /metrics.
    discovery: the URL of a service discovery in Prometheus's http_sd format, asked again every minute.
    rack_power: the metric that gives watts by rack; nothing here evaluates PromQL.
    """

    name = "scrape"

    def __init__(
        self,
        targets: Sequence[str] = (),
        *,
        discovery: str | None = None,
        timeout_s: float = 5.0,
        rack_power: str = "rack_power_watts",
    ) -> None:
        self._fixed = tuple(_target(url, {}) for url in targets)
        self._found: tuple[_Target, ...] = ()
        self._discovery = discovery
        self._discovered_at: datetime | None = None
        self._wanted = frozenset(SPELLINGS) | {rack_power}
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.headers["Accept"] = _ACCEPT
        pool = HTTPAdapter(pool_maxsize=_CONCURRENT, max_retries=Retry(total=0, read=False))
        self._session.mount("http://", pool)
        self._session.mount("https://", pool)

    def close(self) -> None:
        self._session.close()

    def read(self, at: datetime) -> Reading:
        """One page of every target. Raises Unavailable when no target gave one, or when there are no targets."""
        targets, warnings = self._targets(at)
        if not targets:
            raise Unavailable(self.name, "has no targets; set telemetry.scrape.targets or discovery")
        with ThreadPoolExecutor(min(_CONCURRENT, len(targets))) as pool:
            answers = list(pool.map(lambda target: self._page(target, at), targets))
        merged: dict[str, _Samples] = {}
        silent: list[str] = []
        for target, answer in zip(targets, answers, strict=True):
            if isinstance(answer, Unavailable):
                silent.append(target.name)
                warnings.append(str(answer))
                continue
            if answer.bad:
                warnings.append(f"{target.name}: a line makes no sense and was left out: {answer.bad}")
            _merge(merged, answer.metrics)
        if len(silent) == len(targets):
            raise Unavailable(self.name, f"none of {len(targets)} targets gave a page; the first: {warnings[-1]}")
        return Reading(at, _columns(merged), tuple(sorted(silent)), tuple(warnings))
