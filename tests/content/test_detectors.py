"""The reference detectors against their scenarios: what exporters say in relative time, through the real window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from healer.content.detectors import load_detectors
from healer.documents import read_document
from healer.domain.component import ComponentKind
from healer.domain.finding import Findings
from healer.domain.history import growth_of
from healer.schema import parse_duration
from healer.sdk import peers
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from tests.content.scenario import START, Scenario, play
from tests.frames import frame_of
from tests.readings import Series, reading_of
from tests.unit.core_samples import gpu

ROOT = Path(__file__).parents[2]
SCENARIOS = Path(__file__).parent / "scenarios"


def _scenarios() -> list[Any]:
    rows = []
    for path in sorted(SCENARIOS.rglob("*.yaml")):
        table: Any = read_document(path).content
        rows += [
            pytest.param(Scenario(table, row), id=f"{path.relative_to(SCENARIOS).with_suffix('')}: {row['name']}")
            for row in table["scenarios"]
        ]
    return rows


@pytest.mark.parametrize("scenario", _scenarios())
def test_scenario(scenario: Scenario) -> None:
    play(scenario)


@pytest.mark.parametrize("path", sorted((ROOT / "detectors").glob("*.py")), ids=lambda path: path.stem)
def test_every_detector_has_scenarios_of_every_kind(path: Path) -> None:
    table: Any = read_document(SCENARIOS / f"{path.stem}.yaml").content
    kinds = {row["name"].partition(" - ")[0] for row in table["scenarios"]}
    assert {"healthy", "failing", "missing", "flapping", "stale", "look-alike", "exporter restart"} <= kinds


@pytest.mark.parametrize("path", sorted((ROOT / "detectors").glob("*.py")), ids=lambda path: path.stem)
def test_a_fleet_without_any_component_is_no_finding(path: Path) -> None:
    (detector,) = (d for d in load_detectors(ROOT / "detectors", settings={}) if d.name == path.stem)
    findings = detector.detect(Window(TopologyRules()).add(reading_of(START, {})))
    assert findings.found == ()
    assert {len(judgement.health) for judgement in findings.judgements} == {0}


def _detect(name: str, rules: TopologyRules, columns: Mapping[str, Sequence[Series]]) -> Findings:
    (detector,) = (d for d in load_detectors(ROOT / "detectors", settings={}) if d.name == name)
    return detector.detect(Window(rules).add(reading_of(START, columns)))


def test_only_the_gpu_that_fails_is_named_with_what_convinced() -> None:
    now, errors = START.timestamp(), (0, 0, 0, 5, 0, 0, 0, 0)
    series = [({"UUID": f"GPU-{i}", "gpu": str(i), "node": "n1"}, count, now) for i, count in enumerate(errors)]
    findings = _detect("ecc", TopologyRules(), {"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": series})
    (found,) = findings.found
    assert (found.component.kind, found.component.gpu, found.component.node) == (ComponentKind.GPU, "3", "n1")
    assert found.score == 1.0
    assert [(e.signal, e.value, e.at) for e in found.evidence] == [("gpu_ecc_dbe_volatile_total", 5.0, START)]
    assert findings.judgements[0].health.tolist() == [0, 0, 0, 2, 0, 0, 0, 0]


def test_a_rack_is_measured_against_its_own_budget() -> None:
    rules = TopologyRules(rack_budget_w={"default": 40_000.0, "r2": 30_000.0})
    series = [({"rack": rack}, 35_000.0, START.timestamp()) for rack in ("r1", "r2")]
    findings = _detect("rack_power", rules, {"rack_power_watts": series})
    (found,) = findings.found
    assert found.component.rack == "r2"
    assert [(e.value, e.unit) for e in found.evidence] == [(35_000.0, "W")]


# What detectors share


@pytest.mark.parametrize(
    ("samples", "growth"),
    [
        ([5, 5, 5], 0),
        ([5, 6, 8], 3),
        ([5, 0, 2], 2),
        ([5, 3, 4], 1),
        ([np.nan, 5, 6], 1),
        ([5, np.nan, 7], 2),
        ([5, np.nan, np.nan], 0),
        ([np.nan, np.nan, np.nan], 0),
        ([5], 0),
    ],
    ids=["still", "grows", "reset", "reset to more", "unknown first", "a gap", "silent since", "never known", "one"],
)
def test_the_growth_of_a_counter_survives_resets_and_gaps(samples: list[float], growth: float) -> None:
    assert growth_of(np.array([samples], dtype=float).T).tolist() == [growth]


def test_each_gpu_of_a_window_grows_by_itself() -> None:
    assert growth_of(np.array([[0.0, 5.0, np.nan], [1.0, 5.0, 3.0]])).tolist() == [1, 0, 0]


def test_peers_are_the_gpus_of_the_same_model() -> None:
    mixed = frame_of([gpu("A"), gpu("B"), gpu("C")], models=("H100", "A100", "H100"))
    groups = peers(mixed)
    assert groups[0] == groups[2] != groups[1]


def test_the_time_of_a_scenario_is_read_as_people_write_it() -> None:
    assert parse_duration("+6h30s".removeprefix("+")) == timedelta(hours=6, seconds=30)
