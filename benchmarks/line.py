"""How fast the line is on real parts, and how much memory the daemon takes.

    python benchmarks/line.py [--nodes N] [--json]

One GPU after another has a double-bit error; a real Prometheus scrapes it, the daemon asks in Slack, somebody clicks
Approve, and a real Kubernetes evicts the pods of the node. Every wait in it is one that a deployment has too: a second
between scrapes, between turns, and between looks at a run. Pods end as soon as they are told to, so that the drain is
measured and not the work that was on the node.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kubernetes.client import CoreV1Api, V1Namespace

from healer.sim.slack import LocalSlack
from tests.controlplane import fleet
from tests.controlplane.binaries import Missing, find_binaries
from tests.controlplane.controlplane import ControlPlane
from tests.controlplane.kubelet import KubeletPlayer, PlayedNode
from tests.e2e.line import ON_CALL, DaemonProcess, Exporters, eventually, settings, written
from tests.e2e.rack import Rack
from tests.realparts.prometheus import RunningPrometheus, find_prometheus

RACKS, GPUS_PER_NODE, PODS_PER_NODE = 4, 8, 3
INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Drain:
    """Seconds.

    Attributes:
        asked_s: from the error on the exporter's page to the message in Slack.
        drained_s: from the click to no pod of the work being on the node.
        resolved_s: from the click to the incident being resolved: the daemon has seen that too.
    """

    asked_s: float
    drained_s: float
    resolved_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    now_mib: float
    peak_mib: float


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the line on a real Prometheus and a real Kubernetes.")
    parser.add_argument("--nodes", type=int, default=7, help="how many drains, one after the other (default: 7)")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    arguments = parser.parse_args()
    most = RACKS * Exporters.NODES_PER_RACK - 3
    if not 1 <= arguments.nodes <= most:
        parser.error(f"--nodes: 1 to {most}; the others take the work")
    binaries, programs = find_binaries(), find_prometheus()
    if isinstance(binaries, Missing):
        return _fail(str(binaries))
    if programs is None:
        return _fail("no Prometheus on this machine; to get it: apt-get install prometheus")
    with contextlib.ExitStack() as parts, tempfile.TemporaryDirectory(prefix="healer-line-") as temporary:
        _say("starting the exporters, Prometheus and the control plane")
        exporters = parts.enter_context(Exporters(Path(temporary), racks=RACKS, gpus=GPUS_PER_NODE))
        prometheus = parts.enter_context(RunningPrometheus(programs, scrape_configs=exporters.scrape_configs))
        control_plane = parts.enter_context(ControlPlane(binaries))
        fleet.grant_roles(control_plane)
        slack = parts.enter_context(LocalSlack())
        wanted = settings(
            Path(temporary),
            mode="act",
            prometheus_url=prometheus.url,
            kubeconfig=control_plane.kubeconfig("healer"),
            slack=slack,
        )
        daemon = parts.enter_context(contextlib.closing(DaemonProcess(written(Path(temporary), wanted)).start()))
        rack = parts.enter_context(_cluster(control_plane, exporters))
        eventually(lambda: daemon.client.get("/-/ready").is_success, what="the daemon has its first telemetry")
        daemon.let_turns_pass(1)
        drains = [
            _drain(number, node, rack=rack, exporters=exporters, slack=slack, daemon=daemon)
            for number, node in enumerate(rack.nodes[: arguments.nodes])
        ]
        _report(drains, _memory(daemon.pid), as_json=arguments.json)
    return 0


@contextlib.contextmanager
def _cluster(control_plane: ControlPlane, exporters: Exporters) -> Iterator[Rack]:
    """All nodes of the simulated fleet in the cluster, by the same names, with a namespace for the work."""
    racks = [f"rack-{number}" for number in range(1, RACKS + 1)]
    played = [PlayedNode(node, rack=rack, gpus=GPUS_PER_NODE) for rack in racks for node in exporters.nodes_of(rack)]
    with KubeletPlayer(control_plane, played), control_plane.client("admin") as admin:
        namespace = f"line-{secrets.token_hex(4)}"
        CoreV1Api(admin).create_namespace(V1Namespace.model_validate({"metadata": {"name": namespace}}))
        nodes = [node.name for node in played]
        yield Rack(control_plane, admin, namespace=namespace, name="fleet", nodes=nodes)


def _drain(
    number: int, node: str, *, rack: Rack, exporters: Exporters, slack: LocalSlack, daemon: DaemonProcess
) -> Drain:
    app = f"train-{number}"
    rack.deploy(app, replicas=PODS_PER_NODE, node=node)
    time.sleep(INTERVAL_S * ((0.37 * number) % 1))  # errors and clicks keep no step with scrapes and turns
    exporters.strike("uncorrectable_ecc", node=node, gpu=number % GPUS_PER_NODE)
    appeared = time.monotonic()
    question = slack.wait_for_message(lambda message: f"node {node}?" in str(message.blocks), timeout_s=60.0)
    asked = time.monotonic()
    time.sleep(INTERVAL_S * ((0.29 * number) % 1))
    clicked = time.monotonic()
    answer = slack.click(question, "approve", interactions_url=daemon.interactions_url, user_id=ON_CALL)
    if answer.status != 200:
        raise SystemExit(f"the click was refused: {answer.status} {answer.body}")
    eventually(lambda: not rack.all_on(node, app), what=f"{node} is drained", timeout_s=60.0)
    drained = time.monotonic()
    daemon.incident(node, state="resolved", timeout_s=60.0)
    resolved = time.monotonic()
    rack.await_elsewhere(app, count=PODS_PER_NODE, than=node)
    rack.remove(app)  # its GPUs are needed for the next
    drain = Drain(asked - appeared, drained - clicked, resolved - clicked)
    _say(f"{node}: asked after {drain.asked_s:.2f} s, drained {drain.drained_s:.2f} s after the click")
    return drain


def _memory(pid: int) -> Memory:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    kib = {name: int(value) for name, value in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE)}
    return Memory(now_mib=kib["VmRSS"] / 1024, peak_mib=kib["VmHWM"] / 1024)


def _report(drains: Sequence[Drain], memory: Memory, *, as_json: bool) -> None:
    asked = [drain.asked_s for drain in drains]
    drained = [drain.drained_s for drain in drains]
    resolved = [drain.resolved_s for drain in drains]
    if not as_json:
        gpus = RACKS * Exporters.NODES_PER_RACK * GPUS_PER_NODE
        print(f"{len(drains)} nodes of a fleet of {gpus} GPUs drained; {PODS_PER_NODE} pods each, scrape and turn 1 s")
        print(f"{'':40}{'median':>8}{'fastest':>9}{'slowest':>9}")
        for name, values in (
            ("error on /metrics to Slack message, s", asked),
            ("click to node drained, s", drained),
            ("click to incident resolved, s", resolved),
        ):
            print(f"{name:40}{statistics.median(values):8.2f}{min(values):9.2f}{max(values):9.2f}")
        print(f"{'memory of the daemon, MiB':40}{memory.now_mib:8.0f}{'':9}{memory.peak_mib:9.0f}")
    medians = {
        "error_to_slack_s": round(statistics.median(asked), 3),
        "click_to_drained_s": round(statistics.median(drained), 3),
        "click_to_resolved_s": round(statistics.median(resolved), 3),
        "daemon_rss_mib": round(memory.now_mib, 1),
        "daemon_peak_mib": round(memory.peak_mib, 1),
    }
    shape = {"drains": len(drains), "gpus": RACKS * Exporters.NODES_PER_RACK * GPUS_PER_NODE, "interval_s": INTERVAL_S}
    print(json.dumps({**medians, **shape, "each": [asdict(drain) for drain in drains]}))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fail(reason: str) -> int:
    _say(f"line: {reason}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
