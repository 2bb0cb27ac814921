"""Who is asking over HTTP, and whether they may: bearer tokens, browser sessions, and the open door on loopback.

Authority that a browser adds by itself (a cookie, the mere fact of being on this machine) only changes something when
the request demonstrably comes from our own page: no other site may borrow it. A bearer token is never added by itself.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pwd
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

from starlette.requests import Request

from healer.config import HttpSettings, is_loopback
from healer.domain.approval import Person
from healer.errors import InvalidDocument, NotPermitted, Problem

COOKIE = "healer_session"
SESSION_LIFE = timedelta(hours=12)
_MOST_SESSIONS = 1000
_COMPONENT = "http"
# What a page may send to another site without that site being asked first; "" is what it sends without saying.
_TYPES_OF_PAGES = frozenset({"", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded"})


class Role(IntEnum):
    """From viewer on, each may what the ones before it may. A sender may send telemetry, which else only admin may."""

    SENDER = 0
    VIEWER = 1
    APPROVER = 2
    ADMIN = 3


class Unauthenticated(NotPermitted):
    """It is not known who is asking."""


class Proof(StrEnum):
    BEARER = "bearer"
    SESSION = "session"
    LOOPBACK = "loopback"


@dataclass(frozen=True, slots=True)
class ResolvedToken:
    role: Role
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    person: Person
    role: Role
    proof: Proof


@dataclass(frozen=True, slots=True)
class _Session:
    identity: Identity
    ends_at: datetime


def resolve_tokens(settings: HttpSettings) -> Mapping[str, ResolvedToken]:
    """The secrets behind `http.tokens`, by name. Raises InvalidDocument: missing, or one name or secret for two."""
    resolved: dict[str, ResolvedToken] = {}
    for number, token in enumerate(settings.tokens):
        key = f"http.tokens[{number}]"
        secret = token.token.read(f"{key}.token")
        if token.name in resolved:
            raise InvalidDocument(Problem("config.yaml", 0, f"{key}.name", f"'{token.name}' is there twice"))
        if any(known.secret == secret for known in resolved.values()):
            text = "is the same secret as another token's: it could not be told who is asking"
            raise InvalidDocument(Problem("config.yaml", 0, f"{key}.token", text))
        resolved[token.name] = ResolvedToken(Role[token.role.upper()], secret)
    return resolved


def local_person() -> Person:
    """Whoever runs this process, for what is only reachable from this machine."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return Person(f"local:{name}")


class Gate:
    """Used from the server's event loop alone, so its sessions need no lock. They end with the process."""

    def __init__(self, http: HttpSettings, tokens: Mapping[str, ResolvedToken]) -> None:
        self._open = http.auth == "none"
        self._on_loopback = is_loopback(http.host)
        self._local = Identity(local_person(), Role.ADMIN, Proof.LOOPBACK)
        self._tokens = {_fingerprint(token.secret): (name, token.role) for name, token in tokens.items()}
        self._sessions: dict[str, _Session] = {}

    def require(self, request: Request, role: Role, now: datetime) -> Identity:
        """Who is asking, if they may. Raises Unauthenticated, NotPermitted."""
        identity = self.identify(request, now)
        if request.method not in {"GET", "HEAD"} and identity.proof is not Proof.BEARER:
            _require_own_page(request)
        if identity.role < role:
            raise NotPermitted(
                _COMPONENT, f"{identity.person} has the role {identity.role.name.lower()}, not {role.name.lower()}"
            )
        return identity

    def identify(self, request: Request, now: datetime) -> Identity:
        """Raises Unauthenticated; NotPermitted for a name that does not belong to this machine."""
        if self._open:
            _require_loopback_name(request)
            return self._local
        authorization = request.headers.get("authorization")
        if authorization is not None:
            scheme, _, secret = authorization.partition(" ")
            identity = self._holder(secret.strip(), Proof.BEARER) if scheme.lower() == "bearer" else None
        else:
            identity = self._of_session(request, now)
        if identity is None:
            raise Unauthenticated(_COMPONENT, "a valid token is needed: send 'Authorization: Bearer TOKEN', or log in")
        return identity

    def require_sender(self, request: Request, now: datetime) -> None:
        """Telemetry comes from machines: a page in a browser must not feed the daemon, not even on loopback.

        Raises Unauthenticated, NotPermitted.
        """
        identity = self.identify(request, now)
        if identity.proof is Proof.SESSION:
            raise Unauthenticated(_COMPONENT, "telemetry is sent with a token, and not by who is logged in")
        if identity.proof is Proof.LOOPBACK:
            _require_no_page(request)
        if identity.role not in {Role.SENDER, Role.ADMIN}:
            name = identity.role.name.lower()
            raise NotPermitted(_COMPONENT, f"{identity.person} has the role {name}: telemetry is sent by a sender")

    def require_scrape(self, request: Request, now: datetime) -> None:
        """Metrics are open on loopback, where a scraper without a token is the usual one."""
        if self._on_loopback and "authorization" not in request.headers:
            _require_loopback_name(request)
        else:
            self.require(request, Role.VIEWER, now)

    @property
    def has_login(self) -> bool:
        return not self._open

    def log_in(self, request: Request, secret: str, now: datetime) -> str:
        """A new session's id. Raises Unauthenticated."""
        _require_own_page(request)
        identity = self._holder(secret, Proof.SESSION)
        if identity is None:
            raise Unauthenticated(_COMPONENT, "no token reads like this")
        if identity.role is Role.SENDER:
            raise Unauthenticated(_COMPONENT, "this token only sends telemetry")
        self._sessions = {name: session for name, session in self._sessions.items() if session.ends_at > now}
        if len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session_id = secrets.token_urlsafe(32)
        self._sessions[session_id] = _Session(identity, now + SESSION_LIFE)
        return session_id

    def log_out(self, request: Request) -> None:
        _require_own_page(request)
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)

    def _of_session(self, request: Request, now: datetime) -> Identity | None:
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        return session.identity if session is not None and now < session.ends_at else None

    def _holder(self, secret: str, proof: Proof) -> Identity | None:
        """Compares with every token, whatever the earlier ones said: the time taken tells nothing."""
        given = _fingerprint(secret)
        found = None
        for fingerprint, (name, role) in self._tokens.items():
            if hmac.compare_digest(fingerprint, given):
                found = Identity(Person(f"token:{name}"), role, proof)
        return found


def _fingerprint(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _require_loopback_name(request: Request) -> None:
    """A web page whose name was made to point here (DNS rebinding) still sends its own name as Host."""
    host = _host_name(request.headers.get("host", ""))
    if not is_loopback(host):
        raise NotPermitted(_COMPONENT, f"the Host '{host[:80]}' is not this machine: open it as localhost or 127.0.0.1")


def _require_own_page(request: Request) -> None:
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        own = site == "same-origin"
    elif origin is not None:
        own = origin.partition("://")[2] == request.headers.get("host")
    else:
        # No browser sends this content type to another site without asking it first.
        own = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    if not own:
        raise NotPermitted(_COMPONENT, "the request does not come from this site's own page")


def _require_no_page(request: Request) -> None:
    """A browser says where a request comes from; one that does not is given away by a type that pages may send."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    said = any(name in request.headers for name in ("origin", "sec-fetch-site", "sec-fetch-mode"))
    if said or kind in _TYPES_OF_PAGES:
        raise NotPermitted(_COMPONENT, "telemetry is not taken from a web page, nor without its content type")


def _host_name(host: str) -> str:
    """The Host header without its port; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host
