from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from healer.adapters.journal.sql import SqlJournal
from healer.domain.approval import ApprovalState, Person
from healer.errors import Conflict, NotFound, NotPermitted
from healer.policy.approval import Ground
from healer.runtime.web.decisions import Declined, Forbidden, decide
from tests.unit.http_samples import ALICE, NOW, fill, leading_journal

LISTED = (ALICE.id, "token:bob")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqlJournal]:
    journal = leading_journal(tmp_path)
    fill(journal)
    yield journal
    journal.close()


def audited(journal: SqlJournal) -> list[tuple[str, str, str]]:
    return [(entry.actor, entry.action, entry.subject) for entry in journal.audit_log()]


@pytest.mark.parametrize(("approve", "state"), [(True, ApprovalState.APPROVED), (False, ApprovalState.DENIED)])
def test_an_answer_is_kept_with_who_when_and_why(journal: SqlJournal, *, approve: bool, state: ApprovalState) -> None:
    decide(journal, LISTED, "apr-1", ALICE, NOW, approve=approve, reason="seen on the BMC")
    kept = journal.approval("apr-1")
    assert (kept.state, kept.decided_by, kept.decided_at, kept.reason) == (state, ALICE, NOW, "seen on the BMC")
    assert audited(journal) == [(ALICE.id, f"approval.{state}", "apr-1")]


def test_the_second_answer_is_refused_and_leaves_the_first_alone(journal: SqlJournal) -> None:
    decide(journal, LISTED, "apr-1", ALICE, NOW, approve=False, reason="no")
    with pytest.raises(Declined) as refused:
        decide(journal, LISTED, "apr-1", Person("token:bob"), NOW, approve=True, reason="yes")
    assert refused.value.ground is Ground.ALREADY_DECIDED
    assert journal.approval("apr-1").state is ApprovalState.DENIED
    assert audited(journal)[-1] == ("token:bob", "approval.refused", "apr-1")


def test_an_answer_after_the_expiry_is_refused(journal: SqlJournal) -> None:
    with pytest.raises(Declined) as refused:
        decide(journal, LISTED, "apr-1", ALICE, NOW + timedelta(hours=1), approve=True, reason="late")
    assert refused.value.ground is Ground.EXPIRED
    assert journal.approval("apr-1").state is ApprovalState.PENDING


def test_an_answer_to_a_void_question_is_refused(journal: SqlJournal) -> None:
    with journal.transaction() as transaction:
        transaction.change_approval("apr-1", lambda approval: replace(approval, state=ApprovalState.VOID))
    with pytest.raises(Declined) as refused:
        decide(journal, LISTED, "apr-1", ALICE, NOW, approve=True, reason="late")
    assert refused.value.ground is Ground.VOID


@pytest.mark.parametrize("approvers", [(), ("token:alice",)], ids=["nobody listed", "somebody else listed"])
def test_who_is_not_listed_is_refused_and_audited(journal: SqlJournal, approvers: tuple[str, ...]) -> None:
    with pytest.raises(NotPermitted):
        decide(journal, approvers, "apr-1", ALICE, NOW, approve=True, reason="please")
    (line,) = journal.audit_log()
    assert (line.actor, line.action, line.subject) == (ALICE.id, "approval.refused", "apr-1")
    assert "approvals.approvers" in line.reason
    assert journal.approval("apr-1").state is ApprovalState.PENDING


@pytest.mark.parametrize("approval_id", ["apr-2", "", "apr-1\x00", "../apr-1", "x" * 200, "apr 1", "äpr-1"])
def test_an_unknown_id_is_not_found_and_changes_nothing(journal: SqlJournal, approval_id: str) -> None:
    with pytest.raises(NotFound):
        decide(journal, LISTED, approval_id, ALICE, NOW, approve=True, reason="x")
    assert journal.audit_log() == ()


def test_of_many_who_answer_at_once_exactly_one_decides(journal: SqlJournal) -> None:
    answers: list[str] = []
    start = threading.Barrier(8)

    def answer(number: int) -> None:
        start.wait()
        try:
            approval = decide(journal, LISTED, "apr-1", ALICE, NOW, approve=number % 2 == 0, reason=f"from {number}")
        except Conflict:
            answers.append("refused")
        else:
            answers.append(approval.reason)

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers)[1:] == ["refused"] * 7
    assert journal.approval("apr-1").reason in answers


def put_to(journal: SqlJournal, *who: str, quorum: int = 1) -> None:
    with journal.transaction() as write:
        write.change_approval("apr-1", lambda approval: replace(approval, who=who, quorum=quorum))


def test_who_may_answer_others_but_was_not_asked_this_is_refused_and_audited(journal: SqlJournal) -> None:
    put_to(journal, "token:bob")
    with pytest.raises(Forbidden) as refused:
        decide(journal, LISTED, "apr-1", ALICE, NOW, approve=True, reason="please")
    assert refused.value.ground is Ground.NOT_ASKED
    assert audited(journal) == [(ALICE.id, "approval.refused", "apr-1")]
    assert journal.approval("apr-1").agreed == ()


def test_the_same_person_does_not_make_a_quorum(journal: SqlJournal) -> None:
    put_to(journal, *LISTED, quorum=2)
    decide(journal, LISTED, "apr-1", ALICE, NOW, approve=True, reason="seen")
    with pytest.raises(Declined) as refused:
        decide(journal, LISTED, "apr-1", ALICE, NOW, approve=True, reason="seen again")
    assert refused.value.ground is Ground.ALREADY_AGREED
    assert journal.approval("apr-1").state is ApprovalState.PENDING
    decided = decide(journal, LISTED, "apr-1", Person("token:bob"), NOW, approve=True, reason="me too")
    assert decided.state is ApprovalState.APPROVED


def test_of_two_who_agree_at_once_both_count_and_of_one_who_does_twice_one(journal: SqlJournal) -> None:
    put_to(journal, *LISTED, quorum=2)
    refused: list[Ground] = []
    start = threading.Barrier(4)

    def agree(person: Person) -> None:
        start.wait()
        try:
            decide(journal, LISTED, "apr-1", person, NOW, approve=True, reason="seen")
        except Declined as error:
            refused.append(error.ground)

    people = [ALICE, Person("token:bob")] * 2
    threads = [threading.Thread(target=agree, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    decided = journal.approval("apr-1")
    assert decided.state is ApprovalState.APPROVED
    assert {agreement.person.id for agreement in decided.agreed} == set(LISTED)
    assert len(refused) == 2


def test_a_refusal_stands_even_when_this_process_no_longer_leads(tmp_path: Path) -> None:
    journal = leading_journal(tmp_path)
    fill(journal)
    journal.close()
    standby = SqlJournal(f"sqlite:///{tmp_path / 'journal.db'}")
    with pytest.raises(NotPermitted):
        decide(standby, (), "apr-1", ALICE, NOW, approve=True, reason="x")
    assert standby.audit_log() == ()
    standby.close()
