"""`healer playbook rehearse`: the tests of playbooks played on a simulated site."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click

from healer.cli import serve
from healer.cli.options import config_option, find_config, json_option, one_line
from healer.cli.playbook_files import chosen_playbooks, problem_json
from healer.cli.recorded_runs import rehearse_run
from healer.rehearsal.rehearse import Played, rehearse
from healer.runtime.wiring import detectors_of, verbs_of
from healer.schema import format_duration


@click.command("rehearse")
@click.argument("names", nargs=-1)
@click.option("-v", "--verbose", is_flag=True, help="Also tell what happened in the tests that passed.")
@click.option("--from-run", "run_id", metavar="ID", help="Play what was recorded of this run instead of the tests.")
@click.option("--save", is_flag=True, help="With --from-run: print its test, to paste under tests:, and play nothing.")
@config_option
@json_option
def rehearse_playbooks(
    names: tuple[str, ...],
    config_path: Path | None,
    *,
    verbose: bool,
    run_id: str | None,
    save: bool,
    as_json: bool,
) -> None:
    """Play the tests of the playbooks NAMES (or files), of all by default, on a simulated site in virtual time.

    With --from-run ID: play one playbook, as it is now, on what the journal has of that run, and show the two side by
    side; by default the playbook of the run.
    """
    if save and run_id is None:
        raise click.UsageError("--save prints the test that a recorded run makes: give --from-run ID")
    if run_id is not None:
        rehearse_run(names, run_id, find_config(config_path), save=save, verbose=verbose, as_json=as_json)
        return
    serve.log_to_stderr(logging.CRITICAL)  # the transcript says what happened
    config = find_config(config_path)
    detectors, verbs = detectors_of(config), verbs_of(config)
    chosen, deployed = chosen_playbooks(names, config, verbs)
    played: list[Played] = []
    for each in chosen:
        for one in rehearse(each, config, detectors, verbs=verbs, beside=deployed):
            played.append(one)
            if not as_json:
                _tell(one, verbose=verbose)
    failed = [one for one in played if one.problems]
    untested = [each.name for each in chosen if each.name not in {one.playbook for one in played}]
    if as_json:
        click.echo(json.dumps({"tests": [_played(one) for one in played], "untested": untested}, indent=2))
    else:
        for name in untested:
            click.echo(f"{name}: has no tests")
        click.echo(f"{len(played) - len(failed)} passed, {len(failed)} failed")
    if failed or (untested and names):
        raise click.exceptions.Exit(1)


def _tell(one: Played, *, verbose: bool) -> None:
    word = click.style("FAILED", fg="red") if one.problems else click.style("passed", fg="green")
    click.echo(f"{word} {one.playbook}: {one_line(one.test)} ({format_duration(one.took)})")
    for problem in one.problems:
        click.echo(f"  {problem}")
    if verbose or one.problems:
        for line in one.transcript:
            click.echo(f"    {one_line(line)}")


def _played(one: Played) -> dict[str, object]:
    return {
        "playbook": one.playbook,
        "test": one.test,
        "passed": not one.problems,
        "problems": [problem_json(problem) for problem in one.problems],
        "took": format_duration(one.took),
        "transcript": list(one.transcript),
    }
