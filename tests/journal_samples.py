"""Incidents, plans and runs as small as they can be, for tests of what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis, FailureMode, Health
from healer.domain.incident import Incident, IncidentState
from healer.domain.plan import Effect, Plan, PlannedStep
from healer.domain.playbook import ResolvesWhen
from healer.domain.run import EffectRecord, Run, RunState
from healer.domain.verdict import Verdict
from healer.verb import Ledger, World

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
NODE = Component(ComponentKind.NODE, rack="r1", node="n1")


def incident_of(key: str = "inc-1", *, component: Component = NODE, basis: Basis = Basis.RULE) -> Incident:
    return Incident(
        id=key,
        failure_mode=FailureMode.GPU_UNCORRECTABLE_ECC,
        component=component,
        state=IncidentState.OPEN,
        health=Health.FAILED,
        score=1.0,
        basis=basis,
        reasons=("an uncorrectable memory error",),
        evidence=(),
        opened_at=NOW,
        changed_at=NOW,
    )


def plan_of(
    *steps: PlannedStep,
    effects: tuple[Effect, ...] = (),
    target: Component = NODE,
    incident_id: str = "inc-1",
    deadline: timedelta = timedelta(hours=1),
) -> Plan:
    return Plan(
        incident_id=incident_id,
        playbook="drain-node",
        playbook_digest="d1",
        target=target,
        effects=effects,
        steps=steps,
        needs_approval=True,
        approval_expires_after=timedelta(minutes=30),
        deadline=deadline,
        resolves_when=ResolvesWhen.CONTAINED,
        reason="an uncorrectable memory error",
    )


def run_of(plan: Plan, key: str = "run-1", *, state: RunState = RunState.RUNNING) -> Run:
    return Run(
        id=key,
        incident_id=plan.incident_id,
        approval_id=None,
        plan=plan,
        state=state,
        position=0,
        started_at=NOW,
        step_started_at=NOW,
        next_look_at=NOW,
    )


@dataclass(frozen=True, slots=True)
class _Still:
    """The clock of a world in which an effect takes no time."""

    at: datetime

    def now(self) -> datetime:
        return self.at


class Notes:
    """The effects of one run, kept as the journal keeps them.

    Attributes:
        verdict: what the guards say.
        dies_before: called before each write; what it raises is a crash.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.records: list[EffectRecord] = []
        self.verdict: Verdict | None = None
        self.dies_before: Callable[[EffectRecord], None] = lambda _record: None

    def ledger(self, world: World, step_id: str = "step") -> Ledger:
        clock = _Still(world.now)
        return Ledger(world, self.run, step_id, tuple(self.records), self._save, lambda: self.verdict, clock)

    def _save(self, record: EffectRecord) -> None:
        self.dies_before(record)
        key = (record.step_id, record.key)
        for i, known in enumerate(self.records):
            if (known.step_id, known.key) == key:
                self.records[i] = record
                return
        self.records.append(record)
