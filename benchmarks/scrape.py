"""Direct scraping: the text parser against prometheus_client's, and whole reads of many exporters over the loopback.

    python benchmarks/scrape.py [--targets N] [--rounds N] [--json]

The pages are those of an 8-GPU node with pod labels: 30 metrics of which all are read, and 60 of which half are. Both
parsers get the same pages in one run and their CPU is compared, by the sample; ours ends with the samples in the head,
theirs with an object for each. The floor is cutting the page into lines, which who looks at lines cannot do without.
Reads go to a server in a process of its own, at as many addresses as there are targets, over connections that are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from healer.adapters.http.exchange import Question
from healer.adapters.http.fetching import Fetcher
from healer.adapters.scrape.source import ScrapeSource
from healer.telemetry.catalogue.signals import SPELLINGS
from healer.telemetry.wire.exposition import Exposition
from healer.telemetry.wire.series import Head

AT = datetime(2026, 3, 1, tzinfo=UTC)
STEP = timedelta(seconds=30)
GPUS = 8
NODES = 12
ROUNDS = 7
TARGETS = 1250
READ = tuple(metric for metric in SPELLINGS if metric.startswith("DCGM_FI_"))[:30]
UNREAD = tuple(f"DCGM_FI_PROF_NOT_READ_HERE_{number}" for number in range(30))
NODE = "gpu-node-00000"  # stands in a page for whoever is asked


def page(node: str, metrics: Sequence[str], *, seed: int) -> str:
    """What dcgm-exporter shows of a node whose GPUs are all in use."""
    random = np.random.default_rng(seed)
    lines: list[str] = []
    for metric in metrics:
        lines += (f"# HELP {metric} What this field is about, with its unit.", f"# TYPE {metric} gauge")
        lines += (f"{metric}{{{_labels(node, gpu)}}} {_value(random)}" for gpu in range(GPUS))
    return "".join(f"{line}\n" for line in lines)


def _labels(node: str, gpu: int) -> str:
    labels = {
        "gpu": str(gpu),
        "UUID": f"GPU-{gpu:08x}-5a1e-4f6b-9c3d-{node[-12:]}",
        "pci_bus_id": f"00000000:{16 * gpu + 25:02X}:00.0",
        "device": f"nvidia{gpu}",
        "modelName": "NVIDIA H100 80GB HBM3",
        "Hostname": node,
        "DCGM_FI_DRIVER_VERSION": "570.172.08",
        "container": "trainer",
        "namespace": "training",
        "pod": f"llm-pretrain-{node}-worker-{gpu}",
    }
    return ",".join(f'{name}="{value}"' for name, value in labels.items())


def _value(random: np.random.Generator) -> str:
    kinds = (
        f"{random.random():.6f}",
        f"{random.integers(100)}",
        f"{random.random() * 700:.3f}",
        f"{random.integers(10**12)}",
    )
    return kinds[random.integers(len(kinds))]


def measure(*, targets: int = TARGETS, rounds: int = ROUNDS) -> dict[str, float]:
    """Medians of `rounds`.

    Returns:
        scrape_speedup: prometheus_client's CPU per sample over ours, of pages of which everything is read.
        scrape_speedup_half_read: the same where every second metric is one that nobody reads.
        scrape_samples_per_s, scrape_samples_per_s_half_read: per core, of all samples on the pages.
        scrape_bytes_per_sample, scrape_mb_per_s: what a sample is on the wire, and what is taken in per core.
        scrape_over_split: our CPU over that of cutting the same pages into lines and nothing else.
        scrape_first_page_us: CPU of a target's first page, by the sample.
        read_cpu_us_per_target, read_fetch_cpu_us_per_target: a whole read, and the fetching alone.
        read_wall_s, read_targets, read_core_share: of one read; the share of a core that this takes every 30 s.
        read_rss_mib: what the process holds after it.
    """
    return _parsing(rounds) | _reading(targets, rounds)


def _parsing(rounds: int) -> dict[str, float]:
    whole = _Pages(READ)
    half = _Pages([metric for pair in zip(READ, UNREAD, strict=True) for metric in pair])
    whole.ours()
    half.ours()
    theirs_s, ours_s, split_s, half_theirs_s, half_ours_s = (
        statistics.median(times)
        for times in zip(
            *(
                (
                    _cpu_s(whole.theirs),
                    _cpu_s(whole.ours, 10),
                    _cpu_s(whole.split, 10),
                    _cpu_s(half.theirs),
                    _cpu_s(half.ours, 10),
                )
                for _ in range(rounds)
            ),
            strict=True,
        )
    )
    first_s = statistics.median(_cpu_s(_Pages(READ).ours) for _ in range(3))
    return {
        "scrape_speedup": theirs_s / ours_s,
        "scrape_speedup_half_read": half_theirs_s / half_ours_s,
        "scrape_samples_per_s": whole.samples / ours_s,
        "scrape_samples_per_s_half_read": half.samples / half_ours_s,
        "scrape_bytes_per_sample": whole.bytes / whole.samples,
        "scrape_mb_per_s": whole.bytes / ours_s / 1e6,
        "scrape_over_split": ours_s / split_s,
        "scrape_first_page_us": 1e6 * first_s / whole.samples,
    }


class _Pages:
    """The pages of a few nodes, two of each, whose values differ."""

    def __init__(self, metrics: Sequence[str]) -> None:
        nodes = [f"gpu-node-{number:05}" for number in range(NODES)]
        self._texts = [
            [page(node, metrics, seed=number) for number, node in enumerate(nodes, turn * NODES)] for turn in range(2)
        ]
        self._bodies = [[text.encode() for text in texts] for texts in self._texts]
        self._head = Head(SPELLINGS)
        exposition = Exposition(self._head, SPELLINGS)
        self._readers = [exposition.target({"instance": f"{node}:9400", "node": node}) for node in nodes]
        self._turn = 0
        self.samples = NODES * len(metrics) * GPUS
        self.bytes = sum(map(len, self._bodies[0]))

    def theirs(self) -> None:
        for text in self._texts[0]:
            for family in text_string_to_metric_families(text):
                for _ in family.samples:
                    pass

    def ours(self) -> None:
        self._turn += 1
        at = AT + self._turn * STEP
        bodies = self._bodies[self._turn % 2]
        pages = [reader.take(body, at) for reader, body in zip(self._readers, bodies, strict=True)]
        series = np.concatenate([one.series for one in pages])
        values = np.concatenate([one.values for one in pages])
        self._head.put(series, values, np.concatenate([one.times for one in pages]), at)

    def split(self) -> None:
        for body in self._bodies[0]:
            body.split(b"\n")


def _cpu_s(work: Callable[[], None], times: int = 1) -> float:
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


def _reading(targets: int, rounds: int) -> dict[str, float]:
    with _exporters() as port:
        addresses = [
            f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}:{port}" for number in range(targets)
        ]
        with closing(ScrapeSource(addresses, timeout_s=30.0)) as source:
            _take(source, 0)
            reads = [_take(source, turn) for turn in range(1, rounds + 1)]
            rss_mib = _rss_mib()
        with closing(Fetcher(timeout_s=30.0, limit_bytes=16 << 20)) as fetcher:
            questions = [
                Question.of(address, f"http://{address}/metrics", accept="text/plain") for address in addresses
            ]
            _throw_away(fetcher, questions)
            fetch_s = statistics.median(_cpu_s(lambda: _throw_away(fetcher, questions)) for _ in range(rounds))
    read_s, wall_s = (statistics.median(times) for times in zip(*reads, strict=True))
    return {
        "read_targets": targets,
        "read_cpu_us_per_target": 1e6 * read_s / targets,
        "read_fetch_cpu_us_per_target": 1e6 * fetch_s / targets,
        "read_wall_s": wall_s,
        "read_core_share": read_s / STEP.total_seconds(),
        "read_rss_mib": rss_mib,
    }


def _take(source: ScrapeSource, turn: int) -> tuple[float, float]:
    """CPU and wall seconds of one read."""
    cpu_s, wall_s = time.process_time(), time.monotonic()
    reading = source.read(AT + turn * STEP)
    spent = time.process_time() - cpu_s, time.monotonic() - wall_s
    if reading.silent or reading.warnings:
        raise SystemExit(f"scrape: {len(reading.silent)} targets are silent: {reading.warnings[:1]}")
    return spent


def _throw_away(fetcher: Fetcher, questions: Sequence[Question]) -> None:
    for _, answer in fetcher.fetch(questions, within_s=300.0):
        if not isinstance(answer, bytes):
            raise SystemExit(f"scrape: {answer}")


@contextmanager
def _exporters() -> Iterator[int]:
    """The port at which every address of the loopback is an exporter."""
    serving = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        yield int(serving.stdout.readline())
    finally:
        serving.kill()
        serving.communicate()


class _Exporter(asyncio.Protocol):
    template = page(NODE, READ, seed=0).encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        host = transport.get_extra_info("sockname")[0]
        self._name = "gpu-" + "-".join(f"{int(part):03}" for part in host.split(".")[1:])

    def data_received(self, data: bytes) -> None:
        body = self.template.replace(NODE.encode(), self._name.encode())
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
        for _ in range(data.count(b"\r\n\r\n")):
            self._transport.write(head + body)


async def _serve() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = await asyncio.get_running_loop().create_server(_Exporter, "0.0.0.0", 0, backlog=4096)  # noqa: S104 - all of 127/8
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", type=int, default=TARGETS, help=f"exporters to be read (default: {TARGETS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"medians are of so many (default: {ROUNDS})")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        asyncio.run(_serve())
        return 0
    figures = measure(targets=given.targets, rounds=given.rounds)
    if not given.json:
        for name, value in figures.items():
            print(f"{name:34}{value:14,.3f}")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
