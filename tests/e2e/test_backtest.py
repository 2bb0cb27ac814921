"""`healer backtest` on a real Prometheus that was filled with history."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from healer.sim.exposition import node_page, rack_page
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import SimulatedFleet
from healer.telemetry.wire.exposition import Pages
from tests.e2e.line import run_healer
from tests.realparts.prometheus import Programs, RunningPrometheus, require

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
STEP = timedelta(seconds=15)
MINUTES = 12
ERROR_AT_S = 125.0
SURGE_AT_S, SURGE_S = 240.0, 120.0


def history() -> Iterator[str]:
    """Twelve minutes of sixteen GPUs as OpenMetrics, by metric, as promtool wants them."""
    faults = (
        Fault(FaultKind.UNCORRECTABLE_ECC, ERROR_AT_S, node="gpu-001", gpu=1),
        Fault(FaultKind.LOAD_SURGE, SURGE_AT_S, rack="rack-2", duration_s=SURGE_S),
    )
    fleet = SimulatedFleet(racks=2, nodes=2, gpus=8, seed=3, faults=faults)
    lines: dict[str, list[str]] = defaultdict(list)
    pages = Pages()
    for tick in range(int(timedelta(minutes=MINUTES) / STEP)):
        at = START + tick * STEP
        shown = [({"rack": fleet.layout.rack_of(node)}, node_page(fleet.read(node))) for node in fleet.layout.nodes]
        reading = pages.reading(at, [({}, rack_page(fleet.rack_power_w())), *shown])
        for column in reading.columns:
            for labels, value in zip(reading.labels(column), column.values.tolist(), strict=True):
                text = ",".join(f"{name}={json.dumps(word)}" for name, word in labels.items())
                lines[column.metric].append(f"{column.metric}{{{text}}} {value:.17g} {at.timestamp():.3f}")
        fleet.advance(STEP.total_seconds())
    for metric, samples in lines.items():
        yield f"# TYPE {metric} gauge"
        yield from samples
    yield "# EOF\n"


def filled(programs: Programs, folder: Path) -> Path:
    document, blocks = folder / "history.om", folder / "blocks"
    document.write_text("\n".join(history()))
    command: list[str | Path] = [programs.promtool, "tsdb", "create-blocks-from", "openmetrics", document, blocks]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return blocks


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A deployment in its folder, and the Prometheus that it reads."""
    folder = tmp_path_factory.mktemp("backtest")
    programs = require("prometheus")
    with RunningPrometheus(programs, blocks=filled(programs, folder)) as prometheus:
        config = {
            "telemetry": {"prometheus": {"url": prometheus.url}},
            "topology": {"rack_budget_watts": {"default": 6300}},
            **{name: {"path": str(ROOT / name)} for name in ("detectors", "models", "playbooks")},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        yield folder


def replay(site: Path, *arguments: str, end: datetime) -> str:
    """What `healer backtest` prints."""
    span = ("--start", START.isoformat(), "--end", end.isoformat(), "--step", "15s")
    done = run_healer("backtest", *span, *arguments, "--config", str(site / "config.yaml"))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def report(site: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(replay(site, "--json", end=START + timedelta(minutes=MINUTES) - STEP))
    return answer


def changed(site: Path, name: str, before: str, after: str) -> str:
    """The path of a drain-node.yaml that is not deployed, in a folder of its own."""
    text = (ROOT / "playbooks" / "drain-node.yaml").read_text()
    assert before in text
    folder = site / name
    folder.mkdir()
    (folder / "drain-node.yaml").write_text(text.replace(before, after))
    return str(folder)


def opened_after_s(incident: dict[str, Any]) -> float:
    return (datetime.fromisoformat(incident["opened_at"]) - START).total_seconds()


@pytest.mark.prometheus
def test_every_fault_of_the_history_is_one_incident_and_nothing_else_is(report: dict[str, Any]) -> None:
    assert [(i["failure_mode"], i["component"]["kind"]) for i in report["incidents"]] == [
        ("GpuUncorrectableEcc", "gpu"),
        ("RackPowerOverBudget", "rack"),
    ]


@pytest.mark.prometheus
def test_the_failed_gpu_is_named_within_two_scrapes_with_the_plan_that_would_have_been_asked_for(
    report: dict[str, Any],
) -> None:
    ecc = report["incidents"][0]
    component = ecc["component"]
    assert (component["rack"], component["node"], component["gpu"]) == ("rack-1", "gpu-001", "1")
    assert component["uuid"].startswith("GPU-")
    assert 0 <= opened_after_s(ecc) - ERROR_AT_S <= 2 * STEP.total_seconds()
    assert (ecc["resolved_at"], ecc["severity"], ecc["score"]) == (None, "critical", 1.0)
    assert "1 uncorrectable memory error" in ecc["reasons"][0]
    plan = ecc["plan"]
    assert (plan["playbook"], plan["needs_approval"]) == ("drain-node", True)
    assert [(effect["verb"], effect["target"]) for effect in plan["effects"]] == [("cordon", "gpu-001")]
    assert plan["verdict"]["guard"] == "mode"


@pytest.mark.prometheus
def test_the_rack_s_surge_opens_and_ends_with_the_cap_that_would_have_been_set(report: dict[str, Any]) -> None:
    rack = report["incidents"][1]
    assert rack["component"]["rack"] == "rack-2"
    assert 0 <= opened_after_s(rack) - SURGE_AT_S <= 60
    assert rack["resolved_at"] is not None
    assert rack["plan"]["playbook"] == "cap-rack-power"
    assert rack["plan"]["needs_approval"] is False


@pytest.mark.prometheus
def test_the_report_says_what_it_rests_on(report: dict[str, Any]) -> None:
    assert report["window"] == {"start": "2026-03-01T03:00:00Z", "end": "2026-03-01T03:11:45Z", "step": "15s"}
    stats = report["stats"]
    assert (stats["gpus"], stats["ticks"]) == (16, 48)
    assert stats["samples"] > 48 * 16 * 20


@pytest.mark.prometheus
def test_a_changed_playbook_is_told_with_what_it_would_have_done_otherwise_and_when(site: Path) -> None:
    folder = changed(site, "unasked", 'when: "true"', 'when: "false"')
    end = START + timedelta(minutes=4)
    answer = json.loads(replay(site, "--playbooks", folder, "--answer-after", "1m", "--json", end=end))
    (difference,) = answer["differences"]
    assert difference["component"]["node"] == "gpu-001"
    sides = [difference[side] for side in ("deployed", "changed")]
    assert [side["plan"]["needs_approval"] for side in sides] == [True, False]
    assert [(side["plan"]["playbook"], side["plan"]["verdict"]) for side in sides] == [("drain-node", None)] * 2
    (asked,), (cordoned, sooner) = (
        [moment["at"] for side in sides for moment in side["moments"] if moment["what"].startswith(what)]
        for what in ("asks: ", "cordon gpu-001")
    )
    assert asked == sooner == difference["opened_at"]
    assert datetime.fromisoformat(cordoned) - datetime.fromisoformat(asked) == timedelta(minutes=1)
    comparison = answer["stats"]["comparison"]
    assert (comparison["mode"], comparison["answer_after"]) == ("act", "1m")
    assert answer["incidents"][0]["state"] == "open"
    shown = replay(site, "--playbooks", folder, "--answer-after", "1m", end=end)
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("drain-node ")]
    assert row[1:6] == ["1", "1", ">", "0", "1"]
    assert "1 incident would have gone another way" in shown
    assert "changed   03-01 03:02:15 starts: drain-node on node gpu-001: cordon gpu-001\n" in shown


@pytest.mark.prometheus
def test_a_change_that_changes_nothing_is_said_to(site: Path) -> None:
    file = Path(changed(site, "worded", "description: Take", "description: Please take")) / "drain-node.yaml"
    shown = replay(site, "--playbooks", str(file), "--mode", "recommend", end=START + timedelta(minutes=3))
    assert shown.endswith("\nno incident would have gone another way\n")
    assert "mode recommend, and on-call says yes at once" in shown
