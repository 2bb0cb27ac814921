"""A person's answer to an approval: the one way in, whichever of Slack, the API and the console carried it."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime

import structlog

from healer.domain.approval import Approval, Person
from healer.errors import Conflict, Fenced, NotFound, NotPermitted, Unavailable
from healer.policy.approval import FORBIDDEN, Ground, Refusal, may_decide
from healer.ports import Journal

_log = structlog.get_logger(__name__)
# Ids reach the database and the logs: what could not be one of ours is not looked up at all.
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Forbidden(NotPermitted):
    """It is not for this person to answer; `ground` says why."""

    def __init__(self, approval_id: str, detail: str, ground: Ground) -> None:
        super().__init__(approval_id, detail)
        self.ground = ground


class Declined(Conflict):
    """The question is no longer open to this answer; `ground` says in which way."""

    def __init__(self, approval_id: str, detail: str, ground: Ground) -> None:
        super().__init__(approval_id, detail)
        self.ground = ground


def decide(
    journal: Journal,
    approvers: Collection[str],
    approval_id: str,
    person: Person,
    now: datetime,
    *,
    approve: bool,
    reason: str,
) -> Approval:
    """Answer the approval, once. An attempt that is refused leaves its own line in the audit log.

    Returns the approval, which is pending still if more people have to agree.

    Raises:
        NotFound: no such approval.
        Forbidden: the person is not listed, or the question was not put to them.
        Declined: answered, expired or void, or the person has agreed already (a Conflict).
    """
    approval = journal.approval(checked_id(approval_id, "approval"))
    refusal = may_decide(approval, person, approvers, now, approve=approve)
    if refusal is None:
        try:
            return journal.decide(approval.id, person, now, approve=approve, reason=reason)
        except Conflict as error:
            # Somebody was faster by a moment: say what they did, not only that it changed.
            moved_on = may_decide(journal.approval(approval.id), person, approvers, now, approve=approve)
            refusal = moved_on or Refusal(Ground.ALREADY_DECIDED, error.detail)
    _audit_refused(journal, approval.id, person, now, why=refusal.message, approve=approve)
    if refusal.ground in FORBIDDEN:
        raise Forbidden(approval.id, refusal.message, refusal.ground)
    raise Declined(approval.id, refusal.message, refusal.ground)


def checked_id(text: str, what: str) -> str:
    """Raises NotFound if nothing could ever have this id."""
    if _ID.fullmatch(text) is None:
        raise NotFound(what, f"{text[:40]!r} is not an id")
    return text


def _audit_refused(
    journal: Journal, approval_id: str, person: Person, now: datetime, *, why: str, approve: bool
) -> None:
    asked = "approve" if approve else "deny"
    try:
        with journal.transaction() as transaction:
            transaction.audit(now, person.id, "approval.refused", approval_id, reason=why, detail={"asked": asked})
    except (Fenced, Unavailable) as error:
        # The refusal stands in any case: nothing was changed, only the record of the attempt is poorer.
        _log.warning("refused answer not audited", approval=approval_id, person=person.id, why=why, error=str(error))
