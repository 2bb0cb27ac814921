"""The OpenAPI document, generated from the table of operations and the structs that they answer with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from healer import __version__
from healer.runtime.web.auth import Role
from healer.runtime.web.operations import Operation
from healer.runtime.web.site import ErrorAnswer

Json: TypeAlias = dict[str, object]

_REFUSALS = {
    "400": "The request is malformed",
    "401": "It is not known who is asking",
    "403": "The asker may not do this",
    "404": "Nothing has this id",
    "409": "The state moved on: answered, expired or ended",
    "413": "The body is longer than 1 MiB",
    "422": "The request is well-formed, a value in it is not acceptable",
    "503": "Something that the answer depends on is unavailable",
}


@dataclass(frozen=True, slots=True)
class Extra:
    """A route beside the table: of the daemon itself, or for another system.

    Attributes:
        takes: the media type of its body; None if it takes none.
    """

    method: str
    path: str
    summary: str
    answers: Mapping[str, str]
    media_type: str = "application/json"
    open: bool = True
    takes: str | None = None


def document(operations: Sequence[Operation], extras: Sequence[Extra], *, prefix: str) -> Json:
    types = {operation.answers for operation in operations}
    types |= {operation.takes for operation in operations if operation.takes is not None} | {ErrorAnswer}
    ordered = sorted(types, key=lambda shape: shape.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    of = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(prefix + operation.path, {})[operation.method.lower()] = _operation(operation, of)
    for extra in extras:
        paths.setdefault(extra.path, {})[extra.method.lower()] = _extra(extra)
    return {
        "openapi": "3.1.0",
        "info": {"title": "healer", "version": __version__},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(operation: Operation, of: Mapping[type, Json]) -> Json:
    described: Json = {
        "summary": operation.summary,
        "description": f"Needs the role {Role(operation.role).name.lower()}.",
        "operationId": operation.run.__name__.strip("_"),
        "parameters": list(_parameters(operation)),
        "responses": {
            "200": _answer("Done", of[operation.answers]),
            **{status: _answer(text, of[ErrorAnswer]) for status, text in _REFUSALS.items()},
        },
    }
    if operation.takes is not None:
        content = {"application/json": {"schema": of[operation.takes]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameters(operation: Operation) -> Iterable[Json]:
    if "{id}" in operation.path:
        yield {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    for kind, names in (("integer", operation.query), ("boolean", operation.flags)):
        for name in names:
            yield {"name": name, "in": "query", "required": False, "schema": {"type": kind}}


def _answer(text: str, schema: Json) -> Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _extra(extra: Extra) -> Json:
    answers = {
        status: {"description": text, "content": {extra.media_type: {}}} for status, text in extra.answers.items()
    }
    security: Json = {"security": []} if extra.open else {}
    body: Json = {"requestBody": {"required": True, "content": {extra.takes: {}}}} if extra.takes else {}
    return {"summary": extra.summary, **body, "responses": answers, **security}
