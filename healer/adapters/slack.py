"""Slack: the question to on-call as a message with two buttons, and what a click on them says.

The buttons carry an opaque id and nothing else: who may answer, and whether the question is still open, is decided
where the journal is. Everything that telemetry, pods or people wrote is escaped before it becomes part of a message.
"""

from __future__ import annotations

import http.client
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec
import structlog
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.signature import Clock as SignatureClock
from slack_sdk.signature import SignatureVerifier
from slack_sdk.webhook import WebhookClient, WebhookResponse

from healer.config import SlackSettings
from healer.domain.approval import Approval, ApprovalState, Person
from healer.domain.incident import Incident, Severity
from healer.domain.plan import Plan
from healer.errors import NotPermitted, Rejected, Unavailable

Block: TypeAlias = dict[str, object]
_T = TypeVar("_T")

_COMPONENT = "Slack"
_TIMEOUT_S = 5
_MOST_SECTION = 3000  # characters that Slack takes in a section's text
_MOST_HEADER = 150
_MOST_LINE = 300  # of one untrusted text; five times that when escaped still fits a section
_HOSTS = frozenset({"hooks.slack.com", "hooks.slack-gov.com"})
_TRANSIENT = frozenset({"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"})
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_ERROR_CODE = re.compile(r"[a-z_]{1,60}")
_SLACK_PERSON = re.compile(r"slack:([UW][A-Z0-9]{1,30})")
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
        return self._poster.post(_fallback(approval, incident), question_blocks(approval, incident))

    def close(self, approval: Approval, incident: Incident) -> None:
        """Raises Unavailable, Rejected."""
        if approval.announced_as:
            self._poster.update(approval.announced_as, _outcome(approval), answer_blocks(approval, incident))


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
        content = msgspec.json.decode(payload, type=_Payload)
    except (ValueError, RecursionError) as error:
        raise Rejected(_COMPONENT, f"the interaction is not a click on approve or deny: {error}") from error
    action, user = content.actions[0], content.user
    person = Person(f"slack:{user.id}", _clean(user.username or user.name or "", 80))
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
            lambda: client.send(text=_escape(text), response_type="ephemeral", replace_original=False),
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


# What a message shows


def question_blocks(approval: Approval, incident: Incident) -> list[Block]:
    approve = _button("Approve", "approve", approval.id, "primary")
    deny = _button("Deny", "deny", approval.id, "danger")
    return [
        _header(f"Approve {approval.plan.playbook} on {approval.plan.target}?"),
        *_case(approval, incident),
        _context(f"Expires {_moment(approval.expires_at)}. Unanswered means no."),
        {"type": "actions", "block_id": "answer", "elements": [approve, deny]},
    ]


def answer_blocks(approval: Approval, incident: Incident) -> list[Block]:
    return [
        _header(f"{_TITLES[approval.state]}: {approval.plan.playbook} on {approval.plan.target}"),
        _section([_outcome(approval)]),
        *_case(approval, incident),
    ]


_TITLES: Mapping[ApprovalState, str] = {
    ApprovalState.PENDING: "Open",
    ApprovalState.APPROVED: "Approved",
    ApprovalState.DENIED: "Denied",
    ApprovalState.EXPIRED: "Expired",
    ApprovalState.VOID: "Void",
}


def _case(approval: Approval, incident: Incident) -> Iterable[Block]:
    """What failed, what would be done about it, and what stands in the way."""
    plan = approval.plan
    yield _section([_failure(incident), *(_escape(reason) for reason in incident.reasons)])
    yield _section(["*What would be done*", *_effects(plan)])
    if plan.impediments:
        yield _section(["*In the way*", *(f"• {_escape(text)}" for text in plan.impediments)])
    yield _context(f"{_escape(plan.budget or 'no disruption budget is touched')} · plan `{approval.digest[:12]}`")


def _failure(incident: Incident) -> str:
    mark = ":red_circle:" if incident.severity is Severity.CRITICAL else ":large_orange_circle:"
    what = f"{mark} *{_escape(incident.failure_mode)}* on *{_escape(str(incident.component))}*"
    return f"{what}: {incident.severity}, score {incident.score:.2f} ({incident.basis})"


def _effects(plan: Plan) -> Iterable[str]:
    if not plan.effects:
        return ["• nothing: the world already is as the playbook would leave it"]
    return [f"• {_escape(str(effect))}" for effect in plan.effects]


def _outcome(approval: Approval) -> str:
    when = f" {_moment(approval.decided_at)}" if approval.decided_at else ""
    why = f": {_escape(approval.reason)}" if approval.reason else ""
    match approval.state:
        case ApprovalState.APPROVED:
            return f":white_check_mark: *Approved* by {_who(approval.decided_by)}{when}{why}"
        case ApprovalState.DENIED:
            return f":no_entry_sign: *Denied* by {_who(approval.decided_by)}{when}{why}"
        case ApprovalState.VOID:
            return f":wastebasket: *Void*{when}{why or ': the plan no longer stands'}"
        case ApprovalState.PENDING | ApprovalState.EXPIRED:
            return f":hourglass: *Expired* {_moment(approval.expires_at)} without an answer"


def _fallback(approval: Approval, incident: Incident) -> str:
    """What notifications and screen readers say."""
    what = f"{incident.failure_mode} on {incident.component}: approve {approval.plan.playbook}?"
    return _escape(what)


def _who(person: Person | None) -> str:
    if person is None:
        return "somebody"
    slack_id = _SLACK_PERSON.fullmatch(person.id)
    return f"<@{slack_id[1]}>" if slack_id else _escape(str(person))


def _moment(at: datetime) -> str:
    """A time that Slack shows in the reader's own time zone."""
    utc = at.astimezone(UTC)
    return f"<!date^{int(utc.timestamp())}^{{date_short_pretty}} {{time_secs}}|{utc:%Y-%m-%d %H:%M:%S} UTC>"


def _header(text: str) -> Block:
    return {"type": "header", "text": {"type": "plain_text", "text": _clean(text, _MOST_HEADER), "emoji": False}}


def _section(lines: Sequence[str]) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": _fitted(lines)}}


def _context(text: str) -> Block:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text}]}


def _button(label: str, action_id: str, value: str, style: str) -> Block:
    text = {"type": "plain_text", "text": label}
    return {"type": "button", "text": text, "action_id": action_id, "value": value, "style": style}


def _fitted(lines: Sequence[str]) -> str:
    """As many whole lines as a section takes, and how many more there are."""
    text = "\n".join(lines)
    if len(text) <= _MOST_SECTION:
        return text
    shown = list(lines)
    while shown and len(text) > _MOST_SECTION:
        shown.pop()
        text = "\n".join([*shown, f"…and {len(lines) - len(shown)} more: see console"])
    return text


def _escape(text: str) -> str:
    """Untrusted text as one line of mrkdwn that can neither mention, link nor pretend to be another line."""
    return _clean(text, _MOST_LINE).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clean(text: str, most: int) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(printable.split())
    return line if len(line) <= most else line[: most - 1] + "…"


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
    said = _clean(answer.body or "", 60)
    detail = f"{method}: HTTP {answer.status_code}" + (f" {said}" if _ERROR_CODE.fullmatch(said) else "")
    if answer.status_code == 429 or answer.status_code >= 500:
        raise Unavailable(_COMPONENT, detail)
    raise Rejected(_COMPONENT, detail)
