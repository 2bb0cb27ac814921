"""What a look makes of a verb's outcome, and what holds whatever verbs do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from healer.actions.node import Cordon, Drain
from healer.adapters.journal.sql import SqlJournal
from healer.adapters.simulated_cluster import SimulatedCluster, Verb
from healer.domain.approval import Person
from healer.domain.component import Component
from healer.domain.plan import Effect, PlannedStep
from healer.domain.playbook import OnError, OnFailure, Retry
from healer.domain.run import (
    Done,
    EffectRecord,
    EffectState,
    Failed,
    Outcome,
    Refused,
    RetryAfter,
    Run,
    RunState,
    Unknown,
)
from healer.domain.verdict import Guard, Verdict
from healer.errors import Conflict, Fenced, NotFound, Rejected, Unavailable
from healer.rehearsal.virtual import VirtualClock
from healer.runtime.executor import Executor
from healer.schema import Section
from healer.verb import Action, Ledger, NotNow, Proposal, Verbs, World
from tests.journal_samples import NOW, incident_of, plan_of, run_of
from tests.virtual_site import LEASE

SOON = timedelta(seconds=7)
NO = Verdict(Guard.BUDGET, "2 of 2 nodes out", "one returns")
SILENCED = Verdict(Guard.SILENCE, "silenced by alice", "sil-1 ends or is expired")
Scripted = Outcome | Exception


@dataclass
class Fake:
    """A verb that answers what it is told to, and notes what it was asked."""

    name: str = "fake"
    running: Scripted = field(default_factory=Done)
    verifying: Scripted = field(default_factory=Done)
    undoing: Scripted = field(default_factory=Done)
    asked: list[str] = field(default_factory=list)
    effects: tuple[str, ...] = ()

    class Arguments(Section):
        share: float = 0.5

    def plan(self, _arguments: Section, _target: Component, _world: World) -> Proposal:
        raise NotImplementedError

    def run(self, _arguments: Section, _target: Component, ledger: Ledger) -> Outcome:
        for key in self.effects:
            ledger.effect(key, do=noting(self.asked, f"do {key}"), happened=lambda: False)
        return self._answer(f"run {self.name}", self.running)

    def verify(self, _arguments: Section, _target: Component, _ledger: Ledger) -> Outcome:
        return self._answer(f"verify {self.name}", self.verifying)

    def undo(self, _arguments: Section, _target: Component, _ledger: Ledger) -> Outcome:
        return self._answer(f"undo {self.name}", self.undoing)

    def _answer(self, asked: str, answer: Scripted) -> Outcome:
        self.asked.append(asked)
        if isinstance(answer, Exception):
            raise answer
        return answer


def noting(log: list[str], text: str) -> Callable[[], str]:
    def do() -> str:
        log.append(text)
        return "did"

    return do


AnyVerb = Fake | Cordon | Drain


def by_name(*verbs: AnyVerb) -> Verbs:
    return {verb.name: cast("Action", verb) for verb in verbs}


@dataclass
class Bench:
    """An executor on a journal of its own, with a clock, a cluster and a guard that can be told to speak."""

    journal: SqlJournal
    clock: VirtualClock
    cluster: SimulatedCluster
    verdict: Verdict | None = None
    permits: int = 0

    def look(self, run: Run, *verbs: AnyVerb) -> Run:
        """One look by a process that knows nothing but the journal, and what it leaves there."""
        executor = Executor(self.journal, by_name(*verbs), self._permit, self.clock)
        looked = executor.look(run, self.world())
        with self.journal.transaction() as write:
            write.save_run(looked)
        return self.journal.run(run.id)

    def looks(self, run: Run, *verbs: AnyVerb, most: int = 30, seconds: float = 5) -> Run:
        for _ in range(most):
            if run.state.ended:
                break
            run = self.look(run, *verbs)
            self.clock.advance(timedelta(seconds=seconds))
        return run

    def begin(self, *verbs: str, effects: tuple[Effect, ...] = (), **steps: OnFailure) -> Run:
        planned = tuple(
            PlannedStep(f"s{number}", use, {}, timedelta(minutes=10), steps.get(f"s{number}", OnFailure.UNDO))
            for number, use in enumerate(verbs)
        )
        run = run_of(plan_of(*planned, effects=effects))
        with self.journal.transaction() as write:
            write.save_incident(incident_of())
            write.add_run(run, ["node/n1"])
        return run

    def world(self) -> World:
        return World(self.clock.now(), None, self.cluster, None, 300.0)

    def _permit(self, run: Run) -> Verdict | None:
        assert run.id == "run-1"
        self.permits += 1
        return self.verdict


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    journal = SqlJournal(f"sqlite:///{tmp_path / 'journal.db'}")
    journal.lead("test", NOW, LEASE)
    clock = VirtualClock(NOW)
    yield Bench(journal, clock, SimulatedCluster({"n1": "r1", "n2": "r1"}, clock=clock, termination=SOON))
    journal.close()


# Outcomes


@pytest.mark.parametrize(
    ("outcome", "expected", "says"),
    [
        pytest.param(Done("well"), (RunState.RUNNING, 1, timedelta(0)), "", id="done"),
        pytest.param(RetryAfter(SOON, "not yet"), (RunState.RUNNING, 0, SOON), "not yet", id="retry after"),
        pytest.param(Unknown(SOON, "who knows"), (RunState.RUNNING, 0, SOON), "who knows", id="unknown"),
        pytest.param(Refused(NO), (RunState.RUNNING, 0, timedelta(seconds=5)), "held: budget", id="refused"),
        pytest.param(Failed("broken"), (RunState.UNDOING, 0, timedelta(0)), "broken", id="failed"),
        pytest.param(NotNow(SOON, "spent"), (RunState.RUNNING, 0, SOON), "spent", id="not now"),
        pytest.param(Unavailable("x", "gone"), (RunState.RUNNING, 0, timedelta(seconds=5)), "gone", id="unavailable"),
        pytest.param(Rejected("x", "no"), (RunState.UNDOING, 0, timedelta(0)), "no", id="rejected"),
        pytest.param(NotFound("x", "what"), (RunState.UNDOING, 0, timedelta(0)), "what", id="not found"),
        pytest.param(Conflict("x", "late"), (RunState.UNDOING, 0, timedelta(0)), "late", id="conflict"),
        pytest.param(ZeroDivisionError("1/0"), (RunState.RUNNING, 0, timedelta(seconds=5)), "unexpected", id="a bug"),
    ],
)
@pytest.mark.parametrize("part", ["running", "verifying"])
def test_every_outcome_has_its_transition(
    bench: Bench, part: str, outcome: Scripted, expected: tuple[RunState, int, timedelta], says: str
) -> None:
    fake = Fake()
    setattr(fake, part, outcome)
    run = bench.look(bench.begin("fake", "fake"), fake)
    assert (run.state, run.position, run.next_look_at - NOW) == expected
    assert says in run.detail


def test_a_step_is_done_only_when_it_was_verified_after_it_ran(bench: Bench) -> None:
    fake = Fake(verifying=RetryAfter(SOON, "not there yet"))
    run = bench.look(bench.begin("fake"), fake)
    assert fake.asked == ["run fake", "verify fake"]
    assert run.state is RunState.RUNNING
    fake.verifying = Done("there")
    run = bench.look(run, fake)
    assert (run.state, run.detail, run.ended_at) == (RunState.SUCCEEDED, "there", NOW)


def test_to_be_fenced_is_no_outcome_of_a_verb(bench: Bench) -> None:
    with pytest.raises(Fenced):
        bench.look(bench.begin("fake"), Fake(running=Fenced("another leads")))


def test_a_verb_that_this_release_does_not_have_ends_the_run(bench: Bench) -> None:
    run = bench.looks(bench.begin("gone"), Fake())
    assert run.state is RunState.FAILED
    assert "no verb gone" in run.cause


# What ends a run before its time


def test_the_deadline_of_the_plan_ends_the_run(bench: Bench) -> None:
    fake = Fake(running=RetryAfter(SOON, "3 workloads have not gone yet"))
    run = bench.begin("fake")
    bench.clock.advance(timedelta(hours=1, seconds=1))
    run = bench.look(run, fake)
    assert run.state is RunState.UNDOING
    assert fake.asked == []


def test_the_timeout_of_a_step_counts_from_the_step_s_start(bench: Bench) -> None:
    first, second = Fake("first"), Fake("second", running=RetryAfter(SOON, "one pod is left"))
    run = bench.begin("first", "second")
    bench.clock.advance(timedelta(minutes=9))
    run = bench.look(run, first, second)
    bench.clock.advance(timedelta(minutes=9))
    run = bench.look(run, first, second)
    assert run.state is RunState.RUNNING
    bench.clock.advance(timedelta(minutes=2))
    run = bench.look(run, first, second)
    assert run.state is RunState.UNDOING
    assert run.cause == "step s1 not finished within its timeout: one pod is left"


# A step that fails


def of_step(run: Run, number: int = 0, **changes: object) -> Run:
    """The run with another step in its place."""
    steps = list(run.plan.steps)
    steps[number] = replace(steps[number], **changes)  # type: ignore[arg-type]
    return replace(run, plan=replace(run.plan, steps=tuple(steps)))


def test_a_step_that_fails_is_tried_again_after_growing_waits_and_then_the_run_fails(bench: Bench) -> None:
    failing = Fake(running=Failed("no answer"))
    retry = Retry(times=3, wait=timedelta(seconds=10), factor=3.0, longest=timedelta(seconds=60))
    run = of_step(bench.begin("fake"), retry=retry)
    waits = []
    for _ in range(3):
        run = bench.look(run, failing)
        assert (run.state, run.position) == (RunState.RUNNING, 0)
        waits.append((run.next_look_at - bench.clock.now()).total_seconds())
        bench.clock.advance(run.next_look_at - bench.clock.now())
    assert waits == [10, 30, 60]
    assert run.detail == "s0 failed, attempt 4 of 4 follows: no answer"
    run = bench.looks(run, failing)
    assert (run.state, run.cause) == (RunState.FAILED, "no answer")
    assert failing.asked.count("run fake") == 4


def test_the_count_of_failures_begins_anew_with_each_step(bench: Bench) -> None:
    first, second = Fake("first", running=Failed("not yet")), Fake("second", running=Failed("nor this"))
    run = bench.begin("first", "second")
    run = of_step(of_step(run, retry=Retry(times=1)), 1, retry=Retry(times=1))
    run = bench.look(run, first, second)
    first.running = Done()
    run = bench.look(run, first, second)
    assert (run.position, run.failures) == (1, 0)
    assert bench.look(run, first, second).state is RunState.RUNNING


def test_what_an_earlier_step_has_lost_is_not_tried_again(bench: Bench) -> None:
    first, second = Fake("first"), Fake("second", running=RetryAfter(SOON, "goes on"))
    run = of_step(bench.begin("first", "second"), 1, retry=Retry(times=5))
    run = bench.looks(run, first, second, most=2)
    first.verifying = Failed("a person took it back")
    assert bench.look(run, first, second).state is RunState.UNDOING


def test_a_step_that_may_fail_is_gone_past_and_is_not_looked_at_again(bench: Bench) -> None:
    evidence, cordon = Fake("evidence", running=Failed("no dump"), verifying=Failed("no dump")), Fake("cordon")
    run = of_step(bench.begin("evidence", "cordon"), on_error=OnError.GO_ON)
    run = bench.look(run, evidence, cordon)
    assert (run.position, run.skipped) == (1, ("s0",))
    assert run.detail == "gone on without it: s0 failed: no dump"
    run = bench.looks(run, evidence, cordon)
    assert run.state is RunState.SUCCEEDED
    executor = Executor(bench.journal, by_name(evidence, cordon), lambda _run: None, bench.clock)
    assert isinstance(executor.still_holds(run, bench.world()), Done)


def test_a_step_that_may_fail_may_also_take_too_long(bench: Bench) -> None:
    slow, then = Fake("slow", running=RetryAfter(SOON, "still at it")), Fake("then")
    run = of_step(bench.begin("slow", "then"), on_error=OnError.GO_ON)
    run = bench.looks(run, slow, then, seconds=200)
    assert (run.state, run.skipped) == (RunState.SUCCEEDED, ("s0",))


def test_a_step_whose_effect_is_in_doubt_is_never_gone_past(bench: Bench) -> None:
    doubtful, then = Fake("doubtful", running=Unknown(SOON, "no answer")), Fake("then")
    run = of_step(bench.begin("doubtful", "then"), on_error=OnError.GO_ON)
    with bench.journal.transaction() as write:
        write.save_effect(EffectRecord(run.id, "s0", "reset/n1", EffectState.INTENT, NOW))
    run = bench.looks(run, doubtful, then, seconds=200)
    assert run.state is RunState.FAILED
    assert "run then" not in then.asked


def test_a_cancelled_run_undoes_everything_in_reverse_also_what_failure_would_keep(bench: Bench) -> None:
    log: list[str] = []
    first, second = Fake("first", asked=log), Fake("second", running=RetryAfter(SOON, ""), asked=log)
    run = bench.begin("first", "second", s0=OnFailure.KEEP)
    run = bench.look(bench.look(run, first, second), first, second)
    run = replace(run, cancelled_by="alice: not now")
    log.clear()
    executor = Executor(bench.journal, by_name(first, second), lambda _run: None, bench.clock)
    while not run.state.ended:
        run = executor.look(run, bench.world())
    assert log == ["undo second", "undo first"]
    assert run.state is RunState.CANCELLED
    assert "alice" in run.cause


def test_a_failure_undoes_in_reverse_and_keeps_what_the_playbook_keeps(bench: Bench) -> None:
    log: list[str] = []
    verbs = [Fake(name, asked=log) for name in ("a", "b", "c")]
    verbs[2].running = Failed("cannot be done")
    run = bench.looks(bench.begin("a", "b", "c", s0=OnFailure.KEEP), *verbs)
    assert [asked for asked in log if asked.startswith("undo")] == ["undo c", "undo b"]
    assert run.state is RunState.FAILED
    assert (run.cause, run.ended_at is not None) == ("cannot be done", True)


def test_an_undo_that_fails_is_told_and_the_steps_before_it_are_undone_all_the_same(bench: Bench) -> None:
    first, second = Fake("first"), Fake("second", running=Failed("broken"), undoing=Rejected("agent", "no"))
    run = bench.looks(bench.begin("first", "second"), first, second)
    assert run.state is RunState.FAILED
    assert run.cause == "broken; could not undo s1: agent: no"
    assert first.asked[-1] == "undo first"


@pytest.mark.parametrize("answer", [RetryAfter(SOON, "wait"), Unavailable("agent", "wait"), Refused(NO)])
def test_an_undo_that_cannot_be_had_now_is_tried_until_it_can(bench: Bench, answer: Scripted) -> None:
    fake = Fake(running=Failed("broken"), undoing=answer)
    run = bench.looks(bench.begin("fake"), fake, most=5)
    assert (run.state, run.position) == (RunState.UNDOING, 0)
    assert "undoing s0" in run.detail
    fake.undoing = Done()
    assert bench.looks(run, fake).state is RunState.FAILED


# Silences


def test_while_a_silence_holds_a_run_its_clock_stands_still(bench: Bench) -> None:
    fake = Fake(effects=("a",), running=RetryAfter(SOON, "one pod is left"))
    run = bench.begin("fake")
    bench.clock.advance(timedelta(minutes=9))
    bench.verdict = SILENCED
    run = bench.looks(run, fake, most=10, seconds=3600)
    assert (run.state, run.detail, fake.asked) == (RunState.RUNNING, f"held: {SILENCED}", [])
    bench.verdict = None
    run = bench.look(run, fake)
    assert (run.state, run.detail, run.held) == (RunState.RUNNING, "one pod is left", timedelta(hours=10))
    assert "do a" in fake.asked
    bench.clock.advance(timedelta(seconds=59))
    assert bench.look(run, fake).state is RunState.RUNNING
    bench.clock.advance(timedelta(seconds=2))
    assert bench.look(run, fake).cause == "step s0 not finished within its timeout: one pod is left"


def test_the_deadline_does_not_count_what_silences_have_taken(bench: Bench) -> None:
    first, second = Fake("first", effects=("a",)), Fake("second", running=RetryAfter(SOON, "waits"))
    run = bench.begin("first", "second")
    bench.verdict = SILENCED
    run = bench.looks(run, first, second, most=3, seconds=3600)
    bench.verdict = None
    run = bench.look(run, first, second)
    assert (run.position, run.held) == (1, timedelta(hours=3))
    bench.clock.advance(timedelta(minutes=9))
    assert bench.look(run, first, second).state is RunState.RUNNING


def test_another_guard_than_a_silence_does_not_stop_the_clock(bench: Bench) -> None:
    bench.verdict = NO
    fake = Fake(effects=("a",))
    run = bench.looks(bench.begin("fake"), fake, most=2, seconds=601)
    assert run.state is RunState.UNDOING


def test_a_run_that_is_out_of_time_is_not_undone_before_the_silence_ends(bench: Bench) -> None:
    fake = Fake(running=RetryAfter(SOON, "one pod is left"))
    run = bench.look(bench.begin("fake"), fake)
    bench.verdict = SILENCED
    run = bench.looks(run, fake, most=6, seconds=1800)
    assert run.state is RunState.RUNNING
    assert "undo fake" not in fake.asked
    bench.verdict = None
    run = bench.looks(run, fake)
    assert run.state is RunState.FAILED
    assert run.cause == "not finished within its deadline: one pod is left"


def test_a_run_that_a_person_has_paused_loses_no_time_whatever_its_step_says(bench: Bench) -> None:
    fake = Fake(running=RetryAfter(SOON, "one pod is left"))
    run = bench.look(bench.begin("fake"), fake)
    bench.journal.pause(run.id, Person("token:bob"), bench.clock.now(), "let me look")
    run = bench.looks(bench.journal.run(run.id), fake, most=5, seconds=1800)
    assert (run.state, run.detail) == (RunState.RUNNING, "one pod is left")
    bench.journal.resume(run.id, Person("token:bob"), bench.clock.now(), "all is well")
    run = bench.look(bench.journal.run(run.id), fake)
    assert (run.state, run.held) == (RunState.RUNNING, timedelta(seconds=9000))
    bench.clock.advance(timedelta(minutes=11))
    assert bench.look(run, fake).state is RunState.UNDOING


def test_a_silence_does_not_keep_a_person_from_cancelling(bench: Bench) -> None:
    bench.verdict = SILENCED
    fake = Fake(effects=("a",))
    run = bench.looks(bench.begin("fake"), fake, most=3)
    bench.journal.request_cancel(run.id, Person("token:bob"), bench.clock.now(), "not now")
    assert bench.looks(bench.journal.run(run.id), fake).state is RunState.CANCELLED


def test_an_effect_that_is_gone_ends_a_run_also_during_a_silence(bench: Bench) -> None:
    first, second = Fake("first"), Fake("second", effects=("b",))
    run = bench.look(bench.begin("first", "second"), first, second)
    bench.verdict = SILENCED
    run = bench.looks(run, first, second, most=3)
    first.verifying = Failed("a person uncordoned n1")
    assert bench.look(run, first, second).cause == "a person uncordoned n1"


# Earlier steps


def test_an_earlier_step_whose_effect_is_gone_ends_the_run_before_anything_else_is_done(bench: Bench) -> None:
    first, second = Fake("first"), Fake("second")
    run = bench.look(bench.begin("first", "second"), first, second)
    first.verifying = Failed("a person uncordoned n1")
    run = bench.look(run, first, second)
    assert (run.state, run.cause) == (RunState.UNDOING, "a person uncordoned n1")
    assert second.asked == []


def test_while_an_earlier_step_cannot_be_seen_nothing_more_is_done(bench: Bench) -> None:
    first, second = Fake("first"), Fake("second")
    run = bench.look(bench.begin("first", "second"), first, second)
    first.verifying = Unavailable("scheduler", "timed out")
    run = bench.look(run, first, second)
    assert (run.state, run.position) == (RunState.RUNNING, 1)
    assert second.asked == []
    first.verifying = Done()
    assert bench.look(run, first, second).state is RunState.SUCCEEDED


def test_an_earlier_step_that_is_merely_not_there_yet_lets_the_run_go_on(bench: Bench) -> None:
    first, second = Fake("first"), Fake("second")
    run = bench.look(bench.begin("first", "second"), first, second)
    first.verifying = RetryAfter(SOON, "the rack is over its budget again")
    assert bench.look(run, first, second).state is RunState.SUCCEEDED


# Effects


def test_the_guards_are_asked_before_each_effect_and_never_for_one_that_was_had(bench: Bench) -> None:
    fake = Fake(effects=("a", "b"), running=RetryAfter(SOON, ""))
    run = bench.look(bench.begin("fake"), fake)
    assert bench.permits == 2
    bench.look(run, fake)
    assert bench.permits == 2
    assert fake.asked.count("do a") == 1


def test_a_guard_that_speaks_leaves_neither_effect_nor_intent(bench: Bench) -> None:
    bench.verdict = NO
    fake = Fake(effects=("a",))
    run = bench.look(bench.begin("fake"), fake)
    assert run.detail == f"held: {NO}"
    assert fake.asked == []
    assert bench.journal.effects(run.id) == ()


def test_an_intent_is_in_the_journal_before_its_effect(bench: Bench) -> None:
    seen: list[EffectRecord] = []

    class Watching(Fake):
        def run(self, _arguments: Section, _target: Component, ledger: Ledger) -> Outcome:
            ledger.effect("a", do=look_into_the_journal, happened=lambda: False)
            return Done()

    def look_into_the_journal() -> str:
        seen.extend(bench.journal.effects("run-1"))
        return "did"

    bench.look(bench.begin("fake"), Watching())
    assert [(record.key, record.state) for record in seen] == [("a", EffectState.INTENT)]
    assert [record.state for record in bench.journal.effects("run-1")] == [EffectState.DONE]
    assert [entry.action for entry in bench.journal.audit_log()] == ["effect.intent", "effect.done"]


@pytest.mark.parametrize(
    ("happened", "done_again"), [pytest.param(True, 0, id="it happened"), pytest.param(False, 1, id="it did not")]
)
def test_an_intent_without_outcome_is_observed_before_it_is_repeated(
    bench: Bench, *, happened: bool, done_again: int
) -> None:
    run = bench.begin("fake")
    with bench.journal.transaction() as write:
        write.save_effect(EffectRecord(run.id, "s0", "a", EffectState.INTENT, NOW, found='{"limit_w": 650}'))
    did: list[str] = []

    class Interrupted(Fake):
        def run(self, _arguments: Section, _target: Component, ledger: Ledger) -> Outcome:
            ledger.effect("a", do=noting(did, "a"), happened=lambda: happened, found="{}")
            return Done()

    bench.look(run, Interrupted())
    assert len(did) == done_again
    (record,) = bench.journal.effects(run.id)
    assert (record.state, record.found) == (EffectState.DONE, '{"limit_w": 650}')


def test_an_effect_that_was_refused_is_known_not_to_have_happened_and_may_be_tried_anew(bench: Bench) -> None:
    spent = [True]

    class Stubborn(Fake):
        def run(self, _arguments: Section, _target: Component, ledger: Ledger) -> Outcome:
            ledger.effect("a", do=evict, happened=lambda: False)
            return Done()

    def evict() -> str:
        if spent.pop():
            raise NotNow(SOON, "a budget is spent")
        return "did"

    run = bench.look(bench.begin("fake"), Stubborn())
    assert [record.state for record in bench.journal.effects(run.id)] == [EffectState.FAILED]
    spent.append(False)
    run = bench.look(run, Stubborn())
    assert run.state is RunState.SUCCEEDED
    assert [record.state for record in bench.journal.effects(run.id)] == [EffectState.DONE]


# The verbs on nodes, through the executor

DRAIN = (Effect("cordon", "n1", takes_out="n1"), Effect("evict", "default/Job/train", takes_out="n1"))


@pytest.fixture
def draining(bench: Bench) -> Run:
    for _ in range(3):
        bench.cluster.add_workload("Job/train", node="n1", gpus=1)
    return bench.begin("node.cordon", "node.drain", effects=DRAIN)


VERBS: tuple[AnyVerb, ...] = (Cordon(), Drain())


def test_an_eviction_whose_answer_was_lost_is_looked_at_before_anything_else(bench: Bench, draining: Run) -> None:
    run = bench.look(draining, *VERBS)
    bench.cluster.lose_next_answer(Unavailable("scheduler", "connection reset"))
    run = bench.look(run, *VERBS)
    assert "connection reset" in run.detail
    assert [record.state for record in bench.journal.effects(run.id)] == [EffectState.DONE, EffectState.INTENT]
    run = bench.looks(run, *VERBS)
    assert run.state is RunState.SUCCEEDED
    evicted = [effect.workload for effect in bench.cluster.effects if effect.verb is Verb.EVICT]
    assert len(evicted) == len(set(evicted)) == 3
    assert {record.state for record in bench.journal.effects(run.id)} == {EffectState.DONE}


def test_a_cordon_whose_answer_was_lost_is_recognised(bench: Bench, draining: Run) -> None:
    bench.cluster.lose_next_answer(Unavailable("scheduler", "connection reset"))
    run = bench.look(draining, *VERBS)
    assert (run.state, run.position) == (RunState.RUNNING, 0)
    run = bench.look(run, *VERBS)
    assert run.position == 1
    (record,) = bench.journal.effects(run.id)
    assert record.detail == "observed after an interruption"


def test_a_person_s_uncordon_ends_the_run_and_nothing_they_did_is_undone(bench: Bench, draining: Run) -> None:
    run = bench.look(draining, *VERBS)
    bench.cluster.uncordon_by_person("n1")
    run = bench.looks(run, *VERBS)
    assert run.state is RunState.FAILED
    assert [effect.verb for effect in bench.cluster.effects] == [Verb.CORDON]
    assert not bench.cluster.node("n1").cordoned


def test_a_node_that_a_person_has_taken_over_meanwhile_stays_theirs(bench: Bench, draining: Run) -> None:
    run = bench.look(draining, *VERBS)
    bench.cluster.uncordon_by_person("n1")
    bench.cluster.cordon_by_person("n1")
    run = bench.looks(run, *VERBS)
    assert run.state is RunState.FAILED
    seen = bench.cluster.node("n1")
    assert (seen.cordoned, seen.cordoned_by) == (True, None)


def test_an_uncordon_whose_answer_was_lost_is_not_mistaken_for_a_person_s(bench: Bench, draining: Run) -> None:
    run = replace(bench.look(draining, *VERBS), state=RunState.UNDOING, position=0, cause="broken")
    bench.cluster.lose_next_answer(Unavailable("scheduler", "connection reset"))
    run = bench.looks(run, *VERBS)
    assert run.state is RunState.FAILED
    assert not bench.cluster.node("n1").cordoned
    assert [record.state for record in bench.journal.effects(run.id)] == [EffectState.UNDONE]
