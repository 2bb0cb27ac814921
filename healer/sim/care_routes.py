"""The HTTP contract of the node agents, docs/operations.md, in front of a simulated fleet's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from healer.decoding import decode
from healer.domain.care import CareOrder, CareReport, Operation
from healer.sim.care import FleetCare


class _Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    operation: Operation
    gpu: int | None = None
    uuid: str | None = None
    duration_s: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None

    def order(self) -> CareOrder:
        duration = None if self.duration_s is None else timedelta(seconds=self.duration_s)
        return CareOrder(self.operation, self.gpu, self.uuid, duration)


def care_routes(care: FleetCare, guarded: Callable[..., Callable[..., object]]) -> list[Route]:
    """Args:
    guarded: an endpoint as one that asks for the agent's token first.
    """

    async def condition(request: Request) -> Response:
        node = request.path_params["node"]
        seen = care.condition(node)
        gpus = [{"gpu": use.gpu, "uuid": use.uuid, "processes": use.processes} for use in seen.gpus]
        return JSONResponse({"node": node, "boot_id": seen.boot_id, "gpus": gpus})

    async def put(request: Request) -> Response:
        node, key = request.path_params["node"], request.path_params["key"]
        order = decode(await request.body(), _Order).order()
        return JSONResponse(_document(node, key, order.operation, care.start(node, key, order)), status_code=202)

    async def get(request: Request) -> Response:
        node, key = request.path_params["node"], request.path_params["key"]
        report = care.report(node, key)
        if report is None:
            return JSONResponse({"node": node, "key": key, "error": "It was never asked for."}, status_code=404)
        return JSONResponse(_document(node, key, care.operation(node, key), report))

    return [
        Route("/agents/{node}/condition", guarded(condition), methods=["GET"]),
        Route("/agents/{node}/operations/{key}", guarded(put), methods=["PUT"]),
        Route("/agents/{node}/operations/{key}", guarded(get), methods=["GET"]),
    ]


def _document(node: str, key: str, operation: Operation, report: CareReport) -> dict[str, object]:
    return {
        "node": node,
        "key": key,
        "operation": str(operation),
        "state": str(report.state),
        "detail": report.detail,
        "started_at": report.started_at.isoformat(),
        "ended_at": None if report.ended_at is None else report.ended_at.isoformat(),
    }
