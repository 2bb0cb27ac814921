"""Whom a testimony names, and as which component."""

from __future__ import annotations

import pytest

from healer.domain.component import Component, ComponentKind
from healer.domain.testimony import Blame, Collective, Culprit


@pytest.mark.parametrize(
    ("node", "gpu", "component"),
    [
        (None, None, None),
        (None, "3", None),
        ("gpu-1", None, Component(ComponentKind.NODE, node="gpu-1")),
        ("gpu-1", "3", Component(ComponentKind.GPU, node="gpu-1", gpu="3")),
    ],
)
def test_a_culprit_is_the_finest_component_that_is_known(
    node: str | None, gpu: str | None, component: Component | None
) -> None:
    assert Culprit(Blame.BEHIND, "0", rank=12, node=node, gpu=gpu).component == component


def test_a_culprit_is_called_by_its_global_rank_where_that_is_known() -> None:
    assert str(Culprit(Blame.BEHIND, "9 (tp)", rank=12, group_rank=4)) == "rank 12"
    assert str(Culprit(Blame.BEHIND, "9 (tp)", group_rank=4)) == "rank 4 of group 9 (tp)"


def test_a_collective_without_a_number_is_told_without() -> None:
    assert str(Collective("AllReduce", "0", 78)) == "AllReduce 78 of group 0"
    assert str(Collective("AllReduce", "0")) == "AllReduce of group 0"
