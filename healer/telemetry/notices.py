"""Notices: what other systems found by their own rules and told us, and how much of it still counts.

A notice is the news of a change and not a measurement. Alertmanager tells that an alert fires, tells it again every
`repeat_interval` (four hours, unless configured), and tells once that it is resolved. That last word is lost where
somebody silences the alert before it ends, where Alertmanager forgets, or where its webhook is cut short
(`max_alerts`). And a rule is resolved also when the series that it looks at have vanished. So

* the newest word of an alert counts, for `expires_after`, or until the end that it names itself;
* what was firing, and was neither repeated nor resolved by then, is unknown: its silence is not health;
* what was resolved is healthy as long as our own telemetry sees the component: the absence of data is not health
  either. A component that no telemetry of ours covers is taken at the other system's word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from healer.documents import nearest
from healer.domain.component import Component
from healer.domain.finding import Evidence, FailureMode, Finding, Findings, Health, Report
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.domain.reading import Labels
from healer.telemetry.identity import TopologyRules
from healer.telemetry.located import Located, component_of

MODE_LABEL = "healer_failure_mode"
MOST_HELD = 50_000
_RESOLVED_WITHIN = timedelta(minutes=6)  # Alertmanager's group_interval, 5 min by default, and a rule's evaluation
_SIGNAL = "ALERTS{alertname="  # the series in which Prometheus itself keeps what fires
_SEVERE = frozenset({"critical", "page"})
# Grafana's own, for a rule that it cannot evaluate; they carry the labels of that rule.
_BLIND = frozenset({"DatasourceNoData", "DatasourceError"})
_MODES = {str(mode): mode for mode in FailureMode}
_LONGEST_NAME = 256
_LONGEST_REASON = 300
_LONGEST_LINK = 1000
_MOST_EVIDENCE = 5
_MOST_REMARKS = 1000
_MOST_NEWS = 20


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert as it was told.

    Attributes:
        fingerprint: the same for the same alert.
        ends_at: when it ended, or is to end if it is not told again; None where that is not said.
        link: to the rule that found it.
    """

    fingerprint: str
    firing: bool
    labels: Labels
    annotations: Mapping[str, str]
    starts_at: datetime | None
    ends_at: datetime | None
    link: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Attributes:
    group: what its sender calls the alerts that it tells of together.
    left_out: how many alerts of the group its sender has cut off.
    """

    group: str
    notices: tuple[Notice, ...]
    left_out: int = 0


class Fate(StrEnum):
    """What became of a notice."""

    HELD = "held"
    UNMAPPED = "unmapped"  # no failure mode is configured for it, as for most alerts of any Alertmanager
    UNKNOWN_MODE = "unknown_mode"  # it names a failure mode that does not exist
    NAMELESS = "nameless"  # its labels name no component
    BLIND = "blind"  # its sender cannot evaluate the rule
    OUTDATED = "outdated"  # it tells of the end of an earlier time
    NO_ROOM = "no_room"


@dataclass(frozen=True, slots=True)
class Taken:
    """Attributes:
    news: what was said of these notices and had not been said before, to be logged.
    """

    fates: Mapping[Fate, int]
    news: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Word:
    """The newest word of one alert.

    Attributes:
        health: DEGRADED or FAILED while it fires, HEALTHY once it is resolved.
        counts_until: afterwards it is unknown.
    """

    mode: FailureMode
    component: Component
    health: Health
    name: str
    summary: str
    link: str
    starts_at: datetime
    counts_until: datetime

    @property
    def firing(self) -> bool:
        return self.health is not Health.HEALTHY


@dataclass(frozen=True, slots=True)
class _Remark:
    """Attributes:
    warns: whether it is to be shown as long as it is true, and not only to be logged once.
    """

    text: str
    until: datetime
    warns: bool


class HeldNotices:
    """Attributes:
    told: how many notices met which fate since the process started.
    """

    def __init__(
        self,
        rules: TopologyRules,
        *,
        modes: Mapping[str, FailureMode],
        expires_after: timedelta = timedelta(hours=5),
        most: int = MOST_HELD,
    ) -> None:
        self.told: Counter[Fate] = Counter()
        self._rules = rules
        self._modes = modes
        self._expires_after = expires_after
        self._most = most
        self._words: dict[str, _Word] = {}  # by fingerprint; the one that was heard longest ago comes first
        self._remarks: dict[str, _Remark] = {}
        self._recalled: dict[str, tuple[Report, datetime]] = {}

    def take(self, delivery: Delivery, now: datetime) -> Taken:
        """Take a delivery in. Doing so twice changes nothing."""
        fates: Counter[Fate] = Counter()
        said: dict[str, tuple[Fate, str]] = {}
        self._forget(now)
        for notice in delivery.notices:
            fate, text = self._take(notice, now)
            fates[fate] += 1
            # That there is no room is true of all of them, and not put right by the next that finds some.
            subject = str(fate) if fate is Fate.NO_ROOM else _subject_of(notice)
            if text or subject not in said:
                said[subject] = fate, text
        self.told += fates
        news = [
            text
            for subject, (fate, text) in said.items()
            if self._note(subject, text, now, warns=fate is not Fate.UNMAPPED)
        ]
        group = _clean(delivery.group, _LONGEST_NAME)
        short = f"{delivery.left_out} alerts of {group} were cut off by their sender; its webhook needs max_alerts: 0"
        if self._note(f"group {group}", short if delivery.left_out else "", now):
            news.append(short)
        return Taken(fates, tuple(news[:_MOST_NEWS]))

    def recall(self, incidents: Iterable[Incident], now: datetime) -> None:
        """After a start: what live incidents rest on. It counts on as it was heard last, for else a detector that never
        saw it would have it end; and if nothing more is heard, it lapses as any other word.
        """
        for incident in incidents:
            if any(evidence.signal.startswith(_SIGNAL) for evidence in incident.evidence):
                sick = incident.health if incident.healthy_since is None else Health.UNKNOWN
                last = Report(incident.failure_mode, incident.component, sick)
                self._recalled[last.key] = last, now + self._expires_after

    def findings(self, frame: Frame, now: datetime) -> Findings:
        """What fires, as findings; and a report of every component of which the newest word says anything at all."""
        self._forget(now)
        located = Located(frame, [word.component for word in self._words.values()])
        groups: dict[str, tuple[Component, list[_Word]]] = {}
        for word in self._words.values():
            component = located.component(word.component)
            groups.setdefault(f"{word.mode}@{component.key}", (component, []))[1].append(word)
        self._recalled = {key: last for key, last in self._recalled.items() if key not in groups}
        found: list[Finding] = []
        reports = [*self._recalled_reports(now)]
        for component, words in groups.values():
            firing = sorted((word for word in words if word.firing and now < word.counts_until), key=_worst_first)
            if firing:
                found.append(_finding(component, firing))
                reports.append(Report(words[0].mode, component, firing[0].health))
            elif any(word.firing for word in words):
                reports.append(Report(words[0].mode, component, Health.UNKNOWN))
            elif located.is_seen(component):
                reports.append(Report(words[0].mode, component, Health.HEALTHY))
        return Findings(tuple(found), reports=tuple(reports))

    def warnings(self, now: datetime) -> tuple[str, ...]:
        """What is wrong with what is told, and of what nothing is told any more."""
        shown = dict.fromkeys(r.text for r in self._remarks.values() if r.warns and now < r.until)
        said = [*shown][:_MOST_NEWS]
        lapsed = [word for word in self._words.values() if word.firing and now >= word.counts_until]
        if lapsed:
            said.append(
                f"{len(lapsed)} alerts fired and were then neither repeated nor resolved, such as {lapsed[0].name} of "
                f"{lapsed[0].component}: they are unknown now; telemetry.alerts.expires_after must be longer than "
                "Alertmanager's repeat_interval, and its webhook needs send_resolved: true"
            )
        return tuple(said)

    def _recalled_reports(self, now: datetime) -> Iterator[Report]:
        for last, until in self._recalled.values():
            if now >= until:
                yield replace(last, health=Health.UNKNOWN)
            elif last.health is not Health.UNKNOWN:
                yield last

    def _take(self, notice: Notice, now: datetime) -> tuple[Fate, str]:
        """Its fate, and what there is to say about that."""
        subject, wanted = _subject_of(notice), _clean(notice.labels.get(MODE_LABEL, ""), 80)
        if notice.labels.get("alertname") in _BLIND:
            return Fate.BLIND, f"{subject}: the rule cannot be evaluated" if notice.firing else ""
        mode = _MODES.get(wanted) if wanted else self._modes.get(notice.labels.get("alertname", ""))
        if mode is None and wanted:
            hint = nearest(wanted, _MODES) or f"known: {', '.join(_MODES)}"
            return Fate.UNKNOWN_MODE, f"{subject} names a failure mode that is none: {wanted!r} ({hint})"
        if mode is None:
            return Fate.UNMAPPED, f"{subject} has no failure mode: label {MODE_LABEL}, or telemetry.alerts.modes"
        component = component_of(notice.labels, mode, self._rules)
        if component is None:
            return Fate.NAMELESS, f"{subject} is for {mode}, but its labels name no GPU, node, rack or job"
        return self._hold(notice, self._word(notice, mode, component, now))

    def _word(self, notice: Notice, mode: FailureMode, component: Component, now: datetime) -> _Word:
        severe = notice.labels.get("severity", "").lower() in _SEVERE
        sick = Health.FAILED if severe else Health.DEGRADED
        until = now + self._expires_after
        if notice.firing and notice.ends_at is not None and notice.ends_at > now:
            until = min(until, notice.ends_at)
        summary = notice.annotations.get("summary") or notice.annotations.get("description") or ""
        return _Word(
            mode=mode,
            component=component,
            health=sick if notice.firing else Health.HEALTHY,
            name=_subject_of(notice),
            summary=_clean(summary, _LONGEST_REASON),
            link=notice.link if notice.link.isprintable() and len(notice.link) <= _LONGEST_LINK else "",
            starts_at=notice.starts_at or now,
            counts_until=until,
        )

    def _hold(self, notice: Notice, word: _Word) -> tuple[Fate, str]:
        held = self._words.pop(notice.fingerprint, None)
        if held is not None and _tells_of_earlier(notice, held):
            self._words[notice.fingerprint] = held
            return Fate.OUTDATED, ""
        if held is None and len(self._words) >= self._most and not self._make_room():
            return Fate.NO_ROOM, f"alerts were left out: {self._most} that fire are held already; send fewer here"
        self._words[notice.fingerprint] = word
        return Fate.HELD, ""

    def _make_room(self) -> bool:
        """Give up a part of what does not fire, the oldest first; False if everything fires."""
        quiet = [fingerprint for fingerprint, word in self._words.items() if not word.firing]
        for fingerprint in quiet[: self._most // 16 + 1]:
            del self._words[fingerprint]
        return bool(quiet)

    def _forget(self, now: datetime) -> None:
        """What was resolved is forgotten when it no longer counts; what was firing is unknown for as long again."""
        for fingerprint, word in [*self._words.items()]:
            if now >= word.counts_until + (self._expires_after if word.firing else timedelta(0)):
                del self._words[fingerprint]
        self._remarks = {key: r for key, r in self._remarks.items() if now < r.until or not r.warns}

    def _note(self, subject: str, text: str, now: datetime, *, warns: bool = True) -> bool:
        """Keep, renew or (without a text) drop the remark on a subject; whether it is a new one."""
        before = self._remarks.pop(subject, None)
        if not text:
            return False
        if len(self._remarks) >= _MOST_REMARKS:
            del self._remarks[next(iter(self._remarks))]
        self._remarks[subject] = _Remark(text, now + self._expires_after, warns)
        return before is None or before.text != text


def _finding(component: Component, firing: Sequence[_Word]) -> Finding:
    """Of the alerts that fire for one component and mode, the worst first."""
    worst = firing[0]
    more = f" (and {len(firing) - 1} more alerts)" if len(firing) > 1 else ""
    return Finding(
        failure_mode=worst.mode,
        component=component,
        health=worst.health,
        score=1.0,
        reason=(f"{worst.name}: {worst.summary}" if worst.summary else f"{worst.name} fires") + more,
        evidence=tuple(
            Evidence(f'{_SIGNAL}"{word.name}"}}', 1.0, "", word.starts_at, word.link)
            for word in firing[:_MOST_EVIDENCE]
        ),
        lags=_RESOLVED_WITHIN,
    )


def _worst_first(word: _Word) -> tuple[int, str, datetime, str]:
    return -word.health, word.name, word.starts_at, word.summary


def _tells_of_earlier(notice: Notice, held: _Word) -> bool:
    """Whether it tells of the end of an earlier time, late: the alert fires anew since."""
    return held.firing and not notice.firing and notice.ends_at is not None and notice.ends_at < held.starts_at


def _subject_of(notice: Notice) -> str:
    name = notice.labels.get("alertname", "")
    rule = f" {notice.labels.get('rulename', '')}" if name in _BLIND else ""
    return _clean(name + rule, _LONGEST_NAME).replace('"', "'") or "an alert without a name"


def _clean(text: str, longest: int) -> str:
    """On one line, without control characters, and of bounded length."""
    text = text[: 4 * longest]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
