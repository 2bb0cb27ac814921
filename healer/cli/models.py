"""`healer model`: what has been learnt, and learning it again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from healer.cli.options import config_option, find_config, json_option, print_table
from healer.content.models import load_code, load_models, save_version
from healer.errors import HealerError, NotFound
from healer.sim.training import train_on_simulation


@click.group()
def model() -> None:
    """List, read, train and promote models."""


@model.command("list")
@config_option
@json_option
def list_models(config_path: Path | None, *, as_json: bool) -> None:
    """The models of the deployment with their current version and its metrics."""
    models = load_models(find_config(config_path).models.path, settings={})
    if as_json:
        click.echo(json.dumps([{"name": m.name, **msgspec.to_builtins(m.manifest)} for m in models], indent=2))
        return
    rows = [
        (m.name, m.manifest.version, f"{m.manifest.trained_at:%Y-%m-%d}", f"{name} {value:.3g}")
        for m in models
        for name, value in m.manifest.metrics.items()
    ]
    print_table(("MODEL", "VERSION", "TRAINED", "METRIC"), rows, empty="no models")


@model.command()
@click.argument("name")
@config_option
def card(name: str, config_path: Path | None) -> None:
    """The card of model NAME: data, split, metrics, limits."""
    path = _folder(name, config_path) / "card.md"
    if not path.is_file():
        raise NotFound("model", f"{name} has no card: {path} is missing")
    click.echo(path.read_text(encoding="utf-8"))


@model.command()
@click.argument("name")
@config_option
def train(name: str, config_path: Path | None) -> None:
    """Train model NAME on simulated fleets as a new version beside the current one, and print its metrics."""
    folder = _folder(name, config_path)
    taken = [int(p.name[1:]) for p in folder.iterdir() if p.is_dir() and p.name[0] == "v" and p.name[1:].isdigit()]
    version = f"v{max(taken, default=0) + 1}"
    now = datetime.now(UTC).replace(microsecond=0)
    trained = train_on_simulation(load_code(folder), version, now=now, progress=lambda line: click.echo(line, err=True))
    save_version(folder, trained.estimator, trained.manifest)
    for metric, value in trained.manifest.metrics.items():
        click.echo(f"{metric} {value:.4g}")
    click.echo(f"{folder / version} is written; to use it: healer model promote {name} {version}")


@model.command()
@click.argument("name")
@click.argument("version")
@config_option
def promote(name: str, version: str, config_path: Path | None) -> None:
    """Make VERSION the one that the daemon loads at its next start."""
    folder = _folder(name, config_path)
    if not (folder / version / "manifest.json").is_file():
        raise NotFound("model", f"{name} has no version {version}")
    current = folder / "CURRENT"
    before = current.read_text(encoding="utf-8").strip() if current.is_file() else "none"
    try:
        current.write_text(f"{version}\n", encoding="utf-8")
    except OSError as error:
        raise HealerError(f"{current}: {error.strerror}") from error
    click.echo(f"{name}: {before} -> {version}")


def _folder(name: str, config_path: Path | None) -> Path:
    folder = find_config(config_path).models.path / name
    if not (folder / "model.py").is_file():
        raise NotFound("model", f"there is no model {name} in {folder.parent}")
    return folder
