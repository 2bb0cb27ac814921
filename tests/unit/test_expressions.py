"""CEL in playbooks: what it may name is fixed, so that a misspelt name is found at load and not at night."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from healer.content.expressions import VARIABLES, compile_expression, variables_of
from healer.domain.fleet import Means
from healer.domain.incident import Incident
from healer.domain.playbook import Scalar
from healer.errors import Rejected
from tests.unit.core_samples import gpu, incident

INCIDENT = incident(gpu("A", "n1", rack=None))
SITE = Means(agent=True, scheduler=True)
PARAMS: Mapping[str, Scalar] = {"share": 0.95, "lasting": "1m", "gpus": 8, "off": False, "none": None}


def _value(text: str, about: Incident = INCIDENT) -> Scalar:
    return compile_expression(text, params=PARAMS)(variables_of(about, PARAMS, SITE))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('incident.health == "failed"', True),
        ('incident.failure_mode + ": " + incident.reason', "GpuUncorrectableEcc: 2 uncorrectable memory errors"),
        ('incident.severity == "critical" && incident.basis == "rule"', True),
        ("incident.score", 1.0),
        ("incident.component.node", "n1"),
        ("incident.component.rack", None),
        ('incident.component.rack == "r1"', False),
        ("params.share", 0.95),
        ("params.lasting", "1m"),
        ("params.gpus * 2", 16),
        ("params.off", False),
        ("params.none == null", True),
        ("has(params.share)", True),
        ('incident.component.node.startsWith("n")', True),
        ('["n1", "n2"].exists(n, n == incident.component.node)', True),
        ("site.agent && site.scheduler", True),
        ("site.power", False),
        ('params.gpus > 4 ? "big" : "small"', "big"),
    ],
)
def test_an_expression_sees_the_incident_and_the_params(text: str, value: Scalar) -> None:
    result = _value(text)
    assert result == value
    assert type(result) is type(value)


def test_the_variables_are_those_that_are_checked_at_load() -> None:
    given = variables_of(INCIDENT, PARAMS, SITE)
    assert given.keys() == VARIABLES.keys()
    site, known = given["site"], VARIABLES["site"]
    assert isinstance(site, Mapping)
    assert isinstance(known, Mapping)
    assert site.keys() == known.keys()
    for name in ("incident",):
        shape, value = VARIABLES[name], given[name]
        assert isinstance(shape, Mapping)
        assert isinstance(value, Mapping)
        assert value.keys() == shape.keys()
        component = shape["component"]
        assert isinstance(component, Mapping)
        assert value["component"].keys() == component.keys()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("incidnt.health", "unknown variable 'incidnt' in 'incidnt.health'; did you mean 'incident'?"),
        ("zzz", "unknown variable 'zzz' in 'zzz'; known: incident, params, site"),
        ("incident.helth", "incident has no 'helth' in 'incident.helth'; did you mean 'health'?"),
        (
            "incident.component.nod",
            "incident.component has no 'nod' in 'incident.component.nod'; did you mean 'node'?",
        ),
        ("params.shre", "params has no 'shre' in 'params.shre'; did you mean 'share'?"),
        ("[1].exists(x, y > 1)", "unknown variable 'y' in '[1].exists(x, y > 1)'; known: incident, params, site"),
        ("strin(1)", "unknown function 'strin' in 'strin(1)'; did you mean 'string'?"),
        ('incident.id.startWith("i")', "did you mean 'startsWith'?"),
        (".system('rm')", "unknown function 'system'"),
        ("incident.health = 1", "not a CEL expression at column 17: 'incident.health = 1'"),
        ("", "not a CEL expression"),
        ("import os", "not a CEL expression"),
        ("__import__('os')", "unknown function '__import__'"),
    ],
)
def test_what_cannot_be_meant_is_found_at_load_with_the_nearest_that_can(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"CEL|unknown|has no") as caught:
        compile_expression(text, params=PARAMS)
    assert says in str(caught.value)


def test_params_that_no_playbook_declares_cannot_be_named() -> None:
    with pytest.raises(ValueError, match=r"params has no 'share'.*known: none"):
        compile_expression("params.share > 1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / 0", "divide by zero"),
        ("incident.component.rack > 3", "no matching overload"),
        ('params["zz"]', "no such key"),
        ("params.lasting + 1", "no matching overload"),
        ("incident.component", "gives a MapType, not a plain value"),
        ("[1, 2]", "gives a ListType, not a plain value"),
    ],
)
def test_what_cannot_be_evaluated_is_rejected_with_the_expression(text: str, says: str) -> None:
    with pytest.raises(Rejected) as caught:
        _value(text)
    assert repr(text) in str(caught.value)
    assert says in str(caught.value)
