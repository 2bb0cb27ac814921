"""power.limit and power.keep: a share of each GPU's own default, as long as it is needed, and nobody else's limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from healer.actions.caps import NodeCap
from healer.actions.limits import Keep, Limit
from healer.actions.power import Restore
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import GpuPower
from healer.domain.frame import Frame
from healer.domain.run import Done, EffectRecord, EffectState, Failed, Outcome, RetryAfter
from healer.domain.signal import Signal
from healer.errors import Rejected, Unavailable
from healer.rehearsal.virtual import VirtualClock
from healer.verb import World
from tests.frames import frame_of
from tests.journal_samples import NOW, Notes, plan_of, run_of

LIMIT, KEEP, RESTORE = Limit(), Keep(), Restore()
LIMITING = Limit.Arguments(share=0.7, ttl=timedelta(minutes=5))
KEEPING = Keep.Arguments(until="gpus.temperature < 65", lasting=timedelta(minutes=2))
FLOOR_W = 300.0
RACK = Component(ComponentKind.RACK, rack="r1")
NODE = Component(ComponentKind.NODE, rack="r1", node="n1")
GPU = Component(ComponentKind.GPU, rack="r1", node="n1", gpu="1", uuid="GPU-n1-1")


class Agents:
    """Implements `healer.ports.PowerControl`: the limits of GPUs whose defaults may be unlike.

    Attributes:
        gpus: by node.
        told: every change, as (node, watts by GPU, fallback); an empty mapping for a restore.
        silent, refusing: nodes whose agent does not answer, or says no to every change.
        loses_answer: the next change happens, and nobody hears of it.
    """

    def __init__(self, defaults_w: Mapping[str, Sequence[float]]) -> None:
        self.gpus = {
            node: [GpuPower(node, i, f"GPU-{node}-{i}", w, w, 0.2 * w, w, 0.5 * w) for i, w in enumerate(watts)]
            for node, watts in defaults_w.items()
        }
        self.told: list[tuple[str, Mapping[int, float], float]] = []
        self.silent: set[str] = set()
        self.refusing: set[str] = set()
        self.loses_answer = False

    def limits(self, node: str) -> tuple[GpuPower, ...]:
        if node in self.silent:
            raise Unavailable(f"power agent of {node}", "did not answer")
        return tuple(self.gpus[node])

    def set_limits(self, node: str, limits_w: Mapping[int, float], *, ttl: timedelta, fallback_w: float) -> None:
        assert ttl > timedelta(0)
        for gpu in self._changed(node, limits_w):
            assert gpu.min_w <= min(fallback_w, limits_w[gpu.gpu]) <= max(fallback_w, limits_w[gpu.gpu]) <= gpu.max_w
        self.told.append((node, dict(limits_w), fallback_w))
        self.by_hand(node, limits_w)
        if self.loses_answer:
            self.loses_answer = False
            raise Unavailable(f"power agent of {node}", "connection reset")

    def restore(self, node: str, gpus: Sequence[int]) -> None:
        self.told.append((node, {}, 0.0))
        self.by_hand(node, {gpu.gpu: gpu.default_w for gpu in self._changed(node, gpus)})

    def by_hand(self, node: str, limits_w: Mapping[int, float]) -> None:
        """Somebody sets limits, whoever it is."""
        self.gpus[node] = [replace(gpu, limit_w=limits_w.get(gpu.gpu, gpu.limit_w)) for gpu in self.gpus[node]]

    def _changed(self, node: str, gpus: Mapping[int, float] | Sequence[int]) -> list[GpuPower]:
        here = {gpu.gpu: gpu for gpu in self.limits(node)}
        if node in self.refusing or not set(gpus) <= here.keys():
            raise Rejected(f"power agent of {node}", "not in this maintenance window")
        assert gpus
        return [here[gpu] for gpu in gpus]


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Bench:
    """Two nodes of two GPUs in one rack, with neither meter nor budget; one job on both, one on the first's second."""

    defaults_w: Mapping[str, Sequence[float]] = field(default_factory=lambda: {"n1": (700, 700), "n2": (700, 700)})
    target: Component = RACK
    floor_w: float = FLOOR_W
    jobs: tuple[str | None, ...] = ("train", "single", "train", "train")
    temperatures: tuple[float, ...] = (90.0, 90.0, 90.0, 90.0)
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(NOW))

    def __post_init__(self) -> None:
        self.agents = Agents(self.defaults_w)
        self.notes = Notes(run_of(plan_of(target=self.target)))
        self.frame: Frame | None = self.look()

    def look(self) -> Frame:
        gpus = [
            Component(ComponentKind.GPU, rack="r1", node=node, gpu=str(i), uuid=f"GPU-{node}-{i}", job=job)
            for (node, i), job in zip(((node, i) for node in ("n1", "n2") for i in range(2)), self.jobs, strict=True)
        ]
        seen = {Signal.GPU_TEMPERATURE: np.array([self.temperatures])}
        return frame_of(gpus, at=self.clock.now(), values=seen)

    def let_pass(self, seconds: float, *, temperature: float | None = None, looked: bool = True) -> None:
        """Time passes; the run was due at its end, or a while ago if nobody `looked` in between."""
        if temperature is not None:
            self.temperatures = (temperature,) * 4
        due = self.clock.now() + timedelta(seconds=seconds if looked else 0)
        self.clock.advance(timedelta(seconds=seconds))
        self.notes.run = replace(self.notes.run, next_look_at=due)
        self.frame = self.look()

    def world(self) -> World:
        return World(self.clock.now(), self.frame, None, self.agents, self.floor_w)

    def limit(self) -> Outcome:
        return LIMIT.run(LIMITING, self.target, self.notes.ledger(self.world(), "limit"))

    def keep(self, arguments: Keep.Arguments = KEEPING) -> Outcome:
        return KEEP.run(arguments, self.target, self.notes.ledger(self.world(), "keep"))

    def restore(self) -> Outcome:
        return RESTORE.run(Restore.Arguments(), self.target, self.notes.ledger(self.world(), "restore"))

    def limits_w(self) -> list[float]:
        return [gpu.limit_w for gpus in self.agents.gpus.values() for gpu in gpus]


# power.limit


@pytest.mark.parametrize(
    ("target", "limits_w", "says"),
    [
        pytest.param(RACK, [490, 490, 490, 490], "4 GPUs on 2 nodes are limited to 490 W", id="rack"),
        pytest.param(NODE, [490, 490, 700, 700], "2 GPUs on 1 nodes are limited to 490 W", id="node"),
        pytest.param(GPU, [700, 490, 700, 700], "1 GPUs on 1 nodes are limited to 490 W", id="gpu"),
    ],
)
def test_every_gpu_of_the_target_gets_its_share_and_no_other(
    target: Component, limits_w: list[float], says: str
) -> None:
    bench = Bench(target=target)
    assert bench.limit() == Done(says)
    assert bench.limits_w() == limits_w
    assert {fallback_w for _, _, fallback_w in bench.agents.told} == {490.0}
    assert bench.restore() == Done("the GPUs have their default limits again")
    assert bench.limits_w() == [700] * 4


def test_each_share_is_of_the_gpu_s_own_default_and_no_fallback_is_above_a_limit() -> None:
    bench = Bench({"n1": (700, 500), "n2": (1000, 1000)})
    assert bench.limit() == Done("4 GPUs on 2 nodes are limited to 350 to 700 W")
    assert bench.limits_w() == [490, 350, 700, 700]
    assert bench.agents.told == [("n1", {0: 490, 1: 350}, 350), ("n2", {0: 700, 1: 700}, 700)]
    bench.restore()
    assert bench.limits_w() == [700, 500, 1000, 1000]


def test_no_limit_goes_below_the_floor_or_what_any_device_of_the_node_takes() -> None:
    bench = Bench({"n1": (400, 1600), "n2": (300, 350)})
    bench.limit()
    assert bench.limits_w() == [320, 1120, 300, 300]  # the larger of n1 takes no less than 320 W
    (proposal,) = LIMIT.plan(LIMITING, RACK, Bench({"n1": (400, 1600), "n2": (300, 350)}).world()).impediments[:1]
    assert proposal == "1 of its 4 GPUs are left as they are"


def test_the_plan_says_what_it_does_and_whose_job_waits_for_it() -> None:
    bench = Bench(target=NODE)
    proposal = LIMIT.plan(LIMITING, NODE, bench.world())
    assert [str(each) for each in proposal.effects] == [
        "limit power node n1 (2 GPUs on 1 nodes from 700 W to 490 W each)"
    ]
    assert proposal.impediments == ("job train has 2 more GPUs outside: all of them go as slowly",)
    assert proposal.effects[0].takes_out is None
    assert LIMIT.plan(LIMITING, RACK, bench.world()).impediments == ()


def test_a_limit_that_somebody_else_lowered_is_left_alone() -> None:
    bench = Bench()
    bench.agents.by_hand("n1", {0: 600.0})
    assert "1 of its 4 GPUs are left as they are" in LIMIT.plan(LIMITING, RACK, bench.world()).impediments
    bench.limit()
    assert bench.limits_w() == [600, 490, 490, 490]
    bench.let_pass(15)
    bench.keep()
    bench.restore()
    assert bench.limits_w() == [600, 700, 700, 700]


def test_where_every_limit_is_somebody_else_s_nothing_is_planned_or_done() -> None:
    bench = Bench(target=NODE)
    bench.agents.by_hand("n1", {0: 600.0, 1: 600.0})
    assert LIMIT.plan(LIMITING, NODE, bench.world()).blockers == (
        "no GPU of node n1 has a limit that is ours to lower",
    )
    assert bench.limit() == Failed("no GPU of node n1 could be limited")
    assert bench.agents.told == []


def test_a_node_whose_agent_is_silent_is_told_and_keeps_no_other_from_it() -> None:
    bench = Bench()
    bench.agents.silent.add("n1")
    (first, *_) = LIMIT.plan(LIMITING, RACK, bench.world()).impediments
    assert first == "power agent of n1: did not answer"
    assert bench.limit() == Done("2 GPUs on 1 nodes are limited to 490 W; power agent of n1: did not answer")
    assert bench.limits_w() == [700, 700, 490, 490]


@pytest.mark.parametrize("blind", ["telemetry", "agents"])
def test_where_nothing_is_known_nothing_is_planned_or_done(blind: str) -> None:
    bench = Bench()
    if blind == "telemetry":
        bench.frame = None
    bench.agents.silent |= {"n1", "n2"}
    for ask in (bench.limit, lambda: LIMIT.plan(LIMITING, RACK, bench.world())):
        with pytest.raises(Unavailable):
            ask()
    assert bench.notes.records == []


def test_an_agent_that_says_no_is_told_and_the_others_are_limited() -> None:
    bench = Bench()
    bench.agents.refusing.add("n1")
    outcome = bench.limit()
    assert isinstance(outcome, Done)
    assert outcome.detail.endswith("power agent of n1: not in this maintenance window")
    assert bench.limits_w() == [700, 700, 490, 490]
    bench.agents.refusing.add("n2")
    assert isinstance(bench.limit(), Done)  # what is done is done
    alone = Bench(target=NODE)
    alone.agents.refusing.add("n1")
    assert isinstance(alone.limit(), Failed)


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_interrupted_limit_goes_on_where_it_was(after: int) -> None:
    bench, writes = Bench(), 0

    def die(_record: EffectRecord) -> None:
        nonlocal writes
        writes += 1
        if writes > after:
            raise Killed

    bench.notes.dies_before = die
    with pytest.raises(Killed):
        bench.limit()
    bench.notes.dies_before = lambda _record: None
    assert bench.limit() == Done("4 GPUs on 2 nodes are limited to 490 W")
    assert bench.limits_w() == [490] * 4
    assert [node for node, _, _ in bench.agents.told] == ["n1", "n2"]
    assert {record.state for record in bench.notes.records} == {EffectState.DONE}
    bench.restore()
    assert bench.limits_w() == [700] * 4


def test_a_limit_whose_answer_was_lost_is_read_back() -> None:
    bench = Bench()
    bench.agents.loses_answer = True
    with pytest.raises(Exception, match="connection reset"):
        bench.limit()
    assert isinstance(bench.limit(), Done)
    assert [node for node, _, _ in bench.agents.told] == ["n1", "n2"]


def test_what_an_older_release_wrote_is_still_read() -> None:
    old = '{"cap_w":560,"fallback_w":500,"default_w":700,"lowest_w":300,"ttl_s":120,"gpus":[0,1]}'
    assert msgspec.json.decode(old, type=NodeCap).limits == {0: 560, 1: 560}


# power.keep


def limited(**changes: object) -> Bench:
    bench = Bench(**changes)  # type: ignore[arg-type]
    bench.limit()
    bench.agents.told.clear()
    return bench


def test_it_renews_the_limits_until_the_condition_has_held_for_so_long() -> None:
    bench = limited()
    for _ in range(3):
        bench.let_pass(15)
        assert bench.keep() == RetryAfter(timedelta(seconds=15), "kept until gpus.temperature < 65")
    assert bench.agents.told == [("n1", {0: 490, 1: 490}, 490), ("n2", {0: 490, 1: 490}, 490)] * 3
    for seconds in (0, 30, 30, 30):
        bench.let_pass(seconds, temperature=50.0)
        since = "kept until gpus.temperature < 65, so since 03:00:45Z"
        assert bench.keep() == RetryAfter(timedelta(seconds=15), since)
    bench.let_pass(30)
    assert bench.keep() == Done("gpus.temperature < 65 for 2m")


def test_what_breaks_the_condition_for_a_moment_makes_it_count_anew() -> None:
    bench = limited()
    for temperature in (50.0, 50.0, 70.0, 50.0, 50.0, 50.0, 50.0):
        bench.let_pass(30, temperature=temperature)
        assert isinstance(bench.keep(), RetryAfter)
    bench.let_pass(30)
    assert isinstance(bench.keep(), Done)


@pytest.mark.parametrize("unknown", ["one GPU", "the frame", "everything"])
def test_what_is_not_known_meets_no_condition_and_the_limits_stay(unknown: str) -> None:
    bench = limited()
    for _ in range(8):
        bench.let_pass(60, temperature=50.0)
        if unknown == "one GPU":
            bench.temperatures = (50.0, 50.0, 50.0, float("nan"))
            bench.frame = bench.look()
        elif unknown == "the frame":
            bench.frame = replace(bench.look(), at=NOW - timedelta(hours=1))
        else:
            bench.frame = None
        assert isinstance(bench.keep(), RetryAfter)
    assert bench.limits_w() == [490] * 4


def test_after_a_pause_in_which_nobody_looked_it_counts_anew() -> None:
    bench = limited()
    bench.let_pass(15, temperature=50.0)
    bench.keep()
    bench.let_pass(3600, looked=False)
    waiting = bench.keep()
    assert isinstance(waiting, RetryAfter)
    assert waiting.detail.endswith("so since 04:00:15Z")


def test_a_restart_between_two_looks_forgets_nothing() -> None:
    bench = limited()
    bench.let_pass(15, temperature=50.0)
    bench.keep()
    bench.let_pass(50, looked=False)
    bench.keep()
    bench.let_pass(70)
    assert isinstance(bench.keep(), Done)


def test_an_agent_that_does_not_answer_keeps_the_others_from_nothing() -> None:
    bench = limited()
    bench.agents.silent.add("n1")
    bench.let_pass(15)
    waiting = bench.keep()
    assert isinstance(waiting, RetryAfter)
    assert waiting.detail.endswith("; power agent of n1: did not answer")
    assert [node for node, _, _ in bench.agents.told] == ["n2"]


def test_a_lower_limit_that_a_person_sets_meanwhile_is_neither_raised_nor_put_back() -> None:
    bench = limited()
    bench.agents.by_hand("n1", {0: 350.0})
    bench.let_pass(15)
    bench.keep()
    assert bench.limits_w() == [350, 490, 490, 490]
    bench.restore()
    assert bench.limits_w() == [350, 700, 700, 700]


def test_a_node_that_has_started_anew_gets_its_limits_again() -> None:
    bench = limited()
    bench.agents.by_hand("n1", {0: 700.0, 1: 700.0})
    bench.let_pass(15)
    bench.keep()
    assert bench.limits_w() == [490] * 4


def test_undoing_it_restores() -> None:
    bench = limited()
    KEEP.undo(KEEPING, RACK, bench.notes.ledger(bench.world(), "keep"))
    assert bench.limits_w() == [700] * 4
    assert isinstance(LIMIT.verify(LIMITING, RACK, bench.notes.ledger(bench.world(), "limit")), Done)
    LIMIT.undo(LIMITING, RACK, bench.notes.ledger(bench.world(), "limit"))
    assert bench.limits_w() == [700] * 4


def test_it_says_to_who_approves_how_long_they_stay_and_what_cannot_be_meant() -> None:
    (effect,) = KEEP.plan(KEEPING, RACK, Bench().world()).effects
    assert (str(effect), effect.harmless) == ("keep limits until gpus.temperature < 65 for 2m", True)
    unmeant = Keep.Arguments(until="gpus.warmth < 65")
    assert KEEP.plan(unmeant, RACK, Bench().world()).blockers
    assert isinstance(limited().keep(unmeant), Failed)


def test_a_short_time_to_live_is_renewed_before_it_is_over() -> None:
    bench = Bench()
    LIMIT.run(Limit.Arguments(ttl=timedelta(seconds=30)), RACK, bench.notes.ledger(bench.world(), "limit"))
    bench.let_pass(10)
    waiting = bench.keep()
    assert isinstance(waiting, RetryAfter)
    assert waiting.wait == timedelta(seconds=10)
