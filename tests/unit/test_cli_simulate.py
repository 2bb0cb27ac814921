"""`healer simulate --history`: what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from healer.cli.simulate import simulate
from healer.errors import InvalidDocument


def run(*arguments: str | int | Path) -> Result:
    return CliRunner().invoke(simulate, [str(argument) for argument in arguments])


def test_a_history_is_written_with_the_truth_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "fleet.om"
    done = run("--history", path, "--nodes", 2, "--gpus", 4, "--duration", "15m", "--step", "30s", "--seed", 3)
    assert done.exit_code == 0, done.output
    text = path.read_text(encoding="utf-8")
    assert text.endswith("# EOF\n")
    truth = json.loads((tmp_path / "fleet.om.truth.json").read_text(encoding="utf-8"))
    assert (truth["start"], truth["end"]) == ("2026-03-02T00:00:00+00:00", "2026-03-02T00:15:00+00:00")
    assert (truth["scrape_interval_s"], truth["gpus_per_node"], len(truth["nodes"])) == (30, 4, 2)
    samples = sum(not line.startswith("#") for line in text.splitlines())
    assert f"{samples} samples of 8 GPUs in {path}" in done.stdout
    assert "fleet.om" in done.stderr, "progress goes where it disturbs nobody"


def test_a_history_may_have_given_faults_and_begin_at_any_time(tmp_path: Path) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("faults:\n  - {kind: row_remap_pending, at: 5m, node: gpu-002, gpu: 1}\n")
    path = tmp_path / "fleet.om"
    done = run(
        *("--history", path, "--nodes", 2, "--gpus", 4, "--duration", "10m", "--step", "15s"),
        *("--faults", faults, "--start", "2026-05-01T06:00:00Z"),
    )
    assert done.exit_code == 0, done.output
    (truth,) = json.loads((tmp_path / "fleet.om.truth.json").read_text(encoding="utf-8"))["truths"]
    assert (truth["failure_mode"], truth["onset"]) == ("GpuRowRemapPending", "2026-05-01T06:05:00Z")
    assert truth["component"]["node"] == "gpu-002"
    assert "} 63 " in path.read_text(encoding="utf-8"), "the XID that says so"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--step", "7s"), "0:00:07 is not a multiple of 5 s"),
        (("--duration", "12s"), "0:00:12 is not a multiple of 5 s"),
        (("--start", "2026-05-01T06:00:07Z"), "is not a multiple of the step"),
    ],
)
def test_times_that_do_not_fit_are_refused(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = run("--history", tmp_path / "fleet.om", "--nodes", 2, *arguments)
    assert done.exit_code == 2
    assert says in done.output
    assert not (tmp_path / "fleet.om").exists()


def test_a_fault_that_is_nowhere_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("faults:\n  - {kind: gpu_lost, at: 5m, node: gpu-009, gpu: 1}\n")
    done = run("--history", tmp_path / "fleet.om", "--nodes", 2, "--faults", faults)
    assert isinstance(done.exception, InvalidDocument)
    assert "no node 'gpu-009'" in str(done.exception)
    assert not (tmp_path / "fleet.om").exists()
