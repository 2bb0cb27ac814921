"""Plan: all that will happen on a day, as it is put together, and what has which node to itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from healer.domain.axes import Ints
from healer.domain.component import Component, ComponentKind
from healer.sim.days.site import Site
from healer.sim.exporters.fields import shows
from healer.sim.exporters.labels import port_name
from healer.sim.faults import FaultKind
from healer.sim.jobs.run import PhaseKind, Run
from healer.sim.jobs.schedule import Absence, gang_at, interrupted, kept_off, run_at
from healer.sim.knobs import Effect, Knob
from healer.sim.strikes.blow import Claim, Gang, Happening, Hidden, Interruption, Scene
from healer.sim.world import Mark

_APART_S = 1200.0
_NEARLY_ALL = 0.9


@dataclass(frozen=True, slots=True)
class Told:
    """A claim with its times and all that the judge writes beside it."""

    claim: Claim
    onset_s: float
    end_s: float
    severity: float
    kind: FaultKind
    variant: str


@dataclass(frozen=True, slots=True)
class Seeming:
    """Something harmless that happens, to these."""

    kind: str
    components: tuple[Component, ...]
    start_s: float
    end_s: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """What a fault that is planned rests on: that nearly all of these GPUs are at work then."""

    gpus: tuple[int, ...]
    at_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class _Savepoint:
    runs: tuple[Run, ...]
    lengths: tuple[int, ...]


@dataclass(slots=True)
class Plan:
    """Attributes:
    duration_s: of the day.
    versions: whether exporters are upgraded in the middle of it.
    """

    site: Site
    duration_s: float
    rng: np.random.Generator
    runs: tuple[Run, ...]
    effects: list[Effect] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    seeming: list[Seeming] = field(default_factory=list)
    needs: list[Need] = field(default_factory=list)
    versions: bool = False
    _taken: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def scene(self) -> Scene:
        site = self.site
        return Scene(
            layout=site.layout,
            uuids=list(site.layout.uuids),
            ports=site.hall.ports,
            gang=self.gang,
            shown=lambda row: shows(site.style.fields, row),
            port_name=lambda port: port_name(site.style, port),
            limit_w=site.hall.limit_w,
            kelvin_per_w=site.hall.chassis.sink_k_per_w + site.hall.chassis.chip_k_per_w,
        )

    @property
    def nodes(self) -> int:
        return len(self.site.layout.nodes)

    def gang(self, gpu: int, at_s: float) -> Gang | None:
        return gang_at(self.runs, gpu, at_s)

    def run(self, gpu: int, at_s: float) -> Run | None:
        return run_at(self.runs, gpu, at_s)

    def occupants(self, at_s: float) -> dict[int, Run]:
        """By GPU, whose it is then."""
        running = (run for run in self.runs if run.start_s <= at_s < run.end_s)
        return {gpu: run for run in running for gpu in run.gpus.tolist()}

    def gpus_of(self, nodes: Iterable[int]) -> Ints:
        per_node = self.site.layout.gpus_per_node
        return (np.array(sorted(nodes))[:, None] * per_node + np.arange(per_node)).ravel()

    def nodes_of(self, gpus: Ints) -> tuple[int, ...]:
        return tuple(np.unique(gpus // self.site.layout.gpus_per_node).tolist())

    def component(self, node: int) -> Component:
        return self.scene.node(node)

    def rack(self, name: str) -> Component:
        return Component(ComponentKind.RACK, rack=name)

    def is_free(self, nodes: Iterable[int], from_s: float, until_s: float) -> bool:
        """Whether nothing else happens on these nodes from some time before until some time after."""
        wanted = set(nodes)
        return not any(
            node in wanted and start_s < until_s + _APART_S and from_s - _APART_S < end_s
            for node, start_s, end_s in self._taken
        )

    def take(self, nodes: Iterable[int], from_s: float, until_s: float) -> None:
        self._taken += [(node, from_s, until_s) for node in nodes]

    def add(self, happening: Happening, *, until_s: float) -> None:
        """Args:
        until_s: when what is broken works again.
        """
        self.effects += happening.effects
        self.marks += happening.marks
        self.hidden += happening.hidden
        for cut in happening.interruptions:
            self.cut(cut)
            if cut.without:
                self.keep_off(Absence(cut.without, cut.stuck_s, until_s, spare=(cut.gang.job,)))

    def cut(self, cut: Interruption) -> None:
        self.runs = interrupted(self.runs, cut, gpus_per_node=self.site.layout.gpus_per_node, rng=self.rng)

    def keep_off(self, absence: Absence) -> None:
        self.runs = kept_off(self.runs, absence, gpus_per_node=self.site.layout.gpus_per_node, rng=self.rng)

    def tried(self, place: Callable[[], bool]) -> bool:
        """Whether there was room for it. Then it is part of the plan, else the plan is as it was."""
        before = _Savepoint(self.runs, tuple(len(each) for each in self._lists()))
        if place() and all(self._is_met(need) for need in self.needs):
            return True
        self.runs = before.runs
        for each, length in zip(self._lists(), before.lengths, strict=True):
            del each[length:]
        return False

    def _lists(self) -> tuple[list[Any], ...]:
        return self.effects, self.marks, self.hidden, self.told, self.seeming, self.needs, self._taken

    def _is_met(self, need: Need) -> bool:
        there = self.occupants(need.at_s)
        met = [
            gpu in there and there[gpu].end_s > need.until_s and self.is_at_work(there[gpu], need.at_s)
            for gpu in need.gpus
        ]
        return sum(met) >= _NEARLY_ALL * len(met)

    def take_down(
        self, nodes: Sequence[int], *, cordon_s: float, down_s: float, up_s: float, back_s: float = math.nan
    ) -> None:
        """Out of service for a while: cordoned, rid of its work, down, up and at last back.

        Args:
            back_s: when it is uncordoned; as soon as it is up if not given.
        """
        where = np.array(sorted(nodes))
        open_s = up_s if math.isnan(back_s) else back_s
        self.effects += [
            Effect(Knob.CORDONED, where, 1.0, cordon_s, open_s),
            Effect(Knob.EXPORTER_DOWN, where, 1.0, down_s, up_s),
            Effect(Knob.HOST_EXPORTER_DOWN, where, 1.0, down_s, up_s),
            Effect(Knob.NOT_READY, where, 1.0, down_s + 20.0, up_s),
        ]
        self.keep_off(Absence(tuple(nodes), cordon_s, open_s))

    @staticmethod
    def is_at_work(run: Run, at_s: float) -> bool:
        began_s = run.start_s + sum(run.profile.start_up_s)
        return at_s > began_s + 180.0 and run.phase(at_s) is PhaseKind.STEADY
