"""Nodes, fabric ports and power feeds around the GPUs, as other exporters and the scheduler tell of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from healer.domain.fleet import Fleet, Node
from healer.domain.frame import Frame
from healer.domain.reading import Labels
from healer.domain.signal import NodeSignal, PortSignal
from healer.telemetry.catalogue.site import SITE_SPELLINGS
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules, feed_of, host_of
from healer.telemetry.wire.series import LabelSets
from tests.readings import reading_of

START = datetime(2026, 3, 1, tzinfo=UTC)
TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"


class Watch:
    def __init__(self, *nodes: str) -> None:
        self.nodes = nodes or ("gpu-1", "gpu-2")
        self.window = Window(TopologyRules())
        self.sets = LabelSets()
        self.at = START

    def see(
        self,
        columns: Mapping[str, Sequence[tuple[Labels, float]]],
        *,
        fleet: Fleet | None = None,
        age_s: float = 0.0,
        down: tuple[Labels, ...] = (),
    ) -> Frame:
        self.at += timedelta(seconds=30)
        time = self.at.timestamp()
        gpus = [({"UUID": f"GPU-{node}", "gpu": "0", "node": node, "rack": "r1"}, 50.0, time) for node in self.nodes]
        told = {metric: [(who, value, time - age_s) for who, value in series] for metric, series in columns.items()}
        reading = reading_of(self.at, {TEMPERATURE: gpus, **told}, label_sets=self.sets)
        return self.window.add(type(reading)(reading.at, reading.columns, reading.label_sets, down=down), fleet=fleet)


def ready(node: str, value: float, *, condition: str = "Ready", status: str = "true") -> tuple[Labels, float]:
    return {"node": node, "condition": condition, "status": status, "instance": "ksm:8080"}, value


def test_the_scheduler_s_word_on_each_node_is_read_from_kube_state_metrics() -> None:
    conditions = [ready("gpu-1", 1.0), ready("gpu-2", 0.0), ready("gpu-1", 1.0, condition="DiskPressure")]
    cordons: list[tuple[Labels, float]] = [({"node": "gpu-2", "instance": "ksm:8080"}, 1.0)]
    frame = Watch().see({"kube_node_status_condition": conditions, "kube_node_spec_unschedulable": cordons})
    assert frame.nodes.signals.latest(NodeSignal.READY).tolist() == [1, 0]
    np.testing.assert_array_equal(frame.nodes.signals.latest(NodeSignal.CORDONED), [np.nan, 1])


def test_a_query_for_just_the_series_that_count_is_the_same_column() -> None:
    spelling = SITE_SPELLINGS["kube_node_status_condition"]
    assert spelling.query == 'kube_node_status_condition{condition="Ready",status="true"}'
    frame = Watch().see({spelling.query: [ready("gpu-1", 1.0)]})
    np.testing.assert_array_equal(frame.nodes.signals.latest(NodeSignal.READY), [1, np.nan])


def test_the_scheduler_itself_is_another_witness() -> None:
    nodes = {"gpu-1": Node("gpu-1", ready=False, cordoned=True), "other": Node("other", ready=True, cordoned=False)}
    frame = Watch().see({}, fleet=Fleet(START, nodes))
    np.testing.assert_array_equal(frame.nodes.signals.latest(NodeSignal.READY), [0, np.nan])
    np.testing.assert_array_equal(frame.nodes.signals.latest(NodeSignal.CORDONED), [1, np.nan])


def test_a_scheduler_that_cannot_be_asked_says_nothing() -> None:
    frame = Watch().see({}, fleet=Fleet(START, problem="it does not answer"))
    assert np.isnan(frame.nodes.signals.latest(NodeSignal.READY)).all()


@pytest.mark.parametrize("instance", ["gpu-1:9100", "gpu-1.example.com:9100", "GPU-1:9100"])
def test_an_exporter_is_its_node_s_by_its_address(instance: str) -> None:
    air: list[tuple[Labels, float]] = [({"instance": instance, "name": "Inlet Temp"}, 24.0)]
    frame = Watch().see({"ipmi_temperature_celsius": air})
    np.testing.assert_array_equal(frame.nodes.signals.latest(NodeSignal.INLET_TEMPERATURE), [24, np.nan])


def test_other_sensors_are_not_the_air_that_goes_in() -> None:
    air: list[tuple[Labels, float]] = [({"instance": "gpu-1:9290", "name": "CPU1 Temp"}, 71.0)]
    frame = Watch().see({"ipmi_temperature_celsius": air})
    assert (
        NodeSignal.INLET_TEMPERATURE not in frame.nodes.signals
        or np.isnan(frame.nodes.signals.latest(NodeSignal.INLET_TEMPERATURE)).all()
    )


def port(node: str, device: str, value: float) -> tuple[Labels, float]:
    return {"instance": f"{node}:9100", "device": device, "port": "1"}, value


def test_fabric_ports_are_found_with_their_node_and_rack() -> None:
    states = [port("gpu-2", "mlx5_0", 4.0), port("gpu-2", "mlx5_1", 1.0), port("stranger", "mlx5_0", 4.0)]
    frame = Watch().see({"node_infiniband_state_id": states})
    named = [(c.node, c.rack, c.link) for c in frame.ports.components]
    assert named == [("gpu-2", "r1", "mlx5_0/1"), ("gpu-2", "r1", "mlx5_1/1"), ("stranger", None, "mlx5_0/1")]
    assert frame.ports.of_node.tolist() == [1, 1, -1]
    assert frame.ports.signals.latest(PortSignal.ACTIVE).tolist() == [1, 0, 1]


def test_interfaces_of_containers_are_no_ports() -> None:
    up: list[tuple[Labels, float]] = [
        ({"instance": "gpu-1:9100", "device": device}, 1.0) for device in ("eth0", "veth12ab", "lo", "docker0")
    ]
    frame = Watch().see({"node_network_up": up})
    assert [component.link for component in frame.ports.components] == ["eth0"]


def test_counters_of_ports_grow_and_are_remembered() -> None:
    watch = Watch()
    counts = [float(turn // 20) for turn in range(60)]
    frames = [watch.see({"node_infiniband_link_downed_total": [port("gpu-1", "mlx5_0", count)]}) for count in counts]
    frame = frames[-1]
    assert frame.ports.signals.growth(PortSignal.LINK_DOWNED, timedelta(minutes=10))[0] == 1
    assert frame.ports.past.growth(PortSignal.LINK_DOWNED)[0] == 1


def test_what_is_too_old_is_unknown() -> None:
    frame = Watch().see({"node_infiniband_state_id": [port("gpu-1", "mlx5_0", 4.0)]}, age_s=91.0)
    assert np.isnan(frame.ports.signals.latest(PortSignal.ACTIVE)).all()


def test_a_node_none_of_whose_exporters_answers_is_told_apart() -> None:
    frame = Watch().see({}, down=({"job": "node", "instance": "gpu-2.example.com:9100"},))
    assert frame.nodes.unanswered.tolist() == [False, True]


@pytest.mark.parametrize(
    ("labels", "host"),
    [
        ({"instance": "gpu-1:9100"}, "gpu-1"),
        ({"instance": "[fe80::1]:9100"}, "fe80::1"),
        ({"instance": "gpu-1"}, "gpu-1"),
        ({"instance": "10.0.0.1:9100", "node": "gpu-7"}, "gpu-7"),
        ({"instance": "10.0.0.1:9100", "nodename": "gpu-8"}, "gpu-8"),
        ({}, None),
    ],
)
def test_the_host_of_an_exporter(labels: Labels, host: str | None) -> None:
    assert host_of(labels, TopologyRules()) == host


@pytest.mark.parametrize("label", ["power_feed", "feed", "psu", "pdu"])
def test_a_meter_may_tell_of_each_feed_by_itself(label: str) -> None:
    meters: list[tuple[Labels, float]] = [({"rack": "r1", label: feed}, 12_000.0) for feed in ("A", "B")]
    frame = Watch().see({"rack_power_watts": meters})
    assert frame.racks.power_w.tolist() == [[24_000]]
    assert [(f.rack, f.link) for f in frame.racks.feeds] == [("r1", "r1/A"), ("r1", "r1/B")]
    assert frame.racks.feed_w.tolist() == [[12_000, 12_000]]
    assert feed_of({label: "A"}, TopologyRules()) == "A"


def test_a_feed_that_is_no_longer_measured_is_unknown_and_not_forgotten() -> None:
    watch = Watch()
    watch.see({"rack_power_watts": [({"rack": "r1", "feed": feed}, 12_000.0) for feed in ("A", "B")]})
    frame = watch.see({"rack_power_watts": [({"rack": "r1", "feed": "A"}, 24_000.0)]})
    np.testing.assert_array_equal(frame.racks.feed_w, [[12_000, 12_000], [24_000, np.nan]])


def _feeds(rack: str, *feeds: str) -> dict[str, list[tuple[Labels, float]]]:
    return {"rack_power_watts": [({"rack": rack, "feed": feed}, 12_000.0) for feed in feeds]}


def test_a_rack_that_is_still_there_keeps_its_feeds_however_long_nobody_measures_them() -> None:
    watch = Watch()
    watch.see(_feeds("r1", "A", "B"))
    frame = [watch.see({}) for _ in range(60)][-1]
    assert [feed.link for feed in frame.racks.feeds] == ["r1/A", "r1/B"]
    assert np.isnan(frame.racks.feed_w).all()


def test_a_rack_that_nobody_names_any_more_takes_its_feeds_along() -> None:
    watch = Watch()
    watch.see(_feeds("r2", "A", "B"))
    frames = [watch.see(_feeds("r1", "A")) for _ in range(21)]
    assert [feed.link for feed in frames[-2].racks.feeds] == ["r2/A", "r2/B", "r1/A"]
    assert [feed.link for feed in frames[-1].racks.feeds] == ["r1/A"]
    assert {str(feed.rack) for feed in frames[-1].racks.feeds} <= {rack.rack for rack in frames[-1].racks.components}
    frame = watch.see(_feeds("r2", "C"))
    assert [feed.link for feed in frame.racks.feeds] == ["r1/A", "r2/C"], "another rack of that name has its own"


def test_the_meter_of_the_whole_rack_stands_before_the_sum_of_its_feeds() -> None:
    meters: list[tuple[Labels, float]] = [({"rack": "r1"}, 25_000.0), ({"rack": "r1", "feed": "A"}, 12_000.0)]
    assert Watch().see({"rack_power_watts": meters}).racks.power_w.tolist() == [[25_000]]
