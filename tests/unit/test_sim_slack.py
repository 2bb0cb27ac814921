"""The local Slack against Slack's own client and signature check."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from healer.adapters.http.server import HttpServer
from healer.errors import NotFound, Unavailable
from healer.sim.slack import LocalSlack
from healer.sim.slack_clicks import post_raw
from healer.sim.slack_limits import block_faults, message_error
from healer.sim.slack_messages import Message


@dataclass
class Receiver:
    """Takes clicks as an application would: checks the signature, keeps the payload."""

    verifier: SignatureVerifier
    url: str = ""
    payloads: list[dict[str, Any]] = field(default_factory=list)

    async def take(self, request: Request) -> Response:
        body = await request.body()
        if not self.verifier.is_valid_request(body, dict(request.headers)):
            return PlainTextResponse("signature", status_code=401)
        self.payloads.append(json.loads(parse_qs(body.decode())["payload"][0]))
        return PlainTextResponse("")


@pytest.fixture
def slack() -> Iterator[LocalSlack]:
    with LocalSlack() as running:
        yield running


@pytest.fixture
def client(slack: LocalSlack) -> WebClient:
    return WebClient(token=slack.bot_token, base_url=slack.api_url)


@pytest.fixture
def receiver(slack: LocalSlack) -> Iterator[Receiver]:
    taking = Receiver(SignatureVerifier(slack.signing_secret))
    server = HttpServer(Starlette(routes=[Route("/in", taking.take, methods=["POST"])]), name="receiver")
    taking.url = f"{server.url}/in"
    server.start()
    yield taking
    server.stop()


def button(action_id: str, *, text: str = "Approve", value: str = "v") -> dict[str, object]:
    return {"type": "button", "action_id": action_id, "text": {"type": "plain_text", "text": text}, "value": value}


def section(text: str) -> dict[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def actions(*elements: dict[str, object]) -> dict[str, object]:
    return {"type": "actions", "elements": list(elements)}


ASK = [section("drain gpu-003?"), actions(button("approve", value="a-1"), button("deny", value="a-1"))]


@pytest.fixture
def asked(slack: LocalSlack, client: WebClient) -> Message:
    client.chat_postMessage(channel="#gpu-oncall", text="drain gpu-003?", blocks=ASK)
    return slack.wait_for_message(lambda message: "gpu-003" in message.text)


def test_slack_s_own_client_posts_and_updates(slack: LocalSlack, client: WebClient) -> None:
    posted = client.chat_postMessage(channel="#gpu-oncall", text="one", blocks=ASK)
    second = client.chat_postMessage(channel="#gpu-oncall", text="two")
    assert posted["ts"] < second["ts"]
    client.chat_update(channel=posted["channel"], ts=posted["ts"], text="one, decided")
    first, other = slack.messages
    assert (first.text, first.blocks, first.updates) == ("one, decided", (), 1)
    assert (other.text, other.updates) == ("two", 0)
    assert client.auth_test()["team_id"] == "T0LOCAL"


@pytest.mark.parametrize(
    ("said", "notified"),
    [
        pytest.param("<@U1> and <!subteam^S1> and <@U1>", ("U1", "S1"), id="people and usergroups, each once"),
        pytest.param("&lt;@U1&gt; @here U1", (), id="what is escaped mentions nobody"),
    ],
)
def test_a_message_notifies_whom_it_mentions_when_it_is_posted_and_an_update_nobody(
    slack: LocalSlack, client: WebClient, said: str, notified: tuple[str, ...]
) -> None:
    section = {"type": "section", "text": {"type": "mrkdwn", "text": said}}
    header = {"type": "header", "text": {"type": "plain_text", "text": "<@U9>"}}
    made = client.chat_postMessage(channel="#gpu-oncall", text="<@U8>", blocks=[header, section])
    client.chat_update(channel=made["channel"], ts=made["ts"], text="<@U7>")
    assert slack.messages[0].notified == notified


def test_of_a_message_without_blocks_the_text_notifies(slack: LocalSlack, client: WebClient) -> None:
    client.chat_postMessage(channel="#gpu-oncall", text="<@U8> look")
    assert slack.messages[0].notified == ("U8",)


@pytest.mark.parametrize(("headers", "error"), [({}, "not_authed"), ({"Authorization": "Bearer x"}, "invalid_auth")])
def test_without_the_token_nothing_is_posted(slack: LocalSlack, headers: dict[str, str], error: str) -> None:
    for method in ("auth.test", "chat.postMessage", "chat.update"):
        answer = requests.post(slack.api_url + method, json={"channel": "C1", "text": "x"}, headers=headers, timeout=5)
        assert answer.json() == {"ok": False, "error": error}
    assert slack.messages == ()


@pytest.mark.parametrize(
    ("blocks", "within"),
    [
        pytest.param([actions(button("a", text="x" * 75))], True, id="button text at its limit"),
        pytest.param([actions(button("a", text="x" * 76))], False, id="button text over its limit"),
        pytest.param([actions(button("a", value="x" * 2000))], True, id="value at its limit"),
        pytest.param([actions(button("a", value="x" * 2001))], False, id="value over its limit"),
        pytest.param([actions(button("a" * 256))], False, id="action_id over its limit"),
        pytest.param([section("x" * 3000)], True, id="section at its limit"),
        pytest.param([section("x" * 3001)], False, id="section over its limit"),
        pytest.param([section("")], False, id="section without text"),
        pytest.param([actions(button("a"), button("a"))], False, id="one action_id twice in a block"),
        pytest.param([actions(button("a")), actions(button("a"))], True, id="one action_id in two blocks"),
        pytest.param([actions()], False, id="no elements"),
        pytest.param([section("x")] * 50, True, id="fifty blocks"),
        pytest.param([section("x")] * 51, False, id="fifty-one blocks"),
        pytest.param([{"type": "buttons"}], False, id="no such block"),
        pytest.param([{**section("x"), "block_id": "b"}] * 2, False, id="one block_id twice"),
        pytest.param(["text"], False, id="no block at all"),
        pytest.param(
            [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * 2000}]}], True, id="fields alone"
        ),
        pytest.param(
            [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}], False, id="eleven fields"
        ),
        pytest.param(
            [{**section("x"), "accessory": button("a", text="x" * 76)}], False, id="accessory's text too long"
        ),
        pytest.param([{"type": "context", "elements": [{"type": "mrkdwn", "text": "x"}]}], True, id="context"),
        pytest.param([{"type": "context", "elements": [section("x")["text"]] * 11}], False, id="eleven in a context"),
        pytest.param([{"type": "actions", "elements": ["a"]}], False, id="an element that is none"),
        pytest.param([actions({**button("a"), "style": "green"})], False, id="no such style"),
        pytest.param([actions({**button("a"), "text": "Approve"})], False, id="a bare string for a text"),
        pytest.param([actions({**button("a"), "confirm": {}})], False, id="a confirmation without words"),
        pytest.param([{"type": "divider"}], True, id="divider"),
        pytest.param([{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}], False, id="header in markdown"),
    ],
)
def test_blocks_are_held_to_slack_s_limits(blocks: list[object], *, within: bool) -> None:
    assert message_error("x", blocks) == (None if within else "invalid_blocks")
    assert (block_faults(blocks) == ()) is within


def test_a_message_over_a_limit_is_refused_with_slack_s_word_and_the_place(
    slack: LocalSlack, client: WebClient
) -> None:
    with pytest.raises(SlackApiError) as caught:
        client.chat_postMessage(channel="C1", text="x", blocks=[section("fine"), section("x" * 3001)])
    assert caught.value.response["error"] == "invalid_blocks"
    assert caught.value.response["errors"] == ["must be less than 3001 characters [json-pointer:/blocks/1/text/text]"]
    assert slack.messages == ()


def test_an_update_needs_the_channel_s_id_and_a_message_of_its_own(
    slack: LocalSlack, client: WebClient, asked: Message
) -> None:
    requests.post(slack.webhook_url, json={"text": "from a webhook"}, timeout=5)
    foreign = slack.messages[-1]
    cases = [
        ("#gpu-oncall", asked.ts, "channel_not_found"),
        (asked.channel, "1.000001", "message_not_found"),
        (foreign.channel, foreign.ts, "cant_update_message"),
    ]
    for channel, ts, error in cases:
        with pytest.raises(SlackApiError) as caught:
            client.chat_update(channel=channel, ts=ts, text="changed")
        assert caught.value.response["error"] == error
    assert [message.updates for message in slack.messages] == [0, 0]


def test_the_webhook_says_ok_and_nothing_that_an_update_could_use(slack: LocalSlack) -> None:
    answer = requests.post(slack.webhook_url, json={"text": "rack-2 over budget", "blocks": [section("x")]}, timeout=5)
    assert (answer.status_code, answer.text) == (200, "ok")
    assert slack.messages[0].text == "rack-2 over budget"
    refused = [
        requests.post(slack.webhook_url, data="nonsense", timeout=5),
        requests.post(slack.webhook_url, json={"blocks": []}, timeout=5),
        requests.post(slack.webhook_url, json={"text": "x", "blocks": [section("y" * 3001)]}, timeout=5),
    ]
    assert [(each.status_code, each.text) for each in refused] == [
        (400, "invalid_payload"),
        (400, "no_text"),
        (400, "invalid_blocks"),
    ]


def test_a_message_is_awaited_across_threads_and_its_absence_is_an_error(slack: LocalSlack, client: WebClient) -> None:
    posting = threading.Timer(0.05, lambda: client.chat_postMessage(channel="C1", text="at last"))
    posting.start()
    assert slack.wait_for_message(lambda message: message.text == "at last", timeout_s=5.0).channel == "C1"
    posting.join()
    with pytest.raises(Unavailable, match="none of 1 messages"):
        slack.wait_for_message(lambda message: message.text == "never", timeout_s=0.02)


def test_a_click_arrives_signed_and_names_who_clicked_what(
    slack: LocalSlack, asked: Message, receiver: Receiver
) -> None:
    answer = slack.click(asked, "approve", interactions_url=receiver.url, user_id="U7", user_name="ana")
    assert answer.status == 200
    (payload,) = receiver.payloads
    assert payload["type"] == "block_actions"
    assert payload["user"] == {"id": "U7", "username": "ana", "name": "ana", "team_id": "T0LOCAL"}
    assert payload["container"] == {"type": "message", "message_ts": asked.ts, "channel_id": asked.channel}
    (action,) = payload["actions"]
    assert (action["action_id"], action["value"]) == ("approve", "a-1")
    assert action["block_id"] == asked.blocks[1]["block_id"]


def test_forged_and_stale_clicks_do_not_pass_slack_s_own_check(
    slack: LocalSlack, asked: Message, receiver: Receiver
) -> None:
    forged = slack.click(asked, "approve", interactions_url=receiver.url, signing_secret="guessed")
    stale = slack.click(asked, "approve", interactions_url=receiver.url, at=1_600_000_000.0)
    raw = post_raw(receiver.url, b"payload=%7B%7D", {})
    assert [forged.status, stale.status, raw.status] == [401, 401, 401]
    assert receiver.payloads == []


def test_parts_of_a_click_can_be_left_out_and_its_value_exchanged(
    slack: LocalSlack, asked: Message, receiver: Receiver
) -> None:
    slack.click(asked, "deny", interactions_url=receiver.url, value="a-2", without=("message", "channel"))
    (payload,) = receiver.payloads
    assert not {"message", "channel"} & set(payload)
    assert payload["actions"][0]["value"] == "a-2"


def test_a_button_that_is_gone_cannot_be_clicked(slack: LocalSlack, asked: Message, receiver: Receiver) -> None:
    with pytest.raises(NotFound, match="no button 'explode'"):
        slack.click(asked, "explode", interactions_url=receiver.url)


def test_a_click_on_nobody_is_an_error(slack: LocalSlack, asked: Message) -> None:
    with pytest.raises(Unavailable, match="did not reach"):
        slack.click(asked, "approve", interactions_url="http://127.0.0.1:9/in")


def test_a_response_url_answers_five_times_and_can_rewrite_its_message(
    slack: LocalSlack, asked: Message, receiver: Receiver
) -> None:
    slack.click(asked, "approve", interactions_url=receiver.url)
    response_url = str(receiver.payloads[0]["response_url"])
    first = requests.post(response_url, json={"text": "approved by ana", "replace_original": True}, timeout=5)
    assert first.json() == {"ok": True}
    assert (slack.messages[0].text, slack.messages[0].blocks) == ("approved by ana", ())
    others = [requests.post(response_url, json={"text": "more"}, timeout=5).status_code for _ in range(5)]
    assert others == [200, 200, 200, 200, 404]
    assert [said.text for said in slack.responses] == ["approved by ana", *["more"] * 4]
    assert slack.messages[0].updates == 1
    assert requests.post(f"{slack.url}/response/unknown", json={"text": "x"}, timeout=5).status_code == 404
