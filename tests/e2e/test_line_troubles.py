"""The line when what reaches it is wrong: clicks that prove nothing, and a Prometheus or an API server that goes away.

Whatever comes, the daemon lives, says what is missing, and leaves nothing half done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from healer.sim.slack_clicks import Answer, Clicker, block_actions, post_raw, sign, signed
from healer.sim.slack_messages import Message
from tests.e2e.conftest import Line
from tests.e2e.line import ON_CALL, DaemonProcess
from tests.e2e.relay import Relay

pytestmark = [pytest.mark.prometheus, pytest.mark.kubernetes]

FAILURES = "healer_turn_failures_total"
HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 28\r\n\r\n<html>Please log in.</html>\n"
HALF_A_DOCUMENT = b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{"gpu"'
TRUNCATED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(HALF_A_DOCUMENT)
CUT_OFF = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"


def test_clicks_that_prove_nothing_change_nothing_and_two_good_ones_count_once(line: Line) -> None:
    rack = line.rack
    line.break_gpu()
    daemon = line.daemon()
    pods = rack.deploy("train", replicas=2)
    question = line.question(daemon)
    for name, answer in _bad_clicks(line, daemon, question).items():
        got = answer()
        assert (name, got.status, _outcome(got)) == (name, *EXPECTED[name])
    daemon.let_turns_pass(2)
    assert rack.changes() == ()
    incident = daemon.incident(rack.node, state="awaiting_approval")
    assert daemon.get(f"/api/v1/approvals/{incident['approval_id']}")["state"] == "pending"

    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(lambda _: line.click(daemon, question), range(2)))
    assert sorted(_outcome(answer) for answer in answers) == ["already_decided", "approved"]
    daemon.incident(rack.node, state="resolved")
    rack.await_elsewhere("train", count=2)
    assert sorted(rack.evicted()) == sorted(pod.name for pod in pods)
    assert len(daemon.get("/api/v1/runs")["items"]) == 1
    refused = [entry["actor"] for entry in daemon.audit() if entry["action"] == "approval.refused"]
    assert sorted(refused) == [f"slack:{ON_CALL}", "slack:U0STRANGER"]
    assert "Traceback" not in daemon.log()


EXPECTED = {
    "forged": (401, "unauthenticated"),
    "stale": (401, "unauthenticated"),
    "unsigned": (401, "unauthenticated"),
    "timestamp without digits": (401, "unauthenticated"),
    "signature that is not ASCII": (401, "unauthenticated"),
    "body that is not UTF-8": (401, "unauthenticated"),
    "signed, and no payload": (400, "bad_request"),
    "unknown approval": (200, "not_found"),
    "id that no approval can have": (400, "bad_request"),
    "somebody who may not": (200, "not_permitted"),
}


def _bad_clicks(line: Line, daemon: DaemonProcess, question: Message) -> dict[str, Callable[[], Answer]]:
    url, secret, now = daemon.interactions_url, line.slack.signing_secret, str(int(time.time()))
    click = partial(line.slack.click, question, "approve", interactions_url=url, user_id=ON_CALL)
    payload = block_actions(question, "approve", by=Clicker(ON_CALL, "oncall"), response_url="https://localhost/")
    body, headers = signed(payload, signing_secret=secret, at=time.time())
    broken, empty = b"payload=\xff\xfe", b"text=approve"

    def raw(content: bytes, timestamp: str | bytes, signature: str | bytes) -> Callable[[], Answer]:
        given = {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": signature}
        return partial(post_raw, url, content, given)

    return {
        "forged": partial(click, signing_secret="guessed"),
        "stale": partial(click, at=time.time() - 301),
        "unsigned": partial(post_raw, url, body, {}),
        "timestamp without digits": raw(body, "now", headers["X-Slack-Signature"]),
        "signature that is not ASCII": raw(body, now, "v0=ä".encode()),
        "body that is not UTF-8": raw(broken, now, sign(secret, now, broken)),
        "signed, and no payload": raw(empty, now, sign(secret, now, empty)),
        "unknown approval": partial(click, value="apr-000000000000"),
        "id that no approval can have": partial(click, value="../../etc/passwd"),
        "somebody who may not": partial(click, user_id="U0STRANGER"),
    }


def _outcome(answer: Answer) -> str:
    body = json.loads(answer.body)
    return str(body["outcome"] if "outcome" in body else body["error"]["code"])


def test_a_click_after_the_question_has_expired_changes_nothing(line: Line) -> None:
    line.break_gpu()
    daemon = line.daemon(change=partial(_expiring_soon, line))
    line.rack.deploy("train", replicas=2)
    question = line.question(daemon)
    daemon.incident(line.rack.node, state="escalated", story="nobody answered in time")
    assert _outcome(line.click(daemon, question)) == "expired"
    daemon.eventually(lambda: "Expired" in line.slack.messages[0].text, what="Slack shows that it has expired")
    daemon.let_turns_pass(2)
    assert line.rack.changes() == ()
    assert daemon.get("/api/v1/runs")["items"] == []


def _expiring_soon(line: Line, settings: dict[str, Any]) -> None:
    line.own_playbook(settings, r"expires_after: \w+", "expires_after: 2s")


def test_while_prometheus_is_away_or_answers_nonsense_nothing_is_concluded(line: Line) -> None:
    first, second = line.rack.nodes[:2]
    line.break_gpu(first)
    with Relay(_port(line.prometheus.url)) as relay:
        daemon = line.daemon(mode="observe", change=partial(_through, "prometheus", relay))
        known = daemon.incident(first, state="open", story="observe")
        _await_ready(daemon)
        relay.pull()
        line.break_gpu(second)
        for trouble, reason in (
            (relay.pull, "refused"),
            (partial(relay.answer, HTML), "a web page"),
            (partial(relay.answer, TRUNCATED + HALF_A_DOCUMENT), "no whole JSON"),
            (partial(relay.answer, CUT_OFF + HALF_A_DOCUMENT), ""),
        ):
            trouble()
            _await_unready(daemon, reason)
            assert daemon.incidents(second) == []
        (unchanged,) = daemon.incidents(first)
        assert (unchanged["id"], unchanged["state"]) == (known["id"], "open")

        relay.plug_in()
        daemon.incident(second, state="open")
        _await_ready(daemon)
        (unchanged,) = daemon.incidents(first)
        assert (unchanged["id"], unchanged["state"]) == (known["id"], "open")


def _await_ready(daemon: DaemonProcess) -> None:
    """An incident is written a moment before its turn has ended."""

    def ready() -> bool:
        answer = daemon.client.get("/-/ready")
        return answer.status_code == 200 and answer.json() == {"ready": True, "reason": ""}

    daemon.eventually(ready, what="the daemon is ready")


def _await_unready(daemon: DaemonProcess, reason: str) -> None:
    """Turn after turn fails, for this reason."""

    def unready() -> bool:
        answer = daemon.client.get("/-/ready")
        return answer.status_code == 503 and reason in answer.json()["reason"]

    daemon.eventually(unready, what=f"the daemon is not ready, because of {reason!r}")
    before = daemon.metric(FAILURES)
    daemon.eventually(lambda: daemon.metric(FAILURES) > before, what="another turn has failed")
    assert unready()


def test_while_the_api_server_is_away_plans_and_approvals_are_held_and_then_carried_out(line: Line) -> None:
    rack = line.rack
    line.break_gpu()
    pods = rack.deploy("train", replicas=2)
    with Relay(_port(line.control_plane.url)) as relay:
        relay.pull()
        daemon = line.daemon(change=partial(_through, "kubernetes", relay))
        held = daemon.incident(rack.node, state="open", story="no answer to")
        assert (held["plan"], line.slack.messages) == (None, ())
        relay.plug_in()
        question = line.question(daemon)

        relay.pull()
        assert _outcome(line.click(daemon, question)) == "approved"
        daemon.incident(rack.node, state="awaiting_approval", story="held: ")
        assert rack.changes() == ()
        relay.plug_in()
        daemon.incident(rack.node, state="resolved")
    rack.await_elsewhere("train", count=2)
    assert sorted(rack.evicted()) == sorted(pod.name for pod in pods)
    assert len(line.slack.messages) == 1


def _through(part: str, relay: Relay, settings: dict[str, Any]) -> None:
    """Lets the daemon reach a part by way of the relay."""
    if part == "prometheus":
        settings["telemetry"]["prometheus"]["url"] = relay.url
        return
    kubernetes = settings["cluster"]["kubernetes"]
    config = yaml.safe_load(Path(kubernetes["kubeconfig"]).read_text(encoding="utf-8"))
    config["clusters"][0]["cluster"]["server"] = relay.url.replace("http:", "https:")
    kubernetes["kubeconfig"] = str(Path(settings["state"]["url"].removeprefix("sqlite:///")).with_name("kubeconfig"))
    Path(kubernetes["kubeconfig"]).write_text(yaml.safe_dump(config), encoding="utf-8")


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
