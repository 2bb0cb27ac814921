"""The verbs of a node's agent: what they would do, when they begin it, that they begin it once, and what ends them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from healer.actions.care import BurnIn, Collect, Reboot, Reset
from healer.actions.node import Cordon, Uncordon
from healer.adapters.simulated_cluster import SimulatedCluster, Verb
from healer.domain.care import CareOrder, CareReport, Operation
from healer.domain.component import Component, ComponentKind
from healer.domain.plan import Effect, PlannedStep
from healer.domain.run import Done, EffectRecord, EffectState, Failed, Outcome, RetryAfter
from healer.domain.verdict import Guard, Verdict
from healer.errors import Rejected, Unavailable
from healer.rehearsal.virtual import START, VirtualClock
from healer.sim.care import FleetCare
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import SimulatedFleet
from healer.verb import GuardSpoke, Ledger, NotNow, Unresolved, World
from tests.journal_samples import Notes, plan_of, run_of

N1 = "gpu-001"
NODE = Component(ComponentKind.NODE, rack="rack-1", node=N1)
RESET, REBOOT, BURN_IN, COLLECT = Reset(), Reboot(), BurnIn(), Collect()
CORDON, UNCORDON = Cordon(), Uncordon()
NOTHING = Reset.Arguments()
TESTING = BurnIn.Arguments(duration=timedelta(minutes=2))


class Crash(BaseException):
    pass


class MortalCare(FleetCare):
    """Attributes:
    dies: healer does, before the agent hears of anything.
    """

    dies = False

    def start(self, node: str, key: str, order: CareOrder) -> CareReport:
        if self.dies:
            raise Crash
        return super().start(node, key, order)


@dataclass
class Bench:
    clock: VirtualClock
    fleet: SimulatedFleet
    cluster: SimulatedCluster
    care: MortalCare
    notes: Notes

    @property
    def gpu(self) -> Component:
        return Component(ComponentKind.GPU, rack="rack-1", node=N1, gpu="1", uuid=self.fleet.layout.uuids[1])

    def world(self) -> World:
        return World(self.clock.now(), None, self.cluster, None, 300.0, configured_care=self.care)

    def ledger(self, step: str = "step") -> Ledger:
        return self.notes.ledger(self.world(), step)

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))
        self.fleet.advance(seconds)

    def cordon(self) -> None:
        assert isinstance(CORDON.run(Cordon.Arguments(), NODE, self.ledger("quarantine")), Done)

    def reset(self) -> Outcome:
        return RESET.run(NOTHING, self.gpu, self.ledger("reset"))

    def reboot(self) -> Outcome:
        return REBOOT.run(NOTHING, NODE, self.ledger("boot"))

    def burn_in(self) -> Outcome:
        return BURN_IN.run(TESTING, NODE, self.ledger("test"))

    def collect(self) -> Outcome:
        return COLLECT.run(NOTHING, NODE, self.ledger("evidence"))

    def uncordon(self) -> Outcome:
        return UNCORDON.run(Uncordon.Arguments(), NODE, self.ledger("return"))

    def still_cordoned(self) -> Outcome:
        return CORDON.verify(Cordon.Arguments(), NODE, self.ledger("quarantine"))

    def begun(self) -> list[Operation]:
        return [order.operation for _, order in self.care.begun]


@pytest.fixture
def bench() -> Bench:
    clock = VirtualClock(START)
    fleet = SimulatedFleet(racks=1, nodes=2, gpus=2, seed=5)
    cluster = SimulatedCluster(dict.fromkeys(fleet.layout.nodes, "rack-1"), clock=clock, gpus_per_node=4)
    return Bench(clock, fleet, cluster, MortalCare(fleet, cluster=cluster), Notes(run_of(plan_of(target=NODE))))


# What they would do


def test_each_says_what_it_would_do_to_which_node_before_anybody_is_asked(bench: Bench) -> None:
    world = bench.world()
    uuid = bench.fleet.layout.uuids[1]
    assert RESET.plan(NOTHING, bench.gpu, world).effects == (
        Effect("reset", f"{N1}/1", uuid, takes_out=N1, interrupts=True),
    )
    assert REBOOT.plan(NOTHING, NODE, world).effects == (Effect("reboot", N1, takes_out=N1, interrupts=True),)
    assert BURN_IN.plan(TESTING, NODE, world).effects == (Effect("burn in", N1, "for 2m", takes_out=N1),)
    (evidence,) = COLLECT.plan(NOTHING, NODE, world).effects
    assert (str(evidence), evidence.harmless, evidence.takes_out) == (f"collect evidence on {N1}", True, None)
    assert bench.begun() == []


def test_a_verb_on_a_node_works_on_the_node_of_a_gpu(bench: Bench) -> None:
    assert REBOOT.plan(NOTHING, bench.gpu, bench.world()).effects == (
        Effect("reboot", N1, takes_out=N1, interrupts=True),
    )
    assert UNCORDON.plan(Uncordon.Arguments(), bench.gpu, bench.world()).effects == (
        Effect("uncordon", N1, "back to service"),
    )


def test_what_is_in_the_way_is_shown_to_who_approves(bench: Bench) -> None:
    bench.cluster.add_workload("Job/train", node=N1, gpus=2)
    assert RESET.plan(NOTHING, bench.gpu, bench.world()).impediments == (
        f"1 processes use GPU 1 of {N1} now, and have to end first",
    )
    assert REBOOT.plan(NOTHING, NODE, bench.world()).impediments == (
        f"1 workloads are on {N1} now, and have to be gone first",
    )


@pytest.mark.parametrize("verb", [RESET, REBOOT, BURN_IN, COLLECT], ids=lambda verb: verb.name)
def test_without_agents_it_says_what_to_set(bench: Bench, verb: Reset | Reboot | BurnIn | Collect) -> None:
    with pytest.raises(Rejected, match=r"no node agents are configured; set agent\.url"):
        verb.plan(verb.Arguments(), bench.gpu, replace(bench.world(), configured_care=None))  # type: ignore[arg-type]


def test_a_gpu_that_the_driver_does_not_list_cannot_be_reset(bench: Bench) -> None:
    bench.fleet.inject(Fault(FaultKind.GPU_LOST, 0, node=N1, gpu=1))
    (blocker,) = RESET.plan(NOTHING, bench.gpu, bench.world()).blockers
    assert blocker == f"the driver of {N1} does not list GPU 1 of {N1}: only a reboot may bring it back"
    bench.cordon()
    with pytest.raises(Rejected, match="there is nothing to reset"):
        bench.reset()


def test_a_silent_agent_forbids_a_reset_and_only_slows_a_reboot_down(bench: Bench) -> None:
    bench.care.silent.add(N1)
    with pytest.raises(Unavailable):
        RESET.plan(NOTHING, bench.gpu, bench.world())
    for verb, arguments in ((REBOOT, NOTHING), (BURN_IN, TESTING), (COLLECT, NOTHING)):
        proposal = verb.plan(arguments, NODE, bench.world())  # type: ignore[arg-type]
        assert proposal.effects
        (impediment,) = proposal.impediments
        assert impediment.startswith("nothing can be done there until its agent answers: ")


def test_a_person_s_cordon_is_not_planned_to_be_lifted(bench: Bench) -> None:
    bench.cluster.cordon_by_person(N1)
    assert UNCORDON.plan(Uncordon.Arguments(), NODE, bench.world()).blockers == (
        f"{N1} is cordoned by a person: their decision stands",
    )


# When they begin


@pytest.mark.parametrize("do", [Bench.reset, Bench.reboot, Bench.burn_in])
@pytest.mark.parametrize(
    ("by", "says"),
    [
        (None, "is in service: nothing is done to it before it is cordoned in the name of run-1"),
        ("run-9", "is cordoned by run-9, not by run-1"),
        ("a person", "is cordoned by a person, not by run-1"),
    ],
)
def test_nothing_is_done_to_a_node_that_this_run_does_not_keep_out_of_service(
    bench: Bench, do: Callable[[Bench], Outcome], by: str | None, says: str
) -> None:
    if by == "a person":
        bench.cluster.cordon_by_person(N1)
    elif by is not None:
        bench.cluster.cordon(N1, by=by, reason="")
    with pytest.raises(Rejected, match=says):
        do(bench)
    assert bench.begun() == []
    assert [record.state for record in bench.notes.records] == []


def test_a_gpu_in_use_is_reset_only_once_nothing_uses_it(bench: Bench) -> None:
    bench.cluster.add_workload("Job/train", node=N1, gpus=2)
    bench.cordon()
    with pytest.raises(NotNow, match=f"1 processes still use GPU 1 of {N1}"):
        bench.reset()
    bench.cluster.finish_work(N1)
    assert isinstance(bench.reset(), RetryAfter)
    assert bench.begun() == [Operation.RESET_GPU]


@pytest.mark.parametrize("do", [Bench.reboot, Bench.burn_in])
@pytest.mark.parametrize("owner", ["Job/train", "Pod/notebook"])
def test_a_node_with_work_on_it_is_neither_booted_nor_tested(
    bench: Bench, do: Callable[[Bench], Outcome], owner: str
) -> None:
    bench.cluster.add_workload("DaemonSet/exporter", node=N1)
    bench.cluster.add_workload(owner, node=N1)
    bench.cordon()
    with pytest.raises(NotNow, match="1 workloads are still on gpu-001"):
        do(bench)
    assert bench.begun() == []


def test_evidence_is_collected_whoever_has_the_node(bench: Bench) -> None:
    bench.cluster.add_workload("Job/train", node=N1)
    assert isinstance(COLLECT.run(NOTHING, NODE, bench.ledger()), RetryAfter)
    bench.let_pass(15)
    assert COLLECT.run(NOTHING, NODE, bench.ledger()) == Done(f"{N1}: {N1}:/var/lib/healer/evidence")


def test_a_guard_has_the_last_word_before_each(bench: Bench) -> None:
    bench.cordon()
    bench.notes.verdict = Verdict(Guard.SILENCE, "silenced", "it ends")
    for do in (bench.reset, bench.reboot, bench.burn_in):
        with pytest.raises(GuardSpoke):
            do()
    assert bench.begun() == []


# How they end


def test_a_reset_is_waited_for_and_seen_to_have_left_the_gpu_there(bench: Bench) -> None:
    bench.cordon()
    bench.fleet.inject(Fault(FaultKind.ROW_REMAP_PENDING, 0, node=N1, gpu=1))
    assert bench.reset() == RetryAfter(timedelta(seconds=5), f"reset_gpu of {N1} has begun")
    outcome = bench.reset()
    assert isinstance(outcome, RetryAfter)
    assert "under way on gpu-001 since 00:00:00Z" in outcome.detail
    bench.let_pass(21)
    assert isinstance(bench.reset(), Done)
    assert isinstance(RESET.verify(NOTHING, bench.gpu, bench.ledger("reset")), Done)
    assert bench.care.begun == [(N1, CareOrder(Operation.RESET_GPU, 1, bench.fleet.layout.uuids[1]))]
    bench.fleet.inject(Fault(FaultKind.GPU_LOST, 0, node=N1, gpu=1))
    assert RESET.verify(NOTHING, bench.gpu, bench.ledger("reset")) == Failed(
        f"the driver of {N1} does not list GPU 1 of {N1} after its reset"
    )


def test_a_boot_is_seen_by_another_boot_and_a_scheduler_that_calls_the_node_ready(bench: Bench) -> None:
    bench.cordon()
    assert bench.reboot() == RetryAfter(timedelta(seconds=5), f"{N1} has not booted yet")
    outcome = bench.reboot()
    assert isinstance(outcome, RetryAfter)
    assert f"{N1} is not back yet: node agent of {N1}: did not answer" in outcome.detail
    bench.let_pass(95)
    bench.care.condition(N1)
    bench.cluster.set_ready(N1, ready=False)
    assert bench.reboot() == RetryAfter(timedelta(seconds=5), f"{N1} has booted, and is not ready yet")
    bench.cluster.set_ready(N1, ready=True)
    assert bench.reboot() == Done(f"{N1} has booted and is ready")
    assert REBOOT.verify(NOTHING, NODE, bench.ledger("boot")) == Done(f"{N1} has booted and is ready")
    assert bench.begun() == [Operation.REBOOT]
    assert bench.notes.records[-1].found == f'{{"boot_id":"{N1}-boot-1"}}'


def test_before_it_was_told_a_node_whose_agent_is_silent_is_in_doubt_and_not_booting(bench: Bench) -> None:
    bench.cordon()
    bench.care.silent.add(N1)
    with pytest.raises(Unavailable):
        bench.reboot()
    assert [record.key for record in bench.notes.records] == [f"cordon/{N1}"]


def test_a_burn_in_that_fails_fails_with_what_the_agent_found(bench: Bench) -> None:
    bench.cordon()
    bench.fleet.inject(Fault(FaultKind.NVLINK_DOWN, 0, node=N1, gpu=1))
    assert isinstance(bench.burn_in(), RetryAfter)
    bench.let_pass(121)
    assert bench.burn_in() == Failed(f"{N1}: GPU 1: an NVLink is down")


def test_a_step_that_is_tried_again_is_another_operation(bench: Bench) -> None:
    bench.cordon()
    bench.care.broken.add(N1)
    bench.burn_in()
    bench.let_pass(121)
    assert isinstance(bench.burn_in(), Failed)
    bench.care.broken.clear()
    bench.notes.run = replace(bench.notes.run, failures=1)
    assert isinstance(bench.burn_in(), RetryAfter)
    bench.let_pass(121)
    assert bench.burn_in() == Done(f"{N1}: passed")
    bench.notes.run = replace(bench.notes.run, failures=0)  # of the step that follows
    assert BURN_IN.verify(TESTING, NODE, bench.ledger("test")) == Done(f"{N1}: passed")
    assert bench.begun() == [Operation.BURN_IN] * 2


def test_what_was_put_aside_stays_put_while_the_node_boots(bench: Bench) -> None:
    COLLECT.run(NOTHING, NODE, bench.ledger())
    bench.let_pass(15)
    bench.care.silent.add(N1)
    outcome = COLLECT.verify(NOTHING, NODE, bench.ledger())
    assert isinstance(outcome, Done)
    assert "it was put aside" in outcome.detail


def test_an_agent_that_has_forgotten_what_it_was_asked_for_is_not_asked_again(bench: Bench) -> None:
    bench.cordon()
    for do in (bench.reset, bench.burn_in):
        do()
    bench.care = MortalCare(bench.fleet, cluster=bench.cluster)
    for do in (bench.reset, bench.burn_in):
        assert do() == Failed(f"the agent of {N1} knows nothing of it any more; look at the node")
    bench.reboot()
    assert bench.begun() == [Operation.REBOOT]


@pytest.mark.parametrize(
    ("verify", "says"),
    [
        (lambda bench: RESET.verify(NOTHING, bench.gpu, bench.ledger()), "was never asked for"),
        (lambda bench: BURN_IN.verify(TESTING, NODE, bench.ledger()), "was never asked for"),
        (lambda bench: REBOOT.verify(NOTHING, NODE, bench.ledger()), "was never asked for"),
    ],
    ids=["reset", "burn-in", "reboot"],
)
def test_what_was_never_begun_is_never_seen_to_be_done(
    bench: Bench, verify: Callable[[Bench], Outcome], says: str
) -> None:
    outcome = verify(bench)
    assert isinstance(outcome, Failed)
    assert says in outcome.detail


def undo_test(bench: Bench) -> Outcome:
    return BURN_IN.undo(TESTING, NODE, bench.ledger("test"))


def test_a_node_is_not_given_back_while_its_test_is_under_way_or_may_be(bench: Bench) -> None:
    step = PlannedStep("test", BURN_IN.name, {}, timeout=timedelta(minutes=10))
    bench.notes.run = replace(bench.notes.run, plan=plan_of(step, target=NODE))
    assert undo_test(bench) == Done("nothing was begun")
    bench.cordon()
    bench.burn_in()
    outcome = undo_test(bench)
    assert isinstance(outcome, RetryAfter)
    assert "burn_in of gpu-001 is still under way" in outcome.detail
    bench.care.silent.add(N1)
    outcome = undo_test(bench)
    assert isinstance(outcome, RetryAfter)
    assert "it may be under way: node agent of gpu-001: did not answer" in outcome.detail
    bench.let_pass(600)
    assert undo_test(bench) == Done("it cannot be taken back"), "a node that never comes back is a person's"


def test_what_is_over_holds_nothing_up(bench: Bench) -> None:
    step = PlannedStep("test", BURN_IN.name, {}, timeout=timedelta(minutes=10))
    bench.notes.run = replace(bench.notes.run, plan=plan_of(step, target=NODE))
    bench.cordon()
    bench.burn_in()
    bench.let_pass(121)
    assert undo_test(bench) == Done("it is over, and cannot be taken back")


@pytest.mark.parametrize("verb", [RESET, REBOOT, BURN_IN, COLLECT], ids=lambda verb: verb.name)
def test_the_undo_of_what_was_not_begun_begins_nothing(bench: Bench, verb: Reset | Reboot | BurnIn | Collect) -> None:
    assert isinstance(verb.undo(verb.Arguments(), bench.gpu, bench.ledger()), Done)  # type: ignore[arg-type]
    assert bench.begun() == []


def die_before_the_outcome(record: EffectRecord) -> None:
    if record.state is EffectState.DONE:
        raise Crash


# Once, also across a crash or a lost answer


@pytest.mark.parametrize(
    ("do", "takes_s"),
    [(Bench.reset, 21), (Bench.reboot, 95), (Bench.burn_in, 121), (Bench.collect, 16)],
    ids=["reset", "reboot", "burn-in", "collect"],
)
@pytest.mark.parametrize("dies", ["before the outcome is written", "before it is told", "as its answer is lost"])
def test_it_is_begun_once_however_healer_dies(
    bench: Bench, do: Callable[[Bench], Outcome], takes_s: float, dies: str
) -> None:
    bench.cordon()
    if dies == "as its answer is lost":
        bench.care.lose_next_answer(Unavailable("agent", "cut off"))
        with pytest.raises(Unresolved):
            do(bench)
    else:
        bench.care.dies = dies == "before it is told"
        bench.notes.dies_before = die_before_the_outcome
        with pytest.raises(Crash):
            do(bench)
        bench.notes.dies_before = lambda _record: None
        bench.care.dies = False
    in_doubt = bench.notes.records[-1]
    assert isinstance(do(bench), RetryAfter)
    bench.let_pass(takes_s)
    bench.let_pass(takes_s)
    assert isinstance(do(bench), Done)
    assert len(bench.begun()) == 1
    settled = bench.notes.records[-1]
    assert (in_doubt.key, in_doubt.state, settled.state) == (settled.key, EffectState.INTENT, EffectState.DONE)


# node.uncordon


def test_the_run_s_own_cordon_is_lifted_and_that_is_no_person_s_doing(bench: Bench) -> None:
    bench.cordon()
    assert bench.uncordon() == Done(f"{N1} is in service")
    assert bench.still_cordoned() == Done(f"this run has given {N1} back to service")
    assert UNCORDON.verify(Uncordon.Arguments(), NODE, bench.ledger("return")) == Done(f"{N1} is in service")


def test_a_cordon_that_is_somebody_else_s_is_left_to_them(bench: Bench) -> None:
    bench.cluster.cordon_by_person(N1)
    assert bench.uncordon() == Failed(f"{N1} is cordoned by a person: their decision stands", by_person=True)
    bench.cluster.uncordon_by_person(N1)
    bench.cluster.cordon(N1, by="run-9", reason="")
    assert bench.uncordon() == Failed(f"{N1} is still cordoned by run-9")
    assert bench.cluster.node(N1).cordoned_by == "run-9"
    assert bench.notes.records == []


def test_what_fails_after_the_return_to_service_takes_the_node_out_again_in_the_run_s_name(bench: Bench) -> None:
    bench.cordon()
    bench.uncordon()
    UNCORDON.undo(Uncordon.Arguments(), NODE, bench.ledger("return"))
    assert bench.cluster.node(N1).cordoned_by == "run-1"
    assert bench.still_cordoned() == Done(f"{N1} is out of service")
    CORDON.undo(Cordon.Arguments(), NODE, bench.ledger("quarantine"))
    assert bench.cluster.node(N1).available
    assert [effect.verb for effect in bench.cluster.effects] == [
        Verb.CORDON,
        Verb.UNCORDON,
        Verb.CORDON,
        Verb.UNCORDON,
    ]


def test_what_was_never_given_back_is_not_taken_out_by_an_undo(bench: Bench) -> None:
    UNCORDON.undo(Uncordon.Arguments(), NODE, bench.ledger("return"))
    assert bench.cluster.node(N1).available
    bench.cordon()
    bench.uncordon()
    bench.cluster.cordon_by_person(N1)
    UNCORDON.undo(Uncordon.Arguments(), NODE, bench.ledger("return"))
    assert bench.cluster.node(N1).cordoned_by is None
    assert "left as it is" in bench.notes.records[-1].detail


@pytest.mark.parametrize("lifted", [True, False])
def test_a_return_whose_outcome_is_unknown_is_observed(bench: Bench, *, lifted: bool) -> None:
    bench.cordon()
    bench.notes.dies_before = die_before_the_outcome
    with pytest.raises(Crash):
        bench.uncordon()
    if not lifted:
        bench.cluster.cordon(N1, by="run-1", reason="as if it had not happened")
    bench.notes.dies_before = lambda _record: None
    assert isinstance(bench.still_cordoned(), Done)
    assert bench.uncordon() == Done(f"{N1} is in service")
    assert bench.cluster.node(N1).available
