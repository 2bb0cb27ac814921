"""`healer breaker`: what stops all that takes nodes out of service in a storm, and a person's word to go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from healer.cli.options import json_option, print_table
from healer.cli.remote import daemon_of, daemon_options

_SHOWN = 20


@click.group()
def breaker() -> None:
    """What stops everything that takes nodes out of service when too many fail at once."""


@breaker.command("status")
@daemon_options
@json_option
def breaker_status(config_path: Path | None, url: str | None, token: str | None, *, as_json: bool) -> None:
    """Whether it is open and why, and when it was before."""
    told = daemon_of(config_path, url, token).get(f"/api/v1/breaker?limit={_SHOWN}")
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    trips = told["trips"]
    if told["open"]:
        click.echo(f"open since {trips[0]['at']}: {trips[0]['reason']}")
        click.echo("Nothing takes a node out of service. When it may go on: healer breaker reset --reason TEXT")
    else:
        click.echo("closed")
    earlier = [_row(trip) for trip in trips if trip["reset_at"] is not None]
    if earlier:
        click.echo()
        print_table(("OPENED", "RESET", "BY", "WHY RESET", "WHY OPENED"), earlier, empty="")


@breaker.command("reset")
@click.option("--reason", required=True, help="Why; it goes into the audit log.")
@daemon_options
def breaker_reset(reason: str, config_path: Path | None, url: str | None, token: str | None) -> None:
    """Close it. What began before now does not open it again; the disruption budgets hold as ever."""
    trip = daemon_of(config_path, url, token).post("/api/v1/breaker/reset", {"reason": reason})
    click.echo(f"closed; it was open since {trip['at']} for {len(trip['nodes'])} nodes")


def _row(trip: dict[str, Any]) -> tuple[str, ...]:
    return trip["at"], trip["reset_at"], trip["reset_by"]["id"], trip["reset_reason"], trip["reason"]
