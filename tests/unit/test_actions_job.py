"""The verb on jobs: all of a job's pods go and as many come again, or nothing of it is touched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from healer.actions.job import RestartJob
from healer.adapters.simulated_cluster import SimulatedCluster, Verb
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import Gang, GangEnd
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectRecord, EffectState, Failed, Outcome, RetryAfter
from healer.domain.verdict import Guard, Verdict
from healer.errors import HealerError, NotFound, Unavailable
from healer.rehearsal.virtual import VirtualClock
from healer.verb import GuardSpoke, Unresolved, World
from tests.journal_samples import NODE, NOW, Notes, plan_of, run_of

RESTART, ARGUMENTS = RestartJob(), RestartJob.Arguments()
NAME = "default/Job/train"
JOB = Component(ComponentKind.JOB, job=NAME)
SILENT = Verdict(Guard.FRESHNESS, "there is no current telemetry of the component", "its telemetry is back")


@dataclass
class Bench:
    clock: VirtualClock
    cluster: EndingCluster
    notes: Notes

    def world(self) -> World:
        return World(self.clock.now(), None, self.cluster, None, 300.0)

    def run(self) -> Outcome:
        return RESTART.run(ARGUMENTS, JOB, self.notes.ledger(self.world()))

    def verify(self) -> Outcome:
        return RESTART.verify(ARGUMENTS, JOB, self.notes.ledger(self.world()))

    def undo(self) -> Outcome:
        return RESTART.undo(ARGUMENTS, JOB, self.notes.ledger(self.world()))

    def blockers(self, job: str = NAME) -> tuple[str, ...]:
        return RESTART.plan(ARGUMENTS, Component(ComponentKind.JOB, job=job), self.world()).blockers

    def after(self, seconds: float) -> Outcome:
        self.clock.advance(timedelta(seconds=seconds))
        return self.run()

    def did(self) -> list[str]:
        return [str(effect.verb) for effect in self.cluster.effects]


class EndingCluster(SimulatedCluster):
    """Attributes:
    end: how the job is said to have ended.
    deleted: whether it is there no more.
    """

    end: GangEnd | None = None
    deleted = False

    def job(self, name: str) -> Gang:
        if self.deleted:
            raise NotFound("simulated cluster", f"there is no job {name}")
        return replace(super().job(name), end=self.end)


@pytest.fixture
def bench() -> Bench:
    """A job of two pods on two nodes, and another job beside it."""
    clock = VirtualClock(NOW)
    cluster = EndingCluster({"n1": "r1", "n2": "r1"}, clock=clock, termination=timedelta(seconds=30))
    for node in ("n1", "n2"):
        cluster.add_workload("Job/train", node=node, gpus=4)
    cluster.add_workload("Job/other", node="n1", gpus=1)
    return Bench(clock, cluster, Notes(run_of(plan_of(target=JOB))))


# What is planned


def test_the_plan_names_the_job_and_says_which_pods_lose_their_work(bench: Bench) -> None:
    proposal = RESTART.plan(ARGUMENTS, JOB, bench.world())
    lost = "train-1, train-2 on n1, n2; loses its work since the last checkpoint"
    assert proposal.effects == (Effect("restart", NAME, lost, interrupts=True),)
    assert proposal.blockers == ()


def test_of_many_pods_the_plan_names_the_first_few(bench: Bench) -> None:
    for _ in range(10):
        bench.cluster.add_workload("Job/train", node="n1")
    (effect,) = RESTART.plan(ARGUMENTS, JOB, bench.world()).effects
    assert " and 4 more on n1, n2; " in effect.detail


@pytest.mark.parametrize(
    ("owner", "says"),
    [
        ("Pod/notebook", "default/Pod/notebook cannot be restarted whole: no controller would make it again"),
        ("Deployment/web", "default/Deployment/web cannot be restarted whole: a Deployment cannot be suspended"),
    ],
)
def test_what_cannot_be_restarted_whole_is_not_planned_for(bench: Bench, owner: str, says: str) -> None:
    bench.cluster.add_workload(owner, node="n1")
    assert bench.blockers(f"default/{owner}") == (says,)


def test_a_job_that_a_person_or_another_run_has_suspended_is_not_planned_for(bench: Bench) -> None:
    bench.cluster.suspend_by_person(NAME)
    assert bench.blockers() == (f"{NAME} is already suspended by a person",)
    bench.cluster.resume_by_person(NAME)
    bench.cluster.suspend(NAME, by="run-9", reason="")
    assert bench.blockers() == (f"{NAME} is already suspended by run-9",)


def test_a_job_that_waits_for_room_is_not_planned_for(bench: Bench) -> None:
    bench.cluster.add_workload("Job/huge", gpus=9)
    assert bench.blockers("default/Job/huge") == ("no pod of default/Job/huge runs",)


def test_a_job_that_is_not_there_or_a_target_that_is_none_is_said(bench: Bench) -> None:
    with pytest.raises(NotFound, match="there is no job default/Job/nobody"):
        bench.blockers("default/Job/nobody")
    with pytest.raises(NotFound, match="names no job"):
        RESTART.plan(ARGUMENTS, NODE, bench.world())


# What is done


def test_all_pods_go_before_the_first_comes_again_and_as_many_run_afterwards(bench: Bench) -> None:
    assert bench.run() == RetryAfter(timedelta(seconds=5), f"{NAME} was suspended")
    assert bench.cluster.job(NAME).suspended_by == "run-1"
    assert bench.after(29) == RetryAfter(timedelta(seconds=5), f"2 pods of {NAME} have not gone yet: train-1 is on n1")
    assert bench.did() == ["suspend"]
    assert bench.after(1) == RetryAfter(timedelta(seconds=5), f"{NAME} was resumed")
    assert bench.after(5) == Done(f"2 pods of {NAME} run again")
    assert bench.verify() == Done(f"2 pods of {NAME} run again")
    assert bench.did() == ["suspend", "resume"]
    assert {pod.name for pod in bench.cluster.job(NAME).pods}.isdisjoint({"train-1", "train-2"})
    assert bench.cluster.job("default/Job/other").running == 1


def test_the_suspension_says_on_the_job_why_and_whose_it_is(bench: Bench) -> None:
    bench.run()
    (effect,) = bench.cluster.effects
    assert (effect.verb, effect.of, effect.by) == (Verb.SUSPEND, NAME, "run-1")
    assert effect.reason == "healer restarts it: an uncorrectable memory error"


def test_it_is_not_done_before_as_many_pods_run_as_before(bench: Bench) -> None:
    bench.run()
    bench.cluster.cordon_by_person("n2")
    bench.cluster.add_workload("Job/greedy", node="n1", gpus=3)
    bench.after(30)
    assert bench.after(5) == RetryAfter(timedelta(seconds=5), f"1 of 2 pods of {NAME} run again")
    bench.cluster.uncordon_by_person("n2")
    assert bench.after(5) == Done(f"2 pods of {NAME} run again")


def test_a_guard_holds_the_suspension(bench: Bench) -> None:
    bench.notes.verdict = SILENT
    with pytest.raises(GuardSpoke):
        bench.run()
    assert (bench.did(), bench.notes.records) == ([], [])


def test_no_guard_holds_the_resumption_for_a_suspended_job_shows_no_telemetry(bench: Bench) -> None:
    bench.run()
    bench.notes.verdict = SILENT
    bench.after(30)
    assert bench.after(5) == Done(f"2 pods of {NAME} run again")


@pytest.mark.parametrize("change", ["suspend", "resume"])
@pytest.mark.parametrize("happened", [True, False], ids=["and it happened", "and it did not"])
def test_an_answer_that_was_lost_is_observed_and_nothing_is_done_twice(
    bench: Bench, change: str, *, happened: bool
) -> None:
    lost = Unavailable("simulated cluster", "the answer was lost")
    if change == "resume":
        bench.run()
        bench.clock.advance(timedelta(seconds=30))
    if happened:
        bench.cluster.lose_next_answer(lost)
    else:
        bench.notes.dies_before = lambda record: _fails(bench, record, change, lost)
    with pytest.raises(Unresolved):
        bench.run()
    bench.notes.dies_before = lambda _record: None
    assert [bench.after(30) for _ in range(4)][-1] == Done(f"2 pods of {NAME} run again")
    assert bench.did() == ["suspend", "resume"]


def _fails(bench: Bench, record: EffectRecord, change: str, error: HealerError) -> None:
    """The change itself, and not what is asked before it."""
    if record.key.startswith(change) and record.state is EffectState.INTENT:
        bench.cluster.fail_next(error)


# What people, and the job, do meanwhile


def test_a_person_who_is_quicker_keeps_the_job(bench: Bench) -> None:
    bench.cluster.suspend_by_person(NAME)
    assert bench.run() == Failed(f"{NAME} is already suspended by a person", by_person=True)
    bench.undo()
    assert bench.cluster.job(NAME).suspended
    assert bench.did() == []


def test_a_person_who_resumes_it_ends_the_run(bench: Bench) -> None:
    bench.run()
    bench.cluster.resume_by_person(NAME)
    assert bench.after(5) == Failed(f"a person resumed {NAME}: their decision stands", by_person=True)


def test_a_person_who_takes_the_suspension_over_keeps_it(bench: Bench) -> None:
    bench.run()
    bench.cluster.resume_by_person(NAME)
    bench.cluster.suspend_by_person(NAME)
    taken = Failed(f"{NAME} is suspended by a person: their decision stands", by_person=True)
    assert bench.after(5) == taken
    bench.undo()
    assert bench.cluster.job(NAME).suspended
    assert "left as it is" in bench.notes.records[0].detail


def test_a_person_who_suspends_it_afterwards_ends_the_run(bench: Bench) -> None:
    bench.run()
    bench.after(30)
    bench.cluster.suspend_by_person(NAME)
    assert bench.after(5) == Failed(f"{NAME} is suspended by a person: their decision stands", by_person=True)


def test_a_job_that_ends_by_itself_before_it_is_suspended_was_not_restarted(bench: Bench) -> None:
    for node in ("n1", "n2"):
        bench.cluster.finish_work(node)
    assert bench.run() == Failed(f"{NAME} has gone: nothing was restarted")


@pytest.mark.parametrize("end", GangEnd)
def test_a_job_that_has_ended_is_neither_planned_for_nor_touched(bench: Bench, end: GangEnd) -> None:
    bench.cluster.end = end
    assert bench.blockers() == (f"{NAME} has ended: it is {end}",)
    assert bench.run() == Failed(f"{NAME} has ended: it is {end}")
    assert bench.did() == []


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (GangEnd.COMPLETE, Done(f"{NAME} is complete")),
        (GangEnd.FAILED, Failed(f"{NAME} was restarted, and has failed since")),
    ],
)
def test_what_becomes_of_a_job_that_ends_soon_after_it_was_restarted(
    bench: Bench, end: GangEnd, outcome: Outcome
) -> None:
    bench.run()
    bench.after(30)
    bench.cluster.end = end
    assert bench.after(5) == outcome


def test_a_job_that_a_person_deletes_while_it_is_suspended_stays_deleted(bench: Bench) -> None:
    bench.run()
    bench.cluster.deleted = True
    assert bench.after(5) == Failed(f"{NAME} was deleted while it was suspended", by_person=True)


def test_a_job_that_is_gone_after_it_ran_again_was_restarted(bench: Bench) -> None:
    bench.run()
    bench.after(30)
    assert isinstance(bench.after(5), Done)
    for node in ("n1", "n2"):
        bench.cluster.finish_work(node)
    assert bench.verify() == Done(f"{NAME} ran again, and has gone since")


def test_a_job_that_is_gone_before_it_was_seen_to_run_again_is_no_success(bench: Bench) -> None:
    bench.run()
    bench.after(30)
    for node in ("n1", "n2"):
        bench.cluster.finish_work(node)
    assert bench.run() == Failed(f"{NAME} was resumed, and has gone before all its pods ran")


# What is taken back


def test_an_undo_resumes_what_this_run_suspended(bench: Bench) -> None:
    bench.run()
    assert bench.undo() == Done(f"{NAME} is not suspended by this run")
    assert not bench.cluster.job(NAME).suspended
    assert [record.state for record in bench.notes.records] == [EffectState.UNDONE]
    bench.clock.advance(timedelta(seconds=30))
    assert bench.cluster.job(NAME).running == 2


def test_a_restart_that_has_happened_is_not_taken_back(bench: Bench) -> None:
    bench.run()
    bench.after(30)
    assert bench.undo() == Done(f"{NAME} was restarted, and that cannot be taken back")
    assert bench.did() == ["suspend", "resume"]


def test_an_undo_leaves_a_job_that_this_run_has_not_touched(bench: Bench) -> None:
    assert bench.undo() == Done(f"{NAME} is not suspended by this run")
    assert bench.did() == []
