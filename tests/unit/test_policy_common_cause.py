"""What most parts of a whole have at once is one incident of the whole: node, rack, leaf switch or power feed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode as Mode
from healer.domain.finding import Health
from healer.domain.incident import IncidentState
from healer.domain.topology import NOWHERE, Place
from tests.unit.core_samples import finding, found, gpu, judged
from tests.unit.lives import FLEET, JOB, NODE, NODES, FleetLife, Life, gpu_at, sick


def test_most_gpus_of_a_node_at_once_are_the_node() -> None:
    life = FleetLife()
    life.look(0, *(sick(Mode.GPU_POWER_BRAKE, gpu_at(2, index)) for index in range(6)))
    assert life.open() == [(Mode.GPU_POWER_BRAKE, "node/n2")]
    assert life.only().reasons[0].startswith("6 of 8 GPUs, such as GPU 0 of n2: ")


def test_some_gpus_of_a_node_are_each_one() -> None:
    life = FleetLife()
    life.look(0, *(sick(Mode.GPU_UNCORRECTABLE_ECC, gpu_at(2, index)) for index in range(5)))
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
    life = FleetLife()
    life.look(0, *(sick(of_nodes, NODE[n]) for n in (4, 5, 6)))
    assert life.open() == [(of_rack, "rack/r1")]
    assert life.only().reasons[0].startswith("3 of 4 nodes, such as node n4: ")


def test_two_nodes_of_four_are_two_nodes() -> None:
    life = FleetLife()
    life.look(0, *(sick(Mode.TELEMETRY_LOST, NODE[n]) for n in (4, 5)))
    assert len(life.open()) == 2


def test_ports_of_most_nodes_of_a_switch_are_the_switch() -> None:
    life = FleetLife()
    life.look(0, *(sick(Mode.FABRIC_LINK_FLAP, NODE[n]) for n in range(5)))
    assert life.open() == [(Mode.FABRIC_LINK_FLAP, "link/leaf-1")]


@pytest.mark.parametrize("mode", [Mode.NODE_UNREACHABLE, Mode.GPU_POWER_BRAKE])
def test_nodes_of_one_feed_across_racks_are_the_feed(mode: Mode) -> None:
    life = FleetLife()
    life.look(0, *(sick(mode, NODE[n]) for n in (0, 1, 4, 5)))
    assert life.open() == [(mode, "power_feed/feed-1")]
    assert life.only().reasons[0].startswith("4 of 4 nodes, such as node n0: ")


def test_where_a_whole_rack_has_it_that_is_more_likely_than_its_feed() -> None:
    life = FleetLife()
    life.look(0, *(sick(Mode.GPU_POWER_BRAKE, NODE[n]) for n in (0, 1, 4, 5, 6, 7)))
    nodes = [(Mode.GPU_POWER_BRAKE, "node/n0"), (Mode.GPU_POWER_BRAKE, "node/n1")]
    assert life.open() == [*nodes, (Mode.GPU_POWER_BRAKE, "rack/r1")]


def test_gpus_may_be_a_node_and_nodes_a_rack_at_once() -> None:
    life = FleetLife()
    life.look(0, *(sick(Mode.GPU_POWER_BRAKE, gpu_at(node, index)) for node in (4, 5, 6) for index in range(7)))
    assert life.open() == [(Mode.GPU_POWER_BRAKE, "rack/r1")]
    assert life.only().jobs == ("j2",)


def test_three_gpus_are_the_fewest_that_are_no_chance() -> None:
    pair = [gpu("A"), replace(gpu("B"), gpu="1")]
    trio = [*pair, replace(gpu("C"), gpu="2")]
    for gpus, keys in ((pair, ["gpu/A", "gpu/B"]), (trio, ["node/n1"])):
        life = Life()
        life.turn(0, found(*(finding(each) for each in gpus)), gpus=gpus)
        assert [key for _, key in life.open()] == keys


def test_a_fault_that_no_whole_can_have_stays_with_each_node() -> None:
    life = FleetLife()
    life.look(0, *(sick(Mode.PCIE_DEGRADED, node) for node in NODE))
    assert len(life.open()) == 8


def test_the_whole_is_as_bad_as_its_worst_part_and_says_that_one_s_reason() -> None:
    life = FleetLife()
    mild = [sick(Mode.GPU_POWER_BRAKE, gpu_at(2, index), Health.DEGRADED) for index in range(7)]
    life.look(0, *mild, replace(sick(Mode.GPU_POWER_BRAKE, gpu_at(2, 7)), reason="pulled down hard"))
    assert life.only().health is Health.FAILED
    assert life.only().reasons == ("8 of 8 GPUs, such as GPU 7 of n2: pulled down hard",)


@pytest.mark.parametrize("place", [NOWHERE, None], ids=["in no rack, on no switch", "not known to the topology"])
def test_nodes_of_which_nobody_knows_where_they_are_have_no_whole(place: Place | None) -> None:
    gpus = [replace(gpu(f"U{n}", f"m{n}"), rack=None) for n in range(8)]
    nodes = [Component(ComponentKind.NODE, node=f"m{n}") for n in range(8)]
    places = {} if place is None else {f"m{n}": place for n in range(8)}
    life = Life()
    life.turn(0, found(*(sick(Mode.TELEMETRY_LOST, each) for each in nodes)), gpus=gpus, places=places)
    assert len(life.open()) == 8


def test_a_switch_explains_what_its_nodes_cause() -> None:
    life = FleetLife()
    life.look(0, *(sick(Mode.FABRIC_LINK_FLAP, NODE[n]) for n in range(5)), sick(Mode.JOB_STALLED, JOB[0]))
    assert life.open() == [(Mode.FABRIC_LINK_FLAP, "link/leaf-1")]
    assert [symptom.failure_mode for symptom in life.only().symptoms] == [Mode.JOB_STALLED]


def test_what_only_a_part_still_has_is_the_whole_s_as_long_as_that_lives() -> None:
    life = FleetLife()
    life.look(0, *(sick(Mode.GPU_POWER_BRAKE, gpu_at(2, index)) for index in range(8)))
    life.look(30, sick(Mode.GPU_POWER_BRAKE, gpu_at(2, 1)))
    assert life.open() == [(Mode.GPU_POWER_BRAKE, "node/n2")]


def test_a_whole_is_healthy_again_when_its_parts_are_seen_healthy() -> None:
    life = FleetLife()
    mode = Mode.GPU_POWER_BRAKE
    life.look(0, *(sick(mode, gpu_at(2, index)) for index in range(8)))
    healthy = judged(*[Health.HEALTHY] * len(FLEET), mode=mode)
    half = judged(*[Health.HEALTHY if g % 2 else Health.UNKNOWN for g in range(len(FLEET))], mode=mode)
    for seconds in range(30, 331, 30):
        life.look(seconds, judgements=[half])
    assert life.only().state is IncidentState.OPEN, "half of its parts were not seen"
    for seconds in range(360, 481, 30):
        life.look(seconds, judgements=[healthy])
    assert life.only().state is IncidentState.RESOLVED


def test_a_rack_that_was_found_by_its_nodes_is_healthy_when_they_are() -> None:
    life = FleetLife()
    mode = Mode.NODE_UNREACHABLE
    life.look(0, *(sick(mode, NODE[n]) for n in range(4)))
    healthy = judged(*[Health.HEALTHY] * NODES, mode=mode, kind=ComponentKind.NODE)
    for seconds in range(30, 151, 30):
        life.look(seconds, judgements=[healthy])
    assert life.only().state is IncidentState.RESOLVED


@pytest.mark.parametrize(
    ("mode", "nodes"),
    [(Mode.FABRIC_LINK_FLAP, (0, 1, 2, 3, 4)), (Mode.NODE_UNREACHABLE, (0, 1, 4, 5))],
    ids=["a leaf switch", "a power feed"],
)
def test_a_switch_or_a_feed_is_healthy_again_when_its_nodes_are(mode: Mode, nodes: tuple[int, ...]) -> None:
    life = FleetLife()
    life.look(0, *(sick(mode, NODE[n]) for n in nodes))
    assert life.only().jobs == ("j1", "j2")
    healthy = judged(*[Health.HEALTHY] * NODES, mode=mode, kind=ComponentKind.NODE)
    life.look(30, sick(mode, NODE[0]))
    assert len(life.incidents) == 1, "what only one part still has is the whole's"
    for seconds in range(60, 181, 30):
        life.look(seconds, judgements=[healthy])
    assert life.only().state is IncidentState.RESOLVED


def test_what_is_no_part_of_the_fleet_is_never_gathered() -> None:
    life = FleetLife()
    strangers = [Component(ComponentKind.GPU, gpu=str(i), uuid=f"X{i}") for i in range(4)]
    elsewhere = [Component(ComponentKind.GPU, node="n99", gpu=str(i), uuid=f"Y{i}") for i in range(4)]
    life.look(0, *(sick(Mode.GPU_POWER_BRAKE, one) for one in (*strangers, *elsewhere)))
    assert len(life.open()) == 8
