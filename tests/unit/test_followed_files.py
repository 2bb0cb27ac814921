"""Files that others write: read on, through rotation, and never twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from healer.adapters.followed_files import FollowedFiles, Piece


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "n1" / "kern.log"
    path.parent.mkdir()
    path.write_text("old\n")
    return path


def followed(folder: Path, name: str = "kern.log") -> FollowedFiles[str]:
    return FollowedFiles([f"{folder}/*/{name}"], lambda path: Path(path).parent.name)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def new(files: FollowedFiles[str]) -> list[str]:
    return [line for piece in files.pieces() for line in piece.lines]


def test_what_is_appended_is_told_once(log: Path, tmp_path: Path) -> None:
    files = followed(tmp_path)
    assert new(files) == ["old"]
    assert new(files) == []
    append(log, "a\nb")
    assert new(files) == ["a"]
    append(log, "c\n")
    assert new(files) == ["bc"]
    assert files.names() == ["n1"]


def test_what_was_there_at_the_start_is_told_apart(log: Path, tmp_path: Path) -> None:
    files = followed(tmp_path)

    def pieces() -> list[tuple[str, bool]]:
        return [(piece.name, piece.was_there) for piece in files.pieces()]

    assert pieces() == [("n1", True)]
    append(log, "a\n")
    (tmp_path / "n2").mkdir()
    (tmp_path / "n2" / "kern.log").write_text("a node that is new\n")
    assert sorted(pieces()) == [("n1", False), ("n2", False)]


def rotate(log: Path) -> None:
    for number in (2, 1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.rename(log.with_name(f"{log.name}.{number + 1}"))
    log.rename(log.with_name(f"{log.name}.1"))
    log.touch()


@pytest.mark.parametrize("name", ["kern.log", "kern.log*"], ids=["the live file", "all of its generations"])
def test_lines_around_a_rotation_are_neither_lost_nor_told_twice(log: Path, tmp_path: Path, name: str) -> None:
    files = followed(tmp_path, name)
    new(files)
    for turn in range(3):
        append(log, f"before {turn}\nhalf of ")
        rotate(log)
        append(log.with_name("kern.log.1"), "a line\n")
        append(log, f"after {turn}\n")
        assert sorted(new(files)) == sorted([f"before {turn}", "half of a line", f"after {turn}"])
        # Until it is told, the writer goes on in the file that was moved away.
        append(log.with_name("kern.log.1"), f"late {turn}\n")
        assert new(files) == [f"late {turn}"]
        assert new(files) == []


def test_a_rotation_by_date_is_followed(log: Path, tmp_path: Path) -> None:
    files = followed(tmp_path)
    new(files)
    append(log, "last\n")
    log.rename(log.with_name("kern.log-20260314"))
    assert new(files) == ["last"], "also before there is a new file"
    log.write_text("first\n")
    assert new(files) == ["first"]


def test_a_file_that_was_copied_and_cut_is_read_from_its_beginning(log: Path, tmp_path: Path) -> None:
    files = followed(tmp_path)
    append(log, "a long line\n")
    new(files)
    os.truncate(log, 0)
    append(log, "b\n")
    assert new(files) == ["b"]


def test_a_file_that_is_gone_is_forgotten(log: Path, tmp_path: Path) -> None:
    files = followed(tmp_path)
    new(files)
    log.unlink()
    assert new(files) == []
    assert files.names() == []
    log.write_text("again\n")
    assert new(files) == ["again"]


def test_another_file_that_gets_the_number_of_one_that_is_gone_is_read_whole(log: Path, tmp_path: Path) -> None:
    files = followed(tmp_path, "*")
    new(files)
    log.rename(log.with_name("other.log"))  # the same inode, and no rotation
    assert new(files) == ["old"]


def test_of_too_much_at_once_the_newest_is_read_and_the_rest_is_said(log: Path, tmp_path: Path) -> None:
    files = followed(tmp_path)
    new(files)
    append(log, "x" * (5 << 20) + "\nlast\n")
    pieces: list[Piece[str]] = list(files.pieces())
    assert [*pieces[0].lines][-1] == "last"
    assert pieces[0].left_out == (1 << 20) + 6
