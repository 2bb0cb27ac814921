"""What a power control keeps to, against the simulated fleet's agents; and what it makes of agents that misbehave."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import timedelta

import pytest

from healer.adapters.agents import AgentPower
from healer.errors import Rejected, Unavailable
from healer.ports import PowerControl
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import SimulatedFleet
from healer.sim.server import FleetServer
from tests.canned_http import Canned, CannedServer, canned_server

TTL = timedelta(seconds=120)


@pytest.fixture
def fleet() -> SimulatedFleet:
    return SimulatedFleet(racks=1, nodes=2, gpus=4, seed=5)


@pytest.fixture
def power(fleet: SimulatedFleet) -> Iterator[PowerControl]:
    with ExitStack() as stack:
        server = stack.enter_context(FleetServer(fleet, speed=0.0, token="t0ken"))
        yield stack.enter_context(closing(AgentPower(f"{server.url}/agents/{{node}}/power", token="t0ken")))


def _limits(power: PowerControl, node: str = "gpu-001") -> list[float]:
    return [gpu.limit_w for gpu in power.limits(node)]


def test_the_limits_of_a_node_are_read_with_what_the_device_allows(fleet: SimulatedFleet, power: PowerControl) -> None:
    gpus = power.limits("gpu-002")
    assert [(gpu.node, gpu.gpu, gpu.limit_w, gpu.default_w) for gpu in gpus] == [
        ("gpu-002", i, 700, 700) for i in range(4)
    ]
    assert [gpu.uuid for gpu in gpus] == list(fleet.read("gpu-002").uuids)
    assert all(gpu.min_w < gpu.power_w < gpu.max_w + 1 for gpu in gpus)


def test_limits_are_set_on_the_named_gpus_only(power: PowerControl) -> None:
    power.set_limits("gpu-001", {0: 450.0, 2: 500.0}, ttl=TTL, fallback_w=400.0)
    assert _limits(power) == [450, 700, 500, 700]
    assert _limits(power, "gpu-002") == [700] * 4


def test_a_limit_that_is_not_renewed_falls_back(fleet: SimulatedFleet, power: PowerControl) -> None:
    power.set_limits("gpu-001", {0: 450.0}, ttl=TTL, fallback_w=400.0)
    fleet.advance(119)
    assert _limits(power)[0] == 450
    fleet.advance(2)
    assert _limits(power)[0] == 400


def test_a_limit_that_is_renewed_stays(fleet: SimulatedFleet, power: PowerControl) -> None:
    for _ in range(3):
        power.set_limits("gpu-001", {0: 450.0}, ttl=TTL, fallback_w=400.0)
        fleet.advance(100)
    assert _limits(power)[0] == 450


def test_restoring_puts_the_default_back(power: PowerControl) -> None:
    power.set_limits("gpu-001", {0: 450.0, 1: 450.0}, ttl=TTL, fallback_w=400.0)
    power.restore("gpu-001", [1])
    assert _limits(power) == [450, 700, 700, 700]


def test_one_limit_outside_the_device_s_range_leaves_all_as_they_were(power: PowerControl) -> None:
    with pytest.raises(Rejected, match="outside what the device takes"):
        power.set_limits("gpu-001", {0: 450.0, 1: 5.0}, ttl=TTL, fallback_w=400.0)
    assert _limits(power) == [700] * 4


def test_an_unknown_node_and_an_unknown_gpu_are_refused(power: PowerControl) -> None:
    with pytest.raises(Rejected, match="power agent of elsewhere"):
        power.limits("elsewhere")
    with pytest.raises(Rejected, match="power agent of gpu-001"):
        power.set_limits("gpu-001", {9: 450.0}, ttl=TTL, fallback_w=400.0)


def test_a_lost_gpu_takes_no_limit(fleet: SimulatedFleet, power: PowerControl) -> None:
    fleet.inject(Fault(FaultKind.GPU_LOST, 0, node="gpu-001", gpu=1))
    assert [gpu.gpu for gpu in power.limits("gpu-001")] == [0, 2, 3]
    with pytest.raises(Rejected, match="lost"):
        power.set_limits("gpu-001", {1: 450.0}, ttl=TTL, fallback_w=400.0)


@pytest.mark.parametrize("limits", [{}, {0: float("nan")}, {0: float("inf")}])
def test_a_request_that_names_nothing_or_no_number_is_refused(power: PowerControl, limits: Mapping[int, float]) -> None:
    with pytest.raises(Rejected, match="name GPUs and finite watts"):
        power.set_limits("gpu-001", limits, ttl=TTL, fallback_w=400.0)
    with pytest.raises(Rejected, match="name at least one"):
        power.restore("gpu-001", [])
    assert _limits(power) == [700] * 4


def test_a_wrong_token_is_refused_and_not_shown(fleet: SimulatedFleet) -> None:
    with FleetServer(fleet, speed=0.0, token="right") as server:
        agents = AgentPower(f"{server.url}/agents/{{node}}/power", token="wr0ng")
        with closing(agents), pytest.raises(Rejected, match=r"check power\.token") as caught:
            agents.limits("gpu-001")
    assert "wr0ng" not in str(caught.value)


def _document(node: str = "n1", *, gpu: int = 0, limit_w: object = 700.0, count: int = 1) -> Canned:
    one = {"gpu": gpu, "uuid": "U", "limit_w": limit_w, "default_w": 700, "min_w": 200, "max_w": 700, "power_w": 90}
    return Canned(json.dumps({"node": node, "gpus": [one] * count, "more": "later"}).encode())


@pytest.fixture
def web() -> Iterator[CannedServer]:
    with canned_server() as server:
        yield server


@pytest.fixture
def agents(web: CannedServer) -> Iterator[AgentPower]:
    with closing(AgentPower(f"{web.url}/{{node}}/power", timeout_s=0.5)) as made:
        yield made


def _set(agents: AgentPower) -> None:
    agents.set_limits("n1", {0: 450.0}, ttl=TTL, fallback_w=400.0)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        pytest.param(_document("n2"), Rejected, "is the agent of 'n2'", id="another node"),
        pytest.param(_document(count=2), Unavailable, "one GPU twice", id="a GPU twice"),
        pytest.param(_document(limit_w="700"), Unavailable, "something else", id="text for a number"),
        pytest.param(_document(limit_w=-1), Unavailable, "something else", id="negative watts"),
        pytest.param(_document(limit_w=None), Unavailable, "something else", id="no watts"),
        pytest.param(Canned(b"<html>"), Unavailable, "something else", id="html"),
        pytest.param(Canned(b""), Unavailable, "something else", id="empty"),
        pytest.param(Canned(b"{}"), Unavailable, "something else", id="another document"),
        pytest.param(Canned(b'{"node":' + b"[" * 100_000), Unavailable, "something else", id="nested without end"),
        pytest.param(Canned(b'{"error": "NVML is gone"}', status=500), Unavailable, "NVML is gone (500)", id="500"),
        pytest.param(Canned(b"<html>", status=502), Unavailable, "status 502", id="502"),
        pytest.param(Canned(b'{"error": "no such GPU"}', status=422), Rejected, "no such GPU (422)", id="422"),
        pytest.param(Canned(b"busy", status=429), Unavailable, "status 429", id="429"),
        pytest.param(Canned(b"x" * 100, drips=True), Unavailable, "within 0.5 s", id="drips"),
    ],
)
def test_an_agent_that_misbehaves_is_never_believed(
    web: CannedServer, agents: AgentPower, answer: Canned, error: type[Exception], text: str
) -> None:
    web.respond = lambda _: answer
    for ask in (lambda: agents.limits("n1"), lambda: _set(agents), lambda: agents.restore("n1", [0])):
        with pytest.raises(error) as caught:
            ask()
        assert text in str(caught.value)
        assert "power agent of n1" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (_document(limit_w=700), "GPU 0 is at 700 W, not 450 W"),
        (_document(gpu=1, limit_w=450), "GPU 0 is at an unknown limit, not 450 W"),
    ],
)
def test_a_limit_that_did_not_take_is_a_refusal(
    web: CannedServer, agents: AgentPower, answer: Canned, text: str
) -> None:
    web.respond = lambda _: answer
    with pytest.raises(Rejected, match=text):
        _set(agents)


def test_a_restore_that_did_not_take_is_a_refusal(web: CannedServer, agents: AgentPower) -> None:
    web.respond = lambda _: _document(limit_w=450)
    with pytest.raises(Rejected, match="GPU 0 is at 450 W, not 700 W"):
        agents.restore("n1", [0])


def test_a_limit_that_the_device_rounded_has_taken(web: CannedServer, agents: AgentPower) -> None:
    web.respond = lambda _: _document(limit_w=449.9)
    _set(agents)
    assert json.loads(web.asked[0].body) == {
        "limits": [{"gpu": 0, "limit_w": 450.0}],
        "ttl_s": 120.0,
        "fallback_w": 400.0,
    }


def test_a_node_s_name_cannot_leave_its_place_in_the_url(web: CannedServer, agents: AgentPower) -> None:
    web.respond = lambda _: _document("../n1?x=1")
    agents.limits("../n1?x=1")
    assert [(asked.path, asked.query) for asked in web.asked] == [("/..%2Fn1%3Fx%3D1/power", {})]


def test_nobody_there_is_unavailable() -> None:
    agents = AgentPower("http://127.0.0.1:1/{node}")
    with closing(agents), pytest.raises(Unavailable, match="Connection refused"):
        agents.limits("n1")
