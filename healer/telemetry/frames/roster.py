"""Roster: who the rows of a frame are. Resolves each label set once, and notices when a GPU's labels change.

A row is one GPU or MIG instance for as long as it is known. What its labels say may change with every reading: pods
come and go, an exporter is replaced, a node moves. Only the rows whose label sets differ from the last reading are
looked at.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from healer.domain.axes import NOWHERE_ROW, Bools, Floats, GpuAxis, GroupAxis, Ints
from healer.domain.component import Component, ComponentKind
from healer.domain.reading import Labels
from healer.domain.topology import NOWHERE, Place, Topology, spoken_as
from healer.telemetry.catalogue.spelling import label_of
from healer.telemetry.identity import (
    TopologyRules,
    driver_of,
    gpu_of,
    is_of_another_part,
    model_of,
    place_of,
    pod_of,
    target_of,
)

NO_GPU = -1  # in place of a row: the label set names none, and should
_FEWEST_FORGOTTEN = 1000
_ELSEWHERE = -2  # it is about a switch or a processor, and no GPU's
_TOLD = ("rack", "node", "gpu", "job")  # the parts of a component that labels tell anew


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """What the GPUs are in."""

    nodes: GroupAxis
    racks: GroupAxis
    jobs: GroupAxis


class Roster:
    """Attributes:
    row_of: (n_label_sets,) the row of each label set of the newest reading, negative where it names no GPU.
    """

    def __init__(self, rules: TopologyRules) -> None:
        self.row_of: Ints = np.empty(0, dtype=np.int64)
        self._rules = rules
        self._sets: Sequence[Labels] = ()
        self._present: Bools = np.empty(0, dtype=np.bool_)
        self._rows: dict[str, int] = {}
        self._components: list[Component] = []
        self._models: list[str] = []
        self._targets: list[str] = []
        self._peers = _ints()
        self._exporters = _ints()
        self._devices = _ints()
        self._node_numbers = _ints()
        self._rack_numbers = _ints()
        self._job_numbers = _ints()
        self._group_numbers: dict[tuple[ComponentKind, str], int] = {}
        self._next_group = 0
        self._grouped: dict[int, Component] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._labels: dict[str, Ints] = {}
        self._codes: dict[str, Floats] = {}
        self._labelled: dict[str, Place] = {}
        self._drivers: dict[str, str] = {}
        self._drivers_told: Mapping[str, str] | None = None
        self._topology = self._spoken = Topology()
        self._described = 0  # how many rows there were when the topology was looked at
        self._axis: GpuAxis | None = None
        self._groups: Groups | None = None
        self._axes: dict[ComponentKind, tuple[tuple[Ints, ...], GroupAxis]] = {}
        self._places: Mapping[str, Place] | None = None

    def __len__(self) -> int:
        return len(self._components)

    def meet(self, label_sets: Sequence[Labels]) -> None:
        """Give a row to every GPU that the label sets name and that has none."""
        if label_sets is not self._sets:
            self._sets = label_sets
            self.row_of, self._present = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_)
            self._labels.clear()
            self._codes.clear()
        known = len(self.row_of)
        if known < len(label_sets):
            met = [self._row(label_sets[number]) for number in range(known, len(label_sets))]
            self.row_of = np.concatenate([self.row_of, np.array(met, dtype=np.int64)])
            self._present = np.concatenate([self._present, np.zeros(len(met), dtype=np.bool_)])

    def numbered(self, label: str) -> Ints:
        """(n_label_sets,) a number for the value that each label set has for the label."""
        known = self._labels.get(label, np.empty(0, dtype=np.int64))
        if len(known) < len(self._sets):
            values = (label_of(self._sets[number], label) for number in range(len(known), len(self._sets)))
            met = [self._number(label, value or "") for value in values]
            known = self._labels[label] = np.concatenate([known, np.array(met, dtype=np.int64)])
        return known

    def having(self, label: str, values: Iterable[str]) -> Bools:
        """(n_label_sets,) whether the label has one of the values."""
        return np.isin(self.numbered(label), [self._number(label, value) for value in values])

    def update(self, newest: Floats, topology: Topology) -> None:
        """Bring the components up to date.

        Args:
            newest: (n_label_sets,) the time of the newest sample with each label set, -inf where there was none.
        """
        present = newest > -np.inf
        changed = self.row_of[(present != self._present) & (self.row_of >= 0)]
        if topology is not self._topology or len(self) != self._described:
            # Its nodes are named as the telemetry names them, which takes all the names.
            names = {component.node for component in self._components if component.node is not None}
            spoken = spoken_as(topology, names)
            if spoken != self._spoken:
                changed = np.arange(len(self))
            self._topology, self._spoken, self._places = topology, spoken, None
            self._described = len(self)
        self._present = present
        if not len(changed):
            return
        wanted = np.zeros(len(self), dtype=np.bool_)
        wanted[changed] = True
        numbers = np.flatnonzero(present & (self.row_of >= 0))
        numbers = numbers[wanted[self.row_of[numbers]]]
        # By row; of one row's label sets the newest first.
        numbers = numbers[np.lexsort((-newest[numbers], self.row_of[numbers]))]
        for row, group in _grouped(self.row_of[numbers].tolist(), numbers.tolist()):
            self._describe(row, [self._sets[number] for number in group])
        self._axis = self._groups = None

    def axis(self) -> GpuAxis:
        if self._axis is None:
            self._axis = GpuAxis(
                components=tuple(self._components),
                models=tuple(self._models),
                rows=dict(self._rows),
                targets=tuple(self._targets),
                peers=_as_array(self._peers),
                exporters=_as_array(self._exporters),
                devices=_as_array(self._devices),
            )
        return self._axis

    @property
    def jobs(self) -> Ints:
        """(n_gpus,) a number for each GPU's job that stays the same, NOWHERE_ROW for none."""
        return _as_array(self._job_numbers)

    def codes(self, label: str) -> Floats:
        """(n_label_sets,) the number that each label set has for the label; NaN for none, or for a word."""
        known = self._codes.get(label, np.empty(0))
        if len(known) < len(self._sets):
            met = [_number_of(label_of(self._sets[number], label)) for number in range(len(known), len(self._sets))]
            known = self._codes[label] = np.concatenate([known, np.array(met, dtype=np.float64)])
        return known

    def groups(self) -> Groups:
        if self._groups is None:
            nodes, racks, jobs = (_as_array(n) for n in (self._node_numbers, self._rack_numbers, self._job_numbers))
            self._groups = Groups(
                nodes=self._group(ComponentKind.NODE, nodes, racks),  # a node carries the name of its rack
                racks=self._group(ComponentKind.RACK, racks),
                jobs=self._group(ComponentKind.JOB, jobs),
            )
            self._forget_groups(self._groups)
        return self._groups

    def places(self) -> Mapping[str, Place]:
        """By node; what the configured source says stands before what labels say."""
        if self._places is None:
            nodes = {**self._labelled, **self._spoken.places}
            self._places = {node: self._place(node) for node in nodes}
        return self._places

    def drivers(self) -> Mapping[str, str]:
        """By node, the version of its driver, as far as labels say it."""
        if self._drivers_told is None:
            self._drivers_told = dict(self._drivers)
        return self._drivers_told

    def keep(self, rows: Ints) -> None:
        """Only these rows, in this order."""
        picked = rows.tolist()
        for column in (self._components, self._models, self._targets):
            column[:] = [column[row] for row in picked]
        for numbers in (
            *(self._peers, self._exporters, self._devices),
            *(self._node_numbers, self._rack_numbers, self._job_numbers),
        ):
            numbers[:] = _ints(numbers[row] for row in picked)
        self._rows = {component.key: row for row, component in enumerate(self._components)}
        nodes = {component.node for component in self._components}
        self._labelled = {node: place for node, place in self._labelled.items() if node in nodes}
        self._drivers = {node: driver for node, driver in self._drivers.items() if node in nodes}
        self._axis = self._groups = self._places = self._drivers_told = None
        self._sets = ()  # a label set whose row is gone gets a new one when it comes back

    def _row(self, labels: Labels) -> int:
        component = gpu_of(labels, self._rules)
        if component is None:
            return _ELSEWHERE if is_of_another_part(labels) else NO_GPU
        row = self._rows.setdefault(component.key, len(self._components))
        if row == len(self._components):
            self._components.append(component)
            self._models.append(model_of(labels))
            self._targets.append("")
            self._peers.append(self._number("model", ""))
            self._exporters.append(self._number("target", ""))
            self._devices.append(self._number("device", component.device))
            self._node_numbers.append(self._group_number(ComponentKind.NODE, component.node))
            self._rack_numbers.append(self._group_number(ComponentKind.RACK, component.rack))
            self._job_numbers.append(self._group_number(ComponentKind.JOB, component.job))
            self._axis = self._groups = None
        return row

    def _describe(self, row: int, sets: Sequence[Labels]) -> None:
        """Put together what the row's label sets say, newest first.

        Labels come and go between the metrics of one GPU: what none of them says is kept, but for the job, which takes
        its label along when it ends.
        """
        said = [found for labels in sets if (found := gpu_of(labels, self._rules)) is not None]
        told = {name: next((text for one in said if (text := getattr(one, name))), None) for name in _TOLD}
        known = {name: text for name, text in told.items() if text is not None}
        component = replace(self._components[row], **{"job": None, **known})
        if component.node is not None:
            self._locate(component.node, sets)
        pod = next((user for labels in sets if (user := pod_of(labels)) is not None), None)
        rack = self._place(component.node).rack or component.rack
        component = replace(component, rack=rack, job=self._spoken.job_of(component, pod))
        self._components[row] = component
        self._node_numbers[row] = self._group_number(ComponentKind.NODE, component.node)
        self._rack_numbers[row] = self._group_number(ComponentKind.RACK, component.rack)
        self._job_numbers[row] = self._group_number(ComponentKind.JOB, component.job)
        self._models[row] = next((model for labels in sets if (model := model_of(labels))), self._models[row])
        self._targets[row] = next((name for labels in sets if (name := target_of(labels))), "")
        self._peers[row] = self._number("model", self._models[row])
        self._exporters[row] = self._number("target", self._targets[row])

    def _number(self, kind: str, name: str) -> int:
        return self._numbers.setdefault((kind, name), len(self._numbers))

    def _group_number(self, kind: ComponentKind, name: str | None) -> int:
        """A number for the name that no other one ever gets; NOWHERE_ROW for no name."""
        if name is None:
            return NOWHERE_ROW
        number = self._group_numbers.setdefault((kind, name), self._next_group)
        self._next_group += number == self._next_group
        return number

    def _forget_groups(self, groups: Groups) -> None:
        """Jobs come and go without end: drop the numbers of those that are gone, once that is worth the work."""
        there = len(groups.nodes) + len(groups.racks) + len(groups.jobs)
        if len(self._group_numbers) > 2 * there + _FEWEST_FORGOTTEN:
            used = {*self._node_numbers, *self._rack_numbers, *self._job_numbers}
            self._group_numbers = {key: number for key, number in self._group_numbers.items() if number in used}
            self._grouped = {number: component for number, component in self._grouped.items() if number in used}

    def _group(self, kind: ComponentKind, *numbers: Ints) -> GroupAxis:
        """The groups that the GPUs' numbers say, in the order in which they were met; the same for the same numbers.

        Args:
            numbers: (n_gpus,) of the groups, and of all else that their names depend on.
        """
        before, axis = self._axes.get(kind, ((), None))
        if axis is not None and all(map(np.array_equal, numbers, before)):
            return axis
        of_gpu = numbers[0].copy()
        there = np.flatnonzero(of_gpu >= 0)
        met, first, inverse = np.unique(of_gpu[there], return_index=True, return_inverse=True)
        of_gpu[there] = inverse
        rows = there[first].tolist()
        axis = GroupAxis.of([self._component(kind, n, row) for n, row in zip(met.tolist(), rows, strict=True)], of_gpu)
        self._axes[kind] = numbers, axis
        return axis

    def _component(self, kind: ComponentKind, number: int, row: int) -> Component:
        """The group as a component, the same object as long as nothing about it changes."""
        gpu = self._components[row]
        held = self._grouped.get(number)
        if held is None or (kind is ComponentKind.NODE and held.rack != gpu.rack):
            match kind:
                case ComponentKind.NODE:
                    held = Component(kind, rack=gpu.rack, node=gpu.node)
                case ComponentKind.RACK:
                    held = Component(kind, rack=gpu.rack)
                case _:
                    held = Component(kind, job=gpu.job)
            self._grouped[number] = held
        return held

    def _locate(self, node: str, sets: Sequence[Labels]) -> None:
        place = self._labelled.get(node, NOWHERE)
        for labels in reversed(sets):
            place = place_of(labels, self._rules).or_else(place)
        if place != self._labelled.get(node):
            self._labelled[node], self._places = place, None
        driver = next((said for labels in sets if (said := driver_of(labels))), None)
        if driver is not None and driver != self._drivers.get(node):
            self._drivers[node], self._drivers_told = driver, None

    def _place(self, node: str | None) -> Place:
        return NOWHERE if node is None else self._spoken.place(node).or_else(self._labelled.get(node, NOWHERE))


def _ints(numbers: Iterable[int] = ()) -> array[int]:
    """Like a list, and in no time an array."""
    return array("q", numbers)


def _as_array(numbers: array[int]) -> Ints:
    return np.array(numbers, dtype=np.int64)


def _number_of(text: str | None) -> float:
    return float(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 16 else np.nan


def _grouped(keys: Sequence[int], values: Sequence[int]) -> Iterable[tuple[int, list[int]]]:
    """Runs of equal keys with their values."""
    start = 0
    for end in range(1, len(keys) + 1):
        if end == len(keys) or keys[end] != keys[start]:
            yield keys[start], list(values[start:end])
            start = end
