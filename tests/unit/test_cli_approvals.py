"""Approvals as the commands print them, from what the API says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from healer.cli import approval_text
from healer.domain.approval import Agreement, Approval, ApprovalState, Person
from healer.domain.playbook import Asking, Escalation
from healer.errors import HealerError
from healer.runtime.web.record_views import ApprovalView, approval_view
from tests.unit.http_samples import ALICE, NOW, approval, incident

BOB = Person("token:bob")
PLAIN = approval(incident())
ASKING = Asking(("gpu-oncall",), 2, Escalation(timedelta(minutes=10), ("gpu-leads",)))
OF_TWO = replace(
    PLAIN,
    plan=replace(PLAIN.plan, asking=ASKING),
    who=(ALICE.id, BOB.id),
    quorum=2,
    agreed=(Agreement(ALICE, NOW, "seen on the BMC"),),
    escalate_at=NOW + timedelta(minutes=8),
    escalate_to=("token:cara", "slack:S0LEADS"),
)


def parsed(of: Approval) -> ApprovalView:
    """As it comes over HTTP."""
    return approval_text.parsed(msgspec.json.decode(msgspec.json.encode(approval_view(of))))


def facts(of: Approval) -> Mapping[str, list[str]]:
    """What is printed, by the word that it stands under; the first line under ""."""
    first, *others = approval_text.lines(parsed(of), NOW)
    told, word = {"": [first]}, ""
    for line in others:
        word = line[2:13].strip() or word
        told.setdefault(word, []).append(line[13:])
    return told


def test_it_says_what_is_asked_who_may_answer_who_has_and_until_when() -> None:
    told = facts(OF_TWO)
    assert told[""] == ["apr-1: drain-node on node node-01 (rack-0)"]
    assert told["state"] == ["pending, asked 2026-03-14 03:05:09Z, 2m ago"]
    assert told["effects"][0] == "cordon node-01"
    assert told["agreed"] == [
        "1 of 2 have agreed",
        "alice (slack:U024BE7LH) at 2026-03-14 03:07:09Z: seen on the BMC",
    ]
    assert told["who"] == ["gpu-oncall (slack:U024BE7LH, token:bob)"]
    assert told["escalation"] == [
        "from 2026-03-14 03:15:09Z, these may answer, too: gpu-leads (token:cara, slack:S0LEADS)"
    ]
    assert told["expires"] == ["2026-03-14 03:35:09Z; unanswered means no"]


def test_once_it_is_escalated_it_says_since_when() -> None:
    assert facts(replace(OF_TWO, escalated=True))["escalation"][0].startswith("since 2026-03-14 03:15:09Z, these may")


@pytest.mark.parametrize(
    ("who", "says"),
    [
        pytest.param(None, "all of approvals.approvers", id="of before there were groups"),
        pytest.param(("token:bob",), "token:bob", id="nobody was named"),
        pytest.param((), "nobody", id="nobody at all"),
    ],
)
def test_who_may_answer_where_no_group_was_named(who: tuple[str, ...] | None, says: str) -> None:
    told = facts(replace(PLAIN, who=who))
    assert told["who"] == [says]
    assert "escalation" not in told


def test_one_that_was_answered_says_by_whom_and_expires_no_more() -> None:
    denied = replace(OF_TWO, state=ApprovalState.DENIED, decided_by=BOB, decided_at=NOW, reason="not now")
    told = facts(denied)
    assert told["decided"] == ["2026-03-14 03:07:09Z by token:bob: not now"]
    assert "expires" not in told
    assert approval_text.outcome(parsed(denied)) == "apr-1 is denied"


def test_a_row_counts_who_has_agreed() -> None:
    row = dict(zip(approval_text.COLUMNS, approval_text.row(parsed(OF_TWO), NOW), strict=True))
    assert (row["STATE"], row["AGREED"], row["BY"]) == ("pending", "1/2", "")


def test_of_more_than_one_that_are_missing_it_speaks_of_them_all() -> None:
    assert approval_text.outcome(parsed(replace(OF_TWO, quorum=4))) == (
        "apr-1: 1 of 4 have agreed; 3 more have to agree before 2026-03-14 03:35:09Z"
    )


def test_what_a_person_wrote_stays_on_its_line() -> None:
    hostile = replace(OF_TWO, agreed=(Agreement(Person("token:x", "a\nb\x1b[31m"), NOW, "c\nd"),))
    assert all(text.isprintable() for text in approval_text.lines(parsed(hostile), NOW))


def test_an_approval_of_another_release_is_said_to_be_one() -> None:
    with pytest.raises(HealerError, match="another version"):
        approval_text.parsed({"id": "apr-1"})
