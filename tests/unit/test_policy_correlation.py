"""One fault is one incident, from the first finding to the time that its component was seen healthy again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from healer.domain.component import ComponentKind
from healer.domain.finding import Basis, Evidence, FailureMode, Finding, Findings, Health
from healer.domain.incident import IncidentState, Severity
from healer.domain.playbook import OnReturn, ResolvesWhen
from healer.domain.verdict import Guard, Verdict
from tests.unit.core_samples import CLEAR_AFTER, ECC, START, after, finding, found, gpu, incident, judged, plan
from tests.unit.lives import GPU, HEALTHY, NOT_JUDGED, Life


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


@pytest.mark.parametrize("state", [IncidentState.OPEN, IncidentState.AWAITING_APPROVAL])
def test_what_a_failed_run_keeps_out_of_service_does_not_go_away_by_itself(state: IncidentState) -> None:
    life = Life(replace(incident(GPU), state=state, kept=True))
    life.turn(0, HEALTHY)
    life.turn(120, HEALTHY)
    assert life.only().state is state
    assert life.only().healthy_since == START


@pytest.mark.parametrize("silent", [Findings(), NOT_JUDGED], ids=["nobody judged it", "judged unknown"])
def test_silence_clears_nothing_however_long_it_lasts(silent: Findings) -> None:
    life = Life(incident(GPU))
    for seconds in (30, 3600, 86400):
        life.turn(seconds, silent)
    assert life.only().state is IncidentState.OPEN


def test_a_component_that_left_the_telemetry_is_unknown_not_healthy() -> None:
    life = Life(incident(GPU))
    for seconds in (30, 3600, 86400):
        life.turn(seconds, Findings((), (judged(),)), gpus=())
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


@pytest.mark.parametrize(
    ("on_return", "follows", "tried"),
    [(OnReturn.NEXT, "hand-over", 1), (OnReturn.AGAIN, "", 0)],
    ids=["up the ladder", "the ladder begins anew"],
)
def test_what_is_found_again_after_its_remedy_has_succeeded_goes_where_its_playbook_says(
    on_return: OnReturn, follows: str, tried: int
) -> None:
    rung = replace(plan(resolves_when=ResolvesWhen.HEALTHY), otherwise="hand-over", on_return=on_return)
    life = Life(replace(incident(GPU), state=IncidentState.VERIFYING, plan=rung, next_playbook="rung"))
    life.turn(30, HEALTHY)
    life.turn(60, found(finding(GPU)))
    assert (life.only().next_playbook, len(life.only().tried)) == (follows, tried)


@pytest.mark.parametrize(("found_at", "state"), [(359, IncidentState.VERIFYING), (360, IncidentState.OPEN)])
def test_what_is_still_told_of_for_some_time_after_its_end_has_that_time(found_at: float, state: IncidentState) -> None:
    """An alert is resolved minutes after what it is about."""
    life = Life(replace(incident(GPU), state=IncidentState.VERIFYING, plan=plan(resolves_when=ResolvesWhen.HEALTHY)))
    life.turn(found_at, found(replace(finding(GPU), lags=timedelta(minutes=6))))
    assert life.only().state is state


def test_a_contained_fault_is_still_there_and_does_not_open_its_incident_again() -> None:
    life = Life(incident(GPU))
    life.become(IncidentState.VERIFYING, resolves_when=ResolvesWhen.CONTAINED)
    for seconds in (30, 300, 3000):
        life.turn(seconds, found(finding(GPU)))
    assert life.only().state is IncidentState.VERIFYING
