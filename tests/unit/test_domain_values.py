"""The words themselves: who is the same component, what is known, and how it reads."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import timedelta

import numpy as np
import pytest

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Evidence, FailureMode, Findings, Health, Judgement
from healer.domain.fleet import Disposition, Gang, GangPod, Node, Workload, parse_gang_name
from healer.domain.incident import IncidentState, Severity
from healer.domain.playbook import Retry
from healer.domain.reading import Column, Reading
from healer.domain.run import RunState
from tests.journal_samples import plan_of, run_of
from tests.unit.core_samples import ECC, START, finding, gpu, incident, judged, node, rack

ANOMALY = FailureMode.GPU_ANOMALY


@pytest.mark.parametrize(
    ("component", "key", "reads"),
    [
        (gpu("A"), "gpu/A", "GPU 0 of n1"),
        (replace(gpu("A"), gpu="0:3"), "gpu/A:3", "GPU 0:3 of n1"),
        (replace(gpu("A"), gpu=None, node=None), "gpu/A", "GPU A of an unknown node"),
        (replace(gpu("A"), uuid=None), "gpu/n1/0", "GPU 0 of n1"),
        (replace(gpu("A"), uuid=None, gpu="0:3"), "gpu/n1/0:3", "GPU 0:3 of n1"),
        (node("n1"), "node/n1", "node n1"),
        (rack("r1"), "rack/r1", "rack r1"),
        (Component(ComponentKind.JOB, job="j1"), "job/j1", "job j1"),
        (Component(ComponentKind.LINK, link="n1/mlx5_0"), "link/n1/mlx5_0", "link n1/mlx5_0"),
        (Component(ComponentKind.POWER_FEED, link="feed-a"), "power_feed/feed-a", "power_feed feed-a"),
        (Component(ComponentKind.SOURCE, link="n1:9400"), "source/n1:9400", "source n1:9400"),
    ],
)
def test_a_component_has_one_key_and_one_name(component: Component, key: str, reads: str) -> None:
    assert component.key == key
    assert str(component) == reads


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ({"rack": "r1", "node": "n1", "gpu": "0", "job": "j1"}, ComponentKind.GPU),
        ({"rack": "r1", "node": "n1", "job": "j1"}, ComponentKind.NODE),
        ({"rack": "r1", "job": "j1"}, ComponentKind.RACK),
        ({"job": "j1"}, ComponentKind.JOB),
    ],
)
def test_names_are_about_the_finest_of_them(names: dict[str, str], kind: ComponentKind) -> None:
    component = Component.finest(**names)
    assert component == Component(kind, **names)


def test_no_name_is_about_nothing() -> None:
    assert Component.finest() is None


def test_a_gpu_is_its_uuid_wherever_it_is() -> None:
    assert gpu("A", "n1").key == gpu("A", "n2", rack="r9", job=None).key
    assert gpu("A", "n1").key != gpu("B", "n1").key


def test_values_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        gpu().node = "n9"  # type: ignore[misc]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_evidence_that_is_no_number_is_unknown(value: float) -> None:
    assert Evidence("gpu_power_watts", value, "W", START).value is None
    assert Evidence("gpu_power_watts", None, "W", START).value is None
    assert Evidence("gpu_power_watts", 0.0, "W", START).value == 0.0


def test_unknown_is_outside_of_the_order_from_healthy_to_failed() -> None:
    assert max(Health.UNKNOWN, Health.HEALTHY, Health.DEGRADED, Health.FAILED) is Health.FAILED
    assert min(Health) is Health.UNKNOWN
    assert Severity.of(Health.FAILED) is Severity.CRITICAL
    assert {Severity.of(health) for health in Health if health is not Health.FAILED} == {Severity.WARNING}


@pytest.mark.parametrize(
    ("judgements", "row", "health"),
    [
        ((), 0, Health.UNKNOWN),
        ((judged(Health.HEALTHY),), None, Health.UNKNOWN),
        ((judged(Health.HEALTHY, Health.FAILED),), 1, Health.FAILED),
        ((judged(Health.HEALTHY), judged(Health.DEGRADED)), 0, Health.DEGRADED),
        ((judged(Health.HEALTHY), judged(Health.FAILED, mode=ANOMALY)), 0, Health.HEALTHY),
        ((judged(Health.UNKNOWN), judged(Health.HEALTHY, kind=ComponentKind.RACK)), 0, Health.UNKNOWN),
    ],
    ids=["nobody judged", "not in the frame", "its row", "the worse of two", "another mode", "another kind"],
)
def test_the_health_of_a_component_is_what_was_judged_of_it(
    judgements: tuple[object, ...], row: int | None, health: Health
) -> None:
    findings = Findings((), judgements)  # type: ignore[arg-type]
    assert findings.health_of(ECC, ComponentKind.GPU, row) is health


@pytest.mark.parametrize(
    ("judgements", "rows", "health"),
    [
        ((judged(*[Health.HEALTHY] * 4),), [0, 1, 2, 3], Health.HEALTHY),
        ((judged(*[Health.HEALTHY] * 3, Health.UNKNOWN),), [0, 1, 2, 3], Health.HEALTHY),
        ((judged(*[Health.HEALTHY] * 2, *[Health.UNKNOWN] * 2),), [0, 1, 2, 3], Health.UNKNOWN),
        ((judged(Health.DEGRADED, *[Health.UNKNOWN] * 3),), [0, 1, 2, 3], Health.DEGRADED),
        ((judged(Health.HEALTHY, Health.HEALTHY), judged(Health.FAILED, Health.UNKNOWN)), [0, 1], Health.FAILED),
        ((judged(Health.FAILED, Health.HEALTHY),), [1], Health.HEALTHY),
        ((judged(Health.HEALTHY),), [], Health.UNKNOWN),
        ((judged(Health.HEALTHY, mode=ANOMALY),), [0], Health.UNKNOWN),
    ],
    ids=[
        "all of them",
        "three quarters of them",
        "fewer",
        "one that is sick is enough",
        "the worse of two",
        "only those asked for",
        "none asked for",
        "another mode",
    ],
)
def test_the_health_of_many_is_that_of_the_worst_once_three_quarters_are_known(
    judgements: tuple[Judgement, ...], rows: list[int], health: Health
) -> None:
    picked = np.array(rows, dtype=np.int64)
    assert Findings((), judgements).health_of_all(ECC, ComponentKind.GPU, picked) is health


def test_the_findings_of_several_detectors_add_up() -> None:
    one = Findings((finding(gpu("A")),), (judged(Health.FAILED, Health.HEALTHY, Health.UNKNOWN),))
    other = Findings((finding(gpu("A"), mode=ANOMALY),), (judged(Health.DEGRADED, mode=ANOMALY),))
    both = one + other
    assert [each.key for each in both.found] == ["GpuUncorrectableEcc@gpu/A", "GpuAnomaly@gpu/A"]
    counts = both.counts()
    assert counts[ECC, Health.FAILED] == counts[ECC, Health.HEALTHY] == counts[ECC, Health.UNKNOWN] == 1
    assert (counts[ANOMALY, Health.DEGRADED], counts[ANOMALY, Health.HEALTHY]) == (1, 0)


def test_nothing_that_was_not_observed_is_healthy() -> None:
    judged = Judgement(ECC, ComponentKind.GPU, np.array([Health.HEALTHY, Health.HEALTHY, Health.FAILED], dtype=np.int8))
    racks = Judgement(FailureMode.RACK_POWER_OVER_BUDGET, ComponentKind.RACK, np.zeros(1, dtype=np.int8))
    doubted = Findings((), (judged, racks)).doubting(ComponentKind.GPU, np.array([True, False, True]))
    assert [j.health.tolist() for j in doubted.judgements] == [[Health.UNKNOWN, Health.HEALTHY, Health.FAILED], [0]]


def test_an_incident_knows_its_fault_and_how_bad_it_is() -> None:
    assert incident(gpu("A")).key == finding(gpu("A")).key
    assert incident().severity is Severity.CRITICAL
    assert [state for state in IncidentState if state.ended] == [IncidentState.RESOLVED, IncidentState.ESCALATED]
    assert [state for state in RunState if not state.ended] == [RunState.RUNNING, RunState.UNDOING]


def test_a_node_is_available_when_it_is_ready_and_not_cordoned() -> None:
    states = [(ready, cordoned) for ready in (True, False) for cordoned in (True, False)]
    assert [state for state in states if Node("n1", ready=state[0], cordoned=state[1]).available] == [(True, False)]


def test_a_workload_is_named_by_its_owner_while_its_pods_churn() -> None:
    pod = Workload("ns", "chat-x7k2p", "u1", "n1", "ReplicaSet/chat", Disposition.EVICT)
    assert (str(pod), pod.stable_name) == ("ns/chat-x7k2p", "ns/ReplicaSet/chat")


def test_a_reading_counts_its_samples_over_all_columns() -> None:
    column = Column("m", np.array([0, 1]), np.zeros(2), np.zeros(2))
    reading = Reading(START, (column, column), [{"gpu": "0"}, {"gpu": "1"}])
    assert reading.samples == 4
    assert reading.labels(column) == [{"gpu": "0"}, {"gpu": "1"}]


@pytest.mark.parametrize(
    ("factor", "waits"),
    [(2.0, [10, 20, 40, 60, 60]), (1.0, [10, 10, 10, 10, 10]), (10.0, [10, 60, 60, 60, 60])],
)
def test_waits_between_attempts_grow_up_to_the_longest(factor: float, waits: list[float]) -> None:
    retry = Retry(times=5, wait=timedelta(seconds=10), factor=factor, longest=timedelta(seconds=60))
    assert [retry.after(failures).total_seconds() for failures in range(1, 6)] == waits
    assert retry.after(10_000) <= timedelta(seconds=60)


def test_a_run_takes_nodes_out_in_the_name_of_its_incident_s_first_run() -> None:
    first = run_of(plan_of())
    assert first.owner == "run-1"
    assert replace(first, id="run-2", line="run-1").owner == "run-1"


def test_a_gang_is_named_as_topology_names_jobs_and_knows_what_runs_where() -> None:
    pods = (
        GangPod("train-0", "n2", running=True),
        GangPod("train-1", "n1", running=True),
        GangPod("train-2", "n1", running=False),
        GangPod("train-3", "", running=False),
    )
    gang = Gang("ml", "Job", "train", pods=pods)
    assert str(gang) == gang.stable_name == "ml/Job/train"
    assert (gang.running, gang.nodes) == (2, ("n1", "n2"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ml/Job/train", ("ml", "Job", "train")),
        ("4711", None),
        ("ml/train", None),
        ("ml/Job/", None),
        ("a/b/Job/train", None),
        ("", None),
    ],
)
def test_what_is_not_of_three_parts_is_no_name_of_a_gang(name: str, parts: object) -> None:
    assert parse_gang_name(name) == parts
