"""Playbooks: what an SRE writes is read in full or refused with the line, the key, and what was probably meant."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from healer.actions.registry import BUILT_IN, bound_arguments, check_playbook
from healer.content.expressions import variables_of
from healer.content.playbooks import load_playbooks, parse_playbook
from healer.documents import parse_document
from healer.domain.component import ComponentKind
from healer.domain.playbook import OnError, OnFailure, Playbook, ResolvesWhen, Retry
from healer.errors import InvalidDocument, Rejected
from tests.unit.core_samples import ECC, incident

DRAIN = """\
name: drain
description: Empty the node.
match:
  failure_modes: [GpuUncorrectableEcc]
  if: incident.health == "failed"
  for: 1m
target: node
params:
  share: 0.9
approval:
  when: "true"
  expires_after: 10m
deadline: 2h
resolves_when: contained
steps:
  - id: quarantine
    use: node.cordon
    with: {reason: '${incident.reason}'}
    on_failure: keep
  - id: evacuate
    use: node.drain
    if: params.share > 0.5
    with: {grace: 5m, at_once: 4}
    timeout: 45m
"""


def _parsed(text: str = DRAIN) -> Playbook:
    return parse_playbook(parse_document(text, file="drain.yaml"))


def _problems(text: str) -> list[str]:
    """Everything that `healer check` would say about the document."""
    try:
        playbook = _parsed(text)
    except InvalidDocument as error:
        return [str(problem) for problem in error.problems]
    return [str(problem) for problem in check_playbook(playbook, BUILT_IN)]


def _edited(old: str, new: str) -> str:
    assert DRAIN.count(old) == 1
    return DRAIN.replace(old, new)


def test_a_playbook_is_read_as_it_is_written() -> None:
    playbook = _parsed()
    assert (playbook.name, playbook.target) == ("drain", ComponentKind.NODE)
    assert playbook.failure_modes == frozenset({ECC})
    assert (playbook.hold, playbook.deadline) == (timedelta(minutes=1), timedelta(hours=2))
    assert playbook.approval.expires_after == timedelta(minutes=10)
    assert playbook.resolves_when is ResolvesWhen.CONTAINED
    assert [(s.id, s.use, s.on_failure) for s in playbook.steps] == [
        ("quarantine", "node.cordon", OnFailure.KEEP),
        ("evacuate", "node.drain", OnFailure.UNDO),
    ]
    assert [s.timeout for s in playbook.steps] == [timedelta(minutes=15), timedelta(minutes=45)]
    assert playbook.steps[1].arguments == {"grace": "5m", "at_once": 4}
    assert playbook.file == "drain.yaml"


def test_its_expressions_see_the_incident_and_its_params() -> None:
    playbook = _parsed()
    variables = variables_of(incident(), playbook.params)
    reason, condition = playbook.steps[0].arguments["reason"], playbook.steps[1].condition
    assert callable(reason)
    assert reason(variables) == "2 uncorrectable memory errors"
    assert condition is not None
    assert condition(variables) is True


def test_a_playbook_that_does_not_say_when_asks_always() -> None:
    playbook = _parsed(_edited('approval:\n  when: "true"\n  expires_after: 10m\n', ""))
    assert playbook.approval.when({}) is True


def test_any_change_of_the_text_is_another_digest() -> None:
    assert _parsed().digest == _parsed().digest
    assert _parsed(DRAIN + "# a comment\n").digest != _parsed().digest


def test_a_correct_playbook_has_no_problem() -> None:
    assert _problems(DRAIN) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "use: node.drain",
            "use: node.drian",
            "drain.yaml:21: steps[1].use: there is no verb 'node.drian' (did you mean 'node.drain'?)",
        ),
        (
            "use: node.drain",
            "use: zzz",
            "drain.yaml:21: steps[1].use: there is no verb 'zzz' (known: exporter.restart, node.cordon, node.drain,",
        ),
        (
            "at_once: 4",
            "at_onc: 4",
            "drain.yaml:23: steps[1].with.at_onc: node.drain has no argument 'at_onc' (did you mean 'at_once'?)",
        ),
        (
            "at_once: 4",
            "at_once: many",
            "drain.yaml:23: steps[1].with.at_once: Input should be a valid integer",
        ),
        (
            "at_once: 4",
            "at_once: 0",
            "drain.yaml:23: steps[1].with.at_once: Input should be greater than or equal to 1",
        ),
        (
            "grace: 5m",
            "grace: soon",
            "drain.yaml:23: steps[1].with.grace: Value error, 'soon' is not a duration; write it like 30s, 5m or 1h30m",
        ),
        (
            "incident.reason",
            "incidnt.reason",
            "drain.yaml:18: steps[0].with.reason: unknown variable 'incidnt' in 'incidnt.reason'; did you mean",
        ),
        (
            "incident.health ==",
            "incident.helth ==",
            "drain.yaml:5: match.if: incident has no 'helth' in 'incident.helth == \"failed\"'; did you mean 'health'?",
        ),
        (
            "if: params.share > 0.5",
            "if: params.shre > 0.5",
            "drain.yaml:22: steps[1].if: params has no 'shre' in 'params.shre > 0.5'; did you mean 'share'?",
        ),
        ('when: "true"', "when: is it bad?", "drain.yaml:11: approval.when: not a CEL expression at column"),
        ("id: evacuate", "id: quarantine", "drain.yaml:20: steps[1].id: another step has the id quarantine"),
        ("id: evacuate", "id: Evacuate It", "drain.yaml:20: steps[1].id: string should match pattern"),
        (
            "[GpuUncorrectableEcc]",
            "[GpuUncorectableEcc]",
            "drain.yaml:4: match.failure_modes[0]: is one of 'GpuUncorrectableEcc',",
        ),
        ("[GpuUncorrectableEcc]", "[]", "drain.yaml:4: match.failure_modes: "),
        ("target: node", "target: host", "drain.yaml:7: target: is one of 'gpu', 'node'"),
        ("resolves_when: contained\n", "", "drain.yaml:1: resolves_when: is missing"),
        ("  for: 1m", "  fro: 1m", "drain.yaml:6: match.fro: unknown key (did you mean 'for'?)"),
        ("    with: {grace", "    wiht: {grace", "drain.yaml:23: steps[1].wiht: unknown key (did you mean 'with'?)"),
        ("timeout: 45m", "timeout: 45", "drain.yaml:24: steps[1].timeout: 45 is not a duration"),
        (
            "on_failure: keep",
            "on_failure: forget",
            "drain.yaml:19: steps[0].on_failure: is one of 'undo' or 'keep', not 'forget'",
        ),
    ],
    ids=[
        "misspelt verb",
        "unknown verb",
        "misspelt argument",
        "argument of the wrong type",
        "argument out of range",
        "argument that is no duration",
        "unknown variable",
        "misspelt member",
        "misspelt param",
        "not CEL",
        "two steps of one id",
        "an id with spaces",
        "unknown failure mode",
        "no failure mode",
        "unknown kind",
        "no word on when it is over",
        "misspelt key",
        "misspelt key of a step",
        "a number without a unit",
        "unknown way out",
    ],
)
def test_a_mistake_is_named_by_file_line_and_key_with_a_hint(old: str, new: str, problem: str) -> None:
    problems = _problems(_edited(old, new))
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_a_misspelt_failure_mode_is_answered_with_the_nearest() -> None:
    (problem,) = _problems(_edited("[GpuUncorrectableEcc]", "[GpuUncorectableEcc]"))
    assert problem.endswith("not 'GpuUncorectableEcc' (did you mean 'GpuUncorrectableEcc'?)")


def test_an_argument_that_is_computed_counts_as_given() -> None:
    assert _problems(_edited("at_once: 4", "at_once: '${2 + 2}'")) == []


def test_all_mistakes_of_one_playbook_are_told_together() -> None:
    text = DRAIN.replace("incident.health", "incident.helth").replace('when: "true"', "when: incidnt")
    assert [line.split(": ")[1] for line in _problems(text)] == ["approval.when", "match.if"]


def test_expressions_that_give_nonsense_are_rejected_when_they_are_bound() -> None:
    with pytest.raises(Rejected, match=r"node\.drain: argument at_once: .* not 'x'"):
        bound_arguments(BUILT_IN["node.drain"], {"at_once": "x"})


# A folder of them


def _folder(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (root / f"{name}.yaml").write_text(text)
    return root


def _load_problems(folder: Path, **settings: object) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        load_playbooks(folder, **{"params": {}, **settings})  # type: ignore[arg-type]
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_the_playbooks_of_a_folder_are_read_in_the_order_of_their_files(tmp_path: Path) -> None:
    second = DRAIN.replace("name: drain", "name: another")
    (tmp_path / "README.md").write_text("not a playbook")
    playbooks = load_playbooks(_folder(tmp_path, b=DRAIN, a=second), params={})
    assert [playbook.name for playbook in playbooks] == ["another", "drain"]


def test_a_deployment_sets_the_params_that_a_playbook_declares(tmp_path: Path) -> None:
    (playbook,) = load_playbooks(_folder(tmp_path, drain=DRAIN), params={"drain": {"share": 0.5}})
    assert playbook.params == {"share": 0.5}


def test_a_disabled_playbook_is_not_loaded(tmp_path: Path) -> None:
    assert load_playbooks(_folder(tmp_path, drain=DRAIN), params={}, disabled=("drain",)) == ()


def test_the_configuration_can_only_name_playbooks_and_params_that_there_are(tmp_path: Path) -> None:
    folder = _folder(tmp_path, drain=DRAIN)
    assert _load_problems(folder, params={"drian": {}, "drain": {"shar": 1}}, disabled=("dran",)) == [
        "config.yaml: playbooks.disabled.dran: no such playbook (did you mean 'drain'?)",
        "config.yaml: playbooks.params.drian: no such playbook (did you mean 'drain'?)",
        "config.yaml: playbooks.params.drain.shar: no such param (did you mean 'share'?)",
    ]


def test_the_problems_of_all_playbooks_are_told_together(tmp_path: Path) -> None:
    folder = _folder(tmp_path, a="name: [\n", b=_edited("target: node", "target: host"), c=DRAIN, d=DRAIN)
    problems = _load_problems(folder)
    assert [problem.split(":")[0] for problem in problems] == ["a.yaml", "b.yaml", "d.yaml"]
    assert problems[-1] == "d.yaml:1: name: another playbook is named drain"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert _load_problems(tmp_path / "gone") == [f"{tmp_path}/gone: playbooks.path: no such folder"]


def test_a_verb_that_works_on_something_else_than_the_target_is_told() -> None:
    problems = _problems(_edited("target: node", "target: rack"))
    assert problems == [
        "drain.yaml:17: steps[0].use: node.cordon works on a node, the playbook's target is a rack",
        "drain.yaml:21: steps[1].use: node.drain works on a node, the playbook's target is a rack",
    ]


def test_text_around_an_expression_is_told_not_taken_literally() -> None:
    (problem,) = _problems(_edited("'${incident.reason}'", "'because ${incident.reason}'"))
    assert problem.startswith("drain.yaml:18: steps[0].with.reason: ")
    assert "mixes text with an expression" in problem


# Steps that wait, are tried again or gone past

DRAINS = "    use: node.drain\n    if: params.share > 0.5\n    with: {grace: 5m, at_once: 4}\n"


def test_how_a_step_is_tried_again_is_read_with_its_defaults() -> None:
    (_, step) = _parsed(_edited("    timeout: 45m\n", "    retry: {times: 3, wait: 5s}\n    on_error: go on\n")).steps
    assert step.retry == Retry(3, timedelta(seconds=5), 2.0, timedelta(minutes=10))
    assert step.on_error is OnError.GO_ON


def test_wait_until_is_short_for_a_verb() -> None:
    text = _edited(
        DRAINS,
        "    wait_until: node.workloads == 0\n",
    )
    assert _problems(text) == []
    step = _parsed(text).steps[1]
    assert (step.use, step.arguments) == ("wait.until", {"until": "node.workloads == 0"})


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    use: node.drain\n", "", "drain.yaml:20: steps[1]: a step has either use, the verb, or wait_until"),
        ("    use: node.drain\n", "    use: node.drain\n    wait_until: node.ready\n", "a step has either use"),
        ("    use: node.drain\n", "    wait_until: node.ready\n", "wait_until takes no with"),
        (
            DRAINS,
            "    wait_until: node.workload == 0\n",
            "drain.yaml:21: steps[1].wait_until: node has no 'workload'",
        ),
        (
            DRAINS,
            "    use: power.keep\n    with: {until: gpus.warmth < 65}\n",
            "drain.yaml:22: steps[1].with.until: gpus has no 'warmth'",
        ),
        ("    timeout: 45m\n", "    retry: {times: 0}\n", "retry.times"),
    ],
    ids=["neither", "both", "with arguments", "a misspelt variable", "one in a verb's argument", "no times"],
)
def test_a_step_that_cannot_be_meant_so_is_told(old: str, new: str, says: str) -> None:
    problems = _problems(_edited(old, new))
    assert any(says in problem for problem in problems), problems


# Ladders

MATCH = 'match:\n  failure_modes: [GpuUncorrectableEcc]\n  if: incident.health == "failed"\n  for: 1m\n'


def _rung(name: str, otherwise: str | None) -> str:
    text = DRAIN.replace("name: drain", f"name: {name}")
    return text if otherwise is None else text.replace("steps:\n", f"otherwise: {otherwise}\nsteps:\n")


def test_a_ladder_leads_through_playbooks_that_match_nothing_themselves(tmp_path: Path) -> None:
    last = _rung("last", None).replace(MATCH, "")
    first, rung = load_playbooks(_folder(tmp_path, first=_rung("first", "last"), last=last), params={})
    assert (first.otherwise, rung.failure_modes) == ("last", frozenset())


@pytest.mark.parametrize(
    ("texts", "disabled", "says"),
    [
        (
            {"a": _rung("a", "lsat"), "last": _rung("last", None)},
            (),
            "there is no playbook lsat (did you mean 'last'?)",
        ),
        ({"a": _rung("a", "b"), "b": _rung("b", "a")}, (), "otherwise: it leads back to a"),
        ({"a": _rung("a", "a")}, (), "otherwise: it leads back to a"),
        ({"a": _rung("a", "b"), "b": _rung("b", None)}, ("b",), "otherwise: b is disabled in config.yaml"),
        (
            {"a": _rung("a", None).replace(MATCH, "")},
            (),
            "it answers no failure mode, and no other playbook leads to it",
        ),
    ],
    ids=["nowhere", "round and round", "to itself", "to a disabled one", "a rung that nothing leads to"],
)
def test_a_ladder_that_leads_nowhere_is_told(
    tmp_path: Path, texts: dict[str, str], disabled: tuple[str, ...], says: str
) -> None:
    problems = _load_problems(_folder(tmp_path, **texts), disabled=disabled)
    assert any(says in problem for problem in problems), problems
