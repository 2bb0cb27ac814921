"""Small frames, incidents, plans and situations for the tests of the core: every figure is the test's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis, FailureMode, Finding, Findings, Health, Judgement
from healer.domain.fleet import Fleet, Node
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.domain.plan import Effect, Plan
from healer.domain.playbook import ApprovalRule, Expression, Playbook, ResolvesWhen, Scalar
from healer.domain.verdict import Mode
from healer.errors import Rejected
from healer.policy.budget import DisruptionBudget, Grouping, ScopeKind
from healer.policy.guards import Situation
from tests.frames import frame_of

START = datetime(2026, 3, 14, 3, 0, 0, tzinfo=UTC)
CLEAR_AFTER = timedelta(minutes=2)
ECC = FailureMode.GPU_UNCORRECTABLE_ECC
AMPLE = DisruptionBudget(max_nodes=1000, max_percent=100.0, at_least=1)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def gpu(uuid: str = "A", node: str | None = "n1", *, rack: str | None = "r1", job: str | None = "j1") -> Component:
    return Component(ComponentKind.GPU, rack=rack, node=node, gpu="0", uuid=uuid, job=job)


def node(name: str = "n1") -> Component:
    return Component(ComponentKind.NODE, node=name)


def rack(name: str = "r1") -> Component:
    return Component(ComponentKind.RACK, rack=name)


def frame(
    *gpus: Component, at: datetime = START, racks: tuple[Component, ...] = (), times: Sequence[float] = (0.0,)
) -> Frame:
    """A frame that knows these components, and nothing else about them."""
    return frame_of(gpus, at=at, racks=racks, times=times)


def finding(
    about: Component | None = None,
    *,
    mode: FailureMode = ECC,
    health: Health = Health.FAILED,
    score: float = 1.0,
    reason: str = "2 uncorrectable memory errors",
    basis: Basis = Basis.RULE,
) -> Finding:
    return Finding(mode, about or gpu(), health, score, reason, basis)


def judged(*health: Health, mode: FailureMode = ECC, kind: ComponentKind = ComponentKind.GPU) -> Judgement:
    return Judgement(mode, kind, np.array(health, dtype=np.int8))


def found(*all_found: Finding) -> Findings:
    return Findings(all_found, (judged(*(f.health for f in all_found)),))


def incident(about: Component | None = None, *, at: datetime = START, basis: Basis = Basis.RULE) -> Incident:
    return Incident.opened(finding(about, basis=basis), at)


def plan(
    *effects: Effect,
    target: Component | None = None,
    playbook_digest: str = "5f",
    resolves_when: ResolvesWhen = ResolvesWhen.CONTAINED,
) -> Plan:
    return Plan(
        incident_id="inc-1",
        playbook="drain-node",
        playbook_digest=playbook_digest,
        target=target or node(),
        effects=effects or (cordon("n1"), evict("ns/Job/train", on="n1")),
        steps=(),
        needs_approval=True,
        approval_expires_after=timedelta(minutes=30),
        deadline=timedelta(hours=1),
        resolves_when=resolves_when,
    )


def cordon(name: str) -> Effect:
    return Effect("cordon", name, takes_out=name)


def evict(owner: str, *, on: str, pods: str = "") -> Effect:
    return Effect("evict", owner, pods, takes_out=on, interrupts=True)


def cap(name: str = "r1") -> Effect:
    """An effect that takes nothing out of service."""
    return Effect("cap power", f"rack {name}", "64 GPUs to 500 W each")


def restart(job: str = "ns/Job/train") -> Effect:
    """An effect by which work is lost, and no node."""
    return Effect("restart", job, "train-0, train-1", interrupts=True)


def nodes(*names: str, cordoned: Mapping[str, str | None] | None = None, lost: tuple[str, ...] = ()) -> dict[str, Node]:
    """Nodes by name; `cordoned` maps those that are to the run that did it, None for a person."""
    by = cordoned or {}
    return {name: Node(name, ready=name not in lost, cordoned=name in by, cordoned_by=by.get(name)) for name in names}


def grouping(fleet: Fleet, shares: Mapping[ScopeKind, Mapping[str, str]]) -> Grouping:
    """Of nodes that belong to one of each kind at most."""
    several = {kind: {name: (of,) for name, of in of_node.items()} for kind, of_node in shares.items()}
    return Grouping.of(fleet, several)


def situation(
    *,
    mode: Mode = Mode.ACT,
    fleet: Fleet | None = None,
    basis: Basis = Basis.RULE,
    data_age: timedelta | None = timedelta(seconds=5),
    racks: Mapping[str, str] | None = None,
    shares: Mapping[ScopeKind, Mapping[str, str]] | None = None,
    leases: Mapping[str, str] | None = None,
    leaving: frozenset[str] = frozenset(),
    fleet_budget: DisruptionBudget = AMPLE,
    rack_budget: DisruptionBudget = AMPLE,
    budgets: Mapping[ScopeKind, DisruptionBudget] | None = None,
    run_id: str | None = None,
) -> Situation:
    """Ten healthy nodes in which nothing speaks against acting, but for what the test says."""
    fleet = fleet or Fleet(START, nodes(*(f"n{i}" for i in range(10))))
    given = {ScopeKind.FLEET: fleet_budget, ScopeKind.RACK: rack_budget, **(budgets or {})}
    return Situation(
        now=START,
        mode=mode,
        fleet=fleet,
        basis=basis,
        data_age=data_age,
        max_age=timedelta(seconds=90),
        grouping=grouping(fleet, {ScopeKind.RACK: racks or {}, **(shares or {})}),
        leases=leases or {},
        leaving=leaving,
        budgets={**dict.fromkeys(ScopeKind, AMPLE), **given},
        run_id=run_id,
        line=run_id,
    )


@dataclass(frozen=True)
class Says:
    """An expression that gives a value, or cannot be evaluated."""

    value: Scalar | Rejected
    text: str = ""

    def __call__(self, variables: Mapping[str, object]) -> Scalar:  # noqa: ARG002
        if isinstance(self.value, Rejected):
            raise self.value
        return self.value


def playbook(
    name: str, *, condition: Expression | None = None, mode: FailureMode = ECC, hold: timedelta = timedelta(0)
) -> Playbook:
    return Playbook(
        name=name,
        description=name,
        failure_modes=frozenset({mode}),
        target=ComponentKind.NODE,
        approval=ApprovalRule(Says(value=True)),
        steps=(),
        resolves_when=ResolvesWhen.CONTAINED,
        digest="",
        text="",
        file="",
        condition=condition,
        hold=hold,
    )
