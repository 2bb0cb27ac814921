"""The approval channel against a Slack that refuses what Slack refuses, and clicks on their way into the journal."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from healer.adapters.http.server import HttpServer
from healer.adapters.journal.sql import SqlJournal
from healer.adapters.slack.blocks import answer_blocks, escalation_blocks, outcome, question_blocks
from healer.adapters.slack.channel import (
    BotPoster,
    SlackChannel,
    SlackInteractions,
    WebhookPoster,
    open_channel,
    open_interactions,
    parse_interaction,
    reply,
)
from healer.config import HttpSettings, SlackSettings
from healer.domain.approval import Agreement, Approval, ApprovalState, Person
from healer.domain.breaker import Trip
from healer.domain.component import Component, ComponentKind
from healer.domain.plan import Effect
from healer.domain.playbook import Asking, Escalation
from healer.errors import InvalidDocument, NotPermitted, Rejected, Unavailable
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.sim.slack import LocalSlack
from healer.sim.slack_limits import block_faults
from healer.sim.slack_messages import FollowUp, Message
from tests.unit.http_samples import ALICE, NOW, approval, fill, incident, leading_journal, snapshot, stall

SECRET = "the-signing-secret"
INCIDENT = incident()
QUESTION = approval(INCIDENT)


@pytest.fixture(scope="module")
def slack() -> Iterator[LocalSlack]:
    with LocalSlack() as slack:
        yield slack


@pytest.fixture
def channel(slack: LocalSlack) -> SlackChannel:
    return SlackChannel(BotPoster(slack.bot_token, "#gpu-oncall", api_url=slack.api_url))


def shown(message: Message) -> str:
    return json.dumps(message.blocks, ensure_ascii=False)


def asked(slack: LocalSlack, name: str) -> Message:
    """The message whose Approve button carries this approval's id."""
    return slack.wait_for_message(lambda message: f'"value": "{name}"' in shown(message))


def test_that_the_breaker_is_open_is_told_with_the_figures_and_without_buttons(
    slack: LocalSlack, channel: SlackChannel
) -> None:
    channel.warn(Trip("trip-1", NOW, "4 nodes of rack <!here> would be taken out", ("n1", "n2", "n3", "n4")))
    message = slack.wait_for_message(lambda message: "4 nodes of rack" in shown(message))
    assert "4 nodes of rack &lt;!here&gt; would be taken out" in shown(message)
    assert "healer breaker reset" in shown(message)
    assert "actions" not in [block["type"] for block in message.blocks]
    assert not block_faults(message.blocks)


class TestAsking:
    def test_the_question_shows_what_failed_what_would_be_done_and_until_when(
        self, slack: LocalSlack, channel: SlackChannel
    ) -> None:
        channel.ask(replace(QUESTION, id="apr-ask"), INCIDENT)
        message = asked(slack, "apr-ask")
        text = shown(message)
        for part in (
            "GpuUncorrectableEcc",
            "GPU 3 of node-01",
            "critical, score 1.00 (rule)",
            "2 uncorrectable ECC errors in 10 minutes",
            "cordon node-01",
            "evict training/Job/llm-pretrain (pod llm-pretrain-3-x7k2p; restarts from its checkpoint)",
            "evict serving/ReplicaSet/chat-7d9f (pod chat-7d9f-qqn5c)",
            "serving/chat-pdb allows no disruption now",
            "fleet: 2 of 2 nodes out with this plan",
            QUESTION.digest[:12],
            f"<!date^{int(QUESTION.expires_at.timestamp())}^",
            "2026-03-14 03:35:09 UTC",
        ):
            assert part in text, part
        assert "GpuUncorrectableEcc on GPU 3 of node-01" in message.text

    def test_the_question_names_the_culprit_the_jobs_hurt_and_how_much_it_explains(
        self, slack: LocalSlack, channel: SlackChannel
    ) -> None:
        jobs = tuple(f"job-{n}" for n in range(5))
        channel.ask(replace(QUESTION, id="apr-stall"), replace(stall(), jobs=jobs))
        message = asked(slack, "apr-stall")
        text = shown(message)
        for part in (
            "*To blame:* GPU 2 of node-03 in rack rack-0",
            "*Jobs hurt:* job-0, job-1, job-2 and 2 more",
            "*Explains:* 2 symptoms",
            "*Came back:* 2 times",
            "*Sources disagree:* the Flight Recorder says rank 26",
        ):
            assert part in text, part
        assert "job llm-pretrain (GPU 2 of node-03 is to blame): approve drain-node?" in message.text

    def test_of_what_there_is_not_the_question_says_nothing(self) -> None:
        text = json.dumps(question_blocks(QUESTION, INCIDENT))
        for word in ("To blame", "Jobs hurt", "Explains", "Came back", "disagree"):
            assert word not in text, word

    def test_the_buttons_carry_the_opaque_id_and_nothing_else(self, slack: LocalSlack, channel: SlackChannel) -> None:
        channel.ask(replace(QUESTION, id="apr-buttons"), INCIDENT)
        message = asked(slack, "apr-buttons")
        assert message.button("approve")[1] == message.button("deny")[1] == "apr-buttons"

    def test_a_plan_with_hundreds_of_effects_is_cut_within_slack_s_limits(
        self, slack: LocalSlack, channel: SlackChannel
    ) -> None:
        effects = tuple(Effect("evict", f"training/Job/shard-{n}", f"pod shard-{n} <&>") for n in range(400))
        channel.ask(approval(INCIDENT, "apr-many", effects=effects), INCIDENT)
        text = shown(asked(slack, "apr-many"))
        cut = int(text.partition("…and ")[2].partition(" more: see console")[0])
        assert text.count("• evict") + cut == 400

    def test_a_plan_without_effects_says_so(self, slack: LocalSlack, channel: SlackChannel) -> None:
        channel.ask(approval(INCIDENT, "apr-none", effects=()), INCIDENT)
        assert "nothing: the world already is" in shown(asked(slack, "apr-none"))

    def test_what_others_wrote_can_neither_mention_nor_link_nor_forge_lines(
        self, slack: LocalSlack, channel: SlackChannel
    ) -> None:
        hostile = "<!channel> <http://evil.example|ok> a&b\n• cordon nothing\u202e"
        culprit = Component(ComponentKind.GPU, rack=hostile, node=hostile, gpu="0")
        about = replace(INCIDENT, reasons=(hostile, hostile), culprit=culprit, jobs=(hostile,))
        plan = replace(QUESTION.plan, effects=(Effect("evict", hostile),), impediments=(hostile,), budget=hostile)
        channel.ask(replace(QUESTION, id="apr-hostile", plan=plan), about)
        message = asked(slack, "apr-hostile")
        text = shown(message)
        assert "<!channel>" not in text
        assert "<http" not in text
        assert "&lt;!channel&gt; &lt;http://evil.example|ok&gt; a&amp;b • cordon nothing" in text
        assert "\\n• cordon nothing" not in text
        assert "\u202e" not in text

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(texts=st.lists(st.text(max_size=900), min_size=1, max_size=40))
    def test_no_text_whatsoever_breaks_slack_s_limits(self, texts: list[str]) -> None:
        effects = tuple(Effect(text[:20], text, text) for text in texts)
        plan = replace(QUESTION.plan, effects=effects, impediments=tuple(texts), budget=texts[0], playbook=texts[0])
        culprit = Component(ComponentKind.GPU, rack=texts[0], node=texts[0], gpu=texts[0])
        about = replace(stall(), reasons=tuple(texts), culprit=culprit, jobs=tuple(texts))
        blocks = question_blocks(replace(QUESTION, plan=plan), about)
        assert block_faults(blocks) == ()

    def test_a_webhook_asks_the_same(self, slack: LocalSlack) -> None:
        webhook = SlackChannel(WebhookPoster(slack.webhook_url))
        name = webhook.ask(replace(QUESTION, id="apr-webhook"), INCIDENT)
        assert name == ""
        assert "cordon node-01" in shown(asked(slack, "apr-webhook"))


ASKING = Asking(("gpu-oncall",), 2, Escalation(timedelta(minutes=10), ("gpu-leads",)))
OF_TWO = replace(
    QUESTION,
    plan=replace(QUESTION.plan, asking=ASKING),
    who=(ALICE.id, "slack:S0ONCALL", "token:<bob>"),
    quorum=2,
    escalate_at=NOW + timedelta(minutes=10),
    escalate_to=("slack:U0LEAD",),
)
AGREED = replace(OF_TWO, agreed=(Agreement(ALICE, NOW, "seen"),))


class TestAskingSeveral:
    def test_the_people_and_usergroups_that_are_asked_are_mentioned(
        self, slack: LocalSlack, channel: SlackChannel
    ) -> None:
        channel.ask(replace(OF_TWO, id="apr-several"), INCIDENT)
        message = asked(slack, "apr-several")
        assert message.notified == ("U024BE7LH", "S0ONCALL")
        text = shown(message)
        for part in (
            "*May answer:* <@U024BE7LH> <!subteam^S0ONCALL> token:&lt;bob&gt;",
            "*2 people have to agree*, one no is a no. 0 of 2 have agreed",
            f"Escalates <!date^{int((NOW + timedelta(minutes=10)).timestamp())}^",
        ):
            assert part in text, part

    def test_where_the_playbook_names_nobody_nobody_is_mentioned(
        self, slack: LocalSlack, channel: SlackChannel
    ) -> None:
        channel.ask(replace(QUESTION, id="apr-anybody", who=(ALICE.id, "slack:U2")), INCIDENT)
        message = asked(slack, "apr-anybody")
        assert message.notified == ()
        assert "have agreed" not in shown(message)

    def test_of_very_many_people_some_are_mentioned_and_the_others_counted(self) -> None:
        many = replace(OF_TWO, who=tuple(f"slack:U{number}" for number in range(100)))
        text = json.dumps(question_blocks(many, INCIDENT))
        assert text.count("<@U") == 20
        assert "and 80 more" in text

    def test_who_has_agreed_is_shown_where_the_question_stands_and_notifies_nobody_anew(
        self, slack: LocalSlack, channel: SlackChannel
    ) -> None:
        name = channel.ask(replace(OF_TWO, id="apr-agreed"), INCIDENT)
        before = asked(slack, "apr-agreed").notified
        channel.update(replace(AGREED, id="apr-agreed", announced_as=name), INCIDENT)
        message = slack.wait_for_message(lambda message: message.ts == name.partition("/")[2] and message.updates == 1)
        assert "1 of 2 have agreed: <@U024BE7LH>" in shown(message)
        assert message.button("approve")[1] == message.button("deny")[1] == "apr-agreed"
        assert message.notified == before

    def test_when_it_is_escalated_it_is_put_anew_to_those_who_may_answer_now_too(
        self, slack: LocalSlack, channel: SlackChannel
    ) -> None:
        question = replace(AGREED, id="apr-escalated", escalated=True)
        name = channel.escalate(question, INCIDENT)
        message = slack.wait_for_message(lambda message: message.ts == name.partition("/")[2])
        assert message.notified == ("U0LEAD", "U024BE7LH")
        text = shown(message)
        assert "*May answer now, too:* <@U0LEAD>" in text
        assert "Still open: approve drain-node" in text
        assert "1 of 2 have agreed: <@U024BE7LH>" in text
        assert "Escalates" not in text
        assert "still open: approve drain-node?" in message.text
        assert message.button("approve")[1] == "apr-escalated"

    def test_both_messages_show_the_agreements_and_in_the_end_the_answer(
        self, slack: LocalSlack, channel: SlackChannel
    ) -> None:
        first, second = channel.ask(OF_TWO, INCIDENT), channel.escalate(replace(OF_TWO, escalated=True), INCIDENT)
        there = replace(AGREED, announced_as=first, escalated_as=second, escalated=True)
        channel.update(there, INCIDENT)
        stamps = {first.partition("/")[2], second.partition("/")[2]}
        assert all("1 of 2 have agreed" in shown(each) for each in slack.messages if each.ts in stamps)
        bob = Agreement(Person("token:<bob>"), NOW)
        approved = replace(there, agreed=(*there.agreed, bob), state=ApprovalState.APPROVED, decided_at=NOW)
        channel.close(approved, INCIDENT)
        for message in (each for each in slack.messages if each.ts in stamps):
            assert "*Approved* by <@U024BE7LH> and token:&lt;bob&gt;" in shown(message)
            assert "actions" not in [block["type"] for block in message.blocks]

    def test_a_message_that_is_gone_does_not_keep_the_other_one_open(
        self, slack: LocalSlack, channel: SlackChannel
    ) -> None:
        name = channel.escalate(replace(OF_TWO, escalated=True), INCIDENT)
        denied = replace(AGREED, state=ApprovalState.DENIED, decided_by=ALICE, escalated=True)
        with pytest.raises(Rejected, match="message_not_found"):
            channel.close(replace(denied, announced_as="C0123/1.000001", escalated_as=name), INCIDENT)
        message = slack.wait_for_message(lambda message: message.ts == name.partition("/")[2])
        assert "*Denied* by <@U024BE7LH>" in shown(message)

    @pytest.mark.parametrize("state", [ApprovalState.DENIED, ApprovalState.EXPIRED, ApprovalState.VOID])
    def test_how_many_had_agreed_is_told_of_what_came_to_nothing(self, state: ApprovalState) -> None:
        assert "(1 of 2 have agreed: <@U024BE7LH>)" in outcome(replace(AGREED, state=state))

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(ids=st.lists(st.text(max_size=400), min_size=1, max_size=60), quorum=st.integers(min_value=1, max_value=20))
    def test_nobody_s_id_whatsoever_breaks_slack_s_limits(self, ids: list[str], quorum: int) -> None:
        agreed = tuple(Agreement(Person(each, each), NOW, each) for each in ids[:quorum])
        question = replace(AGREED, who=tuple(ids), escalate_to=tuple(ids), quorum=quorum, agreed=agreed)
        for blocks in (question_blocks(question, INCIDENT), escalation_blocks(question, INCIDENT)):
            assert block_faults(blocks) == ()
        closed = replace(question, state=ApprovalState.APPROVED, decided_at=NOW)
        assert block_faults(answer_blocks(closed, INCIDENT)) == ()

    def test_a_webhook_escalates_and_shows_no_agreements(self, slack: LocalSlack) -> None:
        webhook = SlackChannel(WebhookPoster(slack.webhook_url))
        assert webhook.escalate(replace(OF_TWO, id="apr-hook-on"), INCIDENT) == ""
        webhook.update(replace(AGREED, id="apr-hook-on"), INCIDENT)
        message = asked(slack, "apr-hook-on")
        assert (message.notified, message.updates) == (("U0LEAD",), 0)


class TestClosing:
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"state": ApprovalState.APPROVED, "decided_by": ALICE, "reason": "seen on the BMC"}, "<@U024BE7LH>"),
            (
                {"state": ApprovalState.DENIED, "decided_by": Person("token:<bob>"), "reason": "<no>"},
                "token:&lt;bob&gt;",
            ),
            ({"state": ApprovalState.EXPIRED}, "without an answer"),
            ({"state": ApprovalState.VOID, "reason": "GPU 3 is healthy again"}, "GPU 3 is healthy again"),
        ],
        ids=lambda value: str(value.get("state")) if isinstance(value, dict) else "",
    )
    def test_the_answer_stands_where_the_buttons_were(
        self, slack: LocalSlack, channel: SlackChannel, change: dict[str, object], says: str
    ) -> None:
        name = channel.ask(QUESTION, INCIDENT)
        answered: Approval = replace(QUESTION, announced_as=name, decided_at=NOW, **change)  # type: ignore[arg-type]
        channel.close(answered, INCIDENT)
        ts = name.partition("/")[2]
        message = slack.wait_for_message(lambda message: message.ts == ts and message.updates == 1)
        text = shown(message)
        assert "actions" not in [block["type"] for block in message.blocks]
        assert says in text
        assert answered.reason.replace("<", "&lt;").replace(">", "&gt;") in text
        assert "cordon node-01" in text

    def test_what_a_webhook_posted_cannot_be_updated_and_that_is_no_failure(self, slack: LocalSlack) -> None:
        webhook = SlackChannel(WebhookPoster(slack.webhook_url))
        name = webhook.ask(replace(QUESTION, id="apr-once"), INCIDENT)
        webhook.close(replace(QUESTION, state=ApprovalState.DENIED, announced_as=name), INCIDENT)
        assert asked(slack, "apr-once").updates == 0


@dataclass(frozen=True, slots=True)
class Canned:
    """Answers every request alike, as a Slack in trouble, or something that is no Slack at all."""

    status: int
    body: str
    headers: Mapping[str, str] | None = None

    async def answer(self, _request: Request) -> Response:
        return PlainTextResponse(self.body, self.status, self.headers)


@pytest.fixture
def canned() -> Iterator[Callable[[Canned], str]]:
    servers: list[HttpServer] = []

    def start(canned: Canned) -> str:
        app = Starlette(routes=[Route("/{path:path}", canned.answer, methods=["POST"])])
        servers.append(HttpServer(app, name="canned"))
        servers[-1].start()
        return servers[-1].url

    yield start
    for server in servers:
        server.stop()


class TestFailing:
    TOKEN = "xoxb-very-secret"

    def bot(self, url: str, *, token: str = TOKEN, channel: str = "#gpu-oncall", timeout_s: int = 5) -> SlackChannel:
        return SlackChannel(BotPoster(token, channel, api_url=f"{url}/api/", timeout_s=timeout_s))

    def test_slack_s_no_is_given_in_slack_s_own_word_and_without_the_token(self, slack: LocalSlack) -> None:
        with pytest.raises(Rejected, match=r"chat\.postMessage: invalid_auth") as refused:
            self.bot(slack.url).ask(QUESTION, INCIDENT)
        assert self.TOKEN not in str(refused.value)

    def test_a_message_that_is_gone_cannot_be_closed(self, channel: SlackChannel) -> None:
        with pytest.raises(Rejected, match="message_not_found"):
            channel.close(replace(QUESTION, announced_as="C0123/1.000001"), INCIDENT)

    @pytest.mark.parametrize(
        ("canned_answer", "error", "detail"),
        [
            (Canned(429, '{"ok": false, "error": "ratelimited"}', {"Retry-After": "30"}), Unavailable, "ratelimited"),
            (Canned(200, '{"ok": false, "error": "internal_error"}'), Unavailable, "internal_error"),
            (Canned(200, '{"ok": false, "error": "not_in_channel"}'), Rejected, "not_in_channel"),
            (Canned(503, "<html>Sorry</html>"), Unavailable, "HTTP 503"),
            (Canned(200, "<html>log in to the guest network</html>"), Unavailable, "not Slack's"),
            (Canned(200, ""), Unavailable, "not Slack's"),
            (Canned(200, "[]"), Unavailable, "not Slack's"),
            (Canned(200, '{"ok": true}'), Unavailable, "not Slack's"),
        ],
        ids=["rate", "internal", "no", "down", "portal", "empty", "list", "no ts"],
    )
    def test_trouble_is_told_from_a_no(
        self, canned: Callable[[Canned], str], canned_answer: Canned, error: type[Exception], detail: str
    ) -> None:
        with pytest.raises(error, match=detail) as raised:
            self.bot(canned(canned_answer)).ask(QUESTION, INCIDENT)
        assert self.TOKEN not in str(raised.value)

    @pytest.mark.parametrize(
        ("canned_answer", "error", "detail"),
        [
            (Canned(404, "no_service"), Rejected, "HTTP 404 no_service"),
            (Canned(403, "<html>a proxy</html>"), Rejected, "HTTP 403$"),
            (Canned(429, "slow down"), Unavailable, "HTTP 429"),
            (Canned(500, ""), Unavailable, "HTTP 500"),
        ],
        ids=["gone", "proxy", "rate", "down"],
    )
    def test_a_webhook_tells_trouble_from_a_no_without_its_secret_address(
        self, canned: Callable[[Canned], str], canned_answer: Canned, error: type[Exception], detail: str
    ) -> None:
        webhook = SlackChannel(WebhookPoster(f"{canned(canned_answer)}/services/T0/B0/very-secret"))
        with pytest.raises(error, match=detail) as raised:
            webhook.ask(QUESTION, INCIDENT)
        assert "very-secret" not in str(raised.value)

    @pytest.mark.parametrize(
        "url", ["htp://hooks/very-secret", "http:///very-secret", "http://127.0.0.1:1/very-secret"]
    )
    def test_an_address_that_leads_nowhere_is_unavailable_and_stays_secret(self, url: str) -> None:
        with pytest.raises(Unavailable) as raised:
            SlackChannel(WebhookPoster(url)).ask(QUESTION, INCIDENT)
        assert "very-secret" not in str(raised.value)

    def test_a_slack_that_does_not_answer_is_unavailable_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(Unavailable, match=r"no answer|timed out"):
                self.bot(url, timeout_s=1).ask(QUESTION, INCIDENT)


def signed(body: bytes, *, secret: str = SECRET, stamp: str | None = None) -> dict[str, str]:
    stamp = str(int(NOW.timestamp())) if stamp is None else stamp
    digest = hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={digest}"}


def click_body(**changes: object) -> bytes:
    payload = {
        "type": "block_actions",
        "user": {"id": "U024BE7LH", "username": "alice"},
        "actions": [{"action_id": "approve", "value": "apr-1"}],
        "response_url": "https://hooks.slack.com/actions/T0/1/x",
    }
    return urlencode({"payload": json.dumps({**payload, **changes})}).encode()


class TestClicks:
    def test_a_click_names_the_approval_the_answer_and_the_person(self) -> None:
        body = click_body()
        click = parse_interaction(body, signed(body), signing_secret=SECRET, now=NOW)
        assert (click.approval_id, click.approve, click.person) == ("apr-1", True, ALICE)
        assert click.response_url == "https://hooks.slack.com/actions/T0/1/x"

    def test_deny_is_not_approve(self) -> None:
        body = click_body(actions=[{"action_id": "deny", "value": "apr-1"}], response_url=None)
        click = parse_interaction(body, signed(body), signing_secret=SECRET, now=NOW)
        assert (click.approve, click.response_url) == (False, None)

    @pytest.mark.parametrize("away", [timedelta(seconds=300), timedelta(seconds=-300)])
    def test_staleness_is_judged_by_the_given_time(self, away: timedelta) -> None:
        body = click_body()
        parse_interaction(body, signed(body), signing_secret=SECRET, now=NOW + away)
        with pytest.raises(NotPermitted):
            parse_interaction(body, signed(body), signing_secret=SECRET, now=NOW + away * 1.01)

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"X-Slack-Signature": "v0=00"},
            {"X-Slack-Request-Timestamp": str(int(NOW.timestamp()))},
            signed(click_body(), secret="another"),
            signed(click_body(actions=[])),
            {**signed(click_body()), "X-Slack-Signature": "v0=ä"},
            {**signed(click_body()), "X-Slack-Signature": ""},
            signed(click_body(), stamp="soon"),
            signed(click_body(), stamp=""),
            signed(click_body(), stamp="1.5e9"),
            signed(click_body(), stamp=f"+{int(NOW.timestamp())}"),
            signed(click_body(), stamp="".join(chr(0x660 + int(digit)) for digit in str(int(NOW.timestamp())))),
            signed(click_body(), stamp="9" * 400),
            signed(click_body(), stamp="9" * 5000),
        ],
        ids=range(14),
    )
    def test_what_slack_did_not_sign_is_not_permitted(self, headers: dict[str, str]) -> None:
        with pytest.raises(NotPermitted):
            parse_interaction(click_body(), headers, signing_secret=SECRET, now=NOW)

    def test_a_body_that_is_not_text_is_not_permitted_even_if_signed(self) -> None:
        body = b"payload=\xff\xfe"
        with pytest.raises(NotPermitted):
            parse_interaction(body, signed(body), signing_secret=SECRET, now=NOW)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"payload",
            b"payload=",
            b"payload=%7B%7D",
            b"payload=null",
            b"payload=" + b"%5B" * 50_000,
            b"payload=%FF",
            click_body() + b"&" + click_body(),
            b"&".join([b"a=b"] * 11),
            click_body(type="view_submission"),
            click_body(type=None),
            click_body(user=None),
            click_body(user={}),
            click_body(user={"id": "u024be7lh"}),
            click_body(user={"id": "U024BE7LH\n"}),
            click_body(user={"id": ""}),
            click_body(user={"id": 7}),
            click_body(actions=[]),
            click_body(actions=[{"action_id": "approve", "value": "apr-1"}] * 2),
            click_body(actions=[{"action_id": "approve"}]),
            click_body(actions=[{"action_id": "destroy", "value": "apr-1"}]),
            click_body(actions=[{"action_id": "approve", "value": "apr 1; drop"}]),
            click_body(actions=[{"action_id": "approve", "value": "x" * 200}]),
            click_body(actions=[{"action_id": "approve", "value": ""}]),
            click_body(response_url=["https://hooks.slack.com"]),
        ],
        ids=range(25),
    )
    def test_what_slack_signed_but_is_no_click_of_ours_is_rejected(self, body: bytes) -> None:
        with pytest.raises(Rejected):
            parse_interaction(body, signed(body), signing_secret=SECRET, now=NOW)

    @settings(max_examples=300, deadline=None)
    @given(
        body=st.binary(max_size=200),
        headers=st.dictionaries(
            st.sampled_from(["X-Slack-Signature", "x-slack-request-timestamp", "X-SLACK-SIGNATURE"]),
            st.text(max_size=40) | st.just(str(int(NOW.timestamp()))),
        ),
    )
    def test_no_forgery_whatsoever_gets_further_than_not_permitted(self, body: bytes, headers: dict[str, str]) -> None:
        with pytest.raises(NotPermitted):
            parse_interaction(body, headers, signing_secret=SECRET, now=NOW)


class TestReplying:
    @pytest.mark.parametrize(
        "url",
        [
            "http://169.254.169.254/latest/meta-data",
            "http://hooks.slack.com/actions",
            "https://hooks.slack.com.evil.example/actions",
            "https://evil.example/hooks.slack.com",
            "https://hooks.slack.com@evil.example/",
            "https://user@hooks.slack.com/",
            "https://hooks.slack.com:8443/",
            "https://[::1/",
            "https://hooks.slack.com:port/",
            "file:///etc/passwd",
            "",
        ],
    )
    def test_an_answer_goes_to_slack_and_nowhere_else(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        reply(url, "hello", api_url="https://slack.com/api/")
        assert "does not lead to Slack" in capsys.readouterr().out

    def test_a_port_beside_the_local_slack_is_not_slack(
        self, slack: LocalSlack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        reply("http://127.0.0.1:1/response/x", "hello", api_url=slack.api_url)
        assert "does not lead to Slack" in capsys.readouterr().out

    def test_a_reply_that_fails_is_logged_and_forgotten(
        self, slack: LocalSlack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        reply(f"{slack.url}/response/used-up", "hello", api_url=slack.api_url)
        assert "reply failed" in capsys.readouterr().out


class TestConfigured:
    def test_the_channel_and_the_clicks_come_from_the_settings(
        self, slack: LocalSlack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "token").write_text(f"{slack.bot_token}\n")
        monkeypatch.setenv("SLACK_SIGNING", SECRET)
        described = {
            "bot_token": {"file": str(tmp_path / "token")},
            "channel": "#gpu-oncall",
            "signing_secret": {"env": "SLACK_SIGNING"},
            "api_url": slack.api_url,
        }
        configured = SlackSettings.model_validate(described)
        open_channel(configured).ask(replace(QUESTION, id="apr-configured"), INCIDENT)
        assert "cordon node-01" in shown(asked(slack, "apr-configured"))
        interactions = open_interactions(configured)
        assert (interactions.signing_secret, interactions.api_url) == (SECRET, slack.api_url)
        assert SECRET not in repr(interactions)

    def test_a_webhook_from_the_settings(self, slack: LocalSlack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLACK_HOOK", slack.webhook_url)
        described = {"webhook_url": {"env": "SLACK_HOOK"}, "signing_secret": {"env": "SLACK_SIGNING"}}
        configured = SlackSettings.model_validate(described)
        open_channel(configured).ask(replace(QUESTION, id="apr-hooked"), INCIDENT)
        assert "cordon node-01" in shown(asked(slack, "apr-hooked"))
        with pytest.raises(InvalidDocument, match="signing_secret"):
            open_interactions(configured)


class _Now:
    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Deployment:
    journal: SqlJournal
    channel: SlackChannel
    url: str


@pytest.fixture
def deployment(slack: LocalSlack, channel: SlackChannel, tmp_path: Path) -> Iterator[Deployment]:
    """The application on a real port, with a question that expires in a while from now."""
    journal = leading_journal(tmp_path)
    fill(journal)
    app = build_app(
        journal=journal,
        board=Board(snapshot()),
        clock=_Now(),
        approvers=["slack:U0ONCALL", "slack:U0SECOND", "slack:U0OTHER"],
        http=HttpSettings(),
        tokens={},
        slack=SlackInteractions(slack.signing_secret, slack.api_url),
    )
    server = HttpServer(app, "127.0.0.1", 0)
    port = server.start()
    yield Deployment(journal, channel, f"http://127.0.0.1:{port}/slack/interactions")
    server.stop()
    journal.close()


def ask_in(
    deployment: Deployment, slack: LocalSlack, name: str, *, quorum: int = 1, who: tuple[str, ...] | None = None
) -> Message:
    expires_at = datetime.now(UTC) + timedelta(minutes=5)
    question = replace(QUESTION, id=name, expires_at=expires_at, quorum=quorum, who=who)
    with deployment.journal.transaction() as transaction:
        transaction.add_approval(question)
    deployment.channel.ask(question, INCIDENT)
    return asked(slack, name)


def told(slack: LocalSlack, message: Message, times: int) -> list[str]:
    """The ephemeral answers to the clicks on this message, once there are as many."""
    patience, found = threading.Event(), list[FollowUp]()
    for _ in range(500):
        found = [said for said in slack.responses if said.message_ts == message.ts]
        if len(found) >= times:
            assert {(said.response_type, said.replace_original) for said in found} == {("ephemeral", False)}
            return [said.text for said in found]
        patience.wait(0.01)
    raise AssertionError(f"only {len(found)} of {times} answers came")


class TestEndToEnd:
    def test_a_click_reaches_the_journal_and_the_clicker_is_told(
        self, slack: LocalSlack, deployment: Deployment
    ) -> None:
        message = ask_in(deployment, slack, "apr-e2e")
        answer = slack.click(message, "approve", interactions_url=deployment.url)
        assert (answer.status, json.loads(answer.body)["outcome"]) == (200, "approved")
        kept = deployment.journal.approval("apr-e2e")
        assert (kept.state, kept.decided_by) == (ApprovalState.APPROVED, Person("slack:U0ONCALL", "oncall"))
        assert told(slack, message, 1) == ["apr-e2e is approved; recorded as answered by you."]

    def test_a_second_click_and_a_stranger_s_are_told_so(self, slack: LocalSlack, deployment: Deployment) -> None:
        message = ask_in(deployment, slack, "apr-twice")
        stranger = slack.click(message, "approve", interactions_url=deployment.url, user_id="UMALLORY")
        slack.click(message, "deny", interactions_url=deployment.url)
        again = slack.click(message, "approve", interactions_url=deployment.url)
        assert [json.loads(answer.body)["outcome"] for answer in (stranger, again)] == [
            "not_permitted",
            "already_decided",
        ]
        said = told(slack, message, 3)
        assert any("is not listed in approvals.approvers" in text for text in said)
        assert any("already denied by oncall" in text for text in said)
        assert deployment.journal.approval("apr-twice").state is ApprovalState.DENIED

    def test_two_of_a_group_agree_by_clicks_and_each_is_told_what_is_missing(
        self, slack: LocalSlack, deployment: Deployment
    ) -> None:
        message = ask_in(deployment, slack, "apr-two", quorum=2, who=("slack:U0ONCALL", "slack:U0SECOND"))
        outcomes = [
            json.loads(slack.click(message, "approve", interactions_url=deployment.url, user_id=user).body)["outcome"]
            for user in ("U0ONCALL", "U0ONCALL", "U0OTHER", "U0SECOND")
        ]
        assert outcomes == ["agreed", "already_agreed", "not_asked", "approved"]
        said = told(slack, message, 4)
        assert "1 of 2 have agreed to apr-two, you among them: 1 more." in said
        kept = deployment.journal.approval("apr-two")
        assert (kept.state, len(kept.agreed)) == (ApprovalState.APPROVED, 2)

    @pytest.mark.parametrize(
        "without", [("channel",), ("message", "team", "container", "enterprise"), ("response_url",)]
    )
    def test_what_slack_may_leave_out_is_not_needed(
        self, slack: LocalSlack, deployment: Deployment, without: tuple[str, ...]
    ) -> None:
        message = ask_in(deployment, slack, "apr-bare")
        answer = slack.click(message, "deny", interactions_url=deployment.url, without=without)
        assert (answer.status, deployment.journal.approval("apr-bare").state) == (200, ApprovalState.DENIED)

    def test_forged_and_stale_clicks_change_nothing(self, slack: LocalSlack, deployment: Deployment) -> None:
        message = ask_in(deployment, slack, "apr-forged")
        forged = slack.click(message, "approve", interactions_url=deployment.url, signing_secret="guess")
        stale = slack.click(message, "approve", interactions_url=deployment.url, at=datetime.now(UTC).timestamp() - 301)
        assert (forged.status, stale.status) == (401, 401)
        assert deployment.journal.approval("apr-forged").state is ApprovalState.PENDING
