"""What a person approves, and what goes beyond it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.domain.plan import Effect, Plan
from tests.unit.core_samples import cordon, evict, node, plan, rack, restart

EFFECTS = st.lists(st.builds(Effect, st.sampled_from(["cordon", "evict"]), st.text(max_size=5)), max_size=5)


@given(effects=EFFECTS, data=st.data())
def test_the_order_of_the_effects_does_not_change_the_digest(effects: list[Effect], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(effects))
    one, other = replace(plan(), effects=tuple(effects)), replace(plan(), effects=tuple(shuffled))
    assert one.digest == other.digest
    assert other.exceeds(one) == ()


@given(one=EFFECTS, other=EFFECTS)
def test_plans_with_different_effects_have_different_digests(one: list[Effect], other: list[Effect]) -> None:
    first, second = replace(plan(), effects=tuple(one)), replace(plan(), effects=tuple(other))
    assert (first.digest == second.digest) == (
        sorted((e.verb, e.target) for e in one) == sorted((e.verb, e.target) for e in other)
    )


@pytest.mark.parametrize(
    "other",
    [
        plan(cordon("n1"), evict("ns/Job/train", on="n1", pods="train-0-x7k2p")),
        replace(plan(), impediments=("held by a budget",), budget="fleet: 1 of 10", reason="3 errors"),
        replace(plan(), needs_approval=False, deadline=timedelta(hours=9), incident_id="inc-2"),
        replace(plan(), target=replace(node("n1"), rack="r7")),
    ],
    ids=["the pods of the moment", "what is said beside it", "how it is run", "labels of the target"],
)
def test_what_is_only_said_or_churns_is_not_part_of_the_digest(other: Plan) -> None:
    assert other.digest == plan().digest
    assert other.exceeds(plan()) == ()


@pytest.mark.parametrize(
    "other",
    [
        plan(cordon("n1"), evict("ns/Job/train", on="n1"), evict("ns/Job/other", on="n1")),
        plan(cordon("n1")),
        plan(target=node("n2")),
        plan(target=rack()),
        plan(playbook_digest="60"),
    ],
    ids=["one more", "one less", "another node", "another kind", "another playbook text"],
)
def test_every_other_effect_target_or_playbook_text_is_another_digest(other: Plan) -> None:
    assert other.digest != plan().digest


def test_pods_that_come_and_go_under_the_same_owner_are_within_the_approval() -> None:
    approved = plan(cordon("n1"), evict("ns/ReplicaSet/chat", on="n1", pods="chat-a, chat-b"))
    later = plan(cordon("n1"), evict("ns/ReplicaSet/chat", on="n1", pods="chat-c"))
    assert later.exceeds(approved) == ()


def test_workloads_that_ended_by_themselves_are_within_the_approval() -> None:
    approved = plan(cordon("n1"), evict("ns/Job/a", on="n1"), evict("ns/Job/b", on="n1"))
    assert plan(cordon("n1"), evict("ns/Job/b", on="n1")).exceeds(approved) == ()


def test_a_workload_of_a_new_owner_exceeds_the_approval() -> None:
    later = plan(cordon("n1"), evict("ns/Job/train", on="n1"), evict("ns/Job/new", on="n1"))
    assert [str(effect) for effect in later.exceeds(plan())] == ["evict ns/Job/new"]


def test_another_verb_on_an_approved_target_exceeds_the_approval() -> None:
    later = plan(Effect("delete", "ns/Job/train", takes_out="n1"))
    assert [effect.verb for effect in later.exceeds(plan())] == ["delete"]


@pytest.mark.parametrize(
    "later", [plan(playbook_digest="60"), plan(target=node("n2"))], ids=["playbook text", "target"]
)
def test_another_text_or_target_exceeds_the_approval_as_a_whole(later: Plan) -> None:
    assert later.exceeds(plan()) == later.effects


def test_the_nodes_that_leave_service_are_those_of_the_effects() -> None:
    mixed = plan(cordon("n1"), cordon("n2"), Effect("cap power", "rack r1"), evict("ns/Job/x", on="n1"))
    assert mixed.takes_out == {"n1", "n2"}


@pytest.mark.parametrize(
    ("effect", "disrupts"),
    [(cordon("n1"), True), (restart(), True), (Effect("cap power", "rack r1"), False)],
    ids=["a node leaves service", "work is lost", "neither"],
)
def test_a_plan_disrupts_if_a_node_leaves_service_or_work_is_lost(*, effect: Effect, disrupts: bool) -> None:
    assert plan(effect).disrupts is disrupts
    assert plan(Effect("open a ticket", "on node n1"), effect).disrupts is disrupts


def test_an_effect_reads_as_what_it_does_with_its_detail() -> None:
    assert str(evict("ns/Job/train", on="n1", pods="train-0")) == "evict ns/Job/train (train-0)"
    assert str(cordon("n1")) == "cordon n1"
