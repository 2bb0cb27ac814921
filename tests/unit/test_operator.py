"""The whole operator in virtual time: what is found is asked, what is approved is done, what is doubtful is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from healer.adapters.simulated_cluster import Verb
from healer.content.detectors import Detector
from healer.domain.approval import ApprovalState
from healer.domain.finding import FailureMode, Findings
from healer.domain.frame import Frame
from healer.domain.incident import Incident, IncidentState
from healer.domain.run import RunState
from healer.domain.verdict import Guard, Mode
from healer.errors import Unavailable
from healer.policy.audit_chain import first_broken_link
from healer.runtime.operator import failed_turn
from healer.sim.faults import Fault, FaultKind
from tests.virtual_site import ON_CALL, Site, add_training

SICK = "gpu-002"
ECC = FaultKind.UNCORRECTABLE_ECC


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as made:
        yield made


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Site]:
    """Two nodes whose rack is over its budget while their load surges."""
    with Site(tmp_path, nodes=2, budget_w=3300.0) as made:
        yield made


def break_gpu(site: Site, node: str = SICK, gpu: int = 1) -> None:
    site.fleet.inject(Fault(ECC, 0, node=node, gpu=gpu))


def asked_for_drain(site: Site) -> Incident:
    add_training(site.cluster, SICK)
    break_gpu(site)
    site.ticks(2)
    assert site.incident().state is IncidentState.AWAITING_APPROVAL
    return site.incident()


def actions(site: Site) -> list[str]:
    return [entry.action for entry in site.journal.audit_log()]


def drained(site: Site, node: str = SICK) -> bool:
    return all(workload.owner.startswith("DaemonSet/") for workload in site.cluster.workloads(node))


# Modes


def test_observe_plans_and_does_nothing(site: Site) -> None:
    site.restart(mode=Mode.OBSERVE)
    add_training(site.cluster, SICK)
    break_gpu(site)
    site.ticks(5)
    incident = site.incident()
    assert incident.state is IncidentState.OPEN
    assert incident.plan is not None
    assert [str(effect).split(" (")[0] for effect in incident.plan.effects] == [
        "cordon gpu-002",
        "evict training/Deployment/prefetch",
        "evict training/Job/train",
    ]
    assert incident.verdict is not None
    assert incident.verdict.guard is Guard.MODE
    assert site.cluster.effects == ()
    assert site.journal.approvals() == ()
    assert site.journal.runs() == ()


def test_recommend_asks_also_for_what_act_does_by_itself(rack: Site) -> None:
    rack.restart(mode=Mode.RECOMMEND)
    rack.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1"))
    rack.ticks(4)
    assert rack.incident().state is IncidentState.AWAITING_APPROVAL
    assert rack.power.asked == []
    rack.answer(approve=True)
    rack.ticks(2)
    assert rack.power.asked != []


# The question and its answer


def test_act_asks_for_a_drain_and_waits(site: Site) -> None:
    incident = asked_for_drain(site)
    site.ticks(10)
    assert site.channel.asked == [incident.approval_id]  # once
    assert (site.incident().state, site.incident().approval_id) == (incident.state, incident.approval_id)
    assert site.cluster.effects == ()


def test_what_nobody_answers_expires_and_never_becomes_yes(site: Site) -> None:
    asked_for_drain(site)
    site.ticks(2, seconds=800)
    assert site.incident().state is IncidentState.AWAITING_APPROVAL
    site.ticks(3, seconds=100)
    assert site.incident().state is IncidentState.ESCALATED
    assert [approval.state for approval in site.journal.approvals()] == [ApprovalState.EXPIRED]
    site.ticks(3, seconds=1000)
    assert site.cluster.effects == ()
    assert len(site.journal.incidents()) == 1
    assert site.channel.closed == [(site.channel.asked[0], ApprovalState.EXPIRED)]


def test_what_is_approved_is_drained_and_resolved(site: Site) -> None:
    incident = asked_for_drain(site)
    site.answer(approve=True)
    site.ticks(4)
    assert site.incident().state is IncidentState.RESOLVED
    assert drained(site)
    assert site.journal.leases() == {}
    assert site.channel.closed == [(incident.approval_id, ApprovalState.APPROVED)]
    assert [action for action in actions(site) if not action.startswith("effect")] == [
        "incident.open",
        "incident.awaiting_approval",
        "approval.asked",
        "approval.approved",
        "incident.remediating",
        "run.started",
        "run.succeeded",
        "incident.verifying",
        "incident.resolved",
    ]
    assert first_broken_link(site.journal.audit_log()) is None


def test_an_answer_that_the_channel_shows_before_it_is_acted_upon_still_counts(site: Site) -> None:
    asked_for_drain(site)
    site.operator.announce()
    site.answer(approve=True)
    site.operator.announce()
    assert site.journal.approvals(open_only=True) == ()
    site.ticks(4)
    assert site.incident().state is IncidentState.RESOLVED


def test_what_is_denied_is_escalated_and_not_asked_again(site: Site) -> None:
    asked_for_drain(site)
    site.answer(approve=False, reason="wait for the checkpoint")
    site.ticks(30)
    assert site.incident().state is IncidentState.ESCALATED
    assert "wait for the checkpoint" in site.incident().story
    assert site.cluster.effects == ()
    assert len(site.journal.approvals()) == 1


def test_a_plan_that_grows_after_the_question_voids_it_and_asks_anew(site: Site) -> None:
    asked_for_drain(site)
    (first,) = site.pending()
    site.cluster.add_workload("Job/urgent", node=SICK, namespace="research")
    site.ticks(3)
    assert site.journal.approval(first.id).state is ApprovalState.VOID
    (second,) = site.pending()
    assert "evict research/Job/urgent" in {f"{effect.verb} {effect.target}" for effect in second.plan.effects}
    assert site.incident().approval_id == second.id


def test_a_plan_that_grows_between_the_answer_and_the_start_asks_anew(site: Site) -> None:
    asked_for_drain(site)
    first = site.answer(approve=True)
    site.cluster.add_workload("Job/urgent", node=SICK, namespace="research")
    site.ticks(2)
    (second,) = site.pending()
    assert second.id != first.id
    assert site.cluster.effects == ()


def test_a_question_about_a_playbook_that_is_gone_is_voided(site: Site) -> None:
    asked_for_drain(site)
    first = site.answer(approve=True)
    playbooks = site.config.playbooks.model_copy(update={"disabled": ("drain-node",)})
    site.restart(playbooks=playbooks)
    site.ticks(3)
    assert site.cluster.effects == ()
    assert site.incident().state is IncidentState.OPEN
    assert "no playbook answers" in site.incident().story
    assert site.journal.approval(first.id).state is ApprovalState.APPROVED


def test_a_workload_that_leaves_by_itself_does_not_void_the_approval(site: Site) -> None:
    asked_for_drain(site)
    site.answer(approve=True)
    prefetch = next(w for w in site.cluster.workloads(SICK) if w.owner == "Deployment/prefetch")
    site.cluster.evict(prefetch, grace=timedelta(0))
    site.ticks(5)
    assert site.incident().state is IncidentState.RESOLVED
    assert len(site.journal.approvals()) == 1


@pytest.mark.parametrize(("closing", "following"), [(ApprovalState.VOID, ""), (ApprovalState.EXPIRED, "hand-over")])
def test_a_crash_between_closing_a_question_and_the_incident_s_turn_leaves_nothing_stuck(
    site: Site, closing: ApprovalState, following: str
) -> None:
    asked_for_drain(site)
    (approval,) = site.pending()
    site.operator.book.close(approval, closing, "closed just before the crash")
    site.restart()
    site.operator.pursue()
    assert (site.incident().state, site.incident().next_playbook) == (IncidentState.OPEN, following)


def test_an_answer_that_is_quicker_than_the_voiding_of_its_question_stands(site: Site) -> None:
    asked_for_drain(site)
    incident, (question,) = site.incident(), site.pending()
    site.answer(approve=True)
    site.operator.book.reopen(incident, question, "the plan changed")
    assert site.journal.approval(question.id).state is ApprovalState.APPROVED
    assert site.incident() == incident


# Telemetry, guards and channels that fail


def test_while_its_telemetry_is_silent_an_approved_plan_waits(site: Site) -> None:
    asked_for_drain(site)
    site.telemetry.silent.add(SICK)
    site.ticks(5)
    site.answer(approve=True)
    site.ticks(5)
    incident = site.incident()
    assert incident.state is IncidentState.AWAITING_APPROVAL
    assert incident.verdict is not None
    assert incident.verdict.guard is Guard.FRESHNESS
    assert site.cluster.effects == ()
    site.telemetry.silent.clear()
    site.ticks(5)
    assert site.incident().state is IncidentState.RESOLVED


def test_an_approved_plan_that_is_held_for_too_long_is_not_started_days_later(site: Site) -> None:
    asked_for_drain(site)
    site.telemetry.silent.add(SICK)
    site.ticks(5)
    site.answer(approve=True)
    site.let_pass(31 * 60)
    site.ticks(2)
    held = site.incident(FailureMode.GPU_UNCORRECTABLE_ECC)
    assert held.state is IncidentState.ESCALATED
    assert "held until it expired" in held.story
    site.telemetry.silent.clear()
    site.ticks(5)
    assert site.cluster.effects == ()


def test_silence_in_the_middle_of_a_drain_stops_it_until_the_telemetry_is_back(site: Site) -> None:
    site.cluster.set_budget("all", owner="Job/train", min_available=2, namespace="training")
    asked_for_drain(site)
    site.answer(approve=True)
    site.ticks(2)
    site.telemetry.silent.add(SICK)
    site.ticks(5)
    site.cluster.set_budget("all", owner="Job/train", min_available=0, namespace="training")
    evicted = len(site.cluster.effects)
    site.ticks(5)
    assert len(site.cluster.effects) == evicted
    assert "held: freshness" in site.journal.runs()[0].detail
    site.telemetry.silent.clear()
    site.ticks(5)
    assert site.incident().state is IncidentState.RESOLVED


def test_a_scheduler_that_does_not_answer_holds_everything(site: Site) -> None:
    asked_for_drain(site)
    site.answer(approve=True)
    site.let_pass(10)
    site.cluster.fail_next(Unavailable("scheduler", "connection refused"), times=4)
    site.operator.pursue()
    assert site.cluster.effects == ()
    assert site.incident().state is IncidentState.AWAITING_APPROVAL
    site.ticks(5)
    assert site.incident().state is IncidentState.RESOLVED


def test_when_the_channel_is_back_the_question_is_asked(site: Site) -> None:
    site.channel.down = True
    asked_for_drain(site)
    site.ticks(5)
    site.channel.down = False
    site.ticks(2)
    assert site.channel.asked == [site.incident().approval_id]


def test_without_a_channel_a_decision_by_another_way_works(site: Site) -> None:
    site.channel.down = True
    asked_for_drain(site)
    site.answer(approve=True)
    site.ticks(5)
    assert site.incident().state is IncidentState.RESOLVED
    site.channel.down = False
    site.operator.announce()
    assert site.channel.asked == []
    assert site.journal.approvals(open_only=True) == ()


def test_a_turn_that_fails_changes_nothing_and_is_shown(site: Site) -> None:
    asked_for_drain(site)
    before, audited = site.journal.incidents(), site.journal.audit_log()
    seen = site.board.look()
    site.telemetry.down = True
    site.let_pass(10)
    with pytest.raises(Unavailable) as failure:
        site.operator.turn()
    failed_turn(site.board, failure.value)
    assert site.journal.incidents() == before
    assert site.journal.audit_log() == audited
    shown = site.board.look()
    assert shown.figures.failed_turns == 1
    assert "did not answer" in shown.figures.last_error
    assert shown.frame is seen.frame


def test_a_person_s_cordon_keeps_the_node_out_of_the_plan(site: Site) -> None:
    site.cluster.cordon_by_person(SICK)
    add_training(site.cluster, SICK)
    break_gpu(site)
    site.ticks(3)
    assert site.incident().state is IncidentState.OPEN
    assert "cordoned by a person" in site.incident().story
    assert site.cluster.effects == ()


# One fault, one incident


def test_the_same_fault_after_its_incident_ended_opens_nothing(site: Site) -> None:
    asked_for_drain(site)
    site.answer(approve=True)
    site.ticks(20)
    assert site.incident().state is IncidentState.RESOLVED
    assert site.incident().persists


def test_a_fault_that_a_person_took_over_and_that_comes_back_is_a_new_incident(site: Site) -> None:
    asked_for_drain(site)
    site.answer(approve=False)
    site.ticks(2)
    site.fleet.mend(SICK)
    site.ticks(20)
    assert not site.incident().persists
    break_gpu(site)
    site.ticks(2)
    newest, oldest = site.journal.incidents()
    assert (newest.state, oldest.state) == (IncidentState.AWAITING_APPROVAL, IncidentState.ESCALATED)


def test_a_fault_that_went_away_by_itself_and_is_soon_back_opens_its_incident_and_asks_again(site: Site) -> None:
    first = asked_for_drain(site)
    site.fleet.mend(SICK)
    site.ticks(20)
    assert site.incident().state is IncidentState.RESOLVED
    break_gpu(site)
    site.ticks(2)
    again = site.incident()
    assert (again.id, again.state, again.reopened) == (first.id, IncidentState.AWAITING_APPROVAL, 1)
    assert [question.id for question in site.pending()] == [again.approval_id]
    assert again.approval_id != first.approval_id


def test_a_fault_that_comes_back_long_after_it_went_away_by_itself_is_a_new_incident(site: Site) -> None:
    asked_for_drain(site)
    site.fleet.mend(SICK)
    site.ticks(20)
    site.ticks(85, seconds=20)
    break_gpu(site)
    site.ticks(2)
    newest, oldest = site.journal.incidents()
    assert (newest.state, oldest.state) == (IncidentState.AWAITING_APPROVAL, IncidentState.RESOLVED)
    assert (newest.reopened, oldest.reopened) == (0, 0)


def test_a_fault_that_goes_away_while_it_is_asked_about_takes_its_question_along(site: Site) -> None:
    asked_for_drain(site)
    site.fleet.mend(SICK)
    site.ticks(20)
    assert site.incident().state is IncidentState.RESOLVED
    assert [approval.state for approval in site.journal.approvals()] == [ApprovalState.VOID]


def test_silence_is_not_health(site: Site) -> None:
    asked_for_drain(site)
    site.fleet.mend(SICK)
    site.telemetry.silent.add(SICK)
    site.ticks(30)
    assert site.incident(FailureMode.GPU_UNCORRECTABLE_ECC).state is IncidentState.AWAITING_APPROVAL


def test_two_gpus_of_one_node_are_one_question_and_one_drain(site: Site) -> None:
    add_training(site.cluster, SICK)
    break_gpu(site, gpu=0)
    break_gpu(site, gpu=1)
    site.ticks(3)
    assert len(site.journal.incidents()) == 2
    assert len(site.channel.asked) == 1
    site.answer(approve=True)
    site.ticks(6)
    assert {incident.state for incident in site.journal.incidents()} == {IncidentState.RESOLVED}
    assert len(site.journal.approvals()) == len(site.journal.runs()) == 1
    assert [effect.verb for effect in site.cluster.effects] == [Verb.CORDON, Verb.EVICT, Verb.EVICT, Verb.EVICT]


def test_the_budget_holds_back_the_third_node(tmp_path: Path) -> None:
    with Site(tmp_path, nodes=4) as site:
        for node in site.fleet.layout.nodes[:3]:
            break_gpu(site, node=node)
        site.ticks(2)
        for approval in site.pending():
            site.journal.decide(approval.id, ON_CALL, site.clock.now(), approve=True, reason="go")
        site.ticks(8)
        states = [incident.state for incident in site.journal.incidents()]
        assert states.count(IncidentState.RESOLVED) == 2
        (held,) = (i for i in site.journal.incidents() if i.state is not IncidentState.RESOLVED)
        assert held.verdict is not None
        assert held.verdict.guard is Guard.BUDGET
        assert sum(node.cordoned for node in site.cluster.nodes()) == 2


def test_the_rack_s_budget_holds_back_its_second_node(tmp_path: Path) -> None:
    with Site(tmp_path, racks=2, nodes=4) as site:
        for node in ("gpu-001", "gpu-002"):
            break_gpu(site, node=node)
        site.ticks(2)
        for approval in site.pending():
            site.journal.decide(approval.id, ON_CALL, site.clock.now(), approve=True, reason="go")
        site.ticks(8)
        assert [node.rack for node in site.cluster.nodes() if node.cordoned] == ["rack-1"]
        (held,) = (i for i in site.journal.incidents() if i.state is not IncidentState.RESOLVED)
        assert held.verdict is not None
        assert held.verdict.message == "rack rack-1: 1 of 2 nodes out, 1 allowed"


# A run under way


def test_a_person_s_uncordon_ends_the_run_and_stands(site: Site) -> None:
    site.cluster.set_budget("all", owner="Job/train", min_available=2, namespace="training")
    asked_for_drain(site)
    site.answer(approve=True)
    site.ticks(2)
    site.cluster.uncordon_by_person(SICK)
    site.ticks(3)
    assert site.incident().state is IncidentState.ESCALATED
    assert "person uncordoned" in site.incident().story
    assert not site.cluster.node(SICK).cordoned
    assert site.journal.leases() == {}


def test_a_run_that_a_person_cancels_takes_its_cordon_back(site: Site) -> None:
    site.cluster.set_budget("all", owner="Job/train", min_available=2, namespace="training")
    asked_for_drain(site)
    site.answer(approve=True)
    site.ticks(2)
    (run,) = site.journal.runs()
    site.journal.request_cancel(run.id, ON_CALL, site.clock.now(), "not now")
    site.ticks(2)
    assert site.journal.run(run.id).state is RunState.CANCELLED
    assert not site.cluster.node(SICK).cordoned
    assert "not now" in site.incident().story


def test_a_drain_that_cannot_finish_keeps_the_faulty_node_out_of_service(site: Site) -> None:
    site.cluster.set_budget("all", owner="Job/train", min_available=2, namespace="training")
    asked_for_drain(site)
    site.answer(approve=True)
    site.ticks(3)
    site.let_pass(2700)
    site.ticks(2)
    assert site.incident().state is IncidentState.ESCALATED
    assert "training/all" in site.incident().story
    assert site.cluster.node(SICK).cordoned
    assert site.journal.leases() == {}


def test_a_run_that_was_begun_before_the_mode_became_observe_does_nothing_more(site: Site) -> None:
    site.cluster.set_budget("all", owner="Job/train", min_available=2, namespace="training")
    asked_for_drain(site)
    site.answer(approve=True)
    site.ticks(2)
    did = site.cluster.effects
    site.restart(mode=Mode.OBSERVE)
    site.cluster.set_budget("all", owner="Job/train", min_available=0, namespace="training")
    site.let_pass(4000)
    site.ticks(3)
    assert site.cluster.effects == did
    (run,) = site.journal.runs()
    assert (run.state, run.detail) == (RunState.RUNNING, "held: mode is observe: nothing acts")
    site.journal.request_cancel(run.id, ON_CALL, site.clock.now(), "put it back")
    site.ticks(3)
    assert site.journal.run(run.id).state is RunState.CANCELLED
    assert site.cluster.node(SICK).available


# The rack's power


def test_a_rack_over_its_budget_is_capped_held_and_restored(rack: Site) -> None:
    rack.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1", duration_s=120))
    rack.ticks(6)
    assert rack.incident().failure_mode is FailureMode.RACK_POWER_OVER_BUDGET
    assert rack.incident().state is IncidentState.REMEDIATING
    assert rack.journal.approvals() == ()
    assert len(rack.limits_w()) == 1
    assert rack.fleet.rack_power_w()["rack-1"] <= 3300
    rack.ticks(24)
    assert rack.incident().state is IncidentState.RESOLVED
    assert rack.limits_w() == {700.0}


def test_a_rack_that_is_over_again_right_after_its_cap_was_lifted_is_capped_again(rack: Site) -> None:
    rack.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1", duration_s=60))
    for _ in range(30):
        rack.tick()
        if rack.incident().state is IncidentState.VERIFYING:
            break
    rack.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1"))
    rack.ticks(12)
    assert rack.fleet.rack_power_w()["rack-1"] <= 3300
    assert max(rack.limits_w()) < 700
    assert len(rack.journal.runs()) == 2


def test_a_node_whose_agent_is_silent_blocks_the_cap(rack: Site) -> None:
    rack.power.silent.add("gpu-001")
    rack.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1"))
    rack.ticks(6)
    assert rack.incident().state is IncidentState.OPEN
    assert "power agent of gpu-001" in rack.incident().story
    assert rack.power.asked == []


def test_in_observe_a_cap_is_not_renewed_and_falls_to_its_safe_share(rack: Site) -> None:
    rack.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1"))
    rack.ticks(6)
    asked = len(rack.power.asked)
    assert asked
    rack.restart(mode=Mode.OBSERVE)
    rack.ticks(20)
    assert len(rack.power.asked) == asked
    assert max(rack.limits_w()) < 700


def test_a_detector_with_a_defect_is_named_and_the_others_go_on(site: Site) -> None:
    def broken(_frame: Frame) -> Findings:
        raise ZeroDivisionError("a defect")

    defective = Detector("broken", (FailureMode.GPU_ANOMALY,), (), (), broken)
    site.observe_with(defective, *site.operator.observer.detectors)
    break_gpu(site)
    site.ticks(2)
    assert site.incident().failure_mode is FailureMode.GPU_UNCORRECTABLE_ECC
    frame = site.board.look().frame
    assert frame is not None
    assert [warning for warning in frame.warnings if "detector broken failed unexpectedly" in warning]
    assert site.board.look().figures.failed_turns == 0


def test_what_a_detector_with_a_defect_would_have_judged_is_unknown_and_ends_nothing(site: Site) -> None:
    asked_for_drain(site)

    def broken(_frame: Frame) -> Findings:
        raise KeyError("a defect")

    detectors = site.operator.observer.detectors
    site.observe_with(*(replace(part, detect=broken) if part.name == "ecc" else part for part in detectors))
    site.ticks(30)
    assert site.incident().state is IncidentState.AWAITING_APPROVAL


def test_a_gpu_that_is_gone_can_be_drained_long_after_it_was_last_seen_while_its_node_is(site: Site) -> None:
    add_training(site.cluster, "gpu-002")
    site.ticks(6)
    site.fleet.inject(Fault(FaultKind.GPU_LOST, 0, node="gpu-002", gpu=1, variant="xid_first"))
    site.ticks(40)
    assert site.incident().failure_mode is FailureMode.GPU_FELL_OFF_BUS
    site.answer(approve=True)
    site.ticks(6)
    assert site.incident().state is IncidentState.RESOLVED
    assert site.cluster.node("gpu-002").cordoned


def test_a_gpu_that_is_gone_with_its_whole_node_from_the_telemetry_is_not_drained(site: Site) -> None:
    site.ticks(6)
    site.fleet.inject(Fault(FaultKind.GPU_LOST, 0, node="gpu-002", gpu=1, variant="xid_first"))
    site.ticks(12)
    assert len(site.channel.asked) == 1
    site.telemetry.silent.add("gpu-002")
    site.ticks(12)
    for _ in site.pending():
        site.answer(approve=True)
    site.ticks(6)
    assert site.cluster.effects == ()
