"""Questions that more than one person has to agree to, that go on to others, and that nobody answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from healer.config import ApprovalSettings
from healer.content.playbooks import parse_playbook
from healer.documents import parse_document
from healer.domain.approval import Approval, ApprovalState, Person
from healer.domain.incident import IncidentState
from healer.domain.run import RunState
from healer.domain.verdict import Mode
from healer.errors import NotPermitted
from healer.runtime.web.decisions import decide
from healer.sim.faults import Fault, FaultKind
from tests.virtual_site import Crash, Fuse, Site

SICK = "gpu-002"
ALICE, BOB, CARA, DAN = (Person(f"token:{name}") for name in ("alice", "bob", "cara", "dan"))
APPROVALS = ApprovalSettings(
    approvers=(ALICE.id, BOB.id, CARA.id, DAN.id),
    groups={"oncall": (ALICE.id, BOB.id), "leads": (CARA.id, "slack:S0LEADS")},
)
DRAIN = """
name: firmly
description: Keep new work away.
match: {failure_modes: [GpuUncorrectableEcc]}
target: node
approval:
  when: "true"
  who: [oncall]
  quorum: 2
  expires_after: 10m
  escalate: {after: 3m, to: [leads]}
resolves_when: contained
otherwise: tell
steps:
  - {id: quarantine, use: node.cordon, on_failure: keep}
"""
TELL = """
name: tell
description: Hand it over.
target: incident
approval: {when: "true"}
resolves_when: handed over
steps:
  - {id: ticket, use: ticket.open}
"""


def put(site: Site, drain: str = DRAIN, approvals: ApprovalSettings = APPROVALS) -> Approval:
    """A process with these approvals and this playbook, and its question, in the channel."""
    site.restart(approvals=approvals)
    deploy(site, drain)
    site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=SICK, gpu=1))
    site.ticks(3)
    (question,) = site.pending()
    assert question.announced
    return question


def deploy(site: Site, drain: str = DRAIN) -> None:
    playbooks = tuple(parse_playbook(parse_document(text, file="asks.yaml")) for text in (drain, TELL))
    site.operator = replace(site.operator, planner=replace(site.operator.planner, playbooks=playbooks))


def say(site: Site, person: Person, *, approve: bool = True) -> Approval:
    (question,) = site.pending()
    approvers = site.config.approvals.approvers
    return decide(site.journal, approvers, question.id, person, site.clock.now(), approve=approve, reason="seen")


def audited(site: Site, action: str) -> list[dict[str, object]]:
    return [json.loads(entry.detail) for entry in site.journal.audit_log() if entry.action == action]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as made:
        yield made


def test_the_question_is_put_to_the_people_of_its_groups_as_they_are_then(site: Site) -> None:
    question = put(site)
    assert (question.who, question.quorum) == ((ALICE.id, BOB.id), 2)
    assert question.escalate_to == (CARA.id, "slack:S0LEADS")
    (told,) = audited(site, "approval.asked")
    assert (told["who"], told["quorum"]) == ([ALICE.id, BOB.id], 2)


def test_who_is_not_named_is_every_approver(site: Site) -> None:
    question = put(site, DRAIN.replace("  who: [oncall]\n", "").replace("  quorum: 2\n", ""))
    assert (question.who, question.quorum) == (APPROVALS.approvers, 1)


def test_one_yes_of_two_is_shown_and_nothing_is_done(site: Site) -> None:
    question = put(site)
    say(site, ALICE)
    site.ticks(3)
    assert site.channel.updated == [(question.id, 1)]
    assert site.incident().state is IncidentState.AWAITING_APPROVAL
    assert site.journal.runs() == ()
    assert site.cluster.effects == ()


def test_the_second_yes_starts_the_run_once(site: Site) -> None:
    question = put(site)
    say(site, ALICE)
    site.tick()
    say(site, BOB)
    site.ticks(5)
    (run,) = site.journal.runs()
    assert (run.state, run.approval_id) == (RunState.SUCCEEDED, question.id)
    assert site.channel.closed == [(question.id, ApprovalState.APPROVED)]


def test_one_no_after_a_yes_ends_it(site: Site) -> None:
    put(site)
    say(site, ALICE)
    say(site, BOB, approve=False)
    site.ticks(3)
    assert site.incident().state is IncidentState.ESCALATED
    assert site.incident().story == "denied by token:bob: seen"
    assert site.cluster.effects == ()


def test_what_was_agreed_to_ends_with_its_question(site: Site) -> None:
    put(site)
    say(site, ALICE)
    deploy(site, DRAIN.replace("Keep new work away.", "Another text."))
    site.ticks(3)
    (anew,) = site.pending()
    assert anew.agreed == ()
    assert say(site, BOB).state is ApprovalState.PENDING


def test_a_wider_group_does_not_widen_an_open_question_and_a_shorter_list_narrows_it(site: Site) -> None:
    put(site)
    site.restart(
        approvals=ApprovalSettings(
            approvers=(BOB.id, CARA.id, DAN.id), groups={"oncall": (BOB.id, DAN.id), "leads": (CARA.id,)}
        )
    )
    deploy(site)
    site.ticks(2)
    with pytest.raises(NotPermitted, match="token:dan is not among those whom"):
        say(site, DAN)
    with pytest.raises(NotPermitted, match=r"token:alice is not listed in approvals\.approvers"):
        say(site, ALICE)
    assert len(say(site, BOB).agreed) == 1


def test_a_question_that_stays_open_goes_on_to_others_once_and_they_are_told_once(site: Site) -> None:
    question = put(site)
    with pytest.raises(NotPermitted, match=r"may answer .* from .* on"):
        say(site, CARA)
    site.ticks(15)  # 2 min 30 s
    assert site.channel.escalated == []
    site.ticks(12)
    assert site.channel.escalated == [question.id]
    assert audited(site, "approval.escalated") == [{"digest": question.digest, "to": [CARA.id, "slack:S0LEADS"]}]
    assert site.pending()[0].escalated_as == "escalation-1"
    say(site, CARA)
    assert say(site, ALICE).state is ApprovalState.APPROVED


def test_what_was_answered_in_time_goes_on_to_nobody(site: Site) -> None:
    put(site)
    say(site, ALICE)
    say(site, BOB)
    site.ticks(30)
    assert site.channel.escalated == []
    assert audited(site, "approval.escalated") == []


def test_one_yes_of_two_does_not_keep_it_from_going_on_to_others(site: Site) -> None:
    question = put(site)
    say(site, ALICE)
    site.ticks(30)
    assert site.channel.escalated == [question.id]


def test_whom_it_goes_on_to_may_answer_although_the_channel_is_down_and_are_told_when_it_is_back(site: Site) -> None:
    question = put(site)
    site.channel.down = True
    site.ticks(30)
    assert site.channel.escalated == []
    assert len(audited(site, "approval.escalated")) == 1
    say(site, CARA)
    site.channel.down = False
    site.ticks(3)
    assert site.channel.escalated == [question.id]
    assert site.channel.updated == [(question.id, 1)]


def test_without_a_channel_it_goes_on_to_others_all_the_same(site: Site) -> None:
    put(site)
    site.operator = replace(site.operator, channel=None)
    site.ticks(30)
    assert len(audited(site, "approval.escalated")) == 1
    assert site.pending()[0].escalation_announced


@pytest.mark.parametrize("point", range(4))
def test_killed_at_any_instant_of_its_escalation_it_is_noted_once_and_told_at_least_once(
    site: Site, point: int
) -> None:
    question = put(site)
    site.let_pass(300)
    site.fuse = Fuse(blows_at=point)
    site.restart()
    deploy(site)
    with pytest.raises(Crash):
        site.ticks(3, seconds=1)
    site.fuse = Fuse()
    site.restart()
    deploy(site)
    site.ticks(3)
    assert len(audited(site, "approval.escalated")) == 1
    assert 1 <= len(site.channel.escalated) <= 2
    assert set(site.channel.escalated) == {question.id}


NOBODY = "nobody answered in time"
ONE_OF_TWO = "not enough people answered in time: 1 of 2 have agreed"


@pytest.mark.parametrize(("agreeing", "why"), [((), NOBODY), ((ALICE,), ONE_OF_TWO)], ids=["no answer", "1 of 2"])
def test_what_expires_goes_to_the_next_playbook(site: Site, agreeing: tuple[Person, ...], why: str) -> None:
    question = put(site)
    for person in agreeing:
        say(site, person)
    site.ticks(12, seconds=60)
    incident = site.incident()
    assert (incident.state, incident.next_playbook) == (IncidentState.AWAITING_APPROVAL, "tell")
    assert incident.tried == (why,)
    expired = site.journal.approval(question.id)
    assert (expired.state, expired.reason) == (ApprovalState.EXPIRED, why)
    assert site.cluster.effects == ()


@pytest.mark.parametrize(("agreeing", "why"), [((), NOBODY), ((ALICE,), ONE_OF_TWO)], ids=["no answer", "1 of 2"])
def test_what_expires_goes_to_a_person_if_its_playbook_says_so(
    site: Site, agreeing: tuple[Person, ...], why: str
) -> None:
    put(site, DRAIN.replace("  quorum: 2\n", "  quorum: 2\n  on_expire: escalate\n"))
    for person in agreeing:
        say(site, person)
    site.ticks(12, seconds=60)
    incident = site.incident()
    assert (incident.state, incident.story, incident.tried) == (IncidentState.ESCALATED, why, ())
    assert site.cluster.effects == ()


def test_in_recommend_the_same_people_are_asked(site: Site) -> None:
    site.restart(mode=Mode.RECOMMEND)
    question = put(site, DRAIN.replace('"true"', '"false"'))
    assert (question.who, question.quorum) == ((ALICE.id, BOB.id), 2)
