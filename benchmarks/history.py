"""How fast a day of history is fetched, and in how much memory, beside prometheus-api-client's get_metric_range_data.

    python benchmarks/history.py [--gpus N] [--rounds N] [--part prometheus|prometheus3] [--json]

A real Prometheus is filled, by remote write, with 24 hours at 30 s of three metrics of 1,000 GPUs: a temperature, a
power and an energy counter, as different to compress as they get. Each measurement is a process of its own that fetches
all three, one after the other; theirs and ours take turns. What came is compared with what was written, to the bit.
Fields are fetched one after the other and forgotten, so 30 of them take ten times as long and no more memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import cramjam
import numpy as np
from numpy.typing import NDArray
from prometheus_api_client import PrometheusConnect

from healer.adapters.http.stream import StreamingServer
from healer.adapters.prometheus.history import PrometheusHistory
from healer.adapters.prometheus.raw_samples import RawQuery
from healer.adapters.prometheus.remote_read import read_request
from healer.domain.reading import Labels
from healer.telemetry.history import Stretch
from tests.realparts.prometheus import Programs, RunningPrometheus, find_prometheus

ROOT = Path(__file__).parents[1]
GPUS, FIELDS, ROUNDS = 1_000, 30, 5
STEPS, STEP_MS = 2_880, 30_000
START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=1)
START_MS = round(START.timestamp() * 1000)
METRICS = ("DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION")
GPUS_PER_NODE = 8
LATE = 0.02  # of the scrapes, by up to 50 ms

_STEPS_PER_WRITE = 20
_QUIET_S = 3.0
_SETTLED_WITHIN_S = 180.0

HEADERS = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
_Points: TypeAlias = Sequence[Sequence[float | str]]
# A metric, one series' labels, and its samples as numbers or as their client brings them.
_Fetched: TypeAlias = tuple[str, Labels, tuple[Ints, Floats] | _Points]


@dataclass(frozen=True, slots=True)
class Pass:
    """One process's fetch of all metrics.

    Attributes:
        peak_mib: how much resident memory grew from before the first request to its highest.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    samples: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the rounds; of each round, all metrics together.

    Attributes:
        history_speedup: their wall time by ours.
        history_memory_ratio: our growth of memory by theirs.
        queried_s, queried_peak_mib: ours without remote read, as from a Thanos.
        server_s: what the server takes to send the bytes to somebody who throws them away, wall time.
        server_cpu_s: and its CPU time.
        ours_scaled_s, theirs_scaled_s: for 30 fields.
    """

    history_speedup: float
    history_memory_ratio: float
    server_version: str
    gpus: int
    samples: int
    theirs_s: float
    ours_s: float
    theirs_cpu_s: float
    ours_cpu_s: float
    theirs_peak_mib: float
    ours_peak_mib: float
    queried_s: float
    queried_peak_mib: float
    server_s: float
    server_cpu_s: float
    wire_bytes_per_sample: float
    ours_scaled_s: float
    theirs_scaled_s: float


class _History:
    """What is written, the same for the same number of GPUs."""

    def __init__(self, gpus: int) -> None:
        rng = np.random.default_rng(7)
        self.gpus = gpus
        nodes = -(-gpus // GPUS_PER_NODE)
        late = np.where(rng.random((nodes, STEPS)) < LATE, rng.integers(1, 50, (nodes, STEPS)), 0)
        scraped = START_MS + rng.integers(1, STEP_MS - 100, (nodes, 1)) + STEP_MS * np.arange(STEPS) + late
        self.stamps: Ints = np.repeat(scraped, GPUS_PER_NODE, axis=0)[:gpus]
        load = 550 + 120 * np.sin(np.arange(STEPS) / 200 + rng.uniform(0, 6, (gpus, 1)))
        power = np.round(load + rng.normal(0, 9, (gpus, STEPS)), 3)
        heat = np.rint(28 + 0.05 * load + rng.normal(0, 0.5, (gpus, STEPS)))
        energy = rng.integers(10**9, 10**12, (gpus, 1)) + np.cumsum(np.rint(power * STEP_MS), axis=1)
        self.values: dict[str, Floats] = dict(zip(METRICS, (heat, power, energy), strict=True))

    def labels(self, gpu: int) -> dict[str, str]:
        node = gpu // GPUS_PER_NODE
        return {
            "Hostname": f"gpu-{node:05d}",
            "UUID": f"GPU-{gpu:08x}-0000-4000-8000-{gpu:012x}",
            "device": f"nvidia{gpu % GPUS_PER_NODE}",
            "gpu": str(gpu % GPUS_PER_NODE),
            "hpc_job": f"train-{node // 16}",
            "instance": f"gpu-{node:05d}:9400",
            "job": "gpu",
            "modelName": "NVIDIA H100 80GB HBM3",
            "rack": f"rack-{node // 4:04d}",
        }

    def digest(self) -> str:
        digest = _Digest()
        for metric, values in self.values.items():
            for gpu in range(self.gpus):
                digest.add(metric, self.labels(gpu), self.stamps[gpu], values[gpu])
        return digest.text()

    def write_requests(self) -> Iterator[bytes]:
        """Remote write 1.0, ten minutes of everything in each."""
        described = [_pairs({"__name__": metric, **self.labels(gpu)}) for metric in METRICS for gpu in range(self.gpus)]
        stamps = np.tile(self.stamps, (len(METRICS), 1))
        values = np.concatenate(list(self.values.values()))
        for first in range(0, STEPS, _STEPS_PER_WRITE):
            part = slice(first, first + _STEPS_PER_WRITE)
            samples = _samples(stamps[:, part], values[:, part])
            series = (_field(1, pairs + row.tobytes()) for pairs, row in zip(described, samples, strict=True))
            yield bytes(cramjam.snappy.compress_raw(b"".join(series)))


class _Digest:
    """The order of the series does not matter."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, metric: str, labels: Labels, stamps: Ints, values: Floats) -> None:
        text = json.dumps([metric, sorted(labels.items())]).encode()
        one = hashlib.blake2b(text + stamps.tobytes() + values.tobytes(), digest_size=16).digest()
        self._sum ^= int.from_bytes(one, "big")

    def text(self) -> str:
        return f"{self._sum:032x}"


def _pairs(labels: Mapping[str, str]) -> bytes:
    pairs = sorted(labels.items())
    return b"".join(_field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in pairs)


def _field(number: int, content: bytes) -> bytes:
    size, length = b"", len(content)
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def _samples(stamps: Ints, values: Floats) -> NDArray[np.void]:
    """A Sample for each: its tag and length, the value, and a time that has six bytes as a varint."""
    fields = [("tag", "u1", 3), ("value", "<f8"), ("then", "u1"), ("stamp", "u1", 6)]
    samples = np.empty(stamps.shape, dtype=fields)
    samples["tag"], samples["then"] = (0x12, 16, 0x09), 0x10
    samples["value"] = values
    sevens = (stamps[..., np.newaxis] >> (7 * np.arange(6))) & 127
    samples["stamp"] = sevens | (np.arange(6) < 5) * 128
    return samples


def _fill(server: RunningPrometheus, history: _History) -> None:
    """Write everything, and wait until the server has put its memory into blocks and rests."""
    for body in history.write_requests():
        request = urllib.request.Request(f"{server.url}/api/v1/write", data=body, headers=HEADERS)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60):  # noqa: S310
            pass
    used, since, deadline = -1.0, time.monotonic(), time.monotonic() + _SETTLED_WITHIN_S
    while time.monotonic() < min(since + _QUIET_S, deadline):
        time.sleep(0.25)
        if server.cpu_s() - used > 0.05:
            used, since = server.cpu_s(), time.monotonic()


def _theirs(url: str) -> Iterator[_Fetched]:
    client = PrometheusConnect(url=url)
    for metric in METRICS:
        for series in client.get_metric_range_data(metric, start_time=START, end_time=END):
            # What they bring is text; it is turned into numbers only where it is compared.
            yield metric, series["metric"], series["values"]


def _ours(url: str) -> Iterator[_Fetched]:
    with closing(PrometheusHistory(url)) as history:
        for stretch in history.fetch(METRICS, START, END):
            yield from _series(stretch)


def _queried(url: str) -> Iterator[_Fetched]:
    with closing(StreamingServer(url, headers={}, tenant=None, query={}, timeout_s=60.0)) as server:
        way = RawQuery(server)
        for metric in METRICS:
            for stretch in way.stretches(metric, {}, START_MS, START_MS + STEPS * STEP_MS):
                yield from _series(stretch)


def _series(stretch: Stretch) -> Iterator[_Fetched]:
    end = 0
    for labels, length in zip(stretch.labels, stretch.lengths.tolist(), strict=True):
        begin, end = end, end + length
        yield stretch.metric, labels, (stretch.stamps_ms[begin:end], stretch.values[begin:end])


_WAYS: dict[str, Callable[[str], Iterator[_Fetched]]] = {"theirs": _theirs, "ours": _ours, "queried": _queried}


def fetch_here(way: str, url: str) -> Pass:
    """Measured in this very process, which has to be a fresh one."""
    before_mib, began, used = _status_mib("VmRSS"), time.perf_counter(), time.process_time()
    samples = 0
    for _, _, content in _WAYS[way](url):
        samples += len(content[0]) if isinstance(content, tuple) else len(content)
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - used
    return Pass(wall_s=wall_s, cpu_s=cpu_s, peak_mib=_status_mib("VmHWM") - before_mib, samples=samples)


def digest_here(way: str, url: str) -> str:
    """Of what this way brings."""
    parts: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[Ints, Floats]]] = {}
    for metric, labels, content in _WAYS[way](url):
        key = metric, tuple(sorted((name, value) for name, value in labels.items() if name != "__name__"))
        parts.setdefault(key, []).append(content if isinstance(content, tuple) else _numbers(content))
    digest = _Digest()
    for (metric, pairs), pieces in parts.items():
        stamps, values = (np.concatenate(column) for column in zip(*pieces, strict=True))
        digest.add(metric, dict(pairs), stamps, values)
    return digest.text()


def _numbers(points: _Points) -> tuple[Ints, Floats]:
    stamps = np.rint(np.array([float(at) for at, _ in points]) * 1000).astype(np.int64)
    return stamps, np.array([float(text) for _, text in points])


def _sent(server: RunningPrometheus) -> tuple[float, float, int]:
    """What it takes the server to send everything to nobody: wall seconds, its CPU seconds, bytes."""
    wall_s, used, received = 0.0, server.cpu_s(), 0
    for metric in METRICS:
        body = bytes(cramjam.snappy.compress_raw(read_request(metric, {}, (START_MS, START_MS + STEPS * STEP_MS))))
        request = urllib.request.Request(f"{server.url}/api/v1/read", data=body, headers=HEADERS)  # noqa: S310
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            while piece := answer.read1(1 << 20):
                received += len(piece)
        wall_s += time.perf_counter() - began
    return wall_s, server.cpu_s() - used, received


def _in_a_process(action: str, way: str, url: str) -> str:
    argv = [sys.executable, __file__, "--here", action, way, url]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{action} {way} failed:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def measure(*, gpus: int = GPUS, rounds: int = ROUNDS, part: str | None = None) -> dict[str, float | str]:
    """The figures, of the newest Prometheus that is on this machine if `part` names none."""
    programs = find_prometheus(part) if part else find_prometheus("prometheus3") or find_prometheus("prometheus")
    if programs is None:
        sys.exit("no Prometheus on this machine; to get it: make parts, or apt-get install prometheus")
    history = _History(gpus)
    with RunningPrometheus(programs, arguments=("--web.enable-remote-write-receiver",)) as server:
        _fill(server, history)
        written = history.digest()
        for way in _WAYS:
            if _in_a_process("digest", way, server.url) != written:
                sys.exit(f"what {way} brings is not what was written")
        passes: dict[str, list[Pass]] = {way: [] for way in _WAYS}
        sent = []
        for _ in range(rounds):
            for way, done in passes.items():
                done.append(Pass(**json.loads(_in_a_process("fetch", way, server.url))))
            sent.append(_sent(server))
    return asdict(_figures(programs, gpus, passes, sent))


def _figures(
    programs: Programs, gpus: int, passes: Mapping[str, Sequence[Pass]], sent: Sequence[tuple[float, float, int]]
) -> Figures:
    middle = {
        way: Pass(*(statistics.median(column) for column in zip(*(astuple(one) for one in done), strict=True)))
        for way, done in passes.items()
    }
    theirs, ours, queried = middle["theirs"], middle["ours"], middle["queried"]
    fields = FIELDS / len(METRICS)
    version = subprocess.run([programs.prometheus, "--version"], capture_output=True, text=True, check=True)
    return Figures(
        history_speedup=theirs.wall_s / ours.wall_s,
        history_memory_ratio=ours.peak_mib / theirs.peak_mib,
        server_version=" ".join((version.stdout or version.stderr).split()[:3]).removesuffix(","),
        gpus=gpus,
        samples=int(ours.samples),
        theirs_s=theirs.wall_s,
        ours_s=ours.wall_s,
        theirs_cpu_s=theirs.cpu_s,
        ours_cpu_s=ours.cpu_s,
        theirs_peak_mib=theirs.peak_mib,
        ours_peak_mib=ours.peak_mib,
        queried_s=queried.wall_s,
        queried_peak_mib=queried.peak_mib,
        server_s=statistics.median(wall_s for wall_s, _, _ in sent),
        server_cpu_s=statistics.median(cpu_s for _, cpu_s, _ in sent),
        wire_bytes_per_sample=sent[0][2] / ours.samples,
        ours_scaled_s=ours.wall_s * fields,
        theirs_scaled_s=theirs.wall_s * fields,
    )


def _status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpus", type=int, default=GPUS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--part", choices=["prometheus", "prometheus3"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--here", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.here:
        action, way, url = given.here
        print(digest_here(way, url) if action == "digest" else json.dumps(asdict(fetch_here(way, url))))
        return
    figures = measure(gpus=given.gpus, rounds=given.rounds, part=given.part)
    if given.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:24} {value if isinstance(value, str) else format(value, ',.3f')}")


if __name__ == "__main__":
    main(sys.argv[1:])
