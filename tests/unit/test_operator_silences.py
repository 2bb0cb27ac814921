"""What a silence does to the whole operator in virtual time: nothing is asked, nothing acts; afterwards it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from healer.adapters.simulated_cluster import Verb
from healer.config import MaintenanceSettings
from healer.domain.approval import ApprovalState, Person
from healer.domain.incident import Incident, IncidentState
from healer.domain.matcher import matchers_in
from healer.domain.run import RunState
from healer.domain.silence import Silence
from healer.domain.verdict import Guard, Mode
from healer.errors import Unavailable
from healer.rehearsal.virtual import START
from healer.sim.faults import Fault, FaultKind
from tests.virtual_site import ON_CALL, Site, add_training

SICK = "gpu-002"
ALICE = Person("token:alice", "alice")
REASON = "its cables are being reseated"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as made:
        yield made


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Site]:
    """Two nodes whose rack is over its budget while their load surges."""
    with Site(tmp_path, nodes=2, budget_w=3300.0) as made:
        yield made


def silence(site: Site, *matchers: str, seconds: float = 600) -> Silence:
    now = site.clock.now()
    number = len(site.journal.silences())
    made = Silence(
        f"sil-{number}", matchers_in(matchers), now, now + timedelta(seconds=seconds), ALICE, REASON, created_at=now
    )
    site.journal.add_silence(made)
    return made


def break_gpu(site: Site, node: str = SICK) -> None:
    add_training(site.cluster, node)
    site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=node, gpu=1))


def asked_for_drain(site: Site) -> Incident:
    break_gpu(site)
    site.ticks(2)
    assert site.incident().state is IncidentState.AWAITING_APPROVAL
    return site.incident()


def draining(site: Site) -> None:
    """A drain that has cordoned, and whose evictions wait for a disruption budget."""
    site.cluster.set_budget("all", owner="Job/train", min_available=2, namespace="training")
    asked_for_drain(site)
    site.answer(approve=True)
    site.ticks(2)
    assert site.incident().state is IncidentState.REMEDIATING


def guard_of(incident: Incident) -> Guard | None:
    return None if incident.verdict is None else incident.verdict.guard


# Before anything is asked


def test_a_silenced_incident_is_recorded_with_who_until_when_and_why_and_neither_asked_nor_acted_upon(
    site: Site,
) -> None:
    silence(site, f"node={SICK}")
    break_gpu(site)
    site.ticks(20)
    incident = site.incident()
    assert (incident.state, guard_of(incident)) == (IncidentState.OPEN, Guard.SILENCE)
    assert f"silenced by alice (token:alice) until 2026-03-01T00:10:00Z: {REASON}" in incident.story
    assert incident.plan is not None
    assert incident.plan.effects
    assert site.channel.asked == []
    assert site.journal.approvals() == ()
    assert site.journal.runs() == ()
    assert site.cluster.effects == ()


def test_when_the_silence_ends_and_the_fault_persists_the_incident_is_planned_as_usual(site: Site) -> None:
    silence(site, f"node={SICK}", seconds=100)
    break_gpu(site)
    site.ticks(9)
    assert site.channel.asked == []
    site.ticks(2)
    assert site.incident().state is IncidentState.AWAITING_APPROVAL
    site.answer(approve=True)
    site.ticks(5)
    assert site.incident().state is IncidentState.RESOLVED


def test_a_silence_that_is_expired_by_a_person_ends_at_once(site: Site) -> None:
    made = silence(site, f"node={SICK}")
    break_gpu(site)
    site.ticks(3)
    site.journal.expire_silence(made.id, ON_CALL, site.clock.now(), "done early")
    site.ticks(2)
    assert len(site.channel.asked) == 1


def test_a_silence_of_another_node_holds_nothing(site: Site) -> None:
    silence(site, "node=gpu-001")
    asked_for_drain(site)


def test_what_acts_without_asking_does_not_act_when_it_is_silenced(rack: Site) -> None:
    silence(rack, "kind=rack", "rack=rack-1", seconds=60)
    rack.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1"))
    rack.ticks(5)
    assert guard_of(rack.incident()) is Guard.SILENCE
    assert rack.power.asked == []
    rack.ticks(4)
    assert rack.incident().state is IncidentState.REMEDIATING


def test_a_maintenance_window_does_what_a_silence_does(site: Site) -> None:
    window = MaintenanceSettings.model_validate(
        {"name": "r1", "match": ["rack=rack-1"], "start": START, "end": START + timedelta(seconds=95)}
    )
    site.restart(detectors=site.config.detectors.model_copy(update={"maintenance": (window,)}))
    break_gpu(site)
    site.ticks(9)
    assert guard_of(site.incident()) is Guard.SILENCE
    assert "silenced by the maintenance window r1 until 2026-03-01T00:01:35Z" in site.incident().story
    assert site.channel.asked == []
    site.ticks(1)
    assert site.incident().state is IncidentState.AWAITING_APPROVAL


def test_in_observe_the_mode_speaks_first(site: Site) -> None:
    site.restart(mode=Mode.OBSERVE)
    silence(site, f"node={SICK}")
    break_gpu(site)
    site.ticks(3)
    assert guard_of(site.incident()) is Guard.MODE


def test_a_journal_that_cannot_say_what_is_silenced_permits_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for_drain(site)
    site.answer(approve=True)

    def gone(**_asked: object) -> tuple[Silence, ...]:
        raise Unavailable("journal", "connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(site.journal, "silences", gone)
        with pytest.raises(Unavailable):
            site.operator.pursue()
        assert site.cluster.effects == ()
    site.ticks(5)
    assert site.incident().state is IncidentState.RESOLVED


# A question that is open


def test_a_silence_voids_the_question_and_it_is_asked_anew_afterwards(site: Site) -> None:
    first = asked_for_drain(site).approval_id
    site.operator.announce()
    silence(site, f"node={SICK}", seconds=100)
    site.ticks(3)
    approval = site.journal.approval(str(first))
    assert approval.state is ApprovalState.VOID
    assert approval.reason.endswith(REASON)
    assert site.channel.closed == [(first, ApprovalState.VOID)]
    assert (site.incident().state, guard_of(site.incident())) == (IncidentState.OPEN, Guard.SILENCE)
    site.ticks(8)
    assert site.incident().state is IncidentState.AWAITING_APPROVAL
    assert site.channel.asked == [first, site.incident().approval_id]


def test_a_question_that_was_not_put_yet_is_never_put(site: Site) -> None:
    break_gpu(site)
    site.let_pass(10)
    site.operator.turn()
    assert len(site.pending()) == 1
    silence(site, f"node={SICK}")
    site.ticks(5)
    assert site.channel.asked == []
    assert [approval.state for approval in site.journal.approvals()] == [ApprovalState.VOID]


def test_an_approval_that_was_not_acted_upon_lapses(site: Site) -> None:
    first = asked_for_drain(site).approval_id
    site.answer(approve=True)
    silence(site, f"node={SICK}", seconds=100)
    site.tick()
    assert site.journal.approval(str(first)).state is ApprovalState.APPROVED
    assert (site.incident().state, guard_of(site.incident())) == (IncidentState.OPEN, Guard.SILENCE)
    site.ticks(10)
    assert site.cluster.effects == ()
    assert site.incident().state is IncidentState.AWAITING_APPROVAL
    assert site.incident().approval_id != first


def test_a_denial_stands_whatever_is_silenced(site: Site) -> None:
    asked_for_drain(site)
    site.answer(approve=False)
    silence(site, f"node={SICK}", seconds=30)
    site.ticks(10)
    assert site.incident().state is IncidentState.ESCALATED


# A run that is under way


def test_a_run_holds_before_its_next_effect_and_goes_on_afterwards(site: Site) -> None:
    draining(site)
    did = site.cluster.effects
    assert [effect.verb for effect in did if effect.verb is Verb.CORDON] == [Verb.CORDON]
    silence(site, f"node={SICK}", seconds=4 * 3600)
    site.cluster.set_budget("all", owner="Job/train", min_available=0, namespace="training")
    site.ticks(5)
    site.ticks(7, seconds=2000)  # longer than the playbook gives it
    (run,) = site.journal.runs()
    assert (run.state, run.detail.partition(" by ")[0]) == (RunState.RUNNING, "held: silence: silenced")
    assert site.cluster.effects == did
    assert site.cluster.node(SICK).cordoned
    site.ticks(1, seconds=400)
    site.ticks(5)
    assert site.incident().state is IncidentState.RESOLVED
    assert len(site.journal.approvals()) == 1


def test_a_person_cancels_a_run_that_a_silence_holds(site: Site) -> None:
    draining(site)
    silence(site, f"node={SICK}")
    site.ticks(2)
    (run,) = site.journal.runs()
    site.journal.request_cancel(run.id, ALICE, site.clock.now(), "leave it to me")
    site.ticks(2)
    assert site.journal.run(run.id).state is RunState.CANCELLED
    assert not site.cluster.node(SICK).cordoned


def test_a_person_s_uncordon_ends_a_run_that_a_silence_holds(site: Site) -> None:
    draining(site)
    silence(site, f"node={SICK}")
    site.ticks(2)
    site.cluster.uncordon_by_person(SICK)
    site.ticks(2)
    assert site.incident().state is IncidentState.ESCALATED
    assert not site.cluster.node(SICK).cordoned


def test_a_cap_is_renewed_during_a_silence_and_lifted_when_it_is_not_needed(rack: Site) -> None:
    rack.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1", duration_s=400))
    rack.ticks(4)
    assert rack.incident().state is IncidentState.REMEDIATING
    silence(rack, "rack=rack-1", seconds=7200)
    limits = rack.limits_w()
    asked = len(rack.power.asked)
    rack.ticks(20)
    assert rack.limits_w() == limits
    assert len(rack.power.asked) > asked
    rack.ticks(60)
    assert rack.limits_w() == {700.0}
