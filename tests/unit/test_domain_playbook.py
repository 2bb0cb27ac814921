"""What a step's expressions see where its playbook stands in another one, and what a step is done to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import pytest

from healer.domain.component import Component, ComponentKind
from healer.domain.plan import Part, PlannedStep
from healer.domain.playbook import Expression, ForEach, Scalar, Scope, Step, given
from tests.unit.core_samples import Says, node, rack


@dataclass(frozen=True)
class Param:
    """The value of a param."""

    name: str

    @property
    def text(self) -> str:
        return f"params.{self.name}"

    def __call__(self, variables: Mapping[str, object]) -> Scalar:
        params = variables["params"]
        assert isinstance(params, Mapping)
        value: Scalar = params[self.name]
        return value


SEEN = {"incident": {}, "params": {"patience": "9m", "full": True, "off": False}}


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [(None, True), (Says(value=True), True), (Says(value=False), False), (Says("true"), False)],
    ids=["none", "met", "not met", "no boolean"],
)
def test_a_step_is_wanted_if_its_condition_is_plainly_true(condition: Expression | None, *, wanted: bool) -> None:
    assert (Step("a", "node.cordon", condition=condition).sees(SEEN) is not None) is wanted


def test_a_step_sees_the_params_of_the_playbook_that_it_stands_in_by_the_eyes_of_the_outer_ones() -> None:
    scopes = (Scope({"grace": Param("patience"), "on": Param("full")}), Scope({"wait": Param("grace"), "times": 3}))
    seen = Step("a.b.c", "node.drain", within=scopes).sees(SEEN)
    assert seen == {"incident": {}, "params": {"wait": "9m", "times": 3}}
    assert given({"grace": Param("wait"), "at_once": 2}, seen) == {"grace": "9m", "at_once": 2}


def test_a_playbook_that_is_not_wanted_takes_all_its_steps_with_it() -> None:
    scopes = (Scope({}, condition=Param("off")), Scope({}, condition=Says(value=True)))
    assert Step("a.b", "node.drain", within=scopes).sees(SEEN) is None


@pytest.mark.parametrize(
    ("which", "kind"),
    [
        (ForEach.NODES, ComponentKind.NODE),
        (ForEach.GPUS, ComponentKind.GPU),
        (ForEach.JOBS, ComponentKind.JOB),
        (ForEach.CULPRIT, ComponentKind.NODE),
    ],
)
def test_what_a_step_is_done_to_is_of_one_kind(which: ForEach, kind: ComponentKind) -> None:
    assert which.kind is kind


@pytest.mark.parametrize(
    ("items", "parts"),
    [
        ((), (Part("tell", rack()),)),
        ((node("n1"), node("n2")), (Part("tell/node/n1", node("n1")), Part("tell/node/n2", node("n2")))),
    ],
    ids=["to the target itself", "to several nodes"],
)
def test_each_thing_that_a_step_is_done_to_has_a_ledger_of_its_own(
    items: tuple[Component, ...], parts: tuple[Part, ...]
) -> None:
    assert PlannedStep("tell", "ticket.open", {}, timedelta(minutes=1), items=items).parts(rack()) == parts
