"""The observer: from one reading to what is found in it. The first half of a turn, and the whole of it that looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

import numpy as np
import structlog

from healer.content.boundary import call
from healer.content.detectors import Detector
from healer.content.models import Model
from healer.domain.component import ComponentKind
from healer.domain.finding import Findings
from healer.domain.frame import Floats, Frame, Presence
from healer.domain.reading import Reading
from healer.domain.topology import Topology, changes
from healer.errors import HealerError, Rejected, Unavailable
from healer.ports import Notices, TelemetrySource, TopologySource
from healer.telemetry.coverage import Gap, change, gaps, told
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import vendor_of

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Observer:
    """Attributes:
    topology: who knows better than labels do where a GPU is, and whose; None if nobody is configured.
    gaps: what detectors and models read and no exporter ever gave to some GPUs.
    """

    source: TelemetrySource
    window: Window
    detectors: Sequence[Detector]
    models: Sequence[Model]
    topology: TopologySource | None = None
    notices: Notices | None = None
    gaps: tuple[Gap, ...] = ()
    _known: Topology = field(default_factory=Topology)
    _said: frozenset[str] = frozenset()
    _offered: tuple[int, ...] = ()
    _compared: tuple[int, ...] = ()

    def read(self, at: datetime) -> Reading:
        """Raises Unavailable: nothing is concluded from silence."""
        return self.source.read(at)

    def look(self, reading: Reading) -> tuple[Frame, Findings]:
        """The frame as of the reading, with the models' scores, and what every part of the content says of it.

        A part that fails is named in the frame's warnings; what it would have judged is unknown, the others go on.
        """
        warnings = self._locate(reading.at)
        frame = self.window.add(reading, self._known)
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
        findings = findings.doubting(ComponentKind.GPU, frame.presence != Presence.CURRENT)
        if self.notices is not None:
            findings += self.notices.findings(frame, reading.at)
            warnings += self.notices.warnings(reading.at)
        self._said = frozenset(defects)
        self._compare_with_reads(frame)
        return replace(frame, scores=scores, warnings=frame.warnings + warnings + tuple(defects)), findings

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
