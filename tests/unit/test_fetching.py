"""Many small answers at once: whatever a server does, each question has one answer, in time and within bounds."""

from __future__ import annotations

import gzip
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import pytest

from healer.adapters.http import exchange
from healer.adapters.http.exchange import Question
from healer.adapters.http.fetching import Fetcher
from healer.errors import Unavailable

BODY = b"m 1\n" * 1000
BOMB = gzip.compress(BODY * 1000)
PLENTY_S = 30.0
SHORT_S = 0.5

Talk: TypeAlias = Callable[[socket.socket, int], None]  # a connection, and how many there were before it


class Server:
    """Accepts, and talks to each connection as the test says."""

    def __init__(self, talk: Talk) -> None:
        self.connections = 0
        self.closing = threading.Event()
        self._talk = talk
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2000)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/metrics"
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        # What wakes a thread that waits for a connection is one.
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        talking: list[threading.Thread] = []
        with ExitStack() as stack:
            while True:
                connection = stack.enter_context(self._listener.accept()[0])
                if self.closing.is_set():
                    break
                self._open.append(connection)
                talking.append(threading.Thread(target=self._serve, args=(connection, self.connections)))
                self.connections += 1
                talking[-1].start()
        for each in talking:
            each.join()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError), connection:
            self._talk(connection, number)


@contextmanager
def serving(talk: Talk) -> Iterator[Server]:
    with closing(Server(talk)) as server:
        yield server


def heard(connection: socket.socket) -> bytes:
    """One request; nothing when there are no more."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        got = connection.recv(65536)
        if not got:
            return b""
        request += got
    return request


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = (b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body), b"", body)
    return b"\r\n".join(lines)


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        + b"0\r\n\r\n"
    )


def always(answer: bytes) -> Talk:
    """Answers every request of a connection."""

    def talk(connection: socket.socket, _number: int) -> None:
        while heard(connection):
            connection.sendall(answer)

    return talk


def once(answer: bytes) -> Talk:
    """Answers and hangs up."""

    def talk(connection: socket.socket, _number: int) -> None:
        heard(connection)
        connection.sendall(answer)

    return talk


def silent(connection: socket.socket, _number: int) -> None:
    """Until the other end has enough of it."""
    while connection.recv(65536):
        pass


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    with closing(Fetcher(timeout_s=PLENTY_S, limit_bytes=1 << 20)) as one:
        yield one


def asked(url: str) -> Question:
    return Question.of("exporter x", url, accept="text/plain")


def fetched(fetcher: Fetcher, *urls: str, within_s: float = PLENTY_S) -> list[bytes | Unavailable]:
    """The answers in the order of the questions."""
    answers = dict(fetcher.fetch([asked(url) for url in urls], within_s=within_s))
    assert sorted(answers) == list(range(len(urls)))
    return [answers[number] for number in range(len(urls))]


def body(fetcher: Fetcher, url: str) -> bytes:
    (answer,) = fetched(fetcher, url)
    assert isinstance(answer, bytes), answer
    return answer


def failure(fetcher: Fetcher, url: str) -> str:
    (answer,) = fetched(fetcher, url)
    assert isinstance(answer, Unavailable), answer
    assert answer.component == "exporter x"
    return answer.detail


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(whole(BODY), id="of a length"),
        pytest.param(chunked(BODY, 4096), id="in chunks"),
        pytest.param(chunked(BODY, 1), id="in tiny chunks"),
        pytest.param(whole(gzip.compress(BODY), b"Content-Encoding: gzip"), id="packed all the same"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + whole(BODY), id="after an interim answer"),
    ],
)
def test_an_answer_is_read_to_its_end_over_a_connection_that_is_kept(fetcher: Fetcher, answer: bytes) -> None:
    with serving(always(answer)) as server:
        for _ in range(3):
            assert body(fetcher, server.url) == BODY
        assert server.connections == 1


def test_an_answer_that_comes_byte_by_byte_is_put_together(fetcher: Fetcher) -> None:
    def talk(connection: socket.socket, _number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while heard(connection):
            for byte in chunked(b"m 1\nn 2\n", 3):
                connection.sendall(bytes([byte]))

    with serving(talk) as server:
        assert body(fetcher, server.url) == b"m 1\nn 2\n"


def test_what_is_sent_is_a_plain_question(fetcher: Fetcher) -> None:
    requests: list[bytes] = []

    def talk(connection: socket.socket, _number: int) -> None:
        while request := heard(connection):
            requests.append(request)
            connection.sendall(whole(BODY))

    with serving(talk) as server:
        body(fetcher, f"http://me:s%20cret@127.0.0.1:{server.port}/m x/%41?a=b c&d=ä\r\nX: y")
    assert requests == [
        b"GET /m%20x/%41?a=b%20c&d=%C3%A4X:%20y HTTP/1.1\r\n"
        b"Host: 127.0.0.1:" + str(server.port).encode() + b"\r\n"
        b"Accept: text/plain\r\n"
        b"Accept-Encoding: identity\r\n"
        b"User-Agent: healer\r\n"
        b"Authorization: Basic bWU6cyBjcmV0\r\n\r\n"
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///metrics",
        "ftp://x/metrics",
        "x:9400/metrics",
        "http://x:99999/",
        "http://x:port/",
        "http://a b/",
        "http://a\tb\x00/",
        "http://[::1/",
        f"http://{'x' * 70}.example/",
    ],
)
def test_an_address_that_is_none_is_said_to_be_none(url: str) -> None:
    with pytest.raises(Unavailable, match="the address is not valid"):
        asked(url)


def test_a_page_without_a_length_ends_with_its_connection(fetcher: Fetcher) -> None:
    with serving(once(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)) as server:
        assert body(fetcher, server.url) == BODY
        assert body(fetcher, server.url) == BODY
        assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(whole(BODY)[:-1], "broke off its answer", id="shorter than it says"),
        pytest.param(whole(BODY)[:-4], "broke off its answer", id="whole lines of half a page"),
        pytest.param(chunked(BODY, 512)[:-3], "broke off its answer", id="without its last chunk"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nm 1\nn", "broke off its answer", id="in the middle of a line"),
        pytest.param(whole(BODY)[:20], "broke off its answer", id="in its head"),
        pytest.param(b"", "closed the connection without an answer", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP", id="another protocol"),
        pytest.param(whole(b"", status=b"503 Busy"), "status 503; check its log", id="503"),
        pytest.param(
            whole(b"", b"Location: http://u:p@other/x?token=1", status=b"302 Found"),
            "redirects to http://other/x;",
            id="elsewhere",
        ),
        pytest.param(whole(BODY * 300), "more than 1 MiB", id="flood"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300_000 + b"\r\n", "more than 1 MiB", id="headers"),
        pytest.param(whole(BOMB, b"Content-Encoding: gzip"), "more than 1 MiB", id="bomb"),
        pytest.param(whole(gzip.compress(BODY)[:-9], b"Content-Encoding: gzip"), "broke off", id="half a packet"),
        pytest.param(whole(BODY, b"Content-Encoding: gzip"), "cannot be unpacked", id="not packed at all"),
        pytest.param(whole(BODY, b"Content-Encoding: br"), "packs its answer as 'br'", id="packed otherwise"),
    ],
)  # fmt: skip
def test_what_is_no_whole_page_is_none(fetcher: Fetcher, answer: bytes, text: str) -> None:
    with serving(once(answer)) as server:
        assert text in failure(fetcher, server.url)


def test_what_comes_after_an_answer_is_not_taken_for_the_next_one(fetcher: Fetcher) -> None:
    with serving(always(whole(BODY) + whole(b"stale 1\n"))) as server:
        for _ in range(3):
            assert body(fetcher, server.url) == BODY


def test_what_comes_long_after_an_answer_is_not_taken_for_the_next_one(fetcher: Fetcher) -> None:
    more, said = threading.Event(), threading.Event()

    def talk(connection: socket.socket, number: int) -> None:
        heard(connection)
        connection.sendall(whole(BODY))
        if number == 0:
            more.wait(PLENTY_S)
            connection.sendall(whole(b"stale 1\n"))
            said.set()
        heard(connection)

    with serving(talk) as server:
        assert body(fetcher, server.url) == BODY
        more.set()
        assert said.wait(PLENTY_S)
        assert body(fetcher, server.url) == BODY


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(fetcher: Fetcher) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        for _ in range(2 if number else 1):
            heard(connection)
            connection.sendall(whole(BODY))

    with serving(talk) as server:
        for expected in (1, 2, 2, 3):
            assert body(fetcher, server.url) == BODY
            assert server.connections == expected


def test_a_connection_that_the_server_wants_closed_is_closed(fetcher: Fetcher) -> None:
    with serving(always(whole(BODY, b"Connection: close"))) as server:
        for _ in range(2):
            assert body(fetcher, server.url) == BODY
        assert server.connections == 2


def test_a_connection_to_somebody_who_is_not_asked_any_more_is_closed(fetcher: Fetcher) -> None:
    ended = threading.Event()

    def talk(connection: socket.socket, _number: int) -> None:
        heard(connection)
        connection.sendall(whole(BODY))
        assert heard(connection) == b""
        ended.set()

    with serving(talk) as gone, serving(always(whole(BODY))) as stays:
        body(fetcher, gone.url)
        body(fetcher, stays.url)
        assert ended.wait(PLENTY_S)


def test_nobody_listening_is_a_refused_connection_without_what_is_secret(fetcher: Fetcher) -> None:
    text = failure(fetcher, "http://user:secret@127.0.0.1:1/metrics?token=secret")
    assert text == "cannot be reached: Connection refused; check the address and the network"


def test_a_name_is_resolved_and_each_of_its_addresses_tried(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(always(whole(BODY))) as server:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port)),
        ]

        real = socket.getaddrinfo

        def resolve(host: str, port: int, *more: int, **how: int) -> object:
            if host == "127.0.0.1":
                return real(host, port, *more, **how)
            if how["flags"] or (host, port) != ("gpu-1.example", 9400):
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return found

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        for _ in range(2):
            assert body(fetcher, "http://gpu-1.example:9400/") == BODY
        assert server.connections == 1
        assert "Name or service not known" in failure(fetcher, "http://gpu-2.example:9400/")


def test_who_is_slow_costs_no_more_than_the_timeout_and_nobody_else_anything() -> None:
    with (
        closing(Fetcher(timeout_s=2.0, limit_bytes=1 << 20)) as fetcher,
        serving(silent) as slow,
        serving(always(whole(BODY))) as quick,
    ):
        began = time.monotonic()
        order: list[int] = []
        questions = [asked(slow.url)] * 300 + [asked(quick.url)] * 50
        for number, answer in fetcher.fetch(questions, within_s=PLENTY_S):
            order.append(number)
            assert isinstance(answer, bytes) == (number >= 300)
            if number < 300:
                assert "no whole answer within 2 s" in str(answer)
        took_s = time.monotonic() - began
        assert min(order[:50]) >= 300
        assert 1.9 < took_s < 6


def test_a_drip_is_cut_off(fetcher: Fetcher) -> None:
    def talk(connection: socket.socket, _number: int) -> None:
        heard(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not server.closing.wait(0.02):
            connection.sendall(b"m 1\n")

    fetcher.timeout_s = SHORT_S
    with serving(talk) as server:
        began = time.monotonic()
        assert "no whole answer within 0.5 s" in failure(fetcher, server.url)
        assert time.monotonic() - began < 10 * SHORT_S


def test_all_together_end_in_time_and_who_was_not_asked_is_told_so() -> None:
    with closing(Fetcher(timeout_s=PLENTY_S, limit_bytes=1 << 20)) as fetcher, serving(silent) as server:
        began = time.monotonic()
        answers = fetched(fetcher, *[server.url] * 400, within_s=0.4)
        assert time.monotonic() - began < 5
        texts = [answer.detail for answer in answers if isinstance(answer, Unavailable)]
        assert len(texts) == 400
        assert sum("was not asked" in text for text in texts) == 144
        assert sum("the rest of the 0.4 s" in text for text in texts) == 256


def test_the_time_that_the_caller_takes_is_not_the_servers(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("healer.adapters.http.fetching._FRESH", 1)  # one after the other
    fetcher.timeout_s = SHORT_S
    with serving(always(whole(BODY))) as server:
        answers = 0
        for _, answer in fetcher.fetch([asked(server.url)] * 5, within_s=SHORT_S):
            assert isinstance(answer, bytes)
            answers += 1
            threading.Event().wait(0.2)
        assert answers == 5


def test_who_stops_listening_leaves_nothing_open(fetcher: Fetcher) -> None:
    with serving(silent) as slow, serving(always(whole(BODY))) as quick:
        answers = fetcher.fetch([asked(slow.url), asked(quick.url)], within_s=PLENTY_S)
        assert next(answers)[0] == 1
        answers.close()  # type: ignore[attr-defined]
        assert body(fetcher, quick.url) == BODY


def test_more_than_there_are_descriptors_for_is_asked_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("healer.adapters.http.fetching._descriptors", lambda _questions: 16)
    with (
        closing(Fetcher(timeout_s=PLENTY_S, limit_bytes=1 << 20)) as fetcher,
        serving(always(whole(BODY))) as server,
    ):
        assert fetched(fetcher, *[server.url] * 100) == [BODY] * 100
        assert server.connections <= 16


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl: apt-get install openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    made = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    named = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", f"{path}.crt")
    subprocess.run([openssl, "req", *made.split(), *named], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls(certificate: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def talk(connection: socket.socket, number: int) -> None:
        with context.wrap_socket(connection, server_side=True) as encrypted:
            always(whole(BODY * 100))(encrypted, number)

    with serving(talk) as server:
        yield server


def test_an_exporter_behind_tls_is_read_if_its_certificate_is_trusted(
    tls: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tls.url.replace("http:", "https:")
    for bundle, trusted in ((None, False), (certificate, True)):
        exchange._trust.cache_clear()  # noqa: SLF001 - read once for the life of a process
        if bundle is not None:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        with closing(Fetcher(timeout_s=PLENTY_S, limit_bytes=1 << 20)) as fetcher:
            if trusted:
                for _ in range(2):
                    assert body(fetcher, url) == BODY * 100
            else:
                assert "certificate that is not trusted (self-signed certificate)" in failure(fetcher, url)
    exchange._trust.cache_clear()  # noqa: SLF001


def test_tls_where_there_is_none_is_a_failed_handshake(fetcher: Fetcher) -> None:
    with serving(lambda connection, _number: connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")) as server:
        assert "TLS" in failure(fetcher, server.url.replace("http:", "https:"))
