"""The docket: what one pass under the lock decides upon, read as it begins and kept up with what it decides itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from healer.domain.breaker import Trip
from healer.domain.incident import Incident, IncidentState
from healer.domain.plan import Plan
from healer.domain.run import Run
from healer.domain.verdict import Guard, Verdict
from healer.policy.guards import leases_of
from healer.runtime.knowledge import Claims


class Docket:
    """Nobody else changes incidents, starts runs or asks questions while the lock is held. People answer and silence
    meanwhile: an answer is written against the question as it then is, and the guards are asked again before each
    effect.

    Attributes:
        incidents: newest first; those that have not ended, and those whose finding persists.
        noted: those of which nothing but the reason was noted why they wait; written together at the end of the pass.
    """

    def __init__(self, incidents: Iterable[Incident], claims: Claims) -> None:
        self.incidents = tuple(incidents)
        self.claims = claims
        self.noted: list[Incident] = []
        self._asking: dict[str, list[str]] = defaultdict(list)  # component key, or lock -> the incidents that ask
        self._asked_out: dict[str, frozenset[str]] = {}  # incident -> the nodes that its question would take out
        self._asked_of: dict[str, str] = {}  # incident -> the playbook that its question would start
        for incident in self.incidents:
            if incident.state is IncidentState.AWAITING_APPROVAL and incident.plan is not None:
                self.asked(incident, incident.plan)

    def asked(self, incident: Incident, plan: Plan) -> None:
        for resource in leases_of(plan):
            self._asking[resource].append(incident.id)
        self._asked_out[incident.id] = plan.takes_out
        self._asked_of[incident.id] = plan.playbook

    def voided(self, incident: Incident) -> None:
        """It asks no longer."""
        for resource in leases_of(incident.plan) if incident.plan is not None else ():
            self._asking[resource] = [other for other in self._asking[resource] if other != incident.id]
        self._asked_out.pop(incident.id, None)
        self._asked_of.pop(incident.id, None)

    @property
    def claims_with_questions(self) -> Claims:
        """What counts for whoever would ask, or act unasked: every open question may be answered with yes."""
        asked = frozenset[str]().union(*self._asked_out.values())
        if not self.claims.tallies:
            return replace(self.claims, asked=asked)
        of = Counter(self._asked_of.values())
        tallies = {name: replace(tally, asked=of[name]) for name, tally in self.claims.tallies.items()}
        return replace(self.claims, asked=asked, tallies=tallies)

    def note(self, incident: Incident, *, before: Incident) -> None:
        if incident != before:
            self.noted.append(incident)

    def started(self, run: Run) -> None:
        self.claims = self.claims.with_run(run)

    def tripped(self, trip: Trip) -> None:
        self.claims = replace(self.claims, trip=trip)

    def asked_elsewhere(self, incident: Incident, plan: Plan) -> Verdict | None:
        """One question for one component: of two faults on a node, the second waits for what becomes of the first."""
        for resource in leases_of(plan):
            for other in self._asking.get(resource, ()):
                if other != incident.id:
                    return Verdict(Guard.LEASE, f"{resource} awaits approval in {other}", f"{other} moves on")
        return None


def brought_up_to_date(before: Iterable[Incident], changed: Iterable[Incident]) -> tuple[Incident, ...]:
    """What the journal would answer now, had it been asked again: newest first."""
    by_id = {incident.id: incident for incident in (*before, *changed)}
    return tuple(sorted(by_id.values(), key=lambda incident: incident.opened_at, reverse=True))
