"""The course of an incident, in words by which two of them can be compared: no ids, pods or figures."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from healer.domain.approval import Approval, ApprovalState, Person
from healer.domain.incident import IncidentState
from healer.domain.plan import Effect, Plan
from healer.domain.run import EffectRecord, EffectState, Run, RunState
from healer.runtime.course import Carried, course_of, deeds_of, owner_of
from tests.unit.core_samples import START, after, cordon, evict, incident, node, plan

DONE, UNDONE, INTENT, FAILED = EffectState.DONE, EffectState.UNDONE, EffectState.INTENT, EffectState.FAILED
PLAN = plan(
    cordon("n1"),
    evict("training/Job/train", on="n1", pods="train-x7, train-y8; the cache is lost"),
    evict("training/Job/train-big", on="n1", pods="other"),
    Effect("restart", "gpu-operator/DaemonSet/dcgm-exporter on n1", harmless=True),
    target=node("n1"),
)


def carried(*records: EffectRecord, of: Plan = PLAN) -> Carried:
    run = Run(
        id="run-1",
        incident_id="inc-1",
        approval_id="apr-1",
        plan=of,
        state=RunState.SUCCEEDED,
        position=0,
        started_at=after(10),
        step_started_at=after(10),
        next_look_at=after(10),
        ended_at=after(60),
        detail="empty",
    )
    return Carried(run, records)


def record(key: str, state: EffectState = DONE, *, at: float = 20, until: float = 21, detail: str = "") -> EffectRecord:
    return EffectRecord("run-1", "step", key, state, after(at), settled_at=after(until), detail=detail)


def told(*records: EffectRecord) -> list[tuple[str, float]]:
    return [(deed.text, (deed.at - START).total_seconds()) for deed in deeds_of(carried(*records))]


@pytest.mark.parametrize(
    ("records", "deeds"),
    [
        ([record("cordon/n1")], [("cordon n1", 21)]),
        ([record("cordon/n1", UNDONE, until=50)], [("cordon n1", 20), ("uncordon n1", 50)]),
        ([record("cordon/n1", UNDONE, detail="left as it is: a person's")], [("cordon n1", 20)]),
        (
            [record("evict/training/train-x7/u1"), record("evict/training/train-y8/u2", until=30)],
            [("evict training/Job/train", 21)],
        ),
        ([record("evict/training/train-big-z/u3")], [("evict training/Job/train-big", 21)]),
        ([record("restart/gpu-operator/dcgm-exporter-q/u4")], [("evict gpu-operator/DaemonSet/dcgm-exporter", 21)]),
        ([record("evict/elsewhere/train-x7/u5")], [("evict elsewhere/train-x7", 21)]),
        (
            [record("cap/n1/1", UNDONE, until=50), record("cap/n1/3", UNDONE, at=30, until=50)],
            [("limit n1", 20), ("restore n1", 50)],
        ),
        ([record("ticket/run-1-ticket")], [("ticket", 21)]),
        ([record("fence/n1", UNDONE, until=40)], [("fence n1", 20), ("undo fence n1", 40)]),
        (
            [record("suspend/training/Job/train"), record("resume/training/Job/train", at=30, until=31)],
            [("suspend training/Job/train", 21), ("resume training/Job/train", 31)],
        ),
        (
            [record("suspend/training/Job/train", UNDONE, until=40)],
            [("suspend training/Job/train", 20), ("resume training/Job/train", 40)],
        ),
        ([record("uncordon/n1", UNDONE, until=40)], [("uncordon n1", 20), ("cordon n1", 40)]),
        ([record("reset/n1/run-1.reset.1"), record("met")], [("reset n1", 21)]),
        (
            [record("reboot/n1/run-1.boot.1"), record("burn_in/n1/run-1.test.1", at=30, until=31)],
            [("reboot n1", 21), ("burn in n1", 31)],
        ),
        ([record("collect/n1/run-1.evidence-node-n1.1")], [("collect n1", 21)]),
        ([record("cordon/n1", INTENT), record("evict/training/train-x7/u1", FAILED)], []),
    ],
    ids=[
        "done",
        "undone",
        "not the run's any more",
        "two pods of one owner",
        "a pod that came later",
        "an exporter",
        "a pod of nobody that is known",
        "caps",
        "a ticket",
        "a verb of another release",
        "a job restarted",
        "a job that was not",
        "back to service, and out again",
        "a reset, and since when something holds",
        "a boot and a test",
        "evidence of one of several nodes",
        "in doubt, and not done",
    ],
)
def test_what_a_run_did_is_said_once_by_names_that_do_not_churn(
    records: list[EffectRecord], deeds: list[tuple[str, float]]
) -> None:
    assert told(*records) == deeds


def test_a_pod_is_its_owner_s_by_the_plan_or_by_how_its_name_begins() -> None:
    pods = ("training/train-x7", "training/other", "training/train-big-9", "training/train-9", "training/trainer-9")
    assert [owner_of(pod, PLAN) for pod in pods] == [
        "training/Job/train",
        "training/Job/train-big",
        "training/Job/train-big",
        "training/Job/train",
        "training/trainer-9",
    ]


def test_a_course_is_question_answer_run_deeds_and_end_in_their_order() -> None:
    question = Approval(
        id="apr-1",
        incident_id="inc-1",
        plan=replace(PLAN, effects=PLAN.effects[:1]),
        digest="d",
        state=ApprovalState.APPROVED,
        asked_at=after(1),
        expires_at=after(900),
        decided_at=after(9),
        decided_by=Person("slack:U1", "ada"),
        reason="seen",
    )
    ended = replace(incident(), state=IncidentState.RESOLVED, resolved_at=after(60), story="contained")
    run = carried(record("cordon/n1"), of=question.plan)
    course = course_of(ended, (question,), (run,))
    assert [(moment.text, moment.at - START) for moment in course] == [
        ("asks: drain-node on node n1: cordon n1", timedelta(seconds=1)),
        ("approved", timedelta(seconds=9)),
        ("starts: drain-node on node n1: cordon n1", timedelta(seconds=10)),
        ("cordon n1", timedelta(seconds=21)),
        ("drain-node succeeded", timedelta(seconds=60)),
        ("resolved", timedelta(seconds=60)),
    ]
    assert course[1].note == "by ada (slack:U1): seen"
    pending = replace(question, state=ApprovalState.PENDING, decided_at=None, decided_by=None)
    assert [moment.text for moment in course_of(incident(), (pending,), ())] == [
        "asks: drain-node on node n1: cordon n1"
    ]
