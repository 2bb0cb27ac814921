"""What the catalogue says of single XIDs, and the questions that detectors ask of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.domain.finding import FailureMode
from healer.telemetry.xids.catalogue import (
    CATALOGUE,
    Part,
    among,
    codes_blamed_on,
    codes_of,
    codes_with,
    unknown,
    xid,
)
from healer.telemetry.xids.words import Action, Blame, Inquiry, worst

ALL_PARTS = frozenset(Part)


def test_the_catalogue_has_every_code_once() -> None:
    assert [*CATALOGUE] == [*range(1, 174)]
    assert all(code == entry.code for code, entry in CATALOGUE.items())


@pytest.mark.parametrize(
    ("code", "action", "inquiry", "blame", "mode"),
    [
        (13, Action.RESTART_APP, Inquiry.WORKFLOW_XID_13, Blame.APPLICATION, FailureMode.GPU_XID),
        (31, Action.RESTART_APP, Inquiry.WORKFLOW_XID_31, Blame.APPLICATION, FailureMode.GPU_XID),
        (43, Action.IGNORE, Inquiry.CONTACT_SUPPORT, Blame.APPLICATION, FailureMode.GPU_XID),
        (45, Action.WORKFLOW_XID_45, Inquiry.WORKFLOW_XID_45, Blame.APPLICATION, FailureMode.GPU_XID),
        (48, Action.WORKFLOW_XID_48, Inquiry.WORKFLOW_XID_48, Blame.HARDWARE, FailureMode.GPU_UNCORRECTABLE_ECC),
        (54, Action.CHECK_MECHANICALS, Inquiry.CONTACT_SUPPORT, Blame.HARDWARE, FailureMode.GPU_XID),
        (63, Action.IGNORE, Inquiry.IGNORE, Blame.HARDWARE, FailureMode.GPU_ROW_REMAP_PENDING),
        (64, Action.RESET_GPU, Inquiry.CONTACT_SUPPORT, Blame.HARDWARE, FailureMode.GPU_ROW_REMAP_FAILED),
        (74, Action.WORKFLOW_NVLINK_ERR, Inquiry.CONTACT_SUPPORT, Blame.LINK, FailureMode.NVLINK_ERRORS),
        (78, Action.UPDATE_SWFW, Inquiry.UPDATE_SWFW, Blame.SOFTWARE, FailureMode.GPU_XID),
        (79, Action.RESTART_BM, Inquiry.CONTACT_SUPPORT, Blame.HARDWARE, FailureMode.GPU_FELL_OFF_BUS),
        (92, Action.IGNORE, Inquiry.CONTACT_SUPPORT, Blame.HARDWARE, FailureMode.GPU_CORRECTABLE_ECC_STORM),
        (94, Action.RESTART_APP, Inquiry.IGNORE_SYMPATHETIC, Blame.APPLICATION, FailureMode.GPU_UNCORRECTABLE_ECC),
        (95, Action.RESET_GPU, Inquiry.IGNORE_SYMPATHETIC, Blame.HARDWARE, FailureMode.GPU_UNCORRECTABLE_ECC),
        (106, Action.IGNORE, Inquiry.IGNORE, Blame.INFORMATION, FailureMode.GPU_XID),
        (119, Action.RESET_GPU, Inquiry.INVESTIGATE_SW, Blame.SOFTWARE, FailureMode.GPU_XID),
        (136, Action.RESET_GPU, Inquiry.INVESTIGATE_LINK_SI, Blame.LINK, FailureMode.NVLINK_ERRORS),
        (137, Action.IGNORE, Inquiry.XID_137_FLOW, Blame.APPLICATION, FailureMode.GPU_XID),
        (149, Action.WORKFLOW_NVLINK5_ERR, Inquiry.WORKFLOW_NVLINK5_ERR, Blame.LINK, FailureMode.NVLINK_ERRORS),
        (154, Action.XID_154, Inquiry.NONE, Blame.UNKNOWN, FailureMode.GPU_XID),
        (156, Action.RESET_GPU, Inquiry.IGNORE, Blame.HARDWARE, FailureMode.GPU_ROW_REMAP_PENDING),
        (157, Action.IGNORE, Inquiry.CONTACT_SUPPORT, Blame.HARDWARE, FailureMode.GPU_ROW_REMAP_FAILED),
        (159, Action.CHECK_UVM, Inquiry.SYMPATHETIC_REPORT_SOLO, Blame.SOFTWARE, FailureMode.GPU_XID),
    ],
)
def test_a_code_has_nvidias_actions_its_blame_and_its_mode(
    code: int, action: Action, inquiry: Inquiry, blame: Blame, mode: FailureMode
) -> None:
    entry = xid(code)
    assert (entry.nvidia, entry.action, entry.inquiry) == (action, action, inquiry)
    assert (entry.blame, entry.mode) == (blame, mode)


def test_parts_and_the_driver_that_tells_more_are_known() -> None:
    assert xid(79).parts == ALL_PARTS
    assert xid(54).parts == {Part.A100, Part.H100, Part.B100}
    assert xid(1).parts == frozenset()
    assert [xid(code).recovery_since for code in (79, 109, 143, 158, 13)] == [565, 570, 575, 0, None]


def test_where_nvidia_names_no_action_ours_is_marked_and_gives_its_reason() -> None:
    ours = {code for code, entry in CATALOGUE.items() if entry.nvidia is Action.UNKNOWN}
    assert ours == {*range(162, 174)}
    assert all((xid(code).because != "") == (code != 173) for code in ours)
    for code in (171, 172):
        assert (xid(code).action, xid(code).mode) == (Action.RESET_GPU, FailureMode.GPU_UNCORRECTABLE_ECC)


@given(st.one_of(st.just(173), st.just(0), st.integers(174), st.integers(max_value=-1)))
def test_a_code_that_nobody_knows_is_unknown_and_not_ignored(code: int) -> None:
    entry = xid(code)
    assert not entry.is_known
    assert (entry.code, entry.action, entry.blame, entry.mode) == (
        code,
        Action.UNKNOWN,
        Blame.UNKNOWN,
        FailureMode.GPU_XID,
    )


def test_every_restart_of_the_application_is_the_applications() -> None:
    assert set(codes_with(Action.RESTART_APP)) <= set(codes_blamed_on(Blame.APPLICATION))
    assert {13, 31, 43, 45, 94} <= set(codes_blamed_on(Blame.APPLICATION))


def test_the_codes_are_divided_without_rest() -> None:
    by_mode = [code for mode in FailureMode for code in codes_of(mode)]
    by_action = [code for action in Action for code in codes_with(action)]
    by_blame = [code for blame in Blame for code in codes_blamed_on(blame)]
    assert sorted(by_mode) == sorted(by_action) == sorted(by_blame) == [*CATALOGUE]


def test_a_fleet_of_last_xids_is_asked_at_once() -> None:
    last = np.array([[np.nan, 0.0, 48.0], [94.0, 173.0, 500.0]])
    uncorrectable = among(last, codes_of(FailureMode.GPU_UNCORRECTABLE_ECC))
    assert uncorrectable.tolist() == [[False, False, True], [True, False, False]]
    assert unknown(last).tolist() == [[False, False, False], [False, True, True]]
    assert not among(last, ()).any()


@given(st.lists(st.sampled_from(Action)))
def test_the_worst_is_one_of_them_and_never_unknown_beside_a_known_one(actions: list[Action]) -> None:
    found = worst(actions)
    known = [action for action in actions if action is not Action.UNKNOWN]
    assert found in known or (not known and found is Action.UNKNOWN)
    assert worst([*actions, found]) is found


def test_the_worst_takes_away_most() -> None:
    assert worst([Action.IGNORE, Action.RESTART_APP]) is Action.RESTART_APP
    assert worst([Action.RESET_GPU, Action.RESTART_BM, Action.UNKNOWN]) is Action.RESTART_BM
