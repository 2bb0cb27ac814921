"""Telemetry straight from the exporters, for fleets without a Prometheus, and as a second witness beside one.

Labels come out as Prometheus would have stored them (honor_labels off), so that everything behind a reading is the same
for both. A page is read line by line: one bad line costs that line, and every label block is parsed once, then known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
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
_NAME = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\s*(\{)|\s+)")
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
        """One page of every target. Raises Unavailable when not one shows a GPU, or when there are no targets."""
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
        if merged.keys().isdisjoint(SPELLINGS):
            why = warnings[0] if warnings else "their pages have no metric of a GPU; check the targets"
            raise Unavailable(self.name, f"none of {len(targets)} targets shows a GPU: {why}")
        return Reading(at, _columns(merged), tuple(sorted(silent)), tuple(warnings))

    def _targets(self, at: datetime) -> tuple[tuple[_Target, ...], list[str]]:
        """The targets as of `at`, and a warning if they are those of an earlier discovery."""
        if self._discovery is None:
            return self._fixed, []
        if self._discovered_at is None or abs(at - self._discovered_at) >= _DISCOVERY_HOLDS_FOR:
            try:
                self._found = self._discover(self._discovery)
            except Unavailable as error:
                if self._discovered_at is None:
                    raise
                return self._fixed + self._found, [f"{error}; the targets found earlier are used"]
            self._discovered_at = at
        return self._fixed + self._found, []

    def _discover(self, url: str) -> tuple[_Target, ...]:
        component = f"service discovery {redacted(url)}"
        answer = self._get(url, _DISCOVERY_LIMIT_BYTES, component=component)
        try:
            groups = msgspec.json.decode(answer.body, type=list[_TargetGroup])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Unavailable(component, f"answered with something else than target groups: {error}") from error
        found = (_target(address, group.labels) for group in groups for address in group.targets)
        # A target that stays keeps what is known of its page.
        before = {(target.url, target.name): target for target in self._found}
        same = ((target, before.get((target.url, target.name))) for target in found)
        return tuple(old if old == target and old is not None else target for target, old in same)

    def _page(self, target: _Target, at: datetime) -> Page | Unavailable:
        component = f"exporter {target.name}"
        try:
            answer = self._get(target.url, _PAGE_LIMIT_BYTES, component=component)
        except Unavailable as error:
            return error
        text = answer.body.decode("utf-8", errors="replace")
        page = read_page(text, at, target.labels, wanted=self._wanted, known=target.known)
        if page.lines:
            return page
        what = f"something else than metrics: {page.bad}" if page.bad else "an empty page; it may be starting"
        return Unavailable(component, f"answered with {what}")

    def _get(self, url: str, limit_bytes: int, *, component: str) -> Answer:
        bounds = Bounds(self._timeout_s, limit_bytes)
        answer = exchange(self._session, requests.Request("GET", url), bounds, component=component)
        if answer.status != requests.codes.ok:
            raise Unavailable(component, f"answered with status {answer.status}; check its log")
        return answer


def parse_page(text: str, at: datetime, extra_labels: Labels) -> tuple[Column, ...]:
    """All metrics of a page that was scraped at `at`, with a target's labels attached; lines without sense left out."""
    return _columns(read_page(text, at, extra_labels, wanted=None, known={}).metrics)


def read_page(
    text: str, at: datetime, extra_labels: Labels, *, wanted: frozenset[str] | None, known: dict[str, Labels]
) -> Page:
    """The `wanted` metrics of a page, all if None. `known` is kept between the pages of one target."""
    metrics: dict[str, _Samples] = {}
    now, lines, bad = at.timestamp(), 0, ""
    blocks: dict[str, Labels] = {}
    for line in text.split("\n"):  # splitlines() would also cut inside labels
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            name, block, value, time = _split(stripped, now)
            if wanted is None or name in wanted:
                labels = blocks.get(block)
                if labels is None:
                    labels = known.get(block) or attached(_parsed(block), extra_labels)
                    blocks[block] = labels
                samples = metrics.setdefault(name, ([], [], []))
                samples[0].append(labels)
                samples[1].append(value)
                samples[2].append(time)
        except ValueError:
            bad = bad or repr(stripped[:80])
        else:
            lines += 1
    known.clear()  # labels of pods that are gone would stay for ever
    known.update(blocks)
    return Page(metrics, lines, bad)


def attached(scraped: Labels, target: Labels) -> Labels:
    """A series' labels with its target's, which win: what they displace becomes `exported_...`. Empty is absent."""
    labels = {name: value for name, value in scraped.items() if value}
    clashes = {name: labels.pop(name) for name in sorted(target, key=len) if name in labels}
    labels.update(target)
    for clash, value in clashes.items():
        name = f"exported_{clash}"
        while name in labels:
            name = f"exported_{name}"
        labels[name] = value
    return labels


def _split(line: str, now: float) -> tuple[str, str, float, float]:
    """Name, label block, value and unix time of a line. Raises ValueError."""
    start = _NAME.match(line)
    if start is None or len(line) > _LINE_LIMIT:
        raise ValueError(line)
    name, opening = start.groups()
    inside, brace, tail = line[start.end() :].rpartition("}") if opening else ("", "", line[start.end() :])
    if brace != ("}" if opening else "") or "_" in tail:
        raise ValueError(line)
    value, *stamp = tail.split() or [""]
    if len(stamp) > 1:
        raise ValueError(line)
    # An exporter whose clock is ahead cannot make a sample newer than the moment it was read.
    return name, inside, float(value), min(_seconds(stamp[0]), now) if stamp else now


def _seconds(milliseconds: str) -> float:
    seconds = float(milliseconds) / 1000
    if not math.isfinite(seconds):
        raise ValueError(milliseconds)
    return seconds


def _parsed(block: str) -> Labels:
    """What stands between the braces. Raises ValueError."""
    if not block:
        return {}
    families = list(text_string_to_metric_families(f"x{{{block}}} 0"))
    samples = [sample for family in families for sample in family.samples]
    # A stray brace moves the end of the labels: then the value is not the one that was put there.
    if len(samples) != 1 or samples[0].name != "x" or samples[0].value != 0 or samples[0].timestamp is not None:
        raise ValueError(block)
    return dict(samples[0].labels)


def _target(address: str, labels: Labels) -> _Target:
    """A target from its address, or URL, and the labels that a discovery gave it."""
    scheme, _, rest = address.rpartition("://")
    scheme = labels.get("__scheme__") or scheme or "http"
    parts = urlsplit(f"{scheme}://{rest}")
    path = labels.get("__metrics_path__") or parts.path or "/metrics"
    given = {name.removeprefix("__param_"): value for name, value in labels.items() if name.startswith("__param_")}
    query = "&".join(part for part in (parts.query, urlencode(given)) if part)
    public = {name: value for name, value in labels.items() if value and not name.startswith("__")}
    host = parts.netloc.rpartition("@")[2]
    return _Target(parts._replace(path=path, query=query).geturl(), {"instance": host, **public})


def _merge(into: dict[str, _Samples], metrics: Mapping[str, _Samples]) -> None:
    for name, (labels, values, times) in metrics.items():
        samples = into.setdefault(name, ([], [], []))
        samples[0].extend(labels)
        samples[1].extend(values)
        samples[2].extend(times)


def _columns(metrics: Mapping[str, _Samples]) -> tuple[Column, ...]:
    return tuple(
        Column(name, labels, np.array(values), np.array(times)) for name, (labels, values, times) in metrics.items()
    )
