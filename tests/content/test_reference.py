"""The reference deployment holds together: everything loads, and everything that it can find is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from healer.actions.lint import lint
from healer.actions.registry import BUILT_IN, check_playbook
from healer.adapters.kubernetes.jobs import KINDS
from healer.cli import cli
from healer.config import load_config
from healer.content.expressions import variables_of
from healer.content.models import load_code
from healer.content.nesting import is_part
from healer.content.playbooks import load_playbooks
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode, Finding, Health
from healer.domain.fleet import Means
from healer.domain.incident import Incident
from healer.domain.playbook import OnFailure, ResolvesWhen
from healer.policy.selection import choose_playbook
from healer.rehearsal.rehearse import rehearse
from healer.runtime.wiring import Content, budgets_of, load_content
from healer.telemetry.catalogue.signals import SPELLINGS

ROOT = Path(__file__).parents[2]
TOLD_ONLY = FailureMode.GPU_FAILURE_PREDICTED  # by other systems, until there is a model for it
SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)


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
    part = is_part(playbook, content.playbooks)
    assert lint(playbook, BUILT_IN, budgets=budgets_of(config), is_part=part) == ()
    played = [*rehearse(playbook, config, content.detectors, verbs=content.verbs, beside=content.playbooks)]
    assert len(played) >= 3
    assert [problem for one in played for problem in one.problems] == []


def test_every_failure_mode_that_something_can_find_is_a_known_one(content: Content) -> None:
    modes = {mode for detector in content.detectors for mode in detector.modes}
    modes |= {mode for model in content.models for mode in load_code(ROOT / "models" / model.name).MODES}
    assert modes == set(FailureMode) - {TOLD_ONLY}


def test_every_playbook_answers_what_can_be_found_or_comes_after_another_one_or_stands_in_it(content: Content) -> None:
    findable = {mode for detector in content.detectors for mode in detector.modes} | {TOLD_ONLY}
    for playbook in content.playbooks:
        rung = playbook.name in {other.otherwise for other in content.playbooks}
        assert playbook.failure_modes & findable or rung or is_part(playbook, content.playbooks), playbook.name


def test_every_signal_that_is_read_is_one_that_some_exporter_offers(content: Content) -> None:
    offered = {spelling.signal for spelling in SPELLINGS.values()}
    read = {signal for detector in content.detectors for signal in detector.reads}
    read |= {signal for model in content.models for signal in model.reads}
    assert read <= offered


def test_a_playbook_that_takes_a_node_out_asks_first_and_keeps_it_out_unless_it_has_passed_a_test(
    content: Content,
) -> None:
    for playbook in content.playbooks:
        if any(step.use == "node.drain" for step in playbook.steps):
            assert playbook.approval.when({}) is True
            assert (playbook.steps[0].use, playbook.steps[0].on_failure) == ("node.cordon", OnFailure.KEEP)
            if playbook.resolves_when is not ResolvesWhen.CONTAINED:
                assert [step.use for step in playbook.steps[-2:]] == ["node.burn_in", "node.uncordon"]


@pytest.mark.parametrize(
    ("means", "answers"),
    [
        (Means(), {0: None, 300: "hand-over"}),
        (Means(scheduler=True), {0: None, 300: None, 599: None, 600: "quarantine-links"}),
    ],
    ids=["nobody to ask for the node", "a scheduler"],
)
def test_what_waits_longer_is_not_forestalled_by_the_ticket_for_what_has_no_remedy(
    content: Content, means: Means, answers: dict[int, str | None]
) -> None:
    link = Component(ComponentKind.GPU, rack="r1", node="n1", gpu="1", uuid="GPU-1")
    found = Finding(FailureMode.NVLINK_ERRORS, link, Health.DEGRADED, 1.0, "its link errs")
    incident = Incident.opened(found, SOME_TIME)
    seen = variables_of(incident, {}, means)
    for seconds, name in answers.items():
        chosen = choose_playbook(incident, content.playbooks, seen, SOME_TIME + timedelta(seconds=seconds))
        assert (None if chosen is None else chosen.name) == name


@pytest.mark.parametrize("health", [Health.DEGRADED, Health.FAILED])
@pytest.mark.parametrize(
    "job", [*(f"ml/{kind}/train" for kind in KINDS), "ml/Pod/notebook", "ml/RayJob/train", "ml/Deployment/web", "4711"]
)
def test_every_stalled_job_is_answered_and_one_that_can_be_suspended_is_restarted(
    content: Content, job: str, health: Health
) -> None:
    found = Finding(FailureMode.JOB_STALLED, Component(ComponentKind.JOB, job=job), health, 1.0, "all ranks wait")
    incident = Incident.opened(found, SOME_TIME)
    answers = [
        playbook.name
        for playbook in content.playbooks
        if incident.failure_mode in playbook.failure_modes
        and (
            playbook.condition is None
            or playbook.condition(variables_of(incident, playbook.params, Means(scheduler=True))) is True
        )
    ]
    can_be_restarted = health is Health.FAILED and not KINDS.keys().isdisjoint(job.split("/"))
    assert answers == ["restart-stalled-job" if can_be_restarted else "hand-over"]


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
