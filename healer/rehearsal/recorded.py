"""A recorded run as a playbook's test: the incident as it was found, what ran there, and what else happened to it.

Pure functions on what the journal holds. Names are those of a simulated site; what it cannot play is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from healer.content.playbook_tests import (
    Answer,
    Deed,
    Event,
    Expected,
    PlaybookTest,
    SimulatedFault,
    Site,
    Told,
)
from healer.content.playbooks import WAIT
from healer.domain.approval import ApprovalState
from healer.domain.component import ComponentKind
from healer.domain.finding import FailureMode, Health
from healer.domain.incident import Incident
from healer.domain.run import EffectState, Run
from healer.domain.verdict import Mode
from healer.errors import Rejected
from healer.rehearsal.record import Record
from healer.rehearsal.recorded_site import MOST_GPUS, budgets_of, gpu_of, nodes_of, site_for, workloads_of
from healer.runtime.course import deeds_of
from healer.schema import format_duration
from healer.verb import INTERRUPTED

_SHORTEST, _LONGEST = timedelta(hours=1), timedelta(hours=24)  # of a rehearsal
_SURGE_AT = timedelta(minutes=1)
_TAKEN_BACK = re.compile(r"a person uncordoned (\S+): ")
_TAKEN_OVER = re.compile(r"the cordon of (\S+) is not ours any more")
_HARDLY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Remade:
    """Attributes:
    renamed: nodes and racks, as they were called -> as the simulated site calls them.
    lost: what cannot be reproduced, each in a sentence.
    """

    test: PlaybookTest
    renamed: Mapping[str, str]
    lost: tuple[str, ...]

    def in_site_names(self, text: str) -> str:
        if not self.renamed:
            return text
        names = "|".join(re.escape(name) for name in sorted(self.renamed, key=len, reverse=True))
        return re.sub(rf"(?<![\w./-])(?:{names})(?![\w/-])", lambda found: self.renamed[found.group()], text)


def remade(record: Record, mode: Mode) -> Remade:
    """The test that the run makes, expecting what was recorded. Raises Rejected if no site can be made for it.

    Args:
        mode: that of the deployment; what it was then is not recorded.
    """
    nodes = nodes_of(record)
    surge = record.incident.failure_mode is FailureMode.RACK_POWER_OVER_BUDGET
    site = site_for(record, len(nodes), surge=surge)
    renamed = {name: f"gpu-{number:03d}" for number, name in enumerate(nodes, start=1)}
    renamed |= {rack: "rack-1" for rack in (record.incident.component.rack, record.run.plan.target.rack) if rack}
    lost: list[str] = [f"the site has {site.nodes} nodes in one rack: the budgets are judged on these"]
    test = PlaybookTest(
        name=f"as in {record.run.id} of {record.run.started_at:%Y-%m-%d}",
        site=site,
        workloads=tuple(workloads_of(record, renamed, lost)),
        workload_budgets=tuple(budgets_of(record, lost)),
        incident=None if surge else _told(record.incident, renamed, site, lost, record.began),
        faults=(_surge(record, lost),) if surge else (),
        mode=mode,
        answer=Answer.NOBODY if _unanswered(record) else Answer.APPROVE,
        answer_after=_answer_after(record, lost),
        events=tuple(sorted(_events(record, renamed), key=lambda event: event.at)),
        lasts=min(_LONGEST, max(_SHORTEST, 2 * (_ended(record) - record.began))),
        expect=_expected(record, renamed),
    )
    lost += _not_played(record)
    return Remade(test, renamed, tuple(lost))


# What was found


def _told(incident: Incident, renamed: Mapping[str, str], site: Site, lost: list[str], began: datetime) -> Told:
    where, index = incident.component, gpu_of(incident)
    if where.node is None and where.rack is None and where.job is None:
        raise Rejected("rehearsal", f"{incident.id} is about {where}, of which no node, rack or job is recorded")
    if where.kind in {ComponentKind.LINK, ComponentKind.POWER_FEED, ComponentKind.SOURCE}:
        lost.append(f"it was about {where}: a test tells of nodes, GPUs, racks and jobs only")
    if index is not None and index >= site.gpus:
        lost.append(f"a simulated node has {MOST_GPUS} GPUs at most: GPU {index} is GPU {site.gpus - 1}")
        index = site.gpus - 1
    if incident.culprit is not None:
        lost.append(f"who was to blame, {incident.culprit}, is not told")
    lasts = None
    if incident.gone and incident.healthy_since is not None and incident.healthy_since > began:
        lasts = _whole(incident.healthy_since - began)
        lost.append(f"the fault ends after {format_duration(lasts)}, as it did then, whatever is done about it")
    if where.kind is ComponentKind.JOB:
        place: dict[str, object] = {"job": where.job}
    elif where.kind is ComponentKind.RACK or where.node is None:
        place = {"rack": "rack-1"}
    else:
        place = {"node": renamed[where.node], "gpu": index}
    return Told.model_validate(
        {
            **place,
            "failure_mode": incident.failure_mode,
            "health": "degraded" if incident.health is Health.DEGRADED else "failed",
            "score": incident.score,
            "basis": incident.basis,
            "reason": incident.reasons[0],
            "lasts": lasts,
        }
    )


def _surge(record: Record, lost: list[str]) -> SimulatedFault:
    """A rack over its budget is not told but found: its cap is judged by the meter."""
    lost.append(
        "the load of the rack is that of a simulated surge: which nodes are limited is told, not to how many watts"
    )
    over = record.incident.healthy_since or record.incident.resolved_at or _ended(record)
    lasted = min(_SHORTEST, max(timedelta(minutes=4), _whole(over - record.began)))
    return SimulatedFault(kind="load_surge", at=_SURGE_AT, rack="rack-1", duration=lasted)


# What else happened


def _unanswered(record: Record) -> bool:
    """Whether nobody answered the first question."""
    return bool(record.approvals) and record.approvals[0].state is ApprovalState.EXPIRED


def _answer_after(record: Record, lost: list[str]) -> timedelta:
    if not record.approvals:
        lost.append("nobody was asked then: if a person is asked now, the answer is yes, at once")
        return timedelta(0)
    if len({approval.state for approval in record.approvals}) > 1:
        lost.append("not every question was answered alike: here all are as the first was")
    first = record.approvals[0]
    if first.state is ApprovalState.EXPIRED or first.decided_at is None:
        return timedelta(0)
    held = record.run.started_at - first.decided_at
    if held > _HARDLY:
        lost.append(f"after the answer it was held for {format_duration(_whole(held))}, which is not played")
    return _whole(first.decided_at - first.asked_at)


def _events(record: Record, renamed: Mapping[str, str]) -> Iterator[Event]:
    ids = {carried.run.id for carried in record.runs}
    for entry in record.audit:
        at = _whole(max(entry.at - record.began, timedelta(0)))
        if entry.action == "run.cancel" and entry.subject in ids:
            yield Event(at=at, do=Deed.CANCEL)
        elif entry.action == "effect.done" and entry.reason == INTERRUPTED:
            yield Event(at=at, do=Deed.RESTART)
        elif entry.action == "run.undoing":
            for node in _TAKEN_BACK.findall(entry.reason):
                yield Event(at=at, do=Deed.UNCORDON, node=renamed.get(node, node))
            for node in _TAKEN_OVER.findall(entry.reason):
                yield Event(at=at, do=Deed.UNCORDON, node=renamed.get(node, node))
                yield Event(at=at, do=Deed.CORDON, node=renamed.get(node, node))


def _not_played(record: Record) -> Iterator[str]:
    if not record.is_first:
        yield "another run came before it, which is not played: here it is the first remedy, whatever its match says"
    if any(step.use == WAIT for carried in record.runs for step in carried.run.plan.steps):
        yield "what it waited for is looked for on the simulated site, whose GPUs are at work and well"
    for carried in record.runs:
        for each in carried.records:
            of_budget = each.key.startswith("evict/") and each.detail.startswith("budget ")
            if each.state is EffectState.FAILED and not of_budget:
                yield f"{each.key} failed, and does not here: {each.detail}"
            elif each.state is EffectState.INTENT:
                yield f"of {each.key} it is not recorded whether it happened"
            elif each.detail == INTERRUPTED:
                yield f"whether healer died or an answer was lost in {each.key} is not recorded: here it is restarted"
        if not carried.run.state.ended:
            yield f"{carried.run.id} has not ended yet: what becomes of it is not compared"


def _expected(record: Record, renamed: Mapping[str, str]) -> Expected:
    deeds = sorted((deed for carried in record.runs for deed in deeds_of(carried)), key=lambda deed: deed.at)
    newest, state = record.runs[-1].run, record.incident.state
    return Expected(
        asked=bool(record.approvals),
        run=newest.state if newest.state.ended else None,
        incident=state if state.ended and newest.state.ended else None,
        effects=tuple(dict.fromkeys(_in_names(deed.text, renamed) for deed in deeds)) if newest.state.ended else None,
    )


def _in_names(deed: str, renamed: Mapping[str, str]) -> str:
    verb, _, what = deed.partition(" ")
    return f"{verb} {renamed.get(what, what)}" if what else verb


def _ended(record: Record) -> datetime:
    runs: Sequence[Run] = [carried.run for carried in record.runs]
    return max(run.ended_at or run.next_look_at for run in runs)


def _whole(span: timedelta) -> timedelta:
    """In seconds; not none at all if there is any."""
    return timedelta(seconds=max(round(span.total_seconds()), 1 if span else 0))
