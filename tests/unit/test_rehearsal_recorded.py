"""A recorded run, rehearsed: the same playbook goes as it went, an edited one shows where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from healer.actions.registry import BUILT_IN
from healer.config import Config, load_config
from healer.content import playbooks as content
from healer.content.playbook_tests import Answer, Deed, PlaybookTest
from healer.documents import parse_document
from healer.domain.component import Component, ComponentKind
from healer.domain.playbook import Playbook
from healer.domain.run import EffectState
from healer.domain.verdict import Mode
from healer.errors import NotFound, Rejected
from healer.rehearsal.beside import Beside, play_beside
from healer.rehearsal.record import Record, read_record
from healer.rehearsal.recorded import remade
from healer.rehearsal.rehearse import ladder_of, played, rehearse
from healer.runtime.wiring import detectors_of, playbooks_of

ROOT = Path(__file__).parents[2]
QUARANTINE = """\
name: quarantine
description: Keep work off the node.
match: {failure_modes: [GpuXid]}
target: node
approval: {when: incident.health == "failed", expires_after: 5m}
resolves_when: contained
otherwise: last-resort
steps:
  - {id: quarantine, use: node.cordon, timeout: 2m}
  - {id: evacuate, use: node.drain, timeout: 4m}
"""
LAST_RESORT = """\
name: last-resort
description: Call a person.
target: incident
approval: {when: "false"}
resolves_when: handed over
steps:
  - {id: ticket, use: ticket.open}
"""
TOLD = "incident: {failure_mode: GpuXid, node: gpu-002, gpu: 1}"
WORK = "workloads: [{owner: Job/train, node: gpu-002, namespace: training, count: 2}, {owner: Job/eval, node: gpu-002}]"
HELD = "workload_budgets: [{name: all, owner: Job/train, namespace: training, min_available: 2}]"


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ROOT / "config.yaml")


def book(text: str) -> Playbook:
    return content.parse_playbook(parse_document(text, file="quarantine.yaml"))


def books(*edits: tuple[str, str]) -> tuple[Playbook, Playbook]:
    """The quarantine, edited, and what it leads to."""
    text = QUARANTINE
    for before, after in edits:
        assert before in text
        text = text.replace(before, after)
    return book(text), book(LAST_RESORT)


def a_test(*settings: str) -> PlaybookTest:
    text = ", ".join((TOLD, *settings, "expect: {asked: true}"))
    (test,) = content.tests_of(book(f"{QUARANTINE}tests: [{{name: recorded, {text}}}]\n"))[1]
    return test


def recorded(config: Config, *settings: str, run: int = 0, by: Sequence[Playbook] = ()) -> Record:
    """What the journal holds of the first run, or of the one with that number, where nodes and racks are called as
    they are at home.

    Args:
        by: the playbooks that were run; by default as they are now.
    """
    playbooks = by or books()
    with played(a_test(*settings), ladder_of(playbooks[0], playbooks), config, (), BUILT_IN) as stage:
        runs = sorted(stage.journal.runs(), key=lambda each: each.started_at)
        record = read_record(stage.journal, runs[run].id)
    return at_home(record)


def at_home(record: Record) -> Record:
    text = msgspec.json.encode(record).decode().replace("gpu-002", "r7-n03.example").replace("rack-1", "r7")
    return msgspec.json.decode(text, type=Record)


def again(record: Record, config: Config, playbooks: Sequence[Playbook], mode: Mode = Mode.ACT) -> Beside:
    return play_beside(playbooks[0], record, remade(record, mode), config, (), verbs=BUILT_IN, beside=playbooks)


def texts(beside: Beside) -> tuple[list[str], list[str]]:
    """Recorded, rehearsed."""
    recorded_, rehearsed = zip(*beside.rows, strict=True)
    return [line.text for line in recorded_ if line], [line.text for line in rehearsed if line]


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ((), ["resolved"]),
        ((WORK,), ["evict training/Job/train", "evict default/Job/eval", "quarantine succeeded", "resolved"]),
        ((WORK, "answer_after: 3m"), ["quarantine succeeded", "resolved"]),
        (
            (WORK, HELD, "lasts: 30m"),
            ["quarantine failed", "uncordon gpu-001", "ticket", "last-resort succeeded", "escalated"],
        ),
        ((WORK, HELD, "events: [{at: 2m, do: cancel}]"), ["uncordon gpu-001", "quarantine cancelled", "escalated"]),
        (
            (WORK, HELD, "events: [{at: 2m, do: uncordon, node: gpu-002}]"),
            ["quarantine failed", "escalated"],
        ),
        (
            ("answer: nobody", "lasts: 30m"),
            ["expired", "ticket", "last-resort succeeded", "escalated"],
        ),
        ((WORK, "events: [{at: 20s, do: restart}]"), ["quarantine succeeded", "resolved"]),
    ],
    ids=["idle", "work", "a late answer", "a budget", "cancelled", "taken back", "nobody answers", "killed"],
)
def test_the_same_playbook_does_again_what_it_did(config: Config, settings: Sequence[str], ends: list[str]) -> None:
    beside = again(recorded(config, *settings), config, books())
    assert beside.differences == ()
    before, after = texts(beside)
    assert before == after
    assert set(ends) <= set(before)
    assert before[-1] == ends[-1]


@pytest.mark.parametrize(
    ("edit", "differs"),
    [
        (('when: incident.health == "failed"', 'when: "false"'), "asked: nobody was asked"),
        (("  - {id: evacuate, use: node.drain, timeout: 4m}\n", ""), "effects: were cordon gpu-001; missing: evict"),
        (("[GpuXid]", "[NvlinkDown]"), "run: is none, not succeeded: no playbook answers this failure mode"),
        (("resolves_when: contained", "resolves_when: handed over"), "incident: is escalated, not resolved"),
    ],
    ids=["unasked", "without the drain", "another match", "handed over"],
)
def test_an_edited_playbook_shows_what_it_does_otherwise(config: Config, edit: tuple[str, str], differs: str) -> None:
    beside = again(recorded(config, WORK), config, books(edit))
    assert any(text.startswith(differs) for text in beside.differences), beside.differences


def test_both_are_told_with_the_time_since_the_fault_was_found(config: Config) -> None:
    beside = again(recorded(config, "answer_after: 3m"), config, books())
    old, new = next(row for row in beside.rows if row[0] is not None and row[0].text == "cordon gpu-001")
    assert old is not None
    assert new is not None
    assert old.after == new.after == timedelta(minutes=3, seconds=10)


def test_what_a_restarted_healer_left_in_doubt_is_said(config: Config) -> None:
    record = recorded(config)
    (carried,) = record.runs
    text = (
        msgspec.json.encode(record).decode().replace('"reason":"cordoned"', '"reason":"observed after an interruption"')
    )
    doubted = msgspec.json.decode(text, type=Record)
    cordon = replace(carried.records[0], detail="observed after an interruption")
    remake = remade(replace(doubted, runs=(replace(carried, records=(cordon,)),)), Mode.ACT)
    assert [event.do for event in remake.test.events] == [Deed.RESTART]
    assert any("whether healer died or an answer was lost" in text for text in remake.lost)


# What the test says


def test_the_names_of_the_site_stand_for_those_of_the_fleet(config: Config) -> None:
    remake = remade(recorded(config, WORK), Mode.RECOMMEND)
    assert remake.renamed == {"r7-n03.example": "gpu-001", "r7": "rack-1"}
    test = remake.test
    assert test.incident is not None
    assert (test.incident.node, test.incident.gpu, test.incident.reason) == ("gpu-001", 1, "as told by the test")
    assert [(each.owner, each.node, each.namespace, each.count) for each in test.workloads] == [
        ("Job/train", "gpu-001", "training", 2),
        ("Job/eval", "gpu-001", "default", 1),
    ]
    assert test.expect.effects == ("cordon gpu-001", "evict training/Job/train", "evict default/Job/eval")
    assert (test.mode, test.answer) == (Mode.RECOMMEND, Answer.APPROVE)
    assert remake.in_site_names("r7-n03.example, r7-n03.example-b of r7") == "gpu-001, r7-n03.example-b of rack-1"


def test_a_budget_is_that_which_was_named_and_holds_what_did_not_go(config: Config) -> None:
    (budget,) = remade(recorded(config, WORK, HELD, "lasts: 30m"), Mode.ACT).test.workload_budgets
    assert (budget.name, budget.owner, budget.namespace, budget.min_available) == ("all", "Job/train", "training", 2)


def test_the_saved_test_passes_with_the_playbook_that_was_run(config: Config) -> None:
    test = remade(recorded(config, WORK, "answer_after: 2m"), Mode.ACT).test
    document = msgspec.json.encode([test.model_dump(mode="json", exclude_defaults=True)]).decode()
    (result,) = rehearse(book(f"{QUARANTINE}tests: {document}\n"), config, (), verbs=BUILT_IN, beside=books())
    assert (result.problems, result.test.partition(" of ")[0][:10]) == ((), "as in run-")


def test_what_cannot_be_reproduced_is_said(config: Config) -> None:
    wait = ("  - {id: evacuate", "  - {id: pause, wait_until: node.workloads == 0}\n  - {id: evacuate")
    by = books(('when: incident.health == "failed"', 'when: "false"'), wait)
    assert remade(recorded(config, by=by), Mode.ACT).lost == (
        "the site has 4 nodes in one rack: the budgets are judged on these",
        "nobody was asked then: if a person is asked now, the answer is yes, at once",
        "what it waited for is looked for on the simulated site, whose GPUs are at work and well",
    )


def test_what_held_it_up_for_a_while_is_said_and_not_played(config: Config) -> None:
    record = recorded(config, WORK)
    (carried,), (approval,) = record.runs, record.approvals
    pod = carried.run.plan.effects[2].detail.partition(",")[0]
    held = (f"training/{pod} is held by the disruption budget training/all (0 disruptions allowed)",)
    run = replace(carried.run, plan=replace(carried.run.plan, impediments=held))
    sooner = replace(approval, decided_at=carried.run.started_at - timedelta(minutes=5))
    remake = remade(replace(record, runs=(replace(carried, run=run),), approvals=(sooner,)), Mode.ACT)
    assert remake.test.workload_budgets == ()
    assert "training/Job/train was held by training/all before it went: here nothing holds it" in remake.lost
    assert "after the answer it was held for 5m, which is not played" in remake.lost


def test_a_later_run_is_rehearsed_as_if_it_were_the_first(config: Config) -> None:
    record = recorded(config, WORK, HELD, "lasts: 30m", run=1)
    assert (record.is_first, record.first_plan.playbook) == (False, "last-resort")
    beside = again(record, config, books()[::-1])
    assert beside.differences == ()
    assert texts(beside)[1][1:3] == ["ticket", "last-resort succeeded"]


def test_a_fault_that_was_over_is_over_after_the_same_time(config: Config) -> None:
    record = recorded(config, "answer_after: 1m")
    over = record.incident.opened_at + timedelta(minutes=7)
    remake = remade(replace(record, incident=replace(record.incident, gone=True, healthy_since=over)), Mode.ACT)
    assert remake.test.incident is not None
    assert remake.test.incident.lasts == timedelta(minutes=7)
    assert "the fault ends after 7m, as it did then, whatever is done about it" in remake.lost


def test_an_effect_that_failed_is_not_made_to_fail_again_and_that_is_said(config: Config) -> None:
    record = recorded(config)
    (carried,) = record.runs
    failed = replace(carried.records[0], state=EffectState.FAILED, detail="patch refused")
    remake = remade(replace(record, runs=(replace(carried, records=(failed,)),)), Mode.ACT)
    assert "cordon/r7-n03.example failed, and does not here: patch refused" in remake.lost
    assert remake.test.expect.effects == ()


@pytest.mark.parametrize(
    ("component", "place", "lost"),
    [
        (Component(ComponentKind.NODE, node="a"), ("gpu-001", None, None, None), ""),
        (Component(ComponentKind.GPU, node="a", gpu="11"), ("gpu-001", 7, None, None), "GPU 11 is GPU 7"),
        (Component(ComponentKind.GPU, node="a", gpu="3:1"), ("gpu-001", 3, None, None), ""),
        (Component(ComponentKind.RACK, rack="r9"), (None, None, "rack-1", None), ""),
        (Component(ComponentKind.JOB, job="llm"), (None, None, None, "llm"), ""),
        (Component(ComponentKind.LINK, node="a", link="a/0"), ("gpu-001", None, None, None), "it was about link a/0"),
        (Component(ComponentKind.POWER_FEED, rack="r9", link="B"), (None, None, "rack-1", None), "about power_feed B"),
    ],
    ids=lambda value: str(value) if isinstance(value, Component) else "",
)
def test_what_the_incident_was_about_is_told_of_the_site(
    config: Config, component: Component, place: tuple[object, ...], lost: str
) -> None:
    record = recorded(config)
    remake = remade(replace(record, incident=replace(record.incident, component=component)), Mode.ACT)
    told = remake.test.incident
    assert told is not None
    assert (told.node, told.gpu, told.rack, told.job) == place
    assert any(lost in text for text in remake.lost)


def test_what_no_site_can_stand_for_is_refused(config: Config) -> None:
    record = recorded(config)
    source = Component(ComponentKind.SOURCE, link="prometheus")
    with pytest.raises(Rejected, match="is about source prometheus, of which no node, rack or job is recorded"):
        remade(replace(record, incident=replace(record.incident, component=source)), Mode.ACT)
    (carried,) = record.runs
    effects = tuple(replace(carried.run.plan.effects[0], takes_out=f"n{number}") for number in range(40))
    many = replace(carried, run=replace(carried.run, plan=replace(carried.run.plan, effects=effects)))
    with pytest.raises(Rejected, match="is about 41 nodes, and a site has 32 at most"):
        remade(replace(record, runs=(many,)), Mode.ACT)


def test_a_run_that_is_not_there_is_not_found(config: Config) -> None:
    with (
        played(a_test(), ladder_of(books()[0], books()), config, (), BUILT_IN) as stage,
        pytest.raises(NotFound, match="run-0"),
    ):
        read_record(stage.journal, "run-0")


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("cap-rack-power", "the rack is capped while its load is high, and its limits are put back"),
        ("restart-exporter", "the exporter is started anew, and the telemetry comes back"),
        ("restart-exporter", "if that does not help, a person gets a ticket, and nothing is drained"),
        ("hand-over", "a link that errs and errs is handed over once"),
    ],
)
def test_what_the_reference_playbooks_have_done_they_do_again(config: Config, name: str, test: str) -> None:
    playbooks, detectors = playbooks_of(config, BUILT_IN), detectors_of(config)
    playbook = next(each for each in playbooks if each.name == name)
    rehearsed = next(each for each in content.tests_of(playbook)[1] if each.name == test)
    with played(rehearsed, ladder_of(playbook, playbooks), config, detectors, BUILT_IN) as stage:
        runs = sorted(stage.journal.runs(), key=lambda each: each.started_at)
        record = at_home(read_record(stage.journal, runs[0].id))
    beside = play_beside(
        playbook, record, remade(record, Mode.ACT), config, detectors, verbs=BUILT_IN, beside=playbooks
    )
    assert beside.differences == ()
    assert len(beside.rows) >= 4
