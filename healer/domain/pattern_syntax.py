"""The syntax of patterns: an expression as the tree of its parts, or a sentence about what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

_DEEPEST = 20  # groups within groups
_MOST_TIMES = 1000
_COUNTED = re.compile(r"\{(\d{1,4})(?:(,)(\d{0,4}))?\}")
_LAST = "\U0010ffff"

Ranges: TypeAlias = tuple[tuple[str, str], ...]
_DIGITS: Ranges = (("0", "9"),)
_WORD: Ranges = (("0", "9"), ("A", "Z"), ("_", "_"), ("a", "z"))
_SPACE: Ranges = (("\t", "\r"), (" ", " "))


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of ranges, each with both of its ends."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Edge:
    """The start of the text, or its end."""

    at_start: bool


@dataclass(frozen=True, slots=True)
class InOrder:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    part: Node
    least: int
    most: int | None


Node: TypeAlias = Chars | Edge | InOrder | Choice | Repeat


def parsed(text: str) -> Node:
    """Raises ValueError with what is wrong."""
    return _Parser(text).whole()


class _Parser:
    """Recursive descent; every method raises ValueError with what is wrong."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._choice()
        if self._at < len(self._text):
            raise ValueError("there is a ) without its (")
        return node

    def _choice(self) -> Node:
        options = [self._sequence()]
        while self._took("|"):
            options.append(self._sequence())
        return Choice(tuple(options))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._next not in {"", "|", ")"}:
            parts.append(self._repeated())
        return InOrder(tuple(parts))

    def _repeated(self) -> Node:
        part = self._atom()
        times = self._times()
        if times is None:
            return part
        self._took("?")  # which way it would rather go makes no difference to a whole match
        if self._times() is not None:
            raise ValueError("a repeat is repeated; put it into a group")
        return Repeat(part, *times)

    def _times(self) -> tuple[int, int | None] | None:
        for sign, times in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._took(sign):
                return times
        if self._next != "{":
            return None
        counted = _COUNTED.match(self._text, self._at)
        if counted is None:
            raise ValueError("a { that does not count, as in {2,3}, is written \\{")
        self._at = counted.end()
        least = int(counted[1])
        most = least if counted[2] is None else (int(counted[3]) if counted[3] else None)
        if max(least, most or 0) > _MOST_TIMES or (most is not None and most < least):
            raise ValueError(f"{counted[0]} is not a range of at most {_MOST_TIMES}")
        return least, most

    def _atom(self) -> Node:
        char = self._taken()
        match char:
            case "(":
                return self._group()
            case "[":
                return self._class()
            case ".":
                return Chars(_without(()))
            case "^" | "$":
                return Edge(char == "^")
            case "*" | "+" | "?" | "{":
                raise ValueError(f"there is nothing that the {char} could repeat; the character is written \\{char}")
            case "\\":
                return Chars(self._escape())
            case _:
                return Chars(((char, char),))

    def _group(self) -> Node:
        if self._took("?") and not self._took(":"):
            raise ValueError("of groups, (...) and (?:...) are known")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"groups are nested deeper than {_DEEPEST}")
        node = self._choice()
        if not self._took(")"):
            raise ValueError("there is a ( without its )")
        self._depth -= 1
        return node

    def _class(self) -> Node:
        negated = self._took("^")
        ranges = [*self._class_item()]  # a ] that comes first stands for itself
        while not self._took("]"):
            ranges += self._class_item()
        return Chars(_without(ranges) if negated else tuple(ranges))

    def _class_item(self) -> Ranges:
        low = self._class_char()
        if self._next != "-" or self._text[self._at + 1 : self._at + 2] in {"", "]"}:
            return low
        self._at += 1
        high = self._class_char()
        if not _is_one(low) or not _is_one(high) or low > high:
            raise ValueError("a range in [...] goes from a character to a later one")
        return ((low[0][0], high[0][0]),)

    def _class_char(self) -> Ranges:
        if self._next == "":
            raise ValueError("there is a [ without its ]")
        char = self._taken()
        if char == "[":
            raise ValueError("a [ within [...] is written \\[")
        return self._escape() if char == "\\" else ((char, char),)

    def _escape(self) -> Ranges:
        char = self._taken() if self._next else ""
        for name, ranges in (("d", _DIGITS), ("w", _WORD), ("s", _SPACE)):
            if char.lower() == name:
                return ranges if char == name else _without(ranges)
        if not char or char.isalnum() or not char.isascii():
            raise ValueError(f"\\{char} is not known; of classes \\d, \\w and \\s are")
        return ((char, char),)

    @property
    def _next(self) -> str:
        """The character that comes next; empty at the end."""
        return self._text[self._at : self._at + 1]

    def _taken(self) -> str:
        char = self._next
        self._at += 1
        return char

    def _took(self, char: str) -> bool:
        took = self._next == char
        self._at += took
        return took


def _is_one(ranges: Ranges) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]


def _without(ranges: Iterable[tuple[str, str]]) -> Ranges:
    """Every character but those."""
    left: list[tuple[str, str]] = []
    lowest = 0
    for low, high in sorted(ranges):
        if lowest < ord(low):
            left.append((chr(lowest), chr(ord(low) - 1)))
        lowest = max(lowest, ord(high) + 1)
    return (*left, (chr(lowest), _LAST)) if lowest <= ord(_LAST) else tuple(left)
