"""`healer playbook`: writing playbooks, and knowing what they do before they do it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import msgspec

import healer
from healer.actions.lint import Remark, Weight, lint
from healer.actions.playbook_schema import document_schema
from healer.cli import rehearsals
from healer.cli.journals import journal_or_none
from healer.cli.options import config_option, find_config, json_option, one_line
from healer.cli.playbook_files import chosen_playbooks, problem_json, valid_playbook
from healer.cli.scaffold import scaffold
from healer.content.nesting import is_part
from healer.content.playbooks import turn_of
from healer.documents import parse_document
from healer.domain.component import Component
from healer.domain.finding import FailureMode
from healer.domain.playbook import Asking, Playbook
from healer.errors import HealerError
from healer.runtime.knowledge import Outside
from healer.runtime.outside import build_care, build_cluster, build_power, build_source, build_tickets, build_topology
from healer.runtime.preview import Preview, preview
from healer.runtime.web.views import plan_view
from healer.runtime.wiring import Content, WallClock, budgets_of, verbs_of

_MODE = click.Choice([str(mode) for mode in FailureMode], case_sensitive=False)


@click.group()
def playbook() -> None:
    """Write, check and rehearse playbooks, and see what they would do."""


playbook.add_command(rehearsals.rehearse_playbooks)


# Writing


@playbook.command()
@click.argument("name")
@click.option(
    "--for",
    "mode",
    type=_MODE,
    required=True,
    help="The failure mode that it answers.",
)
@config_option
def new(name: str, mode: str, config_path: Path | None) -> None:
    """Write a first version of playbook NAME, with a test, into the deployment's folder."""
    config = find_config(config_path)
    if config.playbooks.path.resolve().is_relative_to(Path(healer.__file__).parent):
        raise HealerError("there is no deployment here, only the one inside the package: healer init DIR writes one")
    path = config.playbooks.path / f"{name}.yaml"
    if path.exists():
        raise HealerError(f"{path} is there already; nothing was written")
    text = scaffold(name, FailureMode(mode))
    valid_playbook(parse_document(text, file=str(path)), config, verbs_of(config), ())  # the name may be none
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    click.echo(f"wrote {path}; now: healer playbook lint {name} and healer playbook rehearse {name}")


@playbook.command()
@config_option
def schema(config_path: Path | None) -> None:
    """Print the JSON Schema of playbooks, for editors, with the verbs of the deployment."""
    click.echo(json.dumps(document_schema(verbs_of(find_config(config_path))), indent=2))


# Knowing


@playbook.command("lint")
@click.argument("names", nargs=-1)
@click.option("--strict", is_flag=True, help="Warnings fail, too.")
@config_option
@json_option
def lint_playbooks(names: tuple[str, ...], config_path: Path | None, *, strict: bool, as_json: bool) -> None:
    """Say what cannot work, or hardly be meant, in the playbooks NAMES (or files); in all of them by default."""
    config = find_config(config_path)
    verbs = verbs_of(config)
    chosen, deployed = chosen_playbooks(names, config, verbs)
    remarks = [
        remark
        for each in chosen
        for remark in lint(
            each,
            verbs,
            before=_before(each, deployed),
            budgets=budgets_of(config),
            is_part=is_part(each, deployed),
        )
    ]
    if as_json:
        click.echo(json.dumps([_remark(remark) for remark in remarks], indent=2))
    else:
        for remark in remarks:
            click.echo(str(remark))
        click.echo(f"{len(chosen)} playbooks: " + (f"{len(remarks)} remarks" if remarks else "nothing to say"))
    if any(remark.weight is Weight.ERROR or strict for remark in remarks):
        raise click.exceptions.Exit(1)


def _before(one: Playbook, deployed: Sequence[Playbook]) -> tuple[Playbook, ...]:
    """Those that are asked first: of a file that is not deployed, those that would be if it were."""
    names = [each.name for each in deployed]
    if one.name in names:
        return tuple(deployed[: names.index(one.name)])
    return tuple(each for each in deployed if turn_of(each) < turn_of(one))


def _remark(remark: Remark) -> dict[str, object]:
    return {"weight": str(remark.weight), **problem_json(remark.problem)}


@playbook.command()
@click.argument("name")
@click.option(
    "--for",
    "mode",
    type=_MODE,
    help="The failure mode. Default: the first that it answers.",
)
@click.option("--node", help="The node that it would be about; with --gpu, the GPU's.")
@click.option("--gpu", help="The GPU that it would be about, by its index on its node.")
@click.option("--rack", help="The rack that it would be about.")
@click.option("--job", help="The job that it would be about.")
@config_option
@json_option
def plan(
    name: str,
    config_path: Path | None,
    *,
    mode: str | None,
    node: str | None,
    gpu: str | None,
    rack: str | None,
    job: str | None,
    as_json: bool,
) -> None:
    """Show what playbook NAME (or a file) would do to the real fleet, as it is now, and what would speak against it.

    Nothing is changed: the telemetry, the scheduler and the agents are read as in the deployment's configuration.
    """
    config = find_config(config_path)
    verbs = verbs_of(config)
    (chosen,), _ = chosen_playbooks((name,), config, verbs)
    where = _component(node, gpu, rack, job)
    wanted = FailureMode(mode) if mode else min(chosen.failure_modes, default=None)
    if wanted is None:
        raise click.UsageError(
            f"{chosen.name} answers no failure mode by itself: say of which it is the remedy, --for MODE"
        )
    if not chosen.failure_modes:
        chosen = replace(chosen, failure_modes=frozenset({wanted}))
    if config.telemetry.source == "simulator":
        raise HealerError("telemetry.source is simulator: there is no real fleet; see healer playbook rehearse")
    outside = Outside(
        build_source(config),
        build_cluster(config),
        build_power(config),
        build_tickets(config),
        topology=build_topology(config),
        care=build_care(config),
    )
    with journal_or_none(config) as journal:
        seen = preview(
            chosen,
            wanted,
            where,
            config=config,
            content=Content((), (), (chosen,), verbs),
            outside=outside,
            journal=journal,
            clock=WallClock(),
        )
    if as_json:
        click.echo(json.dumps(_previewed(seen), indent=2))
    else:
        click.echo(one_line(f"{chosen.name} on a {seen.incident.failure_mode} of {seen.incident.component}:"))
        for line in _shown(seen):
            click.echo(f"  {one_line(line)}")


def _component(node: str | None, gpu: str | None, rack: str | None, job: str | None) -> Component:
    where = Component.finest(rack=rack, node=node, gpu=gpu, job=job)
    if where is None or (gpu is not None and node is None):
        raise click.UsageError("say what it would be about: --node, --node with --gpu, --rack or --job")
    return where


def _shown(seen: Preview) -> Iterator[str]:
    if seen.plan is None and not seen.verdicts:
        yield "it does not answer such an incident: see match in its file"
    if seen.plan is not None:
        if not seen.plan.effects:
            yield "nothing: the world is as it would leave it"
        for effect in seen.plan.effects:
            yield str(effect)
        for text in seen.plan.impediments:
            yield f"slowed down: {text}"
        yield f"budget: {seen.plan.budget}"
        if seen.plan.locks:
            yield f"locks: {', '.join(seen.plan.locks)}"
        yield f"a person is asked first: {_asked(seen.plan.asking) if seen.plan.needs_approval else 'no'}"
    for verdict in seen.verdicts:
        yield f"held back: {verdict}"


def _asked(asking: Asking) -> str:
    who = f" of {', '.join(asking.who)}" if asking.who is not None else ""
    return "yes" + (f": {asking.quorum}{who}" if who or asking.quorum > 1 else "")


def _previewed(seen: Preview) -> dict[str, object]:
    return {
        "plan": None if seen.plan is None else msgspec.to_builtins(plan_view(seen.plan)),
        "verdicts": [
            {"guard": str(each.guard), "message": each.message, "lifts": each.lifts} for each in seen.verdicts
        ],
    }
