"""Knowledge: what is known of the fleet right now, and how old it is. What verbs and guards look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from healer.actions.base import World
from healer.domain.breaker import Trip
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode
from healer.domain.fleet import Fleet
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.domain.maintenance import MaintenanceWindow
from healer.domain.run import Run
from healer.domain.silence import Silence, Silenced
from healer.domain.topology import NOWHERE
from healer.domain.verdict import Mode, Verdict
from healer.errors import HealerError
from healer.policy.breaker import BreakerRule
from healer.policy.budget import DisruptionBudget
from healer.policy.guards import Situation, first_verdict, leases_of
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

EVERY = 1_000_000  # what is decided upon is never cut short: an incident that is left out would be opened once more
_FLEET_REFRESH = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator decides by.

    Attributes:
        max_age: telemetry and scheduler knowledge older than this permits nothing.
        clear_after: how long a component must be observed healthy before its incident ends by itself.
    """

    mode: Mode
    fleet_budget: DisruptionBudget
    rack_budget: DisruptionBudget
    breaker: BreakerRule
    max_age: timedelta = timedelta(seconds=90)
    clear_after: timedelta = timedelta(minutes=2)
    power_floor_w: float = 300.0
    maintenance: tuple[MaintenanceWindow, ...] = ()


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
    """

    leases: Mapping[str, str]
    leaving: frozenset[str]
    silences: tuple[Silence, ...]
    asked: frozenset[str] = frozenset()
    trip: Trip | None = None

    def with_run(self, run: Run) -> Claims:
        held = dict.fromkeys(leases_of(run.plan), run.id)
        return replace(self, leases={**self.leases, **held}, leaving=self.leaving | run.plan.takes_out)


class Knowledge:
    def __init__(self, *, rules: Rules, outside: Outside, journal: Journal, clock: Clock) -> None:
        self.rules = rules
        self._outside = outside
        self._journal = journal
        self._clock = clock
        self._frame: Frame | None = None
        self._racks_seen: dict[str, str] = {}
        self._fleet = _not_asked(clock.now())
        self._racks_told: tuple[Fleet, Mapping[str, str], Mapping[str, str]] = (self._fleet, self._racks_seen, {})

    def learn(self, frame: Frame) -> None:
        self._racks_seen = {node: place.rack for node, place in frame.places.items() if place.rack is not None}
        self._frame = frame

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
            configured_care=self._outside.care,
        )

    def permit(self, run: Run) -> Verdict | None:
        """Ask the guards on behalf of a run, immediately before an effect."""
        incident = self._journal.incident(run.incident_id)
        return first_verdict(run.plan, self.situation(incident, self.claims(without=run), run=run))

    def claims(self, *, without: Run | None = None) -> Claims:
        """Read from the journal, without what the given run takes out. Raises Unavailable: not knowing is not none."""
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
        )

    def silenced(self, incident: Incident, claims: Claims | None = None) -> Silenced | None:
        """Why the incident is to be left alone now; None if it is not. Raises Unavailable: not knowing is not None."""
        now = self._clock.now()
        silences = self._journal.silences(unended_at=now) if claims is None else claims.silences
        return covering(incident, silences, self.rules.maintenance, now)

    def situation(self, incident: Incident, claims: Claims, *, run: Run | None = None) -> Situation:
        """What the guards look at for the incident, and for `run` if it has one already."""
        return Situation(
            now=self._clock.now(),
            mode=self.rules.mode,
            fleet=self.fleet(),
            basis=incident.basis,
            data_age=self._age_of(incident),
            max_age=self.rules.max_age,
            racks=self._racks(),
            leases=claims.leases,
            leaving=claims.leaving,
            asked=claims.asked,
            fleet_budget=self.rules.fleet_budget,
            rack_budget=self.rules.rack_budget,
            silenced=self.silenced(incident, claims),
            trip=claims.trip if claims.trip is not None and claims.trip.open else None,
            run_id=None if run is None else run.id,
            line=run.owner if run is not None else incident.line or None,
        )

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
        place = NOWHERE if self._frame is None else self._frame.places.get(node, NOWHERE)
        named = (("rack", place.rack or self._racks().get(node)), ("feed", place.feed), ("switch", place.switch))
        return tuple(f"{kind} {name}" for kind, name in named if name is not None)

    def _racks(self) -> Mapping[str, str]:
        """By node; made anew when the scheduler or the telemetry has spoken anew, not for each incident."""
        fleet, seen = self._fleet, self._racks_seen
        of_fleet, of_seen, racks = self._racks_told
        if of_fleet is not fleet or of_seen is not seen:
            racks = {node.name: node.rack for node in fleet.nodes.values() if node.rack is not None} | seen
            self._racks_told = fleet, seen, racks
        return racks

    def _age_of(self, incident: Incident) -> timedelta | None:
        """How old the newest sample of the incident's own component is; of a GPU that is gone, that of its node."""
        if self._frame is None:
            return None
        about = incident.component
        if incident.failure_mode is FailureMode.GPU_FELL_OFF_BUS and about.node is not None:
            about = Component(ComponentKind.NODE, node=about.node)
        age_s = self._frame.age_of(about)
        return None if np.isnan(age_s) else self._clock.now() - self._frame.at + timedelta(seconds=age_s)


def _not_asked(at: datetime) -> Fleet:
    return Fleet(as_of=at, problem="not asked yet")
