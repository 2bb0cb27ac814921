"""Programs that verbs run: what comes of each way in which one can end, or not."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from healer.errors import Rejected, Unavailable
from healer.sdk import Ended, run_program

SECONDS = timedelta(seconds=60)


def test_it_tells_how_a_program_ended_and_what_it_wrote() -> None:
    assert run_program("sh", "-c", "echo one; echo two >&2; exit 3", timeout=SECONDS) == Ended(3, "one\n", "two\n")


def test_arguments_are_passed_as_they_are_and_no_shell_reads_them() -> None:
    assert run_program("printf", "%s|", "$HOME; rm *", "a b", timeout=SECONDS).output == "$HOME; rm *|a b|"


def test_it_reads_nothing_from_who_started_it() -> None:
    assert run_program("cat", timeout=SECONDS) == Ended(0, "", "")


def test_what_is_no_text_does_not_break_it_and_a_flood_is_cut() -> None:
    assert run_program("printf", r"\377", timeout=SECONDS).output == "\ufffd"
    assert len(run_program("head", "-c", "3000000", "/dev/zero", timeout=SECONDS).output) == 1 << 20


@pytest.mark.parametrize("program", ["no-such-program", "/etc/passwd", "nul\0"])
def test_a_program_that_cannot_be_started_is_a_no(program: str) -> None:
    with pytest.raises(Rejected, match="cannot be started"):
        run_program(program, timeout=SECONDS)


@pytest.mark.parametrize("ends", ["wait", "exit 0"], ids=["does not end", "leaves a child behind"])
def test_what_it_has_started_ends_with_it(tmp_path: Path, ends: str) -> None:
    beats = tmp_path / "beats"
    child = f"(while :; do echo beat >> {beats}; sleep 0.05; done) & sleep 0.3; {ends}"
    if ends == "wait":
        with pytest.raises(Unavailable, match=r"^sh: had not ended after 1 s; it was killed$"):
            run_program("sh", "-c", child, timeout=timedelta(seconds=1))
    else:
        assert run_program("sh", "-c", child, timeout=SECONDS).status == 0
    counted = beats.read_text().count("beat")
    assert counted
    time.sleep(0.3)
    assert beats.read_text().count("beat") == counted
