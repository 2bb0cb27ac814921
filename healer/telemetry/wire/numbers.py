"""A map from 64-bit keys to small numbers, in two arrays: 12 bytes a slot where a dict of ints takes a hundred.

Three million series must be known without being remembered one object each, and a batch of two thousand keys must be
found by a handful of array operations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

UNKNOWN = -3  # the number of a key that is not there

_FIRST_SLOTS = 1 << 11
_WINDOW = np.arange(1, 9)  # the slots behind the first that are looked at together
_SPREAD = np.int64(-7046029254386353131)  # 2^64 / golden ratio: keys that differ little land far apart


class Numbers:
    """Open addressing with linear probing, at most half full."""

    def __init__(self) -> None:
        self._count = 0
        self._clear(_FIRST_SLOTS)

    def __len__(self) -> int:
        return self._count

    def get(self, key: int) -> int | None:
        number = self._numbers.item(self._place(key))
        return None if number == UNKNOWN else number

    def find(self, keys: Ints) -> Ints:
        """(n,) int64 keys -> (n,) int64 numbers, UNKNOWN where a key is not there."""
        slots = self._slots(keys)
        numbers = self._numbers[slots].astype(np.int64)
        missed = np.flatnonzero((self._keys[slots] != keys) & (numbers != UNKNOWN))
        following = slots[missed, None] + _WINDOW
        while len(missed):
            following &= self._mask
            there = self._numbers[following]
            hit = (self._keys[following] == keys[missed, None]) & (there != UNKNOWN)
            found = hit.any(axis=1)
            numbers[missed[found]] = there[hit]
            full = (there != UNKNOWN).all(axis=1)
            numbers[missed[~found & ~full]] = UNKNOWN
            missed, following = missed[~found & full], following[~found & full] + len(_WINDOW)
        return numbers

    def set(self, key: int, number: int) -> None:
        if 2 * (self._count + 1) > len(self._keys):
            self._fill(*self._content(self._numbers != UNKNOWN), least=4 * self._count)
        slot = self._place(key)
        self._count += self._numbers.item(slot) == UNKNOWN
        self._keys[slot] = key
        self._numbers[slot] = number

    def keep(self, chosen: Callable[[Ints], NDArray[np.bool_]]) -> None:
        """Forget the keys whose numbers `chosen` says no to."""
        used = self._numbers != UNKNOWN
        used[used] = chosen(self._numbers[used].astype(np.int64))
        self._fill(*self._content(used))

    def _content(self, used: NDArray[np.bool_]) -> tuple[Ints, NDArray[np.int32]]:
        return self._keys[used], self._numbers[used]

    def _fill(self, keys: Ints, numbers: NDArray[np.int32], *, least: int = 0) -> None:
        slots = _FIRST_SLOTS
        while slots < max(least, 2 * len(keys) + 2):
            slots *= 2
        self._clear(slots)
        self._count = len(keys)
        at = self._slots(keys)
        while len(keys):
            free = self._numbers[at] == UNKNOWN
            # Where several want one free slot, the last one gets it.
            self._keys[at[free]] = keys[free]
            self._numbers[at[free]] = numbers[free]
            homeless = self._keys[at] != keys
            keys, numbers, at = keys[homeless], numbers[homeless], (at[homeless] + 1) & self._mask

    def _clear(self, slots: int) -> None:
        self._keys = np.zeros(slots, dtype=np.int64)
        self._numbers = np.full(slots, UNKNOWN, dtype=np.int32)
        self._mask = slots - 1
        self._shift = 64 - slots.bit_length() + 1

    def _slots(self, keys: Ints) -> Ints:
        spread = (keys * _SPREAD).view(np.uint64)
        spread >>= np.uint64(self._shift)
        slots: Ints = spread.view(np.int64)
        return slots

    def _place(self, key: int) -> int:
        """The slot of the key, or the free one that it would get."""
        slot = ((key * int(_SPREAD)) & 0xFFFFFFFFFFFFFFFF) >> self._shift
        while self._numbers.item(slot) != UNKNOWN and self._keys.item(slot) != key:
            slot = (slot + 1) & self._mask
        return slot
