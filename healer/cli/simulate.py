"""`healer simulate`: a simulated fleet, served as exporters, or written down as history with the truth beside it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from healer.cli.options import DurationType, MomentType
from healer.cli.serve import stop_on_signals
from healer.sim.days.day import STEP_S
from healer.sim.days.openmetrics import write_openmetrics
from healer.sim.days.random_day import START, random_day
from healer.sim.days.record import record
from healer.sim.exporters.style import drawn_style
from healer.sim.faultfile import load_faults
from healer.sim.fleet import SimulatedFleet
from healer.sim.layout import build_layout
from healer.sim.server import Exporters, FleetServer


@dataclass(frozen=True, slots=True)
class _Shape:
    racks: int
    nodes: int
    gpus: int
    seed: int
    faults: Path | None


@click.command()
@click.option("--racks", default=2, show_default=True, type=click.IntRange(1))
@click.option("--nodes", default=8, show_default=True, type=click.IntRange(1), help="In all, spread over the racks.")
@click.option("--gpus", default=8, show_default=True, type=click.IntRange(1, 16), help="Per node.")
@click.option("--seed", default=0, show_default=True, help="The same seed, the same fleet and what happens to it.")
@click.option(
    "--faults",
    "faults_path",
    type=click.Path(path_type=Path),
    help="A YAML file of faults. Without it nothing breaks in a served fleet, and a history has random faults.",
)
@click.option("--listen", default="127.0.0.1:9400", show_default=True, metavar="ADDR")
@click.option("--speed", default=1.0, show_default=True, help="Simulated seconds per second.")
@click.option(
    "--exporters",
    default=str(Exporters.GPUS),
    show_default=True,
    type=click.Choice([str(each) for each in Exporters]),
    help="all: every field, and the exporters of hosts, boards, racks and the scheduler.",
)
@click.option(
    "--history",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Serve nothing; write a fleet's history to this file as OpenMetrics, for promtool tsdb create-blocks-from, "
    "and the truth about it beside it, to FILE.truth.json.",
)
@click.option("--duration", type=DurationType(), default="1d", show_default=True, help="Of the history.")
@click.option("--step", type=DurationType(), default="15s", show_default=True, help="Between scrapes in the history.")
@click.option("--start", type=MomentType(), default=START.isoformat(), show_default=True, help="Of the history.")
def simulate(
    *,
    racks: int,
    nodes: int,
    gpus: int,
    seed: int,
    faults_path: Path | None,
    listen: str,
    speed: float,
    exporters: str,
    history: Path | None,
    duration: timedelta,
    step: timedelta,
    start: datetime,
) -> None:
    """A simulated fleet: its exporters and node agents until stopped, or a history of it.

    A history has jobs, random faults, what only looks like one, and the habits of a site of its own; all of it, and the
    truth, is drawn from the seed.
    """
    shape = _Shape(racks, nodes, gpus, seed, faults_path)
    if history is None:
        _serve(shape, listen=listen, speed=speed, exporters=Exporters(exporters))
    else:
        _write(shape, history, duration=duration, step=step, start=start)


def _serve(shape: _Shape, *, listen: str, speed: float, exporters: Exporters) -> None:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise click.BadParameter(f"{listen!r} is not HOST:PORT", param_hint="--listen")
    fleet = SimulatedFleet(racks=shape.racks, nodes=shape.nodes, gpus=shape.gpus, seed=shape.seed)
    if shape.faults is not None:
        fleet.schedule(load_faults(shape.faults, fleet.layout))
    stopping = threading.Event()
    stop_on_signals(stopping)
    with FleetServer(fleet, host=host, port=int(port), speed=speed, exporters=exporters) as server:
        click.echo(f"{fleet.layout.n_gpus} GPUs on {shape.nodes} nodes in {shape.racks} racks at {server.url}")
        click.echo(f"  Prometheus discovery  http_sd_configs: [{{url: {server.url}/sd}}]")
        click.echo(f"  node agents           power: {{agent_url: '{server.url}/agents/{{node}}/power'}}")
        stopping.wait()


def _write(shape: _Shape, path: Path, *, duration: timedelta, step: timedelta, start: datetime) -> None:
    for option, span in (("--step", step), ("--duration", duration)):
        if span % timedelta(seconds=STEP_S):
            raise click.BadParameter(f"{span} is not a multiple of {STEP_S:g} s", param_hint=option)
    begin = start.astimezone(UTC)
    if begin.timestamp() % step.total_seconds():
        raise click.BadParameter(f"{start} is not a multiple of the step", param_hint="--start")
    layout = build_layout(racks=shape.racks, nodes=shape.nodes, gpus=shape.gpus, seed=shape.seed)
    given = None if shape.faults is None else load_faults(shape.faults, layout)
    style = drawn_style(np.random.default_rng((shape.seed, 5)))
    day = random_day(
        shape.seed,
        racks=shape.racks,
        nodes=shape.nodes,
        gpus=shape.gpus,
        duration=duration,
        start=begin,
        given=given,
        style=replace(style, scrape_s=round(step.total_seconds())),
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, path.open("w", encoding="utf-8") as out:
        task = progress.add_task(path.name, total=1.0)
        written = write_openmetrics(day, out, progress=lambda share: progress.update(task, completed=share))
    truth = path.with_name(f"{path.name}.truth.json")
    truth.write_text(json.dumps(record(day), indent=1) + "\n", encoding="utf-8")
    click.echo(f"{written} samples of {layout.n_gpus} GPUs in {path}")
    click.echo(f"{len(day.truths)} faults and {len(day.look_alikes)} look-alikes in {truth}")
