"""The reasons not to act, one by one, and the order in which they speak."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from healer.domain.breaker import Trip
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis
from healer.domain.fleet import Fleet
from healer.domain.plan import Effect, Plan
from healer.domain.playbook import Limits
from healer.domain.silence import Silenced
from healer.domain.verdict import Guard, Mode, Verdict
from healer.policy.budget import DisruptionBudget, ScopeKind
from healer.policy.guards import GUARDS, Situation, budget_line, first_verdict, is_demand, leases_of
from healer.policy.limits import Tally
from tests.unit.core_samples import (
    AMPLE,
    START,
    after,
    cap,
    cordon,
    evict,
    grouping,
    nodes,
    plan,
    rack,
    restart,
    situation,
)

DRAIN = plan()
RESTART = plan(restart())
CAP = plan(cap(), target=rack())
ONE_OF_TEN = DisruptionBudget(max_nodes=1, max_percent=10.0, at_least=1)
MINUTES = timedelta(minutes=1)


def _guard(asked: Plan, where: Situation) -> Guard | None:
    verdict = first_verdict(asked, where)
    return None if verdict is None else verdict.guard


def test_nothing_speaks_against_a_plan_in_good_order() -> None:
    assert first_verdict(DRAIN, situation()) is None
    assert first_verdict(CAP, situation()) is None


# Mode


@pytest.mark.parametrize(("mode", "guard"), [(Mode.OBSERVE, Guard.MODE), (Mode.RECOMMEND, None), (Mode.ACT, None)])
@pytest.mark.parametrize("asked", [DRAIN, CAP], ids=["drain", "cap"])
def test_nothing_acts_in_observe(mode: Mode, guard: Guard | None, asked: Plan) -> None:
    assert _guard(asked, situation(mode=mode)) is guard


# Silence

COOLING = Silenced("sil-1", "alice (slack:U024BE7LH)", after(3600), "the pumps of r1 are exchanged")


@pytest.mark.parametrize("asked", [DRAIN, CAP], ids=["drain", "cap"])
def test_what_is_silenced_is_left_alone_and_the_verdict_says_by_whom_until_when_and_why(asked: Plan) -> None:
    assert first_verdict(asked, replace(situation(), silenced=COOLING)) == Verdict(
        Guard.SILENCE,
        "silenced by alice (slack:U024BE7LH) until 2026-03-14T04:00:00Z: the pumps of r1 are exchanged",
        "sil-1 ends or is expired",
    )


# Vanished


def test_what_is_only_not_shown_any_more_takes_no_node_out_before_somebody_else_misses_it() -> None:
    vanished = replace(situation(), vanished=True)
    verdict = first_verdict(DRAIN, vanished)
    assert verdict is not None
    assert (verdict.guard, verdict.lifts) == (
        Guard.WITNESS,
        "the kernel log, the scheduler or the node's agent says so, too",
    )
    assert first_verdict(DRAIN, replace(vanished, witnesses=("the scheduler misses 1 GPUs of n1",))) is None
    assert first_verdict(CAP, vanished) is None
    assert first_verdict(DRAIN, replace(vanished, run_id="run-1")) is None


@pytest.mark.parametrize("asked", [DRAIN, CAP], ids=["drain", "cap"])
def test_a_run_that_a_person_has_paused_has_no_further_effect(asked: Plan) -> None:
    verdict = first_verdict(asked, replace(situation(run_id="run-1"), paused="alice: let me look"))
    assert verdict == Verdict(
        Guard.PAUSE, "paused by alice: let me look", "a person resumes it: healer runs resume run-1 --reason TEXT"
    )


@pytest.mark.parametrize("run_id", [None, "run-1"], ids=["before any run", "during a run"])
def test_a_silence_holds_a_run_that_is_under_way_as_well(run_id: str | None) -> None:
    assert _guard(DRAIN, replace(situation(run_id=run_id), silenced=COOLING)) is Guard.SILENCE


# Breaker

TRIP = Trip("trip-1", after(-60), "4 nodes of rack r1 would be taken out of service", ("n1", "n2", "n3", "n4"))


def test_while_the_breaker_is_open_no_node_is_taken_out_and_the_verdict_says_who_can_change_that() -> None:
    assert first_verdict(DRAIN, replace(situation(), trip=TRIP)) == Verdict(
        Guard.BREAKER,
        "open since 2026-03-14T02:59:00Z: 4 nodes of rack r1 would be taken out of service",
        "a person closes it: healer breaker reset --reason TEXT",
    )


def test_while_the_breaker_is_open_no_job_is_restarted() -> None:
    assert _guard(RESTART, situation()) is None
    assert _guard(RESTART, replace(situation(), trip=TRIP)) is Guard.BREAKER


def test_what_takes_no_node_out_goes_on_while_the_breaker_is_open() -> None:
    assert first_verdict(CAP, replace(situation(), trip=TRIP)) is None


@pytest.mark.parametrize(
    ("where", "counts"),
    [
        (situation(), True),
        (replace(situation(), trip=TRIP), True),
        (replace(situation(), leases={"node/n1": "run-9"}), True),
        (situation(fleet_budget=DisruptionBudget(0, 0.0, 0)), True),
        (situation(mode=Mode.OBSERVE), False),
        (situation(basis=Basis.LEARNT), False),
        (situation(data_age=None), False),
        (situation(fleet=Fleet(START, nodes("n2"))), False),
        (replace(situation(), silenced=COOLING), False),
    ],
    ids=["free", "breaker open", "leased", "no budget", "observe", "learnt", "not seen", "unknown node", "silenced"],
)
def test_what_waits_only_for_its_turn_counts_as_demand(where: Situation, counts: bool) -> None:  # noqa: FBT001 - a table's column
    assert is_demand(DRAIN, where) is counts
    assert not is_demand(CAP, where)


# Basis


@pytest.mark.parametrize(
    ("basis", "asked", "guard"),
    [
        (Basis.LEARNT, DRAIN, Guard.BASIS),
        (Basis.LEARNT, RESTART, Guard.BASIS),
        (Basis.LEARNT, CAP, None),
        (Basis.RULE, DRAIN, None),
        (Basis.RULE, RESTART, None),
        (Basis.RULE, CAP, None),
    ],
    ids=["score drains", "score restarts", "score caps", "rule drains", "rule restarts", "rule caps"],
)
def test_a_learnt_score_alone_takes_no_node_out_of_service_and_interrupts_no_work(
    basis: Basis, asked: Plan, guard: Guard | None
) -> None:
    assert _guard(asked, situation(basis=basis)) is guard


def test_the_verdict_says_what_a_learnt_score_may_not() -> None:
    score = situation(basis=Basis.LEARNT)
    assert str(first_verdict(DRAIN, score)).startswith("basis: a learnt score alone may not move or interrupt work")
    assert str(first_verdict(RESTART, score)).startswith("basis: a learnt score alone may not move or interrupt work")


def test_a_learnt_score_alone_may_keep_new_work_away_if_a_person_agrees() -> None:
    score, quarantine = situation(basis=Basis.LEARNT), plan(cordon("n1"))
    assert first_verdict(quarantine, score) is None
    verdict = first_verdict(replace(quarantine, needs_approval=False), score)
    assert verdict is not None
    assert (verdict.guard, verdict.message) == (
        Guard.BASIS,
        "a learnt score alone takes no node out of service unasked",
    )


# Freshness


@pytest.mark.parametrize("asked", [DRAIN, RESTART], ids=["drain", "restart"])
@pytest.mark.parametrize(
    "fleet", [Fleet(START, problem="no answer"), Fleet(after(-91), nodes("n1"))], ids=["no answer", "an old one"]
)
def test_what_costs_work_waits_for_the_scheduler(fleet: Fleet, asked: Plan) -> None:
    assert _guard(asked, situation(fleet=fleet)) is Guard.FRESHNESS


@pytest.mark.parametrize(
    ("data_age", "guard"),
    [
        (timedelta(0), None),
        (timedelta(seconds=90), None),
        (timedelta(seconds=91), Guard.FRESHNESS),
        (timedelta(days=1), Guard.FRESHNESS),
        (None, Guard.FRESHNESS),
    ],
    ids=["now", "just fresh", "just stale", "a day", "unknown"],
)
@pytest.mark.parametrize("asked", [DRAIN, CAP], ids=["drain", "cap"])
def test_stale_or_unknown_telemetry_of_the_component_permits_nothing(
    data_age: timedelta | None, guard: Guard | None, asked: Plan
) -> None:
    assert _guard(asked, situation(data_age=data_age)) is guard


def test_what_costs_no_work_is_not_held_back_by_blindness() -> None:
    ticket = plan(Effect("open a ticket", "on node n1", harmless=True))
    assert first_verdict(ticket, situation(data_age=None, fleet=Fleet(START, problem="no answer"))) is None
    assert _guard(ticket, situation(mode=Mode.OBSERVE)) is Guard.MODE
    mixed = plan(Effect("open a ticket", "on node n1", harmless=True), cap())
    assert _guard(mixed, situation(data_age=None)) is Guard.FRESHNESS


@pytest.mark.parametrize(
    ("fleet", "says"),
    [
        (Fleet(START, problem="connection refused"), "the scheduler is unknown: connection refused"),
        (Fleet(START, nodes("n1"), problem="half an answer"), "the scheduler is unknown: half an answer"),
        (Fleet(after(-91), nodes("n1")), "the scheduler was last seen 91 s ago"),
    ],
    ids=["does not answer", "answers in part", "answered long ago"],
)
def test_a_scheduler_that_is_not_known_blocks_what_takes_a_node_out(fleet: Fleet, says: str) -> None:
    verdict = first_verdict(DRAIN, situation(fleet=fleet))
    assert verdict is not None
    assert (verdict.guard, verdict.message) == (Guard.FRESHNESS, says)
    assert first_verdict(CAP, situation(fleet=fleet)) is None


def test_a_scheduler_seen_within_the_age_limit_is_known() -> None:
    assert first_verdict(DRAIN, situation(fleet=Fleet(after(-90), nodes("n1", "n2")))) is None


# Target


@pytest.mark.parametrize(
    ("fleet", "run_id", "says"),
    [
        (nodes("n2"), None, "the scheduler knows no node n1"),
        (nodes("n1", cordoned={"n1": None}), None, "n1 was cordoned by a person"),
        (nodes("n1", cordoned={"n1": None}), "run-1", "n1 was cordoned by a person"),
        (nodes("n1", cordoned={"n1": "run-2"}), "run-1", "n1 was cordoned by run-2"),
        (nodes("n1", cordoned={"n1": "run-1"}), None, "n1 was cordoned by run-1"),
        (nodes("n1", cordoned={"n1": "run-1"}), "run-1", None),
        (nodes("n1"), "run-1", None),
        (nodes("n1", lost=("n1",)), None, None),
    ],
    ids=[
        "unknown to the scheduler",
        "a person's cordon",
        "a person's cordon during a run",
        "another run's cordon",
        "some run's cordon, before any",
        "the run's own cordon",
        "not cordoned",
        "not ready",
    ],
)
def test_only_a_node_that_nobody_else_has_cordoned_is_a_target(
    fleet: dict[str, object], run_id: str | None, says: str | None
) -> None:
    verdict = first_verdict(DRAIN, situation(fleet=Fleet(START, fleet), run_id=run_id))  # type: ignore[arg-type]
    assert (verdict.message if verdict is not None else None) == says
    assert verdict is None or verdict.guard is Guard.TARGET


# Lease


def test_a_restart_takes_no_node_out_and_holds_its_job() -> None:
    job = plan(restart(), target=Component(ComponentKind.JOB, job="ns/Job/train"))
    assert leases_of(job) == ("job/ns/Job/train",)
    assert not is_demand(job, situation())
    assert budget_line(job, situation()) == "takes no node out of service"


def test_a_run_holds_its_target_and_every_node_that_it_takes_out() -> None:
    assert leases_of(DRAIN) == ("node/n1",)
    assert leases_of(CAP) == ("rack/r1",)
    both = plan(cordon("n2"), cordon("n1"), cap(), target=rack())
    assert leases_of(both) == ("node/n1", "node/n2", "rack/r1")


@pytest.mark.parametrize(
    ("leases", "run_id", "guard"),
    [
        ({"node/n1": "run-2"}, None, Guard.LEASE),
        ({"node/n1": "run-2"}, "run-1", Guard.LEASE),
        ({"node/n1": "run-1"}, "run-1", None),
        ({"node/n2": "run-2", "rack/r1": "run-2"}, None, None),
    ],
    ids=["held, before any run", "held by another run", "held by the run itself", "others are held"],
)
def test_what_another_run_holds_is_left_alone(leases: dict[str, str], run_id: str | None, guard: Guard | None) -> None:
    assert _guard(DRAIN, situation(leases=leases, run_id=run_id)) is guard


# Budget

_RACKS = {f"n{i}": f"r{i % 2}" for i in range(10)}


@pytest.mark.parametrize(
    ("out", "leaving", "run_id", "guard"),
    [
        ({}, frozenset(), None, None),
        ({"n5": None}, frozenset(), None, Guard.BUDGET),
        ({"n5": "run-2"}, frozenset(), None, Guard.BUDGET),
        ({}, frozenset({"n5"}), None, Guard.BUDGET),
        ({"n1": "run-1"}, frozenset(), "run-1", None),
        ({"n1": "run-1", "n5": None}, frozenset(), "run-1", None),
        ({}, frozenset({"n1"}), None, None),
    ],
    ids=[
        "none is out",
        "a person has one out",
        "another run has one out",
        "another run is taking one out",
        "the run's own node is out",
        "the run's own node is out, and another",
        "the same node is leaving already",
    ],
)
def test_nodes_that_are_out_count_whoever_took_them_out_and_none_counts_twice(
    out: dict[str, str | None], leaving: frozenset[str], run_id: str | None, guard: Guard | None
) -> None:
    fleet = Fleet(START, nodes(*_RACKS, cordoned=out))
    where = situation(fleet=fleet, leaving=leaving, run_id=run_id, fleet_budget=ONE_OF_TEN)
    assert _guard(DRAIN, where) is guard


def test_a_node_that_is_not_ready_has_used_the_budget() -> None:
    fleet = Fleet(START, nodes(*_RACKS, lost=("n7",)))
    verdict = first_verdict(DRAIN, situation(fleet=fleet, fleet_budget=ONE_OF_TEN))
    assert verdict == Verdict(Guard.BUDGET, "fleet: 1 of 10 nodes out, 1 allowed", "a node of fleet returns to service")


@pytest.mark.parametrize(
    ("out", "guard"), [({"n3": None}, Guard.BUDGET), ({"n2": None}, None)], ids=["same rack", "another rack"]
)
def test_a_rack_has_a_budget_of_its_own(out: dict[str, str | None], guard: Guard | None) -> None:
    fleet = Fleet(START, nodes(*_RACKS, cordoned=out))
    assert _guard(DRAIN, situation(fleet=fleet, racks=_RACKS, rack_budget=ONE_OF_TEN)) is guard


def test_a_node_of_unknown_rack_among_racked_ones_may_not_be_taken_out() -> None:
    racks = {name: rack for name, rack in _RACKS.items() if name != "n1"}
    verdict = first_verdict(DRAIN, situation(racks=racks))
    assert verdict is not None
    assert verdict.message == "rack unknown: 0 of 0 nodes out, 0 allowed"


def test_a_plan_for_several_nodes_needs_room_for_all_of_them() -> None:
    both = plan(cordon("n1"), cordon("n2"))
    two = DisruptionBudget(max_nodes=2, max_percent=100.0, at_least=0)
    assert _guard(both, situation(fleet_budget=two)) is None
    assert _guard(both, situation(fleet_budget=ONE_OF_TEN)) is Guard.BUDGET
    assert _guard(both, situation(fleet_budget=two, leaving=frozenset({"n9"}))) is Guard.BUDGET
    # They are in different racks: each rack counts only its own.
    assert _guard(both, situation(fleet_budget=two, racks=_RACKS, rack_budget=ONE_OF_TEN)) is None


def test_the_verdict_names_the_power_feed_that_is_spent() -> None:
    fleet = Fleet(START, nodes(*_RACKS, cordoned={"n2": None, "n3": "run-9"}))
    feeds = {name: "A" if int(name[1:]) < 8 else "B" for name in _RACKS}
    quarter = DisruptionBudget(max_nodes=4, max_percent=25.0, at_least=1)
    where = situation(fleet=fleet, shares={ScopeKind.FEED: feeds}, budgets={ScopeKind.FEED: quarter})
    assert first_verdict(DRAIN, where) == Verdict(
        Guard.BUDGET, "power feed A: 2 of 8 nodes out, 2 allowed", "a node of power feed A returns to service"
    )
    assert first_verdict(plan(cordon("n8")), where) is None


def test_what_takes_no_node_out_is_not_held_by_a_spent_budget() -> None:
    nothing = DisruptionBudget(max_nodes=0, max_percent=0.0, at_least=0)
    assert first_verdict(CAP, situation(fleet_budget=nothing, rack_budget=nothing)) is None


def test_the_approver_reads_what_the_plan_takes_from_which_budget() -> None:
    where = situation(racks=_RACKS, fleet_budget=ONE_OF_TEN, rack_budget=AMPLE)
    assert budget_line(DRAIN, where) == "fleet: 0 of 10 nodes out, 1 allowed; rack r1: 0 of 5 nodes out, 5 allowed"
    assert budget_line(plan(cordon("n1"), cordon("n3")), where) == budget_line(DRAIN, where), "each scope once"
    assert budget_line(CAP, where) == "takes no node out of service"


# Order


def test_the_guards_speak_in_a_fixed_order_and_each_only_for_itself() -> None:
    worst = situation(
        mode=Mode.OBSERVE,
        basis=Basis.LEARNT,
        data_age=None,
        fleet=Fleet(START, nodes("n1", "n2", cordoned={"n1": None, "n2": None})),
        leases={"node/n1": "run-2"},
        fleet_budget=DisruptionBudget(max_nodes=0, max_percent=0.0, at_least=0),
    )
    spent_limits = {"drain-node": Tally(Limits(at_once=1), active=1)}
    worst = replace(worst, silenced=COOLING, paused="alice", vanished=True, tallies=spent_limits)
    asked = plan(cordon("n1"), evict("ns/Job/x", on="n1"))
    spent = Fleet(START, nodes("n1", "n2", cordoned={"n2": None}))
    mended: list[tuple[Guard | None, Situation]] = []
    steps = [
        {},
        {"mode": Mode.ACT},
        {"paused": ""},
        {"silenced": None},
        {"basis": Basis.RULE},
        {"vanished": False},
        {"data_age": timedelta(0)},
        {"fleet": spent, "grouping": grouping(spent, {})},
        {"leases": {}},
        {"tallies": {}},
        {"budgets": dict.fromkeys(ScopeKind, AMPLE)},
    ]
    for change in steps:
        worst = replace(worst, **change)  # type: ignore[arg-type]
        mended.append((_guard(asked, worst), worst))
    assert [guard for guard, _ in mended] == [
        Guard.MODE,
        Guard.PAUSE,
        Guard.SILENCE,
        Guard.BASIS,
        Guard.WITNESS,
        Guard.FRESHNESS,
        Guard.TARGET,
        Guard.LEASE,
        Guard.LIMIT,
        Guard.BUDGET,
        None,
    ]
    assert len(GUARDS) == len(set(Guard) - {Guard.MOMENT})  # that is the plan's own


def test_a_verdict_reads_as_a_sentence_with_what_would_lift_it() -> None:
    assert str(first_verdict(DRAIN, situation(mode=Mode.OBSERVE))) == (
        "mode: mode is observe: nothing acts (lifts when mode is set to recommend or act)"
    )
