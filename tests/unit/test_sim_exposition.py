"""The simulated pages, read by the parsers that real pages are read by."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from healer.sim.exposition import node_page, rack_page
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import SimulatedFleet

EXPECTED = {
    "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_MEMORY_TEMP", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_MEM_CLOCK", "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_MEM_COPY_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
    "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_FAILURE", "DCGM_FI_DEV_ROW_REMAP_PENDING",
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "DCGM_FI_DEV_POWER_MGMT_LIMIT", "DCGM_FI_PROF_SM_ACTIVE",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_DRAM_ACTIVE",
}  # fmt: skip


def samples(page: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


def values(page: str, metric: str) -> dict[str, float]:
    """By GPU index. The parser of prometheus_client adds _total to the names of counters."""
    return {each.labels["gpu"]: each.value for each in samples(page) if each.name.removesuffix("_total") == metric}


def test_a_node_s_page_has_every_metric_once_for_every_gpu() -> None:
    fleet = SimulatedFleet()
    fleet.advance(30.0)
    lines = [line for line in node_page(fleet.read("gpu-003")).splitlines() if not line.startswith("#")]
    names = [line.split("{")[0] for line in lines]
    assert set(names) == EXPECTED
    assert all(names.count(name) == 8 for name in EXPECTED)
    assert len(samples(node_page(fleet.read("gpu-003")))) == 8 * len(EXPECTED)


def test_labels_say_which_gpu_of_which_node_runs_which_job() -> None:
    fleet = SimulatedFleet()
    labels = samples(node_page(fleet.read("gpu-003")))[5].labels
    assert labels == {
        "gpu": "5",
        "UUID": fleet.layout.uuids[21],
        "pci_bus_id": "00000000:C3:00.0",
        "device": "nvidia5",
        "modelName": "NVIDIA H100 80GB HBM3",
        "hostname": "gpu-003",
        "DCGM_FI_DRIVER_VERSION": labels["DCGM_FI_DRIVER_VERSION"],
        "hpc_job": "train-3",
        "container": "trainer",
        "namespace": "training",
        "pod": "train-3-worker-0",
    }


def test_older_exporters_spell_the_host_label_with_a_capital() -> None:
    labels = samples(node_page(SimulatedFleet().read("gpu-001"), host_label="Hostname"))[0].labels
    assert labels["Hostname"] == "gpu-001"
    assert "hostname" not in labels


def test_an_idle_node_s_gpus_carry_no_job() -> None:
    fleet = SimulatedFleet()
    fleet.set_idle("gpu-001", idle=True)
    assert not {"hpc_job", "pod", "namespace", "container"} & set(samples(node_page(fleet.read("gpu-001")))[0].labels)


def test_a_job_s_name_may_hold_any_character() -> None:
    fleet = SimulatedFleet()
    fleet.place_job("gpu-001", 'llm "7b"\\v2\n')
    assert samples(node_page(fleet.read("gpu-001")))[0].labels["hpc_job"] == 'llm "7b"\\v2\n'


def test_temperatures_are_whole_degrees_and_power_is_not_whole_watts() -> None:
    fleet = SimulatedFleet()
    fleet.advance(10.0)
    page = node_page(fleet.read("gpu-001"))
    assert all(value == int(value) for value in values(page, "DCGM_FI_DEV_GPU_TEMP").values())
    assert any(value != int(value) for value in values(page, "DCGM_FI_DEV_POWER_USAGE").values())


def test_faults_show_on_the_page() -> None:
    fleet = SimulatedFleet()
    fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0.0, node="gpu-001", gpu=5))
    fleet.inject(Fault(FaultKind.GPU_LOST, 0.0, node="gpu-001", gpu=6))
    page = node_page(fleet.read("gpu-001"))
    assert values(page, "DCGM_FI_DEV_XID_ERRORS") == {"0": 0, "1": 0, "2": 0, "3": 0, "4": 0, "5": 48, "7": 0}
    assert values(page, "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL")["5"] == 1
    assert values(page, "DCGM_FI_DEV_ROW_REMAP_PENDING")["5"] == 1


def test_a_node_that_lost_all_its_gpus_has_an_empty_page() -> None:
    fleet = SimulatedFleet(gpus=1)
    fleet.inject(Fault(FaultKind.GPU_LOST, 0.0, node="gpu-001", gpu=0))
    assert node_page(fleet.read("gpu-001")) == ""


def test_the_racks_page_gives_watts_by_rack() -> None:
    fleet = SimulatedFleet()
    found = {each.labels["rack"]: each.value for each in samples(rack_page(fleet.rack_power_w()))}
    assert found == {rack: pytest.approx(watts, abs=0.5) for rack, watts in fleet.rack_power_w().items()}
    assert all(10_000 < watts < 25_000 for watts in found.values())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_nothing_in_the_pages_but_the_exporter_s_own_taste_in_names() -> None:
    fleet = SimulatedFleet()
    pages = node_page(fleet.read("gpu-001")) + rack_page(fleet.rack_power_w())
    done = subprocess.run(["promtool", "check", "metrics"], input=pages, capture_output=True, text=True, check=False)
    matters_of_taste = ("snake_case", '"_total" suffix', "abbreviated unit", "should not include")
    complaints = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if line.strip() and not any(taste in line for taste in matters_of_taste)
    ]
    assert complaints == []
    assert done.returncode in (0, 3), "3 is what promtool returns for complaints of style; 1 is a page it cannot parse"
