"""Located: which component the labels of an alert name, and where the frame has it.

By the same rules as the labels of series, so that an alert and a detector speak of the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode
from healer.domain.frame import Frame, Presence
from healer.domain.reading import Labels
from healer.telemetry.catalogue.spelling import label_of
from healer.telemetry.identity import TopologyRules, gpu_of

# What a failure mode is about stands at its beginning.
_KINDS = {
    "Gpu": ComponentKind.GPU,
    "Nvlink": ComponentKind.GPU,
    "Pcie": ComponentKind.GPU,
    "Node": ComponentKind.NODE,
    "Fabric": ComponentKind.NODE,
    "Rack": ComponentKind.RACK,
    "Job": ComponentKind.JOB,
}
_FINEST_FIRST = (ComponentKind.GPU, ComponentKind.NODE, ComponentKind.RACK, ComponentKind.JOB)
_LONGEST_NAME = 256


def component_of(labels: Labels, mode: FailureMode, rules: TopologyRules) -> Component | None:
    """What the labels name: the component that the mode is about, else the finest one; None if they name none."""
    rack = label_of(labels, rules.rack_label)
    node, job = _first(labels, rules.node_labels), _first(labels, rules.job_labels)
    named = {
        ComponentKind.GPU: gpu_of(labels, rules),
        ComponentKind.NODE: None if node is None else Component(ComponentKind.NODE, rack=rack, node=node),
        ComponentKind.RACK: None if rack is None else Component(ComponentKind.RACK, rack=rack),
        ComponentKind.JOB: None if job is None else Component(ComponentKind.JOB, job=job),
    }
    about = [kind for prefix, kind in _KINDS.items() if mode.startswith(prefix)]
    found = next((component for kind in (*about, *_FINEST_FIRST) if (component := named[kind]) is not None), None)
    return found if found is not None and _is_sane(found) else None


def _first(labels: Labels, names: Sequence[str]) -> str | None:
    return next((found for name in names if (found := label_of(labels, name)) is not None), None)


def _is_sane(component: Component) -> bool:
    """Whether it is a name that may enter the journal, and not a page of text or control characters."""
    names = (component.rack, component.node, component.gpu, component.uuid, component.job)
    return all(name is None or (len(name) <= _LONGEST_NAME and name.isprintable()) for name in names)


class Located:
    """The components that notices name, on the frame: it may know them by more than the labels of an alert say."""

    def __init__(self, frame: Frame, components: Sequence[Component]) -> None:
        self._frame = frame
        wanted: dict[ComponentKind, set[str | None]] = {kind: set() for kind in _FINEST_FIRST}
        for component in components:
            match component.kind:
                case ComponentKind.RACK:
                    wanted[ComponentKind.RACK].add(component.rack)
                case ComponentKind.JOB:
                    wanted[ComponentKind.JOB].add(component.job)
                case ComponentKind.GPU if component.key in frame.gpus.rows:
                    pass
                case _:
                    wanted[ComponentKind.NODE].add(component.node)
        self._of_node = self._rows(lambda gpu: gpu.node, wanted[ComponentKind.NODE])
        self._of_rack = self._rows(lambda gpu: gpu.rack, wanted[ComponentKind.RACK])
        self._of_job = self._rows(lambda gpu: gpu.job, wanted[ComponentKind.JOB])

    def component(self, named: Component) -> Component:
        """As the frame has it, so that it is the same component for a detector; as named where the frame has none."""
        gpus = self._frame.gpus
        match named.kind:
            case ComponentKind.GPU:
                alike = (r for r in self._of_node.get(named.node, ()) if gpus.components[r].gpu == named.gpu)
                row = gpus.rows.get(named.key, None if named.uuid else next(alike, None))
                return named if row is None else gpus.components[row]
            case ComponentKind.NODE if (place := self._frame.places.get(str(named.node))) is not None:
                return replace(named, rack=place.rack or named.rack)
            case _:
                return named

    def is_seen(self, component: Component) -> bool:
        """Whether our own telemetry sees it now, or never covered it."""
        match component.kind:
            case ComponentKind.RACK:
                rows = self._of_rack.get(component.rack)
            case ComponentKind.JOB:
                rows = self._of_job.get(component.job)
            case ComponentKind.GPU if (row := self._frame.gpus.rows.get(component.key)) is not None:
                rows = [row]
            case ComponentKind.GPU:
                # One that is partitioned has a row for each of its instances.
                near = self._of_node.get(component.node)
                gpus = self._frame.gpus.components
                rows = None if near is None else [row for row in near if gpus[row].device == component.device]
            case _:
                rows = self._of_node.get(component.node)
        return rows is None or bool((self._frame.presence[rows] == Presence.CURRENT).any())

    def _rows(
        self, name_of: Callable[[Component], str | None], wanted: set[str | None]
    ) -> Mapping[str | None, list[int]]:
        rows: dict[str | None, list[int]] = {}
        for row, gpu in enumerate(self._frame.gpus.components if wanted else ()):
            if (name := name_of(gpu)) in wanted:
                rows.setdefault(name, []).append(row)
        return rows
