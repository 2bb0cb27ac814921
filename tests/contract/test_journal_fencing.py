"""Two processes at once, one of which is stopped while it leads: whoever was replaced writes nothing any more."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from healer.adapters.journal.sql import SqlJournal
from healer.errors import Conflict, HealerError
from healer.policy.audit_chain import first_broken_link
from tests.realparts.postgresql import RunningPostgresql

TTL = timedelta(seconds=2)
FIRST = """
import sys, time
from datetime import UTC, datetime, timedelta
from healer.adapters.journal.sql import SqlJournal
from healer.errors import HealerError
url, slow = sys.argv[1], sys.argv[2] == "slow"
journal = SqlJournal(url)
try:
    while True:
        journal.lead("first", datetime.now(UTC), timedelta(seconds=2))
        with journal.transaction() as write:
            write.audit(datetime.now(UTC), "first", "effect.intent", "x")
            print("writing", flush=True)
            time.sleep(1.0 if slow else 0.0)
        print("written", flush=True)
        time.sleep(0.05)
except HealerError as error:
    print(type(error).__name__, flush=True)
"""


class First:
    """The process that leads first."""

    def __init__(self, url: str, *, slow: bool) -> None:
        command = [sys.executable, "-c", FIRST, url, "slow" if slow else "quick"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.said: list[str] = []

    def until(self, word: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line.strip())
            if self.said[-1] == word:
                return
        raise AssertionError(f"it ended with {self.said[-1:]} and never said {word}")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def last_word(self) -> str:
        out, _ = self._process.communicate(timeout=30)
        return out.split()[-1]

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


Begin = Callable[..., First]


@pytest.fixture
def begin() -> Iterator[Begin]:
    begun: list[First] = []

    def start(url: str, *, slow: bool = False) -> First:
        begun.append(First(url, slow=slow))
        return begun[-1]

    yield start
    for first in begun:
        first.kill()


def taken_over(url: str, *, within_s: float) -> SqlJournal:
    """Tries as a daemon that stands by does."""
    journal, deadline = SqlJournal(url), time.monotonic() + within_s
    while True:
        try:
            journal.lead("second", datetime.now(UTC), TTL)
        except Conflict:
            assert time.monotonic() < deadline, "the first one still leads"
            time.sleep(0.2)
        else:
            return journal


def write_lines(journal: SqlJournal, count: int) -> None:
    for _ in range(count):
        with journal.transaction() as write:
            write.audit(datetime.now(UTC), "second", "effect.intent", "x")


@pytest.mark.parametrize("slow", [False, True], ids=["between two writes", "in the middle of a write"])
def test_on_postgresql_a_leader_that_was_stopped_is_fenced_when_it_wakes(
    postgresql: RunningPostgresql,
    begin: Begin,
    slow: bool,  # noqa: FBT001 - a table's column
) -> None:
    url = postgresql.new_database()
    first = begin(url, slow=slow)
    first.until("writing" if slow else "written")
    first.stop()
    second = taken_over(url, within_s=30)
    write_lines(second, 3)
    first.resume()
    assert first.last_word() in {"Fenced", "Unavailable"}
    write_lines(second, 2)
    lines = second.audit_log()
    second.close()
    actors = [line.actor for line in lines]
    assert "first" not in actors[actors.index("second") :]
    assert actors.count("second") == 5
    assert first_broken_link(lines) is None


def test_on_sqlite_a_second_start_is_refused_while_the_first_is_only_stopped(tmp_path: Path, begin: Begin) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    first = begin(url)
    first.until("written")
    first.stop()
    second = SqlJournal(url)
    for hours in (0, 1, 1000):  # however long it has not been seen
        with pytest.raises(Conflict, match="another healer is running"):
            second.lead("second", datetime.now(UTC) + timedelta(hours=hours), TTL)
    with pytest.raises(HealerError), second.transaction():
        pass
    first.resume()
    first.until("written")
    assert {line.actor for line in second.audit_log()} == {"first"}
    second.close()
