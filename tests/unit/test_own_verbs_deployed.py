"""A deployment with a verb of its own: every command knows it, and only what acts in earnest reaches the world."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from healer.cli import cli
from healer.config import load_config
from healer.content.own_verb import rehearsed
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode
from healer.errors import InvalidDocument
from healer.rehearsal.rehearse import Played, rehearse
from healer.runtime.knowledge import Outside
from healer.runtime.preview import Preview, preview
from healer.runtime.wiring import Content, load_content, playbooks_of, verbs_of
from tests.virtual_site import Site

ROOT = Path(__file__).parents[2]
HOOK = """\
from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from healer.sdk import Done, Effect, Failed, Proposal, Section


class Mode(StrEnum):
    QUIET = "quiet"
    LOUD = "loud"


class Calls:
    def __init__(self):
        self.made = []

    def make(self, text):
        self.made.append(text)


class Real(Calls):
    def make(self, text):
        super().make(text)
        with Path(os.environ["HOOK"]).open("a") as file:
            file.write(text + "\\n")


class HookCall:
    '''hook.call: calls the hook.'''

    name = "hook.call"
    target = None
    disrupts = False
    keeps_work_away = False

    class Arguments(Section):
        mode: Mode

    def __init__(self, calls=None):
        self.calls = calls or Real()

    def plan(self, arguments, target, world):
        if isinstance(self.calls, Real):
            self.calls.make("plan")
        return Proposal(effects=(Effect("call", f"the hook {arguments.mode}", harmless=True),))

    def run(self, arguments, target, ledger):
        ledger.effect(str(arguments.mode), do=lambda: self.calls.make("do"), happened=lambda: False)
        return Done("called")

    def verify(self, arguments, target, ledger):
        return Done() if "do" in self.calls.made else Failed("it was never called")

    def undo(self, arguments, target, ledger):
        for record in ledger.standing(str(arguments.mode)):
            ledger.undo(record, do=lambda: self.calls.make("undo"))
        return Done()
"""
STAND_IN = """
    @classmethod
    def rehearsed(cls):
        return cls(Calls())
"""
PLAYBOOK = """\
name: announce
description: Call the hook, and take the node out of service.
match: {failure_modes: [GpuXid]}
target: node
approval: {when: "false"}
resolves_when: contained
steps:
  - {id: first, use: hook.call, with: {mode: loud}}
  - {id: quarantine, use: node.cordon}
  - {id: second, use: hook.call, with: {mode: quiet}}
  - {id: wait, wait_until: node.workloads == 0, timeout: 2m}
tests:
"""
TOLD = "incident: {failure_mode: GpuXid, node: gpu-002}"
STUCK = "workloads: [{owner: Job/train, node: gpu-002}]"
NODE = Component(ComponentKind.NODE, node="gpu-002")


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that is written to when the real hook is called."""
    monkeypatch.setenv("HOOK", str(tmp_path / "hook"))
    return tmp_path / "hook"


@pytest.fixture
def deployment(tmp_path: Path, hook: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a playbook, without its tests, and with a verb that has a stand-in."""
    assert not hook.exists()
    folders = {name: {"path": str(ROOT / name)} for name in ("detectors", "models")}
    playbooks = {"path": "playbooks", "actions": "actions"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**folders, "playbooks": playbooks}))
    for name, text in (("actions/hook.py", HOOK + STAND_IN), ("playbooks/announce.yaml", PLAYBOOK + "  []")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def healer(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def problems_of(result: Result) -> list[str]:
    assert isinstance(result.exception, InvalidDocument), result.output
    return [str(problem) for problem in result.exception.problems]


def played(deployment: Path, test: str, *, told: str = TOLD) -> Played:
    (deployment / "playbooks" / "announce.yaml").write_text(f"{PLAYBOOK}  - {{name: a test, {told}, {test}}}\n")
    config = load_config(deployment / "config.yaml")
    verbs = verbs_of(config)
    (playbook,) = playbooks_of(config, verbs)
    (one,) = rehearse(playbook, config, (), verbs=verbs)
    return one


def test_the_check_names_it(deployment: Path) -> None:
    assert deployment.is_dir()
    result = healer("check")
    assert (result.exit_code, "1 verbs of its own: hook.call\n" in result.output) == (0, True), result.output


@pytest.mark.parametrize("command", [("check",), ("playbook", "lint"), ("playbook", "schema"), ("run",)], ids=" ".join)
def test_nothing_starts_with_a_verb_that_cannot_be_loaded(deployment: Path, command: Sequence[str]) -> None:
    path = deployment / "actions" / "hook.py"
    path.write_text(HOOK.replace("disrupts = False", "disrupts = 0"))
    (problem,) = problems_of(healer(*command))
    line = 1 + HOOK[: HOOK.index("disrupts")].count("\n")
    assert problem == f"{path}:{line}: HookCall.disrupts: is missing, or neither True nor False (see healer.sdk)"


@pytest.mark.parametrize("actions", [None, "elsewhere"], ids=["null", "a folder that is not there"])
def test_a_playbook_whose_verb_is_not_deployed_is_refused(deployment: Path, actions: str | None) -> None:
    path = deployment / "config.yaml"
    path.write_text(path.read_text().replace("actions: actions", f"actions: {actions or 'null'}"))
    problems = problems_of(healer("check"))
    assert [problem.partition("(")[0] for problem in problems] == [
        f"{deployment}/playbooks/announce.yaml:8: steps[0].use: there is no verb 'hook.call' ",
        f"{deployment}/playbooks/announce.yaml:10: steps[2].use: there is no verb 'hook.call' ",
    ]


def test_its_arguments_are_checked_in_playbooks_and_by_the_schema_for_editors(deployment: Path) -> None:
    path = deployment / "playbooks" / "announce.yaml"
    validator = Draft202012Validator(json.loads(healer("playbook", "schema").output))
    document: Any = yaml.safe_load(path.read_text())
    assert [*validator.iter_errors(document)] == []
    assert healer("playbook", "lint").exit_code == 0
    path.write_text(path.read_text().replace("mode: loud", "mode: lod"))
    assert [*validator.iter_errors(yaml.safe_load(path.read_text()))]
    (problem,) = problems_of(healer("playbook", "lint"))
    assert problem.startswith(f"{path}:8: steps[0].with.mode: Input should be 'quiet' or 'loud'")


def test_its_words_are_not_mistaken_for_healer_s(deployment: Path) -> None:
    validator = Draft202012Validator(json.loads(healer("playbook", "schema").output))
    document: Any = yaml.safe_load((deployment / "playbooks" / "announce.yaml").read_text())
    test = {
        "name": "a",
        "incident": {"failure_mode": "GpuXid", "node": "gpu-002"},
        "mode": "act",
        "expect": {"run": "none"},
    }
    assert [*validator.iter_errors({**document, "tests": [test]})] == []


def test_a_rehearsal_calls_its_stand_in_and_tells_its_effects_in_their_order(deployment: Path, hook: Path) -> None:
    effects = "[hook.call loud, cordon gpu-002, hook.call quiet]"
    one = played(deployment, f"expect: {{run: succeeded, effects: {effects}, nodes: {{gpu-002: cordoned}}}}")
    assert one.problems == ()
    assert not hook.exists()


def test_what_is_undone_of_it_is_told_too(deployment: Path, hook: Path) -> None:
    done = "hook.call loud, cordon gpu-002, hook.call quiet"
    undone = "undo hook.call quiet, uncordon gpu-002, undo hook.call loud"
    assert played(deployment, f"{STUCK}, expect: {{run: failed, effects: [{done}, {undone}]}}").problems == ()
    assert not hook.exists()


def test_what_its_stand_in_was_told_survives_a_restart_in_a_test(deployment: Path) -> None:
    restart = "events: [{at: 10s, do: restart}, {at: 1m, do: work_ends, node: gpu-002}]"
    assert played(deployment, f"{STUCK}, {restart}, expect: {{run: succeeded, says: contained}}").problems == ()


@pytest.mark.parametrize("expected", ["{run: succeeded}", "{run: none, effects: []}"], ids=["something", "nothing"])
def test_a_test_that_reaches_a_verb_without_a_stand_in_fails_whatever_it_expects(
    deployment: Path, hook: Path, expected: str
) -> None:
    (deployment / "actions" / "hook.py").write_text(HOOK)
    problem, *_ = played(deployment, f"lasts: 2m, expect: {expected}").problems
    assert str(problem) == (
        f"{deployment}/playbooks/announce.yaml:13: tests[0]: hook.call has no stand-in, so that nothing can be said of"
        " what it would do; give its class a rehearsed()"
    )
    assert not hook.exists()


def test_a_test_that_does_not_reach_it_needs_no_stand_in(deployment: Path) -> None:
    (deployment / "actions" / "hook.py").write_text(HOOK)
    other = "incident: {failure_mode: FabricLinkFlap, node: gpu-002}"
    assert played(deployment, "lasts: 1m, expect: {run: none, says: no playbook answers}", told=other).problems == ()


def test_a_preview_asks_the_real_one_for_its_plan_and_nothing_more(
    deployment: Path, hook: Path, tmp_path: Path
) -> None:
    config = load_config(deployment / "config.yaml")
    verbs = verbs_of(config)
    (playbook,) = playbooks_of(config, verbs)
    with Site(tmp_path) as site:
        site.let_pass(10)
        seen: Preview = preview(
            playbook,
            FailureMode.GPU_XID,
            NODE,
            config=site.config,
            content=Content((), (), (playbook,), verbs),
            outside=Outside(site.telemetry, cluster=site.cluster),
            journal=site.journal,
            clock=site.clock,
        )
    assert seen.plan is not None
    assert [str(effect) for effect in seen.plan.effects][:2] == ["call the hook loud", "cordon gpu-002"]
    assert hook.read_text() == "plan\nplan\n"


def test_the_content_has_healer_s_verbs_and_the_deployment_s(deployment: Path) -> None:
    verbs = load_content(load_config(deployment / "config.yaml")).verbs
    assert {"hook.call", "node.cordon"} <= verbs.keys()
    assert rehearsed(verbs).keys() == verbs.keys()
