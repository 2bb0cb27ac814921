"""How many nodes may be out at once: arithmetic that never rounds up, and counts whoever took them out."""

from __future__ import annotations

from dataclasses import replace
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from healer.domain.fleet import Fleet
from healer.policy.budget import DisruptionBudget, Grouping, Scope, ScopeKind, scopes_of
from healer.policy.guards import first_verdict
from tests.unit.core_samples import AMPLE, START, cordon, grouping, nodes, plan, situation

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


EVERY_AMPLE = dict.fromkeys(ScopeKind, AMPLE)


def told(grouped: Grouping, node: str = "a", leaving: frozenset[str] = frozenset()) -> list[str]:
    return [str(scope) for scope in scopes_of(node, grouped, EVERY_AMPLE, leaving=leaving)]


@pytest.mark.parametrize("shares", [{}, {kind: {} for kind in ScopeKind}], ids=["nothing asked", "nothing known"])
def test_where_nothing_is_known_of_what_nodes_share_only_the_fleet_counts(
    shares: dict[ScopeKind, dict[str, str]],
) -> None:
    assert told(grouping(Fleet(START, nodes("a", "b")), shares)) == ["fleet: 0 of 2 nodes out, 2 allowed"]


def test_a_rack_is_counted_by_the_nodes_that_the_scheduler_knows() -> None:
    fleet = Fleet(START, nodes("a", "b", "c", cordoned={"b": None}))
    racks = {"a": "r1", "b": "r1", "c": "r2", "gone": "r1"}
    assert told(grouping(fleet, {ScopeKind.RACK: racks}), leaving=frozenset({"gone"})) == [
        "fleet: 1 of 3 nodes out, 3 allowed",
        "rack r1: 1 of 2 nodes out, 2 allowed",
    ]


def test_a_node_counts_in_its_feed_its_pool_and_every_job_that_runs_on_it_too() -> None:
    fleet = Fleet(START, nodes("a", "b", "c", cordoned={"b": "run-1"}))
    shares = {
        ScopeKind.RACK: {"a": ["r1"], "b": ["r2"], "c": ["r2"]},
        ScopeKind.FEED: {"a": ["A"], "b": ["A"], "c": ["B"]},
        ScopeKind.POOL: {"a": ["inference"], "c": ["inference"]},
        ScopeKind.JOB: {"a": ["serve", "embed"], "b": ["embed"]},
    }
    assert told(Grouping.of(fleet, shares), leaving=frozenset({"c"})) == [
        "fleet: 2 of 3 nodes out, 3 allowed",
        "rack r1: 0 of 1 nodes out, 1 allowed",
        "power feed A: 1 of 2 nodes out, 2 allowed",
        "pool inference: 1 of 2 nodes out, 2 allowed",
        "job embed: 1 of 2 nodes out, 2 allowed",
        "job serve: 0 of 1 nodes out, 1 allowed",
    ]


@pytest.mark.parametrize(
    ("kind", "unknown"),
    [
        (ScopeKind.RACK, ["rack unknown: 0 of 0 nodes out, 0 allowed"]),
        (ScopeKind.FEED, ["power feed unknown: 0 of 0 nodes out, 0 allowed"]),
        (ScopeKind.POOL, []),
        (ScopeKind.JOB, []),
    ],
    ids=["rack", "feed", "pool", "job"],
)
def test_a_node_whose_rack_or_feed_is_not_known_among_others_is_in_one_of_unknown_size(
    kind: ScopeKind, unknown: list[str]
) -> None:
    """Whereas a node without a pool is in no pool, and an idle one has no job."""
    fleet = Fleet(START, nodes("a", "b"))
    assert told(grouping(fleet, {kind: {"b": "x"}})) == ["fleet: 0 of 2 nodes out, 2 allowed", *unknown]


def test_where_only_nodes_that_the_scheduler_does_not_know_have_a_feed_nothing_of_that_feed_may_go() -> None:
    scopes = told(grouping(Fleet(START, nodes("a")), {ScopeKind.FEED: {"gone": "A"}}), node="gone")
    assert scopes[1:] == ["power feed A: 0 of 0 nodes out, 0 allowed"]


def test_what_is_asked_about_has_its_place_and_one_that_is_out_by_now_costs_nothing_more() -> None:
    scope = Scope("fleet", frozenset("abcd"), frozenset("a"), DisruptionBudget(2, 100.0, 0), asked=frozenset("ab"))
    assert str(scope) == "fleet: 1 of 4 nodes out, 1 more asked about, 2 allowed"
    assert scope.admits(frozenset("b"))
    assert not scope.admits(frozenset("c"))


class Admissions(RuleBasedStateMachine):
    """Plans ask one after the other while nodes fail and return; what is admitted never passes a budget."""

    @initialize(
        size=st.integers(1, 12),
        groups=st.fixed_dictionaries({kind: st.integers(1, 4) for kind in ScopeKind if kind is not ScopeKind.FLEET}),
        budgets=st.fixed_dictionaries(dict.fromkeys(ScopeKind, BUDGETS)),
    )
    def begin(self, size: int, groups: dict[ScopeKind, int], budgets: dict[ScopeKind, DisruptionBudget]) -> None:
        self.nodes = [f"n{i}" for i in range(size)]
        self.shares = {kind: {f"n{i}": f"{kind}-{i % many}" for i in range(size)} for kind, many in groups.items()}
        self.budgets = budgets
        self.cordoned: dict[str, str] = {}  # by a run that is done
        self.leaving: set[str] = set()  # by a run that has not cordoned yet
        self.lost: set[str] = set()  # by themselves: nobody asked a budget

    @rule(data=st.data())
    def a_plan_asks(self, data: st.DataObject) -> None:
        wanted = data.draw(st.sets(st.sampled_from(self.nodes), min_size=1, max_size=3))
        asked = plan(*(cordon(name) for name in sorted(wanted)))
        fleet = Fleet(START, nodes(*self.nodes, cordoned=self.cordoned, lost=tuple(self.lost)))
        leaving = frozenset(self.leaving)
        where = replace(situation(fleet=fleet, shares=self.shares, budgets=self.budgets), leaving=leaving)
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
        self.lost.add(data.draw(st.sampled_from(self.nodes)))

    @invariant()
    def no_budget_was_passed_by_us(self) -> None:
        if not hasattr(self, "nodes"):
            return
        taken = (self.leaving | set(self.cordoned)) - self.lost
        assert len(taken) <= self.budgets[ScopeKind.FLEET].allowed(len(self.nodes))
        for kind, of_node in self.shares.items():
            for group in set(of_node.values()):
                members = {name for name, of in of_node.items() if of == group}
                assert len(taken & members) <= self.budgets[kind].allowed(len(members)), group


TestAdmissions = Admissions.TestCase
