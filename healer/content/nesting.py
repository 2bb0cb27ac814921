"""Playbooks in playbooks: a step that names another one stands for the steps of that one.

They are joined when a deployment is loaded, so that everything after that knows only steps: a run carries all of them,
and no edit of the inner playbook reaches it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from healer.documents import nearest, parse_document
from healer.domain.component import ComponentKind
from healer.domain.playbook import Playbook, Scope, Step
from healer.errors import Problem


def joined(playbooks: Mapping[str, Playbook]) -> dict[str, Playbook]:
    """The same playbooks with no step left that names another one; `nesting_problems` has found nothing in them."""
    return {name: _joined(playbook, playbooks) for name, playbook in playbooks.items()}


def nesting_problems(playbooks: Mapping[str, Playbook], disabled: Collection[str] = ()) -> list[Problem]:
    """Steps that name a playbook that is not there, that has itself in it, or that does not fit."""
    return [
        problem
        for playbook in playbooks.values()
        if playbook.name not in disabled
        for problem in _objections(playbook, playbooks, disabled)
    ]


def is_part(playbook: Playbook, deployed: Iterable[Playbook]) -> bool:
    """Whether it only ever stands in other playbooks: it answers nothing, and no ladder leads to it."""
    return not playbook.failure_modes and all(other.otherwise != playbook.name for other in deployed)


def _joined(playbook: Playbook, others: Mapping[str, Playbook]) -> Playbook:
    if not any(step.playbook for step in playbook.steps):
        return playbook
    steps: list[Step] = []
    texts = [playbook.digest]
    for step in playbook.steps:
        if not step.playbook:
            steps.append(step)
            continue
        inner = _joined(others[step.playbook], others)
        texts.append(inner.digest)
        scope = Scope({**inner.params, **step.arguments}, step.condition)
        steps += [
            replace(each, id=f"{step.id}.{each.id}", place=step.place, within=(scope, *each.within))
            for each in inner.steps
        ]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return replace(playbook, steps=tuple(steps), digest=digest)


def _objections(playbook: Playbook, playbooks: Mapping[str, Playbook], disabled: Collection[str]) -> Iterator[Problem]:
    document = parse_document(playbook.text, file=playbook.file)
    for step in playbook.steps:
        if not step.playbook:
            continue
        path, inner = ("steps", step.place, "playbook"), playbooks.get(step.playbook)
        if inner is None:
            hint = nearest(step.playbook, playbooks)
            yield document.problem(path, f"there is no playbook {step.playbook}", hint)
            continue
        if inner.name in disabled:
            yield document.problem(path, f"{inner.name} is disabled in config.yaml", "enable it, or name another one")
        if _leads_to(inner, playbook.name, playbooks, frozenset()):
            yield document.problem(path, f"{inner.name} has {playbook.name} in it again")
        if not _fits(inner, playbook):
            text = f"{inner.name} works on a {inner.target}, the playbook's target is a {playbook.target}"
            yield document.problem(path, text)
        for name in step.arguments.keys() - inner.params.keys():
            hint = nearest(name, inner.params)
            yield document.problem(("steps", step.place, "with", name), f"{inner.name} has no param {name}", hint)


def _leads_to(playbook: Playbook, name: str, playbooks: Mapping[str, Playbook], seen: frozenset[str]) -> bool:
    if playbook.name == name:
        return True
    inner = [playbooks[step.playbook] for step in playbook.steps if step.playbook in playbooks]
    return playbook.name not in seen and any(_leads_to(each, name, playbooks, seen | {playbook.name}) for each in inner)


def _fits(inner: Playbook, outer: Playbook) -> bool:
    """A GPU has a node; what suits anything suits this."""
    return inner.target in {None, outer.target} or (inner.target, outer.target) == (
        ComponentKind.NODE,
        ComponentKind.GPU,
    )
