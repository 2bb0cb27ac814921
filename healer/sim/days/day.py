"""Day: a stretch of a simulated fleet's life, with the truth about it. It can be read as often as one likes.

Nothing is kept: each reading of a day lives through it again, and finds the same, to the last bit.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from healer.domain.reading import Reading
from healer.sim.days.site import Site
from healer.sim.exporters.collection import Collection, Scraped
from healer.sim.exporters.style import Style
from healer.sim.jobs.playback import Playback
from healer.sim.jobs.run import Run
from healer.sim.knobs import Effect, Scope
from healer.sim.layout import Layout
from healer.sim.strikes.blow import Hidden
from healer.sim.truth import LookAlike, Truth
from healer.sim.world import Mark, World
from healer.telemetry.catalogue.site import READ_METRICS

STEP_S = 5.0
_NONE = np.empty(0, dtype=np.int64)
LOOKBACK = timedelta(seconds=90)
_READ = frozenset((*READ_METRICS, "rack_power_watts"))


@dataclass(frozen=True, slots=True, eq=False)
class Day:
    """Attributes:
    truths: what is really wrong, in the order of their onset.
    look_alikes: what only looks so.
    runs: every job with its GPUs, times and phases (seconds after the start).
    """

    seed: int
    start: datetime
    duration: timedelta
    site: Site
    truths: tuple[Truth, ...]
    look_alikes: tuple[LookAlike, ...]
    runs: tuple[Run, ...]
    effects: tuple[Effect, ...]
    marks: tuple[Mark, ...]
    hidden: tuple[Hidden, ...]
    upgrades: bool = False

    @property
    def layout(self) -> Layout:
        return self.site.layout

    @property
    def style(self) -> Style:
        return self.site.style

    @property
    def rack_budget_w(self) -> Mapping[str, float]:
        return self.site.rack_budget_w

    @property
    def end(self) -> datetime:
        return self.start + self.duration

    def readings(
        self,
        step: timedelta,
        *,
        lookback: timedelta = LOOKBACK,
        stale_markers: bool = False,
        metrics: Container[str] = _READ,
    ) -> Iterator[Reading]:
        """What a Prometheus that scrapes this fleet answers, every `step` from the first on to the end of the day.

        Args:
            step: a multiple of five seconds.
            lookback: how old the newest sample of a series may be and still count.
            stale_markers: a series ends with the scrape that lacks it, as in a live Prometheus. Else it lasts until its
                newest sample is older than `lookback`, as where history was filled in (`write_openmetrics`).
            metrics: which are read.

        Raises:
            ValueError: the step is no multiple of five seconds.
        """
        every = step / timedelta(seconds=STEP_S)
        if every < 1 or every != int(every):
            raise ValueError(f"a step of {step} is not a multiple of {STEP_S:g} seconds")
        for number, (world, collection) in enumerate(self._live()):
            if number and number % int(every) == 0:
                at = self.start + timedelta(seconds=world.now_s)
                yield collection.reading(at, lookback_s=lookback.total_seconds(), markers=stale_markers, wanted=metrics)
            if number * STEP_S < self.duration.total_seconds():
                collection.scrape()

    def scrapes(self) -> Iterator[tuple[Collection, list[Scraped]]]:
        """Everything that is scraped, step by step."""
        for number, (_, collection) in enumerate(self._live()):
            if number * STEP_S < self.duration.total_seconds():
                yield collection, collection.scrape()

    def world(self) -> World:
        """The fleet as it is when the day begins."""
        rng = np.random.default_rng((self.seed, 2))
        playback = Playback(
            self.runs,
            gpus_per_node=self.layout.gpus_per_node,
            peak_s=self.site.peak_s,
            rng=np.random.default_rng((self.seed, 4)),
        )
        # What happens to a port happens to its cable: there is one.
        cabled = [effect.where for effect in self.effects if effect.knob.scope is Scope.PORT]
        world = World(self.layout, playback, hall=self.site.hall, rng=rng, cabled=np.concatenate([_NONE, *cabled]))
        world.add(self.effects, self.marks)
        world.turn()
        return world

    def _live(self) -> Iterator[tuple[World, Collection]]:
        """The world at each of its steps, the first and the last included."""
        world = self.world()
        collection = Collection(
            world,
            self.style,
            start_s=self.start.timestamp(),
            step_s=STEP_S,
            hidden=self.hidden,
            pods=lambda gpu: _pod(world, gpu),
            upgrades=self.upgrades,
            rng=np.random.default_rng((self.seed, 3)),
        )
        for number in range(int(self.duration.total_seconds() / STEP_S) + 1):
            if number:
                world.step(STEP_S)
            yield world, collection


def _pod(world: World, gpu: int) -> str:
    """By job and node, as gangs name theirs; another once it was made again."""
    generation = int(world.pod_generation[gpu])
    node = gpu // world.layout.gpus_per_node
    again = f"-{generation}" if generation else ""
    return f"{world.work.jobs[gpu]}-worker-{node}{again}"


def at(start: datetime, seconds: float) -> datetime:
    return start + timedelta(seconds=round(seconds, 3))
