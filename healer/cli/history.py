"""`healer backtest` and `healer audit`: looking back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from healer.adapters.journal.sql import SqlJournal
from healer.cli import incident_text
from healer.cli.options import DurationType, MomentType, config_option, find_config, json_option, print_table
from healer.errors import HealerError, NotFound
from healer.policy.audit_chain import first_broken_link
from healer.ports import AuditEntry
from healer.runtime.backtest import Report
from healer.runtime.backtest import backtest as replay
from healer.runtime.outside import build_prometheus
from healer.runtime.wiring import load_content

_COLUMNS = (
    "OPENED",
    "RESOLVED",
    "SEVERITY",
    "FAILURE",
    "COMPONENT",
    "CULPRIT",
    "JOBS",
    "SYMPTOMS",
    "REASON",
    "PLAN",
)
_PAGE = 1000


@click.command()
@click.option("--start", type=MomentType(), required=True, help="RFC 3339, e.g. 2026-11-20T18:00:00Z.")
@click.option("--end", type=MomentType(), required=True, help="RFC 3339.")
@click.option("--step", type=DurationType(), default="30s", show_default=True, help="One turn of the loop.")
@config_option
@json_option
def backtest(start: datetime, end: datetime, step: timedelta, config_path: Path | None, *, as_json: bool) -> None:
    """Replay stored telemetry through the same code; report the incidents and plans it would have led to."""
    if end <= start:
        raise click.UsageError(f"--end {end:%Y-%m-%dT%H:%M:%SZ} is not after --start")
    config = find_config(config_path)
    content = load_content(config)
    columns = (TextColumn("replaying"), BarColumn(), TextColumn("{task.fields[at]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=(end - start).total_seconds(), at="")

        def advance(at: datetime) -> None:
            progress.update(bar, completed=(at - start).total_seconds(), at=f"{at:%Y-%m-%d %H:%M:%S}")

        history = build_prometheus(config)
        report = replay(config, content, history, start=start, end=end, step=step, progress=advance)
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        _print(report)


def _print(report: Report) -> None:
    rows = [
        (
            f"{i.opened_at:%Y-%m-%d %H:%M:%S}",
            "-" if i.resolved_at is None else f"{i.resolved_at:%Y-%m-%d %H:%M:%S}",
            i.severity,
            i.failure_mode,
            incident_text.named(i.component),
            *incident_text.reach(i),
            i.reasons[0],
            "-" if i.plan is None else i.plan.playbook,
        )
        for i in report.incidents
    ]
    print_table(_COLUMNS, rows, empty="no incidents")
    stats = report.stats
    click.echo(f"{stats.ticks} turns over {stats.gpus} GPUs, {stats.samples} samples, in {stats.wall_s:.1f} s")
    for warning in stats.warnings:
        click.echo(f"warning: {warning}")


@click.group()
def audit() -> None:
    """The hash-chained log of every decision and effect, read from the journal itself."""


@audit.command()
@config_option
def verify(config_path: Path | None) -> None:
    """Check that no entry of the log was changed, removed or put in between."""
    count, previous = 0, None
    for page in _pages(config_path):
        broken = first_broken_link(page) if previous is None else first_broken_link(page, previous)
        if broken is not None:
            raise HealerError(f"the audit log is broken at entry {broken.number}: {broken.action} {broken.subject}")
        count, previous = count + len(page), page[-1].digest
    click.echo(f"{count} entries, unbroken" + (f", the last is {previous[:16]}" if previous else ""))


@audit.command()
@config_option
def export(config_path: Path | None) -> None:
    """Print the log as JSON lines, oldest first."""
    for page in _pages(config_path):
        for entry in page:
            line = msgspec.to_builtins(entry) | {"detail": json.loads(entry.detail)}
            click.echo(json.dumps(line))


def _pages(config_path: Path | None) -> Iterator[tuple[AuditEntry, ...]]:
    url = find_config(config_path).state.url
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not path.is_file():
        # Opening it would make an empty one, and an empty log is unbroken.
        raise NotFound("journal", f"there is no {path}; see state.url")
    journal = SqlJournal(url)
    try:
        after = 0
        while page := journal.audit_log(after=after, limit=_PAGE):
            yield page
            after = page[-1].number
    finally:
        journal.close()
