"""Whether an NVSwitch's error is fatal, by its line and by the table."""

from __future__ import annotations

import pytest

from healer.domain.finding import FailureMode
from healer.telemetry.xids.sxids import CATALOGUE, Fatal, judge, sxid
from healer.telemetry.xids.words import Action, Blame, Saying, Severity, Teller

ALWAYS, PERHAPS, NEVER, NOT_THERE = 23001, 24007, 20009, 98765
FATAL, NON_FATAL = Severity.FATAL, Severity.NON_FATAL


def test_the_table_has_what_the_guide_lists() -> None:
    assert len(CATALOGUE) == 92
    assert [sxid(code).fatal for code in (ALWAYS, PERHAPS, NEVER, NOT_THERE)] == [
        Fatal.ALWAYS,
        Fatal.PERHAPS,
        Fatal.NEVER,
        None,
    ]
    assert sxid(NEVER).name == "RX Short Error Rate"


@pytest.mark.parametrize(
    ("code", "line", "severity", "action"),
    [
        (ALWAYS, FATAL, FATAL, Action.RESET_FABRIC),
        (ALWAYS, None, FATAL, Action.RESET_FABRIC),
        (PERHAPS, FATAL, FATAL, Action.RESET_FABRIC),
        (PERHAPS, NON_FATAL, NON_FATAL, Action.IGNORE),
        (PERHAPS, None, None, Action.UNKNOWN),
        (NEVER, NON_FATAL, NON_FATAL, Action.IGNORE),
        (NEVER, None, NON_FATAL, Action.IGNORE),
        (NOT_THERE, FATAL, FATAL, Action.UNKNOWN),
        (NOT_THERE, NON_FATAL, NON_FATAL, Action.UNKNOWN),
        (NOT_THERE, None, None, Action.UNKNOWN),
    ],
)
def test_the_line_counts_where_the_table_leaves_it_open(
    code: int, line: Severity | None, severity: Severity | None, action: Action
) -> None:
    judged = judge(code, line)
    assert (judged.severity, judged.action, judged.said) == (severity, action, ())


@pytest.mark.parametrize(("code", "line", "table"), [(ALWAYS, NON_FATAL, "always"), (NEVER, FATAL, "never")])
def test_where_line_and_table_exclude_each_other_it_is_fatal_and_both_are_told(
    code: int, line: Severity, table: str
) -> None:
    judged = judge(code, line)
    assert (judged.severity, judged.action) == (FATAL, Action.RESET_FABRIC)
    assert judged.said == (Saying(Teller.LINE, line), Saying(Teller.CATALOGUE, f"{table} fatal"))


def test_a_link_that_went_down_is_down_and_all_else_is_errors() -> None:
    assert judge(20034, FATAL).mode is FailureMode.NVLINK_DOWN
    assert judge(20034, NON_FATAL).mode is FailureMode.NVLINK_ERRORS
    assert judge(PERHAPS, FATAL).mode is FailureMode.NVLINK_ERRORS


def test_errors_of_the_chip_are_not_the_links() -> None:
    assert sxid(11012).blame is Blame.HARDWARE
    assert sxid(NEVER).blame is Blame.LINK
    assert sxid(NOT_THERE).blame is Blame.UNKNOWN
