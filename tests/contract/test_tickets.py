"""Where tickets go: the same questions to a folder, to a webhook, and to the stand-in of rehearsals."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from healer.adapters.tickets.folder import FolderTickets
from healer.adapters.tickets.webhook import WebhookTickets
from healer.domain.ticket import Ticket
from healer.errors import Rejected, Unavailable
from healer.ports import Tickets
from healer.rehearsal.virtual import HeldTickets

TICKET = Ticket("run-3f2a-ticket", "GpuXid on GPU 3 of n7", "* why — ✓\n", '{"id": "inc-1", "points": [[0.0, 1.5]]}')


class _Desk(BaseHTTPRequestHandler):
    """A ticket system that makes one ticket of each key."""

    taken: ClassVar[dict[str, dict[str, Any]]] = {}
    status: ClassVar[int] = 201
    answer: ClassVar[bytes] = b'{"url": "https://tickets.example/42"}'
    seen: ClassVar[list[str | None]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).seen.append(self.headers["authorization"])
        if self.status < 300:
            assert self.headers["idempotency-key"] == body["key"]
            type(self).taken[body["key"]] = body
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


@pytest.fixture
def desk() -> Iterator[str]:
    _Desk.taken, _Desk.seen, _Desk.status, _Desk.answer = {}, [], 201, b'{"url": "https://tickets.example/42"}'
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Desk)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["folder", "webhook", "stand-in"])
def tickets(request: pytest.FixtureRequest, tmp_path: Path, desk: str) -> tuple[Tickets, Callable[[], int]]:
    """The tickets, and how many there are by now."""
    if request.param == "folder":
        return FolderTickets(tmp_path / "a" / "b"), lambda: len(list((tmp_path / "a" / "b").glob("*.md")))
    if request.param == "webhook":
        return WebhookTickets(desk), lambda: len(_Desk.taken)
    held = HeldTickets()
    return held, lambda: len(held.opened)


def test_a_ticket_says_where_it_is_and_opened_twice_it_is_one(tickets: tuple[Tickets, Callable[[], int]]) -> None:
    desk, count = tickets
    first = desk.open(TICKET)
    assert first
    assert desk.open(TICKET) == first
    assert count() == 1


def test_a_ticket_that_was_never_opened_is_not_found(tickets: tuple[Tickets, Callable[[], int]]) -> None:
    desk, count = tickets
    assert desk.find(TICKET.key) is None
    assert count() == 0


# The folder


def test_a_folder_has_the_page_for_the_person_and_the_evidence_beside_it(tmp_path: Path) -> None:
    folder = FolderTickets(tmp_path)
    page = Path(folder.open(TICKET))
    assert folder.find(TICKET.key) == str(page)
    assert page.read_text() == f"# {TICKET.title}\n\n{TICKET.body}"
    assert page.with_suffix(".json").read_text() == TICKET.evidence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-3f2a-ticket.json", "run-3f2a-ticket.md"]


def test_a_folder_that_cannot_be_written_is_told_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"tickets.folder"):
        FolderTickets(tmp_path / "file" / "below").open(TICKET)


# The webhook


def test_a_webhook_gets_the_evidence_as_json_and_the_token(desk: str) -> None:
    assert WebhookTickets(desk, token="s3cret").open(TICKET) == "https://tickets.example/42"
    assert _Desk.taken[TICKET.key]["evidence"] == {"id": "inc-1", "points": [[0.0, 1.5]]}
    assert _Desk.seen == ["Bearer s3cret"]


def test_a_system_that_only_takes_it_need_not_name_it(desk: str) -> None:
    _Desk.answer = b"thanks"
    assert WebhookTickets(desk).open(TICKET) == "ticket run-3f2a-ticket"


@pytest.mark.parametrize(
    ("status", "error"), [(500, Unavailable), (429, Unavailable), (400, Rejected), (403, Rejected)]
)
def test_trouble_is_told_from_a_no_and_neither_names_the_token(desk: str, status: int, error: type[Exception]) -> None:
    _Desk.status = status
    with pytest.raises(error, match=f"answered {status}") as caught:
        WebhookTickets(desk, token="s3cret").open(TICKET)
    assert "s3cret" not in str(caught.value)
    assert _Desk.taken == {}


def test_a_system_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        WebhookTickets("http://127.0.0.1:9/hook", timeout_s=2.0).open(TICKET)
