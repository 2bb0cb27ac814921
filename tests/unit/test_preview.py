"""A preview says what a playbook would do to the fleet as it is, and everything that speaks against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from healer.actions.registry import BUILT_IN
from healer.adapters.simulated_cluster import SimulatedCluster
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode
from healer.domain.verdict import Guard, Mode
from healer.errors import NotFound
from healer.runtime.knowledge import Outside
from healer.runtime.preview import Preview, preview
from healer.runtime.wiring import Content
from tests.virtual_site import Site, add_training

NODE = Component(ComponentKind.NODE, node="gpu-002")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        add_training(site.cluster, "gpu-002")
        site.let_pass(10)
        yield site


def _preview(
    site: Site, name: str, mode: FailureMode, where: Component, *, cluster: bool = True, agents: bool = False
) -> Preview:
    playbook = next(each for each in site.operator.planner.playbooks if each.name == name)
    scheduler: SimulatedCluster | None = site.cluster if cluster else None
    return preview(
        playbook,
        mode,
        where,
        config=site.config,
        content=Content((), (), (playbook,), BUILT_IN),
        outside=Outside(site.telemetry, cluster=scheduler, power=site.power, care=site.care if agents else None),
        journal=site.journal,
        clock=site.clock,
    )


def test_the_effects_are_those_of_the_moment_and_nothing_happens(site: Site) -> None:
    seen = _preview(site, "drain-node", FailureMode.GPU_UNCORRECTABLE_ECC, NODE)
    assert seen.plan is not None
    assert [str(effect).partition(" (")[0] for effect in seen.plan.effects] == [
        "cordon gpu-002",
        "evict training/Deployment/prefetch",
        "evict training/Job/train",
    ]
    assert seen.plan.needs_approval
    assert seen.verdicts == ()
    assert "rack rack-1: 0 of 3 nodes out, 1 allowed" in seen.plan.budget
    assert site.cluster.effects == ()
    assert site.journal.incidents() == ()


def test_every_guard_that_would_speak_is_heard(site: Site) -> None:
    site.cluster.cordon_by_person("gpu-001")
    site.cluster.cordon_by_person("gpu-003")
    site.config = site.config.model_copy(update={"mode": Mode.OBSERVE})
    seen = _preview(site, "drain-node", FailureMode.GPU_UNCORRECTABLE_ECC, NODE)
    assert [verdict.guard for verdict in seen.verdicts] == [Guard.MODE, Guard.BUDGET]


def test_without_a_scheduler_nothing_is_planned_and_it_says_why(site: Site) -> None:
    seen = _preview(site, "drain-node", FailureMode.GPU_UNCORRECTABLE_ECC, NODE, cluster=False)
    assert seen.plan is not None
    assert seen.plan.effects == ()
    assert "set cluster.kind" in seen.verdicts[0].message


def test_an_incident_that_the_playbook_does_not_answer_has_no_plan(site: Site) -> None:
    seen = _preview(site, "drain-node", FailureMode.PCIE_DEGRADED, NODE)
    assert (seen.plan, seen.verdicts) == (None, ())


def test_a_component_that_the_telemetry_does_not_show_is_no_target(site: Site) -> None:
    stranger = Component(ComponentKind.NODE, node="gpu-009")
    with pytest.raises(NotFound, match="gpu-009"):
        _preview(site, "drain-node", FailureMode.GPU_UNCORRECTABLE_ECC, stranger)


def test_a_rack_is_planned_with_its_meter_and_its_agents(site: Site) -> None:
    site.restart(topology=site.config.topology.model_copy(update={"rack_budget_watts": {"default": 3300.0}}))
    where = Component(ComponentKind.RACK, rack="rack-1")
    seen = _preview(site, "cap-rack-power", FailureMode.RACK_POWER_OVER_BUDGET, where)
    assert seen.plan is not None
    effect = seen.plan.effects[0]
    assert "6 GPUs on 3 nodes from 700 W to" in effect.detail


def test_what_agents_would_do_is_planned_where_there_are_any(site: Site) -> None:
    where = Component(ComponentKind.GPU, node="gpu-002", gpu="1")
    seen = _preview(site, "reset-gpu", FailureMode.GPU_ROW_REMAP_PENDING, where, agents=True)
    assert seen.plan is not None
    assert [f"{effect.verb} {effect.target}" for effect in seen.plan.effects] == [
        "cordon gpu-002",
        "evict training/Deployment/prefetch",
        "evict training/Job/train",
        "reset gpu-002/1",
        "burn in gpu-002",
        "uncordon gpu-002",
    ]
    assert seen.plan.impediments == ("1 processes use GPU 1 of gpu-002 now, and have to end first",)
    assert seen.plan.takes_out == {"gpu-002"}
    assert seen.verdicts == ()
    assert site.care.begun == []
    without = _preview(site, "reset-gpu", FailureMode.GPU_ROW_REMAP_PENDING, where)
    assert (without.plan, without.verdicts) == (None, ()), "it does not answer at such a site"
