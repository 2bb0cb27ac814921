"""The JSON Schema of playbooks: what editors complete and underline while one is written."""

from __future__ import annotations

from typing import Any

from healer.content.playbooks import json_schema
from healer.verb import Action, Verbs

_EXPRESSION = {"type": "string", "pattern": r"^\$\{.*\}$", "description": "CEL"}
_STEP = "StepSection"


def document_schema(verbs: Verbs) -> dict[str, Any]:
    """JSON Schema 2020-12 of a playbook that uses these verbs."""
    schema = json_schema()
    step = schema["$defs"][_STEP]
    step["properties"]["use"] = {
        "oneOf": [{"const": name, "description": _about(verb)} for name, verb in sorted(verbs.items())]
    }
    step["allOf"] = [
        {
            "if": {"properties": {"use": {"const": name}}, "required": ["use"]},
            "then": {"properties": {"with": _arguments(verb, schema)}},
        }
        for name, verb in sorted(verbs.items())
    ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "healer playbook", **schema}


def _about(verb: Action) -> str:
    return " ".join((verb.__doc__ or verb.name).split())


def _arguments(verb: Action, whole: dict[str, Any]) -> dict[str, Any]:
    """What stands under `with`; every value may be an expression instead."""
    # What it defines keeps its name to itself: an author's Mode is not healer's.
    schema = verb.Arguments.model_json_schema(by_alias=True, ref_template=f"#/$defs/{verb.name}.{{model}}")
    whole["$defs"] |= {f"{verb.name}.{name}": of for name, of in schema.pop("$defs", {}).items()}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {"anyOf": [of, _EXPRESSION]} for name, of in schema.get("properties", {}).items()},
    }
