"""The engines that speak Prometheus' query API: what holds on each of them, live where there is one to run.

Prometheus 2.42 and 3.x and VictoriaMetrics scrape the same exporters. Thanos, Mimir and the cluster of VictoriaMetrics
are not packaged: they are played by their documented answers.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from healer.adapters.prometheus.source import PrometheusSource
from healer.domain.reading import Column, Reading
from healer.errors import Rejected, Unavailable
from tests.canned_http import Asked, Canned, canned_server
from tests.realparts import prometheus, victoriametrics
from tests.realparts.prometheus import RunningPrometheus
from tests.realparts.server import RunningServer
from tests.realparts.victoriametrics import RunningVictoriaMetrics

TEMPERATURE, POWER, XID = "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_XID_ERRORS"
RACK_POWER = "rack_power_watts"
_PATIENCE_S = 30.0
_INTERVAL = "500ms"
STAYING, LEAVING = ("n1", "n2", "n3"), "n9"
_LIVE = ("prometheus", "prometheus3", "victoriametrics")


@dataclass(slots=True)
class Exporters:
    """Nodes with two GPUs each, all on one port; time stands still in them.

    Attributes:
        nodes: those that discovery names; one leaves in the course of the tests, and Prometheus takes long to look.
        broken: those that answer 500.
        lost: GPUs that are missing from their page, as node and index.
        nan: GPUs whose temperature is not a number.
        pod: the label of all that have one.
    """

    nodes: list[str] = field(default_factory=lambda: [*STAYING, LEAVING])
    broken: set[str] = field(default_factory=set)
    lost: set[tuple[str, int]] = field(default_factory=set)
    nan: set[tuple[str, int]] = field(default_factory=set)
    pod: str = "train-0"

    def __call__(self, asked: Asked) -> Canned:
        if asked.path == "/sd":
            groups = [
                {"targets": [asked.headers["host"]], "labels": {"__metrics_path__": f"/{node}", "instance": node}}
                for node in self.nodes
            ]
            return Canned(json.dumps(groups).encode(), headers={"Content-Type": "application/json"})
        node = asked.path.strip("/")
        if node in self.broken:
            return Canned(status=500)
        return Canned(self._page(node).encode(), headers={"Content-Type": "text/plain; version=0.0.4"})

    def uuids(self) -> list[str]:
        """What can be scraped."""
        working = [node for node in self.nodes if node not in self.broken]
        return [f"GPU-{node}-{gpu}" for node in working for gpu in (0, 1) if (node, gpu) not in self.lost]

    def heat(self) -> dict[str, float]:
        """The temperatures that are numbers."""
        nan = {f"GPU-{node}-{gpu}" for node, gpu in self.nan}
        return {uuid: 40.0 + int(uuid[-1]) for uuid in self.uuids() if uuid not in nan}

    def heal(self) -> None:
        self.pod = "train-0"
        for troubled in (self.broken, self.lost, self.nan):
            troubled.clear()

    def _page(self, node: str) -> str:
        lines = [f'{RACK_POWER}{{rack="r1"}} 31000'] if node == "n1" else []
        for gpu in (0, 1):
            if (node, gpu) in self.lost:
                continue
            labels = f'gpu="{gpu}",UUID="GPU-{node}-{gpu}",Hostname="{node}",pod="{self.pod}"'
            heat = "NaN" if (node, gpu) in self.nan else f"{40 + gpu}"
            lines.append(f"{TEMPERATURE}{{{labels}}} {heat}")
            lines.append(f"{POWER}{{{labels}}} {300 + gpu}.25")
            lines.append(f'{XID}{{{labels},err_code="0",err_msg="No \\"Error\\"\\n"}} 0')
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Engine:
    kind: str
    server: RunningServer
    exporters: Exporters
    source: PrometheusSource

    def eventually(self, condition: Callable[[Reading], bool]) -> Reading:
        deadline = time.monotonic() + _PATIENCE_S
        seen: object = None
        while time.monotonic() < deadline:
            if self.kind == "victoriametrics":  # which takes ten seconds to show a new series
                urllib.request.urlopen(f"{self.server.url}/internal/force_flush").close()
            try:
                seen = reading = self.source.read(datetime.now(UTC))
            except Unavailable as error:
                seen = error
            else:
                if condition(reading):
                    return reading
            time.sleep(0.1)
        pytest.fail(f"on {self.kind} it never came to be; the last was {seen}")

    def whole(self) -> Reading:
        """Every series that the exporters show, as it is now, and nothing that they showed before."""
        shown = self.exporters

        def is_whole(reading: Reading) -> bool:
            return (
                all(uuids(reading, metric) == shown.uuids() for metric in (TEMPERATURE, POWER, XID))
                and shown.heat().items() <= by_uuid(reading, TEMPERATURE).items()
                and pods(reading) == {shown.pod}
                and column(reading, RACK_POWER) is not None
                and reading.silent == tuple(sorted(shown.broken))
            )

        return self.eventually(is_whole)


def column(reading: Reading, metric: str) -> Column | None:
    return next((column for column in reading.columns if column.metric == metric), None)


def by_uuid(reading: Reading, metric: str) -> dict[str, float]:
    found = column(reading, metric)
    assert found is not None
    return {labels["UUID"]: value for labels, value in zip(reading.labels(found), found.values.tolist(), strict=True)}


def uuids(reading: Reading, metric: str) -> list[str]:
    found = column(reading, metric)
    return [] if found is None else sorted(labels["UUID"] for labels in reading.labels(found))


def pods(reading: Reading) -> set[str]:
    return {labels["pod"] for column in reading.columns for labels in reading.labels(column) if "pod" in labels}


def ages_s(reading: Reading) -> list[float]:
    return [age for column in reading.columns for age in (reading.at.timestamp() - column.times).tolist()]


@contextmanager
def running(kind: str) -> Iterator[Engine]:
    exporters = Exporters()
    with ExitStack() as stack:
        discovery = f"{stack.enter_context(canned_server(exporters)).url}/sd"
        server: RunningPrometheus | RunningVictoriaMetrics
        if kind == "victoriametrics":
            server = RunningVictoriaMetrics(
                victoriametrics.require(),
                scrape_configs=f"- {{job_name: gpu, http_sd_configs: [{{url: '{discovery}'}}]}}",
                arguments=("-promscrape.httpSDCheckInterval=1s",),
                interval=_INTERVAL,
            )
        else:
            server = RunningPrometheus(
                prometheus.require(kind),
                scrape_configs=f"- {{job_name: gpu, http_sd_configs: [{{url: '{discovery}', refresh_interval: 1s}}]}}",
                interval=_INTERVAL,
            )
        stack.enter_context(server)
        source = stack.enter_context(closing(PrometheusSource(server.url)))
        yield Engine(kind, server, exporters, source)


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.prometheus) for kind in _LIVE], scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with running(request.param) as made:
        yield made


@pytest.fixture
def engine(shared: Engine) -> Iterator[Engine]:
    """Starts whole, and is left with exporters that are."""
    shared.whole()
    yield shared
    shared.exporters.heal()


def test_every_series_comes_with_its_labels_its_value_and_its_age(engine: Engine) -> None:
    reading = engine.whole()
    assert by_uuid(reading, TEMPERATURE) == engine.exporters.heat()
    assert by_uuid(reading, POWER) == {uuid: heat + 260.25 for uuid, heat in engine.exporters.heat().items()}
    xids = column(reading, XID)
    assert xids is not None
    expected = {"err_msg": 'No "Error"\n', "instance": "n1", "job": "gpu", "pod": "train-0"}
    assert all(expected.items() <= labels.items() for labels in reading.labels(xids) if labels["Hostname"] == "n1")
    racks = column(reading, RACK_POWER)
    assert racks is not None
    assert (reading.labels(racks)[0]["rack"], racks.values.tolist()) == ("r1", [31000])
    # VictoriaMetrics would hide the newest thirty seconds.
    assert all(-0.1 < age < 5 for age in ages_s(reading))
    assert (reading.silent, reading.warnings) == ((), ())


def test_a_known_fleet_is_read_into_the_same_objects(engine: Engine) -> None:
    first, second = engine.whole(), engine.whole()
    assert second.label_sets is first.label_sets
    before = {column.metric: column for column in first.columns}
    for after in second.columns:
        assert after.series is before[after.metric].series


@pytest.mark.parametrize("stalled_s", [60, 95, 400])
def test_a_server_that_has_stopped_scraping_shows_the_age_of_what_it_has(engine: Engine, stalled_s: int) -> None:
    engine.whole()
    then = datetime.now(UTC) + timedelta(seconds=stalled_s)
    try:
        reading = engine.source.read(then)
    except Unavailable:
        # Prometheus 2.42 knows no `lookback_delta`, and goes on for five minutes; the age is told.
        assert stalled_s > (90 if engine.kind != "prometheus" else 300)
    else:
        assert all(stalled_s - 0.1 < age < stalled_s + 5 for age in ages_s(reading))


def test_a_gpu_that_is_missing_from_a_live_exporter_is_gone_and_nobody_is_silent(engine: Engine) -> None:
    engine.exporters.lost.add(("n2", 1))
    reading = engine.whole()
    assert "GPU-n2-1" not in uuids(reading, TEMPERATURE)
    assert reading.silent == ()


def test_a_target_that_is_down_is_silent_and_its_series_end(engine: Engine) -> None:
    engine.exporters.broken.add("n3")
    engine.eventually(lambda reading: reading.silent == ("n3",))
    assert "GPU-n3-0" not in uuids(engine.whole(), POWER)


def test_a_target_that_discovery_no_longer_names_is_gone_and_not_silent(engine: Engine) -> None:
    engine.exporters.nodes.remove(LEAVING)
    reading = engine.whole()
    assert f"GPU-{LEAVING}-0" not in uuids(reading, XID)
    assert reading.silent == ()


def test_a_pod_that_comes_and_goes_leaves_the_same_gpus(engine: Engine) -> None:
    engine.whole()
    engine.exporters.pod = "train-1"
    assert all(age < 5 for age in ages_s(engine.whole()))


def test_what_is_not_a_number_never_passes_for_one_that_is_current(engine: Engine) -> None:
    engine.exporters.nan.add(("n1", 0))

    def unknown(reading: Reading) -> bool:
        """VictoriaMetrics stores no NaN: what it has grows old, and is then no more."""
        found = column(reading, TEMPERATURE)
        assert found is not None
        rows = [row for row, labels in enumerate(reading.labels(found)) if labels["UUID"] == "GPU-n1-0"]
        aged = reading.at.timestamp() - found.times[rows] > 3
        return bool((aged | np.isnan(found.values[rows])).all())

    engine.eventually(unknown)


def test_a_replay_shows_what_was_read_at_the_time(engine: Engine) -> None:
    engine.whole()
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    engine.exporters.broken.add("n2")
    engine.eventually(lambda reading: reading.silent == ("n2",) and reading.at > start + timedelta(seconds=3))
    end = engine.whole().at - timedelta(seconds=1)  # of the past, what is read no longer changes
    # VictoriaMetrics needs steps that are longer than what lies between two samples, else it shows the gaps.
    replayed = list(engine.source.replay(start, end, timedelta(seconds=1)))
    assert len(replayed) > 1
    for reading in replayed:
        then = engine.source.read(reading.at)
        assert content(reading) == content(then)
        assert reading.silent == then.silent


def content(reading: Reading) -> dict[str, list[tuple[str, str, str]]]:
    """As texts, in which what is not a number equals itself."""
    return {
        column.metric: sorted(
            (json.dumps(dict(labels)), repr(value), repr(at))
            for labels, value, at in zip(
                reading.labels(column), column.values.tolist(), column.times.tolist(), strict=True
            )
        )
        for column in reading.columns
    }


@pytest.mark.prometheus
def test_victoriametrics_answers_under_the_path_of_prometheus_too() -> None:
    with running("victoriametrics") as engine:
        engine.whole()
        with closing(PrometheusSource(f"{engine.server.url}/prometheus/")) as source:
            assert content(source.read(datetime.now(UTC))).keys() == {TEMPERATURE, POWER, XID, RACK_POWER}


AT = datetime(2026, 3, 1, tzinfo=UTC)
NOW = AT.timestamp()
_GPU = {"UUID": "GPU-1", "gpu": "0", "instance": "n1:9400", "job": "dcgm", "cluster": "a"}
_STORE_DOWN = "receive series from Addr: store-2:10901: rpc error: code = Unavailable desc = connection refused"


@dataclass(frozen=True, slots=True)
class Played:
    """Answers as an engine behind `prefix` does.

    Attributes:
        more: beside the data of every query.
        guard: answers in its place, where it returns something.
    """

    prefix: str = ""
    more: Mapping[str, object] = field(default_factory=dict)
    guard: Callable[[Asked], Canned | None] = lambda _: None

    def __call__(self, asked: Asked) -> Canned:
        refused = self.guard(asked)
        if refused is not None:
            return refused
        if asked.path == f"{self.prefix}/api/v1/label/__name__/values":
            return _json({"status": "success", "data": [TEMPERATURE, "up"]})
        if asked.path != f"{self.prefix}/api/v1/query":
            return Canned(b"404 page not found\n", 404, {"Content-Type": "text/plain; charset=utf-8"})
        known = {
            TEMPERATURE: [{"metric": {"__name__": TEMPERATURE, **_GPU}, "value": [NOW, "41"]}],
            f"timestamp({TEMPERATURE})": [{"metric": _GPU, "value": [NOW, f"{NOW - 3:.3f}"]}],
        }
        data = {"resultType": "vector", "result": known.get(asked.query["query"], []), "analysis": None}
        return _json({"status": "success", "data": data, **self.more})


def _json(whole: Mapping[str, object], status: int = 200) -> Canned:
    return Canned(json.dumps(whole, separators=(",", ":")).encode(), status, {"Content-Type": "application/json"})


def test_thanos_tells_in_a_warning_which_store_is_missing() -> None:
    with (
        canned_server(Played(more={"warnings": [_STORE_DOWN]})) as thanos,
        closing(PrometheusSource(thanos.url)) as source,
    ):
        reading = source.read(AT)
    assert reading.warnings == (f"prometheus: {_STORE_DOWN}",)
    assert [(column.values.tolist(), column.times.tolist()) for column in reading.columns] == [([41], [NOW - 3])]
    assert {asked.query["partial_response"] for asked in thanos.asked} == {"true"}
    assert {asked.query["max_source_resolution"] for asked in thanos.asked} == {"0s"}


def test_thanos_that_shall_not_answer_in_part_is_unavailable_while_a_store_is_missing() -> None:
    def guard(asked: Asked) -> Canned | None:
        if asked.query.get("partial_response") != "false" or asked.query.get("dedup") != "true":
            return None
        return _json({"status": "error", "errorType": "execution", "error": f"expanding series: {_STORE_DOWN}"}, 422)

    settings = {"partial_response": "false", "dedup": "true"}
    with (
        canned_server(Played(guard=guard)) as thanos,
        closing(PrometheusSource(thanos.url, query=settings)) as source,
        pytest.raises(Unavailable, match="store-2:10901"),
    ):
        source.read(AT)


def _mimir(asked: Asked) -> Canned | None:
    if asked.headers.get("x-scope-orgid") != "fleet":
        return Canned(b"no org id\n", 401, {"Content-Type": "text/plain; charset=utf-8"})
    return None


def test_mimir_is_asked_under_its_path_in_the_name_of_the_tenant() -> None:
    with canned_server(Played("/prometheus", guard=_mimir)) as mimir:
        with closing(PrometheusSource(f"{mimir.url}/prometheus", tenant="fleet")) as source:
            assert column(source.read(AT), TEMPERATURE) is not None
        with closing(PrometheusSource(f"{mimir.url}/prometheus")) as source, pytest.raises(Rejected, match="tenant"):
            source.read(AT)
        with closing(PrometheusSource(mimir.url, tenant="fleet")) as source, pytest.raises(Rejected, match="path"):
            source.read(AT)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Canned(b"too many outstanding requests\n", 429, {"Content-Type": "text/plain"}), id="busy"),
        pytest.param(
            _json(
                {
                    "status": "error",
                    "errorType": "execution",
                    "error": "the query exceeded the maximum number of chunks",
                },
                422,
            ),
            id="over a limit",
        ),
        pytest.param(
            _json(
                {"status": "error", "errorType": "unavailable", "error": "too many unhealthy instances in the ring"},
                503,
            ),
            id="ring",
        ),
    ],
)
def test_mimir_that_cannot_answer_now_is_unavailable(answer: Canned) -> None:
    def guard(asked: Asked) -> Canned | None:
        return answer if "query" in asked.query else None

    with (
        canned_server(Played("/prometheus", guard=guard)) as mimir,
        closing(PrometheusSource(f"{mimir.url}/prometheus", tenant="fleet")) as source,
        pytest.raises(Unavailable, match="could not answer"),
    ):
        source.read(AT)


_SELECT = "/select/0/prometheus"


def test_victoriametrics_cluster_says_that_an_answer_is_partial() -> None:
    played = Played(_SELECT, more={"isPartial": True, "stats": {"seriesFetched": "1", "executionTimeMsec": 0}})
    with canned_server(played) as cluster, closing(PrometheusSource(cluster.url + _SELECT)) as source:
        assert source.read(AT).warnings == ("prometheus: the answer is partial",)


def test_victoriametrics_cluster_that_shall_not_answer_in_part_is_unavailable() -> None:
    error = "cannot fetch search results: cannot fetch query results from vmstorage nodes: dial tcp: connection refused"

    def guard(asked: Asked) -> Canned | None:
        if asked.query.get("deny_partial_response") != "1":
            return None
        return _json({"status": "error", "errorType": "503", "error": error}, 503)

    with (
        canned_server(Played(_SELECT, guard=guard)) as cluster,
        closing(PrometheusSource(cluster.url + _SELECT, query={"deny_partial_response": "1"})) as source,
        pytest.raises(Unavailable, match="503: cannot fetch search results"),
    ):
        source.read(AT)
