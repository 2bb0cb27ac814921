"""What is a storm: too many nodes at once, or too many that share something."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.policy.breaker import BreakerRule, Demand, Storm, storm_in
from healer.policy.budget import DisruptionBudget
from tests.unit.core_samples import START, after

RULE = BreakerRule(DisruptionBudget(max_nodes=10, max_percent=5.0, at_least=3), 3, timedelta(minutes=10))


def demands(*nodes: str, seconds: float = -60, shares: tuple[str, ...] = ()) -> list[Demand]:
    return [Demand(node, after(seconds), shares) for node in nodes]


def storm(*asked: list[Demand], fleet: int = 20, reset_at: datetime | None = None) -> Storm | None:
    every = [demand for part in asked for demand in part]
    return storm_in(every, RULE, fleet=fleet, now=START, reset_at=reset_at)


def test_more_nodes_than_allowed_are_a_storm_and_it_names_them_with_the_figures() -> None:
    assert storm(demands("n1", "n2", "n3")) is None
    assert storm(demands("n4", "n2", "n3", "n1")) == Storm(
        "4 nodes of 20 would be taken out of service for what began within 10 minutes, 3 are allowed: n1, n2, n3, n4",
        ("n1", "n2", "n3", "n4"),
    )


def test_a_large_fleet_allows_more_up_to_the_absolute_figure() -> None:
    ten = demands(*(f"n{number:02}" for number in range(10)))
    assert storm(ten, fleet=1000) is None
    found = storm(ten, demands("n10"), fleet=1000)
    assert found is not None
    assert found.reason.endswith("10 are allowed: n00, n01, n02, n03, n04 and 6 more")
    assert len(found.nodes) == 11


def test_a_fleet_of_unknown_size_allows_nothing() -> None:
    assert storm(demands("n1"), fleet=0) is not None
    assert storm(fleet=0) is None


def test_two_faults_of_one_node_are_one_node() -> None:
    assert storm(demands("n1", "n1", "n2", "n3", "n2")) is None


@pytest.mark.parametrize(("seconds", "counts"), [(-600, False), (-599, True), (0, True)])
def test_what_began_longer_ago_does_not_count(seconds: float, counts: bool) -> None:  # noqa: FBT001 - a table's column
    found = storm(demands("n1", "n2", "n3"), demands("n4", seconds=seconds))
    assert (found is not None) is counts


def test_what_had_begun_when_a_person_closed_the_breaker_does_not_open_it_again() -> None:
    known = demands("n1", "n2", "n3", "n4", seconds=-120)
    assert storm(known, reset_at=after(-120)) is None
    assert storm(known, demands("n5", "n6", "n7", seconds=-60), reset_at=after(-120)) is None
    assert storm(known, demands("n5", "n6", "n7", "n8", seconds=-60), reset_at=after(-120)) is not None


def test_fewer_nodes_that_share_a_rack_are_a_storm_and_it_says_what_they_share() -> None:
    rule_allows = 1000
    apart = [Demand(f"n{number}", after(-60), (f"rack r{number}",)) for number in range(5)]
    assert storm(apart, fleet=rule_allows) is None
    found = storm(apart, demands("m1", "m2", "m3", shares=("rack r9", "feed A")), fleet=rule_allows)
    assert found is not None
    assert found.reason == (
        "3 nodes of feed A would be taken out of service for what began within 10 minutes,"
        " what they share is the suspect: m1, m2, m3"
    )


def test_what_most_nodes_share_is_named() -> None:
    in_rack = demands("m1", "m2", "m3", shares=("rack r9", "feed A"))
    found = storm(in_rack, demands("m4", shares=("feed A",)), fleet=1000)
    assert found is not None
    assert found.reason.startswith("4 nodes of feed A ")


def test_the_common_cause_can_be_left_out() -> None:
    rule = BreakerRule(RULE.nodes, 0, RULE.within)
    of_one_rack = demands("m1", "m2", "m3", shares=("rack r9",))
    assert storm_in(of_one_rack, rule, fleet=1000, now=START, reset_at=None) is None


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(-1200, 0)), max_size=60),
    st.integers(1, 500),
    st.one_of(st.none(), st.integers(-1200, 0)),
)
def test_more_demand_never_closes_what_less_has_opened(
    wanted: list[tuple[int, int]], fleet: int, reset: int | None
) -> None:
    every = [Demand(f"n{node}", after(seconds)) for node, seconds in wanted]
    reset_at = None if reset is None else after(reset)
    for count in range(len(every)):
        fewer = storm_in(every[:count], RULE, fleet=fleet, now=START, reset_at=reset_at)
        more = storm_in(every[: count + 1], RULE, fleet=fleet, now=START, reset_at=reset_at)
        assert fewer is None or (more is not None and set(fewer.nodes) <= set(more.nodes))
