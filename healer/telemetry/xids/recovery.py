"""The driver's own verdict on a GPU: the text of XID 154, and the numbers of field 1523 (GPU_RECOVERY_ACTION).

Since R565 the driver keeps a recovery action for each GPU and logs every change of it as XID 154, as in "GPU recovery
action changed from 0x0 (None) to 0x1 (GPU Reset Required)". The number is an interface and counts; its words have
changed with the driver ("Node Reboot Required", later "OS Reboot"; "PF FLR" for a reset), so words that are not known
say nothing, and words that are known and contradict their number are told.
Sources: nvml.h, DCGM's field 1523, lines of drivers 565 to 610 in public reports.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from healer.telemetry.xids.words import Action


class Recovery(IntEnum):
    """What the driver asks for. UNKNOWN is a number that no release documented."""

    UNKNOWN = -1
    NONE = 0
    RESET = 1
    NODE_REBOOT = 2
    DRAIN_P2P = 3
    DRAIN_AND_RESET = 4
    RECOVER_IMEX = 5
    BUS_RESET = 6
    SYSTEM_REBOOT = 7

    @property
    def action(self) -> Action:
        return _ACTIONS[self]


_ACTIONS = {
    Recovery.UNKNOWN: Action.UNKNOWN,
    Recovery.NONE: Action.IGNORE,
    Recovery.RESET: Action.RESET_GPU,
    Recovery.NODE_REBOOT: Action.RESTART_BM,
    Recovery.DRAIN_P2P: Action.DRAIN_P2P,
    Recovery.DRAIN_AND_RESET: Action.DRAIN_AND_RESET,
    Recovery.RECOVER_IMEX: Action.RECOVER_IMEX,
    Recovery.BUS_RESET: Action.RESET_BUS,
    Recovery.SYSTEM_REBOOT: Action.RESTART_SYSTEM,
}

_WORDS = {
    "none": Recovery.NONE,
    "gpu reset required": Recovery.RESET,
    "pf flr": Recovery.RESET,
    "node reboot required": Recovery.NODE_REBOOT,
    "os reboot": Recovery.NODE_REBOOT,
    "drain p2p": Recovery.DRAIN_P2P,
    "drain and reset": Recovery.DRAIN_AND_RESET,
}

_STATE = r"(?:0x([0-9a-f]{1,8}))? ?(?:\(([^()]{0,64})\))?"
_CHANGE = re.compile(f"recovery action changed from {_STATE} to {_STATE}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Change:
    """Attributes:
    before, after: by their numbers; by their words where there is no number.
    words: what the driver calls `after`, as it is written.
    worded: what those words mean; UNKNOWN for words that are new.
    """

    before: Recovery
    after: Recovery
    words: str
    worded: Recovery


def recovery_of(number: float) -> Recovery:
    """Of a value of field 1523. A number that is not documented, and NaN, are UNKNOWN."""
    known = {float(member): member for member in Recovery if member is not Recovery.UNKNOWN}
    return known.get(number, Recovery.UNKNOWN)


def change_in(text: str) -> Change | None:
    """What an XID 154 says; None if the text is not of its kind."""
    said = _CHANGE.search(text)
    if said is None:
        return None
    old_number, old_words, number, words = said.groups()
    return Change(
        before=_state(old_number, old_words), after=_state(number, words), words=words or "", worded=_worded(words)
    )


def _state(number: str | None, words: str | None) -> Recovery:
    return _worded(words) if number is None else recovery_of(int(number, 16))


def _worded(words: str | None) -> Recovery:
    return _WORDS.get(" ".join((words or "").lower().split()), Recovery.UNKNOWN)
