"""The verbs by name, and the check of a playbook against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from healer.actions.care import BurnIn, Collect, Reboot, Reset
from healer.actions.exporter import RestartExporter
from healer.actions.job import RestartJob
from healer.actions.limits import Keep, Limit
from healer.actions.node import Cordon, Drain, Uncordon
from healer.actions.power import Cap, Hold, Restore
from healer.actions.shed import Readmit, Shed
from healer.actions.ticket import OpenTicket
from healer.actions.wait import Until, compile_condition
from healer.documents import Document, KeyPath, nearest, parse_document
from healer.domain.component import ComponentKind
from healer.domain.playbook import Argument, Playbook, Scalar, Step
from healer.errors import Problem, Rejected
from healer.verb import Action, Verbs, works_on

_ALL: tuple[Action, ...] = (
    *(Cordon(), Drain(), Uncordon()),
    *(Reset(), Reboot(), BurnIn(), Collect()),
    *(Cap(), Hold(), Limit(), Keep(), Restore()),
    *(RestartJob(), Shed(), Readmit(), RestartExporter()),
    *(OpenTicket(), Until()),
)
BUILT_IN: Verbs = {action.name: action for action in _ALL}


def check_playbook(playbook: Playbook, verbs: Verbs) -> tuple[Problem, ...]:
    """Unknown verbs, conditions that mean nothing, and arguments that the verb does not have or of the wrong type."""
    document = parse_document(playbook.text, file=playbook.file)
    moment = (*_unmeant(playbook.moment or "true", playbook.target, document, ("match", "moment")),)
    # The steps of a playbook in it are checked in their own document.
    own = (step for step in playbook.steps if not step.playbook)
    return moment + tuple(problem for step in own for problem in _of_step(step, playbook, verbs, document))


def _of_step(step: Step, playbook: Playbook, verbs: Verbs, document: Document) -> Iterator[Problem]:
    path: KeyPath = ("steps", step.place)
    action = verbs.get(step.use)
    if action is None:
        hint = nearest(step.use, verbs) or f"known: {', '.join(sorted(verbs))}"
        yield document.problem((*path, "use"), f"there is no verb {step.use!r}", hint)
        return
    worked_on = playbook.target if step.for_each is None else step.for_each.kind
    if not works_on(action, worked_on):
        of_what = "the playbook's target is" if step.for_each is None else f"for each of the {step.for_each} is for"
        text = f"{step.use} works on a {action.target}, {of_what} a {worked_on}"
        yield document.problem((*path, "use"), text)
    yield from _unmeant(step.verify or "true", worked_on, document, (*path, "verify"))
    if isinstance(action, Until | Keep):
        key = ("wait_until",) if isinstance(action, Until) else ("with", "until")
        yield from _unmeant(step.arguments.get("until", "true"), worked_on, document, (*path, *key))
    if not isinstance(action, Until):
        yield from _wrong_arguments(step, action, document, (*path, "with"))


def _wrong_arguments(step: Step, action: Action, document: Document, path: KeyPath) -> Iterator[Problem]:
    literal = {name: value for name, value in step.arguments.items() if not callable(value)}
    computed = step.arguments.keys() - literal.keys()
    try:
        action.Arguments.model_validate(literal)
    except ValidationError as error:
        for detail in error.errors():
            name = str(detail["loc"][0]) if detail["loc"] else ""
            if detail["type"] == "missing" and name in computed:
                continue
            known = action.Arguments.model_fields
            text = f"{step.use} has no argument {name!r}" if detail["type"] == "extra_forbidden" else detail["msg"]
            hint = nearest(name, known) or f"known: {', '.join(known) or 'none'}"
            yield document.problem((*path, name), text, hint)


def _unmeant(condition: Argument, target: ComponentKind | None, document: Document, path: KeyPath) -> Iterator[Problem]:
    """What is wrong with a condition on the world; of one that is computed the plan says it."""
    if callable(condition):
        return
    try:
        compile_condition(str(condition), target)
    except ValueError as error:
        yield document.problem(path, str(error))


def bound_arguments(action: Action, raw: Mapping[str, Scalar]) -> Any:
    """The verb's typed arguments. Raises Rejected, for expressions can give anything."""
    try:
        return action.Arguments.model_validate(raw)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        raise Rejected(action.name, f"argument {key}: {detail['msg']}, not {detail['input']!r}") from error
