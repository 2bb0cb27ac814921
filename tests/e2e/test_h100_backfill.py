"""A recording goes through OpenMetrics, promtool, a real Prometheus and a replay, and comes out as it went in."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.h100_to_openmetrics import gpu_uuid, read_run, write_openmetrics
from healer.adapters.prometheus.source import PrometheusSource
from healer.domain.frame import Frame
from healer.domain.signal import Signal
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from tests.realparts.prometheus import Programs, RunningPrometheus, require

CONVERTER = Path(__file__).parents[2] / "benchmarks" / "h100_to_openmetrics.py"
START_MS = 1_775_006_190_174
TICKS = 200
GPUS = 2

# The column, and by how much its number is multiplied on the way to our unit.
COLUMNS = {
    Signal.POWER: ("power_w", 1.0),
    Signal.GPU_TEMPERATURE: ("temp_c", 1.0),
    Signal.TENSOR_ACTIVE: ("tensor_active", 1.0),
    Signal.UTILIZATION: ("gpu_util_pct", 0.01),
    Signal.MEMORY_USED: ("mem_used_mib", 1024.0 * 1024.0),
    Signal.ENERGY: ("energy_mj", 1e-3),
    Signal.NVLINK_TX: ("nvlink_tx_bytes_s", 1.0),
    Signal.CLOCK_REASONS: ("throttle_reasons", 1.0),
}


def _row(tick: int, gpu: int) -> dict[str, str]:
    """Ten rows a second with times that are not round, as the recorder's are; one sensor fails now and then."""
    wave = (tick * 37 + gpu * 11) % 101
    return {
        "timestamp": f"{(START_MS + tick * 101) / 1000:.3f}",
        "phase": "steady",
        "gpu": str(gpu),
        "gpu_model": "NVIDIA H100 80GB HBM3",
        "power_w": f"{70 + 6.3 * wave:.1f}",
        "temp_c": str(30 + wave // 3),
        "mem_used_mib": str(3 + 700 * gpu),
        "mem_total_mib": "81559",
        "gpu_util_pct": str(wave % 100),
        "mem_util_pct": "0",
        "sm_active": "0.0",
        "tensor_active": "" if tick % 50 == 0 else f"{wave / 997:.6f}",
        "dram_active": "5e-06",
        "fp16_active": "0.0",
        "pcie_tx_bytes_s": "691833",
        "pcie_rx_bytes_s": "592251",
        "nvlink_tx_bytes_s": str(123_456_789_012 + tick),
        "nvlink_rx_bytes_s": "0",
        "throttle_reasons": str(4 if wave > 90 else 0),
        "energy_mj": str(236_748_496_900 + tick * 70 + gpu),
    }


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("h100") / "t2.csv.gz"
    rows = [_row(tick, gpu) for tick in range(TICKS) for gpu in range(GPUS)]
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def filled(recording: Path) -> Iterator[RunningPrometheus]:
    programs = require("prometheus")
    with RunningPrometheus(programs, blocks=_backfilled(programs, recording)) as prometheus:
        yield prometheus


def _backfilled(programs: Programs, recording: Path) -> Path:
    document = recording.with_name("t2.om")
    with document.open("w", encoding="utf-8") as out:
        write_openmetrics([read_run(recording, resolution=timedelta(milliseconds=1))], out)
    blocks = recording.with_name("blocks")
    command: list[str | Path] = [programs.promtool, "tsdb", "create-blocks-from", "openmetrics", document, blocks]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return blocks


def _at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _expected(signal: Signal, gpu: int, at: datetime) -> float:
    """The newest value at or before `at` that is there, in our unit."""
    column, scale = COLUMNS[signal]
    last = (round(at.timestamp() * 1000) - START_MS) // 101
    texts = (_row(tick, gpu)[column] for tick in range(min(last, TICKS - 1), -1, -1))
    return next((float(text) * scale for text in texts if text), np.nan)


def _check(frame: Frame) -> None:
    for gpu in range(GPUS):
        row = frame.gpus.rows[f"gpu/{gpu_uuid('h100-a', str(gpu))}"]
        assert (frame.gpus.components[row].node, frame.gpus.components[row].gpu) == ("h100-a", str(gpu))
        for signal in COLUMNS:
            np.testing.assert_array_equal(frame.latest(signal)[row], _expected(signal, gpu, frame.at), str(signal))


@pytest.mark.prometheus
def test_a_replay_of_a_recording_gives_its_values_bit_for_bit(filled: RunningPrometheus) -> None:
    window = Window(TopologyRules())
    start, step = _at(START_MS), timedelta(milliseconds=250)
    with closing(PrometheusSource(filled.url)) as source:
        frames = [window.add(reading) for reading in source.replay(start, _at(START_MS + 101 * (TICKS - 1)), step)]
    assert len(frames) == 101 * (TICKS - 1) // 250 + 1
    for frame in frames:
        _check(frame)
        assert (frame.age_s < 0.101 + 1e-6).all()


@pytest.mark.prometheus
def test_after_the_end_of_a_recording_its_values_grow_old_and_then_go(filled: RunningPrometheus) -> None:
    end = _at(START_MS + 101 * (TICKS - 1))
    window = Window(TopologyRules(), max_age=timedelta(seconds=90))
    with closing(PrometheusSource(filled.url)) as source:
        frames = [
            window.add(reading) for reading in source.replay(end, end + timedelta(seconds=120), timedelta(seconds=60))
        ]
    assert [round(float(frame.age_s[0])) for frame in frames] == [0, 60, 120]
    assert [bool(np.isnan(frame.latest(Signal.POWER)).all()) for frame in frames] == [False, False, True]


def _convert(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, CONVERTER, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_converter_keeps_one_sample_per_second_by_default(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.om"
    done = _convert("--data", recording.parent, "--run", "t2", "--out", out)
    assert done.returncode == 0, done.stderr
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "# EOF"
    powers = [line for line in lines if line.startswith("DCGM_FI_DEV_POWER_USAGE{") and 'gpu="1"' in line]
    seconds = [int(float(line.rpartition(" ")[2])) for line in powers]
    assert seconds == list(range(seconds[0], seconds[0] + len(seconds)))
    assert f"t2 (h100-a): {TICKS * GPUS} rows, {2 * len(seconds)} kept" in done.stderr


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "t2.csv.gz: cannot be read"),
        (b"no gzip", "t2.csv.gz: cannot be read"),
        (gzip.compress(b"a,b\n1,2\n"), "t2.csv.gz:1: lacks the columns timestamp, power_w"),
        (gzip.compress((",".join(_row(0, 0)) + "\n").encode()), "t2.csv.gz:1: has no rows"),
        (
            gzip.compress((",".join(_row(0, 0)) + "\n" + ",".join("x" for _ in _row(0, 0))).encode()),
            ":2: timestamp: 'x'",
        ),
        (gzip.compress(b"timestamp,phase\n" * 1000)[:-12], "t2.csv.gz"),
    ],
    ids=["missing", "not gzip", "other columns", "no rows", "no numbers", "truncated"],
)
def test_the_converter_names_what_is_wrong_with_a_recording(tmp_path: Path, content: bytes | None, text: str) -> None:
    if content is not None:
        (tmp_path / "t2.csv.gz").write_bytes(content)
    done = _convert("--data", tmp_path, "--run", "t2", "--out", tmp_path / "out.om")
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.om").exists()
