"""Whom playbooks ask: every group and person that they name is the deployment's, and enough of them can agree."""

from __future__ import annotations

from collections.abc import Iterator

from healer.documents import Document, KeyPath, nearest, parse_document
from healer.domain.people import People
from healer.domain.playbook import Playbook
from healer.errors import Problem


def check_people(playbook: Playbook, people: People) -> tuple[Problem, ...]:
    """What is wrong with whom the playbook asks, as approvals of config.yaml has it."""
    document = parse_document(playbook.text, file=playbook.file)
    return (*_strangers(playbook, document, people), *_too_few(playbook, document, people))


def _strangers(playbook: Playbook, document: Document, people: People) -> Iterator[Problem]:
    asking = playbook.approval.asking
    named: list[tuple[KeyPath, str]] = [
        (("approval", "who", number), name) for number, name in enumerate(asking.who or ())
    ]
    if asking.escalation is not None:
        named += [(("approval", "escalate", "to", number), name) for number, name in enumerate(asking.escalation.to)]
    for path, name in named:
        if name not in people.groups and name not in people.approvers:
            # Ids have a colon, names of groups have none.
            where = "approvals.approvers" if ":" in name else "approvals.groups"
            known = people.approvers if ":" in name else tuple(people.groups)
            hint = nearest(name, known) or f"it has {', '.join(known) or 'none'}"
            yield document.problem(path, f"{name} is not in {where} of config.yaml", hint)


def _too_few(playbook: Playbook, document: Document, people: People) -> Iterator[Problem]:
    """A quorum that can never come together. That nobody at all is listed is said of the configuration, once."""
    asking, escalation = playbook.approval.asking, playbook.approval.asking.escalation
    may = people.who_may(asking.who)
    if escalation is not None and escalation.after < playbook.approval.expires_after:
        may |= people.who_may(escalation.to)
    if len(may) < asking.quorum and (asking.who is not None or asking.quorum > 1):
        key = "quorum" if asking.quorum > 1 else "who"
        enough = f"{asking.quorum} have to agree, and {len(may)} may ever answer"
        text = f"{enough if may else 'nobody of these may answer'}: it would never be approved"
        yield document.problem(
            ("approval", key), text, "list more people in approvals of config.yaml, or ask for fewer"
        )
