"""Which playbook answers an incident, and what it works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode, Health
from healer.domain.playbook import ForEach, Playbook, Scalar
from healer.errors import Rejected
from healer.policy.selection import choose_playbook, items_of, target_of, urgency
from tests.unit.core_samples import START, Says, after, frame, gpu, incident, node, playbook, rack


@dataclass(frozen=True)
class ParamIsSet:
    text: str = "params.enabled"

    def __call__(self, variables: Mapping[str, object]) -> Scalar:
        params = variables["params"]
        return isinstance(params, Mapping) and params.get("enabled") is True


def _chosen(*playbooks: Playbook, age_s: float = 0.0) -> str | None:
    chosen = choose_playbook(incident(), playbooks, {"incident": {}, "params": {}}, after(age_s))
    return None if chosen is None else chosen.name


def test_the_first_that_answers_the_failure_mode_is_chosen() -> None:
    other = playbook("rack", mode=FailureMode.RACK_POWER_OVER_BUDGET)
    assert _chosen(other, playbook("a"), playbook("b")) == "a"


def test_a_failure_mode_that_no_playbook_answers_has_none() -> None:
    assert _chosen(playbook("rack", mode=FailureMode.RACK_POWER_OVER_BUDGET)) is None
    assert _chosen() is None


@pytest.mark.parametrize("value", [False, None, "true", 1, 0.0])
def test_only_a_plain_true_lets_a_condition_match(value: Scalar) -> None:
    assert _chosen(playbook("a", condition=Says(value)), playbook("b", condition=Says(value=True))) == "b"


def test_a_condition_sees_the_params_of_its_own_playbook() -> None:
    off = playbook("off", condition=ParamIsSet())
    on = replace(off, name="on", params={"enabled": True})
    assert _chosen(off, on) == "on"


def test_a_condition_that_cannot_be_evaluated_is_an_error_and_not_a_no() -> None:
    broken = playbook("a", condition=Says(Rejected("expression", "no such member")))
    with pytest.raises(Rejected, match="no such member"):
        _chosen(broken, playbook("b"))


def test_a_playbook_that_waits_is_chosen_once_the_fault_has_lasted() -> None:
    patient = replace(playbook("patient"), hold=timedelta(minutes=5))
    assert _chosen(patient, age_s=299) is None
    assert _chosen(patient, age_s=300) == "patient"
    assert _chosen(patient, playbook("now"), age_s=0) == "now"


def test_one_that_waits_keeps_its_place_before_those_of_lower_priority() -> None:
    """Else the one that waits less long always came first, and the other never ran."""
    patient = replace(playbook("patient"), hold=timedelta(minutes=10), priority=10)
    sooner = replace(playbook("sooner"), hold=timedelta(minutes=5))
    assert _chosen(patient, sooner, age_s=400) is None
    assert _chosen(patient, sooner, age_s=600) == "patient"
    assert _chosen(replace(patient, condition=Says(value=False)), sooner, age_s=400) == "sooner"


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (ComponentKind.GPU, gpu()),
        (ComponentKind.NODE, Component(ComponentKind.NODE, rack="r1", node="n1")),
        (ComponentKind.RACK, rack("r1")),
        (ComponentKind.JOB, Component(ComponentKind.JOB, job="j1")),
        (ComponentKind.LINK, None),
        (ComponentKind.POWER_FEED, None),
        (ComponentKind.SOURCE, None),
    ],
)
def test_the_target_is_what_the_component_belongs_to(kind: ComponentKind, target: Component | None) -> None:
    assert target_of(incident(gpu()), kind) == target


@pytest.mark.parametrize("kind", [ComponentKind.NODE, ComponentKind.RACK, ComponentKind.JOB])
def test_where_the_telemetry_names_no_owner_there_is_no_target(kind: ComponentKind) -> None:
    assert target_of(incident(gpu(node=None, rack=None, job=None)), kind) is None


def test_the_worst_is_answered_first_and_of_those_the_oldest() -> None:
    found = replace(incident(gpu("A")), health=Health.FAILED)
    warning = replace(found, id="inc-w", health=Health.DEGRADED, opened_at=START)
    new, old = replace(found, id="inc-n", opened_at=after(60)), replace(found, id="inc-o", opened_at=after(30))
    assert [each.id for each in sorted([warning, new, old], key=urgency)] == ["inc-o", "inc-n", "inc-w"]


def test_what_is_next_on_a_ladder_is_chosen_whatever_matches() -> None:
    rung = replace(playbook("rung"), failure_modes=frozenset())
    climbing = replace(incident(), next_playbook="rung")
    chosen = choose_playbook(climbing, [playbook("first"), rung], {}, START)
    assert chosen is not None
    assert chosen.name == "rung"
    assert choose_playbook(incident(), [rung], {}, START) is None


def test_a_rung_that_is_not_there_any_more_is_told() -> None:
    with pytest.raises(Rejected, match="gone was to be next, and is no playbook of this deployment"):
        choose_playbook(replace(incident(), next_playbook="gone"), [playbook("first")], {}, START)


def test_without_a_kind_the_target_is_the_component_itself() -> None:
    assert target_of(incident(gpu()), None) == gpu()


# The parts of a target

SEEN = frame(
    gpu("A", "n2", job="j2"), gpu("B", "n1", job="j1"), gpu("C", "n1", job="j1"), gpu("D", "n3", rack="r2", job=None)
)


@pytest.mark.parametrize(
    ("which", "target", "names"),
    [
        (ForEach.NODES, rack(), ["node n1", "node n2"]),
        (ForEach.GPUS, node("n1"), ["GPU 0 of n1", "GPU 0 of n1"]),
        (ForEach.JOBS, rack(), ["job j1", "job j2"]),
        (ForEach.NODES, Component(ComponentKind.JOB, job="j1"), ["node n1"]),
        (ForEach.JOBS, rack("r2"), []),
        (ForEach.NODES, rack("r9"), []),
    ],
    ids=["nodes of a rack", "GPUs of a node", "jobs of a rack", "nodes of a job", "idle", "not seen"],
)
def test_the_parts_of_a_target_are_those_that_the_telemetry_names_each_once(
    which: ForEach, target: Component, names: list[str]
) -> None:
    assert [str(item) for item in items_of(which, incident(), target, SEEN)] == names


def test_without_telemetry_a_target_has_no_parts_that_are_known() -> None:
    assert items_of(ForEach.NODES, incident(), rack(), None) == ()


@pytest.mark.parametrize(
    ("blamed", "names"),
    [(gpu("B", "n7"), ["node n7"]), (rack(), []), (None, [])],
    ids=["a GPU", "something without a node", "nobody"],
)
def test_the_culprit_is_the_node_of_what_the_incident_blames(blamed: Component | None, names: list[str]) -> None:
    assert [str(item) for item in items_of(ForEach.CULPRIT, replace(incident(), culprit=blamed), rack(), None)] == names
