"""The daemon as others push to it: a real Prometheus by remote write, and an Alertmanager's webhook."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.line import DaemonProcess, Exporters, run_healer, settings, written
from tests.realparts.prometheus import RunningPrometheus, require

pytestmark = pytest.mark.prometheus

SENDER = "sender-token-of-the-tests"
GPUS = 6


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Exporters]:
    """Of its own: other tests break the GPUs of theirs."""
    with Exporters(tmp_path, racks=1) as started:
        yield started


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    folder = tmp_path / "deployment"
    folder.mkdir()
    (folder / "sender").write_text(SENDER, encoding="utf-8")
    wanted: Any = settings(folder, mode="observe", prometheus_url="http://unused", kubeconfig=None, slack=None)
    wanted["telemetry"] |= {
        "source": "remote_write",
        "alerts": {"receive": True, "modes": {"GpuMemoryBroken": "GpuUncorrectableEcc"}},
    }
    sender = {"name": "prometheus", "role": "sender", "token": {"file": str(folder / "sender")}}
    wanted["http"]["tokens"].append(sender)
    process = DaemonProcess(written(folder, wanted)).start()
    try:
        yield process
    finally:
        process.close()


@pytest.fixture(params=["prometheus", "prometheus3"])
def sending(request: pytest.FixtureRequest, fleet: Exporters, daemon: DaemonProcess) -> Iterator[RunningPrometheus]:
    remote: dict[str, Any] = {
        "url": f"{daemon.client.base_url}/api/v1/write".replace("//api", "/api"),
        "authorization": {"credentials": SENDER},
        "queue_config": {"batch_send_deadline": "200ms"},
    }
    if request.param == "prometheus3":
        remote["protobuf_message"] = "io.prometheus.write.v2.Request"
    programs = require(request.param)
    with RunningPrometheus(
        programs, scrape_configs=fleet.scrape_configs, remote_write=yaml.safe_dump([remote])
    ) as made:
        yield made


def telemetry(daemon: DaemonProcess) -> dict[str, Any]:
    """Empty while nothing was observed."""
    answer = daemon.client.get("/api/v1/telemetry")
    return dict(answer.json()) if answer.status_code == 200 else {}


def all_current(daemon: DaemonProcess) -> dict[str, Any] | None:
    seen = telemetry(daemon)
    return seen if seen and seen["presence"]["current"] == GPUS else None


@pytest.mark.usefixtures("sending")
def test_what_prometheus_sends_is_found_and_what_goes_missing_is_named(fleet: Exporters, daemon: DaemonProcess) -> None:
    seen = daemon.eventually(lambda: all_current(daemon), what="all GPUs are current", timeout_s=60)
    assert seen["gpus"] == GPUS

    fleet.strike("uncorrectable_ecc", node="gpu-001", gpu=1)
    incident = daemon.incident("gpu-001", state="open")
    assert incident["failure_mode"] == "GpuUncorrectableEcc"

    fleet.strike("gpu_lost", node="gpu-002", gpu=0)
    daemon.eventually(lambda: telemetry(daemon)["presence"]["missing"] == 1, what="the lost GPU is missing")
    fleet.strike("exporter_down", node="gpu-003")
    daemon.eventually(lambda: telemetry(daemon)["presence"]["unreachable"] == 2, what="its node is unreachable")
    assert telemetry(daemon)["presence"]["missing"] == 1
    assert "Traceback" not in daemon.log()


def test_without_a_sender_turns_fail_and_say_what_to_do(daemon: DaemonProcess) -> None:
    def why() -> str:
        reason = str(daemon.client.get("/-/ready").json()["reason"])
        return reason if "remote_write" in reason else ""

    reason = daemon.eventually(why, what="it says that nothing is sent")
    assert "prometheus.yml" in reason


@pytest.mark.parametrize("sending", ["prometheus"], indirect=True)
@pytest.mark.usefixtures("sending")
def test_an_alert_becomes_an_incident_and_its_end_ends_it(daemon: DaemonProcess) -> None:
    daemon.eventually(lambda: all_current(daemon), what="all GPUs are current", timeout_s=60)
    labels = {"alertname": "GpuMemoryBroken", "node": "gpu-002", "gpu": "1", "severity": "critical"}
    _notify(daemon, labels, status="firing")
    incident = daemon.incident("gpu-002", state="open")
    assert (incident["failure_mode"], incident["component"]["gpu"]) == ("GpuUncorrectableEcc", "1")
    _notify(daemon, labels, status="resolved")
    daemon.incident("gpu-002", state="resolved")


def test_a_sender_may_send_and_nothing_else(daemon: DaemonProcess) -> None:
    client = httpx.Client(base_url=daemon.client.base_url, headers={"Authorization": f"Bearer {SENDER}"})
    with client:
        assert client.get("/api/v1/nodes").status_code == 403
        assert client.post("/api/v1/write", content=b"").status_code in {400, 415}
    with httpx.Client(base_url=daemon.client.base_url) as stranger:
        assert stranger.post("/api/v1/write", content=b"").status_code == 401
    assert run_healer("status", "--url", str(daemon.client.base_url)).returncode == 1


def _notify(daemon: DaemonProcess, labels: dict[str, str], *, status: str) -> None:
    now = datetime.now(UTC)
    alert = {
        "status": status,
        "labels": labels,
        "annotations": {"summary": "found by another system"},
        "startsAt": now.isoformat(),
        "endsAt": now.isoformat() if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "a1",
    }
    body = {"version": "4", "groupKey": "{}", "status": status, "receiver": "healer", "alerts": [alert]}
    answer = httpx.post(
        f"{daemon.client.base_url}/api/v1/alerts".replace("//api", "/api"),
        json=body,
        headers={"Authorization": f"Bearer {SENDER}"},
    )
    assert answer.status_code == 200, answer.text
