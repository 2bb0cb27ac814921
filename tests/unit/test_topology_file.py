"""The topology file: what may stand in it, how a mistake is told, and what counts while it is being changed."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from healer.adapters.topology.file import TopologyFile, read_places
from healer.domain.topology import Place
from healer.errors import InvalidDocument

AT = datetime(2026, 1, 1, tzinfo=UTC)

TWO_RACKS = """
nodes:
  - names: "gpu-[1-2]"
    rack: r1
    feed: A
    nvlink_domain: d1
    switch: leaf-1
  - names: [gpu-3, "gpu-[4-5]"]
    rack: r2
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "topology.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(InvalidDocument) as refused:
        read_places(written(folder, text))
    return [(problem.line, problem.key, problem.text) for problem in refused.value.problems]


def test_each_entry_says_where_its_nodes_are(tmp_path: Path) -> None:
    first, second = Place("r1", "A", "d1", "leaf-1"), Place(rack="r2")

    assert TopologyFile(written(tmp_path, TWO_RACKS)).topology(AT).places == {
        "gpu-1": first,
        "gpu-2": first,
        "gpu-3": second,
        "gpu-4": second,
        "gpu-5": second,
    }


def test_one_entry_may_tell_the_rack_of_a_node_and_another_its_feed(tmp_path: Path) -> None:
    text = """
nodes:
  - {names: "gpu-[1-2]", rack: r1, switch: null}
  - {names: "gpu-[2-3],gpu-2", feed: A, rack: null}
  - {names: gpu-2, rack: r1, feed: A}
"""

    assert read_places(written(tmp_path, text)) == {
        "gpu-1": Place(rack="r1"),
        "gpu-2": Place(rack="r1", feed="A"),
        "gpu-3": Place(feed="A"),
    }


def test_entries_that_contradict_each_other_are_told_with_both_lines(tmp_path: Path) -> None:
    text = """nodes:
  - names: gpu-[1-9]
    rack: r1
  - names: gpu-[8-12]
    feed: A
    rack: r2
  - {names: gpu-12, rack: r3}
"""

    assert problems(tmp_path, text) == [
        (6, "nodes[1].rack", "contradicts line 3, which has another rack for gpu-8 and 1 more"),
        (7, "nodes[2].rack", "contradicts line 6, which has another rack for gpu-12"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "key", "fault"),
    [
        ("nodes: [{names: a, rack: r1}]\nracks: []", 2, "racks", "unknown key"),
        ("nodes:\n  - names: a\n    rak: r1", 3, "nodes[0].rak", "unknown key"),
        ("nodes:\n  - rack: r1", 2, "nodes[0].names", "is missing"),
        ("nodes:\n  - names: a", 2, "nodes[0]", "says nothing of its nodes"),
        ("nodes:\n  - names: []\n    rack: r1", 2, "nodes[0].names", "is a host list"),
        ("nodes:\n  - names: [1]\n    rack: r1", 2, "nodes[0].names", "is a host list"),
        ("nodes:\n  - rack: r1\n    names: a[3-1]", 3, "nodes[0].names", "'3-1'"),
        ("nodes:\n  - names: a\n    rack: 010", 3, "nodes[0].rack", "quotes"),
        ("nodes:\n  - names: a\n    feed: on", 3, "nodes[0].feed", "quotes"),
        ("nodes:\n  - names: a\n    feed: ' '", 3, "nodes[0].feed", "is empty"),
        ("nodes: []", 1, "nodes", "lists no nodes"),
        ("", 1, "nodes", "is missing"),
        ("nodes: [", 1, "", "not valid YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_key(tmp_path: Path, text: str, line: int, key: str, fault: str) -> None:
    ((told_line, told_key, told),) = problems(tmp_path, text)

    assert (told_line, told_key) == (line, key)
    assert fault in told


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = "nodes:\n  - {names: a, rak: x}\n  - {names: 'b[', rack: r1}\n"

    assert [line for line, _, _ in problems(tmp_path, text)] == [2, 3]


def test_a_file_that_is_missing_or_wrong_at_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match="no such file"):
        TopologyFile(tmp_path / "nowhere.yaml")
    with pytest.raises(InvalidDocument, match="unknown key"):
        TopologyFile(written(tmp_path, "nodez: []"))


def test_the_very_same_topology_is_told_until_the_file_changes(tmp_path: Path) -> None:
    source = TopologyFile(written(tmp_path, TWO_RACKS))

    first = source.topology(AT)
    assert source.topology(AT) is first

    written(tmp_path, "nodes: [{names: gpu-1, rack: r9}]")
    moved = source.topology(AT)
    assert moved.places == {"gpu-1": Place(rack="r9")}
    assert source.topology(AT) is moved


def test_a_file_that_was_replaced_by_another_of_the_same_time_and_size_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "nodes: [{names: gpu-1, rack: r1}]")
    source = TopologyFile(path)
    times = path.stat().st_mtime_ns

    other = tmp_path / "other.yaml"
    other.write_text("nodes: [{names: gpu-1, rack: r2}]", encoding="utf-8")
    os.utime(other, ns=(times, times))
    other.replace(path)

    assert source.topology(AT).places == {"gpu-1": Place(rack="r2")}


def test_a_new_version_that_is_wrong_leaves_what_was_known_and_warns_until_it_is_mended(tmp_path: Path) -> None:
    source = TopologyFile(written(tmp_path, TWO_RACKS))
    known = source.topology(AT).places

    path = written(tmp_path, "nodes:\n  - {names: gpu-1, rak: r1}\n  - {names: gpu-2}\n")
    broken = source.topology(AT)

    assert broken.places == known
    assert broken.warnings == (
        f"{path}:2: nodes[0].rak: unknown key (did you mean 'rack'?); the version before it still counts",
    )
    assert source.topology(AT) is broken

    written(tmp_path, "nodes: [{names: gpu-1, rack: r1}]")
    assert source.topology(AT).warnings == ()


def test_how_many_problems_a_wrong_version_has_is_told(tmp_path: Path) -> None:
    source = TopologyFile(written(tmp_path, TWO_RACKS))

    written(tmp_path, "nodes:\n  - {names: gpu-1, rak: r1}\n  - {names: gpu-2, fed: A}\n")

    assert "the first of 2 problems" in source.topology(AT).warnings[0]


def test_a_file_that_goes_away_leaves_what_was_known_and_warns_until_it_is_back(tmp_path: Path) -> None:
    path = written(tmp_path, TWO_RACKS)
    source = TopologyFile(path)
    known = source.topology(AT)

    path.unlink()
    gone = source.topology(AT)
    assert gone.places == known.places
    assert "no such file" in gone.warnings[0]

    written(tmp_path, TWO_RACKS)
    assert source.topology(AT) == known
