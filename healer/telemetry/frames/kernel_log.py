"""KernelLog: which rows of a frame the lines of kernel logs are about.

A line names a node and a PCI address; exporters name nodes, and give each GPU its address as a label. What no exporter
tells apart stays unknown, is tried again for as long as it may matter, and is said meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from healer.domain.axes import Floats, GpuAxis, Ints
from healer.domain.component import Component
from healer.domain.kernel_line import KernelLine
from healer.domain.reading import Labels
from healer.domain.topology import matched
from healer.telemetry.catalogue.spelling import label_of
from healer.telemetry.identity import PCI_LABEL
from healer.telemetry.xids.places import pci_address

_SAID_FOR_S = 3600.0
_MOST_WAITING = 1000
_MOST_WARNINGS = 20
_FEWEST_FORGOTTEN = 1000

_Subject = tuple[str | None, str | None, str | None, int]  # node, PCI address, UUID, code


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Attributes:
    why: it is not known which GPU the line is about.
    """

    line: KernelLine
    since_s: float
    why: str


class KernelLog:
    def __init__(self) -> None:
        self._sets: Sequence[Labels] = ()
        self._met = 0
        self._addresses: dict[str, str] = {}  # by the key of a GPU, also of one that is no longer shown
        self._spelt: dict[str, str | None] = {}
        self._waiting: dict[_Subject, _Waiting] = {}
        self._left_out = 0
        self._is_new = False

    def meet(self, label_sets: Sequence[Labels], row_of: Ints, axis: GpuAxis) -> None:
        """Learn the PCI addresses that label sets tell.

        Args:
            row_of: (n_label_sets,) the row of each, negative where it names no GPU.
        """
        if label_sets is not self._sets:
            self._sets, self._met = label_sets, 0
        for number in range(self._met, len(label_sets)):
            row = int(row_of[number])
            spelling = label_of(label_sets[number], PCI_LABEL) if row >= 0 else None
            if spelling is None:
                continue
            if spelling not in self._spelt:
                self._spelt[spelling] = pci_address(spelling)
            address = self._spelt[spelling]
            if address is not None:
                self._addresses[axis.components[row].key] = address
        self._is_new = self._met < len(label_sets)
        self._met = len(label_sets)
        if len(self._addresses) > 2 * len(axis) + _FEWEST_FORGOTTEN:
            self._addresses = {key: address for key, address in self._addresses.items() if key in axis.rows}

    def located(
        self, lines: Sequence[KernelLine], at_s: float, axis: GpuAxis, last_heard_s: Floats
    ) -> Iterator[tuple[int, KernelLine]]:
        """The lines with their rows: new ones, and those of before whose GPU is known by now.

        Args:
            last_heard_s: (n_gpus,) of two GPUs that were in one slot the one that was heard of last is meant.
        """
        self._waiting = {key: one for key, one in self._waiting.items() if at_s - one.since_s <= _SAID_FOR_S}
        again = [*self._waiting.values()] if self._is_new else []
        if not lines and not again:
            return
        fleet = _Fleet(axis, self._addresses, last_heard_s)
        for line, since_s in (*((one.line, one.since_s) for one in again), *((line, at_s) for line in lines)):
            rows = fleet.rows_of(line)
            if isinstance(rows, str):
                self._wait(line, since_s, rows)
                continue
            self._waiting.pop(_subject_of(line), None)
            yield from ((row, line) for row in rows)

    def warnings(self) -> tuple[str, ...]:
        newest_first = sorted(self._waiting.values(), key=lambda one: one.line.at, reverse=True)
        said = [_told(one) for one in islice(newest_first, _MOST_WARNINGS)]
        more = len(newest_first) - len(said) + self._left_out
        return (*said, f"and {more} more lines of kernel logs about GPUs that are not known") if more else (*said,)

    def _wait(self, line: KernelLine, since_s: float, why: str) -> None:
        if line.is_old or not line.counts:
            return
        if not self._waiting:
            self._left_out = 0
        subject = _subject_of(line)
        if subject not in self._waiting and len(self._waiting) >= _MOST_WAITING:
            self._left_out += 1
            return
        self._waiting[subject] = _Waiting(line, since_s, why)


class _Fleet:
    """Where to find a GPU by its node and address; made when there is something to look for."""

    def __init__(self, axis: GpuAxis, addresses: dict[str, str], last_heard_s: Floats) -> None:
        self._axis = axis
        self._addresses = addresses
        self._last_heard_s = last_heard_s
        self._rows: dict[str, list[int]] = defaultdict(list)
        for row, gpu in enumerate(axis.components):
            if gpu.node is not None:
                self._rows[gpu.node].append(row)
        self._names: dict[str, list[str]] = defaultdict(list)
        for node in self._rows:
            self._names[_short(node)].append(node)

    def rows_of(self, line: KernelLine) -> list[int] | str:
        """The rows of its GPU, several of one that is divided; why it is not known, where it is not."""
        node = None if line.node is None else self._node(line.node)
        if line.uuid is not None:
            near = range(len(self._axis)) if node is None else self._rows[node]
            named = [row for row in near if self._axis.components[row].uuid == line.uuid]
            if named:
                return self._instances(named, line.instance)
        if line.node is None:
            return "neither the log's path nor the line says whose it is"
        if node is None:
            return "no exporter shows a GPU of this node"
        if line.pci is None:
            return "the line does not name the GPU"
        there = [row for row in self._rows[node] if self._addresses.get(self._gpu(row).key) == line.pci]
        if not there:
            return f"no exporter shows which of the node's GPUs that is (label {PCI_LABEL})"
        newest = max(there, key=lambda row: float(np.nan_to_num(self._last_heard_s[row], nan=-np.inf)))
        device = self._gpu(newest).device
        return self._instances([row for row in there if self._gpu(row).device == device], line.instance)

    def _instances(self, rows: list[int], instance: str | None) -> list[int]:
        """The rows of the instance, else of the whole GPU, else of all that it is divided into."""
        by_part = {(self._gpu(row).gpu or "").partition(":")[2]: row for row in rows}
        wanted = (instance or "").partition(":")[0]
        part = next((part for part in (wanted, "") if part in by_part), None)
        return rows if part is None else [by_part[part]]

    def _gpu(self, row: int) -> Component:
        return self._axis.components[row]

    def _node(self, name: str) -> str | None:
        """As the telemetry names it: with or without its domain, where only one can be meant."""
        if name in self._rows:
            return name
        found, _ = matched([name], self._names.get(_short(name), ()))
        return found.get(name)


def _short(name: str) -> str:
    return name.lower().partition(".")[0]


def _subject_of(line: KernelLine) -> _Subject:
    return line.node, line.pci, line.uuid, line.code


def _told(waiting: _Waiting) -> str:
    line = waiting.line
    node = "a node that is not named" if line.node is None else line.node
    what = f"XID {line.code}" if line.has_code else "fallen off the bus"
    gpu = f"GPU {line.pci}" if line.pci else "a GPU that is not named"
    return f"kernel log of {node}: {gpu}: {what} at {line.at:%Y-%m-%dT%H:%M:%SZ}; {waiting.why} ({line.where})"
