"""Tickets as files: for whoever collects them from there, and where there is no ticket system."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from healer.domain.ticket import Ticket
from healer.errors import Unavailable

_NAME = "tickets"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class FolderTickets:
    """Implements `healer.ports.Tickets`: `KEY.md` for the person, beside `KEY.json` with the evidence.

    Args:
        folder: made when the first ticket is opened.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, ticket: Ticket) -> str:
        page = self._page(ticket.key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # The page last: it is what says that the ticket is there.
            _write(page.with_suffix(".json"), ticket.evidence)
            _write(page, f"# {ticket.title}\n\n{ticket.body}")
        except OSError as error:
            raise Unavailable(_NAME, f"{page} cannot be written: {error.strerror}; see tickets.folder") from error
        return str(page)

    def find(self, key: str) -> str | None:
        page = self._page(key)
        try:
            return str(page) if page.is_file() else None
        except OSError as error:
            raise Unavailable(_NAME, f"{page} cannot be read: {error.strerror}; see tickets.folder") from error

    def _page(self, key: str) -> Path:
        assert _KEY.fullmatch(key), key  # keys are made of our own ids
        return self._folder / f"{key}.md"


def _write(path: Path, text: str) -> None:
    """Whole or not at all, also when the process dies meanwhile."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o640)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
