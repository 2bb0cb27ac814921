"""A fault that outlives its incident is not new; one that went away by itself and is soon back is the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.domain.finding import Health
from healer.domain.incident import IncidentState
from healer.policy.correlation import REOPENS_WITHIN
from tests.unit.core_samples import CLEAR_AFTER, START, after, finding, found, incident, plan
from tests.unit.lives import GPU, HEALTHY, NOT_JUDGED, Life


@pytest.mark.parametrize("state", [IncidentState.RESOLVED, IncidentState.ESCALATED])
def test_a_fault_that_outlives_its_incident_opens_no_other(state: IncidentState) -> None:
    life = Life(incident(GPU))
    life.become(state)
    for seconds in range(0, 3600, 30):
        life.turn(seconds, found(finding(GPU, reason=f"seen at {seconds}")))
    assert life.only().state is state
    assert life.only().reasons == ("2 uncorrectable memory errors",)


@pytest.mark.parametrize(
    ("state", "run_id"),
    [(IncidentState.RESOLVED, "run-1"), (IncidentState.ESCALATED, None)],
    ids=["after a remedy", "after a person was called"],
)
def test_a_fault_that_went_away_after_the_end_and_comes_back_is_a_new_incident(
    state: IncidentState, run_id: str | None
) -> None:
    life = Life(replace(incident(GPU, at=after(-60)), run_id=run_id))
    life.become(state)
    life.turn(0, found(finding(GPU)))
    life.turn(30, HEALTHY)
    life.turn(150, HEALTHY)
    assert (life.only().state, life.only().persists) == (state, False)
    life.turn(180, found(finding(GPU)))
    assert sorted(each.state for each in life.incidents.values()) == sorted([state, IncidentState.OPEN])


def test_a_fault_that_went_away_by_itself_and_is_soon_back_is_the_same_incident() -> None:
    life = Life()
    life.turn(0, found(finding(GPU, health=Health.FAILED, reason="first")))
    life.turn(30, HEALTHY)
    life.turn(150, HEALTHY)
    assert life.only().state is IncidentState.RESOLVED
    life.turn(180, found(finding(GPU, health=Health.DEGRADED, reason="second")))
    again = life.only()
    assert (again.state, again.opened_at, again.changed_at) == (IncidentState.OPEN, START, after(180))
    assert (again.resolved_at, again.healthy_since, again.gone) == (None, None, False)
    assert (again.reasons, again.health, again.reopened) == (("second",), Health.FAILED, 1)
    assert again.story == "back after it went away by itself, time 1"


@pytest.mark.parametrize(
    ("last_healthy", "incidents"),
    [(30 + 1799, 1), (30 + 1800, 2)],
    ids=["within half an hour of being healthy again", "after it"],
)
def test_for_half_an_hour_a_fault_that_is_back_is_the_same_incident_and_then_a_new_one(
    last_healthy: int, incidents: int
) -> None:
    life = Life()
    life.turn(0, found(finding(GPU)))
    for seconds in (*range(30, last_healthy, 60), last_healthy):
        life.turn(seconds, HEALTHY)
    assert life.only().persists == (incidents == 1)
    life.turn(last_healthy + 30, found(finding(GPU)))
    assert len(life.incidents) == incidents
    assert [each.reopened for each in life.incidents.values() if not each.state.ended] == [2 - incidents]


def test_what_a_person_was_asked_or_a_run_has_done_before_is_not_carried_into_its_next_time() -> None:
    ladder = replace(incident(GPU), next_playbook="firmly", line="run-1")
    asked = replace(ladder, approval_id="apr-1", plan=plan(), jobs=("j9",))
    life = Life(replace(asked, state=IncidentState.AWAITING_APPROVAL))
    life.turn(0, HEALTHY)
    life.turn(120, HEALTHY)
    life.turn(150, found(finding(GPU)))
    again = life.only()
    assert (again.state, again.approval_id, again.plan) == (IncidentState.OPEN, None, None)
    assert (again.next_playbook, again.line) == ("", "run-1"), "what a run has kept in its name is still its"
    assert again.jobs == ("j9", "j1"), "whom it has hit so far is kept"


def test_each_time_that_it_comes_back_it_has_to_be_healthy_for_twice_as_long() -> None:
    life, seconds = Life(), 0.0
    for times, needed in enumerate([120, 240, 480, 960, 960 * 2, 960 * 4, 960 * 4]):
        life.turn(seconds, found(finding(GPU)))
        assert (life.only().state, life.only().reopened) == (IncidentState.OPEN, times)
        healthy_from = seconds + 30
        for seconds in range(int(healthy_from), int(healthy_from) + needed, 60):
            life.turn(seconds, HEALTHY)
            assert life.only().state is IncidentState.OPEN
        seconds = healthy_from + needed
        life.turn(seconds, HEALTHY)
        assert life.only().state is IncidentState.RESOLVED
        seconds += 30


def test_a_fault_that_only_fell_silent_after_the_end_is_still_the_same() -> None:
    life = Life(incident(GPU))
    life.become(IncidentState.ESCALATED)
    life.turn(0, found(finding(GPU)))
    life.turn(3600, NOT_JUDGED)
    life.turn(7200, found(finding(GPU)))
    assert life.only().persists


def test_a_pause_shorter_than_the_time_to_clear_is_no_end_of_a_fault_that_persists() -> None:
    life = Life(incident(GPU))
    life.become(IncidentState.ESCALATED)
    life.turn(0, HEALTHY)
    life.turn(119, HEALTHY)
    life.turn(120, found(finding(GPU)))
    assert life.only().persists
    assert life.only().healthy_since is None


_TURN = timedelta(minutes=1)
_MOST_DOUBLINGS = 5


@st.composite
def _histories(draw: st.DrawFn) -> list[str]:
    """What is seen turn after turn, in spells: short ones that flap, and long ones in which things end."""
    seen = st.sampled_from(["found", "healthy", "silent"])
    spells = draw(st.lists(st.tuples(seen, st.integers(1, 4) | st.integers(28, 36)), min_size=1, max_size=8))
    return [each for each, turns in spells for _ in range(turns)]


def _healthy_for(seen: Iterable[str]) -> timedelta:
    """For how long the newest observations were all healthy."""
    count = 0
    for each in seen:
        count = count + 1 if each == "healthy" else 0
    return _TURN * max(count - 1, 0)


@settings(deadline=None, max_examples=50)
@given(history=_histories())
def test_whatever_is_seen_an_incident_ends_and_comes_back_exactly_by_unbroken_observed_health(
    history: list[str],
) -> None:
    told = {"found": found(finding(GPU)), "healthy": HEALTHY, "silent": NOT_JUDGED}
    life = Life(incident(GPU, at=after(-60)))
    (first,) = life.incidents
    ended, stands, times, since = False, True, 0, 0
    for turn, seen in enumerate(history):
        life.turn(_TURN.total_seconds() * turn, told[seen])
        healthy = _healthy_for(history[: turn + 1])
        if not ended:
            ended, since = healthy >= CLEAR_AFTER * 2 ** min(times, _MOST_DOUBLINGS), turn
        elif stands and seen == "found":
            ended, times = False, times + 1
        elif healthy >= REOPENS_WITHIN or (seen == "silent" and _TURN * (turn - since) >= REOPENS_WITHIN):
            stands = False
        same = life.incidents[first]
        assert (same.state is IncidentState.RESOLVED, same.persists, same.reopened) == (ended, stands, times)
        assert sum(not each.state.ended for each in life.incidents.values()) <= 1
        assert len(life.incidents) == 1 or not stands
