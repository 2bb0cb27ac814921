"""`healer check` and `healer init`: a deployment's four names, validated and written out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from healer.actions.registry import BUILT_IN
from healer.cli.options import config_option, default_config, reference_folder
from healer.config import Config, load_config
from healer.domain.verdict import Mode
from healer.errors import HealerError
from healer.runtime.wiring import load_content

_NAMES = ("config.yaml", "detectors", "playbooks", "models")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@config_option
def check(folder: Path | None, config_path: Path | None) -> None:
    """Validate the config, detectors, playbooks, models and verbs of a deployment: FOLDER, or that of --config."""
    if folder is not None and config_path is not None:
        raise click.UsageError("give either FOLDER or --config")
    path = config_path or (folder / "config.yaml" if folder is not None else default_config())
    config = load_config(path)
    content = load_content(config)
    click.echo(f"{path}: mode {config.mode}, telemetry from {config.telemetry.source}")
    for name, parts in (
        ("detectors", [part.name for part in content.detectors]),
        ("models", [f"{part.name} {part.manifest.version}" for part in content.models]),
        ("playbooks", [part.name for part in content.playbooks]),
        ("verbs of its own", [name for name in content.verbs if name not in BUILT_IN]),
    ):
        click.echo(f"{len(parts)} {name}: {', '.join(parts) or 'none'}")
    for mode in sorted({str(mode) for part in content.detectors for mode in part.modes}):
        answered = [p.name for p in content.playbooks if mode in p.failure_modes]
        click.echo(f"  {mode}: {', '.join(answered) or 'no playbook; it is reported only'}")
    for warning in _warnings(config):
        click.echo(f"warning: {warning}")
    click.echo("ok")


def _warnings(config: Config) -> Iterator[str]:
    """What is valid and still will not do what its author may expect."""
    if config.mode is not Mode.OBSERVE and not config.approvals.approvers:
        yield "approvals.approvers is empty: nobody may answer, so every question will expire"
    if config.mode is not Mode.OBSERVE and config.cluster.kind == "none":
        yield "cluster.kind is none: no node will be taken out of service"
    if config.http.auth == "token" and not config.http.tokens:
        yield "http.tokens is empty: nobody can read the console or the API"
    if not config.topology.rack_budget_watts:
        yield "topology.rack_budget_watts is empty: rack power is not judged"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def init(folder: Path) -> None:
    """Write the reference deployment to FOLDER: config.yaml, detectors/, playbooks/, models/."""
    taken = [name for name in _NAMES if (folder / name).exists()]
    if taken:
        raise HealerError(f"{folder} already has {', '.join(taken)}; nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    for name in _NAMES:
        source = reference_folder() / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    click.echo(f"wrote {', '.join(_NAMES)} to {folder}; now: healer check {folder}")
