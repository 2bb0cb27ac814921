"""Limits and locks in the life of the operator: what starts, what waits, what is asked, and what has begun goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from healer.actions.registry import BUILT_IN
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode
from healer.domain.incident import Incident, IncidentState
from healer.domain.run import RunState
from healer.domain.verdict import Guard
from healer.runtime.knowledge import Outside
from healer.runtime.preview import preview
from healer.runtime.wiring import Content
from healer.sim.faults import Fault, FaultKind
from tests.virtual_site import ON_CALL, Site, add_training

QUARANTINE = """
name: quarantine
description: Keep new work away, and let what runs there end.
match: {failure_modes: [GpuUncorrectableEcc]}
target: node
approval: {when: "ASKED"}
deadline: 2h
resolves_when: contained
MORE
steps:
  - {id: cordon, use: node.cordon, on_failure: keep}
  - {id: empty, wait_until: node.workloads == 0, timeout: 90m}
tests: []
"""
OTHER = QUARANTINE.replace("name: quarantine", "name: other").replace("GpuUncorrectableEcc", "GpuXid")


@contextmanager
def limited(folder: Path, more: str, *, asked: bool = False, racks: int = 1, others: str = "") -> Iterator[Site]:
    """Eight busy nodes, and a playbook for uncorrectable errors; another one for XIDs, if it has `others`."""
    with Site(folder, nodes=8, racks=racks) as site:
        ample = site.config.budgets.fleet.model_copy(update={"max_nodes": 100, "max_percent": 100})
        every = dict.fromkeys(("fleet", "rack", "job"), ample)
        deploy(site, folder / "deployed", more, asked=asked, others=others)
        site.restart(budgets=site.config.budgets.model_copy(update=every))
        for name in site.fleet.layout.nodes:
            add_training(site.cluster, name)
        yield site


def deploy(site: Site, playbooks: Path, more: str, *, asked: bool = False, others: str = "") -> None:
    """Another process, with these playbooks."""
    playbooks.mkdir()
    for name, text, keys in (("quarantine", QUARANTINE, more), ("other", OTHER, others)):
        if keys:
            written = text.replace("ASKED", str(asked).lower()).replace("MORE", keys)
            (playbooks / f"{name}.yaml").write_text(written)
    site.restart(playbooks=site.config.playbooks.model_copy(update={"path": playbooks, "params": {}}))


def fails(site: Site, *numbers: int, kind: FaultKind = FaultKind.UNCORRECTABLE_ECC) -> None:
    for number in numbers:
        site.fleet.inject(Fault(kind, 0, node=f"gpu-00{number}", gpu=0))
    site.ticks(3)


def running(site: Site) -> list[str]:
    return sorted(str(run.plan.target.node) for run in site.journal.runs(active_only=True))


def of_node(site: Site, number: int) -> Incident:
    (found,) = (each for each in site.journal.incidents() if each.component.node == f"gpu-00{number}")
    return found


def held(site: Site) -> set[tuple[Guard, str, str]]:
    verdicts = [each.verdict for each in site.journal.incidents() if each.verdict is not None]
    return {(verdict.guard, verdict.message, verdict.lifts) for verdict in verdicts}


# How many at once


def test_of_many_that_fail_in_one_turn_only_as_many_start_as_may_run_at_once(tmp_path: Path) -> None:
    with limited(tmp_path, "limits: {at_once: 2}") as site:
        fails(site, 1, 2, 3, 4)
        assert len(running(site)) == 2
        assert held(site) == {(Guard.LIMIT, "2 of 2 runs of quarantine at once", "one of them ends")}
        site.cluster.finish_work(running(site)[0])
        site.ticks(4)
        assert len(site.journal.runs()) == 3, "and when one has ended, the next begins"
        assert len(running(site)) == 2


def test_a_process_that_starts_anew_still_knows_what_has_been_started(tmp_path: Path) -> None:
    with limited(tmp_path, "limits: {runs: 2, per: 1h}") as site:
        fails(site, 1, 2)
        site.restart()
        fails(site, 3)
        assert running(site) == ["gpu-001", "gpu-002"]
        assert {guard for guard, *_ in held(site)} == {Guard.LIMIT}


@pytest.mark.parametrize("lower", ["{at_once: 1}", "{runs: 1, per: 1h}"], ids=["at once", "per time"])
def test_a_run_that_has_begun_goes_on_however_far_beyond_the_limit_it_is_now(tmp_path: Path, lower: str) -> None:
    with limited(tmp_path, "limits: {at_once: 2}") as site:
        for node in ("gpu-001", "gpu-002"):
            site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=node, gpu=0))
        while not site.journal.runs():
            site.tick()
        assert (len(running(site)), site.cluster.effects) == (2, ()), "both have begun, and neither has cordoned yet"
        deploy(site, tmp_path / "stricter", f"limits: {lower}")
        site.ticks(2)
        for name in ("gpu-001", "gpu-002"):
            site.cluster.finish_work(name)
        site.ticks(8)
        assert [run.state for run in site.journal.runs()] == [RunState.SUCCEEDED, RunState.SUCCEEDED]


# How often


def test_the_next_one_starts_when_the_time_has_come_that_was_told(tmp_path: Path) -> None:
    with limited(tmp_path, "limits: {runs: 2, per: 10m}") as site:
        fails(site, 1, 2)
        first = min(run.started_at for run in site.journal.runs())
        fails(site, 3)
        lifts = first + timedelta(minutes=10)
        told = (Guard.LIMIT, "2 of 2 runs of quarantine within 10m", f"it is {lifts:%Y-%m-%dT%H:%M:%SZ}")
        assert held(site) == {told}
        while site.clock.now() + timedelta(seconds=10) < lifts:
            site.tick()
            assert len(site.journal.runs()) == 2
        site.ticks(2)
        assert len(site.journal.runs()) == 3


def test_one_node_is_not_treated_again_and_again_while_others_are(tmp_path: Path) -> None:
    with limited(tmp_path, "limits: {per_target: {runs: 1, per: 6h}}") as site:
        fails(site, 1)
        site.cluster.finish_work("gpu-001")
        site.ticks(3)
        assert of_node(site, 1).state is IncidentState.RESOLVED
        site.cluster.uncordon_by_person("gpu-001")
        site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node="gpu-001", gpu=1))
        fails(site, 2)
        assert running(site) == ["gpu-002"]
        ((guard, message, _),) = held(site)
        assert (guard, message) == (Guard.LIMIT, "1 of 1 runs of quarantine on node gpu-001 within 6h")


# Questions


def test_no_more_is_asked_than_may_start(tmp_path: Path) -> None:
    with limited(tmp_path, "limits: {runs: 2, per: 1h}", asked=True) as site:
        fails(site, 1, 2, 3)
        assert len(site.pending()) == 2
        assert held(site) == {
            (
                Guard.LIMIT,
                "0 of 2 runs of quarantine within 1h, 2 more asked about",
                "a question about one is answered",
            )
        }
        for approval in site.pending():
            site.journal.decide(approval.id, ON_CALL, site.clock.now(), approve=True, reason="yes")
        site.ticks(2)
        assert len(running(site)) == 2, "every one that was approved could start"


def test_what_is_denied_leaves_its_start_to_the_next(tmp_path: Path) -> None:
    with limited(tmp_path, "limits: {at_once: 1}", asked=True) as site:
        fails(site, 1, 2)
        site.answer(approve=False)
        site.ticks(2)
        assert len(site.pending()) == 1
        site.answer(approve=True)
        site.ticks(2)
        assert len(running(site)) == 1


# Locks


def test_two_playbooks_that_share_a_lock_never_run_at_once(tmp_path: Path) -> None:
    with limited(tmp_path, "locks: [pumps]", others="locks: [pumps]") as site:
        fails(site, 1)
        fails(site, 2, kind=FaultKind.GPU_XID)
        (run,) = site.journal.runs()
        assert run.plan.locks == ("pumps",)
        assert held(site) == {(Guard.LEASE, f"lock/pumps is held by {run.id}", f"{run.id} ends")}
        site.cluster.finish_work("gpu-001")
        site.ticks(4)
        assert running(site) == ["gpu-002"]


def test_a_lock_may_be_named_by_where_the_incident_is(tmp_path: Path) -> None:
    with limited(tmp_path, """locks: ['${"loop-" + incident.component.rack}']""", racks=2) as site:
        fails(site, 1, 2, 5)
        assert {run.plan.locks for run in site.journal.runs()} == {("loop-rack-1",), ("loop-rack-2",)}
        assert len(running(site)) == 2


def test_a_lock_that_cannot_be_named_holds_the_plan_back(tmp_path: Path) -> None:
    with limited(tmp_path, "locks: ['${incident.component.link}']") as site:
        fails(site, 1)
        verdict = of_node(site, 1).verdict
        assert site.journal.runs() == ()
        assert verdict is not None
        assert (verdict.guard, verdict.message) == (
            Guard.TARGET,
            "locks: 'incident.component.link' gives None, which is no name of 1 to 200 characters",
        )


def test_of_two_incidents_that_want_one_lock_the_second_is_asked_when_the_first_has_moved_on(tmp_path: Path) -> None:
    with limited(tmp_path, "locks: [pumps]", asked=True, others="locks: [pumps]") as site:
        fails(site, 1)
        fails(site, 2, kind=FaultKind.GPU_XID)
        asking, waiting = of_node(site, 1), of_node(site, 2)
        assert [approval.incident_id for approval in site.pending()] == [asking.id]
        assert waiting.verdict is not None
        assert waiting.verdict.message == f"lock/pumps awaits approval in {asking.id}"
        site.answer(approve=False)
        site.ticks(2)
        assert [approval.incident_id for approval in site.pending()] == [waiting.id]


# What is read and shown


def test_a_preview_names_the_limit_that_is_spent(tmp_path: Path) -> None:
    with limited(tmp_path, "limits: {at_once: 1}\nlocks: [pumps]") as site:
        fails(site, 1)
        (playbook,) = site.operator.planner.playbooks
        seen = preview(
            playbook,
            FailureMode.GPU_UNCORRECTABLE_ECC,
            Component(ComponentKind.NODE, node="gpu-005"),
            config=site.config,
            content=Content((), (), (playbook,), BUILT_IN),
            outside=Outside(site.telemetry, cluster=site.cluster),
            journal=site.journal,
            clock=site.clock,
        )
        (run,) = site.journal.runs()
        assert [str(verdict) for verdict in seen.verdicts] == [
            f"lease: lock/pumps is held by {run.id} (lifts when {run.id} ends)",
            "limit: 1 of 1 runs of quarantine at once (lifts when one of them ends)",
        ]


@pytest.mark.parametrize("keys", ["limits: {at_once: 1}", "limits: {runs: 1, per: 1h}"], ids=["at once", "per time"])
def test_a_plan_that_a_limit_holds_back_is_not_written_anew_in_every_turn(tmp_path: Path, keys: str) -> None:
    with limited(tmp_path, keys) as site:
        fails(site, 1, 2)
        before = of_node(site, 2)
        site.ticks(3)
        assert replace(of_node(site, 2), told_at=before.told_at, evidence=before.evidence) == before
