"""`healer demo`: a simulated fleet, its faults, and the daemon in act mode, end to end on this machine."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from healer.actions.caps import SUPERSEDED
from healer.adapters.agents import AgentPower
from healer.adapters.simulated_cluster import SimulatedCluster
from healer.cli.options import DurationType, reference_folder
from healer.cli.serve import built_daemon, simulated_source, stop_on_signals
from healer.config import Config
from healer.domain.finding import FailureMode
from healer.domain.incident import IncidentState
from healer.domain.signal import Signal
from healer.errors import HealerError
from healer.policy.audit_chain import first_broken_link
from healer.ports import AuditEntry
from healer.runtime.daemon import Daemon
from healer.runtime.wiring import WallClock
from healer.sim.cluster import follow_cluster, populated_cluster
from healer.sim.faults import demo_faults
from healer.sim.fleet import SimulatedFleet
from healer.sim.server import FleetServer
from healer.sim.slack import LocalSlack

_RACK_BUDGET_W = 25_000.0
_BOT_TOKEN = "xoxb-demo"  # noqa: S105 - the simulated Slack's
_SIGNING_SECRET = "demo-signing-secret"  # noqa: S105
_ON_CALL = "U0ONCALL"
_READS_FOR = timedelta(seconds=4)
_SETTLES = timedelta(seconds=60)
_SCRIPT = timedelta(seconds=60)
_LAST_FAULT = 0.65  # of the time: what happens last must have time to be dealt with
_LINES = (FailureMode.GPU_UNCORRECTABLE_ECC, FailureMode.RACK_POWER_OVER_BUDGET)


@click.command()
@click.option(
    "--duration",
    type=DurationType(),
    default=None,
    help="End by itself after this, with a summary. Both faults are dealt with within about 50s.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--no-console", is_flag=True, help="Without the web console.")
def demo(duration: timedelta | None, seed: int, *, no_console: bool) -> None:
    """A GPU fails, a rack draws too much power, and both are dealt with while you watch.

    The fleet, the cluster, Slack and the engineer on call are simulated; everything between them is the real thing.
    """
    console = Console(highlight=False, soft_wrap=True)
    stopping = threading.Event()
    stop_on_signals(stopping)
    fleet = SimulatedFleet(seed=seed)
    cluster = populated_cluster(fleet.layout, WallClock())
    follow_cluster(fleet, cluster)
    fleet.advance(_SETTLES.total_seconds())
    pace_s = min(_SCRIPT, duration or _SCRIPT).total_seconds()
    faults = demo_faults(fleet.layout, duration_s=_LAST_FAULT * pace_s)
    fleet.schedule(replace(fault, at_s=fault.at_s + fleet.elapsed_s) for fault in faults)
    with _demo(fleet, cluster, stopping, console=not no_console) as (daemon, slack):
        ports: list[int] = []
        working = threading.Thread(target=daemon.run, kwargs={"started": ports.append})
        working.start()
        _greet(console, fleet, ports, working, browsable=not no_console)
        on_call = threading.Thread(target=_answer_questions, args=(slack, ports[0], stopping), daemon=True)
        on_call.start()
        _tell(console, daemon, stopping, duration)
        stopping.set()
        working.join()
        finished = _summarise(console, daemon)
    if duration is not None and not finished:
        raise click.exceptions.Exit(1)


@contextlib.contextmanager
def _demo(
    fleet: SimulatedFleet, cluster: SimulatedCluster, stopping: threading.Event, *, console: bool
) -> Iterator[tuple[Daemon, LocalSlack]]:
    with (
        tempfile.TemporaryDirectory(prefix="healer-demo-") as folder,
        FleetServer(fleet) as server,
        LocalSlack(bot_token=_BOT_TOKEN, signing_secret=_SIGNING_SECRET) as slack,
    ):
        config = _config(Path(folder), slack)
        follower = threading.Thread(target=_follow, args=(fleet, cluster, stopping), daemon=True)
        follower.start()
        power = AgentPower(f"{server.url}/agents/{{node}}/power")
        source = simulated_source(server, config)
        with built_daemon(
            config, stopping=stopping, source=source, cluster=cluster, power=power, console=console
        ) as daemon:
            yield daemon, slack


def _config(folder: Path, slack: LocalSlack) -> Config:
    """The reference deployment in act mode, with everything on loopback and the pace of a demonstration."""
    (folder / "bot_token").write_text(_BOT_TOKEN)
    (folder / "signing_secret").write_text(_SIGNING_SECRET)
    reference = reference_folder()
    return Config.model_validate(
        {
            "mode": "act",
            "telemetry": {"source": "simulator", "interval": "1s", "max_age": "10s", "window": "2m"},
            "topology": {"rack_budget_watts": {"default": _RACK_BUDGET_W}},
            "detectors": {
                "path": reference / "detectors",
                "clear_after": "5s",
                "settings": {"rack_power": {"window_s": 5.0}},
            },
            "models": {"path": reference / "models"},
            "playbooks": {"path": reference / "playbooks", "params": {"cap-rack-power": {"lasting": "5s"}}},
            "budgets": {"fleet": {"max_percent": 25}},
            "approvals": {
                "approvers": [f"slack:{_ON_CALL}"],
                "slack": {
                    "bot_token": {"file": folder / "bot_token"},
                    "signing_secret": {"file": folder / "signing_secret"},
                    "channel": "C0DEMO",
                    "api_url": slack.api_url,
                },
            },
            "cluster": {"kind": "simulated"},
            "tickets": {"folder": folder / "tickets"},
            "state": {"url": f"sqlite:///{folder / 'healer.db'}"},
            "http": {"listen": "127.0.0.1:0", "auth": "none"},
        }
    )


def _follow(fleet: SimulatedFleet, cluster: SimulatedCluster, stopping: threading.Event) -> None:
    while not stopping.wait(0.5):
        follow_cluster(fleet, cluster)


def _greet(
    console: Console, fleet: SimulatedFleet, ports: list[int], working: threading.Thread, *, browsable: bool
) -> None:
    while not ports and working.is_alive():
        time.sleep(0.02)
    if not ports:
        raise HealerError("the daemon did not start")
    layout = fleet.layout
    console.print(
        f"[bold]healer demo[/]  {layout.n_gpus} simulated GPUs on {len(layout.nodes)} nodes in "
        f"{len(layout.racks)} racks, mode act, rack budget {_RACK_BUDGET_W / 1000:.0f} kW"
    )
    if browsable:
        console.print(f"console  http://127.0.0.1:{ports[0]}/")


def _answer_questions(slack: LocalSlack, port: int, stopping: threading.Event) -> None:
    """The engineer on call: reads for a while, then clicks Approve, signed as Slack signs."""
    answered: set[str] = set()
    while not stopping.wait(0.2):
        for message in slack.messages:
            if message.ts not in answered:
                answered.add(message.ts)
                if not stopping.wait(_READS_FOR.total_seconds()):
                    url = f"http://127.0.0.1:{port}/slack/interactions"
                    slack.click(message, "approve", interactions_url=url, user_id=_ON_CALL, user_name="on-call")


def _tell(console: Console, daemon: Daemon, stopping: threading.Event, duration: timedelta | None) -> None:
    """Print what the audit log gains, as it gains it, until the time is over."""
    began, told = time.monotonic(), 0
    total = None if duration is None else duration.total_seconds()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=total)
        while not stopping.wait(0.25):
            elapsed = time.monotonic() - began
            progress.update(bar, completed=elapsed, description=_in_short(daemon))
            for entry in daemon.journal.audit_log(after=told):
                told = entry.number
                line = _line(entry)
                if line:
                    progress.console.print(f"{entry.at:%H:%M:%S}  {line}")
            if total is not None and elapsed >= total:
                return


def _in_short(daemon: Daemon) -> str:
    snapshot = daemon.board.look()
    if snapshot.frame is None:
        return "waiting for the first telemetry"
    silent = int(np.isnan(snapshot.frame.latest(Signal.GPU_TEMPERATURE)).sum())
    racks = zip(snapshot.frame.racks.components, snapshot.frame.racks.power_w[-1], strict=True)
    power = ", ".join(f"{rack.rack} {watts / 1000:.1f} kW" for rack, watts in racks)
    return f"{len(snapshot.frame.gpus) - silent} GPUs seen, {silent} unknown; {power}"


def _line(entry: AuditEntry) -> str:  # noqa: PLR0911 - one case, one sentence
    """One entry of the audit log, for people; empty for those that say nothing new."""
    detail = json.loads(entry.detail)
    match entry.action:
        case "incident.open":
            return f"[red]found[/]      {detail['failure_mode']} on {detail['name']}: {entry.reason}"
        case "approval.asked":
            effects = "\n".join(f"                       - {effect}" for effect in detail["effects"])
            return f"[yellow]asked[/]      on-call in Slack, for the plan {detail['digest'][:12]}:\n{effects}"
        case "approval.approved":
            return f"[green]approved[/]   by {entry.actor}: {entry.reason}"
        case "run.started":
            return f"[cyan]started[/]    {detail['playbook']}"
        case "effect.done" | "effect.undone" if entry.reason != SUPERSEDED:
            verb, _, target = entry.subject.partition("/")[2].partition("/")
            named = target if verb == "cordon" else target.rpartition("/")[0]
            did = "undid" if entry.action == "effect.undone" else "did"
            return f"[cyan]  {did:8}[/] {verb} {named}: {entry.reason}"
        case "run.succeeded" | "run.failed" | "run.cancelled":
            return f"[cyan]{entry.action.removeprefix('run.'):10}[/] {entry.reason}"
        case "incident.resolved":
            return f"[green]resolved[/]   {detail['failure_mode']} on {detail['name']}: {entry.reason}"
        case "incident.escalated":
            return f"[red]escalated[/]  {entry.reason}"
        case _:
            return ""


def _summarise(console: Console, daemon: Daemon) -> bool:
    """What became of the two lines of the demo; whether both went all the way."""
    finished = True
    console.print("\n[bold]summary[/]")
    for mode in _LINES:
        incident = next((i for i in daemon.journal.incidents() if i.failure_mode is mode), None)
        if incident is None or incident.state is not IncidentState.RESOLVED or incident.resolved_at is None:
            state = "was not found" if incident is None else f"is {incident.state}: {incident.story}"
            console.print(f"  [red]✗[/] {mode} {state}")
            finished = False
            continue
        took = (incident.resolved_at - incident.opened_at).total_seconds()
        console.print(f"  [green]✓[/] {mode} on {incident.component}: resolved {took:.0f} s after it was found")
    entries = daemon.journal.audit_log(limit=10_000)
    unbroken = first_broken_link(entries) is None
    console.print(f"  {len(entries)} entries in the audit log, its chain is {'unbroken' if unbroken else 'BROKEN'}")
    return finished and unbroken
