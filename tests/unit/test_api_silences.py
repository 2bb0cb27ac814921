"""Silences over HTTP: who may make them, what is refused with which reason, and where they show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from healer.adapters.journal.sql import SqlJournal
from healer.config import HttpSettings, SilencesSettings
from healer.domain.maintenance import MaintenanceWindow, Once, Period
from healer.domain.matcher import matchers_in
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.runtime.web.auth import ResolvedToken, Role
from tests.unit.http_samples import NOW, Client, SetClock, fill, leading_journal, snapshot

SECRETS = {"viv": Role.VIEWER, "bob": Role.APPROVER}
TOKENS = {name: ResolvedToken(role, f"{name}-secret") for name, role in SECRETS.items()}
HOUR = timedelta(hours=1)
WINDOW = MaintenanceWindow(
    "cooling", matchers_in(["rack=rack-1"]), Once(Period(NOW - HOUR, NOW + HOUR)), "the pumps are exchanged"
)
SILENCES = "/api/v1/silences"

MakeClient = Callable[..., Client]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqlJournal]:
    journal = leading_journal(tmp_path)
    fill(journal)
    yield journal
    journal.close()


@pytest.fixture
def client(journal: SqlJournal) -> MakeClient:
    def make(
        as_: str = "bob",
        *,
        clock: SetClock | None = None,
        maintenance: Sequence[MaintenanceWindow] = (),
        http: HttpSettings | None = None,
    ) -> Client:
        app = build_app(
            journal=journal,
            board=Board(snapshot()),
            clock=clock or SetClock(),
            approvers=(),  # silencing does not need the list
            http=http or HttpSettings(listen="0.0.0.0:8470"),
            tokens=TOKENS,
            silences=SilencesSettings(lasts=HOUR, longest=timedelta(days=7)),
            maintenance=maintenance,
        )
        return Client(app, {} if http else {"authorization": f"Bearer {TOKENS[as_].secret}"})

    return make


def body(**fields: object) -> bytes:
    return json.dumps({"matchers": ["rack=rack-0"], "reason": "cables", **fields}).encode()


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def at(hours: float) -> str:
    return (NOW + hours * HOUR).isoformat().replace("+00:00", "Z")


# Making


def test_a_silence_is_made_in_the_name_of_the_token(client: MakeClient, journal: SqlJournal) -> None:
    made = client().post(SILENCES, content=body(matchers=["rack=rack-0", 'failure_mode=~"Gpu.*"'], duration="2h"))
    assert made.status_code == 200
    view = made.json()
    assert view == {
        "id": view["id"],
        "state": "active",
        "matchers": ['rack="rack-0"', 'failure_mode=~"Gpu.*"'],
        "starts_at": at(0),
        "ends_at": at(2),
        "created_by": {"id": "token:bob", "name": ""},
        "created_at": at(0),
        "reason": "cables",
        "expired_by": None,
        "expired_at": None,
    }
    (kept,) = journal.silences()
    assert (kept.id, kept.created_by.id, kept.reason) == (view["id"], "token:bob", "cables")
    (line,) = journal.audit_log()
    assert (line.actor, line.action, line.subject, line.reason) == ("token:bob", "silence.added", kept.id, "cables")


@pytest.mark.parametrize(
    ("fields", "starts", "ends", "state"),
    [
        ({}, 0, 1, "active"),
        ({"duration": "30m"}, 0, 0.5, "active"),
        ({"ends_at": at(3)}, 0, 3, "active"),
        ({"ends_at": "2026-03-14T10:37:09+05:30"}, 0, 2, "active"),
        ({"starts_at": at(2)}, 2, 3, "pending"),
        ({"starts_at": at(2), "duration": "2h"}, 2, 4, "pending"),
        ({"starts_at": at(-2), "duration": "2h"}, 0, 2, "active"),
        ({"starts_at": None, "ends_at": None, "duration": None}, 0, 1, "active"),
        ({"duration": "7d"}, 0, 168, "active"),
    ],
    ids=["the usual", "a while", "until", "another zone", "later", "later, a while", "begun before", "null", "longest"],
)
def test_it_ends_after_the_usual_time_unless_it_says_otherwise(
    client: MakeClient, fields: dict[str, object], starts: float, ends: float, state: str
) -> None:
    view = client().post(SILENCES, content=body(**fields)).json()
    assert (view["starts_at"], view["ends_at"], view["state"]) == (at(starts), at(ends), state)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"matchers": []}, "at least one matcher is needed"),
        ({"matchers": ["rack=~.*"]}, "this would silence everything"),
        ({"matchers": ["rack!=r1"]}, "this would silence everything"),
        ({"matchers": ["rak=r1"]}, "there is no label 'rak' (did you mean 'rack'?)"),
        ({"matchers": ["rack"]}, "'rack' is not a matcher"),
        ({"matchers": ["rack=~(a"]}, "'(a' is not a regular expression: there is a ( without its )"),
        ({"matchers": ["failure_mode=GpuXd"]}, "names no failure mode that there is (did you mean 'GpuXid'?)"),
        ({"matchers": "rack=r1"}, "Expected `array`"),
        ({"reason": " "}, "a reason is needed"),
        ({"reason": None}, "Expected `str`"),
        ({"duration": "2"}, "duration: '2' is not a duration"),
        ({"duration": "0s"}, "the silence ends before it starts"),
        ({"duration": "8d"}, "a silence lasts at most 7d"),
        ({"duration": "99999999999d"}, "is longer than any duration"),
        ({"duration": "999999999d"}, "the silence would end after the end of time"),
        ({"ends_at": at(-1)}, "the silence ends before it starts"),
        ({"ends_at": at(200)}, "a silence lasts at most 7d"),
        ({"ends_at": at(1), "duration": "1h"}, "give either ends_at or duration"),
        ({"ends_at": "2026-03-14T05:00:00"}, "Expected `datetime` with a timezone component"),
        ({"ends_at": "tomorrow"}, "Invalid RFC3339"),
        ({"starts_at": at(200)}, "a silence starts within 7d"),
        ({"starts_at": "9999-12-31T23:59:59Z"}, "the silence would end after the end of time"),
        ({"starts_at": "9999-12-31T23:59:59-10:00"}, "the silence would end after the end of time"),
        ({"for": "2h"}, "unknown field `for`"),
    ],
    ids=range(24),
)
def test_what_cannot_be_meant_is_refused_with_the_reason(
    client: MakeClient, journal: SqlJournal, fields: dict[str, object], says: str
) -> None:
    response = client().post(SILENCES, content=body(**fields))
    assert code(response) == (422, "invalid")
    assert says in response.json()["error"]["message"]
    assert journal.silences() == ()
    assert journal.audit_log() == ()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_what_is_no_json_is_a_bad_request(client: MakeClient, content: bytes) -> None:
    assert code(client().post(SILENCES, content=content)) == (400, "bad_request")


# Who may


def test_a_viewer_reads_silences_and_changes_none(client: MakeClient, journal: SqlJournal) -> None:
    made = client().post(SILENCES, content=body()).json()
    viewer = client("viv")
    assert viewer.get(SILENCES).json()["items"] == [made]
    assert code(viewer.post(SILENCES, content=body())) == (403, "not_permitted")
    assert code(viewer.post(f"{SILENCES}/{made['id']}/expire", content=b'{"reason": "x"}')) == (403, "not_permitted")
    assert journal.silence(made["id"]).expired_at is None


@pytest.mark.parametrize("headers", [{}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}])
@pytest.mark.parametrize("path", [SILENCES, f"{SILENCES}/sil-1/expire"])
def test_another_site_s_page_silences_nothing(
    client: MakeClient, journal: SqlJournal, path: str, headers: dict[str, str]
) -> None:
    on_loopback = client(http=HttpSettings(auth="none"))
    headers = {"content-type": "text/plain", **headers}
    assert code(on_loopback.post(path, headers=headers, content=body())) == (403, "not_permitted")
    assert journal.silences() == ()


# Expiring


def test_a_silence_is_expired_once_by_whoever_may(client: MakeClient, journal: SqlJournal) -> None:
    made = client().post(SILENCES, content=body()).json()
    expired = client().post(f"{SILENCES}/{made['id']}/expire", content=b'{"reason": "done early"}').json()
    assert (expired["state"], expired["expired_by"]["id"], expired["expired_at"]) == ("expired", "token:bob", at(0))
    assert expired["ends_at"] == made["ends_at"]
    again = client().post(f"{SILENCES}/{made['id']}/expire", content=b'{"reason": "me too"}')
    assert code(again) == (409, "conflict")
    assert "expired by token:bob" in again.text
    assert [line.reason for line in journal.audit_log()] == ["cables", "done early"]


@pytest.mark.parametrize(
    ("silence_id", "content", "expected"),
    [
        ("sil-9", b'{"reason": "x"}', (404, "not_found")),
        ("a%20b", b'{"reason": "x"}', (404, "not_found")),
        ("sil-9", b'{"reason": " "}', (422, "invalid")),
        ("sil-9", b"{}", (422, "invalid")),
    ],
)
def test_what_is_not_there_or_has_no_reason_is_not_expired(
    client: MakeClient, silence_id: str, content: bytes, expected: tuple[int, str]
) -> None:
    assert code(client().post(f"{SILENCES}/{silence_id}/expire", content=content)) == expected


# Reading


def test_those_that_have_ended_are_left_out_on_request(client: MakeClient) -> None:
    clock = SetClock()
    bob = client(clock=clock)
    first = bob.post(SILENCES, content=body(duration="1m")).json()["id"]
    clock.at += timedelta(seconds=30)
    second = bob.post(SILENCES, content=body(starts_at=at(2))).json()["id"]
    clock.at += timedelta(seconds=30)

    def states(query: str) -> list[tuple[str, str]]:
        return [(item["id"], item["state"]) for item in bob.get(f"{SILENCES}{query}").json()["items"]]

    everything = [(second, "pending"), (first, "expired")]
    assert states("") == states("?active=false") == everything
    assert states("?active=true") == states("?active=") == states("?active=true&limit=1") == everything[:1]
    assert states("?limit=1") == everything[:1]


@pytest.mark.parametrize("query", ["active=maybe", "active=1", "activ=true", "limit=0"])
def test_a_query_that_makes_no_sense_is_refused(client: MakeClient, query: str) -> None:
    assert code(client().get(f"{SILENCES}?{query}")) == (422, "invalid")


def test_the_windows_of_the_configuration_are_listed_beside(client: MakeClient) -> None:
    clock = SetClock()
    bob = client(clock=clock, maintenance=[WINDOW])
    shown = {
        "name": "cooling",
        "matchers": ['rack="rack-1"'],
        "schedule": "2026-03-14T02:07:09Z to 2026-03-14T04:07:09Z",
        "reason": "the pumps are exchanged",
        "active_until": at(1),
    }
    assert bob.get(SILENCES).json() == {"items": [], "maintenance": [shown]}
    clock.at += HOUR
    assert bob.get(SILENCES).json()["maintenance"] == [{**shown, "active_until": None}]


def test_an_incident_says_by_whom_it_is_silenced_until_when_and_why(client: MakeClient) -> None:
    bob = client(maintenance=[WINDOW])
    made = bob.post(SILENCES, content=body(matchers=["node=node-01"])).json()
    by_node = {item["component"]["node"]: item for item in bob.get("/api/v1/incidents").json()["items"]}
    assert by_node["node-01"]["silenced"] == {
        "source": made["id"],
        "by": "token:bob",
        "until": at(1),
        "reason": "cables",
    }
    assert by_node["node-02"]["silenced"] is None
    assert by_node["node-06"]["silenced"]["by"] == "the maintenance window cooling"
    one = by_node["node-01"]
    assert bob.get(f"/api/v1/incidents/{one['id']}").json() == one


def test_the_metrics_count_silences_by_state(client: MakeClient) -> None:
    bob = client()
    for fields in ({}, {"duration": "1m"}, {"starts_at": at(1)}):
        bob.post(SILENCES, content=body(**fields))
    later = client(clock=SetClock(NOW + timedelta(minutes=2))).get("/metrics").text
    assert 'healer_silences{state="active"} 1.0' in later
    assert 'healer_silences{state="pending"} 1.0' in later


def test_the_flag_is_described_as_one(client: MakeClient) -> None:
    described = client().get("/api/v1/openapi.json").json()["paths"][SILENCES]["get"]["parameters"]
    assert {each["name"]: each["schema"]["type"] for each in described} == {"limit": "integer", "active": "boolean"}
