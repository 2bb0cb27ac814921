"""How often a playbook may be started, and how many of its runs go on at once: figures, and the time that lifts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.domain.playbook import Limits, Rate
from healer.domain.run import Start
from healer.domain.verdict import Guard, Verdict
from healer.policy.guards import first_verdict, is_demand, leases_of
from healer.policy.limits import Tally
from tests.unit.core_samples import START, after, node, plan, situation

HOUR, SIX_HOURS = timedelta(hours=1), timedelta(hours=6)
DRAIN = plan()  # of node n1
THREE_AN_HOUR = Limits(starts=Rate(3, HOUR))
ONCE_A_NODE = Limits(per_target=Rate(1, SIX_HOURS))
TWO_AT_ONCE = Limits(at_once=2)


def starts(*minutes_ago: float, on: str = "n2") -> tuple[Start, ...]:
    return tuple(Start("drain-node", f"node/{on}", after(-60 * ago)) for ago in minutes_ago)


def says(limits: Limits, *begun: Start, active: int = 0, asked: int = 0) -> tuple[str, str] | None:
    verdict = Tally(limits, begun, active, asked).verdict(DRAIN, START)
    assert verdict is None or verdict.guard is Guard.LIMIT
    return None if verdict is None else (verdict.message, verdict.lifts)


@pytest.mark.parametrize(
    ("minutes_ago", "lifts"),
    [
        ([], None),
        ([5, 10], None),
        ([5, 10, 30], "it is 2026-03-14T03:30:00Z"),
        ([30, 5, 10], "it is 2026-03-14T03:30:00Z"),
        ([5, 10, 60], None),
        ([5, 10, 59], "it is 2026-03-14T03:01:00Z"),
        ([5, 10, 30, 40, 50], "it is 2026-03-14T03:30:00Z"),
    ],
    ids=["none", "fewer", "as many", "in any order", "one just long enough ago", "one not quite", "more than allowed"],
)
def test_starts_within_the_time_count_and_the_verdict_says_when_the_next_may_be(
    minutes_ago: list[float], lifts: str | None
) -> None:
    said = says(THREE_AN_HOUR, *starts(*minutes_ago))
    counted = len([ago for ago in minutes_ago if ago < 60])
    assert said == (None if lifts is None else (f"{counted} of 3 runs of drain-node within 1h", lifts))


def test_on_one_target_only_what_was_started_on_it_counts() -> None:
    assert says(ONCE_A_NODE, *starts(1, 2, 3, on="n2")) is None
    assert says(ONCE_A_NODE, *starts(60, on="n1"), *starts(1, on="n2")) == (
        "1 of 1 runs of drain-node on node n1 within 6h",
        "it is 2026-03-14T08:00:00Z",
    )


def test_of_runs_that_have_not_ended_no_more_go_on_at_once() -> None:
    assert says(TWO_AT_ONCE, *starts(1, 2, 3), active=1) is None
    assert says(TWO_AT_ONCE, active=2) == ("2 of 2 runs of drain-node at once", "one of them ends")


@pytest.mark.parametrize(
    ("limits", "begun", "active", "said"),
    [
        (THREE_AN_HOUR, [5], 0, None),
        (
            THREE_AN_HOUR,
            [5, 10],
            0,
            ("2 of 3 runs of drain-node within 1h, 1 more asked about", "a question about one is answered"),
        ),
        (
            THREE_AN_HOUR,
            [5, 10, 20],
            0,
            ("3 of 3 runs of drain-node within 1h, 1 more asked about", "it is 2026-03-14T03:40:00Z"),
        ),
        (TWO_AT_ONCE, [], 0, None),
        (
            TWO_AT_ONCE,
            [],
            1,
            (
                "1 of 2 runs of drain-node at once, 1 more asked about",
                "one of them ends, or a question about one is answered",
            ),
        ),
        (
            Limits(at_once=1),
            [],
            0,
            ("0 of 1 runs of drain-node at once, 1 more asked about", "a question about one is answered"),
        ),
        (ONCE_A_NODE, [], 0, None),
    ],
    ids=[
        "room for both",
        "the question takes the last start",
        "all starts are taken",
        "room for both at once",
        "the question takes the last place",
        "only a question",
        "on one target there is one question anyway",
    ],
)
def test_a_question_has_its_place_so_that_its_answer_finds_room(
    limits: Limits, begun: Sequence[float], active: int, said: tuple[str, str] | None
) -> None:
    assert says(limits, *starts(*begun), active=active, asked=1) == said


def test_of_several_limits_each_holds() -> None:
    every = Limits(THREE_AN_HOUR.starts, ONCE_A_NODE.per_target, 2)
    assert says(every, *starts(5, 10), active=1) is None
    assert says(every, *starts(5, 10, 15), active=1) is not None
    assert says(every, *starts(90, on="n1"), active=1) is not None
    assert says(every, *starts(5, 10), active=2) is not None
    assert every.looks_back == SIX_HOURS
    assert TWO_AT_ONCE.looks_back == timedelta(0)


@given(
    begun=st.lists(st.integers(0, 7200), max_size=12),
    most=st.integers(1, 5),
)
def test_when_the_time_has_come_that_the_verdict_names_nothing_speaks_against_one_more(
    begun: list[int], most: int
) -> None:
    tally = Tally(Limits(starts=Rate(most, HOUR)), starts(*(ago / 60 for ago in begun)))
    verdict = tally.verdict(DRAIN, START)
    within = len([ago for ago in begun if ago < 3600])
    assert (verdict is not None) is (within >= most)
    if verdict is not None:
        seconds = next(s for s in range(3601) if verdict.lifts == f"it is {after(s):%Y-%m-%dT%H:%M:%SZ}")
        assert tally.verdict(DRAIN, after(seconds)) is None
        assert tally.verdict(DRAIN, after(seconds - 1)) is not None


@given(st.lists(st.integers(1, 900), max_size=30), st.integers(1, 4))
def test_whatever_waits_no_stretch_of_the_time_sees_more_starts_than_allowed(gaps: list[int], most: int) -> None:
    tally, now, begun = Tally(Limits(starts=Rate(most, HOUR))), START, []
    for gap in gaps:
        now += timedelta(seconds=gap)
        if tally.verdict(DRAIN, now) is None:
            tally = tally.with_start(Start("drain-node", "node/n1", now))
            begun.append(now)
    for first in begun:
        assert len([at for at in begun if first <= at < first + HOUR]) <= most


# As a guard

SPENT = Tally(Limits(at_once=1), active=1)


def test_a_spent_limit_holds_a_start_back_and_only_that_playbook_s() -> None:
    where = replace(situation(), tallies={"drain-node": SPENT})
    assert first_verdict(DRAIN, where) == Verdict(Guard.LIMIT, "1 of 1 runs of drain-node at once", "one of them ends")
    assert first_verdict(replace(DRAIN, playbook="reset-gpu"), where) is None


def test_a_run_that_has_begun_is_not_stopped_by_what_others_have_begun_since() -> None:
    where = replace(situation(run_id="run-1"), tallies={"drain-node": SPENT})
    assert first_verdict(DRAIN, where) is None


def test_what_only_a_limit_holds_back_counts_as_demand() -> None:
    assert is_demand(DRAIN, replace(situation(), tallies={"drain-node": SPENT}))


# Locks


def test_a_run_holds_its_locks_beside_its_target() -> None:
    locked = replace(DRAIN, locks=("firmware", "loop-r1", "firmware"))
    assert leases_of(locked) == ("lock/firmware", "lock/loop-r1", "node/n1")


@pytest.mark.parametrize(
    ("holder", "run_id", "held"),
    [("run-2", None, True), ("run-2", "run-1", True), ("run-1", "run-1", False)],
    ids=["before any run", "by another run", "by the run itself"],
)
def test_two_playbooks_that_share_a_lock_never_run_at_once(holder: str, run_id: str | None, held: bool) -> None:  # noqa: FBT001 - a table's column
    """However far apart their targets are."""
    elsewhere = replace(plan(target=node("n9")), playbook="flash-firmware", locks=("firmware",))
    verdict = first_verdict(elsewhere, situation(leases={"lock/firmware": holder, "node/n3": holder}, run_id=run_id))
    expected = Verdict(Guard.LEASE, f"lock/firmware is held by {holder}", f"{holder} ends") if held else None
    assert verdict == expected
