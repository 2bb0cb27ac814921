"""Incidents as the turns go by, of one GPU and of a small fleet, for the tests of what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode as Mode
from healer.domain.finding import Finding, Findings, Health, Judgement
from healer.domain.incident import Incident, IncidentState
from healer.domain.playbook import ResolvesWhen
from healer.domain.topology import Place
from healer.policy.correlation import correlate
from tests.frames import frame_of
from tests.unit.core_samples import CLEAR_AFTER, after, gpu, judged, plan

_WINDOW_S = 600.0

GPU = gpu("A")
HEALTHY = Findings((), (judged(Health.HEALTHY),))
NOT_JUDGED = Findings((), (judged(Health.UNKNOWN),))


class Life:
    """The incidents of some GPUs, of one if not told otherwise; what `correlate` returns replaces what was there."""

    def __init__(self, *incidents: Incident) -> None:
        self.incidents = {each.id: each for each in incidents}
        self._looked_at: list[float] = []

    def turn(
        self, seconds: float, findings: Findings, *, gpus: Sequence[Component] = (GPU,), **seen: object
    ) -> tuple[Incident, ...]:
        """Args:
        gpus: those of the frame.
        seen: what else is in it, as `frame_of` takes it.
        """
        live = [each for each in self.incidents.values() if not each.state.ended or each.persists]
        before = [at - seconds for at in self._looked_at]
        frame = frame_of(gpus, at=after(seconds), times=[*before, 0.0], **seen)  # type: ignore[arg-type]
        self._looked_at = [at for at in (*self._looked_at, seconds) if seconds - at <= _WINDOW_S]
        changed = correlate(live, findings, frame, clear_after=CLEAR_AFTER)
        self.incidents |= {each.id: each for each in changed}
        return changed

    def become(self, state: IncidentState, *, resolves_when: ResolvesWhen | None = None) -> None:
        """What the operator does between turns."""
        known = plan(resolves_when=resolves_when) if resolves_when is not None else None
        self.incidents = {each.id: replace(each, state=state, plan=known) for each in self.incidents.values()}

    def only(self) -> Incident:
        (one,) = self.incidents.values()
        return one

    def open(self) -> list[tuple[Mode, str]]:
        return sorted((i.failure_mode, i.component.key) for i in self.incidents.values() if not i.state.ended)


# Eight nodes of eight GPUs in two racks; a job on the nodes of each.

NODES, GPUS = 8, 8


def gpu_at(node: int, index: int) -> Component:
    half = node // 4
    return Component(
        ComponentKind.GPU,
        rack=f"r{half}",
        node=f"n{node}",
        gpu=str(index),
        uuid=f"U{node}-{index}",
        job=f"j{half + 1}",
    )


FLEET = tuple(gpu_at(node, index) for node in range(NODES) for index in range(GPUS))
NODE = [Component(ComponentKind.NODE, rack=f"r{n // 4}", node=f"n{n}") for n in range(NODES)]
RACK = [Component(ComponentKind.RACK, rack=f"r{r}") for r in range(2)]
JOB = [Component(ComponentKind.JOB, job=name) for name in ("j1", "j2")]
# The first six on one leaf switch; the first two of each rack on one feed.
PLACES = {
    f"n{n}": Place(rack=f"r{n // 4}", feed="feed-1" if n % 4 < 2 else f"feed-{n}", switch=f"leaf-{n // 6 + 1}")
    for n in range(NODES)
}


class FleetLife(Life):
    def look(
        self, seconds: float, *found: Finding, judgements: Sequence[Judgement] = (), places: object = PLACES
    ) -> None:
        self.turn(seconds, Findings(found, tuple(judgements)), gpus=FLEET, places=places)


def sick(mode: Mode, where: Component, health: Health = Health.FAILED, *, culprit: Component | None = None) -> Finding:
    return Finding(mode, where, health, 1.0, f"{mode} it is", culprit=culprit)
