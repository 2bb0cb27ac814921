"""Scenarios of detectors: what exporters say, turn by turn in relative time, and what a detector makes of it.

A file has a detector, the failure mode that is judged, and what is exported: `metrics` of every GPU, `node_metrics`,
`port_metrics`, `rack_metrics`, each short name with the metric (and labels) that it stands for. Without `fleet` there
is one GPU with the given `labels`; with it, `nodes` nodes (n1, n2, ...) of `gpus` GPUs, in racks of `nodes_per_rack`
(r1, r2, ...), all in one job if `job` is given; `exporter` is `amd` for AMD's, else NVIDIA's.

`turns` are moments (`+30s`) or spans (`+0s..+10m every 30s`). A value is a number, or `{from: 0, by: 5}` for one that
grows with every turn of its span. It holds for all; under `n1`, `n1/3`, `r1` or `r1/A` (a feed) stands what holds for
that part instead, `gone` for what is not exported. Besides the values:

* `is`: the health at the last turn of the span; `throughout`: at every turn; `mode`, `who`: of what
* `also`: others that are found as well; `anyone`: nobody else is looked at
* `says`: what the reason contains; `culprit`; `disputed`
* `age`: how old the samples are; `silent`: nodes whose exporter does not answer; `down`: whose other exporters do not
* `job`, `nodes_job`: of all, or by node, from this turn on
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from healer.content.detectors import Detector, load_detectors
from healer.domain.component import Component
from healer.domain.finding import FailureMode, Finding, Findings, Health
from healer.domain.frame import Frame
from healer.domain.reading import Reading
from healer.runtime.observer import CHANGES_WHAT_IS_NORMAL
from healer.schema import parse_duration
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from healer.telemetry.wire.series import LabelSets
from tests.readings import Series, reading_of

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 14, 3, 0, 0, tzinfo=UTC)
_WORDS = frozenset(
    [
        "is",
        "throughout",
        "mode",
        "who",
        "also",
        "anyone",
        "says",
        "culprit",
        "disputed",
        "age",
        "silent",
        "down",
        "job",
        "nodes_job",
        "racks_of",
    ]
)
_SPAN = re.compile(r"\+(\w+)\.\.\+(\w+) every (\w+)")


@dataclass(frozen=True)
class Turn:
    """Attributes:
    index: how many turns of its span came before.
    is_last: whether it is the last one of its span.
    """

    moment: str
    at: datetime
    index: int
    is_last: bool
    says: Mapping[str, Any]


@dataclass
class Scenario:
    """`table` is the file, `row` the scenario in it."""

    table: Mapping[str, Any]
    row: Mapping[str, Any]
    sets: LabelSets = field(default_factory=LabelSets)

    def setting(self, key: str, default: Any = None) -> Any:
        return self.row.get(key, self.table.get(key, default))

    def detector(self) -> Detector:
        name = self.table["detector"]
        loaded = load_detectors(ROOT / "detectors", settings={name: self.row.get("settings", {})})
        return next(detector for detector in loaded if detector.name == name)

    def window(self, detector: Detector) -> Window:
        budget = self.setting("budget_watts")
        rules = TopologyRules(rack_budget_w={} if budget is None else {"default": float(budget)})
        return Window(rules, remembered=detector.remembers)

    def turns(self) -> Iterator[Turn]:
        for moment, says in self.row["turns"].items():
            span = _SPAN.fullmatch(moment)
            if span is None:
                at = START + parse_duration(moment.removeprefix("+"))
                yield Turn(moment, at, 0, is_last=True, says=says)
                continue
            first, last, step = (parse_duration(text) for text in span.groups())
            count = (last - first) // step + 1
            for index in range(count):
                at = START + first + index * step
                yield Turn(f"{moment} ({index * step})", at, index, is_last=index == count - 1, says=says)

    def reading(self, turn: Turn) -> Reading:
        age = parse_duration(turn.says.get("age", "0s"))
        columns: dict[str, list[Series]] = {}
        for metric, labels, value in self._series(turn):
            columns.setdefault(metric, []).append((labels, value, (turn.at - age).timestamp()))
        silent = tuple(f"{node}:9400" for node in turn.says.get("silent", ()))
        down = tuple({"job": "node", "instance": f"{node}:9100"} for node in turn.says.get("down", ()))
        reading = reading_of(turn.at, columns, label_sets=self.sets, silent=silent)
        return Reading(reading.at, reading.columns, reading.label_sets, reading.silent, reading.warnings, down)

    def _series(self, turn: Turn) -> Iterator[tuple[str, dict[str, str], float]]:
        fleet = self.setting("fleet")
        if fleet is None:
            for name, metric in self.table["metrics"].items():
                if name in turn.says:
                    yield metric, dict(self.setting("labels")), _number(turn.says[name], turn.index)
            return
        nodes = [f"n{number}" for number in range(1, fleet["nodes"] + 1)]
        for number, node in enumerate(nodes):
            rack = f"r{number // fleet.get('nodes_per_rack', 1000) + 1}"
            job = turn.says.get("nodes_job", {}).get(node, turn.says.get("job", fleet.get("job")))
            for gpu in range(fleet["gpus"]):
                labels = _EXPORTERS[fleet.get("exporter", "dcgm")](fleet, node, gpu) | {"rack": rack}
                labels |= {} if job is None else {"hpc_job": job}
                yield from self._of("metrics", turn, labels, (f"{node}/{gpu}", node, rack))
            where = {"node": node, "rack": rack, "instance": f"{node}:9100", "job": "node"}
            yield from self._of("node_metrics", turn, where, (node, rack))
            for port in range(fleet.get("ports", 1)):
                labels = where | {"device": f"mlx5_{port}", "port": "1"}
                yield from self._of("port_metrics", turn, labels, (f"{node}/mlx5_{port}", node))
        racks = sorted({f"r{number // fleet.get('nodes_per_rack', 1000) + 1}" for number in range(len(nodes))})
        for rack in racks:
            feeds = fleet.get("feeds")
            for feed in feeds or [None]:
                labels = {"rack": rack} | ({} if feed is None else {"power_feed": feed})
                yield from self._of("rack_metrics", turn, labels, (f"{rack}/{feed}", rack))

    def _of(
        self, kind: str, turn: Turn, labels: dict[str, str], names: tuple[str, ...]
    ) -> Iterator[tuple[str, dict[str, str], float]]:
        """What one part exports: the most particular word about it counts."""
        said = [turn.says.get(name, {}) for name in names]
        if "gone" in said:
            return
        for short, metric in self.table.get(kind, {}).items():
            told = next((each[short] for each in (*said, turn.says) if short in each), "gone")
            if told == "gone":
                continue
            name, more = (metric, {}) if isinstance(metric, str) else (metric["metric"], metric.get("labels", {}))
            yield name, labels | more, _number(told, turn.index)


def _of_dcgm(fleet: Mapping[str, Any], node: str, gpu: int) -> dict[str, str]:
    labels = {"UUID": f"GPU-{node}-{gpu}", "gpu": str(gpu), "node": node, "instance": f"{node}:9400"}
    return labels | {"modelName": fleet.get("model", "NVIDIA H100 80GB HBM3")}


def _of_amd(fleet: Mapping[str, Any], node: str, gpu: int) -> dict[str, str]:
    uuid = f"{int(node[1:]):04x}{gpu:04x}-0000-1000-807e-843c9b9a1d73"
    labels = {"gpu_uuid": uuid, "gpu_id": str(gpu), "hostname": node, "instance": f"{node}:5000"}
    labels |= {"gpu_partition_id": "0", "gpu_compute_partition_type": "spx", "card_model": "102-G30211-0C"}
    return labels | {"card_series": fleet.get("model", "AMD Instinct MI300X OAM")}


_EXPORTERS = {"dcgm": _of_dcgm, "amd": _of_amd}


def _number(told: Any, index: int) -> float:
    return float(told["from"] + index * told["by"]) if isinstance(told, Mapping) else float(told)


def play(scenario: Scenario) -> None:
    """Run the scenario; raises AssertionError where the detector does not say what is expected."""
    detector = scenario.detector()
    window, frame = scenario.window(detector), None
    sick = None
    for turn in scenario.turns():
        frame = window.add(scenario.reading(turn), sick=sick)
        findings = detector.detect(frame)
        sick = frame.current & False
        for found in (one for one in findings.found if one.failure_mode in CHANGES_WHAT_IS_NORMAL):
            sick[frame.parts_of(found.component)] = True
        for key in ("throughout", "is"):
            if key in turn.says and (turn.is_last or key == "throughout"):
                _check(scenario, turn, frame, findings, turn.says[key])


def _check(scenario: Scenario, turn: Turn, frame: Frame, findings: Findings, expected: str) -> None:
    mode = FailureMode(turn.says.get("mode", scenario.setting("mode")))
    judged = [judgement for judgement in findings.judgements if judgement.failure_mode is mode]
    found = {_name(one.component): one for one in findings.found if one.failure_mode is mode}
    who = turn.says.get("who", scenario.setting("who"))
    health = found[who].health if who in found else _health(judged, frame, who)
    assert (turn.moment, health.name.lower()) == (turn.moment, expected), [str(one.reason) for one in found.values()]
    if not turn.says.get("anyone"):
        wanted = {*([] if who is None or health <= Health.HEALTHY else [who]), *turn.says.get("also", ())}
        assert (turn.moment, set(found) if who is not None else set()) == (turn.moment, wanted)
    if turn.is_last:
        _check_words(turn, list(found.values()) if who is None else [found[who]] if who in found else [])


def _check_words(turn: Turn, found: list[Finding]) -> None:
    reasons = "".join(one.reason for one in found)
    assert turn.says.get("says", "") in reasons, reasons
    if "culprit" in turn.says:
        culprits = [None if one.culprit is None else _name(one.culprit) for one in found]
        assert culprits == [turn.says["culprit"]], reasons
    if "disputed" in turn.says:
        assert turn.says["disputed"] in "".join("; ".join(one.disputed) for one in found)


def _health(judged: list[Any], frame: Frame, who: str | None) -> Health:
    """The health that was judged of the component, or of the only one."""
    worst = Health.UNKNOWN
    for judgement in judged:
        axis = {
            "gpu": frame.gpus.components,
            "node": frame.nodes.components,
            "rack": frame.racks.components,
            "job": frame.jobs.components,
        }[str(judgement.kind)]
        rows = [row for row, component in enumerate(axis) if who is None or _name(component) == who]
        # A component that no series names has no row, and is unknown by that.
        worst = max([worst, *(Health(int(judgement.health[row])) for row in rows)])
    return worst


def _name(component: Component) -> str:
    match str(component.kind):
        case "gpu":
            return f"{component.node}/{component.gpu}"
        case "node":
            return str(component.node)
        case "rack":
            return str(component.rack)
        case "job":
            return str(component.job)
        case _:
            return str(component.link)


__all__ = ["START", "Scenario", "play", "timedelta"]
