from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.domain.approval import Agreement, Approval, ApprovalState, Person
from healer.policy.approval import Ground, answered, may_decide
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


BOB, CARA, DAN = Person("token:bob"), Person("token:cara"), Person("token:dan")
ALL = frozenset({ALICE.id, BOB.id, CARA.id, DAN.id})
ESCALATES = NOW + timedelta(minutes=10)
# Alice and Bob are asked, two have to agree; from ESCALATES on Cara may answer, too.
OF_TWO = replace(PENDING, who=(ALICE.id, BOB.id), quorum=2, escalate_at=ESCALATES, escalate_to=(CARA.id,))
AGREED = replace(OF_TWO, agreed=(Agreement(ALICE, NOW, "seen"),))
JUST_BEFORE = ESCALATES - timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("question", "person", "at", "approve", "ground"),
    [
        pytest.param(OF_TWO, ALICE, NOW, True, None, id="who is asked may agree"),
        pytest.param(OF_TWO, ALICE, NOW, False, None, id="who is asked may deny"),
        pytest.param(OF_TWO, DAN, NOW, True, Ground.NOT_ASKED, id="another approver may not agree"),
        pytest.param(OF_TWO, DAN, NOW, False, Ground.NOT_ASKED, id="another approver may not deny"),
        pytest.param(OF_TWO, DAN, ESCALATES, True, Ground.NOT_ASKED, id="nor when it is escalated to others"),
        pytest.param(OF_TWO, CARA, JUST_BEFORE, True, Ground.NOT_ASKED, id="whom it escalates to not before"),
        pytest.param(OF_TWO, CARA, ESCALATES, True, None, id="whom it escalates to from then on"),
        pytest.param(OF_TWO, ALICE, ESCALATES, True, None, id="who was asked at first still"),
        pytest.param(replace(OF_TWO, escalate_at=None), CARA, ESCALATES, True, Ground.NOT_ASKED, id="never escalated"),
        pytest.param(replace(OF_TWO, who=()), ALICE, NOW, True, Ground.NOT_ASKED, id="a group of nobody is nobody"),
        pytest.param(replace(OF_TWO, who=None), DAN, NOW, True, None, id="none named is every approver"),
        pytest.param(AGREED, ALICE, NOW, True, Ground.ALREADY_AGREED, id="nobody counts twice"),
        pytest.param(AGREED, Person(ALICE.id, "al"), NOW, True, Ground.ALREADY_AGREED, id="nor under another name"),
        pytest.param(AGREED, ALICE, NOW, False, None, id="who has agreed may still deny"),
        pytest.param(AGREED, BOB, NOW, True, None, id="the next one may agree"),
        pytest.param(AGREED, BOB, PENDING.expires_at, True, Ground.EXPIRED, id="not after its expiry"),
    ],
)
def test_whom_a_question_is_put_to(
    question: Approval, person: Person, at: datetime, ground: Ground | None, *, approve: bool
) -> None:
    refusal = may_decide(question, person, ALL, at, approve=approve)
    assert (refusal and refusal.ground) is ground


def test_who_was_taken_off_the_list_may_not_answer_although_the_question_was_put_to_them() -> None:
    refusal = may_decide(OF_TWO, BOB, ALL - {BOB.id}, NOW, approve=True)
    assert str(refusal) == "token:bob is not listed in approvals.approvers"


def test_who_was_put_into_a_group_since_was_not_asked() -> None:
    refusal = may_decide(replace(OF_TWO, who=(ALICE.id,)), BOB, ALL, NOW, approve=True)
    assert str(refusal) == "token:bob is not among those whom apr-1 was put to"


def test_who_may_answer_later_is_told_from_when_on() -> None:
    refusal = may_decide(OF_TWO, CARA, ALL, NOW, approve=True)
    assert str(refusal) == "token:cara may answer apr-1 from 2026-03-14T03:17:09+00:00 on, if it is still open then"


def test_who_has_agreed_is_told_that_another_person_is_needed() -> None:
    refusal = may_decide(AGREED, ALICE, ALL, NOW, approve=True)
    assert str(refusal) == (
        "alice (slack:U024BE7LH) agreed to apr-1 at 2026-03-14T03:07:09+00:00 already; "
        "1 of 2 have agreed: another person is needed"
    )


def test_a_yes_below_the_quorum_leaves_it_open_and_the_last_one_decides() -> None:
    first = answered(OF_TWO, ALICE, NOW, approve=True, reason="seen")
    assert first == AGREED
    assert (first.missing, first.decided_by) == (1, None)
    last = answered(first, BOB, NOW, approve=True, reason="me too")
    assert (last.state, last.missing, last.decided_by) == (ApprovalState.APPROVED, 0, BOB)
    assert last.approved_by == f"{ALICE} and {BOB}"


def test_one_no_is_a_no_however_many_have_agreed() -> None:
    denied = answered(AGREED, BOB, NOW, approve=False, reason="not now")
    assert (denied.state, denied.decided_by, denied.reason) == (ApprovalState.DENIED, BOB, "not now")
    assert denied.agreed == AGREED.agreed


PEOPLE = (ALICE, Person(ALICE.id, "al"), BOB, CARA, DAN, Person("token:mallory"))
ANSWERS = st.lists(
    st.tuples(
        st.sampled_from(PEOPLE),
        st.booleans() | st.just(value=True),
        st.integers(min_value=0, max_value=40),  # minutes since it was put
    ),
    max_size=12,
)


@given(
    answers=ANSWERS,
    quorum=st.integers(min_value=1, max_value=4),
    who=st.none() | st.lists(st.sampled_from([person.id for person in PEOPLE]), max_size=4).map(tuple),
    to=st.lists(st.sampled_from([person.id for person in PEOPLE]), max_size=3).map(tuple),
    approvers=st.sets(st.sampled_from(sorted(ALL))),
    escalate_after=st.none() | st.integers(min_value=1, max_value=40),
)
def test_no_order_of_answers_approves_without_enough_permitted_people_and_one_no_ends_it(
    *,
    answers: Sequence[tuple[Person, bool, int]],
    quorum: int,
    who: tuple[str, ...] | None,
    to: tuple[str, ...],
    approvers: set[str],
    escalate_after: int | None,
) -> None:
    escalates = None if escalate_after is None else NOW + timedelta(minutes=escalate_after)
    question = replace(PENDING, quorum=quorum, who=who, escalate_at=escalates, escalate_to=to)
    yes: set[str] = set()
    no: str | None = None
    for person, approve, minute in sorted(answers, key=lambda answer: answer[2]):
        now = NOW + timedelta(minutes=minute)
        asked = who is None or person.id in who or (escalates is not None and now >= escalates and person.id in to)
        counts = person.id in approvers and asked and now < question.expires_at and no is None and len(yes) < quorum
        counts = counts and not (approve and person.id in yes)
        assert (may_decide(question, person, approvers, now, approve=approve) is None) is counts
        if counts:
            question = answered(question, person, now, approve=approve, reason="")
            yes, no = (yes | {person.id}, no) if approve else (yes, person.id)
    assert {agreement.person.id for agreement in question.agreed} == yes
    assert (question.state is ApprovalState.DENIED) is (no is not None)
    assert (question.state is ApprovalState.APPROVED) is (no is None and len(yes) == quorum)
