"""Pattern: a regular expression that takes a whole text, in time linear in the text, whatever its author wrote.

Python's own engine goes back and tries again: `(a+)+b`, typed by somebody in a hurry, would hold up every guard for
ever. Here all ways through the expression are followed side by side (Thompson 1968), and there is a bound on how many
there are. The syntax is what names need of RE2's, which Alertmanager takes: no look-around, no back references.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from healer.domain.pattern_syntax import Chars, Choice, Edge, InOrder, Node, Ranges, Repeat, parsed

LONGEST_PATTERN = 1000  # characters: an alternation of some eighty node names
_MOST_STATES = 1500


@dataclass(frozen=True, slots=True)
class _Take:
    """One character of `ranges`, then on to the state `to`."""

    ranges: Ranges
    to: int

    def takes(self, char: str) -> bool:
        return any(low <= char <= high for low, high in self.ranges)


@dataclass(frozen=True, slots=True)
class _Fork:
    to: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Hold:
    """On to `to` at the text's start, or its end, alone."""

    at_start: bool
    to: int


_State: TypeAlias = _Take | _Fork | _Hold
_ACCEPT = 0


class Pattern:
    """Made by `compiled`."""

    def __init__(self, text: str) -> None:
        """Raises ValueError with what is wrong."""
        if len(text) > LONGEST_PATTERN:
            raise ValueError(f"it is longer than {LONGEST_PATTERN} characters")
        program = _Program()
        self._start = program.add(parsed(text), _ACCEPT)
        self._states = tuple(program.states)

    def matches(self, text: str) -> bool:
        """Whether the expression takes the whole text."""
        here = self._closure((self._start,), at_start=True, at_end=not text)
        for number, char in enumerate(text, 1):
            states = (self._states[state] for state in here)
            moved = {state.to for state in states if isinstance(state, _Take) and state.takes(char)}
            if not moved:
                return False
            here = self._closure(moved, at_start=False, at_end=number == len(text))
        return _ACCEPT in here

    def _closure(self, states: Iterable[int], *, at_start: bool, at_end: bool) -> set[int]:
        """All states that are reached without taking a character."""
        seen: set[int] = set()
        waiting = list(states)
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            match self._states[number]:
                case _Fork(to):
                    waiting.extend(to)
                case _Hold(wants_start, to):
                    waiting.extend([to] * (at_start if wants_start else at_end))
                case _Take():  # pragma: no branch
                    pass
        return seen


@functools.lru_cache(maxsize=1024)
def compiled(text: str) -> Pattern:
    """Raises ValueError with what is wrong."""
    return Pattern(text)


@functools.lru_cache(maxsize=1 << 14)
def takes(pattern: str, text: str) -> bool:
    """Whether the expression takes the whole text. The same names are asked about again and again."""
    return compiled(pattern).matches(text)


class _Program:
    """States from the back to the front: each part is added with the state that comes after it."""

    def __init__(self) -> None:
        self.states: list[_State] = [_Fork(())]
        self._cost = 0

    def add(self, node: Node, to: int) -> int:
        self._cost += len(node.ranges) if isinstance(node, Chars) else 1
        if self._cost > _MOST_STATES:
            raise ValueError("it repeats too much: there would be too many ways through it")
        match node:
            case Chars(ranges):
                return self._append(_Take(ranges, to))
            case Edge(at_start):
                return self._append(_Hold(at_start, to))
            case InOrder(parts):
                for part in reversed(parts):
                    to = self.add(part, to)
                return to
            case Choice(options):
                return self._append(_Fork(tuple(self.add(option, to) for option in options)))
            case Repeat():  # pragma: no branch
                return self._repeat(node, to)

    def _repeat(self, node: Repeat, to: int) -> int:
        if node.most is None:
            loop = self._append(_Fork(()))
            self.states[loop] = _Fork((self.add(node.part, loop), to))
            to = loop
        else:
            after = to
            for _ in range(node.most - node.least):
                to = self._append(_Fork((self.add(node.part, to), after)))
        for _ in range(node.least):
            to = self.add(node.part, to)
        return to

    def _append(self, state: _State) -> int:
        self.states.append(state)
        return len(self.states) - 1
