"""The journal of the deployment, opened by a command itself: it is read whether or not the daemon runs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from healer.adapters.journal.sql import SqlJournal
from healer.config import Config
from healer.errors import NotFound

_SQLITE = "sqlite:///"


@contextlib.contextmanager
def recorded_journal(config: Config) -> Iterator[SqlJournal]:
    """What was recorded. Raises NotFound if there is no journal."""
    url = config.state.url
    if not _is_there(url):
        # Opening it would make an empty one, and in an empty one nothing is wrong.
        raise NotFound("journal", f"there is no {Path(url.removeprefix(_SQLITE))}; see state.url")
    with contextlib.closing(SqlJournal(url)) as journal:
        yield journal


@contextlib.contextmanager
def journal_or_none(config: Config) -> Iterator[SqlJournal]:
    """The daemon's, where there is one: its runs hold leases and budgets. Else an empty one."""
    with tempfile.TemporaryDirectory(prefix="healer-plan-") as folder:
        url = config.state.url if _is_there(config.state.url) else f"{_SQLITE}{folder}/journal.db"
        with contextlib.closing(SqlJournal(url)) as journal:
            yield journal


def _is_there(url: str) -> bool:
    return not url.startswith(_SQLITE) or Path(url.removeprefix(_SQLITE)).is_file()
