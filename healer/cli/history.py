"""`healer backtest` and `healer audit`: looking back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from healer.cli import comparison_text, incident_text, serve
from healer.cli.journals import recorded_journal
from healer.cli.options import DurationType, MomentType, config_option, find_config, json_option, print_table
from healer.cli.playbook_files import valid_playbook
from healer.config import Config
from healer.content.playbooks import with_changes
from healer.documents import read_document
from healer.domain.verdict import Mode
from healer.errors import HealerError
from healer.policy.audit_chain import first_broken_link
from healer.ports import AuditEntry
from healer.runtime.backtest import Report
from healer.runtime.backtest import backtest as replay
from healer.runtime.comparison import Change
from healer.runtime.outside import build_prometheus
from healer.runtime.wiring import Content, load_content

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
@click.option(
    "--playbooks",
    "paths",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="Changed playbooks, a file or a folder: say what they would have done otherwise than the deployed ones.",
)
@click.option(
    "--mode",
    type=click.Choice([str(Mode.RECOMMEND), str(Mode.ACT)]),
    help="With --playbooks. Default: the deployment's; act where it observes.",
)
@click.option(
    "--answer-after",
    type=DurationType(),
    help="With --playbooks: when on-call says yes to what it is asked. Default: at once.",
)
@config_option
@json_option
def backtest(
    start: datetime,
    end: datetime,
    step: timedelta,
    config_path: Path | None,
    *,
    paths: tuple[Path, ...],
    mode: str | None,
    answer_after: timedelta | None,
    as_json: bool,
) -> None:
    """Replay stored telemetry through the same code; report the incidents and plans it would have led to.

    With --playbooks also what changed playbooks would have done otherwise: nothing is acted on, all of it in memory.
    """
    if end <= start:
        raise click.UsageError(f"--end {end:%Y-%m-%dT%H:%M:%SZ} is not after --start")
    if not paths and (mode is not None or answer_after is not None):
        raise click.UsageError("--mode and --answer-after say how changed playbooks are compared: give --playbooks")
    config = find_config(config_path)
    content = load_content(config)
    change = _change(config, content, paths, mode, answer_after or timedelta(0)) if paths else None
    columns = (TextColumn("replaying"), BarColumn(), TextColumn("{task.fields[at]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=(end - start).total_seconds(), at="")

        def advance(at: datetime) -> None:
            progress.update(bar, completed=(at - start).total_seconds(), at=f"{at:%Y-%m-%d %H:%M:%S}")

        history = build_prometheus(config)
        report = replay(config, content, history, start=start, end=end, step=step, progress=advance, change=change)
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        _print(report)


def _change(
    config: Config, content: Content, paths: Sequence[Path], mode: str | None, answer_after: timedelta
) -> Change:
    """Raises InvalidDocument."""
    serve.log_to_stderr(logging.ERROR)  # what the two sides warn of is in the report, each on its side
    files = [file for path in paths for file in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])]
    if not files:
        raise click.UsageError(f"there is no *.yaml in {', '.join(map(str, paths))}")
    given = tuple(valid_playbook(read_document(file), config, content.verbs, content.playbooks) for file in files)
    return Change(
        given=given,
        playbooks=with_changes(content.playbooks, given, params=config.playbooks.params),
        mode=Mode(mode or (Mode.ACT if config.mode is Mode.OBSERVE else config.mode)),
        answer_after=answer_after,
    )


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
    comparison_text.show(report)


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
    with recorded_journal(find_config(config_path)) as journal:
        after = 0
        while page := journal.audit_log(after=after, limit=_PAGE):
            yield page
            after = page[-1].number
