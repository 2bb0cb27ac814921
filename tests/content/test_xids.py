"""What is written from the catalogue of XIDs is in step with it."""

from __future__ import annotations

import re
from pathlib import Path

from healer.telemetry.xids.catalogue import CATALOGUE
from healer.telemetry.xids.page import xids_page

PAGE = Path(__file__).parents[2] / "docs" / "xids.md"


def test_the_page_of_xids_is_the_catalogue() -> None:
    assert PAGE.read_text(encoding="utf-8") == xids_page(), "docs/xids.md is not what the catalogue says: make docs"


def test_the_page_has_a_row_for_every_code() -> None:
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", xids_page(), flags=re.MULTILINE)] == [*CATALOGUE]


def test_the_page_marks_what_is_our_decision() -> None:
    marked = re.findall(r"^\| (\d+) \| \w* \| \w+\* \|", xids_page(), flags=re.MULTILINE)
    assert [int(code) for code in marked] == [*range(162, 173)]
