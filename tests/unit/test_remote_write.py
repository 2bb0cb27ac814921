"""The remote write receiver: what is taken in, what is answered, and what a turn reads."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.adapters.push.remote_write import RemoteWrite, WriteAnswer
from healer.domain.reading import Reading
from healer.domain.signal import Signal
from healer.errors import Unavailable
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from tests import prompb
from tests.prompb import Series, field

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TEMPERATURE, POWER = "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"
SAMPLES = "X-Prometheus-Remote-Write-Samples-Written"

versions = pytest.mark.parametrize("version", [1, 2])


def _gpu(value: float, *, age: float = 0, metric: str = TEMPERATURE, uuid: str = "GPU-1", **labels: str) -> Series:
    """A sample of one GPU, `age` seconds before NOW."""
    named = {"UUID": uuid, "gpu": "0", "job": "gpu", "instance": "n1:9400", **labels}
    return prompb.series(metric, value, NOW.timestamp() - age, **named)


def _up(value: float, *, age: float = 0, instance: str = "n1:9400", **labels: str) -> Series:
    return prompb.series("up", value, NOW.timestamp() - age, job="gpu", instance=instance, **labels)


class _Sender:
    """Writes to a receiver in one of the two versions."""

    def __init__(self, version: int, receiver: RemoteWrite | None = None) -> None:
        self.version = version
        self.receiver = receiver or RemoteWrite()

    def send(self, *all_series: Series, now: datetime = NOW) -> WriteAnswer:
        body = prompb.body(self.version, all_series)
        return self.receiver.receive(prompb.HEADERS[self.version], body, now)

    def read(self, after: timedelta = timedelta()) -> Reading:
        return self.receiver.read(NOW + after)

    def shown(self, after: timedelta = timedelta()) -> dict[tuple[str, str], float]:
        return _shown(self.read(after))


@pytest.fixture(params=[1, 2])
def sender(request: pytest.FixtureRequest) -> _Sender:
    return _Sender(request.param)


def _shown(reading: Reading) -> dict[tuple[str, str], float]:
    """Metric and UUID -> value; the same GPU twice is an error here."""
    found = [
        ((column.metric, labels.get("UUID", "")), value)
        for column in reading.columns
        for labels, value in zip(reading.labels(column), column.values.tolist(), strict=True)
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_what_was_written_is_read(sender: _Sender) -> None:
    answer = sender.send(_up(1), _gpu(61.0), _gpu(0.0, metric=POWER), _gpu(64.5, uuid="GPU-2", age=2.25))
    assert (answer.status, answer.text) == (HTTPStatus.NO_CONTENT, "")
    reading = sender.read()
    assert _shown(reading) == {(TEMPERATURE, "GPU-1"): 61.0, (POWER, "GPU-1"): 0.0, (TEMPERATURE, "GPU-2"): 64.5}
    assert (reading.silent, reading.warnings) == ((), ())
    (temperature,) = (column for column in reading.columns if column.metric == TEMPERATURE)
    assert [NOW.timestamp() - time for time in temperature.times.tolist()] == [0.0, 2.25]
    assert reading.labels(temperature)[0] == {"UUID": "GPU-1", "gpu": "0", "job": "gpu", "instance": "n1:9400"}


def test_both_versions_of_a_series_are_the_same_to_a_turn() -> None:
    one, other = _Sender(1), _Sender(2)
    for each in (one, other):
        each.send(_up(1), _gpu(61.0), _gpu(300.0, metric=POWER))
    assert one.shown() == other.shown()


def test_rack_power_is_read_and_other_metrics_are_accepted_and_forgotten(sender: _Sender) -> None:
    at = NOW.timestamp()
    answer = sender.send(
        _up(1), _gpu(61.0), prompb.series("rack_power_watts", 9.5, at, rack="r1"), prompb.series("node_load1", 3.0, at)
    )
    assert (answer.status, answer.headers[SAMPLES]) == (HTTPStatus.NO_CONTENT, "4")
    assert {column.metric for column in sender.read().columns} == {TEMPERATURE, "rack_power_watts"}


# Stale marks, and samples that come out of order, twice, late or early.


def test_a_stale_mark_ends_a_series_at_once(sender: _Sender) -> None:
    sender.send(_up(1), _gpu(61.0, age=10), _gpu(62.0, age=10, uuid="GPU-2"))
    sender.send(_gpu(prompb.STALE, age=5))
    assert sender.shown() == {(TEMPERATURE, "GPU-2"): 62.0}


def test_a_nan_is_a_sample_and_no_end(sender: _Sender) -> None:
    sender.send(_up(1), _gpu(61.0, age=10))
    sender.send(_gpu(float("nan"), age=5))
    ((_, value),) = sender.shown().items()
    assert value != value  # noqa: PLR0124


def test_a_series_comes_back_with_a_newer_sample_and_not_with_an_older_one(sender: _Sender) -> None:
    sender.send(_up(1), _gpu(61.0, age=10), _gpu(60.0, age=10, uuid="GPU-2"))
    sender.send(_gpu(prompb.STALE, age=5))
    sender.send(_gpu(62.0, age=7))
    assert (TEMPERATURE, "GPU-1") not in sender.shown()
    sender.send(_gpu(63.0, age=3))
    assert sender.shown()[TEMPERATURE, "GPU-1"] == 63.0


def test_an_older_sample_never_replaces_a_newer_one(sender: _Sender) -> None:
    sender.send(_up(1), _gpu(61.0, age=5))
    assert sender.send(_gpu(50.0, age=9)).status == HTTPStatus.NO_CONTENT
    assert sender.shown() == {(TEMPERATURE, "GPU-1"): 61.0}


def test_the_same_request_twice_is_the_same_as_once(sender: _Sender) -> None:
    for _ in range(2):
        answer = sender.send(_up(1), _gpu(61.0, age=5), _gpu(prompb.STALE, age=4, uuid="GPU-2"))
        assert (answer.status, answer.headers[SAMPLES]) == (HTTPStatus.NO_CONTENT, "3")
    assert sender.shown() == {(TEMPERATURE, "GPU-1"): 61.0}


def test_of_several_samples_in_one_request_the_newest_is_shown(sender: _Sender) -> None:
    at_ms = round(NOW.timestamp() * 1000)
    several = Series(_gpu(0).labels, ((1.0, at_ms - 9000), (2.0, at_ms - 3000), (3.0, at_ms - 6000)))
    answer = sender.send(_up(1), several, _gpu(5.0, uuid="GPU-2", age=2), _gpu(4.0, uuid="GPU-2", age=4))
    assert answer.headers[SAMPLES] == "6"
    assert sender.shown() == {(TEMPERATURE, "GPU-1"): 2.0, (TEMPERATURE, "GPU-2"): 5.0}


def test_a_sample_from_the_future_is_refused_and_the_others_are_taken(sender: _Sender) -> None:
    answer = sender.send(_up(1), _gpu(61.0), _gpu(99.0, age=-31), _gpu(62.0, age=-29, uuid="GPU-2"))
    assert (answer.status, answer.headers[SAMPLES]) == (HTTPStatus.BAD_REQUEST, "3")
    assert answer.text == "1 of 4 samples were not taken, the others were; 1 are from the future: check the clocks\n"
    reading = sender.read()
    assert _shown(reading) == {(TEMPERATURE, "GPU-1"): 61.0, (TEMPERATURE, "GPU-2"): 62.0}
    assert any("check the clocks" in word for word in reading.warnings)
    assert all(time <= NOW.timestamp() for column in reading.columns for time in column.times.tolist())


def test_a_pair_of_prometheis_brings_both_of_their_series_and_the_newest_of_them_counts(sender: _Sender) -> None:
    sender.send(_up(1, replica="a"), _gpu(61.0, age=20, replica="a"))
    sender.send(_up(1, replica="b"), _gpu(62.0, age=5, replica="b"))
    sender.send(_gpu(60.0, age=1, replica="a"))
    reading = sender.read()
    assert reading.samples == 2
    frame = Window(TopologyRules()).add(reading)
    assert frame.latest(Signal.GPU_TEMPERATURE).tolist() == [60.0]
    sender.send(_gpu(prompb.STALE, age=0, replica="a"))
    assert Window(TopologyRules()).add(sender.read()).latest(Signal.GPU_TEMPERATURE).tolist() == [62.0]


def test_a_log_that_is_replayed_after_a_restart_changes_nothing_and_takes_no_room(sender: _Sender) -> None:
    sender.receiver = RemoteWrite(most_series=2)
    sender.send(_up(1), _gpu(61.0))
    for age in range(7200, 650, -600):
        answer = sender.send(_gpu(50.0, age=age), *(_gpu(50.0, age=age, uuid=f"gone-{age}-{n}") for n in range(50)))
        assert answer.status == HTTPStatus.NO_CONTENT
    assert sender.shown() == {(TEMPERATURE, "GPU-1"): 61.0}


def test_series_of_pods_that_are_gone_give_their_room_back(sender: _Sender) -> None:
    sender.receiver = RemoteWrite(most_series=300)
    for generation in range(9):
        now = NOW + generation * timedelta(minutes=5.5)
        fresh = [_gpu(1.0, age=(NOW - now).total_seconds(), uuid=f"{n}", pod=f"p{generation}") for n in range(100)]
        assert sender.send(*fresh, now=now).status == HTTPStatus.NO_CONTENT, generation
        assert sender.read(now - NOW).samples == 100


def test_without_room_for_new_series_the_known_ones_go_on(sender: _Sender) -> None:
    sender.receiver = RemoteWrite(most_series=2)
    sender.send(_up(1), _gpu(61.0, age=9))
    answer = sender.send(_gpu(62.0), _gpu(70.0, uuid="GPU-2"), _gpu(71.0, uuid="GPU-3"))
    assert (answer.status, answer.headers[SAMPLES]) == (HTTPStatus.BAD_REQUEST, "1")
    assert "2 are of new series, of which there is no room for more than 2" in answer.text
    reading = sender.read()
    assert _shown(reading) == {(TEMPERATURE, "GPU-1"): 62.0}
    assert any("2 samples of new series were left out" in word for word in reading.warnings)


# Targets.


def test_a_target_that_cannot_be_scraped_is_silent(sender: _Sender) -> None:
    sender.send(_up(1), _up(1, instance="n2:9400"), _gpu(61.0), _gpu(62.0, uuid="GPU-2", age=20, instance="n2:9400"))
    assert sender.read().silent == ()
    sender.send(_up(0, instance="n2:9400"), _gpu(prompb.STALE, uuid="GPU-2", instance="n2:9400"))
    reading = sender.read()
    assert reading.silent == ("n2:9400",)
    assert _shown(reading) == {(TEMPERATURE, "GPU-1"): 61.0}


def test_a_target_that_was_removed_is_neither_shown_nor_silent(sender: _Sender) -> None:
    n2 = "n2:9400"
    sender.send(_up(1), _up(1, age=20, instance=n2), _gpu(61.0), _gpu(62.0, age=20, uuid="GPU-2", instance=n2))
    sender.send(_up(prompb.STALE, instance=n2), _gpu(prompb.STALE, uuid="GPU-2", instance=n2))
    reading = sender.read()
    assert reading.silent == ()
    assert _shown(reading) == {(TEMPERATURE, "GPU-1"): 61.0}


def test_what_one_of_two_prometheis_watched_is_silent_when_it_falls_silent(sender: _Sender) -> None:
    other = {"instance": "n2:9400", "prometheus": "b"}
    sender.send(_up(1, age=400), _gpu(61.0, age=400), _up(1, age=400, **other), now=NOW - timedelta(seconds=400))
    sender.send(_up(1), _gpu(61.0))
    assert sender.read().silent == ("n2:9400",)


def test_without_up_it_is_said_what_cannot_be_told(sender: _Sender) -> None:
    sender.send(_gpu(61.0))
    (warning,) = sender.read().warnings
    assert "`up` is not received" in warning
    sender.send(_up(1))
    assert sender.read().warnings == ()


# When there is nothing to read.


def test_before_anything_was_received_it_is_said_what_to_configure(sender: _Sender) -> None:
    with pytest.raises(
        Unavailable, match=r"nothing was received yet; add `remote_write: .*/api/v1/write.* prometheus.yml"
    ):
        sender.read()


def test_when_no_gpu_is_among_it_that_is_said(sender: _Sender) -> None:
    sender.send(_up(1), prompb.series("rack_power_watts", 1.0, NOW.timestamp(), rack="r"))
    with pytest.raises(Unavailable, match="shows no GPU; check the sender's scrape_configs and write_relabel_configs"):
        sender.read()


def test_when_the_sender_falls_silent_that_is_said_after_the_lookback(sender: _Sender) -> None:
    sender.send(_up(1), _gpu(61.0))
    reading = sender.read(timedelta(seconds=299))
    assert [word for word in reading.warnings if "the newest sample is 299 s old" in word]
    with pytest.raises(Unavailable, match="nothing was received for 301 s; look at the sender's log"):
        sender.read(timedelta(seconds=301))


def test_when_the_sender_is_far_behind_that_is_said(sender: _Sender) -> None:
    sender.send(_up(1, age=400), _gpu(61.0, age=400))
    with pytest.raises(Unavailable, match="what is received is 400 s old: the sender is behind"):
        sender.read()


def test_a_sample_from_the_future_does_not_hide_that_the_sender_is_behind(sender: _Sender) -> None:
    sender.send(_up(1, age=400), _gpu(61.0, age=400), _gpu(62.0, age=-3600, uuid="GPU-2"))
    with pytest.raises(Unavailable, match="what is received is 400 s old: the sender is behind"):
        sender.read()


def test_when_no_target_can_be_scraped_they_are_named(sender: _Sender) -> None:
    sender.send(_up(1, age=20), _gpu(61.0, age=20))
    sender.send(_up(0), _gpu(prompb.STALE))
    with pytest.raises(Unavailable, match="none of 1 targets could be scraped: n1:9400"):
        sender.read()


# What the specifications ask for.


@versions
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 204),
        ({"Content-Encoding": ""}, 204),
        ({"Content-Encoding": "Snappy"}, 204),
        ({"Content-Encoding": "zstd"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "identity"}, 415),
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Type": "application/x-protobuf;proto=io.prometheus.write.v3.Request"}, 415),
        ({"Content-Type": "text/plain;proto=prometheus.WriteRequest"}, 415),
        ({"X-Prometheus-Remote-Write-Version": ""}, 204),
    ],
)
def test_the_content_is_negotiated(version: int, changes: Mapping[str, str], status: int) -> None:
    headers = {**prompb.HEADERS[version], **changes}
    answer = RemoteWrite().receive(headers, prompb.body(version, [_gpu(61.0)]), NOW)
    assert answer.status == status
    assert bool(answer.text) == (status != 204)


@pytest.mark.parametrize(
    ("content_type", "version"),
    [
        ("", 1),
        ("application/x-protobuf", 1),
        ("application/x-protobuf;proto=prometheus.WriteRequest", 1),
        ('Application/X-Protobuf ; Proto="io.prometheus.write.v2.Request"', 2),
        ("application/x-protobuf; charset=utf-8; proto=io.prometheus.write.v2.Request", 2),
    ],
)
def test_the_content_type_says_which_message_it_is(content_type: str, version: int) -> None:
    receiver = RemoteWrite()
    headers = {"content-type": content_type, "CONTENT-ENCODING": "snappy"}
    assert receiver.receive(headers, prompb.body(version, [_up(1), _gpu(61.0)]), NOW).status == 204
    assert receiver.read(NOW).samples == 1


def test_a_request_of_the_other_version_brings_nothing_and_does_no_harm() -> None:
    """As the specification promises of an accidental mix-up: their field numbers do not meet."""
    for version in (1, 2):
        receiver = RemoteWrite()
        answer = receiver.receive(prompb.HEADERS[3 - version], prompb.body(version, [_gpu(61.0)]), NOW)
        assert (answer.status, answer.headers[SAMPLES]) == (204, "0")


def test_the_answer_says_how_much_was_written(sender: _Sender) -> None:
    mixed = Series(_gpu(0).labels, ((1.0, round(NOW.timestamp() * 1000)),), histograms=2, exemplars=3)
    answer = sender.send(_up(1), mixed)
    assert answer.headers == {
        SAMPLES: "2",
        "X-Prometheus-Remote-Write-Histograms-Written": "2",
        "X-Prometheus-Remote-Write-Exemplars-Written": "3",
    }


def test_of_a_request_with_series_that_are_not_allowed_the_others_are_written(sender: _Sender) -> None:
    at_ms = round(NOW.timestamp() * 1000)
    nameless = Series((("UUID", "GPU-9"),), ((1.0, at_ms), (2.0, at_ms)))
    answer = sender.send(_up(1), nameless, _gpu(61.0))
    assert (answer.status, answer.headers[SAMPLES]) == (HTTPStatus.BAD_REQUEST, "2")
    assert (
        answer.text == "2 of 4 samples were not taken, the others were; a series has no metric name: {UUID='GPU-9'}\n"
    )
    assert sender.shown() == {(TEMPERATURE, "GPU-1"): 61.0}
    assert sender.send(nameless).status == HTTPStatus.BAD_REQUEST, "it stays wrong"


def test_in_version_2_a_series_without_samples_is_not_allowed() -> None:
    answer = _Sender(2).send(_gpu(61.0), Series((("__name__", "m"),)))
    assert (answer.status, answer.headers[SAMPLES]) == (HTTPStatus.BAD_REQUEST, "1")
    assert "neither a sample nor a histogram" in answer.text


def test_of_a_request_that_does_not_decode_nothing_is_written(sender: _Sender) -> None:
    message = prompb.message(sender.version, [_up(1), _gpu(61.0)])
    answer = sender.receiver.receive(prompb.HEADERS[sender.version], prompb.compressed(message[:-1]), NOW)
    assert answer.status == HTTPStatus.BAD_REQUEST
    assert "the request does not decode: timeseries[1] ends 1 bytes behind its message (at byte" in answer.text
    with pytest.raises(Unavailable, match="nothing was received yet"):
        sender.read()


def test_a_request_with_a_label_that_does_not_decode_is_refused_whole() -> None:
    receiver = RemoteWrite()
    broken = field(1, field(1, b"\x0a\x05ab") + field(2, prompb.sample(1.0, round(NOW.timestamp() * 1000))))
    message = prompb.message_v1([_up(1), _gpu(61.0)]) + broken
    answer = receiver.receive(prompb.HEADERS[1], prompb.compressed(message), NOW)
    assert answer.status == HTTPStatus.BAD_REQUEST
    assert "does not decode" in answer.text
    with pytest.raises(Unavailable, match="nothing was received yet"):
        receiver.read(NOW)


def test_labels_that_come_after_other_fields_are_read(sender: _Sender) -> None:
    """Nobody writes so, and the format allows it: what looks like labels and a sample is not always that."""
    one = _gpu(61.0)
    stamp = round(NOW.timestamp() * 1000)
    if sender.version == 1:
        exemplar = field(3, field(1, b"") + b"\x11" + bytes(8))
        early = field(2, prompb.sample(5.0, stamp - 5))
        last = field(2, prompb.sample(61.0, stamp))
        message = field(1, prompb.labels_v1(one.labels) + early + exemplar + last)
    else:
        message = prompb.message_v2([one], metadata=False)
        at = message.index(field(2, prompb.sample(61.0, stamp)))
        sample = message[at:]
        start = message.rindex(b"\x2a", 0, at)
        message = message[:start] + field(5, field(5, b"") + sample + message[start + 2 : at])
    answer = sender.receiver.receive(prompb.HEADERS[sender.version], prompb.compressed(message), NOW)
    assert answer.status == HTTPStatus.NO_CONTENT
    assert sender.shown() == {(TEMPERATURE, "GPU-1"): 61.0}
    sender.send(_gpu(62.0, age=-1))
    assert sender.shown() == {(TEMPERATURE, "GPU-1"): 62.0}, "the same series, written as usual"


def test_an_empty_request_is_fine(sender: _Sender) -> None:
    assert sender.send().status == HTTPStatus.NO_CONTENT


# What must not bring it down.


def _receive(version: int, body: bytes, receiver: RemoteWrite | None = None) -> WriteAnswer:
    return (receiver or RemoteWrite()).receive(prompb.HEADERS[version], body, NOW)


@versions
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff" * 5, 400),
        (b"\xff\xff\xff\xff\x0f", 413),
        (b"\x81\x80\x80\x10", 413),
        (b"\x80\x80\x80\x0f" + b"\x00a", 400),
        (b"\x05\x00a", 400),
        (b"\xff\x06\x00\x00sNaPpY", 400),
    ],
    ids=["empty", "no end", "4 GiB", "32 MiB and a bit", "31 MiB of nothing", "too short", "framed"],
)
def test_what_is_not_compressed_by_snappy_is_refused(version: int, body: bytes, status: int) -> None:
    assert _receive(version, body).status == status


@versions
def test_a_bomb_is_refused_by_what_it_says_of_itself(version: int) -> None:
    bomb = prompb.compressed(bytes(40 << 20))
    assert len(bomb) < 4 << 20
    answer = _receive(version, bomb)
    assert (answer.status, answer.headers) == (413, {})
    assert "its content has 41943040 bytes, of at most 32 MiB; lower max_samples_per_send" in answer.text


@versions
def test_a_body_over_the_limit_is_refused(version: int) -> None:
    receiver = RemoteWrite(limit_bytes=1 << 20)
    assert _receive(version, bytes(1 << 20) + b"x", receiver).status == 413
    assert _receive(version, prompb.body(version, [_gpu(61.0)]), receiver).status == 204


@versions
@pytest.mark.parametrize("tag", [b"\x0a", b"\x2a", b"\x22", b"\x10"])
def test_a_million_empty_parts_cost_little(version: int, tag: bytes) -> None:
    answer = _receive(version, prompb.compressed((tag + b"\x00") * (1 << 20)))
    assert answer.status in (204, 400, 413)


@versions
def test_huge_labels_are_refused_and_not_kept(version: int) -> None:
    receiver = RemoteWrite()
    for n in range(4):
        huge = _gpu(61.0, pod=f"{n}" + "x" * (4 << 20))
        assert _receive(version, prompb.body(version, [huge, _up(1)]), receiver).status == 400
    with pytest.raises(Unavailable, match="shows no GPU"):
        receiver.read(NOW)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([1, 2]), st.binary(max_size=200), st.booleans())
def test_whatever_is_sent_is_answered(version: int, content: bytes, compress: bool) -> None:  # noqa: FBT001
    answer = _receive(version, prompb.compressed(content) if compress else content)
    assert answer.status in (204, 400, 413)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([1, 2]), st.data())
def test_whatever_becomes_of_a_request_the_receiver_goes_on(version: int, data: st.DataObject) -> None:
    receiver = RemoteWrite()
    octets = bytearray(prompb.message(version, [_up(1), _gpu(61.0), _gpu(9.0, metric=POWER)]))
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    assert _receive(version, prompb.compressed(bytes(octets)), receiver).status in (204, 400, 413)
    sender = _Sender(version, receiver)
    assert sender.send(_up(1), _gpu(62.0, age=-0.001, uuid="GPU-7")).status == 204
    assert sender.shown(timedelta(seconds=1))[TEMPERATURE, "GPU-7"] == 62.0


# Back-pressure.


def test_while_one_request_is_decoded_only_so_many_wait() -> None:
    receiver = RemoteWrite(most_waiting=1)
    body = prompb.body(1, [_gpu(1.0, uuid=f"GPU-{n}") for n in range(20_000)])
    slow = threading.Thread(target=_receive, args=(1, body, receiver))
    slow.start()
    answers = set()
    while slow.is_alive():
        answer = _receive(1, prompb.body(1, [_up(1)]), receiver)
        answers.add((int(answer.status), answer.headers.get("Retry-After")))
    slow.join()
    assert (503, "1") in answers
    assert _receive(1, prompb.body(1, [_up(1)]), receiver).status == 204


def test_many_senders_at_the_same_time_lose_nothing() -> None:
    receiver = RemoteWrite(most_waiting=100)
    statuses: list[int] = []
    shown: list[int] = []

    def write(number: int) -> None:
        sender = _Sender(1 + number % 2, receiver)
        for age in range(20, -1, -1):
            answer = sender.send(_up(1), *(_gpu(100.0 - age, age=age, uuid=f"{number}-{n}") for n in range(60)))
            statuses.append(answer.status)

    def read() -> None:
        while any(each.is_alive() for each in writers):
            try:
                shown.append(receiver.read(NOW).samples)
            except Unavailable:
                continue

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    reader = threading.Thread(target=read)
    for each in (*writers, reader):
        each.start()
    for each in (*writers, reader):
        each.join()
    assert set(statuses) == {204}
    assert set(_shown(receiver.read(NOW)).values()) == {100.0}
    assert receiver.read(NOW).samples == 480
    assert all(before <= after for before, after in pairwise(shown))


def test_the_labels_of_a_known_gpu_are_not_read_anew_for_every_metric(sender: _Sender) -> None:
    """All of a GPU's metrics share a label set, also when they come in different requests."""
    metrics: Sequence[str] = (TEMPERATURE, POWER, "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_GPU_UTIL")
    for metric in metrics:
        sender.send(_up(1), _gpu(1.0, metric=metric))
    reading = sender.read()
    assert {column.metric for column in reading.columns} == set(metrics)
    assert len({int(column.series[0]) for column in reading.columns}) == 1


def test_labels_stay_right_when_the_head_has_forgotten_most_of_them(sender: _Sender) -> None:
    """Then the label sets of those that are left have other numbers."""
    first = [_gpu(1.0, uuid=f"GPU-{n}") for n in range(12_000)]
    for start in range(0, len(first), 4000):
        sender.send(*first[start : start + 4000])
    kept = ("GPU-3", "GPU-11999")
    later = NOW + timedelta(minutes=11)
    sender.send(*(_gpu(2.0, age=-660, uuid=uuid) for uuid in kept), now=later)
    assert sender.read(later - NOW).samples == len(kept)
    sender.send(*(_gpu(3.0, age=-660, metric=POWER, uuid=uuid) for uuid in ("GPU-5", *kept)), now=later)
    assert sender.shown(later - NOW) == {
        (TEMPERATURE, "GPU-3"): 2.0,
        (TEMPERATURE, "GPU-11999"): 2.0,
        (POWER, "GPU-3"): 3.0,
        (POWER, "GPU-5"): 3.0,
        (POWER, "GPU-11999"): 3.0,
    }
