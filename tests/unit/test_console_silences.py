"""Silences in the console: what the page shows of them, and how an approver makes and ends one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode

import pytest

from healer.adapters.journal.sql import SqlJournal
from healer.config import HttpSettings
from healer.domain.incident import Incident, IncidentState
from healer.domain.maintenance import MaintenanceWindow, Once, Period
from healer.domain.matcher import matchers_in
from healer.domain.silence import Silence
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.runtime.web.auth import ResolvedToken, Role, local_person
from tests.unit.http_samples import ALICE, NOW, Client, SetClock, incident, snapshot

OPEN = HttpSettings(auth="none")
TOKENS = {"viv": ResolvedToken(Role.VIEWER, "viewer-secret")}
OWN_PAGE = {"origin": "http://127.0.0.1:8470", "content-type": "application/x-www-form-urlencoded"}
HOSTILE = "<script>alert(1)</script>&\"'"
HOUR = timedelta(hours=1)

MakeClient = Callable[..., Client]


@pytest.fixture
def client(journal: SqlJournal) -> MakeClient:
    def make(
        board: Board | None = None,
        *,
        http: HttpSettings = OPEN,
        clock: SetClock | None = None,
        maintenance: Sequence[MaintenanceWindow] = (),
    ) -> Client:
        app = build_app(
            journal=journal,
            board=board or Board(snapshot()),
            clock=clock or SetClock(),
            approvers=(),
            http=http,
            tokens=TOKENS,
            maintenance=maintenance,
        )
        return Client(app)

    return make


def form(**fields: str) -> bytes:
    return urlencode(fields).encode()


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def saved(journal: SqlJournal, *incidents: Incident) -> Incident:
    with journal.transaction() as write:
        for each in incidents:
            write.save_incident(each)
    return incidents[0]


def silence(*matchers: str, starts: float = -1, reason: str = "cables") -> Silence:
    begin = NOW + starts * HOUR
    return Silence("sil-1", matchers_in(matchers), begin, begin + 3 * HOUR, ALICE, reason, NOW - HOUR)


def window(*matchers: str, starts: float = -1) -> MaintenanceWindow:
    begin = NOW + starts * HOUR
    return MaintenanceWindow("cooling", matchers_in(matchers), Once(Period(begin, begin + 3 * HOUR)), "the pumps")


# Showing


def test_without_silences_it_says_so(client: MakeClient) -> None:
    assert "Silences 0 active Nothing is silenced." in text_of(client().get("/").text)


def test_silences_and_windows_are_listed_with_what_by_whom_and_why(client: MakeClient, journal: SqlJournal) -> None:
    journal.add_silence(silence("rack=rack-0", "kind=gpu"))
    journal.add_silence(replace(silence("rack=rack-1", starts=1), id="sil-2"))
    journal.add_silence(replace(silence("rack=rack-2", starts=-3), id="sil-3"))
    windows = [window("rack=rack-1"), replace(window("rack=rack-9", starts=2), name="later")]
    text = text_of(client(maintenance=windows).get("/").text).replace("&#34;", '"')
    assert "Silences 2 active" in text
    assert 'rack="rack-0" kind="gpu" active alice: cables in 2 h' in text
    assert 'rack="rack-1" pending alice: cables in 60 min' in text
    assert "sil-3" not in text
    assert 'rack="rack-1" active cooling: the pumps in 2 h' in text
    assert 'rack="rack-9" not now later: the pumps' in text


def test_an_incident_is_shown_as_silenced_by_whom_until_when_and_why(client: MakeClient, journal: SqlJournal) -> None:
    saved(journal, incident(node=1), incident(node=5))
    journal.add_silence(silence("node=node-01"))
    html = client(maintenance=[window("rack=rack-1")]).get("/").text
    assert html.count(">silenced</b>") == 2
    text = text_of(html)
    assert "Silenced by alice (slack:U024BE7LH), ends in 2 h : cables sil-1" in text
    assert "Silenced by the maintenance window cooling, ends in 2 h : the pumps cooling" in text


def test_what_others_wrote_stays_text(client: MakeClient, journal: SqlJournal) -> None:
    saved(journal, incident())
    journal.add_silence(replace(silence("rack=rack-0", f"node!={HOSTILE}"), reason=HOSTILE))
    html = client(maintenance=[replace(window("rack=rack-0"), reason=HOSTILE)]).get("/").text
    assert "<script>" not in html.replace('<script src="/static/', "")
    assert "alert(1)" in html


def test_the_page_is_sent_anew_when_a_silence_begins_and_when_it_ends(client: MakeClient, journal: SqlJournal) -> None:
    saved(journal, incident())
    clock = SetClock(NOW + HOUR / 2)
    board = Board(snapshot())
    page = client(board, clock=clock)
    journal.add_silence(silence("node=node-01", starts=1))
    shown = []
    for hours in (0.5, 0.9, 1.0, 3.9, 4.0):
        clock.at = NOW + hours * HOUR
        board.pin(snapshot(at=clock.at))
        mark = re.findall(r"seen=([0-9a-f]{16})", page.get("/live").text)[0]
        clock.at += timedelta(seconds=30)
        assert page.get(f"/live?seen={mark}").status_code == 204
        shown.append("silenced</b>" in page.get("/live").text)
    assert shown == [False, False, True, True, False]


# Making and expiring


@pytest.mark.parametrize(("duration", "hours"), [("1h", 1), ("4h", 4), ("1d", 24)])
def test_an_incident_s_component_is_silenced_for_a_while(
    client: MakeClient, journal: SqlJournal, duration: str, hours: int
) -> None:
    found = saved(journal, incident(node=1, index=3))
    page = client().get("/").text
    assert f'action="/incidents/{found.id}/silence" id="silence-{found.id}" hx-preserve="true"' in page
    assert "Silence uuid=&#34;GPU-00010003&#34;" in text_of(page)
    path = f"/incidents/{found.id}/silence"
    response = client().post(path, headers=OWN_PAGE, content=form(duration=duration, reason="cables"))
    assert (response.status_code, response.headers["location"]) == (303, "/")
    (made,) = journal.silences()
    assert [str(matcher) for matcher in made.matchers] == ['uuid="GPU-00010003"']
    assert (made.starts_at, made.ends_at) == (NOW, NOW + hours * HOUR)
    assert (made.created_by, made.reason) == (local_person(), "cables")
    html = client().get("/").text
    assert ">silenced</b>" in html
    assert path not in html
    assert f"/silences/{made.id}/expire" in html


def test_what_has_ended_needs_no_silence(client: MakeClient, journal: SqlJournal) -> None:
    saved(journal, replace(incident(), state=IncidentState.ESCALATED))
    assert "/silence" not in client().get("/").text.replace("/silences/", "")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(duration="1h", reason=" "), 422),
        (form(duration="1h"), 422),
        (form(duration="9d", reason="x"), 422),
        (form(reason="x"), 422),
        (b"\xff=1", 400),
    ],
    ids=["no words", "no reason", "another duration", "no duration", "no form"],
)
def test_a_form_that_is_not_complete_silences_nothing(
    client: MakeClient, journal: SqlJournal, body: bytes, status: int
) -> None:
    found = saved(journal, incident())
    response = client().post(f"/incidents/{found.id}/silence", headers=OWN_PAGE, content=body)
    assert response.status_code == status
    assert "Back to the overview" in response.text
    assert journal.silences() == ()


def test_what_is_not_there_is_not_silenced(client: MakeClient) -> None:
    for path in ("/incidents/inc-9/silence", "/incidents/a%20b/silence", "/silences/sil-9/expire"):
        body = form(duration="1h", reason="x")
        assert client().post(path, headers=OWN_PAGE, content=body).status_code == 404


def test_a_silence_is_expired_with_a_reason(client: MakeClient, journal: SqlJournal) -> None:
    journal.add_silence(silence("rack=rack-0"))
    path = "/silences/sil-1/expire"
    assert client().post(path, headers=OWN_PAGE, content=form(reason=" ")).status_code == 422
    assert client().post(path, headers=OWN_PAGE, content=form(reason="done early")).status_code == 303
    assert journal.silence("sil-1").expired_by == local_person()
    assert client().post(path, headers=OWN_PAGE, content=form(reason="again")).status_code == 409
    assert "Nothing is silenced." in client().get("/").text


@pytest.mark.parametrize("headers", [{}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_another_site_s_form_changes_nothing(client: MakeClient, journal: SqlJournal, headers: dict[str, str]) -> None:
    found = saved(journal, incident())
    journal.add_silence(silence("rack=rack-9"))
    for path in (f"/incidents/{found.id}/silence", "/silences/sil-1/expire"):
        response = client().post(path, headers=headers, content=form(duration="1h", reason="x"))
        assert response.status_code == 403
    assert journal.silences() == (silence("rack=rack-9"),)


def test_a_viewer_sees_silences_but_no_forms(client: MakeClient, journal: SqlJournal) -> None:
    found = saved(journal, incident(node=1))
    journal.add_silence(silence("node=node-06"))
    page = client(http=HttpSettings())
    login = page.post("/login", headers=OWN_PAGE, content=form(token="viewer-secret"))
    session = {**OWN_PAGE, "cookie": login.headers["set-cookie"].partition(";")[0]}
    html = page.get("/", **session).text
    assert "cables" in html
    assert "/silence" not in html
    for path in (f"/incidents/{found.id}/silence", "/silences/sil-1/expire"):
        assert page.post(path, headers=session, content=form(duration="1h", reason="x")).status_code == 403
