"""What every source of telemetry keeps to: the same fleet, read from its exporters and through a real Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest

from healer.adapters.prometheus.source import PrometheusSource
from healer.adapters.scrape.source import ScrapeSource
from healer.domain.frame import Frame
from healer.domain.reading import Reading
from healer.domain.signal import Signal
from healer.errors import Unavailable
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import SimulatedFleet
from healer.sim.server import FleetServer
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from tests.realparts.prometheus import RunningPrometheus, require

_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A fleet in which time stands still, and a source that watches it."""

    fleet: SimulatedFleet
    source: ScrapeSource | PrometheusSource

    def eventually(self, condition: Callable[[Reading], bool]) -> Reading:
        """The first reading that fulfils the condition; a Prometheus needs a scrape or two until it knows."""
        deadline = time.monotonic() + _PATIENCE_S
        reading = self.source.read(datetime.now(UTC))
        while not condition(reading):
            assert time.monotonic() < deadline, f"silent: {reading.silent}, warnings: {reading.warnings}"
            time.sleep(0.1)
            reading = self.source.read(datetime.now(UTC))
        return reading

    def whole(self) -> Reading:
        """A reading of everything: 25 metrics of every GPU, and the power of every rack."""
        self._found()
        layout = self.fleet.layout
        return self.eventually(lambda reading: reading.samples == 25 * layout.n_gpus + len(layout.racks))

    def _found(self) -> None:
        """Wait for the first GPU."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self.source.read(datetime.now(UTC))
            except Unavailable:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                return


_SOURCES = ("scrape", pytest.param("prometheus", marks=pytest.mark.prometheus))


@contextmanager
def _watching(kind: str) -> Iterator[Watched]:
    fleet = SimulatedFleet(racks=2, nodes=4, gpus=8, seed=3)
    with ExitStack() as stack:
        programs = require("prometheus") if kind == "prometheus" else None
        discovery = stack.enter_context(FleetServer(fleet, speed=0.0)).url + "/sd"
        if programs is None:
            yield Watched(fleet, stack.enter_context(closing(ScrapeSource(discovery=discovery))))
            return
        scrape = f"- {{job_name: gpu, http_sd_configs: [{{url: '{discovery}', refresh_interval: 1s}}]}}"
        prometheus = stack.enter_context(RunningPrometheus(programs, scrape_configs=scrape))
        yield Watched(fleet, stack.enter_context(closing(PrometheusSource(prometheus.url))))


@pytest.fixture(params=_SOURCES)
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    with _watching(request.param) as watching:
        yield watching


@pytest.fixture(params=_SOURCES, scope="module")
def healthy(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """Shared by tests that leave the fleet as it is: a Prometheus takes five seconds to find its targets."""
    with _watching(request.param) as watching:
        yield watching


def _frame(reading: Reading) -> Frame:
    return Window(TopologyRules()).add(reading)


def test_every_gpu_is_found_with_its_place_its_job_and_its_model(healthy: Watched) -> None:
    frame = _frame(healthy.whole())
    layout = healthy.fleet.layout
    found = {c.uuid: (c.node, c.gpu, c.rack, c.job) for c in frame.gpus.components}
    expected = {
        uuid: (node, str(gpu), layout.rack_of(node), healthy.fleet.read(node).job)
        for node in layout.nodes
        for gpu, uuid in zip(healthy.fleet.read(node).gpus, healthy.fleet.read(node).uuids, strict=True)
    }
    assert found == expected
    assert set(frame.gpus.models) == {layout.model}
    assert frame.warnings == ()


def test_the_values_are_those_of_the_exporters(healthy: Watched) -> None:
    frame = _frame(healthy.whole())
    for node in healthy.fleet.layout.nodes:
        shown = healthy.fleet.read(node)
        rows = [frame.gpus.rows[f"gpu/{uuid}"] for uuid in shown.uuids]
        np.testing.assert_allclose(frame.latest(Signal.POWER)[rows], shown.state.power_w, atol=0.0005)
        np.testing.assert_allclose(frame.latest(Signal.TENSOR_ACTIVE)[rows], shown.state.tensor_active, atol=5e-7)
        np.testing.assert_allclose(frame.latest(Signal.GPU_TEMPERATURE)[rows], shown.state.core_c, atol=0.5)


def test_measured_rack_power_is_found(healthy: Watched) -> None:
    frame = _frame(healthy.whole())
    found = dict(zip((c.rack for c in frame.racks.components), frame.racks.power_w[-1].tolist(), strict=True))
    assert found == {rack: round(watts) for rack, watts in healthy.fleet.rack_power_w().items()}


def test_every_sample_has_a_recent_time_of_its_own(healthy: Watched) -> None:
    reading = healthy.whole()
    for column in reading.columns:
        age_s = reading.at.timestamp() - column.times
        assert (age_s >= -0.001).all(), column.metric
        assert (age_s < 20).all(), column.metric


def test_an_exporter_that_goes_down_is_silent_and_takes_only_its_own_gpus_along(watched: Watched) -> None:
    window = Window(TopologyRules())
    whole = watched.whole()
    window.add(whole)
    watched.fleet.inject(Fault(FaultKind.EXPORTER_DOWN, 0, node="gpu-002"))
    # One reading is several queries: a scrape that is taken in between two of them shows in the second only.
    without = whole.samples - 25 * watched.fleet.layout.gpus_per_node
    down = ("gpu-002:9400",)
    frame = window.add(watched.eventually(lambda reading: (reading.silent, reading.samples) == (down, without)))
    unknown = {c.node for c, t in zip(frame.gpus.components, frame.latest(Signal.POWER), strict=True) if np.isnan(t)}
    assert unknown == {"gpu-002"}
    assert len(frame.gpus) == watched.fleet.layout.n_gpus


def test_a_lost_gpu_is_missing_while_its_exporter_answers(watched: Watched) -> None:
    watched.whole()
    lost = watched.fleet.read("gpu-003").uuids[5]
    watched.fleet.inject(Fault(FaultKind.GPU_LOST, 0, node="gpu-003", gpu=5))
    reading = watched.eventually(lambda reading: reading.samples == 25 * 31 + 2)
    assert reading.silent == ()
    assert all(labels.get("UUID") != lost for column in reading.columns for labels in reading.labels(column))


def test_when_all_exporters_are_down_there_is_an_error_and_no_empty_fleet(watched: Watched) -> None:
    watched.whole()
    for node in watched.fleet.layout.nodes:
        watched.fleet.inject(Fault(FaultKind.EXPORTER_DOWN, 0, node=node))
    with pytest.raises(Unavailable, match="gpu-001:9400"):
        watched.eventually(lambda _: False)


def test_a_source_whose_address_nobody_answers_is_unavailable() -> None:
    for source in (ScrapeSource(discovery="http://127.0.0.1:1/sd"), PrometheusSource("http://127.0.0.1:1")):
        with closing(source), pytest.raises(Unavailable, match="Connection refused"):
            source.read(datetime.now(UTC))
