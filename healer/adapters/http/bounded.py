"""One HTTP exchange that ends: within a deadline, within a size, and with an error that names the cause and no secret.

`requests` bounds only the silence between two packets, follows redirects with the caller's headers, and puts whole URLs
into its errors. An outside system that drips, floods or redirects must cost one clear error, not the loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
import urllib3

from healer.errors import Unavailable

_CHUNK_BYTES = 124 << 10  # larger ones are given back to the system each time, and cleared by it again


@dataclass(frozen=True, slots=True)
class Bounds:
    """Attributes:
    timeout_s: for the whole exchange; a peer that goes silent after half of it may cost half as much again.
    limit_bytes: of the body, decompressed.
    """

    timeout_s: float
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Arriving:
    """Attributes:
    chunks: of the body, decompressed; to be read inside of the exchange.
    """

    status: int
    chunks: Iterator[bytes]


def exchange(session: requests.Session, request: requests.Request, bounds: Bounds, *, component: str) -> Answer:
    """Send and read to the end. Raises Unavailable when there is no whole answer, or when it is a redirect."""
    with streamed(session, request, bounds, component=component) as answer:
        return Answer(answer.status, b"".join(answer.chunks))


@contextmanager
def streamed(
    session: requests.Session, request: requests.Request, bounds: Bounds, *, component: str
) -> Iterator[Arriving]:
    """Send, and receive as the body of the `with` asks. Raises Unavailable when there is no whole answer to be had."""
    deadline = time.monotonic() + bounds.timeout_s
    try:
        prepared = session.prepare_request(request)
        settings = session.merge_environment_settings(prepared.url, {}, stream=True, verify=None, cert=None)
        with session.send(prepared, timeout=bounds.timeout_s, allow_redirects=False, **settings) as response:
            if response.is_redirect:
                target = redacted(response.headers.get("location", ""))
                raise Unavailable(component, f"redirects to {target}; configure the address that answers itself")
            yield Arriving(response.status_code, _chunks(response, deadline, bounds, component=component))
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise _too_slow(component, bounds) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as error:
        raise Unavailable(component, cause_of(error)) from None


def redacted(url: str) -> str:
    """The URL without what may be secret in it: credentials and the query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _chunks(response: requests.Response, deadline: float, bounds: Bounds, *, component: str) -> Iterator[bytes]:
    received = 0
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        received += len(chunk)
        if received > bounds.limit_bytes:
            raise Unavailable(component, f"answers with more than {bounds.limit_bytes >> 20} MiB; ask for less at once")
        if time.monotonic() > deadline:
            raise _too_slow(component, bounds)
        yield chunk


def _too_slow(component: str, bounds: Bounds) -> Unavailable:
    text = f"gave no whole answer within {bounds.timeout_s:g} s; check its load, or raise the timeout"
    return Unavailable(component, text)


def cause_of(error: BaseException) -> str:
    """The operating system's word for it, else the kind of error: their texts carry URLs with everything in them."""
    cause: object = error
    for _ in range(8):
        if isinstance(cause, OSError) and cause.strerror:
            return f"cannot be reached: {cause.strerror}; check the address and the network"
        below = (getattr(cause, name, None) for name in ("reason", "__cause__", "__context__"))
        inside = (*below, *getattr(cause, "args", ()))
        cause = next((part for part in inside if isinstance(part, BaseException)), None)
    match error:
        case requests.exceptions.SSLError():
            return "the TLS handshake failed; check its certificate and the trusted authorities"
        case requests.exceptions.ConnectionError():
            return "closed the connection without an answer; check that it speaks HTTP there"
        case requests.exceptions.RequestException() if isinstance(error, ValueError):
            return "the address or a header is not valid for HTTP; correct it"
        case _:
            return f"broke off its answer ({type(error).__name__})"
