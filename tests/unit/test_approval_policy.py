from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from healer.domain.approval import ApprovalState, Person
from healer.policy.approval import Ground, may_decide
from tests.unit.http_samples import ALICE, NOW, approval, incident

PENDING = approval(incident())
LISTED = frozenset({ALICE.id})


def test_a_listed_person_may_answer_a_pending_question_before_it_expires() -> None:
    assert may_decide(PENDING, ALICE, LISTED, PENDING.expires_at - timedelta(seconds=1), approve=True) is None


def test_an_empty_list_of_approvers_lets_nobody_answer() -> None:
    refusal = may_decide(PENDING, ALICE, (), NOW, approve=True)
    assert refusal is not None
    assert refusal.ground is Ground.NOT_PERMITTED
    assert "approvals.approvers is empty" in str(refusal)


@pytest.mark.parametrize("person_id", ["slack:U024BE7LHX", "token:U024BE7LH", "local:U024BE7LH", "slack:u024be7lh", ""])
def test_only_the_exact_id_is_listed(person_id: str) -> None:
    refusal = may_decide(PENDING, Person(person_id, "alice"), LISTED, NOW, approve=True)
    assert refusal is not None
    assert refusal.ground is Ground.NOT_PERMITTED


@pytest.mark.parametrize(
    ("state", "ground"),
    [
        (ApprovalState.APPROVED, Ground.ALREADY_DECIDED),
        (ApprovalState.DENIED, Ground.ALREADY_DECIDED),
        (ApprovalState.EXPIRED, Ground.EXPIRED),
        (ApprovalState.VOID, Ground.VOID),
    ],
)
def test_a_question_that_is_no_longer_open_says_in_which_way(state: ApprovalState, ground: Ground) -> None:
    closed = replace(PENDING, state=state, decided_by=ALICE, decided_at=NOW)
    refusal = may_decide(closed, ALICE, LISTED, NOW, approve=True)
    assert refusal is not None
    assert refusal.ground is ground


@pytest.mark.parametrize("late", [timedelta(0), timedelta(seconds=1), timedelta(days=400)])
def test_a_pending_question_ends_at_its_expiry_even_if_nobody_has_marked_it(late: timedelta) -> None:
    refusal = may_decide(PENDING, ALICE, LISTED, PENDING.expires_at + late, approve=True)
    assert refusal is not None
    assert refusal.ground is Ground.EXPIRED


def test_who_decided_and_when_is_told_to_the_next_one() -> None:
    decided = replace(PENDING, state=ApprovalState.DENIED, decided_by=ALICE, decided_at=NOW)
    bare = replace(decided, decided_by=None, decided_at=None)
    assert str(may_decide(decided, ALICE, LISTED, NOW, approve=True)) == (
        "apr-1 was already denied by alice (slack:U024BE7LH) at 2026-03-14T03:07:09+00:00"
    )
    assert str(may_decide(bare, ALICE, LISTED, NOW, approve=True)) == "apr-1 was already denied"


def test_who_may_not_answer_learns_nothing_of_the_state() -> None:
    decided = replace(PENDING, state=ApprovalState.APPROVED, decided_by=ALICE, decided_at=NOW)
    refusal = may_decide(decided, Person("slack:UMALLORY"), LISTED, NOW, approve=True)
    assert refusal is not None
    assert refusal.ground is Ground.NOT_PERMITTED
    assert "approved" not in refusal.message
