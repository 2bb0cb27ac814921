"""An HTTP answer that is too long to be held at once: brought in pieces, and never waited for without end.

A deadline for the whole makes no sense here, because the reader decides when it takes the next piece; a peer that drips
is found by how little it brings while it is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import requests
import urllib3

from healer.adapters.http.bounded import cause_of, redacted
from healer.errors import Rejected, Unavailable

_TRANSIENT = frozenset({408, 425, 429})
_PIECE_BYTES = 1 << 18
_LEAST_BYTES = 1 << 16  # what a peer has to bring within one timeout
_MOST_TEXT_BYTES = 4096


class StreamingServer:
    """One server, one set of credentials."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str], tenant: str | None, query: Mapping[str, str], timeout_s: float
    ) -> None:
        self.component = f"prometheus {redacted(url)}"
        self._url = url.rstrip("/")
        self._query = dict(query)
        self._timeout_s = timeout_s
        self._session = requests.Session()
        # Compression costs the server a quarter more and saves little on a LAN; the configured headers may ask for it.
        self._session.headers.update({"Accept-Encoding": "identity", **headers})
        if tenant is not None:
            self._session.headers["X-Scope-OrgID"] = tenant

    def close(self) -> None:
        self._session.close()

    def get(self, path: str, parameters: Mapping[str, str]) -> StreamedAnswer:
        return self._ask(requests.Request("GET", self._url + path, params={**self._query, **parameters}))

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> StreamedAnswer:
        return self._ask(
            requests.Request("POST", self._url + path, params=self._query, data=body, headers=dict(headers))
        )

    def refusal(self, status: int, reason: str, subject: str) -> Rejected | Unavailable:
        """What a status other than 200 means, and the server's own words, if there are any."""
        if status in {401, 403}:
            text = f"refused the credentials ({status}); check telemetry.prometheus.headers and tenant"
            return Rejected(self.component, text)
        said = f"{status}: {reason}" if reason else f"{status}"
        if 400 <= status < 500 and status not in _TRANSIENT:
            return Rejected(self.component, f"refused {subject} ({said}); correct it")
        return Unavailable(self.component, f"could not answer {subject} ({said}); check its load and its log")

    def _ask(self, request: requests.Request) -> StreamedAnswer:
        return StreamedAnswer(self._session, request, timeout_s=self._timeout_s, component=self.component)


class StreamedAnswer:
    """One exchange, from the answer's head on. Leaving the context closes the connection unless all has been read.

    Attributes:
        status: of HTTP, whatever it is; but a redirect is Unavailable.
        content_type: without its parameters, in lower case.
    """

    def __init__(
        self, session: requests.Session, request: requests.Request, *, timeout_s: float, component: str
    ) -> None:
        self._component = component
        self._timeout_s = timeout_s
        try:
            prepared = session.prepare_request(request)
            settings = session.merge_environment_settings(prepared.url, {}, stream=True, verify=None, cert=None)
            self._response = session.send(prepared, timeout=timeout_s, allow_redirects=False, **settings)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise self._too_slow() from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as error:
            raise Unavailable(component, cause_of(error)) from None
        self.status = self._response.status_code
        self.content_type = self._response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if self._response.is_redirect:
            self._response.close()
            target = redacted(self._response.headers.get("location", ""))
            raise Unavailable(component, f"redirects to {target}; configure the address that answers itself")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()

    def pieces(self) -> Iterator[bytes]:
        """The body, decompressed. Raises Unavailable when it breaks off, and when it comes too slowly."""
        brought, waited_s = 0, 0.0
        while True:
            asked = time.monotonic()
            piece = self._piece()
            waited_s += time.monotonic() - asked
            if not piece:
                return
            brought += len(piece)
            if brought >= _LEAST_BYTES:
                brought, waited_s = 0, 0.0
            elif waited_s > self._timeout_s:
                raise self._too_slow()
            yield piece

    def text(self) -> str:
        """The start of the body as one line, for an error's message."""
        body = b""
        for piece in self.pieces():
            body += piece
            if len(body) > _MOST_TEXT_BYTES:
                break
        return " ".join(body[:_MOST_TEXT_BYTES].decode(errors="replace").split())[:300]

    def _piece(self) -> bytes:
        raw = self._response.raw
        try:
            piece: bytes = raw.read1(_PIECE_BYTES, decode_content=True)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise self._too_slow() from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(self._component, cause_of(error)) from None
        if not piece and raw.length_remaining:
            raise Unavailable(self._component, f"broke off its answer {raw.length_remaining} bytes before its end")
        return piece

    def _too_slow(self) -> Unavailable:
        text = f"brought nearly nothing within {self._timeout_s:g} s; check its load, or raise the timeout"
        return Unavailable(self._component, text)
