"""`healer xid` as people and scripts meet it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from healer.cli import main

LOST = "NVRM: Xid (PCI:0000:b3:00): 79, pid=12, name=train, GPU has fallen off the bus."
RESET = "NVRM: Xid (PCI:0000:b3:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"
NOTHING = "nvme nvme0: I/O 258 QID 4 timeout, aborting"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Xid = Callable[..., Ended]


@pytest.fixture
def xid(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> Xid:
    """`healer xid ...` from an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "argv", ["healer", "xid", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            main()
            code: int | str | None = 0
        except SystemExit as ended:
            code = ended.code
        out, err = (stream.decode() for stream in capfdbinary.readouterr())
        return Ended(int(code or 0), out, err)

    return run


def test_lines_as_arguments_are_judged_and_counted(xid: Xid) -> None:
    ended = xid(LOST, NOTHING, RESET)
    assert (ended.code, ended.err) == (0, "3 lines read, 2 events recognised\n")
    lost, why, reset, why_reset, *said = ended.out.splitlines()
    assert lost == (
        "XID 79 ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS  GPU 0000:b3:00, train [12]  RESTART_BM  GpuFellOffBus"
    )
    assert why.startswith("    the GPU no longer answers on PCIe; NVIDIA asks for RESTART_BM, then CONTACT_SUPPORT")
    assert reset == "XID 154 GPU_RECOVERY_ACTION_CHANGED  GPU 0000:b3:00  RESET_GPU  GpuXid"
    assert why_reset.endswith("(GPU Reset Required), after XID 79 of GPU 0000:b3:00 (blame: hardware)")
    assert said == [
        "    the driver's recovery action says RESET_GPU",
        "    NVIDIA's catalogue says RESTART_BM for XID 79",
    ]


def test_standard_input_is_read_where_no_line_is_given(xid: Xid) -> None:
    ended = xid(stdin=f"[1.5] {LOST}\r\n\xff\x00{NOTHING}\n".encode("latin-1"))
    assert (ended.code, ended.err) == (0, "2 lines read, 1 event recognised\n")
    assert ended.out.splitlines()[0].endswith("GpuFellOffBus  +1.5s")


def test_nothing_is_nothing_wrong(xid: Xid) -> None:
    assert xid(NOTHING) == Ended(0, "", "1 line read, 0 events recognised\n")
    assert xid() == Ended(0, "", "0 lines read, 0 events recognised\n")


def test_json_is_one_object_a_line(xid: Xid) -> None:
    lost, reset = (json.loads(line) for line in xid("--json", LOST, RESET).out.splitlines())
    assert (lost["kind"], lost["code"], lost["action"]) == ("xid", 79, "RESTART_BM")
    assert (lost["subject"]["kind"], lost["subject"]["pci"], lost["subject"]["pid"]) == ("gpu", "0000:b3:00", 12)
    assert (lost["follows"], lost["said"]) == (None, [])
    assert reset["follows"] == {"code": 79, "pci": "0000:b3:00"}
    assert reset["said"][1] == {"who": "NVIDIA's catalogue", "says": "RESTART_BM for XID 79"}


@pytest.mark.parametrize("driver", ["R575", "r575", "575", "575.57.08"])
def test_the_driver_is_a_branch_or_a_version(xid: Xid, driver: str) -> None:
    subcode = "NVRM: Xid (PCI:0000:04:00): 144, (0x00000021 0x00000002)"  # SAW_MVB before R575
    assert "  RESET_GPU  " in xid(subcode).out
    assert "  WORKFLOW_NVLINK5_ERR  " in xid("--driver", driver, subcode).out


@pytest.mark.parametrize("driver", ["", "R", "new", "57", "5755", "575.x"])
def test_another_driver_is_a_usage_error(xid: Xid, driver: str) -> None:
    ended = xid("--driver", driver, LOST)
    assert (ended.code, ended.out) == (2, "")
    assert "write its branch, like R575" in ended.err


def test_an_unknown_option_is_a_usage_error(xid: Xid) -> None:
    assert xid("--yaml", LOST).code == 2


def test_a_line_that_begins_with_a_dash_comes_behind_two(xid: Xid) -> None:
    assert xid("--", f"-- {LOST}").out.startswith("XID 79 ")


def test_a_line_longer_than_memory_should_hold_is_read_in_pieces(xid: Xid) -> None:
    ended = xid(stdin=b"x" * (3 << 20) + b"\n" + LOST.encode())
    assert ended.err == "5 lines read, 1 event recognised\n"


def test_events_are_printed_while_the_log_goes_on() -> None:
    command = [sys.executable, "-m", "healer", "xid"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdin.write(f"{LOST}\n".encode())
        running.stdin.flush()
        assert running.stdout.readline().startswith(b"XID 79 ")
        running.stdin.close()
        assert running.wait() == 0
        assert running.stderr.read() == b"1 line read, 1 event recognised\n"
