"""Playbooks: YAML in, typed values out. Whether the verbs exist is checked where the verbs are (healer.actions)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from healer.content.expressions import compile_expression
from healer.content.nesting import joined, nesting_problems
from healer.content.playbook_tests import PlaybookTest
from healer.documents import Document, KeyPath, nearest, parse_document, read_document
from healer.domain.component import ComponentKind
from healer.domain.finding import FailureMode
from healer.domain.playbook import (
    ApprovalRule,
    Argument,
    Asking,
    Escalation,
    Expression,
    ForEach,
    Limits,
    OnError,
    OnExpire,
    OnFailure,
    Playbook,
    Rate,
    ResolvesWhen,
    Retry,
    Scalar,
    Step,
)
from healer.errors import InvalidDocument, Problem, Rejected
from healer.schema import Duration, Section, validated

_NAME = r"^[a-z][a-z0-9-]*$"
_LONGEST_LOCK = 200
WAIT = "wait.until"  # the verb that wait_until is short for


class _Match(Section):
    failure_modes: Annotated[tuple[FailureMode, ...], Field(min_length=1)]
    condition: Annotated[str | None, Field(alias="if")] = None
    hold: Annotated[Duration | None, Field(alias="for")] = None
    moment: str | None = None
    priority: int = 0


class _Escalation(Section):
    """Attributes:
    after: if nobody has decided by then.
    to: groups of approvals.groups, or people: they may answer from then on, too.
    """

    after: Duration
    to: Annotated[tuple[str, ...], Field(min_length=1)]


class _Approval(Section):
    """Attributes:
    who: groups of approvals.groups, or people; null for all of approvals.approvers.
    quorum: so many different people have to agree; one no is a no.
    on_expire: next is what `otherwise` names, else a person; escalate is a person, whatever it says.
    """

    when: str = "true"
    who: Annotated[tuple[str, ...] | None, Field(min_length=1)] = None
    quorum: Annotated[int, Field(ge=1, le=20)] = 1
    expires_after: Duration = timedelta(minutes=30)
    escalate: _Escalation | None = None
    on_expire: OnExpire = OnExpire.NEXT

    def asking(self) -> Asking:
        escalation = None if self.escalate is None else Escalation(self.escalate.after, self.escalate.to)
        return Asking(self.who, self.quorum, escalation, self.on_expire)


class _Retry(Section):
    times: Annotated[int, Field(ge=1, le=100)]
    wait: Duration = timedelta(seconds=30)
    factor: Annotated[float, Field(ge=1.0, le=10.0)] = 2.0
    longest: Duration = timedelta(minutes=10)

    def retry(self) -> Retry:
        return Retry(self.times, self.wait, self.factor, self.longest)


_OF_NESTED = frozenset({"id", "playbook", "arguments", "condition"})


class _Rate(Section):
    runs: Annotated[int, Field(ge=1)]
    per: Duration

    def rate(self) -> Rate:
        return Rate(self.runs, self.per)


class _Limits(Section):
    """Attributes:
    runs, per: of starts, on all targets together.
    at_once: of runs that have not ended.
    per_target: of starts, on one and the same target.
    """

    runs: Annotated[int | None, Field(ge=1)] = None
    per: Duration | None = None
    at_once: Annotated[int | None, Field(ge=1)] = None
    per_target: _Rate | None = None

    def model_post_init(self, _context: object) -> None:
        if (self.runs is None) is not (self.per is None):
            raise ValueError("runs and per go together: so many runs per so much time")
        if self.runs is None and self.at_once is None and self.per_target is None:
            raise ValueError("limits nothing: it has runs with per, at_once, or per_target")

    def limits(self) -> Limits:
        starts = None if self.runs is None or self.per is None else Rate(self.runs, self.per)
        return Limits(starts, None if self.per_target is None else self.per_target.rate(), self.at_once)


class _Step(Section):
    """Attributes:
    wait_until: in place of `use`: a condition on the world that is waited for.
    playbook: in place of `use`: another playbook, whose steps are done here; `with` has its params.
    """

    id: Annotated[str, Field(pattern=_NAME)]
    use: str = ""
    wait_until: str | None = None
    playbook: Annotated[str | None, Field(pattern=_NAME)] = None
    arguments: Annotated[dict[str, bool | int | float | str | None], Field(alias="with")] = Field(default_factory=dict)
    condition: Annotated[str | None, Field(alias="if")] = None
    timeout: Duration = timedelta(minutes=15)
    on_failure: OnFailure = OnFailure.UNDO
    on_error: OnError = OnError.STOP
    retry: _Retry | None = None
    for_each: ForEach | None = None
    max_parallel: Annotated[int, Field(ge=1, le=1000)] = 1
    verify: str | None = None

    def model_post_init(self, _context: object) -> None:
        given = [bool(self.use), self.wait_until is not None, self.playbook is not None]
        if sum(given) != 1:
            raise ValueError("a step has one of use, the verb; wait_until, the condition; playbook, whose steps it is")
        if self.wait_until is not None and self.arguments:
            raise ValueError("wait_until takes no with")
        if self.playbook is not None and not self.model_fields_set <= _OF_NESTED:
            raise ValueError("a playbook in a playbook takes only with and if; everything else is in its own steps")
        if "max_parallel" in self.model_fields_set and self.for_each is None:
            raise ValueError("max_parallel goes with for_each")


class _Document(Section):
    name: Annotated[str, Field(pattern=_NAME)]
    description: Annotated[str, Field(min_length=1)]
    match: _Match | None = None
    target: Literal["gpu", "node", "rack", "power_feed", "job", "link", "source", "incident"]
    params: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    approval: _Approval = _Approval()
    limits: _Limits | None = None
    locks: tuple[Annotated[str, Field(description="a name, or ${...} that gives one")], ...] = ()
    deadline: Duration = timedelta(hours=1)
    resolves_when: ResolvesWhen
    otherwise: Annotated[str | None, Field(pattern=_NAME)] = None
    steps: Annotated[tuple[_Step, ...], Field(min_length=1)]
    tests: tuple[PlaybookTest, ...] = ()


def load_playbooks(
    folder: Path,
    *,
    params: Mapping[str, Mapping[str, Scalar]],
    disabled: Sequence[str] = (),
    check: Callable[[Playbook], Iterable[Problem]] = lambda _playbook: (),
) -> tuple[Playbook, ...]:
    """Every *.yaml in the folder, those of the highest priority first, then by the file's name.

    Raises InvalidDocument with the problems of all of them together.

    Args:
        params: the deployment's values for the params that playbooks declare, by playbook and param.
        check: what else is wrong with a playbook: its verbs are known a layer above.
    """
    if not folder.is_dir():
        raise InvalidDocument(Problem(str(folder), 0, "playbooks.path", "no such folder"))
    playbooks: dict[str, Playbook] = {}
    problems: list[Problem] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            document = read_document(path)
            playbook = parse_playbook(document)
        except InvalidDocument as error:
            problems += error.problems
            continue
        if playbook.name in playbooks:
            problems.append(document.problem(("name",), f"another playbook is named {playbook.name}"))
        playbooks[playbook.name] = playbook
        problems += check(playbook)
    problems += _strangers(playbooks, params, disabled)
    problems += _lost_ladders(playbooks, disabled)
    problems += nesting_problems(playbooks, disabled)
    if problems:
        raise InvalidDocument(*problems)
    given = joined(_in_order(_with_params(playbooks, params)))
    return tuple(playbook for name, playbook in given.items() if name not in disabled)


def with_changes(
    deployed: Sequence[Playbook], changed: Sequence[Playbook], *, params: Mapping[str, Mapping[str, Scalar]]
) -> tuple[Playbook, ...]:
    """The deployed ones as they would be with the changed ones, each in place of its namesake or beside the others, in
    the order in which they are asked; also where one stands in another. Raises InvalidDocument.
    """
    names = [each.name for each in changed]
    problems = [
        parse_document(each.text, file=each.file).problem(("name",), f"another one that was given is named {each.name}")
        for position, each in enumerate(changed)
        if each.name in names[:position]
    ]
    # As they are written, for those that are loaded are joined.
    together = {each.name: parse_playbook(parse_document(each.text, file=each.file)) for each in (*deployed, *changed)}
    told = {name: params[name] for name in together if name in params}
    problems += _strangers(together, told, ())
    problems += _lost_ladders(together, ())
    problems += nesting_problems(together)
    if problems:
        raise InvalidDocument(*problems)
    return tuple(joined(_in_order(_with_params(together, told))).values())


def _with_params(
    playbooks: Mapping[str, Playbook], params: Mapping[str, Mapping[str, Scalar]]
) -> Mapping[str, Playbook]:
    return {
        name: replace(playbook, params={**playbook.params, **params.get(name, {})})
        for name, playbook in playbooks.items()
    }


def turn_of(playbook: Playbook) -> tuple[int, str]:
    """Of all that match, the one whose turn comes first is taken."""
    return -playbook.priority, Path(playbook.file).name


def _in_order(playbooks: Mapping[str, Playbook]) -> dict[str, Playbook]:
    return dict(sorted(playbooks.items(), key=lambda named: turn_of(named[1])))


def _strangers(
    playbooks: Mapping[str, Playbook], params: Mapping[str, Mapping[str, Scalar]], disabled: Sequence[str]
) -> list[Problem]:
    """What the configuration says of playbooks and params that do not exist."""
    found = [
        Problem("config.yaml", 0, f"playbooks.{key}.{name}", "no such playbook", nearest(name, playbooks))
        for key, names in (("disabled", disabled), ("params", tuple(params)))
        for name in names
        if name not in playbooks
    ]
    return found + [
        Problem(
            "config.yaml",
            0,
            f"playbooks.params.{name}.{param}",
            "no such param",
            nearest(param, playbooks[name].params),
        )
        for name, values in params.items()
        if name in playbooks
        for param in values
        if param not in playbooks[name].params
    ]


def _lost_ladders(playbooks: Mapping[str, Playbook], disabled: Collection[str]) -> list[Problem]:
    """Ladders that lead nowhere, or round and round, and playbooks that nothing leads to."""
    problems = []
    reached = {playbook.otherwise for playbook in playbooks.values()}
    reached |= {step.playbook for playbook in playbooks.values() for step in playbook.steps}
    for playbook in playbooks.values():
        document = parse_document(playbook.text, file=playbook.file)
        if playbook.otherwise is not None:
            if playbook.otherwise not in playbooks:
                text, hint = f"there is no playbook {playbook.otherwise}", nearest(playbook.otherwise, playbooks)
                problems.append(document.problem(("otherwise",), text, hint))
            elif playbook.otherwise in disabled and playbook.name not in disabled:
                text = f"{playbook.otherwise} is disabled in config.yaml"
                problems.append(document.problem(("otherwise",), text, "enable it, or lead to another one"))
            elif playbook.name in _ladder_of(playbook, playbooks)[1:]:
                problems.append(document.problem(("otherwise",), f"it leads back to {playbook.name}"))
        if not playbook.failure_modes and playbook.name not in reached:
            text = "it answers no failure mode, and no other playbook leads to it"
            problems.append(
                document.problem(("name",), text, f"give it a match, or another one otherwise: {playbook.name}")
            )
    return problems


def _ladder_of(first: Playbook, playbooks: Mapping[str, Playbook]) -> list[str]:
    """The names that one after the other leads to, up to the first that comes again."""
    names, playbook = [first.name], playbooks.get(first.otherwise or "")
    while playbook is not None:
        names.append(playbook.name)
        if playbook.name in names[:-1]:
            break
        playbook = playbooks.get(playbook.otherwise or "")
    return names


def parse_playbook(document: Document) -> Playbook:
    """Raises InvalidDocument."""
    raw = validated(document, _Document)
    reader = _Reader(document, params=raw.params)
    steps = tuple(
        Step(
            id=step.id,
            use="" if step.playbook else step.use or WAIT,
            arguments=reader.arguments(step.arguments, ("steps", i, "with"))
            if step.wait_until is None
            else {"until": step.wait_until},
            condition=reader.expression(step.condition, ("steps", i, "if")),
            timeout=step.timeout,
            on_failure=step.on_failure,
            on_error=step.on_error,
            retry=None if step.retry is None else step.retry.retry(),
            for_each=step.for_each,
            max_parallel=step.max_parallel,
            verify=step.verify or "",
            playbook=step.playbook or "",
            place=i,
        )
        for i, step in enumerate(raw.steps)
    )
    ids = [step.id for step in raw.steps]
    for i, step_id in enumerate(ids):
        if step_id in ids[:i]:
            reader.problems.append(document.problem(("steps", i, "id"), f"another step has the id {step_id}"))
    when = reader.expression(raw.approval.when, ("approval", "when"))
    locks = tuple(reader.lock(lock, ("locks", i)) for i, lock in enumerate(raw.locks))
    match = raw.match
    condition = None if match is None else reader.expression(match.condition, ("match", "if"))
    if reader.problems or when is None:
        raise InvalidDocument(*reader.problems)
    return Playbook(
        name=raw.name,
        description=raw.description.strip(),
        failure_modes=frozenset() if match is None else frozenset(match.failure_modes),
        target=None if raw.target == "incident" else ComponentKind(raw.target),
        approval=ApprovalRule(when, raw.approval.expires_after, raw.approval.asking()),
        steps=steps,
        resolves_when=raw.resolves_when,
        digest=hashlib.sha256(document.text.encode()).hexdigest(),
        text=document.text,
        file=document.file,
        condition=condition,
        hold=timedelta(0) if match is None or match.hold is None else match.hold,
        moment="" if match is None else match.moment or "",
        deadline=raw.deadline,
        params=raw.params,
        otherwise=raw.otherwise,
        limits=None if raw.limits is None else raw.limits.limits(),
        locks=locks,
        priority=0 if match is None else match.priority,
    )


def lock_named(lock: Argument, variables: Mapping[str, object]) -> str:
    """The name of a lock that a run is to hold. Raises Rejected if an expression gives none."""
    given = lock(variables) if callable(lock) else lock
    if isinstance(given, str) and 0 < len(given) <= _LONGEST_LOCK:
        return given
    said = f"{lock.text!r} gives {given!r}" if callable(lock) else repr(given)
    raise Rejected("locks", f"{said}, which is no name of 1 to {_LONGEST_LOCK} characters")


def json_schema() -> dict[str, Any]:
    """Of the documents, as far as it does not depend on which verbs there are."""
    return _Document.model_json_schema(by_alias=True)


def tests_of(playbook: Playbook) -> tuple[Document, tuple[PlaybookTest, ...]]:
    """What the playbook's file says about how it is tested, and the document, for messages. Raises InvalidDocument."""
    document = parse_document(playbook.text, file=playbook.file)
    return document, validated(document, _Document).tests


class _Reader:
    """Compiles the expressions of one document and collects what is wrong with them."""

    def __init__(self, document: Document, *, params: Collection[str]) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._params = params

    def expression(self, text: str | None, path: KeyPath) -> Expression | None:
        if text is None:
            return None
        try:
            return compile_expression(text, params=self._params)
        except ValueError as error:
            self.problems.append(self._document.problem(path, str(error)))
            return None

    def arguments(self, raw: Mapping[str, Scalar], path: KeyPath) -> Mapping[str, Argument]:
        return {name: self._argument(value, (*path, name)) for name, value in raw.items()}

    def lock(self, text: str, path: KeyPath) -> Argument:
        lock = self._argument(text, path)
        if isinstance(lock, str):
            try:
                lock_named(lock, {})
            except Rejected as error:
                self.problems.append(self._document.problem(path, error.detail))
        return lock

    def _argument(self, value: Scalar, path: KeyPath) -> Argument:
        """`${...}` is an expression, everything else is itself."""
        if isinstance(value, str) and value.startswith("${") and value.endswith("}"):
            return self.expression(value[2:-1].strip(), path)
        if isinstance(value, str) and "${" in value:
            text = f"{value!r} mixes text with an expression"
            hint = "write the whole value as one: '${\"text \" + incident.reason}'"
            self.problems.append(self._document.problem(path, text, hint))
        return value
