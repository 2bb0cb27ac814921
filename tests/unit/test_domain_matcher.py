"""Matchers: how they are written, what they take, and which are refused because they cannot be meant."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.domain.component import Component, ComponentKind
from healer.domain.matcher import (
    Label,
    Matcher,
    Operator,
    checked_matchers,
    covers,
    labels_of,
    matchers_in,
    parse_matcher,
)
from tests.unit.core_samples import gpu, incident, rack


def _is(name: Label, value: str, operator: Operator = Operator.EQUAL) -> Matcher:
    return Matcher(name, operator, value)


# Writing


@pytest.mark.parametrize(
    ("text", "matcher"),
    [
        ("rack=r7", _is(Label.RACK, "r7")),
        ('rack="r7"', _is(Label.RACK, "r7")),
        ("  rack =  r7 ", _is(Label.RACK, "r7")),
        ("node!=n3", _is(Label.NODE, "n3", Operator.NOT_EQUAL)),
        ('failure_mode=~"Nvlink.*"', _is(Label.FAILURE_MODE, "Nvlink.*", Operator.REGEX)),
        ("failure_mode=~Nvlink.*", _is(Label.FAILURE_MODE, "Nvlink.*", Operator.REGEX)),
        ("node!~n[12]", _is(Label.NODE, "n[12]", Operator.NOT_REGEX)),
        ("job=", _is(Label.JOB, "")),
        ('job=""', _is(Label.JOB, "")),
        (r'node=~"n\d\.x"', _is(Label.NODE, r"n\d\.x", Operator.REGEX)),
        (r'node="a\"b\\c"', _is(Label.NODE, 'a"b\\c')),
        ('node=a"b', _is(Label.NODE, 'a"b')),
        ('node=" = "', _is(Label.NODE, " = ")),
    ],
)
def test_a_matcher_is_written_as_in_alertmanager(text: str, matcher: Matcher) -> None:
    assert parse_matcher(text) == matcher


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not a matcher; write it like rack=r7, node!=n3 or"),
        ("rack", "'rack' is not a matcher"),
        ("rack==r7", "'rack==r7' is not a matcher"),
        ("rack=~~r7", "is not a matcher"),
        ("rack r7=x", "is not a matcher"),
        ("rak=r7", "there is no label 'rak' (did you mean 'rack'?)"),
        ("=r7", "there is no label '' (known: failure_mode, kind, severity, rack,"),
        ("xyz=r7", "there is no label 'xyz' (known: failure_mode"),
        ('rack="r7', "has a quote without its end"),
        ('rack="r7"x', "has a quote without its end"),
        ("rack=~(", "rack: '(' is not a regular expression: there is a ( without its )"),
        ('rack="a\nb"', "rack: a value is at most 1000 printable characters"),
        ("rack=" + "r" * 1001, "rack: a value is at most 1000 printable characters"),
        ("rack=" + " " * 3000, "a matcher is at most 2100 characters"),
    ],
    ids=range(14),
)
def test_what_is_no_matcher_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_matcher(text)


_values = st.text(st.characters(exclude_categories=("C", "Z")) | st.sampled_from(' "\\'), max_size=20)


@given(st.sampled_from(Label), st.sampled_from([Operator.EQUAL, Operator.NOT_EQUAL]), _values)
@settings(deadline=None)
def test_a_matcher_reads_back_as_it_is_shown(name: Label, operator: Operator, value: str) -> None:
    matcher = Matcher(name, operator, value)
    assert parse_matcher(str(matcher)) == matcher


@given(st.text(max_size=30))
@settings(deadline=None)
def test_whatever_is_written_it_is_a_matcher_or_a_value_error(text: str) -> None:
    for written in (text, f"rack=~{text}", f'node!~"{text}"'):
        try:
            matcher = parse_matcher(written)
        except ValueError:
            continue
        matcher.matches(text)


def test_matchers_are_given_as_names_by_label_or_as_text() -> None:
    expected = (_is(Label.RACK, 'r"7\\'), _is(Label.KIND, "gpu"))
    assert matchers_in({"rack": 'r"7\\', "kind": "gpu"}) == expected
    assert matchers_in([r'rack="r\"7\\"', "kind=gpu"]) == expected
    assert matchers_in(expected) == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("rack=r7", "write it like {rack: r7} or"),
        (None, "write it like"),
        ({"gpu": 0}, "gpu: 0 is not a name; put it in quotes"),
        ({"rack": None}, "rack: None is not a name"),
        ({"rak": "r7"}, "there is no label 'rak'"),
        ([7], "'7' is not a matcher"),
    ],
    ids=str,
)
def test_what_is_neither_is_refused(given: object, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        matchers_in(given)


# Matching


@pytest.mark.parametrize(
    ("text", "takes", "leaves"),
    [
        ("rack=r7", ["r7"], ["r70", "R7", ""]),
        ("rack!=r7", ["r70", ""], ["r7"]),
        ("rack=~r7", ["r7"], ["r70", "xr7", ""]),
        ('rack=~"r7|r8"', ["r7", "r8"], ["r78", ""]),
        ("rack!~r[78]", ["r9", "", "r77"], ["r7", "r8"]),
        ("rack=", [""], ["r7"]),
    ],
)
def test_a_matcher_takes_the_whole_value_or_leaves_it(text: str, takes: list[str], leaves: list[str]) -> None:
    matcher = parse_matcher(text)
    assert [value for value in takes + leaves if matcher.matches(value)] == takes


def test_an_incident_says_of_itself_what_can_be_matched_and_is_empty_where_it_has_nothing() -> None:
    assert labels_of(incident(gpu("A")), gpu("A")) == {
        Label.FAILURE_MODE: "GpuUncorrectableEcc",
        Label.KIND: "gpu",
        Label.SEVERITY: "critical",
        Label.RACK: "r1",
        Label.NODE: "n1",
        Label.GPU: "0",
        Label.UUID: "A",
        Label.JOB: "j1",
        Label.LINK: "",
    }
    feed = labels_of(incident(), Component(ComponentKind.POWER_FEED, link="feed-a"))
    assert (feed[Label.LINK], feed[Label.RACK], set(feed)) == ("feed-a", "", set(Label))


@pytest.mark.parametrize(
    ("matchers", "matched"),
    [
        (["rack=r1"], True),
        (["rack=r1", "node=n1", "gpu=0", "uuid=A", "job=j1"], True),
        (["rack=r1", "node=n2"], False),
        (["failure_mode=~Gpu.*Ecc", "severity=critical", "kind=gpu", "link="], True),
        (["rack=r1", "job!=j1"], False),
    ],
    ids=["one", "all that it is", "another node", "an expression", "one that is negated"],
)
def test_all_matchers_have_to_match(matchers: list[str], *, matched: bool) -> None:
    assert covers(matchers_in(matchers), incident(gpu("A"))) is matched


def test_what_has_no_job_is_matched_by_what_leaves_a_job_out() -> None:
    assert covers(matchers_in(["rack=r1", "job!=j1"]), incident(rack("r1")))
    assert covers(matchers_in(["rack=r1", "job!~j.*"]), incident(rack("r1")))
    assert not covers(matchers_in(["rack=r1", "job=~j.*"]), incident(rack("r1")))


@pytest.mark.parametrize(
    ("matchers", "covered"),
    [
        (["job=j1", "kind=job"], True),
        (["node=n3"], True),
        (["node=n3", "kind=gpu"], True),
        (["node=n1"], False),
        (["node=n3", "kind=job"], False),
    ],
    ids=["the job", "the culprit's node", "the culprit", "another node", "some of each"],
)
def test_an_incident_is_matched_by_its_component_or_by_the_part_that_is_to_blame(
    matchers: list[str], *, covered: bool
) -> None:
    stalled = replace(incident(Component(ComponentKind.JOB, job="j1")), culprit=gpu("C", "n3"))
    assert covers(matchers_in(matchers), stalled) is covered


# What may be silenced


@pytest.mark.parametrize(
    "matchers",
    [
        ["rack=r7"],
        ["kind=gpu"],
        ["severity=warning"],
        ["failure_mode=~Nvlink.*"],
        ["node=~node-0[1-4]"],
        ["rack=r7", "job!=j1"],
        ["rack=r7", "severity!=critical"],
        ["rack=r7", "node=~.*"],
    ],
    ids=" ".join,
)
def test_what_names_something_may_be_silenced(matchers: list[str]) -> None:
    assert checked_matchers(matchers_in(matchers)) == matchers_in(matchers)


@pytest.mark.parametrize(
    ("matchers", "says"),
    [
        ([], "at least one matcher is needed"),
        (["rack=~.*"], "this would silence everything"),
        (["node=~.+"], "this would silence everything"),
        (['uuid=~"[^ ]+"'], "this would silence everything"),
        (["severity=~.+"], "this would silence everything"),
        (['severity=~"critical|warning"'], "this would silence everything"),
        (["kind=~.*", "node=~.*"], "this would silence everything"),
        (["rack!=r7"], "this would silence everything"),
        (["rack!~r7"], "this would silence everything"),
        (["job="], "this would silence everything"),
        (["failure_mode!=GpuXid"], "this would silence everything"),
        (["failure_mode=GpuXd"], "failure_mode=\"GpuXd\" names no failure mode that there is (did you mean 'GpuXid'?)"),
        (["rack=r7", "failure_mode!=GpuXd"], 'failure_mode!="GpuXd" names no failure mode'),
        (["rack=r7", "severity=~crit"], 'severity=~"crit" names no severity that there is'),
        (["kind=zzz"], 'kind="zzz" names no kind that there is'),
        (["rack=r7"] * 33, "there are more than 32 matchers"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_names_nothing_or_everything_may_not(matchers: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        checked_matchers(matchers_in(matchers))


@given(st.sampled_from([label for label in Label if label not in {Label.FAILURE_MODE, Label.KIND, Label.SEVERITY}]))
def test_a_silence_that_may_be_leaves_the_incidents_of_another_fleet_alone(name: Label) -> None:
    (matcher,) = checked_matchers([Matcher(name, Operator.EQUAL, "only-this-one")])
    other = replace(incident(), component=Component(ComponentKind.SOURCE, "r9", "n9", "7:1", "GPU-9", "j9", "l9"))
    assert not covers([matcher], other)
