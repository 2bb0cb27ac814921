"""Playbooks: YAML in, typed values out. Whether the verbs exist is checked where the verbs are (healer.actions)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from healer.content.expressions import compile_expression
from healer.content.nesting import joined, nesting_problems
from healer.content.playbook_document import PlaybookDocument
from healer.content.playbook_tests import PlaybookTest
from healer.documents import Document, KeyPath, nearest, parse_document, read_document
from healer.domain.component import ComponentKind
from healer.domain.playbook import (
    ApprovalRule,
    Argument,
    Expression,
    Playbook,
    Scalar,
    Step,
)
from healer.errors import InvalidDocument, Problem, Rejected
from healer.schema import validated

_LONGEST_LOCK = 200
WAIT = "wait.until"  # the verb that wait_until is short for


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
    # One that is changed keeps the place of its namesake, whatever its new file is called.
    turns = {each.name: turn_of(each) for each in (*changed, *deployed)}
    given = joined(_with_params(together, told))
    return tuple(sorted(given.values(), key=lambda each: (-each.priority, turns[each.name][1])))


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
    raw = validated(document, PlaybookDocument)
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
        on_return=raw.on_return,
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
    return PlaybookDocument.model_json_schema(by_alias=True)


def tests_of(playbook: Playbook) -> tuple[Document, tuple[PlaybookTest, ...]]:
    """What the playbook's file says about how it is tested, and the document, for messages. Raises InvalidDocument."""
    document = parse_document(playbook.text, file=playbook.file)
    return document, validated(document, PlaybookDocument).tests


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
