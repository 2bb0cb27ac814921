"""The commands that ask a running daemon, over its HTTP API, with the token in HEALER_TOKEN."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import requests

from healer.cli import approval_text, incident_text, run_text
from healer.cli.options import age, config_option, find_config, json_option, print_table
from healer.errors import HealerError, Unavailable

_F = TypeVar("_F", bound=Callable[..., Any])


class Daemon:
    """A running daemon's API, as far as the command line needs it."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            response = requests.request(method, f"{self._url}{path}", json=body, headers=self._headers, timeout=10)
            answer = response.json()
        except (requests.RequestException, ValueError) as error:
            raise Unavailable(
                self._url, f"no healer answers there ({type(error).__name__}); is it running? --url"
            ) from error
        if response.ok:
            return answer
        raise HealerError(str(answer.get("error", {}).get("message", response.reason)))


def daemon_options(command: _F) -> _F:
    url = click.option("--url", envvar="HEALER_URL", default=None, help="Of the daemon. Default: http.listen.")
    token = click.option("--token", envvar="HEALER_TOKEN", default=None, help="Better given as HEALER_TOKEN.")
    return cast("_F", url(token(config_option(command))))


def daemon_of(config_path: Path | None, url: str | None, token: str | None) -> Daemon:
    """The daemon that the options name, those of the command before those of its group."""
    group = click.get_current_context().parent
    outer = group.params if group is not None else {}
    url, token = url or outer.get("url"), token or outer.get("token")
    config_path = config_path or outer.get("config_path")
    return Daemon(url or f"http://{find_config(config_path).http.listen}", token)


@click.command()
@daemon_options
@json_option
def status(config_path: Path | None, url: str | None, token: str | None, *, as_json: bool) -> None:
    """How the fleet and the daemon are, in a few lines."""
    daemon = daemon_of(config_path, url, token)
    nodes, incidents = daemon.get("/api/v1/nodes"), daemon.get("/api/v1/incidents")["items"]
    telemetry = daemon.get("/api/v1/telemetry")
    approvals, runs = daemon.get("/api/v1/approvals")["items"], daemon.get("/api/v1/runs")["items"]
    counts = {
        "as_of": nodes["as_of"],
        "scheduler_problem": nodes["problem"],
        "nodes": len(nodes["items"]),
        "gpus": telemetry["gpus"],
        "gpus_not_seen": telemetry["gpus"] - telemetry["presence"]["current"],
        "missing_signals": len({gap["signal"] for gap in telemetry["gaps"]}),
        "telemetry_warnings": len(telemetry["warnings"]),
        "open_incidents": sum(i["state"] not in {"resolved", "escalated"} for i in incidents),
        "escalated_incidents": sum(i["state"] == "escalated" for i in incidents),
        "waiting_for_approval": sum(a["state"] == "pending" for a in approvals),
        "breaker": "open" if daemon.get("/api/v1/breaker?limit=1")["open"] else "closed",
        "active_runs": sum(r["ended_at"] is None for r in runs),
    }
    if as_json:
        click.echo(json.dumps(counts, indent=2))
        return
    for name, value in counts.items():
        click.echo(f"{name.replace('_', ' '):22} {'-' if value is None else value}")


@dataclass(frozen=True, slots=True)
class _Listing:
    """One kind of thing that the daemon lists.

    Attributes:
        row: an item of the API as one cell per column.
        text: all that there is to say about one, line by line; None where that is JSON only.
    """

    path: str
    empty: str
    columns: tuple[str, ...]
    row: Callable[[dict[str, Any]], tuple[str, ...]]
    text: Callable[[dict[str, Any]], Iterable[str]] | None = None

    def print(self, daemon: Daemon, *, as_json: bool) -> None:
        items = daemon.get(self.path)["items"]
        if as_json:
            click.echo(json.dumps(items, indent=2))
        else:
            print_table(self.columns, [self.row(item) for item in items], empty=self.empty)


def _group(name: str, listing: _Listing, *, summary: str) -> click.Group:
    """`healer NAME`, `healer NAME list` and `healer NAME show ID`."""

    @click.group(name, invoke_without_command=True, help=summary)
    @daemon_options
    @json_option
    @click.pass_context
    def group(
        context: click.Context, config_path: Path | None, url: str | None, token: str | None, *, as_json: bool
    ) -> None:
        if context.invoked_subcommand is None:
            listing.print(daemon_of(config_path, url, token), as_json=as_json)

    @group.command("list", help=summary)
    @daemon_options
    @json_option
    def list_all(config_path: Path | None, url: str | None, token: str | None, *, as_json: bool) -> None:
        listing.print(daemon_of(config_path, url, token), as_json=as_json)

    @group.command("show", help="One of them, whole." if listing.text else "One of them, whole; always as JSON.")
    @click.argument("item_id", metavar="ID")
    @daemon_options
    @json_option
    def show(
        item_id: str,
        config_path: Path | None,
        url: str | None,
        token: str | None,
        *,
        as_json: bool,
    ) -> None:
        item = daemon_of(config_path, url, token).get(f"{listing.path}/{item_id}")
        lines = listing.text(item) if listing.text and not as_json else [json.dumps(item, indent=2)]
        click.echo("\n".join(lines))

    return group


incidents = _group(
    "incidents",
    _Listing(
        "/api/v1/incidents",
        "no incidents",
        incident_text.COLUMNS,
        lambda item: incident_text.row(incident_text.parsed(item), datetime.now(UTC)),
        lambda item: incident_text.lines(incident_text.parsed(item), datetime.now(UTC)),
    ),
    summary="The incidents, newest first.",
)
approvals = _group(
    "approvals",
    _Listing(
        "/api/v1/approvals",
        "no approvals",
        approval_text.COLUMNS,
        lambda item: approval_text.row(approval_text.parsed(item), datetime.now(UTC)),
        lambda item: approval_text.lines(approval_text.parsed(item), datetime.now(UTC)),
    ),
    summary="The approvals with their plans, newest first.",
)
runs = _group(
    "runs",
    _Listing(
        "/api/v1/runs",
        "no runs",
        ("ID", "AGE", "STATE", "PLAYBOOK", "TARGET", "DETAIL"),
        lambda r: (
            r["id"],
            _age(r["started_at"]),
            r["state"],
            r["plan"]["playbook"],
            _place(r["plan"]["target"]),
            r["detail"],
        ),
    ),
    summary="The runs of playbooks with their effects, newest first.",
)


def _answer(verb: str, *, summary: str) -> click.Command:
    """`healer approve ID` and `healer deny ID`."""

    @click.command(verb, help=summary)
    @click.argument("approval_id", metavar="ID")
    @click.option("--reason", required=True, help="Why; it goes into the audit log.")
    @daemon_options
    def answer(approval_id: str, reason: str, config_path: Path | None, url: str | None, token: str | None) -> None:
        given = daemon_of(config_path, url, token).post(f"/api/v1/approvals/{approval_id}/{verb}", {"reason": reason})
        click.echo(approval_text.outcome(approval_text.parsed(given)))

    return answer


approve = _answer("approve", summary="Approve the plan behind approval ID.")
deny = _answer("deny", summary="Deny the plan behind approval ID.")


@runs.command("explain")
@click.argument("run_id", metavar="ID")
@daemon_options
def explain_run(run_id: str, config_path: Path | None, url: str | None, token: str | None) -> None:
    """Where run ID stands, what it has done, what holds it back, and what would lift that."""
    run = run_text.parsed(daemon_of(config_path, url, token).get(f"/api/v1/runs/{run_id}"))
    for line in run_text.lines(run, datetime.now(UTC)):
        click.echo(line)


def _word_on_run(verb: str, *, summary: str, said: str) -> None:
    """`healer runs cancel ID` and its like.

    Args:
        said: afterwards, with {id} where the run's id goes.
    """

    @runs.command(verb, help=summary)
    @click.argument("run_id", metavar="ID")
    @click.option("--reason", required=True, help="Why; it goes into the audit log.")
    @daemon_options
    def say(run_id: str, reason: str, config_path: Path | None, url: str | None, token: str | None) -> None:
        daemon_of(config_path, url, token).post(f"/api/v1/runs/{run_id}/{verb}", {"reason": reason})
        click.echo(said.format(id=run_id))


_word_on_run("cancel", summary="Stop run ID and undo what it did.", said="{id} is being undone")
_word_on_run(
    "pause",
    summary="Let run ID have no further effect until it is resumed; its clocks stand still, and caps are kept up.",
    said="{id} is paused; healer runs resume {id} --reason TEXT lets it go on",
)
_word_on_run("resume", summary="Let run ID, which was paused, go on.", said="{id} goes on")


def _place(component: dict[str, str | None]) -> str:
    parts = [str(component[key]) for key in ("rack", "node", "job", "link") if component[key]]
    return "/".join(parts) + (f" GPU {component['gpu']}" if component["gpu"] else "")


def _age(moment: str) -> str:
    return age(datetime.fromisoformat(moment), datetime.now(UTC))
