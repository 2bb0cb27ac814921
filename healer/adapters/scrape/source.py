"""Telemetry straight from the exporters, for fleets without a Prometheus, and as a second witness beside one.

Labels and ends of series come out as Prometheus would have stored them (honor_labels off), so that everything behind a
reading is the same for both: a target that does not answer is silent and its series end at once; a target that nobody
names any more takes its series along and is not silent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np

from healer.adapters.http.exchange import Question
from healer.adapters.http.fetching import Fetcher, NotAsked
from healer.adapters.scrape.discovery import Discovery, HttpTargets, Target, TargetKey, TargetSource, key_of
from healer.domain.reading import Reading
from healer.errors import Unavailable
from healer.telemetry.catalogue.signals import SPELLINGS
from healer.telemetry.catalogue.site import READ_METRICS
from healer.telemetry.wire.exposition import LOOKBACK, Exposition, Page, PageReader
from healer.telemetry.wire.series import Floats, Head, Ints

_PAGE_LIMIT_BYTES = 16 << 20
_ACCEPT = "text/plain;version=0.0.4"
_MOST_COMPLAINTS = 20
_BATCH = 1 << 16  # samples; one by one, pages would cost the head as much as reading them does


@dataclass(slots=True, eq=False)
class _Exporter:
    """A target, and what is known of it.

    Attributes:
        question: or why it cannot be asked.
        asked: the number of the read in which it was asked last.
    """

    target: Target
    question: Question | Unavailable
    reader: PageReader
    asked: int = 0
    answers: bool = True


@dataclass(slots=True, eq=False)
class _Batch:
    """What several pages brought, on its way into the head."""

    head: Head
    at: datetime
    _parts: list[tuple[Ints, Floats, Floats]] = field(default_factory=list)
    _ended: list[Ints] = field(default_factory=list)
    _samples: int = 0

    def add(self, page: Page) -> None:
        self._parts.append((page.series, page.values, page.times))
        self.end(page.ended)
        self._samples += len(page.series)
        if self._samples >= _BATCH:
            self.put()

    def end(self, series: Ints) -> None:
        if len(series):
            self._ended.append(series)

    def put(self) -> None:
        if self._parts:
            series, values, times = (np.concatenate(column) for column in zip(*self._parts, strict=True))
            self.head.put(series, values, times, self.at)
        if self._ended:
            self.head.end(np.concatenate(self._ended), self.at)
        self._parts, self._ended, self._samples = [], [], 0


class ScrapeSource:
    """Args:
    targets: URLs, or host:port for http on /metrics.
    discovery: the URL of a service discovery in Prometheus's http_sd form.
    sources: whoever else knows of targets; closed with this.
    timeout_s: for each target, and for what the discoveries may take of a read.
    within_s: for all targets together, our own work not counted; twice the timeout if None.
    rack_power: the metric that gives watts by rack; nothing here evaluates PromQL.
    wanted: the metrics that are read; everything that the catalogue knows if None.
    kept: the names of the labels that are kept; all if None.
    """

    name = "scrape"

    def __init__(
        self,
        targets: Sequence[str] = (),
        *,
        discovery: str | None = None,
        sources: Sequence[TargetSource] = (),
        timeout_s: float = 5.0,
        within_s: float | None = None,
        rack_power: str = "rack_power_watts",
        wanted: Collection[str] | None = None,
        kept: frozenset[str] | None = None,
    ) -> None:
        found_over_http = () if discovery is None else (HttpTargets(discovery, timeout_s=timeout_s),)
        read = frozenset((*(READ_METRICS if wanted is None else wanted), rack_power))
        self._head = Head(read, kept=kept)
        self._exposition = Exposition(self._head, read)
        self._discovery = Discovery(targets, (*found_over_http, *sources), timeout_s=timeout_s)
        self._fetcher = Fetcher(timeout_s=timeout_s, limit_bytes=_PAGE_LIMIT_BYTES)
        self._within_s = 2 * timeout_s if within_s is None else within_s
        self._targets: tuple[Target, ...] = ()
        self._exporters: dict[TargetKey, _Exporter] = {}
        self._reads = 0

    def close(self) -> None:
        self._discovery.close()
        self._fetcher.close()

    def read(self, at: datetime) -> Reading:
        """One page of every target. Raises Unavailable when not one shows a GPU, or when there are no targets."""
        targets, warnings = self._discovery.targets(at)
        if not targets:
            hint = warnings[0] if warnings else "set telemetry.scrape.targets, or who else knows of them"
            raise Unavailable(self.name, f"has no targets; {hint}")
        with self._head.lock:
            batch = _Batch(self._head, at)
            self._meet(targets, batch)
            silent, complaints = self._scrape(batch)
            reading = self._head.reading(at, LOOKBACK)
        warnings += _shortened(complaints) + reading.warnings
        if all(column.metric not in SPELLINGS for column in reading.columns):
            why = warnings[0] if warnings else "their pages have no metric of a GPU; check the targets"
            raise Unavailable(self.name, f"none of {len(targets)} targets shows a GPU: {why}")
        return replace(reading, silent=silent, warnings=warnings)

    def _meet(self, targets: tuple[Target, ...], batch: _Batch) -> None:
        """Get to know the new targets; the series of those that nobody names any more end."""
        if targets is self._targets:
            return
        gone, self._exporters, self._targets = self._exporters, {}, targets
        for target in targets:
            key = key_of(target)
            self._exporters[key] = gone.pop(key) if key in gone else self._exporter(target)
        for exporter in gone.values():
            batch.end(exporter.reader.lost())

    def _exporter(self, target: Target) -> _Exporter:
        component = f"exporter {target.name}"
        question: Question | Unavailable
        try:
            question = Question.of(component, target.url, accept=_ACCEPT)
        except Unavailable as error:
            question = error
        return _Exporter(target, question, self._exposition.target(target.labels, identity=target.url))

    def _scrape(self, batch: _Batch) -> tuple[tuple[str, ...], list[str]]:
        """Who is silent, and what there is to complain about."""
        silent: list[str] = []
        complaints: list[str] = []
        self._reads += 1
        for exporter, answer in self._answers():
            name = exporter.target.name
            if not isinstance(answer, NotAsked):
                exporter.asked = self._reads
            if isinstance(answer, Unavailable):
                batch.end(exporter.reader.lost())
                why = str(answer)
            else:
                page = exporter.reader.take(answer, batch.at)
                batch.add(page)
                complaints += _complaints(name, page)
                why = f"exporter {name}: {page.flaw}" if page.flaw else ""
            exporter.answers = not why
            if why:
                silent.append(name)
                complaints.append(why)
        batch.put()
        return tuple(sorted(silent)), complaints

    def _answers(self) -> Iterator[tuple[_Exporter, bytes | Unavailable]]:
        asked: list[_Exporter] = []
        questions: list[Question] = []
        # Who did not answer last time comes last, whoever has not been asked for longest first: nobody waits for them.
        for exporter in sorted(self._exporters.values(), key=lambda each: 0 if each.answers else 1 + each.asked):
            if isinstance(exporter.question, Unavailable):
                yield exporter, exporter.question
            else:
                asked.append(exporter)
                questions.append(exporter.question)
        for number, answer in self._fetcher.fetch(questions, within_s=self._within_s):
            yield asked[number], answer


def _complaints(name: str, page: Page) -> list[str]:
    complaints = []
    if page.bad:
        complaints.append(f"exporter {name}: a line makes no sense and was left out: {page.bad}")
    if page.repeated:
        complaints.append(f"exporter {name}: {page.repeated} samples repeat a series; of each the first one counts")
    return complaints


def _shortened(complaints: list[str]) -> tuple[str, ...]:
    complaints.sort()
    more = len(complaints) - _MOST_COMPLAINTS
    return (*complaints[:_MOST_COMPLAINTS], *((f"and {more} more of the kind",) if more > 0 else ()))
