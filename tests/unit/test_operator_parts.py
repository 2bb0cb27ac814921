"""What a playbook says about when it begins and to how much it is done, by the operator on a whole site."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from healer.content.playbooks import parse_playbook
from healer.documents import parse_document
from healer.domain.incident import IncidentState
from healer.domain.verdict import Guard
from healer.sim.faults import Fault, FaultKind
from tests.virtual_site import Site, add_training

SICK = "gpu-002"
EACH_NODE = """
name: tell-of-all
description: A ticket for each node of the rack.
match: {failure_modes: [GpuUncorrectableEcc]}
target: rack
approval: {when: "false"}
resolves_when: handed over
steps:
  - {id: tell, use: ticket.open, for_each: nodes, max_parallel: 2}
"""
WHOLE_RACK = """
name: whole-rack
description: Take the whole rack out of service.
match: {failure_modes: [GpuUncorrectableEcc]}
target: rack
approval: {when: "false"}
resolves_when: healthy
steps:
  - {id: quarantine, use: node.cordon, for_each: nodes}
"""
AT_A_GOOD_MOMENT = """
name: at-a-good-moment
description: Empty the node, once nothing runs there any more.
match: {failure_modes: [GpuUncorrectableEcc], moment: node.workloads == 0}
target: node
approval: {when: "true"}
resolves_when: contained
steps:
  - {id: quarantine, use: node.cordon, on_failure: keep}
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as made:
        add_training(made.cluster, SICK)
        made.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=SICK, gpu=1))
        yield made


def answer_with(site: Site, text: str) -> None:
    playbook = parse_playbook(parse_document(text, file="parts.yaml"))
    site.operator = replace(site.operator, planner=replace(site.operator.planner, playbooks=(playbook,)))


def test_a_step_for_each_node_has_its_effect_once_on_each_also_across_restarts(site: Site) -> None:
    answer_with(site, EACH_NODE)
    for _ in range(4):
        site.ticks(1)
        site.restart()
        answer_with(site, EACH_NODE)
    (run,) = site.journal.runs()
    assert run.detail == "3 of 3 tell"
    assert len(site.tickets.opened) == 3
    assert sorted(site.tickets.opened) == [f"{run.id}-tell-node-gpu-00{number}" for number in (1, 2, 3)]


def test_what_is_done_to_all_of_them_is_weighed_as_a_whole_before_the_first(site: Site) -> None:
    answer_with(site, WHOLE_RACK)
    site.ticks(2)
    verdict = site.incident().verdict
    assert verdict is not None
    assert (verdict.guard, verdict.message) == (Guard.BUDGET, "fleet: 0 of 3 nodes out, 1 allowed")
    assert site.cluster.effects == ()


def test_nobody_is_asked_before_it_is_a_good_moment(site: Site) -> None:
    answer_with(site, AT_A_GOOD_MOMENT)
    site.ticks(3)
    verdict = site.incident().verdict
    assert verdict is not None
    assert (verdict.guard, verdict.message) == (Guard.MOMENT, "waits until node.workloads == 0")
    assert site.channel.asked == []
    site.cluster.finish_work(SICK)
    site.ticks(2)
    assert site.incident().state is IncidentState.AWAITING_APPROVAL


def test_an_answer_that_comes_when_the_moment_has_passed_waits_for_the_next(site: Site) -> None:
    answer_with(site, AT_A_GOOD_MOMENT)
    site.cluster.finish_work(SICK)
    site.ticks(2)
    add_training(site.cluster, SICK)
    site.answer(approve=True)
    site.ticks(2)
    assert "held: moment: waits until node.workloads == 0" in site.incident().story
    assert not site.cluster.node(SICK).cordoned
    site.cluster.finish_work(SICK)
    site.ticks(2)
    assert [effect.verb for effect in site.cluster.effects] == ["cordon"]


def test_if_no_good_moment_comes_within_the_deadline_the_next_playbook_is_taken(site: Site) -> None:
    ladder = AT_A_GOOD_MOMENT.replace("resolves_when", "deadline: 10m\notherwise: tell-of-all\nresolves_when")
    playbooks = [parse_playbook(parse_document(text, file="parts.yaml")) for text in (ladder, EACH_NODE)]
    site.operator = replace(site.operator, planner=replace(site.operator.planner, playbooks=playbooks))
    site.ticks(58)
    assert site.incident().next_playbook == ""
    site.ticks(6)
    assert site.incident().tried[0].startswith("at-a-good-moment was held for 10m: moment: waits until node.workloads")
    assert len(site.tickets.opened) == 3
