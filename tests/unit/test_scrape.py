"""Exporters become readings as Prometheus would have stored them: who is silent, what has ended, and what is gone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from healer.adapters.scrape.source import ScrapeSource
from healer.domain.reading import Reading
from healer.errors import Unavailable
from tests.canned_http import Asked, Canned, CannedServer, canned_server

AT = datetime(2026, 3, 1, tzinfo=UTC)
STEP = timedelta(seconds=30)
DISCOVERY_COUNTS_FOR = timedelta(minutes=2)
GPU_LINE = b'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1",Hostname="n1"} 40\n'


@pytest.fixture
def web() -> Iterator[CannedServer]:
    with canned_server() as server:
        yield server


def temperatures(reading: Reading) -> dict[str, float]:
    """By target."""
    return {
        labels["instance"]: value
        for column in reading.columns
        if column.metric == "DCGM_FI_DEV_GPU_TEMP"
        for labels, value in zip(reading.labels(column), column.values.tolist(), strict=True)
    }


class Exporters:
    """Several exporters behind one address, found by a service discovery; what each shows may be changed."""

    def __init__(self, web: CannedServer, pages: Mapping[str, Canned]) -> None:
        self.pages = dict(pages)
        self.discovery = f"{web.url}/sd"
        self._address = web.url.removeprefix("http://")
        web.respond = self._respond

    def _respond(self, asked: Asked) -> Canned:
        if asked.path != "/sd":
            return self.pages[asked.path[1:]]
        labels = [{"instance": name, "__metrics_path__": f"/{name}"} for name in self.pages]
        return Canned(json.dumps([{"targets": [self._address], "labels": each} for each in labels]).encode())


def _discovering(groups: object, page: Callable[[Asked], Canned]) -> Callable[[Asked], Canned]:
    return lambda asked: Canned(json.dumps(groups).encode()) if asked.path == "/sd" else page(asked)


def test_discovered_labels_path_and_parameters_are_honoured(web: CannedServer) -> None:
    address = web.url.removeprefix("http://")
    labels = {"__metrics_path__": "/gpu", "__param_kind": "a b", "__scheme__": "http", "rack": "r1", "empty": ""}
    web.respond = _discovering([{"targets": [address], "labels": labels}], lambda _: Canned(GPU_LINE))
    with closing(ScrapeSource(discovery=f"{web.url}/sd")) as source:
        reading = source.read(AT)
    expected = {"gpu": "0", "UUID": "GPU-1", "Hostname": "n1", "instance": address, "rack": "r1"}
    assert reading.labels(reading.columns[0]) == [expected]
    assert [(asked.path, asked.query) for asked in web.asked] == [("/sd", {}), ("/gpu", {"kind": "a b"})]


def test_only_labels_that_matter_are_kept(web: CannedServer) -> None:
    web.respond = lambda _: Canned(GPU_LINE)
    with closing(ScrapeSource([web.url], kept=frozenset({"UUID"}))) as source:
        reading = source.read(AT)
    assert reading.labels(reading.columns[0]) == [{"UUID": "GPU-1"}]


_UNUSABLE = [
    pytest.param(Canned(GPU_LINE * 300_000), "more than 16 MiB", id="a flood"),
    pytest.param(
        Canned(b"".join(b'a{b="%d"} 1\n' % number for number in range(1_000_000))),
        "more than 200000 lines",
        id="a million series",
    ),
    pytest.param(Canned(b"<html>log in</html>"), "something else than metrics: '<html>log in", id="a web page"),
    pytest.param(Canned(b""), "an empty page; it may be starting", id="empty"),
    pytest.param(Canned(b"# HELP a b\n"), "an empty page", id="only comments"),
    pytest.param(Canned(b"\xff\xfe\x00\x00"), "something else than metrics", id="binary"),
    pytest.param(Canned(b"oops", status=500), "status 500", id="500"),
    pytest.param(Canned(GPU_LINE, declared_length=10_000), "broke off its answer", id="half a page"),
    pytest.param(Canned(status=302, headers={"Location": "http://u:p@x/y?token=1"}), "to http://x/y;", id="redirect"),
    pytest.param(Canned(b"x 1\n" * 50, drips=True), "no whole answer within 0.5 s", id="drips"),
    pytest.param(Canned(stalls=True), "no whole answer within 0.5 s", id="hangs"),
]


@pytest.mark.parametrize(("answer", "text"), _UNUSABLE)
def test_a_target_without_a_usable_page_is_silent_and_its_series_end_at_once(
    web: CannedServer, answer: Canned, text: str
) -> None:
    exporters = Exporters(web, {"bad": Canned(GPU_LINE), "good": Canned(GPU_LINE)})
    with closing(ScrapeSource(discovery=exporters.discovery, timeout_s=0.5)) as source:
        assert temperatures(source.read(AT)) == {"bad": 40, "good": 40}
        exporters.pages["bad"] = answer
        reading = source.read(AT + STEP)
        assert reading.silent == ("bad",)
        assert temperatures(reading) == {"good": 40}
        assert len(reading.warnings) == 1
        assert text in reading.warnings[0]
        assert "exporter bad" in reading.warnings[0]
        exporters.pages["bad"] = Canned(GPU_LINE)
        reading = source.read(AT + 2 * STEP)
        assert (reading.silent, reading.warnings) == ((), ())
        assert temperatures(reading) == {"bad": 40, "good": 40}


def test_a_target_that_leaves_the_discovery_takes_its_series_along_and_is_not_silent(web: CannedServer) -> None:
    exporters = Exporters(web, {"a": Canned(GPU_LINE), "b": Canned(GPU_LINE)})
    with closing(ScrapeSource(discovery=exporters.discovery)) as source:
        assert set(temperatures(source.read(AT))) == {"a", "b"}
        del exporters.pages["a"]
        before = len(web.asked)
        reading = source.read(AT + DISCOVERY_COUNTS_FOR)
    assert temperatures(reading) == {"b": 40}
    assert (reading.silent, reading.warnings) == ((), ())
    assert [asked.path for asked in web.asked[before:]] == ["/sd", "/b"]


def test_a_silent_target_that_leaves_the_discovery_is_silent_no_more(web: CannedServer) -> None:
    exporters = Exporters(web, {"a": Canned(status=500), "b": Canned(GPU_LINE)})
    with closing(ScrapeSource(discovery=exporters.discovery)) as source:
        assert source.read(AT).silent == ("a",)
        del exporters.pages["a"]
        assert source.read(AT + DISCOVERY_COUNTS_FOR).silent == ()


def test_a_gpu_that_is_missing_from_a_live_exporter_ends_alone(web: CannedServer) -> None:
    second = GPU_LINE.replace(b"GPU-1", b"GPU-2").replace(b'"0"', b'"1"')
    web.respond = lambda _: Canned(GPU_LINE + second)
    with closing(ScrapeSource([web.url])) as source:
        assert source.read(AT).samples == 2
        web.respond = lambda _: Canned(GPU_LINE)
        reading = source.read(AT + STEP)
    assert reading.silent == ()
    assert [labels["UUID"] for labels in reading.labels(reading.columns[0])] == ["GPU-1"]


def test_each_sample_has_the_time_of_its_reading(web: CannedServer) -> None:
    web.respond = lambda _: Canned(GPU_LINE)
    with closing(ScrapeSource([web.url])) as source:
        for turn in range(3):
            reading = source.read(AT + turn * STEP)
            assert reading.columns[0].times.tolist() == [(AT + turn * STEP).timestamp()]


def test_label_sets_keep_their_numbers_from_one_reading_to_the_next(web: CannedServer) -> None:
    web.respond = lambda _: Canned(GPU_LINE)
    with closing(ScrapeSource([web.url])) as source:
        first, second = source.read(AT), source.read(AT + STEP)
    assert first.label_sets is second.label_sets
    assert first.columns[0].series.tolist() == second.columns[0].series.tolist()


def test_two_targets_with_the_same_page_are_two(web: CannedServer) -> None:
    exporters = Exporters(web, {"a": Canned(GPU_LINE), "b": Canned(GPU_LINE.replace(b" 40", b" 41"))})
    with closing(ScrapeSource(discovery=exporters.discovery)) as source:
        assert temperatures(source.read(AT)) == {"a": 40, "b": 41}


def test_a_page_with_one_bad_line_is_used_and_gives_a_warning(web: CannedServer) -> None:
    web.respond = lambda _: Canned(GPU_LINE + b"nonsense\n")
    with closing(ScrapeSource([web.url])) as source:
        reading = source.read(AT)
    assert reading.silent == ()
    assert temperatures(reading) == {web.url.removeprefix("http://"): 40}
    assert len(reading.warnings) == 1
    assert "'nonsense'" in reading.warnings[0]


def test_a_page_that_repeats_a_series_is_used_and_gives_a_warning(web: CannedServer) -> None:
    web.respond = lambda _: Canned(GPU_LINE + GPU_LINE.replace(b" 40", b" 41"))
    with closing(ScrapeSource([web.url])) as source:
        reading = source.read(AT)
    assert list(temperatures(reading).values()) == [40]
    assert "1 samples repeat a series" in reading.warnings[0]


def test_many_that_are_silent_do_not_flood_the_warnings(web: CannedServer) -> None:
    web.respond = lambda _: Canned(GPU_LINE)
    nobody = [f"http://127.0.0.1:1/{number}" for number in range(100)]
    with closing(ScrapeSource([web.url, *nobody])) as source:
        reading = source.read(AT)
    assert len(reading.silent) == 100
    assert len(reading.warnings) == 21
    assert reading.warnings[-1] == "and 80 more of the kind"


def test_hanging_targets_hold_up_the_read_no_longer_than_the_timeout(web: CannedServer) -> None:
    hanging = {f"hangs-{i}": Canned(stalls=True) for i in range(4)}
    exporters = Exporters(web, {**hanging, "good": Canned(GPU_LINE)})
    with closing(ScrapeSource(discovery=exporters.discovery, timeout_s=0.5)) as source:
        began = time.monotonic()
        reading = source.read(AT)
        took_s = time.monotonic() - began
        assert len(reading.silent) == 4
        assert temperatures(reading) == {"good": 40}
        assert took_s < 2


def test_who_did_not_answer_last_time_is_asked_after_all_others(
    web: CannedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("healer.adapters.http.fetching._FRESH", 1)  # one after the other
    names = [f"n{i}" for i in range(10)]
    exporters = Exporters(web, {name: Canned(GPU_LINE) for name in names} | {"n0": Canned(status=500)})
    with closing(ScrapeSource(discovery=exporters.discovery)) as source:
        source.read(AT)
        web.asked.clear()
        source.read(AT + STEP)
        exporters.pages["n0"] = Canned(GPU_LINE)
        assert source.read(AT + STEP).silent == ()
    assert [asked.path for asked in web.asked[:10]] == [f"/n{i}" for i in (*range(1, 10), 0)]


def test_an_address_that_is_none_is_a_silent_target(web: CannedServer) -> None:
    web.respond = lambda _: Canned(GPU_LINE)
    with closing(ScrapeSource([web.url, "http://no such host:9400"])) as source:
        reading = source.read(AT)
    assert reading.silent == ("no such host:9400",)
    assert "the address is not valid" in reading.warnings[0]


def test_a_refused_connection_is_named_without_credentials() -> None:
    source = ScrapeSource(["http://user:secret@127.0.0.1:1/metrics?token=secret"])
    with closing(source), pytest.raises(Unavailable, match=r"127\.0\.0\.1:1: .*Connection refused") as caught:
        source.read(AT)
    assert "secret" not in str(caught.value)


def test_without_targets_there_is_an_error_not_an_empty_fleet(web: CannedServer) -> None:
    web.respond = lambda _: Canned(b"[]")
    for source in (ScrapeSource(), ScrapeSource(discovery=f"{web.url}/sd")):
        with closing(source), pytest.raises(Unavailable, match="has no targets"):
            source.read(AT)


def test_pages_without_a_gpu_are_an_error_not_an_empty_fleet(web: CannedServer) -> None:
    web.respond = lambda _: Canned(b"node_load1 0.5\n")
    with closing(ScrapeSource([web.url])) as source, pytest.raises(Unavailable, match="none of 1 targets shows a GPU"):
        source.read(AT)


def test_when_all_targets_go_silent_there_is_an_error_until_one_is_back(web: CannedServer) -> None:
    web.respond = lambda _: Canned(GPU_LINE)
    with closing(ScrapeSource([web.url])) as source:
        source.read(AT)
        web.respond = lambda _: Canned(status=503)
        with pytest.raises(Unavailable, match=r"none of 1 targets shows a GPU: exporter .* status 503"):
            source.read(AT + STEP)
        web.respond = lambda _: Canned(GPU_LINE)
        assert source.read(AT + 2 * STEP).samples == 1


def test_the_power_of_racks_is_read_under_the_name_that_is_configured(web: CannedServer) -> None:
    web.respond = lambda _: Canned(GPU_LINE + b'rack_watts{rack="r1"} 30000\nrack_power_watts{rack="r1"} 1\n')
    with closing(ScrapeSource([web.url], rack_power="rack_watts")) as source:
        reading = source.read(AT)
    assert {column.metric for column in reading.columns} == {"DCGM_FI_DEV_GPU_TEMP", "rack_watts"}
