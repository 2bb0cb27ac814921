"""What a journal keeps to: whole documents, one answer, one holder of a lease, one leader, an audit log that tells."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, timedelta, timezone
from pathlib import Path

import alembic.command
import alembic.config
import msgspec
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.adapters.journal import tables as schema
from healer.adapters.journal.sql import SqlJournal
from healer.domain.approval import Agreement, Approval, ApprovalState, Person
from healer.domain.breaker import Trip
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis, Evidence, FailureMode, Health
from healer.domain.incident import Incident, IncidentState
from healer.domain.matcher import parse_matcher
from healer.domain.plan import Effect, PlannedStep
from healer.domain.playbook import Asking, Escalation, OnExpire, OnFailure, Scalar
from healer.domain.run import EffectRecord, EffectState, Run, RunState, Start
from healer.domain.silence import Silence, SilenceState
from healer.domain.verdict import Guard, Verdict
from healer.errors import Conflict, Fenced, NotFound, Unavailable
from healer.policy.audit_chain import audit_digest, first_broken_link
from healer.policy.guards import leases_of
from healer.ports import Counts, Journal, Lease
from tests.journal_samples import NODE, NOW, incident_of, plan_of, run_of
from tests.realparts.postgresql import RunningPostgresql

TTL = timedelta(seconds=20)
ALICE, BOB = Person("slack:U024BE7LH", "alice"), Person("token:bob")
ARGUMENTS: dict[str, Scalar] = {"grace": "30s", "at_once": 5, "share": 0.5, "force": False, "x": None}
STEP = PlannedStep("evacuate", "node.drain", ARGUMENTS, TTL)


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'journal.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return url_of(tmp_path)
    running: RunningPostgresql = request.getfixturevalue("postgresql")
    return running.new_database()


@pytest.fixture
def journal(url: str) -> Iterator[SqlJournal]:
    made = SqlJournal(url)
    made.lead("test", NOW, TTL)
    yield made
    made.close()


def approval_of(key: str = "apr-1", *, state: ApprovalState = ApprovalState.PENDING) -> Approval:
    plan = plan_of(STEP, effects=(Effect("cordon", "n1", takes_out="n1"),))
    return Approval(key, "inc-1", plan, plan.digest, state, NOW, NOW + timedelta(minutes=30))


def fill(journal: Journal, *approvals: Approval) -> None:
    with journal.transaction() as write:
        write.save_incident(incident_of())
        for approval in approvals:
            write.add_approval(approval)


# Documents


def rich_incident() -> Incident:
    component = Component(ComponentKind.GPU, rack="r1", node="n1", gpu="3:1", uuid="GPU-ä", job="llm", link=None)
    return replace(
        incident_of(component=component, basis=Basis.LEARNT),
        failure_mode=FailureMode.GPU_ANOMALY,
        state=IncidentState.VERIFYING,
        health=Health.DEGRADED,
        score=0.25,
        reasons=("1 500 W — über dem Budget", "second\nline"),
        evidence=(Evidence("gpu_power_watts", None, "W", NOW, "unknown"), Evidence("x", 1e-300, "", NOW)),
        healthy_since=NOW + timedelta(microseconds=1),
        resolved_at=NOW.astimezone(timezone(timedelta(hours=5, minutes=30))),
        plan=plan_of(replace(STEP, on_failure=OnFailure.KEEP), effects=(Effect("evict", "a/b", "x; y", "n1"),)),
        verdict=Verdict(Guard.BUDGET, "2 of 2", "one returns"),
        approval_id="apr-1",
        run_id="run-1",
        story="said \"no\" to 'that'",
    )


def test_every_document_comes_back_as_it_was_written(journal: SqlJournal) -> None:
    incident = rich_incident()
    approval = replace(
        approval_of(), decided_at=NOW, decided_by=ALICE, reason="ok ✓", announced=True, announced_as="m1", closed=True
    )
    asking = Asking(("gpu-oncall",), 2, Escalation(TTL, ("gpu-leads",)), OnExpire.ESCALATE)
    approval = replace(
        approval,
        plan=replace(approval.plan, asking=asking),
        who=("token:bob",),
        quorum=2,
        agreed=(Agreement(BOB, NOW, "ok"), Agreement(ALICE, NOW)),
        escalate_at=NOW + TTL,
        escalate_to=(ALICE.id, "slack:S0LEADS"),
        escalated=True,
        escalation_announced=True,
        escalated_as="m2",
        shown=1,
    )
    run = replace(run_of(plan_of(STEP)), position=-1, cause="c", detail="d", ended_at=NOW, state=RunState.CANCELLED)
    run = replace(run, held_since=NOW, held=timedelta(hours=1, milliseconds=1))
    effect = EffectRecord("run-1", "evacuate", "evict/a/b/uid", EffectState.DONE, NOW, NOW, '{"limit_w": 1}', "gone")
    with journal.transaction() as write:
        write.save_incident(incident)
        write.add_approval(approval)
        write.add_run(run, [])
        write.save_effect(effect)
    assert journal.incident("inc-1") == incident
    assert journal.incidents() == (incident,)
    assert journal.approval("apr-1") == approval
    assert journal.approvals() == (approval,)
    assert journal.run("run-1") == run
    assert journal.runs() == (run,)
    assert journal.effects("run-1") == (effect,)


def test_another_process_reads_what_one_has_written(journal: SqlJournal, url: str) -> None:
    fill(journal, approval_of())
    reader = SqlJournal(url)
    assert reader.incident("inc-1") == incident_of()
    with pytest.raises(Fenced), reader.transaction():
        pass
    reader.close()


def test_what_is_not_there_is_not_found(journal: SqlJournal) -> None:
    for ask in (journal.incident, journal.approval, journal.run, journal.silence):
        with pytest.raises(NotFound, match="nothing-like-this"):
            ask("nothing-like-this")
    assert journal.effects("nothing-like-this") == ()
    with pytest.raises(NotFound), journal.transaction() as write:
        write.change_approval("nothing-like-this", lambda approval: approval)


@pytest.mark.parametrize(
    ("state", "persists", "live"),
    [
        (IncidentState.OPEN, True, True),
        (IncidentState.VERIFYING, True, True),
        (IncidentState.RESOLVED, True, True),
        (IncidentState.RESOLVED, False, False),
        (IncidentState.ESCALATED, True, True),
        (IncidentState.ESCALATED, False, False),
    ],
)
def test_an_incident_is_live_until_it_has_ended_and_its_finding_is_gone(
    journal: SqlJournal, *, state: IncidentState, persists: bool, live: bool
) -> None:
    with journal.transaction() as write:
        write.save_incident(replace(incident_of(), state=state, persists=persists))
    assert len(journal.incidents(open_only=True)) == live
    assert len(journal.incidents()) == 1


@pytest.mark.parametrize("state", list(ApprovalState))
@pytest.mark.parametrize("closed", [True, False])
def test_an_approval_is_live_until_it_is_closed_in_the_channel(
    journal: SqlJournal, *, state: ApprovalState, closed: bool
) -> None:
    fill(journal, replace(approval_of(state=state), closed=closed))
    assert len(journal.approvals(open_only=True)) == (state is ApprovalState.PENDING or not closed)


@pytest.mark.parametrize("state", list(RunState))
def test_a_run_is_live_until_it_has_ended(journal: SqlJournal, state: RunState) -> None:
    fill(journal)
    with journal.transaction() as write:
        write.add_run(run_of(plan_of(STEP), state=state), [])
    assert len(journal.runs(active_only=True)) == (state in {RunState.RUNNING, RunState.UNDOING})


def test_the_newest_comes_first_and_no_more_than_asked_for(journal: SqlJournal) -> None:
    with journal.transaction() as write:
        for hour in (2, 0, 1):
            write.save_incident(replace(incident_of(f"inc-{hour}"), opened_at=NOW + timedelta(hours=hour)))
    assert [incident.id for incident in journal.incidents()] == ["inc-2", "inc-1", "inc-0"]
    assert [incident.id for incident in journal.incidents(limit=2)] == ["inc-2", "inc-1"]


def test_effects_stay_in_the_order_of_their_intents(journal: SqlJournal) -> None:
    fill(journal)
    first, second = (EffectRecord("run-1", "s", key, EffectState.INTENT, NOW) for key in ("b", "a"))
    with journal.transaction() as write:
        write.add_run(run_of(plan_of(STEP)), [])
        for record in (first, second, replace(first, state=EffectState.DONE)):
            write.save_effect(record)
    assert [(r.key, r.state) for r in journal.effects("run-1")] == [("b", EffectState.DONE), ("a", EffectState.INTENT)]


def test_a_run_inherits_the_effects_of_the_earlier_runs_of_its_incident_and_of_no_other(journal: SqlJournal) -> None:
    fill(journal)
    plan = plan_of(STEP)
    with journal.transaction() as write:
        write.save_incident(incident_of("inc-2"))
        for key, incident in (("run-1", plan.incident_id), ("run-2", plan.incident_id), ("run-9", "inc-2")):
            write.add_run(run_of(replace(plan, incident_id=incident), key), [])
        latest = run_of(plan, "run-3")
        write.add_run(latest, [])
        for run, key in (("run-2", "b"), ("run-1", "a"), ("run-9", "c"), ("run-3", "d")):
            write.save_effect(EffectRecord(run, "s", key, EffectState.DONE, NOW))
    assert [(effect.run_id, effect.key) for effect in journal.inherited(latest)] == [("run-2", "b"), ("run-1", "a")]


# Transactions


def test_a_transaction_that_fails_leaves_nothing(journal: SqlJournal) -> None:
    def interrupted() -> None:
        with journal.transaction() as write:
            write.save_incident(incident_of())
            write.add_approval(approval_of())
            write.add_run(run_of(plan_of(STEP)), ["node/n1"])
            write.audit(NOW, "healer", "run.started", "run-1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert journal.incidents() == ()
    assert journal.approvals() == ()
    assert journal.runs() == ()
    assert journal.leases() == {}
    assert journal.audit_log() == ()


def test_what_belongs_to_no_incident_is_not_written(journal: SqlJournal) -> None:
    with pytest.raises(Unavailable, match=r"(?i)foreign key"), journal.transaction() as write:
        write.add_approval(approval_of())
    assert journal.approvals() == ()


def test_changes_of_one_approval_by_many_do_not_overwrite_each_other(journal: SqlJournal) -> None:
    fill(journal, approval_of())

    def append(letter: str) -> None:
        for _ in range(5):
            with journal.transaction() as write:
                write.change_approval("apr-1", lambda current: replace(current, reason=current.reason + letter))

    in_threads(lambda number: append("abcd"[number]), 4)
    assert sorted(journal.approval("apr-1").reason) == sorted("abcd" * 5)


# A person's answer


@pytest.mark.parametrize(("approve", "state"), [(True, ApprovalState.APPROVED), (False, ApprovalState.DENIED)])
def test_an_answer_is_kept_with_its_line_in_the_audit_log(
    journal: SqlJournal, *, approve: bool, state: ApprovalState
) -> None:
    fill(journal, approval_of())
    decided = journal.decide("apr-1", ALICE, NOW, approve=approve, reason="seen on the BMC")
    assert decided == journal.approval("apr-1")
    assert (decided.state, decided.decided_by, decided.decided_at) == (state, ALICE, NOW)
    (line,) = journal.audit_log()
    assert (line.actor, line.action, line.subject) == (ALICE.id, f"approval.{state}", "apr-1")
    assert line.reason == "seen on the BMC"
    assert approval_of().digest in line.detail


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (ApprovalState.APPROVED, "already approved by token:bob"),
        (ApprovalState.DENIED, "already denied by token:bob"),
        (ApprovalState.EXPIRED, "expired at"),
        (ApprovalState.VOID, "is void: its plan no longer stands"),
    ],
    ids=lambda value: value if isinstance(value, ApprovalState) else "",
)
def test_what_is_not_pending_is_not_answered_any_more(journal: SqlJournal, state: ApprovalState, says: str) -> None:
    fill(journal, replace(approval_of(state=state), decided_by=BOB))
    with pytest.raises(Conflict, match=says):
        journal.decide("apr-1", ALICE, NOW, approve=True, reason="")
    assert journal.approval("apr-1").state is state
    assert journal.audit_log() == ()


def test_an_answer_at_the_instant_of_its_expiry_is_late(journal: SqlJournal) -> None:
    fill(journal, approval_of())
    with pytest.raises(Conflict, match="expired at 2026-03-01T03:30:00"):
        journal.decide("apr-1", ALICE, NOW + timedelta(minutes=30), approve=True, reason="")
    just_in_time = NOW + timedelta(minutes=30, microseconds=-1)
    assert journal.decide("apr-1", ALICE, just_in_time, approve=True, reason="").state is ApprovalState.APPROVED


def test_of_many_who_answer_at_once_exactly_one_counts(journal: SqlJournal) -> None:
    fill(journal, approval_of())
    lost: list[str] = []
    won: list[str] = []

    def answer(number: int) -> None:
        person = Person(f"token:{number}")
        try:
            journal.decide("apr-1", person, NOW, approve=number % 2 == 0, reason="")
        except Conflict:
            lost.append(person.id)
        else:
            won.append(person.id)

    in_threads(answer, 8)
    assert len(won) == 1
    assert len(lost) == 7
    decided = journal.approval("apr-1")
    assert decided.decided_by == Person(won[0])
    assert [line.actor for line in journal.audit_log()] == won


def test_a_yes_that_is_not_the_last_one_needed_is_kept_and_leaves_the_question_open(journal: SqlJournal) -> None:
    fill(journal, replace(approval_of(), quorum=2))
    first = journal.decide("apr-1", ALICE, NOW, approve=True, reason="seen on the BMC")
    assert first == journal.approval("apr-1")
    assert (first.state, first.decided_by, first.decided_at) == (ApprovalState.PENDING, None, None)
    assert first.agreed == (Agreement(ALICE, NOW, "seen on the BMC"),)
    assert journal.approvals(open_only=True) == (first,)
    last = journal.decide("apr-1", BOB, NOW, approve=True, reason="me too")
    assert (last.state, last.decided_by, last.reason) == (ApprovalState.APPROVED, BOB, "me too")
    assert last.approved_by == f"{ALICE} and {BOB}"
    assert [(line.actor, line.action) for line in journal.audit_log()] == [
        (ALICE.id, "approval.agreed"),
        (BOB.id, "approval.approved"),
    ]
    assert ALICE.id in journal.audit_log()[-1].detail


def test_nobody_agrees_twice_whatever_name_their_channel_gives_them(journal: SqlJournal) -> None:
    fill(journal, replace(approval_of(), quorum=2))
    journal.decide("apr-1", ALICE, NOW, approve=True, reason="")
    with pytest.raises(Conflict, match="1 of 2 have agreed: another person is needed"):
        journal.decide("apr-1", replace(ALICE, name="al"), NOW, approve=True, reason="")
    assert len(journal.approval("apr-1").agreed) == 1


def test_who_has_agreed_may_still_say_no(journal: SqlJournal) -> None:
    fill(journal, replace(approval_of(), quorum=2))
    journal.decide("apr-1", ALICE, NOW, approve=True, reason="")
    denied = journal.decide("apr-1", ALICE, NOW, approve=False, reason="looked again")
    assert (denied.state, denied.decided_by) == (ApprovalState.DENIED, ALICE)


def test_of_many_who_agree_at_once_everybody_counts_and_the_last_one_needed_decides(journal: SqlJournal) -> None:
    fill(journal, replace(approval_of(), quorum=8))
    in_threads(
        lambda number: journal.decide("apr-1", Person(f"token:{number}"), NOW, approve=True, reason=""),
        8,
    )
    decided = journal.approval("apr-1")
    assert decided.state is ApprovalState.APPROVED
    assert {agreement.person.id for agreement in decided.agreed} == {f"token:{number}" for number in range(8)}
    actions = [line.action for line in journal.audit_log()]
    assert actions == ["approval.agreed"] * 7 + ["approval.approved"]


def test_an_approval_of_before_there_were_groups_is_one_that_one_approver_answers(
    journal: SqlJournal, url: str
) -> None:
    old, table = approval_of(), schema.approvals
    fill(journal, old)
    known_then = "id incident_id plan digest state asked_at expires_at decided_at decided_by reason announced"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        document = json.loads(connection.execute(sa.select(table.c.document)).scalar_one())
        kept = {key: document[key] for key in [*known_then.split(), "announced_as", "closed"]}
        del kept["plan"]["asking"]
        connection.execute(table.update().values(document=json.dumps(kept), version=table.c.version + 1))
    engine.dispose()
    assert journal.approval("apr-1") == old
    assert journal.decide("apr-1", BOB, NOW, approve=True, reason="").state is ApprovalState.APPROVED


def test_a_cancellation_survives_what_the_executor_writes(journal: SqlJournal) -> None:
    fill(journal)
    run = run_of(plan_of(STEP))
    with journal.transaction() as write:
        write.add_run(run, [])
    journal.request_cancel("run-1", ALICE, NOW, "not now")
    with journal.transaction() as write:
        write.save_run(replace(run, position=1))  # by a look that began before the request
    kept = journal.run("run-1")
    assert (kept.position, kept.cancelled_by) == (1, "alice (slack:U024BE7LH): not now")
    assert journal.runs(active_only=True) == (kept,)
    assert [line.action for line in journal.audit_log()] == ["run.cancel"]


def test_a_run_that_has_ended_is_not_cancelled(journal: SqlJournal) -> None:
    fill(journal)
    with journal.transaction() as write:
        write.add_run(run_of(plan_of(STEP), state=RunState.SUCCEEDED), [])
    with pytest.raises(Conflict, match="has ended: succeeded"):
        journal.request_cancel("run-1", ALICE, NOW, "too late")
    assert journal.run("run-1").cancelled_by == ""
    assert journal.audit_log() == ()


def test_a_pause_survives_what_the_executor_writes_until_it_is_resumed(journal: SqlJournal) -> None:
    fill(journal)
    run = run_of(plan_of(STEP))
    with journal.transaction() as write:
        write.add_run(run, [])
    assert journal.pause("run-1", ALICE, NOW, "let me look").paused_by == "alice (slack:U024BE7LH): let me look"
    with journal.transaction() as write:
        write.save_run(replace(run, position=1))  # by a look that began before the request
    assert journal.run("run-1").paused_by == "alice (slack:U024BE7LH): let me look"
    with pytest.raises(Conflict, match="paused already by alice"):
        journal.pause("run-1", BOB, NOW, "me too")
    assert journal.resume("run-1", BOB, NOW, "all is well").paused_by == ""
    assert journal.run("run-1").paused_by == ""
    assert [(line.actor, line.action) for line in journal.audit_log()] == [
        (ALICE.id, "run.pause"),
        (BOB.id, "run.resume"),
    ]


@pytest.mark.parametrize(
    ("state", "cancelled", "says"),
    [
        (RunState.SUCCEEDED, False, "has ended: succeeded"),
        (RunState.UNDOING, False, "is being undone"),
        (RunState.RUNNING, True, "is being undone"),
    ],
    ids=["ended", "undoing", "cancelled"],
)
def test_only_a_run_that_runs_is_paused(journal: SqlJournal, state: RunState, says: str, *, cancelled: bool) -> None:
    fill(journal)
    with journal.transaction() as write:
        write.add_run(run_of(plan_of(STEP), state=state), [])
    if cancelled:
        journal.request_cancel("run-1", ALICE, NOW, "not now")
    with pytest.raises(Conflict, match=says):
        journal.pause("run-1", ALICE, NOW, "too late")
    with pytest.raises(Conflict, match="run-1 is not paused"):
        journal.resume("run-1", ALICE, NOW, "go on")


# What limits ask


def drain_of(node: str, key: str, *, minutes_ago: float = 0, playbook: str = "drain-node", ended: bool = False) -> Run:
    """A run of that node's playbook; times are said in another zone than the journal's."""
    plan = replace(plan_of(STEP, target=replace(NODE, node=node)), playbook=playbook)
    run = run_of(plan, key, state=RunState.FAILED if ended else RunState.RUNNING)
    elsewhere = timezone(timedelta(hours=5, minutes=30))
    return replace(run, started_at=(NOW - timedelta(minutes=minutes_ago)).astimezone(elsewhere))


def fill_with_runs(journal: Journal, *runs: Run) -> None:
    with journal.transaction() as write:
        write.save_incident(incident_of())
        for run in runs:
            write.add_run(run, [])


def test_it_tells_what_was_started_after_a_time_by_playbook_whatever_became_of_it(journal: SqlJournal) -> None:
    fill_with_runs(
        journal,
        drain_of("n1", "run-1", minutes_ago=5),
        drain_of("n2", "run-2", minutes_ago=59, ended=True),
        drain_of("n3", "run-3", minutes_ago=60),
        drain_of("n4", "run-4", minutes_ago=300, playbook="reset"),
        drain_of("n5", "run-5", minutes_ago=1, playbook="other"),
    )
    asked = {"drain-node": NOW - timedelta(hours=1), "reset": NOW - timedelta(hours=6), "unused": NOW}
    assert set(journal.starts(asked)) == {
        Start("drain-node", "node/n1", NOW - timedelta(minutes=5)),
        Start("drain-node", "node/n2", NOW - timedelta(minutes=59)),
        Start("reset", "node/n4", NOW - timedelta(minutes=300)),
    }
    assert journal.starts({}) == ()


def test_it_counts_by_playbook_which_runs_have_not_ended(journal: SqlJournal) -> None:
    fill_with_runs(
        journal,
        drain_of("n1", "run-1"),
        drain_of("n2", "run-2", ended=True),
        drain_of("n3", "run-3"),
        drain_of("n4", "run-4", playbook="reset", ended=True),
        drain_of("n5", "run-5", playbook="other"),
    )
    assert journal.active(["drain-node", "reset", "unused"]) == {"drain-node": 2}
    with journal.transaction() as write:
        write.save_run(drain_of("n1", "run-1", ended=True))
    assert journal.active(["drain-node"]) == {"drain-node": 1}
    assert journal.active([]) == {}


def test_locks_are_leases_that_name_no_node(journal: SqlJournal) -> None:
    locked = replace(plan_of(STEP, effects=(Effect("cordon", "n1", takes_out="n1"),)), locks=("firmware",))
    fill(journal)
    with journal.transaction() as write:
        write.add_run(run_of(locked), leases_of(locked))
    assert journal.leases() == {"node/n1": Lease("run-1", taken_out="n1"), "lock/firmware": Lease("run-1")}
    elsewhere = replace(locked, target=replace(NODE, node="n2"), effects=())
    with pytest.raises(Conflict, match="lock/firmware is held by run-1"), journal.transaction() as write:
        write.add_run(run_of(elsewhere, "run-2"), leases_of(elsewhere))


# Silences


def silence_of(key: str = "sil-1", *, starts: float = 0, hours: float = 2, made: float = 0) -> Silence:
    """Times are hours from NOW, said in another zone than the journal's."""
    at = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    begin = at + timedelta(hours=starts)
    matchers = (parse_matcher("rack=r1"), parse_matcher(r'failure_mode=~"Nv\w+|GpuXid"'))
    ends = begin + timedelta(hours=hours)
    return Silence(key, matchers, begin, ends, ALICE, "cables — ✓", at + timedelta(hours=made))


def test_a_silence_comes_back_as_it_was_made_with_its_line_in_the_audit_log(journal: SqlJournal) -> None:
    journal.add_silence(silence_of())
    assert journal.silence("sil-1") == silence_of()
    assert journal.silences() == (silence_of(),)
    (line,) = journal.audit_log()
    assert (line.actor, line.action, line.subject, line.reason) == (ALICE.id, "silence.added", "sil-1", "cables — ✓")
    assert r'"failure_mode=~\"Nv\\\\w+|GpuXid\""' in line.detail
    assert '"ends_at": "2026-03-01T10:30:00+05:30"' in line.detail


def test_the_newest_silence_comes_first_and_those_that_have_ended_are_left_out_on_request(journal: SqlJournal) -> None:
    for key, starts, made in (("early", -3, -3), ("now", -1, -1), ("ends", -2, -2), ("later", 5, -4)):
        journal.add_silence(silence_of(key, starts=starts, made=made))
    assert [silence.id for silence in journal.silences()] == ["now", "ends", "early", "later"]
    assert [silence.id for silence in journal.silences(limit=2)] == ["now", "ends"]
    assert [silence.id for silence in journal.silences(unended_at=NOW)] == ["now", "later"]
    assert [silence.id for silence in journal.silences(unended_at=NOW - timedelta(microseconds=1))] == [
        "now",
        "ends",
        "later",
    ]


def test_no_number_of_silences_hides_one(journal: SqlJournal) -> None:
    for number in range(20):
        journal.add_silence(silence_of(f"sil-{number}"))
    assert len(journal.silences(unended_at=NOW)) == 20


@pytest.mark.parametrize("starts", [-1.0, 1.0], ids=["active", "pending"])
def test_a_person_expires_a_silence_once_with_a_line_in_the_audit_log(journal: SqlJournal, starts: float) -> None:
    journal.add_silence(silence_of(starts=starts))
    expired = journal.expire_silence("sil-1", BOB, NOW, "done early")
    assert (expired.expired_by, expired.expired_at, expired.state(NOW)) == (BOB, NOW, SilenceState.EXPIRED)
    assert journal.silence("sil-1") == expired
    assert journal.silences(unended_at=NOW) == ()
    line = journal.audit_log()[-1]
    assert (line.actor, line.action, line.subject, line.reason) == (BOB.id, "silence.expired", "sil-1", "done early")
    with pytest.raises(Conflict, match="sil-1 ended at 2026-03-01T03:00:00Z, expired by token:bob"):
        journal.expire_silence("sil-1", ALICE, NOW, "me too")
    assert journal.silence("sil-1") == expired
    assert len(journal.audit_log()) == 2


def test_a_silence_that_is_over_is_not_expired_any_more(journal: SqlJournal) -> None:
    journal.add_silence(silence_of())
    with pytest.raises(Conflict, match=r"sil-1 ended at 2026-03-01T05:00:00Z$"):
        journal.expire_silence("sil-1", ALICE, NOW + timedelta(hours=2), "late")
    with pytest.raises(NotFound, match="there is no silence sil-2"):
        journal.expire_silence("sil-2", ALICE, NOW, "which?")
    assert len(journal.audit_log()) == 1


def test_of_many_who_expire_a_silence_at_once_exactly_one_does(journal: SqlJournal) -> None:
    journal.add_silence(silence_of())
    lost: list[int] = []

    def expire(number: int) -> None:
        try:
            journal.expire_silence("sil-1", Person(f"token:{number}"), NOW, "")
        except Conflict:
            lost.append(number)

    in_threads(expire, 6)
    assert len(lost) == 5
    assert [line.action for line in journal.audit_log()] == ["silence.added", "silence.expired"]


# The breaker


def trip_of(key: str, *, hours: float = 0) -> Trip:
    return Trip(key, NOW + timedelta(hours=hours), "4 nodes of rack r1 — ✓", ("n1", "n2", "n3", "n4"))


def test_the_newest_trip_comes_first_and_a_person_resets_that_one_once(journal: SqlJournal) -> None:
    assert journal.trips() == ()
    with journal.transaction() as write:
        write.add_trip(trip_of("trip-b", hours=-1))
        write.add_trip(trip_of("trip-a", hours=-2))
    assert [trip.id for trip in journal.trips()] == ["trip-b", "trip-a"]
    reset = journal.reset_breaker(BOB, NOW, "a bad driver, rolled back")
    assert (reset.id, reset.open, reset.reset_by, reset.reset_at) == ("trip-b", False, BOB, NOW)
    assert journal.trips(limit=1) == (reset,)
    (line,) = journal.audit_log()
    assert (line.actor, line.action, line.subject) == (BOB.id, "breaker.reset", "trip-b")
    assert line.reason == "a bad driver, rolled back"
    with pytest.raises(Conflict, match="it was closed at 2026-03-01T03:00:00Z by token:bob"):
        journal.reset_breaker(ALICE, NOW, "me too")
    assert len(journal.audit_log()) == 1


def test_a_breaker_that_never_opened_is_not_reset(journal: SqlJournal) -> None:
    with pytest.raises(Conflict, match="it has never opened"):
        journal.reset_breaker(BOB, NOW, "?")


def test_a_reset_outlives_the_note_that_the_channel_was_told(journal: SqlJournal) -> None:
    with journal.transaction() as write:
        write.add_trip(trip_of("trip-a"))
    journal.reset_breaker(BOB, NOW, "seen")
    with journal.transaction() as write:
        write.change_trip("trip-a", lambda trip: replace(trip, announced=True))
    (trip,) = journal.trips()
    assert (trip.announced, trip.open) == (True, False)


# Leases


def test_a_lease_has_one_holder_until_its_run_ends(journal: SqlJournal) -> None:
    fill(journal)
    first, second = run_of(plan_of(STEP)), run_of(plan_of(STEP), "run-2")
    with journal.transaction() as write:
        write.add_run(first, ["node/n1", "node/n2"])
    with pytest.raises(Conflict, match="node/n2 is held by run-1"), journal.transaction() as write:
        write.add_run(second, ["node/n3", "node/n2"])
    assert journal.leases() == {"node/n1": Lease("run-1"), "node/n2": Lease("run-1")}
    assert [run.id for run in journal.runs()] == ["run-1"]
    with journal.transaction() as write:
        write.save_run(replace(first, state=RunState.UNDOING))
    assert len(journal.leases()) == 2
    with journal.transaction() as write:
        write.save_run(replace(first, state=RunState.FAILED))
    assert journal.leases() == {}
    with journal.transaction() as write:
        write.add_run(second, ["node/n2"])
    assert journal.leases() == {"node/n2": Lease("run-2")}


def test_which_nodes_are_taken_out_is_known_by_their_leases(journal: SqlJournal) -> None:
    fill(journal)
    effects = (Effect("cordon", "n1", takes_out="n1"), Effect("open a ticket", "on node n2"))
    with journal.transaction() as write:
        write.add_run(run_of(plan_of(STEP, effects=effects)), ["node/n1", "node/n2"])
    assert journal.leases() == {"node/n1": Lease("run-1", taken_out="n1"), "node/n2": Lease("run-1")}


# What is due


def test_of_runs_that_wait_those_that_are_due_are_asked_for_and_those_that_a_person_has_cancelled(
    journal: SqlJournal,
) -> None:
    fill(journal)
    later = NOW + timedelta(hours=1)
    with journal.transaction() as write:
        for key, at in (("run-now", NOW), ("run-later", later), ("run-cancelled", later), ("run-over", NOW)):
            write.add_run(replace(run_of(plan_of(STEP), key), next_look_at=at), [])
        write.save_run(replace(run_of(plan_of(STEP), "run-over"), state=RunState.FAILED))
    journal.request_cancel("run-cancelled", BOB, NOW, "enough")
    assert {run.id for run in journal.runs(due_at=NOW)} == {"run-now", "run-cancelled"}
    assert {run.id for run in journal.runs(due_at=later)} == {"run-now", "run-later", "run-cancelled"}
    assert journal.runs(due_at=NOW - timedelta(microseconds=1))[0].id == "run-cancelled"


def test_incidents_are_asked_for_by_their_state(journal: SqlJournal) -> None:
    with journal.transaction() as write:
        for key, state in (("inc-o", IncidentState.OPEN), ("inc-v", IncidentState.VERIFYING)):
            write.save_incident(replace(incident_of(key), state=state))
    assert [each.id for each in journal.incidents(states=(IncidentState.VERIFYING,))] == ["inc-v"]
    assert len(journal.incidents(states=tuple(IncidentState))) == len(journal.incidents()) == 2


# One leader

_HOLDER = """
import sys, time
from datetime import UTC, datetime, timedelta
from healer.adapters.journal.sql import SqlJournal
journal = SqlJournal(sys.argv[1])
print(journal.lead("other", datetime.fromisoformat(sys.argv[2]), timedelta(days=365)), flush=True)
time.sleep(600)
"""


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that leads on the same file."""
    arguments = [sys.executable, "-c", _HOLDER, url_of(tmp_path), NOW.isoformat()]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_while_the_first_lives_and_takes_over_at_once_when_it_died(
    other_process: subprocess.Popen[str], tmp_path: Path
) -> None:
    mine = SqlJournal(url_of(tmp_path))
    with pytest.raises(Conflict, match="another healer is running"):
        mine.lead("mine", NOW + timedelta(hours=1), TTL)
    with pytest.raises(Fenced), mine.transaction():
        pass
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    assert mine.lead("mine", NOW, TTL) == 2
    fill(mine)
    mine.close()


def test_a_process_that_has_not_led_writes_nothing(url: str) -> None:
    journal = SqlJournal(url)
    with pytest.raises(Fenced), journal.transaction():
        pass
    with pytest.raises(Fenced):
        journal.decide("apr-1", ALICE, NOW, approve=True, reason="")
    with pytest.raises(Fenced):
        journal.request_cancel("run-1", ALICE, NOW, "")
    with pytest.raises(Fenced):
        journal.add_silence(silence_of())
    with pytest.raises(Fenced):
        journal.expire_silence("sil-1", ALICE, NOW, "")
    assert journal.silences() == ()
    journal.close()


def test_a_leader_that_stays_keeps_its_epoch(journal: SqlJournal) -> None:
    for minutes in (1, 2, 60):
        assert journal.lead("test", NOW + timedelta(minutes=minutes), TTL) == 1
    fill(journal)


class WithoutFileLock(SqlJournal):
    """As on PostgreSQL, where the leader's row alone says who leads."""

    def _lock_sqlite_file(self) -> bool:
        return False


@pytest.fixture
def rivals(url: str) -> Iterator[tuple[SqlJournal, SqlJournal]]:
    first, second = WithoutFileLock(url), WithoutFileLock(url)
    yield first, second
    first.close()
    second.close()


def test_while_the_leader_is_seen_nobody_else_leads(rivals: tuple[SqlJournal, SqlJournal]) -> None:
    first, second = rivals
    assert first.lead("first", NOW, TTL) == 1
    with pytest.raises(Conflict, match="first leads since epoch 1"):
        second.lead("second", NOW + TTL, TTL)
    first.lead("first", NOW + TTL, TTL)
    with pytest.raises(Conflict):
        second.lead("second", NOW + 2 * TTL, TTL)


def test_a_leader_that_was_paused_cannot_write_any_more(rivals: tuple[SqlJournal, SqlJournal]) -> None:
    first, second = rivals
    first.lead("first", NOW, TTL)
    fill(first, approval_of())
    later = NOW + TTL + timedelta(microseconds=1)
    assert second.lead("second", later, TTL) == 2
    with pytest.raises(Fenced, match="leads in epoch 1, the journal is in epoch 2"), first.transaction():
        pass
    with pytest.raises(Fenced):
        first.decide("apr-1", ALICE, NOW, approve=True, reason="")
    with pytest.raises(Fenced):
        first.add_silence(silence_of())
    with second.transaction() as write:
        write.audit(later, "healer", "still.works", "x")


def test_a_leader_that_was_paused_does_not_lead_again_with_what_it_knew(
    rivals: tuple[SqlJournal, SqlJournal],
) -> None:
    first, second = rivals
    first.lead("first", NOW, TTL)
    second.lead("second", NOW + 2 * TTL, TTL)
    with pytest.raises(Fenced):
        first.lead("first", NOW + 9 * TTL, TTL)  # although the second was not seen for long, too
    with pytest.raises(Fenced), first.transaction():
        pass


def test_a_namesake_of_the_leader_fences_it(rivals: tuple[SqlJournal, SqlJournal]) -> None:
    """A container's process always has the same name and number; the one before it may be paused, not dead."""
    first, second = rivals
    assert first.lead("healer-0:1", NOW, TTL) == 1
    assert second.lead("healer-0:1", NOW, TTL) == 2
    with pytest.raises(Fenced), first.transaction():
        pass


def test_a_takeover_in_the_middle_of_a_transaction_waits_for_its_end(rivals: tuple[SqlJournal, SqlJournal]) -> None:
    first, second = rivals
    first.lead("first", NOW, TTL)
    epochs: list[int] = []
    taking_over = threading.Thread(target=lambda: epochs.append(second.lead("second", NOW + 2 * TTL, TTL)))
    with first.transaction() as write:
        taking_over.start()
        write.save_incident(incident_of())
        assert epochs == []
    taking_over.join()
    assert epochs == [2]
    assert second.incident("inc-1") == incident_of()


# The audit log


def audited(journal: SqlJournal, count: int = 5) -> None:
    with journal.transaction() as write:
        for number in range(1, count + 1):
            write.audit(NOW, "healer", f"action-{number}", "run-1", reason="because", detail={"n": number, "at": NOW})


def test_an_untouched_audit_log_is_a_chain(journal: SqlJournal) -> None:
    audited(journal)
    entries = journal.audit_log()
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert entries[0].detail == '{"at": "2026-03-01 03:00:00+00:00", "n": 1}'
    assert first_broken_link(entries) is None
    assert journal.audit_log(after=3) == entries[3:]
    assert journal.audit_log(limit=2) == entries[:2]
    assert first_broken_link(entries[3:], entries[2].digest) is None


def test_the_chain_holds_whatever_zone_a_time_was_given_in(journal: SqlJournal) -> None:
    with journal.transaction() as write:
        write.audit(NOW.astimezone(timezone(timedelta(hours=-7))), "healer", "a", "b")
    (entry,) = journal.audit_log()
    assert entry.at == NOW
    assert first_broken_link((entry,)) is None


@pytest.mark.parametrize(
    ("statement", "found_at"),
    [
        pytest.param("UPDATE audit SET reason = 'another' WHERE number = 3", 3, id="a reason"),
        pytest.param("UPDATE audit SET actor = 'healer2' WHERE number = 3", 3, id="an actor"),
        pytest.param("UPDATE audit SET at = '2026-03-01 03:00:01.000000' WHERE number = 3", 3, id="a time"),
        pytest.param("UPDATE audit SET detail = '{}' WHERE number = 1", 1, id="the first one's detail"),
        pytest.param("UPDATE audit SET digest = previous WHERE number = 5", 5, id="the last one's digest"),
        pytest.param("DELETE FROM audit WHERE number = 3", 4, id="removal"),
        pytest.param("DELETE FROM audit WHERE number = 1", 2, id="removal of the first"),
        pytest.param("UPDATE audit SET number = 6 WHERE number = 5", 6, id="renumbering"),
        pytest.param(
            "INSERT INTO audit SELECT 6, at, actor, action, subject, reason, detail, previous, digest FROM audit "
            "WHERE number = 5",
            6,
            id="insertion",
        ),
    ],
)
def test_tampering_with_the_audit_log_is_found(journal: SqlJournal, url: str, statement: str, found_at: int) -> None:
    audited(journal)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()
    broken = first_broken_link(journal.audit_log())
    assert broken is not None
    assert broken.number == found_at


@given(st.lists(st.text(), min_size=3, max_size=3), st.lists(st.text(), min_size=3, max_size=3))
@settings(max_examples=200)
def test_no_text_can_be_moved_from_one_field_to_the_next(fields: list[str], others: list[str]) -> None:
    assert (audit_digest(*fields) == audit_digest(*others)) == (fields == others)


def test_the_border_between_two_fields_counts() -> None:
    assert audit_digest("a\x1fb", "c") != audit_digest("a", "b\x1fc")


def test_lines_of_many_threads_are_one_chain(journal: SqlJournal) -> None:
    def write_lines(number: int) -> None:
        for _ in range(5):
            with journal.transaction() as write:
                write.audit(NOW, f"thread-{number}", "did", "something")

    in_threads(write_lines, 6)
    entries = journal.audit_log()
    assert len(entries) == 30
    assert first_broken_link(entries) is None


# The database


def test_a_database_from_nothing_is_brought_to_this_release_and_stays_there(url: str) -> None:
    for _ in range(3):
        journal = SqlJournal(url)
        journal.lead("test", NOW, TTL)
        with journal.transaction() as write:
            write.audit(NOW, "healer", "opened", "journal")
        journal.close()
    reader = SqlJournal(url)
    assert len(reader.audit_log()) == 3
    reader.close()


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(journal: SqlJournal, url: str) -> None:
    assert journal.audit_log() == ()
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_what_an_earlier_release_has_started_counts_after_the_migration(url: str) -> None:
    engine = sa.create_engine(url)
    before = alembic.config.Config()
    before.set_main_option("script_location", "healer.adapters.journal:migrations")
    before.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        before.attributes["connection"] = connection
        alembic.command.upgrade(before, "0004")
        earlier = sa.MetaData()
        earlier.reflect(connection, only=["incidents", "runs"])
        incident = {"id": "inc-1", "live": True, "state": "open", "opened_at": NOW, "document": "{}"}
        connection.execute(earlier.tables["incidents"].insert().values(incident))
        for run in (drain_of("n1", "run-1", minutes_ago=5), drain_of("n2", "run-2", ended=True)):
            document = msgspec.json.encode(run).decode()
            values = {"id": run.id, "incident_id": "inc-1", "live": not run.state.ended, "document": document}
            values["started_at"] = run.started_at.astimezone(UTC)
            connection.execute(earlier.tables["runs"].insert().values(values))
    engine.dispose()
    journal = SqlJournal(url)
    assert set(journal.starts({"drain-node": NOW - timedelta(hours=1)})) == {
        Start("drain-node", "node/n1", NOW - timedelta(minutes=5)),
        Start("drain-node", "node/n2", NOW),
    }
    assert journal.active(["drain-node"]) == {"drain-node": 1}
    journal.close()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder: f"sqlite:///{folder / 'no' / 'such' / 'folder' / 'j.db'}", id="no folder"),
        pytest.param(lambda folder: f"sqlite:///{folder}", id="a folder"),
        pytest.param(lambda _folder: "postgresql+nodriver://u:hunter2@127.0.0.1:1/x", id="no driver"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(tmp_path: Path, make: object) -> None:
    assert callable(make)
    with pytest.raises(Unavailable, match=r"see state\.url") as caught:
        SqlJournal(make(tmp_path))
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_text("not a database, but long enough to be looked at as one" * 40)
    with pytest.raises(Unavailable, match="not a database"):
        SqlJournal(url_of(tmp_path))
    assert (tmp_path / "journal.db").read_text().startswith("not a database")


def in_threads(body: object, count: int) -> None:
    """Run `body(number)` in `count` threads at once; an error in any of them is raised here."""
    assert callable(body)
    start = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        start.wait()
        try:
            body(number)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_what_it_holds_is_counted_by_state_however_many_there_are(journal: SqlJournal) -> None:
    for number in range(3):
        incident = incident_of(f"inc-{number}", component=replace(NODE, node=f"n{number}"))
        ended = number == 2
        with journal.transaction() as write:
            write.save_incident(replace(incident, state=IncidentState.RESOLVED if ended else IncidentState.OPEN))
    assert journal.counts() == Counts(incidents={"open": 2, "resolved": 1}, runs={})
