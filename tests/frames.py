"""Frames written down by hand, for the tests of what looks at frames: what is not given is unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from healer.domain.axes import Floats, GpuAxis, GroupAxis, Ints, numbered
from healer.domain.component import Component, ComponentKind
from healer.domain.frame import Frame, NodeAxis, PortAxis, RackAxis
from healer.domain.history import Past, Signals, Xids
from healer.domain.signal import Signal
from healer.telemetry.frames.recorder import SLOT

START = datetime(2026, 3, 14, 3, 0, 0, tzinfo=UTC)


def frame_of(
    gpus: Sequence[Component],
    *,
    at: datetime = START,
    times: Sequence[float] = (0.0,),
    values: Mapping[Signal, Floats] | None = None,
    models: Sequence[str] | None = None,
    racks: Sequence[Component] = (),
    rack_power_w: Floats | None = None,
    rack_budget_w: Floats | None = None,
    age_s: Floats | None = None,
    **more: object,
) -> Frame:
    """Args:
    times: of the ticks, seconds relative to `at`.
    values: gauges, (n_ticks, n_gpus).
    racks: those of the frame, in this order; those that GPUs are in come to them.
    """
    n = len(gpus)
    times_s = np.array(times) + at.timestamp()
    nodes = _groups(gpus, ComponentKind.NODE)
    named = (*racks, *(rack for rack in _groups(gpus, ComponentKind.RACK).components if rack not in racks))
    rack_groups = GroupAxis.of(named, _rows([gpu.rack for gpu in gpus], [rack.rack for rack in named]))
    given = {
        "gpus": GpuAxis.of(gpus, models or ("H100",) * n),
        "nodes": NodeAxis(nodes, Signals(times_s, len(nodes)), np.zeros(len(nodes), dtype=np.bool_)),
        "racks": RackAxis(
            rack_groups,
            np.full((len(times_s), len(named)), np.nan) if rack_power_w is None else rack_power_w,
            np.full(len(named), np.nan) if rack_budget_w is None else rack_budget_w,
        ),
        "jobs": _groups(gpus, ComponentKind.JOB),
        "ports": PortAxis((), np.empty(0, dtype=np.int64), Signals(times_s, 0), Past(np.empty(0), SLOT, 0)),
        "signals": Signals(times_s, n, dict(values or {})),
        "past": Past(np.empty(0), SLOT, n),
        "xids": Xids.none(),
        "age_s": np.zeros(n) if age_s is None else age_s,
        "presence": np.zeros(n, dtype=np.int8),
        "held_s": np.full(n, 1e6),
        "reset_s": np.full(n, np.inf),
    }
    return Frame(at=at, **{**given, **more})  # type: ignore[arg-type]


def _groups(gpus: Sequence[Component], kind: ComponentKind) -> GroupAxis:
    names = [{ComponentKind.NODE: gpu.node, ComponentKind.RACK: gpu.rack}.get(kind, gpu.job) for gpu in gpus]
    met = list(dict.fromkeys(name for name in names if name is not None))
    match kind:
        case ComponentKind.NODE:
            racks = {gpu.node: gpu.rack for gpu in gpus}
            components = [Component(kind, rack=racks[name], node=name) for name in met]
        case ComponentKind.RACK:
            components = [Component(kind, rack=name) for name in met]
        case _:
            components = [Component(kind, job=name) for name in met]
    return GroupAxis.of(components, _rows(names, met))


def _rows(names: Sequence[str | None], known: Sequence[str | None]) -> Ints:
    numbers = {name: row for row, name in enumerate(known)}
    return np.array([-1 if name is None else numbers[name] for name in names], dtype=np.int64)


__all__ = ["START", "frame_of", "numbered"]
