"""One side of a replay: an operator with its own playbooks, journal and simulated cluster, on a history that all share.

The observing side is what `healer backtest` reports. An acting side does in memory what its playbooks say: on-call says
yes to all that it asks, and what it takes out of service comes back when the history shows that the fault is over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from healer.adapters.journal.sql import SqlJournal
from healer.adapters.simulated_cluster import SimulatedCluster
from healer.config import Config
from healer.content.own_verb import rehearsed
from healer.domain.approval import Approval, ApprovalState, Person
from healer.domain.breaker import Trip
from healer.domain.finding import Findings
from healer.domain.frame import Frame
from healer.domain.incident import Incident, IncidentState
from healer.domain.plan import Plan
from healer.domain.verdict import Verdict
from healer.runtime.course import Carried
from healer.runtime.knowledge import EVERY, Outside
from healer.runtime.past import Past, PastAgents, PastCare, PastTickets
from healer.runtime.snapshot import Board, Snapshot
from healer.runtime.wiring import Content, build_operator

BREAKER_CLOSES_AFTER = timedelta(hours=1)  # by a person, who has looked
_LEASE = timedelta(days=36500)
_ON_CALL = Person("backtest", "on-call")
_HELD = "held: "
_WAITS = frozenset({IncidentState.OPEN, IncidentState.AWAITING_APPROVAL})


class Side:
    """Attributes:
    cluster: the nodes that the telemetry has named, idle, and in service unless this side took them out.
    """

    def __init__(self, config: Config, content: Content, past: Past, folder: Path) -> None:
        folder.mkdir()
        self.past = past
        self.cluster = SimulatedCluster({}, clock=past)
        self.journal = SqlJournal(f"sqlite:///{folder / 'journal.db'}")
        self.journal.lead("backtest", past.now(), _LEASE)
        outside = Outside(
            source=past,
            cluster=self.cluster,
            power=PastAgents(past),
            tickets=PastTickets(),
            care=None if config.agent.url is None else PastCare(past),
            is_replay=True,
        )
        # Today's answer of whatever a verb of the deployment's own asks is no answer about then.
        self.verbs = rehearsed(content.verbs)
        self.operator = build_operator(
            config,
            content=replace(content, verbs=self.verbs),
            outside=outside,
            journal=self.journal,
            board=Board(Snapshot(config.mode)),
            clock=past,
        )
        self._met = 0

    def meet_nodes(self) -> None:
        names = list(self.past.racks)
        for name in names[self._met :]:
            self.cluster.add_node(name, rack=self.past.racks[name])
        self._met = len(names)

    def close(self) -> None:
        self.journal.close()


@dataclass(frozen=True, slots=True)
class Hold:
    """A time during which something spoke against going on.

    Attributes:
        by: the guard.
        until: None if it still did at the end.
    """

    by: str
    why: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class FirstPlan:
    plan: Plan
    verdict: Verdict | None


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """What an acting side did along the whole history; by incident: its first plan, and what held it up.

    Attributes:
        incidents: oldest first, as are approvals and runs.
        plans: (incident, playbook) for each playbook that an incident was planned by.
        out_h: by playbook, the hours for which nodes were out of service.
    """

    incidents: tuple[Incident, ...]
    approvals: tuple[Approval, ...]
    runs: tuple[Carried, ...]
    trips: tuple[Trip, ...]
    first_plans: Mapping[str, FirstPlan]
    holds: Mapping[str, Sequence[Hold]]
    plans: frozenset[tuple[str, str]]
    out_h: Mapping[str, float]


class ActingSide(Side):
    """Args:
    answer_after: so long after it was asked, on-call says yes.
    """

    def __init__(
        self,
        config: Config,
        content: Content,
        past: Past,
        folder: Path,
        *,
        answer_after: timedelta,
    ) -> None:
        super().__init__(config, content, past, folder)
        self._answer_after = answer_after
        self._first_plans: dict[str, FirstPlan] = {}
        self._holds: dict[str, list[Hold]] = defaultdict(list)
        self._plans: set[tuple[str, str]] = set()
        self._out: dict[str, str] = {}  # node -> the playbook that took it out, as of the last turn
        self._out_h: dict[str, float] = defaultdict(float)
        self._looked_at = past.now()

    def go_on(self, frame: Frame, findings: Findings) -> None:
        """One turn, and what follows from it before the next."""
        self.meet_nodes()
        self._count_hours()
        self.operator.conclude(frame, findings)
        live = self._live()
        self._note(live)  # what is asked and answered within a turn is seen here, or not at all
        self._answer()
        self.operator.pursue()
        self.operator.announce()  # there is no channel; what is closed is not looked at again
        live = self._live()
        self._note(live)
        self._close_breaker()
        self._return_nodes(live)

    def account(self) -> Account:
        approvals = tuple(reversed(self.journal.approvals(limit=EVERY)))
        runs = tuple(Carried(run, self.journal.effects(run.id)) for run in reversed(self.journal.runs(limit=EVERY)))
        acted = {(each.incident_id, each.plan.playbook) for each in approvals}
        acted |= {(carried.run.incident_id, carried.run.plan.playbook) for carried in runs}
        return Account(
            incidents=tuple(reversed(self.journal.incidents(limit=EVERY))),
            approvals=approvals,
            runs=runs,
            trips=tuple(reversed(self.journal.trips(limit=EVERY))),
            first_plans=self._first_plans,
            holds=self._holds,
            plans=frozenset(self._plans | acted),
            out_h=self._out_h,
        )

    def _live(self) -> tuple[Incident, ...]:
        return self.journal.incidents(open_only=True, limit=EVERY)

    def _answer(self) -> None:
        now = self.past.now()
        for approval in self.journal.approvals(open_only=True, limit=EVERY):
            pending = approval.state is ApprovalState.PENDING and now < approval.expires_at
            if pending and now - approval.asked_at >= self._answer_after:
                for number in range(approval.missing):
                    person = Person(f"{_ON_CALL.id}-{number + 1}", _ON_CALL.name)
                    self.journal.decide(approval.id, person, now, approve=True, reason="as the replay assumes")

    def _return_nodes(self, live: Sequence[Incident]) -> None:
        """A person puts a node back once neither what it was taken out for lasts, nor anything else found on it."""
        lasting = {incident.id for incident in live if not incident.gone}
        faulty = {incident.component.node for incident in live if not incident.gone}
        self._out = {}
        for node in self.cluster.nodes():
            if node.cordoned_by is None:
                continue
            run = self.journal.run(node.cordoned_by)
            if run.incident_id in lasting or node.name in faulty:
                self._out[node.name] = run.plan.playbook
            else:
                self.cluster.uncordon_by_person(node.name)

    def _close_breaker(self) -> None:
        for trip in self.journal.trips(limit=1):
            if trip.open and self.past.now() - trip.at >= BREAKER_CLOSES_AFTER:
                self.journal.reset_breaker(_ON_CALL, self.past.now(), "as the replay assumes")

    # What is noted, because the journal keeps only the newest of it

    def _note(self, live: Sequence[Incident]) -> None:
        active = {run.incident_id: run for run in self.journal.runs(active_only=True, limit=EVERY)}
        for incident in live:
            if incident.plan is not None:
                self._plans.add((incident.id, incident.plan.playbook))
                self._first_plans.setdefault(incident.id, FirstPlan(incident.plan, incident.verdict))
            run = active.get(incident.id)
            held = "" if run is None or not run.detail.startswith(_HELD) else run.detail.removeprefix(_HELD)
            if incident.verdict is not None and incident.state in _WAITS:
                held = str(incident.verdict)
            self._hold(incident.id, held)

    def _hold(self, incident_id: str, why: str) -> None:
        """Another figure of the same guard is the same hold."""
        holds, now, by = self._holds[incident_id], self.past.now(), why.partition(":")[0]
        lasting = bool(holds) and holds[-1].until is None
        if lasting and holds[-1].by == by:
            return
        if lasting:
            ended = replace(holds.pop(), until=now)
            holds += [ended] if ended.since < now else []  # what passes within one turn holds nothing up
        if why:
            holds.append(Hold(by, why, now))

    def _count_hours(self) -> None:
        now = self.past.now()
        for playbook in self._out.values():
            self._out_h[playbook] += (now - self._looked_at) / timedelta(hours=1)
        self._looked_at = now
