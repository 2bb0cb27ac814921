"""What the simulated cluster adds to the contract: one history for one clock, room, effects, failures on request."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from healer.adapters.simulated_cluster import Effect, SimulatedCluster, Verb
from healer.domain.fleet import Disposition, Workload
from healer.errors import NotFound, Rejected, Unavailable
from healer.ports import EvictionAnswer

START = datetime(2026, 1, 1, tzinfo=UTC)
RACKS = {"gpu-1": "r1", "gpu-2": "r1", "gpu-3": "r2"}


class HandClock:
    """Goes on only when it is told to."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def cluster(clock: HandClock) -> SimulatedCluster:
    return SimulatedCluster(RACKS, clock=clock, termination=timedelta(seconds=30), gpus_per_node=8)


def _everywhere(cluster: SimulatedCluster) -> dict[str, list[str]]:
    return {node: [seen.name for seen in cluster.workloads(node)] for node in RACKS}


def test_an_evicted_workload_is_there_until_its_time_to_end_is_over(
    cluster: SimulatedCluster, clock: HandClock
) -> None:
    cluster.add_workload("Job/train", node="gpu-1", gpus=8)
    (workload,) = cluster.workloads("gpu-1")
    cluster.cordon("gpu-1", by="run-1", reason="XID 79")
    cluster.evict(workload, grace=None)

    clock.advance(29)
    assert [seen.leaving for seen in cluster.workloads("gpu-1")] == [True]
    clock.advance(1)

    assert _everywhere(cluster) == {"gpu-1": [], "gpu-2": ["train-2"], "gpu-3": []}


@pytest.mark.parametrize(("grace_s", "gone_after_s"), [(5, 5), (300, 30)])
def test_less_grace_ends_a_workload_sooner_and_more_does_not_keep_it(
    cluster: SimulatedCluster, clock: HandClock, grace_s: float, gone_after_s: float
) -> None:
    cluster.add_workload("Pod/notebook", node="gpu-1")
    cluster.evict(cluster.workloads("gpu-1")[0], grace=timedelta(seconds=grace_s))

    clock.advance(gone_after_s - 1)
    assert cluster.workloads("gpu-1")
    clock.advance(1)
    assert not cluster.workloads("gpu-1")


def test_a_replacement_waits_for_room_and_takes_it_when_a_person_gives_it(
    cluster: SimulatedCluster, clock: HandClock
) -> None:
    for node in RACKS:
        cluster.add_workload("Job/train", node=node, gpus=8)
    cluster.cordon_by_person("gpu-1")
    cluster.evict(cluster.workloads("gpu-1")[0], grace=None)

    clock.advance(30)
    assert _everywhere(cluster) == {"gpu-1": [], "gpu-2": ["train-2"], "gpu-3": ["train-3"]}
    cluster.uncordon_by_person("gpu-1")

    assert _everywhere(cluster)["gpu-1"] == ["train-4"]


def test_a_workload_too_large_for_the_room_does_not_hold_up_a_smaller_one(cluster: SimulatedCluster) -> None:
    for node in RACKS:
        cluster.add_workload("Job/train", node=node, gpus=5)

    cluster.add_workload("Job/large", gpus=4)
    cluster.add_workload("Job/small", gpus=3)

    assert _everywhere(cluster) == {"gpu-1": ["train-1", "small-5"], "gpu-2": ["train-2"], "gpu-3": ["train-3"]}


def test_new_work_goes_where_there_is_most_room(cluster: SimulatedCluster) -> None:
    cluster.add_workload("Job/a", node="gpu-1", gpus=4)
    cluster.cordon_by_person("gpu-2")

    cluster.add_workload("Job/b", gpus=2)

    assert [seen.name for seen in cluster.workloads("gpu-3")] == ["b-2"]


def test_a_node_that_does_not_answer_gets_no_work_and_lets_nothing_end(
    cluster: SimulatedCluster, clock: HandClock
) -> None:
    cluster.add_workload("Job/train", node="gpu-1", gpus=8)
    cluster.set_ready("gpu-1", ready=False)
    cluster.evict(cluster.workloads("gpu-1")[0], grace=None)

    clock.advance(3600)
    assert [seen.leaving for seen in cluster.workloads("gpu-1")] == [True]
    assert not cluster.node("gpu-1").ready
    cluster.set_ready("gpu-1", ready=True)

    assert not any(seen.leaving for seen in cluster.workloads("gpu-1"))


def test_a_daemon_sets_workload_comes_back_on_its_node_though_it_is_cordoned(
    cluster: SimulatedCluster, clock: HandClock
) -> None:
    cluster.add_workload("DaemonSet/exporter")
    cluster.cordon_by_person("gpu-1")
    (before,) = cluster.workloads("gpu-1")
    cluster.evict(before, grace=None)

    clock.advance(30)

    (after,) = cluster.workloads("gpu-1")
    assert after.uid != before.uid
    assert after.disposition is Disposition.STAYS


def test_only_what_healer_changed_is_an_effect(cluster: SimulatedCluster, clock: HandClock) -> None:
    cluster.add_workload("Job/train", node="gpu-1", namespace="ml")
    (workload,) = cluster.workloads("gpu-1")
    cluster.cordon_by_person("gpu-2")
    cluster.cordon("gpu-1", by="run-1", reason="XID 79")
    cluster.cordon("gpu-1", by="run-1", reason="once more")
    clock.advance(1)
    cluster.evict(workload, grace=None)
    cluster.evict(workload, grace=None)
    clock.advance(60)
    assert cluster.evict(workload, grace=None).answer is EvictionAnswer.GONE
    cluster.uncordon("gpu-1", by="run-1")

    assert cluster.effects == (
        Effect(START, Verb.CORDON, "gpu-1", by="run-1", reason="XID 79"),
        Effect(START + timedelta(seconds=1), Verb.EVICT, "gpu-1", workload="ml/train-1", of="ml/Job/train"),
        Effect(START + timedelta(seconds=61), Verb.UNCORDON, "gpu-1", by="run-1"),
    )


def test_a_failure_on_request_has_no_effect_and_passes(cluster: SimulatedCluster) -> None:
    cluster.fail_next(Unavailable("simulated cluster", "maintenance"), times=2)

    for _ in range(2):
        with pytest.raises(Unavailable, match="maintenance"):
            cluster.cordon("gpu-1", by="run-1", reason="XID 79")

    assert cluster.effects == ()
    assert not cluster.node("gpu-1").cordoned


def test_a_budget_counts_what_is_running_and_not_what_waits(cluster: SimulatedCluster, clock: HandClock) -> None:
    cluster.add_workload("Deployment/web", node="gpu-1", gpus=8)
    cluster.add_workload("Deployment/web", node="gpu-2", gpus=8)
    cluster.set_budget("web", owner="Deployment/web", min_available=1)
    for node in RACKS:
        cluster.cordon_by_person(node)

    assert cluster.evict(cluster.workloads("gpu-1")[0], grace=None).answer is EvictionAnswer.ACCEPTED
    clock.advance(30)
    (other,) = cluster.workloads("gpu-2")
    assert other.blocked_by == "default/web (0 disruptions allowed)"
    cluster.uncordon_by_person("gpu-3")

    assert cluster.workloads("gpu-2")[0].blocked_by is None


def test_a_budget_that_is_set_again_replaces_the_first(cluster: SimulatedCluster) -> None:
    cluster.add_workload("Deployment/web", node="gpu-1")
    cluster.set_budget("web", owner="Deployment/web", min_available=1)
    cluster.set_budget("web", owner="Deployment/web", min_available=0)

    assert cluster.evict(cluster.workloads("gpu-1")[0], grace=None).answer is EvictionAnswer.ACCEPTED


def test_the_same_steps_give_the_same_history() -> None:
    def history() -> tuple[tuple[Workload, ...], ...]:
        clock = HandClock()
        cluster = SimulatedCluster(RACKS, clock=clock)
        for number in range(9):
            cluster.add_workload(f"Job/train-{number % 3}", gpus=2)
        cluster.cordon("gpu-2", by="run-1", reason="")
        for workload in cluster.workloads("gpu-2"):
            cluster.evict(workload, grace=None)
            clock.advance(7)
        clock.advance(60)
        return tuple(cluster.workloads(node) for node in RACKS)

    assert history() == history()


def test_of_many_threads_that_cordon_one_node_only_one_succeeds(cluster: SimulatedCluster) -> None:
    start = threading.Barrier(8)
    lost: list[str] = []

    def cordon(run: str) -> None:
        start.wait()
        try:
            cluster.cordon("gpu-1", by=run, reason="")
        except Exception as error:  # noqa: BLE001  a thread's error must reach the assertion below
            lost.append(type(error).__name__)

    threads = [threading.Thread(target=cordon, args=(f"run-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert lost == ["Conflict"] * 7
    assert len(cluster.effects) == 1


def test_an_owner_without_a_kind_and_an_unknown_node_are_refused(cluster: SimulatedCluster) -> None:
    with pytest.raises(Rejected, match="Kind/name"):
        cluster.add_workload("train", node="gpu-1")
    with pytest.raises(NotFound, match="gpu-9"):
        cluster.add_workload("Job/train", node="gpu-9")
    with pytest.raises(NotFound, match="gpu-9"):
        cluster.cordon_by_person("gpu-9")
