"""The jobs of a simulated fleet: what is scheduled where, how a run goes, and what an interruption makes of it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from healer.sim.jobs.playback import Playback
from healer.sim.jobs.profile import Habit, JobKind, Writing, drawn_profile
from healer.sim.jobs.run import PhaseKind, Run, built_run
from healer.sim.jobs.schedule import Absence, Mix, gang_at, interrupted, kept_off, run_at, scheduled
from healer.sim.layout import Layout, build_layout
from healer.sim.strikes.blow import Gang, Interruption
from healer.sim.world import PLAIN_HALL, World

DAY_S = 86_400.0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture(scope="module")
def layout() -> Layout:
    return build_layout(racks=4, nodes=32, gpus=8, seed=0)


@pytest.fixture(scope="module")
def runs(layout: Layout) -> tuple[Run, ...]:
    return scheduled(layout, Mix(), DAY_S, np.random.default_rng(7))


def gang(rng: np.random.Generator, *, nodes: int = 2, **changes: object) -> Run:
    profile = drawn_profile(JobKind.DENSE, rng)
    profile = replace(profile, checkpoint=Habit(1200.0, 60.0), evaluates=None, start_up_s=(60.0, 60.0, 60.0))
    profile = replace(profile, **changes)  # type: ignore[arg-type]
    return built_run("llm-1", profile, np.arange(8 * nodes), 0.0, 7200.0, rng=rng)


def played(run: Run, at_s: float) -> World:
    layout = build_layout(racks=1, nodes=4, gpus=8, seed=0)
    driver = Playback([run], gpus_per_node=8, peak_s=0.0, rng=np.random.default_rng(0))
    world = World(layout, driver, hall=PLAIN_HALL, rng=np.random.default_rng(0))
    while world.now_s < at_s:
        world.step(5.0)
    return world


def test_no_gpu_has_two_jobs_at_once(runs: tuple[Run, ...]) -> None:
    by_gpu: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        for gpu in run.gpus.tolist():
            by_gpu.setdefault(gpu, []).append((run.start_s, run.end_s))
    for spans in by_gpu.values():
        for (_, end_s), (start_s, _) in itertools.pairwise(sorted(spans)):
            assert end_s <= start_s


def test_a_day_has_gangs_of_many_sizes_and_lengths_and_nodes_that_wait(runs: tuple[Run, ...]) -> None:
    sizes = {len(run.gpus) // 8 for run in runs if run.profile.synced and len(run.gpus) >= 8}
    assert {1, 2, 4} <= sizes
    lengths = [run.end_s - run.start_s for run in runs]
    assert min(lengths) < 1800.0
    assert max(lengths) > 0.5 * DAY_S
    assert {run.profile.kind for run in runs} >= {JobKind.INFERENCE, JobKind.NOTEBOOK, JobKind.DENSE}
    busy = sum((min(run.end_s, DAY_S) - max(run.start_s, 0.0)) * len(run.gpus) for run in runs if run.start_s < DAY_S)
    assert 0.5 < busy / (DAY_S * 256) < 0.97


def test_a_day_begins_in_the_middle_of_things(runs: tuple[Run, ...]) -> None:
    assert sum(run.start_s < 0 < run.end_s for run in runs) > 5


def test_a_run_starts_up_works_saves_and_ends(rng: np.random.Generator) -> None:
    run = gang(rng)
    assert [run.phase(at) for at in (-1.0, 10.0, 70.0, 130.0, 300.0, 7200.0)] == [
        None,
        PhaseKind.PULLING,
        PhaseKind.LOADING,
        PhaseKind.COMPILING,
        PhaseKind.STEADY,
        None,
    ]
    saves = [phase.start_s for phase in run.phases if phase.kind is PhaseKind.CHECKPOINT]
    assert 4 <= len(saves) <= 6


def test_while_it_starts_up_a_job_has_its_gpus_and_does_little(rng: np.random.Generator) -> None:
    world = played(gang(rng), 30.0)
    assert world.work.jobs[:17] == [*["llm-1"] * 16, None]
    assert world.gpus.fb_used_mib[:16].max() < 10, "the container is being pulled"
    compiling = played(gang(rng), 165.0).gpus
    assert np.all(compiling.util_percent[:16] < 45)
    assert np.all(compiling.fb_used_mib[:16] > 1000)


@pytest.mark.parametrize(("writing", "util", "watts"), [(Writing.IDLE, 10, 160), (Writing.BARRIER, 95, 400)])
def test_a_checkpoint_is_written_while_all_rest_or_while_all_spin(
    rng: np.random.Generator, *, writing: Writing, util: float, watts: float
) -> None:
    run = gang(rng, writing=writing)
    begins_s = next(phase.start_s for phase in run.phases if phase.kind is PhaseKind.CHECKPOINT)
    state = played(run, begins_s + 30.0).gpus
    others = np.arange(1, 8)
    assert np.all(state.tensor_active[:16] < 0.02)
    assert (state.util_percent[others] > util).all() == (writing is Writing.BARRIER)
    assert state.util_percent[0] < 15, "who writes does not compute"
    assert np.all(state.power_w[others] < watts)


def test_only_one_node_may_evaluate_while_the_others_spin(rng: np.random.Generator) -> None:
    run = gang(rng, checkpoint=None, evaluates=Habit(1800.0, 200.0), evaluates_on_one=True)
    begins_s = next(phase.start_s for phase in run.phases if phase.kind is PhaseKind.EVALUATION)
    state = played(run, begins_s + 60.0).gpus
    assert np.all(state.tensor_active[:8] > 0.1)
    assert np.all(state.tensor_active[8:16] < 0.02)
    assert np.all(state.util_percent[8:16] > 95)


def test_inference_follows_the_day_and_is_spread_unevenly(rng: np.random.Generator) -> None:
    profile = drawn_profile(JobKind.INFERENCE, rng)
    run = built_run("chat", profile, np.arange(32), -3600.0, 2 * DAY_S, rng=rng)
    at_peak = played(run, 1800.0).gpus.power_w.copy()
    by_night = played(run, 12 * 3600.0).gpus.power_w.copy()
    assert at_peak.mean() > by_night.mean() + 25
    assert at_peak.std() > 10


def test_a_pinned_job_is_busy_hot_and_never_uses_tensor_pipes(rng: np.random.Generator) -> None:
    run = built_run("hash", drawn_profile(JobKind.PINNED, rng), np.arange(8), 0.0, 7200.0, rng=rng)
    state = played(run, 1200.0).gpus
    assert np.all(state.util_percent[:8] > 95)
    assert np.all(state.sm_active[:8] > 0.9)
    assert np.all(state.tensor_active[:8] == 0)
    assert np.all(state.power_w[:8] > 380)


def test_the_stages_of_a_pipeline_are_uneven_for_the_whole_run(rng: np.random.Generator) -> None:
    run = built_run("pp", drawn_profile(JobKind.PIPELINE, rng), np.arange(32), 0.0, 7200.0, rng=rng)
    means = run.rank_work.reshape(4, 8).mean(axis=1)
    assert run.profile.stages > 1
    assert means.max() - means.min() > 0.03


def cut(run: Run, **changes: object) -> Interruption:
    fields: dict[str, object] = {"stuck_s": 3000.0, "killed_s": 3600.0, "back_s": 4000.0, **changes}
    return Interruption(Gang(run.job, run.gpus), **fields)  # type: ignore[arg-type]


def test_an_interrupted_run_goes_no_further_is_ended_and_begins_again(rng: np.random.Generator) -> None:
    run = gang(rng)
    first, second = interrupted([run], cut(run), gpus_per_node=8, rng=rng)
    assert (first.end_s, second.start_s, second.end_s) == (3600.0, 4000.0, 7200.0)
    assert (second.attempt, second.job) == (2, run.job)
    assert all(phase.start_s <= 3000.0 for phase in first.phases), "who hangs saves nothing"
    assert first.phase(3500.0) is PhaseKind.STEADY
    assert second.phase(4010.0) is PhaseKind.PULLING


def test_a_run_may_go_on_without_a_node_or_not_at_all(rng: np.random.Generator) -> None:
    run = gang(rng)
    assert interrupted([run], cut(run, without=(1,)), gpus_per_node=8, rng=rng)[1].gpus.tolist() == list(range(8))
    assert len(interrupted([run], cut(run, without=(0, 1)), gpus_per_node=8, rng=rng)) == 1
    assert len(interrupted([run], cut(run, back_s=math.inf), gpus_per_node=8, rng=rng)) == 1


def test_what_is_drained_moves_or_waits(rng: np.random.Generator) -> None:
    wide, narrow = (
        gang(rng),
        built_run("one", drawn_profile(JobKind.SMALL, rng), np.arange(16, 24), 0.0, 9000.0, rng=rng),
    )
    moved = kept_off([wide], Absence((1,), 3000.0, 5000.0), gpus_per_node=8, rng=rng)
    assert [run.gpus.tolist() for run in moved] == [list(range(16)), list(range(8))]
    assert moved[0].end_s == 3000.0
    waits = kept_off([narrow], Absence((2,), 3000.0, 5000.0), gpus_per_node=8, rng=rng)
    assert waits[1].start_s >= 5000.0
    assert kept_off([wide], Absence((1,), 3000.0, 5000.0, spare=("llm-1",)), gpus_per_node=8, rng=rng) == (wide,)


def test_it_can_be_asked_whose_a_gpu_is(rng: np.random.Generator) -> None:
    run = gang(rng)
    assert run_at([run], 3, 100.0) is run
    assert run_at([run], 16, 100.0) is None
    assert run_at([run], 3, 7300.0) is None
    found = gang_at([run], 3, 100.0)
    assert found is not None
    assert (found.job, len(found.gpus)) == ("llm-1", 16)
