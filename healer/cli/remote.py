"""The commands that ask a running daemon, over its HTTP API, with the token in HEALER_TOKEN."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import requests

from healer.cli.options import config_option, find_config, json_option, print_table
from healer.errors import Conflict, HealerError, NotFound, NotPermitted, Unavailable

_F = TypeVar("_F", bound=Callable[..., Any])
_ERRORS: dict[int, type[NotPermitted | NotFound | Conflict]] = {
    401: NotPermitted,
    403: NotPermitted,
    404: NotFound,
    409: Conflict,
}


class Daemon:
    """A running daemon's API, as far as the command line needs it."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, str]) -> Any:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, str] | None) -> Any:
        try:
            response = requests.request(method, f"{self._url}{path}", json=body, headers=self._headers, timeout=10)
            answer = response.json()
        except (requests.RequestException, ValueError) as error:
            raise Unavailable(
                self._url, f"no healer answers there ({type(error).__name__}); is it running? --url"
            ) from error
        if response.ok:
            return answer
        message = str(answer.get("error", {}).get("message", response.reason))
        raise (
            _ERRORS[response.status_code]("daemon", message)
            if response.status_code in _ERRORS
            else HealerError(message)
        )


def daemon_options(command: _F) -> _F:
    url = click.option("--url", envvar="HEALER_URL", default=None, help="Of the daemon. Default: http.listen.")
    token = click.option("--token", envvar="HEALER_TOKEN", default=None, help="Better given as HEALER_TOKEN.")
    return cast("_F", url(token(config_option(command))))


def _daemon(config_path: Path | None, url: str | None, token: str | None) -> Daemon:
    return Daemon(url or f"http://{find_config(config_path).http.listen}", token)


@click.command()
@daemon_options
@json_option
def status(config_path: Path | None, url: str | None, token: str | None, *, as_json: bool) -> None:
    """How the fleet and the daemon are, in a few lines."""
    daemon = _daemon(config_path, url, token)
    nodes, incidents = daemon.get("/api/v1/nodes"), daemon.get("/api/v1/incidents")["items"]
    approvals, runs = daemon.get("/api/v1/approvals")["items"], daemon.get("/api/v1/runs")["items"]
    counts = {
        "as_of": nodes["as_of"],
        "scheduler_problem": nodes["problem"],
        "nodes": len(nodes["items"]),
        "open_incidents": sum(i["state"] not in {"resolved", "escalated"} for i in incidents),
        "escalated_incidents": sum(i["state"] == "escalated" for i in incidents),
        "waiting_for_approval": sum(a["state"] == "pending" for a in approvals),
        "active_runs": sum(r["ended_at"] is None for r in runs),
    }
    if as_json:
        click.echo(json.dumps(counts, indent=2))
        return
    for name, value in counts.items():
        click.echo(f"{name.replace('_', ' '):22} {'-' if value is None else value}")


@click.command()
@click.argument("incident_id", metavar="[ID]", required=False)
@daemon_options
@json_option
def incidents(
    incident_id: str | None, config_path: Path | None, url: str | None, token: str | None, *, as_json: bool
) -> None:
    """The incidents, newest first; or one of them, whole."""
    daemon = _daemon(config_path, url, token)
    if incident_id is not None:
        click.echo(json.dumps(daemon.get(f"/api/v1/incidents/{incident_id}"), indent=2))
        return
    items = daemon.get("/api/v1/incidents")["items"]
    rows = [
        (
            i["id"],
            _age(i["opened_at"]),
            i["severity"],
            i["state"],
            i["failure_mode"],
            _place(i["component"]),
            i["story"],
        )
        for i in items
    ]
    _print(
        items,
        rows,
        ("ID", "AGE", "SEVERITY", "STATE", "FAILURE", "COMPONENT", "STORY"),
        as_json=as_json,
        empty="no incidents",
    )


@click.command()
@click.argument("approval_id", metavar="[ID]", required=False)
@daemon_options
@json_option
def approvals(
    approval_id: str | None, config_path: Path | None, url: str | None, token: str | None, *, as_json: bool
) -> None:
    """The approvals, newest first; or one of them, whole, with its plan."""
    daemon = _daemon(config_path, url, token)
    if approval_id is not None:
        click.echo(json.dumps(daemon.get(f"/api/v1/approvals/{approval_id}"), indent=2))
        return
    items = daemon.get("/api/v1/approvals")["items"]
    rows = [
        (
            a["id"],
            _age(a["asked_at"]),
            a["state"],
            a["plan"]["playbook"],
            _place(a["plan"]["target"]),
            a["expires_at"],
            (a["decided_by"] or {}).get("id", ""),
        )
        for a in items
    ]
    columns = ("ID", "AGE", "STATE", "PLAYBOOK", "TARGET", "EXPIRES", "BY")
    _print(items, rows, columns, as_json=as_json, empty="no approvals")


@click.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", required=True, help="Why; it goes into the audit log.")
@daemon_options
def approve(approval_id: str, reason: str, config_path: Path | None, url: str | None, token: str | None) -> None:
    """Approve the plan behind approval ID."""
    answer = _daemon(config_path, url, token).post(f"/api/v1/approvals/{approval_id}/approve", {"reason": reason})
    click.echo(f"{approval_id} is {answer['state']}")


@click.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", required=True, help="Why; it goes into the audit log.")
@daemon_options
def deny(approval_id: str, reason: str, config_path: Path | None, url: str | None, token: str | None) -> None:
    """Deny the plan behind approval ID."""
    answer = _daemon(config_path, url, token).post(f"/api/v1/approvals/{approval_id}/deny", {"reason": reason})
    click.echo(f"{approval_id} is {answer['state']}")


@click.group(invoke_without_command=True)
@daemon_options
@json_option
@click.pass_context
def runs(
    context: click.Context, config_path: Path | None, url: str | None, token: str | None, *, as_json: bool
) -> None:
    """The runs of playbooks, newest first; see `runs show` and `runs cancel`."""
    context.obj = daemon = _daemon(config_path, url, token)
    if context.invoked_subcommand is not None:
        return
    items = daemon.get("/api/v1/runs")["items"]
    rows = [
        (r["id"], _age(r["started_at"]), r["state"], r["plan"]["playbook"], _place(r["plan"]["target"]), r["detail"])
        for r in items
    ]
    _print(items, rows, ("ID", "AGE", "STATE", "PLAYBOOK", "TARGET", "DETAIL"), as_json=as_json, empty="no runs")


@runs.command("show")
@click.argument("run_id", metavar="ID")
@click.pass_obj
def show_run(daemon: Daemon, run_id: str) -> None:
    """One run with every effect that it had, as JSON."""
    click.echo(json.dumps(daemon.get(f"/api/v1/runs/{run_id}"), indent=2))


@runs.command("cancel")
@click.argument("run_id", metavar="ID")
@click.option("--reason", required=True, help="Why; it goes into the audit log.")
@click.pass_obj
def cancel_run(daemon: Daemon, run_id: str, reason: str) -> None:
    """Stop run ID and undo what it did."""
    daemon.post(f"/api/v1/runs/{run_id}/cancel", {"reason": reason})
    click.echo(f"{run_id} is being undone")


def _print(
    items: list[Any], rows: Sequence[tuple[str, ...]], columns: tuple[str, ...], *, as_json: bool, empty: str
) -> None:
    if as_json:
        click.echo(json.dumps(items, indent=2))
    else:
        print_table(columns, rows, empty=empty)


def _place(component: dict[str, str | None]) -> str:
    parts = [str(component[key]) for key in ("rack", "node", "job", "link") if component[key]]
    return "/".join(parts) + (f" GPU {component['gpu']}" if component["gpu"] else "")


def _age(moment: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"
