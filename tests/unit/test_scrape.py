"""What exporters serve becomes columns: real pages of several generations, and pages that make no sense."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from healer.adapters.scrape import ScrapeSource, attached, parse_page, read_page
from healer.domain.frame import Frame
from healer.domain.reading import Column, Reading
from healer.domain.signal import Signal
from healer.errors import Unavailable
from healer.telemetry.identity import TopologyRules
from healer.telemetry.window import Window
from tests.canned_http import Asked, Canned, CannedServer, canned_server

AT = datetime(2026, 3, 1, tzinfo=UTC)
PAGES = Path(__file__).parents[1] / "content" / "pages"
GPU_LINE = b'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1",Hostname="n1"} 40\n'


def _frame(text: str, **labels: str) -> Frame:
    columns = parse_page(text, AT, {"instance": "n1:9400", **labels})
    return Window(TopologyRules()).add(Reading(AT, columns))


def _real(name: str) -> str:
    return (PAGES / f"{name}.prom").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "gpus", "signals"),
    [
        ("dcgm_2x_busy_emptypod", ["0 GPU-6bf47ca9-ad3e-15db-beed-1079a7d74116 None"], 8),
        ("dcgm_2x_sentinel", ["0 GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52 None"], 3),
        (
            "dcgm_k8s_pod_labels",
            ["0 GPU-916b8073-39e4-200a-f89a-45fa79439232 nvidia-dcgm-exporter-xpn6b"],
            4,
        ),
        (
            "dcgm_t4_idle",
            [
                "0 GPU-20c56d28-0da5-6d26-a36a-e7af1ce2586e 424773df46e0",
                "0 GPU-9ef1b6d0-3643-5dd7-b823-c0ec20dcf2d5 551bdf382151",
                "0 GPU-abc ip-11111",
            ],
            14,
        ),
        ("amd_metrics_mini", ["None 6699c0a8-4200-4242-037f-f97e6cae0f09 None"], 2),
        ("amd_mixed", ["0 17ff74b5-0000-1000-805c-37b0fbe69430 master-1", "0 None cb76105c40d0"], 3),
        ("dcgm_grace_cpu", [], 0),
    ],
)
def test_a_real_page_gives_its_gpus(page: str, gpus: list[str], signals: int) -> None:
    frame = _frame(_real(page))
    assert sorted(f"{c.gpu} {c.uuid} {c.node}" for c in frame.gpus.components) == sorted(gpus)
    assert len(frame.values) == signals


def test_every_line_of_the_real_pages_is_understood() -> None:
    for page in sorted(PAGES.glob("*.prom")):
        read = read_page(page.read_text(encoding="utf-8"), AT, {}, wanted=None, known={})
        assert read.bad == "", page.name
        assert read.lines > 0, page.name


def test_mig_instances_are_rows_of_their_own() -> None:
    frame = _frame(_real("dcgm_mig_a30"))
    assert [component.gpu for component in frame.gpus.components] == ["0:3", "0:4", "0:5", "0:6", "1:3", "1:4"]
    assert frame.latest(Signal.GPU_TEMPERATURE).tolist() == [35] * 6
    assert set(frame.gpus.models) == {"NVIDIA A30"}


def test_a_sentinel_on_a_real_page_is_unknown() -> None:
    frame = _frame(_real("dcgm_2x_sentinel"))
    assert np.isnan(frame.latest(Signal.MEMORY_TEMPERATURE)).all()
    assert frame.latest(Signal.SM_CLOCK).tolist() == [139e6]


def test_a_series_without_a_gpu_gives_a_warning_and_no_row() -> None:
    frame = _frame(_real("dcgm_xid"))
    assert len(frame.gpus) == 0
    assert frame.warnings == ("1 series name no GPU: neither a UUID nor an index with a host label",)


def test_a_counter_keeps_the_name_that_the_exporter_gave_it() -> None:
    frame = _frame(_real("dcgm_2x_busy_emptypod"))
    assert frame.latest(Signal.ENERGY).tolist() == pytest.approx([4335301.032])


def test_the_host_label_is_read_in_both_spellings() -> None:
    for label in ("Hostname", "hostname"):
        (component,) = _frame(f'DCGM_FI_DEV_GPU_TEMP{{gpu="0",UUID="GPU-1",{label}="n7"}} 40').gpus.components
        assert component.node == "n7"


def test_a_label_that_clashes_with_the_targets_is_kept_as_exported() -> None:
    scraped = {"instance": "a", "exported_instance": "b", "pod": "", "UUID": "GPU-1"}
    expected = {"instance": "n1:9400", "exported_instance": "b", "exported_exported_instance": "a", "UUID": "GPU-1"}
    assert attached(scraped, {"instance": "n1:9400"}) == expected


def test_the_exporters_own_node_wins_over_the_targets() -> None:
    (component,) = _frame('DCGM_FI_DEV_GPU_TEMP{UUID="GPU-1",node="n1"} 40', node="exporter-pod").gpus.components
    assert component.node == "n1"


def test_a_sample_with_a_time_of_its_own_has_that_age() -> None:
    old_ms = round(AT.timestamp() * 1000) - 30_000
    future_ms = round(AT.timestamp() * 1000) + 30_000
    text = f'DCGM_FI_DEV_GPU_TEMP{{UUID="A"}} 40 {old_ms}\nDCGM_FI_DEV_GPU_TEMP{{UUID="B"}} 41 {future_ms}\n'
    assert _frame(text).age_s.tolist() == [30, 0]


@pytest.mark.parametrize(
    "line",
    [
        'DCGM_FI_DEV_GPU_TEMP{UUID="B"',
        'DCGM_FI_DEV_GPU_TEMP{UUID="B"}',
        'DCGM_FI_DEV_GPU_TEMP{UUID="B"} forty',
        'DCGM_FI_DEV_GPU_TEMP{UUID="B"} 4_0',
        'DCGM_FI_DEV_GPU_TEMP{UUID="B"} 40 soon',
        'DCGM_FI_DEV_GPU_TEMP{UUID="B"} 40 1e400',
        'DCGM_FI_DEV_GPU_TEMP{UUID="B"} 40 1 2',
        'DCGM_FI_DEV_GPU_TEMP{UUID="B",UUID="C"} 40',
        "DCGM_FI_DEV_GPU_TEMP{UUID=B} 40",
        'DCGM_FI_DEV_GPU_TEMP{UUID="B"} 5 # {trace="x"} 40',
        "DCGM_FI_DEV_GPU_TEMP}{ 40",
        "DCGM_FI_DEV_GPU_TEMP",
        'DCGM_FI_DEV_GPU_TEMP{UUID="' + "B" * 20000 + '"} 40',
        "<html><body>",
        '{"status": "ok"}',
        "\x00\x01\x02",
    ],
)
def test_a_bad_line_costs_that_line_only(line: str) -> None:
    text = f'DCGM_FI_DEV_GPU_TEMP{{UUID="A"}} 40\n{line}\nDCGM_FI_DEV_GPU_TEMP{{UUID="C"}} 42\n'
    page = read_page(text, AT, {}, wanted=None, known={})
    assert page.metrics["DCGM_FI_DEV_GPU_TEMP"][1] == [40, 42]
    assert page.bad == repr(line[:80])


_label_values = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_names = st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@settings(deadline=None)
@given(labels=st.dictionaries(_names, _label_values, max_size=4), value=st.floats(allow_nan=False))
def test_any_labels_and_value_come_back_as_they_went_in(labels: dict[str, str], value: float) -> None:
    block = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    (column,) = parse_page(f"m{{{block}}} {value!r}\n", AT, {})
    assert dict(column.labels[0]) == {name: text for name, text in labels.items() if text}
    assert column.values.tolist() == [value]


@settings(deadline=None)
@given(text=st.text(st.sampled_from('DCGM_x{}=",\\ \n\t#0123456789.eE+-NaInf\x00é'), max_size=120))
def test_any_page_is_read_without_an_error_and_as_the_reference_parser_reads_it(text: str) -> None:
    for line in text.split("\n"):
        for column in parse_page(line, AT, {}):
            families = list(text_string_to_metric_families(line))
            (sample,) = (sample for family in families for sample in family.samples)
            np.testing.assert_array_equal(column.values, [float(sample.value)])
            assert sample.name == column.metric


def test_a_label_block_is_known_only_as_long_as_it_is_on_the_page() -> None:
    known: dict[str, Mapping[str, str]] = {}
    read_page('a{pod="1"} 1\nb{pod="1"} 1\na{pod="2"} 1', AT, {}, wanted=None, known=known)
    assert set(known) == {'pod="1"', 'pod="2"'}
    read_page('a{pod="3"} 1', AT, {}, wanted=None, known=known)
    assert set(known) == {'pod="3"'}


@pytest.fixture
def web() -> Iterator[CannedServer]:
    with canned_server() as server:
        yield server


def _temperatures(columns: tuple[Column, ...]) -> dict[str, float]:
    (column,) = (column for column in columns if column.metric == "DCGM_FI_DEV_GPU_TEMP")
    return {labels["instance"]: value for labels, value in zip(column.labels, column.values.tolist(), strict=True)}


def _discovering(groups: object, page: Callable[[Asked], Canned]) -> Callable[[Asked], Canned]:
    return lambda asked: Canned(json.dumps(groups).encode()) if asked.path == "/sd" else page(asked)


def test_discovered_labels_path_and_parameters_are_honoured(web: CannedServer) -> None:
    address = web.url.removeprefix("http://")
    labels = {"__metrics_path__": "/gpu", "__param_kind": "a b", "__scheme__": "http", "rack": "r1", "empty": ""}
    web.respond = _discovering([{"targets": [address], "labels": labels}], lambda _: Canned(GPU_LINE))
    with closing(ScrapeSource(discovery=f"{web.url}/sd")) as source:
        reading = source.read(AT)
    expected = {"gpu": "0", "UUID": "GPU-1", "Hostname": "n1", "instance": address, "rack": "r1"}
    assert reading.columns[0].labels == [expected]
    assert [(asked.path, asked.query) for asked in web.asked] == [("/sd", {}), ("/gpu", {"kind": "a b"})]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(Canned(GPU_LINE * 300_000), "more than 16 MiB", id="a flood"),
        pytest.param(Canned(b"<html>log in</html>"), "something else than metrics: '<html>log in", id="a web page"),
        pytest.param(Canned(b""), "an empty page; it may be starting", id="empty"),
        pytest.param(Canned(b"# HELP a b\n"), "an empty page", id="only comments"),
        pytest.param(Canned(b"\xff\xfe\x00\x00"), "something else than metrics", id="binary"),
        pytest.param(Canned(b"oops", status=500), "status 500", id="500"),
        pytest.param(Canned(GPU_LINE, declared_length=10_000), "broke off its answer", id="truncated"),
        pytest.param(
            Canned(status=302, headers={"Location": "http://u:p@x/y?token=1"}), "to http://x/y;", id="redirect"
        ),
        pytest.param(Canned(b"x 1\n" * 50, drips=True), "no whole answer within 0.5 s", id="drips"),
    ],
)
def test_a_target_without_a_usable_page_is_silent_and_says_why(web: CannedServer, answer: Canned, text: str) -> None:
    web.respond = lambda asked: answer if asked.path == "/bad" else Canned(GPU_LINE)
    address = web.url.removeprefix("http://")
    groups = [
        {"targets": [address], "labels": {"instance": name, "__metrics_path__": f"/{name}"}} for name in ("bad", "good")
    ]
    web.respond = _discovering(groups, web.respond)
    with closing(ScrapeSource(discovery=f"{web.url}/sd", timeout_s=0.5)) as source:
        reading = source.read(AT)
    assert reading.silent == ("bad",)
    assert _temperatures(reading.columns) == {"good": 40}
    assert len(reading.warnings) == 1
    assert text in reading.warnings[0]


def test_a_page_with_one_bad_line_is_used_and_gives_a_warning(web: CannedServer) -> None:
    web.respond = lambda _: Canned(GPU_LINE + b"nonsense\n")
    with closing(ScrapeSource([web.url])) as source:
        reading = source.read(AT)
    assert reading.silent == ()
    assert _temperatures(reading.columns) == {web.url.removeprefix("http://"): 40}
    assert "'nonsense'" in reading.warnings[0]


def test_a_refused_connection_is_named_without_credentials() -> None:
    source = ScrapeSource(["http://user:secret@127.0.0.1:1/metrics?token=secret"])
    with closing(source), pytest.raises(Unavailable, match="Connection refused") as caught:
        source.read(AT)
    assert "secret" not in str(caught.value)


def test_without_targets_there_is_an_error_not_an_empty_fleet(web: CannedServer) -> None:
    web.respond = lambda _: Canned(b"[]")
    for source in (ScrapeSource(), ScrapeSource(discovery=f"{web.url}/sd")):
        with closing(source), pytest.raises(Unavailable, match="has no targets"):
            source.read(AT)


@pytest.mark.parametrize("body", [b"<html>", b'{"targets": []}', b'[{"targets": [1]}]', b"\xff"])
def test_a_discovery_that_answers_nonsense_is_unavailable_at_first_and_a_warning_later(
    web: CannedServer, body: bytes
) -> None:
    good = json.dumps([{"targets": [web.url.removeprefix("http://")]}]).encode()
    discovered = body
    web.respond = lambda asked: Canned(discovered if asked.path == "/sd" else GPU_LINE)
    with closing(ScrapeSource(discovery=f"{web.url}/sd")) as source:
        with pytest.raises(Unavailable, match="something else than target groups"):
            source.read(AT)
        discovered = good
        assert source.read(AT).samples == 1
        discovered = body
        reading = source.read(AT + timedelta(minutes=2))
    assert reading.samples == 1
    assert "the targets found earlier are used" in reading.warnings[0]


def test_pages_without_a_gpu_are_an_error_not_an_empty_fleet(web: CannedServer) -> None:
    web.respond = lambda _: Canned(b"node_load1 0.5\n")
    with closing(ScrapeSource([web.url])) as source, pytest.raises(Unavailable, match="none of 1 targets shows a GPU"):
        source.read(AT)


def test_a_target_that_leaves_the_discovery_is_no_longer_asked(web: CannedServer) -> None:
    address = web.url.removeprefix("http://")
    names = ["a", "b"]

    def respond(asked: Asked) -> Canned:
        groups = [{"targets": [address], "labels": {"instance": name}} for name in names]
        return Canned(json.dumps(groups).encode() if asked.path == "/sd" else GPU_LINE)

    web.respond = respond
    with closing(ScrapeSource(discovery=f"{web.url}/sd")) as source:
        assert set(_temperatures(source.read(AT).columns)) == {"a", "b"}
        names.remove("a")
        assert set(_temperatures(source.read(AT + timedelta(minutes=2)).columns)) == {"b"}
