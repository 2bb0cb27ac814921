"""The breaker as people see it: over HTTP, on the command line, in the console, among the metrics."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest

from healer.adapters.http.server import HttpServer
from healer.adapters.journal.sql import SqlJournal
from healer.cli import main
from healer.config import HttpSettings
from healer.domain.breaker import Trip
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.runtime.web.auth import ResolvedToken, Role
from tests.unit.http_samples import NOW, Client, SetClock, snapshot

SECRETS = {"viv": Role.VIEWER, "bob": Role.APPROVER}
TOKENS = {name: ResolvedToken(role, f"{name}-secret") for name, role in SECRETS.items()}
TRIP = Trip("trip-1", NOW - timedelta(minutes=3), "4 nodes of <rack> r1 would be taken out", ("n1", "n2", "n3", "n4"))
OWN_PAGE = {"origin": "http://127.0.0.1:8470", "content-type": "application/x-www-form-urlencoded"}

MakeClient = Callable[..., Client]


@pytest.fixture
def client(journal: SqlJournal) -> MakeClient:
    def make(as_: str | None = "bob", *, http: HttpSettings | None = None) -> Client:
        app = build_app(
            journal=journal,
            board=Board(snapshot()),
            clock=SetClock(),
            approvers=(),
            http=http or HttpSettings(listen="0.0.0.0:8470"),
            tokens=TOKENS,
        )
        return Client(app, {"authorization": f"Bearer {TOKENS[as_].secret}"} if as_ else {})

    return make


@pytest.fixture
def tripped(journal: SqlJournal) -> SqlJournal:
    with journal.transaction() as write:
        write.add_trip(TRIP)
    return journal


# HTTP


def test_a_breaker_that_never_opened_is_closed(client: MakeClient) -> None:
    assert client().get("/api/v1/breaker").json() == {"open": False, "trips": []}
    assert "healer_breaker_open 0.0" in client().get("/metrics").text


def test_an_open_one_says_since_when_why_and_for_which_nodes(client: MakeClient, tripped: SqlJournal) -> None:
    assert tripped.trips()
    told = client("viv").get("/api/v1/breaker").json()
    (trip,) = told["trips"]
    assert told["open"] is True
    assert (trip["reason"], trip["nodes"], trip["reset_at"]) == (TRIP.reason, list(TRIP.nodes), None)
    assert "healer_breaker_open 1.0" in client().get("/metrics").text


def test_an_approver_resets_it_in_their_own_name_and_a_viewer_does_not(client: MakeClient, tripped: SqlJournal) -> None:
    body = json.dumps({"reason": "driver rolled back"}).encode()
    assert client("viv").post("/api/v1/breaker/reset", content=body).status_code == 403
    assert tripped.trips()[0].open
    reset = client().post("/api/v1/breaker/reset", content=body)
    assert (reset.status_code, reset.json()["reset_by"]["id"]) == (200, "token:bob")
    assert not tripped.trips()[0].open
    again = client().post("/api/v1/breaker/reset", content=body)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")


def test_a_reset_without_a_reason_is_refused(client: MakeClient, tripped: SqlJournal) -> None:
    assert client().post("/api/v1/breaker/reset", content=json.dumps({"reason": " "}).encode()).status_code == 422
    assert tripped.trips()[0].open


# The console


def test_the_page_shows_it_above_all_with_a_way_to_reset(client: MakeClient, tripped: SqlJournal) -> None:
    local = client(None, http=HttpSettings(auth="none"))
    page = local.get("/").text
    assert "nothing takes a node out of service" in page
    assert "4 nodes of &lt;rack&gt; r1" in page
    answer = local.post("/breaker/reset", headers=OWN_PAGE, content=urlencode({"reason": "seen"}).encode())
    assert answer.status_code == 303
    assert not tripped.trips()[0].open
    assert "nothing takes a node out of service" not in local.get("/").text


# The command line

Healer = Callable[..., str]


@pytest.fixture
def healer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tripped: SqlJournal
) -> Iterator[Healer]:
    """`healer ...` as bob, with a daemon that answers; what it prints."""
    app = build_app(
        journal=tripped,
        board=Board(snapshot()),
        clock=SetClock(),
        approvers=(),
        http=HttpSettings(listen="127.0.0.1:0"),
        tokens=TOKENS,
    )
    server = HttpServer(app, "127.0.0.1", 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEALER_URL", f"http://127.0.0.1:{server.start()}")
    monkeypatch.setenv("HEALER_TOKEN", TOKENS["bob"].secret)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["healer", *arguments])
        main()
        return capsys.readouterr().out

    yield run
    server.stop()


def test_status_says_why_it_is_open_and_what_to_do_and_reset_closes_it(healer: Healer) -> None:
    shown = healer("breaker", "status")
    assert shown.startswith("open since 2026-03-14T03:04:09Z: 4 nodes of <rack> r1")
    assert "healer breaker reset --reason TEXT" in shown
    assert json.loads(healer("status", "--json"))["breaker"] == "open"
    assert healer("breaker", "reset", "--reason", "driver rolled back").startswith("closed; it was open since")
    after = healer("breaker", "status")
    assert after.startswith("closed\n")
    assert "driver rolled back" in after
    assert json.loads(healer("breaker", "status", "--json"))["open"] is False
