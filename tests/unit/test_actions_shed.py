"""The verbs that take load off a rack: no more jobs than the meter asks for, each back when there is room for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.actions.shed import Readmit, Shed
from healer.adapters.simulated_cluster import SimulatedCluster
from healer.domain.component import Component, ComponentKind
from healer.domain.frame import Frame
from healer.domain.run import Done, EffectRecord, EffectState, Failed, Outcome, RetryAfter
from healer.domain.verdict import Guard, Verdict
from healer.errors import NoMeans, NotFound, Unavailable
from healer.rehearsal.virtual import ClusterJobs, FleetTelemetry, VirtualClock
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import SimulatedFleet
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from healer.verb import GuardSpoke, Proposal, Unresolved, World
from tests.journal_samples import NOW, Notes, plan_of, run_of

RACK = Component(ComponentKind.RACK, rack="rack-1")
SHED, READMIT = Shed(), Readmit()
SHEDDING = Shed.Arguments()
READMITTING = Readmit.Arguments(share_of_budget=1.0, lasting=timedelta(seconds=30))
SURGING_W = 5100.0  # of the rack below, about
PRETRAIN, SWEEP, NOTEBOOK = (f"default/Job/{name}" for name in ("pretrain", "sweep", "notebook"))


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Bench:
    """A rack of 3 nodes of 2 GPUs whose load surges, with three jobs of one node each; another rack beside it."""

    budget_w: float = 4000.0
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(NOW))
    jobs: tuple[tuple[str, str, int], ...] = (
        ("Job/pretrain", "gpu-001", 100),
        ("Job/sweep", "gpu-002", 0),
        ("Job/notebook", "gpu-003", -1),
    )

    def __post_init__(self) -> None:
        self.fleet = SimulatedFleet(racks=2, nodes=6, gpus=2, seed=3)
        layout = self.fleet.layout
        self.cluster = SimulatedCluster(
            {node: layout.rack_of(node) for node in layout.nodes},
            clock=self.clock,
            termination=timedelta(seconds=10),
            gpus_per_node=2,
        )
        for owner, node, priority in self.jobs:
            self.cluster.add_workload(owner, node=node, gpus=2, priority=priority)
        self.telemetry = FleetTelemetry(self.fleet)
        self.topology = ClusterJobs(self.cluster)
        self.window = Window(TopologyRules(rack_budget_w={"default": self.budget_w}))
        self.frame: Frame | None = None
        self.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1"))
        self.let_pass(30)
        self.notes = Notes(run_of(plan_of(target=RACK)))
        self.approve()

    def let_pass(self, seconds: float) -> None:
        """Time passes, the GPUs of a node without work idle, and all of it is observed each 5 s."""
        for _ in range(int(seconds / 5)):
            self.clock.advance(timedelta(seconds=5))
            for node in ("gpu-001", "gpu-002", "gpu-003"):
                self.fleet.set_idle(node, idle=not self.cluster.gpus_in_use(node))
            self.fleet.advance(5)
            now = self.clock.now()
            self.frame = self.window.add(self.telemetry.read(now), self.topology.topology(now))
        self.clock.advance(timedelta(milliseconds=1))

    def world(self) -> World:
        return World(self.clock.now(), self.frame, self.cluster, None, 300.0)

    def plan(self) -> Proposal:
        return SHED.plan(SHEDDING, RACK, self.world())

    def approve(self) -> None:
        """The run may do what would be planned now."""
        try:
            effects = self.plan().effects
        except (NoMeans, Unavailable):
            effects = ()
        self.notes.run = replace(self.notes.run, plan=replace(self.notes.run.plan, effects=effects))

    def shed(self) -> Outcome:
        return SHED.run(SHEDDING, RACK, self.notes.ledger(self.world(), "shed"))

    def readmit(self) -> Outcome:
        return READMIT.run(READMITTING, RACK, self.notes.ledger(self.world(), "readmit"))

    def until(self, verb: str, *, looks: int = 60, seconds: float = 5) -> Outcome:
        """The last of the looks of a step, as the interpreter has them: until it is not to be looked at again."""
        outcome: Outcome = Failed("never looked")
        for _ in range(looks):
            outcome = self.shed() if verb == "shed" else self.readmit()
            if not isinstance(outcome, RetryAfter):
                break
            self.let_pass(seconds)
        return outcome

    def undo(self) -> Outcome:
        return SHED.undo(SHEDDING, RACK, self.notes.ledger(self.world(), "shed"))

    def did(self) -> list[str]:
        return [f"{effect.verb} {effect.of}" for effect in self.cluster.effects]

    def calm(self) -> None:
        """Half of the rack's load is gone: the node of one job idles, whatever it has."""
        self.cluster.finish_work("gpu-001")

    def record(self, key: str) -> EffectRecord:
        (record,) = (each for each in self.notes.records if each.key == key)
        return record


@pytest.fixture
def bench() -> Bench:
    return Bench()


# What is planned


def test_the_plan_names_the_least_important_jobs_first_and_says_what_they_draw(bench: Bench) -> None:
    first, second, third = bench.plan().effects
    assert [effect.target for effect in (first, second, third)] == [NOTEBOOK, SWEEP, PRETRAIN]
    assert all(effect.verb == "suspend" and effect.interrupts for effect in (first, second, third))
    assert first.detail.endswith(
        "W on 2 GPUs in the rack; notebook-3 on gpu-003; loses its work since the last checkpoint"
    )
    assert third.detail.startswith("only if that is not enough: ")


def test_what_one_important_job_draws_is_not_taken_from_it_if_the_others_do() -> None:
    bench = Bench(budget_w=SURGING_W - 100)
    details = [effect.detail for effect in bench.plan().effects]
    assert [detail.startswith("only if") for detail in details] == [False, True, True]


def test_of_equal_jobs_the_one_that_stops_the_fewest_gpus_elsewhere_goes_first() -> None:
    bench = Bench(jobs=(("Job/wide", "gpu-001", 0), ("Job/narrow", "gpu-002", 0), ("Job/wide", "gpu-004", 0)))
    assert [effect.target for effect in bench.plan().effects] == ["default/Job/narrow", "default/Job/wide"]
    assert " and 2 elsewhere; wide-1, wide-3 on gpu-001, gpu-004" in bench.plan().effects[1].detail


def test_a_small_job_is_spared_if_the_big_one_that_has_to_go_is_enough() -> None:
    bench = Bench(budget_w=SURGING_W - 900)
    bench.cluster.finish_work("gpu-003")
    bench.cluster.add_workload("Job/tiny", node="gpu-003", gpus=1, priority=-5)
    bench.let_pass(30)
    needed = [effect.target for effect in bench.plan().effects if not effect.detail.startswith("only if")]
    assert needed == [SWEEP]


def test_a_rack_within_its_budget_needs_nothing() -> None:
    assert Bench(budget_w=9000.0).plan() == Proposal()


def test_jobs_that_cannot_be_suspended_are_left_alone_and_the_approver_is_told() -> None:
    bench = Bench(jobs=(("Deployment/serve", "gpu-001", 0), ("Job/sweep", "gpu-002", 0)))
    bench.cluster.add_workload("Pod/shell", node="gpu-003", gpus=2)
    bench.let_pass(5)
    proposal = bench.plan()
    assert [effect.target for effect in proposal.effects] == [SWEEP]
    serve, shell = proposal.impediments[:2]
    assert serve.startswith("default/Deployment/serve is left alone: ")
    assert shell.startswith("default/Pod/shell is left alone: ")


def test_the_approver_is_told_if_all_of_them_are_not_enough() -> None:
    bench = Bench(budget_w=500.0)
    (short,) = bench.plan().impediments
    assert short.startswith("even without them the rack may draw ")
    assert short.endswith(" W of 500 W")


def test_where_nothing_can_be_suspended_another_remedy_is_needed() -> None:
    bench = Bench(budget_w=2000.0, jobs=(("Deployment/serve", "gpu-001", 0),))
    with pytest.raises(NoMeans, match="no job in it can be suspended; default/Deployment/serve is left alone"):
        bench.plan()


def test_what_a_job_draws_is_not_guessed(bench: Bench) -> None:
    bench.telemetry.silent.add("gpu-003")
    bench.let_pass(5)
    proposal = bench.plan()
    assert [effect.target for effect in proposal.effects] == [SWEEP, PRETRAIN]
    assert proposal.impediments[0] == f"{NOTEBOOK} is left alone: what it draws is unknown"


def test_without_a_meter_nothing_is_planned(bench: Bench) -> None:
    bench.telemetry.metered = False
    bench.let_pass(10)
    with pytest.raises(Unavailable, match="its meter gives no current power"):
        bench.plan()


def test_a_job_that_the_scheduler_does_not_know_is_left_alone(bench: Bench) -> None:
    assert bench.frame is not None
    told = bench.topology.topology(NOW)
    strange = replace(told, gpu_jobs={slot: job.replace("default/Job/", "") for slot, job in told.gpu_jobs.items()})
    bench.frame = bench.window.add(bench.telemetry.read(bench.clock.now()), strange)
    with pytest.raises(NoMeans, match="notebook is left alone: there is no job notebook"):
        bench.plan()


# power.shed


def test_jobs_go_one_after_the_other_until_the_meter_is_content(bench: Bench) -> None:
    outcome = bench.until("shed")
    assert isinstance(outcome, Done), outcome
    assert bench.did() == [f"suspend {NOTEBOOK}"]
    assert outcome.detail.endswith(f" W of 4000 W, without {NOTEBOOK}")
    assert bench.fleet.rack_power_w()["rack-1"] <= 4000
    assert isinstance(SHED.verify(SHEDDING, RACK, bench.notes.ledger(bench.world(), "shed")), Done)


def test_the_next_one_goes_only_after_the_meter_has_measured_without_the_last_one() -> None:
    bench = Bench(budget_w=3000.0)
    waits = []
    for _ in range(6):
        outcome = bench.shed()
        assert isinstance(outcome, RetryAfter)
        waits.append(outcome.detail)
        bench.let_pass(5)
    assert waits[0] == f"{NOTEBOOK} was suspended; waiting for its pods to go"
    assert waits[1].startswith(f"1 pod of {NOTEBOOK} have not gone yet")
    assert waits[2] == f"{NOTEBOOK}: its pods have gone; waiting for the rack's meter"
    assert waits[3] == "waiting for the rack's meter"
    assert waits[4] == f"{SWEEP} was suspended; waiting for its pods to go"
    assert isinstance(bench.until("shed"), Done)
    assert bench.did() == [f"suspend {NOTEBOOK}", f"suspend {SWEEP}"]


def test_a_load_that_has_fallen_by_itself_costs_no_job(bench: Bench) -> None:
    bench.calm()
    bench.let_pass(30)
    assert isinstance(bench.until("shed"), Done)
    assert bench.did() == []


def test_no_job_goes_that_nobody_has_approved() -> None:
    bench = Bench(budget_w=3000.0)
    notebook = bench.notes.run.plan.effects[0]
    bench.notes.run = replace(bench.notes.run, plan=replace(bench.notes.run.plan, effects=(notebook,)))
    outcome = bench.until("shed")
    assert isinstance(outcome, Failed)
    assert "are still over the budget of 3000 W, and no job is left that may be suspended" in outcome.detail
    assert outcome.detail.endswith(f", without {NOTEBOOK}")
    assert bench.did() == [f"suspend {NOTEBOOK}"]


def test_a_job_that_a_person_has_suspended_or_that_has_gone_is_passed_over() -> None:
    bench = Bench(budget_w=3000.0)
    bench.cluster.finish_work("gpu-003")
    bench.cluster.suspend_by_person(SWEEP)
    outcome = bench.shed()
    assert outcome == RetryAfter(timedelta(seconds=5), f"{PRETRAIN} was suspended; waiting for its pods to go")


def test_who_is_quicker_than_healer_is_left_alone_and_the_next_one_goes(bench: Bench) -> None:
    suspend = bench.cluster.suspend

    def beaten(job: str, *, by: str, reason: str) -> None:
        if job == NOTEBOOK:
            bench.cluster.suspend_by_person(job)
        suspend(job, by=by, reason=reason)

    bench.cluster.suspend = beaten  # type: ignore[method-assign]
    assert isinstance(bench.shed(), RetryAfter)
    assert bench.did() == [f"suspend {SWEEP}"]
    assert bench.record(f"suspend/{NOTEBOOK}").state is EffectState.FAILED


def test_a_job_whose_draw_is_unknown_now_waits_until_it_is_known(bench: Bench) -> None:
    bench.telemetry.silent |= {"gpu-001", "gpu-002", "gpu-003"}
    bench.let_pass(5)
    outcome = bench.shed()
    assert isinstance(outcome, RetryAfter)
    assert outcome.detail.endswith("over the budget of 4000 W, and what the jobs draw is unknown")
    assert bench.did() == []


def test_without_a_meter_nothing_more_goes(bench: Bench) -> None:
    bench.telemetry.metered = False
    bench.let_pass(10)
    assert bench.shed() == RetryAfter(timedelta(seconds=5), "waiting for the rack's meter")
    verified = SHED.verify(SHEDDING, RACK, bench.notes.ledger(bench.world(), "shed"))
    assert isinstance(verified, RetryAfter)
    assert bench.did() == []


def test_a_guard_is_asked_before_each_job(bench: Bench) -> None:
    bench.notes.verdict = Verdict(Guard.PAUSE, "paused by alice", "a person resumes it")
    with pytest.raises(GuardSpoke):
        bench.shed()
    assert bench.did() == []


def test_a_suspension_whose_answer_was_lost_is_seen_and_not_repeated(bench: Bench) -> None:
    bench.cluster.lose_next_answer(Unavailable("the network", "the answer was lost"))
    with pytest.raises(Unresolved):
        bench.shed()
    assert isinstance(bench.until("shed"), Done)
    assert bench.did() == [f"suspend {NOTEBOOK}"]
    assert bench.record(f"suspend/{NOTEBOOK}").state is EffectState.DONE


def test_a_suspension_that_did_not_happen_is_not_made_up_for_if_it_is_not_needed_any_more(bench: Bench) -> None:
    def dies(record: EffectRecord) -> None:
        if record.state is EffectState.DONE:
            raise Killed

    def nothing(*_: object, **__: object) -> None:
        """The request never arrives."""

    suspend, bench.notes.dies_before = bench.cluster.suspend, dies
    bench.cluster.suspend = nothing  # type: ignore[method-assign]
    with pytest.raises(Killed):
        bench.shed()
    bench.cluster.suspend, bench.notes.dies_before = suspend, lambda _: None  # type: ignore[method-assign]
    bench.calm()
    bench.let_pass(30)
    assert isinstance(bench.until("shed"), Done)
    assert bench.did() == []
    assert bench.record(f"suspend/{NOTEBOOK}").state is EffectState.FAILED


def test_a_suspension_that_arrives_late_is_seen_after_all(bench: Bench) -> None:
    arrives: list[tuple[str, str, str]] = []
    suspend = bench.cluster.suspend

    def late(job: str, *, by: str, reason: str) -> None:
        arrives.append((job, by, reason))
        raise Unavailable("the network", "the answer was lost")

    bench.cluster.suspend = late  # type: ignore[method-assign]
    with pytest.raises(Unresolved):
        bench.shed()
    assert isinstance(bench.shed(), RetryAfter)
    assert bench.record(f"suspend/{NOTEBOOK}").state is EffectState.FAILED
    bench.cluster.suspend = suspend  # type: ignore[method-assign]
    suspend(arrives[0][0], by=arrives[0][1], reason=arrives[0][2])
    assert isinstance(bench.until("shed"), Done)
    assert bench.record(f"suspend/{NOTEBOOK}").state is EffectState.DONE
    assert bench.did() == [f"suspend {NOTEBOOK}"]


def test_undone_every_job_that_was_suspended_runs_again_and_no_other() -> None:
    bench = Bench(budget_w=3000.0)
    bench.until("shed")
    bench.cluster.resume_by_person(SWEEP)
    bench.cluster.suspend_by_person(PRETRAIN)
    assert bench.undo() == Done("no job is suspended by this run")
    assert bench.did()[2:] == [f"resume {NOTEBOOK}"]
    assert bench.cluster.job(PRETRAIN).suspended
    assert bench.record(f"suspend/{SWEEP}").detail.startswith("left as it is: ")


# power.readmit


@pytest.fixture
def shed() -> Bench:
    """Two of the three jobs are suspended."""
    bench = Bench(budget_w=3000.0)
    assert isinstance(bench.until("shed"), Done)
    assert bench.did() == [f"suspend {NOTEBOOK}", f"suspend {SWEEP}"]
    return bench


def test_no_job_comes_back_while_there_is_no_room_for_what_it_drew(shed: Bench) -> None:
    shed.let_pass(60)
    outcome = shed.until("readmit", looks=20)
    assert isinstance(outcome, RetryAfter)
    assert outcome.detail.startswith(f"{SWEEP}, {NOTEBOOK} suspended; with {SWEEP} the rack would draw ")
    assert outcome.detail.endswith(" W, and may 3000 W")


def test_the_last_one_comes_back_first_and_the_next_when_it_is_known_what_that_one_draws(shed: Bench) -> None:
    shed.calm()
    shed.let_pass(60)
    assert shed.readmit() == RetryAfter(timedelta(seconds=5), f"{SWEEP} was resumed")
    assert shed.did()[2:] == [f"resume {SWEEP}"]
    outcome = shed.until("readmit", looks=20)
    assert isinstance(outcome, RetryAfter)
    assert outcome.detail.startswith(f"{NOTEBOOK} suspended; with {NOTEBOOK} the rack would draw ")
    assert shed.did()[2:] == [f"resume {SWEEP}"]


def test_it_ends_when_all_are_back_and_draw(shed: Bench) -> None:
    shed.calm()
    shed.let_pass(60)
    assert isinstance(shed.readmit(), RetryAfter)
    shed.cluster.resume_by_person(NOTEBOOK)
    waits = shed.readmit()
    assert waits == RetryAfter(timedelta(seconds=5), "every job was resumed; waiting for what they draw")
    shed.cluster.finish_work("gpu-003")
    assert shed.until("readmit") == Done("no job is suspended by this run any more")
    verified = READMIT.verify(READMITTING, RACK, shed.notes.ledger(shed.world(), "readmit"))
    assert isinstance(verified, Done)
    assert shed.did()[2:] == [f"resume {SWEEP}"]


def test_where_nothing_was_suspended_there_is_nothing_to_wait_for(bench: Bench) -> None:
    assert bench.readmit() == Done("no job is suspended by this run any more")


def test_a_rack_that_is_over_its_budget_again_is_not_waited_with(shed: Bench) -> None:
    shed.cluster.resume_by_person(SWEEP)
    shed.cluster.resume_by_person(NOTEBOOK)
    shed.cluster.suspend(NOTEBOOK, by=shed.notes.run.id, reason="")
    shed.let_pass(90)
    outcome = shed.readmit()
    assert outcome == Failed(f"the rack is over its budget of 3000 W again, without {NOTEBOOK}")


def test_while_the_meter_is_not_seen_nothing_comes_back(shed: Bench) -> None:
    shed.calm()
    shed.let_pass(60)
    shed.telemetry.metered = False
    shed.let_pass(5)
    outcome = shed.readmit()
    assert isinstance(outcome, RetryAfter)
    assert outcome.detail.endswith("waiting for what the rack draws now")


def test_a_resumption_whose_answer_was_lost_is_seen_and_not_repeated(shed: Bench) -> None:
    shed.calm()
    shed.let_pass(60)
    shed.cluster.lose_next_answer(Unavailable("the network", "the answer was lost"))
    with pytest.raises(Unresolved):
        shed.readmit()
    shed.readmit()
    assert shed.record(f"resume/{SWEEP}").state is EffectState.DONE
    assert shed.did()[2:] == [f"resume {SWEEP}"]


def test_a_resumption_that_did_not_happen_is_decided_anew(shed: Bench) -> None:
    shed.calm()
    shed.let_pass(60)
    shed.cluster.fail_next(Unavailable("the network", "is down"))
    resume = shed.cluster.resume

    def lost(job: str, *, by: str) -> None:  # noqa: ARG001
        raise Unavailable("the network", "is down")

    shed.cluster.resume = lost  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        shed.readmit()
    with pytest.raises(Unresolved):
        shed.readmit()
    shed.cluster.resume = resume  # type: ignore[method-assign]
    assert shed.readmit() == RetryAfter(timedelta(seconds=5), f"whether {SWEEP} was resumed was in doubt")
    assert shed.readmit() == RetryAfter(timedelta(seconds=5), f"{SWEEP} was resumed")
    assert shed.record(f"resume/{SWEEP}").state is EffectState.DONE


def test_what_was_resumed_is_not_taken_back(shed: Bench) -> None:
    undone = READMIT.undo(READMITTING, RACK, shed.notes.ledger(shed.world(), "readmit"))
    assert undone == Done("what was resumed goes on")


def test_a_job_that_was_deleted_meanwhile_is_not_waited_for(shed: Bench) -> None:
    job = shed.cluster.job

    def without(name: str) -> object:
        if name == SWEEP:
            raise NotFound("simulated cluster", f"there is no job {name}")
        return job(name)

    shed.cluster.job = without  # type: ignore[method-assign, assignment]
    shed.let_pass(60)
    outcome = shed.readmit()
    assert isinstance(outcome, RetryAfter)
    assert outcome.detail.startswith(f"{NOTEBOOK} suspended; ")


# Both, at every instant


@settings(max_examples=25, deadline=None)
@given(dies_at=st.integers(0, 14))
def test_whenever_healer_dies_each_job_is_suspended_and_resumed_once(dies_at: int) -> None:
    bench = Bench(budget_w=3000.0)
    writes = 0

    def dies(_: EffectRecord) -> None:
        nonlocal writes
        writes += 1
        if writes - 1 == dies_at:
            raise Killed

    bench.notes.dies_before = dies
    for verb in ("shed", "readmit"):
        for look in range(60):
            if (verb, look) == ("readmit", 10):
                bench.calm()
            try:
                outcome = bench.shed() if verb == "shed" else bench.readmit()
            except Killed:
                continue
            if isinstance(outcome, Done):
                break
            bench.let_pass(5)
    assert bench.did()[:3] == [f"suspend {NOTEBOOK}", f"suspend {SWEEP}", f"resume {SWEEP}"]
    assert len(set(bench.did())) == len(bench.did())
    assert {record.state for record in bench.notes.records} == {EffectState.DONE}
    assert not np.isnan(bench.fleet.rack_power_w()["rack-1"])
