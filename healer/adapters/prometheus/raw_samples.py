"""Stored samples as JSON, from servers that offer no remote read: as a query's matrix, and as VictoriaMetrics' export.

Numbers travel as text here, so a NaN loses its bits; they are put back as Prometheus stores the NaN that an exporter
shows. The rest is exact: both sides write the shortest text that gives the same number back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TypeVar

import msgspec
import numpy as np

from healer.adapters.http.stream import StreamedAnswer, StreamingServer
from healer.adapters.prometheus.remote_read import NOT_OFFERED
from healer.decoding import decode
from healer.domain.reading import Labels
from healer.errors import Unavailable
from healer.telemetry.history import PLAIN_NAN_BITS, Floats, Ints, Stretch, stretch_of

_MOST_ANSWER_BYTES = 32 << 20
_MOST_LINE_BYTES = 64 << 20
_MOST_SAMPLES = 1 << 20
_SHORTEST_MS = 60_000
_MOST_WARNINGS = 10
_NOWHERE = '{__name__="healer_probe"}'  # no metric has this name
_LINES = "application/stream+json"
_UNPROCESSABLE = 422

_T = TypeVar("_T")
_Points = list[tuple[Labels, Ints, Floats]]


class _Series(msgspec.Struct):
    metric: dict[str, str]
    values: msgspec.Raw = msgspec.Raw(b"[]")
    histograms: msgspec.Raw = msgspec.Raw(b"")


class _Matrix(msgspec.Struct, rename="camel"):
    result_type: str
    result: list[_Series]


class _Envelope(msgspec.Struct, rename="camel"):
    status: str
    data: msgspec.Raw = msgspec.Raw(b"")
    error: str = ""
    warnings: list[str] = []
    is_partial: bool = False


class _Line(msgspec.Struct):
    metric: dict[str, str]
    values: list[float | str | None]
    timestamps: list[int]


class _TooMuch(Exception):
    """The server, or we, will not take this many samples in one answer."""


class RawQuery:
    """A range selector at one instant brings the samples of the range: what every server with PromQL can do.

    The server writes, and we hold, a whole answer at once; where that is too much, the span is halved until it is not.
    """

    name = "queries"

    def __init__(self, server: StreamingServer) -> None:
        self._server = server
        self._span_ms: dict[str, int] = {}  # by metric, what proved to be not too much

    def missing(self) -> str:
        """Why this server does not offer it, "" if it does. Raises Unavailable or Rejected where neither is known."""
        with self._server.get("/api/v1/query", {"query": f"{_NOWHERE}[1ms]", "time": "0"}) as answer:
            if answer.status in NOT_OFFERED:
                return f"says {answer.status}"
            self._matrix(_limited(answer), answer.status, "a query")
        return ""

    def stretches(self, metric: str, labels: Labels, start_ms: int, end_ms: int) -> Iterator[Stretch]:
        """All samples of the metric's series that have these labels, with `start_ms` <= time < `end_ms`."""
        while start_ms < end_ms:
            until_ms = min(end_ms, start_ms + self._span_ms.get(metric, end_ms - start_ms))
            try:
                stretch = self._stretch(metric, labels, (start_ms, until_ms))
            except _TooMuch as error:
                if until_ms - start_ms <= _SHORTEST_MS:
                    text = f"cannot bring one minute of {metric} in one answer ({error}); raise its limits"
                    raise Unavailable(self._server.component, text) from None
                self._span_ms[metric] = max((until_ms - start_ms) // 2, _SHORTEST_MS)
                continue
            if stretch.labels or stretch.warnings:
                yield stretch
            start_ms = until_ms

    def _stretch(self, metric: str, labels: Labels, span_ms: tuple[int, int]) -> Stretch:
        start_ms, end_ms = span_ms
        # Up to Prometheus 2 a range includes its start, from 3 on it does not: the one sample more is cut off.
        asked = {"query": f"{_selector(metric, labels)}[{end_ms - start_ms}ms]", "time": _seconds(end_ms - 1)}
        subject = f"a query for {metric}"
        with self._server.get("/api/v1/query", asked) as answer:
            envelope, matrix = self._matrix(_limited(answer), answer.status, subject)
        points = [self._points(series, subject) for series in matrix.result]
        left_out = sum(bool(series.histograms) for series in matrix.result)
        warnings = _warnings(envelope)
        if left_out:
            warnings += (f"{metric}: the native histograms of {left_out} series were left out",)
        return _joined(metric, span_ms, points, warnings=warnings)

    def _matrix(self, body: bytes, status: int, subject: str) -> tuple[_Envelope, _Matrix]:
        if status == _UNPROCESSABLE:
            raise _TooMuch(_reason(body) or str(status))
        if status != 200:
            raise self._server.refusal(status, _reason(body), subject)
        envelope = _decoded(self._server, body, _Envelope, subject)
        if envelope.status != "success":
            text = f"could not answer {subject} ({envelope.error[:300] or envelope.status}); check its load and its log"
            raise Unavailable(self._server.component, text)
        matrix = _decoded(self._server, envelope.data, _Matrix, subject)
        if matrix.result_type != "matrix":
            raise _nonsense(self._server, subject, f"a {matrix.result_type[:40]} instead of a matrix")
        return envelope, matrix

    def _points(self, series: _Series, subject: str) -> tuple[Labels, Ints, Floats]:
        pairs = _decoded(self._server, series.values, list[tuple[float, str]], subject)
        try:
            values = np.array([float(text) for _, text in pairs], dtype=np.float64)
        except ValueError:
            raise _nonsense(self._server, subject, "a value that is not a number") from None
        stamps = np.array([stamp for stamp, _ in pairs], dtype=np.float64) * 1000
        if not (np.abs(stamps) < 1 << 53).all():
            raise _nonsense(self._server, subject, "a time that is none")
        values.view(np.int64)[np.isnan(values)] = PLAIN_NAN_BITS
        return _without_name(series.metric), np.rint(stamps).astype(np.int64), values


class Export:
    """VictoriaMetrics' own way: one line of JSON for each series.

    It does not store any NaN but stale markers, and tells of those as null. What it has rounded when it stored it, such
    as -0 or the last bits of 0.1 + 0.2, nobody can bring back.
    """

    name = "export"

    def __init__(self, server: StreamingServer) -> None:
        self._server = server

    def missing(self) -> str:
        """Why this server does not offer it, "" if it does. Raises Unavailable or Rejected where neither is known."""
        with self._server.get("/api/v1/export", {"match[]": _NOWHERE, "start": "0", "end": "1"}) as answer:
            if answer.status == 200:
                return "" if answer.content_type == _LINES else f"answers {answer.content_type or 'of no type'}"
            if answer.status in NOT_OFFERED:
                return f"says {answer.status}"
            raise self._server.refusal(answer.status, answer.text(), self.name)

    def stretches(self, metric: str, labels: Labels, start_ms: int, end_ms: int) -> Iterator[Stretch]:
        """All samples of the metric's series that have these labels, with `start_ms` <= time < `end_ms`."""
        subject = f"an export of {metric}"
        span = {"start": _seconds(start_ms), "end": _seconds(end_ms - 1)}
        points: _Points = []
        samples = 0
        with self._server.get("/api/v1/export", {"match[]": _selector(metric, labels), **span}) as answer:
            if answer.status != 200:
                raise self._server.refusal(answer.status, answer.text(), subject)
            for line in self._lines(answer, subject):
                points.append(self._points(line, subject))
                samples += len(points[-1][1])
                if samples >= _MOST_SAMPLES:
                    yield _joined(metric, (start_ms, end_ms), points)
                    points, samples = [], 0
        if samples:
            yield _joined(metric, (start_ms, end_ms), points)

    def _lines(self, answer: StreamedAnswer, subject: str) -> Iterator[bytes]:
        """Without the empty ones. What follows the last line's end is a line, too: it will prove to be none."""
        parts: list[bytes] = []
        size = 0
        for piece in answer.pieces():
            head, *lines = piece.split(b"\n")
            parts.append(head)
            size += len(head)
            if size > _MOST_LINE_BYTES:
                raise _nonsense(self._server, subject, f"a line of more than {_MOST_LINE_BYTES >> 20} MiB")
            if lines:
                whole = [b"".join(parts), *lines[:-1]]
                yield from (line for line in whole if line)
                parts, size = [lines[-1]], len(lines[-1])
        rest = b"".join(parts)
        if rest:
            yield rest

    def _points(self, text: bytes, subject: str) -> tuple[Labels, Ints, Floats]:
        line = _decoded(self._server, text, _Line, subject)
        try:
            values = np.array(line.values, dtype=np.float64)
            stamps = np.array(line.timestamps, dtype=np.int64)
        except (ValueError, OverflowError):
            raise _nonsense(self._server, subject, "a value that is not a number") from None
        if len(values) != len(stamps):
            raise _nonsense(self._server, subject, f"{len(values)} values at {len(stamps)} times")
        ended = np.isnan(values)
        if ended.any():
            values, stamps = values[~ended], stamps[~ended]
        return _without_name(line.metric), stamps, values


def _joined(metric: str, span_ms: tuple[int, int], points: _Points, *, warnings: tuple[str, ...] = ()) -> Stretch:
    labels = [one for one, _, _ in points]
    lengths = np.array([len(stamps) for _, stamps, _ in points], dtype=np.int64)
    stamps = np.concatenate([np.zeros(0, dtype=np.int64), *(stamps for _, stamps, _ in points)])
    values = np.concatenate([np.zeros(0), *(values for _, _, values in points)])
    return stretch_of(metric, span_ms, labels, (lengths, stamps, values), warnings=warnings)


def _limited(answer: StreamedAnswer) -> bytes:
    parts: list[bytes] = []
    size = 0
    for piece in answer.pieces():
        parts.append(piece)
        size += len(piece)
        if size > _MOST_ANSWER_BYTES:
            raise _TooMuch(f"an answer of more than {_MOST_ANSWER_BYTES >> 20} MiB")
    return b"".join(parts)


def _selector(metric: str, labels: Labels) -> str:
    # JSON's escapes are understood in a PromQL string.
    pairs = (("__name__", metric), *labels.items())
    return "{" + ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in pairs) + "}"


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}"


def _without_name(labels: dict[str, str]) -> dict[str, str]:
    labels.pop("__name__", None)
    return labels


def _warnings(envelope: _Envelope) -> tuple[str, ...]:
    partial = ("prometheus: the answer is partial",) if envelope.is_partial else ()
    return partial + tuple(f"prometheus: {text[:300]}" for text in envelope.warnings[:_MOST_WARNINGS])


def _reason(body: bytes) -> str:
    """The server's own words, as far as it is one that sends an error as JSON."""
    try:
        return decode(body, _Envelope).error[:300]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _decoded(server: StreamingServer, body: bytes | msgspec.Raw, wanted: type[_T], subject: str) -> _T:
    try:
        return decode(body, wanted)
    except msgspec.ValidationError as error:
        raise _nonsense(server, subject, f"JSON of another shape: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = " ".join(bytes(body)[-200:].decode(errors="replace").split())
        raise _nonsense(server, subject, f"no whole JSON, which ends with {said!r}") from None


def _nonsense(server: StreamingServer, subject: str, what: str) -> Unavailable:
    return Unavailable(server.component, f"answered {subject} with {what}; check it, and what stands before it")
