"""What the answers of a Prometheus, of its kin, and of whatever stands in its place are taken to mean."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from healer.adapters.prometheus.source import PrometheusSource
from healer.domain.reading import Column, Reading
from healer.domain.signal import Signal
from healer.errors import Rejected, Unavailable
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from tests.canned_http import Asked, Canned, CannedServer, canned_server

AT = datetime(2026, 3, 1, tzinfo=UTC)
NOW = AT.timestamp()
TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"
XID = "DCGM_FI_DEV_XID_ERRORS"
NAMES = "/api/v1/label/__name__/values"
GPU = {"UUID": "GPU-1", "gpu": "0", "Hostname": "n1", "instance": "n1:9400", "job": "dcgm"}

_Samples = list[tuple[Mapping[str, str], str]]


def _json(data: object, **more: object) -> Canned:
    return Canned(json.dumps({"status": "success", "data": data, **more}).encode())


def _vector(samples: _Samples, **more: object) -> Canned:
    result = [{"metric": labels, "value": [NOW, text]} for labels, text in samples]
    return _json({"resultType": "vector", "result": result}, **more)


class _Fake:
    """Answers instant queries from a table; anything not in it is an empty vector."""

    def __init__(self, tables: Mapping[str, _Samples]) -> None:
        self.tables = dict(tables)
        self.instead: dict[str, Canned] = {}  # by path, or by query

    def __call__(self, asked: Asked) -> Canned:
        query = asked.query.get("query", "")
        for key in (query, asked.path):
            if key in self.instead:
                return self.instead[key]
        if asked.path == NAMES:
            return _json(sorted({name for name in self.tables if "(" not in name} | {"go_goroutines"}))
        return _vector(self.tables.get(query, []))


def _named(metric: str, text: str, **labels: str) -> tuple[Mapping[str, str], str]:
    return {"__name__": metric, **GPU, **labels}, text


@pytest.fixture
def fake() -> _Fake:
    return _Fake({TEMPERATURE: [_named(TEMPERATURE, "40")], f"timestamp({TEMPERATURE})": [(GPU, f"{NOW - 7}")]})


@pytest.fixture
def web(fake: _Fake) -> Iterator[CannedServer]:
    with canned_server(fake) as server:
        yield server


@pytest.fixture
def source(web: CannedServer) -> Iterator[PrometheusSource]:
    with closing(PrometheusSource(web.url, timeout_s=1.0)) as made:
        yield made


def _column(reading: Reading, metric: str) -> Column:
    (column,) = (column for column in reading.columns if column.metric == metric)
    return column


def _queries(web: CannedServer) -> list[str]:
    return [asked.query["query"] for asked in web.asked if "query" in asked.query]


def test_a_sample_has_its_true_time_not_that_of_the_evaluation(source: PrometheusSource) -> None:
    reading = source.read(AT)
    column = _column(reading, TEMPERATURE)
    assert reading.labels(column) == [GPU]
    assert column.values.tolist() == [40]
    assert column.times.tolist() == [NOW - 7]


def test_a_stalled_prometheus_shows_in_the_age_of_the_gpus(fake: _Fake, source: PrometheusSource) -> None:
    fake.tables[f"timestamp({TEMPERATURE})"] = [(GPU, f"{NOW - 240}")]
    frame = Window(TopologyRules(), max_age=timedelta(seconds=90)).add(source.read(AT))
    assert frame.age_s.tolist() == [240]
    assert np.isnan(frame.latest(Signal.GPU_TEMPERATURE)).all()


def test_one_question_for_times_serves_every_metric_with_the_same_labels(
    fake: _Fake, web: CannedServer, source: PrometheusSource
) -> None:
    power = "DCGM_FI_DEV_POWER_USAGE"
    fake.tables[power] = [_named(power, "300")]
    reading = source.read(AT)
    assert _column(reading, power).times.tolist() == [NOW - 7]
    assert sum(query.startswith("timestamp(") for query in _queries(web)) == 1


def test_series_with_labels_of_their_own_are_asked_for_their_own_times(fake: _Fake, source: PrometheusSource) -> None:
    fake.tables[XID] = [_named(XID, "45", err_code="45")]
    fake.tables[f"timestamp({XID})"] = [({**GPU, "err_code": "45"}, f"{NOW - 60}")]
    assert _column(source.read(AT), XID).times.tolist() == [NOW - 60]


def test_times_that_the_largest_metric_does_not_tell_are_asked_of_the_next(
    fake: _Fake, source: PrometheusSource
) -> None:
    power, other = "DCGM_FI_DEV_POWER_USAGE", {**GPU, "UUID": "GPU-2"}
    for metric in (TEMPERATURE, power):
        fake.tables[metric] = [_named(metric, "40"), _named(metric, "41", UUID="GPU-2")]
    fake.tables[f"timestamp({power})"] = [(GPU, f"{NOW - 7}"), (other, f"{NOW - 5}")]
    for _ in range(3):
        reading = source.read(AT)
        assert _column(reading, power).times.tolist() == [NOW - 7, NOW - 5]
        assert _column(reading, TEMPERATURE).times.tolist()[0] == NOW - 7


def test_each_of_an_ha_pair_has_its_own_times(fake: _Fake, source: PrometheusSource) -> None:
    fake.tables[TEMPERATURE] = [_named(TEMPERATURE, "40", replica="a"), _named(TEMPERATURE, "41", replica="b")]
    fake.tables[f"timestamp({TEMPERATURE})"] = [
        ({**GPU, "replica": "b"}, f"{NOW - 2}"),
        ({**GPU, "replica": "a"}, f"{NOW - 80}"),
    ]
    reading = source.read(AT)
    assert _column(reading, TEMPERATURE).times.tolist() == [NOW - 80, NOW - 2]
    assert Window(TopologyRules()).add(reading).latest(Signal.GPU_TEMPERATURE).tolist() == [41]


def test_a_series_without_its_replica_label_still_has_its_own_time(fake: _Fake, web: CannedServer) -> None:
    fake.tables[TEMPERATURE] = [_named(TEMPERATURE, "40", replica="a"), _named(TEMPERATURE, "41", replica="b")]
    fake.tables[f"timestamp({TEMPERATURE})"] = [
        ({**GPU, "replica": "a"}, f"{NOW - 80}"),
        ({**GPU, "replica": "b"}, f"{NOW - 2}"),
    ]
    with closing(PrometheusSource(web.url, kept_labels=frozenset({"UUID"}))) as source:
        reading = source.read(AT)
    column = _column(reading, TEMPERATURE)
    assert reading.labels(column) == [{"UUID": "GPU-1", "instance": "n1:9400", "job": "dcgm"}] * 2
    assert column.times.tolist() == [NOW - 80, NOW - 2]


def test_the_same_series_are_the_same_objects_from_one_reading_to_the_next(
    fake: _Fake, web: CannedServer, source: PrometheusSource
) -> None:
    power = "DCGM_FI_DEV_POWER_USAGE"
    fake.tables[power] = [_named(power, "300")]
    fake.tables[XID] = [_named(XID, "45", err_code="45")]
    fake.tables[f"timestamp({XID})"] = [({**GPU, "err_code": "45"}, f"{NOW - 60}")]
    source.read(AT)
    first = source.read(AT)
    asked = len(web.asked)
    fake.tables[TEMPERATURE] = [_named(TEMPERATURE, "41")]
    second = source.read(AT)
    assert _column(second, TEMPERATURE).values.tolist() == [41]
    assert second.label_sets is first.label_sets
    assert _column(second, TEMPERATURE).series is _column(first, TEMPERATURE).series
    assert _column(second, TEMPERATURE).series is _column(second, power).series
    # the three metrics, two times, the rack's power, and which targets are down
    assert len(web.asked) - asked == 7


def test_rack_power_from_promql_is_found_under_its_own_text(fake: _Fake, web: CannedServer) -> None:
    promql = 'sum by (rack) (ipmi_dcmi_power_consumption_current_watts{site="a"})'
    fake.tables[promql] = [({"rack": "r1"}, "31000")]
    with closing(PrometheusSource(web.url, rack_power=promql)) as source:
        frame = Window(TopologyRules(rack_power=promql)).add(source.read(AT))
    assert frame.racks.power_w.tolist() == [[31000]]
    assert f"timestamp({promql})" not in _queries(web)


def test_rack_power_of_a_metric_has_its_true_time(fake: _Fake, source: PrometheusSource) -> None:
    fake.tables["rack_power_watts"] = [({"__name__": "rack_power_watts", "rack": "r1"}, "31000")]
    fake.tables["timestamp(rack_power_watts)"] = [({"rack": "r1"}, f"{NOW - 50}")]
    assert _column(source.read(AT), "rack_power_watts").times.tolist() == [NOW - 50]


def test_values_that_are_not_finite_are_samples_too(fake: _Fake, source: PrometheusSource) -> None:
    fake.tables[TEMPERATURE] = [_named(TEMPERATURE, text, gpu=text) for text in ("NaN", "+Inf", "-Inf", "1e3")]
    np.testing.assert_array_equal(_column(source.read(AT), TEMPERATURE).values, [np.nan, np.inf, -np.inf, 1000])


def test_targets_of_the_same_scrape_job_that_are_down_are_silent(fake: _Fake, source: PrometheusSource) -> None:
    fake.tables["up == 0"] = [
        ({"__name__": "up", "job": "dcgm", "instance": "n2:9400"}, "0"),
        ({"__name__": "up", "job": "blackbox", "instance": "elsewhere"}, "0"),
    ]
    assert source.read(AT).silent == ("n2:9400",)


def test_a_target_that_discovery_no_longer_names_is_not_silent(fake: _Fake, source: PrometheusSource) -> None:
    fake.tables["up == 0"] = [({"__name__": "up", "job": "dcgm", "instance": "n2:9400"}, "0")]
    assert source.read(AT).silent == ("n2:9400",)
    fake.tables["up == 0"] = []
    assert source.read(AT).silent == ()


def test_every_request_carries_the_tenant_the_headers_and_the_configured_parameters(web: CannedServer) -> None:
    settings = {"dedup": "true", "partial_response": "false"}
    with closing(
        PrometheusSource(f"{web.url}/", headers={"Authorization": "Bearer t"}, tenant="team-a", query=settings)
    ) as source:
        source.read(AT)
    assert {asked.path for asked in web.asked} == {NAMES, "/api/v1/query"}
    for asked in web.asked:
        assert asked.headers["x-scope-orgid"] == "team-a"
        assert asked.headers["authorization"] == "Bearer t"
        assert settings.items() <= asked.query.items()


def test_every_request_says_what_the_engines_would_else_do_each_in_its_own_way(web: CannedServer) -> None:
    with closing(PrometheusSource(web.url, lookback=timedelta(seconds=45))) as source:
        source.read(AT)
    wanted = {
        "lookback_delta": "45000ms",
        "max_lookback": "45000ms",
        "latency_offset": "1ms",
        "partial_response": "true",
        "max_source_resolution": "0s",
        "timeout": "10s",
    }
    for asked in web.asked:
        assert wanted.items() <= asked.query.items()


def test_the_names_are_asked_for_again_after_a_while_and_when_nothing_is_found(
    fake: _Fake, web: CannedServer, source: PrometheusSource
) -> None:
    def discoveries() -> int:
        return sum(asked.path == NAMES for asked in web.asked)

    for seconds in (0, 30, 60, 90):  # asked for until they were the same twice
        source.read(AT + timedelta(seconds=seconds))
    assert discoveries() == 2
    source.read(AT + timedelta(minutes=6))
    assert discoveries() == 3
    renamed = "DCGM_FI_DEV_GPU_TEMP_CELSIUS"
    fake.tables = {renamed: [_named(renamed, "40")]}
    assert _column(source.read(AT + timedelta(minutes=7)), renamed).values.tolist() == [40]
    assert discoveries() == 4


def test_metrics_that_were_not_there_yet_at_the_first_look_are_found_at_the_next(
    fake: _Fake, source: PrometheusSource
) -> None:
    source.read(AT)  # in the middle of the first scrape: Prometheus knows only some of its metrics
    power = "DCGM_FI_DEV_POWER_USAGE"
    fake.tables[power] = [_named(power, "300")]
    assert _column(source.read(AT + timedelta(seconds=30)), power).values.tolist() == [300]


@pytest.mark.parametrize(
    ("more", "warnings"),
    [
        pytest.param({"warnings": ["store x is down"]}, ("prometheus: store x is down",), id="Thanos"),
        pytest.param({"isPartial": True}, ("prometheus: the answer is partial",), id="VictoriaMetrics"),
        pytest.param({"infos": ["not a counter"]}, ("prometheus remarks: not a counter",), id="Prometheus 3"),
        pytest.param({"isPartial": False, "stats": {}, "warnings": None}, (), id="nothing said"),
    ],
)
def test_what_is_said_beside_a_partial_answer_reaches_the_reading(
    fake: _Fake, source: PrometheusSource, more: Mapping[str, object], warnings: tuple[str, ...]
) -> None:
    fake.instead[TEMPERATURE] = _vector([_named(TEMPERATURE, "40")], **more)
    assert source.read(AT).warnings == warnings


def test_a_partial_answer_about_times_is_said_too(fake: _Fake, source: PrometheusSource) -> None:
    fake.instead[f"timestamp({TEMPERATURE})"] = _vector([(GPU, f"{NOW - 7}")], warnings=["store x is down"])
    assert source.read(AT).warnings == ("prometheus: store x is down",)


def _raw(text: str, status: int = 200) -> Canned:
    return Canned(text.encode(), status)


_WHOLE = json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}})

NONSENSE = [
    pytest.param(_raw("<html>log in</html>"), "a web page", id="html"),
    pytest.param(_raw(""), "no whole JSON", id="empty body"),
    pytest.param(_raw("null"), "another shape", id="null"),
    pytest.param(_raw('{"status":"success","data":' + "[" * 100_000), "no whole JSON", id="nested without end"),
    pytest.param(_raw("[]"), "another shape", id="list"),
    pytest.param(_raw("{}"), "another shape", id="no status"),
    pytest.param(_raw(_WHOLE[:-5]), "no whole JSON", id="cut JSON"),
    pytest.param(Canned(_WHOLE.encode(), declared_length=10_000), "broke off", id="cut answer"),
    pytest.param(_raw('{"status":"success"}'), "another shape", id="no data"),
    pytest.param(_raw('{"status":"success","data":null}'), "another shape", id="data is null"),
    pytest.param(_raw('{"status":"success","data":{"resultType":"vector"}}'), "another shape", id="no result"),
    pytest.param(
        _raw('{"status":"success","data":{"resultType":"vector","result":null}}'), "another shape", id="result is null"
    ),
    pytest.param(
        _raw('{"status":"success","data":{"resultType":"matrix","result":[]}}'), "a matrix instead", id="matrix"
    ),
    pytest.param(_json({"resultType": "vector", "result": [{"metric": {}}]}), "another shape", id="no value"),
    pytest.param(_vector([(GPU, "forty")]), "not a number", id="value is a word"),
    pytest.param(
        _json({"resultType": "vector", "result": [{"metric": {}, "value": [1, 40]}]}), "another shape", id="bare number"
    ),
    pytest.param(
        _json({"resultType": "vector", "result": [{"metric": {"a": 1}, "value": [1, "4"]}]}),
        "another shape",
        id="label",
    ),
    pytest.param(_raw('{"status":"error"}'), "could not answer", id="error without a reason"),
    pytest.param(
        _raw('{"status":"error","errorType":"timeout","error":"query timed out"}'),
        "query timed out",
        id="error in a 200",
    ),
    pytest.param(_raw("x", 503), "503", id="503"),
    pytest.param(_raw('{"status":"error","error":"too busy"}', 503), "503: too busy", id="503 with a reason"),
    pytest.param(_raw("slow down", 429), "429", id="429"),
    pytest.param(
        _raw('{"status":"error","errorType":"execution","error":"store x is down"}', 422),
        "422: store x is down",
        id="422",
    ),
    pytest.param(_raw("[" * (20 << 20)), "more than 16 MiB that no series ends in", id="nested for 20 MiB"),
    pytest.param(
        Canned(gzip.compress(bytes(64 << 20), 1), headers={"Content-Encoding": "gzip"}),
        "more than 16 MiB that no series ends in",
        id="a bomb of gzip",
    ),
    pytest.param(_vector([({"pod": "x" * 20_000}, "1")]), "bytes of labels", id="labels as long as a book"),
    pytest.param(
        Canned(status=302, headers={"Location": "https://sso/login?state=s"}),
        "redirects to https://sso/login",
        id="302",
    ),
    pytest.param(Canned(_WHOLE.encode(), drips=True), "within 1 s", id="drips"),
    pytest.param(Canned(_WHOLE.encode(), stalls=True), "within 1 s", id="stalls"),
    pytest.param(
        Canned(_WHOLE.encode(), headers={"Content-Encoding": "gzip"}), "broke off", id="not the gzip it claims"
    ),
]


@pytest.mark.parametrize(("answer", "text"), NONSENSE)
@pytest.mark.parametrize("where", ["/api/v1/query", NAMES])
def test_nonsense_is_unavailable_and_never_an_empty_fleet(
    fake: _Fake, source: PrometheusSource, answer: Canned, text: str, where: str
) -> None:
    fake.instead[where] = answer
    with pytest.raises(Unavailable) as caught:
        source.read(AT)
    if where == "/api/v1/query":
        assert text in str(caught.value)


def test_a_million_series_are_unavailable(fake: _Fake, web: CannedServer) -> None:
    series = ",".join(f'{{"metric":{{"UUID":"{number}"}},"value":[1,"1"]}}' for number in range(1_000_000))
    fake.instead[TEMPERATURE] = _raw(f'{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}')
    with (
        closing(PrometheusSource(web.url, timeout_s=60.0)) as source,
        pytest.raises(Unavailable, match="more than 500000 series"),
    ):
        source.read(AT)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(_raw("no", 401), "refused the credentials (401)", id="401"),
        pytest.param(_raw("no", 403), "refused the credentials (403)", id="403"),
        pytest.param(_raw("no", 404), "no query API at this address", id="404"),
    ],
)
def test_a_refusal_is_not_worth_repeating(fake: _Fake, web: CannedServer, answer: Canned, text: str) -> None:
    fake.instead["/api/v1/query"] = answer
    url = web.url.replace("http://", "http://user:secret@")
    with closing(PrometheusSource(url, headers={"X-Token": "secret"})) as source, pytest.raises(Rejected) as caught:
        source.read(AT)
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        _raw('{"status":"error","errorType":"bad_data","error":"parse error: unclosed left parenthesis"}', 400),
        _raw('{"status":"error","errorType":"bad_data","error":"parse error: unclosed left parenthesis"}'),
    ],
)
def test_rack_power_that_is_no_promql_is_refused_by_name(fake: _Fake, web: CannedServer, answer: Canned) -> None:
    fake.instead["sum(("] = answer
    with closing(PrometheusSource(web.url, rack_power="sum((")) as source, pytest.raises(Rejected) as caught:
        source.read(AT)
    assert "the query 'sum(('" in str(caught.value)
    assert "unclosed left parenthesis" in str(caught.value)


def test_rack_power_that_gives_a_scalar_is_refused(fake: _Fake, source: PrometheusSource) -> None:
    fake.instead["rack_power_watts"] = _json({"resultType": "scalar", "result": [NOW, "1"]})
    with pytest.raises(Rejected, match="gives a scalar, not series"):
        source.read(AT)


def test_a_refused_connection_is_unavailable_and_shows_no_password() -> None:
    source = PrometheusSource("http://user:secret@127.0.0.1:1/prometheus?key=secret")
    with closing(source), pytest.raises(Unavailable, match="Connection refused") as caught:
        source.read(AT)
    assert "secret" not in str(caught.value)


def test_a_whole_answer_without_a_gpu_is_unavailable(fake: _Fake, source: PrometheusSource) -> None:
    fake.tables = {"rack_power_watts": [({"rack": "r1"}, "31000")]}
    with pytest.raises(Unavailable, match="has no GPU metric at 2026-03-01T00:00:00Z; check that it scrapes"):
        source.read(AT)


def test_when_every_exporter_is_down_the_error_names_them(fake: _Fake, source: PrometheusSource) -> None:
    source.read(AT)
    fake.tables = {"up == 0": [({"__name__": "up", "job": "dcgm", "instance": "n1:9400"}, "0")]}
    with pytest.raises(Unavailable, match="n1:9400"):
        source.read(AT + timedelta(seconds=30))


def test_a_replay_on_other_steps_than_asked_for_is_unavailable(fake: _Fake, source: PrometheusSource) -> None:
    series = [{"metric": GPU, "values": [[NOW + 13, "40"]]}]
    fake.instead["/api/v1/query_range"] = _json({"resultType": "matrix", "result": series})
    with pytest.raises(Unavailable, match="for other times than asked"):
        list(source.replay(AT, AT + timedelta(minutes=5), timedelta(seconds=30)))


def test_a_replay_without_any_gpu_is_unavailable(fake: _Fake, source: PrometheusSource) -> None:
    fake.instead["/api/v1/query_range"] = _json({"resultType": "matrix", "result": []})
    with pytest.raises(Unavailable, match="has no GPU metric between"):
        list(source.replay(AT, AT + timedelta(minutes=5), timedelta(seconds=30)))


def test_a_replay_asks_in_slices_of_sixty_steps(fake: _Fake, web: CannedServer, source: PrometheusSource) -> None:
    def matrix(asked: Asked) -> Canned:
        if asked.path != "/api/v1/query_range":
            return fake(asked)
        first, last, step = (float(asked.query[name]) for name in ("start", "end", "step"))
        instants = np.arange(first, last + step / 2, step)
        value = {TEMPERATURE: lambda t: t % 1000, f"timestamp({TEMPERATURE})": lambda t: t - 7}
        made = value.get(asked.query["query"])
        series = [{"metric": GPU, "values": [[t, f"{made(t)}"] for t in instants]}] if made else []
        return _json({"resultType": "matrix", "result": series})

    web.respond = matrix
    readings = list(source.replay(AT, AT + timedelta(seconds=149), timedelta(seconds=1)))
    assert [reading.at for reading in readings] == [AT + timedelta(seconds=s) for s in range(150)]
    for reading in readings:
        column = _column(reading, TEMPERATURE)
        assert column.values.tolist() == [reading.at.timestamp() % 1000]
        assert column.times.tolist() == [reading.at.timestamp() - 7]
    spans = [float(a.query["end"]) - float(a.query["start"]) for a in web.asked if a.query.get("query") == TEMPERATURE]
    assert spans == [59, 59, 29]


def test_a_replay_knows_the_time_of_a_sample_that_is_told_only_once(
    fake: _Fake, web: CannedServer, source: PrometheusSource
) -> None:
    """As VictoriaMetrics does: the sample lasts, and only the step behind it has its time."""

    def matrix(asked: Asked) -> Canned:
        if asked.path != "/api/v1/query_range":
            return fake(asked)
        first, last = float(asked.query["start"]), float(asked.query["end"])
        times = {TEMPERATURE: [NOW, NOW + 30, NOW + 60, NOW + 90], f"timestamp({TEMPERATURE})": [NOW - 30, NOW + 60]}
        told = {
            t: "40" if asked.query["query"] == TEMPERATURE else f"{t - 4}" for t in times.get(asked.query["query"], [])
        }
        values = [[t, text] for t, text in told.items() if first <= t <= last]
        return _json({"resultType": "matrix", "result": [{"metric": GPU, "values": values}] if values else []})

    web.respond = matrix
    readings = list(source.replay(AT, AT + timedelta(seconds=90), timedelta(seconds=30)))
    assert [_column(reading, TEMPERATURE).times.tolist() for reading in readings] == [
        [NOW - 34],
        [NOW - 34],
        [NOW + 56],
        [NOW + 56],
    ]
