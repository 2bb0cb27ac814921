"""Slack: the question to on-call as a message with two buttons, and what a click on them says.

The buttons carry an opaque id and nothing else: who may answer, and whether the question is still open, is decided
where the journal is. What the messages look like is in `healer.adapters.slack.blocks`.
"""

from __future__ import annotations

import http.client
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec
import structlog
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.signature import Clock as SignatureClock
from slack_sdk.signature import SignatureVerifier
from slack_sdk.webhook import WebhookClient, WebhookResponse

from healer.adapters.slack.blocks import (
    Block,
    answer_blocks,
    clean,
    escalation_blocks,
    escape,
    fallback,
    outcome,
    question_blocks,
    trip_blocks,
)
from healer.config import SlackSettings
from healer.decoding import decode
from healer.domain.approval import Approval, Person
from healer.domain.breaker import Trip
from healer.domain.incident import Incident
from healer.errors import NotPermitted, Rejected, Unavailable

_T = TypeVar("_T")

_COMPONENT = "Slack"
_TIMEOUT_S = 5
_HOSTS = frozenset({"hooks.slack.com", "hooks.slack-gov.com"})
_TRANSIENT = frozenset({"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"})
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_ERROR_CODE = re.compile(r"[a-z_]{1,60}")
_OVER = (SlackClientError, OSError, http.client.HTTPException, ValueError, TypeError, KeyError, AttributeError)

_log = structlog.get_logger(__name__)
# The client writes URLs and bodies to its own log; an incoming webhook's URL is a secret.
_silent_log = logging.getLogger("healer.slack_client")
_silent_log.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class SlackInteractions:
    """What is needed to take clicks: the secret that proves them, and where answers to the clicker may go."""

    signing_secret: str = field(repr=False)
    api_url: str = "https://slack.com/api/"


@dataclass(frozen=True, slots=True)
class Click:
    approval_id: str
    approve: bool
    person: Person
    response_url: str | None


class SlackChannel:
    """The approval channel: a bot's messages, which are updated when answered, or a webhook's, which cannot be."""

    def __init__(self, poster: BotPoster | WebhookPoster) -> None:
        self._poster = poster

    def ask(self, approval: Approval, incident: Incident) -> str:
        """Raises Unavailable, Rejected."""
        return self._poster.post(fallback(approval, incident), question_blocks(approval, incident))

    def escalate(self, approval: Approval, incident: Incident) -> str:
        """A message of its own: an update mentions nobody. Raises Unavailable, Rejected."""
        return self._poster.post(fallback(approval, incident), escalation_blocks(approval, incident))

    def update(self, approval: Approval, incident: Incident) -> None:
        """Raises Unavailable, Rejected."""
        text = fallback(approval, incident)
        self._update(approval, text, question_blocks(approval, incident), escalation_blocks(approval, incident))

    def close(self, approval: Approval, incident: Incident) -> None:
        """Raises Unavailable, Rejected."""
        blocks = answer_blocks(approval, incident)
        self._update(approval, outcome(approval), blocks, blocks)

    def _update(self, approval: Approval, text: str, question: Sequence[Block], escalation: Sequence[Block]) -> None:
        """Rewrite both messages, as far as they are there: one that is gone does not keep the other as it was."""
        failures: list[Unavailable | Rejected] = []
        for name, blocks in ((approval.announced_as, question), (approval.escalated_as, escalation)):
            try:
                if name:
                    self._poster.update(name, text, blocks)
            except (Unavailable, Rejected) as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def warn(self, trip: Trip) -> None:
        """Raises Unavailable, Rejected."""
        self._poster.post(escape(f"The breaker is open: {trip.reason}"), trip_blocks(trip))


class BotPoster:
    """`chat.postMessage` and `chat.update` with a bot token."""

    def __init__(self, token: str, channel: str, *, api_url: str, timeout_s: int = _TIMEOUT_S) -> None:
        # No retries here: the loop asks again, and a question that was lost is better than one that is there twice.
        self._client = WebClient(token, base_url=api_url, timeout=timeout_s, retry_handlers=[], logger=_silent_log)
        self._channel = channel

    def post(self, text: str, blocks: Sequence[Block]) -> str:
        def call() -> str:
            answer = self._client.chat_postMessage(
                channel=self._channel, text=text, blocks=blocks, unfurl_links=False, unfurl_media=False
            )
            channel, ts = answer["channel"], answer["ts"]
            if not isinstance(channel, str) or not isinstance(ts, str):
                raise KeyError("ts")
            return f"{channel}/{ts}"

        return _asked("chat.postMessage", call)

    def update(self, message: str, text: str, blocks: Sequence[Block]) -> None:
        channel, _, ts = message.partition("/")
        _asked("chat.update", lambda: self._client.chat_update(channel=channel, ts=ts, text=text, blocks=blocks))


class WebhookPoster:
    """An incoming webhook: it says ok, never which message it made, so nothing can be updated afterwards."""

    def __init__(self, url: str, *, timeout_s: int = _TIMEOUT_S) -> None:
        self._client = WebhookClient(url, timeout=timeout_s, retry_handlers=[], logger=_silent_log)

    def post(self, text: str, blocks: Sequence[Block]) -> str:
        answer = _asked("incoming webhook", lambda: self._client.send(text=text, blocks=blocks))
        _raise_for(answer, "incoming webhook")
        return ""

    def update(self, message: str, text: str, blocks: Sequence[Block]) -> None:
        """Nothing to do: there is no name to update it by."""


def open_channel(settings: SlackSettings) -> SlackChannel:
    """Raises InvalidDocument if a secret is missing."""
    if settings.webhook_url is not None:
        return SlackChannel(WebhookPoster(settings.webhook_url.read("approvals.slack.webhook_url")))
    assert settings.bot_token is not None
    assert settings.channel is not None
    token = settings.bot_token.read("approvals.slack.bot_token")
    return SlackChannel(BotPoster(token, settings.channel, api_url=settings.api_url))


def open_interactions(settings: SlackSettings) -> SlackInteractions:
    """Raises InvalidDocument if the secret is missing."""
    assert settings.signing_secret is not None
    return SlackInteractions(settings.signing_secret.read("approvals.slack.signing_secret"), settings.api_url)


# What a click says


class _User(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(pattern=r"^[UW][A-Z0-9]{1,30}\Z")]
    name: str | None = None
    username: str | None = None


class _Action(msgspec.Struct):
    action_id: Literal["approve", "deny"]
    value: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}\Z")]


class _Payload(msgspec.Struct):
    type: Literal["block_actions"]
    user: _User
    actions: Annotated[list[_Action], msgspec.Meta(min_length=1, max_length=1)]
    response_url: str | None = None


class _FixedClock(SignatureClock):
    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> float:
        return self._now.timestamp()


def parse_interaction(body: bytes, headers: Mapping[str, str], *, signing_secret: str, now: datetime) -> Click:
    """Raises NotPermitted unless Slack signed this body within the last 300 s; Rejected if it is no click of ours."""
    _verify(body, headers, signing_secret=signing_secret, now=now)
    try:
        fields = parse_qsl(body.decode(), max_num_fields=10)
        (payload,) = (value for name, value in fields if name == "payload")
        content = decode(payload, _Payload)
    except (ValueError, RecursionError) as error:
        raise Rejected(_COMPONENT, f"the interaction is not a click on approve or deny: {error}") from error
    action, user = content.actions[0], content.user
    person = Person(f"slack:{user.id}", clean(user.username or user.name or "", 80))
    return Click(action.value, action.action_id == "approve", person, content.response_url)


def _verify(body: bytes, headers: Mapping[str, str], *, signing_secret: str, now: datetime) -> None:
    given = {name.lower(): value for name, value in headers.items()}
    timestamp, signature = given.get("x-slack-request-timestamp"), given.get("x-slack-signature")
    if timestamp is None or signature is None:
        raise NotPermitted(_COMPONENT, "the request is not signed")
    if _TIMESTAMP.fullmatch(timestamp) is None:
        raise NotPermitted(_COMPONENT, "the request's timestamp is not a number of seconds")
    try:
        valid = SignatureVerifier(signing_secret, clock=_FixedClock(now)).is_valid(body, timestamp, signature)
    except (ValueError, TypeError) as error:  # a body that is not UTF-8; a signature that is not ASCII
        raise NotPermitted(_COMPONENT, "the request's signature cannot be checked") from error
    if not valid:
        raise NotPermitted(_COMPONENT, "the request's signature is wrong, or older than 300 s")


def reply(response_url: str, text: str, *, api_url: str) -> None:
    """Tell the clicker, and nobody else. It is a courtesy: a failure is logged, the answer stands without it."""
    if not _is_slack(response_url, api_url):
        _log.warning("reply refused: the response_url does not lead to Slack", host=_host(response_url))
        return
    client = WebhookClient(response_url, timeout=_TIMEOUT_S, retry_handlers=[], logger=_silent_log)
    try:
        answer = _asked(
            "response_url",
            lambda: client.send(text=escape(text), response_type="ephemeral", replace_original=False),
        )
        _raise_for(answer, "response_url")
    except (Unavailable, Rejected) as error:
        _log.warning("reply failed", error=str(error))


def _is_slack(url: str, api_url: str) -> bool:
    try:
        to, own = urlsplit(url), urlsplit(api_url)
        same = (to.scheme, to.hostname, to.port) == (own.scheme, own.hostname, own.port)
    except ValueError:
        return False
    return to.username is None and (same or (to.scheme == "https" and to.hostname in _HOSTS and to.port in {None, 443}))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


# What Slack answers


def _asked(method: str, call: Callable[[], _T]) -> _T:
    """Slack's answer, or its refusal in our own words. Only its error codes are repeated: bodies may hold secrets."""
    try:
        return call()
    except SlackApiError as error:
        raise _refusal(method, error.response) from error
    except TimeoutError as error:
        raise Unavailable(_COMPONENT, f"{method}: no answer within {_TIMEOUT_S} s") from error
    except OSError as error:
        raise Unavailable(_COMPONENT, f"{method}: {getattr(error, 'reason', None) or error.strerror}") from error
    except _OVER as error:
        raise Unavailable(_COMPONENT, f"{method}: the answer is not Slack's ({type(error).__name__})") from None


def _refusal(method: str, response: Any) -> Unavailable | Rejected:
    """slack_sdk types its error's response as an object; it is a SlackResponse."""
    status = int(response.status_code)
    code = str(response.data.get("error", "")) if isinstance(response.data, dict) else ""
    if _ERROR_CODE.fullmatch(code) is None:
        return Unavailable(_COMPONENT, f"{method}: HTTP {status}, and the answer is not Slack's")
    if status == 429 or status >= 500 or code in _TRANSIENT:
        return Unavailable(_COMPONENT, f"{method}: {code}")
    return Rejected(_COMPONENT, f"{method}: {code}")


def _raise_for(answer: WebhookResponse, method: str) -> None:
    if answer.status_code == 200:
        return
    said = clean(answer.body or "", 60)
    detail = f"{method}: HTTP {answer.status_code}" + (f" {said}" if _ERROR_CODE.fullmatch(said) else "")
    if answer.status_code == 429 or answer.status_code >= 500:
        raise Unavailable(_COMPONENT, detail)
    raise Rejected(_COMPONENT, detail)
