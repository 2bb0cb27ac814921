"""One fault is one incident: what follows from a deeper cause is its symptom."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.domain.component import Component
from healer.domain.finding import FailureMode as Mode
from healer.domain.finding import Finding, Health
from healer.domain.incident import IncidentState
from healer.policy.causes import EXPLAINS, Case, Reach, roots, rows_of
from tests.frames import frame_of
from tests.unit.core_samples import after, judged
from tests.unit.lives import FLEET, JOB, NODE, RACK, FleetLife, gpu_at, sick

LOST = sick(Mode.GPU_FELL_OFF_BUS, gpu_at(0, 3))
STALLED = sick(Mode.JOB_STALLED, JOB[0])


def test_nothing_explains_what_stands_above_it_but_for_what_explains_only_its_parts() -> None:
    depth = {mode: number for number, mode in enumerate(EXPLAINS)}
    above = {
        (cause, effect)
        for cause, reaches in EXPLAINS.items()
        for effects in reaches.values()
        for effect in effects
        if depth.get(effect, len(depth)) <= depth[cause] and effect is not cause
    }
    # Blank values are both: what a GPU shows that is lost or hangs, and where a whole node has them, what hides it.
    assert above == {(Mode.GPU_FELL_OFF_BUS, Mode.TELEMETRY_LOST), (Mode.GPU_XID, Mode.TELEMETRY_LOST)}
    assert Mode.GPU_FELL_OFF_BUS in EXPLAINS[Mode.TELEMETRY_LOST][Reach.PARTS]


@pytest.mark.parametrize(
    ("cause", "effect"),
    [
        (LOST, STALLED),
        (LOST, sick(Mode.GPU_XID, gpu_at(0, 3))),
        (LOST, sick(Mode.NVLINK_ERRORS, gpu_at(0, 5))),
        (sick(Mode.GPU_UNCORRECTABLE_ECC, gpu_at(1, 0)), sick(Mode.GPU_ROW_REMAP_PENDING, gpu_at(1, 0))),
        (sick(Mode.GPU_UNCORRECTABLE_ECC, gpu_at(1, 0)), sick(Mode.JOB_STALLED, JOB[0], culprit=gpu_at(2, 2))),
        (sick(Mode.GPU_THROTTLED, gpu_at(1, 0)), sick(Mode.JOB_STRAGGLER, JOB[0], culprit=gpu_at(1, 0))),
        (sick(Mode.RACK_COOLING_DEGRADED, RACK[0]), sick(Mode.GPU_THERMAL_LIMIT, gpu_at(3, 7))),
        (sick(Mode.RACK_POWER_FEED_LOST, RACK[1]), sick(Mode.GPU_POWER_BRAKE, NODE[5])),
        (sick(Mode.NODE_UNREACHABLE, NODE[2]), sick(Mode.TELEMETRY_LOST, NODE[2])),
        (sick(Mode.NODE_UNREACHABLE, NODE[2]), STALLED),
        (sick(Mode.TELEMETRY_LOST, RACK[0]), sick(Mode.TELEMETRY_LOST, NODE[2])),
        (sick(Mode.TELEMETRY_LOST, NODE[0]), LOST),
        (LOST, sick(Mode.TELEMETRY_LOST, gpu_at(0, 3))),
        (sick(Mode.RACK_POWER_FEED_LOST, RACK[0]), sick(Mode.NODE_UNREACHABLE, NODE[2])),
        (STALLED, sick(Mode.JOB_STRAGGLER, JOB[0])),
    ],
    ids=lambda one: f"{one.failure_mode} of {one.component}",
)
def test_an_effect_is_a_symptom_of_its_cause(cause: Finding, effect: Finding) -> None:
    life = FleetLife()
    life.look(0, effect, cause)
    assert life.open() == [(cause.failure_mode, cause.component.key)]
    assert [(s.failure_mode, s.component) for s in life.only().symptoms] == [(effect.failure_mode, effect.component)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LOST, sick(Mode.JOB_STALLED, JOB[1])),
        (LOST, sick(Mode.GPU_XID, gpu_at(0, 4))),
        (LOST, sick(Mode.NVLINK_ERRORS, gpu_at(1, 5))),
        (sick(Mode.GPU_THROTTLED, gpu_at(1, 0)), sick(Mode.JOB_STRAGGLER, JOB[0], culprit=gpu_at(2, 0))),
        (sick(Mode.RACK_COOLING_DEGRADED, RACK[0]), sick(Mode.GPU_THERMAL_LIMIT, gpu_at(4, 7))),
        (sick(Mode.RACK_COOLING_DEGRADED, RACK[0]), sick(Mode.GPU_UNCORRECTABLE_ECC, gpu_at(3, 7))),
        (sick(Mode.GPU_ROW_REMAP_PENDING, gpu_at(1, 0)), sick(Mode.JOB_STALLED, JOB[0])),
    ],
    ids=lambda one: f"{one.failure_mode} of {one.component}",
)
def test_what_has_nothing_to_do_with_each_other_is_two_incidents(one: Finding, other: Finding) -> None:
    life = FleetLife()
    life.look(0, one, other)
    assert len(life.open()) == 2
    assert not any(incident.symptoms for incident in life.incidents.values())


@pytest.mark.parametrize(("later_s", "incidents"), [(300, 1), (330, 2)], ids=["five minutes", "later"])
def test_what_a_lost_feed_takes_along_falls_silent_within_minutes(later_s: int, incidents: int) -> None:
    life = FleetLife()
    feed, silent = sick(Mode.RACK_POWER_FEED_LOST, RACK[0]), sick(Mode.TELEMETRY_LOST, NODE[2])
    for seconds in range(0, later_s, 30):
        life.look(seconds, feed)
    for seconds in range(later_s, later_s + 3600, 30):
        life.look(seconds, feed, silent)
        assert len(life.open()) == incidents, "and stays what it was"


def test_a_chain_of_effects_hangs_on_its_deepest_cause() -> None:
    life = FleetLife()
    straggler = sick(Mode.JOB_STRAGGLER, JOB[0], culprit=gpu_at(0, 1))
    life.look(
        0, straggler, sick(Mode.GPU_THROTTLED, gpu_at(0, 1)), sick(Mode.GPU_COOLING_DEGRADED, gpu_at(0, 1)),
        sick(Mode.RACK_COOLING_DEGRADED, RACK[0], Health.DEGRADED),
    )  # fmt: skip
    assert life.open() == [(Mode.RACK_COOLING_DEGRADED, "rack/r0")]
    assert len(life.only().symptoms) == 3
    assert life.only().health is Health.FAILED, "it is as bad as the worst that follows from it"
    assert life.only().jobs == ("j1",)


def test_a_cause_that_is_noticed_after_its_effect_takes_over_its_incident() -> None:
    life = FleetLife()
    life.look(0, STALLED)
    first = life.only()
    life.look(60, STALLED, LOST)
    assert life.only().id == first.id
    assert (life.only().failure_mode, life.only().component) == (LOST.failure_mode, LOST.component)
    assert life.only().story == "what was found first as JobStalled of job j1 has this cause"
    assert life.only().opened_at == first.opened_at


def test_of_several_effects_the_oldest_becomes_the_cause_and_the_others_end() -> None:
    life = FleetLife()
    one, other = sick(Mode.NVLINK_ERRORS, gpu_at(0, 5)), sick(Mode.NVLINK_ERRORS, gpu_at(0, 6))
    life.look(0, one)
    life.look(30, one, other)
    life.look(60, one, other, LOST)
    assert life.open() == [(Mode.GPU_FELL_OFF_BUS, "gpu/U0-3")]
    (ended,) = [incident for incident in life.incidents.values() if incident.state.ended]
    assert (ended.component, ended.state) == (gpu_at(0, 6), IncidentState.RESOLVED)
    assert ended.story.startswith("explained by inc-")


def test_an_effect_that_outlives_its_cause_is_an_incident_again() -> None:
    life = FleetLife()
    one, other = sick(Mode.NVLINK_ERRORS, gpu_at(0, 5)), sick(Mode.NVLINK_ERRORS, gpu_at(0, 6))
    life.look(0, one, other)
    life.look(30, one, other, LOST)
    mended = judged(*[Health.HEALTHY] * len(FLEET), mode=Mode.GPU_FELL_OFF_BUS)
    for seconds in range(60, 3600, 30):
        life.look(seconds, one, other, judgements=[mended])
    assert life.open() == [(Mode.NVLINK_ERRORS, "gpu/U0-5"), (Mode.NVLINK_ERRORS, "gpu/U0-6")]


def test_a_cause_that_is_noticed_while_a_person_is_asked_about_its_effect_takes_over_the_question() -> None:
    life = FleetLife()
    life.look(0, sick(Mode.GPU_UNCORRECTABLE_ECC, gpu_at(0, 3)))
    life.become(IncidentState.AWAITING_APPROVAL)
    life.look(60, sick(Mode.GPU_UNCORRECTABLE_ECC, gpu_at(0, 3)), sick(Mode.GPU_ROW_REMAP_FAILED, gpu_at(0, 3)))
    assert life.open() == [(Mode.GPU_ROW_REMAP_FAILED, "gpu/U0-3")]
    assert life.only().state is IncidentState.AWAITING_APPROVAL


@pytest.mark.parametrize("state", [IncidentState.REMEDIATING, IncidentState.VERIFYING])
def test_an_incident_that_somebody_acts_upon_is_left_to_him(state: IncidentState) -> None:
    life = FleetLife()
    life.look(0, STALLED)
    life.become(state)
    life.look(60, STALLED, LOST)
    assert life.open() == [(Mode.GPU_FELL_OFF_BUS, "gpu/U0-3"), (Mode.JOB_STALLED, "job/j1")]


@pytest.mark.parametrize(
    ("noticed", "incidents"),
    [(900, 1), (901, 2)],
    ids=["a quarter of an hour after its effect", "later than that"],
)
def test_what_began_long_before_is_not_explained(noticed: int, incidents: int) -> None:
    life = FleetLife()
    life.look(0, STALLED)
    life.look(noticed, STALLED, LOST)
    assert len(life.open()) == incidents


@pytest.mark.parametrize(
    ("lived_s", "blamed", "incidents"),
    [(1800, (2, 2), 1), (1801, (2, 2), 2), (7200, (0, 3), 1), (7200, None, 2)],
    ids=["a new fault", "an old one", "an old one that is blamed", "an old one, and nobody is blamed"],
)
def test_a_fault_that_a_job_has_lived_with_for_long_is_not_why_it_stalls(
    lived_s: int, blamed: tuple[int, int] | None, incidents: int
) -> None:
    xid = sick(Mode.GPU_XID, gpu_at(0, 3))
    life = FleetLife()
    for seconds in range(0, lived_s, 300):
        life.look(seconds, xid)
    life.look(lived_s, xid, sick(Mode.JOB_STALLED, JOB[0], culprit=None if blamed is None else gpu_at(*blamed)))
    assert len(life.open()) == incidents


def test_what_is_merely_slow_explains_a_job_only_if_that_blames_nobody_else() -> None:
    slow = sick(Mode.PCIE_DEGRADED, gpu_at(0, 3))
    for culprit, incidents in ((None, 1), (gpu_at(0, 3), 1), (NODE[0], 1), (gpu_at(0, 4), 2)):
        life = FleetLife()
        life.look(0, slow, sick(Mode.JOB_STALLED, JOB[0], culprit=culprit))
        assert len(life.open()) == incidents


_WHERE = (*FLEET[:4], FLEET[8], FLEET[40], *NODE[:2], NODE[5], *RACK, *JOB)


@settings(deadline=None)
@given(
    found=st.lists(
        st.tuples(st.sampled_from(list(Mode)), st.sampled_from(_WHERE), st.integers(0, 3)),
        unique_by=lambda one: one[:2],
        max_size=12,
    ),
    order=st.randoms(use_true_random=False),
)
def test_whatever_is_found_ends_at_a_cause_that_nothing_explains_and_never_mind_the_order(
    found: list[tuple[Mode, Component, int]], order: Random
) -> None:
    frame = frame_of(FLEET)
    cases = [
        Case(f"{mode}@{where.key}", mode, rows_of(where, frame), after(600.0 * turn)) for mode, where, turn in found
    ]
    root_of = roots(cases, frame)
    assert all(root_of[root] == root for root in root_of.values())
    shuffled = order.sample(cases, len(cases))
    assert roots(shuffled, frame) == root_of


def test_a_cause_whose_finding_is_gone_still_explains_while_its_incident_lives() -> None:
    life = FleetLife()
    life.look(0, LOST)
    life.look(30, STALLED)
    assert life.open() == [(Mode.GPU_FELL_OFF_BUS, "gpu/U0-3")]


def test_symptoms_are_told_once_and_are_not_without_end() -> None:
    life = FleetLife()
    for seconds in (0, 30, 60):
        throttled = [sick(Mode.GPU_THROTTLED, gpu_at(node, index)) for node in range(4) for index in range(5)]
        hot = [sick(Mode.GPU_THERMAL_LIMIT, gpu_at(node, 7)) for node in range(2)]
        life.look(seconds, sick(Mode.RACK_COOLING_DEGRADED, RACK[0]), *throttled, *hot)
    assert len(life.only().symptoms) == 20
    assert str(life.only().symptoms[0]) == "GpuThrottled of GPU 0 of n0: GpuThrottled it is"


def test_the_effects_of_an_ended_incident_open_nothing() -> None:
    life = FleetLife()
    life.look(0, LOST)
    life.incidents = {i.id: replace(i, state=IncidentState.ESCALATED) for i in life.incidents.values()}
    life.look(30, LOST, STALLED)
    assert life.open() == []
    assert life.only().symptoms == ()
