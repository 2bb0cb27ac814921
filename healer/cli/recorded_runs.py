"""`healer playbook rehearse --from-run`: a recorded run, and what a playbook does today about the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import timedelta

import click
import yaml

from healer.cli import serve
from healer.cli.journals import recorded_journal
from healer.cli.options import one_line, print_table
from healer.cli.playbook_files import chosen_playbooks
from healer.config import Config
from healer.content.playbook_tests import PlaybookTest
from healer.domain.playbook import Playbook
from healer.domain.verdict import Mode
from healer.rehearsal.beside import Beside, Line, play_beside
from healer.rehearsal.record import Record, read_record
from healer.rehearsal.recorded import Remade, remade
from healer.runtime.wiring import detectors_of, verbs_of
from healer.schema import format_duration

_COLUMNS = ("AFTER", "RECORDED", "AFTER", "REHEARSED")


def rehearse_run(
    names: Sequence[str], run_id: str, config: Config, *, save: bool, verbose: bool, as_json: bool
) -> None:
    """Exits with 1 if the playbook does, or ends, otherwise than was recorded."""
    if len(names) > 1:
        raise click.UsageError("--from-run plays one playbook: name one, or none for that of the run")
    serve.log_to_stderr(logging.CRITICAL)  # the two courses say what happened
    with recorded_journal(config) as journal:
        record = read_record(journal, run_id)
    remake = remade(record, Mode.ACT if config.mode is Mode.OBSERVE else config.mode)
    if save:
        click.echo(_as_yaml(remake.test), nl=False)
        return
    verbs = verbs_of(config)
    (playbook,), deployed = chosen_playbooks(names or (record.first_plan.playbook,), config, verbs)
    detectors = detectors_of(config) if remake.test.faults else ()
    beside = play_beside(playbook, record, remake, config, detectors, verbs=verbs, beside=deployed)
    if as_json:
        click.echo(json.dumps(_told(playbook, record, remake, beside), indent=2))
    else:
        _show(playbook, record, remake, beside, verbose=verbose)
    if beside.differences:
        raise click.exceptions.Exit(1)


def _as_yaml(test: PlaybookTest) -> str:
    document = test.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump([document], sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def _show(playbook: Playbook, record: Record, remake: Remade, beside: Beside, *, verbose: bool) -> None:
    run, incident = record.run, record.incident
    click.echo(
        one_line(
            f"{run.id}: {run.plan.playbook} on {run.plan.target}, for {incident.failure_mode} of"
            f" {incident.component}, found {record.began:%Y-%m-%d %H:%M:%S}"
        )
    )
    edited = "" if playbook.digest == record.first_plan.playbook_digest else ", which is another text than was run then"
    click.echo(one_line(f"rehearsed: {playbook.name} ({playbook.file}){edited}"))
    renamed = [f"{old} is {new}" for old, new in remake.renamed.items() if old != new]
    if renamed:
        click.echo(one_line(f"called here: {', '.join(renamed)}"))
    click.echo()
    print_table(_COLUMNS, [(*_cells(old), *_cells(new)) for old, new in beside.rows], empty="nothing happened")
    click.echo()
    for line in remake.lost:
        click.echo(f"not reproduced: {one_line(line)}")
    if verbose:
        for line in beside.transcript:
            click.echo(f"    {one_line(line)}")
    for text in beside.differences:
        click.echo(f"differs: {one_line(text)}")
    if not beside.differences:
        click.echo("same: it asks, does and ends as it was recorded")


def _cells(line: Line | None) -> tuple[str, str]:
    return ("", "") if line is None else (_after(line.after), line.text)


def _after(span: timedelta) -> str:
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    return f"+{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _told(playbook: Playbook, record: Record, remake: Remade, beside: Beside) -> dict[str, object]:
    return {
        "run": record.run.id,
        "incident": record.incident.id,
        "playbook": {
            "name": playbook.name,
            "file": playbook.file,
            "as_it_was": playbook.digest == record.first_plan.playbook_digest,
        },
        "same": not beside.differences,
        "differences": list(beside.differences),
        "recorded": [_line(old) for old, _ in beside.rows if old is not None],
        "rehearsed": [_line(new) for _, new in beside.rows if new is not None],
        "renamed": dict(remake.renamed),
        "not_reproduced": list(remake.lost),
        "test": remake.test.model_dump(mode="json", exclude_defaults=True),
        "transcript": list(beside.transcript),
    }


def _line(line: Line) -> dict[str, object]:
    return {"after": format_duration(line.after), "what": line.text, "note": line.note}
