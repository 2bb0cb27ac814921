"""The backtest: last month's telemetry through today's content, with nothing that acts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from healer.actions.node import Cordon
from healer.config import AgentSettings, Config
from healer.content.own_verb import OwnVerb
from healer.domain.component import Component
from healer.domain.reading import Reading
from healer.domain.verdict import Mode
from healer.errors import Unavailable
from healer.rehearsal.virtual import START
from healer.runtime.backtest import Report, backtest
from healer.sim.faults import Fault, FaultKind
from healer.verb import Action, Proposal, World
from tests.replay.simulated_history import SimulatedHistory
from tests.virtual_site import site_config, site_content

STEP = timedelta(seconds=10)
MINUTES_5 = timedelta(minutes=5)
COMPONENT = {"kind", "rack", "node", "gpu", "uuid", "job", "link"}
FAULTS = (
    Fault(FaultKind.UNCORRECTABLE_ECC, 60, node="gpu-002", gpu=1),
    Fault(FaultKind.LOAD_SURGE, 120, rack="rack-2", duration_s=60),
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return site_config(tmp_path, budget_w=3300.0)


def replayed(config: Config, *faults: Fault, end: datetime = START + MINUTES_5, own: Action | None = None) -> Report:
    content = site_content(config.model_dump_json(include={"detectors", "models", "playbooks"}))
    if own is not None:
        content = replace(content, verbs={**content.verbs, own.name: OwnVerb(own)})
    seen: list[datetime] = []
    history = SimulatedHistory(*faults)
    report = backtest(config, content, history, start=START, end=end, step=STEP, progress=seen.append)
    assert seen == sorted(seen)
    assert len(seen) == report.stats.ticks
    return report


def test_the_report_has_the_keys_that_are_contracted(config: Config) -> None:
    report = json.loads(msgspec.json.encode(replayed(config, *FAULTS)))
    assert report["window"] == {"start": "2026-03-01T00:00:00Z", "end": "2026-03-01T00:05:00Z", "step": "10s"}
    assert {"samples", "gpus", "ticks", "wall_s"} <= report["stats"].keys()
    assert (report["stats"]["gpus"], report["stats"]["ticks"]) == (8, 31)
    assert report["stats"]["warnings"] == ["a store was not asked"]
    assert (report["stats"]["comparison"], report["differences"]) == (None, [])
    contracted = {"failure_mode", "component", "opened_at", "resolved_at", "severity", "score", "reasons", "evidence"}
    for incident in report["incidents"]:
        assert contracted | {"culprit", "plan"} <= incident.keys()
        assert incident["component"].keys() == COMPONENT
        assert {"playbook", "effects", "needs_approval", "verdict"} <= incident["plan"].keys()


def test_incidents_come_oldest_first_with_what_would_have_been_done(config: Config) -> None:
    report = json.loads(msgspec.json.encode(replayed(config, *FAULTS)))
    ecc, power = report["incidents"]
    assert (ecc["failure_mode"], ecc["component"]["node"], ecc["component"]["gpu"]) == (
        "GpuUncorrectableEcc",
        "gpu-002",
        "1",
    )
    assert ecc["opened_at"] == "2026-03-01T00:01:00Z"
    assert ecc["severity"] == "critical"
    assert ecc["resolved_at"] is None
    assert ecc["plan"]["playbook"] == "drain-node"
    assert ecc["plan"]["needs_approval"] is True
    assert [effect["verb"] for effect in ecc["plan"]["effects"]] == ["cordon"]
    assert "mode is observe" in json.dumps(ecc["plan"]["verdict"])
    assert (power["failure_mode"], power["component"]["rack"]) == ("RackPowerOverBudget", "rack-2")
    assert power["plan"]["playbook"] == "cap-rack-power"
    assert power["plan"]["needs_approval"] is False
    assert "4 GPUs on 2 nodes" in json.dumps(power["plan"]["effects"])
    assert power["resolved_at"] is not None


def test_a_fleet_without_faults_has_no_incidents(config: Config) -> None:
    assert replayed(config).incidents == []


def test_the_same_history_gives_the_same_report(config: Config) -> None:
    first, second = (replayed(config, *FAULTS) for _ in range(2))
    assert [incident.id for incident in first.incidents] == [incident.id for incident in second.incidents]
    assert first.incidents == second.incidents


def test_it_observes_also_where_the_configuration_acts(config: Config) -> None:
    assert config.mode is Mode.ACT
    report = replayed(config, *FAULTS)
    assert {incident.state for incident in report.incidents} <= {"open", "resolved"}
    assert all(incident.run_id is None and incident.approval_id is None for incident in report.incidents)


class OwnCordon(Cordon):
    """A verb of the deployment's own, in the place of healer's, that asks what was not yet then."""

    def plan(self, arguments: Cordon.Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        raise AssertionError("the real one was asked")


class RehearsedCordon(OwnCordon):
    @classmethod
    def rehearsed(cls) -> Cordon:
        return Cordon()


def test_a_verb_that_may_not_be_asked_about_then_leaves_its_plan_unknown(config: Config) -> None:
    report = replayed(config, FAULTS[0], own=OwnCordon())
    assert [incident.plan for incident in report.incidents] == [None]
    assert "node.cordon has no stand-in: what it would have planned is not known" in report.stats.warnings


def test_the_stand_in_of_a_verb_says_what_would_have_been_planned(config: Config) -> None:
    report = replayed(config, FAULTS[0], own=RehearsedCordon())
    (plan,) = (incident.plan for incident in report.incidents)
    assert plan is not None
    assert [effect.verb for effect in plan.effects] == ["cordon"]
    assert report.stats.warnings == ["a store was not asked"]


def test_a_history_that_cannot_be_had_is_told(config: Config) -> None:
    class Gone:
        def replay(self, start: datetime, end: datetime, step: timedelta) -> Iterator[Reading]:
            yield next(SimulatedHistory().replay(start, end, step))
            raise Unavailable("prometheus", "timed out")

    content = site_content(config.model_dump_json(include={"detectors", "models", "playbooks"}))
    with pytest.raises(Unavailable, match="timed out"):
        backtest(config, content, Gone(), start=START, end=START + MINUTES_5, step=STEP, progress=lambda _at: None)


def test_what_agents_would_have_done_is_told_where_the_configuration_has_any(config: Config) -> None:
    fault = Fault(FaultKind.ROW_REMAP_PENDING, 60.0, node="gpu-002", gpu=1)
    (without,) = replayed(config, fault, end=START + timedelta(minutes=7)).incidents
    assert without.plan is not None
    assert without.plan.playbook == "hand-over"
    agents = config.model_copy(update={"agent": AgentSettings(url="http://{node}:9422")})
    (incident,) = replayed(agents, fault).incidents
    assert incident.plan is not None
    assert incident.plan.playbook == "reset-gpu"
    assert [f"{effect.verb} {effect.target}" for effect in incident.plan.effects] == [
        "cordon gpu-002",
        "reset gpu-002/1",
        "burn in gpu-002",
        "uncordon gpu-002",
    ]
