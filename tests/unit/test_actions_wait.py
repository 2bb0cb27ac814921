"""wait.until: a condition on the world that is met, not met, or unknown, which is as good as not met."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import pytest

from healer.actions.wait import Until, compile_condition
from healer.adapters.simulated_cluster import SimulatedCluster
from healer.domain.component import Component, ComponentKind
from healer.domain.frame import Frame
from healer.domain.run import Done, Failed, Outcome, RetryAfter
from healer.domain.signal import Signal
from healer.errors import Unavailable
from healer.rehearsal.virtual import VirtualClock
from healer.verb import World
from tests.frames import frame_of
from tests.journal_samples import Notes, plan_of, run_of

UNTIL = Until()
NODE = Component(ComponentKind.NODE, rack="r1", node="n1")
RACK = Component(ComponentKind.RACK, rack="r1")
NAN = float("nan")


def frame(*temperatures: float) -> Frame:
    gpus = [
        Component(
            ComponentKind.GPU, rack="r1", node="n1" if number < 2 else "n2", gpu=str(number), uuid=f"GPU-{number}"
        )
        for number in range(len(temperatures))
    ]
    return frame_of(gpus, values={Signal.GPU_TEMPERATURE: np.array([temperatures])})


@dataclass
class Bench:
    frame: Frame | None = None
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.cluster = SimulatedCluster({"n1": "r1", "n2": "r1"}, clock=self.clock)
        self.notes = Notes(run_of(plan_of()))

    def world(self) -> World:
        return World(self.clock.now(), self.frame, self.cluster, None, 300.0)

    def waits(self, until: str, target: Component = NODE) -> Outcome:
        return UNTIL.run(Until.Arguments(until=until), target, self.notes.ledger(self.world(), "wait"))


def test_it_goes_on_when_the_condition_is_met_and_says_what_it_waits_for_until_then() -> None:
    bench = Bench()
    bench.cluster.add_workload("Job/train", node="n1", gpus=1)
    bench.cluster.add_workload("DaemonSet/exporter", node="n1")
    waiting = bench.waits("node.workloads == 0")
    assert isinstance(waiting, RetryAfter)
    assert waiting.detail == "waits until node.workloads == 0"
    assert bench.waits("node.workloads == 1") == Done("node.workloads == 1")


def test_of_the_target_s_gpus_the_warmest_counts() -> None:
    bench = Bench(frame(50.0, 71.0, 90.0))
    assert isinstance(bench.waits("gpus.temperature < 70.0"), RetryAfter)
    assert isinstance(bench.waits("gpus.temperature < 72.0 && gpus.count == 2"), Done)
    assert isinstance(bench.waits("gpus.temperature < 72.0", RACK), RetryAfter)


@pytest.mark.parametrize(
    "known",
    [None, frame(50.0, NAN), replace(frame(50.0, 50.0), at=VirtualClock().now() - timedelta(minutes=2))],
    ids=["before the first frame", "one GPU is not seen", "the frame is old"],
)
def test_what_is_not_known_of_all_of_them_meets_no_condition(known: Frame | None) -> None:
    waiting = Bench(known).waits("gpus.temperature < 100.0")
    assert isinstance(waiting, RetryAfter)
    assert waiting.detail.startswith("waits until gpus.temperature < 100.0: ")


def test_the_scheduler_is_asked_only_where_the_condition_is_about_the_node() -> None:
    bench = Bench(frame(50.0, 60.0))
    bench.cluster.fail_next(Unavailable("cluster", "no answer"))
    assert isinstance(bench.waits("gpus.temperature < 70"), Done)


def test_a_scheduler_that_does_not_answer_is_no_condition_that_is_met() -> None:
    bench = Bench()
    bench.cluster.fail_next(Unavailable("cluster", "no answer"))
    with pytest.raises(Unavailable):
        bench.waits("node.workloads == 0")


def test_on_a_gpu_its_node_is_seen_too() -> None:
    bench = Bench()
    gpu = replace(NODE, kind=ComponentKind.GPU, gpu="0")
    arguments, ledger = Until.Arguments(until="node.workloads == 0"), bench.notes.ledger(bench.world(), "wait")
    assert UNTIL.run(arguments, gpu, ledger) == Done("node.workloads == 0")


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("node.workload == 0", ComponentKind.NODE, "node has no 'workload'"),
        ("node.workloads == 0", ComponentKind.RACK, "unknown variable 'node'"),
        ("incident.score > 0.5", ComponentKind.NODE, "unknown variable 'incident'"),
        ("gpus.count ==", ComponentKind.NODE, "not a CEL expression"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_told_before_anything_runs(
    text: str, kind: ComponentKind, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        compile_condition(text, kind)
    target = NODE if kind is ComponentKind.NODE else RACK
    assert UNTIL.plan(Until.Arguments(until=text), target, Bench().world()).blockers
    assert isinstance(Bench().waits(text, target), Failed)


def test_it_is_shown_to_who_approves_and_leaves_nothing_that_could_be_lost_or_undone() -> None:
    bench = Bench()
    arguments, ledger = Until.Arguments(until="node.ready"), bench.notes.ledger(bench.world(), "wait")
    assert [str(each) for each in UNTIL.plan(arguments, NODE, bench.world()).effects] == ["wait until node.ready"]
    assert ledger.records == ()
    assert isinstance(UNTIL.verify(arguments, NODE, ledger), Done)
    assert isinstance(UNTIL.undo(arguments, NODE, ledger), Done)
