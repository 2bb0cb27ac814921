"""What the typed documents share: durations as people write them, strict sections, and errors that name file, line
and key.
"""

from __future__ import annotations

import re
import typing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from healer.documents import Document, KeyPath, nearest
from healer.errors import InvalidDocument, Problem

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: object) -> timedelta:
    """'30s', '5m', '1h30m' as a timedelta. Raises ValueError with what is expected."""
    if isinstance(text, timedelta):
        return text
    parts = _DURATION.findall(text) if isinstance(text, str) else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write it like 30s, 5m or 1h30m")
    try:
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any duration") from None


def parse_moment(text: object) -> datetime:
    """'2026-11-20T18:00:00Z', or with another offset, as UTC. Raises ValueError with what is expected."""
    try:
        moment = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
    except ValueError:
        raise ValueError(f"{text!r} is not a time; write it like 2026-11-20T18:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone; append Z for UTC")
    return moment.astimezone(UTC)


def format_duration(span: timedelta) -> str:
    """A timedelta as '1h30m', the way config.yaml writes it; to the millisecond."""
    left_ms, text = round(span.total_seconds() * 1000), ""
    for unit in ("d", "h", "m", "s", "ms"):
        count, left_ms = divmod(left_ms, round(_SECONDS[unit] * 1000))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _positive(span: timedelta) -> timedelta:
    if span <= timedelta(0):
        raise ValueError("must be longer than zero")
    return span


_AS_TEXT = WithJsonSchema({"type": "string", "pattern": rf"^({_DURATION.pattern})+$", "examples": ["30s", "1h30m"]})

Delay = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration), _AS_TEXT]
"""A duration that may be nought."""

Duration = Annotated[Delay, AfterValidator(_positive)]

Moment = Annotated[datetime, BeforeValidator(parse_moment)]

Member = Annotated[str, Field(pattern=r"^(slack|token|local):\S+$")]
"""A person by the id that their channel authenticates, or a usergroup of Slack."""

GroupName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Model = TypeVar("_Model", bound=BaseModel)


def validated(document: Document, model: type[_Model]) -> _Model:
    """The document as a `model`. Raises InvalidDocument with every problem in it, each on its line."""
    try:
        return model.model_validate({} if document.content is None else document.content)
    except ValidationError as error:
        details = error.errors()
        # A list whose items are refused counts as empty: that follows from the items and only misleads.
        refused = {detail["loc"][:-1] for detail in details}
        told = [detail for detail in details if not (detail["type"] == "too_short" and detail["loc"] in refused)]
        raise InvalidDocument(*(_problem(document, detail, model) for detail in told)) from None


def _problem(document: Document, detail: ErrorDetails, model: type[BaseModel]) -> Problem:
    # The location of an error inside a union also names the members that were tried: those are not keys.
    path: KeyPath = ()
    for part in detail["loc"]:
        if (*path, part) in document.lines:
            path = (*path, part)
    match detail["type"]:
        case "extra_forbidden":
            known = _fields_at(model, path[:-1])
            return document.problem(path, "unknown key", nearest(str(path[-1]), known) or f"known: {', '.join(known)}")
        case "missing":
            return document.problem((*path, detail["loc"][-1]), "is missing")
        case "value_error":
            return document.problem(path, str(detail["ctx"]["error"]))
        case "model_type":
            # Not repeated: it may be a secret that stands where its {file: ...} or {env: ...} belongs.
            return document.problem(path, f"is not a section with keys; known: {', '.join(_fields_at(model, path))}")
        case "enum" | "literal_error":
            expected = detail["ctx"]["expected"]
            hint = nearest(str(detail["input"]), re.findall(r"'([^']+)'", expected))
            return document.problem(path, f"is one of {expected}, not {detail['input']!r}", hint)
        case _:
            text = detail["msg"][0].lower() + detail["msg"][1:]
            plain = not isinstance(detail["input"], dict | list)
            return document.problem(path, f"{text}, not {detail['input']!r}" if plain else text)


def _fields_at(model: type[BaseModel], path: KeyPath) -> tuple[str, ...]:
    """The keys that are known at `path` below `model`, as people write them."""
    for part in path:
        field = _by_key(model).get(str(part))
        below = () if field is None else _models_in(field.annotation)
        model = below[0] if below else model
    return tuple(_by_key(model))


def _by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    return tuple(model for part in typing.get_args(annotation) for model in _models_in(part))
