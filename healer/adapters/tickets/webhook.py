"""Tickets over HTTP: one POST of JSON, for a ticket system's webhook or a few lines in front of one.

The document is `{"key", "title", "body", "evidence"}`; the key is also in the header `Idempotency-Key`. After a crash
the same ticket is posted again: whoever takes it must make one of both. The answer may name it as `{"url": ...}`.
"""

from __future__ import annotations

import msgspec
import requests
from urllib3.util import Retry

from healer.adapters.http.bounded import Bounds, exchange
from healer.decoding import decode
from healer.domain.ticket import Ticket
from healer.errors import Rejected, Unavailable

_NAME = "tickets"
_LIMIT_BYTES = 1 << 16
_TRANSIENT = frozenset({408, 425, 429})


class _Answer(msgspec.Struct):
    url: str = ""


class WebhookTickets:
    """Implements `healer.ports.Tickets`."""

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 10.0) -> None:
        self._url = url
        self._token = token
        self._bounds = Bounds(timeout_s, _LIMIT_BYTES)
        self._session = requests.Session()
        self._session.trust_env = False
        adapter = requests.adapters.HTTPAdapter(max_retries=Retry(total=0, read=False))
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def open(self, ticket: Ticket) -> str:
        body = {"key": ticket.key, "title": ticket.title, "body": ticket.body, "evidence": msgspec.Raw(ticket.evidence)}
        headers = {"Content-Type": "application/json", "Idempotency-Key": ticket.key}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = requests.Request("POST", self._url, data=msgspec.json.encode(body), headers=headers)
        answer = exchange(self._session, request, self._bounds, component=_NAME)
        if answer.status >= 500 or answer.status in _TRANSIENT:
            raise Unavailable(_NAME, f"answered {answer.status}; see tickets.url")
        if answer.status >= 300:
            raise Rejected(_NAME, f"answered {answer.status}; see tickets.url and tickets.token")
        try:
            url = decode(answer.body, _Answer).url
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            url = ""  # it has taken it, and need not say more
        return url or f"ticket {ticket.key}"

    def find(self, key: str) -> str | None:  # noqa: ARG002
        """It cannot be asked: the same ticket is posted again, under its key."""
        return None
