"""Typed documents: durations as people write them, and every problem at once, each on its line."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from healer.documents import parse_document
from healer.errors import InvalidDocument
from healer.schema import Duration, Section, format_duration, parse_duration, validated

MILLISECOND = timedelta(milliseconds=1)


class _Part(Section):
    name: str
    condition: Annotated[str | None, Field(alias="if")] = None
    wait: Duration = timedelta(seconds=30)


class _Whole(Section):
    size: int = 1
    part: _Part | None = None
    parts: tuple[_Part, ...] = ()
    by_name: dict[str, str | _Part] = Field(default_factory=dict)


def _problems(text: str) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        validated(parse_document(text, file="a.yaml"), _Whole)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25), ("2d", 172800), ("1d2h3m4s", 93784)],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "30 s", "-5s", "5x", "5s5", "1h 30m", "five", 30, 30.0, None, True])
def test_what_is_no_duration_says_how_one_is_written(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration; write it like 30s, 5m or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["9999999999d", "1" * 400 + "s"], ids=["ten digits of days", "400 digits"])
def test_a_duration_beyond_all_measure_is_refused_like_any_other_mistake(text: str) -> None:
    with pytest.raises(ValueError, match="is longer than any duration"):
        parse_duration(text)
    assert _problems(f"part: {{name: a, wait: {text}}}\n")[0].startswith("a.yaml:1: part.wait: ")


@given(count=st.integers(0, 10**12))
def test_a_duration_that_is_written_is_read_back_as_it_was(count: int) -> None:
    span = count * MILLISECOND
    assert parse_duration(format_duration(span)) == span


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(days=1, hours=2, milliseconds=5), "1d2h5ms"),
        (timedelta(microseconds=1), "0s"),
    ],
)
def test_a_duration_is_written_in_its_largest_units_to_the_millisecond(span: timedelta, text: str) -> None:
    assert format_duration(span) == text


def test_an_empty_document_is_all_defaults() -> None:
    assert validated(parse_document("", file="a.yaml"), _Whole) == _Whole()


def test_a_setting_of_no_time_at_all_is_refused() -> None:
    assert _problems("part: {name: a, wait: 0s}\n") == ["a.yaml:1: part.wait: must be longer than zero"]


def test_every_problem_is_told_each_on_its_line() -> None:
    text = """\
size: many
sice: 2
part:
  wait: soon
parts:
  - name: a
    iff: x
  - {name: [b]}
"""
    assert _problems(text) == [
        "a.yaml:1: size: input should be a valid integer, unable to parse string as an integer, not 'many'",
        "a.yaml:3: part.name: is missing",
        "a.yaml:4: part.wait: 'soon' is not a duration; write it like 30s, 5m or 1h30m",
        "a.yaml:7: parts[0].iff: unknown key (did you mean 'if'?)",
        "a.yaml:8: parts[1].name: input should be a valid string",
        "a.yaml:2: sice: unknown key (did you mean 'size'?)",
    ]


def test_a_key_that_resembles_none_is_answered_with_those_that_there_are_as_they_are_written() -> None:
    assert _problems("part: {name: a, zzzz: 1}\n") == ["a.yaml:1: part.zzzz: unknown key (known: name, if, wait)"]


def test_the_name_that_a_key_has_in_the_code_is_not_a_key() -> None:
    assert _problems("part: {name: a, condition: x}\n") == [
        "a.yaml:1: part.condition: unknown key (known: name, if, wait)"
    ]


@pytest.mark.parametrize("text", ["- 1\n", "just words\n"], ids=["a list", "a word"])
def test_a_document_that_is_no_map_says_which_keys_it_may_have(text: str) -> None:
    assert _problems(text) == ["a.yaml:1: is not a section with keys; known: size, part, parts, by_name"]


def test_a_value_that_stands_in_place_of_a_section_is_not_repeated() -> None:
    (problem,) = _problems("part: xoxb-a-secret\n")
    assert problem == "a.yaml:1: part: is not a section with keys; known: name, if, wait"


def test_what_stands_inside_of_a_refused_section_is_not_repeated() -> None:
    assert _problems("by_name:\n  a: {value: a-secret}\n") == [
        "a.yaml:2: by_name.a: input should be a valid string",
        "a.yaml:2: by_name.a.name: is missing",
        "a.yaml:2: by_name.a.value: unknown key (known: name, if, wait)",
    ]
