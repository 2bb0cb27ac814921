"""What is a storm: too many nodes at once, or too many that share something."""

from __future__ import annotations

from collections.abc import Mapping
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


def storm(
    *asked: list[Demand],
    fleet: int = 20,
    reset_at: datetime | None = None,
    sizes: Mapping[str, int] | None = None,
    rule: BreakerRule = RULE,
) -> Storm | None:
    every = [demand for part in asked for demand in part]
    return storm_in(every, rule, fleet=fleet, now=START, reset_at=reset_at, sizes=sizes or {})


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


_ONE_EACH = {f"rack r{number}": 8 for number in range(5)}


def test_fewer_nodes_that_share_a_rack_are_a_storm_and_it_says_what_they_share() -> None:
    rule_allows = 1000
    apart = [Demand(f"n{number}", after(-60), (f"rack r{number}",)) for number in range(5)]
    assert storm(apart, fleet=rule_allows) is None
    of_rack = demands("m1", "m2", "m3", shares=("rack r9", "feed A"))
    found = storm(apart, of_rack, fleet=rule_allows, sizes={"rack r9": 8, "feed A": 64, **_ONE_EACH})
    assert found is not None
    assert found.reason == (
        "3 nodes of rack r9 would be taken out of service for what began within 10 minutes,"
        " what they share is the suspect (3 of the 8 that have it, 5 of the 992 others): m1, m2, m3"
    )


def test_what_most_nodes_share_is_named() -> None:
    in_rack = demands("m1", "m2", "m3", shares=("rack r9", "feed A"))
    found = storm(in_rack, demands("m4", shares=("feed A",)), fleet=1000)
    assert found is not None
    assert found.reason.startswith("4 nodes of feed A ")


def test_the_common_cause_can_be_left_out() -> None:
    rule = BreakerRule(RULE.nodes, 0, RULE.within)
    of_one_rack = demands("m1", "m2", "m3", shares=("rack r9",))
    assert storm(of_one_rack, fleet=1000, rule=rule) is None


def sharing(count: int, share: str) -> list[Demand]:
    """So many nodes that have something in common, each with another rack."""
    return [Demand(f"{share} {number}", after(-60), (share, f"rack {share} {number}")) for number in range(count)]


OLD, NEW = "driver 570.12", "driver 580.65"


@pytest.mark.parametrize(
    ("of_new", "of_old", "size", "suspect"),
    [
        (4, 0, 50, True),
        (4, 0, 250, True),
        (4, 0, 251, False),
        (4, 0, 500, False),
        (2, 0, 50, False),
        (4, 4, 50, True),
        (3, 3, 125, True),
        (3, 4, 125, False),
        (3, 4, 100, True),
        (3, 6, 100, False),
    ],
    ids=[
        "a tenth of the fleet has it",
        "half of the fleet has it",
        "more than half has it",
        "everybody has it",
        "too few",
        "nine times as often as others",
        "three times as often as others",
        "hardly more often than others",
        "clearly more often, though more others fail",
        "not clearly more often",
    ],
)
def test_what_nodes_share_is_the_suspect_only_if_it_tells_them_from_others(
    of_new: int,
    of_old: int,
    size: int,
    suspect: bool,  # noqa: FBT001 - a table's column
) -> None:
    sizes = {NEW: size, OLD: 500 - size}
    found = storm(sharing(of_new, NEW), sharing(of_old, OLD), fleet=500, sizes=sizes)
    assert (found is not None) is suspect
    assert found is None or f"of {NEW} would be taken out" in found.reason


def test_of_what_explains_as_many_nodes_that_is_named_which_fewer_others_have() -> None:
    both = demands("m1", "m2", "m3", shares=(NEW, "rack r9"))
    found = storm(both, fleet=500, sizes={NEW: 50, "rack r9": 8})
    assert found is not None
    assert "3 nodes of rack r9 " in found.reason


def test_a_share_of_unknown_size_is_taken_for_as_small_as_what_was_seen_of_it() -> None:
    found = storm(demands("m1", "m2", "m3", shares=("switch s1",)), fleet=500)
    assert found is not None
    assert "3 of the 3 that have it, 0 of the 497 others" in found.reason


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
        fewer = storm(every[:count], fleet=fleet, reset_at=reset_at)
        more = storm(every[: count + 1], fleet=fleet, reset_at=reset_at)
        assert fewer is None or (more is not None and set(fewer.nodes) <= set(more.nodes))
