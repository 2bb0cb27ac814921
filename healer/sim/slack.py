"""A Slack on this machine: takes messages as Slack does, shows them to tests and drills, and clicks their buttons.

What Slack refuses is refused here with Slack's own word for it: a wrong token, a text over a limit, an update of
somebody else's message, a sixth use of a response_url.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from healer.errors import Unavailable
from healer.sim.serving import Served
from healer.sim.slack_clicks import TEAM_ID, Answer, Clicker, block_actions, post_raw, signed
from healer.sim.slack_limits import Json, block_faults, message_error
from healer.sim.slack_messages import (
    COMPONENT,
    FollowUp,
    Message,
    arguments,
    channel_id,
    content,
    posted,
    rewritten,
    update_error,
    with_ids,
)

_BOT_USER = "U0HEALER"
_WEBHOOK_CHANNEL = "C0WEBHOOK"
_WEBHOOK_PATH = "/services/T000/B000/XXX"
_RESPONSE_USES = 5
_RESPONSE_LIFE_S = 1800.0


@dataclass(slots=True)
class _ResponseUrl:
    message_ts: str
    made_at_s: float
    uses: int = 0


class LocalSlack(Served):
    """Serves the Web API, one incoming webhook and response_urls, from `start` to `stop`."""

    def __init__(
        self,
        *,
        bot_token: str = "xoxb-local",  # noqa: S107 - opens nothing but this stand-in
        signing_secret: str = "local-signing-secret",  # noqa: S107 - signs nothing but this stand-in's clicks
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.bot_token = bot_token
        self.signing_secret = signing_secret
        self._changed = threading.Condition()
        self._messages: dict[str, Message] = {}
        self._follow_ups: list[FollowUp] = []
        self._response_urls: dict[str, _ResponseUrl] = {}
        self._last_ts_us = 0
        super().__init__(self._app(), name=COMPONENT, host=host, port=port)

    @property
    def api_url(self) -> str:
        """What slack_sdk's WebClient takes as its base_url."""
        return f"{self.url}/api/"

    @property
    def webhook_url(self) -> str:
        return f"{self.url}{_WEBHOOK_PATH}"

    @property
    def messages(self) -> tuple[Message, ...]:
        """In the order in which they were posted."""
        with self._changed:
            return tuple(self._messages.values())

    @property
    def responses(self) -> tuple[FollowUp, ...]:
        with self._changed:
            return tuple(self._follow_ups)

    def wait_for_message(self, predicate: Callable[[Message], bool], *, timeout_s: float = 10.0) -> Message:
        """The first message for which the predicate holds, as soon as one does.

        Raises:
            Unavailable: none came in time.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = next((message for message in self._messages.values() if predicate(message)), None)
                if found is not None:
                    return found
                if not self._changed.wait(deadline - time.monotonic()):
                    seen = len(self._messages)
                    raise Unavailable(COMPONENT, f"none of {seen} messages was the one awaited for {timeout_s:g} s")

    def click(
        self,
        message: Message,
        action_id: str,
        *,
        interactions_url: str,
        user_id: str = "U0ONCALL",
        user_name: str = "oncall",
        at: float | None = None,
        signing_secret: str | None = None,
        value: str | None = None,
        without: Sequence[str] = (),
    ) -> Answer:
        """Clicks a button and returns what the receiver answered.

        To forge: another signing secret, a time of sending (`at`, seconds since 1970), another button value. `without`
        leaves out parts of the payload (channel, message, team, state) that Slack does not always send. For bodies and
        headers of any kind, see `slack_clicks.post_raw`.
        """
        clicker = Clicker(user_id, user_name)
        payload = block_actions(message, action_id, by=clicker, value=value, response_url=self._response_url(message))
        body, headers = signed(
            {name: part for name, part in payload.items() if name not in without},
            signing_secret=self.signing_secret if signing_secret is None else signing_secret,
            at=time.time() if at is None else at,
        )
        return post_raw(interactions_url, body, headers)

    def _response_url(self, message: Message) -> str:
        name = secrets.token_urlsafe(16)
        with self._changed:
            self._response_urls[name] = _ResponseUrl(message.ts, time.monotonic())
        return f"{self.url}/response/{name}"

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/auth.test", self._auth_test, methods=["GET", "POST"]),
                Route("/api/chat.postMessage", self._post_message, methods=["POST"]),
                Route("/api/chat.update", self._update, methods=["POST"]),
                Route(_WEBHOOK_PATH, self._webhook, methods=["POST"]),
                Route("/response/{name}", self._respond, methods=["POST"]),
            ]
        )

    async def _auth_test(self, request: Request) -> Response:
        error = self._auth_error(request)
        if error:
            return _no(error)
        about = {"url": f"{self.url}/", "team": "Local", "user": "healer", "bot_id": "B0HEALER"}
        return JSONResponse({"ok": True, "team_id": TEAM_ID, "user_id": _BOT_USER, **about})

    async def _post_message(self, request: Request) -> Response:
        asked = await _arguments(request)
        channel = str(asked.get("channel") or "")
        text, blocks = content(asked)
        error = (
            self._auth_error(request) or ("channel_not_found" if not channel else None) or message_error(text, blocks)
        )
        if error:
            return _no(error, block_faults(blocks or ()))
        return _yes(self._keep(posted(channel_id(channel), self._next_ts(), text, blocks, from_bot=True)))

    async def _update(self, request: Request) -> Response:
        asked = await _arguments(request)
        text, blocks = content(asked)
        message = self._messages.get(str(asked.get("ts")))
        error = self._auth_error(request) or update_error(message, asked) or message_error(text, blocks)
        if error or message is None:
            return _no(error or "message_not_found", block_faults(blocks or ()))
        return _yes(self._keep(rewritten(message, text, blocks)))

    async def _webhook(self, request: Request) -> Response:
        """An incoming webhook: says ok, and never which message it made."""
        asked = await _arguments(request)
        text, blocks = content(asked)
        error = message_error(text, blocks) if asked else "invalid_payload"
        if error:
            return PlainTextResponse(error, status_code=400)
        ts = self._next_ts()
        self._keep(posted(_WEBHOOK_CHANNEL, ts, text, blocks, from_bot=False))
        return PlainTextResponse("ok")

    async def _respond(self, request: Request) -> Response:
        asked = await _arguments(request)
        text, blocks = content(asked)
        opened = self._response_urls.get(request.path_params["name"])
        if opened is None or time.monotonic() - opened.made_at_s > _RESPONSE_LIFE_S:
            return _no("expired_url", status=404)
        if opened.uses >= _RESPONSE_USES:
            return _no("used_url", status=404)
        replacing, deleting = asked.get("replace_original") is True, asked.get("delete_original") is True
        error = None if deleting else message_error(text, blocks)
        if error:
            return _no(error, block_faults(blocks or ()), status=400)
        opened.uses += 1
        kind = str(asked.get("response_type") or "ephemeral")
        self._follow_up(FollowUp(opened.message_ts, text or "", with_ids(blocks), replacing, kind), deleting=deleting)
        return JSONResponse({"ok": True})

    def _follow_up(self, said: FollowUp, *, deleting: bool) -> None:
        with self._changed:
            self._follow_ups.append(said)
            original = self._messages.get(said.message_ts)
            if deleting:
                self._messages.pop(said.message_ts, None)
            elif said.replace_original and original is not None:
                self._messages[original.ts] = rewritten(original, said.text, said.blocks)
            self._changed.notify_all()

    def _keep(self, message: Message) -> Message:
        with self._changed:
            self._messages[message.ts] = message
            self._changed.notify_all()
        return message

    def _next_ts(self) -> str:
        """Slack's ts is a time in microseconds that no other message of the workspace has."""
        with self._changed:
            self._last_ts_us = max(self._last_ts_us + 1, time.time_ns() // 1000)
            return f"{self._last_ts_us // 1_000_000}.{self._last_ts_us % 1_000_000:06d}"

    def _auth_error(self, request: Request) -> str | None:
        given = request.headers.get("authorization")
        if given is None:
            return "not_authed"
        wanted = f"Bearer {self.bot_token}".encode()
        return None if secrets.compare_digest(given.encode(), wanted) else "invalid_auth"


async def _arguments(request: Request) -> Json:
    return arguments(await request.body(), request.headers.get("content-type", ""))


def _yes(message: Message) -> JSONResponse:
    content: Mapping[str, object] = {"text": message.text, "blocks": list(message.blocks), "ts": message.ts}
    return JSONResponse({"ok": True, "channel": message.channel, "ts": message.ts, "message": content})


def _no(error: str, details: Sequence[str] = (), *, status: int = 200) -> JSONResponse:
    more = {"errors": list(details)} if error == "invalid_blocks" else {}
    return JSONResponse({"ok": False, "error": error, **more}, status_code=status)
