"""Messages without a code: the driver's, and fabric manager's.

NVIDIA publishes no action for any of them, so theirs is UNKNOWN, unless the message itself names one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from healer.domain.finding import FailureMode
from healer.telemetry.xids.words import Action, Blame


class Speaker(StrEnum):
    DRIVER = "driver"
    FABRIC_MANAGER = "fabric manager"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Attributes:
    words: all of them have to be in the line, in lower case and in this order.
    """

    name: str
    speaker: Speaker
    words: tuple[str, ...]
    mode: FailureMode
    blame: Blame
    meaning: str
    action: Action = Action.UNKNOWN

    def is_in(self, lowered: str) -> bool:
        at = 0
        for word in self.words:
            at = lowered.find(word, at) + len(word)
            if at < len(word):
                return False
        return True


TROUBLES = (
    Trouble(
        name="NVLINK_DISCOVERY",
        speaker=Speaker.DRIVER,
        words=("knvlink", ":", "failed"),
        mode=FailureMode.NVLINK_ERRORS,
        blame=Blame.LINK,
        meaning="the driver could not find out which NVLinks are connected, after which nvidia-smi may hang",
    ),
    Trouble(
        name="INIT_ADAPTER",
        speaker=Speaker.DRIVER,
        words=("rminitadapter failed",),
        mode=FailureMode.GPU_XID,
        blame=Blame.UNKNOWN,
        meaning="the driver could not initialise the GPU",
    ),
    Trouble(
        name="UVM_FATAL",
        speaker=Speaker.DRIVER,
        words=("uvm encountered global fatal error", "requiring os reboot"),
        mode=FailureMode.GPU_XID,
        blame=Blame.SOFTWARE,
        meaning="unified memory failed on the whole node, and the driver asks for a reboot",
        action=Action.RESTART_BM,
    ),
    Trouble(
        name="FABRIC_TOPOLOGY",
        speaker=Speaker.FABRIC_MANAGER,
        words=("number of nvswitches don't match", "topology"),
        mode=FailureMode.NVLINK_DOWN,
        blame=Blame.LINK,
        meaning="fabric manager does not see the NVSwitches that this system should have, and gives up",
    ),
    Trouble(
        name="FABRIC_QUERY",
        speaker=Speaker.FABRIC_MANAGER,
        words=("request to query nvswitch device information", "failed"),
        mode=FailureMode.NVLINK_DOWN,
        blame=Blame.LINK,
        meaning="fabric manager could not ask the driver for the NVSwitches",
    ),
    Trouble(
        name="FABRIC_MULTICAST",
        speaker=Speaker.FABRIC_MANAGER,
        words=("failed to find the gpu handle", "multicast team"),
        mode=FailureMode.NVLINK_ERRORS,
        blame=Blame.LINK,
        meaning="a multicast group was asked for with a GPU that fabric manager does not know",
    ),
)
