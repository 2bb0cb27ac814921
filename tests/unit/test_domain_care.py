"""How a node stands: which GPU is meant, and how many processes use it."""

from __future__ import annotations

import pytest

from healer.domain.care import GpuUse, NodeCondition
from healer.domain.component import Component, ComponentKind

CONDITION = NodeCondition("boot-1", (GpuUse(0, "GPU-A", 2), GpuUse(1, "GPU-B", 0)))


@pytest.mark.parametrize(
    ("gpu", "uuid", "found"),
    [
        pytest.param("1", "GPU-B", 1, id="by its UUID"),
        pytest.param("1", "GPU-A", 0, id="by its UUID, whatever the index that the telemetry has"),
        pytest.param("1:3", None, 1, id="an instance is its GPU"),
        pytest.param("1", None, 1, id="by its index without a UUID"),
        pytest.param("1", "GPU-C", None, id="another one in its slot is not it"),
        pytest.param(None, None, None, id="no name"),
    ],
)
def test_a_gpu_is_known_by_its_uuid_and_else_by_its_index(gpu: str | None, uuid: str | None, found: int | None) -> None:
    use = CONDITION.use_of(Component(ComponentKind.GPU, node="n1", gpu=gpu, uuid=uuid))
    assert (None if use is None else use.gpu) == found
