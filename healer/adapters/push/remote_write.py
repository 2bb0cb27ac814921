"""Telemetry that a Prometheus, or an agent that speaks like one, pushes to us: the remote write receiver, 1.0 and 2.0.

A request becomes samples of the head at once and is then forgotten; a turn reads the head. Nothing is queued here: what
cannot be taken at once is answered with 503 and Retry-After, and the sender, which keeps its samples, sends it again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http import HTTPStatus

import cramjam
import numpy as np

from healer.domain.reading import Reading
from healer.errors import HealerError, Unavailable
from healer.telemetry.catalogue.signals import SPELLINGS
from healer.telemetry.catalogue.site import READ_METRICS
from healer.telemetry.wire import write_v1, write_v2
from healer.telemetry.wire.label_sets import LabelSets
from healer.telemetry.wire.numbers import UNKNOWN, Numbers
from healer.telemetry.wire.protobuf import PADDING, Ints, Malformed, TooMuch, varint
from healer.telemetry.wire.series import NO_ROOM, UP, Head
from healer.telemetry.wire.write_request import InvalidSeries, NotPlain, Samples, WriteRequest

_Decode = Callable[[bytes, int], WriteRequest]

_DECODERS: Mapping[str, _Decode] = {write_v1.MESSAGE: write_v1.decode, write_v2.MESSAGE: write_v2.decode}
_MEDIA_TYPE = "application/x-protobuf"
_LONGEST_PREAMBLE = 5  # snappy says how long its content is in a number of at most 32 bits
_KEPT_SCRATCH_BYTES = 4 << 20
_MOST_KNOWN_SETS = 2_000_000
_FAULTY = -4  # the number of a series that is not allowed
_FORGET_AFTER = timedelta(minutes=10)
_BEHIND_S = 60.0
_RETRY_AFTER_S = 1
_FAULTS_SAID = 3
_HOW_TO_SEND = (
    "add `remote_write: [{url: 'http://HOST:PORT/api/v1/write'}]`, with the address of this process, to prometheus.yml"
)


@dataclass(frozen=True, slots=True)
class WriteAnswer:
    """What to answer over HTTP; `text` is empty when all is well."""

    status: int
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counts:
    """Since the process started.

    Attributes:
        series: how many are known now, of metrics that are read.
        taken, late: samples of these, and how many of them were older than what was there.
        early, refused: samples that were left out, from the future or of series without room.
    """

    series: int
    taken: int
    late: int
    early: int
    refused: int


class _Refused(HealerError):
    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class RemoteWrite:
    """Attributes:
    wanted: the metrics that are kept; all others are accepted and forgotten.
    kept_labels: see LabelSets.
    lookback: how old a sample may be to be shown.
    limit_bytes: of one request, compressed and decompressed.
    most_waiting: requests that are decoded or wait for it, of which one is decoded at a time.
    """

    name = "remote_write"

    def __init__(
        self,
        *,
        wanted: Collection[str] = (*READ_METRICS, "rack_power_watts"),
        kept_labels: frozenset[str] | None = None,
        lookback: timedelta = timedelta(minutes=5),
        most_series: int = 6_000_000,
        limit_bytes: int = 32 << 20,
        most_waiting: int = 16,
    ) -> None:
        forget_after = max(_FORGET_AFTER, 2 * lookback)
        self._head = Head(wanted, kept=kept_labels, most_series=most_series, forget_after=forget_after)
        self._lookback = lookback
        self._limit_bytes = limit_bytes
        self._most_waiting = most_waiting
        self._known = _KnownSets(self._head)
        self._scratch = bytearray()
        self._decoding = threading.Lock()  # the interpreter decodes one at a time anyway: so memory is for one only
        self._counting = threading.Lock()
        self._waiting = 0
        self._received_at: datetime | None = None
        self._newest_s = -np.inf

    def close(self) -> None:
        """Nothing is open."""

    def read(self, at: datetime) -> Reading:
        """The newest samples. Raises Unavailable, with what to do, when no GPU is among them."""
        reading = self._head.reading(at, self._lookback)
        if not any(column.metric in SPELLINGS for column in reading.columns):
            raise Unavailable(self.name, self._why_nothing(at, reading))
        return replace(reading, warnings=(*reading.warnings, *self._doubts(at)))

    def counts(self) -> Counts:
        head = self._head
        with head.lock:
            return Counts(len(head), head.taken, head.late, head.early, head.refused)

    def receive(self, headers: Mapping[str, str], body: bytes, now: datetime) -> WriteAnswer:
        """Take one request in. May be called by any thread."""
        with self._counting:
            if self._waiting >= self._most_waiting:
                return _overloaded(f"{self._waiting} requests are waiting")
            self._waiting += 1
        try:
            decode = _decoder(headers)
            with self._decoding:
                return self._take_in(decode, *self._decompressed(body), now)
        except _Refused as error:
            return WriteAnswer(error.status, f"{error}\n")
        except TooMuch as error:
            return WriteAnswer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{error}\n")
        except Malformed as error:
            return WriteAnswer(HTTPStatus.BAD_REQUEST, f"the request does not decode: {error}\n")
        finally:
            with self._counting:
                self._waiting -= 1

    def _decompressed(self, body: bytes) -> tuple[bytes, int]:
        """The message with its padding, and its length."""
        if len(body) > self._limit_bytes:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large("its body", len(body)))
        size, _ = varint(body, 0, min(len(body), _LONGEST_PREAMBLE))
        if size > self._limit_bytes:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large("its content", size))
        scratch = self._scratch
        if len(scratch) < size + PADDING:
            scratch = bytearray(size + PADDING)
            if len(scratch) <= _KEPT_SCRATCH_BYTES:
                self._scratch = scratch
        try:
            cramjam.snappy.decompress_raw_into(body, scratch)
        except cramjam.DecompressionError as error:
            raise Malformed(f"it is not compressed by snappy in its block format: {error}", 0) from None
        scratch[size : size + PADDING] = bytes(PADDING)
        with memoryview(scratch) as view:
            return bytes(view[: size + PADDING]), size

    def _take_in(self, decode: _Decode, data: bytes, size: int, now: datetime) -> WriteAnswer:
        request = decode(data, size)
        with self._head.lock:
            try:
                numbers, faults = self._numbers(request, now)
            except NotPlain:
                request = write_v1.decode(data, size, plain=False)
                numbers, faults = self._numbers(request, now)
            return self._put(request.samples, numbers, faults, now)

    def _numbers(self, request: WriteRequest, now: datetime) -> tuple[Ints, Mapping[int, str]]:
        """(n_series,) the number of each series in the head, and why some have none, by series."""
        numbers = self._head.numbers.find(request.keys)
        faults = dict(request.faults)
        unknown = numbers == UNKNOWN
        if unknown.any():
            # What would be forgotten at once need not be met: a sender that replays its log sends much of that.
            recent = np.zeros(len(numbers), dtype=np.bool_)
            oldest = now.timestamp() - self._head.forget_after.total_seconds()
            recent[request.samples.series[request.samples.times >= oldest]] = True
            self._meet(request, np.flatnonzero(unknown & recent), numbers, faults)
        if faults:
            numbers[list(faults)] = _FAULTY
        return numbers, faults

    def _meet(self, request: WriteRequest, series: Ints, numbers: Ints, faults: dict[int, str]) -> None:
        self._known.renew()
        met: dict[int, int] = {}
        keys = request.keys[series].tolist()
        for one, key, outline in zip(series.tolist(), keys, request.outlines(series), strict=True):
            number = met.get(key)
            if number is None:
                try:
                    number = self._known.register(request, one, key, outline)
                except InvalidSeries as error:
                    faults[one] = str(error)
                    continue
                met[key] = number
            numbers[one] = number

    def _put(self, samples: Samples, numbers: Ints, faults: Mapping[int, str], now: datetime) -> WriteAnswer:
        head = self._head
        early, refused = head.early, head.refused
        series = numbers[samples.series]
        head.put(series, samples.values, samples.times, now)
        early, refused = head.early - early, head.refused - refused
        self._received_at = now
        timely = samples.times[samples.times <= now.timestamp() + _BEHIND_S]
        self._newest_s = float(max(self._newest_s, timely.max(initial=-np.inf)))
        why = [f"{early} are from the future: check the clocks"] if early else []
        if refused:
            why.append(f"{refused} are of new series, of which there is no room for more than {len(head)}")
        if faults:
            why += list(faults.values())[:_FAULTS_SAID]
        lost = early + refused + int(np.count_nonzero(series == _FAULTY))
        written = {
            "X-Prometheus-Remote-Write-Samples-Written": str(len(series) - lost),
            "X-Prometheus-Remote-Write-Histograms-Written": str(samples.histograms),
            "X-Prometheus-Remote-Write-Exemplars-Written": str(samples.exemplars),
        }
        if not why:
            return WriteAnswer(HTTPStatus.NO_CONTENT, headers=written)
        text = f"{lost} of {len(series)} samples were not taken, the others were; " + "; ".join(why)
        return WriteAnswer(HTTPStatus.BAD_REQUEST, f"{text}\n", written)

    def _too_large(self, what: str, size: int) -> str:
        limit = f"{self._limit_bytes >> 20} MiB"
        return f"a request is too large: {what} has {size} bytes, of at most {limit}; lower max_samples_per_send"

    def _why_nothing(self, at: datetime, reading: Reading) -> str:
        if self._received_at is None:
            return f"nothing was received yet; {_HOW_TO_SEND}"
        quiet_s = (at - self._received_at).total_seconds()
        if quiet_s > self._lookback.total_seconds():
            return f"nothing was received for {quiet_s:.0f} s; look at the sender's log, and whether it can reach us"
        behind_s = at.timestamp() - self._newest_s
        if behind_s > self._lookback.total_seconds():
            return f"what is received is {behind_s:.0f} s old: the sender is behind; look at its remote storage metrics"
        if reading.silent:
            return f"none of {len(reading.silent)} targets could be scraped: {', '.join(reading.silent[:_FAULTS_SAID])}"
        return "what is received shows no GPU; check the sender's scrape_configs and write_relabel_configs"

    def _doubts(self, at: datetime) -> tuple[str, ...]:
        said = []
        behind_s = at.timestamp() - self._newest_s
        if behind_s > _BEHIND_S:
            said.append(f"{self.name}: the newest sample is {behind_s:.0f} s old; the sender is behind, or gone")
        if not self._head.has(UP):
            lost = "a dead exporter cannot be told from GPUs that are gone"
            said.append(f"{self.name}: `up` is not received, and without it {lost}; keep it in write_relabel_configs")
        return tuple(said)


class _KnownSets:
    """The label sets of the head, by what requests say: all metrics of one GPU have the same labels but their names."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._numbers = Numbers()
        self._of: LabelSets = head.label_sets

    def renew(self) -> None:
        """Before registering: the head may have renumbered its sets."""
        if self._of is not self._head.label_sets or len(self._numbers) > _MOST_KNOWN_SETS:
            self._of, self._numbers = self._head.label_sets, Numbers()

    def register(self, request: WriteRequest, series: int, key: int, outline: tuple[str, int] | None) -> int:
        """The number of a series that was never seen. Raises InvalidSeries, Malformed or NotPlain."""
        if outline is None:
            return self._head.register(key, request.labels(series))
        metric, rest = outline
        if self._head.refuses(metric):
            return NO_ROOM
        known = self._numbers.get(rest)
        if known is not None:
            return self._head.register_in(key, metric, known)
        number = self._head.register(key, request.labels(series))
        if number >= 0:
            self._numbers.set(rest, self._head.label_set_of(number))
        return number


def _decoder(headers: Mapping[str, str]) -> _Decode:
    """By the content's type and encoding. What is left out is what version 1.0 is sent with."""
    encoding = _header(headers, "content-encoding") or "snappy"
    if encoding.lower() != "snappy":
        text = f"the content encoding {encoding!r} is not supported; send snappy, in its block format"
        raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, text)
    media, *parameters = (_header(headers, "content-type") or _MEDIA_TYPE).split(";")
    named = dict(_parameter(text) for text in parameters)
    decode = _DECODERS.get(named.get("proto", write_v1.MESSAGE))
    if media.strip().lower() != _MEDIA_TYPE or decode is None:
        text = f"the content type {_header(headers, 'content-type')!r} is not supported; send {_MEDIA_TYPE}"
        raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{text} with proto={' or '.join(_DECODERS)}")
    return decode


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip().strip('"')


def _header(headers: Mapping[str, str], name: str) -> str:
    """Whatever its case: an HTTP framework's mapping may or may not care."""
    found = headers.get(name)
    if found is None:
        found = next((value for key, value in headers.items() if key.lower() == name), "")
    return found.strip()


def _overloaded(what: str) -> WriteAnswer:
    """503 and not 429, on which a Prometheus that is not told otherwise throws its samples away."""
    retry = {"Retry-After": str(_RETRY_AFTER_S)}
    return WriteAnswer(HTTPStatus.SERVICE_UNAVAILABLE, f"{what}; send it again\n", retry)
