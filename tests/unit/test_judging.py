"""What a fair judge says of the incidents of a simulated day: the rules behind every figure of detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.judging import SETTLES, Case, Found, Judged, Name, Verdict, Where, judge
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode as Mode
from healer.sim.truth import LookAlike, Truth

START = datetime(2026, 3, 2, tzinfo=UTC)
ECC, XID, STALL, BRAKE, FLAP = (
    Mode.GPU_UNCORRECTABLE_ECC,
    Mode.GPU_XID,
    Mode.JOB_STALLED,
    Mode.GPU_POWER_BRAKE,
    Mode.FABRIC_LINK_FLAP,
)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def gpu(node: str, index: int, *, uuid: str | None = None) -> Component:
    known = uuid or f"GPU-{node}-{index}"
    return Component(ComponentKind.GPU, rack=f"r{node[1]}", node=node, gpu=str(index), uuid=known)


def node(name: str) -> Component:
    return Component(ComponentKind.NODE, rack=f"r{name[1]}", node=name)


def rack(name: str) -> Component:
    return Component(ComponentKind.RACK, rack=name)


def job(name: str) -> Component:
    return Component(ComponentKind.JOB, job=name)


def port(host: str, link: str) -> Component:
    return Component(ComponentKind.LINK, node=host, link=link)


SOURCE = Component(ComponentKind.SOURCE, link="prometheus")
# Racks r1 (n11, n12) and r2 (n21, n22), each node with two GPUs; `train` ran on the first two nodes.
WHERE = Where(
    gpus=tuple(gpu(name, index) for name in ("n11", "n12", "n21", "n22") for index in range(2)),
    jobs_of={"train": frozenset({"n11", "n12"}), "serve": frozenset({"n22"})},
)


def truth(
    mode: Mode = ECC,
    component: Component | None = None,
    *,
    onset: float = 60,
    end: float | None = 120,
    culprit: Component | None = None,
    blast: tuple[str, ...] = (),
    symptoms: tuple[Mode, ...] = (),
) -> Truth:
    return Truth(
        failure_mode=mode,
        component=component or gpu("n11", 0),
        culprit=culprit,
        onset=at(onset),
        full=at(onset),
        end=None if end is None else at(end),
        hard=True,
        severity=1.0,
        kind="kind",
        variant="variant",
        blast=blast,
        symptoms=symptoms,
    )


def name(
    mode: Mode = ECC, component: Component | None = None, *, minutes: float = 61, culprit: Component | None = None
) -> Name:
    return Name(at(minutes), mode, component or gpu("n11", 0), culprit, "it is said so")


def case(*names: Name) -> Case:
    return Case("inc-1", names)


def judged(one: Case, *truths: Truth, look_alikes: Sequence[LookAlike] = ()) -> Judged:
    (incident,), _ = judge([one], truths, look_alikes, WHERE)
    return incident


def found(*cases: Case, of: Truth, beside: Sequence[Truth] = ()) -> Found:
    _, faults = judge(cases, [of, *beside], (), WHERE)
    return faults[0]


# What is part of what


@pytest.mark.parametrize(
    ("one", "other", "overlaps"),
    [
        (gpu("n11", 0), gpu("n11", 0), True),
        (gpu("n11", 0), gpu("n11", 0, uuid="GPU-another-board"), True),
        (gpu("n11", 0), gpu("n11", 1), False),
        (gpu("n11", 0), node("n11"), True),
        (gpu("n11", 0), node("n12"), False),
        (node("n11"), node("n11.example.com"), True),
        (node("n11.example.com"), gpu("n11", 1), True),
        (node("n11"), rack("r1"), True),
        (node("n11"), rack("r2"), False),
        (rack("r1"), rack("r2"), False),
        (rack("r1"), gpu("n12", 1), True),
        (port("n11", "mlx5_0/1"), node("n11"), True),
        (port("n11", "mlx5_0/1"), node("n12"), False),
        (Component(ComponentKind.POWER_FEED, rack="r1", link="r1/A"), rack("r1"), True),
        (Component(ComponentKind.POWER_FEED, rack="r1", link="r1/A"), rack("r2"), False),
        (SOURCE, node("n22"), True),
        (job("train"), job("train"), True),
        (job("train"), job("serve"), False),
        (job("train"), gpu("n12", 1), True),
        (job("train"), rack("r1"), True),
        (job("train"), node("n21"), False),
        (job("nobody's"), node("n21"), False),
    ],
    ids=str,
)
def test_what_overlaps(one: Component, other: Component, overlaps: bool) -> None:  # noqa: FBT001 - a row of the table
    assert WHERE.overlaps(one, other) is overlaps
    assert WHERE.overlaps(other, one) is overlaps


# An incident


@pytest.mark.parametrize(
    ("named", "verdict"),
    [
        (name(), Verdict.RIGHT),
        (name(component=node("n11")), Verdict.RIGHT),
        (name(component=rack("r1")), Verdict.RIGHT),
        (name(component=gpu("n11", 1)), Verdict.FALSE),
        (name(component=node("n12")), Verdict.FALSE),
        (name(XID), Verdict.LATE),
        (name(XID, node("n11")), Verdict.LATE),
        (name(XID, gpu("n11", 1)), Verdict.FALSE),
        (name(STALL, job("train")), Verdict.LATE),
        (name(STALL, job("serve")), Verdict.FALSE),
        (name(BRAKE), Verdict.FALSE),
    ],
    ids=[
        "its name and place",
        "the whole of which it is part",
        "a still larger whole",
        "its neighbour",
        "another node",
        "a symptom",
        "a symptom, on the whole",
        "a symptom, on its neighbour",
        "the stall of a job that it harms",
        "the stall of another job",
        "what does not follow from it",
    ],
)
def test_an_incident_is_right_or_late_or_false(named: Name, verdict: Verdict) -> None:
    fault = truth(symptoms=(XID, STALL), blast=("train",))
    one = judged(case(named), fault)
    assert one.verdict is verdict
    assert one.truth == (None if verdict is Verdict.FALSE else 0)


@pytest.mark.parametrize(
    ("opened", "last", "end", "verdict"),
    [
        (60, 60, 120, Verdict.RIGHT),
        (59, 59, 120, Verdict.FALSE),
        (50, 61, 120, Verdict.RIGHT),
        (120, 120, 120, Verdict.RIGHT),
        (130, 130, 120, Verdict.RIGHT),
        (130.5, 131, 120, Verdict.FALSE),
        (1000, 1000, None, Verdict.RIGHT),
    ],
    ids=[
        "at the onset",
        "before it",
        "opened before it, and found again since",
        "at the end",
        "while what was there is still in view",
        "long after the end",
        "of what does not end",
    ],
)
def test_it_has_to_be_of_the_time_of_the_fault(opened: float, last: float, end: float | None, verdict: Verdict) -> None:
    assert timedelta(minutes=10) == SETTLES
    one = case(name(BRAKE, minutes=opened), name(minutes=last))
    assert judged(one, truth(end=end)).verdict is verdict
    # A symptom has to be of the same time.
    late = case(name(BRAKE, minutes=opened), name(XID, minutes=last))
    expected = Verdict.LATE if verdict is Verdict.RIGHT else Verdict.FALSE
    assert judged(late, truth(end=end, symptoms=(XID,))).verdict is expected


def test_what_counts_is_what_it_was_called_at_last() -> None:
    fault = truth(symptoms=(XID,))
    assert judged(case(name(XID), name(minutes=65)), fault).verdict is Verdict.RIGHT
    assert judged(case(name(), name(XID, minutes=65)), fault).verdict is Verdict.LATE
    assert judged(case(name(), name(BRAKE, minutes=65)), fault).verdict is Verdict.FALSE


def test_right_of_one_fault_is_better_than_late_of_another() -> None:
    cause, own = truth(symptoms=(XID,)), truth(XID, onset=30)
    assert (judged(case(name(XID)), cause, own).verdict, judged(case(name(XID)), cause, own).truth) == (
        Verdict.RIGHT,
        1,
    )


def test_of_several_faults_it_is_of_the_one_on_just_that_component_and_else_of_the_newest() -> None:
    whole, part, other = truth(component=node("n11")), truth(component=gpu("n11", 0)), truth(onset=60.5)
    assert judged(case(name()), part, whole).truth == 0
    assert judged(case(name()), whole, part).truth == 1
    assert judged(case(name(component=node("n11"))), whole, part, other).truth == 0
    assert judged(case(name(component=rack("r1"))), whole, part, other).truth == 2
    assert judged(case(name(XID)), truth(symptoms=(XID,)), truth(symptoms=(XID,), onset=60.5)).truth == 1


def test_a_symptom_where_the_culprit_is_counts_as_late() -> None:
    fault = truth(STALL, job("train"), culprit=gpu("n21", 0), symptoms=(XID,))
    assert judged(case(name(XID, gpu("n21", 0))), fault).verdict is Verdict.LATE
    assert judged(case(name(XID, gpu("n22", 0))), fault).verdict is Verdict.FALSE


def test_a_false_one_tells_what_it_may_have_been_taken_in_by() -> None:
    reboot = LookAlike("planned_reboot", (node("n11"),), at(50), at(70))
    churn = LookAlike("pod_churn", (node("n11"),), at(50), at(70), note="again and again")
    elsewhere = LookAlike("port_bounce", (node("n12"),), at(50), at(70))
    before = LookAlike("few_errors", (node("n11"),), at(10), at(20))
    looks = [reboot, churn, elsewhere, before]
    assert judged(case(name()), look_alikes=looks).look_alikes == ("planned_reboot", "pod_churn (again and again)")
    assert judged(case(name(minutes=80)), look_alikes=looks).look_alikes == (
        "planned_reboot",
        "pod_churn (again and again)",
    )
    assert judged(case(name(minutes=81)), look_alikes=looks).look_alikes == ()
    assert judged(case(name()), truth(), look_alikes=looks).look_alikes == (), "what is right was not taken in"


# A fault


def test_a_fault_that_nobody_names_is_missed() -> None:
    fault = truth()
    assert found(of=fault) == Found(fault, None, located=False, culprit_right=None, incidents=0)


def test_latency_runs_from_the_onset_to_the_first_right_name() -> None:
    fault = truth(symptoms=(XID,))
    first, second = case(name(XID, minutes=61), name(minutes=63)), case(name(component=node("n11"), minutes=62))
    assert found(first, of=fault).latency == timedelta(minutes=3)
    assert found(first, second, of=fault).latency == timedelta(minutes=2)


def test_what_was_said_before_the_onset_is_no_early_finding() -> None:
    one = case(name(minutes=40), name(component=node("n11"), minutes=64))
    assert found(one, of=truth()).latency == timedelta(minutes=4)


def test_a_fault_of_which_only_symptoms_are_found_is_missed_and_they_are_counted() -> None:
    fault = truth(symptoms=(XID, STALL), blast=("train",))
    assert found(case(name(XID)), case(name(STALL, job("train"))), of=fault) == Found(
        fault, None, located=False, culprit_right=None, incidents=2
    )


def test_incidents_per_fault_counts_right_and_late_ones_and_no_false_one() -> None:
    fault = truth(symptoms=(XID,))
    cases = [case(name()), case(name(component=node("n11"))), case(name(XID)), case(name(BRAKE))]
    assert found(*cases, of=fault).incidents == 3


def test_each_incident_counts_for_one_fault_only() -> None:
    _, faults = judge([case(name(minutes=91))], [truth(), truth(onset=90)], (), WHERE)
    assert [fault.incidents for fault in faults] == [0, 1]
    assert [fault.latency for fault in faults] == [None, timedelta(minutes=1)]


@pytest.mark.parametrize(
    ("component", "named", "culprit", "located"),
    [
        (gpu("n11", 0), gpu("n11", 0), None, True),
        (gpu("n11", 0), gpu("n11", 0, uuid="GPU-another-board"), None, True),
        (gpu("n11", 0), node("n11"), None, False),
        (node("n11"), node("n11.example.com"), None, True),
        (node("n11"), gpu("n11", 0), None, False),
        (replace(node("n11"), link="mlx5_0"), node("n11"), port("n11", "mlx5_0/1"), True),
        (replace(node("n11"), link="mlx5_0"), node("n11"), port("n11", "mlx5_1/1"), False),
        (replace(node("n11"), link="mlx5_0"), node("n11"), None, False),
    ],
    ids=[
        "the GPU",
        "another board in its place",
        "only its node",
        "the node with its domain",
        "one of its GPUs",
        "the port, as the culprit",
        "another port",
        "no port",
    ],
)
def test_it_is_located_where_exactly_its_component_is_named(
    component: Component,
    named: Component,
    culprit: Component | None,
    located: bool,  # noqa: FBT001 - a row of the table
) -> None:
    mode = FLAP if component.link else ECC
    one = found(case(name(mode, named, culprit=culprit)), of=truth(mode, component))
    assert one.latency is not None
    assert one.located is located


@pytest.mark.parametrize(
    ("culprit", "named", "right"),
    [
        (gpu("n11", 0), gpu("n11", 0), True),
        (gpu("n11", 0), gpu("n11", 1), False),
        (gpu("n11", 0), node("n11"), False),
        (gpu("n11", 0), None, False),
        (node("n11"), node("n11"), True),
        (node("n11"), gpu("n11", 1), True),
        (node("n11"), gpu("n12", 1), False),
        (None, gpu("n11", 1), None),
        (None, None, None),
    ],
    ids=[
        "the rank",
        "another rank",
        "its node is not enough",
        "nobody is named",
        "the node",
        "a rank of the node",
        "a rank of another node",
        "somebody, where nobody is to blame",
        "nobody, where nobody is to blame",
    ],
)
def test_the_culprit_is_right_or_not_and_belongs_to_the_place(
    culprit: Component | None,
    named: Component | None,
    right: bool | None,  # noqa: FBT001 - a row of the table
) -> None:
    fault = truth(STALL, job("train"), culprit=culprit)
    one = found(case(name(STALL, job("train"), culprit=named)), of=fault)
    assert one.culprit_right is right
    assert one.located is (right is not False)


def test_the_culprit_is_the_one_named_at_last() -> None:
    fault = truth(STALL, job("train"), culprit=gpu("n11", 0))
    wrong = name(STALL, job("train"), culprit=gpu("n12", 0))
    right = replace(wrong, at=at(65), culprit=gpu("n11", 0))
    assert found(case(wrong, right), of=fault).culprit_right is True
    assert found(case(right, replace(wrong, at=at(70))), of=fault).culprit_right is False
    assert found(of=fault).culprit_right is False, "a stall that is missed names nobody"


def test_what_an_incident_was_called_is_kept_in_order() -> None:
    one = case(name(XID, minutes=61), name(minutes=63))
    assert (one.opened, one.last.failure_mode) == (at(61), ECC)
