"""A step that is done to several things: how many at a time, what one of them can do to the others, and its undo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from healer.actions.node import Cordon
from healer.actions.wait import Until
from healer.adapters.journal.sql import SqlJournal
from healer.adapters.simulated_cluster import SimulatedCluster
from healer.domain.component import Component, ComponentKind
from healer.domain.plan import PlannedStep
from healer.domain.playbook import OnError, Retry
from healer.domain.run import Done, Failed, Outcome, Refused, RetryAfter, Run, RunState, Unknown
from healer.domain.verdict import Guard, Verdict
from healer.rehearsal.virtual import VirtualClock
from healer.runtime.executor import Executor
from healer.schema import Section
from healer.verb import Action, Ledger, Proposal, Verbs, World
from tests.journal_samples import NOW, incident_of, plan_of, run_of
from tests.virtual_site import LEASE

NAMES = ("n1", "n2", "n3", "n4")
SOON = timedelta(seconds=7)
LATER = timedelta(seconds=30)


def node(name: str) -> Component:
    return Component(ComponentKind.NODE, node=name)


@dataclass
class Visits:
    """A verb that has one effect on each node, and answers of each what it is told to.

    Attributes:
        says: node -> its answers to `run`, the last of which it repeats; without one it is done.
        begun, undone: the nodes, in order.
    """

    name = "visit"
    says: dict[str, list[Outcome]] = field(default_factory=dict)
    unsaid: dict[str, Outcome] = field(default_factory=dict)
    undoing: dict[str, Outcome] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)

    class Arguments(Section):
        pass

    def plan(self, _arguments: Section, _target: Component, _world: World) -> Proposal:
        raise NotImplementedError

    def run(self, _arguments: Section, target: Component, ledger: Ledger) -> Outcome:
        name = str(target.node)

        def begin() -> str:
            self.begun.append(name)
            return "begun"

        ledger.effect("visit", do=begin, happened=lambda: False)
        answers = self.says.get(name, [Done()])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def verify(self, _arguments: Section, target: Component, _ledger: Ledger) -> Outcome:
        return self.unsaid.get(str(target.node), Done())

    def undo(self, _arguments: Section, target: Component, ledger: Ledger) -> Outcome:
        for record in ledger.standing("visit"):
            self.undone.append(str(target.node))
            ledger.undo(record, do=lambda: "undone")
        return self.undoing.get(str(target.node), Done())


@dataclass
class Bench:
    journal: SqlJournal
    cluster: SimulatedCluster
    clock: VirtualClock
    verb: Visits = field(default_factory=Visits)
    verdict: Verdict | None = None

    def begin(self, *, most: int = 2, then: str = "", **changes: object) -> Run:
        step = PlannedStep(
            "each",
            "visit",
            {},
            timedelta(minutes=10),
            items=tuple(map(node, NAMES)),
            max_parallel=most,
            **changes,  # type: ignore[arg-type]
        )
        after = (PlannedStep("after", then, {}, timedelta(minutes=1)),) if then else ()
        run = run_of(plan_of(step, *after))
        with self.journal.transaction() as write:
            write.save_incident(incident_of())
            write.add_run(run, [])
        return run

    def look(self, run: Run) -> Run:
        """By a process that knows nothing but the journal."""
        verbs: Verbs = {each.name: cast("Action", each) for each in (self.verb, Cordon(), Until())}
        executor = Executor(self.journal, verbs, lambda _run: self.verdict, self.clock)
        looked = executor.look(run, World(self.clock.now(), None, self.cluster, None, 300.0))
        with self.journal.transaction() as write:
            write.save_run(looked)
        return self.journal.run(run.id)

    def looks(self, run: Run, *, most: int = 30) -> Run:
        for _ in range(most):
            if run.state.ended:
                break
            run = self.look(run)
            self.clock.advance(timedelta(seconds=5))
        return run


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    journal = SqlJournal(f"sqlite:///{tmp_path / 'journal.db'}")
    journal.lead("test", NOW, LEASE)
    clock = VirtualClock(NOW)
    yield Bench(journal, SimulatedCluster(dict.fromkeys(NAMES), clock=clock), clock)
    journal.close()


def test_all_of_them_are_done_and_only_then_the_step(bench: Bench) -> None:
    run = bench.looks(bench.begin())
    assert (run.state, bench.verb.begun, run.detail) == (RunState.SUCCEEDED, [*NAMES], "4 of 4 each")


def test_no_more_are_in_work_at_once_than_was_said_and_the_next_one_takes_the_place_of_the_first_that_is_done(
    bench: Bench,
) -> None:
    waits: list[Outcome] = [RetryAfter(SOON, "not yet")]
    bench.verb.says = {name: list(waits) for name in NAMES}
    run = bench.look(bench.begin())
    assert bench.verb.begun == ["n1", "n2"]
    assert (run.detail, run.next_look_at - NOW) == ("0 of 4 each: not yet", SOON)
    bench.verb.says["n2"] = [Done()]
    run = bench.look(run)
    assert (run.detail, run.next_look_at) == ("1 of 4 each", bench.clock.now())
    bench.look(run)
    assert bench.verb.begun == ["n1", "n2", "n3"]


def test_what_is_done_is_not_asked_again_after_a_restart(bench: Bench) -> None:
    bench.verb.says = {"n3": [RetryAfter(SOON, "slow")]}
    run = bench.looks(bench.begin(most=1), most=4)
    assert run.finished == ("each/node/n1", "each/node/n2")
    fresh = Visits()  # another process: what it knows is in the journal
    bench.verb = fresh
    assert bench.looks(run).state is RunState.SUCCEEDED
    assert fresh.begun == ["n4"]


def test_the_one_that_is_not_known_counts_before_those_that_wait(bench: Bench) -> None:
    bench.verb.says = {"n1": [RetryAfter(SOON, "not yet")], "n2": [Unknown(LATER, "who knows")]}
    run = bench.look(bench.begin())
    assert (run.detail, run.next_look_at - NOW) == ("0 of 4 each: who knows", SOON)


def test_if_one_fails_no_other_is_begun_and_those_that_were_are_undone_the_last_first(bench: Bench) -> None:
    bench.verb.says = {"n2": [Failed("broken")]}
    run = bench.looks(bench.begin(most=2))
    assert (run.state, run.cause) == (RunState.FAILED, "1 of 4 each: broken")
    assert (bench.verb.begun, bench.verb.undone) == (["n1", "n2"], ["n2", "n1"])


def test_one_that_cannot_be_undone_does_not_keep_the_others(bench: Bench) -> None:
    bench.verb.says = {"n3": [Failed("broken")]}
    bench.verb.undoing = {"n2": Failed("it is gone")}
    run = bench.looks(bench.begin(most=4))
    assert bench.verb.undone == ["n3", "n2", "n1"]
    assert run.cause == "2 of 4 each: broken; could not undo each: it is gone"


def test_a_retry_takes_up_those_that_are_left(bench: Bench) -> None:
    bench.verb.says = {"n2": [Failed("broken"), Done()]}
    run = bench.looks(bench.begin(most=1, retry=Retry(1, SOON)))
    assert (run.state, bench.verb.begun) == (RunState.SUCCEEDED, [*NAMES])


def test_an_effect_of_any_of_them_that_is_in_doubt_is_not_gone_past(bench: Bench) -> None:
    bench.verb.says = {"n1": [Unknown(SOON, "no answer")]}
    run = bench.look(bench.begin(most=1, on_error=OnError.GO_ON, then="node.cordon"))
    (record,) = bench.journal.effects(run.id)
    with bench.journal.transaction() as write:
        write.save_effect(type(record)(run.id, record.step_id, "other", type(record.state).INTENT, NOW))
    bench.clock.advance(timedelta(minutes=11))
    assert bench.look(run).state is RunState.UNDOING


def test_an_earlier_one_whose_effect_is_gone_ends_the_run(bench: Bench) -> None:
    run = bench.look(bench.begin(most=4, then="node.cordon"))
    assert run.position == 1
    bench.verb.unsaid = {"n3": Failed("a person took n3 back")}
    assert bench.look(run).cause == "a person took n3 back"


def test_a_guard_that_speaks_against_one_holds_the_step(bench: Bench) -> None:
    bench.verdict = Verdict(Guard.BUDGET, "2 of 2 nodes out", "one returns")
    run = bench.look(bench.begin(most=4))
    assert (run.detail, bench.verb.begun) == (f"held: {Refused(bench.verdict).verdict}", [])


def test_a_step_with_a_condition_is_done_when_the_world_is_as_its_author_wants_it(bench: Bench) -> None:
    run = run_of(plan_of(PlannedStep("quarantine", "visit", {}, timedelta(minutes=10), verify="node.cordoned")))
    with bench.journal.transaction() as write:
        write.save_incident(incident_of())
        write.add_run(run, [])
    run = bench.looks(run, most=3)
    assert (run.state, run.detail) == (RunState.RUNNING, "waits until node.cordoned")
    bench.cluster.cordon_by_person("n1")
    assert bench.looks(run).state is RunState.SUCCEEDED
