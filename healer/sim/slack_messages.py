"""Messages of the local Slack: how they are asked for, what they hold, how an update changes them."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from urllib.parse import parse_qsl

from healer.errors import NotFound
from healer.sim.slack_limits import Json

COMPONENT = "local Slack"
_MENTION = re.compile(r"<@([UW][A-Z0-9]+)>|<!subteam\^(S[A-Z0-9]+)>")


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it stands in its channel now; `updates` counts how often it was rewritten.

    Attributes:
        notified: the people and usergroups whom it mentioned when it was posted: an update notifies nobody.
    """

    channel: str
    ts: str
    text: str
    blocks: tuple[Json, ...]
    from_bot: bool = True
    updates: int = 0
    notified: tuple[str, ...] = ()

    def button(self, action_id: str) -> tuple[str, str | None]:
        """The block_id and the value of the button with this action_id."""
        for block in self.blocks:
            elements = block.get("elements")
            for element in [*(elements if isinstance(elements, list) else ()), block.get("accessory")]:
                if isinstance(element, dict) and element.get("action_id") == action_id:
                    return str(block["block_id"]), element.get("value")
        raise NotFound(COMPONENT, f"message {self.ts} has no button {action_id!r}")


@dataclass(frozen=True, slots=True)
class FollowUp:
    """What was posted to the response_url of a click."""

    message_ts: str
    text: str
    blocks: tuple[Json, ...]
    replace_original: bool
    response_type: str


def arguments(body: bytes, content_type: str) -> Json:
    """JSON or a form, as Slack's methods take both; a form carries its JSON in the field `payload` or `blocks`."""
    try:
        if "json" in content_type:
            asked = json.loads(body)
        else:
            form = dict(parse_qsl(body.decode()))
            asked = json.loads(form["payload"]) if "payload" in form else form
            if isinstance(asked.get("blocks"), str):
                asked = {**asked, "blocks": json.loads(asked["blocks"])}
    except (ValueError, AttributeError, RecursionError):
        return {}
    return asked if isinstance(asked, dict) else {}


def content(asked: Json) -> tuple[str | None, Sequence[object] | None]:
    """The text and the blocks of a message; blocks that are no list become one block, which the limits refuse."""
    text, blocks = asked.get("text"), asked.get("blocks")
    listed = blocks if blocks is None or isinstance(blocks, list) else [blocks]
    return (text if isinstance(text, str) else None), listed


def posted(channel: str, ts: str, text: str | None, blocks: Sequence[object] | None, *, from_bot: bool) -> Message:
    """A new message; where there are blocks, those are what people see, and what mentions them."""
    named = with_ids(blocks)
    seen = "\n".join(_markup(list(named))) if named else text or ""
    notified = tuple(person or group for person, group in _MENTION.findall(seen))
    return Message(channel, ts, text or "", named, from_bot=from_bot, notified=tuple(dict.fromkeys(notified)))


def _markup(part: object) -> Iterator[str]:
    """The texts that Slack reads its markup in."""
    if isinstance(part, list):
        for each in part:
            yield from _markup(each)
    elif isinstance(part, dict):
        if part.get("type") == "mrkdwn":
            yield str(part.get("text"))
        yield from _markup([value for value in part.values() if isinstance(value, list | dict)])


def rewritten(message: Message, text: str | None, blocks: Sequence[object] | None) -> Message:
    """A text alone takes the blocks away, as Slack does it."""
    return replace(message, text=text or "", blocks=with_ids(blocks), updates=message.updates + 1)


def update_error(message: Message | None, asked: Json) -> str | None:
    """An update names its channel by id, never by name, and reaches only what this token posted."""
    if message is None or message.channel != asked.get("channel"):
        return "message_not_found" if str(asked.get("channel", "")).startswith("C") else "channel_not_found"
    return None if message.from_bot else "cant_update_message"


def with_ids(blocks: Sequence[object] | None) -> tuple[Json, ...]:
    """Slack names the blocks that came without a name."""
    named = [block for block in blocks or () if isinstance(block, dict)]
    return tuple({"block_id": secrets.token_hex(3), **block} for block in named)


def channel_id(channel: str) -> str:
    name = channel.removeprefix("#")
    is_id = name == channel and name[0] in "CDG" and name.isupper()
    return name if is_id else "C" + sha256(name.encode()).hexdigest()[:9].upper()
