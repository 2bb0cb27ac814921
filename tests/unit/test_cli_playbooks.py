"""`healer playbook`: from nothing to a playbook that is tested, and what it would do before it does it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from healer.actions.playbook_schema import document_schema
from healer.actions.registry import BUILT_IN
from healer.cli import cli
from healer.domain.finding import FailureMode
from healer.errors import HealerError, InvalidDocument
from healer.sim.fleet import SimulatedFleet
from healer.sim.server import FleetServer

ROOT = Path(__file__).parents[2]
ANSWERABLE = [mode for mode in FailureMode if mode is not FailureMode.TELEMETRY_LOST]


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one: the detectors and models are the reference's."""
    folders = {name: {"path": str(ROOT / name)} for name in ("detectors", "models")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**folders, "playbooks": {"path": "playbooks"}}))
    (tmp_path / "playbooks").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _healer(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["playbook", *arguments], catch_exceptions=True)


@pytest.mark.parametrize("mode", ["GpuXid", "JobStalled"])
def test_a_new_playbook_is_linted_and_passes_its_own_tests(deployment: Path, mode: str) -> None:
    assert _healer("new", "mine", "--for", mode).exit_code == 0
    assert (deployment / "playbooks" / "mine.yaml").is_file()
    linted = _healer("lint", "--strict")
    assert (linted.exit_code, linted.output) == (0, "1 playbooks: nothing to say\n")
    rehearsed = _healer("rehearse", "mine")
    assert rehearsed.exit_code == 0, rehearsed.output
    assert rehearsed.output.splitlines()[-1] == "2 passed, 0 failed"


@pytest.mark.parametrize("mode", ANSWERABLE)
def test_what_is_written_for_any_failure_mode_has_nothing_to_say_about(deployment: Path, mode: FailureMode) -> None:
    assert _healer("new", "mine", "--for", str(mode)).exit_code == 0
    assert _healer("lint", "--strict").exit_code == 0
    text = (deployment / "playbooks" / "mine.yaml").read_text()
    assert [*Draft202012Validator(document_schema(BUILT_IN)).iter_errors(yaml.safe_load(text))] == []


def test_nothing_is_written_for_what_no_verb_can_do(deployment: Path) -> None:
    result = _healer("new", "mine", "--for", "TelemetryLost")
    assert isinstance(result.exception, HealerError)
    assert [*(deployment / "playbooks").iterdir()] == []


def test_a_playbook_that_is_there_is_not_overwritten(deployment: Path) -> None:
    (deployment / "playbooks" / "xid.yaml").write_text("mine")
    result = _healer("new", "xid", "--for", "GpuXid")
    assert "is there already" in str(result.exception)
    assert (deployment / "playbooks" / "xid.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["My Book", "a/b", "../b"])
def test_a_name_that_is_none_leaves_nothing_behind(deployment: Path, name: str) -> None:
    before = sorted(deployment.rglob("*"))
    assert _healer("new", name, "--for", "GpuXid").exit_code != 0
    assert [*(deployment / "playbooks").iterdir()] == []
    assert sorted(deployment.rglob("*")) == before


def test_a_test_that_fails_is_told_with_what_happened(deployment: Path) -> None:
    _healer("new", "xid", "--for", "GpuXid")
    path = deployment / "playbooks" / "xid.yaml"
    path.write_text(path.read_text().replace("run: succeeded", "run: failed"))
    result = _healer("rehearse")
    assert result.exit_code == 1
    assert "tests[0].expect.run: is succeeded, not failed" in result.output
    assert "effect.done" in result.output
    assert result.output.splitlines()[-1] == "1 passed, 1 failed"
    told: Any = json.loads(_healer("rehearse", "--json").output)
    assert [test["passed"] for test in told["tests"]] == [False, True]
    (problem,) = told["tests"][0]["problems"]
    assert (Path(problem["file"]).name, problem["key"]) == ("xid.yaml", "tests[0].expect.run")
    assert "run: failed" in path.read_text().splitlines()[problem["line"] - 1]


def test_who_asks_for_the_tests_of_a_playbook_without_any_is_told(deployment: Path) -> None:
    _healer("new", "xid", "--for", "GpuXid")
    path = deployment / "playbooks" / "xid.yaml"
    path.write_text(path.read_text().partition("tests:")[0])
    result = _healer("rehearse", "xid")
    assert (result.exit_code, result.output) == (1, "xid: has no tests\n0 passed, 0 failed\n")
    linted = _healer("lint", "--json")
    assert linted.exit_code == 0
    assert [remark["weight"] for remark in json.loads(linted.output)] == ["warning"]
    assert _healer("lint", "--strict").exit_code == 1


def test_a_file_need_not_be_deployed(deployment: Path) -> None:
    _healer("new", "xid", "--for", "GpuXid")
    elsewhere = (deployment / "playbooks" / "xid.yaml").rename(deployment / "draft.yaml")
    assert _healer("lint", str(elsewhere)).exit_code == 0
    result = _healer("lint", "xid")
    assert "neither a file nor in" in str(result.exception)


def test_the_schema_refuses_what_the_loader_refuses() -> None:
    validator = Draft202012Validator(json.loads(_healer("schema").output))
    for path in sorted((ROOT / "playbooks").glob("*.yaml")):
        document: Any = yaml.safe_load(path.read_text())
        assert [*validator.iter_errors(document)] == []
        changes: tuple[dict[str, Any], ...] = (
            {"target": "planet"},
            {"steps": [{"id": "a", "use": "node.cordn"}]},
            {"steps": [{"id": "a", "use": "node.cordon", "with": {"raison": "x"}}]},
            {"steps": [{"id": "a", "use": "node.drain", "with": {"at_once": "many"}}]},
            {"deadline": "soon"},
            {"tests": [{"name": "a", "expect": {"rum": "none"}}]},
            {"mach": {}},
            {"approval": {"quorum": 0}},
            {"approval": {"who": []}},
            {"approval": {"escalate": {"after": "5m"}}},
            {"approval": {"on_expire": "never"}},
        )
        for change in changes:
            assert [*validator.iter_errors({**document, **change})], change


def test_a_group_that_the_deployment_has_not_is_found_by_its_line(deployment: Path) -> None:
    _healer("new", "xid", "--for", "GpuXid")
    path = deployment / "playbooks" / "xid.yaml"
    text = path.read_text()
    assert text.count("approval:\n") == 1
    path.write_text(text.replace("approval:\n", "approval:\n  who: [gpu-onkall]\n  quorum: 2\n"))
    config = deployment / "config.yaml"
    groups = {"approvers": ["token:a", "token:b"], "groups": {"gpu-oncall": ["token:a", "token:b"]}}
    config.write_text(config.read_text() + yaml.safe_dump({"approvals": groups}))
    line = path.read_text().splitlines().index("  who: [gpu-onkall]") + 1
    for refused in (_healer("lint"), CliRunner().invoke(cli, ["check", str(deployment)])):
        assert isinstance(refused.exception, InvalidDocument)
        assert [(problem.file, problem.line) for problem in refused.exception.problems] == [
            (str(path), line),
            (str(path), line + 1),
        ]
        assert "gpu-onkall is not in approvals.groups of config.yaml (did you mean 'gpu-oncall'?)" in str(
            refused.exception
        )
    path.write_text(path.read_text().replace("onkall", "oncall"))
    assert _healer("lint").exit_code == 0


def test_a_plan_needs_a_component_and_a_fleet(deployment: Path) -> None:
    _healer("new", "xid", "--for", "GpuXid")
    assert "--node" in _healer("plan", "xid").output
    assert "--node" in _healer("plan", "xid", "--gpu", "1").output
    path = deployment / "config.yaml"
    path.write_text(path.read_text() + "telemetry: {source: simulator}\n")
    assert "there is no real fleet" in str(_healer("plan", "xid", "--node", "a").exception)


def test_a_plan_for_a_live_fleet_names_its_effects_and_who_would_speak(deployment: Path) -> None:
    for name in ("cap-rack-power", "shed-rack-load", "hand-over"):
        shutil.copy(ROOT / "playbooks" / f"{name}.yaml", deployment / "playbooks")
    with FleetServer(SimulatedFleet(racks=1, nodes=2, gpus=2)) as server:
        path = deployment / "config.yaml"
        more = {
            "telemetry": {"source": "scrape", "scrape": {"discovery": f"{server.url}/sd"}},
            "topology": {"rack_budget_watts": {"default": 2000}},
            "power": {"agent_url": f"{server.url}/agents/{{node}}/power"},
        }
        path.write_text(path.read_text() + yaml.safe_dump(more))
        command = [sys.executable, "-m", "healer", "playbook", "plan", "cap-rack-power", "--rack", "rack-1"]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        approvals = {"approvers": ["token:a", "token:b"], "groups": {"oncall": ["token:a", "token:b"]}}
        path.write_text(path.read_text() + yaml.safe_dump({"approvals": approvals}))
        playbook = deployment / "playbooks" / "cap-rack-power.yaml"
        asks = '  when: "true"\n  who: [oncall]\n  quorum: 2\n'
        playbook.write_text(playbook.read_text().replace('  when: "false"\n', asks))
        asking = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "  a person is asked first: yes: 2 of oncall" in asking.stdout.splitlines()
    title, *lines = ended.stdout.splitlines()
    assert title == "cap-rack-power on a RackPowerOverBudget of rack rack-1:"
    assert lines[0].startswith("  cap power rack rack-1 (4 GPUs on 2 nodes from 700 W to ")
    assert "  a person is asked first: no" in lines
    assert lines[-1] == "  held back: mode: mode is observe: nothing acts (lifts when mode is set to recommend or act)"
    assert not [*deployment.glob("*.db*")], "and nothing is left behind"


def test_a_plan_for_a_live_fleet_asks_its_agents(deployment: Path) -> None:
    for name in ("reset-gpu", "return-to-service", "hand-over"):
        shutil.copy(ROOT / "playbooks" / f"{name}.yaml", deployment / "playbooks")
    with FleetServer(SimulatedFleet(racks=1, nodes=2, gpus=2)) as server:
        path = deployment / "config.yaml"
        more = {
            "telemetry": {"source": "scrape", "scrape": {"discovery": f"{server.url}/sd"}},
            "agent": {"url": f"{server.url}/agents/{{node}}"},
        }
        path.write_text(path.read_text() + yaml.safe_dump(more))
        command = [sys.executable, "-m", "healer", "playbook", "plan", "reset-gpu", "--node", "gpu-001", "--gpu", "1"]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "held back: target: cluster: no scheduler is configured; set cluster.kind" in ended.stdout


def test_a_file_that_is_not_deployed_is_judged_as_if_it_were(deployment: Path) -> None:
    _healer("new", "b-xid", "--for", "GpuXid")
    stray = deployment / "c-xid.yaml"
    text = (deployment / "playbooks" / "b-xid.yaml").read_text().replace("name: b-xid", "name: c-xid")
    stray.write_text(text)
    assert "b-xid answers all of these first" in _healer("lint", str(stray)).output
    stray.write_text(text.replace("failure_modes: [GpuXid]", "failure_modes: [GpuXid]\n  priority: 1"))
    assert "answers all of these first" not in _healer("lint", str(stray)).output
