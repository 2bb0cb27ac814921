"""Rehearsals: a playbook's tests are played on a simulated site, and can fail."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from healer.actions.registry import BUILT_IN, check_playbook
from healer.config import Config, load_config
from healer.content.playbooks import parse_playbook
from healer.documents import parse_document
from healer.domain.playbook import Playbook
from healer.errors import InvalidDocument
from healer.rehearsal.rehearse import Played, rehearse

ROOT = Path(__file__).parents[2]
QUARANTINE = """\
name: quarantine
description: Keep work off the node.
match: {failure_modes: [GpuXid]}
target: node
params: {why: told}
approval: {when: incident.health == "failed", expires_after: 5m}
resolves_when: contained
steps:
  - {id: quarantine, use: node.cordon, with: {reason: '${params.why}'}, timeout: 2m}
  - {id: evacuate, use: node.drain, timeout: 4m}
tests:
"""
TOLD = "incident: {failure_mode: GpuXid, node: gpu-002, gpu: 1}"
WORK = "workloads: [{owner: Job/train, node: gpu-002}]"
SILENT = "events: [{at: 20s, do: not_ready, node: gpu-002}, {at: 3m, do: ready, node: gpu-002}]"
HELD = "workload_budgets: [{name: all, owner: Job/train, min_available: 1}]"


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ROOT / "config.yaml")


def _playbook(*tests: str) -> Playbook:
    text = QUARANTINE + "".join(f"  - {{name: test {number}, {test}}}\n" for number, test in enumerate(tests, start=1))
    playbook = parse_playbook(parse_document(text, file="quarantine.yaml"))
    assert check_playbook(playbook, BUILT_IN) == ()
    return playbook


def _play(config: Config, test: str) -> Played:
    (played,) = rehearse(_playbook(test), config, (), verbs=BUILT_IN)
    return played


def _said(played: Played) -> list[str]:
    return [str(problem) for problem in played.problems]


def test_what_ends_as_expected_is_no_problem(config: Config) -> None:
    played = _play(config, f"{TOLD}, expect: {{run: succeeded, incident: resolved, effects: [cordon gpu-002]}}")
    assert _said(played) == []
    assert timedelta(minutes=1) < played.took < timedelta(minutes=3)
    told = [line.partition("  ")[2].split()[0] for line in played.transcript]
    assert [what for what in told if not what.startswith(("incident.", "approval."))] == [
        "run.started",
        "effect.done",
        "run.succeeded",
    ]


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ("{asked: false}", "expect.asked: a person was asked; contained by quarantine"),
        ("{run: failed}", "expect.run: is succeeded, not failed: nothing that can be moved is on gpu-002"),
        ("{run: none}", "expect.run: is succeeded, not none"),
        ("{incident: escalated}", "expect.incident: is resolved, not escalated: contained by quarantine"),
        ("{effects: []}", "expect.effects: were cordon gpu-002; not expected: cordon gpu-002"),
        ("{effects: [cordon gpu-002, uncordon gpu-002]}", "were cordon gpu-002; missing: uncordon gpu-002"),
        ("{nodes: {gpu-002: in service}}", "expect.nodes.gpu-002: is cordoned, not in service"),
        ("{nodes: {gpu-001: cordoned}}", "expect.nodes.gpu-001: is in service, not cordoned"),
        ("{says: too hot}", "expect.says: 'too hot' is not in 'contained by quarantine"),
    ],
)
def test_what_ends_otherwise_is_said_with_its_line(config: Config, expected: str, said: str) -> None:
    (problem,) = _said(_play(config, f"{TOLD}, expect: {expected}"))
    assert problem.startswith("quarantine.yaml:12: tests[0].expect")
    assert said in problem


def test_the_order_of_effects_counts(config: Config) -> None:
    reversed_ = "{effects: [evict default/Job/train, cordon gpu-002]}"
    (problem,) = _said(_play(config, f"{TOLD}, {WORK}, expect: {reversed_}"))
    assert problem.endswith("in another order than expected")


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("answer: deny", "{asked: true, run: none, incident: escalated, says: denied by}"),
        ("answer_after: 6m", "{asked: true, run: none, says: nobody answered}"),
        ("answer_after: 4m", "{asked: true, run: succeeded}"),
        ("answer: nobody", "{asked: true, run: none, incident: escalated, says: nobody answered}"),
        ("mode: observe", "{asked: false, run: none, effects: [], says: mode is observe}"),
        ("params: {why: other}", "{run: succeeded}"),
        ("events: [{at: 0s, do: cordon, node: gpu-002}]", "{run: none, nodes: {gpu-002: cordoned by a person}}"),
        ("events: [{at: 0s, do: exporter_down, node: gpu-002}]", "{run: none, says: no current telemetry}"),
        ("events: [{at: 10s, do: restart}]", "{run: succeeded, effects: [cordon gpu-002]}"),
        (
            "workloads: [{owner: Pod/notebook, node: gpu-002}]",
            "{run: none, effects: [], says: notebook would be lost}",
        ),
        (f"{WORK}, events: [{{at: 20s, do: cancel}}]", "{run: cancelled, nodes: {gpu-002: in service}}"),
        (f"{WORK}, {SILENT}", "{run: succeeded}"),
        (f"{WORK}, {HELD}", "{run: failed, effects: [cordon gpu-002, uncordon gpu-002], nodes: {gpu-002: in service}}"),
    ],
)
def test_what_else_happens_is_the_test_s_to_say(config: Config, test: str, expected: str) -> None:
    assert _said(_play(config, f"{TOLD}, lasts: 10m, {test}, expect: {expected}")) == []


def test_a_finding_that_ends_is_reported_to_be_over(config: Config) -> None:
    told = "incident: {failure_mode: GpuXid, node: gpu-002, at: 1m, lasts: 1m}"
    assert (
        _said(_play(config, f"{told}, answer: nobody, expect: {{run: none, incident: resolved, says: went away}}"))
        == []
    )


def test_nothing_is_planned_for_what_is_seen_healthy_by_now(config: Config) -> None:
    told = "incident: {failure_mode: GpuXid, node: gpu-002, lasts: 30s}"
    held = "events: [{at: 0s, do: cordon, node: gpu-001}, {at: 1m, do: uncordon, node: gpu-001}]"
    assert _said(_play(config, f"{told}, {held}, expect: {{asked: false, run: none, incident: resolved}}")) == []


def test_a_learnt_finding_may_not_move_work(config: Config) -> None:
    told = f"incident: {{failure_mode: GpuXid, node: gpu-002, basis: learnt}}, {WORK}"
    assert (
        _said(_play(config, f"{told}, lasts: 2m, expect: {{asked: false, run: none, says: learnt score alone}}")) == []
    )


def test_an_event_on_a_job_that_is_not_there_is_refused(config: Config) -> None:
    events = "events: [{at: 1s, do: suspend, job: default/Job/trian}]"
    with pytest.raises(InvalidDocument) as caught:
        next(rehearse(_playbook(f"{TOLD}, {WORK}, {events}, expect: {{run: none}}"), config, (), verbs=BUILT_IN))
    assert "events[0].job: the site has no 'default/Job/trian' (did you mean" in str(caught.value)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (
            "incident: {failure_mode: GpuXid, node: gpu-2}",
            "incident.node: the site has no 'gpu-2' (did you mean",
        ),
        (
            "incident: {failure_mode: GpuXid, node: gpu-002, gpu: 7}",
            "incident.gpu: the nodes of the site have",
        ),
        (f"{TOLD}, params: {{wy: x}}", "params.wy: the playbook has no such param (did you mean 'why'?)"),
        (f"{TOLD}, events: [{{at: 1s, do: cordon, node: a}}]", "events[0].node: the site has no 'a' (it has"),
        (f"{TOLD}, workloads: [{{owner: Job/t, node: b}}]", "tests[0].workloads[0].node: the site has no 'b'"),
        (
            "faults: [{kind: gpu_lots, node: gpu-001}]",
            "'gpu_lots' is not a known kind of fault (did you mean",
        ),
        ("faults: [{kind: gpu_lost, node: gpu-001}]", "tests[0].faults[0].kind: gpu_lost is aimed by node and gpu"),
    ],
)
def test_a_test_that_names_what_there_is_not_is_refused(config: Config, test: str, said: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        next(rehearse(_playbook(f"{test}, expect: {{run: none}}"), config, (), verbs=BUILT_IN))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (f"{TOLD}, expect: {{}}", "expects nothing, so that it cannot fail"),
        ("expect: {run: none}", "nothing goes wrong: it needs an incident, or faults"),
        ("incident: {failure_mode: GpuXid, gpu: 1}, expect: {run: none}", "a gpu needs its node"),
        ("incident: {failure_mode: GpuXid}, expect: {run: none}", "names no node, rack or job"),
        (f"{TOLD}, events: [{{at: 1s, do: cancel, node: n}}], expect: {{run: none}}", "cancel has no node"),
        (f"{TOLD}, events: [{{at: 1s, do: cordon}}], expect: {{run: none}}", "cordon needs a node"),
        (f"{TOLD}, events: [{{at: 1s, do: suspend}}], expect: {{run: none}}", "suspend needs a job"),
        (f"{TOLD}, events: [{{at: 1s, do: suspend, node: n}}], expect: {{run: none}}", "suspend has no node"),
        (f"{TOLD}, events: [{{at: 1s, do: cancel, job: j}}], expect: {{run: none}}", "cancel has no job"),
        (f"{TOLD}, expect: {{rum: none}}", "unknown key (did you mean 'run'?)"),
    ],
)
def test_a_test_that_means_nothing_is_found_when_the_playbook_is_loaded(test: str, said: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        _playbook(test)
    assert said in str(caught.value)


# Who answers

OF_TWO = "who: [oncall], quorum: 2, expires_after: 5m, escalate: {after: 2m, to: [leads]}"
GROUPS = "groups: {oncall: ['token:alice', 'token:bob'], leads: ['token:cara']}"


def _asking(test: str) -> Playbook:
    text = QUARANTINE.replace("expires_after: 5m", OF_TWO) + f"  - {{name: who answers, {TOLD}, {test}}}\n"
    return parse_playbook(parse_document(text, file="quarantine.yaml"))


def _say(*answers: str) -> str:
    return f"{GROUPS}, answers: [{', '.join(f'{{{answer}}}' for answer in answers)}]"


ALICE, BOB, CARA = (f"by: 'token:{name}'" for name in ("alice", "bob", "cara"))


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        pytest.param("answer: approve", "{asked: true, run: succeeded}", id="on-call is as many as have to agree"),
        pytest.param("answer: deny", "{run: none, incident: escalated, says: denied by}", id="one no is a no"),
        pytest.param(_say(ALICE, BOB), "{run: succeeded}", id="two of the group"),
        pytest.param(_say(ALICE), "{run: none, says: '1 of 2 have agreed'}", id="one is not enough"),
        pytest.param(_say(ALICE, ALICE), "{run: none, says: '1 of 2 have agreed'}", id="one who says it twice neither"),
        pytest.param(_say(ALICE, f"{CARA}, at: 1m"), "{run: none}", id="the lead is too early"),
        pytest.param(_say(ALICE, f"{CARA}, at: 3m"), "{run: succeeded}", id="the lead when it was escalated"),
        pytest.param(_say(ALICE, f"{BOB}, say: deny"), "{run: none, says: 'denied by token:bob'}", id="one no of two"),
        pytest.param(_say(f"{ALICE}, at: 10m", f"{BOB}, at: 10m"), "{run: none, says: nobody answered}", id="too late"),
    ],
)
def test_who_answers_is_the_test_s_to_say(config: Config, test: str, expected: str) -> None:
    (played,) = rehearse(_asking(f"{test}, lasts: 9m, expect: {expected}"), config, (), verbs=BUILT_IN)
    assert _said(played) == []


def test_an_answer_that_does_not_count_is_told_with_its_reason(config: Config) -> None:
    (played,) = rehearse(_asking(f"{_say(CARA)}, lasts: 1m, expect: {{asked: true}}"), config, (), verbs=BUILT_IN)
    assert any(
        "the test: approve by token:cara does not count: token:cara may answer" in line for line in played.transcript
    )


def test_a_group_that_the_playbook_asks_and_the_test_has_not_is_refused(config: Config) -> None:
    test = f"groups: {{oncal: ['token:alice']}}, answers: [{{{ALICE}}}], expect: {{asked: true}}"
    with pytest.raises(InvalidDocument) as refused:
        list(rehearse(_asking(test), config, (), verbs=BUILT_IN))
    assert [problem.text + f" ({problem.hint})" for problem in refused.value.problems] == [
        "the playbook asks oncall, and the test has no such group (did you mean 'oncal'?)",
        "the playbook asks leads, and the test has no such group (say under groups who is in it)",
    ]


def test_a_test_has_either_answer_or_answers() -> None:
    with pytest.raises(InvalidDocument, match="either answer, what on-call says, or answers"):
        _asking(f"answer: deny, {_say(ALICE)}, expect: {{asked: true}}")
