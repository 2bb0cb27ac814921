"""Lines of kernel logs as the driver writes them, and what a frame is told of them."""

from __future__ import annotations

from datetime import UTC, datetime

from healer.domain.finding import FailureMode
from healer.domain.kernel_line import KernelLine

AT = datetime(2026, 3, 14, 3, 0, 0, tzinfo=UTC)


def kernel_line(**given: object) -> KernelLine:
    line = {
        "node": "n1",
        "pci": "0000:b3:00",
        "code": 79,
        "mode": FailureMode.GPU_FELL_OFF_BUS,
        "action": "RESTART_BM",
        "why": "the GPU no longer answers on PCIe",
        "at": AT,
        "where": "/var/log/remote/n1/kern.log",
    }
    return KernelLine(**{**line, **given})  # type: ignore[arg-type]


def stamped(message: str, at: datetime = AT, host: str = "n1") -> str:
    """As rsyslog writes it since version 8.2, with a time zone."""
    return f"{at.isoformat()} {host} kernel: [171167.630899] {message}"


def xid(code: int, message: str = "", pci: str = "0000:b3:00") -> str:
    return f"NVRM: Xid (PCI:{pci}): {code}, pid='<unknown>', name=<unknown>{', ' if message else ''}{message}"


def loss(pci: str = "0000:b3:00.0") -> str:
    return f"NVRM: GPU {pci}: GPU has fallen off the bus."


def recovery(before: str, after: str) -> str:
    return xid(154, f"GPU recovery action changed from {before} to {after}")


NONE, RESET, REBOOT = "0x0 (None)", "0x1 (GPU Reset Required)", "0x2 (Node Reboot Required)"
