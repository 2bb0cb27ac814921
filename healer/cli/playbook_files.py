"""Which playbooks a command is about: those of the deployment by their names, or files that need not be in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from healer.config import Config
from healer.content.nesting import joined, nesting_problems
from healer.content.playbooks import parse_playbook
from healer.documents import Document, read_document
from healer.domain.playbook import Playbook
from healer.errors import InvalidDocument, NotFound, Problem
from healer.runtime.wiring import checked, playbooks_of
from healer.verb import Verbs


def chosen_playbooks(
    names: Sequence[str], config: Config, verbs: Verbs
) -> tuple[tuple[Playbook, ...], tuple[Playbook, ...]]:
    """The named ones, and all of the deployment; a name may be a file, which need not be in the deployment.

    Raises InvalidDocument, NotFound.
    """
    deployed = playbooks_of(config, verbs)
    if not names:
        return deployed, deployed
    by_name = {each.name: each for each in deployed}
    chosen = []
    for name in names:
        if name in by_name:
            chosen.append(by_name[name])
        elif Path(name).is_file():
            chosen.append(valid_playbook(read_document(Path(name)), config, verbs, deployed))
        else:
            known = ", ".join(by_name) or "none"
            raise NotFound("playbook", f"{name} is neither a file nor in {config.playbooks.path}, which has {known}")
    return tuple(chosen), deployed


def valid_playbook(document: Document, config: Config, verbs: Verbs, deployed: Sequence[Playbook]) -> Playbook:
    """As it is beside those that are deployed. Raises InvalidDocument."""
    found = parse_playbook(document)
    beside = {**{each.name: each for each in deployed}, found.name: found}
    problems = [*checked(found, config, verbs), *nesting_problems(beside)]
    if problems:
        raise InvalidDocument(*problems)
    return joined(beside)[found.name]


def problem_json(problem: Problem) -> dict[str, object]:
    return {"file": problem.file, "line": problem.line, "key": problem.key, "text": problem.text, "hint": problem.hint}
