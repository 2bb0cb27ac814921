"""The verbs by name, and the check of a playbook against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from healer.actions.exporter import RestartExporter
from healer.actions.node import Cordon, Drain
from healer.actions.power import Cap, Hold, Restore
from healer.actions.ticket import OpenTicket
from healer.actions.wait import Until, compile_condition
from healer.documents import Document, KeyPath, nearest, parse_document
from healer.domain.component import ComponentKind
from healer.domain.playbook import Playbook, Scalar
from healer.errors import Problem, Rejected
from healer.verb import Action, Verbs

_ALL: tuple[Action, ...] = (Cordon(), Drain(), Cap(), Hold(), Restore(), RestartExporter(), OpenTicket(), Until())
BUILT_IN: Verbs = {action.name: action for action in _ALL}


def check_playbook(playbook: Playbook, verbs: Verbs) -> tuple[Problem, ...]:
    """Unknown verbs, and arguments that the verb does not have or that have the wrong type."""
    document = parse_document(playbook.text, file=playbook.file)
    problems = _unmeant(playbook.moment, playbook.target, document, ("match", "moment")) if playbook.moment else []
    for step in playbook.steps:
        if step.playbook:
            continue  # its steps are checked in its own document
        i, action = step.place, verbs.get(step.use)
        if action is None:
            hint = nearest(step.use, verbs) or f"known: {', '.join(sorted(verbs))}"
            problems.append(document.problem(("steps", i, "use"), f"there is no verb {step.use!r}", hint))
            continue
        worked_on = playbook.target if step.for_each is None else step.for_each.kind
        if action.target not in {None, worked_on}:
            of_what = "the playbook's target is" if step.for_each is None else f"for each of the {step.for_each} is for"
            text = f"{step.use} works on a {action.target}, {of_what} a {worked_on}"
            problems.append(document.problem(("steps", i, "use"), text))
        if step.verify:
            problems += _unmeant(step.verify, worked_on, document, ("steps", i, "verify"))
        if isinstance(action, Until):
            condition = str(step.arguments.get("until", ""))
            problems += _unmeant(condition, worked_on, document, ("steps", i, "wait_until"))
            continue
        literal = {name: value for name, value in step.arguments.items() if not callable(value)}
        computed = step.arguments.keys() - literal.keys()
        try:
            action.Arguments.model_validate(literal)
        except ValidationError as error:
            for detail in error.errors():
                name = str(detail["loc"][0]) if detail["loc"] else ""
                if not (detail["type"] == "missing" and name in computed):
                    known = action.Arguments.model_fields
                    text = (
                        f"{step.use} has no argument {name!r}" if detail["type"] == "extra_forbidden" else detail["msg"]
                    )
                    hint = nearest(name, known) or f"known: {', '.join(known) or 'none'}"
                    problems.append(document.problem(("steps", i, "with", name), text, hint))
    return tuple(problems)


def _unmeant(condition: str, target: ComponentKind | None, document: Document, path: KeyPath) -> list[Problem]:
    """What is wrong with a condition on the world."""
    try:
        compile_condition(condition, target)
    except ValueError as error:
        return [document.problem(path, str(error))]
    return []


def bound_arguments(action: Action, raw: Mapping[str, Scalar]) -> Any:
    """The verb's typed arguments. Raises Rejected, for expressions can give anything."""
    try:
        return action.Arguments.model_validate(raw)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        raise Rejected(action.name, f"argument {key}: {detail['msg']}, not {detail['input']!r}") from error
