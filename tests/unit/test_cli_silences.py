"""`healer silence` as people type it, against a running daemon's API."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from healer.adapters.http.server import HttpServer
from healer.adapters.journal.sql import SqlJournal
from healer.cli import main
from healer.config import HttpSettings
from healer.domain.maintenance import MaintenanceWindow, Once, Period
from healer.domain.matcher import matchers_in
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.runtime.web.auth import ResolvedToken, Role
from tests.unit.http_samples import NOW, SetClock, snapshot

TOKENS = {"bob": ResolvedToken(Role.APPROVER, "bob-secret"), "viv": ResolvedToken(Role.VIEWER, "viv-secret")}
WINDOW = MaintenanceWindow(
    "cooling", matchers_in(["rack=r9"]), Once(Period(NOW, NOW + timedelta(hours=1))), "the pumps are exchanged"
)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Healer = Callable[..., Ended]


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def healer(
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
    journal: SqlJournal,
    clock: SetClock,
) -> Iterator[Healer]:
    """`healer ...` as bob, with a daemon that answers."""
    app = build_app(
        journal=journal,
        board=Board(snapshot()),
        clock=clock,
        approvers=(),
        http=HttpSettings(listen="127.0.0.1:0"),
        tokens=TOKENS,
        maintenance=[WINDOW],
    )
    server = HttpServer(app, "127.0.0.1", 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEALER_URL", f"http://127.0.0.1:{server.start()}")
    monkeypatch.setenv("HEALER_TOKEN", TOKENS["bob"].secret)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["healer", *arguments])
        try:
            main()
            code: int | str | None = 0
        except SystemExit as ended:
            code = ended.code
        out, err = (stream.decode() for stream in capfdbinary.readouterr())
        return Ended(int(code or 0), out, err)

    yield run
    server.stop()


def test_what_is_added_is_said_as_it_was_understood(healer: Healer, journal: SqlJournal) -> None:
    ended = healer("silence", "add", "rack=r7", 'failure_mode=~"Nvlink.*"', "--for", "90m", "--reason", "cables of r7")
    (made,) = journal.silences()
    assert ended == Ended(
        0,
        f'{made.id} silences rack="r7" failure_mode=~"Nvlink.*" from 2026-03-14T03:07:09Z to 2026-03-14T04:37:09Z\n',
        "",
    )
    assert [str(matcher) for matcher in made.matchers] == ['rack="r7"', 'failure_mode=~"Nvlink.*"']
    assert (made.created_by.id, made.reason) == ("token:bob", "cables of r7")


def test_it_lasts_as_long_as_is_usual_and_may_start_later(healer: Healer, journal: SqlJournal) -> None:
    ended = healer("silence", "add", "node=n1", "--start", "2026-03-14T05:00:00+01:00", "--reason", "x")
    assert ended.code == 0
    (made,) = journal.silences()
    assert (made.starts_at, made.ends_at) == (
        NOW.replace(hour=4, minute=0, second=0),
        made.starts_at + timedelta(hours=2),
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "--reason", "x"), "Missing argument 'MATCHER...'"),
        (("add", "rack=r7"), "Missing option '--reason'"),
        (("add", "rak=r7", "--reason", "x"), "there is no label 'rak' (did you mean 'rack'?)"),
        (("add", "rack==r7", "--reason", "x"), "'rack==r7' is not a matcher; write it like rack=r7"),
        (("add", "rack=~(", "--reason", "x"), "'(' is not a regular expression: there is a ( without its )"),
        (("add", "rack=r7", "--for", "2", "--reason", "x"), "'2' is not a duration"),
        (("add", "rack=r7", "--start", "now", "--reason", "x"), "'now' is not a time"),
        (("expire", "sil-1"), "Missing option '--reason'"),
    ],
    ids=range(8),
)
def test_what_cannot_be_understood_ends_with_2_and_the_reason(
    healer: Healer, journal: SqlJournal, arguments: tuple[str, ...], says: str
) -> None:
    ended = healer("silence", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert journal.silences() == ()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "rack=~.*", "--reason", "x"), "healer: request: this would silence everything"),
        (("add", "rack=r7", "--for", "31d", "--reason", "x"), "healer: request: a silence lasts at most 30d"),
        (("add", "rack=r7", "--reason", " "), "healer: request: a reason is needed"),
        (("expire", "sil-1", "--reason", "x"), "healer: silence: there is no silence sil-1"),
    ],
    ids=["everything", "too long", "no reason", "not there"],
)
def test_what_the_daemon_refuses_ends_with_1_and_its_reason(
    healer: Healer, arguments: tuple[str, ...], says: str
) -> None:
    ended = healer("silence", *arguments)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(says)
    assert len(ended.err.splitlines()) == 1


def test_a_viewer_lists_silences_and_changes_none(healer: Healer, monkeypatch: pytest.MonkeyPatch) -> None:
    healer("silence", "add", "rack=r7", "--reason", "x")
    monkeypatch.setenv("HEALER_TOKEN", TOKENS["viv"].secret)
    assert healer("silence", "list").code == 0
    ended = healer("silence", "add", "rack=r7", "--reason", "x")
    assert (ended.code, ended.err) == (1, "healer: http: token:viv has the role viewer, not approver\n")


def test_what_has_not_ended_is_listed_with_the_windows_and_the_rest_on_request(
    healer: Healer, journal: SqlJournal, clock: SetClock
) -> None:
    for node, lasts in (("n1", "1m"), ("n2", "5m"), ("n3", "1h")):
        healer("silence", "add", f"node={node}", "--for", lasts, "--reason", "cables")
        clock.at += timedelta(seconds=30)
    (second,) = [silence.id for silence in journal.silences() if 'node="n2"' in str(silence.matchers[0])]
    assert healer("silence", "expire", second, "--reason", "done early") == Ended(0, f"{second} is expired\n", "")
    table = [line.split() for line in healer("silence", "list").out.splitlines()]
    assert table[0] == ["ID", "STATE", "MATCHERS", "STARTS", "ENDS", "BY", "REASON"]
    assert [(row[1], row[2], row[-1]) for row in table[1:]] == [
        ("active", 'node="n3"', "cables"),
        ("active", 'rack="r9"', "exchanged"),
    ]
    everything = json.loads(healer("silence", "list", "--all", "--json").out)
    states = [(item["matchers"], item["state"]) for item in everything["items"]]
    assert states == [(['node="n3"'], "active"), (['node="n2"'], "expired"), (['node="n1"'], "expired")]
    assert [window["name"] for window in everything["maintenance"]] == ["cooling"]
    ended = [line for line in healer("silence", "list", "--all").out.splitlines() if second in line]
    assert "2026-03-14T03:08:39Z" in ended[0]
    clock.at += timedelta(hours=2)
    assert "not now" in healer("silence", "list").out
