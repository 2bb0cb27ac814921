"""Slack's limits on what a message may hold, so that a message that the local Slack takes is one that Slack takes.

Figures from Slack's Block Kit reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = Mapping[str, object]

_MOST_BLOCKS = 50
_MOST_TEXT = 40_000
_MOST_ELEMENTS = {"actions": 25, "context": 10}
_BUTTON_STYLES = (None, "primary", "danger")
_BLOCK_TYPES = ("actions", "context", "divider", "header", "image", "section")
_CONFIRM_LIMITS = {"title": 100, "text": 300, "confirm": 30, "deny": 30}


def message_error(text: str | None, blocks: Sequence[object] | None) -> str | None:
    """Slack's word for what is wrong with a message as a whole; None when nothing is."""
    if not text and not blocks:
        return "no_text"
    if len(text or "") > _MOST_TEXT:
        return "msg_too_long"
    return "invalid_blocks" if block_faults(blocks or ()) else None


def block_faults(blocks: Sequence[object]) -> tuple[str, ...]:
    """Every breach, with a pointer to its place in the way Slack writes them."""
    found = [f"no more than {_MOST_BLOCKS} items allowed [json-pointer:/blocks]"] * (len(blocks) > _MOST_BLOCKS)
    for number, block in enumerate(blocks):
        place = f"/blocks/{number}"
        found += _block(block, place) if isinstance(block, dict) else [f"must be an object [json-pointer:{place}]"]
    ids = [block["block_id"] for block in blocks if isinstance(block, dict) and "block_id" in block]
    found += [f"block_id {name!r} already exists [json-pointer:/blocks]" for name in _repeated(ids)]
    return tuple(found)


def _block(block: Json, place: str) -> list[str]:
    found = _sized(block, "block_id", 255, place, required=False)
    kind = block.get("type")
    if kind == "section":
        found += _section(block, place)
    elif kind == "header":
        found += _text_object(block.get("text"), 150, f"{place}/text", plain=True)
    elif kind in ("actions", "context"):
        found += _elements(block, str(kind), place)
    elif kind not in _BLOCK_TYPES:
        found.append(f"unsupported type: {kind} [json-pointer:{place}/type]")
    return found


def _section(block: Json, place: str) -> list[str]:
    fields = block.get("fields")
    found = []
    if "text" in block or not fields:
        found += _text_object(block.get("text"), 3000, f"{place}/text")
    if isinstance(fields, list):
        found += [f"no more than 10 items allowed [json-pointer:{place}/fields]"] * (len(fields) > 10)
        for number, field in enumerate(fields):
            found += _text_object(field, 2000, f"{place}/fields/{number}")
    accessory = block.get("accessory")
    return found + (_element(accessory, f"{place}/accessory") if isinstance(accessory, dict) else [])


def _elements(block: Json, kind: str, place: str) -> list[str]:
    elements = block.get("elements")
    if not isinstance(elements, list) or not elements:
        return [f"must have at least one element [json-pointer:{place}/elements]"]
    most = _MOST_ELEMENTS[kind]
    found = [f"no more than {most} items allowed [json-pointer:{place}/elements]"] * (len(elements) > most)
    for number, element in enumerate(elements):
        where = f"{place}/elements/{number}"
        if not isinstance(element, dict):
            found.append(f"must be an object [json-pointer:{where}]")
        elif kind == "actions":
            found += _element(element, where)
        elif element.get("type") in ("mrkdwn", "plain_text"):
            found += _text_object(element, 2000, where)
    ids = [element["action_id"] for element in elements if isinstance(element, dict) and "action_id" in element]
    return found + [f"action_id {name!r} already exists [json-pointer:{place}/elements]" for name in _repeated(ids)]


def _element(element: Json, place: str) -> list[str]:
    found = _sized(element, "action_id", 255, place, required=False)
    if element.get("type") != "button":
        return found
    found += _text_object(element.get("text"), 75, f"{place}/text", plain=True)
    found += _sized(element, "value", 2000, place, required=False)
    found += _sized(element, "url", 3000, place, required=False)
    if element.get("style") not in _BUTTON_STYLES:
        found.append(f"must be primary or danger [json-pointer:{place}/style]")
    confirm = element.get("confirm")
    if isinstance(confirm, dict):
        for name, most in _CONFIRM_LIMITS.items():
            found += _text_object(confirm.get(name), most, f"{place}/confirm/{name}", plain=name != "text")
    return found


def _text_object(value: object, most: int, place: str, *, plain: bool = False) -> list[str]:
    if not isinstance(value, dict):
        return [f"missing required field: text [json-pointer:{place}]"]
    allowed = ("plain_text",) if plain else ("plain_text", "mrkdwn")
    if value.get("type") not in allowed:
        return [f"must be one of {', '.join(allowed)} [json-pointer:{place}/type]"]
    return _sized(value, "text", most, place, required=True)


def _sized(holder: Json, name: str, most: int, place: str, *, required: bool) -> list[str]:
    if name not in holder and not required:
        return []
    value = holder.get(name)
    if not isinstance(value, str) or not value:
        return [f"must be a string of at least one character [json-pointer:{place}/{name}]"]
    return [f"must be less than {most + 1} characters [json-pointer:{place}/{name}]"] * (len(value) > most)


def _repeated(ids: Sequence[object]) -> list[object]:
    return [name for name, times in Counter(map(str, ids)).items() if times > 1]
