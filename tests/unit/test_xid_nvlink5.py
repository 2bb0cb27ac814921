"""Sub-codes of XIDs 144 to 150: both layouts of IntrInfo, the names, and what happens where they disagree."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.telemetry.xids.nvlink5 import CODES, LinkError, decode, link_error
from healer.telemetry.xids.nvlink5_table import SUBCODES
from healer.telemetry.xids.words import Action, Inquiry, Saying, Severity, Teller

BEFORE, SINCE = 570, 575


def _error(
    intr_info: int | None = None,
    error_status: int | None = None,
    *,
    name: str = "",
    severity: Severity | None = None,
) -> LinkError:
    return LinkError(name, severity, intr_info, error_status)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (
            "NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x00000000 0x00000000 0x00000000)",
            _error(0x021425C6, 0, name="NETIR_LINK_EVT", severity=Severity.FATAL),
        ),
        (
            "RLW_RXPIPE Nonfatal XC0 i0 Link 12 (0x040980c2 0x00000008 0x00000001)",
            _error(0x040980C2, 8, name="RLW_RXPIPE", severity=Severity.NON_FATAL),
        ),
        (
            "TLW_RX/TLW_RX_PIPE1 Non-fatal XC0 i0 Link 00 (0x0000000b 0x00000001)",
            _error(0xB, 1, name="TLW_RX/TLW_RX_PIPE1", severity=Severity.NON_FATAL),
        ),
        ("MSE Degraded Fatal", _error(name="MSE_DEGRADED", severity=Severity.FATAL)),
        ("(0x00000001 0x00000002)", _error(1, 2)),
        ("something else", _error()),
    ],
)
def test_a_message_says_name_severity_and_registers(message: str, error: LinkError) -> None:
    assert link_error(message) == error


@pytest.mark.parametrize(
    ("code", "before", "since", "status", "name", "action", "inquiry"),
    [
        (144, 0x021, 0x01, 0x1, "SAW_MVB", Action.IGNORE, Inquiry.CONTACT_SUPPORT),
        (144, 0x021, 0x01, 0x2, "SAW_MVB", Action.RESET_GPU, Inquiry.CONTACT_SUPPORT),
        (145, 0x082, 0x04, 0x1, "RLW_REMAP", Action.XID_154, Inquiry.CONTACT_SUPPORT),
        (145, 0x082, 0x04, 0x40, "RLW_REMAP", Action.RESET_GPU, Inquiry.CONTACT_SUPPORT),
        (145, 0x0E2, 0x07, 0x8, "RLW_SRC_TRACK", Action.XID_154, Inquiry.IGNORE),
        (146, 0x123, 0x09, 0x4, "TLW_CTRL", Action.RESET_GPU, Inquiry.CONTACT_SUPPORT),
        (147, 0x184, 0x0E, 0x1, "TREX", Action.IGNORE, Inquiry.CONTACT_SUPPORT),
        (148, 0x005, 0x0F, 0x80000000, "NVLPW_CTRL/NVLPW", Action.IGNORE, Inquiry.CONTACT_SUPPORT),
        (149, 0x226, 0x13, 0x3, "NETIR_BER_EVENT", Action.IGNORE, Inquiry.INVESTIGATE_LINK_SI_AND_CABLES),
        (149, 0x246, 0x14, 0x4, "NETIR_MFDE_EVENT", Action.RESET_GPU, Inquiry.CONTACT_SUPPORT),
        (149, 0x006, 0x18, 0x0, "NETIR/NETIR_INT", Action.RESET_GPU, Inquiry.SYMPATHETIC_REPORT_SOLO),
    ],
)
def test_the_number_stands_elsewhere_since_r575(
    *, code: int, before: int, since: int, status: int, name: str, action: Action, inquiry: Inquiry
) -> None:
    for number, driver in ((before, BEFORE), (before, None), (since, SINCE), (since, None)):
        decoded = decode(code, _error(number, status), driver=driver)
        assert (decoded.name, decoded.action, decoded.inquiry, decoded.said) == (name, action, inquiry, ())


@pytest.mark.parametrize(("number", "driver"), [(0x021, SINCE), (0x01, BEFORE)])
def test_the_number_of_the_other_layout_is_nothing_to_a_driver_that_is_known(number: int, driver: int) -> None:
    decoded = decode(144, _error(number, 0x2), driver=driver)
    assert (decoded.name, decoded.action, decoded.severity) == ("", Action.UNKNOWN, None)


def test_no_number_is_two_sub_codes_of_one_xid() -> None:
    """With any of the bits that are not its own: what makes a line of an unknown driver readable."""
    for code in CODES:
        names = {number: decode(code, _error(number, 0), driver=BEFORE).name for number in range(0x400)}
        for number, name in names.items():
            other = decode(code, _error(number, 0), driver=SINCE).name
            assert not (name and other) or name == other, (code, number)


@pytest.mark.parametrize(
    ("reason", "action", "inquiry"),
    [
        (0b000000, Action.RESET_GPU, Inquiry.SYMPATHETIC_REPORT_SOLO),
        (0b000001, Action.RESET_GPU, Inquiry.REPORT_ISSUE),
        (0b000010, Action.RESET_GPU, Inquiry.INVESTIGATE_LINK_SI),
        (0b100001, Action.RESET_GPU, Inquiry.INVESTIGATE_PEER_DEVICE),
        (0b100110, Action.IGNORE, Inquiry.INVESTIGATE_SW_USER),
        (0b101000, Action.IGNORE, Inquiry.INVESTIGATE_HOST),
        (0b101011, Action.RESET_GPU, Inquiry.INVESTIGATE_LINK_SI_AND_CABLES),
        (0b111111, Action.UNKNOWN, Inquiry.NONE),
    ],
)
def test_why_a_link_went_down_stands_above(reason: int, action: Action, inquiry: Inquiry) -> None:
    for number, driver in ((0x1C6, BEFORE), (0x11, SINCE)):
        decoded = decode(149, _error(reason << 20 | number, 0), driver=driver)
        assert (decoded.is_link_down, decoded.action, decoded.inquiry) == (True, action, inquiry)


@pytest.mark.parametrize(
    ("intr_info", "driver", "action"),
    [
        (0x0C2, BEFORE, Action.IGNORE),
        (0x0C2 | 1 << 10, BEFORE, Action.RESET_GPU),
        (0x0C2, None, Action.IGNORE),  # bit 7 is a part of the number here
        (0x06, SINCE, Action.IGNORE),
        (0x06 | 1 << 7, SINCE, Action.RESET_GPU),
        (0x06 | 1 << 10, SINCE, Action.IGNORE),
    ],
)
def test_a_flag_above_the_number_makes_it_worse(intr_info: int, driver: int | None, action: Action) -> None:
    for name in ("", "RLW_RXPIPE"):
        assert decode(145, _error(intr_info, 0x1, name=name), driver=driver).action is action


def test_a_name_without_registers_is_the_worst_that_it_can_be() -> None:
    assert decode(145, _error(None, 0x1, name="RLW_RXPIPE")).action is Action.RESET_GPU
    assert decode(149, _error(name="NETIR_LINK_EVT")).action is Action.RESET_GPU
    assert decode(145, _error(name="RLW_REMAP")).action is Action.UNKNOWN


def test_several_bits_of_error_status_are_several_errors() -> None:
    assert decode(144, _error(0x01, 0x3)).action is Action.RESET_GPU
    assert decode(144, _error(0x01, 0x5)).action is Action.IGNORE
    assert decode(144, _error(0x01, 0x40)).action is Action.UNKNOWN
    assert decode(149, _error(0x14, 0x2)).action is Action.UNKNOWN  # a number, not bits


def test_where_number_and_name_disagree_the_worse_counts_and_both_are_told() -> None:
    decoded = decode(145, _error(0x05, 0x2, name="RLW_SRC_TRACK"), driver=SINCE)
    assert decoded.action is Action.RESET_GPU
    assert decoded.said == (
        Saying(Teller.SUBCODE_SINCE_R575, "RLW_RSPCOL RESET_GPU"),
        Saying(Teller.SUBCODE_NAME, "RLW_SRC_TRACK IGNORE"),
    )
    other_way = decode(145, _error(0x07, 0x2, name="RLW_RSPCOL"), driver=SINCE)
    assert other_way.action is Action.RESET_GPU
    assert len(other_way.said) == 2


def test_a_reading_without_a_row_is_told_beside_one_that_has_one() -> None:
    decoded = decode(145, _error(0x05, 0x100, name="RLW_REMAP"), driver=SINCE)
    assert decoded.action is Action.IGNORE
    assert decoded.said == (
        Saying(Teller.SUBCODE_SINCE_R575, "RLW_RSPCOL UNKNOWN"),
        Saying(Teller.SUBCODE_NAME, "RLW_REMAP IGNORE"),
    )


def test_the_lines_severity_is_held_against_the_tables() -> None:
    same = decode(149, _error(0x1C6, 0, severity=Severity.FATAL))
    assert (same.severity, same.said) == (Severity.LINK_FATAL, ())
    other = decode(145, _error(0x04, 0x40, severity=Severity.NON_FATAL))
    assert other.said == (Saying(Teller.LINE, "non-fatal"), Saying(Teller.CATALOGUE, "fatal"))


def test_the_pipe_that_the_line_names_is_shown() -> None:
    assert decode(146, _error(0x143, 1, name="TLW_RX/TLW_RX_PIPE1")).name == "TLW_RX/TLW_RX_PIPE1"
    assert decode(150, _error(0, 0, name="MSE_WATCHDOG")).name == "MSE_WATCHDOG"


def test_every_row_of_the_table_is_found_in_both_layouts_and_by_name() -> None:
    for line in SUBCODES.splitlines():
        code, names, before, since, reasons, statuses, actions, inquiry, _ = line.split(" ")
        action = Action(actions.partition(">")[0])
        for reason, status in itertools.product(reasons.split(","), statuses.replace("-", "0").split(",")):
            above, at = int(reason, 16) << 20, int(status, 16)
            for number, driver in ((before, BEFORE), (since, SINCE)):
                decoded = decode(int(code), _error(above | int(number, 16), at, name=names), driver=driver)
                assert (decoded.action, decoded.inquiry) == (action, Inquiry(inquiry)), line
                assert decoded.said == (), line


@given(
    code=st.sampled_from(sorted(CODES)),
    intr_info=st.none() | st.integers(0, 2**32 - 1),
    status=st.none() | st.integers(0, 2**32 - 1),
    name=st.sampled_from(["", "RLW_REMAP", "NETIR_LINK_EVT", "TLW_RX", "MSE_WATCHDOG", "NO_SUCH_THING"]),
    severity=st.none() | st.sampled_from(Severity),
    driver=st.none() | st.integers(400, 999),
)
def test_whatever_the_registers_say_it_is_decoded(
    *, code: int, intr_info: int | None, status: int | None, name: str, severity: Severity | None, driver: int | None
) -> None:
    decoded = decode(code, _error(intr_info, status, name=name, severity=severity), driver=driver)
    assert (decoded.severity is None) == (decoded.action is Action.UNKNOWN)
    if driver is not None:
        # Every reading of a known driver is one of those of an unknown one, and the worst counts.
        assert decoded.action in (Action.UNKNOWN, decode(code, _error(intr_info, status, name=name)).action)


@given(st.text())
def test_whatever_a_message_says_it_is_read(message: str) -> None:
    assert link_error(message).intr_info is None or "(0x" in message.lower()
