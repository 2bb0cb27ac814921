"""One fault is one incident, from the first finding to the time that its component was seen healthy again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis, Evidence, FailureMode, Finding, Findings, Health, Report
from healer.domain.incident import Incident, IncidentState, Severity
from healer.domain.playbook import ResolvesWhen
from healer.domain.verdict import Guard, Verdict
from healer.policy.correlation import correlate
from tests.unit.core_samples import CLEAR_AFTER, ECC, START, after, finding, found, frame, gpu, incident, judged, plan

GPU = gpu("A")
HEALTHY = Findings((), (judged(Health.HEALTHY),))
NOT_JUDGED = Findings((), (judged(Health.UNKNOWN),))


class Life:
    """The incidents of one GPU as the turns go by; what `correlate` returns replaces what was there."""

    def __init__(self, *incidents: Incident) -> None:
        self.incidents = {each.id: each for each in incidents}
        self._looked_at: float | None = None

    def turn(self, seconds: float, findings: Findings, *, gone: bool = False) -> tuple[Incident, ...]:
        present: tuple[Component, ...] = () if gone else (GPU,)
        live = [each for each in self.incidents.values() if not each.state.ended or each.persists]
        before = () if self._looked_at is None else (self._looked_at - seconds,)
        seen = frame(*present, at=after(seconds), times=[*before, 0.0])
        self._looked_at = seconds
        changed = correlate(live, findings, seen, clear_after=CLEAR_AFTER)
        self.incidents |= {each.id: each for each in changed}
        return changed

    def become(self, state: IncidentState, *, resolves_when: ResolvesWhen | None = None) -> None:
        """What the operator does between turns."""
        known = plan(resolves_when=resolves_when) if resolves_when is not None else None
        self.incidents = {each.id: replace(each, state=state, plan=known) for each in self.incidents.values()}

    def only(self) -> Incident:
        (one,) = self.incidents.values()
        return one


def test_a_finding_opens_an_incident_that_says_what_was_found() -> None:
    life = Life()
    life.turn(0, found(finding(GPU, reason="2 errors")))
    assert life.only().state is IncidentState.OPEN
    assert (life.only().failure_mode, life.only().component, life.only().reasons) == (ECC, GPU, ("2 errors",))
    assert life.only().opened_at == START


def test_the_same_fault_found_again_and_again_stays_one_incident() -> None:
    life = Life()
    for seconds in range(0, 600, 30):
        life.turn(seconds, found(finding(GPU)))
    assert life.only().opened_at == START


def test_replaying_the_same_history_gives_the_same_ids() -> None:
    first, second = Life(), Life()
    first.turn(0, found(finding(GPU)))
    second.turn(0, found(finding(GPU)))
    assert first.only().id == second.only().id


@pytest.mark.parametrize(
    "other",
    [finding(gpu("B")), finding(GPU, mode=FailureMode.GPU_ANOMALY)],
    ids=["another component", "another failure mode"],
)
def test_another_component_or_another_failure_mode_is_another_incident(other: Finding) -> None:
    life = Life()
    life.turn(0, found(finding(GPU)))
    life.turn(30, found(finding(GPU), other))
    assert len(life.incidents) == 2


def test_a_gpu_whose_labels_churn_keeps_its_incident() -> None:
    life = Life()
    life.turn(0, found(finding(GPU)))
    moved = replace(GPU, node="n9", job="j2", gpu="5")
    life.turn(30, found(finding(moved)))
    assert life.only().component == moved


def test_the_worst_health_and_score_stay_and_what_convinced_is_kept() -> None:
    life = Life()
    evidence = (Evidence("gpu_ecc_dbe_volatile_total", 2.0, "", START),)
    life.turn(0, found(replace(finding(GPU, health=Health.FAILED, score=0.9, reason="2 errors"), evidence=evidence)))
    life.turn(30, found(finding(GPU, health=Health.DEGRADED, score=0.4, reason="1 error")))
    assert (life.only().health, life.only().severity, life.only().score) == (Health.FAILED, Severity.CRITICAL, 0.9)
    assert life.only().reasons == ("2 errors",)
    assert life.only().evidence == evidence


def test_what_is_told_is_renewed_when_it_has_become_worse_and_every_few_minutes() -> None:
    life = Life()
    life.turn(0, found(finding(GPU, health=Health.DEGRADED, reason="1 error")))
    life.turn(30, found(finding(GPU, health=Health.DEGRADED, reason="2 errors")))
    assert life.only().reasons == ("1 error",)
    life.turn(60, found(finding(GPU, health=Health.FAILED, reason="1000 errors")))
    assert life.only().reasons == ("1000 errors",)
    life.turn(359, found(finding(GPU, health=Health.FAILED, reason="1001 errors")))
    assert life.only().reasons == ("1000 errors",)
    life.turn(360, found(finding(GPU, health=Health.FAILED, reason="1002 errors")))
    assert life.only().reasons == ("1002 errors",)


def test_a_rule_that_confirms_a_learnt_score_becomes_the_basis_and_stays_it() -> None:
    life = Life()
    life.turn(0, found(finding(GPU, basis=Basis.LEARNT)))
    assert life.only().basis is Basis.LEARNT
    life.turn(30, found(finding(GPU, basis=Basis.RULE)))
    life.turn(60, found(finding(GPU, basis=Basis.LEARNT)))
    assert life.only().basis is Basis.RULE


@pytest.mark.parametrize("order", [1, -1], ids=["rule first", "model first"])
def test_of_two_that_find_the_same_the_worse_counts_and_of_two_alike_the_rule(order: int) -> None:
    alike = [finding(GPU, reason="rule"), finding(GPU, basis=Basis.LEARNT, reason="model")][::order]
    life = Life()
    life.turn(0, found(*alike))
    assert (life.only().basis, life.only().reasons) == (Basis.RULE, ("rule",))
    unlike = [finding(GPU, health=Health.DEGRADED, reason="mild"), finding(GPU, reason="bad")][::order]
    other = Life()
    other.turn(30, found(*unlike))
    assert other.only().reasons == ("bad",)


def test_an_incident_that_did_not_change_is_not_returned() -> None:
    life = Life()
    life.turn(0, found(finding(GPU)))
    assert life.turn(30, found(finding(GPU))) == ()


# Ending


def test_a_component_observed_healthy_for_long_enough_ends_its_incident() -> None:
    life = Life()
    life.turn(0, found(finding(GPU)))
    life.turn(30, HEALTHY)
    life.turn(149, HEALTHY)
    assert life.only().state is IncidentState.OPEN
    life.turn(150, HEALTHY)
    assert life.only().state is IncidentState.RESOLVED
    assert (life.only().resolved_at, life.only().healthy_since) == (after(150), after(30))
    assert life.only().story == "it went away by itself: observed healthy since 03:00:30Z"
    assert life.only().gone


def test_a_question_to_a_person_ends_with_its_incident_and_its_verdict() -> None:
    verdict = Verdict(Guard.BUDGET, "fleet: 1 of 10 out", "a node returns")
    life = Life(replace(incident(GPU), state=IncidentState.AWAITING_APPROVAL, verdict=verdict))
    life.turn(0, HEALTHY)
    life.turn(120, HEALTHY)
    assert life.only().state is IncidentState.RESOLVED
    assert life.only().verdict is None


@pytest.mark.parametrize("silent", [Findings(), NOT_JUDGED], ids=["nobody judged it", "judged unknown"])
def test_silence_clears_nothing_however_long_it_lasts(silent: Findings) -> None:
    life = Life(incident(GPU))
    for seconds in (30, 3600, 86400):
        life.turn(seconds, silent)
    assert life.only().state is IncidentState.OPEN


def test_a_component_that_left_the_telemetry_is_unknown_not_healthy() -> None:
    life = Life(incident(GPU))
    for seconds in (30, 3600, 86400):
        life.turn(seconds, Findings((), (judged(),)), gone=True)
    assert life.only().state is IncidentState.OPEN


@pytest.mark.parametrize("broken_by", [NOT_JUDGED, found(finding(GPU))], ids=["a turn without data", "another finding"])
def test_the_healthy_time_starts_again_after_every_interruption(broken_by: Findings) -> None:
    life = Life(incident(GPU))
    life.turn(0, HEALTHY)
    life.turn(100, broken_by)
    assert life.only().healthy_since is None
    life.turn(130, HEALTHY)
    life.turn(249, HEALTHY)
    assert life.only().state is IncidentState.OPEN
    life.turn(250, HEALTHY)
    assert life.only().state is IncidentState.RESOLVED


def test_flapping_neither_ends_the_incident_nor_opens_another() -> None:
    life = Life()
    for turn in range(40):
        life.turn(30 * turn, found(finding(GPU)) if turn % 3 == 0 else HEALTHY)
    assert life.only().state is IncidentState.OPEN


def test_a_remedy_that_is_running_ends_before_its_incident() -> None:
    life = Life(incident(GPU))
    life.become(IncidentState.REMEDIATING, resolves_when=ResolvesWhen.HEALTHY)
    for seconds in range(0, 3601, 60):
        life.turn(seconds, HEALTHY)
    assert life.only().state is IncidentState.REMEDIATING
    life.become(IncidentState.VERIFYING, resolves_when=ResolvesWhen.HEALTHY)
    life.turn(3630, HEALTHY)
    assert life.only().state is IncidentState.RESOLVED
    assert life.only().story.startswith("remedied: observed healthy since")


def test_what_must_be_contained_is_verified_in_the_cluster_and_not_by_telemetry() -> None:
    life = Life(incident(GPU))
    life.become(IncidentState.VERIFYING, resolves_when=ResolvesWhen.CONTAINED)
    life.turn(0, HEALTHY)
    life.turn(3600, HEALTHY)
    assert life.only().state is IncidentState.VERIFYING


def test_a_verification_whose_plan_is_unknown_is_not_ended_by_telemetry() -> None:
    life = Life(replace(incident(GPU), state=IncidentState.VERIFYING))
    life.turn(0, HEALTHY)
    life.turn(3600, HEALTHY)
    assert life.only().state is IncidentState.VERIFYING


def test_only_the_axis_of_its_own_kind_says_whether_a_component_is_healthy() -> None:
    racks_are_fine = Findings((), (judged(Health.HEALTHY, kind=ComponentKind.RACK),))
    life = Life(incident(GPU))
    life.turn(0, racks_are_fine)
    life.turn(3600, racks_are_fine)
    assert life.only().healthy_since is None


# A remedy that does not last


@pytest.mark.parametrize(
    ("seen_before", "found_at", "state"),
    [
        (None, 119, IncidentState.VERIFYING),
        (None, 120, IncidentState.OPEN),
        (HEALTHY, 60, IncidentState.OPEN),
        (NOT_JUDGED, 60, IncidentState.VERIFYING),
    ],
    ids=["telemetry may still lag", "still there when it should be gone", "gone and back", "silent and back"],
)
def test_a_fault_that_its_remedy_did_not_end_is_open_again(
    seen_before: Findings | None, found_at: float, state: IncidentState
) -> None:
    healing = plan(resolves_when=ResolvesWhen.HEALTHY)
    life = Life(replace(incident(GPU), state=IncidentState.VERIFYING, plan=healing, run_id="run-1"))
    if seen_before is not None:
        life.turn(30, seen_before)
    life.turn(found_at, found(finding(GPU)))
    assert life.only().state is state
    assert life.only().run_id == ("run-1" if state is IncidentState.VERIFYING else None)


def test_a_contained_fault_is_still_there_and_does_not_open_its_incident_again() -> None:
    life = Life(incident(GPU))
    life.become(IncidentState.VERIFYING, resolves_when=ResolvesWhen.CONTAINED)
    for seconds in (30, 300, 3000):
        life.turn(seconds, found(finding(GPU)))
    assert life.only().state is IncidentState.VERIFYING


# After the end


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
    life.turn(0, found(finding(GPU, reason="first")))
    life.turn(30, HEALTHY)
    life.turn(150, HEALTHY)
    assert life.only().state is IncidentState.RESOLVED
    life.turn(1800, found(finding(GPU, reason="second")))
    again = life.only()
    assert (again.state, again.opened_at, again.resolved_at) == (IncidentState.OPEN, START, None)
    assert (again.reasons, again.reopened) == (("second",), 1)
    assert again.story == "back after it went away by itself, time 1"


def test_a_fault_that_comes_back_long_after_it_went_away_is_a_new_incident() -> None:
    life = Life()
    life.turn(0, found(finding(GPU)))
    for seconds in range(30, 1891, 60):
        life.turn(seconds, HEALTHY)
    assert not life.only().persists
    life.turn(1920, found(finding(GPU)))
    assert len(life.incidents) == 2


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


_SEEN = st.sampled_from(["found", "healthy", "silent"])


def _findings(seen: str) -> Findings:
    return {"found": found(finding(GPU)), "healthy": HEALTHY, "silent": NOT_JUDGED}[seen]


def _healthy_for(seen: Iterable[str], step: timedelta) -> timedelta:
    """For how long the newest observations, taken every `step`, were all healthy."""
    count = 0
    for each in seen:
        count = count + 1 if each == "healthy" else 0
    return step * max(count - 1, 0)


@given(history=st.lists(_SEEN, min_size=1, max_size=40))
def test_whatever_is_seen_an_incident_ends_exactly_after_unbroken_observed_health(history: list[str]) -> None:
    step = timedelta(seconds=30)
    life = Life(incident(GPU, at=after(-30)))
    (first,) = life.incidents
    for turn, seen in enumerate(history):
        life.turn(30.0 * turn, _findings(seen))
        ended = any(
            _healthy_for(history[: upto + 1], step) >= CLEAR_AFTER and history[upto] == "healthy"
            for upto in range(turn + 1)
        )
        assert (life.incidents[first].state is IncidentState.RESOLVED) == ended
        assert sum(not each.state.ended for each in life.incidents.values()) <= 1


def test_what_was_healthy_before_a_long_silence_of_the_telemetry_counts_anew() -> None:
    life = Life()
    life.turn(0, found(finding(GPU)))
    life.turn(30, HEALTHY)
    long_after = 30 + 10 * CLEAR_AFTER.total_seconds()
    life.turn(long_after, HEALTHY)
    assert life.only().state is IncidentState.OPEN
    assert life.only().healthy_since == after(long_after)


def test_what_was_healthy_before_a_restart_counts_anew() -> None:
    life = Life()
    life.turn(0, found(finding(GPU)))
    life.turn(30, HEALTHY)
    restarted = Life(*life.incidents.values())
    restarted.turn(31 + CLEAR_AFTER.total_seconds(), HEALTHY)
    assert restarted.only().state is IncidentState.OPEN


# What another system reports


NODE = Component(ComponentKind.NODE, rack="r1", node="n1")


def reported(health: Health, about: Component = NODE) -> Findings:
    return Findings(reports=(Report(ECC, about, health),))


def test_a_component_without_a_row_ends_its_incident_once_it_was_reported_healthy_for_long_enough() -> None:
    life = Life()
    life.turn(0, found(finding(NODE)))
    life.turn(30, reported(Health.HEALTHY))
    life.turn(149, reported(Health.HEALTHY))
    assert life.only().state is IncidentState.OPEN
    life.turn(150, reported(Health.HEALTHY))
    assert life.only().state is IncidentState.RESOLVED


@pytest.mark.parametrize("other", [gpu("B"), replace(NODE, node="n2")], ids=["another kind", "another node"])
def test_what_is_reported_of_another_component_ends_nothing(other: Component) -> None:
    life = Life()
    life.turn(0, found(finding(NODE)))
    for seconds in range(30, 600, 30):
        life.turn(seconds, reported(Health.HEALTHY, other))
    assert life.only().state is IncidentState.OPEN


def test_of_what_is_judged_and_what_is_reported_the_worse_counts() -> None:
    life = Life(incident(GPU))
    sick = Findings((), (judged(Health.DEGRADED),), (Report(ECC, GPU, Health.HEALTHY),))
    well = Findings((), (judged(Health.HEALTHY),), (Report(ECC, GPU, Health.UNKNOWN),))
    for seconds in range(0, 600, 30):
        life.turn(seconds, sick)
    assert life.only().state is IncidentState.OPEN
    for seconds in range(600, 900, 30):
        life.turn(seconds, well)
    assert life.only().state is IncidentState.RESOLVED


def test_where_the_reporter_falls_silent_a_person_has_to_look_and_nothing_counts_as_healthy() -> None:
    life = Life()
    life.turn(0, found(finding(NODE)))
    life.turn(30, reported(Health.UNKNOWN))
    assert (life.only().state, life.only().resolved_at) == (IncidentState.ESCALATED, None)
    assert "fallen silent" in life.only().story


def test_what_is_reported_again_after_a_silence_is_a_new_incident() -> None:
    life = Life()
    life.turn(0, found(finding(NODE)))
    life.turn(30, reported(Health.UNKNOWN))
    life.turn(60, found(finding(NODE)))
    assert sorted(each.state for each in life.incidents.values()) == [IncidentState.ESCALATED, IncidentState.OPEN]


@pytest.mark.parametrize("state", [IncidentState.AWAITING_APPROVAL, IncidentState.REMEDIATING, IncidentState.VERIFYING])
def test_a_reporter_that_falls_silent_does_not_break_into_what_is_under_way(state: IncidentState) -> None:
    life = Life(incident(NODE))
    life.become(state, resolves_when=ResolvesWhen.HEALTHY)
    life.turn(30, reported(Health.HEALTHY))
    life.turn(60, reported(Health.UNKNOWN))
    assert (life.only().state, life.only().healthy_since) == (state, None)


def test_an_ended_incident_no_longer_stands_for_a_fault_of_which_nothing_is_heard() -> None:
    life = Life(incident(NODE))
    life.become(IncidentState.ESCALATED)
    life.turn(30, reported(Health.UNKNOWN))
    assert (life.only().state, life.only().persists) == (IncidentState.ESCALATED, False)


def test_reports_add_up_as_findings_do() -> None:
    both = reported(Health.HEALTHY) + reported(Health.UNKNOWN, GPU)
    assert [report.key for report in both.reports] == ["GpuUncorrectableEcc@node/n1", "GpuUncorrectableEcc@gpu/A"]
