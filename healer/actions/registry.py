"""The verbs by name, and the check of a playbook against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from healer.actions.base import Action, Verbs, works_on
from healer.actions.care import BurnIn, Collect, Reboot, Reset
from healer.actions.exporter import RestartExporter
from healer.actions.node import Cordon, Drain, Uncordon
from healer.actions.power import Cap, Hold, Restore
from healer.actions.ticket import OpenTicket
from healer.actions.wait import Until, compile_condition
from healer.documents import Document, nearest, parse_document
from healer.domain.playbook import Argument, Playbook, Scalar
from healer.errors import Problem, Rejected

_ALL: tuple[Action, ...] = (
    *(Cordon(), Drain(), Uncordon()),
    *(Cap(), Hold(), Restore()),
    *(RestartExporter(), OpenTicket(), Until()),
    *(Reset(), Reboot(), BurnIn(), Collect()),
)
BUILT_IN: Verbs = {action.name: action for action in _ALL}


def check_playbook(playbook: Playbook, verbs: Verbs) -> tuple[Problem, ...]:
    """Unknown verbs, and arguments that the verb does not have or that have the wrong type."""
    document = parse_document(playbook.text, file=playbook.file)
    problems = []
    for i, step in enumerate(playbook.steps):
        action = verbs.get(step.use)
        if action is None:
            hint = nearest(step.use, verbs) or f"known: {', '.join(sorted(verbs))}"
            problems.append(document.problem(("steps", i, "use"), f"there is no verb {step.use!r}", hint))
            continue
        if not works_on(action, playbook.target):
            text = f"{step.use} works on a {action.target}, the playbook's target is a {playbook.target}"
            problems.append(document.problem(("steps", i, "use"), text))
        if isinstance(action, Until):
            problems += _unmeant(step.arguments, i, playbook, document)
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


def _unmeant(arguments: Mapping[str, Argument], i: int, playbook: Playbook, document: Document) -> list[Problem]:
    """What is wrong with a condition that is waited for."""
    try:
        compile_condition(str(arguments.get("until", "")), playbook.target)
    except ValueError as error:
        return [document.problem(("steps", i, "wait_until"), str(error))]
    return []


def bound_arguments(action: Action, raw: Mapping[str, Scalar]) -> Any:
    """The verb's typed arguments. Raises Rejected, for expressions can give anything."""
    try:
        return action.Arguments.model_validate(raw)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        raise Rejected(action.name, f"argument {key}: {detail['msg']}, not {detail['input']!r}") from error
