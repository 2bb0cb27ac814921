"""Knowledge: what is known of the fleet right now, and how old it is. What verbs and guards look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np

from healer.domain.breaker import Trip
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode
from healer.domain.fleet import Fleet
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.domain.maintenance import MaintenanceWindow
from healer.domain.people import People
from healer.domain.playbook import Playbook
from healer.domain.run import Run, Start
from healer.domain.silence import Silence, Silenced
from healer.domain.verdict import Mode, Verdict
from healer.errors import HealerError
from healer.policy.breaker import BreakerRule
from healer.policy.budget import DisruptionBudget, ScopeKind
from healer.policy.guards import Situation, first_verdict, leases_of
from healer.policy.limits import Tally
from healer.policy.silencing import covering
from healer.ports import (
    ApprovalChannel,
    Clock,
    Cluster,
    JobWitness,
    Journal,
    KernelLog,
    NodeCare,
    Notices,
    PowerControl,
    TelemetrySource,
    Tickets,
    TopologySource,
)
from healer.runtime.whereabouts import Whereabouts
from healer.verb import World

EVERY = 1_000_000  # what is decided upon is never cut short: an incident that is left out would be opened once more
_FLEET_REFRESH = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator decides by.

    Attributes:
        budgets: of every kind of scope.
        max_age: telemetry and scheduler knowledge older than this permits nothing.
        clear_after: how long a component must be observed healthy before its incident ends by itself.
    """

    mode: Mode
    budgets: Mapping[ScopeKind, DisruptionBudget]
    breaker: BreakerRule
    max_age: timedelta = timedelta(seconds=90)
    clear_after: timedelta = timedelta(minutes=2)
    power_floor_w: float = 300.0
    maintenance: tuple[MaintenanceWindow, ...] = ()
    people: People = field(default_factory=People)


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """The outside systems; those that are not configured are None.

    Attributes:
        is_replay: the cluster is a stand-in of which only the nodes' names are true: it is no witness of anything.
    """

    source: TelemetrySource
    cluster: Cluster | None = None
    power: PowerControl | None = None
    tickets: Tickets | None = None
    channel: ApprovalChannel | None = None
    topology: TopologySource | None = None
    notices: Notices | None = None
    witness: JobWitness | None = None
    kernel_log: KernelLog | None = None
    is_replay: bool = False
    care: NodeCare | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Claims:
    """What the journal says of everybody else, as of one moment: for all that is decided in one go, it is read once.

    Attributes:
        leases: component key -> the run that holds it.
        leaving: nodes that active runs are taking out.
        silences: those that have not ended.
        asked: nodes that open questions would take out.
        trip: the newest of the breaker; None if it has never opened.
        tallies: by playbook, what has been started of those that have limits.
    """

    leases: Mapping[str, str]
    leaving: frozenset[str]
    silences: tuple[Silence, ...]
    asked: frozenset[str] = frozenset()
    trip: Trip | None = None
    tallies: Mapping[str, Tally] = field(default_factory=dict)

    def with_run(self, run: Run) -> Claims:
        plan = run.plan
        held = dict.fromkeys(leases_of(plan), run.id)
        tallies = self.tallies
        if plan.playbook in tallies:
            start = Start(plan.playbook, plan.target.key, run.started_at)
            tallies = {**tallies, plan.playbook: tallies[plan.playbook].with_start(start)}
        return replace(self, leases={**self.leases, **held}, leaving=self.leaving | plan.takes_out, tallies=tallies)


class Knowledge:
    def __init__(
        self, *, rules: Rules, outside: Outside, journal: Journal, clock: Clock, playbooks: Iterable[Playbook]
    ) -> None:
        self.rules = rules
        self._limits = {each.name: each.limits for each in playbooks if each.limits is not None}
        self._outside = outside
        self._journal = journal
        self._clock = clock
        self._frame: Frame | None = None
        self._fleet = _not_asked(clock.now())
        self._whereabouts = Whereabouts()

    def learn(self, frame: Frame) -> None:
        self._frame = frame
        self._whereabouts.learn(frame)

    def world(self) -> World:
        """What a verb may look at, now."""
        return World(
            now=self._clock.now(),
            frame=self._frame,
            configured_cluster=self._outside.cluster,
            configured_power=self._outside.power,
            power_floor_w=self.rules.power_floor_w,
            configured_tickets=self._outside.tickets,
            incident=self._journal.incident,
            max_age=self.rules.max_age,
            configured_care=self._outside.care,
        )

    def permit(self, run: Run) -> Verdict | None:
        """Ask the guards on behalf of a run, immediately before an effect."""
        run = self._journal.run(run.id)  # a person may have paused it since the look began
        incident = self._journal.incident(run.incident_id)
        return first_verdict(run.plan, self.situation(incident, self.claims(without=run), run=run))

    def claims(self, *, without: Run | None = None) -> Claims:
        """Read from the journal, without what the given run takes out. Raises Unavailable: not knowing is not none.

        Args:
            without: one that has begun, so that what limits starts is nothing to it.
        """
        held = self._journal.leases()
        return Claims(
            leases={resource: lease.run_id for resource, lease in held.items()},
            leaving=frozenset(
                lease.taken_out
                for lease in held.values()
                if lease.taken_out is not None and (without is None or lease.run_id != without.id)
            ),
            silences=self._journal.silences(unended_at=self._clock.now()),
            trip=next(iter(self._journal.trips(limit=1)), None),
            tallies=self._tallies() if without is None else {},
        )

    def _tallies(self) -> Mapping[str, Tally]:
        now, limits = self._clock.now(), self._limits
        starts: dict[str, list[Start]] = defaultdict(list)
        for start in self._journal.starts({n: now - each.looks_back for n, each in limits.items() if each.looks_back}):
            starts[start.playbook].append(start)
        active = self._journal.active([name for name, each in limits.items() if each.at_once is not None])
        return {name: Tally(each, tuple(starts[name]), active.get(name, 0)) for name, each in limits.items()}

    def silenced(self, incident: Incident, claims: Claims | None = None) -> Silenced | None:
        """Why the incident is to be left alone now; None if it is not. Raises Unavailable: not knowing is not None."""
        now = self._clock.now()
        silences = self._journal.silences(unended_at=now) if claims is None else claims.silences
        return covering(incident, silences, self.rules.maintenance, now)

    def situation(self, incident: Incident, claims: Claims, *, run: Run | None = None) -> Situation:
        """What the guards look at for the incident, and for `run` if it has one already."""
        fleet = self.fleet()
        return Situation(
            now=self._clock.now(),
            mode=self.rules.mode,
            fleet=fleet,
            basis=incident.basis,
            data_age=self._age_of(incident),
            max_age=self.rules.max_age,
            grouping=self._whereabouts.grouping(fleet),
            leases=claims.leases,
            leaving=claims.leaving,
            asked=claims.asked,
            budgets=self.rules.budgets,
            silenced=self.silenced(incident, claims),
            tallies=claims.tallies,
            trip=claims.trip if claims.trip is not None and claims.trip.open else None,
            vanished=incident.vanished,
            # Of a run that has begun nobody asks for them again, and the agent would be asked before each effect.
            witnesses=self._witnesses(incident) if incident.vanished and run is None else (),
            paused="" if run is None else run.paused_by,
            run_id=None if run is None else run.id,
            line=run.owner if run is not None else incident.line or None,
        )

    def _witnesses(self, incident: Incident) -> tuple[str, ...]:
        """Who beside the telemetry says that something is wrong there."""
        where = incident.component
        node = self.fleet().nodes.get(str(where.node))
        if node is not None and not node.ready:
            return (f"the scheduler calls {node.name} not ready",)
        if node is not None and node.lost_gpus:
            return (f"the scheduler misses {node.lost_gpus} GPUs of {node.name}",)
        if self._outside.care is None or where.node is None or where.kind is not ComponentKind.GPU:
            return ()
        try:
            listed = self._outside.care.condition(where.node).use_of(where) is not None
        except HealerError:
            return ()  # one that does not answer, or says no, is no witness
        return () if listed else (f"the agent of {where.node} does not list it",)

    def forget_fleet(self) -> None:
        """The next question goes to the scheduler, however lately it was asked."""
        self._fleet = _not_asked(self._clock.now())

    def fleet(self) -> Fleet:
        """The scheduler's nodes, at most a few seconds old; a failed question is a problem, not an empty fleet."""
        now = self._clock.now()
        if self._fleet.problem is None and now - self._fleet.as_of < _FLEET_REFRESH:
            return self._fleet
        if self._outside.cluster is None:
            self._fleet = Fleet(as_of=now, problem="no scheduler is configured; set cluster.kind")
            return self._fleet
        try:
            self._fleet = Fleet(as_of=now, nodes={node.name: node for node in self._outside.cluster.nodes()})
        except HealerError as error:
            self._fleet = Fleet(as_of=now, problem=str(error))
        return self._fleet

    def shares_of(self, node: str) -> tuple[str, ...]:
        """What the node has in common with others, as far as it is known."""
        return self._whereabouts.shares_of(node, self._fleet)

    def sizes(self) -> Mapping[str, int]:
        """By what nodes have in common, how many of the fleet do."""
        return self._whereabouts.sizes(self._fleet)

    def _age_of(self, incident: Incident) -> timedelta | None:
        """How old the newest sample of the incident's own component is; of a GPU that is gone, that of its node, and of
        the heat of a rack, that of its GPUs: it needs no meter.
        """
        if self._frame is None:
            return None
        about = incident.component
        if incident.failure_mode is FailureMode.GPU_FELL_OFF_BUS and about.node is not None:
            about = Component(ComponentKind.NODE, node=about.node)
        of_gpus = incident.failure_mode is FailureMode.RACK_COOLING_DEGRADED
        age_s = self._frame.age_of_gpus(about) if of_gpus else self._frame.age_of(about)
        return None if np.isnan(age_s) else self._clock.now() - self._frame.at + timedelta(seconds=age_s)


def _not_asked(at: datetime) -> Fleet:
    return Fleet(as_of=at, problem="not asked yet")
