"""What another system reports: of a component that is on no axis, its word is all there is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Findings, Health, Report
from healer.domain.incident import IncidentState
from healer.domain.playbook import ResolvesWhen
from tests.unit.core_samples import ECC, finding, found, gpu, incident, judged
from tests.unit.lives import GPU, Life

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
