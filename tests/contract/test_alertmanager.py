"""A real Alertmanager's webhook, with a token from a file, at the real route."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from healer.adapters.http.server import HttpServer
from healer.adapters.journal.sql import SqlJournal
from healer.adapters.push.alertmanager import AlertmanagerWebhook
from healer.config import HttpSettings
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Health
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.runtime.web.auth import ResolvedToken, Role
from healer.telemetry.identity import TopologyRules
from healer.telemetry.notices import HeldNotices
from tests.realparts.alertmanager import Programs, RunningAlertmanager, require
from tests.unit.core_samples import ECC, frame, gpu
from tests.unit.http_samples import leading_journal, snapshot

TOKEN = "the-secret-of-alertmanager"
LABELS = {"alertname": "EccErrors", "severity": "critical", "healer_failure_mode": str(ECC)}
NODE = {**LABELS, "node": "n9"}


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


@pytest.fixture(scope="module")
def programs() -> Programs:
    return require()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqlJournal]:
    journal = leading_journal(tmp_path)
    yield journal
    journal.close()


class Healer:
    """As much of the daemon as takes alerts in; it may be stopped and started."""

    def __init__(self, journal: SqlJournal) -> None:
        self.hook = AlertmanagerWebhook(HeldNotices(TopologyRules(), modes={}))
        self._app = build_app(
            journal=journal,
            board=Board(snapshot()),
            clock=WallClock(),
            approvers=(),
            http=HttpSettings(),
            tokens={"alertmanager": ResolvedToken(Role.SENDER, TOKEN)},
            notices=self.hook,
            console=False,
        )
        port = HttpServer(self._app)
        port.stop()
        self._port = port.port
        self.url = f"{port.url}/api/v1/alerts"

    @contextmanager
    def serving(self) -> Iterator[None]:
        server = HttpServer(self._app, port=self._port)
        server.start()
        try:
            yield
        finally:
            server.stop()

    def health(self, about: str) -> Health | None:
        reports = self.hook.findings(frame(gpu("A")), datetime.now(UTC)).reports
        return next((report.health for report in reports if report.key == f"{ECC}@{about}"), None)

    def is_found(self, about: str) -> Callable[[], bool]:
        return lambda: self.health(about) is Health.FAILED

    def is_over(self, about: str) -> Callable[[], bool]:
        return lambda: self.health(about) is Health.HEALTHY


def test_an_alert_fires_and_is_resolved(programs: Programs, journal: SqlJournal) -> None:
    healer, now = Healer(journal), datetime.now(UTC)
    with healer.serving(), RunningAlertmanager(programs, url=healer.url, token=TOKEN) as alertmanager:
        alertmanager.post(NODE, {**LABELS, "UUID": "A"}, summary="3 errors", starts=now)
        alertmanager.wait_until(healer.is_found("node/n9"), "the node's alert has arrived")
        alertmanager.wait_until(healer.is_found("gpu/A"), "the GPU's alert has arrived")
        found = {f.component.kind: f for f in healer.hook.findings(frame(gpu("A")), datetime.now(UTC)).found}
        assert found[ComponentKind.NODE].component == Component(ComponentKind.NODE, node="n9")
        assert found[ComponentKind.GPU].component == gpu("A")
        assert found[ComponentKind.NODE].reason == "EccErrors: 3 errors"
        (evidence,) = found[ComponentKind.NODE].evidence
        assert abs(evidence.at - now) < timedelta(seconds=1)
        assert evidence.note == "http://prometheus.example/graph?g0.expr=up"
        alertmanager.post(NODE, summary="3 errors", starts=now, ends=datetime.now(UTC))
        alertmanager.wait_until(healer.is_over("node/n9"), "the end of the node's alert has arrived")
        assert healer.health("gpu/A") is Health.FAILED


def test_an_alert_that_ends_while_nobody_listens_is_told_when_somebody_does(
    programs: Programs, journal: SqlJournal
) -> None:
    healer, now = Healer(journal), datetime.now(UTC)
    with RunningAlertmanager(programs, url=healer.url, token=TOKEN) as alertmanager:
        with healer.serving():
            alertmanager.post(NODE, starts=now)
            alertmanager.wait_until(healer.is_found("node/n9"), "the alert has arrived")
        alertmanager.post(NODE, starts=now, ends=datetime.now(UTC))
        alertmanager.wait_until(lambda: alertmanager.failures() > 0, "a delivery has failed")
        assert healer.health("node/n9") is Health.FAILED
        with healer.serving():
            alertmanager.wait_until(healer.is_over("node/n9"), "the end of the alert has arrived")


def test_nothing_is_taken_from_one_that_cannot_prove_itself(programs: Programs, journal: SqlJournal) -> None:
    healer = Healer(journal)
    with healer.serving(), RunningAlertmanager(programs, url=healer.url, token="another") as alertmanager:
        alertmanager.post(NODE, starts=datetime.now(UTC))
        alertmanager.wait_until(lambda: alertmanager.failures() > 0, "a delivery was refused")
        assert healer.hook.told() == {}


def test_what_alertmanager_cuts_off_is_said(programs: Programs, journal: SqlJournal) -> None:
    healer = Healer(journal)
    with healer.serving(), RunningAlertmanager(programs, url=healer.url, token=TOKEN, max_alerts=1) as alertmanager:
        alertmanager.post(*({**LABELS, "node": f"n{n}"} for n in range(3)), starts=datetime.now(UTC))
        alertmanager.wait_until(lambda: bool(healer.hook.warnings(datetime.now(UTC))), "a notification has arrived")
        (warning,) = healer.hook.warnings(datetime.now(UTC))
        assert warning.startswith("2 alerts of ")


def test_an_alert_that_goes_on_is_repeated_and_counts_on(programs: Programs, journal: SqlJournal) -> None:
    healer = Healer(journal)
    with healer.serving(), RunningAlertmanager(programs, url=healer.url, token=TOKEN, repeat="1s") as alertmanager:
        alertmanager.post(NODE, starts=datetime.now(UTC))
        alertmanager.wait_until(lambda: healer.hook.told().get("held", 0) >= 2, "it was told twice")
        assert healer.is_found("node/n9")()
