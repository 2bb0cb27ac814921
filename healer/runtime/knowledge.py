"""Knowledge: what is known of the fleet right now, and how old it is. What verbs and guards look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.actions.base import World
from healer.domain.fleet import Fleet
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.domain.maintenance import MaintenanceWindow
from healer.domain.run import Run
from healer.domain.silence import Silenced
from healer.domain.verdict import Mode, Verdict
from healer.errors import HealerError
from healer.policy.budget import DisruptionBudget
from healer.policy.guards import Situation, first_verdict
from healer.policy.silencing import covering
from healer.ports import (
    ApprovalChannel,
    Clock,
    Cluster,
    JobWitness,
    Journal,
    Notices,
    PowerControl,
    TelemetrySource,
    TopologySource,
)

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
    channel: ApprovalChannel | None = None
    topology: TopologySource | None = None
    notices: Notices | None = None
    witness: JobWitness | None = None
    is_replay: bool = False


class Knowledge:
    def __init__(self, *, rules: Rules, outside: Outside, journal: Journal, clock: Clock) -> None:
        self.rules = rules
        self._outside = outside
        self._journal = journal
        self._clock = clock
        self._frame: Frame | None = None
        self._racks_seen: dict[str, str] = {}
        self._fleet = Fleet(as_of=clock.now(), problem="not asked yet")

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
        )

    def permit(self, run: Run) -> Verdict | None:
        """Ask the guards on behalf of a run, immediately before an effect."""
        incident = self._journal.incident(run.incident_id)
        return first_verdict(run.plan, self.situation(incident, run=run))

    def silenced(self, incident: Incident) -> Silenced | None:
        """Why the incident is to be left alone now; None if it is not. Raises Unavailable: not knowing is not None."""
        now = self._clock.now()
        return covering(incident, self._journal.silences(unended_at=now), self.rules.maintenance, now)

    def situation(self, incident: Incident, *, run: Run | None = None) -> Situation:
        """What the guards look at for the incident; for `run`, without what the run itself holds."""
        others = [other for other in self._journal.runs(active_only=True) if run is None or other.id != run.id]
        return Situation(
            now=self._clock.now(),
            mode=self.rules.mode,
            fleet=self.fleet(),
            basis=incident.basis,
            data_age=self._age_of(incident),
            max_age=self.rules.max_age,
            racks=self._racks(),
            leases=self._journal.leases(),
            leaving=frozenset(node for other in others for node in other.plan.takes_out),
            fleet_budget=self.rules.fleet_budget,
            rack_budget=self.rules.rack_budget,
            silenced=self.silenced(incident),
            run_id=None if run is None else run.id,
        )

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

    def _racks(self) -> Mapping[str, str]:
        racks = {node.name: node.rack for node in self._fleet.nodes.values() if node.rack is not None}
        return racks | self._racks_seen

    def _age_of(self, incident: Incident) -> timedelta | None:
        """How old the newest sample of the incident's own component is."""
        if self._frame is None:
            return None
        age_s = self._frame.age_of(incident.component)
        return None if np.isnan(age_s) else self._clock.now() - self._frame.at + timedelta(seconds=age_s)
