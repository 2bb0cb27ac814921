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
from healer.sim.slack_messages import COMPONENT, Message

TEAM_ID = "T0LOCAL"
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver of a click answered."""

    status: int
    body: str


@dataclass(frozen=True, slots=True)
class Clicker:
    """A person in the workspace, by Slack's id and name for them."""

    user_id: str
    user_name: str


def sign(signing_secret: str, timestamp: str, body: bytes) -> str:
    """Slack's signature, version 0, of one request body."""
    base = b"v0:" + timestamp.encode() + b":" + body
    return "v0=" + hmac.new(signing_secret.encode(), base, hashlib.sha256).hexdigest()


def signed(payload: Mapping[str, object], *, signing_secret: str, at: float) -> tuple[bytes, dict[str, str | bytes]]:
    """The body and the headers by which Slack delivers a payload at a time, seconds since 1970."""
    body = urlencode({"payload": json.dumps(payload)}).encode()
    stamp = str(int(at))
    return body, {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": sign(signing_secret, stamp, body)}


def block_actions(
    message: Message, action_id: str, *, by: Clicker, response_url: str, value: str | None = None
) -> dict[str, object]:
    """The payload of a click on a button; `value` stands in for the button's own."""
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
        "response_url": response_url,
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
        raise Unavailable(COMPONENT, f"the click did not reach {interactions_url}: {error}") from error
    finally:
        connection.close()
