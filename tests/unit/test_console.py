from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest

from healer.adapters.journal.sql import SqlJournal
from healer.config import HttpSettings
from healer.domain.approval import Approval, ApprovalState, Person
from healer.domain.component import ComponentKind
from healer.domain.finding import FailureMode, Findings, Health, Judgement
from healer.domain.fleet import Fleet
from healer.domain.plan import Effect
from healer.domain.playbook import Asking, Escalation
from healer.domain.run import RunState
from healer.domain.verdict import Mode
from healer.errors import Unavailable
from healer.ports import Journal
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.runtime.web.auth import ResolvedToken, Role, local_person
from tests.unit.http_samples import (
    ALICE,
    NOW,
    Client,
    SetClock,
    approval,
    fill,
    incident,
    run,
    snapshot,
)

OPEN = HttpSettings(auth="none")
GUARDED = HttpSettings()
TOKENS = {"viv": ResolvedToken(Role.VIEWER, "viewer-secret"), "bob": ResolvedToken(Role.APPROVER, "approver-secret")}
OWN_PAGE = {"origin": "http://127.0.0.1:8470", "content-type": "application/x-www-form-urlencoded"}
HOSTILE = "<script>alert(1)</script>&\"'"

MakeClient = Callable[..., Client]


class Page(HTMLParser):
    """What a reader gets of a page: its text, its links to resources, its cells by label."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.labels: list[str] = []
        self.classes: list[str] = []
        self.resources: list[str] = []
        self.handlers: list[str] = []
        self.tags: list[str] = []
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " " * (tag == "td")
        for name, value in attrs:
            if name == "aria-label":
                self.labels.append(value or "")
            if name == "class":
                self.classes.append(value or "")
            if name in {"src", "href", "action", "hx-get"}:
                self.resources.append(value or "")
            if name.startswith("on") or name == "style":
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def client(journal: SqlJournal) -> MakeClient:
    def make(
        board: Board | None = None,
        *,
        http: HttpSettings = OPEN,
        approvers: tuple[str, ...] = (local_person().id, "token:bob"),
        clock: SetClock | None = None,
        records: Journal = journal,
    ) -> Client:
        return Client(
            build_app(
                journal=records,
                board=board or Board(snapshot()),
                clock=clock or SetClock(),
                approvers=approvers,
                http=http,
                tokens=TOKENS,
            )
        )

    return make


def form(**fields: str) -> bytes:
    return urlencode(fields).encode()


def log_in(client: Client, secret: str) -> dict[str, str]:
    """The headers of a browser that is logged in and shows our own page."""
    response = client.post("/login", headers=OWN_PAGE, content=form(token=secret))
    assert response.status_code == 303
    return {**OWN_PAGE, "cookie": response.headers["set-cookie"].partition(";")[0]}


def put_to_a_group(journal: SqlJournal, who: tuple[str, ...] = (ALICE.id, local_person().id)) -> None:
    """Two of a group have to agree; in ten minutes others may, too."""
    fill(journal)
    asking = Asking(("gpu-oncall",), 2, Escalation(timedelta(minutes=12), ("gpu-leads",)))

    def put(asked: Approval) -> Approval:
        plan, later = replace(asked.plan, asking=asking), NOW + timedelta(minutes=10)
        return replace(asked, plan=plan, who=who, quorum=2, escalate_at=later, escalate_to=("token:cara",))

    with journal.transaction() as write:
        write.change_approval("apr-1", put)


class TestEmptyStates:
    def test_without_incidents_it_says_what_was_observed_and_when(self, client: MakeClient) -> None:
        assert "No incidents: 64 of 64 GPUs observed healthy 3 s ago." in Page(client().get("/").text).text

    def test_before_the_first_turn_nothing_looks_healthy(self, client: MakeClient) -> None:
        page = Page(client(Board(snapshot(at=None, last_error="Prometheus: refused"))).get("/").text)
        assert "No telemetry yet: Prometheus: refused" in page.text
        assert "nothing is being observed either" in page.text
        assert "observed healthy" not in page.text

    def test_telemetry_without_gpus_is_not_an_empty_healthy_fleet(self, client: MakeClient) -> None:
        page = Page(client(Board(replace(snapshot(nodes=0), fleet=None))).get("/").text)
        assert "none of its series name a GPU" in page.text

    def test_in_observe_it_says_that_nothing_will_be_asked_or_done(self, client: MakeClient) -> None:
        page = Page(client(Board(snapshot(mode=Mode.OBSERVE))).get("/").text)
        assert "In mode observe nothing is asked" in page.text
        assert "In mode observe none will" in page.text

    def test_a_journal_that_does_not_answer_is_not_an_empty_journal(
        self, client: MakeClient, journal: SqlJournal
    ) -> None:
        page = Page(client(records=Dumb(journal)).get("/").text)
        assert "Incidents, approvals and runs are unknown, not empty." in page.text
        assert "No incidents" not in page.text
        assert "Nothing waits" not in page.text


class Dumb(SqlJournal):
    """A journal whose database has gone away."""

    def __init__(self, like: SqlJournal) -> None:
        self.__dict__ = like.__dict__

    def approvals(self, *, open_only: bool = False, limit: int = 1000) -> tuple[Approval, ...]:
        raise Unavailable("journal", f"connection refused (asked for {limit}, {open_only=})")


class TestFleet:
    def test_every_condition_has_its_own_word_and_glyph(self, client: MakeClient) -> None:
        board = Board(
            snapshot(
                ecc={1: Health.FAILED, 3: Health.UNKNOWN},
                anomaly={2: Health.DEGRADED, 3: Health.UNKNOWN, 4: Health.UNKNOWN},
            )
        )
        html = client(board).get("/").text
        labels = Page(html).labels
        first = [f"GPU {index} {words}" for index, words in enumerate(("healthy", "failed", "degraded", "unknown"))]
        assert labels[labels.index("GPU 0 healthy") :][:5] == [*first, "GPU 4 partly observed"]
        glyphs = {
            c: re.findall(rf'<i class="gpu {c}" role="img"[^>]*>(.*?)</i>', html)[0]
            for c in ("healthy", "partial", "degraded", "failed", "unknown")
        }
        assert len(set(glyphs.values())) == 5

    def test_a_gpu_that_no_detector_judged_is_unknown(self, client: MakeClient) -> None:
        shown = snapshot()
        for findings in (
            Findings(),
            Findings((), (Judgement(FailureMode.GPU_ANOMALY, ComponentKind.GPU, np.zeros(3, dtype=np.int8)),)),
        ):
            page = Page(client(Board(replace(shown, findings=findings))).get("/").text)
            assert page.labels.count("GPU 0 unknown") == 8
            assert "0 of 64 GPUs observed healthy" in page.text

    def test_a_loop_that_stands_still_takes_the_colour_from_the_fleet(self, client: MakeClient) -> None:
        page = Page(client(Board(snapshot(at=NOW - timedelta(minutes=20)))).get("/").text)
        assert "Not keeping up: no turn has ended for 1200 s" in page.text
        assert "as it was, not as it is" in page.text
        assert "fleet stale" in page.classes
        assert "observed healthy" not in page.text

    def test_figures_that_are_not_known_are_called_unknown(self, client: MakeClient) -> None:
        html = client().get("/").text
        assert "temperature unknown" in html
        assert "nan" not in Page(html).text.lower()

    def test_a_rack_whose_power_is_not_known_says_so(self, client: MakeClient) -> None:
        shown = snapshot()
        assert shown.frame is not None
        racks = replace(shown.frame.racks, power_w=np.full_like(shown.frame.racks.power_w, np.nan))
        page = Page(client(Board(replace(shown, frame=replace(shown.frame, racks=racks)))).get("/").text)
        assert page.text.count("power unknown of 36.0 kW") == 2

    def test_warnings_and_a_silent_scheduler_are_shown(self, client: MakeClient) -> None:
        shown = snapshot(warnings=("node-05:9400 did not answer", "7 series name no GPU"))
        page = Page(client(Board(replace(shown, fleet=Fleet(NOW, problem="kube: timed out")))).get("/").text)
        assert "2 telemetry warnings: node-05:9400 did not answer" in page.text
        assert "7 series name no GPU" in page.text
        assert "The scheduler could not be asked: kube: timed out" in page.text

    def test_a_rack_over_its_budget_says_so_in_words(self, client: MakeClient) -> None:
        shown = snapshot()
        assert shown.frame is not None
        racks = replace(shown.frame.racks, budget_w=np.array([20_000.0, np.nan]))
        page = Page(client(Board(replace(shown, frame=replace(shown.frame, racks=racks)))).get("/").text)
        assert "of 20.0 kW over budget" in page.text
        assert page.text.count("over budget") == 1

    def test_a_large_fleet_draws_every_node_with_something_to_see_and_counts_the_others(
        self, client: MakeClient
    ) -> None:
        unknown = {8 * 30: Health.UNKNOWN}
        board = Board(snapshot(nodes=300, ecc={8 * 201 + 3: Health.FAILED, **unknown}, anomaly=unknown))
        page = Page(client(board).get("/").text)
        assert [label for label in page.labels if label.startswith("GPU 3 ") or label == "GPU 0 unknown"] == [
            "GPU 3 healthy",  # node-05, which is cordoned
            "GPU 0 unknown",
            "GPU 3 healthy",
            "GPU 3 failed",
        ]
        assert "more racks, nothing to see on them" in page.text
        assert "2398 healthy" in page.text


class TestRecords:
    def test_a_question_shows_all_that_would_be_done(self, client: MakeClient, journal: SqlJournal) -> None:
        asked, _, _ = fill(journal)
        text = Page(client().get("/").text).text
        for part in (
            "drain-node on node node-01",
            "2 uncorrectable ECC errors in 10 minutes",
            "cordon node-01",
            "evict training/Job/llm-pretrain pod llm-pretrain-3-x7k2p; restarts from its checkpoint",
            "evict serving/ReplicaSet/chat-7d9f",
            "serving/chat-pdb allows no disruption now",
            "fleet: 2 of 2 nodes out with this plan",
            "in 28 min; unanswered means no",
            approval(asked).digest[:12],
        ):
            assert part in text, part

    def test_an_expired_question_is_no_longer_asked(self, client: MakeClient, journal: SqlJournal) -> None:
        fill(journal)
        page = Page(client(clock=SetClock(NOW + timedelta(minutes=28))).get("/").text)
        assert "/approvals/apr-1" not in page.resources

    def test_incidents_say_why_nothing_is_done_about_them(self, client: MakeClient, journal: SqlJournal) -> None:
        fill(journal)
        text = Page(client().get("/").text).text
        assert "Held by basis: the plan rests on a learnt score alone; lifts when a rule or a second" in text

    def test_runs_show_their_steps_and_effects(self, client: MakeClient, journal: SqlJournal) -> None:
        fill(journal)
        page = Page(client().get("/").text)
        assert "keep-work-away cordon done empty drain current check verify waiting" in page.text
        assert "evict/training/llm-pretrain-3-x7k2p/9f3a done" in page.text
        assert "/runs/run-1/cancel" in page.resources

    @pytest.mark.parametrize(
        ("state", "marks"),
        [
            (RunState.SUCCEEDED, "done done done"),
            (RunState.FAILED, "done stopped waiting"),
            (RunState.UNDOING, "done current waiting"),
        ],
    )
    def test_the_steps_tell_how_far_a_run_came(
        self, client: MakeClient, journal: SqlJournal, state: RunState, marks: str
    ) -> None:
        with journal.transaction() as transaction:
            transaction.save_incident(incident())
            transaction.add_run(run(incident(), state=state), [])
        text = Page(client().get("/").text).text
        steps = re.findall(r"(?:cordon|drain|verify) (done|current|stopped|waiting)", text)
        assert " ".join(steps) == marks

    def test_what_others_wrote_stays_text(self, client: MakeClient, journal: SqlJournal) -> None:
        hostile = replace(incident(), reasons=(HOSTILE,), story=HOSTILE)
        asked = approval(hostile, effects=(Effect("evict", HOSTILE, HOSTILE),))
        with journal.transaction() as transaction:
            transaction.save_incident(hostile)
            transaction.add_approval(replace(asked, plan=replace(asked.plan, impediments=(HOSTILE,), budget=HOSTILE)))
            transaction.add_run(replace(run(hostile), detail=HOSTILE, cause=HOSTILE), [])
        board = Board(snapshot(warnings=(HOSTILE,), last_error=HOSTILE))
        page = Page(client(board).get("/").text)
        assert "<script>" not in client(board).get("/").text.replace('<script src="/static/', "")
        assert page.tags.count("script") == 2
        assert page.text.count("<script>alert(1)</script>") >= 8

    def test_the_page_needs_nothing_from_elsewhere_and_no_inline_code(
        self, client: MakeClient, journal: SqlJournal
    ) -> None:
        fill(journal)
        response = client().get("/")
        page = Page(response.text)
        assert page.handlers == []
        assert all(link.startswith("/") and not link.startswith("//") for link in page.resources)
        for link in page.resources:
            if link.startswith("/static/"):
                assert client().get(link).status_code == 200


class TestPolling:
    def seen(self, html: str) -> str:
        match = re.search(r'hx-get="(/live\?seen=[0-9a-f]{16})"', html)
        assert match is not None
        return match[1]

    def test_what_the_reader_has_already_is_not_sent_again(self, client: MakeClient, journal: SqlJournal) -> None:
        fill(journal)
        clock = SetClock()
        page = client(clock=clock)
        again = self.seen(page.get("/").text)
        clock.at += timedelta(seconds=30)
        response = page.get(again)
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["x-healer-now"] == clock.at.isoformat()

    def test_what_has_changed_is_sent(self, client: MakeClient, journal: SqlJournal) -> None:
        page = client()
        again = self.seen(page.get("/").text)
        fill(journal)
        response = page.get(again)
        assert response.status_code == 200
        assert "drain-node on node node-01" in Page(response.text).text
        assert page.get(self.seen(response.text)).status_code == 204

    def test_a_new_turn_is_sent(self, client: MakeClient) -> None:
        board = Board(snapshot())
        page = client(board)
        again = self.seen(page.get("/").text)
        board.pin(snapshot(ecc={0: Health.FAILED}))
        assert "GPU 0 failed" in Page(page.get(again).text).labels

    def test_the_field_that_somebody_types_in_is_kept_by_the_page(
        self, client: MakeClient, journal: SqlJournal
    ) -> None:
        fill(journal)
        assert re.search(r'<form [^>]*id="answer-apr-1" hx-preserve="true"', client().get("/").text)


class TestAnswering:
    @pytest.mark.parametrize(("answer", "state"), [("approve", ApprovalState.APPROVED), ("deny", ApprovalState.DENIED)])
    def test_an_answer_is_recorded_and_leads_back(
        self, client: MakeClient, journal: SqlJournal, answer: str, state: ApprovalState
    ) -> None:
        fill(journal)
        response = client().post("/approvals/apr-1", headers=OWN_PAGE, content=form(answer=answer, reason="ok by me"))
        assert (response.status_code, response.headers["location"]) == (303, "/")
        kept = journal.approval("apr-1")
        assert (kept.state, kept.decided_by, kept.reason) == (state, local_person(), "ok by me")
        assert "ok by me" in Page(client().get("/").text).text

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (form(answer="approve", reason=""), 422),
            (form(answer="approve", reason="   "), 422),
            (form(answer="approve"), 422),
            (form(answer="maybe", reason="x"), 422),
            (form(reason="x"), 422),
            (b"", 422),
            (b"answer", 400),
            (b"\xff=1", 400),
            (b"&".join([b"a=1"] * 11), 400),
            (b"answer=approve&reason=" + b"x" * (1 << 20), 413),
        ],
        ids=range(10),
    )
    def test_an_answer_that_is_not_complete_changes_nothing(
        self, client: MakeClient, journal: SqlJournal, body: bytes, status: int
    ) -> None:
        fill(journal)
        response = client().post("/approvals/apr-1", headers=OWN_PAGE, content=body)
        assert response.status_code == status
        assert "Back to the overview" in response.text
        assert journal.approval("apr-1").state is ApprovalState.PENDING

    @pytest.mark.parametrize(
        "headers", [{}, {"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
    )
    @pytest.mark.parametrize("path", ["/approvals/apr-1", "/runs/run-1/cancel"])
    def test_another_site_s_form_changes_nothing(
        self, client: MakeClient, journal: SqlJournal, path: str, headers: dict[str, str]
    ) -> None:
        fill(journal)
        page = client(http=GUARDED)
        for asking, cookies in ((client(), {}), (page, {"cookie": log_in(page, "approver-secret")["cookie"]})):
            response = asking.post(path, headers={**cookies, **headers}, content=form(answer="approve", reason="x"))
            assert response.status_code == 403
        assert journal.approval("apr-1").state is ApprovalState.PENDING
        assert journal.run("run-1").cancelled_by == ""

    def test_a_second_answer_and_an_unknown_one_get_a_page_that_says_so(
        self, client: MakeClient, journal: SqlJournal
    ) -> None:
        fill(journal)
        answer = form(answer="approve", reason="x")
        client().post("/approvals/apr-1", headers=OWN_PAGE, content=answer)
        again = client().post("/approvals/apr-1", headers=OWN_PAGE, content=answer)
        assert again.status_code == 409
        assert "was already approved by" in Page(again.text).text
        assert client().post("/approvals/apr-9", headers=OWN_PAGE, content=answer).status_code == 404

    def test_who_is_not_listed_sees_why_instead_of_buttons(self, client: MakeClient, journal: SqlJournal) -> None:
        fill(journal)
        page = Page(client(approvers=()).get("/").text)
        assert "You cannot answer: nobody may answer: approvals.approvers is empty" in page.text
        assert "/approvals/apr-1" not in page.resources
        refused = client(approvers=()).post(
            "/approvals/apr-1", headers=OWN_PAGE, content=form(answer="approve", reason="x")
        )
        assert refused.status_code == 403

    def test_a_question_to_a_group_says_who_is_asked_who_has_agreed_and_when_it_goes_on(
        self, client: MakeClient, journal: SqlJournal
    ) -> None:
        put_to_a_group(journal)
        journal.decide("apr-1", Person(ALICE.id, HOSTILE), NOW, approve=True, reason="seen")
        text = Page(client().get("/").text).text
        assert f"Agreed1 of 2: {HOSTILE} (slack:U024BE7LH) 0 s ago" in text
        assert f"May answergpu-oncall {ALICE.id}, {local_person().id}" in text
        assert "Escalatesin 10 min, to gpu-leads token:cara" in text

    def test_who_has_agreed_can_only_deny(self, client: MakeClient, journal: SqlJournal) -> None:
        put_to_a_group(journal)
        answer = form(answer="approve", reason="x")
        assert ">Agree</button>" in client().get("/").text
        assert client().post("/approvals/apr-1", headers=OWN_PAGE, content=answer).status_code == 303
        page = client().get("/").text
        assert 'value="approve"' not in page
        assert 'value="deny"' in page
        assert "You can only deny: " in page
        assert client().post("/approvals/apr-1", headers=OWN_PAGE, content=answer).status_code == 409
        assert journal.approval("apr-1").missing == 1

    def test_all_who_agreed_are_named_when_it_is_approved(self, client: MakeClient, journal: SqlJournal) -> None:
        put_to_a_group(journal)
        for person in (ALICE, local_person()):
            journal.decide("apr-1", person, NOW, approve=True, reason="seen")
        assert (
            f"approved drain-node on node node-01 by {ALICE} and {local_person()}" in Page(client().get("/").text).text
        )

    def test_who_was_not_asked_sees_why_instead_of_buttons(self, client: MakeClient, journal: SqlJournal) -> None:
        put_to_a_group(journal, who=(ALICE.id,))
        page = Page(client().get("/").text)
        assert f"You cannot answer: {local_person()} is not among those whom apr-1 was put to" in page.text
        assert "/approvals/apr-1" not in page.resources

    def test_a_run_is_cancelled_with_a_reason(self, client: MakeClient, journal: SqlJournal) -> None:
        fill(journal)
        assert client().post("/runs/run-1/cancel", headers=OWN_PAGE, content=form(reason=" ")).status_code == 422
        assert client().post("/runs/run-1/cancel", headers=OWN_PAGE, content=form(reason="stop")).status_code == 303
        assert journal.run("run-1").cancelled_by.endswith("stop")

    def test_a_run_is_paused_and_resumed_with_a_reason(self, client: MakeClient, journal: SqlJournal) -> None:
        fill(journal)
        assert client().post("/runs/run-1/pause", headers=OWN_PAGE, content=form(reason="look")).status_code == 303
        page = Page(client().get("/").text)
        assert "Paused by" in page.text
        assert client().post("/runs/run-1/resume", headers=OWN_PAGE, content=form(reason="well")).status_code == 303
        assert journal.run("run-1").paused_by == ""
        assert client().post("/runs/run-1/forget", headers=OWN_PAGE, content=form(reason="x")).status_code == 404

    def test_answers_given_elsewhere_are_shown_with_who_and_why(self, client: MakeClient, journal: SqlJournal) -> None:
        fill(journal)
        journal.decide("apr-1", Person(ALICE.id, HOSTILE), NOW, approve=False, reason="the BMC is quiet")
        text = Page(client().get("/").text).text
        assert f"denied drain-node on node node-01 by {HOSTILE} (slack:U024BE7LH) 0 s ago: the BMC is quiet" in text


class TestLoggingIn:
    def test_a_stranger_is_led_to_the_login(self, client: MakeClient) -> None:
        page = client(http=GUARDED)
        assert page.get("/").headers["location"] == "/login"
        poll = page.get("/live", **{"hx-request": "true"})
        assert (poll.status_code, poll.headers["hx-redirect"]) == (401, "/login")
        assert page.get("/login").status_code == 200

    def test_a_session_reads_what_its_token_may(self, client: MakeClient, journal: SqlJournal) -> None:
        fill(journal)
        page = client(http=GUARDED)
        shown = Page(page.get("/", **log_in(page, "viewer-secret")).text)
        assert "token:viv · viewer" in shown.text
        assert "You cannot answer: Your role is viewer: answering needs approver." in shown.text
        assert page.get("/api/v1/incidents", **log_in(page, "viewer-secret")).status_code == 200

    def test_a_session_answers_in_the_name_of_its_token(self, client: MakeClient, journal: SqlJournal) -> None:
        fill(journal)
        page = client(http=GUARDED)
        page.post(
            "/approvals/apr-1", headers=log_in(page, "approver-secret"), content=form(answer="deny", reason="quiet")
        )
        assert journal.approval("apr-1").decided_by == Person("token:bob")

    def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites_and_is_not_the_token(
        self, client: MakeClient
    ) -> None:
        response = client(http=GUARDED).post("/login", headers=OWN_PAGE, content=form(token="viewer-secret"))
        cookie = response.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "viewer-secret" not in cookie

    @pytest.mark.parametrize("token", ["", "wrong", "viewer-secret ", "\x00", "töken"])
    def test_a_wrong_token_opens_nothing(self, client: MakeClient, token: str) -> None:
        response = client(http=GUARDED).post("/login", headers=OWN_PAGE, content=form(token=token))
        assert response.status_code == 401
        assert "set-cookie" not in response.headers
        assert "not a valid token" in Page(response.text).text

    def test_another_site_cannot_log_its_reader_in(self, client: MakeClient) -> None:
        response = client(http=GUARDED).post(
            "/login", headers={"origin": "http://evil.example"}, content=form(token="viewer-secret")
        )
        assert response.status_code == 403

    def test_a_session_ends_by_itself_and_by_logging_out(self, client: MakeClient) -> None:
        clock = SetClock()
        page = client(http=GUARDED, clock=clock)
        first, second = log_in(page, "viewer-secret"), log_in(page, "viewer-secret")
        page.post("/logout", headers=first)
        assert page.get("/", **first).status_code == 303
        assert page.get("/", **second).status_code == 200
        clock.at += timedelta(hours=12)
        assert page.get("/", **second).status_code == 303

    def test_too_many_sessions_push_out_the_oldest(self, client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("healer.runtime.web.auth._MOST_SESSIONS", 2)
        page = client(http=GUARDED)
        sessions = [log_in(page, "viewer-secret") for _ in range(3)]
        assert [page.get("/", **session).status_code for session in sessions] == [303, 200, 200]

    def test_open_on_loopback_there_is_nothing_to_log_in_to(self, client: MakeClient) -> None:
        response: httpx.Response = client().get("/login")
        assert (response.status_code, response.headers["location"]) == (303, "/")
        assert "/logout" not in Page(client().get("/").text).resources
