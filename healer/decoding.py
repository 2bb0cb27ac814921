"""JSON and plain objects as typed values, in any thread.

msgspec keeps what it has learnt of a type on the type itself, and puts it there before it is complete (0.22): two
threads that meet a type for the first time at once crash the process. So each type is learnt once, under a lock, before
anything is decoded by it; msgspec's own `decode`, `convert` and `Decoder` take a type nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast, overload

import msgspec

_T = TypeVar("_T")
_Json = bytes | bytearray | memoryview | str | msgspec.Raw

_learning = threading.RLock()


def decoder_of(kind: type[_T], *, strict: bool = True) -> msgspec.json.Decoder[_T]:
    """The one decoder of that type."""
    return cast("msgspec.json.Decoder[_T]", _decoder(cast("Hashable", kind), strict))


@cache
def _decoder(kind: Hashable, strict: bool) -> msgspec.json.Decoder[Any]:  # noqa: FBT001
    with _learning:
        return msgspec.json.Decoder(kind, strict=strict)


@overload
def decode(data: _Json, kind: type[_T], *, strict: bool = True) -> _T: ...
@overload
def decode(data: _Json, kind: Any, *, strict: bool = True) -> Any: ...
def decode(data: _Json, kind: Any, *, strict: bool = True) -> Any:
    """JSON as a value of that type. Raises msgspec.DecodeError, of which msgspec.ValidationError is one."""
    return decoder_of(kind, strict=strict).decode(data)


@overload
def convert(value: object, kind: type[_T], *, strict: bool = True, from_attributes: bool = False) -> _T: ...
@overload
def convert(value: object, kind: Any, *, strict: bool = True, from_attributes: bool = False) -> Any: ...
def convert(value: object, kind: Any, *, strict: bool = True, from_attributes: bool = False) -> Any:
    """A plain object as a value of that type. Raises msgspec.ValidationError."""
    decoder_of(kind)
    return msgspec.convert(value, kind, strict=strict, from_attributes=from_attributes)
