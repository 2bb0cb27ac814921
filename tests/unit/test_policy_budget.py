"""How many nodes may be out at once: arithmetic that never rounds up, and counts whoever took them out."""

from __future__ import annotations

from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from healer.domain.fleet import Fleet
from healer.policy.budget import DisruptionBudget, Scope, scopes_of
from healer.policy.guards import first_verdict
from tests.unit.core_samples import AMPLE, START, cordon, nodes, plan, situation

BUDGETS = st.builds(
    DisruptionBudget,
    max_nodes=st.integers(0, 12),
    max_percent=st.floats(0, 100),
    at_least=st.integers(0, 5),
)


@pytest.mark.parametrize(
    ("budget", "size", "allowed"),
    [
        (DisruptionBudget(10, 10.0, 1), 0, 0),
        (DisruptionBudget(10, 10.0, 1), 1, 1),
        (DisruptionBudget(10, 10.0, 0), 9, 0),
        (DisruptionBudget(10, 10.0, 0), 10, 1),
        (DisruptionBudget(10, 10.0, 0), 19, 1),
        (DisruptionBudget(10, 10.0, 0), 30, 3),
        (DisruptionBudget(10, 10.0, 1), 1000, 10),
        (DisruptionBudget(10, 20.0, 2), 3, 2),
        (DisruptionBudget(2, 25.0, 1), 4, 1),
        (DisruptionBudget(1, 100.0, 5), 8, 1),
        (DisruptionBudget(0, 100.0, 5), 8, 0),
        (DisruptionBudget(100, 0.0, 0), 1000, 0),
    ],
    ids=[
        "unknown size",
        "at least one, of one",
        "rounds down to none",
        "exactly one",
        "rounds down to one",
        "10 % of 30 is 3",
        "the absolute limit",
        "the minimum over 20 % of three",
        "25 % of four",
        "the minimum is no way round the absolute limit",
        "no node at all",
        "no percent",
    ],
)
def test_the_smaller_limit_holds_rounded_down_but_at_least_the_minimum(
    budget: DisruptionBudget, size: int, allowed: int
) -> None:
    assert budget.allowed(size) == allowed


@given(budget=BUDGETS, size=st.integers(0, 5000))
def test_neither_limit_is_passed_but_by_the_minimum(budget: DisruptionBudget, size: int) -> None:
    allowed = budget.allowed(size)
    assert allowed <= budget.max_nodes
    assert allowed <= max(budget.at_least, floor(size * budget.max_percent / 100 + 1e-9))
    assert size > 0 or allowed == 0


@given(percent=st.integers(0, 100), size=st.integers(1, 5000))
def test_whole_percentages_are_exact(percent: int, size: int) -> None:
    assert DisruptionBudget(10_000, float(percent), 0).allowed(size) == size * percent // 100


def test_a_node_that_is_out_already_costs_nothing_again() -> None:
    scope = Scope("fleet", frozenset({"a", "b"}), frozenset({"a"}), DisruptionBudget(1, 100.0, 0))
    assert scope.admits(frozenset({"a"}))
    assert not scope.admits(frozenset({"b"}))
    assert not scope.admits(frozenset({"a", "b"}))


def test_a_scope_that_is_over_its_budget_admits_nothing_more() -> None:
    scope = Scope("fleet", frozenset("abcd"), frozenset("abc"), DisruptionBudget(1, 100.0, 0))
    assert not scope.admits(frozenset("d"))
    assert scope.admits(frozenset())


def test_where_no_rack_is_known_only_the_fleet_counts() -> None:
    fleet = Fleet(START, nodes("a", "b"))
    scopes = scopes_of("a", fleet, racks={}, leaving=frozenset(), fleet_budget=AMPLE, rack_budget=AMPLE)
    assert [str(scope) for scope in scopes] == ["fleet: 0 of 2 nodes out, 2 allowed"]


def test_a_rack_is_counted_by_the_nodes_that_the_scheduler_knows() -> None:
    fleet = Fleet(START, nodes("a", "b", "c", cordoned={"b": None}))
    racks = {"a": "r1", "b": "r1", "c": "r2", "gone": "r1"}
    leaving = frozenset({"gone"})
    scopes = scopes_of("a", fleet, racks=racks, leaving=leaving, fleet_budget=AMPLE, rack_budget=AMPLE)
    assert [str(scope) for scope in scopes] == [
        "fleet: 1 of 3 nodes out, 3 allowed",
        "rack r1: 1 of 2 nodes out, 2 allowed",
    ]


def test_what_is_asked_about_has_its_place_and_one_that_is_out_by_now_costs_nothing_more() -> None:
    scope = Scope("fleet", frozenset("abcd"), frozenset("a"), DisruptionBudget(2, 100.0, 0), asked=frozenset("ab"))
    assert str(scope) == "fleet: 1 of 4 nodes out, 1 more asked about, 2 allowed"
    assert scope.admits(frozenset("b"))
    assert not scope.admits(frozenset("c"))


class Admissions(RuleBasedStateMachine):
    """Plans ask one after the other while nodes fail and return; what is admitted never passes a budget."""

    @initialize(size=st.integers(1, 12), racks=st.integers(1, 4), fleet_budget=BUDGETS, rack_budget=BUDGETS)
    def begin(self, size: int, racks: int, fleet_budget: DisruptionBudget, rack_budget: DisruptionBudget) -> None:
        self.racks = {f"n{i}": f"r{i % racks}" for i in range(size)}
        self.fleet_budget, self.rack_budget = fleet_budget, rack_budget
        self.cordoned: dict[str, str] = {}  # by a run that is done
        self.leaving: set[str] = set()  # by a run that has not cordoned yet
        self.lost: set[str] = set()  # by themselves: nobody asked a budget

    @rule(data=st.data())
    def a_plan_asks(self, data: st.DataObject) -> None:
        wanted = data.draw(st.sets(st.sampled_from(sorted(self.racks)), min_size=1, max_size=3))
        asked = plan(*(cordon(name) for name in sorted(wanted)))
        fleet = Fleet(START, nodes(*self.racks, cordoned=self.cordoned, lost=tuple(self.lost)))
        where = situation(
            fleet=fleet,
            racks=self.racks,
            leaving=frozenset(self.leaving),
            fleet_budget=self.fleet_budget,
            rack_budget=self.rack_budget,
        )
        if first_verdict(asked, where) is None:
            self.leaving |= wanted

    @rule(data=st.data())
    def a_run_cordons_what_it_took(self, data: st.DataObject) -> None:
        if self.leaving:
            name = data.draw(st.sampled_from(sorted(self.leaving)))
            self.leaving.discard(name)
            self.cordoned[name] = "run-1"

    @rule(data=st.data())
    def a_node_returns(self, data: st.DataObject) -> None:
        if self.cordoned:
            del self.cordoned[data.draw(st.sampled_from(sorted(self.cordoned)))]

    @rule(data=st.data())
    def a_node_is_lost(self, data: st.DataObject) -> None:
        self.lost.add(data.draw(st.sampled_from(sorted(self.racks))))

    @invariant()
    def no_budget_was_passed_by_us(self) -> None:
        if not hasattr(self, "racks"):
            return
        taken = (self.leaving | set(self.cordoned)) - self.lost
        assert len(taken) <= self.fleet_budget.allowed(len(self.racks))
        for rack in set(self.racks.values()):
            members = {name for name, of in self.racks.items() if of == rack}
            assert len(taken & members) <= self.rack_budget.allowed(len(members))


TestAdmissions = Admissions.TestCase
