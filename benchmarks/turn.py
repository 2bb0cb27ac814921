"""What one turn of the loop costs, from the newest sample of every series to the pinned snapshot, by fleet size.

    python benchmarks/turn.py [--gpus N ...] [--svg FILE] [--json]

Each size runs in a process of its own, on one core: 30 fields of N GPUs lie in the store that remote write and direct
scrape fill, ten minutes of history and six hours of the past are behind them, and one GPU in a hundred changes its job
with every turn. Timed is
what the daemon does with that: reading, window, detectors, models, correlation, snapshot. How samples get into the
store is measured by benchmarks/remote_write.py and benchmarks/scrape.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.panels import Panel, svg
from healer.adapters.journal.sql import SqlJournal
from healer.config import load_config
from healer.domain.reading import Reading
from healer.domain.signal import Signal
from healer.errors import Unavailable
from healer.runtime.knowledge import Outside
from healer.runtime.snapshot import Board, Snapshot
from healer.runtime.wiring import build_operator, load_content
from healer.telemetry.catalogue.signals import COUNTERS, LIMITS, MEANINGS, SPELLINGS, Kind, Vendor
from healer.telemetry.catalogue.spelling import Combine
from healer.telemetry.frames.recorder import PAST_SPAN, SLOT
from healer.telemetry.wire.series import Head

ROOT = Path(__file__).parents[1]
SIZES = (1_000, 10_000, 50_000, 100_000)
FIELDS = 30
INTERVAL = timedelta(seconds=30)
PAST_TURNS = PAST_SPAN // SLOT + 2
HISTORY_TURNS = 21
MEASURED_TURNS = 9
GPUS_PER_NODE, NODES_PER_RACK, NODES_PER_JOB = 8, 4, 16
CHURN = 0.01
LIMIT_S, LIMIT_MIB = 1.0, 2048.0
_START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Turn:
    """Attributes:
    first_s: the first turn, which meets every GPU.
    turn_s: the median of the later ones, wall seconds on one core.
    rss_mib, peak_mib: resident memory of the whole process, after the last turn and at its highest.
    """

    gpus: int
    samples: int
    first_s: float
    turn_s: float
    slowest_s: float
    rss_mib: float
    peak_mib: float


class _Fleet:
    """Numbers that look like a fleet at work: the store's own source of telemetry, at a time that is told to it."""

    name = "benchmark"

    def __init__(self, gpus: int, read: Collection[Signal], fields: int) -> None:
        self.head = Head(SPELLINGS, kept=load_config(ROOT / "config.yaml").topology.rules().labels)
        self.time = _START
        self._rng = np.random.default_rng(7)
        self._jobs = np.arange(gpus) // (GPUS_PER_NODE * NODES_PER_JOB)
        self._next_job = int(self._jobs.max()) + 1
        self._metrics = _metrics(read, fields)
        self._series = {metric: np.zeros(gpus, dtype=np.int64) for metric in self._metrics}
        self._warmth = self._rng.normal(0, 1.5, gpus)
        self._energy_mj = self._rng.uniform(1e9, 1e12, gpus)
        self._register(np.arange(gpus))

    def now(self) -> datetime:
        return self.time

    def read(self, at: datetime) -> Reading:
        reading = self.head.reading(at, timedelta(seconds=90))
        if not reading.samples:
            raise Unavailable(self.name, "has no samples")
        return reading

    def scrape(self) -> None:
        """A new value for every series, and a new job for some GPUs."""
        n = len(self._jobs)
        changed = self._rng.choice(n, int(n * CHURN), replace=False)
        for series in self._series.values():
            self.head.end(series[changed], self.time)
        self._jobs[changed] = self._next_job
        self._next_job += 1
        self._register(changed)
        times = np.full(n, self.time.timestamp())
        for metric, series in self._series.items():
            self.head.put(series, self._values(metric), times, self.time)

    def _register(self, gpus: NDArray[np.int64]) -> None:
        for gpu in gpus.tolist():
            node = gpu // GPUS_PER_NODE
            labels = {
                "UUID": f"GPU-{gpu:08x}-0000-4000-8000-{gpu:012x}",
                "gpu": str(gpu % GPUS_PER_NODE),
                "device": f"nvidia{gpu % GPUS_PER_NODE}",
                "modelName": "NVIDIA H100 80GB HBM3",
                "Hostname": f"gpu-{node:05d}",
                "DCGM_FI_DRIVER_VERSION": "570.172.08",
                "instance": f"gpu-{node:05d}:9400",
                "job": "gpu",
                "rack": f"rack-{node // NODES_PER_RACK:04d}",
                "hpc_job": f"train-{self._jobs[gpu]}",
                "pod": f"train-{self._jobs[gpu]}-worker-{node}",
                "namespace": "training",
            }
            for metric in self._metrics:
                key = hash((metric, gpu, int(self._jobs[gpu])))
                self._series[metric][gpu] = self.head.register(key, {"__name__": metric, **labels})

    def _values(self, metric: str) -> NDArray[np.float64]:
        n = len(self._jobs)
        power = 620 + self._rng.normal(0, 12, n)
        match SPELLINGS[metric].signal:
            case Signal.POWER:
                values = power
            case Signal.GPU_TEMPERATURE | Signal.MEMORY_TEMPERATURE:
                values = np.rint(28 + 0.055 * power + self._warmth + self._rng.normal(0, 0.5, n))
            case Signal.ENERGY:
                self._energy_mj += power * INTERVAL.total_seconds() * 1000
                values = self._energy_mj.copy()
            case signal if signal in COUNTERS or MEANINGS[signal].kind is Kind.STATE:
                values = np.zeros(n)
            case signal if signal in LIMITS:
                values = np.full(n, 700.0)
            case _:
                values = self._rng.uniform(0.3, 0.9, n)
        return values


def _metrics(read: Collection[Signal], fields: int) -> tuple[str, ...]:
    """One metric for each of so many signals: those first that most detectors and models read."""
    by_signal: dict[Signal, str] = {}
    for metric, spelling in SPELLINGS.items():
        if spelling.vendor is Vendor.NVIDIA and spelling.combine is Combine.NEWEST and spelling.only is None:
            by_signal.setdefault(spelling.signal, metric)
    readers = Counter(read)
    chosen = sorted(by_signal, key=lambda signal: -readers[signal])  # stable: in the catalogue's order
    return tuple(by_signal[signal] for signal in chosen)[:fields]


def measure_here(gpus: int, fields: int = FIELDS) -> Turn:
    """Measured in this very process, which has to be a fresh one."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    config = load_config(ROOT / "config.yaml")
    content = load_content(config)
    reads = [*(one.reads for one in content.detectors), *(one.reads for one in content.models)]
    fleet = _Fleet(gpus, [signal for signals in reads for signal in signals], fields)
    board, durations = Board(Snapshot(config.mode)), []
    with tempfile.TemporaryDirectory() as folder:
        journal = SqlJournal(f"sqlite:///{folder}/journal.db")
        journal.lead("benchmark", _START, timedelta(days=365))
        outside = Outside(source=fleet)
        operator = build_operator(config, content=content, outside=outside, journal=journal, board=board, clock=fleet)
        for number in range(PAST_TURNS + HISTORY_TURNS + MEASURED_TURNS):
            # First in long strides, until the hours that detectors compare with are full.
            fleet.time += SLOT if number < PAST_TURNS else INTERVAL
            fleet.scrape()
            began = time.perf_counter()
            operator.turn()
            durations.append(time.perf_counter() - began)
        journal.close()
    frame = board.look().frame
    assert frame is not None
    assert len(frame.gpus) == gpus
    later = durations[-MEASURED_TURNS:]
    return Turn(
        gpus=gpus,
        samples=gpus * fields,
        first_s=durations[0],
        turn_s=statistics.median(later),
        slowest_s=max(later),
        rss_mib=_status_mib("VmRSS"),
        peak_mib=_status_mib("VmHWM"),
    )


def measure(sizes: Sequence[int] = SIZES, fields: int = FIELDS) -> Iterator[Turn]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for gpus in sizes:
        argv = [sys.executable, __file__, "--fields", str(fields), "--here", str(gpus)]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"the measurement of {gpus} GPUs failed:\n{done.stderr}")
        yield Turn(**json.loads(done.stdout.splitlines()[-1]))


def plot(turns: Sequence[Turn]) -> str:
    gpus = [float(turn.gpus) for turn in turns]
    return svg(
        (
            Panel("One turn, seconds on one core", "GPUs", gpus, [turn.turn_s for turn in turns], LIMIT_S, "s"),
            Panel("Resident memory, MiB", "GPUs", gpus, [turn.rss_mib for turn in turns], LIMIT_MIB, "MiB"),
        )
    )


def _status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpus", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--fields", type=int, default=FIELDS, help="how many are exported; all that are read: 60")
    parser.add_argument("--svg", type=Path, help="write the plot of time and memory by size here")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.here:
        print(json.dumps(asdict(measure_here(given.here, given.fields))))
        return
    turns = []
    for turn in measure(given.gpus, given.fields):
        turns.append(turn)
        if not given.json:
            print(_line(turn), flush=True)
    if given.svg:
        given.svg.write_text(plot(turns), encoding="utf-8")
    if given.json:
        print(json.dumps([asdict(turn) for turn in turns]))


def _line(turn: Turn) -> str:
    return (
        f"{turn.gpus:>7,} GPUs: turn {turn.turn_s:.3f} s (slowest {turn.slowest_s:.3f}, first {turn.first_s:.2f}), "
        f"{turn.rss_mib:,.0f} MiB resident (peak {turn.peak_mib:,.0f})"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
