"""The pages of a simulated site: which rows each target shows, read from where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from healer.domain.axes import Bools, Floats, Ints
from healer.sim.exporters import around
from healer.sim.exporters.fields import gpu_metrics
from healer.sim.exporters.labels import gpu_labels, port_labels, xid_labels
from healer.sim.exporters.metric import Formats, Metric, MetricKind
from healer.sim.exporters.sheet import LabelsOf, Sheet
from healer.sim.exporters.style import Fabric, Style
from healer.sim.exporters.targets import GPU_JOB, HOST_JOB, IPMI_JOB, METER_JOB, SCHEDULER_JOB, Target
from healer.sim.exporters.xid_window import SLOTS, XidWindow
from healer.sim.knobs import Knob
from healer.sim.state import GpuState, NodeState, PortState
from healer.sim.world import World
from healer.telemetry.wire.label_sets import LabelSets

_FEEDS = ("A", "B")


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """One kind of page.

    Attributes:
        job: of its targets.
        rows: (n_targets, k) which rows each target shows; the targets in the order of their places.
        read: the quantities, (n_quantities, n_rows).
        shown: (n_rows,) which rows there are, this moment.
    """

    sheet: Sheet
    job: str
    rows: Ints
    read: Callable[[], Floats]
    shown: Callable[[], Bools]


class GpuPages:
    """The pages of the GPUs' exporters.

    The exporter looks at its GPUs in an interval of its own, and shows what it saw. `version` says which of two sets of
    names each node's exporter has: another after an upgrade.

    Attributes:
        seen: (n_quantities, n_gpus)
        version: (n_nodes,) 0 or 1.
    """

    def __init__(self, world: World, style: Style, by_node: Sequence[Target], pods: Callable[[int], str]) -> None:
        n = world.layout.n_gpus
        self.seen: Floats = world.gpus.matrix.copy()
        self.version: Ints = np.zeros(len(world.layout.nodes), dtype=np.int64)
        self._world = world
        self._style = style
        self._by_node = by_node
        self._pods = pods
        self._window = XidWindow(n)
        self._labelled_xid: Floats = np.full(n, -1.0)

    def look(self, nodes: Ints) -> None:
        """These exporters look at their GPUs now."""
        per_node = self._world.layout.gpus_per_node
        gpus = (nodes[:, None] * per_node + np.arange(per_node)).ravel()
        self.seen[:, gpus] = self._world.gpus.matrix[:, gpus]

    def pages(self, style: Style, version: int, book: LabelSets) -> list[Page]:
        world = self._world
        n, per_node = world.layout.n_gpus, world.layout.gpus_per_node
        metrics = [
            _coarse(metric) if style.whole_watts else metric for metric in gpu_metrics(style.fields, style.names)
        ]
        labels = gpu_labels(world, style, self._by_node, self._pods)
        rows = np.arange(n).reshape(-1, per_node)

        def there() -> Bools:
            here = np.repeat(self.version == version, per_node)
            return here & (world.knobs[Knob.LOST] <= 0) & np.repeat(world.knobs[Knob.EXPORTER_EMPTY] <= 0, per_node)

        def xid_and_labels(gpu: int) -> Mapping[str, str]:
            return {**labels(gpu), **xid_labels(int(self.seen[_XID, gpu]))}

        apart = [metric for metric in metrics if metric.row == "xid" and style.xid_labels]
        together = [metric for metric in metrics if metric not in apart]
        found = [Page(_sheet(together, GpuState.names(), labels, n, book), GPU_JOB, rows, lambda: self.seen, there)]
        if apart:
            found.append(
                Page(_sheet(apart, GpuState.names(), xid_and_labels, n, book), GPU_JOB, rows, lambda: self.seen, there)
            )
        if style.xid_counts:
            found.append(self._counts(labels, there, book))
        return found

    def relabelled(self) -> Ints:
        """The GPUs whose XID is another one than their labels say."""
        changed = np.flatnonzero(self.seen[_XID] != self._labelled_xid)
        self._labelled_xid[changed] = self.seen[_XID, changed]
        return changed

    def _counts(self, labels: LabelsOf, there: Callable[[], Bools], book: LabelSets) -> Page:
        window, n = self._window, self._world.layout.n_gpus

        def counted(row: int) -> Mapping[str, str]:
            gpu, slot = divmod(row, SLOTS)
            return {**labels(gpu), "window_size_in_ms": "300000", "xid": str(window.codes[gpu, slot])}

        metric = Metric(around.XID_COUNT, MetricKind.GAUGE, "XIDs within the window.", "count")
        per_node = self._world.layout.gpus_per_node
        return Page(
            _sheet([metric], ("count",), counted, n * SLOTS, book),
            GPU_JOB,
            np.arange(n * SLOTS).reshape(-1, per_node * SLOTS),
            lambda: window.counts(self._world.xids, self._world.now_s),
            lambda: np.repeat(there(), SLOTS) & (window.codes.ravel() > 0),
        )


_XID = GpuState.names().index("xid")


def other_pages(world: World, style: Style, found: Sequence[Target], book: LabelSets) -> list[Page]:
    """Everything but the GPUs' own."""
    layout, knobs = world.layout, world.knobs
    nodes, racks = len(layout.nodes), len(layout.racks)
    ports = len(world.ports.state_id) // nodes
    hosts = [target for target in found if target.job == HOST_JOB]
    meters = [target for target in found if target.job == METER_JOB]
    scheduler = next(target for target in found if target.job == SCHEDULER_JOB)

    def always(n: int) -> Callable[[], Bools]:
        everything = np.ones(n, dtype=np.bool_)
        return lambda: everything

    def of_meter(row: int) -> Mapping[str, str]:
        rack, feed = divmod(row, 2) if style.feeds else (row, 0)
        named = {"power_feed": _FEEDS[feed]} if style.feeds else {}
        return {**meters[rack].labels, "rack": layout.racks[rack], **named}

    def metered() -> Bools:
        both = np.ones((racks, 2), dtype=np.bool_)
        both[:, 0] = knobs[Knob.FEED_A_SILENT] <= 0
        return both.ravel() if style.feeds else both[:, 1]

    def measured() -> Floats:
        return (world.power.feed_w.ravel() if style.feeds else world.power.rack_w)[None, :]

    one_each = np.arange(nodes)[:, None]
    fabric = around.ROCE if style.fabric is Fabric.ROCE else around.INFINIBAND
    port_rows = np.arange(nodes * ports).reshape(nodes, ports)
    pages = [
        Page(
            _sheet(fabric, PortState.names(), port_labels(style, hosts, ports), nodes * ports, book),
            HOST_JOB, port_rows, lambda: world.ports.matrix, always(nodes * ports),
        ),
        Page(
            _sheet(around.ETHERNET, NodeState.names(), lambda n: {**hosts[n].labels, "device": "eth0"}, nodes, book),
            HOST_JOB, one_each, lambda: world.nodes.matrix, always(nodes),
        ),
        Page(
            _sheet(around.METER, ("power_w",), of_meter, racks * (2 if style.feeds else 1), book),
            METER_JOB, np.arange(racks * (2 if style.feeds else 1)).reshape(racks, -1), measured, metered,
        ),
        Page(
            _sheet(
                around.SCHEDULER, NodeState.names(),
                lambda n: {**scheduler.labels, "node": layout.nodes[n] + style.domain}, nodes, book,
            ),
            SCHEDULER_JOB, np.arange(nodes)[None, :], lambda: world.nodes.matrix, lambda: knobs[Knob.GONE] <= 0,
        ),
    ]  # fmt: skip
    if style.ipmi:
        boards = [target for target in found if target.job == IPMI_JOB]
        sheet = _sheet(around.IPMI, NodeState.names(), lambda n: boards[n].labels, nodes, book)
        pages.append(Page(sheet, IPMI_JOB, one_each, lambda: world.nodes.matrix, always(nodes)))
    return pages


def up_sheet(found: Sequence[Target], book: LabelSets) -> Sheet:
    return _sheet(around.UP, ("up",), lambda row: found[row].labels, len(found), book)


def _coarse(metric: Metric) -> Metric:
    return replace(metric, decimals=0) if metric.row == "power_w" else metric


def _sheet(metrics: Sequence[Metric], rows: Sequence[str], labels: LabelsOf, n: int, book: LabelSets) -> Sheet:
    return Sheet(Formats(metrics, rows), labels, n, book)
