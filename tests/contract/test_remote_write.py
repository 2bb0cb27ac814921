"""A real Prometheus writes to the receiver: 2.42 in version 1.0, 3.x in both."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cramjam
import pytest
import requests

from healer.adapters.push.remote_write import RemoteWrite, WriteAnswer
from healer.adapters.scrape.source import ScrapeSource
from healer.domain.reading import Reading
from healer.errors import Unavailable
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import SimulatedFleet
from healer.sim.server import FleetServer
from tests import slow_write_request
from tests.realparts.prometheus import RunningPrometheus, require
from tests.receiving import receiving

_PATIENCE_S = 30.0
_FAULT_S = 60.0  # of the fleet's time, which stands still meanwhile
_V2 = "io.prometheus.write.v2.Request"


@dataclass(frozen=True, slots=True)
class Sender:
    """Attributes:
    part: which Prometheus.
    message: what it writes; its own choice if empty.
    """

    part: str
    message: str = ""


_SENDERS = [
    pytest.param(Sender("prometheus"), id="2.42 writes 1.0", marks=pytest.mark.prometheus),
    pytest.param(Sender("prometheus3"), id="3.x writes 1.0", marks=pytest.mark.prometheus),
    pytest.param(Sender("prometheus3", _V2), id="3.x writes 2.0", marks=pytest.mark.prometheus),
]
_Content = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True, slots=True)
class Watched:
    """A fleet in which time stands still.

    Attributes:
        targets: the file that says what the Prometheus scrapes.
    """

    fleet: SimulatedFleet
    receiver: RemoteWrite
    scrape: ScrapeSource
    prometheus: RunningPrometheus
    targets: Path

    def eventually(self, condition: Callable[[Reading], bool]) -> Reading:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                reading = self.receiver.read(datetime.now(UTC))
                if condition(reading):
                    return reading
                seen = f"{reading.samples} samples, silent: {reading.silent}, warnings: {reading.warnings}"
            except Unavailable as error:
                seen = str(error)
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)

    def whole(self) -> Reading:
        return self.eventually(lambda reading: reading.samples == _everything(self.fleet))


def _everything(fleet: SimulatedFleet) -> int:
    return 25 * fleet.layout.n_gpus + len(fleet.layout.racks)


@contextmanager
def _watching(sender: Sender, receiver: RemoteWrite, url: str, *, file: Path) -> Iterator[Watched]:
    """`file`: the Prometheus finds its targets in it, which takes it five seconds."""
    fleet = SimulatedFleet(racks=2, nodes=4, gpus=8, seed=3)
    programs = require(sender.part)
    with ExitStack() as stack:
        server = stack.enter_context(FleetServer(fleet, speed=0.0))
        scrape = stack.enter_context(closing(ScrapeSource(discovery=f"{server.url}/sd")))
        file.write_text(json.dumps(_groups(fleet, server.url)), encoding="utf-8")
        which = f", protobuf_message: {sender.message}" if sender.message else ""
        prometheus = RunningPrometheus(
            programs,
            scrape_configs=f"- {{job_name: gpu, file_sd_configs: [{{files: ['{file}']}}]}}",
            remote_write=f"- {{url: '{url}'{which}, queue_config: {{batch_send_deadline: 100ms}}}}",
        )
        yield Watched(fleet, receiver, scrape, stack.enter_context(prometheus), file)


def _groups(fleet: SimulatedFleet, url: str) -> list[dict[str, object]]:
    layout, here = fleet.layout, [url.removeprefix("http://")]
    nodes: list[dict[str, object]] = [
        {
            "targets": here,
            "labels": {
                "__metrics_path__": f"/nodes/{node}/metrics",
                "instance": f"{node}:9400",
                "node": node,
                "rack": layout.rack_of(node),
            },
        }
        for node in layout.nodes
    ]
    return [*nodes, {"targets": here, "labels": {"__metrics_path__": "/racks/metrics", "instance": "rack-power"}}]


@pytest.fixture(params=_SENDERS, scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    receiver = RemoteWrite()
    file = tmp_path_factory.mktemp("targets") / "targets.json"
    with receiving(receiver) as url, _watching(request.param, receiver, url, file=file) as watching:
        yield watching


@pytest.fixture
def watched(running: Watched) -> Iterator[Watched]:
    """All is well at its start; what a test injects is over after it."""
    running.whole()
    yield running
    running.fleet.advance(_FAULT_S + 1)


def _content(reading: Reading) -> _Content:
    """What it says; `job` is the Prometheus' own name for what it was told to scrape."""
    return {
        (column.metric, tuple(sorted((name, text) for name, text in labels.items() if name != "job"))): value
        for column in reading.columns
        for labels, value in zip(reading.labels(column), column.values.tolist(), strict=True)
    }


def test_what_is_written_is_what_the_exporters_show(watched: Watched) -> None:
    shown = _content(watched.scrape.read(datetime.now(UTC)))
    written = watched.eventually(lambda reading: _content(reading) == shown)
    assert (written.silent, written.warnings) == ((), ())
    for column in written.columns:
        age_s = written.at.timestamp() - column.times
        assert (age_s >= 0).all(), column.metric
        assert (age_s < 20).all(), column.metric
    watched.fleet.advance(30)
    expected = _content(watched.scrape.read(datetime.now(UTC)))
    assert expected != _content(written)
    watched.eventually(lambda reading: _content(reading) == expected)


def _fault(fleet: SimulatedFleet, kind: FaultKind, node: str, *, gpu: int | None = None) -> Fault:
    return Fault(kind, fleet.elapsed_s, node=node, gpu=gpu, duration_s=_FAULT_S)


def test_an_exporter_that_goes_down_is_silent_and_takes_its_gpus_along(watched: Watched) -> None:
    whole = watched.whole().samples
    watched.fleet.inject(_fault(watched.fleet, FaultKind.EXPORTER_DOWN, "gpu-002"))
    shown = watched.scrape.read(datetime.now(UTC))
    assert (shown.silent, shown.samples) == (("gpu-002:9400",), whole - 200)
    reading = watched.eventually(lambda reading: _content(reading) == _content(shown))
    assert reading.silent == shown.silent


def test_a_lost_gpu_is_missing_while_its_exporter_answers(watched: Watched) -> None:
    whole = watched.whole().samples
    lost = watched.fleet.read("gpu-003").uuids[5]
    watched.fleet.inject(_fault(watched.fleet, FaultKind.GPU_LOST, "gpu-003", gpu=5))
    reading = watched.eventually(lambda reading: reading.samples == whole - 25)
    assert reading.silent == ()
    assert all(labels.get("UUID") != lost for column in reading.columns for labels in reading.labels(column))


def test_when_all_exporters_are_down_they_are_named_and_there_is_no_empty_fleet(watched: Watched) -> None:
    watched.whole()
    for node in watched.fleet.layout.nodes:
        watched.fleet.inject(_fault(watched.fleet, FaultKind.EXPORTER_DOWN, node))
    said, deadline = "", time.monotonic() + _PATIENCE_S
    while "none of 4 targets could be scraped: gpu-001:9400" not in said:
        assert time.monotonic() < deadline, said
        try:
            said = f"{watched.receiver.read(datetime.now(UTC)).samples} samples"
        except Unavailable as error:
            said = str(error)
        time.sleep(0.05)


def test_a_target_that_is_removed_from_discovery_is_neither_shown_nor_silent(watched: Watched) -> None:
    whole, groups = watched.whole().samples, watched.targets.read_text(encoding="utf-8")
    watched.targets.write_text(json.dumps(json.loads(groups)[1:]), encoding="utf-8")
    reading = watched.eventually(lambda reading: reading.samples == whole - 200)
    assert reading.silent == ()
    watched.targets.write_text(groups, encoding="utf-8")


@pytest.mark.parametrize("sender", [_SENDERS[0], _SENDERS[-1]])
def test_what_was_scraped_while_nobody_took_it_comes_later(sender: Sender, tmp_path: Path) -> None:
    receiver, bodies = RemoteWrite(), list[bytes]()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api/v1/write"
    with _watching(sender, receiver, url, file=tmp_path / "targets.json") as watched:
        watched.prometheus.wait_until(lambda: _has_retried(watched.prometheus), "it has tried in vain")
        open_since_ms = datetime.now(UTC).timestamp() * 1000
        with receiving(receiver, port=port, veto=bodies.append):
            reading = watched.whole()
            assert _content(reading) == _content(watched.scrape.read(datetime.now(UTC)))
    message = bytes(cramjam.snappy.decompress_raw(bodies[0]))
    first = slow_write_request.read(2 if sender.message else 1, message)
    assert min(stamp for one in first for _, stamp in one.samples) < open_since_ms


def _has_retried(prometheus: RunningPrometheus) -> bool:
    page = requests.get(f"{prometheus.url}/metrics", timeout=5).text
    found = re.search(r"^prometheus_remote_storage_samples_retried_total\{.*\} (\S+)$", page, re.MULTILINE)
    return found is not None and float(found[1]) > 0


@pytest.mark.parametrize("sender", [_SENDERS[0], _SENDERS[-1]])
def test_a_request_that_is_put_off_is_sent_again_as_it_was(sender: Sender, tmp_path: Path) -> None:
    receiver, put_off, came_back = RemoteWrite(), list[bytes](), set[bytes]()

    def veto(body: bytes) -> WriteAnswer | None:
        if len(put_off) < 3:
            put_off.append(body)
            return WriteAnswer(503, "later\n", {"Retry-After": "1"})
        came_back.add(body)
        return None

    with (
        receiving(receiver, veto=veto) as url,
        _watching(sender, receiver, url, file=tmp_path / "targets.json") as watched,
    ):
        watched.whole()
        watched.eventually(lambda _: came_back.issuperset(put_off))
