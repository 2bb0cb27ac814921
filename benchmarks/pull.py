"""What it costs to pull the telemetry of a fleet out of a real Prometheus, beside what its usual Python client costs.

    python benchmarks/pull.py [--gpus N] [--fields N] [--rounds N] [--json]

A Prometheus (3.x if `make parts` has brought one, else the system's) scrapes the static pages of a fleet, and is then
left alone with its newest samples in memory. In each round, after a first one that does not count,

* prometheus-api-client asks for each field with `custom_query` and makes a `MetricSnapshotDataFrame` of it;
* the source reads: the same fields, the times of their samples, and which targets are down;
* the very requests of the source are sent again, as many at a time, and their answers received and thrown away: what is
  left is the server's own time, and the least that any client can take.

The last two take turns three times in a round, because who else is on the machine shows in the wall clock.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock
from urllib.parse import urlsplit

import requests
from prometheus_api_client import MetricSnapshotDataFrame, PrometheusConnect

from healer.adapters.prometheus.source import PrometheusSource
from healer.telemetry.catalogue.signals import SPELLINGS
from tests.realparts.prometheus import Programs, RunningPrometheus, find_prometheus

_GPUS_PER_NODE = 8
_NODES_PER_RACK = 9
_CONCURRENT = 4  # as the source asks
_TIMEOUT_S = 60.0
_TURNS = 3


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds: a read of the source, and the same requests without it. CPU is this process's but for the server's."""

    source_cpu_s: float
    source_wall_s: float
    receive_cpu_s: float
    server_cpu_s: float
    server_wall_s: float


@dataclass(frozen=True, slots=True)
class Round:
    client_cpu_s: float
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a read of the source asks of the server."""

    paths: tuple[str, ...]
    samples: int


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the pull of a fleet's telemetry from a real Prometheus.")
    parser.add_argument("--gpus", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--fields", type=int, default=30, help="default: 30")
    parser.add_argument("--rounds", type=int, default=5, help="medians are of so many (default: 5)")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    arguments = parser.parse_args()
    figures = measure(arguments.gpus, arguments.fields, arguments.rounds)
    if not arguments.json:
        print(f"{arguments.gpus} GPUs, {arguments.fields} fields; medians of {arguments.rounds} rounds")
        for name, value in figures.items():
            print(f"{name:32}{value:10.3f}")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0


def measure(gpus: int = 10_000, fields: int = 30, rounds: int = 5) -> dict[str, float]:
    """Medians of `rounds`. CPU is per sample of a field, though the source also asks for times and targets.

    Returns:
        pull_cpu_ratio: CPU of the source over that of prometheus-api-client; the promise is 1/6.
        pull_wall_over_server: a read over what the server alone takes for the same requests; the promise is 1.3.
        pull_our_share_of_wall: what part of a read is not the server's.
        pull_cpu_us, pull_client_cpu_us, pull_receive_cpu_us: CPU per sample of the source, of prometheus-api-client,
            and of receiving the bytes alone, below which no client can go.
        pull_server_cpu_us: the server's CPU per sample.
        pull_wall_s, pull_server_wall_s: of one read, and of the server alone.
        pull_wire_bytes, pull_wire_mb_per_s: bytes per sample, and how many the source takes in per second of its CPU.
    """
    programs = find_prometheus("prometheus3") or find_prometheus()
    if programs is None:
        raise SystemExit("pull: no Prometheus on this machine; to get it: make parts")
    metrics = _fields(fields)
    with _filled(programs, metrics, gpus) as (prometheus, at):
        url = prometheus.url
        with contextlib.closing(PrometheusSource(url, timeout_s=_TIMEOUT_S)) as source:
            asked = _asked_by(source, at)
            _round(prometheus, source, metrics, asked, at)
            measured = [_round(prometheus, source, metrics, asked, at) for _ in range(rounds)]
        with contextlib.closing(_Discarding(url)) as connections:
            wire_bytes = sum(connections.receive(path) for path in asked.paths)
    return _figures(measured, samples=gpus * fields, asked=asked, wire_bytes=wire_bytes)


def _figures(measured: Sequence[Round], *, samples: int, asked: Asked, wire_bytes: int) -> dict[str, float]:
    if asked.samples != samples:
        raise SystemExit(f"pull: the source read {asked.samples} samples instead of {samples}")

    def median(read: Callable[[Turn], float]) -> float:
        return statistics.median(read(turn) for one in measured for turn in one.turns)

    client_cpu_s = statistics.median(one.client_cpu_s for one in measured)
    source_cpu_s = median(lambda turn: turn.source_cpu_s)
    micro = 1e6 / samples
    return {
        "pull_cpu_ratio": source_cpu_s / client_cpu_s,
        "pull_wall_over_server": median(lambda turn: turn.source_wall_s / turn.server_wall_s),
        "pull_our_share_of_wall": median(lambda turn: 1.0 - turn.server_wall_s / turn.source_wall_s),
        "pull_cpu_us": micro * source_cpu_s,
        "pull_client_cpu_us": micro * client_cpu_s,
        "pull_receive_cpu_us": micro * median(lambda turn: turn.receive_cpu_s),
        "pull_server_cpu_us": micro * median(lambda turn: turn.server_cpu_s),
        "pull_wall_s": median(lambda turn: turn.source_wall_s),
        "pull_server_wall_s": median(lambda turn: turn.server_wall_s),
        "pull_wire_bytes": wire_bytes / samples,
        "pull_wire_mb_per_s": wire_bytes / 1e6 / source_cpu_s,
    }


def _round(
    prometheus: RunningPrometheus, source: PrometheusSource, metrics: Sequence[str], asked: Asked, at: datetime
) -> Round:
    client_cpu_s, _ = _timed(lambda: _usual_client(prometheus.url, metrics, at))
    return Round(client_cpu_s, tuple(_turn(prometheus, source, asked, at) for _ in range(_TURNS)))


def _turn(prometheus: RunningPrometheus, source: PrometheusSource, asked: Asked, at: datetime) -> Turn:
    source_cpu_s, source_wall_s = _timed(lambda: source.read(at))
    before_s = prometheus.cpu_s()
    with contextlib.closing(_Discarding(prometheus.url)) as connections:
        receive_cpu_s, server_wall_s = _timed(lambda: connections.receive_all(asked.paths))
    return Turn(source_cpu_s, source_wall_s, receive_cpu_s, prometheus.cpu_s() - before_s, server_wall_s)


def _timed(action: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of this process, and seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


def _usual_client(url: str, metrics: Sequence[str], at: datetime) -> None:
    client = PrometheusConnect(url, timeout=_TIMEOUT_S)
    for metric in metrics:
        MetricSnapshotDataFrame(client.custom_query(metric, params={"time": f"{at.timestamp():.3f}"}))


def _asked_by(source: PrometheusSource, at: datetime) -> Asked:
    """The requests of a read that has learnt everything: names, labels, and whom to ask for times."""
    source.read(at)
    source.read(at)
    paths: list[str] = []
    send = requests.Session.send

    def noted(session: requests.Session, request: requests.PreparedRequest, **settings: object) -> requests.Response:
        paths.append(str(request.path_url))
        return send(session, request, **settings)  # type: ignore[arg-type]

    with mock.patch.object(requests.Session, "send", noted):
        samples = source.read(at).samples
    return Asked(tuple(paths), samples)


class _Discarding:
    """Connections, one to a thread, over which answers are received and thrown away."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        for connection in self._open:
            connection.close()

    def receive_all(self, paths: Sequence[str]) -> None:
        with ThreadPoolExecutor(_CONCURRENT) as pool:
            list(pool.map(self.receive, paths))

    def receive(self, path: str) -> int:
        """Returns the number of bytes."""
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(str(self._address.hostname), self._address.port)
            self._local.buffer = bytearray(1 << 16)
            self._open.append(self._local.connection)
        self._local.connection.request("GET", path)
        answer = self._local.connection.getresponse()
        received = 0
        while count := answer.readinto(self._local.buffer):
            received += count
        return received


def _fields(count: int) -> list[str]:
    """The first spelling of as many signals."""
    first: dict[object, str] = {}
    for metric, spelling in SPELLINGS.items():
        first.setdefault(spelling.signal, metric)
    if not 1 <= count <= len(first):
        raise SystemExit(f"pull: --fields: 1 to {len(first)}")
    return list(first.values())[:count]


@contextlib.contextmanager
def _filled(programs: Programs, metrics: Sequence[str], gpus: int) -> Iterator[tuple[RunningPrometheus, datetime]]:
    """A Prometheus that has scraped the fleet and scrapes no more, and a time at which it knew all of it."""
    if gpus % _GPUS_PER_NODE:
        raise SystemExit(f"pull: --gpus: a multiple of {_GPUS_PER_NODE}")
    nodes = gpus // _GPUS_PER_NODE
    with contextlib.ExitStack() as stack:
        with _exporters(metrics) as address:
            targets = "\n".join(_target(address, node) for node in range(nodes))
            prometheus = stack.enter_context(
                RunningPrometheus(
                    programs,
                    scrape_configs=f"- job_name: dcgm\n  static_configs:\n{targets}",
                    interval="10s",
                    arguments=("--web.enable-lifecycle",),
                )
            )
            at = _whole_at(prometheus, metrics, gpus)
            (prometheus.folder / "prometheus.yml").write_text("global: {}\n", encoding="utf-8")
            requests.post(f"{prometheus.url}/-/reload", timeout=_TIMEOUT_S).raise_for_status()
        yield prometheus, at


def _target(address: str, node: int) -> str:
    labels = f"__metrics_path__: /{node}, instance: 'gpu-{node:05d}:9400', rack: 'r{node // _NODES_PER_RACK:03d}'"
    return f"  - {{targets: ['{address}'], labels: {{{labels}}}}}"


def _whole_at(prometheus: RunningPrometheus, metrics: Sequence[str], gpus: int) -> datetime:
    """A time at which all metrics of all GPUs were there."""
    at = datetime.now(UTC)

    def whole() -> bool:
        nonlocal at
        at = datetime.now(UTC)
        asked = {"query": f'count({{__name__=~"{"|".join(metrics)}"}})', "time": f"{at.timestamp():.3f}"}
        answer = requests.get(f"{prometheus.url}/api/v1/query", params=asked, timeout=_TIMEOUT_S).json()
        result = answer["data"]["result"]
        return bool(result) and int(result[0]["value"][1]) == gpus * len(metrics)

    prometheus.wait_until(whole, "it has scraped the fleet")
    return at


@contextlib.contextmanager
def _exporters(metrics: Sequence[str]) -> Iterator[str]:
    """The pages of all nodes on one port, /NODE each."""

    class Page(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = _page(metrics, int(self.path[1:]))
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
            pass

    class Web(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 4096

        def handle_error(self, request: object, client_address: object) -> None:
            """Whoever hangs up in the middle is Prometheus, told to scrape no more."""

    web = Web(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{web.server_address[1]}"
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


def _page(metrics: Sequence[str], node: int) -> bytes:
    """As dcgm-exporter writes it on Kubernetes. The values vary in length as real ones do."""
    lines = []
    for column, metric in enumerate(metrics):
        xid = ',err_code="0",err_msg="No Error"' if "XID" in metric else ""
        for index in range(_GPUS_PER_NODE):
            gpu = node * _GPUS_PER_NODE + index
            value = (gpu * 7919 + column * 104_729) % 100_000
            lines.append(f"{metric}{{{_labels(gpu)}{xid}}} {value if column % 3 else value / 1000}\n")
    return "".join(lines).encode()


def _labels(gpu: int) -> str:
    node, index = divmod(gpu, _GPUS_PER_NODE)
    uuid = hashlib.sha256(str(gpu).encode()).hexdigest()
    return (
        f'gpu="{index}",UUID="GPU-{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:32]}",'
        f'pci_bus_id="00000000:{index:02X}:00.0",device="nvidia{index}",modelName="NVIDIA H100 80GB HBM3",'
        f'Hostname="gpu-{node:05d}",DCGM_FI_DRIVER_VERSION="570.172.08",'
        f'container="trainer",namespace="training",pod="train-{node // 32}-worker-{node % 32}"'
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # pandas' and dateparser's, about themselves
    sys.exit(main())
