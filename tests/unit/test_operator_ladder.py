"""A ladder: what is tried after something has failed, each rung with its own plan, question and guards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from healer.content.playbooks import parse_playbook
from healer.documents import parse_document
from healer.domain.incident import IncidentState
from healer.domain.playbook import Playbook
from healer.domain.run import EffectState, RunState
from healer.domain.verdict import Guard
from healer.sim.faults import Fault, FaultKind
from tests.virtual_site import ON_CALL, Site, add_training

SICK = "gpu-002"
FIRST = """
name: gently
description: Empty the node.
match: {failure_modes: [GpuUncorrectableEcc]}
target: node
approval: {when: "true", expires_after: 10m}
deadline: 10m
resolves_when: contained
otherwise: firmly
steps:
  - {id: quarantine, use: node.cordon, on_failure: keep}
  - {id: evacuate, use: node.drain, timeout: 5m}
"""
SECOND = """
name: firmly
description: Keep new work away, and let what runs there end.
target: node
approval: {when: "true"}
deadline: 2h
resolves_when: contained
steps:
  - {id: quarantine, use: node.cordon, on_failure: keep}
  - {id: empty, wait_until: node.workloads == 0, timeout: 90m}
"""


def playbook(text: str) -> Playbook:
    return parse_playbook(parse_document(text, file="ladder.yaml"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A drain on which a disruption budget sits; after it has failed, a rung that only waits."""
    with Site(tmp_path) as made:
        climb(made)
        add_training(made.cluster, SICK)
        made.cluster.set_budget("all", owner="Job/train", min_available=2, namespace="training")
        made.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=SICK, gpu=1))
        yield made


def climb(site: Site, *texts: str) -> None:
    playbooks = tuple(map(playbook, texts or (FIRST, SECOND)))
    site.operator = replace(site.operator, planner=replace(site.operator.planner, playbooks=playbooks))


def first_fails(site: Site) -> None:
    site.ticks(2)
    site.answer(approve=True)
    site.ticks(40)


def test_when_the_first_has_failed_the_second_asks_for_itself(site: Site) -> None:
    first_fails(site)
    incident = site.incident()
    assert (incident.state, incident.next_playbook) == (IncidentState.AWAITING_APPROVAL, "firmly")
    assert len(site.channel.asked) == 2
    (pending,) = site.pending()
    assert pending.plan.playbook == "firmly"
    assert [run.state for run in site.journal.runs()] == [RunState.FAILED]


def test_what_the_first_has_kept_is_the_second_s_and_is_not_done_twice(site: Site) -> None:
    first_fails(site)
    cordons = [effect for effect in site.cluster.effects if effect.verb == "cordon"]
    site.answer(approve=True)
    site.ticks(3)
    assert [effect for effect in site.cluster.effects if effect.verb == "cordon"] == cordons
    newest, first = site.journal.runs()
    assert (newest.plan.playbook, newest.state, newest.owner) == ("firmly", RunState.RUNNING, first.id)
    assert newest.detail == "waits until node.workloads == 0"
    site.cluster.finish_work(SICK)
    site.ticks(5)
    assert site.incident().state is IncidentState.RESOLVED
    assert site.cluster.node(SICK).cordoned


def test_cancelling_the_second_gives_back_what_the_first_has_kept(site: Site) -> None:
    first_fails(site)
    site.answer(approve=True)
    site.ticks(2)
    (run,) = site.journal.runs(active_only=True)
    site.journal.request_cancel(run.id, ON_CALL, site.clock.now(), "it is needed")
    site.ticks(3)
    assert site.journal.run(run.id).state is RunState.CANCELLED
    assert not site.cluster.node(SICK).cordoned
    assert site.incident().state is IncidentState.ESCALATED


def test_a_person_s_no_ends_the_ladder(site: Site) -> None:
    site.ticks(2)
    site.answer(approve=False)
    site.ticks(3)
    assert site.incident().state is IncidentState.ESCALATED
    assert len(site.channel.asked) == 1


def test_nobody_s_answer_leads_to_the_next_rung(site: Site) -> None:
    site.ticks(2)
    site.ticks(2, seconds=400)
    assert site.incident().next_playbook == "firmly"
    assert "nobody answered in time; firmly is next" in {line.reason for line in site.journal.audit_log()}


def test_the_last_rung_s_end_calls_a_person(site: Site) -> None:
    first_fails(site)
    site.answer(approve=True)
    site.ticks(2)
    site.ticks(10, seconds=1000)
    incident = site.incident()
    assert incident.state is IncidentState.ESCALATED
    assert incident.story.startswith("firmly failed: ")


def test_a_restart_between_the_rungs_forgets_none_of_them(site: Site) -> None:
    first_fails(site)
    site.restart()
    climb(site)
    site.answer(approve=True)
    site.ticks(3)
    newest, first = site.journal.runs()
    assert (newest.plan.playbook, newest.owner) == ("firmly", first.id)


def test_a_rung_that_a_new_release_has_lost_is_said_and_nothing_is_done(site: Site) -> None:
    site.ticks(2)
    site.answer(approve=True)
    site.ticks(2)
    climb(site, FIRST.replace("otherwise: firmly\n", ""))
    site.ticks(40)
    incident = site.incident()
    assert incident.verdict is not None
    assert incident.verdict.guard is Guard.TARGET
    assert "firmly was to be next, and is no playbook of this deployment" in incident.story


def test_a_run_keeps_the_document_that_it_started_with(site: Site) -> None:
    """The playbook is edited while its run waits for a disruption budget: the run goes on as it was approved."""
    site.ticks(2)
    site.answer(approve=True)
    site.ticks(2)
    climb(site, FIRST.replace("  - {id: evacuate, use: node.drain, timeout: 5m}\n", ""))
    site.cluster.set_budget("all", owner="Job/train", min_available=0, namespace="training")
    site.ticks(10)
    (run,) = site.journal.runs()
    assert (run.state, [step.id for step in run.plan.steps]) == (RunState.SUCCEEDED, ["quarantine", "evacuate"])
    assert not [each for each in site.cluster.workloads(SICK) if each.owner == "Job/train"]


# What waiting does not mend


def test_a_gpu_that_is_only_not_shown_any_more_waits_for_a_witness(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        climb(site, FIRST.replace("GpuUncorrectableEcc", "GpuFellOffBus"))
        site.ticks(2)
        site.fleet.inject(Fault(FaultKind.GPU_LOST, 0, node=SICK, gpu=1, variant="silent"))
        site.ticks(20)
        verdict = site.incident().verdict
        assert verdict is not None
        assert (verdict.guard, site.incident().vanished, site.channel.asked) == (Guard.WITNESS, True, [])
        site.cluster.lose_gpus(SICK, 1)
        site.ticks(2)
        assert site.incident().state is IncidentState.AWAITING_APPROVAL


def test_a_plan_that_is_held_for_its_deadline_by_what_waiting_does_not_mend_leads_to_the_next(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        climb(site, FIRST, SECOND.replace("use: node.cordon", "use: ticket.open").replace("contained", "handed over"))
        site.cluster.cordon_by_person(SICK)
        site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=SICK, gpu=1))
        site.ticks(58)
        verdict = site.incident().verdict
        assert verdict is not None
        assert (verdict.guard, site.incident().next_playbook) == (Guard.TARGET, "")
        site.ticks(6)
        assert site.incident().next_playbook == "firmly"
        assert site.incident().tried[0].startswith("gently was held for 10m: target: gpu-002 is already cordoned")


@pytest.mark.parametrize("on_failure", ["keep", "undo"])
def test_only_a_node_that_is_kept_out_leads_on_although_its_fault_is_gone(site: Site, on_failure: str) -> None:
    climb(site, FIRST.replace("on_failure: keep", f"on_failure: {on_failure}"), SECOND)
    site.ticks(2)
    site.answer(approve=True)
    site.ticks(20)
    site.fleet.mend(SICK)
    site.ticks(20)
    incident = site.incident()
    if on_failure == "keep":
        assert (incident.state, incident.kept) == (IncidentState.AWAITING_APPROVAL, True)
        assert [pending.plan.playbook for pending in site.pending()] == ["firmly"]
    else:
        assert incident.state is IncidentState.RESOLVED
        assert site.cluster.node(SICK).available


def test_what_there_is_nothing_to_do_with_leads_to_the_next_at_once(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        climb(site, FIRST.replace("use: node.drain", "use: evidence.collect"), SECOND)
        site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=SICK, gpu=1))
        site.ticks(3)
        (tried,) = site.incident().tried
        assert tried.startswith(
            "gently cannot be done here: target: agent: no node agents are configured; set agent.url"
        )
        assert [pending.plan.playbook for pending in site.pending()] == ["firmly"]


def test_without_a_next_one_it_stays_open_and_says_what_is_missing(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        climb(site, FIRST.replace("use: node.drain", "use: evidence.collect").replace("otherwise: firmly", ""))
        site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=SICK, gpu=1))
        site.ticks(3)
        assert site.incident().state is IncidentState.OPEN
        assert "no node agents are configured" in site.incident().story


def test_limits_that_the_first_rung_has_kept_are_put_back_by_a_later_one_although_its_fault_is_gone(
    tmp_path: Path,
) -> None:
    limits = """
steps:
  - {id: limit, use: power.limit, with: {share: 0.5}, on_failure: keep}
  - {id: better, wait_until: gpus.temperature < 0.0, timeout: 1m}
"""
    lifts = """
steps:
  - {id: restore, use: power.restore}
"""
    with Site(tmp_path) as site:
        climb(site, FIRST.partition("steps:")[0] + limits, SECOND.partition("steps:")[0] + lifts)
        site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=SICK, gpu=1))
        site.ticks(2)
        site.answer(approve=True)
        site.ticks(5)
        site.fleet.mend(SICK)
        site.ticks(10)
        assert site.incident().kept
        assert site.limits_w() == {350.0, 700.0}
        site.answer(approve=True)
        site.ticks(2)
        second, first = site.journal.runs()
        assert (first.state, second.state) == (RunState.FAILED, RunState.SUCCEEDED)
        assert site.limits_w() == {700.0}
        assert {effect.state for effect in site.journal.effects(first.id)} == {EffectState.UNDONE}
