"""One remote write request, read the fast way and the slow way, in a form that can be compared."""

from __future__ import annotations

from collections import Counter

import numpy as np

from healer.telemetry.wire import write_v1, write_v2
from healer.telemetry.wire.protobuf import Malformed, TooMuch, padded
from healer.telemetry.wire.write_request import MOST_LABEL_BYTES, MOST_LABELS, InvalidSeries, NotPlain, WriteRequest
from tests import slow_write_request

Sample = tuple[tuple[tuple[str, str], ...], int, float]  # labels in order, the bits of the value, unix seconds


def decoded(version: int, message: bytes, *, plain: bool = True) -> WriteRequest:
    if version == 1:
        return write_v1.decode(padded(message), len(message), plain=plain)
    return write_v2.decode(padded(message), len(message))


def taken(version: int, message: bytes) -> tuple[Counter[Sample], int, int]:
    """All samples of series that are allowed, as whoever receives the request gets them."""
    request = decoded(version, message)
    try:
        samples = _samples(request)
    except NotPlain:
        request = decoded(version, message, plain=False)
        samples = _samples(request)
    return samples, request.samples.histograms, request.samples.exemplars


def _samples(request: WriteRequest) -> Counter[Sample]:
    samples: Counter[Sample] = Counter()
    bits = request.samples.values.view(np.uint64).tolist()
    for series, value, time in zip(request.samples.series.tolist(), bits, request.samples.times.tolist(), strict=True):
        try:
            labels = request.labels(series)
        except InvalidSeries:
            continue
        if series not in request.faults:
            samples[tuple(sorted(labels.items())), value, time] += 1
    return samples


def expected(version: int, message: bytes) -> tuple[Counter[Sample], int, int]:
    found = slow_write_request.read(version, message)
    samples: Counter[Sample] = Counter()
    for one in found:
        named = dict(one.labels)
        allowed = len(named) == len(one.labels) <= MOST_LABELS and b"" not in named and named.get(b"__name__")
        if not allowed or sum(map(len, (*named, *named.values()))) > MOST_LABEL_BYTES:
            continue
        try:
            labels = tuple(sorted((name.decode(), value.decode()) for name, value in named.items()))
        except UnicodeDecodeError:
            continue
        samples.update((labels, bits, stamp / 1000.0) for bits, stamp in one.samples)
    return samples, sum(one.histograms for one in found), sum(one.exemplars for one in found)


def check_agreement(version: int, message: bytes) -> None:
    """Fails where the fast way takes something else than the slow one; it may refuse, with one of its errors."""
    try:
        fast = taken(version, message)
    except (Malformed, TooMuch):
        return
    try:
        slow = expected(version, message)
    except slow_write_request.Unreadable:
        return  # what nobody here reads is skipped by its length, and may make no sense
    assert fast == slow
