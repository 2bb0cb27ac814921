"""`healer silence`: leave what matches alone for a while, through the daemon's API."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from healer.cli.options import DurationType, MomentType, json_option, print_table
from healer.cli.remote import daemon_of, daemon_options
from healer.domain.matcher import Matcher, parse_matcher
from healer.schema import format_duration

_COLUMNS = ("ID", "STATE", "MATCHERS", "STARTS", "ENDS", "BY", "REASON")


class _MatcherType(click.ParamType[Matcher]):
    name = "matcher"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Matcher:
        try:
            return value if isinstance(value, Matcher) else parse_matcher(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group()
def silence() -> None:
    """Leave incidents alone for a while: they are recorded, but nothing is asked or done about them."""


@silence.command()
@click.argument("matchers", metavar="MATCHER...", type=_MatcherType(), nargs=-1, required=True)
@click.option("--for", "lasts", type=DurationType(), help="How long. Default: detectors.silences.lasts.")
@click.option("--start", type=MomentType(), help="From when on. Default: now.")
@click.option("--reason", required=True, help="Why; it goes into the audit log.")
@daemon_options
def add(
    matchers: tuple[Matcher, ...],
    config_path: Path | None,
    url: str | None,
    token: str | None,
    *,
    lasts: timedelta | None,
    start: datetime | None,
    reason: str,
) -> None:
    """Silence what every MATCHER matches, as in `rack=r7 failure_mode=~"Nvlink.*"`.

    A matcher is one of failure_mode, kind, severity, rack, node, gpu, uuid, job and link; then =, !=, =~ or !~; then a
    name, or a regular expression for all of it.
    """
    body: dict[str, Any] = {"matchers": [str(matcher) for matcher in matchers], "reason": reason}
    if lasts is not None:
        body["duration"] = format_duration(lasts)
    if start is not None:
        body["starts_at"] = start.isoformat()
    added = daemon_of(config_path, url, token).post("/api/v1/silences", body)
    click.echo(f"{added['id']} silences {' '.join(added['matchers'])} from {added['starts_at']} to {added['ends_at']}")


@silence.command("list")
@click.option("--all", "every", is_flag=True, help="Also those that have ended.")
@daemon_options
@json_option
def list_silences(config_path: Path | None, url: str | None, token: str | None, *, every: bool, as_json: bool) -> None:
    """The silences that have not ended, newest first, and the maintenance windows of the configuration."""
    listed = daemon_of(config_path, url, token).get(f"/api/v1/silences?limit=1000{'' if every else '&active=true'}")
    if as_json:
        click.echo(json.dumps(listed, indent=2))
        return
    rows = [_row(item) for item in listed["items"]] + [_window_row(window) for window in listed["maintenance"]]
    print_table(_COLUMNS, rows, empty="nothing is silenced")


@silence.command()
@click.argument("silence_id", metavar="ID")
@click.option("--reason", required=True, help="Why; it goes into the audit log.")
@daemon_options
def expire(silence_id: str, reason: str, config_path: Path | None, url: str | None, token: str | None) -> None:
    """End silence ID now."""
    expired = daemon_of(config_path, url, token).post(f"/api/v1/silences/{silence_id}/expire", {"reason": reason})
    click.echo(f"{silence_id} is {expired['state']}")


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    ended = item["expired_at"] or item["ends_at"]
    matchers, by = " ".join(item["matchers"]), item["created_by"]["id"]
    return item["id"], item["state"], matchers, item["starts_at"], ended, by, item["reason"]


def _window_row(window: dict[str, Any]) -> tuple[str, ...]:
    until = window["active_until"]
    state, matchers = "active" if until else "not now", " ".join(window["matchers"])
    return window["name"], state, matchers, window["schedule"], until or "", "config.yaml", window["reason"]
