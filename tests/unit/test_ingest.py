"""What comes in over HTTP: who may send, how much at once, and what a sender is answered."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.types import Message

from healer.adapters.http.server import HttpServer
from healer.adapters.journal.sql import SqlJournal
from healer.adapters.push.alertmanager import AlertmanagerWebhook
from healer.config import HttpSettings
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.runtime.web.auth import ResolvedToken, Role
from healer.runtime.web.ingest import ALERTS_LIMIT, WRITE_LIMIT
from healer.runtime.web.operations import OPERATIONS
from healer.telemetry.identity import TopologyRules
from healer.telemetry.notices import HeldNotices
from tests.unit.core_samples import frame, gpu
from tests.unit.http_samples import NOW, Client, SetClock, leading_journal, snapshot

TOKENS = {
    "prom": ResolvedToken(Role.SENDER, "sender-secret"),
    "viv": ResolvedToken(Role.VIEWER, "viewer-secret"),
    "bob": ResolvedToken(Role.APPROVER, "approver-secret"),
    "ada": ResolvedToken(Role.ADMIN, "admin-secret"),
}
PUBLIC = HttpSettings(listen="0.0.0.0:8470")
OPEN = HttpSettings(auth="none")
WRITE, ALERTS = "/api/v1/write", "/api/v1/alerts"
PROTOBUF = {"content-type": "application/x-protobuf", "content-encoding": "snappy"}
JSON = {"content-type": "application/json; charset=utf-8"}
ROUTES = {WRITE: PROTOBUF, ALERTS: JSON}
NO_ALERTS = b'{"version": "4", "alerts": []}'


@dataclass(frozen=True, slots=True)
class Answered:
    status: int = 204
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Receiver:
    """Remembers what it was given, and answers what the test wants."""

    answer: Answered = Answered()
    meanwhile: Callable[[], object] = lambda: None
    taken: list[tuple[Mapping[str, str], bytes, datetime]] = field(default_factory=list)

    def receive(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Answered:
        self.taken.append((headers, body, now))
        self.meanwhile()
        return self.answer


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[name].secret}"}


MakeApp = Callable[..., Starlette]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlJournal]:
    journal = leading_journal(tmp_path_factory.mktemp("journal"))
    yield journal
    journal.close()


@pytest.fixture(scope="module")
def app(journal: SqlJournal) -> MakeApp:
    def make(
        *,
        http: HttpSettings = PUBLIC,
        receiver: Receiver | None = None,
        notices: AlertmanagerWebhook | None = None,
        off: bool = False,
    ) -> Starlette:
        return build_app(
            journal=journal,
            board=Board(snapshot()),
            clock=SetClock(),
            approvers=(),
            http=http,
            tokens=TOKENS,
            receiver=None if off else receiver or Receiver(),
            notices=None if off else notices or webhook(),
        )

    return make


def webhook() -> AlertmanagerWebhook:
    return AlertmanagerWebhook(HeldNotices(TopologyRules(), modes={}))


def post(app: Starlette, path: str, headers: Mapping[str, str], *, as_: str | None = None) -> httpx.Response:
    proof = bearer(as_) if as_ else {}
    return Client(app).post(path, headers={**proof, **headers}, content=NO_ALERTS)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


# Who may


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("who", "refusal"), [("prom", None), ("ada", None), ("viv", 403), ("bob", 403), (None, 401)], ids=str
)
def test_a_sender_and_an_admin_may_send_and_nobody_else(
    app: MakeApp, path: str, who: str | None, refusal: int | None
) -> None:
    receiver = Receiver()
    response = post(app(receiver=receiver), path, ROUTES[path], as_=who)
    if refusal is None:
        assert response.is_success
    else:
        assert response.status_code == refusal
        assert receiver.taken == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *((op.method, f"/api/v1{op.path.format(id='apr-1')}") for op in OPERATIONS),
        ("GET", "/metrics"),
        ("GET", "/api/v1/openapi.json"),
        ("GET", "/"),
    ],
    ids=str,
)
def test_a_sender_may_do_nothing_but_send(app: MakeApp, method: str, path: str) -> None:
    body = json.dumps({"reason": "because"}).encode()
    response = Client(app(), bearer("prom")).request(method, path, headers=JSON, content=body)
    assert response.status_code == 403


def test_a_sender_cannot_log_in(app: MakeApp) -> None:
    form = urlencode({"token": "sender-secret"}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
    response = Client(app()).post("/login", headers=headers, content=form)
    assert response.status_code == 401
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("path", ROUTES)
def test_a_session_of_a_browser_sends_nothing_whoever_it_belongs_to(app: MakeApp, path: str) -> None:
    client = Client(app())
    form = urlencode({"token": "admin-secret"}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
    cookie = client.post("/login", headers=headers, content=form).headers["set-cookie"].partition(";")[0]
    own = {**ROUTES[path], "cookie": cookie, "sec-fetch-site": "same-origin"}
    assert code(client.post(path, headers=own, content=NO_ALERTS)) == (401, "unauthenticated")


@pytest.mark.parametrize("path", ROUTES)
def test_on_an_open_loopback_any_machine_s_own_program_may_send(app: MakeApp, path: str) -> None:
    assert post(app(http=OPEN), path, ROUTES[path]).is_success


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "given_away_by",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8470"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-mode": "no-cors"},
        {"content-type": "text/plain;charset=UTF-8"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "Multipart/Form-Data; boundary=x"},
        {"content-type": ""},
        {"host": "evil.example"},
    ],
    ids=str,
)
def test_a_web_page_cannot_feed_a_daemon_on_its_reader_s_machine(
    app: MakeApp, path: str, given_away_by: dict[str, str]
) -> None:
    receiver, notices = Receiver(), webhook()
    response = post(app(http=OPEN, receiver=receiver, notices=notices), path, {**ROUTES[path], **given_away_by})
    assert code(response) == (403, "not_permitted")
    assert (receiver.taken, notices.told()) == ([], {})


# What is answered


def test_a_write_is_given_to_the_receiver_as_it_came(app: MakeApp) -> None:
    receiver = Receiver()
    response = Client(app(receiver=receiver), bearer("prom")).post(WRITE, headers=PROTOBUF, content=b"\x00\xff" * 1000)
    assert (response.status_code, response.content) == (204, b"")
    ((headers, body, now),) = receiver.taken
    assert (headers["Content-Type"], body, now) == ("application/x-protobuf", b"\x00\xff" * 1000, NOW)


@pytest.mark.parametrize(
    "answer",
    [
        Answered(204, "", {"x-prometheus-remote-write-samples-written": "500"}),
        Answered(400, "label names are not sorted"),
        Answered(429, "too fast", {"retry-after": "3"}),
        Answered(503, "behind", {"retry-after": "10"}),
    ],
    ids=lambda answer: str(answer.status),
)
def test_what_the_receiver_answers_is_what_the_sender_gets(app: MakeApp, answer: Answered) -> None:
    response = post(app(receiver=Receiver(answer)), WRITE, PROTOBUF, as_="prom")
    assert (response.status_code, response.text) == (answer.status, answer.text)
    assert answer.headers.items() <= dict(response.headers).items()


@pytest.mark.parametrize(
    ("path", "setting"), [(WRITE, "telemetry.source: remote_write"), (ALERTS, "telemetry.alerts.receive: true")]
)
def test_a_route_that_is_not_switched_on_says_how_to(app: MakeApp, path: str, setting: str) -> None:
    response = post(app(off=True), path, ROUTES[path], as_="prom")
    assert code(response) == (404, "not_found")
    assert setting in response.text


def test_alerts_are_answered_with_what_became_of_them(app: MakeApp) -> None:
    firing = {"status": "firing", "labels": {"healer_failure_mode": "GpuUncorrectableEcc", "UUID": "A"}}
    content = json.dumps({"version": "4", "alerts": [firing, {"status": "firing", "labels": {}}]}).encode()
    notices = webhook()
    response = Client(app(notices=notices), bearer("prom")).post(ALERTS, headers=JSON, content=content)
    assert (response.status_code, response.json()) == (200, {"held": 1, "unmapped": 1})
    assert len(notices.findings(frame(gpu("A")), NOW).found) == 1


def test_alerts_that_cannot_be_understood_are_refused_with_the_place_that_is_wrong(app: MakeApp) -> None:
    content = b'{"version": "4", "alerts": [{"status": "firing", "labels": {"a": 1}}]}'
    response = Client(app(), bearer("prom")).post(ALERTS, headers=JSON, content=content)
    assert code(response) == (400, "bad_request")
    assert "$.alerts[0].labels" in response.json()["error"]["message"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: json.dumps({"version": text}).encode()))
def test_no_body_is_an_unexpected_one(app: MakeApp, content: bytes) -> None:
    response = Client(app(), bearer("prom")).post(ALERTS, headers=JSON, content=content)
    assert response.status_code in {200, 400}


# How much


class Sender:
    """One request, piece by piece, as a server hands it to the application."""

    def __init__(self, app: Starlette, path: str, *, announced: int | None) -> None:
        self.pieces: asyncio.Queue[Message] = asyncio.Queue()
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        length = {} if announced is None else {"content-length": str(announced)}
        headers = {**bearer("prom"), **ROUTES[path], **length}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        self.done = asyncio.ensure_future(app(scope, self.pieces.get, self._answered))

    def give(self, piece: bytes, *, more: bool = True) -> None:
        self.pieces.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    async def reached(self, status: int) -> None:
        async with asyncio.timeout(10):
            await self.done
        assert self.status == status

    async def _answered(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}


@pytest.mark.parametrize(("path", "limit"), [(WRITE, WRITE_LIMIT), (ALERTS, ALERTS_LIMIT)])
def test_a_body_that_is_announced_too_long_is_refused_before_it_is_read(app: MakeApp, path: str, limit: int) -> None:
    async def scenario() -> None:
        await Sender(app(), path, announced=limit + 1).reached(413)

    asyncio.run(scenario())


@pytest.mark.parametrize(("path", "limit"), [(WRITE, WRITE_LIMIT), (ALERTS, ALERTS_LIMIT)])
@pytest.mark.parametrize("announced", [None, 10])
def test_a_body_is_refused_as_soon_as_it_is_too_long_whatever_was_announced(
    app: MakeApp, path: str, limit: int, announced: int | None
) -> None:
    async def scenario() -> None:
        sender, piece = Sender(app(), path, announced=announced), bytes(1 << 20)
        for _ in range(limit // len(piece)):
            sender.give(piece)
        sender.give(b"x")
        await sender.reached(413)

    asyncio.run(scenario())


def test_a_write_may_be_longer_than_the_bodies_of_other_routes_and_comes_whole(app: MakeApp) -> None:
    async def scenario() -> None:
        sender = Sender(app(receiver=receiver), WRITE, announced=3 << 20)
        for number in range(3):
            sender.give(bytes([number]) * (1 << 20), more=number < 2)
        await sender.reached(204)

    receiver = Receiver()
    asyncio.run(scenario())
    ((_, body, _),) = receiver.taken
    assert body == b"".join(bytes([number]) * (1 << 20) for number in range(3))


@pytest.mark.parametrize(("path", "limit", "status"), [(WRITE, WRITE_LIMIT, 204), (ALERTS, ALERTS_LIMIT, 200)])
def test_who_comes_when_memory_is_promised_to_others_is_asked_to_come_back(
    app: MakeApp, path: str, limit: int, status: int
) -> None:
    async def scenario() -> None:
        served = app()
        slow = [Sender(served, path, announced=limit) for _ in range((128 << 20) // limit)]
        await asyncio.sleep(0)
        refused = Sender(served, path, announced=100)
        await refused.reached(503)
        assert refused.headers["retry-after"] == "5"
        slow[0].pieces.put_nowait({"type": "http.disconnect"})
        await slow[0].reached(400)
        again = Sender(served, path, announced=100)
        for sender in (again, *slow[1:]):
            sender.give(NO_ALERTS, more=False)
            await sender.reached(status)

    asyncio.run(scenario())


def test_few_writes_are_decoded_at_once_and_not_one_by_one(app: MakeApp) -> None:
    entered, free = threading.Semaphore(0), threading.Event()

    def decode() -> None:
        entered.release()
        assert free.wait(timeout=10)

    async def scenario() -> None:
        served = app(receiver=Receiver(meanwhile=decode))
        senders = [Sender(served, WRITE, announced=1) for _ in range(10)]
        for sender in senders:
            sender.give(b"x", more=False)
        for _ in range(2):
            assert await run_in_threadpool(entered.acquire, timeout=10)
        for _ in range(50):  # by now everything that may enter a thread has done so
            await run_in_threadpool(lambda: None)
        assert not entered.acquire(blocking=False)
        free.set()
        for sender in senders:
            await sender.reached(204)

    asyncio.run(scenario())


# Over a real connection


@pytest.fixture
def address(app: MakeApp) -> Iterator[tuple[str, int]]:
    server = HttpServer(app())
    server.start()
    yield server.host, server.port
    server.stop()


def head(path: str, length: int) -> bytes:
    fields = {"host": "localhost", **bearer("prom"), **ROUTES[path], "content-length": str(length)}
    return "\r\n".join([f"POST {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items()), "", ""]).encode()


def test_a_sender_hears_that_its_body_is_too_long_before_it_has_sent_it(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(head(ALERTS, ALERTS_LIMIT + 1) + b"{")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_sender_that_hangs_up_leaves_no_trouble_behind(
    app: MakeApp, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    server = HttpServer(app())
    server.start()
    with caplog.at_level(logging.WARNING):
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            connection.sendall(head(WRITE, 1000) + b"only a part")
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            connection.sendall(head(ALERTS, len(NO_ALERTS)) + NO_ALERTS)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        server.stop()
    assert caplog.records == []
    assert "request failed" not in capsys.readouterr().out


def test_many_writes_go_over_one_connection(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        for _ in range(50):
            connection.sendall(head(WRITE, 20_000) + bytes(20_000))
            assert connection.recv(4096).startswith(b"HTTP/1.1 204 ")
