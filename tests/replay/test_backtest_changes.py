"""A change of playbooks on history: the deployed ones and the changed ones act side by side, and in memory only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from healer.config import Config
from healer.content.playbooks import parse_playbook, with_changes
from healer.documents import parse_document
from healer.domain.verdict import Mode
from healer.errors import InvalidDocument
from healer.rehearsal.virtual import START
from healer.runtime.backtest import Report, backtest
from healer.runtime.comparison import Change, CourseView, TallyView
from healer.sim.faults import Fault, FaultKind
from tests.replay.simulated_history import SimulatedHistory
from tests.virtual_site import site_config, site_content

STEP = timedelta(seconds=10)
PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
DRAIN = (PLAYBOOKS / "drain-node.yaml").read_text()
CONDITION = 'if: incident.health == "failed"'
UNASKED = DRAIN.replace('when: "true"', 'when: "false"')
LATER = DRAIN.replace(CONDITION, f"{CONDITION}\n  for: 2m")
ECC = Fault(FaultKind.UNCORRECTABLE_ECC, 60, node="gpu-002", gpu=1)
ECC_BESIDE = Fault(FaultKind.UNCORRECTABLE_ECC, 90, node="gpu-001", gpu=0)
SURGE = Fault(FaultKind.LOAD_SURGE, 60, rack="rack-2", duration_s=30)
GOES_AWAY = Fault(FaultKind.ROW_REMAP_FAILED, 60, node="gpu-002", gpu=1, variant="flag_only", duration_s=60)

Replay = Callable[..., Report]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return site_config(tmp_path, budget_w=3300.0)


@pytest.fixture
def replayed(config: Config) -> Replay:
    def replay(
        *faults: Fault,
        given: str,
        minutes: float,
        mode: Mode = Mode.ACT,
        answer_after: timedelta = timedelta(0),
        changes: Mapping[str, object] | None = None,
        file: str = "given.yaml",
        step: timedelta = STEP,
    ) -> Report:
        site = Config.model_validate({**config.model_dump(), **(changes or {})})
        content = site_content(config.model_dump_json(include={"detectors", "models", "playbooks"}))
        playbook = parse_playbook(parse_document(given, file=file))
        together = with_changes(content.playbooks, (playbook,), params=config.playbooks.params)
        return backtest(
            site,
            content,
            SimulatedHistory(*faults),
            start=START,
            end=START + timedelta(minutes=minutes),
            step=step,
            progress=lambda _at: None,
            change=Change((playbook,), together, mode, answer_after),
        )

    return replay


def told(course: CourseView | None) -> list[str]:
    assert course is not None
    return [f"{moment.at:%H:%M:%S} {moment.what}" for moment in course.moments]


def tallies(report: Report, name: str) -> tuple[TallyView, TallyView]:
    """Of one playbook: deployed, changed."""
    comparison = report.stats.comparison
    assert comparison is not None
    (before,), (after,) = (
        [tally for tally in side.playbooks if tally.playbook == name]
        for side in (comparison.deployed, comparison.changed)
    )
    return before, after


def test_who_is_not_asked_any_more_and_what_comes_later_is_said_with_its_time(replayed: Replay) -> None:
    report = replayed(ECC, given=UNASKED.replace(CONDITION, f"{CONDITION}\n  for: 2m"), minutes=4)
    (difference,) = report.differences
    assert (difference.failure_mode, difference.component.node) == ("GpuUncorrectableEcc", "gpu-002")
    plan = "drain-node on node gpu-002: cordon gpu-002"
    assert told(difference.deployed) == [
        f"00:01:00 asks: {plan}",
        "00:01:00 approved",
        f"00:01:00 starts: {plan}",
        "00:01:00 cordon gpu-002",
        "00:01:00 drain-node succeeded",
        "00:01:00 resolved",
    ]
    assert told(difference.changed) == [
        f"00:03:00 starts: {plan}",
        "00:03:00 cordon gpu-002",
        "00:03:00 drain-node succeeded",
        "00:03:00 resolved",
    ]
    before, after = tallies(report, "drain-node")
    assert (before.plans, before.questions, before.runs, before.nodes_out) == (1, 1, 1, 1)
    assert (after.plans, after.questions, after.runs, after.nodes_out) == (1, 0, 1, 1)
    assert (before.node_hours, after.node_hours) == (round(3 / 60, 2), round(1 / 60, 2))


def test_a_change_of_words_makes_no_difference(replayed: Replay) -> None:
    report = replayed(ECC, given=DRAIN.replace("description: Take", "description: Please take"), minutes=2)
    assert report.differences == []
    assert report.stats.comparison is not None
    assert [(each.name, each.change) for each in report.stats.comparison.given] == [("drain-node", "changed")]
    assert report.stats.comparison.deployed == report.stats.comparison.changed
    assert tallies(report, "drain-node")[0].runs == 1


def test_what_is_reported_of_the_history_itself_is_what_it_is_without_a_change(
    replayed: Replay, config: Config
) -> None:
    report = replayed(ECC, given=UNASKED, minutes=2)
    content = site_content(config.model_dump_json(include={"detectors", "models", "playbooks"}))
    end = START + timedelta(minutes=2)
    alone = backtest(config, content, SimulatedHistory(ECC), start=START, end=end, step=STEP, progress=lambda _at: None)
    assert alone.incidents == report.incidents
    assert report.incidents[0].state == "open"


def test_a_budget_that_is_spent_by_one_side_is_said_of_that_side(replayed: Replay) -> None:
    spared = DRAIN.replace(CONDITION, f'{CONDITION} && incident.component.node != "gpu-002"')
    report = replayed(ECC, ECC_BESIDE, given=spared, minutes=3)
    second, first = sorted(report.differences, key=lambda each: str(each.component.node))
    assert told(first.deployed)[-1] == "00:01:00 resolved"
    assert told(first.changed) == []
    assert first.changed is not None
    assert first.changed.plan is None
    assert second.deployed is not None
    assert told(second.deployed) == ["00:01:30 held by budget"]
    assert "to the end; rack rack-1: 1 of 2 nodes out, 1 allowed" in second.deployed.moments[0].note
    assert second.deployed.plan is not None
    assert second.deployed.plan.verdict is not None
    assert second.deployed.plan.verdict.guard == "budget"
    assert told(second.changed)[-1] == "00:01:30 resolved"


def test_a_node_comes_back_when_its_fault_is_over_and_the_next_one_has_room(replayed: Replay) -> None:
    report = replayed(GOES_AWAY, ECC_BESIDE, given=LATER, minutes=6)
    waited = next(each for each in report.differences if each.component.node == "gpu-001")
    assert waited.deployed is not None
    held, *answered = waited.deployed.moments
    assert held.what == "held by budget"
    assert held.note.startswith(f"until 2026-03-01 {answered[0].at:%H:%M:%S}; ")
    assert answered[-1].what == "resolved"
    assert told(waited.changed)[-1] == "00:03:30 resolved"
    gone = next(each for each in report.differences if each.component.node == "gpu-002")
    assert told(gone.changed)[-1].endswith("resolved")
    assert "cordon gpu-002" not in " ".join(told(gone.changed))
    before, after = tallies(report, "drain-node")
    assert (before.nodes_out, after.nodes_out) == (2, 1)


def test_on_call_answers_when_it_was_said_and_a_question_that_expires_first_is_never_a_yes(replayed: Replay) -> None:
    hasty = DRAIN.replace("expires_after: 30m", "expires_after: 1m")
    report = replayed(ECC, given=hasty, minutes=4, answer_after=timedelta(minutes=2))
    (difference,) = report.differences
    assert told(difference.deployed)[:2] == [
        "00:01:00 asks: drain-node on node gpu-002: cordon gpu-002",
        "00:03:00 approved",
    ]
    assert "00:02:00 expired" in told(difference.changed)
    assert "approved" not in " ".join(told(difference.changed))
    assert "00:02:10 ticket" in told(difference.changed)
    assert (tallies(report, "drain-node")[1].runs, tallies(report, "hand-over")[1].runs) == (0, 1)


def test_in_recommend_both_sides_ask_for_what_takes_nothing_out_too(replayed: Replay) -> None:
    report = replayed(SURGE, given=UNASKED, minutes=2, mode=Mode.RECOMMEND)
    assert report.differences == []
    before, after = tallies(report, "cap-rack-power")
    assert before == after
    assert (before.questions, before.runs, before.nodes_out) == (1, 1, 0)


def test_a_storm_is_a_storm_on_the_side_where_it_is_one(replayed: Replay) -> None:
    spared = DRAIN.replace(CONDITION, f'{CONDITION} && incident.component.node != "gpu-001"')
    breaker = {"at_least": 1, "max_nodes": 1, "max_percent": 100, "together": 0}
    budgets = {"budgets": {"fleet": {"max_percent": 100}, "rack": {"max_percent": 100}, "breaker": breaker}}
    report = replayed(ECC, ECC_BESIDE, given=spared, minutes=2, changes=budgets)
    comparison = report.stats.comparison
    assert comparison is not None
    assert [(f"{storm.at:%H:%M:%S}", "2 nodes of 4" in storm.reason) for storm in comparison.deployed.breaker] == [
        ("00:01:30", True)
    ]
    assert comparison.changed.breaker == []
    (held,) = [each for each in report.differences if each.component.node == "gpu-001"]
    assert told(held.deployed) == ["00:01:30 held by breaker"]


def test_a_person_closes_the_breaker_after_an_hour(replayed: Replay) -> None:
    breaker = {"at_least": 1, "max_nodes": 1, "max_percent": 100, "together": 0}
    budgets = {"budgets": {"fleet": {"max_percent": 100}, "rack": {"max_percent": 100}, "breaker": breaker}}
    step = timedelta(seconds=30)
    report = replayed(ECC, ECC_BESIDE, given=UNASKED, minutes=63, changes=budgets, step=step)
    held = next(each for each in report.differences if each.component.node == "gpu-001")
    assert told(held.changed)[0] == "00:01:30 held by breaker"
    assert "01:02:00 cordon gpu-001" in told(held.changed)


def test_a_playbook_that_is_new_is_asked_in_its_place_by_the_name_of_its_file(replayed: Replay) -> None:
    text = DRAIN.replace("name: drain-node", "name: quarantine").partition("  - id: evacuate")[0]
    report = replayed(ECC, given=text, minutes=2, file="a-quarantine.yaml")
    comparison = report.stats.comparison
    assert comparison is not None
    assert [each.change for each in comparison.given] == ["added"]
    names = [each.playbook for each in comparison.changed.playbooks]
    assert names.index("quarantine") < names.index("cap-rack-power")
    (difference,) = report.differences
    assert told(difference.deployed)[-2:] == ["00:01:00 drain-node succeeded", "00:01:00 resolved"]
    assert told(difference.changed)[-2:] == ["00:01:00 quarantine succeeded", "00:01:00 resolved"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([DRAIN, DRAIN], "another one that was given is named drain-node"),
        ([DRAIN.replace("otherwise: hand-over", "otherwise: hand-ovr")], "there is no playbook hand-ovr"),
    ],
    ids=["twice", "a ladder that leads nowhere"],
)
def test_what_could_not_be_deployed_together_is_refused_with_its_line(
    config: Config, given: list[str], says: str
) -> None:
    content = site_content(config.model_dump_json(include={"detectors", "models", "playbooks"}))
    changed = [parse_playbook(parse_document(text, file="given.yaml")) for text in given]
    with pytest.raises(InvalidDocument, match=says) as refused:
        with_changes(content.playbooks, changed, params={})
    assert str(refused.value).startswith("given.yaml:")


def test_the_params_of_the_deployment_hold_for_the_changed_playbook_too(config: Config) -> None:
    content = site_content(config.model_dump_json(include={"detectors", "models", "playbooks"}))
    changed = parse_playbook(parse_document((PLAYBOOKS / "cap-rack-power.yaml").read_text(), file="x.yaml"))
    assert changed.params["lasting"] == "1m"
    together = with_changes(content.playbooks, (changed,), params=config.playbooks.params)
    assert {each.name: each.params.get("lasting") for each in together}["cap-rack-power"] == "20s"
    assert [each.name for each in together] == [each.name for each in content.playbooks]
