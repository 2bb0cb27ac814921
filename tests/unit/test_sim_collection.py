"""What a Prometheus has of a simulated fleet: scrapes, ages, labels that change, what goes missing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest

from healer.domain.reading import Column, Reading
from healer.sim.exporters.collection import Collection
from healer.sim.exporters.fields import FieldSet, Names, gpu_metrics, shows
from healer.sim.exporters.style import Fabric, JobLabels, Style, drawn_style
from healer.sim.knobs import Effect, Knob
from healer.sim.layout import build_layout
from healer.sim.marks import NewPods, Reload, Shown, Swap, Xid
from healer.sim.rhythm import Rhythm
from healer.sim.strikes.blow import Hidden
from healer.sim.world import PLAIN_HALL, Mark, World
from healer.telemetry.catalogue.signals import SPELLINGS
from healer.telemetry.catalogue.site import READ_METRICS

START_S = 1_772_409_600.0
STEP_S = 5.0
ALL = frozenset((*READ_METRICS, "rack_power_watts", "up", "DCGM_EXP_XID_ERRORS_COUNT"))
FULL = Style(fields=FieldSet.EVERYTHING, feeds=True)


@dataclass
class Scraped:
    world: World
    collection: Collection
    rhythm: Rhythm

    def read(self, *, lookback_s: float = 90.0, markers: bool = False) -> Reading:
        at = datetime.fromtimestamp(START_S + self.world.now_s, UTC)
        return self.collection.reading(at, lookback_s=lookback_s, markers=markers, wanted=ALL)

    def live(self, seconds: float) -> Scraped:
        for _ in range(round(seconds / STEP_S)):
            self.collection.scrape()
            self.world.step(STEP_S)
        return self


def site(
    style: Style = FULL,
    *effects: Effect,
    marks: tuple[Mark, ...] = (),
    hidden: tuple[Hidden, ...] = (),
    upgrades: bool = False,
) -> Scraped:
    layout = build_layout(racks=2, nodes=4, gpus=8, seed=3)
    rng = np.random.default_rng(3)
    rhythm = Rhythm(layout, rng)
    world = World(layout, rhythm, hall=PLAIN_HALL, rng=rng)
    world.add(effects, marks)
    collection = Collection(
        world,
        style,
        start_s=START_S,
        step_s=STEP_S,
        hidden=hidden,
        pods=lambda gpu: f"pod-{world.pod_generation[gpu]}",
        upgrades=upgrades,
        rng=np.random.default_rng(4),
    )
    return Scraped(world, collection, rhythm)


def column(reading: Reading, metric: str) -> Column | None:
    return next((each for each in reading.columns if each.metric == metric), None)


def values(reading: Reading, metric: str, *names: str) -> dict[tuple[str, ...], float]:
    found = column(reading, metric)
    if found is None:
        return {}
    rows = zip(reading.labels(found), found.values.tolist(), strict=True)
    return {tuple(labels.get(name, "") for name in names): value for labels, value in rows}


def where(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers)


def test_every_target_is_scraped_once_an_interval_at_a_time_of_its_own() -> None:
    reading = site().live(60).read()
    found = column(reading, "up")
    assert found is not None
    assert len(found.values) == 4 * 3 + 2 + 1
    ages = reading.at.timestamp() - found.times
    assert np.all((ages >= 0) & (ages < 15))
    assert len(set(ages.round(3).tolist())) > 10, "staggered"
    assert np.all(found.values == 1)
    gpu = column(reading, "DCGM_FI_DEV_GPU_TEMP")
    assert gpu is not None
    assert len(set(gpu.times.tolist())) == 4, "what is on one page has one time"
    assert (reading.silent, reading.down) == ((), ())


def test_a_sample_shows_the_world_as_it_was_when_it_was_taken() -> None:
    scraped = site()
    history: list[tuple[float, float]] = []
    for _ in range(40):
        history.append((START_S + scraped.world.now_s, float(scraped.world.gpus.energy_mj[0])))
        scraped.live(STEP_S)
        found = column(scraped.read(), "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION")
        if found is None:
            continue
        taken, value = found.times[0], found.values[0]
        earlier = [energy for at, energy in history if at <= taken]
        assert value in earlier, "never of the future"
        assert value in earlier[-2:], "and never older than a step and a look"


def test_the_label_sets_are_one_object_that_only_grows() -> None:
    scraped = site(marks=(NewPods(30.0, where(0)),)).live(30)
    first = scraped.read()
    before = list(first.label_sets)
    second = scraped.live(60).read()
    assert second.label_sets is first.label_sets
    assert list(second.label_sets)[: len(before)] == before
    assert len(second.label_sets) > len(before)


def test_everything_that_is_exported_is_a_name_that_healer_knows_in_a_unit_that_it_expects() -> None:
    for fields, names in itertools.product(FieldSet, Names):
        metrics = gpu_metrics(fields, names)
        assert len({metric.name for metric in metrics}) == len(metrics)
        assert [metric.name for metric in metrics if metric.name not in SPELLINGS] == []


@pytest.mark.parametrize(
    ("row", "names", "name", "value"),
    [
        ("sm_clock_mhz", Names.CLASSIC, "DCGM_FI_DEV_SM_CLOCK", 1980.0),
        ("sm_clock_mhz", Names.DCGM_47, "DCGM_FI_DEV_SM_CLOCK_HERTZ", 1.98e9),
        ("fb_used_mib", Names.DCGM_47, "DCGM_FI_DEV_FB_USED_BYTES", 70_000 * 2.0**20),
        ("util_percent", Names.DCGM_47, "DCGM_FI_DEV_GPU_UTIL_RATIO", 0.97),
        ("util_percent", Names.DCGM_46, "DCGM_FI_DEV_GPU_UTIL", 97.0),
        ("core_c", Names.DCGM_46, "DCGM_FI_DEV_GPU_TEMP_CELSIUS", 60.0),
    ],
)
def test_a_release_has_its_own_names_and_units(row: str, names: Names, name: str, value: float) -> None:
    scraped = site(Style(fields=FieldSet.EVERYTHING, names=names)).live(60)
    metric = next(each for each in gpu_metrics(FieldSet.EVERYTHING, names) if each.row == row)
    assert metric.name == name
    found = column(scraped.read(), name)
    assert found is not None
    assert np.median(found.values) == pytest.approx(value, rel=0.3)


def test_sites_that_export_less_lack_what_they_lack() -> None:
    assert shows(FieldSet.DEFAULT, "dbe_volatile")
    assert not shows(FieldSet.DEFAULT, "clock_reasons")
    assert not shows(FieldSet.NO_PROFILING, "tensor_active")
    assert shows(FieldSet.NO_PROFILING, "clock_reasons")
    assert not any("_PROF_" in metric.name for metric in gpu_metrics(FieldSet.NO_PROFILING, Names.CLASSIC))


def test_a_target_that_does_not_answer_is_told_apart_by_whose_it_is() -> None:
    down = site(
        FULL,
        Effect(Knob.EXPORTER_DOWN, where(1), 1.0, 60.0),
        Effect(Knob.HOST_EXPORTER_DOWN, where(2), 1.0, 60.0),
        Effect(Knob.METER_DOWN, where(1), 1.0, 60.0),
    ).live(120)
    reading = down.read()
    assert reading.silent == ("gpu-002:9400",)
    assert {labels["instance"] for labels in reading.down} == {"gpu-003:9100", "pdu-rack-2:9116"}
    assert values(reading, "up", "instance")["gpu-002:9400",] == 0


@pytest.mark.parametrize(("markers", "gpus"), [(True, 24), (False, 32)])
def test_what_is_gone_ends_with_a_marker_or_grows_old(*, markers: bool, gpus: int) -> None:
    scraped = site(FULL, Effect(Knob.EXPORTER_DOWN, where(1), 1.0, 60.0)).live(90)
    found = column(scraped.read(markers=markers), "DCGM_FI_DEV_GPU_TEMP")
    assert found is not None
    assert len(found.values) == gpus
    later = column(scraped.live(90).read(markers=markers), "DCGM_FI_DEV_GPU_TEMP")
    assert later is not None
    assert len(later.values) == 24, "after the lookback there is nothing left of it"


def test_a_lost_gpu_leaves_seven_series_and_an_answering_exporter() -> None:
    scraped = site(FULL, Effect(Knob.LOST, where(11), 1.0, 60.0)).live(180)
    reading = scraped.read()
    assert (reading.silent, reading.down) == ((), ())
    found = values(reading, "DCGM_FI_DEV_GPU_TEMP", "Hostname", "hostname", "gpu")
    assert len(found) == 31
    assert ("", "gpu-002", "3") not in found


def test_an_empty_page_is_an_answer() -> None:
    reading = site(FULL, Effect(Knob.EXPORTER_EMPTY, where(0), 1.0, 0.0)).live(150).read()
    assert reading.silent == ()
    assert len(values(reading, "DCGM_FI_DEV_GPU_TEMP", "UUID")) == 24


def test_a_frozen_exporter_has_fresh_times_and_old_values() -> None:
    scraped = site(FULL, Effect(Knob.EXPORTER_FROZEN, where(0), 1.0, 60.0)).live(90)
    first = values(scraped.read(), "DCGM_FI_DEV_POWER_USAGE", "UUID")
    reading = scraped.live(60).read()
    second = values(reading, "DCGM_FI_DEV_POWER_USAGE", "UUID")
    frozen = [key for key in first if first[key] == second[key]]
    assert sorted(key[0] for key in frozen) == sorted(scraped.world.uuids[:8])
    found = column(reading, "DCGM_FI_DEV_POWER_USAGE")
    assert found is not None
    assert np.all(reading.at.timestamp() - found.times < 15)


def test_a_slow_exporter_answers_now_and_then() -> None:
    scraped = site(FULL, Effect(Knob.EXPORTER_SLOW, where(0), 0.8, 0.0))
    answered = [values(scraped.live(15).read(), "up", "instance")["gpu-001:9400",] for _ in range(60)]
    assert 0.05 < np.mean(answered) < 0.45


def test_an_exporter_that_looks_less_often_than_it_is_scraped_repeats_itself() -> None:
    scraped = site(Style(fields=FieldSet.EVERYTHING, collect_s=30))
    key = (scraped.world.uuids[0],)
    seen = [values(scraped.live(15).read(), "DCGM_FI_DEV_POWER_USAGE", "UUID")[key] for _ in range(40)]
    repeats = sum(one == other for one, other in itertools.pairwise(seen))
    assert 12 < repeats < 28


def test_when_nothing_is_scraped_what_there_is_grows_old() -> None:
    scraped = site(FULL, Effect(Knob.SOURCE_DOWN, where(0), 1.0, 60.0, 300.0)).live(120)
    assert len(values(scraped.read(markers=True), "DCGM_FI_DEV_GPU_TEMP", "UUID")) == 32
    scraped.live(60)
    assert scraped.read().columns == ()
    assert len(values(scraped.live(150).read(), "DCGM_FI_DEV_GPU_TEMP", "UUID")) == 32


def test_a_node_that_is_taken_out_of_discovery_is_nobody_s_silence() -> None:
    scraped = site(FULL, Effect(Knob.GONE, where(3), 1.0, 60.0)).live(240)
    reading = scraped.read()
    assert (reading.silent, reading.down) == ((), ())
    assert ("gpu-004:9400",) not in values(reading, "up", "instance")
    assert ("gpu-004",) not in values(reading, "kube_node_spec_unschedulable", "node")
    assert len(values(reading, "kube_node_spec_unschedulable", "node")) == 3


def test_another_pod_is_another_series_of_the_same_gpu() -> None:
    scraped = site(marks=(NewPods(60.0, where(0)),)).live(90)
    uuid = scraped.world.uuids[0]
    pods = {
        key: value
        for key, value in values(scraped.read(), "DCGM_FI_DEV_GPU_TEMP", "UUID", "pod").items()
        if key[0] == uuid
    }
    assert set(pods) == {(uuid, "pod-0"), (uuid, "pod-1")}
    live = values(scraped.read(markers=True), "DCGM_FI_DEV_GPU_TEMP", "UUID", "pod")
    assert (uuid, "pod-1") in live
    assert (uuid, "pod-0") not in live
    later = values(scraped.live(120).read(), "DCGM_FI_DEV_GPU_TEMP", "UUID", "pod")
    assert (uuid, "pod-0") not in later


def test_a_series_that_comes_back_while_its_old_end_lingers_is_one() -> None:
    scraped = site()
    scraped.live(60)
    scraped.rhythm.place(0, None)
    scraped.live(30)
    scraped.rhythm.place(0, "train-1")
    reading = scraped.live(30).read()
    for each in reading.columns:
        labels = [tuple(sorted(one.items())) for one in reading.labels(each)]
        assert len(set(labels)) == len(labels), each.metric


@pytest.mark.parametrize(
    ("style", "names"),
    [
        (Style(job_labels=JobLabels.HPC_JOB), {"hpc_job"}),
        (Style(job_labels=JobLabels.HPC_JOB_AND_POD), {"hpc_job", "pod", "namespace", "container"}),
        (Style(job_labels=JobLabels.POD, exported=True), {"job_name", "exported_pod", "exported_namespace"}),
        (Style(host_label="Hostname"), {"Hostname"}),
        (Style(node_label=True), {"node", "rack", "instance"}),
    ],
)
def test_styles_label_as_they_label(style: Style, names: set[str]) -> None:
    reading = site(style).live(60).read()
    found = column(reading, "DCGM_FI_DEV_GPU_TEMP")
    assert found is not None
    assert all(names <= set(labels) for labels in reading.labels(found))
    assert all(labels["job"] == "dcgm" and "rack" in labels for labels in reading.labels(found))


def test_the_last_xid_stays_and_may_carry_its_text() -> None:
    mark = Xid(60.0, where(5), 79)
    plain = values(site(FULL, marks=(mark,)).live(120).read(), "DCGM_FI_DEV_XID_ERRORS", "gpu", "hostname")
    assert plain["5", "gpu-001"] == 79
    told = site(Style(fields=FieldSet.EVERYTHING, xid_labels=True), marks=(mark,)).live(240).read()
    texts = values(told, "DCGM_FI_DEV_XID_ERRORS", "gpu", "hostname", "err_code", "err_msg")
    assert texts["5", "gpu-001", "79", "GPU has fallen off the bus"] == 79
    assert len(texts) == 32


def test_xids_are_counted_within_a_window_and_the_count_falls_again() -> None:
    marks = tuple(Xid(60.0 + 20 * n, where(5), 31) for n in range(3))
    scraped = site(Style(fields=FieldSet.EVERYTHING, xid_counts=True), marks=marks).live(150)
    key = ("5", "31")
    assert values(scraped.read(), "DCGM_EXP_XID_ERRORS_COUNT", "gpu", "xid") == {key: 3.0}
    assert values(scraped.live(400).read(), "DCGM_EXP_XID_ERRORS_COUNT", "gpu", "xid") == {key: 0.0}


def test_a_swapped_gpu_has_another_uuid_and_no_past() -> None:
    marks = (
        Shown(0.0, where(2), by={"dbe_aggregate": 3.0, "sbe_aggregate": 50.0}),
        Swap(60.0, where(2), ("GPU-00000000-0000-4000-8000-000000000000",)),
    )
    scraped = site(marks=marks)
    old = scraped.world.uuids[2]
    reading = scraped.live(240).read()
    counts = values(reading, "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "UUID")
    assert (old,) not in counts
    assert counts["GPU-00000000-0000-4000-8000-000000000000",] == 0


def test_a_reloaded_driver_counts_anew_and_is_another_version() -> None:
    gpus = where(*range(8))
    marks = (Xid(30.0, gpus, 43), Shown(30.0, gpus, by={"pcie_replays": 9.0}), Reload(60.0, gpus, "580.82.07"))
    reading = site(marks=marks).live(240).read()
    assert values(reading, "DCGM_FI_DEV_XID_ERRORS", "gpu", "hostname")["0", "gpu-001"] == 0
    assert values(reading, "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "gpu", "hostname")["0", "gpu-001"] < 3
    versions = {
        labels["DCGM_FI_DRIVER_VERSION"] for labels in reading.label_sets if labels.get("hostname") == "gpu-001"
    }
    assert versions == {"570.172.08", "580.82.07"}


def test_an_upgraded_exporter_has_other_names_for_the_same_gpus() -> None:
    style = Style(fields=FieldSet.EVERYTHING, host_label="Hostname")
    effects = [Effect(Knob.EXPORTER_VERSION, where(node), 1.0, 60.0 + 30 * node) for node in range(2)]
    scraped = site(style, *effects, upgrades=True).live(240)
    reading = scraped.read(markers=True)
    old = values(reading, "DCGM_FI_DEV_GPU_TEMP", "UUID")
    new = values(reading, "DCGM_FI_DEV_GPU_TEMP_CELSIUS", "UUID")
    assert {key[0] for key in new} == set(scraped.world.uuids[:16])
    assert {key[0] for key in old} == set(scraped.world.uuids[16:])


def test_a_name_that_outlives_an_upgrade_is_one_series() -> None:
    style = Style(fields=FieldSet.EVERYTHING, names=Names.DCGM_46)
    scraped = site(style, Effect(Knob.EXPORTER_VERSION, where(0, 1, 2, 3), 1.0, 60.0), upgrades=True).live(105)
    found = column(scraped.read(), "DCGM_FI_DEV_GPU_TEMP_CELSIUS")
    assert found is not None
    assert len(found.values) == 32
    assert np.all(START_S + scraped.world.now_s - found.times < 15)


def test_hidden_fields_are_left_out_or_blank_and_come_back() -> None:
    hidden = (
        Hidden(frozenset({"core_c"}), frozenset({0}), 60.0, 300.0),
        Hidden(frozenset({"power_w"}), frozenset({1}), 60.0, 300.0, 140737488355328.0),
    )
    scraped = site(hidden=hidden).live(240)
    reading = scraped.read()
    assert len(values(reading, "DCGM_FI_DEV_GPU_TEMP", "UUID")) == 31
    assert values(reading, "DCGM_FI_DEV_POWER_USAGE", "UUID")[scraped.world.uuids[1],] == 140737488355328.0
    after = scraped.live(120).read()
    assert len(values(after, "DCGM_FI_DEV_GPU_TEMP", "UUID")) == 32
    assert max(values(after, "DCGM_FI_DEV_POWER_USAGE", "UUID").values()) < 750


def test_a_field_that_goes_missing_lingers_for_the_lookback() -> None:
    hidden = (Hidden(frozenset({"core_c"}), frozenset({0}), 60.0, 900.0),)
    scraped = site(hidden=hidden).live(90)
    assert len(values(scraped.read(), "DCGM_FI_DEV_GPU_TEMP", "UUID")) == 32
    assert len(values(scraped.read(markers=True), "DCGM_FI_DEV_GPU_TEMP", "UUID")) == 31


def test_ports_are_infiniband_s_or_ethernet_s() -> None:
    infiniband = site(FULL).live(60).read()
    assert len(values(infiniband, "node_infiniband_state_id", "instance", "device")) == 32
    assert set(values(infiniband, "node_network_up", "device")) == {("eth0",)}
    roce = site(Style(fabric=Fabric.ROCE), Effect(Knob.PORT_DOWN, where(0), 1.0, 30.0)).live(120).read()
    up = values(roce, "node_network_up", "instance", "device")
    assert len(up) == 36
    assert sorted(up.values()) == [0.0, *[1.0] * 35]
    assert max(values(roce, "node_network_carrier_changes_total", "instance", "device").values()) == 1


def test_hosts_may_be_known_by_longer_names_than_their_gpus() -> None:
    reading = site(Style(domain=".hpc.example.com", node_label=False)).live(60).read()
    assert ("gpu-001",) in values(reading, "DCGM_FI_DEV_GPU_TEMP", "hostname")
    assert ("gpu-001.hpc.example.com:9100",) in values(reading, "node_network_up", "instance")
    assert ("gpu-001.hpc.example.com",) in values(reading, "kube_node_status_condition", "node")


def test_styles_are_drawn_of_every_kind() -> None:
    drawn = [drawn_style(np.random.default_rng(seed)) for seed in range(80)]
    for attribute, kinds in (
        ("fields", 3),
        ("names", 3),
        ("job_labels", 3),
        ("scrape_s", 2),
        ("feeds", 2),
        ("fabric", 2),
    ):
        assert len({getattr(style, attribute) for style in drawn}) == kinds, attribute
