"""The overview: everything that the console's first page shows, put together by pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from healer.domain.approval import Approval, ApprovalState
from healer.domain.breaker import Trip
from healer.domain.finding import Evidence
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.domain.run import EffectRecord, Run, RunState
from healer.domain.silence import Silenced
from healer.policy.approval import may_decide
from healer.policy.silencing import matchers_of
from healer.runtime.snapshot import Snapshot
from healer.runtime.web.auth import Identity, Role
from healer.runtime.web.fleet_views import Condition, NodeView, conditions, node_views
from healer.runtime.web.plots import PowerPlot, Trace, power_plot, trace
from healer.runtime.web.silence_views import MaintenanceView, SilenceView

_MOST_CELLS = 2048  # GPUs; a larger fleet shows only the nodes that have something to see
_MOST_RACKS, _MOST_NODES = 60, 64
_NUMBERED = re.compile(r"(\D*)([0-9]{0,15})")
_QUIET = frozenset({Condition.HEALTHY, Condition.PARTIAL})


@dataclass(frozen=True, slots=True)
class RackPanel:
    """Attributes:
    quiet: nodes that are not drawn because there is nothing to see on them.
    more: nodes that are not drawn although there is.
    """

    name: str
    nodes: tuple[NodeView, ...]
    quiet: int
    more: int
    plot: PowerPlot | None


@dataclass(frozen=True, slots=True)
class FleetPanel:
    """Attributes:
    quiet: racks that are not drawn because there is nothing to see on them.
    more: racks that are not drawn although there is.
    """

    counts: Mapping[Condition, int]
    racks: tuple[RackPanel, ...]
    quiet: int
    more: int

    @property
    def gpus(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Question:
    """A pending approval.

    Attributes:
        hindrance: why the reader may not answer it; None if they may.
        agreed: why they may not agree, but could say no: they have agreed already.
    """

    approval: Approval
    incident: Incident | None
    hindrance: str | None
    agreed: str | None = None


@dataclass(frozen=True, slots=True)
class IncidentPanel:
    """Attributes:
    silenced: why it is left alone now.
    """

    incident: Incident
    silenced: Silenced | None

    @property
    def matchers(self) -> str:
        """What the reader would silence."""
        return " ".join(str(matcher) for matcher in matchers_of(self.incident.component))

    @property
    def evidence(self) -> tuple[tuple[Evidence, Trace | None], ...]:
        return tuple((each, trace(each)) for each in self.incident.evidence)


class StepMark(StrEnum):
    DONE = "done"
    CURRENT = "current"
    STOPPED = "stopped"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class RunPanel:
    run: Run
    effects: tuple[EffectRecord, ...]

    @property
    def marks(self) -> tuple[StepMark, ...]:
        return tuple(_mark(self.run, index) for index in range(len(self.run.plan.steps)))


@dataclass(frozen=True, slots=True)
class Records:
    """What the page shows of the journal.

    Attributes:
        trip: that of the breaker, while it is open.
        silences: those that have not ended.
        maintenance: the windows of the configuration, which the journal does not hold.
    """

    trip: Trip | None
    questions: tuple[Question, ...]
    answered: tuple[Approval, ...]
    incidents: tuple[IncidentPanel, ...]
    runs: tuple[RunPanel, ...]
    silences: tuple[SilenceView, ...]
    maintenance: tuple[MaintenanceView, ...]


def fleet_panel(snapshot: Snapshot, frame: Frame) -> FleetPanel:
    counted = Counter(conditions(snapshot, frame).tolist())
    by_rack: dict[str, list[NodeView]] = {str(component.rack): [] for component in frame.racks.components}
    for node in node_views(snapshot):
        by_rack.setdefault(node.rack or "", []).append(node)
    fold = len(frame.gpus) > _MOST_CELLS
    plots = dict(_plots(frame))
    racks = [_rack_panel(name, by_rack[name], plots.get(name), fold=fold) for name in sorted(by_rack, key=_natural)]
    worth = [rack for rack in racks if not fold or rack.nodes or (rack.plot is not None and rack.plot.over)]
    shown = worth[:_MOST_RACKS] if fold else worth
    return FleetPanel(
        counts={condition: counted[str(condition)] for condition in Condition},
        racks=tuple(shown),
        quiet=len(racks) - len(worth),
        more=len(worth) - len(shown),
    )


def question(
    approval: Approval, incident: Incident | None, identity: Identity, approvers: Collection[str], now: datetime
) -> Question:
    if identity.role < Role.APPROVER:
        hindrance = f"Your role is {identity.role.name.lower()}: answering needs approver."
        return Question(approval, incident, hindrance)
    no, yes = (may_decide(approval, identity.person, approvers, now, approve=approve) for approve in (False, True))
    hindrances = [None if refusal is None else refusal.message for refusal in (no, yes)]
    return Question(approval, incident, *hindrances)


def is_open(approval: Approval, now: datetime) -> bool:
    return approval.state is ApprovalState.PENDING and now < approval.expires_at


def newest_first(*incidents: Sequence[Incident]) -> tuple[Incident, ...]:
    """Several lists as one, each incident once."""
    by_id = {incident.id: incident for part in incidents for incident in part}
    return tuple(sorted(by_id.values(), key=lambda incident: incident.opened_at, reverse=True))


def _rack_panel(name: str, nodes: Sequence[NodeView], plot: PowerPlot | None, *, fold: bool) -> RackPanel:
    worth = [node for node in nodes if not fold or _has_something_to_see(node)]
    ordered = sorted(worth, key=lambda node: _natural(node.name or ""))
    shown = ordered[:_MOST_NODES] if fold else ordered
    quiet, more = len(nodes) - len(worth), len(worth) - len(shown)
    return RackPanel(name or "no rack known", tuple(shown), quiet, more, plot)


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    """rack-9 before rack-10."""
    return tuple((text, int(number or 0)) for text, number in _NUMBERED.findall(name))


def _has_something_to_see(node: NodeView) -> bool:
    calm = all(gpu.condition in _QUIET for gpu in node.gpus)
    return not calm or bool(node.cordoned) or node.ready is False


def _plots(frame: Frame) -> Iterable[tuple[str, PowerPlot]]:
    if not len(frame.racks.power_w):
        return
    for row, component in enumerate(frame.racks.components):
        yield str(component.rack), power_plot(frame.racks.power_w[:, row], float(frame.racks.budget_w[row]))


def _mark(run: Run, index: int) -> StepMark:
    if run.state is RunState.SUCCEEDED or index < run.position:
        return StepMark.DONE
    if index > run.position:
        return StepMark.WAITING
    return StepMark.STOPPED if run.state.ended else StepMark.CURRENT
