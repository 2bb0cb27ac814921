"""Lint: what is valid in a playbook and cannot be meant is said with its line, and a good one passes in silence."""

from __future__ import annotations

import pytest

from healer.actions.lint import Weight, lint
from healer.actions.registry import BUILT_IN, check_playbook
from healer.content.playbooks import parse_playbook
from healer.documents import parse_document
from healer.domain.playbook import Playbook
from healer.policy.budget import DisruptionBudget

BUDGETS = {"budgets.fleet": DisruptionBudget(10, 10, 1), "budgets.rack": DisruptionBudget(2, 25, 1)}
GOOD = """\
name: drain
description: Empty the node.
match:
  failure_modes: [GpuXid, NvlinkDown]
  if: incident.health == "failed"
target: node
params: {grace: 5m}
approval: {when: "true"}
deadline: 1h
resolves_when: contained
steps:
  - id: quarantine
    use: node.cordon
    with: {reason: '${incident.reason}'}
  - id: evacuate
    use: node.drain
    with: {grace: '${params.grace}'}
    timeout: 45m
tests:
  - name: it works
    incident: {failure_mode: GpuXid, node: gpu-001}
    expect: {run: succeeded}
"""


def _parsed(text: str) -> Playbook:
    playbook = parse_playbook(parse_document(text, file="drain.yaml"))
    assert check_playbook(playbook, BUILT_IN) == ()
    return playbook


def _said(text: str, *before: str, budgets: dict[str, DisruptionBudget] = BUDGETS) -> list[str]:
    remarks = lint(_parsed(text), BUILT_IN, before=[_parsed(each) for each in before], budgets=budgets)
    return [str(remark) for remark in remarks]


def _edited(*changes: tuple[str, str]) -> str:
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def test_of_a_good_playbook_there_is_nothing_to_say() -> None:
    assert _said(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'if: incident.health == "failed"',
            'if: incident.health == "dead"',
            "drain.yaml:5: match.if: is true of no incident of these failure modes: the playbook never runs [error]",
        ),
        (
            'if: incident.health == "failed"',
            "if: incident.score",
            "drain.yaml:5: match.if: 'incident.score' gives 0.0, which is neither true nor false",
        ),
        (
            'if: incident.health == "failed"',
            "if: incident.reason > 3",
            "drain.yaml:5: match.if: 'incident.reason > 3': ",
        ),
        (
            "with: {grace: '${params.grace}'}",
            "with: {grace: '${incident.score}'}",
            "drain.yaml:17: steps[1].with: argument grace: ",
        ),
        (
            "    timeout: 45m",
            "    timeout: 2h",
            "drain.yaml:18: steps[1].timeout: 2h can never be used up: the run's deadline is 1h",
        ),
        (
            '{when: "true"}',
            "{when: incident.score > 0.6}",
            "drain.yaml:8: approval.when: nobody is asked before node.drain, e.g. for a GpuXid that is failed",
        ),
        (
            '{when: "true"}',
            "{when: incident.severity}",
            "drain.yaml:8: approval.when: 'incident.severity' gives 'critical', which is neither true nor false",
        ),
    ],
)
def test_what_cannot_be_meant_is_said_with_its_line(old: str, new: str, said: str) -> None:
    (remark,) = _said(_edited((old, new)))
    assert remark.startswith(said)


def test_a_step_that_no_incident_needs_is_found() -> None:
    never = '    use: node.cordon\n    if: incident.failure_mode == "GpuFellOffBus"\n'
    said = "drain.yaml:14: steps[0].if: is true of no incident that the playbook matches: the step never runs [error]"
    assert said in _said(_edited(("    use: node.cordon\n", never)))


def test_work_is_moved_only_after_new_work_is_kept_away() -> None:
    cordon = "  - id: quarantine\n    use: node.cordon\n    with: {reason: '${incident.reason}'}\n"
    first, second = _said(_edited((cordon, "")))
    assert first.startswith("drain.yaml:13: steps[0].use: node.drain without a node.cordon before it")
    assert second.startswith("drain.yaml:10: resolves_when: contained is seen in the cluster, and no step keeps work")


def test_a_cordon_that_is_sometimes_left_out_does_not_count() -> None:
    sometimes = "    use: node.cordon\n    if: incident.score > 0.6\n"
    assert any("without a node.cordon" in said for said in _said(_edited(("    use: node.cordon\n", sometimes))))


@pytest.mark.parametrize("verb", ["node.reboot", "node.burn_in", "gpu.reset"])
def test_what_disrupts_a_node_comes_after_its_cordon_and_before_its_return(verb: str) -> None:
    healed = ("resolves_when: contained", "resolves_when: healthy")
    after = "    timeout: 45m\n"
    before = f"  - id: mend\n    use: {verb}\n  - id: return\n    use: node.uncordon\n"
    good = _edited(healed, (after, after + before), ("target: node", "target: gpu"))
    assert _said(good) == []
    early = good.replace(before, "").replace("  - id: quarantine\n", before + "  - id: quarantine\n")
    late = good.replace(before, f"  - id: return\n    use: node.uncordon\n  - id: mend\n    use: {verb}\n")
    for text in (early, late):
        (said,) = _said(text)
        assert f"use: {verb} without a node.cordon before it: new work may come in the middle of it" in said


def test_what_is_given_back_is_not_contained() -> None:
    (said,) = _said(_edited(("    timeout: 45m\n", "    timeout: 45m\n  - id: return\n    use: node.uncordon\n")))
    assert "resolves_when: contained is seen in the cluster" in said


@pytest.mark.parametrize("means", ["site.agent && !site.power", "site.scheduler == false"])
def test_a_playbook_for_some_sites_is_judged_for_all_of_them(means: str) -> None:
    assert _said(_edited(('incident.health == "failed"', means))) == []
    assert _said(_edited(('incident.health == "failed"', "site.agent && !site.agent"))) == [
        "drain.yaml:5: match.if: is true of no incident of these failure modes: the playbook never runs [error]"
    ]


def test_where_nobody_is_asked_the_site_is_named() -> None:
    (said,) = _said(_edited(('{when: "true"}', "{when: site.agent && site.power}")))
    assert "nobody is asked before node.drain, e.g. for a GpuXid" in said
    assert ", at a site without power" in said


def test_a_playbook_behind_one_that_answers_everything_never_runs() -> None:
    broad = _edited(("name: drain", "name: broad"), ('  if: incident.health == "failed"\n', ""))
    (remark,) = _said(GOOD, broad)
    assert remark.startswith("drain.yaml:4: match.failure_modes: broad answers all of these first")
    assert _said(GOOD, _edited(("name: drain", "name: narrow"))) == []
    patient = broad.replace("target: node", "  for: 5m\ntarget: node")
    assert _said(GOOD, patient) == []


def test_a_budget_that_lets_nothing_out_is_named() -> None:
    (remark,) = _said(GOOD, budgets={**BUDGETS, "budgets.rack": DisruptionBudget(0, 25, 1)})
    assert "budgets.rack of config.yaml lets no node out of service: it never runs where a rack is known" in remark
    (remark,) = _said(GOOD, budgets={**BUDGETS, "budgets.fleet": DisruptionBudget(0, 25, 1)})
    assert "budgets.fleet of config.yaml lets no node out of service: the playbook never runs" in remark


def _with(line: str) -> str:
    return _edited(("deadline: 1h\n", f"deadline: 1h\n{line}\n"))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("{runs: 3, per: 1h, at_once: 2, per_target: {runs: 1, per: 6h}}", None),
        ("{runs: 3, per: 1h, per_target: {runs: 2, per: 1h}}", None),
        (
            "{runs: 3, per: 1h, per_target: {runs: 3, per: 1h}}",
            "3 within 1h on one target is never reached: 3 within 1h",
        ),
        ("{runs: 3, per: 1h, per_target: {runs: 5, per: 30m}}", "5 within 30m on one target is never reached"),
        ("{runs: 3, per: 1h, per_target: {runs: 9, per: 4h}}", None),
        ("{runs: 3, per: 1h, per_target: {runs: 12, per: 4h}}", "12 within 4h on one target is never reached"),
        ("{runs: 3, per: 1h, at_once: 3}", "3 are hardly ever reached: 3 within 1h on all targets comes first"),
        ("{runs: 3, per: 30m, at_once: 5}", None),
        ("{at_once: 100, per_target: {runs: 100, per: 1m}}", None),
    ],
)
def test_a_limit_that_another_one_never_lets_be_reached_is_told(limits: str, said: str | None) -> None:
    remarks = _said(_with(f"limits: {limits}"))
    assert len(remarks) == (said is not None)
    assert all(f"limits.{'at_once' if 'at_once: 3' in limits else 'per_target'}: {said}" in each for each in remarks)
    assert all(each.endswith("[warning]") for each in remarks)


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("firmware", None),
        ('${"loop-" + incident.component.rack}', None),
        ("${incident.score}", "locks[0]: 'incident.score' gives 0.0, which is no name"),
        ("${incident.component.link}", "locks[0]: 'incident.component.link' gives None, which is no name"),
        ('${"loop-" + incident.component.link}', "locks[0]: '\"loop-\" + incident.component.link': "),
    ],
)
def test_a_lock_whose_expression_gives_no_name_is_told(lock: str, said: str | None) -> None:
    remarks = _said(_with(f"locks: ['{lock}']"))
    assert len(remarks) == (said is not None)
    assert all(str(said) in each and each.endswith("[error]") for each in remarks)


def test_tests_are_wanted_and_each_has_a_name_of_its_own() -> None:
    tests = GOOD[GOOD.index("tests:") :]
    (remark,) = lint(_parsed(GOOD.replace(tests, "")), BUILT_IN, budgets=BUDGETS)
    assert (remark.weight, remark.problem.key, remark.problem.text) == (Weight.WARNING, "tests", "it has none")
    (said,) = _said(GOOD + tests.removeprefix("tests:\n"))
    assert said.startswith("drain.yaml:23: tests[1].name: another test is named 'it works'")


def test_a_cordon_that_may_fail_keeps_nothing_away() -> None:
    may_fail = _edited(("    with: {reason: '${incident.reason}'}\n", "    on_error: go on\n"))
    assert [said.partition(":")[0] for said in _said(may_fail)] == ["drain.yaml", "drain.yaml"]
    assert "node.drain without a node.cordon before it" in _said(may_fail)[0]


def test_a_rung_without_a_match_is_judged_for_whatever_leads_to_it() -> None:
    match = 'match:\n  failure_modes: [GpuXid, NvlinkDown]\n  if: incident.health == "failed"\n'
    assert _said(_edited((match, ""))) == []
    said = _said(_edited((match, ""), ("'${params.grace}'", "'${incident.failure_mode}'")))
    assert len(said) == 1
    assert "e.g. for a FabricLinkFlap" in said[0]


ESCALATES = (
    'approval: {when: "true"}',
    "approval: {who: [oncall], expires_after: 20m, escalate: {after: 5m, to: [leads]}}",
)


def _escalates(*changes: tuple[str, str]) -> list[str]:
    old, new = ESCALATES
    for before, after in changes:
        assert new.count(before) == 1
        new = new.replace(before, after)
    return _said(_edited((old, new)))


def test_of_a_question_that_goes_on_to_others_in_time_there_is_nothing_to_say() -> None:
    assert _escalates() == []


@pytest.mark.parametrize("after", ["20m", "1h"])
def test_a_question_that_has_expired_before_it_goes_on_is_an_error(after: str) -> None:
    (said,) = _escalates(("after: 5m", f"after: {after}"))
    assert said == (
        f"drain.yaml:8: approval.escalate.after: {after} never comes: the question has expired after 20m "
        "(shorten it, or lengthen expires_after) [error]"
    )


@pytest.mark.parametrize("change", [("who: [oncall]", "who: [oncall, leads]"), ("who: [oncall], ", "")])
def test_a_question_that_goes_on_to_those_who_have_it_already_is_remarked(change: tuple[str, str]) -> None:
    (said,) = _escalates(change)
    assert said == (
        "drain.yaml:8: approval.escalate.to: these may answer from the start: it only tells them once more "
        "(name in who whom the question is put to at first) [warning]"
    )
