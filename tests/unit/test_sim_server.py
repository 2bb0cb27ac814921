"""The simulated fleet over HTTP: exporters, discovery, node agents, faults."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import requests

from healer.errors import Unavailable
from healer.sim.fleet import SimulatedFleet
from healer.sim.server import Exporters, FleetServer


@pytest.fixture
def server() -> Iterator[FleetServer]:
    """Time stands still in it until a test lets it pass."""
    with FleetServer(SimulatedFleet(seed=7), speed=0.0) as running:
        yield running


@pytest.fixture(scope="module")
def untouched() -> Iterator[FleetServer]:
    """Shared by tests that must leave the fleet as it was; starting and stopping one takes a fifth of a second."""
    with FleetServer(SimulatedFleet(seed=7), speed=0.0) as running:
        yield running


def get(server: FleetServer, path: str) -> requests.Response:
    return requests.get(server.url + path, timeout=5)


def limits(server: FleetServer, node: str = "gpu-001") -> list[float]:
    return [gpu["limit_w"] for gpu in get(server, f"/agents/{node}/power").json()["gpus"]]


def test_the_index_says_what_is_served(untouched: FleetServer) -> None:
    text = get(untouched, "/").text
    assert "2 racks, 8 nodes, 64 GPUs" in text
    for path in ("/nodes/NODE/metrics", "/racks/metrics", "/sd", "/agents/NODE/power", "/faults"):
        assert path in text


def test_every_discovered_target_answers_with_metrics(untouched: FleetServer) -> None:
    groups = get(untouched, "/sd").json()
    assert len(groups) == 9
    assert len({group["labels"]["instance"] for group in groups}) == 9, "up must be one series per target"
    assert groups[4]["labels"]["rack"] == "rack-2"
    for group in groups:
        page = requests.get(f"http://{group['targets'][0]}{group['labels']['__metrics_path__']}", timeout=5)
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "# TYPE" in page.text


def test_a_fleet_may_have_all_exporters_of_a_site() -> None:
    with FleetServer(SimulatedFleet(nodes=2), speed=0.0, exporters=Exporters.ALL) as running:
        groups = get(running, "/sd").json()
        assert [group["labels"].get("job", "dcgm") for group in groups].count("node") == 2
        pages = {}
        for group in groups:
            labels = group["labels"]
            answer = requests.get(f"http://{group['targets'][0]}{labels['__metrics_path__']}", timeout=5)
            assert answer.status_code == 200
            pages[labels["instance"]] = answer.text
    assert 'DCGM_FI_DEV_NVLINK_GET_STATE{gpu="7"' in pages["gpu-001:9400"]
    assert 'node_infiniband_state_id{device="mlx5_7",port="1"} 4' in pages["gpu-001:9100"]
    assert 'ipmi_temperature_celsius{name="Inlet Temp"}' in pages["gpu-002:9290"]
    assert 'rack_power_watts{rack="rack-2",power_feed="B"}' in pages["pdu-rack-2:9116"]
    assert (
        'kube_node_status_condition{node="gpu-002",condition="Ready",status="true"} 1'
        in pages["kube-state-metrics:8080"]
    )


def test_what_surrounds_the_gpus_can_be_asked_for_without_being_discovered(server: FleetServer) -> None:
    assert get(server, "/nodes/gpu-001/host/metrics").status_code == 200
    assert "no exporter 'fans'" in get(server, "/nodes/gpu-001/fans/metrics").json()["error"]
    body = {"kind": "node_unreachable", "node": "gpu-001", "variant": "network", "duration_s": 60}
    assert requests.post(server.url + "/faults", json=body, timeout=5).status_code == 201
    assert get(server, "/nodes/gpu-001/host/metrics").status_code == 503
    assert get(server, "/nodes/gpu-001/ipmi/metrics").status_code == 200
    server.fleet.advance(120.0)
    assert get(server, "/nodes/gpu-001/host/metrics").status_code == 200


def test_a_silent_exporter_answers_503_while_the_agent_of_its_node_still_answers(server: FleetServer) -> None:
    made = requests.post(server.url + "/faults", json={"kind": "exporter_down", "node": "gpu-002"}, timeout=5)
    assert made.status_code == 201
    assert get(server, "/nodes/gpu-002/metrics").status_code == 503
    assert get(server, "/nodes/gpu-001/metrics").status_code == 200
    assert get(server, "/agents/gpu-002/power").status_code == 200


def test_an_unknown_node_is_404_with_one_sentence(untouched: FleetServer) -> None:
    for path in ("/nodes/gpu-0O1/metrics", "/agents/gpu-0O1/power"):
        answer = get(untouched, path)
        assert answer.status_code == 404
        assert "gpu-0O1" in answer.json()["error"]


def test_an_agent_describes_the_power_of_each_gpu(untouched: FleetServer) -> None:
    document = get(untouched, "/agents/gpu-001/power").json()
    assert document["node"] == "gpu-001"
    first = document["gpus"][0]
    assert first["gpu"] == 0
    assert first["uuid"] == untouched.fleet.layout.uuids[0]
    assert (first["limit_w"], first["default_w"], first["min_w"], first["max_w"]) == (700.0, 700.0, 200.0, 700.0)
    assert 70.0 < first["power_w"] <= 700.0


def test_limits_set_through_an_agent_hold_fall_back_and_are_restored(server: FleetServer) -> None:
    url = server.url + "/agents/gpu-001/power"
    body = {"limits": [{"gpu": 0, "limit_w": 450.0}, {"gpu": 3, "limit_w": 300}], "ttl_s": 120, "fallback_w": 400.0}
    answer = requests.put(url, json=body, timeout=5)
    assert answer.status_code == 200
    assert [gpu["limit_w"] for gpu in answer.json()["gpus"]] == [450, 700, 700, 300, 700, 700, 700, 700]
    server.fleet.advance(120.0)
    assert limits(server) == [400, 700, 700, 400, 700, 700, 700, 700]
    assert requests.put(url, json={"restore": [0, 3]}, timeout=5).status_code == 200
    assert limits(server) == [700.0] * 8


GOOD = '{"gpu": 0, "limit_w": 450}'


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        pytest.param("{", 400, "not JSON", id="cut off"),
        pytest.param(b"\xff\xfe", 400, "not JSON", id="no text"),
        pytest.param("", 400, "not JSON", id="nothing"),
        pytest.param("[]", 422, "Expected `object`", id="a list"),
        pytest.param("{}", 422, "either limits or restore", id="neither"),
        pytest.param('{"limits": [], "restore": []}', 422, "either limits or restore", id="both"),
        pytest.param('{"restore": []}', 422, "at least one GPU", id="nobody"),
        pytest.param('{"restore": [0, 0]}', 422, "once", id="twice"),
        pytest.param('{"restore": [0], "ttl_s": 5}', 422, "no ttl_s", id="a restore that ends"),
        pytest.param('{"restore": [0, 9]}', 404, "no GPU 9", id="restore of no GPU"),
        pytest.param(f'{{"limits": [{GOOD}], "ttl_s": 60}}', 422, "both ttl_s and fallback_w", id="no fallback"),
        pytest.param(f'{{"limits": [{GOOD}], "ttl_s": 60, "fallback_w": 400, "x": 1}}', 422, "`x`", id="unknown key"),
        pytest.param(f'{{"limits": [{GOOD}], "ttl_s": -1, "fallback_w": 400}}', 422, "-1 s", id="negative time"),
        pytest.param(f'{{"limits": [{GOOD}], "ttl_s": true, "fallback_w": 400}}', 422, "bool", id="true for a time"),
        pytest.param(
            f'{{"limits": [{GOOD}, {{"gpu": 1, "limit_w": 900}}], "ttl_s": 60, "fallback_w": 400}}',
            422,
            "GPU 1: a limit of 900 W",
            id="one out of range",
        ),
        pytest.param(
            f'{{"limits": [{GOOD}, {{"gpu": 8, "limit_w": 300}}], "ttl_s": 60, "fallback_w": 400}}',
            404,
            "no GPU 8",
            id="one does not exist",
        ),
    ],
)
def test_a_wrong_request_is_refused_whole(untouched: FleetServer, body: str | bytes, status: int, says: str) -> None:
    answer = requests.put(untouched.url + "/agents/gpu-001/power", data=body, timeout=5)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert says in error
    assert "\n" not in error
    assert limits(untouched) == [700.0] * 8


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"kind": "meteor"}, 422, "meteor"),
        ({"kind": "gpu_lost", "node": "gpu-001"}, 422, "node and gpu"),
        ({"kind": "gpu_lost", "node": "gpu-999", "gpu": 0}, 404, "gpu-999"),
        ({"kind": "gpu_lost", "node": "gpu-001", "gpu": 8}, 404, "no GPU 8"),
        ({"kind": "load_surge", "rack": "rack-1", "duration_s": 0}, 422, "duration"),
        ({"kind": "load_surge", "rack": "rack-1", "hurry": True}, 422, "hurry"),
        ({"kind": "load_surge", "rack": "rack-1", "variant": "caps"}, 422, "did you mean caps_lost?"),
        ({"kind": "power_brake", "node": "gpu-001", "ramp_s": 5}, 422, "ramp"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(
    untouched: FleetServer, body: dict[str, object], status: int, says: str
) -> None:
    answer = requests.post(untouched.url + "/faults", json=body, timeout=5)
    assert answer.status_code == status
    assert says in answer.json()["error"]


def test_agents_and_faults_ask_for_the_token_and_exporters_do_not() -> None:
    with FleetServer(SimulatedFleet(nodes=2), speed=0.0, token="s3cret") as server:
        url = server.url + "/agents/gpu-001/power"
        assert requests.get(url, timeout=5).status_code == 401
        assert requests.put(url, json={"restore": [0]}, timeout=5).status_code == 401
        assert requests.post(server.url + "/faults", json={}, timeout=5).status_code == 401
        wrong, right = ({"Authorization": f"Bearer {token}"} for token in ("s3cre", "s3cret"))
        assert requests.get(url, headers=wrong, timeout=5).status_code == 401
        assert requests.get(url, headers=right, timeout=5).status_code == 200
        assert get(server, "/nodes/gpu-001/metrics").status_code == 200


def test_time_passes_by_itself_at_the_speed_asked_for() -> None:
    with FleetServer(SimulatedFleet(nodes=2), speed=100.0) as server:
        deadline = time.monotonic() + 5.0
        while server.fleet.elapsed_s < 30.0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    stopped_at = server.fleet.elapsed_s
    assert stopped_at == int(stopped_at), "whole seconds only, so that one seed is one history"


def test_a_port_that_is_taken_is_named() -> None:
    with FleetServer(SimulatedFleet(nodes=2), speed=0.0) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with pytest.raises(Unavailable, match=f"port {port}"):
            FleetServer(SimulatedFleet(nodes=2), port=port)


def test_a_stopped_server_answers_nobody() -> None:
    with FleetServer(SimulatedFleet(nodes=2), speed=0.0) as server:
        assert get(server, "/").status_code == 200
    with pytest.raises(requests.ConnectionError):
        get(server, "/")
