"""Which remedy a site gets by what it has: with agents on its nodes GPUs are reset and nodes boot, and serve again."""

from __future__ import annotations

from pathlib import Path

import pytest

from healer.actions.registry import BUILT_IN, check_playbook
from healer.config import Config, load_config
from healer.content.playbooks import parse_playbook
from healer.documents import parse_document
from healer.domain.incident import IncidentState
from healer.domain.verdict import Guard
from healer.rehearsal.rehearse import rehearse
from healer.sim.faults import Fault, FaultKind
from tests.virtual_site import Site, add_training

SICK = "gpu-002"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ROOT / "config.yaml")


def _struck(folder: Path, kind: FaultKind, *, agents: bool) -> Site:
    site = Site(folder, agents=agents)
    add_training(site.cluster, SICK)
    site.ticks(2)
    site.fleet.inject(Fault(kind, 0, node=SICK, gpu=1))
    return site


@pytest.mark.parametrize(
    ("kind", "agents", "playbook"),
    [
        (FaultKind.GPU_LOST, True, "reboot-node"),
        (FaultKind.GPU_LOST, False, "drain-node"),
        (FaultKind.ROW_REMAP_PENDING, True, "reset-gpu"),
        (FaultKind.ROW_REMAP_PENDING, False, "hand-over"),
        (FaultKind.UNCORRECTABLE_ECC, True, "drain-node"),
    ],
)
def test_the_remedy_is_one_that_the_site_can_carry_out(
    tmp_path: Path, kind: FaultKind, playbook: str, *, agents: bool
) -> None:
    with _struck(tmp_path, kind, agents=agents) as site:
        site.ticks(12, 30)
        plan = site.incident().plan
        assert plan is not None
        assert plan.playbook == playbook


def test_a_node_that_is_mended_is_only_then_given_to_others(tmp_path: Path) -> None:
    """Two nodes wait for a reset, and the rack spares one: the second is asked about when the first serves again."""
    with _struck(tmp_path, FaultKind.ROW_REMAP_PENDING, agents=True) as site:
        site.fleet.inject(Fault(FaultKind.ROW_REMAP_PENDING, 0, node="gpu-003", gpu=0))
        asked: set[str] = set()
        out_at_once = 0
        for _ in range(60):
            site.tick(20)
            for _ in site.pending():
                asked |= {site.answer(approve=True).incident_id}
            out_at_once = max(out_at_once, sum(node.cordoned for node in site.cluster.nodes()))
        assert len(asked) == 2
        assert out_at_once == 1
        assert {incident.state for incident in site.journal.incidents()} == {IncidentState.RESOLVED}
        assert all(node.available for node in site.cluster.nodes())


def test_while_a_node_is_mended_no_other_run_touches_it(tmp_path: Path) -> None:
    with _struck(tmp_path, FaultKind.ROW_REMAP_PENDING, agents=True) as site:
        site.ticks(3)
        site.answer(approve=True)
        site.ticks(2)
        site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=SICK, gpu=0))
        site.ticks(2)
        (other,) = (each for each in site.journal.incidents() if each.failure_mode == "GpuUncorrectableEcc")
        assert other.verdict is not None
        assert other.verdict.guard in {Guard.LEASE, Guard.TARGET}


# After the return to service

RETURNED = """\
name: returned
description: Give the node back, and wait for what never comes.
match: {{failure_modes: [GpuXid]}}
target: gpu
approval: {{when: "false"}}
resolves_when: healthy
steps:
  - {{id: quarantine, use: node.cordon, on_failure: {on_failure}}}
  - {{id: evacuate, use: node.drain}}
  - {{id: return, use: node.uncordon}}
  - {{id: wait, wait_until: gpus.count == 99, timeout: 2m}}
tests:
  - name: it
    workloads: [{{owner: Job/train, node: gpu-002, gpus: 1}}]
    incident: {{failure_mode: GpuXid, node: gpu-002, gpu: 1}}
    events: [{events}]
    expect: {{{expect}}}
"""


@pytest.mark.parametrize(
    ("on_failure", "events", "expect"),
    [
        ("keep", "", "run: failed, nodes: {gpu-002: cordoned}"),
        ("undo", "", "run: failed, nodes: {gpu-002: in service}"),
        ("keep", "{at: 90s, do: cancel}", "run: cancelled, nodes: {gpu-002: in service}"),
        ("keep", "{at: 90s, do: restart}", "run: failed, nodes: {gpu-002: cordoned}"),
        ("undo", "{at: 90s, do: cordon, node: gpu-002}", "run: failed, nodes: {gpu-002: cordoned by a person}"),
    ],
    ids=["kept", "undone", "cancelled", "healer dies", "a person cordons it"],
)
def test_what_fails_after_the_return_to_service_takes_the_node_out_again_if_the_cordon_is_kept(
    config: Config, on_failure: str, events: str, expect: str
) -> None:
    text = RETURNED.format(on_failure=on_failure, events=events, expect=expect)
    playbook = parse_playbook(parse_document(text, file="returned.yaml"))
    assert check_playbook(playbook, BUILT_IN) == ()
    (played,) = rehearse(playbook, config, (), verbs=BUILT_IN)
    assert played.problems == (), played.transcript
