"""Label sets that are stored once: a hundred thousand GPUs with thirty metrics each are a hundred thousand sets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import overload

from healer.domain.reading import Labels

_BYTES_PER_SET, _BYTES_PER_LABEL = 200, 80  # of Python's, beside the text


class LabelSets(Sequence[Labels]):
    """Append-only; equal sets have the same number. Labels that nobody reads are left out, if `kept` is given.

    Attributes:
        kept: the names of the labels that matter; `exported_` in front of one of them is kept, too. None keeps all.
        size_bytes: the memory that they take, at most.
    """

    def __init__(self, kept: frozenset[str] | None = None) -> None:
        self.kept = kept
        self.size_bytes = 0
        self._sets: list[Labels] = []
        self._numbers: dict[int, int] = {}

    def add(self, labels: Labels) -> int:
        """The number of the set, `__name__` left out; a new one if it was not there."""
        kept = {
            sys.intern(name): sys.intern(value)
            for name, value in sorted(labels.items())
            if name != "__name__" and value and self._matters(name)
        }
        fingerprint = hash(tuple(kept.items()))
        while (number := self._numbers.get(fingerprint)) is not None:
            if self._sets[number] == kept:
                return number
            fingerprint += 1
        self._numbers[fingerprint] = len(self._sets)
        self._sets.append(kept)
        text = sum(len(name) + len(value) for name, value in kept.items())
        self.size_bytes += _BYTES_PER_SET + _BYTES_PER_LABEL * len(kept) + text
        return len(self._sets) - 1

    def _matters(self, name: str) -> bool:
        if self.kept is None or name in self.kept:
            return True
        while name.startswith("exported_"):
            name = name.removeprefix("exported_")
        return name in self.kept

    @overload
    def __getitem__(self, index: int) -> Labels: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Labels]: ...
    def __getitem__(self, index: int | slice) -> Labels | Sequence[Labels]:
        return self._sets[index]

    def __len__(self) -> int:
        return len(self._sets)
