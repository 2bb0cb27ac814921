"""The JSON of a query's answer, decoded as it arrives: that of a hundred thousand GPUs never lies in memory whole.

An answer is a head, a long list of series, and a tail. A series begins with `{"metric":`, and no string can hold these
bytes, because a quote inside of a string is escaped. So whatever has arrived up to the last such place is a list of
whole series, and is decoded and handed on; at the end the head and what is left are one small document, which is
decoded like any other. A server that spaces its JSON differently is understood as well, only not in pieces.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import msgspec

from healer.decoding import decoder_of

_FIRST = b'"result":['
_NEXT = b',{"metric":'
_BATCH_BYTES = 1 << 16  # fewer at once cost more each
_LONGEST_HEAD_BYTES = 1 << 16
_MOST_PENDING_BYTES = 16 << 20  # where it cannot be decoded in pieces
_MOST_REMARKS = 10
_REMARK_LENGTH = 300

_T = TypeVar("_T")
_Row = TypeVar("_Row", bound=msgspec.Struct)


class NotAnAnswer(Exception):
    """What arrived is not what was asked for; says what it is."""


class OtherKind(NotAnAnswer):
    """The answer is well-formed, and a scalar, a string, or a matrix in place of a vector."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"a {kind[:40]}")
        self.kind = kind


class Sample(msgspec.Struct, gc=False):
    """A series of an instant query: the labels as they stand, the time of the evaluation, the value."""

    metric: msgspec.Raw
    value: tuple[float, str]


class Series(msgspec.Struct, gc=False):
    """A series of a range query."""

    metric: msgspec.Raw
    values: list[tuple[float, str]]


class Said(msgspec.Struct, rename="camel"):
    """All of an answer but its data."""

    status: str
    error_type: str = ""
    error: str = ""
    warnings: list[str] | None = None
    infos: list[str] | None = None
    is_partial: bool = False

    def remarks(self) -> tuple[str, ...]:
        """What the server has to say beside the data."""
        partial = ("prometheus: the answer is partial",) if self.is_partial else ()
        warnings = [f"prometheus: {text[:_REMARK_LENGTH]}" for text in (self.warnings or ())[:_MOST_REMARKS]]
        infos = [f"prometheus remarks: {text[:_REMARK_LENGTH]}" for text in (self.infos or ())[:_MOST_REMARKS]]
        return (*partial, *warnings, *infos)


class Envelope(Said):
    """An answer whose data is not decoded."""

    data: msgspec.Raw = msgspec.Raw(b"")


class _Result(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Rows(msgspec.Struct, Generic[_Row], rename="camel"):
    result_type: str
    result: list[_Row]


class _Table(Said, Generic[_Row]):
    data: _Rows[_Row] | None = None


class Taker(Protocol[_Row]):
    """Whoever wants the series of an answer. Both may raise NotAnAnswer."""

    def take(self, rows: list[_Row]) -> None:
        """The next series; only to be believed at the end."""

    def end(self) -> None:
        """That was all, and the answer was whole."""


class SeriesReader(Generic[_Row]):
    """Takes one answer in, in pieces of any size, and hands its series on, many at a time."""

    def __init__(self, row: type[_Row], taker: Taker[_Row], *, batch_bytes: int = _BATCH_BYTES) -> None:
        self._kind = "vector" if row is Sample else "matrix"
        self._taker = taker
        self._head = b""
        self._pending: list[bytes] = []
        self._size = 0  # of what is pending
        self._batch_bytes = self._enough = batch_bytes
        shape: Any = list[row]  # type: ignore[valid-type]
        whole: Any = _Table[row]  # type: ignore[valid-type]
        self._rows: msgspec.json.Decoder[list[_Row]] = decoder_of(shape)
        self._whole: msgspec.json.Decoder[_Table[_Row]] = decoder_of(whole)

    def feed(self, chunk: bytes) -> None:
        """Raises NotAnAnswer."""
        self._pending.append(chunk)
        self._size += len(chunk)
        if self._size < self._enough:
            return
        text = bytearray().join((b"[", *self._pending))
        cut = text.rfind(_NEXT)
        start = 0 if self._head or cut < 0 else self._behead(text, cut)
        if cut >= 0 and self._head:
            text[cut] = ord("]")
            self._keep(bytes(text[cut + 1 :]), enough=self._batch_bytes)
            self._taker.take(_decoded(self._rows, memoryview(text)[start : cut + 1]))
        elif self._size > _MOST_PENDING_BYTES:
            raise NotAnAnswer(f"more than {_MOST_PENDING_BYTES >> 20} MiB that no series ends in")
        else:
            self._keep(bytes(text[1:]), enough=2 * self._enough)

    def finish(self) -> Said:
        """What was said beside the data, which may be that there is none. Raises NotAnAnswer."""
        document = b"".join((self._head, *self._pending))
        try:
            table = _decoded(self._whole, document)
        except NotAnAnswer:
            said = decoded(document, Envelope)
            if said.status != "success":
                return said
            kind = decoded(said.data, _Result).result_type
            if kind != self._kind:
                raise OtherKind(kind) from None
            raise
        if table.status != "success":
            return table
        if table.data is None:
            raise NotAnAnswer("JSON of another shape: it has no data")
        if table.data.result_type != self._kind:
            raise OtherKind(table.data.result_type)
        self._taker.take(table.data.result)
        self._taker.end()
        return table

    def _keep(self, rest: bytes, *, enough: int) -> None:
        self._pending, self._size, self._enough = [rest], len(rest), enough

    def _behead(self, text: bytearray, before: int) -> int:
        """Where the list of series opens; remembers what is in front of it."""
        opens = text.find(_FIRST, 0, min(before, _LONGEST_HEAD_BYTES)) + len(_FIRST)
        if opens >= len(_FIRST):
            self._head = bytes(text[1:opens])
        return opens - 1


def decoded(text: bytes | memoryview | msgspec.Raw, wanted: type[_T]) -> _T:
    """Raises NotAnAnswer."""
    return _decoded(decoder_of(wanted), text)


def _decoded(decoder: msgspec.json.Decoder[_T], text: bytes | memoryview | msgspec.Raw) -> _T:
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise NotAnAnswer(f"JSON of another shape: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        is_page = bytes(memoryview(text)[:100]).lstrip().startswith(b"<")
        raise NotAnAnswer("a web page" if is_page else "no whole JSON") from error
