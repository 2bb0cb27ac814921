"""Pickled plain data, read without running anything.

A pickle is a program. This reads the thirty instructions that build None, booleans, numbers, text, lists, tuples and
dicts, at protocol 2 and later, and refuses all others by name: those that import, call, or restore an object do not
exist here. What is built is bounded in bytes, objects and depth, and never contains itself: a container that has a
place in another one cannot be changed any more. So no input can cost more than its size.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from healer.errors import Unavailable

Plain: TypeAlias = bool | int | float | str | list["Plain"] | tuple["Plain", ...] | dict[str, "Plain"] | None

LIMIT_BYTES = 64 << 20
_MOST_STEPS = 4_000_000
_MOST_KEPT = 1_000_000
_DEEPEST = 32
_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Bounds:
    """Attributes:
    size: in bytes.
    steps: instructions; each makes at most one object.
    kept: containers, and as many values that are kept to be recalled.
    depth: of containers in containers.
    """

    size: int = LIMIT_BYTES
    steps: int = _MOST_STEPS
    kept: int = _MOST_KEPT
    depth: int = _DEEPEST


def read_plain(data: bytes, *, name: str, bounds: Bounds | None = None) -> Plain:
    """The value that is pickled. Raises Unavailable, naming `name` and what is refused."""
    bounds = bounds or Bounds()
    if len(data) > bounds.size:
        raise Unavailable(name, f"has {len(data)} bytes; more than {bounds.size} are not read")
    try:
        return _Machine(data, bounds).run()
    except _Refused as error:
        raise Unavailable(name, f"is no plain pickle: {error}; nothing of it was run") from None


class _Refused(Exception):
    """Why this pickle is not read any further."""


class _Mark:
    __slots__ = ()


_MARK = _Mark()
_Item: TypeAlias = "Plain | _Mark"


class _Machine:
    """Pickle's stack machine, with the instructions of `_STEPS` and no others."""

    def __init__(self, data: bytes, bounds: Bounds) -> None:
        self.data = data
        self.at = 0
        self.bounds = bounds
        self.stack: list[_Item] = []
        self.memo: dict[int, Plain] = {}
        self.depths: dict[int, int] = {}  # of every container, by its id: none of them is freed before the end
        self.placed: set[int] = set()  # those that are part of another one
        self.kept: list[Plain] = []  # so that ids stay theirs

    def run(self) -> Plain:
        data, size = self.data, len(self.data)
        for _ in range(self.bounds.steps):
            if self.at >= size:
                raise _Refused("it ends without STOP")
            code = data[self.at]
            self.at += 1
            if code == _STOP:
                return self.value()
            step = _STEPS[code]
            if step is None:
                raise _Refused(self.what_is_refused(code))
            step(self)
        raise _Refused(f"it has more than {self.bounds.steps} instructions")

    def what_is_refused(self, code: int) -> str:
        """The instruction by name, and what it would have imported."""
        name = _NAMES.get(code)
        if name is None:
            return f"the byte 0x{code:02x} at {self.at - 1} is no instruction"
        told = ""
        if name in {"GLOBAL", "INST"}:
            lines = self.data[self.at : self.at + 2 * _LONGEST_SHOWN].decode("utf-8", "replace").split("\n")
            told = ".".join(lines[:2])
        elif name == "STACK_GLOBAL":
            told = ".".join(part for part in self.stack[-2:] if isinstance(part, str))
        shown = "".join(c for c in told if c.isprintable())[:_LONGEST_SHOWN]
        return f"{name}{f' of {shown}' if shown else ''} at byte {self.at - 1} is not allowed"

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) < count:
            raise _Refused(f"it ends within a value of {count} bytes")
        self.at += count
        return taken

    def number(self, count: int) -> int:
        if count == 1 and self.at < len(self.data):  # by far the most
            self.at += 1
            return self.data[self.at - 1]
        return int.from_bytes(self.take(count), "little")

    def value(self) -> Plain:
        if not self.stack or isinstance(item := self.stack.pop(), _Mark):
            raise _Refused(f"a value is missing before byte {self.at}")
        return item

    def top(self) -> Plain:
        if not self.stack or isinstance(item := self.stack[-1], _Mark):
            raise _Refused(f"a value is missing before byte {self.at}")
        return item

    def since_mark(self) -> list[Plain]:
        found: list[Plain] = []
        while self.stack:
            item = self.stack.pop()
            if isinstance(item, _Mark):
                found.reverse()
                return found
            found.append(item)
        raise _Refused(f"a mark is missing before byte {self.at}")

    def new(self, container: Plain) -> None:
        if len(self.kept) >= self.bounds.kept:
            raise _Refused(f"it has more than {self.bounds.kept} containers")
        self.kept.append(container)
        self.depths[id(container)] = 1
        self.stack.append(container)

    def place(self, container: Plain, parts: list[Plain]) -> None:
        """Note that `parts` are in `container` now; neither they, nor what has a place already, change any more."""
        containers = self.depths.keys() & set(map(id, parts))
        self.placed |= containers
        if id(container) in self.placed:
            raise _Refused(f"a container is changed where it is already part of another, before byte {self.at}")
        depth = max(self.depths[id(container)], 1 + max((self.depths[part] for part in containers), default=0))
        if depth > self.bounds.depth:
            raise _Refused(f"it is nested more than {self.bounds.depth} deep")
        self.depths[id(container)] = depth

    def add(self, parts: list[Plain]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise _Refused(f"something is appended to what is no list, before byte {self.at}")
        self.place(target, parts)
        target.extend(parts)

    def assign(self, parts: list[Plain]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(parts) % 2:
            raise _Refused(f"keys and values do not make a dict, before byte {self.at}")
        keys, values = parts[::2], parts[1::2]
        self.place(target, values)
        for key, value in zip(keys, values, strict=True):
            if not isinstance(key, str):  # numbers can be chosen so that they all fall into one place of the dict
                raise _Refused(f"a key is no text, before byte {self.at}")
            target[key] = value

    def tuple_of(self, parts: list[Plain]) -> None:
        made = tuple(parts)
        if not made:
            self.stack.append(made)
            return
        self.new(made)
        self.place(made, parts)

    def text(self, count: int) -> None:
        try:
            self.stack.append(self.take(count).decode("utf-8"))
        except UnicodeDecodeError:
            raise _Refused(f"text before byte {self.at} is not UTF-8") from None

    def keep(self, index: int) -> None:
        if len(self.memo) >= self.bounds.kept:
            raise _Refused(f"it keeps more than {self.bounds.kept} values")
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise _Refused(f"it recalls {index}, which it has not kept, before byte {self.at}")
        self.stack.append(self.memo[index])


def _protocol(m: _Machine) -> None:
    m.take(1)


def _frame(m: _Machine) -> None:
    m.take(8)


def _memoize(m: _Machine) -> None:
    m.keep(len(m.memo))


def _keep(width: int) -> Callable[[_Machine], None]:
    return lambda m: m.keep(m.number(width))


def _recall(width: int) -> Callable[[_Machine], None]:
    return lambda m: m.recall(m.number(width))


def _push(value: _Item) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(value)


def _small(width: int) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.number(width))


def _signed(m: _Machine) -> None:
    m.stack.append(int.from_bytes(m.take(4), "little", signed=True))


def _long(m: _Machine) -> None:
    m.stack.append(int.from_bytes(m.take(m.number(1)), "little", signed=True))


def _float(m: _Machine) -> None:
    m.stack.append(float(struct.unpack(">d", m.take(8))[0]))


def _text(width: int) -> Callable[[_Machine], None]:
    return lambda m: m.text(m.number(width))


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        m.tuple_of([m.value() for _ in range(count)][::-1])

    return step


def _append(m: _Machine) -> None:
    m.add([m.value()])


def _set_item(m: _Machine) -> None:
    value, key = m.value(), m.value()
    m.assign([key, value])


_STOP = ord(".")
_ALLOWED: dict[str, Callable[[_Machine], None]] = {
    "PROTO": _protocol,
    "FRAME": _frame,
    "MARK": _push(_MARK),
    "NONE": _push(None),
    "NEWTRUE": _push(True),  # noqa: FBT003  the value that is pushed
    "NEWFALSE": _push(False),  # noqa: FBT003
    "BININT": _signed,
    "BININT1": _small(1),
    "BININT2": _small(2),
    "LONG1": _long,
    "BINFLOAT": _float,
    "SHORT_BINUNICODE": _text(1),
    "BINUNICODE": _text(4),
    "BINUNICODE8": _text(8),
    "EMPTY_LIST": lambda m: m.new([]),
    "APPEND": _append,
    "APPENDS": lambda m: m.add(m.since_mark()),
    "EMPTY_DICT": lambda m: m.new({}),
    "SETITEM": _set_item,
    "SETITEMS": lambda m: m.assign(m.since_mark()),
    "EMPTY_TUPLE": _push(()),
    "TUPLE": lambda m: m.tuple_of(m.since_mark()),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "MEMOIZE": _memoize,
    "BINPUT": _keep(1),
    "LONG_BINPUT": _keep(4),
    "BINGET": _recall(1),
    "LONG_BINGET": _recall(4),
}
_NAMES = {ord(known.code): known.name for known in pickletools.opcodes}
_STEPS = [_ALLOWED.get(_NAMES.get(code, "")) for code in range(256)]
