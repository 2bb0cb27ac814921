"""What a playbook's own tests say: a small site, what goes wrong in it, and how it must end. Rehearsal plays them."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from healer.domain.finding import Basis, FailureMode
from healer.domain.incident import IncidentState
from healer.domain.playbook import Scalar
from healer.domain.run import RunState
from healer.domain.verdict import Mode
from healer.schema import Delay, Duration, GroupName, Member, Section


class Site(Section):
    """Nodes are gpu-001, gpu-002, ... in racks rack-1, rack-2, ...

    Attributes:
        nodes: in all racks together.
        gpus: of each node.
        rack_budget_watts: None for racks without a budget.
        agents: whether node agents are configured that reset, reboot, burn in and collect.
    """

    racks: Annotated[int, Field(ge=1, le=8)] = 1
    nodes: Annotated[int, Field(ge=1, le=32)] = 4
    gpus: Annotated[int, Field(ge=1, le=8)] = 2
    rack_budget_watts: Annotated[float | None, Field(gt=0)] = None
    agents: bool = True


class Workloads(Section):
    """Attributes:
    owner: "Kind/name". A DaemonSet stays, a Pod has nobody to make it again, all others move.
    gpus: of each of them.
    priority: the scheduler's.
    """

    owner: Annotated[str, Field(pattern="^[A-Z][A-Za-z]*/[a-z0-9][a-z0-9.-]*$")]
    node: str | None = None
    namespace: str = "default"
    gpus: Annotated[int, Field(ge=0)] = 0
    count: Annotated[int, Field(ge=1, le=100)] = 1
    priority: int = 0


class WorkloadBudget(Section):
    """A disruption budget of the scheduler's own."""

    name: str
    owner: str
    min_available: Annotated[int, Field(ge=0)]
    namespace: str = "default"


class Told(Section):
    """A finding that stands in the test, so that no detector has to make it.

    Attributes:
        culprit: the node that is to blame, if one is.
        lasts: after that it is reported to be over; None for as long as the test goes on.
    """

    failure_mode: FailureMode
    rack: str | None = None
    node: str | None = None
    gpu: Annotated[int | None, Field(ge=0)] = None
    job: str | None = None
    health: Literal["degraded", "failed"] = "failed"
    score: Annotated[float, Field(ge=0, le=1)] = 1.0
    basis: Basis = Basis.RULE
    reason: str = "as told by the test"
    culprit: str | None = None
    at: Delay = timedelta(0)
    lasts: Duration | None = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if self.gpu is not None and self.node is None:
            raise ValueError("a gpu needs its node")
        if not any((self.rack, self.node, self.job)):
            raise ValueError("names no node, rack or job that the incident is about")
        return self


class SimulatedFault(Section):
    """One fault of the simulated fleet, as in the file of `healer simulate --faults`: the detectors have to find it."""

    kind: str
    at: Delay = timedelta(0)
    node: str | None = None
    gpu: int | None = None
    rack: str | None = None
    duration: Duration | None = None
    severity: float | None = None
    variant: str | None = None
    ramp: Duration | None = None


class Deed(StrEnum):
    """What happens beside the playbook."""

    CORDON = "cordon"  # by a person
    UNCORDON = "uncordon"  # by a person
    NOT_READY = "not_ready"  # the scheduler hears nothing of the node
    READY = "ready"
    WORK_ENDS = "work_ends"  # of what a drain would evict, by itself
    CANCEL = "cancel"  # a person cancels the run
    RESTART = "restart"  # healer is killed and started again
    EXPORTER_DOWN = "exporter_down"
    EXPORTER_UP = "exporter_up"
    AGENT_DOWN = "agent_down"  # the node's agent
    AGENT_UP = "agent_up"
    LIMIT = "limit"  # a person gives the node's GPUs the lowest power limit that they take
    SUSPEND = "suspend"  # a job, by a person
    RESUME = "resume"  # a job, by a person
    BURN_IN_FAILS = "burn_in_fails"  # from now on, whatever the faults


_OF_A_JOB = frozenset({Deed.SUSPEND, Deed.RESUME})
_OF_NO_NODE = frozenset({Deed.CANCEL, Deed.RESTART}) | _OF_A_JOB


class Event(Section):
    """Attributes:
    job: as "namespace/Kind/name".
    """

    at: Delay
    do: Deed
    node: str | None = None
    job: str | None = None

    @model_validator(mode="after")
    def _has_its_node(self) -> Self:
        if (self.node is None) is not (self.do in _OF_NO_NODE):
            raise ValueError(f"{self.do} {'has no' if self.do in _OF_NO_NODE else 'needs a'} node")
        if (self.job is not None) is not (self.do in _OF_A_JOB):
            raise ValueError(f"{self.do} {'needs a' if self.do in _OF_A_JOB else 'has no'} job")
        return self


class Answer(StrEnum):
    """What on-call says when asked."""

    APPROVE = "approve"
    DENY = "deny"
    NOBODY = "nobody"


class Said(Section):
    """What one person says when they are asked.

    Attributes:
        at: in the time of the test; to what is asked later they say it then.
    """

    by: Member
    at: Delay = timedelta(0)
    say: Literal["approve", "deny"] = "approve"


class Expected(Section):
    """Attributes:
    asked: whether a person was asked.
    run: how the newest run ended, or "none".
    incident: how the incident stands in the end.
    effects: every change of the world, each once, in the order in which they first happened: "cordon NODE", "uncordon
        NODE", "evict NAMESPACE/KIND/NAME" (a restarted exporter's, too), "suspend NAMESPACE/KIND/NAME", "resume
        NAMESPACE/KIND/NAME", "limit NODE", "restore NODE", "reset NODE/GPU", "reboot NODE", "burn in NODE", "collect
        NODE", "ticket"; of a verb of the deployment's own "VERB KEY", and "undo VERB KEY".
    nodes: of these, who keeps new work away from them in the end.
    says: is part of where the incident stands.
    """

    asked: bool | None = None
    run: RunState | Literal["none"] | None = None
    incident: IncidentState | None = None
    effects: tuple[str, ...] | None = None
    nodes: dict[str, Literal["in service", "cordoned", "cordoned by a person"]] = Field(default_factory=dict)
    says: str | None = None

    @model_validator(mode="after")
    def _expects_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("expects nothing, so that it cannot fail")
        return self


class PlaybookTest(Section):
    """Attributes:
    answer: what on-call says, as many of them as have to agree.
    answer_after: so long after it was asked, on-call says so.
    answers: in place of it, what people say: only theirs, and only as far as they may.
    groups: of approvals.groups, in place of the deployment's.
    lasts: at most so long, in the time of the test.
    """

    name: Annotated[str, Field(min_length=1)]
    site: Site = Site()
    workloads: tuple[Workloads, ...] = ()
    workload_budgets: tuple[WorkloadBudget, ...] = ()
    incident: Told | None = None
    faults: tuple[SimulatedFault, ...] = ()
    mode: Mode = Mode.ACT
    params: dict[str, Scalar] = Field(default_factory=dict)
    answer: Answer = Answer.APPROVE
    answer_after: Delay = timedelta(0)
    answers: tuple[Said, ...] = ()
    groups: dict[GroupName, tuple[Member, ...]] = Field(default_factory=dict)
    events: tuple[Event, ...] = ()
    lasts: Duration = timedelta(hours=1)
    expect: Expected

    @model_validator(mode="after")
    def _something_goes_wrong(self) -> Self:
        if self.incident is None and not self.faults:
            raise ValueError("nothing goes wrong: it needs an incident, or faults")
        if self.answers and "answer" in self.model_fields_set:
            raise ValueError("it has either answer, what on-call says, or answers, what each of them says")
        return self
