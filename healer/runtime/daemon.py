"""The daemon: leads, keeps the loops going, serves HTTP, and stops cleanly. It decides nothing."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from starlette.applications import Starlette

from healer.adapters.http.server import HttpServer
from healer.adapters.push.alertmanager import AlertmanagerWebhook
from healer.adapters.push.remote_write import RemoteWrite
from healer.adapters.slack.channel import open_interactions
from healer.config import Config
from healer.errors import Conflict, Fenced, HealerError
from healer.ports import Clock, Journal
from healer.runtime.operator import Operator, failed_turn
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.runtime.web.auth import resolve_tokens

_PURSUIT = timedelta(seconds=1)
_HEARTBEAT = timedelta(seconds=5)
_LEASE = timedelta(seconds=20)
_SHORTEST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Intake:
    """What takes in what others send; None is not switched on."""

    receiver: RemoteWrite | None = None
    notices: AlertmanagerWebhook | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Daemon:
    """Attributes:
    stopping: set by a signal, or by the daemon itself when it is fenced.
    pursuit: how often runs and answers are looked at.
    """

    config: Config
    operator: Operator
    journal: Journal
    board: Board
    clock: Clock
    stopping: threading.Event
    console: bool = True
    intake: Intake = Intake()
    pursuit: timedelta = _PURSUIT

    def run(self, *, started: Callable[[int], None] = lambda _port: None) -> None:
        """Lead and work until `stopping` is set.

        Args:
            started: called with the HTTP port once everything works.

        Raises:
            Conflict: another process leads.
            Fenced: another process took over meanwhile.
            Unavailable: the journal, or the address to listen on.
        """
        holder = f"{socket.gethostname()}:{os.getpid()}"
        self.journal.lead(holder, self.clock.now(), _LEASE)
        http = self.config.http
        # The application logs its own failures, with the id that the client was given.
        server = HttpServer(self._app(), http.host, http.port, hint="change http.listen", log_level="critical")
        port = server.start()
        fenced: list[Fenced] = []

        def end(error: Fenced) -> None:
            fenced.append(error)
            self.stopping.set()

        scheduler = self._scheduler(holder, end)
        try:
            scheduler.start()
            _log.info("started", mode=str(self.config.mode), listen=f"{http.host}:{port}", holder=holder)
            started(port)
            self.stopping.wait()
        finally:
            scheduler.shutdown(wait=True)
            server.stop()
        if fenced:
            raise fenced[0]

    def _scheduler(self, holder: str, end: Callable[[Fenced], None]) -> BackgroundScheduler:
        # A thread for each loop: a telemetry source that hangs must not hold up a drain, nor Slack either of them.
        scheduler = BackgroundScheduler(executors={"default": ThreadPoolExecutor(4)}, timezone="UTC")
        # A turn keeps its interval, and that it failed is shown.
        turn = _Loop("turn", self.operator.turn, end, failed=partial(failed_turn, self.board), longest_pause_s=0.0)
        for loop, every in (
            (turn, self.config.telemetry.interval),
            (_Loop("pursue", self.operator.pursue, end), self.pursuit),
            (_Loop("announce", self.operator.announce, end), self.pursuit),
            (_Loop("lead", partial(self._lead, holder), end), _HEARTBEAT),
        ):
            scheduler.add_job(
                loop.once,
                "interval",
                seconds=every.total_seconds(),
                next_run_time=self.clock.now(),
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,
            )
        return scheduler

    def _lead(self, holder: str) -> None:
        try:
            self.journal.lead(holder, self.clock.now(), _LEASE)
        except Conflict as error:
            raise Fenced(str(error)) from error

    def _app(self) -> Starlette:
        http, slack = self.config.http, self.config.approvals.slack
        return build_app(
            journal=self.journal,
            board=self.board,
            clock=self.clock,
            approvers=self.config.approvals.approvers,
            http=http,
            tokens=resolve_tokens(http),
            slack=open_interactions(slack) if slack is not None else None,
            receiver=self.intake.receiver,
            notices=self.intake.notices,
            console=self.console,
            interval=self.config.telemetry.interval,
            silences=self.config.detectors.silences,
            maintenance=self.config.detectors.windows(),
        )


class _Loop:
    """One loop's body behind the one boundary that nothing passes but the end of the process.

    A loop that fails again and again is run less often: what it asks may be down for long.

    Attributes:
        end: told that another process leads.
        failed: told of every failure.
    """

    def __init__(
        self,
        name: str,
        body: Callable[[], None],
        end: Callable[[Fenced], None],
        *,
        failed: Callable[[Exception], None] = lambda _error: None,
        longest_pause_s: float = _LONGEST_PAUSE_S,
    ) -> None:
        self._name = name
        self._body = body
        self._end = end
        self._failed = failed
        self._longest_pause_s = longest_pause_s
        self._trouble = ""
        self._pause_s = 0.0
        self._resumes_at = 0.0

    def once(self) -> None:
        if time.monotonic() < self._resumes_at:
            return
        try:
            self._body()
        except Fenced as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 - a turn may fail for any reason; the next one starts from what is observed then
            self._report(error)
        else:
            if self._trouble:
                _log.info("works again", loop=self._name)
            self._trouble, self._pause_s = "", 0.0

    def _report(self, error: Exception) -> None:
        """Log the trouble once, not every turn."""
        self._failed(error)
        if str(error) != self._trouble:
            unexpected = not isinstance(error, HealerError)
            _log.error("loop failed", loop=self._name, error=str(error), exc_info=error if unexpected else None)
        self._trouble = str(error)
        self._pause_s = min(self._longest_pause_s, 2 * self._pause_s or _SHORTEST_PAUSE_S)
        self._resumes_at = time.monotonic() + self._pause_s
