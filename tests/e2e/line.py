"""The whole line on real parts, for tests and benchmarks: what is started, and what a person does with it.

A simulated fleet's exporters, the Prometheus that scrapes them, the daemon and the command line are processes of their
own; the daemon reaches Kubernetes as the user that its role is granted to. Only Slack and the person are played.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import yaml

from healer.sim.slack import LocalSlack
from tests.controlplane import processes

ROOT = Path(__file__).parents[2]
ON_CALL = "U0ONCALL"
TOKEN = "line-token"  # opens nothing but a daemon on loopback
POLL_INTERVAL_S = 0.05
HEALER = ("-m", "healer")
_START_TIMEOUT_S = 60.0

Seen = TypeVar("Seen")


class Ended(AssertionError):
    """A process that should still run has ended; the message has its last lines."""


class Exporters:
    """`healer simulate`: exporters and node agents of racks of three nodes, and the door for faults."""

    NODES_PER_RACK = 3

    def __init__(self, folder: Path, *, racks: int, gpus: int = 2) -> None:
        self._folder = folder
        self._shape = ("--racks", racks, "--nodes", racks * self.NODES_PER_RACK, "--gpus", gpus)
        self.url = ""

    def __enter__(self) -> Self:
        self._program = _start([*HEALER, "simulate", *map(str, self._shape), "--listen", "127.0.0.1:0"], self._folder)
        self.url = eventually(self._announced, what="healer simulate listens", timeout_s=_START_TIMEOUT_S)
        self._client = httpx.Client(base_url=self.url, trust_env=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._program.kill()

    @property
    def scrape_configs(self) -> str:
        return yaml.safe_dump([{"job_name": "dcgm", "http_sd_configs": [{"url": f"{self.url}/sd"}]}])

    def nodes_of(self, rack: str) -> tuple[str, ...]:
        groups = self._client.get("/sd").raise_for_status().json()
        return tuple(group["labels"]["node"] for group in groups if group["labels"].get("rack") == rack)

    def strike(self, kind: str, **where: object) -> None:
        """Lets a fault strike now; it is on the pages when this returns."""
        self._client.post("/faults", json={"kind": kind, **where}).raise_for_status()

    def limits_w(self, node: str) -> tuple[float, ...]:
        gpus = self._client.get(f"/agents/{node}/power").raise_for_status().json()["gpus"]
        return tuple(gpu["limit_w"] for gpu in gpus)

    def rack_power_w(self, rack: str) -> float:
        """By the rack's own meter, now."""
        found = re.search(rf'^rack_power_watts{{rack="{rack}"}} (\S+)$', self.page("/racks/metrics"), re.MULTILINE)
        if found is None:
            raise AssertionError(f"no meter shows {rack}")
        return float(found[1])

    def page(self, path: str) -> str:
        return self._client.get(path).raise_for_status().text

    def _announced(self) -> str:
        _check(self._program)
        found = re.search(r" at (http://\S+)", self._program.log.read_text(encoding="utf-8"))
        return found[1] if found else ""


class DaemonProcess:
    """`healer run` with one configuration, started as often as a test wants."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self._starts = 0
        self._client = httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=10.0)
        self._listens = False

    def start(self, program: Sequence[str] = HEALER) -> Self:
        """Returns at once; the first question to it waits until it listens.

        Args:
            program: what Python runs as `healer`.
        """
        self._starts += 1
        folder = self.config.parent / f"start-{self._starts}"
        folder.mkdir()
        self._program = _start([*program, "run", "--config", str(self.config)], folder)
        self._listens = False
        return self

    @property
    def client(self) -> httpx.Client:
        if not self._listens:
            listen = eventually(self._listening, what="healer run listens", timeout_s=_START_TIMEOUT_S)
            self._client.base_url = f"http://{listen}"
            self._listens = True
        return self._client

    @property
    def pid(self) -> int:
        return self._program.process.pid

    @property
    def interactions_url(self) -> str:
        return str(self.client.base_url.join("/slack/interactions"))

    def kill(self) -> None:
        """As the kernel's out-of-memory killer does it: no warning, no end."""
        self._program.kill()

    @property
    def was_killed(self) -> bool:
        """Whether a signal has killed it. Raises Ended if it has ended in another way."""
        code = self._program.process.poll()
        if code not in {None, -signal.SIGKILL}:
            _check(self._program)
        return code is not None

    def close(self) -> None:
        self.kill()
        self._client.close()

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)
        try:
            return self._program.process.wait(timeout=_START_TIMEOUT_S)
        finally:
            self.kill()

    def get(self, path: str) -> Any:
        return self.client.get(path).raise_for_status().json()

    def post(self, path: str, **body: str) -> Any:
        return self.client.post(path, json=body).raise_for_status().json()

    def log(self) -> str:
        """Of the newest start."""
        return self._program.log.read_text(encoding="utf-8")

    def eventually(
        self,
        look: Callable[[], Seen | None],
        *,
        what: str,
        timeout_s: float = 30.0,
        every_s: float = POLL_INTERVAL_S,
    ) -> Seen:
        def seen() -> Seen | None:
            _check(self._program)
            return look()

        try:
            return eventually(seen, what=what, timeout_s=timeout_s, every_s=every_s)
        except Ended:
            raise
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._program.tail()}") from error

    def metric(self, name: str) -> float:
        """The value of one of the daemon's own metrics that has no labels."""
        found = re.search(rf"^{name} (\S+)$", self.client.get("/metrics").raise_for_status().text, re.MULTILINE)
        if found is None:
            raise AssertionError(f"the daemon has no metric {name}")
        return float(found[1])

    def let_turns_pass(self, count: int) -> None:
        """Waits for whole turns of the loop: what has not happened after them was not going to."""
        enough = self.metric("healer_turns_total") + 1 + count  # the one under way may have begun too early to count
        self.eventually(
            lambda: self.metric("healer_turns_total") >= enough,
            what=f"{count} turns have passed",
            timeout_s=10.0 + 5.0 * count,
        )

    def incidents(self, node: str) -> list[dict[str, Any]]:
        """The memory errors found on the node; what models make of it is another matter."""
        items: list[dict[str, Any]] = self.get("/api/v1/incidents?limit=1000")["items"]
        return [
            item
            for item in items
            if item["component"]["node"] == node and item["failure_mode"] == "GpuUncorrectableEcc"
        ]

    def incident(self, node: str, *, state: str, story: str = "", timeout_s: float = 30.0) -> dict[str, Any]:
        """The node's incident, once it is in that state and its story says that."""

        def look() -> dict[str, Any] | None:
            found = self.incidents(node)
            return found[0] if found and found[0]["state"] == state and story in found[0]["story"] else None

        what = f"the incident on {node} is {state}" + (f" and says {story!r}" if story else "")
        return self.eventually(look, what=what, timeout_s=timeout_s)

    def run(self, run_id: str, *, detail: str = "", ended: bool = False) -> dict[str, Any]:
        """The run, once its detail says that, or once it has ended."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.get(f"/api/v1/runs/{run_id}")
            return found if detail in found["detail"] and (found["ended_at"] is not None or not ended) else None

        return self.eventually(look, what=f"{run_id} has ended" if ended else f"{run_id} says {detail!r}")

    def audit(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get("/api/v1/audit?limit=1000")["items"]
        return items

    def _listening(self) -> str:
        _check(self._program)
        entries = [json.loads(line) for line in self.log().splitlines() if line.startswith("{") and line.endswith("}")]
        return next((str(entry["listen"]) for entry in entries if entry.get("event") == "started"), "")


def settings(
    folder: Path,
    *,
    mode: str,
    prometheus_url: str,
    node_selector: str = "",
    kubeconfig: Path | None,
    slack: LocalSlack | None,
) -> dict[str, Any]:
    """The reference deployment at the pace of a test: it looks each second, and may take out every node it knows."""
    (folder / "token").write_text(TOKEN, encoding="utf-8")
    kubernetes = {"kubeconfig": str(kubeconfig), "node_selector": node_selector, "rack_label": "rack"}
    return {
        "mode": mode,
        "telemetry": {
            "source": "prometheus",
            "interval": "1s",
            "max_age": "10s",
            "window": "2m",
            "prometheus": {"url": prometheus_url, "timeout": "3s"},
        },
        "detectors": {
            "path": str(ROOT / "detectors"),
            "clear_after": "3s",
        },
        "models": {"path": str(ROOT / "models")},
        "playbooks": {"path": str(ROOT / "playbooks")},
        "budgets": {scope: {"max_nodes": 100, "max_percent": 100} for scope in ("fleet", "rack")},
        "approvals": {} if slack is None else _approvals(folder, slack),
        "cluster": {"kind": "none"} if kubeconfig is None else {"kind": "kubernetes", "kubernetes": kubernetes},
        "tickets": {"folder": str(folder / "tickets")},
        "state": {"url": f"sqlite:///{folder / 'healer.db'}"},
        "http": {
            "listen": "127.0.0.1:0",
            "auth": "token",
            "tokens": [{"name": "alice", "role": "approver", "token": {"file": str(folder / "token")}}],
        },
    }


def written(folder: Path, settings: Mapping[str, object]) -> Path:
    """The configuration file with these settings."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
    return path


def run_healer(*arguments: str, cwd: Path | None = None, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """One command of the command line, to its end."""
    command = [sys.executable, *HEALER, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout_s)


def eventually(
    look: Callable[[], Seen | None], *, what: str, timeout_s: float = 30.0, every_s: float = POLL_INTERVAL_S
) -> Seen:
    """Looks until the answer is truthy and returns it; fails with `what` was awaited and what was seen last."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}; last seen: {seen!r}")
        time.sleep(every_s)
    return seen


def _approvals(folder: Path, slack: LocalSlack) -> dict[str, Any]:
    (folder / "bot_token").write_text(slack.bot_token, encoding="utf-8")
    (folder / "signing_secret").write_text(slack.signing_secret, encoding="utf-8")
    bot = {
        "bot_token": {"file": str(folder / "bot_token")},
        "signing_secret": {"file": str(folder / "signing_secret")},
        "channel": "C0GPUONCALL",
        "api_url": slack.api_url,
    }
    return {"approvers": [f"slack:{ON_CALL}"], "slack": bot}


def _start(arguments: Sequence[str], folder: Path) -> processes.Program:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise Ended("no setpriv on this machine; to get it: apt-get install util-linux")
    return processes.start([sys.executable, *arguments], setpriv=Path(setpriv), folder=folder)


def _check(program: processes.Program) -> None:
    if program.has_exited():
        raise Ended(f"healer ended with code {program.process.returncode}; {program.tail()}")
