"""Playbooks: what an SRE writes is read in full or refused with the line, the key, and what was probably meant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from healer.actions.registry import BUILT_IN, bound_arguments, check_playbook
from healer.content.expressions import variables_of
from healer.content.people import check_people
from healer.content.playbooks import load_playbooks, lock_named, parse_playbook
from healer.documents import parse_document
from healer.domain.component import ComponentKind
from healer.domain.fleet import Means
from healer.domain.people import People
from healer.domain.playbook import (
    Asking,
    Escalation,
    Limits,
    OnError,
    OnExpire,
    OnFailure,
    Playbook,
    Rate,
    ResolvesWhen,
    Retry,
    Scalar,
    given,
)
from healer.errors import InvalidDocument, Rejected
from tests.unit.core_samples import ECC, gpu, incident

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
    variables = variables_of(incident(), playbook.params, Means())
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
            "drain.yaml:21: steps[1].use: there is no verb 'zzz' (known: evidence.collect, exporter.restart,",
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


def test_those_of_a_higher_priority_are_asked_first(tmp_path: Path) -> None:
    def one(name: str, priority: int) -> str:
        return _edited("  for: 1m", f"  priority: {priority}").replace("name: drain", f"name: {name}")

    folder = _folder(tmp_path, a=one("low", -1), b=DRAIN, c=one("high", 10), d=one("higher", 11), e=one("high-too", 10))
    playbooks = load_playbooks(folder, params={})
    assert [(each.name, each.priority) for each in playbooks] == [
        ("higher", 11),
        ("high", 10),
        ("high-too", 10),
        ("drain", 0),
        ("low", -1),
    ]


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


def test_a_verb_that_works_on_a_node_also_does_on_the_node_of_a_gpu() -> None:
    assert _problems(_edited("target: node", "target: gpu")) == []
    text = _edited(DRAINS, "    use: gpu.reset\n")
    assert _problems(text.replace("target: node", "target: gpu")) == []
    assert _problems(text) == ["drain.yaml:21: steps[1].use: gpu.reset works on a gpu, the playbook's target is a node"]


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


LIMITED = _edited(
    "deadline: 2h\n",
    """deadline: 2h
limits: {runs: 3, per: 1h, at_once: 2, per_target: {runs: 1, per: 6h}}
locks: [firmware, '${"loop-" + incident.component.rack}']
""",
)


def test_limits_and_locks_are_read() -> None:
    playbook = _parsed(LIMITED)
    assert playbook.limits == Limits(Rate(3, timedelta(hours=1)), Rate(1, timedelta(hours=6)), at_once=2)
    variables = variables_of(incident(), {}, Means())
    assert [lock_named(lock, variables) for lock in playbook.locks] == ["firmware", "loop-r1"]
    assert (_parsed().limits, _parsed().locks) == (None, ())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("runs: 3, per: 1h", "runs: 0, per: 1h", "limits.runs: input should be greater than or equal to 1, not 0"),
        ("at_once: 2", "at_once: 0", "limits.at_once: input should be greater than or equal to 1, not 0"),
        ("{runs: 1, per: 6h}", "{runs: 0, per: 6h}", "limits.per_target.runs: input should be greater"),
        ("runs: 3, per: 1h, ", "runs: 3, ", "limits: runs and per go together"),
        ("runs: 3, per: 1h, ", "per: 1h, ", "limits: runs and per go together"),
        ("{runs: 3, per: 1h, at_once: 2, per_target: {runs: 1, per: 6h}}", "{}", "limits: limits nothing"),
        ("locks: [firmware", "locks: [''", "locks[0]: '', which is no name of 1 to 200 characters"),
        ("locks: [firmware", f"locks: [{'x' * 201}", "which is no name of 1 to 200 characters"),
        (
            "locks: [firmware",
            "locks: ['loop-${incident.component.rack}'",
            "locks[0]: 'loop-${incident.component.rack}' mixes",
        ),
        ("incident.component.rack", "incident.component.rak", "locks[1]: incident.component has no 'rak'"),
    ],
    ids=[
        "no run",
        "none at once",
        "none on a target",
        "without a time",
        "without a number",
        "nothing",
        "an empty name",
        "a very long name",
        "text around an expression",
        "an unknown name",
    ],
)
def test_a_limit_or_lock_that_cannot_be_meant_is_told(old: str, new: str, says: str) -> None:
    assert LIMITED.count(old) == 1
    (problem,) = _problems(LIMITED.replace(old, new))
    assert says in problem


@pytest.mark.parametrize("text", ["incident.component.job", "incident.score", '""'], ids=["null", "a number", "empty"])
def test_an_expression_that_gives_no_name_is_no_lock(text: str) -> None:
    (lock,) = _parsed(_edited("deadline: 2h\n", f"deadline: 2h\nlocks: ['${{{text}}}']\n")).locks
    with pytest.raises(Rejected, match="which is no name"):
        lock_named(lock, variables_of(incident(gpu(job=None)), {}, Means()))


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
        ("    use: node.drain\n", "", "drain.yaml:20: steps[1]: a step has one of use, the verb; wait_until"),
        ("    use: node.drain\n", "    use: node.drain\n    wait_until: node.ready\n", "a step has one of use"),
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
        ("    timeout: 45m\n", "    max_parallel: 2\n", "steps[1]: max_parallel goes with for_each"),
        ("    timeout: 45m\n", "    for_each: jobs\n", "works on a node, for each of the jobs is for a job"),
        (
            "    timeout: 45m\n",
            "    for_each: racks\n",
            "steps[1].for_each: is one of 'nodes', 'gpus', 'jobs' or 'culprit'",
        ),
        ("    timeout: 45m\n", "    verify: node.workload == 0\n", "steps[1].verify: node has no 'workload'"),
        ("    use: node.drain\n", "    playbook: other\n", "a playbook in a playbook takes only with and if"),
    ],
    ids=[
        "neither",
        "both",
        "with arguments",
        "a misspelt variable",
        "one in a verb's argument",
        "no times",
        "parallel to nothing",
        "a verb on another kind",
        "of what there is not",
        "a condition with a misspelt variable",
        "a playbook with a timeout",
    ],
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


# Playbooks in playbooks

INCIDENT = incident()
INNER = """
name: empty
description: Keep new work away, and empty the node.
target: node
params: {grace: 5m, why: sick}
approval: {when: "true"}
resolves_when: healthy
steps:
  - id: quarantine
    use: node.cordon
    with: {reason: '${params.why + ": " + incident.reason}'}
  - id: evacuate
    use: node.drain
    if: params.grace != "0s"
    with: {grace: '${params.grace}'}
"""
OUTER = """
name: outer
description: The inner one, and then a ticket.
match: {failure_modes: [GpuXid]}
target: node
params: {patience: 9m, full: true}
resolves_when: contained
steps:
  - id: clear
    playbook: empty
    if: params.full
    with: {grace: '${params.patience}'}
  - id: ticket
    use: ticket.open
"""


def _joined(
    tmp_path: Path, outer: str = OUTER, inner: str = INNER, params: Mapping[str, Scalar] | None = None
) -> Playbook:
    by_name = {
        each.name: each
        for each in load_playbooks(_folder(tmp_path, outer=outer, empty=inner), params={"outer": params or {}})
    }
    return by_name["outer"]


def test_a_playbook_in_a_playbook_stands_for_its_steps(tmp_path: Path) -> None:
    outer = _joined(tmp_path)
    assert [(step.id, step.use, step.place) for step in outer.steps] == [
        ("clear.quarantine", "node.cordon", 0),
        ("clear.evacuate", "node.drain", 0),
        ("ticket", "ticket.open", 1),
    ]


def test_its_expressions_see_the_params_that_it_is_given_and_its_own_where_it_is_given_none(tmp_path: Path) -> None:
    seen = variables_of(INCIDENT, _joined(tmp_path).params, Means())
    quarantine, evacuate, ticket = _joined(tmp_path).steps
    of_quarantine, of_evacuate, of_ticket = quarantine.sees(seen), evacuate.sees(seen), ticket.sees(seen)
    assert of_quarantine is not None
    assert given(quarantine.arguments, of_quarantine) == {"reason": f"sick: {INCIDENT.reasons[0]}"}
    assert of_evacuate is not None
    assert given(evacuate.arguments, of_evacuate) == {"grace": "9m"}
    assert of_ticket == seen


@pytest.mark.parametrize(
    ("params", "wanted"),
    [({"full": False}, [False, False, True]), ({"patience": "0s"}, [True, False, True])],
    ids=["the whole is not wanted", "a step of it is not wanted"],
)
def test_both_its_own_conditions_and_that_of_the_outer_one_have_to_be_met(
    tmp_path: Path, params: dict[str, Scalar], wanted: list[bool]
) -> None:
    outer = _joined(tmp_path, params=params)
    assert [step.sees(variables_of(INCIDENT, outer.params, Means())) is not None for step in outer.steps] == wanted


def test_another_text_of_the_inner_one_is_another_playbook_as_a_whole(tmp_path: Path) -> None:
    digest = _joined(tmp_path).digest
    assert _joined(tmp_path).digest == digest
    assert _joined(tmp_path, inner=INNER.replace("5m", "6m")).digest != digest


@pytest.mark.parametrize(
    ("outer", "inner", "says"),
    [
        (
            OUTER.replace("playbook: empty", "playbook: emtpy"),
            INNER,
            "no playbook emtpy (did you mean 'empty'",
        ),
        (OUTER.replace("{grace:", "{grac:"), INNER, "outer.yaml:12: steps[0].with.grac: empty has no param grac"),
        (
            OUTER,
            INNER.replace("target: node", "target: rack"),
            "works on a rack, the playbook's target is a node",
        ),
        (
            OUTER,
            INNER + "  - {id: again, playbook: outer}\n",
            "steps[0].playbook: empty has outer in it again",
        ),
    ],
    ids=["a misspelt name", "a misspelt param", "another target", "round and round"],
)
def test_a_playbook_that_cannot_stand_there_is_told(tmp_path: Path, outer: str, inner: str, says: str) -> None:
    problems = _load_problems(_folder(tmp_path, outer=outer, empty=inner))
    assert any(says in problem for problem in problems), problems


def test_a_playbook_that_is_disabled_does_not_stand_in_another_one(tmp_path: Path) -> None:
    problems = _load_problems(_folder(tmp_path, outer=OUTER, empty=INNER), disabled=("empty",))
    assert any("steps[0].playbook: empty is disabled in config.yaml" in problem for problem in problems), problems


# Whom it asks

ASKS = """\
  expires_after: 10m
  who: [oncall, token:dan]
  quorum: 2
  escalate: {after: 3m, to: [leads]}
  on_expire: escalate
"""
PEOPLE = People(
    ("token:alice", "token:bob", "token:cara", "token:dan"),
    {"oncall": ("token:alice", "slack:S0ONCALL"), "leads": ("token:cara",), "nobody": ()},
)


def _asks(*changes: tuple[str, str]) -> str:
    text = ASKS
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return _edited("  expires_after: 10m\n", text)


def test_whom_it_asks_is_read_as_it_is_written() -> None:
    escalation = Escalation(timedelta(minutes=3), ("leads",))
    assert _parsed(_asks()).approval.asking == Asking(("oncall", "token:dan"), 2, escalation, OnExpire.ESCALATE)
    assert check_people(_parsed(_asks()), PEOPLE) == ()


def test_it_asks_one_of_all_approvers_if_nothing_is_said() -> None:
    assert _parsed().approval.asking == Asking(None, 1, None, OnExpire.NEXT)
    assert check_people(_parsed(), People()) == ()  # that nobody is listed is said of the configuration


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            [("[oncall,", "[onclal,")],
            "drain.yaml:13: approval.who[0]: onclal is not in approvals.groups of config.yaml (did you mean 'oncall'?)",
            id="a group that there is not",
        ),
        pytest.param(
            [("[leads]", "[zzz]")],
            "drain.yaml:15: approval.escalate.to[0]: zzz is not in approvals.groups of config.yaml "
            "(it has oncall, leads, nobody)",
            id="nothing near it",
        ),
        pytest.param(
            [("token:dan", "token:dane")],
            "drain.yaml:13: approval.who[1]: token:dane is not in approvals.approvers of config.yaml "
            "(did you mean 'token:dan'?)",
            id="a person who may not answer",
        ),
        pytest.param(
            [("quorum: 2", "quorum: 4")],
            "drain.yaml:14: approval.quorum: 4 have to agree, and 3 may ever answer: it would never be approved "
            "(list more people in approvals of config.yaml, or ask for fewer)",
            id="more than could ever agree",
        ),
        pytest.param(
            [("quorum: 2", "quorum: 3"), ("after: 3m", "after: 10m")],
            "drain.yaml:14: approval.quorum: 3 have to agree, and 2 may ever answer: it would never be approved "
            "(list more people in approvals of config.yaml, or ask for fewer)",
            id="whom it never goes on to do not count",
        ),
        pytest.param(
            [
                ("[oncall, token:dan]", "[nobody]"),
                ("  quorum: 2\n", ""),
                ("  escalate: {after: 3m, to: [leads]}\n", ""),
            ],
            "drain.yaml:13: approval.who: nobody of these may answer: it would never be approved "
            "(list more people in approvals of config.yaml, or ask for fewer)",
            id="a group of nobody",
        ),
    ],
)
def test_people_that_the_deployment_has_not_are_refused(changes: list[tuple[str, str]], said: str) -> None:
    assert said in [str(problem) for problem in check_people(_parsed(_asks(*changes)), PEOPLE)]


def test_as_many_as_have_to_agree_are_enough() -> None:
    assert check_people(_parsed(_asks(("quorum: 2", "quorum: 3"))), PEOPLE) == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("quorum: 2", "quorum: 0", "drain.yaml:14: approval.quorum: input should be greater than or equal to 1, not 0"),
        ("[oncall, token:dan]", "[]", "drain.yaml:13: approval.who: tuple should have at least 1 item"),
        ("to: [leads]", "to: []", "drain.yaml:15: approval.escalate.to: tuple should have at least 1 item"),
        ("{after: 3m, to: [leads]}", "{after: 3m}", "drain.yaml:15: approval.escalate.to: is missing"),
        ("on_expire: escalate", "on_expire: yes", "drain.yaml:16: approval.on_expire: is one of 'next' or 'escalate'"),
        ("quorum: 2", "qourum: 2", "drain.yaml:14: approval.qourum: unknown key (did you mean 'quorum'?)"),
    ],
)
def test_a_question_that_cannot_be_put_is_refused(old: str, new: str, said: str) -> None:
    assert any(problem.startswith(said) for problem in _problems(_asks((old, new)))), _problems(_asks((old, new)))
