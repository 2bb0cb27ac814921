"""The observer: from one reading to what is found in it. The first half of a turn, and the whole of it that looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

import numpy as np
import structlog

from healer.content.boundary import call
from healer.content.detectors import Detector
from healer.content.models import Model
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode, Finding, Findings
from healer.domain.fleet import Fleet
from healer.domain.frame import Bools, Floats, Frame
from healer.domain.incident import Incident
from healer.domain.reading import Reading
from healer.domain.topology import Topology, changes
from healer.errors import HealerError, Rejected, Unavailable
from healer.ports import JobWitness, KernelLog, Notices, TelemetrySource, TopologySource
from healer.telemetry.coverage import Gap, change, gaps, told
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import vendor_of

_log = structlog.get_logger(__name__)

# While one of these lasts, a GPU's values are not what they should be: they are not learnt.
CHANGES_WHAT_IS_NORMAL = frozenset(
    {
        FailureMode.GPU_CORRECTABLE_ECC_STORM,
        FailureMode.GPU_THERMAL_LIMIT,
        FailureMode.GPU_COOLING_DEGRADED,
        FailureMode.RACK_COOLING_DEGRADED,
        FailureMode.GPU_POWER_BRAKE,
        FailureMode.GPU_THROTTLED,
        FailureMode.NVLINK_ERRORS,
        FailureMode.NVLINK_DOWN,
        FailureMode.PCIE_DEGRADED,
        FailureMode.JOB_STALLED,
        FailureMode.JOB_STRAGGLER,
    }
)


@dataclass(slots=True, eq=False)
class Observer:
    """Attributes:
    topology: who knows better than labels do where a GPU is, and whose; None if nobody is configured.
    witness: who asks jobs what they say of themselves.
    kernel_log: who reads the kernel logs of the nodes; None if nobody does.
    scheduler: the second witness of nodes that fall silent; it is only asked while there are some.
    gaps: what detectors and models read and no exporter ever gave to some GPUs.
    """

    source: TelemetrySource
    window: Window
    detectors: Sequence[Detector]
    models: Sequence[Model]
    topology: TopologySource | None = None
    notices: Notices | None = None
    witness: JobWitness | None = None
    kernel_log: KernelLog | None = None
    scheduler: Callable[[], Fleet] | None = None
    gaps: tuple[Gap, ...] = ()
    _known: Topology = field(default_factory=Topology)
    _said: frozenset[str] = frozenset()
    _offered: tuple[int, ...] = ()
    _compared: tuple[int, ...] = ()
    _sick: Bools | None = None
    _sick_ports: Bools | None = None
    _blind: bool = False
    _suspects: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def read(self, at: datetime) -> Reading:
        """Raises Unavailable: nothing is concluded from silence."""
        return self.source.read(at)

    def look(self, reading: Reading, live: Sequence[Incident] = ()) -> tuple[Frame, Findings]:
        """The frame as of the reading, with the models' scores, and what every part of the content says of it.

        A part that fails is named in the frame's warnings; what it would have judged is unknown, the others go on.

        Args:
            live: the incidents that are under way: what they are about is not learnt as normal, even by a process that
                has only just started.
        """
        warnings = self._locate(reading.at)
        fleet = self.scheduler() if self.scheduler is not None and self._blind else None
        told = () if self.witness is None else self.witness.testimonies(reading.at, self._suspects)
        frame = self.window.add(
            reading,
            self._known,
            fleet=fleet,
            testimonies=told,
            kernel_lines=None if self.kernel_log is None else self.kernel_log.lines(reading.at),
            sick=self._sick,
            sick_ports=self._sick_ports,
        )
        findings, scores, defects = Findings(), dict[str, Floats](), list[str]()
        for detector in self.detectors:
            try:
                findings += call(f"detector {detector.name}", partial(detector.detect, frame))
            except HealerError as error:
                defects.append(self._noted(error))
        for model in self.models:
            try:
                scores[model.name] = call(f"model {model.name}", partial(model.score, frame))
                findings += call(f"model {model.name}", partial(model.judge, frame, scores[model.name]))
            except HealerError as error:
                defects.append(self._noted(error))
        findings = findings.doubting(ComponentKind.GPU, ~frame.current)
        self._remember(frame, findings, live)
        if self.notices is not None:
            findings += self.notices.findings(frame, reading.at)
            warnings += self.notices.warnings(reading.at)
        if self.witness is not None:
            warnings += self.witness.warnings(reading.at)
        if self.kernel_log is not None:
            warnings += self.kernel_log.warnings(reading.at)
        self._said = frozenset(defects)
        self._compare_with_reads(frame)
        return replace(frame, scores=scores, warnings=frame.warnings + warnings + tuple(defects)), findings

    def _remember(self, frame: Frame, findings: Findings, live: Sequence[Incident]) -> None:
        """What the next look is to know of this one: what must not be learnt as normal, and who has to be asked."""
        self._blind = not bool(frame.current.all())
        sick = np.zeros(len(frame.gpus), dtype=np.bool_)
        sick_ports = np.zeros(len(frame.ports), dtype=np.bool_)
        under_way = (incident for incident in live if not incident.state.ended)
        faults: Iterable[Finding | Incident] = (*findings.found, *under_way)
        for one in faults:
            if one.failure_mode is FailureMode.FABRIC_LINK_FLAP:
                nodes = frame.nodes.groups.of_gpu[frame.parts_of(one.component)]
                sick_ports |= np.isin(frame.ports.of_node, nodes[nodes >= 0])
            elif one.failure_mode in CHANGES_WHAT_IS_NORMAL:
                sick[frame.parts_of(one.component)] = True
        self._sick, self._sick_ports = sick, sick_ports
        stalled = [finding.component for finding in findings.found if finding.component.kind is ComponentKind.JOB]
        self._suspects = {str(job.job): _nodes_of(job, frame) for job in stalled}

    def _locate(self, at: datetime) -> tuple[str, ...]:
        """Ask where everything is. Who cannot say leaves what was known, and a warning."""
        if self.topology is None:
            return ()
        try:
            told = self.topology.topology(at)
        except (Unavailable, Rejected) as error:
            return (f"{error}; what it said before still counts",)
        moved = changes(self._known, told).moved if told is not self._known else {}
        for node, (before, after) in moved.items():
            _log.info("node moved", node=node, before=str(before), after=str(after))
        self._known = told
        return told.warnings

    def _compare_with_reads(self, frame: Frame) -> None:
        """Say once what no exporter offers to those who read it, and once when that has changed.

        Not before two frames in a row offer the same: while a fleet is being met, everything is missing somewhere.
        """
        counts = (int(np.count_nonzero(frame.offered[signal])) for signal in sorted(frame.offered))
        before, self._offered = self._offered, (len(frame.gpus), *counts)
        if self._offered != before or self._offered == self._compared:
            return
        self._compared = self._offered
        vendors = [vendor_of(*gpu) for gpu in zip(frame.gpus.components, frame.gpus.models, strict=True)]
        reads = {part.name: part.reads for part in self.detectors} | {part.name: part.reads for part in self.models}
        found = gaps(reads, frame.offered, vendors)
        news, self.gaps = change(self.gaps, found), found
        for text in told(news.new):
            _log.warning("signal missing", what=text)
        for gap in news.mended:
            _log.info("signal there", signal=str(gap.signal), reader=gap.reader)

    def _noted(self, error: HealerError) -> str:
        """Log a defect when it appears, not every turn."""
        text = str(error)
        if text not in self._said:
            _log.error("content failed", error=text, exc_info=error)
        return text


def _nodes_of(job: Component, frame: Frame) -> tuple[str, ...]:
    nodes = np.unique(frame.nodes.groups.of_gpu[frame.parts_of(job)])
    return tuple(str(frame.nodes.components[node].node) for node in nodes[nodes >= 0].tolist())
