"""Fault files: what they come to, and how precisely they complain."""

from __future__ import annotations

from pathlib import Path

import pytest

from healer.errors import InvalidDocument
from healer.sim.faultfile import load_faults
from healer.sim.faults import Fault, FaultKind, demo_faults, objections
from healer.sim.fleet import SimulatedFleet
from healer.sim.layout import Layout, build_layout


@pytest.fixture
def layout() -> Layout:
    return build_layout(racks=2, nodes=8, gpus=8, seed=0)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    return path


def test_a_file_of_faults_is_read_with_its_durations_in_seconds(tmp_path: Path, layout: Layout) -> None:
    path = written(
        tmp_path,
        "faults:\n"
        "  - {kind: uncorrectable_ecc, at: 20s, node: gpu-003, gpu: 5}\n"
        "  - {kind: load_surge, at: 1.5m, rack: rack-2, duration: 1h}\n"
        "  - {kind: cooling_loss, at: 500ms, rack: rack-1, severity: 0.25, duration: 5m}\n"
        "  - {kind: job_straggler, at: 1h, node: gpu-002, gpu: 0, variant: slow_memory, ramp: 10m}\n"
        "  - {kind: source_gap, at: 2h, duration: 10m}\n",
    )
    assert load_faults(path, layout) == (
        Fault(FaultKind.UNCORRECTABLE_ECC, 20.0, node="gpu-003", gpu=5),
        Fault(FaultKind.LOAD_SURGE, 90.0, rack="rack-2", duration_s=3600.0),
        Fault(FaultKind.COOLING_LOSS, 0.5, rack="rack-1", severity=0.25, duration_s=300.0),
        Fault(FaultKind.JOB_STRAGGLER, 3600.0, node="gpu-002", gpu=0, variant="slow_memory", ramp_s=600.0),
        Fault(FaultKind.SOURCE_GAP, 7200.0, duration_s=600.0),
    )


def test_an_empty_list_of_faults_is_a_quiet_day(tmp_path: Path) -> None:
    assert load_faults(written(tmp_path, "faults: []\n")) == ()


FAULT = "faults:\n  - kind: gpu_lost\n    at: 5s\n"


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        pytest.param("", 1, "faults", "is missing", id="empty file"),
        pytest.param("- 1\n", 1, "", "is not a mapping", id="a list at the top"),
        pytest.param("{}\n", 1, "faults", "is missing", id="no faults"),
        pytest.param("faults: 3\n", 1, "faults", "is not a list", id="a number for faults"),
        pytest.param("faults:\n", 1, "faults", "is not a list", id="nothing for faults"),
        pytest.param("falts: []\n", 1, "falts", "did you mean faults?", id="top key misspelt"),
        pytest.param("faults:\n  - 3\n", 2, "faults[0]", "is not a mapping", id="a number for a fault"),
        pytest.param("faults: []\nfaults: []\n", 2, "faults", "is given twice", id="a key twice"),
        pytest.param(FAULT + "    nod: gpu-001\n    gpu: 1\n", 4, "faults[0].nod", "did you mean node?", id="key"),
        pytest.param("faults:\n  - at: 5s\n", 2, "faults[0].kind", "is missing", id="no kind"),
        pytest.param("faults:\n  - kind: gpu_lost\n", 2, "faults[0].at", "is missing", id="no time"),
        pytest.param(
            "faults:\n  - {kind: gpu_lst, at: 1s}\n", 2, "faults[0].kind", "did you mean gpu_lost?", id="kind misspelt"
        ),
        pytest.param(
            FAULT + "    node: gpu-001\n    gpu: -1\n", 5, "faults[0].gpu", "'-1' is not a", id="negative gpu"
        ),
        pytest.param(FAULT + "    node: gpu-001\n    gpu: 8\n", 5, "faults[0].gpu", "has no GPU 8", id="no such gpu"),
        pytest.param(FAULT + "    node: gpu-01x\n    gpu: 1\n", 4, "faults[0].node", "no node 'gpu-01x'", id="no node"),
        pytest.param(
            FAULT + "    node: 17\n    gpu: 1\n", 4, "faults[0].node", "put it in quotes", id="node is number"
        ),
        pytest.param(FAULT + "    node: [a]\n    gpu: 1\n", 4, "faults[0].node", "is not a name", id="node is a list"),
        pytest.param(FAULT, 2, "faults[0].kind", "is aimed by node and gpu, not by none", id="no target"),
        pytest.param(FAULT + "    rack: rack-1\n", 2, "faults[0].kind", "not by rack", id="wrong target"),
        pytest.param(
            FAULT + "    node: gpu-001\n    gpu: 1\n    severity: 0.5\n",
            6,
            "faults[0].severity",
            "does not apply",
            id="x",
        ),
        pytest.param(
            "faults:\n- kind: cooling_loss\n  at: 1s\n  rack: rack-1\n  severity: 2\n",
            5,
            "faults[0].severity",
            "not a fraction",
            id="severity above one",
        ),
        pytest.param(
            "faults:\n- kind: load_surge\n  at: 20\n  rack: rack-1\n", 3, "faults[0].at", "20s or 5m", id="bare number"
        ),
        pytest.param(
            "faults:\n- kind: load_surge\n  at: 2s\n  rack: rack-1\n  duration: 0s\n",
            5,
            "faults[0].duration",
            "not longer than nothing",
            id="no duration",
        ),
        pytest.param(
            "faults:\n- kind: load_surge\n  at: 2s\n  rack: rck-1\n",
            4,
            "faults[0].rack",
            "did you mean rack-1?",
            id="rack",
        ),
        pytest.param(
            FAULT + "    node: gpu-001\n    gpu: 1\n    variant: slient\n",
            6,
            "faults[0].variant",
            "did you mean silent?",
            id="variant misspelt",
        ),
        pytest.param(
            FAULT + "    node: gpu-001\n    gpu: 1\n    ramp: 1m\n", 6, "faults[0].ramp", "does not apply", id="no ramp"
        ),
        pytest.param("faults: [\n", 2, "", "is not YAML", id="broken YAML"),
        pytest.param("faults: []\n---\nfaults: []\n", 2, "", "is not YAML", id="two documents"),
        pytest.param("[" * 1500, 0, "", "nested too deeply", id="absurdly nested"),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_key(
    tmp_path: Path, layout: Layout, *, text: str, line: int, key: str, says: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidDocument) as caught:
        load_faults(path, layout)
    problem = caught.value.problems[0]
    assert (problem.file, problem.line, problem.key) == (str(path), line, key)
    assert says in str(problem)


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "faults:\n  - {kind: nonsense, at: 1s}\n  - {kind: gpu_lost, at: soon, speed: 3}\n")
    with pytest.raises(InvalidDocument) as caught:
        load_faults(path)
    assert [(each.line, each.key) for each in caught.value.problems] == [
        (2, "faults[0].kind"),
        (3, "faults[1].speed"),
        (3, "faults[1].at"),
    ]


def test_a_file_that_is_not_there_or_not_text_is_an_invalid_document_too(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match="No such file"):
        load_faults(tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidDocument, match="not UTF-8"):
        load_faults(binary)


@pytest.mark.parametrize(("racks", "nodes", "gpus"), [(1, 1, 1), (2, 8, 8), (5, 7, 4)])
def test_the_demo_s_faults_fit_any_fleet_and_end_within_its_duration(racks: int, nodes: int, gpus: int) -> None:
    fleet = SimulatedFleet(racks=racks, nodes=nodes, gpus=gpus)
    faults = demo_faults(fleet.layout, duration_s=40.0)
    assert [objections(fault, fleet.layout) for fault in faults] == [()] * len(faults)
    assert all(fault.at_s + (fault.duration_s or 0.0) < 40.0 for fault in faults)
    fleet.schedule(faults)
    fleet.advance(40.0)
    assert sum(int(fleet.read(node).state.dbe_volatile.sum()) for node in fleet.layout.nodes) == 1
