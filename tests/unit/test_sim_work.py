"""Gangs: how the ranks of a job wait for each other."""

from __future__ import annotations

import numpy as np
import pytest

from healer.sim.activity import Activity, Row
from healer.sim.knobs import Effect, Knob, Knobs, Scope
from healer.sim.physics import Asked
from healer.sim.work import Hold, Work

N = 8
BUSY = Activity(0.9, 0.8, 0.5, 0.3, 0.9, nvlink=4e9, fabric=1e9)


@pytest.fixture
def work() -> Work:
    work = Work(N)
    work.active[:] = BUSY.column()
    work.context[:] = True
    return work


def asked(work: Work, *effects: Effect, clocks: float | list[float] = 1.0) -> Asked:
    knobs = Knobs(dict.fromkeys(Scope, N))
    knobs.add(effects)
    knobs.refresh(1.0)
    return work.asked(knobs, np.broadcast_to(np.asarray(clocks, dtype=np.float64), (N,)), np.random.default_rng(0))


def held(gpu: int, hold: Hold) -> Effect:
    return Effect(Knob.HOLD, np.array([gpu]), hold, 0.0)


def test_ranks_that_are_not_bound_do_not_wait(work: Work) -> None:
    late = Effect(Knob.DATA_STALL, np.array([0]), 1.0, 0.0)
    activity = asked(work, late).activity
    assert activity[Row.TENSOR, 0] == pytest.approx(0.25)
    assert activity[Row.TENSOR, 1:].tolist() == pytest.approx([0.5] * 7)


def test_one_late_rank_makes_all_others_of_its_gang_wait(work: Work) -> None:
    work.bind(np.array([0, 1, 2, 3]))
    late = Effect(Knob.DATA_STALL, np.array([0]), 1.0, 0.0)
    activity = asked(work, late).activity
    assert activity[Row.TENSOR, :4].tolist() == pytest.approx([0.25] * 4), "the pace of one is that of all"
    assert activity[Row.UTIL, 0] < 0.5, "its own has nothing to do"
    assert activity[Row.UTIL, 1] > 0.9, "the others spin meanwhile"
    assert activity[Row.NVLINK, 1] == pytest.approx(2e9, rel=0.02)
    assert activity[Row.TENSOR, 4:].tolist() == pytest.approx([0.5] * 4)


def test_a_rank_with_lower_clocks_works_all_the_time_and_sets_the_pace(work: Work) -> None:
    work.bind(np.arange(N))
    activity = asked(work, clocks=[0.5, *[1.0] * 7]).activity
    assert activity[Row.SM, 0] == pytest.approx(0.8)
    assert np.all(activity[Row.SM, 1:] < 0.55)


def test_the_stages_of_a_pipeline_differ_for_good(work: Work) -> None:
    work.bind(np.arange(N))
    work.rank_work[:4] = 0.7
    activity = asked(work).activity
    assert activity[Row.TENSOR, :4].tolist() == pytest.approx([0.35] * 4)
    assert activity[Row.TENSOR, 4:].tolist() == pytest.approx([0.5] * 4)


@pytest.mark.parametrize(
    ("hold", "util", "context"),
    [
        (Hold.PROCESSOR, 0.0, True),
        (Hold.DEAD, 0.0, False),
        (Hold.KERNEL_SPIN, 1.0, True),
        (Hold.KERNEL_MEMORY, 1.0, True),
        (Hold.KERNEL_NARROW, 1.0, True),
        (Hold.COLLECTIVE, 1.0, True),
    ],
)
def test_where_a_rank_hangs_shows_on_it_and_all_others_spin(
    work: Work, *, hold: Hold, util: float, context: bool
) -> None:
    work.bind(np.arange(N))
    found = asked(work, held(5, hold))
    others = np.delete(np.arange(N), 5)
    assert found.activity[Row.UTIL, 5] == util
    assert found.context[5] == context
    assert np.all(found.activity[Row.UTIL, others] > 0.99)
    assert np.all(found.activity[Row.TENSOR, others] < 0.001)
    same = np.allclose(found.activity[:, 5], found.activity[:, 4], rtol=1e-3, atol=10.0)
    assert same == (hold is Hold.COLLECTIVE), "only what hangs between the ranks is nobody's fault"


def test_a_gpu_off_the_bus_hangs_its_gang(work: Work) -> None:
    work.bind(np.arange(4))
    activity = asked(work, Effect(Knob.LOST, np.array([2]), 1.0, 0.0)).activity
    assert activity[:, 2].max() == 0
    assert np.all(activity[Row.TENSOR, [0, 1, 3]] < 0.001)
    assert activity[Row.TENSOR, 4] > 0.4


def test_a_gang_is_found_from_any_of_its_gpus_and_dissolved(work: Work) -> None:
    work.bind(np.array([1, 3, 6]))
    assert work.gang_of(6).tolist() == [1, 3, 6]
    work.unbind(np.array([1, 3, 6]))
    assert work.gang_of(6).tolist() == [6]


def test_who_gets_other_work_is_noted_once(work: Work) -> None:
    work.seat(np.array([0, 1]), "a")
    assert work.reseated == {0, 1}
    work.reseated.clear()
    work.seat(np.array([0, 1, 2]), "a")
    assert work.reseated == {2}
    assert work.jobs[:4] == ["a", "a", "a", None]
