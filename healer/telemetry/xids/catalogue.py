"""Every XID: what NVIDIA asks for, which failure mode it belongs to, and whose fault it usually is.

**Failure mode.** Uncorrectable memory errors are one mode whatever their reach (48, 95, 140; 171 and 172 are their
successors; 94 reached one application only). What retires a part of a GPU, a row, a memory channel or a unit, either
waits for a reset (63, 156, 160) or could not be done (64, 157, 161). A link that reports errors is 74, the family of
NVLink 5 (144 to 150), 136 (training), 155, and the encrypted links' 166 and 170; that a link is *down* is told by a
sub-code only. 108 and 137 have NVLink in their name and are an application's illegal access over it, 121 is the link
within a Grace module: all three are GpuXid, like everything else.

**Blame.** In this order, the first that holds:

1. the codes of `_BLAMES`: memory and its retirement, links, messages that are no errors, and 43, 45 and 94, which
   concern the application alone. 94 is the memory's error; its failure mode says so;
2. APPLICATION where NVIDIA asks to restart or check it, or to follow the flow of an illegal access (108, 137);
3. SOFTWARE where NVIDIA asks to look into or update software, or the error ends with the virtual machine;
4. HARDWARE where NVIDIA asks for a reset, a restart, or a look at the mechanics;
5. UNKNOWN: "contact support" says nothing about whose fault it is, and XID 154 speaks of another XID.

**162 to 173** have no action in the catalogue. `_OURS` holds what their mnemonics allow to decide, at the cautious end.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from healer.domain.finding import FailureMode
from healer.telemetry.xids.table import XIDS as _TABLE
from healer.telemetry.xids.words import Action, Blame, Inquiry


class Part(StrEnum):
    A100 = "A100"
    H100 = "H100"
    B100 = "B100"
    GB200 = "GB200"


@dataclass(frozen=True, slots=True)
class Xid:
    """Attributes:
    mnemonic: "" for a code that is not in the catalogue, or has no name there.
    nvidia: NVIDIA's immediate action; UNKNOWN where the catalogue has none.
    action: the same, or what we decide where NVIDIA says nothing; `because` tells why.
    inquiry: NVIDIA's investigatory action.
    parts: the parts that the catalogue has it for; none for what only older ones report.
    recovery_since: the driver branch since which an XID 154 follows it with the driver's own verdict; 0 for all, None
        where the catalogue promises none.
    meaning: what happened, in a few words; "" where the mnemonic has to do.
    """

    code: int
    mnemonic: str
    nvidia: Action
    action: Action
    because: str
    inquiry: Inquiry
    parts: frozenset[Part]
    recovery_since: int | None
    mode: FailureMode
    blame: Blame
    meaning: str

    @property
    def is_known(self) -> bool:
        return self.mnemonic != ""


_MODES = {
    FailureMode.GPU_UNCORRECTABLE_ECC: (48, 94, 95, 140, 171, 172),
    FailureMode.GPU_CORRECTABLE_ECC_STORM: (92,),
    FailureMode.GPU_ROW_REMAP_PENDING: (63, 156, 160),
    FailureMode.GPU_ROW_REMAP_FAILED: (64, 157, 161),
    FailureMode.GPU_FELL_OFF_BUS: (79,),
    FailureMode.NVLINK_ERRORS: (74, 136, 144, 145, 146, 147, 148, 149, 150, 155, 166, 170),
}

_BLAMES = {
    Blame.APPLICATION: (43, 45, 94),
    Blame.HARDWARE: (48, 57, 58, 63, 64, 92, 93, 95, 140, 156, 157, 160, 161, 163, 164, 165, 168, 171, 172),
    Blame.LINK: (74, 121, 136, 144, 145, 146, 147, 148, 149, 150, 155, 166, 170),
    Blame.INFORMATION: (14, 23, 106, 107, 162),
}

_OURS = {
    162: (Action.IGNORE, "its name tells that a protection is back"),
    163: (Action.CONTACT_SUPPORT, "its name tells that a protection is gone, and no reset is known to bring it back"),
    164: (Action.CONTACT_SUPPORT, "its name tells of wear, which no reset undoes"),
    165: (Action.CONTACT_SUPPORT, "its name tells of wear, which no reset undoes"),
    166: (Action.CONTACT_SUPPORT, "its name tells that a link cannot be trusted, not what mends it"),
    167: (Action.RESET_GPU, "its name is that of XID 158, on PCIe"),
    168: (Action.CONTACT_SUPPORT, "its name tells that memory is missing, not what brings it back"),
    169: (Action.RESET_GPU, "its name is that of XID 62, of another engine"),
    170: (Action.CONTACT_SUPPORT, "its name tells that a link cannot be trusted, not what mends it"),
    171: (Action.RESET_GPU, "an uncorrectable memory error, as XID 140"),
    172: (Action.RESET_GPU, "an uncorrectable memory error, as XID 140"),
}

_MEANINGS = {
    8: "a channel did not progress in time",
    13: "the application's kernel did something illegal, such as an access out of range",
    31: "the application accessed memory that is not mapped for it",
    32: "the application's command stream was corrupt",
    43: "the application's channel was stopped after an error of its own",
    45: "the driver took an application's channels away",
    46: "the GPU did not progress in time",
    48: "more bits of one memory word flipped than can be corrected",
    54: "the board's auxiliary power is not connected, or not enough",
    61: "the power management unit stopped at a breakpoint",
    62: "the power management unit halted",
    63: "memory is marked to be retired at the next reset",
    64: "memory could not be retired",
    69: "the application gave the engine an illegal value",
    74: "an NVLink reported an error",
    78: "a virtual GPU could not start",
    79: "the GPU no longer answers on PCIe",
    92: "single-bit memory errors come too often",
    94: "an uncorrectable memory error that only one application met",
    95: "an uncorrectable memory error whose reach is not known",
    109: "an application's context could not be switched in time",
    110: "the security processor reported a fault",
    119: "the GPU system processor did not answer in time",
    120: "the GPU system processor crashed",
    121: "the link between processor and GPU reported an error",
    136: "an NVLink could not be trained",
    137: "an application accessed another GPU's memory that is not mapped for it",
    140: "an uncorrectable memory error that was not recovered from",
    143: "the GPU could not be initialised",
    149: "an NVLink's network layer reported an event",
    154: "the driver changed its mind about how the GPU is to be recovered",
    156: "a part of the GPU is marked to be retired",
    157: "a part of the GPU could not be retired",
    158: "the GPU did not answer in time, for good",
    160: "a memory channel is marked to be retired",
    161: "a memory channel could not be retired",
    168: "the GPU has less memory than it should",
    171: "an uncorrectable error in the GPU's DRAM",
    172: "an uncorrectable error in the GPU's SRAM",
}

_ASKS_FOR_SOFTWARE = frozenset({Inquiry.INVESTIGATE_SW, Inquiry.INVESTIGATE_SW_USER, Inquiry.UPDATE_SWFW})
_OF_THE_APPLICATION = frozenset({Inquiry.CHECK_APP, Inquiry.XID_137_FLOW})
_ENDS_WITH_SOFTWARE = frozenset({Action.RESTART_VM, Action.UPDATE_SWFW, Action.CHECK_UVM})
_OF_THE_BOARD = frozenset({Action.RESET_GPU, Action.RESTART_BM, Action.CHECK_MECHANICALS})


def _usual_blame(action: Action, inquiry: Inquiry) -> Blame:
    if action is Action.RESTART_APP or inquiry in _OF_THE_APPLICATION:
        return Blame.APPLICATION
    if inquiry in _ASKS_FOR_SOFTWARE or action in _ENDS_WITH_SOFTWARE:
        return Blame.SOFTWARE
    return Blame.HARDWARE if action in _OF_THE_BOARD else Blame.UNKNOWN


_MODE_OF = {code: mode for mode, codes in _MODES.items() for code in codes}
_BLAME_OF = {code: blame for blame, codes in _BLAMES.items() for code in codes}
_BRANCHES = {"-": None, "always": 0}
_PARTS = {part.value[0]: part for part in Part}


def _read(row: str) -> Xid:
    number, mnemonic, immediate, inquired, parts, since = row.split(" ")
    code, nvidia = int(number), Action.UNKNOWN if immediate == "-" else Action(immediate)
    inquiry = Inquiry("" if inquired == "-" else inquired)
    action, because = _OURS.get(code, (nvidia, ""))
    return Xid(
        code=code,
        mnemonic="" if mnemonic == "-" else mnemonic,
        nvidia=nvidia,
        action=action,
        because=because,
        inquiry=inquiry,
        parts=frozenset(_PARTS[letter] for letter in parts if letter != "-"),
        recovery_since=_BRANCHES[since] if since in _BRANCHES else int(since.removeprefix("R")),
        mode=_MODE_OF.get(code, FailureMode.GPU_XID),
        blame=_BLAME_OF.get(code) or _usual_blame(action, inquiry),
        meaning=_MEANINGS.get(code, ""),
    )


CATALOGUE = {entry.code: entry for entry in map(_read, _TABLE.splitlines())}


def xid(code: int) -> Xid:
    """What the catalogue says of an XID. One that it does not have is UNKNOWN in everything, and GpuXid."""
    return CATALOGUE.get(code) or Xid(
        code=code,
        mnemonic="",
        nvidia=Action.UNKNOWN,
        action=Action.UNKNOWN,
        because="",
        inquiry=Inquiry.NONE,
        parts=frozenset(),
        recovery_since=None,
        mode=FailureMode.GPU_XID,
        blame=Blame.UNKNOWN,
        meaning="",
    )


def codes_of(mode: FailureMode) -> tuple[int, ...]:
    """The XIDs of one failure mode. GpuXid has all others, so its own codes are only those that the catalogue has."""
    return tuple(code for code, entry in CATALOGUE.items() if entry.mode is mode)


def codes_with(action: Action) -> tuple[int, ...]:
    """The XIDs with this action, NVIDIA's or, where it has none, ours."""
    return tuple(code for code, entry in CATALOGUE.items() if entry.action is action)


def codes_blamed_on(blame: Blame) -> tuple[int, ...]:
    return tuple(code for code, entry in CATALOGUE.items() if entry.blame is blame)


def among(xids: NDArray[np.float64], codes: Collection[int]) -> NDArray[np.bool_]:
    """Which of the last XIDs (any shape, NaN where unknown, 0 where there was none) are one of `codes`."""
    return np.isin(xids, np.fromiter(codes, dtype=np.float64, count=len(codes)))


def unknown(xids: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the last XIDs (any shape, NaN where unknown, 0 where there was none) nobody can name an action for."""
    return (xids > 0) & ~among(xids, set(CATALOGUE) - set(codes_with(Action.UNKNOWN)))
