"""How fast remote write is taken in, and what a real Prometheus that writes costs.

    python benchmarks/remote_write.py [--json] [--seconds S] [--no-live]

Decoding: 10,000 simulated GPUs with 30 metrics each, in the order and the batches of 2,000 of a Prometheus. Timed is
everything from the compressed body to the frame: decompression, decoding, the newest sample of every series, and for
each round of 300,000 samples one reading and one `Window.add`. Live: exporters in a process of their own, a Prometheus
that scrapes them and writes 20,000 samples a second, and here the receiver behind the daemon's own HTTP application.
CPU seconds of this process count, all threads.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from multiprocessing.connection import Connection

import cramjam

from healer.adapters.http.server import HttpServer
from healer.adapters.journal.sql import SqlJournal
from healer.adapters.push.remote_write import RemoteWrite, WriteAnswer
from healer.config import HttpSettings
from healer.domain.verdict import Mode
from healer.errors import Unavailable
from healer.runtime.snapshot import Board, Snapshot
from healer.runtime.web.api import build_app
from healer.runtime.wiring import WallClock
from healer.sim.exposition import node_page
from healer.sim.fleet import SimulatedFleet
from healer.sim.server import FleetServer
from healer.telemetry.catalogue.signals import SPELLINGS
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from tests import prompb
from tests.realparts.prometheus import RunningPrometheus, find_prometheus

NODES, GPUS_PER_NODE, METRICS, SIMULATED_METRICS = 1_250, 8, 30, 25
BATCH = 2_000
ROUNDS, WARM_UP = 7, 3
INTERVAL = timedelta(seconds=30)
LIMIT_PER_S, LIMIT_CORE_SHARE = 1_000_000, 0.1
_START = datetime(2026, 3, 1, tzinfo=UTC)
_V2 = "io.prometheus.write.v2.Request"
_PATIENCE_S = 60.0

_Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """One version's figures: medians over rounds.

    Attributes:
        samples_per_s: CPU seconds on one core, from the compressed body to the frame.
        receive_only_per_s: the same without reading and window.
        meeting_per_s: of the first round, in which every series is new.
        limit_per_s: what decompression alone allows.
        wire_bytes, message_bytes: per sample, compressed and decompressed.
        rss_mib: of the whole process after the last round.
    """

    version: str
    series: int
    samples_per_s: float
    receive_only_per_s: float
    meeting_per_s: float
    limit_per_s: float
    wire_bytes: float
    message_bytes: float


@dataclass(frozen=True, slots=True)
class Live:
    """What a Prometheus that writes costs this process.

    Attributes:
        batch: samples in a request, on average.
    """

    sender: str
    version: str
    samples_per_s: float
    batch: float
    core_share: float


class _Scrapes:
    """What a Prometheus has to send after each round of scrapes."""

    def __init__(self, *, nodes: int = NODES, metrics: int = METRICS) -> None:
        self._fleet = SimulatedFleet(racks=max(1, nodes // 4), nodes=nodes, gpus=GPUS_PER_NODE, seed=11)
        shown = {line.partition("{")[0] for line in self._page(self._fleet.layout.nodes[0])}
        self._further = [name for name in SPELLINGS if name not in shown][: metrics - len(shown)]
        self._metrics = metrics

    def round(self, at: datetime) -> Iterator[prompb.Series]:
        self._fleet.advance(1)
        for number, node in enumerate(self._fleet.layout.nodes):
            # Targets are scraped one after the other, all over the interval.
            at_ms = round(at.timestamp() * 1000) + number * 20
            lines = self._page(node)
            for line in (*lines, *(f"{name}{line[line.index('{') :]}" for name in self._further for line in lines[:8])):
                described, _, value = line.rpartition(" ")
                yield prompb.Series(
                    _labels(described, node, self._fleet.layout.rack_of(node)), ((float(value), at_ms),)
                )

    def _page(self, node: str) -> list[str]:
        return [line for line in node_page(self._fleet.read(node)).splitlines() if not line.startswith("#")]


@cache
def _labels(described: str, node: str, rack: str) -> _Labels:
    name, _, block = described.partition("{")
    scraped = (pair.partition("=") for pair in block.rstrip("}").split(","))
    labels = {label: value.strip('"') for label, _, value in scraped}
    target = {"instance": f"{node}:9400", "job": "gpu", "node": node, "rack": rack}
    return tuple(sorted({"__name__": name, **labels, **target}.items()))


@cache
def _labels_v1(labels: _Labels) -> bytes:
    return prompb.labels_v1(labels)


def _v1(batch: Sequence[prompb.Series]) -> bytes:
    return b"".join(prompb.field(1, prompb.series_v1(one, _labels_v1(one.labels))) for one in batch)


_ENCODE: dict[int, Callable[[Sequence[prompb.Series]], bytes]] = {1: _v1, 2: prompb.message_v2}


def measure(version: int, *, nodes: int = NODES, rounds: int = ROUNDS) -> Decoded:
    scrapes, rules = _Scrapes(nodes=nodes), TopologyRules()
    receiver, window = RemoteWrite(kept_labels=rules.labels), Window(rules)
    receiving, reading, samples, wire, message = list[float](), list[float](), 0, 0, 0
    unpacking = list[float]()
    for number in range(WARM_UP + rounds):
        at = _START + number * INTERVAL
        bodies = [prompb.compressed(content) for content in _messages(version, scrapes.round(at))]
        now = at + INTERVAL
        samples, wire = 0, sum(map(len, bodies))
        started = time.process_time()
        for body in bodies:
            answer = receiver.receive(prompb.HEADERS[version], body, now)
            samples += int(answer.headers["X-Prometheus-Remote-Write-Samples-Written"])
        received = time.process_time()
        frame = window.add(receiver.read(now))
        ended = time.process_time()
        assert len(frame.gpus) == nodes * GPUS_PER_NODE
        receiving.append(received - started)
        reading.append(ended - received)
        unpacking.append(_unpacking_s(bodies))
        message = sum(cramjam.snappy.decompress_raw_len(body) for body in bodies)
    both = [first + second for first, second in zip(receiving, reading, strict=True)][WARM_UP:]
    return Decoded(
        version=f"{version}.0",
        series=samples,
        samples_per_s=samples / statistics.median(both),
        receive_only_per_s=samples / statistics.median(receiving[WARM_UP:]),
        meeting_per_s=samples / receiving[0],
        limit_per_s=samples / statistics.median(unpacking),
        wire_bytes=wire / samples,
        message_bytes=message / samples,
    )


def measure_v1() -> float:
    """Samples per CPU second, from the compressed body to the frame."""
    return measure(1).samples_per_s


def measure_v2() -> float:
    """Samples per CPU second, from the compressed body to the frame."""
    return measure(2).samples_per_s


def measure_live(*, version: int, samples_per_s: int = 20_000, seconds: float = 20.0) -> Live:
    """Raises Unavailable if there is no such Prometheus on this machine."""
    part = "prometheus" if version == 1 else "prometheus3"
    programs = find_prometheus(part)
    if programs is None:
        raise Unavailable(part, "is not on this machine; see tests/realparts")
    receiver = _Counting(RemoteWrite(kept_labels=TopologyRules().labels))
    nodes = samples_per_s // (SIMULATED_METRICS * GPUS_PER_NODE)
    with _exporters(nodes) as targets, _served(receiver) as url:
        which = f", protobuf_message: {_V2}" if version == 2 else ""
        prometheus = RunningPrometheus(
            programs,
            scrape_configs=f"- {{job_name: gpu, http_sd_configs: [{{url: '{targets}/sd'}}]}}",
            remote_write=f"- {{url: '{url}'{which}}}",
        )
        with prometheus:
            _wait_for(receiver.inner, nodes * GPUS_PER_NODE * SIMULATED_METRICS)
            taken, sent = receiver.inner.counts().taken, receiver.requests
            started, started_cpu = time.monotonic(), time.process_time()
            time.sleep(seconds)
            cpu_s, wall_s = time.process_time() - started_cpu, time.monotonic() - started
            taken, sent = receiver.inner.counts().taken - taken, receiver.requests - sent
    told = subprocess.run([programs.prometheus, "--version"], capture_output=True, text=True, check=True).stdout
    return Live(told.split()[2], f"{version}.0", taken / wall_s, taken / sent, cpu_s / wall_s)


@dataclass(slots=True)
class _Counting:
    inner: RemoteWrite
    requests: int = 0

    def receive(self, headers: Mapping[str, str], body: bytes, now: datetime) -> WriteAnswer:
        self.requests += 1
        return self.inner.receive(headers, body, now)


@contextmanager
def _served(receiver: _Counting) -> Iterator[str]:
    """Where to write to."""
    with closing(SqlJournal("sqlite://")) as journal:
        app = build_app(
            journal=journal,
            board=Board(Snapshot(Mode.OBSERVE)),
            clock=WallClock(),
            approvers=(),
            http=HttpSettings(auth="none"),
            tokens={},
            receiver=receiver,
        )
        server = HttpServer(app)
        server.start()
        try:
            yield f"{server.url}/api/v1/write"
        finally:
            server.stop()


def _wait_for(receiver: RemoteWrite, samples: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if receiver.read(datetime.now(UTC)).samples >= samples:
                return
        except Unavailable:
            pass
        if time.monotonic() > deadline:
            raise Unavailable("prometheus", f"did not write {samples} series within {_PATIENCE_S:g} s")
        time.sleep(0.2)


@contextmanager
def _exporters(nodes: int) -> Iterator[str]:
    """The URL of a simulated fleet in another process."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve_fleet, args=(nodes, theirs), daemon=True)
    process.start()
    try:
        yield str(ours.recv())
    finally:
        process.terminate()
        process.join()


def _serve_fleet(nodes: int, pipe: Connection) -> None:
    fleet = SimulatedFleet(racks=max(1, nodes // 4), nodes=nodes, gpus=GPUS_PER_NODE, seed=5)
    with FleetServer(fleet, speed=1.0) as server:
        pipe.send(server.url)
        time.sleep(86_400)


def _messages(version: int, series: Iterator[prompb.Series]) -> Iterator[bytes]:
    while batch := list(islice(series, BATCH)):
        yield _ENCODE[version](batch)


def _unpacking_s(bodies: Sequence[bytes]) -> float:
    space = bytearray(8 << 20)
    started = time.process_time()
    for body in bodies:
        cramjam.snappy.decompress_raw_into(body, space)
    return time.process_time() - started


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one object and nothing else")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the live part measures")
    parser.add_argument("--no-live", action="store_true", help="without a Prometheus")
    arguments = parser.parse_args(argv)
    decoded = [measure(version) for version in (1, 2)]
    live = [] if arguments.no_live else [measure_live(version=version, seconds=arguments.seconds) for version in (1, 2)]
    if arguments.json:
        print(json.dumps({"decoded": [asdict(one) for one in decoded], "live": [asdict(one) for one in live]}))
    else:
        for one in decoded:
            print(_told(one))
        for each in live:
            cost = f"{100 * each.core_share:.1f} % of a core (limit {100 * LIMIT_CORE_SHARE:g} %)"
            sender = f"Prometheus {each.sender} writing {each.version}"
            print(f"{sender}: {each.samples_per_s:,.0f} samples/s in requests of {each.batch:,.0f} cost {cost}")
    slow = any(one.samples_per_s < LIMIT_PER_S for one in decoded)
    return int(slow or any(each.core_share > LIMIT_CORE_SHARE for each in live))


def _told(one: Decoded) -> str:
    return (
        f"{one.version}: {one.samples_per_s:,.0f} samples/s per core to the frame (limit {LIMIT_PER_S:,}), "
        f"{one.receive_only_per_s:,.0f} without reading and window, {one.meeting_per_s:,.0f} while series are new; "
        f"decompression alone allows {one.limit_per_s:,.0f}; "
        f"{one.wire_bytes:.1f} bytes a sample on the wire, {one.message_bytes:.1f} decompressed"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
