"""One HTTP exchange whose body is handed on as it arrives; the bounds and the errors are those of bounded_http.

For answers that are large and are read once: to assemble a body takes more time than to receive it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import requests
import urllib3

from healer.adapters.bounded_http import Bounds, _cause, _too_slow, redacted
from healer.errors import Unavailable

_CHUNK_BYTES = 124 << 10  # larger ones are given back to the system each time, and cleared by it again


@dataclass(frozen=True, slots=True)
class Arriving:
    """Attributes:
    chunks: of the body, decompressed; to be read inside of the exchange.
    """

    status: int
    chunks: Iterator[bytes]


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
        raise Unavailable(component, _cause(error)) from None


def _chunks(response: requests.Response, deadline: float, bounds: Bounds, *, component: str) -> Iterator[bytes]:
    received = 0
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        received += len(chunk)
        if received > bounds.limit_bytes:
            raise Unavailable(component, f"answers with more than {bounds.limit_bytes >> 20} MiB; ask for less at once")
        if time.monotonic() > deadline:
            raise _too_slow(component, bounds)
        yield chunk
