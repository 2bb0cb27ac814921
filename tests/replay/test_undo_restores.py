"""Undo restores exactly what the run changed, and nothing that a person changed, whoever does what in which order."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.content.expressions import compile_expression
from healer.content.playbooks import parse_playbook
from healer.documents import parse_document
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode, Finding, Findings, Health, Report
from healer.domain.frame import Frame
from healer.domain.run import EffectState, RunState
from healer.errors import Unavailable
from healer.sim.physics import DEFAULT_LIMIT_W, MIN_LIMIT_W
from tests.virtual_site import ON_CALL, Site

SICK, OTHER = "gpu-002", "gpu-003"
CHANGES = """
name: changes
description: Whatever can be taken back.
match: {failure_modes: [GpuXid]}
target: node
approval: {when: "false"}
deadline: 10h
resolves_when: contained
steps:
  - {id: limit, use: power.limit, with: {share: 0.7}}
  - {id: quarantine, use: node.cordon}
  - {id: keep, use: power.keep, with: {until: gpus.temperature < 0}, timeout: 9h}
"""
compile_expression("true")  # CEL's parser raises the recursion limit, which hypothesis wants to stay as it is

OF_PEOPLE = [f"{act} {node}" for act in ("cordon", "uncordon", "limit") for node in (SICK, OTHER)]
ACTS = st.lists(st.sampled_from(["tick", "restart", "lose an answer", *OF_PEOPLE]), max_size=12)


class Standing:
    """Implements `healer.ports.Notices`: another system says that the node is sick, and goes on saying it."""

    def findings(self, frame: Frame, now: datetime) -> Findings:  # noqa: ARG002
        mode, where = FailureMode.GPU_XID, Component(ComponentKind.NODE, rack="rack-1", node=SICK)
        finding = Finding(mode, where, Health.FAILED, 1.0, "as told")
        return Findings((finding,), reports=(Report(mode, where, Health.FAILED),))

    def warnings(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002
        return ()


class People:
    """What they have done to the nodes, and how these have to look in the end.

    Attributes:
        cordoned, limited: the nodes that have to be so.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cordoned: set[str] = set()
        self.limited: set[str] = set()

    def do(self, act: str) -> None:
        verb, _, node = act.rpartition(" ")
        match verb:
            case "cordon":
                # As with kubectl: what is cordoned already stays whose it is.
                if not self.site.cluster.node(node).cordoned:
                    self.cordoned.add(node)
                self.site.cluster.cordon_by_person(node)
            case "uncordon":
                self.cordoned.discard(node)
                self.site.cluster.uncordon_by_person(node)
            case "limit":
                self.limited.add(node)
                self.site.power.limit_by_person(node)
            case _:
                raise AssertionError(act)


def act_with(site: Site) -> None:
    playbook = parse_playbook(parse_document(CHANGES, file="changes.yaml"))
    site.operator = replace(site.operator, planner=replace(site.operator.planner, playbooks=(playbook,)))


def play(site: Site, acts: list[str]) -> People:
    people = People(site)
    for act in acts:
        match act:
            case "tick":
                site.tick()
            case "restart":
                site.restart()
                act_with(site)
            case "lose an answer":
                site.power.lose_next_answer(Unavailable("agent", "did not answer"))
                site.cluster.lose_next_answer(Unavailable("scheduler", "did not answer"))
            case _:
                people.do(act)
    return people


@pytest.mark.timeout(400)
@settings(max_examples=40, deadline=None)
@given(begin=st.integers(1, 4), acts=ACTS)
def test_what_a_cancelled_run_leaves_is_what_people_have_made_of_it(begin: int, acts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder), notices=Standing()) as site:
        act_with(site)
        site.ticks(begin)
        people = play(site, acts)
        for _ in range(10):
            for run in site.journal.runs(active_only=True):
                site.journal.request_cancel(run.id, ON_CALL, site.clock.now(), "it is enough")
            site.tick()
        runs = site.journal.runs()
        assert all(run.state in {RunState.CANCELLED, RunState.FAILED} for run in runs), [run.detail for run in runs]
        assert {node.name for node in site.cluster.nodes() if node.cordoned} == people.cordoned
        limits = {node: {gpu.limit_w for gpu in site.power.limits(node)} for node in site.fleet.layout.nodes}
        assert limits == {
            node: {MIN_LIMIT_W if node in people.limited else DEFAULT_LIMIT_W} for node in site.fleet.layout.nodes
        }
        standing = [e for run in runs for e in site.journal.effects(run.id) if e.state is EffectState.INTENT]
        assert standing == []
        assert site.journal.leases() == {}
