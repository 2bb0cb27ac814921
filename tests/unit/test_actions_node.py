"""The verbs on nodes: what they would do, what they do, what stands in their way, and what they leave to people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from healer.actions.node import Cordon, Drain
from healer.adapters.simulated_cluster import SimulatedCluster, Verb
from healer.domain.component import Component, ComponentKind
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectState, Failed, Outcome, RetryAfter
from healer.domain.verdict import Guard, Verdict
from healer.errors import NotFound, Rejected
from healer.rehearsal.virtual import VirtualClock
from healer.verb import GuardSpoke, World
from tests.journal_samples import NODE, NOW, Notes, plan_of, run_of

CORDON, DRAIN = Cordon(), Drain()
CORDONING, DRAINING = Cordon.Arguments(reason="XID 79"), Drain.Arguments()


@dataclass
class Bench:
    clock: VirtualClock
    cluster: SimulatedCluster
    notes: Notes

    def world(self) -> World:
        return World(self.clock.now(), None, self.cluster, None, 300.0)

    def approve(self) -> None:
        """What the drain would do now is what the run may do."""
        effects = DRAIN.plan(DRAINING, NODE, self.world()).effects
        self.notes = Notes(run_of(plan_of(effects=effects)))

    def cordon(self) -> Outcome:
        return CORDON.run(CORDONING, NODE, self.notes.ledger(self.world(), "quarantine"))

    def drain(self, arguments: Drain.Arguments = DRAINING) -> Outcome:
        return DRAIN.run(arguments, NODE, self.notes.ledger(self.world(), "evacuate"))

    def evicted(self) -> list[str]:
        return [effect.workload for effect in self.cluster.effects if effect.verb is Verb.EVICT]


@pytest.fixture
def bench() -> Bench:
    clock = VirtualClock(NOW)
    cluster = SimulatedCluster({"n1": "r1", "n2": "r1"}, clock=clock, termination=timedelta(seconds=30))
    return Bench(clock, cluster, Notes(run_of(plan_of())))


# node.cordon


def test_a_cordon_is_owned_by_its_run_and_says_why(bench: Bench) -> None:
    assert bench.cordon() == Done("n1 is cordoned")
    assert bench.cluster.node("n1").cordoned_by == "run-1"
    assert bench.cluster.effects[0].reason == "XID 79"
    assert CORDON.verify(CORDONING, NODE, bench.notes.ledger(bench.world())) == Done("n1 is out of service")


def test_a_node_in_service_is_cordoned_at_the_cost_of_one_node(bench: Bench) -> None:
    proposal = CORDON.plan(CORDONING, NODE, bench.world())
    assert proposal.effects == (Effect("cordon", "n1", takes_out="n1"),)
    assert proposal.blockers == ()


def test_a_node_that_a_person_cordoned_is_not_planned_for(bench: Bench) -> None:
    bench.cluster.cordon_by_person("n1")
    proposal = CORDON.plan(CORDONING, NODE, bench.world())
    assert proposal.effects == ()
    assert proposal.blockers == ("n1 is already cordoned by a person",)


def test_a_person_who_is_quicker_keeps_the_node(bench: Bench) -> None:
    bench.cluster.cordon_by_person("n1")
    with pytest.raises(Exception, match="already cordoned by a person"):
        bench.cordon()
    assert [record.state for record in bench.notes.records] == [EffectState.FAILED]
    CORDON.undo(CORDONING, NODE, bench.notes.ledger(bench.world(), "quarantine"))
    assert bench.cluster.node("n1").cordoned


def test_an_undone_cordon_puts_the_node_back_into_service(bench: Bench) -> None:
    bench.cordon()
    CORDON.undo(CORDONING, NODE, bench.notes.ledger(bench.world(), "quarantine"))
    assert bench.cluster.node("n1").available
    assert [record.state for record in bench.notes.records] == [EffectState.UNDONE]


def test_an_undo_leaves_what_a_person_did_since(bench: Bench) -> None:
    bench.cordon()
    bench.cluster.uncordon_by_person("n1")
    bench.cluster.cordon_by_person("n1")
    CORDON.undo(CORDONING, NODE, bench.notes.ledger(bench.world(), "quarantine"))
    assert bench.cluster.node("n1").cordoned
    assert "left as it is" in bench.notes.records[0].detail


@pytest.mark.parametrize(
    ("then_cordoned", "says"),
    [(False, "a person uncordoned n1: their decision stands"), (True, "is not ours any more")],
)
def test_a_cordon_that_is_gone_or_another_s_fails_the_step(bench: Bench, *, then_cordoned: bool, says: str) -> None:
    bench.cordon()
    bench.cluster.uncordon_by_person("n1")
    if then_cordoned:
        bench.cluster.cordon_by_person("n1")
    outcome = CORDON.verify(CORDONING, NODE, bench.notes.ledger(bench.world()))
    assert isinstance(outcome, Failed)
    assert says in outcome.detail


def test_without_a_scheduler_or_without_a_node_there_is_nothing_to_do(bench: Bench) -> None:
    with pytest.raises(Rejected, match=r"set cluster\.kind"):
        CORDON.plan(CORDONING, NODE, World(NOW, None, None, None, 300.0))
    with pytest.raises(NotFound, match="names no node"):
        CORDON.plan(CORDONING, Component(ComponentKind.RACK, rack="r1"), bench.world())


# node.drain


def test_the_plan_names_owners_and_shows_the_pods_of_the_moment(bench: Bench) -> None:
    for _ in range(2):
        bench.cluster.add_workload("Job/train", node="n1", gpus=1)
    bench.cluster.add_workload("DaemonSet/exporter", node="n1")
    (effect,) = DRAIN.plan(DRAINING, NODE, bench.world()).effects
    assert effect == Effect("evict", "default/Job/train", "train-1, train-2", takes_out="n1", interrupts=True)


def test_every_workload_that_can_move_is_evicted_once_and_waited_for(bench: Bench) -> None:
    for owner in ("Job/train", "Job/train", "Deployment/web", "DaemonSet/exporter"):
        bench.cluster.add_workload(owner, node="n1")
    bench.approve()
    bench.cordon()
    assert isinstance(bench.drain(), RetryAfter)
    bench.clock.advance(timedelta(seconds=29))
    assert isinstance(bench.drain(), RetryAfter)
    assert isinstance(DRAIN.verify(DRAINING, NODE, bench.notes.ledger(bench.world())), RetryAfter)
    assert len(bench.evicted()) == 3
    bench.clock.advance(timedelta(seconds=1))
    assert bench.drain() == Done("n1 is empty")
    assert isinstance(DRAIN.verify(DRAINING, NODE, bench.notes.ledger(bench.world())), Done)
    assert len(bench.evicted()) == 3


def test_a_spent_budget_blocks_and_names_itself_in_the_plan_and_in_the_run(bench: Bench) -> None:
    bench.cluster.add_workload("Deployment/web", node="n1")
    bench.cluster.set_budget("keep-web", owner="Deployment/web", min_available=1)
    (impediment,) = DRAIN.plan(DRAINING, NODE, bench.world()).impediments
    assert "default/keep-web" in impediment
    bench.approve()
    bench.cordon()
    outcome = bench.drain()
    assert isinstance(outcome, RetryAfter)
    assert "web-1 waits" in outcome.detail
    assert "default/keep-web" in outcome.detail
    bench.cluster.set_budget("keep-web", owner="Deployment/web", min_available=0)
    bench.drain()
    assert bench.evicted() == ["default/web-1"]


def test_a_budget_that_blocks_one_workload_does_not_hold_up_the_others(bench: Bench) -> None:
    bench.cluster.add_workload("Deployment/web", node="n1")
    bench.cluster.add_workload("Job/train", node="n1")
    bench.cluster.set_budget("keep-web", owner="Deployment/web", min_available=1)
    bench.approve()
    bench.cordon()
    bench.drain()
    assert bench.evicted() == ["default/train-2"]


def test_a_pod_without_a_controller_refuses_before_the_first_eviction(bench: Bench) -> None:
    bench.cluster.add_workload("Job/train", node="n1")
    bench.approve()
    bench.cluster.add_workload("Pod/notebook", node="n1")
    (blocker,) = DRAIN.plan(DRAINING, NODE, bench.world()).blockers
    assert "default/notebook would be lost" in blocker
    outcome = bench.drain()
    assert isinstance(outcome, Failed)
    assert "default/notebook would be lost" in outcome.detail
    assert bench.evicted() == []


def test_a_workload_that_nobody_was_shown_is_not_touched(bench: Bench) -> None:
    bench.cluster.add_workload("Job/train", node="n1")
    bench.approve()
    bench.cluster.add_workload("Job/urgent", node="n1")
    outcome = bench.drain()
    assert isinstance(outcome, Failed)
    assert "urgent-2 was not there when the plan was made" in outcome.detail
    assert bench.evicted() == []


def test_another_pod_of_an_owner_that_was_shown_is_within_the_approval(bench: Bench) -> None:
    bench.cluster.add_workload("Job/train", node="n1")
    bench.approve()
    bench.cluster.add_workload("Job/train", node="n1")
    bench.drain()
    assert len(bench.evicted()) == 2


def test_no_more_are_evicted_at_once_than_allowed(bench: Bench) -> None:
    for _ in range(5):
        bench.cluster.add_workload("Job/train", node="n1")
    bench.approve()
    bench.cordon()
    few = Drain.Arguments(at_once=2)
    bench.drain(few)
    assert len(bench.evicted()) == 2
    bench.drain(few)
    assert len(bench.evicted()) == 4


def test_a_shorter_grace_is_what_the_workload_gets(bench: Bench) -> None:
    bench.cluster.add_workload("Job/train", node="n1")
    bench.approve()
    bench.cordon()
    bench.drain(Drain.Arguments(grace=timedelta(seconds=5)))
    bench.clock.advance(timedelta(seconds=5))
    assert bench.drain() == Done("n1 is empty")


def test_a_guard_stops_the_drain_in_the_middle(bench: Bench) -> None:
    for _ in range(2):
        bench.cluster.add_workload("Job/train", node="n1")
    bench.approve()
    bench.cordon()
    bench.drain(Drain.Arguments(at_once=1))
    bench.notes.verdict = Verdict(Guard.FRESHNESS, "silent", "it is back")
    with pytest.raises(GuardSpoke):
        bench.drain()
    assert len(bench.evicted()) == 1


def test_evictions_are_not_taken_back(bench: Bench) -> None:
    bench.cluster.add_workload("Job/train", node="n1")
    bench.approve()
    bench.drain()
    outcome = DRAIN.undo(DRAINING, NODE, bench.notes.ledger(bench.world(), "evacuate"))
    assert outcome == Done("1 evictions stay as they are")
    assert [effect.verb for effect in bench.cluster.effects] == [Verb.EVICT]


def test_a_budget_that_is_known_to_be_spent_is_waited_for_without_a_line_in_the_journal(bench: Bench) -> None:
    bench.cluster.add_workload("Deployment/web", node="n1")
    bench.cluster.set_budget("keep-web", owner="Deployment/web", min_available=1)
    bench.approve()
    for _ in range(3):
        outcome = bench.drain()
        assert isinstance(outcome, RetryAfter)
        assert "keep-web" in outcome.detail
    assert bench.notes.records == []
