"""What node agents do to their nodes, through their HTTP contract: operations that are put, and then looked at.

    GET {url}/condition          the boot, and the GPUs that the driver lists
    PUT {url}/operations/{key}   begin it; the same key again is the same operation
    GET {url}/operations/{key}   how far it is; 404 with the node and the key: never asked for

docs/operations.md has the documents. A 404 that does not name node and key is somebody else's, and means nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import quote

import msgspec

from healer.adapters.agent_http import AgentHttp
from healer.adapters.http.bounded import Answer
from healer.decoding import decode
from healer.domain.care import CareOrder, CareReport, CareState, GpuUse, NodeCondition, Operation
from healer.errors import Rejected, Unavailable

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class _Gpu(msgspec.Struct):
    gpu: _Count
    uuid: str
    processes: _Count


class _Condition(msgspec.Struct):
    node: str
    boot_id: Annotated[str, msgspec.Meta(min_length=1)]
    gpus: list[_Gpu]


class _Operation(msgspec.Struct):
    node: str
    key: str
    operation: Operation
    state: CareState
    started_at: _Moment
    ended_at: _Moment | None = None
    detail: str = ""


class _NeverAsked(msgspec.Struct):
    node: str
    key: str


class AgentCare:
    """Implements `healer.ports.NodeCare`.

    Attributes:
        url: with `{node}` where the node's name goes.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 5.0) -> None:
        self._agents = AgentHttp(url, token=token, timeout_s=timeout_s, name="node agent", settings="agent")

    def close(self) -> None:
        self._agents.close()

    def start(self, node: str, key: str, order: CareOrder) -> CareReport:
        answer = self._agents.exchange(node, "PUT", _path(key), body=_body(order))
        done = self._operation(node, key, answer)
        if done.operation is not order.operation:
            text = f"knows {key} for another operation, {done.operation}, not {order.operation}"
            raise Rejected(self._agents.component(node), text)
        return _report(done)

    def report(self, node: str, key: str) -> CareReport | None:
        answer = self._agents.exchange(node, "GET", _path(key))
        if answer.status == 404 and _never_asked(answer, node, key):
            return None
        return _report(self._operation(node, key, answer))

    def condition(self, node: str) -> NodeCondition:
        answer = self._agents.exchange(node, "GET", "/condition")
        said = self._agents.decoded(node, answer, _Condition, what="the condition of its node")
        self._agents.check_node(node, said.node)
        if len({gpu.gpu for gpu in said.gpus}) != len(said.gpus) or len({gpu.uuid for gpu in said.gpus}) != len(
            said.gpus
        ):
            raise Unavailable(self._agents.component(node), "reports one GPU twice; check its log")
        return NodeCondition(said.boot_id, tuple(GpuUse(gpu.gpu, gpu.uuid, gpu.processes) for gpu in said.gpus))

    def _operation(self, node: str, key: str, answer: Answer) -> _Operation:
        said = self._agents.decoded(node, answer, _Operation, what="one of its operations")
        self._agents.check_node(node, said.node)
        component = self._agents.component(node)
        if said.key != key:
            raise Unavailable(component, f"was asked about {key} and answers about {said.key!r}; check its log")
        if (said.ended_at is None) is not (said.state is CareState.RUNNING):
            word = "has not ended" if said.ended_at is None else "has ended"
            raise Unavailable(component, f"says of {key} that it is {said.state} and {word}; check its log")
        return said


def _path(key: str) -> str:
    return f"/operations/{quote(key, safe='')}"


def _body(order: CareOrder) -> dict[str, object]:
    """Without what the operation does not need."""
    told = {
        "operation": str(order.operation),
        "gpu": order.gpu,
        "uuid": order.uuid,
        "duration_s": None if order.duration is None else order.duration.total_seconds(),
    }
    return {name: value for name, value in told.items() if value is not None}


def _never_asked(answer: Answer, node: str, key: str) -> bool:
    try:
        said = decode(answer.body, _NeverAsked)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return (said.node, said.key) == (node, key)


def _report(said: _Operation) -> CareReport:
    return CareReport(said.state, said.detail, said.started_at, said.ended_at)
