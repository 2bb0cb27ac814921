"""Who the rows are while labels churn, and what a topology knows better than labels."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.domain.component import Component
from healer.domain.frame import Frame
from healer.domain.reading import Labels
from healer.domain.signal import Signal
from healer.domain.topology import Place, Topology
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from healer.telemetry.wire.series import LabelSets
from tests.readings import reading_of

START = datetime(2026, 3, 1, tzinfo=UTC)
TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"


def labels(uuid: str = "A", **more: str) -> Labels:
    return {"UUID": uuid, "gpu": "0", "Hostname": "n1", "instance": "n1:9400", **more}


class Watch:
    """A window over label sets that stay where they are, as those of a live source do."""

    def __init__(self, *, rules: TopologyRules | None = None, forget_after: timedelta = timedelta(hours=1)) -> None:
        self.window = Window(rules or TopologyRules(), forget_after=forget_after)
        self.sets = LabelSets()
        self.at = START

    def see(self, *gpus: Labels, topology: Topology | None = None, ages_s: Sequence[float] = ()) -> Frame:
        self.at += timedelta(seconds=30)
        ages = list(ages_s) or [0.0] * len(gpus)
        series = [(gpu, 50.0, self.at.timestamp() - age) for gpu, age in zip(gpus, ages, strict=True)]
        return self.window.add(reading_of(self.at, {TEMPERATURE: series}, label_sets=self.sets), topology)


def only(frame: Frame) -> Component:
    (component,) = frame.gpus.components
    return component


def test_a_job_that_comes_back_with_its_old_labels_is_named_again() -> None:
    watch = Watch()
    jobs = [only(watch.see(labels(hpc_job=job))).job for job in ("j1", "j2", "j1")]
    assert jobs == ["j1", "j2", "j1"]


def test_while_two_jobs_are_shown_the_one_with_the_newest_sample_counts() -> None:
    watch = Watch()
    both = (labels(hpc_job="old"), labels(hpc_job="new"))
    assert only(watch.see(*both, ages_s=(20, 0))).job == "new"


def test_a_gpu_that_moves_to_another_node_is_described_anew_and_keeps_its_row() -> None:
    watch = Watch()
    watch.see(labels(), labels("B", gpu="1"))
    frame = watch.see(labels("B", gpu="1"), {**labels(), "Hostname": "n2", "instance": "n2:9400", "rack": "r2"})
    moved = frame.gpus.components[0]
    assert (moved.uuid, moved.node, moved.rack) == ("A", "n2", "r2")
    assert frame.gpus.targets == ("n2:9400", "n1:9400")
    assert frame.gpus.exporters[0] != frame.gpus.exporters[1]


def test_rows_of_one_model_are_peers_and_instances_of_one_gpu_are_one_device() -> None:
    frame = Watch().see(
        labels("A", modelName="H100"),
        labels("B", modelName="H100", GPU_I_ID="1"),
        labels("B", modelName="H100", GPU_I_ID="2"),
        labels("C", modelName="A100"),
    )
    peers, devices = frame.gpus.peers.tolist(), frame.gpus.devices.tolist()
    assert peers[0] == peers[1] == peers[2] != peers[3]
    assert devices[1] == devices[2]
    assert len({devices[0], devices[1], devices[3]}) == 3


def test_a_row_that_was_forgotten_comes_back_as_a_new_one_with_the_same_label_set() -> None:
    watch = Watch(forget_after=timedelta(seconds=45))
    watch.see(labels("A"), labels("B"))
    watch.see(labels("B"))
    assert [gpu.uuid for gpu in watch.see(labels("B")).gpus.components] == ["B"]
    frame = watch.see(labels("A"), labels("B"))
    assert [gpu.uuid for gpu in frame.gpus.components] == ["B", "A"]
    assert frame.latest(Signal.GPU_TEMPERATURE).tolist() == [50, 50]


# What a topology knows


def test_a_topology_says_better_than_a_label_where_a_node_is() -> None:
    told = Topology(places={"n1": Place(rack="r9", feed="A")})
    frame = Watch().see(labels(rack="r1"), topology=told)
    assert only(frame).rack == "r9"
    assert frame.places["n1"] == Place(rack="r9", feed="A")


def test_what_the_topology_does_not_say_labels_may() -> None:
    rules = TopologyRules(switch_label="leaf")
    frame = Watch(rules=rules).see(labels(rack="r1", leaf="s7"), topology=Topology(places={"n1": Place(feed="A")}))
    assert frame.places["n1"] == Place(rack="r1", feed="A", switch="s7")


def test_a_topology_that_changes_moves_the_rack_of_gpus_whose_labels_stay() -> None:
    watch = Watch()
    racks = [
        only(watch.see(labels(), topology=Topology(places={"n1": Place(rack=rack)}))).rack for rack in ("r1", "r2")
    ]
    assert racks == ["r1", "r2"]


def test_a_node_is_found_by_its_name_with_or_without_a_domain() -> None:
    told = Topology(places={"n1.example.com": Place(rack="r9")}, jobs={"n1.example.com": "j7"})
    assert (only(Watch().see(labels(), topology=told)).rack, only(Watch().see(labels(), topology=told)).job) == (
        "r9",
        "j7",
    )


def test_the_job_of_a_pod_is_found_by_the_pod_that_the_exporter_names() -> None:
    told = Topology(pods={("team", "train-0"): "team/PyTorchJob/train"})
    watch = Watch()
    with_pod = labels(exported_namespace="team", exported_pod="train-0", namespace="monitoring", pod="exporter-x")
    assert only(watch.see(with_pod, topology=told)).job == "team/PyTorchJob/train"
    assert only(watch.see(labels(), topology=told)).job is None


_moves = st.lists(
    st.dictionaries(st.integers(0, 4), st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=5),
    min_size=1,
    max_size=10,
)


@settings(deadline=None)
@given(turns=_moves)
def test_a_window_over_lasting_label_sets_says_the_same_as_one_that_resolves_them_anew(
    turns: list[dict[int, tuple[int, int]]],
) -> None:
    lasting, at = Watch(), START
    fresh = Window(TopologyRules(), forget_after=timedelta(hours=1))
    for turn in turns:
        gpus = [labels(f"U{gpu}", hpc_job=f"j{job}", rack=f"r{rack}") for gpu, (job, rack) in turn.items()]
        frame = lasting.see(*gpus)
        at += timedelta(seconds=30)
        other = fresh.add(reading_of(at, {TEMPERATURE: [(gpu, 50.0, at.timestamp()) for gpu in gpus]}))
        assert frame.gpus.components == other.gpus.components
        assert frame.gpus.rows == other.gpus.rows
        np.testing.assert_array_equal(frame.presence, other.presence)


@pytest.mark.parametrize("label", ["DCGM_FI_DRIVER_VERSION", "driver_version", "exported_driver_version"])
def test_the_driver_of_a_node_is_what_its_gpus_exporter_says_newest(label: str) -> None:
    watch = Watch()
    other = {"Hostname": "n2"}
    before = watch.see(labels("A", **{label: "570.12"}), labels("B", **other))
    assert before.drivers == {"n1": "570.12"}
    rolled_out = watch.see(labels("A", **{label: "580.65"}), labels("B", **{label: "570.12"}, **other))
    assert rolled_out.drivers == {"n1": "580.65", "n2": "570.12"}
    assert before.drivers == {"n1": "570.12"}, "a frame stays as it was"
    assert watch.see(labels("A"), labels("B", **other)).drivers == rolled_out.drivers


def test_the_driver_of_a_node_that_is_forgotten_is_forgotten() -> None:
    watch = Watch(forget_after=timedelta(seconds=40))
    watch.see(labels("A", DCGM_FI_DRIVER_VERSION="570.12"), labels("B", Hostname="n2"))
    later = [watch.see(labels("B", Hostname="n2")) for _ in range(3)]
    assert [frame.drivers for frame in later][-1] == {}
