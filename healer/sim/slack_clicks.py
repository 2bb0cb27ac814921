"""Somebody clicks a button: what Slack then posts to the interactions URL, signed as Slack signs it, or forged."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from healer.errors import Unavailable
from healer.sim.slack import TEAM_ID, LocalSlack, Message

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver of a click answered."""

    status: int
    body: str


@dataclass(frozen=True, slots=True)
class Clicker:
    """A person in the workspace. Slack's own id and name for them."""

    user_id: str = "U0ONCALL"
    user_name: str = "oncall"


def sign(signing_secret: str, timestamp: str, body: bytes) -> str:
    """Slack's signature, version 0, of one request body."""
    base = b"v0:" + timestamp.encode() + b":" + body
    return "v0=" + hmac.new(signing_secret.encode(), base, hashlib.sha256).hexdigest()


def click(  # noqa: PLR0913
    slack: LocalSlack,
    message: Message,
    action_id: str,
    *,
    interactions_url: str,
    by: Clicker = Clicker(),
    value: str | None = None,
    without: tuple[str, ...] = (),
    at: float | None = None,
    signing_secret: str | None = None,
) -> Answer:
    """Clicks a button of a message. To forge: another `value`, secret or time (`at`, seconds since 1970).

    `without` leaves out top-level parts of the payload, as Slack does for some messages.
    """
    payload = block_actions(slack, message, action_id, by=by, value=value)
    kept = {name: part for name, part in payload.items() if name not in without}
    body = urlencode({"payload": json.dumps(kept)}).encode()
    stamp = str(int(time.time() if at is None else at))
    secret = slack.signing_secret if signing_secret is None else signing_secret
    return post_raw(
        interactions_url,
        body,
        {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": sign(secret, stamp, body)},
    )


def block_actions(
    slack: LocalSlack, message: Message, action_id: str, *, by: Clicker = Clicker(), value: str | None = None
) -> dict[str, object]:
    """The payload of a click, with a response_url that works."""
    block_id, own_value = message.button(action_id)
    now = f"{time.time():.6f}"
    action = {
        "type": "button",
        "action_id": action_id,
        "block_id": block_id,
        "value": own_value if value is None else value,
        "action_ts": now,
    }
    return {
        "type": "block_actions",
        "user": {"id": by.user_id, "username": by.user_name, "name": by.user_name, "team_id": TEAM_ID},
        "api_app_id": "A0HEALER",
        "container": {"type": "message", "message_ts": message.ts, "channel_id": message.channel},
        "trigger_id": f"{message.ts}.click",
        "team": {"id": TEAM_ID, "domain": "local"},
        "enterprise": None,
        "channel": {"id": message.channel, "name": "gpu-oncall"},
        "message": {"type": "message", "ts": message.ts, "text": message.text, "blocks": list(message.blocks)},
        "response_url": slack.open_response_url(message),
        "actions": [action],
    }


def post_raw(interactions_url: str, body: bytes, headers: Mapping[str, str | bytes]) -> Answer:
    """Posts anything at all; headers given as bytes go out as they are."""
    parts = urlsplit(interactions_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    try:
        connection.request("POST", parts.path or "/", body, form | dict(headers))
        response = connection.getresponse()
        return Answer(response.status, response.read().decode(errors="replace"))
    except OSError as error:
        raise Unavailable("local Slack", f"the click did not reach {interactions_url}: {error}") from error
    finally:
        connection.close()
