"""Power limits through the node agents' HTTP contract: one document per node, read with GET and changed with PUT.

The agent sets the device's limit and answers with what the device then says. The answer is compared with what was
asked for: a limit that did not take is a refusal, whatever the status code claims.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated

import msgspec

from healer.adapters.agent_http import AgentHttp
from healer.domain.fleet import GpuPower
from healer.errors import Rejected, Unavailable

_TOLERANCE_W = 1.0  # devices round a limit to what they can regulate

_Watts = Annotated[float, msgspec.Meta(ge=0)]


class _Gpu(msgspec.Struct):
    gpu: Annotated[int, msgspec.Meta(ge=0)]
    uuid: str
    limit_w: _Watts
    default_w: _Watts
    min_w: _Watts
    max_w: _Watts
    power_w: _Watts


class _Document(msgspec.Struct):
    node: str
    gpus: list[_Gpu]


class AgentPower:
    """Attributes:
    agent_url: with `{node}` where the node's name goes.
    """

    def __init__(self, agent_url: str, *, token: str | None = None, timeout_s: float = 5.0) -> None:
        self._agents = AgentHttp(
            agent_url, token=token, timeout_s=timeout_s, name="power agent", settings="power", url_key="agent_url"
        )

    def close(self) -> None:
        self._agents.close()

    def limits(self, node: str) -> tuple[GpuPower, ...]:
        return self._exchange(node, "GET")

    def set_limits(self, node: str, limits_w: Mapping[int, float], *, ttl: timedelta, fallback_w: float) -> None:
        """Raises Rejected if the agent says no, or if any limit is not in force afterwards."""
        component = self._agents.component(node)
        if not limits_w or not all(math.isfinite(watts) for watts in (*limits_w.values(), fallback_w)):
            raise Rejected(component, f"limits {dict(limits_w)}, fallback {fallback_w}: name GPUs and finite watts")
        body = {
            "limits": [{"gpu": gpu, "limit_w": float(watts)} for gpu, watts in limits_w.items()],
            "ttl_s": ttl.total_seconds(),
            "fallback_w": float(fallback_w),
        }
        in_force = {power.gpu: power.limit_w for power in self._exchange(node, "PUT", body)}
        _compare(component, {gpu: (watts, in_force.get(gpu)) for gpu, watts in limits_w.items()})

    def restore(self, node: str, gpus: Sequence[int]) -> None:
        """Raises Rejected if the agent says no, or if any GPU is not at its default afterwards."""
        component = self._agents.component(node)
        if not gpus:
            raise Rejected(component, "a restore that names no GPU; name at least one")
        after = {power.gpu: power for power in self._exchange(node, "PUT", {"restore": list(gpus)})}
        missing = [gpu for gpu in gpus if gpu not in after]
        if missing:
            raise Rejected(component, f"does not report GPU {missing[0]} any more; look at the node")
        _compare(component, {gpu: (after[gpu].default_w, after[gpu].limit_w) for gpu in gpus})

    def _exchange(self, node: str, method: str, body: object = None) -> tuple[GpuPower, ...]:
        answer = self._agents.exchange(node, method, body=body)
        document = self._agents.decoded(node, answer, _Document, what="its power document")
        self._agents.check_node(node, document.node)
        return _checked(self._agents.component(node), node, document)


def _checked(component: str, node: str, document: _Document) -> tuple[GpuPower, ...]:
    """The document as ours. Raises Unavailable if it contradicts itself."""
    if len({gpu.gpu for gpu in document.gpus}) != len(document.gpus):
        raise Unavailable(component, "reports one GPU twice; check its log")
    return tuple(
        GpuPower(
            node=node,
            gpu=gpu.gpu,
            uuid=gpu.uuid,
            limit_w=gpu.limit_w,
            default_w=gpu.default_w,
            min_w=gpu.min_w,
            max_w=gpu.max_w,
            power_w=gpu.power_w,
        )
        for gpu in document.gpus
    )


def _compare(component: str, wanted_and_found: Mapping[int, tuple[float, float | None]]) -> None:
    """Raises Rejected naming every GPU whose limit did not take."""
    wrong = [
        f"GPU {gpu} is at {'an unknown limit' if found is None else f'{found:g} W'}, not {wanted:g} W"
        for gpu, (wanted, found) in wanted_and_found.items()
        if found is None or abs(found - wanted) > _TOLERANCE_W
    ]
    if wrong:
        raise Rejected(component, f"the limit did not take: {'; '.join(wrong)}")
