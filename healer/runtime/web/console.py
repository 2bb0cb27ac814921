"""The web console: server-rendered pages that stay readable without JavaScript; htmx only fetches what has changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from healer import __version__
from healer.domain.incident import Incident
from healer.errors import NotFound, Unavailable
from healer.policy.silencing import matchers_of
from healer.runtime.snapshot import Snapshot
from healer.runtime.web.auth import COOKIE, SESSION_LIFE, Identity, Role, Unauthenticated
from healer.runtime.web.decisions import checked_id, decide
from healer.runtime.web.overview import (
    FleetPanel,
    IncidentPanel,
    Records,
    RunPanel,
    fleet_panel,
    is_open,
    newest_first,
    question,
)
from healer.runtime.web.plots import SPARK_HEIGHT, SPARK_WIDTH
from healer.runtime.web.readiness import why_not_ready
from healer.runtime.web.silence_views import maintenance_view, silence_view
from healer.runtime.web.silences import Wish, add_silence, expire_silence, silenced
from healer.runtime.web.site import BadRequest, Site, checked_reason, read_body
from healer.telemetry.coverage import told

_HERE = Path(__file__).parent
_MOST_INCIDENTS = 50
_MOST_OPEN = 200
_MOST_RUNS = 12
_MOST_ANSWERED = 5
_SILENCES = {"1h": timedelta(hours=1), "4h": timedelta(hours=4), "1d": timedelta(days=1)}
_TIME_TEXT = re.compile(r">[^<]*</time>")

Endpoint = Callable[[Request], Awaitable[Response]]


def routes(site: Site) -> tuple[BaseRoute, ...]:
    pages = _Pages(site)
    return (
        Route("/", pages.first, methods=["GET"]),
        Route("/live", pages.live, methods=["GET"]),
        Route("/approvals/{id}", pages.answer, methods=["POST"]),
        Route("/runs/{id}/{word:str}", pages.say_of_run, methods=["POST"]),
        Route("/incidents/{id}/silence", pages.silence, methods=["POST"]),
        Route("/silences/{id}/expire", pages.expire, methods=["POST"]),
        Route("/breaker/reset", pages.reset, methods=["POST"]),
        Route("/login", pages.login, methods=["GET"]),
        Route("/login", pages.log_in, methods=["POST"]),
        Route("/logout", pages.log_out, methods=["POST"]),
        Mount("/static", StaticFiles(directory=_HERE / "static")),
    )


def error_page(request: Request, status: int, message: str) -> Response:
    """Nobody logged in: the page of the login. Anything else: what is wrong, and the way back."""
    if status == 401 and request.url.path != "/login":
        if "hx-request" in request.headers:
            return Response(status_code=401, headers={"hx-redirect": "/login"})
        return RedirectResponse("/login", 303)
    return HTMLResponse(_render("error.html", status=status, message=message), status)


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """The fleet as drawn from one snapshot: it changes once a turn, and readers come every two seconds."""

    snapshot: Snapshot
    fleet: FleetPanel | None


class _Pages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._drawn: _Drawn | None = None

    async def first(self, request: Request) -> Response:
        identity, now = self._reader(request)
        live, _ = await run_in_threadpool(self._live, identity, now)
        logout = self._site.gate.has_login
        return HTMLResponse(_render("page.html", live=Markup(live), me=identity, logout=logout))  # noqa: S704 - our own rendered template

    async def live(self, request: Request) -> Response:
        """The part that changes; nothing at all when the reader has seen it already."""
        identity, now = self._reader(request)
        live, seen = await run_in_threadpool(self._live, identity, now)
        headers = {"x-healer-now": now.isoformat()}
        if request.query_params.get("seen") == seen:
            return Response(status_code=204, headers=headers)
        return HTMLResponse(live, headers=headers)

    async def answer(self, request: Request) -> Response:
        site, now = self._site, self._site.clock.now()
        identity = site.gate.require(request, Role.APPROVER, now)
        form = await _form(request)
        answer = form.get("answer")
        if answer not in {"approve", "deny"}:
            raise BadRequest("the answer must be approve or deny", 422)
        reason, approval_id = checked_reason(form.get("reason", "")), request.path_params["id"]
        await run_in_threadpool(
            decide,
            site.journal,
            site.approvers,
            approval_id,
            identity.person,
            now,
            approve=answer == "approve",
            reason=reason,
        )
        return RedirectResponse("/", 303)

    async def say_of_run(self, request: Request) -> Response:
        """Cancel, pause or resume it."""
        site, now = self._site, self._site.clock.now()
        identity = site.gate.require(request, Role.APPROVER, now)
        form = await _form(request)
        words = {"cancel": site.journal.request_cancel, "pause": site.journal.pause, "resume": site.journal.resume}
        word = words.get(request.path_params["word"])
        if word is None:
            raise NotFound("page", f"a run can be told to {', '.join(words)}")
        run_id, reason = checked_id(request.path_params["id"], "run"), checked_reason(form.get("reason", ""))
        await run_in_threadpool(word, run_id, identity.person, now, reason)
        return RedirectResponse("/", 303)

    async def silence(self, request: Request) -> Response:
        """Silence an incident's component."""
        site, now = self._site, self._site.clock.now()
        identity = site.gate.require(request, Role.APPROVER, now)
        form = await _form(request)
        lasts = _SILENCES.get(form.get("duration", ""))
        if lasts is None:
            raise BadRequest(f"the duration must be one of {', '.join(_SILENCES)}", 422)
        incident_id = checked_id(request.path_params["id"], "incident")
        incident = await run_in_threadpool(site.journal.incident, incident_id)
        wish = Wish(matchers_of(incident.component), form.get("reason", ""), lasts=lasts)
        await run_in_threadpool(add_silence, site, wish, identity.person, now)
        return RedirectResponse("/", 303)

    async def expire(self, request: Request) -> Response:
        site, now = self._site, self._site.clock.now()
        identity = site.gate.require(request, Role.APPROVER, now)
        reason, silence_id = (await _form(request)).get("reason", ""), request.path_params["id"]
        await run_in_threadpool(expire_silence, site.journal, silence_id, identity.person, now, reason)
        return RedirectResponse("/", 303)

    async def reset(self, request: Request) -> Response:
        site, now = self._site, self._site.clock.now()
        identity = site.gate.require(request, Role.APPROVER, now)
        reason = checked_reason((await _form(request)).get("reason", ""))
        await run_in_threadpool(site.journal.reset_breaker, identity.person, now, reason)
        return RedirectResponse("/", 303)

    async def login(self, _request: Request) -> Response:
        if not self._site.gate.has_login:
            return RedirectResponse("/", 303)
        return HTMLResponse(_render("login.html", problem=None))

    async def log_in(self, request: Request) -> Response:
        form = await _form(request)
        try:
            session = self._site.gate.log_in(request, form.get("token", ""), self._site.clock.now())
        except Unauthenticated:
            return HTMLResponse(_render("login.html", problem="That is not a valid token."), 401)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        age_s = int(SESSION_LIFE.total_seconds())
        answer.set_cookie(COOKIE, session, max_age=age_s, httponly=True, samesite="strict", secure=secure)
        return answer

    async def log_out(self, request: Request) -> Response:
        self._site.gate.log_out(request)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    def _reader(self, request: Request) -> tuple[Identity, datetime]:
        now = self._site.clock.now()
        return self._site.gate.require(request, Role.VIEWER, now), now

    def _live(self, identity: Identity, now: datetime) -> tuple[str, str]:
        """The rendered fragment, and the mark by which a reader says that they have it."""
        snapshot = self._site.board.look()
        try:
            records, trouble = self._records(identity, now), None
        except Unavailable as error:
            records, trouble = None, str(error)
        content = {
            "snapshot": snapshot,
            "missing": told(snapshot.gaps),
            "fleet": self._fleet(snapshot),
            "records": records,
            "trouble": trouble,
            "not_ready": why_not_ready(snapshot, now, self._site.interval),
            "may_change": identity.role >= Role.APPROVER,
            "now": now,
        }
        html = _render("live.html", **content)
        # Ages run on in the reader's browser: they are no reason to send everything again.
        seen = hashlib.sha256(_TIME_TEXT.sub("></time>", html).encode()).hexdigest()[:16]
        return html.replace("SEEN-MARK", seen, 1).replace("NOW-MARK", now.isoformat(), 1), seen

    def _fleet(self, snapshot: Snapshot) -> FleetPanel | None:
        drawn = self._drawn
        if drawn is None or drawn.snapshot is not snapshot:
            fleet = None if snapshot.frame is None else fleet_panel(snapshot, snapshot.frame)
            self._drawn = drawn = _Drawn(snapshot, fleet)
        return drawn.fleet

    def _records(self, identity: Identity, now: datetime) -> Records:
        site, journal = self._site, self._site.journal
        pending = [approval for approval in journal.approvals(open_only=True) if is_open(approval, now)]
        recent = [approval for approval in journal.approvals(limit=_MOST_OPEN) if not is_open(approval, now)]
        incidents = newest_first(
            journal.incidents(open_only=True, limit=_MOST_OPEN), journal.incidents(limit=_MOST_INCIDENTS)
        )
        covers = silenced(site, incidents, now)
        runs = {run.id: run for run in (*journal.runs(active_only=True), *journal.runs(limit=_MOST_RUNS))}
        newest = next(iter(journal.trips(limit=1)), None)
        return Records(
            trip=newest if newest is not None and newest.open else None,
            questions=tuple(
                question(approval, self._incident(approval.incident_id), identity, site.approvers, now)
                for approval in sorted(pending, key=lambda approval: approval.expires_at)
            ),
            answered=tuple(recent[:_MOST_ANSWERED]),
            incidents=tuple(IncidentPanel(*panel) for panel in zip(incidents, covers, strict=True)),
            runs=tuple(
                RunPanel(run, journal.effects(run.id))
                for run in sorted(runs.values(), key=lambda run: run.started_at, reverse=True)
            ),
            silences=tuple(silence_view(silence, now) for silence in journal.silences(unended_at=now)),
            maintenance=tuple(maintenance_view(window, now) for window in site.maintenance),
        )

    def _incident(self, incident_id: str) -> Incident | None:
        try:
            return self._site.journal.incident(incident_id)
        except NotFound:
            return None


async def _form(request: Request) -> dict[str, str]:
    try:
        text = (await read_body(request)).decode()
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=10, strict_parsing=bool(text))
    except ValueError as error:
        raise BadRequest("the form cannot be read") from error
    return {name: values[0] for name, values in fields.items()}


def _render(name: str, **content: object) -> str:
    return _environment.get_template(name).render(version=__version__, **content)


def _age(at: datetime, now: datetime) -> Markup:
    """A time as distance from now; the browser keeps it current."""
    utc = at.astimezone(UTC)
    exact, text = utc.strftime("%Y-%m-%d %H:%M:%S UTC"), _distance((now - at).total_seconds())
    return Markup('<time datetime="{}" title="{}">{}</time>').format(utc.isoformat(), exact, text)


def _span(start: datetime, end: datetime) -> str:
    """From when to when, the day only where it is needed."""
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    day = "" if first.date() == last.date() else "%Y-%m-%d "
    return f"{first:%Y-%m-%d %H:%M:%S} to {last:{day}%H:%M:%S} UTC"


def _distance(seconds: float) -> str:
    span = abs(seconds)
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if span >= 2 * length:
            text = f"{int(span // length)} {unit}"
            break
    else:
        text = f"{int(span)} s"
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def _kilowatts(watts: float) -> str:
    return f"{watts / 1000:.1f}"


_environment = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined)
_environment.trim_blocks = _environment.lstrip_blocks = True
_environment.filters |= {"age": _age, "kilowatts": _kilowatts, "span": _span}
_environment.globals |= {"spark_width": SPARK_WIDTH, "spark_height": SPARK_HEIGHT}
