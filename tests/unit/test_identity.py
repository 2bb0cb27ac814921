"""Which GPU a series speaks of, and where it is, in every way in which exporters and Prometheus write it."""

from __future__ import annotations

import pytest

from healer.domain.component import Component, ComponentKind
from healer.domain.topology import NOWHERE, Place
from healer.telemetry.catalogue.signals import SPELLINGS, Vendor
from healer.telemetry.identity import (
    TopologyRules,
    gpu_of,
    is_of_another_part,
    model_of,
    place_of,
    pod_of,
    rack_of,
    target_of,
    vendor_of,
)
from healer.telemetry.wire.series import LabelSets

RULES = TopologyRules()
H100 = "GPU-11111111-2222-3333-4444-555555555555"
MI300X = "a8ff74a1-0000-1000-807e-843c9b9a1d73"


def _key(labels: dict[str, str]) -> str | None:
    gpu = gpu_of(labels, RULES)
    return None if gpu is None else gpu.key


def _gpu(labels: dict[str, str]) -> Component:
    gpu = gpu_of(labels, RULES)
    assert gpu is not None
    return gpu


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param({"gpu": "3", "UUID": H100, "Hostname": "n1"}, ("3", H100, "n1"), id="dcgm-exporter"),
        pytest.param({"gpu": "3", "UUID": H100, "hostname": "n1"}, ("3", H100, "n1"), id="dcgm-exporter since 4.8.3"),
        pytest.param(
            {"nvlink": "4", "gpu": "3", "gpu_uuid": H100, "hostname": "n1"}, ("3", H100, "n1"), id="its rows by link"
        ),
        pytest.param({"gpu": "3", "uuid": H100}, ("3", H100, None), id="dcgm-exporter 1.x"),
        pytest.param(
            {"exported_gpu": "3", "exported_UUID": H100, "exported_hostname": "n1", "hostname": "monitor"},
            ("3", H100, "n1"),
            id="labels renamed by Prometheus",
        ),
        pytest.param(
            {"gpu": "3", "UUID": H100, "Hostname": "exporter-x7k", "node": "n1"},
            ("3", H100, "n1"),
            id="the scheduler's name of the node",
        ),
        pytest.param({"gpu_id": "3", "gpu_uuid": MI300X, "hostname": "n1"}, ("3", MI300X, "n1"), id="AMD"),
        pytest.param({"GPU_UUID": MI300X, "SERIAL_NUMBER": "69"}, (None, MI300X, None), id="AMD's first generation"),
        pytest.param({"gpu_id": "3", "hostname": "n1"}, ("3", None, "n1"), id="an index and a node"),
        pytest.param({"gpu_id": "3", "gpu_uuid": "", "hostname": "n1"}, ("3", None, "n1"), id="an empty UUID"),
        pytest.param(
            {"gpu": "3", "UUID": H100, "Hostname": "n1", "GPU_I_ID": "5", "GPU_I_PROFILE": "1g.10gb"},
            ("3:5", H100, "n1"),
            id="a MIG instance",
        ),
        pytest.param({"UUID": H100, "GPU_I_ID": "5"}, (":5", H100, None), id="a MIG instance without an index"),
        pytest.param({"gpu": "3", "UUID": H100, "GPU_I_ID": ""}, ("3", H100, None), id="no MIG instance"),
        pytest.param(
            {"gpu_id": "14", "gpu_partition_id": "6", "gpu_compute_partition_type": "cpx", "hostname": "n1"},
            ("14:6", None, "n1"),
            id="a partition of AMD's",
        ),
        pytest.param(
            {"gpu_id": "8", "gpu_partition_id": "0", "gpu_compute_partition_type": "cpx", "hostname": "n1"},
            ("8", None, "n1"),
            id="the partition with the sensors",
        ),
        pytest.param({"gpu_id": "0", "gpu_partition_id": "NA", "hostname": "n1"}, ("0", None, "n1"), id="Radeon"),
    ],
)
def test_labels_name_a_gpu(labels: dict[str, str], expected: tuple[str | None, str | None, str | None]) -> None:
    gpu = _gpu(labels)
    assert (gpu.gpu, gpu.uuid, gpu.node) == expected
    assert gpu.kind is ComponentKind.GPU


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"gpu": "0"}, id="an index without a node"),
        pytest.param({"Hostname": "n1", "node": "n1"}, id="a node without an index"),
        pytest.param({"UUID": "", "gpu": "", "Hostname": ""}, id="empty labels"),
        pytest.param({"nvlink": "0", "nvswitch": "2", "hostname": "n1"}, id="a link of a switch"),
    ],
)
def test_labels_name_no_gpu(labels: dict[str, str]) -> None:
    assert gpu_of(labels, RULES) is None


def test_a_pod_a_target_and_a_node_that_change_leave_a_gpu_the_same() -> None:
    before = {"UUID": H100, "gpu": "0", "node": "n1", "pod": "train-0", "instance": "10.0.0.1:9400"}
    after = {"UUID": H100, "gpu": "1", "node": "n2", "pod": "train-7", "instance": "10.0.0.9:9400"}
    assert _key(before) == _key(after)


def test_the_instances_of_a_divided_gpu_are_apart_and_share_their_device() -> None:
    one, other = ({"UUID": H100, "gpu": "0", "GPU_I_ID": number} for number in ("3", "4"))
    assert _key(one) != _key(other)
    assert _gpu(one).device == _gpu(other).device
    bare = ({"UUID": H100, "GPU_I_ID": number} for number in ("3", "4"))
    assert [_key(one), _key(other)] == [_key(labels) for labels in bare]


def test_a_link_and_the_whole_gpu_are_one_row() -> None:
    whole = {"gpu": "3", "UUID": H100, "Hostname": "n1", "modelName": "NVIDIA H100"}
    link = {"nvlink": "0", "gpu": "3", "gpu_uuid": H100, "hostname": "n1", "model_name": "NVIDIA H100"}
    assert _key(whole) == _key(link)
    assert model_of(whole) == model_of(link) == "NVIDIA H100"


@pytest.mark.parametrize(
    ("labels", "elsewhere"),
    [
        ({"nvlink": "0", "nvswitch": "2", "hostname": "n1"}, True),
        ({"cpu": "0", "Hostname": "n1"}, True),
        ({"cpucore": "7", "cpu": "0"}, True),
        ({"err_code": "45", "job": "dcgm-exporter"}, False),
    ],
)
def test_a_switch_and_a_processor_need_no_gpu(labels: dict[str, str], elsewhere: bool) -> None:  # noqa: FBT001
    assert is_of_another_part(labels) is elsewhere


@pytest.mark.parametrize(
    ("labels", "model"),
    [
        ({"modelName": "NVIDIA A30"}, "NVIDIA A30"),
        ({"modelName": "NVIDIA A30", "GPU_I_PROFILE": "1g.6gb", "GPU_I_ID": "3"}, "NVIDIA A30 1g.6gb"),
        ({"card_series": "AMD Instinct MI300X OAM", "card_model": "102-G30211-0C"}, "AMD Instinct MI300X OAM"),
        ({"card_model": "102-G30213-0C", "gpu_compute_partition_type": "cpx"}, "102-G30213-0C cpx"),
        ({"card_model": "102-G30213-0C", "gpu_compute_partition_type": "spx"}, "102-G30213-0C"),
        ({"card_model": "", "gpu_compute_partition_type": "none"}, ""),
        ({}, ""),
    ],
)
def test_a_slice_of_a_gpu_is_a_model_of_its_own(labels: dict[str, str], model: str) -> None:
    assert model_of(labels) == model


@pytest.mark.parametrize(
    ("uuid", "model", "vendor"),
    [
        (H100, "", Vendor.NVIDIA),
        (None, "NVIDIA H200", Vendor.NVIDIA),
        (MI300X, "102-G30211-0C", Vendor.AMD),
        (None, "AMD Instinct MI300X OAM", Vendor.AMD),
        (None, "Aqua Vanjaram [Instinct MI300X VF]", Vendor.AMD),
        ("something", "", None),
        (None, "", None),
    ],
)
def test_a_uuid_or_a_model_tells_the_vendor(uuid: str | None, model: str, vendor: Vendor | None) -> None:
    assert vendor_of(Component(ComponentKind.GPU, uuid=uuid), model) is vendor


def test_labels_say_where_a_gpu_is() -> None:
    labels = {"rack": "r1", "power_feed": "A", "nvlink_domain": "d3", "switch": "leaf-7", "UUID": H100}
    assert place_of(labels, RULES) == Place(rack="r1", feed="A", nvlink_domain="d3", switch="leaf-7")
    assert place_of({"UUID": H100, "rack": ""}, RULES) == NOWHERE
    assert rack_of(labels, RULES) == Component(ComponentKind.RACK, rack="r1")
    assert rack_of({"UUID": H100}, RULES) is None


def test_a_job_is_named_by_the_first_label_that_is_not_empty() -> None:
    assert _gpu({"UUID": H100, "hpc_job": "", "job_name": "train"}).job == "train"
    assert _gpu({"UUID": H100, "hpc_job": "4711", "job_name": "train"}).job == "4711"


@pytest.mark.parametrize(
    ("labels", "target"),
    [
        ({"instance": "10.0.0.1:9400", "node": "n1"}, "10.0.0.1:9400"),
        ({"instance": "10.0.0.1:9400", "exported_instance": "other"}, "10.0.0.1:9400"),
        ({"node": "n1", "Hostname": "x"}, "n1"),
        ({"hostname": "n1"}, "n1"),
        ({}, ""),
    ],
)
def test_a_target_is_named_as_up_names_it(labels: dict[str, str], target: str) -> None:
    assert target_of(labels) == target


@pytest.mark.parametrize(
    ("labels", "pod"),
    [
        ({"namespace": "ml", "pod": "train-0"}, ("ml", "train-0")),
        (
            {
                "namespace": "gpu-operator",
                "pod": "dcgm-exporter-1",
                "exported_namespace": "ml",
                "exported_pod": "train-0",
            },
            ("ml", "train-0"),
        ),
        ({"namespace": "", "pod": ""}, None),
        ({"pod": "train-0"}, None),
        ({}, None),
    ],
)
def test_the_pod_that_has_a_gpu_is_told_from_the_exporters(labels: dict[str, str], pod: tuple[str, str] | None) -> None:
    assert pod_of(labels) == pod


def test_every_label_that_is_read_is_kept() -> None:
    rules = TopologyRules(
        node_labels=("host",),
        rack_label="cab",
        feed_label="pdu",
        nvlink_domain_label="nvl",
        switch_label="leaf",
        job_labels=("run",),
    )
    full = {
        "UUID": H100,
        "gpu": "3",
        "GPU_I_ID": "5",
        "GPU_I_PROFILE": "1g.10gb",
        "modelName": "NVIDIA H100",
        "DCGM_FI_DRIVER_VERSION": "570.12",
        "host": "n1",
        "cab": "r1",
        "pdu": "A",
        "nvl": "d1",
        "leaf": "s1",
        "run": "j1",
        "instance": "n1:9400",
        "exported_namespace": "ml",
        "exported_pod": "train-0",
    }
    amd = {
        "gpu_id": "14",
        "gpu_partition_id": "6",
        "gpu_compute_partition_type": "cpx",
        "host": "n1",
        "card_model": "x",
    }
    sets = LabelSets(rules.labels)
    for labels in (full, amd, {"nvlink": "0", "nvswitch": "2"}):
        kept = sets[sets.add(labels | {"container": "c", "err_msg": "Unknown Error", "pci_bus_id": "0:1"})]
        assert kept == labels
        assert gpu_of(kept, rules) == gpu_of(labels, rules)


def test_labels_that_tell_parts_of_a_gpu_apart_are_kept() -> None:
    parts = {spelling.part for spelling in SPELLINGS.values() if spelling.part}
    assert {"nvlink", "xid", "health_watch", "link_index", "clock_index"} == parts
    chosen = {spelling.only[0] for spelling in SPELLINGS.values() if spelling.only}
    assert parts | chosen <= RULES.labels


def test_labels_that_only_churn_are_not_kept() -> None:
    assert not RULES.labels & {"container", "pci_bus_id", "err_msg", "job_user"}
