"""The reference deployment holds together: everything loads, and everything that it can find is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from healer.actions.lint import lint
from healer.actions.registry import BUILT_IN, check_playbook
from healer.cli import cli
from healer.config import load_config
from healer.content.models import load_code
from healer.content.playbooks import load_playbooks
from healer.domain.finding import FailureMode
from healer.domain.playbook import OnFailure, ResolvesWhen
from healer.rehearsal.rehearse import rehearse
from healer.runtime.wiring import Content, budgets_of, load_content
from healer.telemetry.catalogue.signals import SPELLINGS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def content() -> Content:
    return load_content(load_config(ROOT / "config.yaml"))


def test_every_file_of_the_reference_deployment_is_loaded(content: Content) -> None:
    assert [part.name for part in content.detectors] == sorted(p.stem for p in (ROOT / "detectors").glob("*.py"))
    assert [part.name for part in content.models] == sorted(p.parent.name for p in (ROOT / "models").glob("*/model.py"))
    assert sorted(part.name for part in content.playbooks) == sorted(p.stem for p in (ROOT / "playbooks").iterdir())


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_playbook_uses_verbs_that_there_are_and_is_named_like_its_file(path: Path) -> None:
    playbooks = {playbook.name: playbook for playbook in load_playbooks(path.parent, params={})}
    assert check_playbook(playbooks[path.stem], BUILT_IN) == ()


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_playbook_passes_its_own_tests_and_nothing_is_to_be_said_of_it(path: Path, content: Content) -> None:
    config = load_config(ROOT / "config.yaml")
    playbook = next(each for each in content.playbooks if each.name == path.stem)
    assert lint(playbook, BUILT_IN, budgets=budgets_of(config)) == ()
    played = [*rehearse(playbook, config, content.detectors, beside=content.playbooks)]
    assert len(played) >= 3
    assert [problem for one in played for problem in one.problems] == []


def test_every_failure_mode_that_something_can_find_is_a_known_one(content: Content) -> None:
    modes = {mode for detector in content.detectors for mode in detector.modes}
    modes |= {mode for model in content.models for mode in load_code(ROOT / "models" / model.name).MODES}
    assert modes == set(FailureMode)


def test_every_playbook_answers_something_that_can_be_found(content: Content) -> None:
    findable = {mode for detector in content.detectors for mode in detector.modes}
    for playbook in content.playbooks:
        assert playbook.failure_modes & findable, playbook.name


def test_every_signal_that_is_read_is_one_that_some_exporter_offers(content: Content) -> None:
    offered = {spelling.signal for spelling in SPELLINGS.values()}
    read = {signal for detector in content.detectors for signal in detector.reads}
    read |= {signal for model in content.models for signal in model.reads}
    assert read <= offered


def test_a_playbook_that_takes_a_node_out_asks_first_and_keeps_it_out(content: Content) -> None:
    for playbook in content.playbooks:
        if any(step.use == "node.drain" for step in playbook.steps):
            assert playbook.approval.when({}) is True
            assert playbook.resolves_when is ResolvesWhen.CONTAINED
            assert playbook.steps[0].use == "node.cordon"


def test_check_passes_on_the_reference_deployment() -> None:
    result = CliRunner().invoke(cli, ["check", str(ROOT)])
    assert result.exit_code == 0, result.output
    assert result.output.endswith("\nok\n")


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("cap-rack-power", {"cap", "hold"}),
        ("cool-gpu", {"limit", "keep"}),
        ("cool-rack", {"limit", "relieved", "cool"}),
    ],
)
def test_a_power_cap_that_fails_falls_back_to_the_safe_share_and_is_not_lifted(name: str, steps: set[str]) -> None:
    (playbook,) = [p for p in load_playbooks(ROOT / "playbooks", params={}) if p.name == name]
    kept = {step.id for step in playbook.steps if step.on_failure is OnFailure.KEEP}
    assert kept == steps
