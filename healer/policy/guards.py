"""May this plan act, now? A list of guards, each of which has one reason to say no.

They run when a plan is made, after the approval, and immediately before each effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from healer.domain.breaker import Trip
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis
from healer.domain.fleet import Fleet
from healer.domain.plan import Plan
from healer.domain.silence import Silenced
from healer.domain.verdict import Guard, Mode, Verdict
from healer.policy.budget import DisruptionBudget, Grouping, Scope, ScopeKind, scopes_of
from healer.policy.limits import Tally


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the guards look at.

    Attributes:
        data_age: how old the telemetry of the plan's own component is; None if it is unknown.
        grouping: which of the fleet's nodes share a rack, a power feed, a pool or a job.
        leases: component key -> the run that holds it.
        leaving: nodes that active runs are taking out.
        asked: nodes that open questions would take out; none for an answer, which comes before questions.
        silenced: why the incident is to be left alone now, if it is.
        trip: that of the breaker, while it is open.
        vanished: the fault was concluded only from what is not shown any more.
        witnesses: who else says so, of those that do not look through the same telemetry.
        paused: who has paused the run on whose behalf is asked; empty if nobody has.
        run_id: the run on whose behalf is asked; its own leases do not stand in its way.
        line: in whose name the incident has nodes out already; what is in that name does not stand in its way.
        tallies: by playbook, what has been started of those that have limits.
    """

    now: datetime
    mode: Mode
    fleet: Fleet
    basis: Basis
    data_age: timedelta | None
    max_age: timedelta
    grouping: Grouping
    leases: Mapping[str, str]
    leaving: frozenset[str]
    budgets: Mapping[ScopeKind, DisruptionBudget]
    asked: frozenset[str] = frozenset()
    silenced: Silenced | None = None
    trip: Trip | None = None
    vanished: bool = False
    witnesses: tuple[str, ...] = ()
    paused: str = ""
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    run_id: str | None = None
    line: str | None = None


def first_verdict(plan: Plan, situation: Situation) -> Verdict | None:
    """The first reason not to act, in the order of GUARDS; None if nothing speaks against it."""
    return next((verdict for guard in GUARDS if (verdict := guard(plan, situation)) is not None), None)


def is_demand(plan: Plan, situation: Situation) -> bool:
    """Whether the plan takes nodes out, and waits for nothing but its turn: what the breaker counts."""
    return bool(plan.takes_out) and all(guard(plan, situation) is None for guard in _OF_THE_PLAN)


def leases_of(plan: Plan) -> tuple[str, ...]:
    """What a run of this plan holds exclusively: the component keys of its target and of every node that it takes out,
    and its locks.
    """
    nodes = {Component(ComponentKind.NODE, node=node).key for node in plan.takes_out}
    locks = {f"lock/{name}" for name in plan.locks}
    return tuple(sorted({plan.target.key} | nodes | locks))


def budget_line(plan: Plan, situation: Situation) -> str:
    """What the plan takes from which budget, for the person who is asked."""
    scopes = [str(scope) for node in sorted(plan.takes_out) for scope in _scopes(node, situation)]
    return "; ".join(dict.fromkeys(scopes)) or "takes no node out of service"


def _mode(_plan: Plan, situation: Situation) -> Verdict | None:
    if situation.mode is not Mode.OBSERVE:
        return None
    return Verdict(Guard.MODE, "mode is observe: nothing acts", "mode is set to recommend or act")


def _pause(_plan: Plan, situation: Situation) -> Verdict | None:
    if not situation.paused:
        return None
    lifts = f"a person resumes it: healer runs resume {situation.run_id} --reason TEXT"
    return Verdict(Guard.PAUSE, f"paused by {situation.paused}", lifts)


def _silence(_plan: Plan, situation: Situation) -> Verdict | None:
    if situation.silenced is None:
        return None
    return Verdict(Guard.SILENCE, str(situation.silenced), f"{situation.silenced.source} ends or is expired")


def _breaker(plan: Plan, situation: Situation) -> Verdict | None:
    trip = situation.trip
    if trip is None or not plan.disrupts:
        return None
    opened = f"{trip.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Verdict(
        Guard.BREAKER, f"open since {opened}: {trip.reason}", "a person closes it: healer breaker reset --reason TEXT"
    )


def _basis(plan: Plan, situation: Situation) -> Verdict | None:
    if situation.basis is Basis.RULE:
        return None
    if plan.interrupts:
        return Verdict(Guard.BASIS, "a learnt score alone may not move or interrupt work", "a rule finds the same")
    if plan.takes_out and not plan.needs_approval:
        message = "a learnt score alone takes no node out of service unasked"
        return Verdict(Guard.BASIS, message, "a rule finds the same, or the playbook asks")
    return None


def _witness(plan: Plan, situation: Situation) -> Verdict | None:
    if not situation.vanished or situation.witnesses or not plan.takes_out:
        return None
    if situation.run_id is not None:
        return None  # it was witnessed when the run began, and what the run has done may have brought it back
    message = "it is only not shown any more: the exporter may be what is wrong"
    return Verdict(Guard.WITNESS, message, "the kernel log, the scheduler or the node's agent says so, too")


def _freshness(plan: Plan, situation: Situation) -> Verdict | None:
    fleet_age = situation.now - situation.fleet.as_of
    if plan.disrupts and situation.fleet.problem is not None:
        return Verdict(Guard.FRESHNESS, f"the scheduler is unknown: {situation.fleet.problem}", "it answers again")
    if plan.disrupts and fleet_age > situation.max_age:
        age = fleet_age.total_seconds()
        return Verdict(Guard.FRESHNESS, f"the scheduler was last seen {age:.0f} s ago", "it answers again")
    if plan.harmless:
        return None  # what repairs blindness, or tells of it, is not held back by it
    if situation.data_age is None:
        return Verdict(Guard.FRESHNESS, "there is no current telemetry of the component", "its telemetry is back")
    if situation.data_age > situation.max_age:
        age = situation.data_age.total_seconds()
        return Verdict(Guard.FRESHNESS, f"the component's telemetry is {age:.0f} s old", "its telemetry is back")
    return None


def _target(plan: Plan, situation: Situation) -> Verdict | None:
    for name in sorted(plan.takes_out):
        node = situation.fleet.nodes.get(name)
        if node is None:
            return Verdict(
                Guard.TARGET, f"the scheduler knows no node {name}", "names in telemetry and scheduler agree"
            )
        if node.cordoned and node.cordoned_by is None:
            return Verdict(Guard.TARGET, f"{name} was cordoned by a person", "that person uncordons it")
        if node.cordoned_by not in {None, situation.line}:
            return Verdict(Guard.TARGET, f"{name} was cordoned by {node.cordoned_by}", "it is back in service")
    return None


def _lease(plan: Plan, situation: Situation) -> Verdict | None:
    for resource in leases_of(plan):
        holder = situation.leases.get(resource)
        if holder not in {None, situation.run_id}:
            return Verdict(Guard.LEASE, f"{resource} is held by {holder}", f"{holder} ends")
    return None


def _limit(plan: Plan, situation: Situation) -> Verdict | None:
    """Limits are on starts: a run that has begun is not stopped by what others have begun since."""
    tally = situation.tallies.get(plan.playbook)
    return None if tally is None or situation.run_id is not None else tally.verdict(plan, situation.now)


def _budget(plan: Plan, situation: Situation) -> Verdict | None:
    for node in sorted(plan.takes_out):
        for scope in _scopes(node, situation):
            if not scope.admits(plan.takes_out & (scope.nodes or plan.takes_out)):
                answered = ", or a question about one is answered" if scope.asked else ""
                return Verdict(Guard.BUDGET, str(scope), f"a node of {scope.name} returns to service{answered}")
    return None


def _scopes(node: str, situation: Situation) -> tuple[Scope, ...]:
    return scopes_of(node, situation.grouping, situation.budgets, leaving=situation.leaving, asked=situation.asked)


_Ask = Callable[[Plan, Situation], Verdict | None]
_OF_THE_PLAN: tuple[_Ask, ...] = (_mode, _silence, _basis, _witness, _freshness, _target)
GUARDS: tuple[_Ask, ...] = (
    _mode,
    _pause,
    _silence,
    _breaker,
    _basis,
    _witness,
    _freshness,
    _target,
    _lease,
    _limit,
    _budget,
)
