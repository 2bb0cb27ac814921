"""The pages of everything around the GPUs as text, for whoever scrapes a simulated fleet that is served."""

from __future__ import annotations

from collections.abc import Iterator

from healer.sim.exporters.pages import Page, other_pages
from healer.sim.exporters.style import Style
from healer.sim.exporters.targets import HOST_JOB, IPMI_JOB, METER_JOB, SCHEDULER_JOB, Target, targets
from healer.sim.knobs import Knob
from healer.sim.world import World
from healer.telemetry.wire.label_sets import LabelSets


class TextPages:
    """Args:
    style: of the site; what a target's own labels are, whoever scrapes adds.
    """

    def __init__(self, world: World, style: Style) -> None:
        self._world = world
        bare = [Target(one.job, one.instance, one.place, {}, one.offset_ms) for one in targets(world.layout, style)]
        self._pages = other_pages(world, style, bare, LabelSets())

    def page(self, job: str, place: int) -> str | None:
        """What the target of this job at its place shows; None if it does not answer."""
        if not self._answers(job, place):
            return None
        return "".join(line for page in self._pages if page.job == job for line in self._lines(page, place))

    def _answers(self, job: str, place: int) -> bool:
        knobs = {
            HOST_JOB: Knob.HOST_EXPORTER_DOWN,
            IPMI_JOB: Knob.GONE,
            METER_JOB: Knob.METER_DOWN,
            SCHEDULER_JOB: Knob.SOURCE_DOWN,
        }
        return bool(self._world.knobs[knobs[job]][place] <= 0)

    @staticmethod
    def _lines(page: Page, place: int) -> Iterator[str]:
        rows = page.rows[place]
        rows = rows[page.shown()[rows]]
        values = page.sheet.formats.values(page.read()[:, rows])
        for number, metric in enumerate(page.sheet.metrics if len(rows) else ()):
            yield f"# HELP {metric.name} {metric.meaning}\n# TYPE {metric.name} {metric.kind}\n"
            for row, value in zip(rows.tolist(), values[number].tolist(), strict=True):
                labels = {**page.sheet.labels(row), **dict(metric.labels)}
                text = ",".join(f'{name}="{escaped(word)}"' for name, word in labels.items())
                yield f"{metric.name}{{{text}}} {value:.{metric.decimals}f}\n"


def escaped(value: str) -> str:
    """As the text format wants it between double quotes."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
