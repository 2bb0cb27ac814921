"""The line with a real Prometheus and a real Kubernetes: from a double-bit error to a drained node."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Line
from tests.e2e.line import DaemonProcess, run_healer

pytestmark = [pytest.mark.prometheus, pytest.mark.kubernetes]

TURNS = 2


def test_a_double_bit_error_leads_to_a_drained_node_and_nobody_touches_anything_but_approve(line: Line) -> None:
    rack = line.rack
    daemon = line.daemon()
    before = rack.deploy("train", replicas=3)
    rack.deploy_everywhere("exporter")
    (exporter,) = rack.pods_on(rack.node, "exporter")
    line.break_gpu()

    question = line.question(daemon)
    shown = json.dumps(question.blocks)
    plan = daemon.incident(rack.node, state="awaiting_approval")["plan"]
    assert f"cordon {rack.node}" in shown
    assert f"evict {rack.namespace}/Deployment/train ({', '.join(pod.name for pod in before)})" in shown
    assert exporter.name not in shown
    assert f"fleet: 0 of 3 nodes out, 3 allowed; rack {rack.name}: 0 of 3 nodes out, 3 allowed" in shown
    assert f"plan `{plan['digest'][:12]}`" in shown
    assert line.click(daemon, question).status == 200

    resolved = daemon.incident(rack.node, state="resolved")
    run = daemon.run(resolved["run_id"])
    assert rack.cordoned_by() == run["id"]
    made_again = rack.await_elsewhere("train", count=3)
    assert not {pod.uid for pod in made_again} & {pod.uid for pod in before}
    assert rack.pods_on(rack.node, "exporter") == (exporter,)
    assert rack.changes() == (
        f"200 patch nodes {rack.node}",
        *(f"201 create pods/eviction {pod.name}" for pod in before),
    )
    _check_the_record(daemon, run, evicted=[pod.uid for pod in before])


def test_in_observe_mode_the_plan_is_shown_and_nothing_is_written(line: Line) -> None:
    line.break_gpu()
    daemon = line.daemon(mode="observe")
    pods = line.rack.deploy("train", replicas=2)
    incident = daemon.incident(line.rack.node, state="open", story="mode is observe")
    daemon.let_turns_pass(TURNS)
    incident = daemon.incident(line.rack.node, state="open", story="mode is observe")
    assert incident["plan"]["verdict"]["guard"] == "mode"
    assert [effect["verb"] for effect in incident["plan"]["effects"]] == ["cordon", "evict"]
    assert line.rack.changes() == ()
    assert line.rack.pods("train") == pods
    assert line.slack.messages == ()


def test_in_act_mode_nothing_is_written_before_somebody_approves(line: Line) -> None:
    line.break_gpu()
    daemon = line.daemon()
    pods = line.rack.deploy("train", replicas=2)
    question = line.question(daemon)
    daemon.let_turns_pass(TURNS)
    assert line.rack.changes() == ()
    assert line.rack.pods("train") == pods
    assert daemon.incident(line.rack.node, state="awaiting_approval")["run_id"] is None
    line.click(daemon, question, "deny")
    daemon.incident(line.rack.node, state="escalated", story="denied by")
    assert line.rack.changes() == ()


def test_a_person_who_uncordons_the_node_in_the_middle_of_the_drain_has_ended_it(line: Line) -> None:
    rack = line.rack
    line.break_gpu()
    daemon = line.daemon(change=line.one_pod_at_a_time)
    rack.deploy("train", replicas=2)
    line.click(daemon, line.question(daemon))
    daemon.eventually(rack.evicted, what="the first pod is evicted")
    rack.uncordon()
    incident = daemon.incident(rack.node, state="escalated", story="a person uncordoned")
    changes = rack.changes()
    daemon.let_turns_pass(TURNS)
    assert daemon.run(incident["run_id"], ended=True)["state"] == "failed"
    assert rack.cordoned_by() is None
    assert rack.changes() == changes
    assert len(rack.evicted()) == 1
    assert len(line.slack.messages) == 1


def test_a_budget_that_never_lets_go_is_named_and_a_cancelled_drain_gives_the_node_back(line: Line) -> None:
    rack = line.rack
    line.break_gpu()
    daemon = line.daemon()
    pods = rack.deploy("train", replicas=2)
    rack.set_budget("all-of-them", app="train", min_available=2)
    question = line.question(daemon)
    assert f"is held by the disruption budget {rack.namespace}/all-of-them" in str(question.blocks)
    line.click(daemon, question)
    run_id = daemon.incident(rack.node, state="remediating")["run_id"]
    run = daemon.run(run_id, detail="all-of-them")
    assert (run["state"], rack.cordoned_by()) == ("running", run_id)

    daemon.post(f"/api/v1/runs/{run_id}/cancel", reason="the training must not stop tonight")
    assert daemon.run(run_id, ended=True)["state"] == "cancelled"
    daemon.incident(rack.node, state="escalated", story="cancelled by token:alice")
    assert rack.cordoned_by() is None
    assert not [name for name in rack.annotations() if name.startswith("healer.dev/")]
    assert rack.pods("train") == pods
    assert rack.evicted() == ()


def _check_the_record(daemon: DaemonProcess, run: dict[str, object], *, evicted: list[str]) -> None:
    """Every step of the run is there to be read, and nobody has changed the record of it."""
    effects = run["effects"]
    assert isinstance(effects, list)
    assert run["state"] == "succeeded"
    assert {effect["state"] for effect in effects} == {"done"}
    assert effects[0]["key"].startswith("cordon/")
    assert set(evicted) <= {effect["key"].rpartition("/")[2] for effect in effects[1:]}
    verified = run_healer("audit", "verify", "--config", str(daemon.config))
    assert (verified.returncode, verified.stderr) == (0, "")
    assert f"{len(daemon.audit())} entries, unbroken" in verified.stdout
