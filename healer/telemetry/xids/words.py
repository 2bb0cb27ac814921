"""The words of a verdict: what is to be done, who is at fault, how bad it is, and who said so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What is to be done at once, in NVIDIA's words; the later in this list, the more it takes away.

    The words are those of the Xid catalogue's immediate actions, and of the driver's recovery actions where the
    catalogue has none (DRAIN_P2P to RESTART_SYSTEM). UNKNOWN is outside of the order: it neither is nothing to be done
    nor permits anything.
    """

    IGNORE = "IGNORE"
    RESTART_APP = "RESTART_APP"
    WORKFLOW_XID_45 = "WORKFLOW_XID_45"  # IGNORE beside another XID; alone, restart the fabric manager
    CHECK_UVM = "CHECK_UVM"  # RESET_GPU where the application uses unified memory
    UPDATE_SWFW = "UPDATE_SWFW"
    XID_154 = "XID_154"  # what the driver's recovery action says
    WORKFLOW_NVLINK_ERR = "WORKFLOW_NVLINK_ERR"  # the link's registers decide
    WORKFLOW_NVLINK5_ERR = "WORKFLOW_NVLINK5_ERR"  # the sub-code decides
    WORKFLOW_XID_48 = "WORKFLOW_XID_48"  # RESET_GPU, after a drain if XID 63 or 64 comes with it
    DRAIN_P2P = "DRAIN_P2P"
    RECOVER_IMEX = "RECOVER_IMEX"
    RESET_GPU = "RESET_GPU"
    DRAIN_AND_RESET = "DRAIN_AND_RESET"
    RESET_BUS = "RESET_BUS"
    RESET_FABRIC = "RESET_FABRIC"
    RESTART_VM = "RESTART_VM"
    RESTART_BM = "RESTART_BM"
    RESTART_SYSTEM = "RESTART_SYSTEM"
    CHECK_MECHANICALS = "CHECK_MECHANICALS"
    CONTACT_SUPPORT = "CONTACT_SUPPORT"
    UNKNOWN = "UNKNOWN"

    @property
    def is_open(self) -> bool:
        """Whether something else has to be known first."""
        return self in _OPEN


class Inquiry(StrEnum):
    """What is to be looked into afterwards: the Xid catalogue's investigatory actions."""

    NONE = ""
    IGNORE = "IGNORE"
    IGNORE_SYMPATHETIC = "IGNORE_SYMPATHETIC"  # it follows another error, which is to be looked into
    SYMPATHETIC_REPORT_SOLO = "SYMPATHETIC_REPORT_SOLO"  # the same, and to be reported where there is no other
    CHECK_APP = "CHECK_APP/CUDA"
    CHECK_NVLINK_FAILURE_FLOW = "CHECK_NVLINK_FAILURE_FLOW"
    INVESTIGATE_HOST = "INVESTIGATE_HOST"
    INVESTIGATE_LINK_SI = "INVESTIGATE_LINK_SI"
    INVESTIGATE_LINK_SI_AND_CABLES = "INVESTIGATE_LINK_SI_AND_CABLES"
    INVESTIGATE_PEER_DEVICE = "INVESTIGATE_PEER_DEVICE"
    INVESTIGATE_SW = "INVESTIGATE_SW"
    INVESTIGATE_SW_USER = "INVESTIGATE_SW_USER"
    INVESTIGATE_SW_USER_LINK_SI = "INVESTIGATE_SW_USER_LINK_SI"
    REPORT_ISSUE = "REPORT_ISSUE"
    UPDATE_SWFW = "UPDATE_SWFW"
    WORKFLOW_NVLINK5_ERR = "WORKFLOW_NVLINK5_ERR"
    WORKFLOW_XID_13 = "WORKFLOW_XID_13"
    WORKFLOW_XID_31 = "WORKFLOW_XID_31"
    WORKFLOW_XID_45 = "WORKFLOW_XID_45"
    WORKFLOW_XID_48 = "WORKFLOW_XID_48"
    XID_137_FLOW = "XID_137_FLOW"
    CONTACT_SUPPORT = "CONTACT_SUPPORT"


class Blame(StrEnum):
    """Where the fault is to be looked for first."""

    APPLICATION = "application"
    HARDWARE = "hardware"
    LINK = "link"
    SOFTWARE = "software"
    INFORMATION = "information"
    UNKNOWN = "unknown"


class Severity(StrEnum):
    NON_FATAL = "non-fatal"
    LINK_FATAL = "link fatal"
    FATAL = "fatal"

    @property
    def is_fatal(self) -> bool:
        return self is not Severity.NON_FATAL


class Teller(StrEnum):
    CATALOGUE = "NVIDIA's catalogue"
    RECOVERY = "the driver's recovery action"
    RECOVERY_WORDS = "the words of the recovery action"
    SUBCODE_BEFORE_R575 = "the sub-code, read as before R575"
    SUBCODE_SINCE_R575 = "the sub-code, read as since R575"
    SUBCODE_NAME = "the name of the sub-code"
    LINE = "the line itself"


@dataclass(frozen=True, slots=True)
class Saying:
    """Attributes:
    says: an action where the teller names one, else its own word, such as a severity.
    """

    who: Teller
    says: str


_OPEN = frozenset(
    {
        Action.WORKFLOW_XID_45,
        Action.CHECK_UVM,
        Action.XID_154,
        Action.WORKFLOW_NVLINK_ERR,
        Action.WORKFLOW_NVLINK5_ERR,
        Action.WORKFLOW_XID_48,
        Action.UNKNOWN,
    }
)
_RANKS = {action: rank for rank, action in enumerate(Action)}


def worst(actions: Iterable[Action]) -> Action:
    """The one that takes away most. One that is not known gives way to one that is; UNKNOWN if none is."""
    known = [action for action in actions if action is not Action.UNKNOWN]
    return max(known, key=_RANKS.__getitem__, default=Action.UNKNOWN)
