"""Regular expressions as people write them, and as nobody should: what they take, and that none takes for ever."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from healer.domain.pattern import LONGEST_PATTERN, Pattern, compiled, takes

ALPHABET = "abA0_-"


@pytest.mark.parametrize(
    ("text", "taken", "left"),
    [
        ("r7", ["r7"], ["r70", "xr7", "R7", ""]),
        ("", [""], ["a"]),
        ("a|b", ["a", "b"], ["ab", ""]),
        ("a|", ["a", ""], ["b"]),
        ("Nvlink.*", ["NvlinkDown", "Nvlink"], ["xNvlink", "nvlinkDown"]),
        ("node-0[1-9]", ["node-01", "node-09"], ["node-00", "node-010"]),
        ("[^a-c-]+", ["d", "xyz"], ["", "a", "x-y"]),
        ("[]^-]", ["]", "^", "-"], ["[", "a"]),
        ("[^]]", ["a", "["], ["]"]),
        (r"[\w.-]+", ["a-b.c_9"], ["a b", "ä"]),
        (r"\d{2,3}", ["12", "123"], ["1", "1234"]),
        (r"\d{2}", ["12"], ["1", "123"]),
        (r"\d{2,}", ["12", "12345"], ["1"]),
        (r"(ab){0,2}", ["", "ab", "abab"], ["ababab", "a"]),
        (r"x{0}", [""], ["x"]),
        (r"\D\W\S", ["a-b"], ["1-b", "aab", "a- "]),
        (r"\s\d", [" 1", "\t1"], ["a1"]),
        (r"[\D]", ["a"], ["1"]),
        (r"[^\D]", ["1"], ["a", "\U0010ffff"]),
        ("[^a-cb]", ["d"], ["a", "b", "c"]),
        (r"a\.b\\\[\{", ["a.b\\[{"], ["axb\\[{"]),
        ("a.c", ["abc", "a\nc", "a\U0010ffffc"], ["ac"]),
        ("(?:a|b)c", ["ac", "bc"], ["c"]),
        ("^r7$", ["r7"], ["^r7$"]),
        ("a^b|^c$|d$e", ["c"], ["ab", "a^b", "de"]),
        ("(^|x)a($|y)", ["a", "xay", "xa", "ay"], ["ya"]),
        ("a+?b??c*?", ["a", "aabcc"], ["bc"]),
        ("(a*)*", ["", "aaa"], ["b"]),
        ("a]}", ["a]}"], ["a"]),
    ],
)
def test_an_expression_takes_the_whole_text_or_nothing(text: str, taken: list[str], left: list[str]) -> None:
    pattern = compiled(text)
    assert [each for each in taken + left if pattern.matches(each)] == taken
    assert [each for each in taken + left if takes(text, each)] == taken


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(a", "there is a ( without its )"),
        ("a)", "there is a ) without its ("),
        ("[a", "there is a [ without its ]"),
        ("[]", "there is a [ without its ]"),
        ("[a-", "there is a [ without its ]"),
        ("[[:alpha:]]", r"a [ within [...] is written \["),
        ("[b-a]", "goes from a character to a later one"),
        (r"[\d-z]", "goes from a character to a later one"),
        ("*a", r"nothing that the * could repeat; the character is written \*"),
        ("a|+", "nothing that the + could repeat"),
        ("{2}", "nothing that the { could repeat"),
        ("a{", r"a { that does not count, as in {2,3}, is written \{"),
        ("a{,2}", "a { that does not count"),
        ("a{3,2}", "{3,2} is not a range of at most 1000"),
        ("a{1001}", "is not a range of at most 1000"),
        ("a{2,1001}", "is not a range of at most 1000"),
        ("a**", "a repeat is repeated"),
        ("a*+", "a repeat is repeated"),
        ("(?i)a", "of groups, (...) and (?:...) are known"),
        ("(?=a)", "of groups, (...) and (?:...) are known"),
        ("(?P<name>a)", "of groups, (...) and (?:...) are known"),
        (r"\bnode\b", r"\b is not known"),
        (r"(a)\1", r"\1 is not known"),
        ("a\\", "\\ is not known"),
        (r"\ä", r"\ä is not known"),
        ("(" * 21 + ")" * 21, "groups are nested deeper than 20"),
        ("((a{100}){100})", "it repeats too much"),
        ("(((){1000}){1000}){1000}", "it repeats too much"),
        ("a" * (LONGEST_PATTERN + 1), "it is longer than 1000 characters"),
        ("(" * LONGEST_PATTERN, "groups are nested deeper than 20"),
    ],
    ids=range(30),
)
def test_what_is_no_expression_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Pattern(text)


def test_groups_side_by_side_are_not_nested() -> None:
    assert compiled("(a)" * 50).matches("a" * 50)


_chars = st.sampled_from([*ALPHABET, ".", r"\d", r"\w", "[ab]", "[^a-c]", r"[\w-]", r"\-"])
_times = st.sampled_from(["", "*", "+", "?", "{2}", "{1,2}", "{1,}", "*?"])
_expressions = st.recursive(
    st.builds("{}{}".format, _chars, _times),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("({}){}".format, inner, _times),
        st.builds("(^{}|{}$)".format, inner, inner),
    ),
    max_leaves=6,
)


@given(_expressions, st.lists(st.text(ALPHABET, max_size=6), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_it_says_what_python_says_where_both_know_the_syntax(text: str, values: list[str]) -> None:
    python = re.compile(text, re.ASCII | re.DOTALL)
    assert [Pattern(text).matches(value) for value in values] == [bool(python.fullmatch(value)) for value in values]


@given(st.text(st.sampled_from("ab-^$.|()[]{}*+?\\d1,:"), max_size=30), st.text(max_size=10))
@settings(max_examples=500, deadline=None)
def test_whatever_is_written_it_is_an_expression_or_a_value_error(text: str, value: str) -> None:
    with suppress(ValueError):
        Pattern(text).matches(value)


@pytest.mark.parametrize(
    "text",
    ["(a+)+b", "(a|a)*b", "(a|aa)+b", "a*a*a*a*a*a*a*a*a*a*b", "(.*)*x", "(a?){200}a{200}b", "(?:a{0,30}){20}b"],
)
def test_an_expression_that_python_would_never_be_done_with_is_answered_at_once(text: str) -> None:
    began = time.process_time()
    assert not Pattern(text).matches("a" * 250)
    assert time.process_time() - began < 5  # it takes some tenths of a second at most
