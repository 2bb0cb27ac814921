"""KernelLine: what a line of a node's kernel log says of a GPU, beside a gauge and counts the third to tell of XIDs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from healer.domain.finding import FailureMode


@dataclass(frozen=True, slots=True)
class KernelLine:
    """Attributes:
    node: as the log names it; None where neither its path nor the line does.
    pci: as "0000:b3:00": domain, bus and device; None where the line names none.
    uuid: of the GPU, if an earlier line told it.
    instance: of a divided GPU, "5" or "5:1".
    code: the XID; of a GPU that is off the bus without one, 79.
    has_code: whether the line itself has it.
    mode, action, why: the verdict on it; the action in NVIDIA's words.
    counts: False where the line itself takes back what its code would mean, such as a recovery action of none.
    said: who says otherwise.
    at: when it was written; when it was read, where the line does not say so in full.
    is_old: it stood there before anybody looked, and is not known to be young.
    where: the path of the log.
    count: how many lines alike came at once, of which this is the newest.
    """

    node: str | None
    pci: str | None
    code: int
    mode: FailureMode
    action: str
    why: str
    at: datetime
    where: str
    uuid: str | None = None
    instance: str | None = None
    has_code: bool = True
    counts: bool = True
    said: tuple[str, ...] = ()
    is_old: bool = False
    count: int = 1
