"""`healer run` and `healer simulate`: what stays up until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import structlog

from healer.adapters.journal.sql import SqlJournal
from healer.adapters.push.remote_write import RemoteWrite
from healer.adapters.scrape.source import ScrapeSource
from healer.adapters.slack.channel import open_channel
from healer.cli.options import config_option, find_config
from healer.config import Config
from healer.ports import Cluster, PowerControl, TelemetrySource
from healer.runtime.daemon import Daemon, Intake
from healer.runtime.knowledge import Outside
from healer.runtime.outside import (
    build_care,
    build_cluster,
    build_job_witness,
    build_kernel_log,
    build_notices,
    build_power,
    build_source,
    build_tickets,
    build_topology,
)
from healer.runtime.snapshot import Board, Snapshot
from healer.runtime.wiring import WallClock, build_operator, load_content
from healer.sim.cluster import populated_cluster
from healer.sim.fleet import SimulatedFleet
from healer.sim.server import FleetServer


@click.command()
@config_option
def run(config_path: Path | None) -> None:
    """The daemon. Stops cleanly on SIGTERM or SIGINT; killed at any instant, it goes on where it was."""
    log_to_stderr(logging.INFO)
    config = find_config(config_path)
    with contextlib.ExitStack() as stack:
        simulated = config.telemetry.source == "simulator"
        server = stack.enter_context(FleetServer(SimulatedFleet())) if simulated else None
        source = build_source(config) if server is None else simulated_source(server, config)
        cluster = build_cluster(config)
        if config.cluster.kind == "simulated":
            fleet = SimulatedFleet() if server is None else server.fleet
            cluster = populated_cluster(fleet.layout, WallClock())
        stopping = threading.Event()
        stop_on_signals(stopping)
        daemon = stack.enter_context(
            built_daemon(config, stopping=stopping, source=source, cluster=cluster, power=build_power(config))
        )
        daemon.run()


@contextlib.contextmanager
def built_daemon(
    config: Config,
    *,
    stopping: threading.Event,
    source: TelemetrySource,
    cluster: Cluster | None,
    power: PowerControl | None,
    console: bool = True,
) -> Iterator[Daemon]:
    """A daemon with its parts wired; its journal is closed at the end. Raises InvalidDocument, Unavailable."""
    content = load_content(config)
    slack = config.approvals.slack
    channel = open_channel(slack) if slack is not None else None
    topology, notices = build_topology(config), build_notices(config)
    witness, kernel_log = build_job_witness(config), build_kernel_log(config)
    outside = Outside(
        source,
        cluster,
        power,
        build_tickets(config),
        channel=channel,
        topology=topology,
        notices=notices,
        witness=witness,
        kernel_log=kernel_log,
        care=build_care(config),
    )
    journal = SqlJournal(config.state.url)
    try:
        board, clock = Board(Snapshot(config.mode)), WallClock()
        if notices is not None:
            notices.recall(journal.incidents(open_only=True), clock.now())
        operator = build_operator(config, content=content, outside=outside, journal=journal, board=board, clock=clock)
        receiver = source if isinstance(source, RemoteWrite) else None
        intake = Intake(receiver, notices)
        yield Daemon(config, operator, journal, board, clock, stopping, console=console, intake=intake)
    finally:
        journal.close()
        if witness is not None:
            witness.close()
        if kernel_log is not None:
            kernel_log.close()


def simulated_source(server: FleetServer, config: Config) -> ScrapeSource:
    """The simulated fleet's exporters, over HTTP as real ones are."""
    timeout_s = config.telemetry.scrape.timeout.total_seconds()
    return ScrapeSource(discovery=f"{server.url}/sd", timeout_s=timeout_s, rack_power=config.topology.rack_power)


def stop_on_signals(stopping: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())


def log_to_stderr(level: int) -> None:
    """Key-values on standard error: for people on a terminal, as JSON lines for everything else.

    Traces come without the values of local variables: those may be secrets, and are very many.
    """
    tracer = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *((console,) if sys.stderr.isatty() else (tracer, structlog.processors.JSONRenderer())),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
