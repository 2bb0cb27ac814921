"""The driver's own verdict, in the words of XID 154 and the numbers of field 1523."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.telemetry.xids.recovery import Change, Recovery, change_in, recovery_of
from healer.telemetry.xids.words import Action

RESET = Change(Recovery.NONE, Recovery.RESET, "GPU Reset Required", Recovery.RESET)


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)", RESET),
        (
            "GPU recovery action changed from 0x4 (Drain and Reset) to 0x1 (GPU Reset Required)",
            Change(Recovery.DRAIN_AND_RESET, Recovery.RESET, "GPU Reset Required", Recovery.RESET),
        ),
        (
            "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
            Change(Recovery.NONE, Recovery.NODE_REBOOT, "Node Reboot Required", Recovery.NODE_REBOOT),
        ),
        (
            "GPU recovery action changed from 0x0 (None) to 0x2 (OS Reboot)",
            Change(Recovery.NONE, Recovery.NODE_REBOOT, "OS Reboot", Recovery.NODE_REBOOT),
        ),
        (
            "GPU recovery action changed from 0x0 (None) to 0x1 (PF FLR)",
            Change(Recovery.NONE, Recovery.RESET, "PF FLR", Recovery.RESET),
        ),
        (
            "GPU recovery action changed from 0x0 (None) to 0x3 (Drain P2P)",
            Change(Recovery.NONE, Recovery.DRAIN_P2P, "Drain P2P", Recovery.DRAIN_P2P),
        ),
        (
            "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",
            Change(Recovery.RESET, Recovery.NONE, "None", Recovery.NONE),
        ),
        (
            "GPU recovery action changed from 0x0 (None) to 0x7 (words of tomorrow)",
            Change(Recovery.NONE, Recovery.SYSTEM_REBOOT, "words of tomorrow", Recovery.UNKNOWN),
        ),
        (
            "GPU recovery action changed from 0x0 (None) to 0x14 (Cold Reboot)",
            Change(Recovery.NONE, Recovery.UNKNOWN, "Cold Reboot", Recovery.UNKNOWN),
        ),
        (
            "GPU recovery action changed from 0x0 (None) to 0x1 (Node Reboot Required)",
            Change(Recovery.NONE, Recovery.RESET, "Node Reboot Required", Recovery.NODE_REBOOT),
        ),
        (
            "GPU recovery action changed from (None) to (GPU Reset Required)",
            Change(Recovery.NONE, Recovery.RESET, "GPU Reset Required", Recovery.RESET),
        ),
        (
            "gpu Recovery Action changed from 0x0 to 0x6",
            Change(Recovery.NONE, Recovery.BUS_RESET, "", Recovery.UNKNOWN),
        ),
    ],
)
def test_a_change_says_from_what_to_what(text: str, change: Change) -> None:
    assert change_in(text) == change


@pytest.mark.parametrize("text", ["", "GPU recovery action", "GPU recovery action is 0x1 (GPU Reset Required)"])
def test_another_text_is_no_change(text: str) -> None:
    assert change_in(text) is None


@pytest.mark.parametrize(
    ("number", "action"),
    [
        (0.0, Action.IGNORE),
        (1.0, Action.RESET_GPU),
        (2.0, Action.RESTART_BM),
        (3.0, Action.DRAIN_P2P),
        (4.0, Action.DRAIN_AND_RESET),
        (5.0, Action.RECOVER_IMEX),
        (6.0, Action.RESET_BUS),
        (7.0, Action.RESTART_SYSTEM),
        (8.0, Action.UNKNOWN),
        (0.5, Action.UNKNOWN),
        (-1.0, Action.UNKNOWN),
        (float("nan"), Action.UNKNOWN),
    ],
)
def test_the_field_has_the_same_numbers(number: float, action: Action) -> None:
    assert recovery_of(number).action is action


@given(st.floats())
def test_every_number_is_something(number: float) -> None:
    assert recovery_of(number).action in Action
