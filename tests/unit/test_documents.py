"""YAML is read strictly, and whatever is wrong is named with its file, line and key."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from healer.documents import KeyPath, dotted, nearest, parse_document, read_document
from healer.errors import InvalidDocument, Problem


def _problem(text: str) -> Problem:
    with pytest.raises(InvalidDocument) as caught:
        parse_document(text, file="a.yaml")
    (problem,) = caught.value.problems
    return problem


def test_every_key_knows_its_line() -> None:
    document = parse_document("mode: act\n\nsteps:\n  - id: a\n    use: b\n  - {id: c}\n", file="a.yaml")
    assert document.content == {"mode": "act", "steps": [{"id": "a", "use": "b"}, {"id": "c"}]}
    lines = {dotted(path): line for path, line in document.lines.items()}
    assert lines == {
        "": 1,
        "mode": 1,
        "steps": 3,
        "steps[0]": 4,
        "steps[0].id": 4,
        "steps[0].use": 5,
        "steps[1]": 6,
        "steps[1].id": 6,
    }


def test_a_problem_below_what_is_written_stands_at_the_nearest_key_that_is() -> None:
    document = parse_document("a:\n  b:\n    c: 1\n", file="a.yaml")
    assert str(document.problem(("a", "b", "d", "e"), "is missing", "add it")) == (
        "a.yaml:2: a.b.d.e: is missing (add it)"
    )
    assert document.problem(("z",), "is missing").line == 1


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", 5, "b.c", "stands here twice"),
        ("a: &x 1\nb: *x\n", 2, "", "the alias *x is not supported"),
        ("a: 1\nb: [1, 2\n", 3, "", "not valid YAML"),
        ("a: b: c\n", 1, "", "not valid YAML: mapping values are not allowed here"),
        ("--- 1\n--- 2\n", 2, "", "not valid YAML"),
        ("a: \x01\n", 0, "", "not valid YAML"),
        ("a: 1\nb: !!python/object:os.system {}\n", 2, "b", "the tag tag:yaml.org,2002:python/object:os.system"),
        ("a: !!set {x, y}\n", 1, "a", "the tag tag:yaml.org,2002:set is not supported"),
        ("a: 1\nb: !secret x\n", 2, "b", "'x' cannot be read as a value"),
        ("a: 2026-99-99\n", 1, "a", "'2026-99-99' cannot be read as a value"),
        ("a: 1\n? [x, y]\n: 2\n", 2, "", "a key is a plain word"),
    ],
    ids=[
        "a key twice",
        "an alias",
        "not closed",
        "a colon too many",
        "two documents",
        "a control character",
        "a tag that would run code",
        "a tag on a map",
        "a tag on a value",
        "a date that is none",
        "a list as a key",
    ],
)
def test_what_could_mean_something_else_is_refused_where_it_stands(text: str, line: int, key: str, says: str) -> None:
    problem = _problem(text)
    assert (problem.file, problem.line, problem.key) == ("a.yaml", line, key)
    assert problem.text.startswith(says)


def test_a_small_document_that_would_grow_without_end_is_refused() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True))
    assert _problem(bomb).text.startswith("the alias *a")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-11-20", "2026-11-20"),
        ("2026-11-20T18:00:00Z", "2026-11-20T18:00:00Z"),
        ("30s", "30s"),
        ("'1'", "1"),
        ("1", 1),
        ("1.5", 1.5),
        ("null", None),
        ("true", True),
    ],
)
def test_a_value_is_what_its_author_typed(text: str, value: object) -> None:
    assert parse_document(f"a: {text}\n", file="a.yaml").content == {"a": value}


def test_an_empty_document_has_no_content() -> None:
    assert parse_document("# only a comment\n", file="a.yaml").content is None


def test_a_file_that_is_not_there_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match=r"gone\.yaml: no such file"):
        read_document(tmp_path / "gone.yaml")


def test_a_folder_in_place_of_a_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match="cannot be read: Is a directory"):
        read_document(tmp_path)


def test_a_file_that_is_not_utf_8_says_at_which_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("name: Grün\n".encode("latin-1"))
    with pytest.raises(InvalidDocument, match=r"a\.yaml: not UTF-8 at byte 8"):
        read_document(path)


@pytest.mark.parametrize(
    ("word", "hint"),
    [("telemtry", "did you mean 'telemetry'?"), ("mode", "did you mean 'mode'?"), ("zzz", "")],
)
def test_a_misspelt_word_gets_the_nearest_known_one_as_a_hint(word: str, hint: str) -> None:
    assert nearest(word, ["mode", "telemetry", "topology"]) == hint


@pytest.mark.parametrize(
    ("path", "text"), [((), ""), (("a",), "a"), (("steps", 2, "use"), "steps[2].use"), ((0, "a"), "[0].a")]
)
def test_a_path_reads_as_people_write_it(path: KeyPath, text: str) -> None:
    assert dotted(path) == text


_WORDS = st.text("abcdefgh", min_size=1, max_size=4)
_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(content=st.dictionaries(_WORDS, _PLAIN))
def test_what_yaml_writes_is_read_back_as_it_was(content: dict[str, object]) -> None:
    class NoAliases(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
            return True

    document = parse_document(yaml.dump(content, Dumper=NoAliases), file="a.yaml")
    assert document.content == content


@given(text=st.text(max_size=60))
def test_any_text_at_all_is_a_document_or_is_refused(text: str) -> None:
    with suppress(InvalidDocument):
        assert parse_document(text, file="a.yaml").lines[()] == 1
