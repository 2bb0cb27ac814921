"""CEL expressions in playbooks, compiled once. The variables they may use are fixed, so a misspelt one is found at
load.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import celpy
import lark
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError, base_functions

from healer.documents import nearest
from healer.domain.component import Component
from healer.domain.fleet import Means
from healer.domain.incident import Incident
from healer.domain.playbook import Scalar
from healer.errors import Rejected

Shape = Mapping[str, "Shape | None"]

_COMPONENT: Shape = dict.fromkeys(("kind", "rack", "node", "gpu", "uuid", "job", "link"))
VARIABLES: Shape = {
    "incident": {
        **dict.fromkeys(("id", "failure_mode", "health", "severity", "score", "basis", "reason")),
        "component": _COMPONENT,
        "culprit": _COMPONENT,
    },
    "params": {},  # those that the playbook declares
    "site": dict.fromkeys(each.name for each in fields(Means)),
}
_MACROS = ("all", "exists", "exists_one", "filter", "map")
_FUNCTIONS = frozenset({*filter(str.isidentifier, base_functions), *_MACROS, "has", "dyn"})


@dataclass(frozen=True, slots=True, eq=False)
class CelExpression:
    """Implements `healer.domain.playbook.Expression`."""

    text: str
    program: celpy.Runner = field(repr=False)

    def __call__(self, variables: Mapping[str, object]) -> Scalar:
        activation = {name: json_to_cel(value) for name, value in variables.items()}  # type: ignore[arg-type]
        try:
            result = self.program.evaluate(activation)
        except CELEvalError as error:
            raise Rejected("expression", f"{self.text!r}: {error.args[0]}") from error
        return _scalar(result, self.text)


def compile_expression(text: str, *, params: Collection[str] = (), shape: Shape | None = None) -> CelExpression:
    """Raises ValueError with what is wrong and, for an unknown name, the nearest known one.

    Args:
        params: the names that `params` has.
        shape: the variables; those of an incident and its playbook, if it is not given.
    """
    environment = celpy.Environment()
    try:
        tree = environment.compile(text)
    except CELParseError as error:
        column = f" at column {error.column}" if error.column else ""
        raise ValueError(f"not a CEL expression{column}: {text!r}") from error
    _check_names(tree, text, {**VARIABLES, "params": dict.fromkeys(params)} if shape is None else shape)
    return CelExpression(text, environment.program(tree))


def variables_of(incident: Incident, params: Mapping[str, Scalar], means: Means) -> Mapping[str, object]:
    """What an expression about `incident` sees; the keys are those of VARIABLES."""
    return {
        "incident": {
            "id": incident.id,
            "failure_mode": str(incident.failure_mode),
            "health": incident.health.name.lower(),
            "severity": str(incident.severity),
            "score": incident.score,
            "basis": str(incident.basis),
            "reason": incident.reasons[0] if incident.reasons else "",
            "component": _names(incident.component),
            "culprit": _names(incident.culprit),
        },
        "params": dict(params),
        "site": asdict(means),
    }


def _names(component: Component | None) -> Mapping[str, object]:
    """All null where nothing is blamed."""
    if component is None:
        return dict.fromkeys(_COMPONENT)
    return {"kind": str(component.kind), **{name: getattr(component, name) for name in _COMPONENT if name != "kind"}}


def _check_names(tree: lark.Tree[Any], text: str, variables: Shape) -> None:
    bound = {str(call.children[0]) for call in tree.find_data("ident") if _is_macro_variable(call, tree)}
    for ident in tree.find_data("ident"):
        name = str(ident.children[0])
        if name not in variables and name not in bound:
            raise ValueError(f"unknown variable {name!r} in {text!r}; {_known(name, variables)}")
    for access in tree.find_data("member_dot"):
        path = _dotted(access)
        if path:
            _check_path(path, text, variables)
    for kind, position in (("ident_arg", 0), ("dot_ident_arg", 0), ("member_dot_arg", 1)):
        for call in tree.find_data(kind):
            name = str(call.children[position])
            if name not in _FUNCTIONS:
                hint = nearest(name, sorted(_FUNCTIONS)) or "see the CEL standard functions"
                raise ValueError(f"unknown function {name!r} in {text!r}; {hint}")


def _check_path(path: tuple[str, ...], text: str, variables: Shape) -> None:
    shape: Shape | None = variables
    for depth, part in enumerate(path):
        if shape is None:
            return
        if part not in shape:
            if depth == 0:
                return
            raise ValueError(f"{'.'.join(path[:depth])} has no {part!r} in {text!r}; {_known(part, shape)}")
        shape = shape[part]


def _dotted(access: lark.Tree[Any]) -> tuple[str, ...]:
    """`a.b.c` as its parts; empty if the access does not start at a variable."""
    inner, name = access.children[0], str(access.children[1])
    while isinstance(inner, lark.Tree) and inner.data in {"member", "primary"} and len(inner.children) == 1:
        inner = inner.children[0]
    if isinstance(inner, lark.Tree) and inner.data == "ident":
        return (str(inner.children[0]), name)
    if isinstance(inner, lark.Tree) and inner.data == "member_dot":
        outer = _dotted(inner)
        return (*outer, name) if outer else ()
    return ()


def _is_macro_variable(ident: lark.Tree[Any], tree: lark.Tree[Any]) -> bool:
    """Whether the identifier is the variable that exists(x, ...), all, filter or map introduces."""
    for call in tree.find_data("member_dot_arg"):
        if str(call.children[1]) in _MACROS:
            arguments = call.children[2]
            first = next(iter(arguments.children[0].find_data("ident")), None)
            if first is not None and first.children[0] == ident.children[0]:
                return True
    return False


def _known(name: str, shape: Shape) -> str:
    return nearest(name, shape) or f"known: {', '.join(shape) or 'none'}"


def _scalar(value: object, text: str) -> Scalar:
    # CEL's types are subclasses of Python's, but for its boolean, which is an int.
    match value:
        case None | bool():
            return value
        case celpy.celtypes.BoolType():
            return bool(value)
        case int():
            return int(value)
        case float():
            return float(value)
        case str():
            return str(value)
        case _:
            raise Rejected("expression", f"{text!r} gives a {type(value).__name__}, not a plain value")
