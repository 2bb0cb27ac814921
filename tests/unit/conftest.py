"""What tests of the console, the API and the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from healer.adapters.journal.sql import SqlJournal
from tests.unit.http_samples import leading_journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqlJournal]:
    journal = leading_journal(tmp_path)
    yield journal
    journal.close()
