"""A history that was written into real servers comes back to the bit, by every way, whatever the slices."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import cramjam
import pytest

from healer.adapters.http.stream import StreamingServer
from healer.adapters.prometheus.history import PrometheusHistory, Way
from healer.adapters.prometheus.raw_samples import Export, RawQuery
from healer.adapters.prometheus.remote_read import RemoteRead
from healer.telemetry.history import PLAIN_NAN_BITS, Stretch
from healer.telemetry.wire.series import STALE_BITS
from tests.chunk_samples import Sample, bits_of, delimited, samples_of, varint
from tests.realparts import prometheus, victoriametrics

START = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
END = START + timedelta(hours=5)
START_MS, END_MS = round(START.timestamp() * 1000), round(END.timestamp() * 1000)
POWER, XID = "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_XID_ERRORS"
SLICES = (timedelta(hours=5), timedelta(hours=2), timedelta(minutes=7))

_Key: TypeAlias = tuple[tuple[str, str], ...]
_History: TypeAlias = dict[_Key, list[Sample]]

_SPECIAL = [bits_of(value) for value in (-0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2, float("inf"), float("-inf"))]


def _series(number: int, *, plain: bool = False) -> list[Sample]:
    """Five hours, every 30 s or nearly, with gaps, and with values of every kind unless they are to be `plain`."""
    rng = random.Random(number)
    samples = []
    for k in range(600):
        if number == 2 and 100 <= k < 250:
            continue
        at = START_MS + 30_000 * k + (0 if number == 0 else rng.randrange(40))
        value = bits_of(round(400 + rng.gauss(0, 50), 3) if k % 3 else 61.0)
        if not plain and number == 1 and k % 50 == 7:
            value = [*_SPECIAL, PLAIN_NAN_BITS][k // 50 % 7]
        samples.append((at, value))
    return samples


def _labels(number: int) -> dict[str, str]:
    return {"UUID": f"GPU-{number}", "pod": 'a "b" \\ Größe'}


def _key(number: int) -> _Key:
    return tuple(sorted(_labels(number).items()))


def _float(bits: int) -> float:
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    return float(value)


def _openmetrics(written: Mapping[int, Sequence[Sample]]) -> Iterator[str]:
    yield f"# TYPE {POWER} gauge"
    for number, samples in written.items():
        text = ",".join(f"{name}={json.dumps(word, ensure_ascii=False)}" for name, word in _labels(number).items())
        for at, bits in samples:
            yield f"{POWER}{{{text}}} {_float(bits)!r} {at / 1000:.3f}"
    yield "# EOF\n"


WRITTEN: _History = {_key(number): _series(number) for number in range(3)}


@pytest.fixture(scope="module", params=["prometheus", "prometheus3"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with the history in blocks of two hours, as they lie after a day."""
    programs = prometheus.require(request.param)
    folder = tmp_path_factory.mktemp(f"history-{request.param}")
    document, blocks = folder / "history.om", folder / "blocks"
    document.write_text("\n".join(_openmetrics({number: _series(number) for number in range(3)})), encoding="utf-8")
    command: list[str | Path] = [programs.promtool, "tsdb", "create-blocks-from", "openmetrics", document, blocks]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with prometheus.RunningPrometheus(programs, blocks=blocks) as running:
        yield running.url


@pytest.fixture(params=[RemoteRead, RawQuery])
def way(request: pytest.FixtureRequest, server: str) -> Iterator[Way]:
    with closing(_streaming(server)) as streaming:
        yield request.param(streaming)


def _streaming(url: str) -> StreamingServer:
    return StreamingServer(url, headers={}, tenant=None, query={}, timeout_s=20.0)


def _collected(stretches: Iterator[Stretch]) -> _History:
    """All of it, in the order in which it came: a sample that comes twice, or late, shows."""
    found: _History = {}
    for stretch in stretches:
        assert stretch.warnings == ()
        for key, samples in samples_of(stretch).items():
            found.setdefault(key, []).extend(samples)
    return found


@pytest.mark.prometheus
@pytest.mark.parametrize("length", SLICES, ids=str)
def test_every_way_brings_what_was_written_to_the_bit(way: Way, length: timedelta) -> None:
    assert way.missing() == ""
    found: _History = {}
    step_ms = length // timedelta(milliseconds=1)
    for from_ms in range(START_MS, END_MS, step_ms):
        for key, samples in _collected(way.stretches(POWER, {}, from_ms, min(from_ms + step_ms, END_MS))).items():
            found.setdefault(key, []).extend(samples)
    assert found == WRITTEN


@pytest.mark.prometheus
@pytest.mark.parametrize("length", SLICES, ids=str)
def test_a_fetch_brings_each_sample_once_and_says_how_far_it_is(server: str, length: timedelta) -> None:
    shares = []
    with closing(PrometheusHistory(server)) as history:
        stretches = history.fetch([POWER], START, END, slice_length=length, progress=lambda p: shares.append(p.share))
        assert _collected(stretches) == WRITTEN
    assert shares[-1] == 1.0
    assert len(shares) >= (END - START) // length


@pytest.mark.prometheus
def test_the_edges_of_a_span_are_sharp(way: Way) -> None:
    samples = WRITTEN[_key(0)]
    for first, last in ((5, 9), (119, 121), (238, 242)):
        span = (samples[first][0], samples[last][0])
        assert _collected(way.stretches(POWER, {"UUID": "GPU-0"}, *span)) == {_key(0): samples[first:last]}


@pytest.mark.prometheus
def test_what_is_not_there_is_empty(way: Way) -> None:
    for metric, labels in (("DCGM_NOTHING", {}), (POWER, {"UUID": "GPU-7"}), (POWER, {"pod": ".*"})):
        assert list(way.stretches(metric, labels, START_MS, END_MS)) == []
    assert list(way.stretches(POWER, {}, START_MS - 3_600_000, START_MS)) == []


def _write_request(labels: Mapping[str, str], samples: Sequence[Sample]) -> bytes:
    pairs = sorted(labels.items())
    series = b"".join(delimited(1, delimited(1, name.encode()) + delimited(2, word.encode())) for name, word in pairs)
    for at, bits in samples:
        series += delimited(2, b"\x09" + struct.pack("<Q", bits) + b"\x10" + varint(at))
    return bytes(cramjam.snappy.compress_raw(delimited(1, series)))


@pytest.mark.prometheus
@pytest.mark.parametrize("part", ["prometheus", "prometheus3"])
def test_what_is_still_in_memory_comes_too_and_stale_markers_do_not(part: str) -> None:
    programs = prometheus.require(part)
    now_ms = round(datetime.now(UTC).timestamp() * 1000) - 3_600_000
    bits = [bits_of(float(k)) for k in range(300)]
    bits[7], bits[130], bits[299] = STALE_BITS, PLAIN_NAN_BITS, STALE_BITS
    samples = [(now_ms + 1000 * k, value) for k, value in enumerate(bits)]
    with prometheus.RunningPrometheus(programs, arguments=("--web.enable-remote-write-receiver",)) as running:
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
        body = _write_request({"__name__": XID, **_labels(1)}, samples)
        request = urllib.request.Request(f"{running.url}/api/v1/write", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status in {200, 204}
        expected = {_key(1): [sample for sample in samples if sample[1] != STALE_BITS]}
        with closing(_streaming(running.url)) as streaming:
            for way in (RemoteRead(streaming), RawQuery(streaming)):
                assert _collected(way.stretches(XID, {}, now_ms, now_ms + 3_600_000)) == expected


@pytest.mark.prometheus
@pytest.mark.parametrize("length", SLICES, ids=str)
def test_victoriametrics_brings_what_was_imported_by_its_export(victoria: str, length: timedelta) -> None:
    expected = {_key(number): _series(number, plain=True) for number in range(3)}
    with closing(PrometheusHistory(victoria)) as history:
        assert _collected(history.fetch([POWER], START, END, slice_length=length)) == expected
    with closing(_streaming(victoria)) as streaming:
        assert "400" in RemoteRead(streaming).missing()
        assert Export(streaming).missing() == ""
        assert _collected(RawQuery(streaming).stretches(POWER, {}, START_MS, END_MS)) == expected


@pytest.fixture(scope="module")
def victoria() -> Iterator[str]:
    with victoriametrics.RunningVictoriaMetrics(victoriametrics.require()) as running:
        lines = [
            {
                "metric": {"__name__": POWER} | _labels(number),
                "values": [_float(bits) for _, bits in _series(number, plain=True)],
                "timestamps": [at for at, _ in _series(number, plain=True)],
            }
            for number in range(3)
        ]
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        for path, data in (("/api/v1/import", body), ("/internal/force_flush", None)):
            with urllib.request.urlopen(urllib.request.Request(running.url + path, data=data), timeout=10) as answer:
                assert answer.status in {200, 204}
        yield running.url
