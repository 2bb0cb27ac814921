"""The simulated fleet over HTTP: its exporters, its racks' power, its node agents, and a door for injecting faults.

One port serves every node, each under its own path; Prometheus finds them through `/sd`. The fleet's time runs with the
wall clock times `speed`, in whole seconds of the fleet, so that a seed gives one history whatever the machine's load.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from healer.decoding import decode
from healer.errors import NotFound, Rejected, Unavailable
from healer.sim.care import FleetCare
from healer.sim.care_routes import care_routes
from healer.sim.exporters.fields import FieldSet
from healer.sim.exporters.targets import HOST_JOB, IPMI_JOB, METER_JOB, SCHEDULER_JOB
from healer.sim.exposition import CONTENT_TYPE, node_page, rack_page
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import PowerLimit, SimulatedFleet
from healer.sim.layout import COMPONENT, Layout
from healer.sim.physics import DEFAULT_LIMIT_W, MAX_LIMIT_W, MIN_LIMIT_W
from healer.sim.serving import Served

_TICK_S = 0.1
_MOST_STEPS_PER_TICK = 200
_Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class _Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gpu: int
    limit_w: float


class _PowerRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Either limits with their time to live and fallback, or GPUs to be restored to their default."""

    limits: list[_Limit] | None = None
    ttl_s: float | None = None
    fallback_w: float | None = None
    restore: list[int] | None = None


class _FaultRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: FaultKind
    node: str | None = None
    gpu: int | None = None
    rack: str | None = None
    duration_s: float | None = None
    severity: float | None = None
    variant: str | None = None
    ramp_s: float | None = None


class Exporters(StrEnum):
    """Which exporters the fleet has."""

    GPUS = "gpus"  # the GPUs', with what the first detectors read, and the racks' meter
    ALL = "all"  # with everything that healer's counters file asks for, and what there is around the GPUs


class FleetServer(Served):
    """Owns a fleet, lets its time pass and serves it. With `speed` 0 time stands still until `fleet.advance`."""

    def __init__(
        self,
        fleet: SimulatedFleet,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        token: str | None = None,
        host_label: str = "hostname",
        exporters: Exporters = Exporters.GPUS,
    ) -> None:
        self.fleet = fleet
        self.care = FleetCare(fleet)
        self._exporters = exporters
        self._speed = speed
        self._token = token
        self._host_label = host_label
        super().__init__(self._app(), name="simulated fleet", host=host, port=port)
        self._stopping = threading.Event()
        self._time = threading.Thread(target=self._let_time_pass, name="simulated time", daemon=True)

    def start(self) -> None:
        super().start()
        self._time.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._time.is_alive():
            self._time.join()
        super().stop()

    def _let_time_pass(self) -> None:
        due_s, last = 0.0, time.monotonic()
        while not self._stopping.wait(_TICK_S):
            now = time.monotonic()
            due_s, last = due_s + (now - last) * self._speed, now
            steps = min(int(due_s), _MOST_STEPS_PER_TICK)
            self.fleet.advance(float(steps))
            # A machine too slow for the speed asked for gets a slower fleet, not a growing debt.
            due_s = min(due_s - steps, 1.0)

    def _app(self) -> Starlette:
        guarded = self._guarded
        return Starlette(
            routes=[
                Route("/", self._index),
                Route("/nodes/{node}/metrics", self._node_metrics),
                Route("/nodes/{node}/{job}/metrics", self._host_metrics),
                Route("/racks/metrics", self._rack_metrics),
                Route("/racks/{rack}/metrics", self._meter_metrics),
                Route("/scheduler/metrics", self._scheduler_metrics),
                Route("/sd", self._discovery),
                Route("/agents/{node}/power", guarded(self._power), methods=["GET"]),
                Route("/agents/{node}/power", guarded(self._set_power), methods=["PUT"]),
                Route("/faults", guarded(self._inject), methods=["POST"]),
                *care_routes(self.care, guarded),
            ],
            exception_handlers={
                msgspec.DecodeError: _not_json,
                msgspec.ValidationError: _unusable,
                NotFound: _not_found,
                Rejected: _unusable,
                Unavailable: _silent,
            },
        )

    def _guarded(self, endpoint: _Endpoint) -> _Endpoint:
        async def checked(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if self._token is not None and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                return _refusal(401, "This needs the agent's bearer token in the Authorization header.")
            return await endpoint(request)

        return checked

    async def _index(self, _request: Request) -> Response:
        layout = self.fleet.layout
        return PlainTextResponse(
            f"A simulated fleet: {len(layout.racks)} racks, {len(layout.nodes)} nodes, {layout.n_gpus} GPUs.\n"
            f"{self.fleet.elapsed_s:.0f} s have passed in it, at {self._speed:g} times the wall clock.\n\n"
            f"GET  /nodes/NODE/metrics   a node's GPUs, as dcgm-exporter shows them ({layout.nodes[0]}, ...)\n"
            "GET  /racks/metrics        power by rack\n"
            "GET  /nodes/NODE/host/metrics, /nodes/NODE/ipmi/metrics, /racks/RACK/metrics, /scheduler/metrics\n"
            "                           fabric ports, the air, power feed by feed, what the scheduler says\n"
            "GET  /sd                   all exporters that this fleet has, for Prometheus's http_sd_configs\n"
            "GET  /agents/NODE/power    a node agent's power limits; PUT sets or restores them\n"
            "GET  /agents/NODE/condition, /agents/NODE/operations/KEY\n"
            "                           the node agent: reset_gpu, reboot, burn_in, collect; PUT begins one\n"
            "POST /faults               lets a fault strike now\n"
        )

    async def _node_metrics(self, request: Request) -> Response:
        reading = self.fleet.read(request.path_params["node"])
        if not reading.exporter_up:
            return PlainTextResponse("exporter is down\n", status_code=503)
        fields = FieldSet.PLAIN if self._exporters is Exporters.GPUS else FieldSet.EVERYTHING
        return Response(node_page(reading, host_label=self._host_label, fields=fields), media_type=CONTENT_TYPE)

    async def _host_metrics(self, request: Request) -> Response:
        node = self.fleet.layout.node_index(request.path_params["node"])
        job = {"host": HOST_JOB, "ipmi": IPMI_JOB}.get(request.path_params["job"])
        if job is None:
            raise NotFound(COMPONENT, f"a node has no exporter {request.path_params['job']!r}, only host and ipmi")
        return self._page(job, node)

    async def _meter_metrics(self, request: Request) -> Response:
        return self._page(METER_JOB, self.fleet.layout.rack_index(request.path_params["rack"]))

    async def _scheduler_metrics(self, _request: Request) -> Response:
        return self._page(SCHEDULER_JOB, 0)

    def _page(self, job: str, place: int) -> Response:
        page = self.fleet.page(job, place)
        if page is None:
            return PlainTextResponse("exporter is down\n", status_code=503)
        return Response(page, media_type=CONTENT_TYPE)

    async def _rack_metrics(self, _request: Request) -> Response:
        return Response(rack_page(self.fleet.rack_power_w()), media_type=CONTENT_TYPE)

    async def _discovery(self, request: Request) -> Response:
        """Targets carry the address that the caller reached us by; every node needs its own `instance` behind it."""
        layout, here = self.fleet.layout, [request.url.netloc]
        groups = [
            {
                "targets": here,
                "labels": {
                    "__metrics_path__": f"/nodes/{node}/metrics",
                    "instance": f"{node}:9400",
                    "node": node,
                    "rack": layout.racks[rack],
                },
            }
            for node, rack in zip(layout.nodes, layout.rack_of_node.tolist(), strict=True)
        ]
        if self._exporters is Exporters.ALL:
            return JSONResponse([*groups, *_around(layout, here)])
        racks = {"targets": here, "labels": {"__metrics_path__": "/racks/metrics", "instance": "rack-power"}}
        return JSONResponse([*groups, racks])

    async def _power(self, request: Request) -> Response:
        reading = self.fleet.read(request.path_params["node"])
        state = reading.state
        gpus = [
            {
                "gpu": gpu,
                "uuid": uuid,
                "limit_w": limit_w,
                "default_w": DEFAULT_LIMIT_W,
                "min_w": MIN_LIMIT_W,
                "max_w": MAX_LIMIT_W,
                "power_w": round(power_w, 3),
            }
            for gpu, uuid, limit_w, power_w in zip(
                reading.gpus, reading.uuids, state.limit_w.tolist(), state.power_w.tolist(), strict=True
            )
        ]
        return JSONResponse({"node": reading.node, "gpus": gpus})

    async def _set_power(self, request: Request) -> Response:
        node = request.path_params["node"]
        self.fleet.layout.node_index(node)
        asked = decode(await request.body(), _PowerRequest)
        self.fleet.set_power_limits(node, _limits(asked))
        return await self._power(request)

    async def _inject(self, request: Request) -> Response:
        asked = decode(await request.body(), _FaultRequest)
        fault = Fault(at_s=self.fleet.elapsed_s, **msgspec.structs.asdict(asked))
        self.fleet.inject(fault)
        return JSONResponse({"injected": fault.kind, "at_s": fault.at_s}, status_code=201)


def _around(layout: Layout, here: list[str]) -> Iterator[Mapping[str, object]]:
    """Targets beside those of the GPUs. Each says whose they are, for discovery knows but one job."""

    def target(job: str, instance: str, path: str, **labels: str) -> Mapping[str, object]:
        named = {"__metrics_path__": path, "instance": instance, "job": job, **labels}
        return {"targets": here, "labels": named}

    for node in layout.nodes:
        where = {"node": node, "rack": layout.rack_of(node)}
        yield target(HOST_JOB, f"{node}:9100", f"/nodes/{node}/host/metrics", **where)
        yield target(IPMI_JOB, f"{node}:9290", f"/nodes/{node}/ipmi/metrics", **where)
    for rack in layout.racks:
        yield target(METER_JOB, f"pdu-{rack}:9116", f"/racks/{rack}/metrics")
    yield target(SCHEDULER_JOB, "kube-state-metrics:8080", "/scheduler/metrics")


def _limits(asked: _PowerRequest) -> list[PowerLimit]:
    """What a request comes to, or why it comes to nothing."""
    if (asked.limits is None) == (asked.restore is None):
        raise Rejected("power", "Give either limits or restore.")
    gpus = asked.restore if asked.limits is None else [limit.gpu for limit in asked.limits]
    if not gpus:
        raise Rejected("power", "Name at least one GPU.")
    if len(set(gpus)) < len(gpus):
        raise Rejected("power", f"Name each GPU once; these were named: {gpus}.")
    if asked.limits is None:
        if asked.ttl_s is not None or asked.fallback_w is not None:
            raise Rejected("power", "A restore has no ttl_s and no fallback_w.")
        return [PowerLimit(gpu, DEFAULT_LIMIT_W) for gpu in gpus]
    if asked.ttl_s is None or asked.fallback_w is None:
        raise Rejected("power", "Limits need both ttl_s and fallback_w.")
    return [PowerLimit(limit.gpu, limit.limit_w, asked.ttl_s, asked.fallback_w) for limit in asked.limits]


def _refusal(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status)


async def _not_json(_request: Request, error: Exception) -> Response:
    return _refusal(400, f"The body is not JSON: {error}.")


async def _unusable(_request: Request, error: Exception) -> Response:
    return _refusal(422, _sentence(error))


async def _silent(_request: Request, error: Exception) -> Response:
    return _refusal(503, _sentence(error))


async def _not_found(_request: Request, error: Exception) -> Response:
    return _refusal(404, _sentence(error))


def _sentence(error: Exception) -> str:
    text = error.detail if isinstance(error, NotFound | Rejected | Unavailable) else str(error)
    return text if text.endswith((".", "?")) else f"{text}."
