"""Fixtures of the line: its parts are started once; each test gets a rack of its own and daemons that know no other."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from healer.sim.slack import LocalSlack
from healer.sim.slack_clicks import Answer
from healer.sim.slack_messages import Message
from tests.controlplane.controlplane import ControlPlane
from tests.controlplane.fixtures import own_namespace
from tests.controlplane.kubelet import KubeletPlayer, PlayedNode
from tests.e2e.line import HEALER, ON_CALL, ROOT, DaemonProcess, Exporters, settings, written
from tests.e2e.rack import GPUS, Rack
from tests.realparts.prometheus import Programs, RunningPrometheus, require

RACKS = 18


@dataclass(frozen=True, slots=True)
class Line:
    """One test's part of the line."""

    exporters: Exporters
    prometheus: RunningPrometheus
    control_plane: ControlPlane
    rack: Rack
    slack: LocalSlack
    folder: Path
    kubeconfig: Path
    _started: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def daemon(
        self,
        *,
        mode: str = "act",
        change: Callable[[dict[str, Any]], None] | None = None,
        program: Sequence[str] = HEALER,
    ) -> DaemonProcess:
        """A daemon for this rack, running; `change` edits its settings before, `program` is as for its `start`."""
        wanted = settings(
            self.folder,
            mode=mode,
            prometheus_url=self.prometheus.url,
            node_selector=f"rack={self.rack.name}",
            kubeconfig=self.kubeconfig,
            slack=self.slack,
        )
        # What models make of it is tested where they are; loading them takes longer than a drain.
        wanted["models"]["path"] = str(_made(self.folder / "models"))
        if change is not None:
            change(wanted)
        daemon = DaemonProcess(written(self.folder, wanted))
        self._started.callback(daemon.close)
        return daemon.start(program)

    def own_playbook(self, settings: dict[str, Any], pattern: str, replacement: str) -> None:
        """Gives the deployment drain-node alone, with this changed, and without what comes after it."""
        text = (ROOT / "playbooks" / "drain-node.yaml").read_text(encoding="utf-8")
        text = re.sub(r"^otherwise: .*\n", "", text, flags=re.MULTILINE)
        changed = re.sub(pattern, replacement, text)
        assert changed != text
        own = _made(self.folder / "playbooks")
        (own / "drain-node.yaml").write_text(changed, encoding="utf-8")
        settings["playbooks"] = {"path": str(own)}

    def one_pod_at_a_time(self, settings: dict[str, Any]) -> None:
        """Leaves time between one eviction and the next: two seconds, from one look at a run to another."""
        self.own_playbook(settings, r"use: node.drain\n", "use: node.drain\n    with: {at_once: 1}\n")

    def break_gpu(self, node: str | None = None) -> None:
        """A double-bit error on the node's first GPU."""
        self.exporters.strike("uncorrectable_ecc", node=node or self.rack.node, gpu=0)

    def question(self, daemon: DaemonProcess, *, about: str | None = None) -> Message:
        """The Slack message that asks about the node, as soon as it is there."""
        node = about or self.rack.node

        def asked() -> Message | None:
            return next((message for message in self.slack.messages if f"node {node}" in str(message.blocks)), None)

        return daemon.eventually(asked, what=f"Slack has a question about {node}")

    def click(self, daemon: DaemonProcess, message: Message, action: str = "approve") -> Answer:
        """On-call clicks the button; Slack delivers it with its signature."""
        return self.slack.click(message, action, interactions_url=daemon.interactions_url, user_id=ON_CALL)


NewLine = Callable[[], contextlib.AbstractContextManager[Line]]


@pytest.fixture(scope="session")
def prometheus_programs() -> Programs:
    return require("prometheus")


@pytest.fixture(scope="session")
def exporters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporters]:
    with Exporters(tmp_path_factory.mktemp("exporters"), racks=RACKS) as started:
        yield started


@pytest.fixture(scope="session")
def starting_prometheus(prometheus_programs: Programs, exporters: Exporters) -> Iterator[RunningPrometheus]:
    with RunningPrometheus(prometheus_programs, scrape_configs=exporters.scrape_configs) as started:
        yield started


@pytest.fixture(scope="module")
def scraping_prometheus(starting_prometheus: RunningPrometheus) -> RunningPrometheus:
    """It takes Prometheus some seconds to find its targets; whatever can be started meanwhile should be."""
    starting_prometheus.wait_until(lambda: _sees_every_node(starting_prometheus), "it has scraped every node")
    return starting_prometheus


@pytest.fixture(scope="session")
def racks(exporters: Exporters) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A rack for each test, so that no test meets another's broken GPUs."""
    names = [f"rack-{number}" for number in range(1, RACKS + 1)]
    return iter([(name, exporters.nodes_of(name)) for name in names])


@pytest.fixture(scope="module")
def kubelets(
    starting_prometheus: RunningPrometheus,  # noqa: ARG001 - finds its targets meanwhile
    exporters: Exporters,
    control_plane: ControlPlane,
) -> Iterator[None]:
    """The nodes of the simulated fleet, by the same names. They leave with the module: other tests' pods come then."""
    names = [(f"rack-{number}", exporters.nodes_of(f"rack-{number}")) for number in range(1, RACKS + 1)]
    played = [PlayedNode(node, rack=rack, gpus=GPUS) for rack, nodes in names for node in nodes]
    with KubeletPlayer(control_plane, played):
        yield


@pytest.fixture(scope="module")
def new_line(  # noqa: PLR0917 - pytest fills them in by name
    kubelets: None,  # noqa: ARG001 - the nodes must be there
    control_plane: ControlPlane,
    scraping_prometheus: RunningPrometheus,
    exporters: Exporters,
    racks: Iterator[tuple[str, tuple[str, ...]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> NewLine:
    """Several may be there at once."""

    @contextlib.contextmanager
    def new() -> Iterator[Line]:
        rack_name, nodes = next(racks)
        with (
            own_namespace(control_plane) as namespace,
            control_plane.client("admin") as admin,
            LocalSlack() as slack,
            contextlib.ExitStack() as started,
        ):
            rack = Rack(control_plane, admin, namespace=namespace, name=rack_name, nodes=nodes)
            folder, kubeconfig = tmp_path_factory.mktemp("line"), control_plane.kubeconfig("healer")
            yield Line(exporters, scraping_prometheus, control_plane, rack, slack, folder, kubeconfig, started)

    return new


@pytest.fixture
def line(new_line: NewLine) -> Iterator[Line]:
    with new_line() as one:
        yield one


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _sees_every_node(prometheus: RunningPrometheus) -> bool:
    query = {"query": 'count(up{job="dcgm"} == 1)'}
    answer = httpx.get(f"{prometheus.url}/api/v1/query", params=query, trust_env=False).json()
    result = answer["data"]["result"]
    return bool(result) and int(result[0]["value"][1]) == RACKS * Exporters.NODES_PER_RACK + 1
