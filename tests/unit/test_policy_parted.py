"""A fault ends with what carried it: a job that is over, a rack that was renamed, a GPU that was swapped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode as Mode
from healer.domain.finding import Finding, Findings
from healer.domain.frame import Presence
from healer.domain.incident import IncidentState
from healer.domain.playbook import ResolvesWhen
from tests.unit.core_samples import after, finding, found, gpu, rack
from tests.unit.lives import Life

GPUS = tuple(gpu(f"U{number}", f"n{number}") for number in range(10))
IDLE = tuple(replace(each, job=None) for each in GPUS)
JOB = Component(ComponentKind.JOB, job="j1")
STALLED = finding(JOB, mode=Mode.JOB_STALLED)
NOBODY_SAYS_MORE = Findings()


def presence(*others: Presence) -> Mapping[str, object]:
    """Those of the first GPUs; the rest are seen."""
    return {"presence": np.array([*others, *[Presence.CURRENT] * (len(GPUS) - len(others))], dtype=np.int8)}


@pytest.mark.parametrize(
    ("fault", "gpus", "seen", "story"),
    [
        (STALLED, IDLE, presence(), "no GPU is of job j1 any more"),
        (
            finding(rack("r1"), mode=Mode.RACK_COOLING_DEGRADED),
            tuple(replace(each, rack="r2") for each in GPUS),
            presence(),
            "no GPU is of rack r1 any more",
        ),
        (finding(GPUS[0]), GPUS, presence(Presence.REPLACED), "another GPU is in its place"),
    ],
    ids=["a job that is over", "a rack that was renamed", "a GPU that was swapped"],
)
def test_what_is_no_longer_there_ends_its_incident_after_the_time_to_clear(
    fault: Finding, gpus: Sequence[Component], seen: Mapping[str, object], story: str
) -> None:
    life = Life()
    life.turn(0, found(fault), gpus=GPUS)
    life.turn(30, NOBODY_SAYS_MORE, gpus=gpus, **seen)
    life.turn(149, NOBODY_SAYS_MORE, gpus=gpus, **seen)
    assert (life.only().state, life.only().healthy_since) == (IncidentState.OPEN, after(30))
    life.turn(150, NOBODY_SAYS_MORE, gpus=gpus, **seen)
    assert (life.only().state, life.only().resolved_at, life.only().story) == (
        IncidentState.RESOLVED,
        after(150),
        story,
    )


@pytest.mark.parametrize(("unseen", "state"), [(1, IncidentState.RESOLVED), (2, IncidentState.OPEN)])
def test_a_job_is_over_only_if_nearly_all_gpus_that_could_name_it_are_seen(unseen: int, state: IncidentState) -> None:
    life = Life()
    seen = presence(*[Presence.UNREACHABLE] * unseen)
    for seconds in range(0, 600, 60):
        life.turn(seconds, found(STALLED) if seconds == 0 else NOBODY_SAYS_MORE, gpus=IDLE if seconds else GPUS, **seen)
    assert life.only().state is state


def test_where_no_gpu_is_known_at_all_no_job_is_over() -> None:
    life = Life()
    life.turn(0, found(STALLED), gpus=GPUS)
    for seconds in range(60, 3600, 60):
        life.turn(seconds, NOBODY_SAYS_MORE, gpus=())
    assert (life.only().state, life.only().healthy_since) == (IncidentState.OPEN, None)


def test_a_job_whose_gpus_are_silent_keeps_its_name_and_its_incident() -> None:
    life = Life()
    life.turn(0, found(STALLED), gpus=GPUS)
    one_left = (GPUS[0], *IDLE[1:])
    for seconds in range(60, 3600, 60):
        life.turn(seconds, NOBODY_SAYS_MORE, gpus=one_left, **presence(Presence.UNREACHABLE))
    assert (life.only().state, life.only().healthy_since) == (IncidentState.OPEN, None)


def test_a_rack_that_is_still_metered_is_there_without_its_gpus() -> None:
    life = Life()
    life.turn(0, found(finding(rack("r1"), mode=Mode.RACK_POWER_FEED_LOST)), gpus=GPUS)
    for seconds in range(60, 3600, 60):
        life.turn(seconds, NOBODY_SAYS_MORE, gpus=[replace(each, rack="r2") for each in GPUS], racks=[rack("r1")])
    assert life.only().state is IncidentState.OPEN


@pytest.mark.parametrize("how", [one for one in Presence if one is not Presence.REPLACED], ids=lambda one: one.name)
def test_a_gpu_that_is_only_not_seen_is_still_in_its_place(how: Presence) -> None:
    life = Life()
    life.turn(0, found(finding(GPUS[0])), gpus=GPUS)
    for seconds in range(60, 3600, 60):
        life.turn(seconds, NOBODY_SAYS_MORE, gpus=GPUS, **presence(how))
    assert life.only().state is IncidentState.OPEN


def test_a_job_that_is_back_before_the_time_to_clear_was_never_over() -> None:
    life = Life()
    life.turn(0, found(STALLED), gpus=GPUS)
    for seconds in range(60, 3600, 60):
        life.turn(seconds, NOBODY_SAYS_MORE, gpus=GPUS if seconds % 180 == 0 else IDLE)
    assert life.only().state is IncidentState.OPEN


def test_a_remedy_that_is_running_ends_before_the_incident_of_a_job_that_is_over() -> None:
    life = Life()
    life.turn(0, found(STALLED), gpus=GPUS)
    life.become(IncidentState.REMEDIATING, resolves_when=ResolvesWhen.HEALTHY)
    for seconds in range(60, 600, 60):
        life.turn(seconds, NOBODY_SAYS_MORE, gpus=IDLE)
    assert life.only().state is IncidentState.REMEDIATING


def test_what_a_person_was_called_for_stands_for_nothing_once_its_gpu_was_swapped() -> None:
    life = Life()
    life.turn(0, found(finding(GPUS[0])), gpus=GPUS)
    life.become(IncidentState.ESCALATED)
    for seconds in (60, 120, 180):
        life.turn(seconds, NOBODY_SAYS_MORE, gpus=GPUS, **presence(Presence.REPLACED))
    assert (life.only().state, life.only().gone, life.only().persists) == (IncidentState.ESCALATED, True, False)


def test_a_job_that_is_found_though_no_gpu_names_it_is_not_over() -> None:
    life = Life()
    for seconds in range(0, 600, 60):
        life.turn(seconds, found(STALLED), gpus=IDLE)
    assert life.only().state is IncidentState.OPEN
