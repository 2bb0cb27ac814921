from __future__ import annotations

import hashlib
import hmac
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route

from healer.adapters.http.server import HttpServer
from healer.adapters.journal.sql import SqlJournal
from healer.adapters.slack.channel import SlackInteractions
from healer.config import HttpSettings
from healer.domain.approval import ApprovalState
from healer.domain.finding import Health
from healer.domain.incident import Incident
from healer.domain.run import RunState
from healer.errors import InvalidDocument, Unavailable
from healer.ports import Counts, Journal
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.runtime.web.auth import ResolvedToken, Role, resolve_tokens
from healer.runtime.web.views import incident_view
from tests.unit.http_samples import ALICE, NOW, Client, SetClock, fill, leading_journal, snapshot, stall

SECRET = "the-signing-secret"
TOKENS = {
    "viv": ResolvedToken(Role.VIEWER, "viewer-secret"),
    "bob": ResolvedToken(Role.APPROVER, "approver-secret"),
    "ada": ResolvedToken(Role.ADMIN, "admin-secret"),
}
APPROVERS = (ALICE.id, "token:bob", "token:viv")
PUBLIC = HttpSettings(listen="0.0.0.0:8470")
REASON = json.dumps({"reason": "seen on the BMC"}).encode()
JSON = {"content-type": "application/json"}

MakeClient = Callable[..., Client]


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[name].secret}"}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqlJournal]:
    journal = leading_journal(tmp_path)
    fill(journal)
    yield journal
    journal.close()


@pytest.fixture
def client(journal: SqlJournal) -> MakeClient:
    def make(
        *,
        as_: str | None = None,
        http: HttpSettings = PUBLIC,
        board: Board | None = None,
        clock: SetClock | None = None,
        records: Journal = journal,
        slack: SlackInteractions | None = None,
    ) -> Client:
        app = build_app(
            journal=records,
            board=board or Board(snapshot()),
            clock=clock or SetClock(),
            approvers=APPROVERS,
            http=http,
            tokens=TOKENS,
            slack=slack,
        )
        return Client(app, bearer(as_) if as_ else None)

    return make


def code(response: httpx.Response) -> tuple[int, str]:
    """The status and the error code, which every error must have in the one shape."""
    content = response.json()
    assert set(content) == {"error"}
    assert set(content["error"]) == {"code", "message"}
    assert content["error"]["message"]
    return response.status_code, content["error"]["code"]


class TestHealth:
    def test_is_healthy_while_it_serves_whatever_the_loop_does(self, client: MakeClient) -> None:
        assert client(board=Board(snapshot(at=None))).get("/-/healthy").status_code == 200

    def test_is_ready_after_a_recent_successful_turn(self, client: MakeClient) -> None:
        response = client().get("/-/ready")
        assert (response.status_code, response.json()) == (200, {"ready": True, "reason": ""})

    @pytest.mark.parametrize(
        ("board", "reason"),
        [
            (Board(snapshot(at=None)), "no turn has succeeded yet"),
            (
                Board(snapshot(at=None, last_error="Prometheus: refused")),
                "no turn has succeeded yet: Prometheus: refused",
            ),
            (Board(snapshot(last_error="Prometheus: refused")), "the newest turn failed: Prometheus: refused"),
            (
                Board(snapshot(at=NOW - timedelta(seconds=151))),
                "no turn has ended for 151 s; one is due every 30 s",
            ),
        ],
        ids=["before the first", "first failed", "newest failed", "stuck"],
    )
    def test_is_not_ready_and_says_why(self, client: MakeClient, board: Board, reason: str) -> None:
        response = client(board=board).get("/-/ready")
        assert (response.status_code, response.json()["reason"]) == (503, reason)


class TestAccess:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Bearer "},
            {"authorization": "Bearer"},
            {"authorization": "Basic dml2OnZpZXdlci1zZWNyZXQ="},
            {"authorization": "viewer-secret"},
            {"authorization": "Bearer viewer-secret-and-more"},
            {"cookie": "healer_session=guessed"},
        ],
    )
    def test_without_a_valid_token_nothing_is_told(self, client: MakeClient, headers: dict[str, str]) -> None:
        response = client().get("/api/v1/incidents", **headers)
        assert code(response) == (401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")

    def test_a_token_that_is_not_ascii_is_only_wrong(self, client: MakeClient) -> None:
        response = client().request(
            "GET", "/api/v1/incidents", headers={"authorization": "Bearer t\xf6ken".encode("latin-1")}
        )
        assert code(response) == (401, "unauthenticated")

    @pytest.mark.parametrize("path", ["approvals/apr-1/approve", "approvals/apr-1/deny", "runs/run-1/cancel"])
    def test_a_viewer_may_read_but_change_nothing(self, client: MakeClient, journal: SqlJournal, path: str) -> None:
        viewer = client(as_="viv")
        assert viewer.get("/api/v1/approvals").status_code == 200
        assert code(viewer.post(f"/api/v1/{path}", content=REASON)) == (403, "not_permitted")
        assert journal.approval("apr-1").state is ApprovalState.PENDING
        assert journal.run("run-1").cancelled_by == ""

    def test_the_role_alone_does_not_approve_the_list_decides(self, client: MakeClient, journal: SqlJournal) -> None:
        response = client(as_="ada").post("/api/v1/approvals/apr-1/approve", content=REASON)
        assert code(response) == (403, "not_permitted")
        assert journal.audit_log()[-1].action == "approval.refused"

    def test_metrics_are_open_on_loopback_and_need_a_token_elsewhere(self, client: MakeClient) -> None:
        assert client(http=HttpSettings()).get("/metrics").status_code == 200
        assert code(client().get("/metrics")) == (401, "unauthenticated")
        assert client(as_="viv").get("/metrics").status_code == 200

    def test_two_tokens_with_one_secret_are_refused_at_the_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SAME", "secret")
        one = {"name": "a", "role": "viewer", "token": {"env": "SAME"}}
        with pytest.raises(InvalidDocument, match="same secret"):
            resolve_tokens(HttpSettings.model_validate({"tokens": [one, {**one, "name": "b", "role": "admin"}]}))
        with pytest.raises(InvalidDocument, match="twice"):
            resolve_tokens(HttpSettings.model_validate({"tokens": [one, one]}))
        resolved = resolve_tokens(HttpSettings.model_validate({"tokens": [one]}))
        assert resolved["a"].role is Role.VIEWER
        assert "secret" not in repr(resolved)


class TestOpenOnLoopback:
    HTTP = HttpSettings(auth="none")

    def test_whoever_is_on_the_machine_may_do_everything_the_list_allows(self, client: MakeClient) -> None:
        response = client(http=self.HTTP).post("/api/v1/runs/run-1/cancel", headers=JSON, content=REASON)
        assert response.status_code == 200
        assert response.json()["cancelled_by"].startswith("local:")

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8470", "127.0.0.1.evil.example", "10.0.0.7:8470", ""]
    )
    @pytest.mark.parametrize("path", ["/api/v1/incidents", "/metrics", "/"])
    def test_a_foreign_name_that_leads_here_is_refused(self, client: MakeClient, host: str, path: str) -> None:
        assert client(http=self.HTTP).get(path, host=host).status_code == 403

    @pytest.mark.parametrize("host", ["localhost", "localhost:8470", "127.0.0.1:8470", "[::1]:8470", "[::1]"])
    def test_the_machine_s_own_names_are_accepted(self, client: MakeClient, host: str) -> None:
        assert client(http=self.HTTP).get("/api/v1/incidents", host=host).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"content-type": "text/plain"},
            {"content-type": "application/x-www-form-urlencoded"},
            {},
            {**JSON, "origin": "http://evil.example"},
            {**JSON, "origin": "null"},
            {**JSON, "sec-fetch-site": "cross-site"},
            {**JSON, "sec-fetch-site": "same-site", "origin": "http://127.0.0.1:8470"},
            {"content-type": "text/plain; application/json"},
        ],
    )
    def test_another_site_s_page_changes_nothing(
        self, client: MakeClient, journal: SqlJournal, headers: dict[str, str]
    ) -> None:
        response = client(http=self.HTTP).post("/api/v1/runs/run-1/cancel", headers=headers, content=REASON)
        assert code(response) == (403, "not_permitted")
        assert journal.run("run-1").cancelled_by == ""

    @pytest.mark.parametrize("headers", [{"origin": "http://127.0.0.1:8470"}, {"sec-fetch-site": "same-origin"}])
    def test_its_own_page_may(self, client: MakeClient, headers: dict[str, str]) -> None:
        response = client(http=self.HTTP).post("/api/v1/runs/run-1/cancel", headers=headers, content=REASON)
        assert response.status_code == 200


class TestReading:
    def test_an_incident_has_the_keys_of_the_backtest(self, client: MakeClient) -> None:
        viewer = client(as_="viv")
        newest = viewer.get("/api/v1/incidents").json()["items"][0]
        assert viewer.get(f"/api/v1/incidents/{newest['id']}").json() == newest
        assert newest["failure_mode"] == "GpuUncorrectableEcc"
        assert newest["component"] == {
            "kind": "gpu",
            "rack": "rack-0",
            "node": "node-01",
            "gpu": "3",
            "uuid": "GPU-00010003",
            "job": "llm-pretrain",
            "link": None,
        }
        assert (newest["opened_at"], newest["resolved_at"]) == ("2026-03-14T03:03:09Z", None)
        assert (newest["severity"], newest["score"], newest["culprit"]) == ("critical", 1.0, None)
        assert newest["evidence"][0]["value"] == 2.0
        assert newest["plan"]["playbook"] == "drain-node"
        assert newest["plan"]["needs_approval"] is True
        assert newest["plan"]["verdict"] is None
        assert newest["plan"]["deadline"] == "1h30m"
        assert [effect["verb"] for effect in newest["plan"]["effects"]] == ["cordon", "evict", "evict"]
        assert newest["plan"]["steps"][1]["timeout"] == "15m"

    def test_an_incident_says_who_is_to_blame_who_is_hurt_and_what_it_explains(self) -> None:
        shown = json.loads(msgspec.json.encode(incident_view(stall())))
        assert (shown["culprit"]["node"], shown["culprit"]["gpu"]) == ("node-03", "2")
        assert shown["jobs"] == ["llm-pretrain", "chat-eval"]
        assert [symptom["component"]["node"] for symptom in shown["symptoms"]] == ["node-00", "node-01"]
        assert len(shown["reasons"]) == 2
        assert (shown["reopened"], shown["gone"], shown["persists"]) == (2, False, True)
        assert shown["told_at"] == shown["opened_at"]

    def test_a_point_that_is_not_a_number_is_left_out(self) -> None:
        vague = replace(stall().evidence[0], points=((NOW, float("nan")), (NOW, 1.0)))
        shown = incident_view(replace(stall(), evidence=(vague,)))
        assert [value for _, value in shown.evidence[0].points] == [1.0]

    def test_a_value_that_is_not_a_number_is_null_not_zero(self, journal: SqlJournal) -> None:
        incident = journal.incidents()[0]
        unknown = replace(incident.evidence[0], value=float("nan"))
        shown = incident_view(replace(incident, evidence=(unknown,)))
        assert shown.evidence[0].value is None

    def test_a_run_is_read_back_with_every_effect(self, client: MakeClient) -> None:
        run = client(as_="viv").get("/api/v1/runs/run-1").json()
        (effect,) = run["effects"]
        assert (run["state"], effect["key"]) == ("running", "evict/training/llm-pretrain-3-x7k2p/9f3a")
        assert effect["state"] == "done"
        assert "effects" not in client(as_="viv").get("/api/v1/runs").json()["items"][0]

    def test_lists_are_limited_on_request(self, client: MakeClient) -> None:
        assert len(client(as_="viv").get("/api/v1/incidents?limit=2").json()["items"]) == 2
        assert len(client(as_="viv").get("/api/v1/incidents").json()["items"]) == 3

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=-1", "limit=x", "limit=1001", "limit=%D9%A3", "limit=", "lmit=2"]
    )
    def test_a_query_that_makes_no_sense_is_refused(self, client: MakeClient, query: str) -> None:
        assert code(client(as_="viv").get(f"/api/v1/incidents?{query}")) == (422, "invalid")

    @pytest.mark.parametrize(
        "path", ["incidents/none", "runs/none", "approvals/none", "runs/%00", "approvals/a%20b", "no"]
    )
    def test_what_does_not_exist_is_not_found(self, client: MakeClient, path: str) -> None:
        assert code(client(as_="viv").get(f"/api/v1/{path}")) == (404, "not_found")

    def test_a_wrong_method_is_told_so(self, client: MakeClient) -> None:
        assert code(client(as_="viv").post("/api/v1/incidents")) == (405, "method_not_allowed")

    def test_nodes_show_telemetry_and_scheduler_side_by_side(self, client: MakeClient) -> None:
        board = Board(
            snapshot(ecc={11: Health.FAILED, 63: Health.UNKNOWN}, anomaly={12: Health.UNKNOWN, 63: Health.UNKNOWN})
        )
        nodes = client(as_="viv", board=board).get("/api/v1/nodes").json()["items"]
        assert [node["name"] for node in nodes] == [f"node-{n:02}" for n in range(8)]
        assert [node["cordoned"] for node in nodes] == [False] * 5 + [True] + [False] * 2
        conditions = [gpu["condition"] for node in nodes for gpu in node["gpus"]]
        assert (conditions[11], conditions[12], conditions[63], conditions[0]) == (
            "failed",
            "partial",
            "unknown",
            "healthy",
        )
        last = nodes[7]["gpus"][7]
        assert last["temperature_c"] is None
        assert last["unjudged"] == ["GpuUncorrectableEcc", "GpuAnomaly"]

    def test_models_count_what_they_could_not_score(self, client: MakeClient) -> None:
        (model,) = client(as_="viv").get("/api/v1/models").json()["items"]
        assert (model["name"], model["scored"], model["unknown"]) == ("gpu_anomaly", 63, 1)
        assert 0 <= model["median"] <= model["p99"] <= model["highest"] <= 1

    @pytest.mark.parametrize("path", ["nodes", "models"])
    def test_before_the_first_turn_the_fleet_is_unavailable_not_empty(self, client: MakeClient, path: str) -> None:
        board = Board(snapshot(at=None, last_error="Prometheus: refused"))
        response = client(as_="viv", board=board).get(f"/api/v1/{path}")
        assert code(response) == (503, "unavailable")
        assert "Prometheus: refused" in response.text

    def test_the_audit_log_is_paged_oldest_first(self, client: MakeClient) -> None:
        client(as_="ada").post("/api/v1/approvals/apr-1/approve", content=REASON)
        client(as_="bob").post("/api/v1/approvals/apr-1/approve", content=REASON)
        viewer = client(as_="viv")
        first = viewer.get("/api/v1/audit?limit=1").json()
        second = viewer.get(f"/api/v1/audit?limit=1&after={first['next_after']}").json()
        assert [page["items"][0]["action"] for page in (first, second)] == ["approval.refused", "approval.approved"]
        assert second["items"][0]["previous"] == first["items"][0]["digest"]
        assert viewer.get(f"/api/v1/audit?after={second['next_after']}").json() == {"items": [], "next_after": None}


class TestDeciding:
    @pytest.mark.parametrize(("verb", "state"), [("approve", "approved"), ("deny", "denied")])
    def test_an_answer_is_recorded_in_the_name_of_the_token(self, client: MakeClient, verb: str, state: str) -> None:
        answered = client(as_="bob").post(f"/api/v1/approvals/apr-1/{verb}", content=REASON).json()
        assert (answered["state"], answered["decided_by"]["id"]) == (state, "token:bob")
        assert (answered["reason"], answered["decided_at"]) == ("seen on the BMC", "2026-03-14T03:07:09Z")

    def test_a_second_answer_is_a_conflict(self, client: MakeClient) -> None:
        bob = client(as_="bob")
        bob.post("/api/v1/approvals/apr-1/deny", content=REASON)
        assert code(bob.post("/api/v1/approvals/apr-1/approve", content=REASON)) == (409, "conflict")

    def test_an_answer_after_the_expiry_is_a_conflict(self, client: MakeClient) -> None:
        late = client(as_="bob", clock=SetClock(NOW + timedelta(hours=1)))
        assert code(late.post("/api/v1/approvals/apr-1/approve", content=REASON)) == (409, "conflict")

    def test_it_says_who_may_answer_who_has_and_when_others_may(self, client: MakeClient, journal: SqlJournal) -> None:
        with journal.transaction() as write:
            write.change_approval(
                "apr-1",
                lambda asked: replace(
                    asked,
                    who=("token:bob", ALICE.id),
                    quorum=2,
                    escalate_at=NOW + timedelta(minutes=10),
                    escalate_to=("slack:S0LEADS",),
                ),
            )
        answered = client(as_="bob").post("/api/v1/approvals/apr-1/approve", content=REASON).json()
        assert answered == client(as_="viv").get("/api/v1/approvals/apr-1").json()
        assert (answered["state"], answered["quorum"], answered["missing"]) == ("pending", 2, 1)
        (agreement,) = answered["agreed"]
        assert agreement["person"]["id"] == "token:bob"
        assert answered["who"] == ["token:bob", ALICE.id]
        assert (answered["escalates_at"], answered["escalate_to"]) == ("2026-03-14T03:17:09Z", ["slack:S0LEADS"])
        again = client(as_="bob").post("/api/v1/approvals/apr-1/approve", content=REASON)
        assert code(again) == (409, "conflict")

    def test_who_was_not_asked_may_not_answer(self, client: MakeClient, journal: SqlJournal) -> None:
        with journal.transaction() as write:
            write.change_approval("apr-1", lambda asked: replace(asked, who=(ALICE.id,)))
        response = client(as_="bob").post("/api/v1/approvals/apr-1/deny", content=REASON)
        assert code(response) == (403, "not_permitted")
        assert "is not among those whom apr-1 was put to" in response.text

    def test_a_run_is_cancelled_once_it_is_running_and_not_after(self, client: MakeClient, journal: SqlJournal) -> None:
        bob = client(as_="bob")
        assert "token:bob" in bob.post("/api/v1/runs/run-1/cancel", content=REASON).json()["cancelled_by"]
        with journal.transaction() as transaction:
            transaction.save_run(replace(journal.run("run-1"), state=RunState.CANCELLED))
        assert code(bob.post("/api/v1/runs/run-1/cancel", content=REASON)) == (409, "conflict")
        assert code(bob.post("/api/v1/runs/run-2/cancel", content=REASON)) == (404, "not_found")

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b"", (400, "bad_request")),
            (b"{", (400, "bad_request")),
            (b"\xff\xfe", (400, "bad_request")),
            (b"[" * 100_000, (422, "invalid")),
            (b"[]", (422, "invalid")),
            (b"{}", (422, "invalid")),
            (b'{"reason": ""}', (422, "invalid")),
            (b'{"reason": " \\n\\t "}', (422, "invalid")),
            (b'{"reason": null}', (422, "invalid")),
            (b'{"reason": "a\\u0000b"}', (422, "invalid")),
            (b'{"reason": "\\u202egnp.exe"}', (422, "invalid")),
            (b'{"reason": "x", "force": true}', (422, "invalid")),
            (json.dumps({"reason": "x" * 1001}).encode(), (422, "invalid")),
            (json.dumps({"reason": "x" * (1 << 20)}).encode(), (413, "too_large")),
        ],
        ids=range(14),
    )
    def test_an_answer_without_a_proper_reason_changes_nothing(
        self, client: MakeClient, journal: SqlJournal, body: bytes, expected: tuple[int, str]
    ) -> None:
        assert code(client(as_="bob").post("/api/v1/approvals/apr-1/approve", content=body)) == expected
        assert journal.approval("apr-1").state is ApprovalState.PENDING

    def test_a_body_that_hides_its_length_is_cut_off_all_the_same(self, client: MakeClient) -> None:
        response = client(as_="bob").post(
            "/api/v1/approvals/apr-1/approve", headers={"content-length": "10"}, content=b"x" * (2 << 20)
        )
        assert code(response) == (413, "too_large")


class TestMetrics:
    def test_every_figure_comes_from_the_snapshot_and_the_journal(self, client: MakeClient) -> None:
        board = Board(snapshot(ecc={11: Health.FAILED}, anomaly={5: Health.UNKNOWN}))
        response = client(http=HttpSettings(), board=board).get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }
        assert samples[("healer_turns_total",)] == 412
        assert samples[("healer_turn_failures_total",)] == 2
        assert samples[("healer_last_turn_seconds",)] == 0.18
        assert samples[("healer_gpus", ("condition", "failed"))] == 1
        assert samples[("healer_gpus", ("condition", "partial"))] == 1
        assert samples[("healer_gpus", ("condition", "healthy"))] == 62
        ecc = ("failure_mode", "GpuUncorrectableEcc")
        assert samples[("healer_components", ecc, ("health", "failed"))] == 1
        assert samples[("healer_incidents", ("state", "awaiting_approval"))] == 1
        assert samples[("healer_runs", ("state", "running"))] == 1
        assert samples[("healer_approvals_pending",)] == 1
        assert samples[("healer_mode", ("mode", "act"))] == 1
        assert samples[("healer_model_gpus", ("model", "gpu_anomaly"), ("scored", "false"))] == 1
        assert ("healer_rack_power_watts", ("rack", "rack-0")) in samples

    def test_what_the_journal_could_not_say_is_absent_not_zero(self, client: MakeClient, journal: SqlJournal) -> None:
        text = client(http=HttpSettings(), records=Dumb(journal)).get("/metrics").text
        assert "healer_journal_up 0.0" in text
        assert "healer_turns_total 412.0" in text
        assert "healer_incidents" not in text
        assert "healer_approvals_pending" not in text

    def test_before_the_first_turn_there_is_no_fleet_to_count(self, client: MakeClient) -> None:
        text = client(http=HttpSettings(), board=Board(snapshot(at=None))).get("/metrics").text
        assert "healer_gpus" not in text
        assert "healer_journal_up 1.0" in text


class Dumb(SqlJournal):
    """A journal whose database has gone away."""

    def __init__(self, like: SqlJournal) -> None:
        self.__dict__ = like.__dict__

    def incidents(self, **asked: object) -> tuple[Incident, ...]:
        raise Unavailable("journal", f"connection refused (asked for {asked})")

    def counts(self) -> Counts:
        raise Unavailable("journal", "connection refused")


class Broken(Dumb):
    """A journal with a defect."""

    def incidents(self, **asked: object) -> tuple[Incident, ...]:
        raise ZeroDivisionError(f"a secret detail {asked}")


class TestFailures:
    def test_a_journal_that_does_not_answer_is_unavailable(self, client: MakeClient, journal: SqlJournal) -> None:
        response = client(as_="viv", records=Dumb(journal)).get("/api/v1/incidents")
        assert code(response) == (503, "unavailable")

    @pytest.mark.parametrize("path", ["/api/v1/incidents", "/"])
    def test_a_defect_answers_with_an_id_and_no_details(
        self, client: MakeClient, journal: SqlJournal, path: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        response = client(http=HttpSettings(auth="none"), records=Broken(journal)).get(path)
        assert response.status_code == 500
        assert "secret detail" not in response.text
        assert "Traceback" not in response.text
        assert response.headers["x-content-type-options"] == "nosniff"
        error_id = response.text.partition("the log has it as ")[2][:12]
        assert error_id in capsys.readouterr().out

    def test_every_answer_forbids_framing_and_foreign_content(self, client: MakeClient) -> None:
        for path in ("/-/healthy", "/api/v1/incidents", "/login", "/static/style.css", "/none"):
            headers = client().get(path).headers
            assert headers["content-security-policy"].startswith("default-src 'self'"), path
            assert headers["x-frame-options"] == "DENY"


class TestOpenApi:
    def test_every_route_is_described_and_every_described_route_exists(
        self, client: MakeClient, journal: SqlJournal
    ) -> None:
        app = build_app(
            journal=journal,
            board=Board(snapshot()),
            clock=SetClock(),
            approvers=APPROVERS,
            http=PUBLIC,
            tokens=TOKENS,
            console=False,
        )
        served = {
            (route.path, method.lower())
            for route in app.routes
            if isinstance(route, Route)
            for method in (route.methods or set()) - {"HEAD"}
        }
        document = client(as_="viv").get("/api/v1/openapi.json").json()
        described = {(path, method) for path, methods in document["paths"].items() for method in methods}
        assert described == served

    def test_the_routes_that_machines_send_to_say_what_they_take(self, client: MakeClient) -> None:
        paths = client(as_="viv").get("/api/v1/openapi.json").json()["paths"]
        taken = {
            path: list(paths[path]["post"]["requestBody"]["content"]) for path in ("/api/v1/write", "/api/v1/alerts")
        }
        assert taken == {"/api/v1/write": ["application/x-protobuf"], "/api/v1/alerts": ["application/json"]}

    def test_every_reference_leads_to_a_schema_and_real_answers_have_its_keys(self, client: MakeClient) -> None:
        viewer = client(as_="viv")
        document = viewer.get("/api/v1/openapi.json").json()
        schemas = document["components"]["schemas"]
        text = json.dumps(document)
        referred = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
        assert referred <= set(schemas)
        incident = viewer.get("/api/v1/incidents").json()["items"][0]
        assert set(schemas["IncidentView"]["properties"]) == set(incident)
        assert set(schemas["RunDetailView"]["properties"]) == set(viewer.get("/api/v1/runs/run-1").json())


class TestSlackClicks:
    SLACK = SlackInteractions(SECRET)

    def body(self, value: str = "apr-1", *, user: str = "U024BE7LH", action: str = "approve", **more: object) -> bytes:
        payload = {
            "type": "block_actions",
            "user": {"id": user, "username": "alice", "team_id": "T1"},
            "actions": [{"action_id": action, "block_id": "answer", "value": value, "action_ts": "1.0"}],
            **more,
        }
        return urlencode({"payload": json.dumps(payload)}).encode()

    def post(
        self,
        client: Client,
        body: bytes,
        *,
        secret: str = SECRET,
        age_s: int = 0,
        forged: Mapping[str, str | bytes] | None = None,
    ) -> httpx.Response:
        stamp = str(int(NOW.timestamp()) - age_s)
        signature = hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
        signed = {"x-slack-request-timestamp": stamp, "x-slack-signature": f"v0={signature}"}
        return client.post("/slack/interactions", headers={**signed, **(forged or {})}, content=body)

    def test_a_signed_click_decides(self, client: MakeClient, journal: SqlJournal) -> None:
        response = self.post(client(slack=self.SLACK), self.body())
        assert (response.status_code, response.json()["outcome"]) == (200, "approved")
        kept = journal.approval("apr-1")
        assert (kept.decided_by, kept.reason) == (ALICE, "clicked Approve in Slack")

    def test_a_click_on_deny_denies(self, client: MakeClient, journal: SqlJournal) -> None:
        self.post(client(slack=self.SLACK), self.body(action="deny"))
        assert journal.approval("apr-1").state is ApprovalState.DENIED

    def test_a_double_click_decides_once(self, client: MakeClient) -> None:
        slack = client(slack=self.SLACK)
        outcomes = [self.post(slack, self.body()).json()["outcome"] for _ in range(2)]
        assert outcomes == ["approved", "already_decided"]

    def test_refusals_are_answered_with_200_and_say_which(self, client: MakeClient) -> None:
        slack, late = client(slack=self.SLACK), client(slack=self.SLACK, clock=SetClock(NOW + timedelta(minutes=28)))
        assert self.post(slack, self.body("apr-9")).json()["outcome"] == "not_found"
        assert self.post(slack, self.body(user="UMALLORY")).json()["outcome"] == "not_permitted"
        assert self.post(late, self.body(), age_s=-28 * 60).json()["outcome"] == "expired"

    @pytest.mark.parametrize(
        "headers",
        [
            {"x-slack-signature": "v0=" + "0" * 64},
            {"x-slack-signature": ""},
            {"x-slack-signature": "v0=\xe4".encode("latin-1")},
            {"x-slack-request-timestamp": "soon"},
            {"x-slack-request-timestamp": "9" * 400},
            {"x-slack-request-timestamp": ""},
        ],
    )
    def test_a_forged_click_is_unauthenticated(
        self, client: MakeClient, journal: SqlJournal, headers: dict[str, str | bytes]
    ) -> None:
        assert code(self.post(client(slack=self.SLACK), self.body(), forged=headers)) == (401, "unauthenticated")
        assert journal.approval("apr-1").state is ApprovalState.PENDING

    @pytest.mark.parametrize("age_s", [301, -301, 86_400])
    def test_a_replayed_click_is_unauthenticated(self, client: MakeClient, age_s: int) -> None:
        assert code(self.post(client(slack=self.SLACK), self.body(), age_s=age_s)) == (401, "unauthenticated")

    def test_a_click_signed_with_another_secret_or_not_at_all_is_unauthenticated(self, client: MakeClient) -> None:
        slack = client(slack=self.SLACK)
        assert code(self.post(slack, self.body(), secret="another"))[0] == 401
        assert code(slack.post("/slack/interactions", content=self.body()))[0] == 401
        assert code(self.post(slack, b"payload=\xff"))[0] == 401

    @pytest.mark.parametrize("body", [b"", b"payload=", b"payload=%7B", b"payload=[]", b"payload=1&payload=2"])
    def test_a_signed_request_that_is_no_click_is_a_bad_request(self, client: MakeClient, body: bytes) -> None:
        assert code(self.post(client(slack=self.SLACK), body)) == (400, "bad_request")

    def test_a_long_body_is_refused_before_it_is_read(self, client: MakeClient) -> None:
        assert code(client(slack=self.SLACK).post("/slack/interactions", content=b"x" * (1 << 21))) == (
            413,
            "too_large",
        )

    def test_without_slack_in_the_configuration_there_is_nothing_to_click(self, client: MakeClient) -> None:
        assert code(self.post(client(), self.body())) == (404, "not_found")


class TestServer:
    def test_serves_on_a_free_port_and_stops_at_once(self, journal: SqlJournal) -> None:
        app = build_app(
            journal=journal, board=Board(snapshot()), clock=SetClock(), approvers=(), http=PUBLIC, tokens=TOKENS
        )
        server = HttpServer(app, "127.0.0.1", 0)
        port = server.start()
        began = time.monotonic()
        assert httpx.get(f"http://127.0.0.1:{port}/-/healthy").status_code == 200
        server.stop()
        assert time.monotonic() - began < 5
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/-/healthy")

    def test_a_port_in_use_says_what_to_change(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(Unavailable, match=rf"address in use: .*127\.0\.0\.1:{port}; change http\.listen"):
                HttpServer(Client, "127.0.0.1", port, hint="change http.listen")  # type: ignore[arg-type]

    def test_a_host_that_does_not_exist_says_what_to_change(self) -> None:
        with pytest.raises(Unavailable, match=r"change http\.listen"):
            HttpServer(Client, "no-such-host.invalid", 0, hint="change http.listen")  # type: ignore[arg-type]

    def test_does_not_log_every_request(self, journal: SqlJournal, caplog: pytest.LogCaptureFixture) -> None:
        app = build_app(
            journal=journal, board=Board(snapshot()), clock=SetClock(), approvers=(), http=PUBLIC, tokens=TOKENS
        )
        server = HttpServer(app, "127.0.0.1", 0)
        with caplog.at_level(logging.DEBUG, "uvicorn"):
            port = server.start()
            httpx.get(f"http://127.0.0.1:{port}/-/healthy")
            server.stop()
        assert not [
            record for record in caplog.records if "healthy" in record.getMessage() and "uvicorn" in record.name
        ]
