"""One fault is one incident: what follows from a deeper cause is its symptom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode as Mode
from healer.domain.finding import Finding, Findings, Health, Judgement
from healer.domain.frame import Frame
from healer.domain.incident import Incident, IncidentState
from healer.domain.topology import Place
from healer.policy.causes import EXPLAINS
from healer.policy.correlation import correlate
from tests.frames import frame_of
from tests.unit.core_samples import CLEAR_AFTER, after, judged

NODES, GPUS = 8, 8


def _gpu(node: int, index: int, *, job: str | None = "j1") -> Component:
    rack = f"r{node // 4}"
    return Component(ComponentKind.GPU, rack=rack, node=f"n{node}", gpu=str(index), uuid=f"U{node}-{index}", job=job)


FLEET = tuple(_gpu(node, index, job="j1" if node < 4 else "j2") for node in range(NODES) for index in range(GPUS))
NODE = [Component(ComponentKind.NODE, rack=f"r{n // 4}", node=f"n{n}") for n in range(NODES)]
RACK = [Component(ComponentKind.RACK, rack=f"r{r}") for r in range(2)]
JOB = [Component(ComponentKind.JOB, job=name) for name in ("j1", "j2")]
PLACES = {f"n{n}": Place(rack=f"r{n // 4}", feed="A", switch="leaf-1" if n < 6 else "leaf-2") for n in range(NODES)}


def found(mode: Mode, where: Component, health: Health = Health.FAILED, *, culprit: Component | None = None) -> Finding:
    return Finding(mode, where, health, 1.0, f"{mode} it is", culprit=culprit)


def at(seconds: float) -> Frame:
    return frame_of(FLEET, at=after(seconds), times=[-30.0, 0.0], places=PLACES)


class Life:
    def __init__(self) -> None:
        self.incidents: dict[str, Incident] = {}

    def turn(self, seconds: float, *findings: Finding, judgements: Sequence[Judgement] = ()) -> None:
        live = [each for each in self.incidents.values() if not each.state.ended or each.persists]
        told = Findings(findings, tuple(judgements))
        changed = correlate(live, told, at(seconds), clear_after=CLEAR_AFTER)
        self.incidents |= {each.id: each for each in changed}

    def open(self) -> list[tuple[Mode, str]]:
        return sorted((i.failure_mode, i.component.key) for i in self.incidents.values() if not i.state.ended)

    def only(self) -> Incident:
        (one,) = self.incidents.values()
        return one


LOST = found(Mode.GPU_FELL_OFF_BUS, _gpu(0, 3))
STALLED = found(Mode.JOB_STALLED, JOB[0])


def test_nothing_explains_what_stands_above_it() -> None:
    depth = {mode: number for number, mode in enumerate(EXPLAINS)}
    for cause, reaches in EXPLAINS.items():
        for effects in reaches.values():
            assert [e for e in effects if depth.get(e, len(depth)) <= depth[cause] and e is not cause] == []


@pytest.mark.parametrize(
    ("cause", "effect"),
    [
        (LOST, STALLED),
        (LOST, found(Mode.GPU_XID, _gpu(0, 3))),
        (LOST, found(Mode.NVLINK_ERRORS, _gpu(0, 5))),
        (found(Mode.GPU_UNCORRECTABLE_ECC, _gpu(1, 0)), found(Mode.GPU_ROW_REMAP_PENDING, _gpu(1, 0))),
        (found(Mode.GPU_UNCORRECTABLE_ECC, _gpu(1, 0)), found(Mode.JOB_STALLED, JOB[0], culprit=_gpu(2, 2))),
        (found(Mode.GPU_THROTTLED, _gpu(1, 0)), found(Mode.JOB_STRAGGLER, JOB[0], culprit=_gpu(1, 0))),
        (found(Mode.RACK_COOLING_DEGRADED, RACK[0]), found(Mode.GPU_THERMAL_LIMIT, _gpu(3, 7))),
        (found(Mode.RACK_POWER_FEED_LOST, RACK[1]), found(Mode.GPU_POWER_BRAKE, NODE[5])),
        (found(Mode.NODE_UNREACHABLE, NODE[2]), found(Mode.TELEMETRY_LOST, NODE[2])),
        (found(Mode.NODE_UNREACHABLE, NODE[2]), STALLED),
        (found(Mode.TELEMETRY_LOST, RACK[0]), found(Mode.TELEMETRY_LOST, NODE[2])),
        (STALLED, found(Mode.JOB_STRAGGLER, JOB[0])),
    ],
    ids=lambda one: f"{one.failure_mode} of {one.component}",
)
def test_an_effect_is_a_symptom_of_its_cause(cause: Finding, effect: Finding) -> None:
    life = Life()
    life.turn(0, effect, cause)
    assert life.open() == [(cause.failure_mode, cause.component.key)]
    assert [(s.failure_mode, s.component) for s in life.only().symptoms] == [(effect.failure_mode, effect.component)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LOST, found(Mode.JOB_STALLED, JOB[1])),
        (LOST, found(Mode.GPU_XID, _gpu(0, 4))),
        (LOST, found(Mode.NVLINK_ERRORS, _gpu(1, 5))),
        (found(Mode.GPU_THROTTLED, _gpu(1, 0)), found(Mode.JOB_STRAGGLER, JOB[0], culprit=_gpu(2, 0))),
        (found(Mode.RACK_COOLING_DEGRADED, RACK[0]), found(Mode.GPU_THERMAL_LIMIT, _gpu(4, 7))),
        (found(Mode.RACK_COOLING_DEGRADED, RACK[0]), found(Mode.GPU_UNCORRECTABLE_ECC, _gpu(3, 7))),
        (found(Mode.GPU_ROW_REMAP_PENDING, _gpu(1, 0)), found(Mode.JOB_STALLED, JOB[0])),
    ],
    ids=lambda one: f"{one.failure_mode} of {one.component}",
)
def test_what_has_nothing_to_do_with_each_other_is_two_incidents(one: Finding, other: Finding) -> None:
    life = Life()
    life.turn(0, one, other)
    assert len(life.open()) == 2
    assert not any(incident.symptoms for incident in life.incidents.values())


def test_a_chain_of_effects_hangs_on_its_deepest_cause() -> None:
    life = Life()
    straggler = found(Mode.JOB_STRAGGLER, JOB[0], culprit=_gpu(0, 1))
    life.turn(
        0, straggler, found(Mode.GPU_THROTTLED, _gpu(0, 1)), found(Mode.GPU_COOLING_DEGRADED, _gpu(0, 1)),
        found(Mode.RACK_COOLING_DEGRADED, RACK[0], Health.DEGRADED),
    )  # fmt: skip
    assert life.open() == [(Mode.RACK_COOLING_DEGRADED, "rack/r0")]
    assert len(life.only().symptoms) == 3
    assert life.only().health is Health.FAILED, "it is as bad as the worst that follows from it"
    assert life.only().jobs == ("j1",)


def test_a_cause_that_is_noticed_after_its_effect_takes_over_its_incident() -> None:
    life = Life()
    life.turn(0, STALLED)
    first = life.only()
    life.turn(60, STALLED, LOST)
    assert life.only().id == first.id
    assert (life.only().failure_mode, life.only().component) == (LOST.failure_mode, LOST.component)
    assert life.only().story == "what was found first as JobStalled of job j1 has this cause"
    assert life.only().opened_at == first.opened_at


def test_of_several_effects_the_oldest_becomes_the_cause_and_the_others_end() -> None:
    life = Life()
    one, other = found(Mode.NVLINK_ERRORS, _gpu(0, 5)), found(Mode.NVLINK_ERRORS, _gpu(0, 6))
    life.turn(0, one)
    life.turn(30, one, other)
    life.turn(60, one, other, LOST)
    assert life.open() == [(Mode.GPU_FELL_OFF_BUS, "gpu/U0-3")]
    (ended,) = [incident for incident in life.incidents.values() if incident.state.ended]
    assert (ended.component, ended.state) == (_gpu(0, 6), IncidentState.RESOLVED)
    assert ended.story.startswith("explained by inc-")


def test_an_incident_that_somebody_acts_upon_is_left_to_him() -> None:
    life = Life()
    life.turn(0, STALLED)
    life.incidents = {i.id: replace(i, state=IncidentState.REMEDIATING) for i in life.incidents.values()}
    life.turn(60, STALLED, LOST)
    assert life.open() == [(Mode.GPU_FELL_OFF_BUS, "gpu/U0-3"), (Mode.JOB_STALLED, "job/j1")]


def test_what_began_long_before_is_not_explained() -> None:
    life = Life()
    life.turn(0, STALLED)
    life.turn(3600, STALLED, LOST)
    assert len(life.open()) == 2


def test_a_fault_that_a_job_has_lived_with_for_long_is_not_why_it_stalls() -> None:
    life = Life()
    life.turn(0, found(Mode.GPU_XID, _gpu(0, 3)))
    for seconds in range(30, 7200, 600):
        life.turn(seconds, found(Mode.GPU_XID, _gpu(0, 3)))
    life.turn(7200, found(Mode.GPU_XID, _gpu(0, 3)), found(Mode.JOB_STALLED, JOB[0], culprit=_gpu(2, 2)))
    assert len(life.open()) == 2


def test_a_cause_whose_finding_is_gone_still_explains_while_its_incident_lives() -> None:
    life = Life()
    life.turn(0, LOST)
    life.turn(30, STALLED)
    assert life.open() == [(Mode.GPU_FELL_OFF_BUS, "gpu/U0-3")]


def test_symptoms_are_told_once_and_are_not_without_end() -> None:
    life = Life()
    for seconds in (0, 30, 60):
        throttled = [found(Mode.GPU_THROTTLED, _gpu(node, index)) for node in range(4) for index in range(5)]
        hot = [found(Mode.GPU_THERMAL_LIMIT, _gpu(node, 7)) for node in range(2)]
        life.turn(seconds, found(Mode.RACK_COOLING_DEGRADED, RACK[0]), *throttled, *hot)
    assert len(life.only().symptoms) == 20
    assert str(life.only().symptoms[0]) == "GpuThrottled of GPU 0 of n0: GpuThrottled it is"


def test_the_effects_of_an_ended_incident_open_nothing() -> None:
    life = Life()
    life.turn(0, LOST)
    life.incidents = {i.id: replace(i, state=IncidentState.ESCALATED) for i in life.incidents.values()}
    life.turn(30, LOST, STALLED)
    assert life.open() == []
    assert life.only().symptoms == ()


# Common causes


def test_most_gpus_of_a_node_at_once_are_the_node() -> None:
    life = Life()
    life.turn(0, *(found(Mode.GPU_POWER_BRAKE, _gpu(2, index)) for index in range(6)))
    assert life.open() == [(Mode.GPU_POWER_BRAKE, "node/n2")]
    assert life.only().reasons[0].startswith("6 of 8 GPUs, such as GPU 0 of n2: ")


def test_some_gpus_of_a_node_are_each_one() -> None:
    life = Life()
    life.turn(0, *(found(Mode.GPU_UNCORRECTABLE_ECC, _gpu(2, index)) for index in range(5)))
    assert len(life.open()) == 5


@pytest.mark.parametrize(
    ("of_nodes", "of_rack"),
    [
        (Mode.TELEMETRY_LOST, Mode.TELEMETRY_LOST),
        (Mode.NODE_UNREACHABLE, Mode.NODE_UNREACHABLE),
        (Mode.GPU_COOLING_DEGRADED, Mode.RACK_COOLING_DEGRADED),
    ],
)
def test_most_nodes_of_a_rack_at_once_are_the_rack(of_nodes: Mode, of_rack: Mode) -> None:
    life = Life()
    life.turn(0, *(found(of_nodes, NODE[n]) for n in (4, 5, 6)))
    assert life.open() == [(of_rack, "rack/r1")]
    assert life.only().reasons[0].startswith("3 of 4 nodes, such as node n4: ")


def test_two_nodes_of_four_are_two_nodes() -> None:
    life = Life()
    life.turn(0, *(found(Mode.TELEMETRY_LOST, NODE[n]) for n in (4, 5)))
    assert len(life.open()) == 2


def test_ports_of_most_nodes_of_a_switch_are_the_switch() -> None:
    life = Life()
    life.turn(0, *(found(Mode.FABRIC_LINK_FLAP, NODE[n]) for n in range(5)))
    assert life.open() == [(Mode.FABRIC_LINK_FLAP, "link/leaf-1")]


def test_nodes_of_one_feed_across_racks_are_the_feed() -> None:
    life = Life()
    life.turn(0, *(found(Mode.GPU_POWER_BRAKE, NODE[n]) for n in (0, 1, 4, 5, 6, 7)))
    nodes = [(Mode.GPU_POWER_BRAKE, "node/n0"), (Mode.GPU_POWER_BRAKE, "node/n1")]
    assert life.open() == [*nodes, (Mode.GPU_POWER_BRAKE, "rack/r1")]


def test_what_only_a_part_still_has_is_the_whole_s_as_long_as_that_lives() -> None:
    life = Life()
    life.turn(0, *(found(Mode.GPU_POWER_BRAKE, _gpu(2, index)) for index in range(8)))
    life.turn(30, found(Mode.GPU_POWER_BRAKE, _gpu(2, 1)))
    assert life.open() == [(Mode.GPU_POWER_BRAKE, "node/n2")]


def test_a_whole_is_healthy_again_when_its_parts_are_seen_healthy() -> None:
    life = Life()
    mode = Mode.GPU_POWER_BRAKE
    life.turn(0, *(found(mode, _gpu(2, index)) for index in range(8)))
    healthy = judged(*[Health.HEALTHY] * len(FLEET), mode=mode)
    half = judged(*[Health.HEALTHY if g % 2 else Health.UNKNOWN for g in range(len(FLEET))], mode=mode)
    for seconds in range(30, 331, 30):
        life.turn(seconds, judgements=[half])
    assert life.only().state is IncidentState.OPEN, "half of its parts were not seen"
    for seconds in range(360, 481, 30):
        life.turn(seconds, judgements=[healthy])
    assert life.only().state is IncidentState.RESOLVED


def test_a_rack_that_was_found_by_its_nodes_is_healthy_when_they_are() -> None:
    life = Life()
    mode = Mode.NODE_UNREACHABLE
    life.turn(0, *(found(mode, NODE[n]) for n in range(4)))
    healthy = judged(*[Health.HEALTHY] * NODES, mode=mode, kind=ComponentKind.NODE)
    for seconds in range(30, 151, 30):
        life.turn(seconds, judgements=[healthy])
    assert life.only().state is IncidentState.RESOLVED


def test_what_is_no_part_of_the_fleet_is_never_gathered() -> None:
    life = Life()
    strangers = [Component(ComponentKind.GPU, gpu=str(i), uuid=f"X{i}") for i in range(4)]
    elsewhere = [Component(ComponentKind.GPU, node="n99", gpu=str(i), uuid=f"Y{i}") for i in range(4)]
    life.turn(0, *(found(Mode.GPU_POWER_BRAKE, one) for one in (*strangers, *elsewhere)))
    assert len(life.open()) == 8
