"""NCCL RAS over TCP: as NCCL speaks it, and what becomes of everything else that may listen there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from healer.adapters.nccl.ras import RasClient
from healer.errors import Unavailable
from tests.nccl_samples import ras_communicator, ras_json, ras_rank, ras_text

ROW = "    0         1         4         8        32        32   RUNNING        OK\n"
JSON = ras_json(ras_communicator("cf26", [ras_rank(rank, host="10.0.0.1", gpu=rank, launched=7) for rank in range(8)]))


@dataclass(slots=True)
class Ras:
    """A process of a job. It answers command by command, as the source of NCCL does: whatever the case, with or without
    a carriage return, an unknown one with an error; and it closes after a status.

    Attributes:
        speaks_json: as since 2.28.7.
        heard: every command so far.
    """

    speaks_json: bool = True
    heard: list[str] = field(default_factory=list)
    piece: int = 1 << 16

    def serve(self, connection: socket.socket) -> None:
        received, as_json, done = b"", False, False
        while not done and (chunk := connection.recv(512)):
            *commands, received = (received + chunk).split(b"\n")
            for command in commands:
                self.heard.append(command.decode().rstrip("\r"))
                answer, as_json, done = self._answer(self.heard[-1].lower(), as_json=as_json)
                for start in range(0, len(answer), self.piece):
                    connection.sendall(answer[start : start + self.piece])

    def _answer(self, command: str, *, as_json: bool) -> tuple[bytes, bool, bool]:
        if command.startswith("client protocol "):
            return b"SERVER PROTOCOL 2\n", as_json, False
        if command.startswith("timeout "):
            return b"OK\n", as_json, False
        if command == "set format json" and self.speaks_json:
            return b"OK\n", True, False
        if command in {"status", "verbose status"}:
            return JSON if as_json else ras_text(ROW), as_json, True
        return f"ERROR: Unknown command {command}\n".encode(), as_json, False


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address at which every connection is served so."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        closing = threading.Event()

        def accept() -> None:
            while not closing.is_set():
                with suppress(TimeoutError, ConnectionError, BrokenPipeError):
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(20)
                        serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            closing.set()
            thread.join(30)


def client(address: str, *, timeout_s: float = 20, limit_bytes: int = 1 << 20) -> RasClient:
    return RasClient(address.replace("127.0.0.1", "{node}"), timeout_s=timeout_s, limit_bytes=limit_bytes)


@pytest.mark.parametrize("piece", [1 << 16, 7])
def test_since_2_28_7_everything_of_every_rank_is_asked_for(piece: int) -> None:
    ras = Ras(piece=piece)
    with listening(ras.serve) as address:
        answer = client(address).ask("127.0.0.1")

    assert ras.heard == ["CLIENT PROTOCOL 2", "TIMEOUT 14", "SET FORMAT json", "STATUS"]
    assert answer.is_whole
    assert answer.gpus == 8


def test_before_that_the_verbose_text_is_asked_for() -> None:
    ras = Ras(speaks_json=False)
    with listening(ras.serve) as address:
        answer = client(address).ask("127.0.0.1")

    assert ras.heard[-2:] == ["SET FORMAT json", "VERBOSE STATUS"]
    assert not answer.is_whole
    assert answer.gpus == 32


def _says(data: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(512)
        connection.sendall(data)

    return serve


def _hangs_up(connection: socket.socket) -> None:
    connection.recv(512)


def _says_nothing(connection: socket.socket) -> None:
    while connection.recv(512):
        pass


def _drips(connection: socket.socket) -> None:
    connection.recv(512)
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def _greets_and_hangs(connection: socket.socket) -> None:
    connection.recv(512)
    connection.sendall(b"SERVER PROTOCOL 2\n")
    _says_nothing(connection)


def _floods(connection: socket.socket) -> None:
    connection.recv(512)
    connection.sendall(b"SERVER PROTOCOL 2\nOK\nOK\n")
    while True:
        connection.sendall(b'{"communicators": [' + b" " * (1 << 16))


def _floods_without_a_line(connection: socket.socket) -> None:
    connection.recv(512)
    while True:
        connection.sendall(b"x" * (1 << 16))


def _breaks_off(connection: socket.socket) -> None:
    connection.recv(512)
    connection.sendall(b"SERVER PROTOCOL 2\nOK\nOK\n" + JSON[:-30])


OTHERS: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "closes": (_hangs_up, "closed the connection without an answer|cannot be reached"),
    "says nothing": (_says_nothing, r"no whole answer within 0\.5 s"),
    "drips": (_drips, r"no whole answer within 0\.5 s"),
    "greets and hangs": (_greets_and_hangs, r"no whole answer within 0\.5 s"),
    "floods": (_floods, "more than 1 MiB"),
    "floods without a line": (_floods_without_a_line, "endless line"),
    "breaks off": (_breaks_off, "does not answer as NCCL RAS does|cannot be reached"),
    "speaks HTTP": (_says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak as NCCL RAS does"),
    "speaks SSH": (_says(b"SSH-2.0-OpenSSH_9.6\r\n"), "does not speak as NCCL RAS does"),
    "speaks garbage": (_says(bytes(range(256)) + b"\n"), "does not speak as NCCL RAS does"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_everything_else_costs_one_clear_error_and_not_more_than_the_timeout(other: str) -> None:
    serve, why = OTHERS[other]
    timeout_s = 0.5 if "0\\.5" in why else 20
    with listening(serve) as address:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=rf"^NCCL RAS at 127\.0\.0\.1:\d+: .*({why})"):
            client(address, timeout_s=timeout_s).ask("127.0.0.1")
        assert time.monotonic() - began < 10


def test_where_nobody_listens_the_error_says_what_the_job_needs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unavailable, match=r"cannot be reached: Connection refused; .*NCCL_RAS_ADDR"):
        RasClient(f"{{node}}:{port}", timeout_s=5).ask("127.0.0.1")


@pytest.mark.parametrize("node", ["no such host.invalid", "x" * 300, "\udcff", ""])
def test_a_node_that_has_no_address_is_unavailable(node: str) -> None:
    with pytest.raises(Unavailable):
        RasClient("{node}.invalid:28028", timeout_s=5).ask(node)
