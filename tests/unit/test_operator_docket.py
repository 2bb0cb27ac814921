"""What the operator reads for one pass: as often for many incidents as for one, and all that there are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from healer.domain.incident import Incident, IncidentState
from healer.domain.playbook import Limits
from healer.domain.run import Run, RunState, Start
from healer.domain.verdict import Guard, Mode
from healer.policy.limits import Tally
from healer.runtime.docket import Docket, brought_up_to_date
from healer.runtime.knowledge import Claims
from healer.sim.faults import Fault, FaultKind
from tests.unit.core_samples import START, after, cap, cordon, gpu, incident, node, plan, rack
from tests.virtual_site import ON_CALL, Site

NOBODY = Claims(leases={}, leaving=frozenset(), silences=())
IDS = ("inc-a", "inc-b", "inc-c")


def asking(key: str, *nodes: str) -> Incident:
    asked = plan(*map(cordon, nodes), target=node(nodes[0]))
    return replace(incident(gpu(key)), id=key, state=IncidentState.AWAITING_APPROVAL, plan=asked, approval_id="apr-1")


def opened(key: str) -> Incident:
    return replace(incident(gpu(key)), id=key)


# One question for one component


def test_what_awaits_approval_elsewhere_is_not_asked_twice() -> None:
    docket = Docket([asking("inc-a", "n1", "n2"), opened("inc-b")], NOBODY)
    verdict = docket.asked_elsewhere(opened("inc-b"), plan(cordon("n2"), target=node("n2")))
    assert verdict is not None
    assert (verdict.guard, verdict.message) == (Guard.LEASE, "node/n2 awaits approval in inc-a")
    assert docket.asked_elsewhere(opened("inc-b"), plan(cordon("n3"), target=node("n3"))) is None


def test_an_incident_s_own_question_is_not_elsewhere() -> None:
    own = asking("inc-a", "n1")
    assert own.plan is not None
    assert Docket([own], NOBODY).asked_elsewhere(own, own.plan) is None


def test_what_the_pass_itself_asks_counts_at_once_and_what_it_voids_does_not() -> None:
    first, second, third = map(opened, IDS)
    wanted = plan(cordon("n1"))
    docket = Docket([first, second, third], NOBODY)
    assert docket.asked_elsewhere(second, wanted) is None
    docket.asked(first, wanted)
    assert docket.asked_elsewhere(second, wanted) is not None
    docket.voided(replace(first, plan=wanted))
    assert docket.asked_elsewhere(second, wanted) is None


def test_of_two_questions_about_one_component_voiding_one_leaves_the_other() -> None:
    docket = Docket([asking("inc-a", "n1"), asking("inc-b", "n1")], NOBODY)
    docket.voided(asking("inc-a", "n1"))
    verdict = docket.asked_elsewhere(opened("inc-c"), plan(cordon("n1")))
    assert verdict is not None
    assert "inc-b" in verdict.message


def test_a_plan_that_takes_no_node_out_still_has_one_question_for_its_target() -> None:
    wanted = plan(cap(), target=rack())
    docket = Docket([replace(asking("inc-a", "n1"), plan=wanted)], NOBODY)
    assert docket.asked_elsewhere(opened("inc-b"), wanted) is not None


def test_a_run_that_the_pass_starts_holds_its_leases_and_its_nodes_at_once() -> None:
    docket = Docket([], replace(NOBODY, leases={"node/n9": "run-9"}, leaving=frozenset({"n9"})))
    wanted = plan(cordon("n1"))
    docket.started(Run("run-1", "inc-a", None, wanted, RunState.RUNNING, 0, START, START, START))
    assert docket.claims.leases == {"node/n9": "run-9", "node/n1": "run-1"}
    assert docket.claims.leaving == {"n1", "n9"}


def test_what_the_pass_itself_starts_and_asks_counts_in_the_limits_at_once() -> None:
    limited = replace(NOBODY, tallies={"drain-node": Tally(Limits(at_once=3), active=1)})
    docket = Docket([asking("inc-a", "n1"), opened("inc-b")], limited)
    wanted = plan(cordon("n2"), target=node("n2"))
    docket.started(Run("run-1", "inc-c", None, wanted, RunState.RUNNING, 0, START, START, START))
    docket.started(Run("run-2", "inc-d", None, replace(wanted, playbook="x"), RunState.RUNNING, 0, START, START, START))
    started = Start("drain-node", "node/n2", START)
    assert docket.claims.tallies == {"drain-node": Tally(Limits(at_once=3), (started,), active=2)}
    assert docket.claims_with_questions.tallies["drain-node"].asked == 1
    docket.asked(opened("inc-b"), wanted)
    assert docket.claims_with_questions.tallies["drain-node"].asked == 2
    docket.voided(asking("inc-a", "n1"))
    assert docket.claims_with_questions.tallies["drain-node"].asked == 1
    assert docket.claims.tallies["drain-node"].asked == 0, "an answer comes before questions"


def test_what_was_read_is_brought_up_to_date_as_the_journal_would_answer() -> None:
    old, new = replace(opened("inc-a"), opened_at=START), replace(opened("inc-b"), opened_at=after(60))
    changed, found = replace(old, story="changed"), replace(opened("inc-c"), opened_at=after(120))
    assert brought_up_to_date([new, old], [changed, found]) == (found, new, changed)


# Questions have their place in the budgets


def test_a_question_keeps_its_place_until_it_is_voided() -> None:
    docket = Docket([asking("inc-a", "n1", "n2"), opened("inc-b")], replace(NOBODY, leaving=frozenset({"n9"})))
    docket.asked(opened("inc-b"), plan(cordon("n3")))
    assert docket.claims_with_questions.asked == {"n1", "n2", "n3"}
    assert not docket.claims.asked
    assert docket.claims_with_questions.leaving == {"n9"}
    docket.voided(asking("inc-a", "n1", "n2"))
    assert docket.claims_with_questions.asked == {"n3"}


def sick_nodes(site: Site, count: int) -> None:
    for name in site.fleet.layout.nodes[:count]:
        site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=name, gpu=0))


def test_no_more_is_asked_than_the_budget_would_let_start(tmp_path: Path) -> None:
    with Site(tmp_path, nodes=8, racks=2) as site:  # of each rack of four, two nodes may be out
        sick_nodes(site, 8)
        site.ticks(2)
        pending = site.pending()
        assert len(pending) == 4
        held = [each for each in site.journal.incidents() if each.state is IncidentState.OPEN]
        assert {str(each.verdict.guard) for each in held if each.verdict is not None} == {"budget"}
        assert all("more asked about" in each.story for each in held)
        for approval in pending:
            site.journal.decide(approval.id, ON_CALL, site.clock.now(), approve=True, reason="yes")
        site.ticks(3)
        assert len(site.journal.runs()) == 4, "every one that was approved could start"


def test_what_is_denied_makes_room_for_the_next_question(tmp_path: Path) -> None:
    with Site(tmp_path, nodes=8, racks=2) as site:
        sick_nodes(site, 8)
        site.ticks(2)
        first = site.pending()[0]
        site.journal.decide(first.id, ON_CALL, site.clock.now(), approve=False, reason="no")
        site.ticks(2)
        assert len(site.pending()) == 4


# What is read


@contextmanager
def lists_read() -> Iterator[Counter[str]]:
    """How often each table is read as a list: not by one row's id."""
    read: Counter[str] = Counter()

    def note(*arguments: object) -> None:
        statement = " ".join(str(arguments[2]).split())
        table = re.search(r"^SELECT .* FROM (incidents|approvals|runs|leases|silences|trips)\b(?!.*\.id = )", statement)
        if table is not None:
            read[table.group(1)] += 1

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield read
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def reads_with(folder: Path, sick: int, mode: Mode) -> dict[str, Counter[str]]:
    """Of each loop, once `sick` GPUs are in incidents and a person has silenced something else."""
    folder.mkdir()
    read: dict[str, Counter[str]] = {}
    with Site(folder, nodes=8) as site:
        site.restart(mode=mode)
        for number, name in enumerate(site.fleet.layout.nodes[: (sick + 1) // 2]):
            for each in range(min(2, sick - 2 * number)):
                site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=name, gpu=each))
        site.ticks(3)
        assert len(site.journal.incidents()) == sick
        site.let_pass(10)
        for loop in (site.operator.turn, site.operator.pursue, site.operator.announce):
            with lists_read() as read[loop.__name__]:
                loop()
    return read


@pytest.mark.parametrize("mode", [Mode.ACT, Mode.OBSERVE])
def test_every_list_is_read_as_often_for_many_incidents_as_for_one(tmp_path: Path, mode: Mode) -> None:
    one, many = reads_with(tmp_path / "one", 1, mode), reads_with(tmp_path / "many", 12, mode)
    assert one == many
    # Of runs, how many were started of the playbooks that have limits, and how many of these go on.
    assert one["turn"] == {"incidents": 2, "leases": 1, "runs": 2, "silences": 1, "trips": 1}


def test_no_number_of_incidents_hides_an_older_one(tmp_path: Path) -> None:
    """One that the turn did not know of would be opened once more."""
    with Site(tmp_path) as site:
        site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node="gpu-002", gpu=1))
        site.ticks(2)
        known = site.incident()
        later = site.clock.now() + timedelta(seconds=1)
        with site.journal.transaction() as write:
            for number in range(1000):
                other = replace(incident(gpu(f"GPU-{number}", "elsewhere"), at=later), state=IncidentState.REMEDIATING)
                write.save_incident(other)
        site.ticks(2)
        about = [each for each in site.journal.incidents(limit=2000) if each.key == known.key]
        assert [each.id for each in about] == [known.id]
        site.answer(approve=True)
        site.ticks(2)
        assert site.journal.incident(known.id).state is not IncidentState.AWAITING_APPROVAL
