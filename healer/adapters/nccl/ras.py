"""NCCL's RAS service, asked over TCP: a few lines of text to and fro, then the answer until it closes.

It listens on localhost, port 28028, unless NCCL_RAS_ADDR says otherwise; whichever process of a job answers, answers
for all of it. An answer takes as long as RAS waits for processes that do not answer it either.
"""

from __future__ import annotations

import socket
import time

from healer.errors import Unavailable
from healer.telemetry.nccl.ras_answer import Answer, read_json
from healer.telemetry.nccl.ras_text import read_text

_PROTOCOL = 2
_LONGEST_LINE = 4096
_CHUNK_BYTES = 1 << 16
LIMIT_BYTES = 64 << 20
_REST_S = 6.0  # by how much longer than its own timeout RAS may take


class RasClient:
    """Args:
    address: with `{node}` in it, for example "{node}:28028".
    timeout_s: for a whole exchange, from the connection on. The resolution of the name is the system's own affair.
    """

    def __init__(self, address: str, *, timeout_s: float, limit_bytes: int = LIMIT_BYTES) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._limit_bytes = limit_bytes

    def ask(self, node: str) -> Answer:
        """How the job on this node is. Raises Unavailable."""
        address = self._address.replace("{node}", node)
        name = f"NCCL RAS at {address}"
        host, _, port = address.rpartition(":")
        deadline = time.monotonic() + self._timeout_s
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=self._timeout_s) as connection:
                return _status(_Talk(connection, name, deadline, self._limit_bytes), self._timeout_s)
        except TimeoutError:
            raise Unavailable(name, f"gave no whole answer within {self._timeout_s:g} s") from None
        except (OSError, ValueError) as error:
            cause = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            text = f"cannot be reached: {cause}; it listens on localhost unless NCCL_RAS_ADDR is set for the job"
            raise Unavailable(name, text) from None


class _Talk:
    """One connection, every wait of which ends at the deadline."""

    def __init__(self, connection: socket.socket, name: str, deadline: float, limit_bytes: int) -> None:
        self.name = name
        self._connection = connection
        self._deadline = deadline
        self._limit_bytes = limit_bytes
        self._received = b""

    def asked(self, command: str) -> str:
        """The one line that answers a command."""
        self.say(command)
        while b"\n" not in self._received:
            if len(self._received) > _LONGEST_LINE:
                raise Unavailable(self.name, "answers with an endless line")
            if not (chunk := self._receive()):
                raise Unavailable(self.name, "closed the connection without an answer")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line.decode("utf-8", "replace").strip()

    def say(self, command: str) -> None:
        self._connection.settimeout(self._left_s())
        self._connection.sendall(command.encode() + b"\n")

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        chunks, size = [self._received], len(self._received)
        while chunk := self._receive():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._limit_bytes:
                raise Unavailable(self.name, f"answers with more than {self._limit_bytes >> 20} MiB")
        return b"".join(chunks)

    def _receive(self) -> bytes:
        self._connection.settimeout(self._left_s())
        return self._connection.recv(_CHUNK_BYTES)

    def _left_s(self) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s


def _status(talk: _Talk, timeout_s: float) -> Answer:
    greeting = talk.asked(f"CLIENT PROTOCOL {_PROTOCOL}")
    if not greeting.upper().startswith("SERVER PROTOCOL "):
        raise Unavailable(talk.name, "does not speak as NCCL RAS does")
    talk.asked(f"TIMEOUT {max(1, int(timeout_s - _REST_S))}")  # who does not know it has its own, which is as good
    if talk.asked("SET FORMAT json").upper() == "OK":
        talk.say("STATUS")
        return read_json(talk.rest(), name=talk.name)
    talk.say("VERBOSE STATUS")  # before 2.28.7
    return read_text(talk.rest(), name=talk.name)
