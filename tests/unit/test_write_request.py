"""Remote write requests: the fast reading against a slow one, the identity of series, and what is refused."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.telemetry.wire.protobuf import Malformed, TooMuch
from healer.telemetry.wire.write_request import MOST_LABEL_BYTES, MOST_LABELS, MOST_SERIES, InvalidSeries, NotPlain
from tests import prompb
from tests.both_readings import check_agreement, decoded, expected, taken
from tests.prompb import Series, field, varint

_NOW_MS = 1_772_000_000_000


versions = pytest.mark.parametrize("version", [1, 2])

# What requests are made of: mostly what Prometheus writes, and now and then anything that the format allows.

_texts = st.one_of(
    st.sampled_from(
        ["job", "instance", "UUID", "gpu", "__name__", "a", "b", "x" * 127, "x" * 128, "\n\x08__name__\x12"]
    ),
    st.text(max_size=12),
)
_labels = st.lists(st.tuples(_texts, _texts), max_size=6).map(lambda pairs: tuple(sorted(dict(pairs).items())))
_named = st.builds(
    lambda labels, name: tuple(sorted({**dict(labels), "__name__": name}.items())),
    _labels,
    st.sampled_from(["up", "DCGM_FI_DEV_GPU_TEMP", "m" * 116, "é"]),
)
_values = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, prompb.STALE, float("nan"), float("inf"), 5e-324]),
    st.floats(),
    st.integers(0, (1 << 64) - 1).map(lambda bits: float(struct.unpack("<d", struct.pack("<Q", bits))[0])),
)
_stamps = st.one_of(
    st.integers(_NOW_MS - 10_000, _NOW_MS),
    st.sampled_from([0, 1, -1, (1 << 35) - 1, 1 << 35, (1 << 42) - 1, 1 << 42, -(1 << 63), (1 << 63) - 1]),
)
_usual_series = st.builds(lambda labels, value, at: Series(labels, ((value, at),)), _named, _values, _stamps)
_any_series = st.builds(
    Series,
    st.one_of(_named, _labels),
    st.lists(st.tuples(_values, _stamps), max_size=3).map(tuple),
    histograms=st.integers(0, 1),
    exemplars=st.integers(0, 2),
)
_all_series = st.lists(st.one_of(_usual_series, _usual_series, _any_series), max_size=12)

_unknown_fields = st.builds(
    lambda number, content: field(number, content) + varint((number + 1) << 3) + varint(len(content)),
    st.integers(20, 30),
    st.binary(max_size=4),
)


def _long_varint(number: int, size: int) -> bytes:
    """The number in more bytes than it needs."""
    octets = [number >> 7 * place & 0x7F for place in range(size)]
    return bytes(octet | 0x80 for octet in octets[:-1]) + bytes(octets[-1:])


@st.composite
def _odd_series_v1(draw: st.DrawFn) -> bytes:
    """A series whose parts come in any order, with unknown ones between them."""
    one = draw(_any_series)
    labels = []
    for name, value in one.labels:
        halves = [field(1, name.encode()), field(2, value.encode()), draw(_unknown_fields)]
        labels.append(field(1, b"".join(draw(st.permutations(halves)))))
    samples = [field(2, prompb.sample(*each) + draw(st.just(b"") | _unknown_fields)) for each in one.samples]
    parts = draw(st.permutations([*labels, *samples, draw(_unknown_fields)]))
    return field(1, b"".join(parts))


@st.composite
def _odd_series_v2(draw: st.DrawFn, symbols: int) -> bytes:
    """A series whose references are packed, or not, or partly, and longer than they have to be."""
    refs = draw(st.lists(st.integers(0, symbols - 1), max_size=6).filter(lambda refs: len(refs) % 2 == 0))
    numbers = [draw(st.sampled_from([varint(ref), _long_varint(ref, 2), _long_varint(ref, 3)])) for ref in refs]
    if draw(st.booleans()):
        written = [field(1, b"".join(numbers))]
    else:
        written = [draw(st.sampled_from([field(1, number), b"\x08" + number])) for number in numbers]
    values = draw(st.lists(st.tuples(_values, _stamps), max_size=2))
    samples = [field(2, prompb.sample(*each) + draw(st.sampled_from([b"", b"\x18\x05"]))) for each in values]
    between = [*samples, draw(st.sampled_from([b"", b"\x30\x07", field(5, b"\x08\x01\x18\x02"), field(4, b"")]))]
    at = draw(st.integers(0, len(written)))
    return field(5, b"".join([*written[:at], *draw(st.permutations(between)), *written[at:]]))


@st.composite
def _messages(draw: st.DrawFn) -> tuple[int, bytes]:
    version = draw(st.sampled_from([1, 2]))
    usual = draw(_all_series)
    if draw(st.booleans()):  # enough symbols that references have two bytes
        labels = (("__name__", "up"), *((f"s{number}", "") for number in range(130)))
        usual = [Series(labels, ((1.0, _NOW_MS),)), *usual]
    if version == 1:
        message = prompb.message_v1(usual)
        odd = draw(st.lists(_odd_series_v1(), max_size=3))
    else:
        message = prompb.message_v2(usual, metadata=draw(st.booleans()))
        odd = draw(st.lists(_odd_series_v2(len(prompb.symbols_of(usual))), max_size=3))
    return version, b"".join(draw(st.permutations([message, *odd, draw(_unknown_fields)])))


@settings(max_examples=300, deadline=None)
@given(_messages())
def test_the_samples_are_those_of_the_slow_reading(made: tuple[int, bytes]) -> None:
    version, message = made
    assert taken(version, message) == expected(version, message)


@settings(max_examples=300, deadline=None)
@given(_messages(), st.data())
def test_a_damaged_request_is_refused_or_read_as_the_slow_reading_does(
    made: tuple[int, bytes], data: st.DataObject
) -> None:
    version, message = made
    octets = bytearray(message)
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(octets[: data.draw(st.integers(0, len(octets)))])
    check_agreement(version, damaged)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([1, 2]), st.binary(max_size=64))
def test_what_is_no_request_is_refused_or_read_as_the_slow_reading_does(version: int, message: bytes) -> None:
    check_agreement(version, message)


_THREE = [
    prompb.series("up", 1.0, 1_772_000_000.25, job="gpu", instance="n1:9400"),
    prompb.series("DCGM_FI_DEV_GPU_TEMP", 0.0, 1_772_000_000.25, job="gpu", UUID="GPU-1"),
    prompb.series("DCGM_FI_DEV_POWER_USAGE", 613.25, 1_772_000_000.25, job="gpu", UUID="GPU-1"),
]


@versions
def test_a_request_cut_off_anywhere_but_between_its_parts_is_refused(version: int) -> None:
    message = prompb.message(version, _THREE)
    ends = set()
    at = 0
    while at < len(message):
        at += 2 + message[at + 1]
        ends.add(at)
    for cut in range(1, len(message)):
        if cut not in ends:
            with pytest.raises(Malformed):
                decoded(version, message[:cut])


@versions
def test_values_keep_every_bit_and_times_every_millisecond(version: int) -> None:
    bits = [0, 1, 0x7FF0000000000002, 0x7FF8000000000001, 0xFFF0000000000003, 0x8000000000000000, 0x3FF0000000000000]
    values = [struct.unpack("<d", struct.pack("<Q", each))[0] for each in bits]
    stamps = [_NOW_MS + number for number in range(len(bits))]
    sent = [
        Series((("__name__", "up"), ("n", str(n))), ((v, t),))
        for n, (v, t) in enumerate(zip(values, stamps, strict=True))
    ]
    several = Series((("__name__", "up"), ("n", "all")), tuple(zip(values, stamps, strict=True)))
    samples = decoded(version, prompb.message(version, [*sent, several])).samples
    # A zero without its sign is the only number that is not written.
    expected = [each if each != 1 << 63 else 0 for each in bits]
    assert samples.values.view(np.uint64).tolist() == expected * 2
    assert samples.times.tolist() == [stamp / 1000 for stamp in stamps] * 2


def _keys(version: int, all_series: Sequence[Series]) -> list[int]:
    return list(map(int, decoded(version, prompb.message(version, all_series)).keys))


@versions
def test_a_series_has_the_same_key_whatever_else_is_in_the_request_and_however_many_samples_it_has(
    version: int,
) -> None:
    alone = [_keys(version, [one])[0] for one in _THREE]
    others = [prompb.series("other", 1.0, 1.0, **{f"l{number}": f"v{number}"}) for number in range(200)]
    assert _keys(version, [*others, *_THREE])[-3:] == alone
    assert _keys(version, _THREE[::-1]) == alone[::-1]
    again = [Series(one.labels, (*one.samples, (5.0, _NOW_MS)), exemplars=1) for one in _THREE]
    assert _keys(version, again) == alone


@versions
def test_series_that_differ_have_different_keys(version: int) -> None:
    labels = [
        {"a": "x", "b": "y"},
        {"a": "y", "b": "x"},
        {"x": "a", "y": "b"},
        {"a": "xb", "b": "y"},
        {"a": "x"},
        {"b": "y"},
        {"a": "x", "b": "y", "c": ""},
        {},
    ]
    keys = _keys(version, [prompb.series(name, 1.0, 1.0, **each) for name in ("m", "n", "a") for each in labels])
    assert len(set(keys)) == len(keys)


@versions
def test_many_symbols_and_long_labels_are_read(version: int) -> None:
    """References of three bytes, lengths of two and three."""
    labels = tuple((f"n{number:05}", f"v{number:05}") for number in range(9_000))
    many = Series((("__name__", "many"), *labels), ((1.0, _NOW_MS),))
    long = Series((("__name__", "up"), ("long", "x" * 16_000)), ((2.0, _NOW_MS),))
    message = prompb.message(version, [*_THREE, many, long, *_THREE])
    assert taken(version, message) == expected(version, message)
    assert len(taken(version, message)[0]) == 4  # `many` has more labels than are taken


@versions
def test_the_outline_is_the_metric_and_the_same_for_all_metrics_with_the_same_labels(version: int) -> None:
    request = decoded(version, prompb.message(version, _THREE))
    up, temperature, power = request.outlines(np.arange(3))
    assert up is not None
    assert temperature is not None
    assert power is not None
    assert (up[0], temperature[0], power[0]) == ("up", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE")
    assert temperature[1] == power[1] != up[1]


@versions
@pytest.mark.parametrize(
    "labels",
    [
        (("a", "x"),),
        (("__name__", ""), ("a", "x")),
        (("__name__", "m"), ("__name__", "n")),
        (("__name__", "é"),),
        (("__name__", "m" * 200),),
        (("a", "\n\x08__name__\x12\x01m"),),
        (("A", "x\n\x0d\n\x08__name__\x12\x01m"), ("__name__", "real")),
    ],
    ids=[
        "no name",
        "empty name",
        "two names",
        "not ASCII",
        "long name",
        "a value like a name",
        "a value like a name before it",
    ],
)
def test_where_an_outline_could_mislead_there_is_none_or_the_right_one(
    version: int, labels: tuple[tuple[str, str], ...]
) -> None:
    request = decoded(version, prompb.message(version, [Series(labels, ((1.0, 1),))]))
    (outline,) = request.outlines(np.arange(1))
    try:
        name = request.labels(0)["__name__"]
    except InvalidSeries:
        return  # the hash of what is not allowed never comes to stand for anything
    assert outline is None or outline[0] == name


@versions
@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ((("a", "x"),), "no metric name"),
        ((("__name__", "m"), ("a", "x"), ("a", "y")), "stands twice"),
        ((("__name__", "m"), ("", "x")), "has no name"),
        ((("__name__", "m"), ("a", "x" * MOST_LABEL_BYTES)), "16384 bytes of them"),
        ((("__name__", "m"), ("a", "x" * 3 * MOST_LABEL_BYTES)), "16384 bytes of them"),
        ((("__name__", "m"), *((f"{number}", "x") for number in range(MOST_LABELS))), "more than 1000 labels"),
        ((), "no metric name"),
    ],
)
def test_labels_that_are_not_allowed_are_told(version: int, labels: tuple[tuple[str, str], ...], what: str) -> None:
    request = decoded(version, prompb.message(version, [Series(labels, ((1.0, 1),)), _THREE[0]]))
    with pytest.raises(InvalidSeries, match=what):
        request.labels(0)
    assert request.labels(1)["job"] == "gpu"


@versions
def test_a_series_without_labels_has_no_outline_whatever_names_there_are(version: int) -> None:
    request = decoded(version, prompb.message(version, [Series((), ((1.0, 1),)), Series((("__name__", "m"),))]))
    assert request.outlines(np.array([0])) == [None]
    assert request.outlines(np.array([0, 1]))[0] is None


def test_names_that_nobody_refers_to_make_no_outline() -> None:
    message = field(4, b"__name__") + field(5, field(2, prompb.sample(1.0, 1)))
    assert decoded(2, message).outlines(np.array([0])) == [None]


@versions
def test_labels_that_are_no_text_are_not_allowed(version: int) -> None:
    message = prompb.message(version, [prompb.series("up", 1.0, 1.0, a="zz")]).replace(b"zz", b"\xff\xfe")
    with pytest.raises(InvalidSeries, match="UTF-8"):
        decoded(version, message).labels(0)


def test_in_version_2_a_series_without_samples_and_histograms_is_told() -> None:
    labels = (("__name__", "m"),)
    sent = [Series(labels, exemplars=1), Series(labels, histograms=1), Series(labels, ((1.0, 1),))]
    assert list(decoded(2, prompb.message_v2(sent)).faults) == [0]


_ONE_SYMBOL = field(4, b"") + field(4, b"a")
_SAMPLE = field(2, prompb.sample(0.0, _NOW_MS))


@pytest.mark.parametrize(
    ("version", "message", "what"),
    [
        (1, b"\x0a\x05ab", r"timeseries\[0\] ends 3 bytes behind its message \(at byte 0\)"),
        (1, prompb.message_v1(_THREE[:1]) + b"\x0a\x7f", r"timeseries\[1\] ends 127 bytes behind .*at byte 69"),
        (1, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", r"timeseries\[0\] ends \d+ bytes behind"),
        (1, b"\x0a" + b"\xff" * 11, "a number does not end"),
        (1, b"\x08\x01", "timeseries has wire type 0, not 2"),
        (1, b"\x00\x00", "there is no field 0"),
        (1, b"\x8a\x00\x00", "the tag of field 1 is longer than it has to be"),
        (1, b"\x1b\x1c", "field 3 has wire type 3, which is not in use"),
        (1, field(1, b"\x10\x01"), "samples has wire type 0, not 2"),
        (1, field(1, field(2, b"\x08\x01")), "samples.value has wire type 0, not 1"),
        (1, field(1, field(2, b"\x09\x01")), "field 1 ends 7 bytes behind its message"),
        (2, field(5, b""), None),
        (2, _ONE_SYMBOL + field(5, field(1, b"\x00\x02")), r"timeseries\[0\].labels_refs: symbol 2 of 2 \(at byte 7\)"),
        (2, _ONE_SYMBOL + field(5, field(1, b"\x00\xff\xff\x7f")), "symbol 2097151 of 2"),
        (
            2,
            _ONE_SYMBOL + field(5, field(1, b"\x00\x81\x80\x80\x00") + _SAMPLE),
            r"timeseries\[0\].labels_refs: a reference of more than three bytes \(at byte 7\)",
        ),
        (2, _ONE_SYMBOL + field(5, field(1, b"\x01")), r"timeseries\[0\].labels_refs: a name without a value"),
        (
            1,
            field(1, field(1, b"\x12\x10\x09abcdef")) + field(1, prompb.sample(0.0, _NOW_MS)),
            "samples has wire type 0",
        ),
        (2, _ONE_SYMBOL + field(5, field(1, b"\x00\x81")), "does not end"),
        (2, _ONE_SYMBOL + field(5, field(1, b"\x00\x81") + _SAMPLE), "does not end"),
        (2, _ONE_SYMBOL + field(5, b"\x0a\xff\x7d"), r"field 1 ends \d+ bytes behind"),
        (2, _ONE_SYMBOL + field(5, b"\x0d\x00\x00\x00\x00"), "labels_refs has wire type 5, not 2"),
        (2, b"\x20\x01", "symbols has wire type 0, not 2"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(version: int, message: bytes, what: str | None) -> None:
    if what is None:
        assert not len(decoded(version, message).samples.values)
        return
    with pytest.raises(Malformed, match=what):
        decoded(version, message)


def test_what_is_wrong_inside_a_label_is_told_when_the_series_is_met() -> None:
    for label in (b"\x0a\x05ab", b"\x08\x01"):
        message = field(1, field(1, label) + field(2, prompb.sample(1.0, _NOW_MS)))
        with pytest.raises(Malformed):
            decoded(1, message).labels(0)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (1, b"\x0a\x00" * (MOST_SERIES + 1)),
        (1, b"\x10\x00" * (MOST_SERIES + 1)),
        (1, b"\x0a\x00\x10\x00" * (MOST_SERIES + 1)),
        (1, field(1, b"\x12\x00" * (MOST_SERIES + 1))),
        (1, field(1, b"\x28\x00" * (4 * MOST_SERIES + 1))),
        (2, field(5, b"\x38\x00" * (4 * MOST_SERIES + 1))),
        (2, b"\x2a\x00" * (MOST_SERIES + 1)),
        (2, b"\x22\x00" * ((1 << 21) + 1)),
        (2, field(4, b"") + field(5, b"\x12\x00" * (MOST_SERIES + 1))),
    ],
    ids=[
        "series",
        "unknown fields",
        "both in turn",
        "samples",
        "fields of a series",
        "fields of a series 2.0",
        "series 2.0",
        "symbols",
        "samples 2.0",
    ],
)
def test_too_much_in_one_request_is_refused(version: int, message: bytes) -> None:
    with pytest.raises(TooMuch, match="more than"):
        decoded(version, message)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (1, field(1, b"\x0a\x02\x0a\x00" * (2 << 20) + _SAMPLE)),
        (1, field(1, b"\x12\x00" + b"\x0a\x02\x0a\x00" * (2 << 20))),
        (1, (field(1, b"\x0a\x00" + _SAMPLE)) * MOST_SERIES),
        (1, field(1, field(1, field(2, bytes(8 << 20))) + _SAMPLE)),
        (2, field(4, b"") + field(5, field(1, bytes(7 << 20)) + _SAMPLE)),
        (2, field(4, b"") + field(5, field(1, bytes(9 << 20)) + _SAMPLE)),
        (2, field(4, b"") + field(5, field(1, b"\x80\x00" * (3 << 20)) + _SAMPLE)),
        (2, field(4, b"") + field(5, field(1, bytes(36)) + _SAMPLE) * 150_000),
        (2, field(4, b"x" * (8 << 20)) + field(5, field(1, b"\x00\x00") + _SAMPLE) * 100_000),
    ],
    ids=[
        "labels",
        "labels behind a sample",
        "series",
        "a long label",
        "references",
        "more references",
        "long references",
        "series of many references",
        "a long symbol",
    ],
)
def test_no_request_takes_much_more_memory_than_it_is_long(version: int, message: bytes) -> None:
    tracemalloc.start()
    try:
        with contextlib.suppress(TooMuch, Malformed, NotPlain):
            request = decoded(version, message)
            request.outlines(np.arange(min(len(request.keys), 1000)))
            with contextlib.suppress(InvalidSeries):
                request.labels(0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50 * len(message) + (32 << 20), f"{peak >> 20} MiB"


@versions
def test_an_empty_request_brings_nothing(version: int) -> None:
    assert not len(decoded(version, b"").keys)
