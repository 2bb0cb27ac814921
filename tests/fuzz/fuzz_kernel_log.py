"""Throws nonsense at the judgement of kernel-log lines, guided by which branches it reaches.

    python tests/fuzz/fuzz_kernel_log.py -max_total_time=60 -rss_limit_mb=1024

Whatever arrives is judged or left out; what is said of it can be shown on a terminal; no line is more than one event;
and what an event is and is about does not depend on the driver's branch, only what it asks for does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from healer.telemetry.xids.catalogue import xid
from healer.telemetry.xids.lines import pieces
from healer.telemetry.xids.stream import classify
from healer.telemetry.xids.verdict import CodeKind, Verdict
from healer.telemetry.xids.words import Action

NEXT_LINE = b"\n"
_XID = b"NVRM: Xid (PCI:0000:b3:00): "
_LOGS: tuple[tuple[bytes, ...], ...] = (
    (b"kernel: [1.5] " + _XID + b"31, pid=12, name=python3, Ch 00000008, intr 00000000.", _XID + b"45, pid=12, Ch 8"),
    (_XID + b"79, GPU has fallen off the bus.", b"NVRM: GPU 0000:b3:00.0: GPU has fallen off the bus."),
    (
        b"NVRM: The NVIDIA GPU 0000:b3:00.0",
        b"NVRM: (PCI ID: 10de:26b5) installed in this system has",
        b"NVRM: fallen off the bus and is not responding to commands.",
    ),
    (_XID + b"149, NETIR_LINK_EVT Fatal XC0 i0 Link 01 (0x021425c6 0x00000000 0x00000000)",),
    (_XID + b"154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",),
    (_XID + b"94, pid=7, Contained: CE User Channel (0x9). RST: Yes, D-RST: No",),
    (_XID + b"13, pid='<unknown>', name=<unknown>, Exception on (GPC 1, TPC 3, SM 0): Out Of Range",),
    (
        b"NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release",
        b"NVRM: GPU at PCI:0000:b3:00: GPU-12345678-1234-1234-1234-123456789012",
        _XID + b"999, something",
    ),
    (
        b"nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 24007, Fatal, Link 28 sourcetrack timeout error (First)",
        b"nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 24007, Severity 5 Engine instance 00 Sub-engine instance 00",
    ),
    (b"[Jul 23 2024 07:53:55] [ERROR] detected NVSwitch fatal error 20034 on pci bus id 00000000:86:00.0 port 3",),
    (b"NVRM: knvlinkDiscoverPostRxDetLinks_GB100: Getting peer17 postRxDetLinkMask failed!",),
    (b"3,12,1600,-;python3[7]: segfault at 7f ip 1 sp 2 error 4 in libnccl.so.2[7f]",),
    (b"[rank1]:[E] [PG 1 Rank 1] Timeout at NCCL work: 8, last enqueued NCCL work: 8, last completed NCCL work: 7.",),
)


def seeds() -> list[bytes]:
    """Inputs that have events in them."""
    return [NEXT_LINE.join(lines) for lines in _LOGS]


def one_input(data: bytes) -> None:
    """Raises AssertionError if a verdict is not what every verdict is, and whatever else goes wrong."""
    lines = data.decode(errors="replace").split("\n")
    verdicts = [*classify(lines)]
    assert len(verdicts) <= sum(len(pieces(line)) for line in lines)
    for verdict in verdicts:
        _check(verdict)
    for driver in (570, 575):
        assert _events(verdicts) == _events([*classify(lines, driver=driver)])


def _check(verdict: Verdict) -> None:
    said = "".join(saying.says for saying in verdict.said)
    assert "".join((verdict.why, verdict.line, verdict.time, verdict.name, str(verdict.subject), said)).isprintable()
    assert (verdict.code is None) == (verdict.kind is CodeKind.NONE)
    assert verdict.run >= 1
    if verdict.kind is CodeKind.XID and verdict.code is not None and not xid(verdict.code).is_known:
        assert verdict.action is Action.UNKNOWN


def _events(verdicts: Sequence[Verdict]) -> list[object]:
    return [(v.kind, v.code, v.subject, v.time, v.follows, v.run, v.line) for v in verdicts]


def main() -> None:
    import atheris  # noqa: PLC0415 - the rest of this file is also for machines without it

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
