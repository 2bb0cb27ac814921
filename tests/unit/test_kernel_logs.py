"""Kernel logs as files: whose line it is, when it was written, and what of it a frame is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from healer.adapters.kernel_logs import KernelLogFiles
from healer.config import Config, load_config
from healer.domain.finding import FailureMode
from healer.domain.kernel_line import KernelLine
from healer.errors import InvalidDocument
from healer.ports import KernelLog
from healer.runtime.outside import build_kernel_log, build_source
from healer.telemetry.identity import PCI_LABEL
from healer.telemetry.xids.of_gpus import LogNames, LogOfNodes
from tests.kernel_lines import AT, NONE, REBOOT, RESET, loss, recovery, stamped, xid

HOUR = timedelta(hours=1)


def told(*lines: str, node: str | None = "n1", was_there: bool = False) -> tuple[KernelLine, ...]:
    return LogOfNodes("/logs/kern.log", node).take(lines, AT, was_there=was_there)


def only(*lines: str, node: str | None = "n1", was_there: bool = False) -> KernelLine:
    (line,) = told(*lines, node=node, was_there=was_there)
    return line


# What a line says


def test_an_xid_is_told_with_its_verdict() -> None:
    line = only(stamped(xid(119, "Timeout after 6s of waiting for RPC response from GPU0 GSP!")))
    assert (line.node, line.pci, line.code, line.has_code) == ("n1", "0000:b3:00", 119, True)
    assert (line.mode, line.action, line.at, line.count) == (FailureMode.GPU_XID, "RESET_GPU", AT, 1)
    assert line.where == "/logs/kern.log"


def test_a_gpu_that_fell_off_the_bus_without_an_xid_has_that_of_it() -> None:
    line = only(stamped(loss()))
    assert (line.code, line.has_code, line.mode) == (79, False, FailureMode.GPU_FELL_OFF_BUS)
    assert line.pci == "0000:b3:00"


def test_with_an_xid_it_is_the_same_loss() -> None:
    assert [line.has_code for line in told(stamped(xid(79, "GPU has fallen off the bus.")), stamped(loss()))] == [True]


def test_a_message_of_three_lines_is_one_loss() -> None:
    text = (
        "NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: (PCI ID: 10de:2330) installed in this system has",
        "NVRM: fallen off the bus and is not responding to commands.",
    )
    assert only(*(stamped(part) for lines in text for part in lines.split("\n"))).pci == "0000:b3:00"


@pytest.mark.parametrize(("after", "action"), [(RESET, "RESET_GPU"), (REBOOT, "RESTART_BM"), (NONE, "IGNORE")])
def test_an_xid_154_asks_for_what_its_own_text_says(after: str, action: str) -> None:
    line = only(stamped(recovery(NONE if after != NONE else RESET, after)))
    assert (line.code, line.action) == (154, action)


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        ((recovery(RESET, NONE),), False),
        ((recovery(NONE, RESET),), True),
        ((xid(149, "NETIR_BER_EVENT Nonfatal XC0 i0 Link 03 (0x00086226 0x1)"),), False),
        ((xid(149, "NETIR_LINK_EVT Fatal XC0 i0 Link 09 (0x004525c6 0x0 0x0)"),), True),
        ((xid(31), xid(45)), False),
        ((xid(45),), True),
        ((xid(63),), True),
    ],
    ids=["none", "a reset", "harmless", "fatal", "a consequence", "alone", "for which the catalogue asks for nothing"],
)
def test_a_line_may_take_back_what_its_code_means(lines: tuple[str, ...], *, counts: bool) -> None:
    assert told(*map(stamped, lines))[-1].counts is counts


def test_who_says_otherwise_is_told_too() -> None:
    line = told(stamped(xid(79)), stamped(recovery(NONE, RESET)))[-1]
    assert "NVIDIA's catalogue says RESTART_BM for XID 79" in line.said


def test_a_sub_code_decides_what_an_nvlink_5_error_is() -> None:
    line = only(stamped(xid(149, "NETIR_LINK_EVT Fatal XC0 i0 Link 09 (0x004525c6 0x0 0x0 0x0 0x0 0x0)")))
    assert (line.code, line.mode, line.action) == (149, FailureMode.NVLINK_DOWN, "RESET_GPU")


@pytest.mark.parametrize(
    "line",
    [
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
        "nv-fabricmanager: detected NVSwitch fatal error 20034 on NVSwitch pci bus id 00000000:c1:00.0 port 30",
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.86.15",
        "NVRM: GPU 0000:b3:00.0: RmInitAdapter failed! (0x25:0x65:1457)",
        "python[4711]: segfault at 7f12 ip 00007f error 4 in libnccl.so.2.21.5[7f1200000000+1000]",
        "usb 1-1: new high-speed USB device",
        "",
    ],
    ids=["SXID", "fabric manager", "driver", "no code", "crash", "of something else", "nothing"],
)
def test_what_is_no_error_of_a_gpu_is_passed_over(line: str) -> None:
    assert told(stamped(line)) == ()


def test_lines_alike_are_one_with_their_count() -> None:
    line = only(*(stamped(xid(31, "MMU Fault"), AT - timedelta(seconds=s)) for s in (30, 20, 10)))
    assert (line.count, line.at) == (3, AT - timedelta(seconds=10))


# Whose it is


@pytest.mark.parametrize(
    ("path", "node"),
    [("/var/log/remote/n7/kern.log", "n7"), ("/var/log/remote/kern.log", None), ("/srv/logs/n7.log", None)],
)
def test_the_node_is_in_the_path(path: str, node: str | None) -> None:
    assert LogNames().node_of(path) == node


def test_a_pattern_of_ones_own_names_it() -> None:
    assert LogNames(r"(?P<node>[^/]+)\.log$").node_of("/srv/logs/n7.log") == "n7"


def test_without_it_the_host_in_the_line_counts() -> None:
    assert only(stamped(xid(79), host="n7.example.com"), node=None).node == "n7.example.com"
    assert only("Mar 14 03:00:00 n8 kernel: " + xid(79), node=None).node == "n8"
    assert only(xid(79), node=None).node is None


def test_before_it_the_path_counts() -> None:
    assert only(stamped(xid(79), host="localhost"), node="n7").node == "n7"


# When it was


@pytest.mark.parametrize(
    ("line", "at"),
    [
        (stamped(xid(79), AT - HOUR), AT - HOUR),
        (f"2026-03-14T04:59:00+02:00 n1 kernel: {xid(79)}", AT - timedelta(minutes=1)),
        (f"2026-03-14T02:59:00 n1 kernel: {xid(79)}", AT),
        (f"Mar 14 02:59:00 n1 kernel: {xid(79)}", AT),
        (f"[171167.630899] {xid(79)}", AT),
        (stamped(xid(79), AT + HOUR), AT),
    ],
    ids=["with a zone", "another zone", "without a zone", "without a year", "since boot", "a clock ahead"],
)
def test_the_time_is_the_lines_own_if_it_is_told_in_full_else_when_it_was_read(line: str, at: object) -> None:
    assert only(line).at == at


def test_what_is_older_than_a_day_is_nothing() -> None:
    assert told(stamped(xid(79), AT - timedelta(days=1, seconds=1))) == ()


@pytest.mark.parametrize(
    ("line", "is_old"),
    [(stamped(xid(79), AT - timedelta(minutes=9)), False), (stamped(xid(79), AT - HOUR), True), (xid(79), True)],
    ids=["young", "old", "nobody knows"],
)
def test_what_stood_there_before_anybody_looked_is_old_unless_it_says_that_it_is_young(
    line: str, *, is_old: bool
) -> None:
    assert only(line, was_there=True).is_old is is_old
    assert not only(line).is_old


def test_a_driver_that_was_loaded_anew_ends_what_its_node_had_before() -> None:
    start = "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.86.15"
    lines = told(*(stamped(xid(79), host=host) for host in ("n1", "n2")), stamped(start, host="n1"), node=None)
    assert [line.node for line in lines] == ["n2"]


# As files


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[KernelLogFiles]:
    with closing(KernelLogFiles([f"{tmp_path}/remote/*/kern.log"], LogNames(), at_most=timedelta(seconds=60))) as made:
        yield made


def write(folder: Path, node: str, *lines: str) -> Path:
    path = folder / "remote" / node / "kern.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


def test_each_line_is_told_once_by_the_node_of_its_path(tmp_path: Path, logs: KernelLog) -> None:
    write(tmp_path, "n1", stamped(xid(79)))
    write(tmp_path, "n2", stamped(xid(48)))
    assert sorted((line.node, line.code) for line in logs.lines(AT)) == [("n1", 79), ("n2", 48)]
    assert logs.lines(AT) == ()
    write(tmp_path, "n1", stamped(loss("0000:17:00.0")))
    assert [(line.node, line.pci) for line in logs.lines(AT)] == [("n1", "0000:17:00")]
    assert logs.warnings(AT) == ()


def test_what_cannot_be_read_is_said(tmp_path: Path, logs: KernelLog, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "n1", stamped(xid(79)))

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    assert logs.lines(AT) == ()
    assert logs.warnings(AT) == (f"{path}: cannot be read: Permission denied",)


def test_what_grows_too_fast_is_said(tmp_path: Path, logs: KernelLog) -> None:
    path = write(tmp_path, "n1", "begins")
    logs.lines(AT)
    write(tmp_path, "n1", "x" * (5 << 20), stamped(xid(79)))
    assert [line.code for line in logs.lines(AT)] == [79]
    assert logs.warnings(AT)[0].startswith(f"{path}: grows too fast; ")


def test_of_more_lines_than_count_the_newest_do_and_it_is_said(
    tmp_path: Path, logs: KernelLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("healer.adapters.kernel_logs._MOST_LINES", 2)
    write(tmp_path, "n1", *(stamped(xid(code)) for code in (61, 62, 119)))
    assert [line.code for line in logs.lines(AT)] == [62, 119]
    assert "have 3 lines about GPUs at once; 2 count" in logs.warnings(AT)[0]


def test_files_that_hang_do_not_hold_up_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = KernelLogFiles([f"{tmp_path}/remote/*/kern.log"], LogNames(), at_most=timedelta(milliseconds=1))
    write(tmp_path, "n1", stamped(xid(79)))
    hangs = threading.Event()
    take = LogOfNodes.take

    def taken(*args: object, **more: object) -> object:
        hangs.wait(60)
        return take(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(LogOfNodes, "take", taken)
    with closing(slow):
        assert slow.lines(AT) == ()
        hangs.set()
        assert any(slow.lines(AT) for _ in range(60_000)), "it is told as soon as it is there"


# From the configuration


def _config(folder: Path, text: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def kept(config: Config) -> frozenset[str]:
    return build_source(config)._head.label_sets.kept  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001


def test_nothing_is_read_and_no_address_kept_until_it_is_configured(tmp_path: Path) -> None:
    config = _config(tmp_path, "telemetry: {source: remote_write}")
    assert build_kernel_log(config) is None
    assert PCI_LABEL not in kept(config)


def test_where_files_are_named_they_are_read(tmp_path: Path) -> None:
    write(tmp_path, "n1", stamped(xid(79)))
    logs = f"{{files: ['{tmp_path}/remote/*/kern.log'], pattern: 'mote/(?P<node>n.)'}}"
    config = _config(tmp_path, f"telemetry: {{source: remote_write, kernel_log: {logs}}}")
    made = build_kernel_log(config)
    assert made is not None
    with closing(made):
        assert [line.node for line in made.lines(AT)] == ["n1"]
    assert PCI_LABEL in kept(config)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pattern: '('", "telemetry.kernel_log: '(' is not a regular expression"),
        ("pattern: '(?P<host>.)'", "telemetry.kernel_log: '(?P<host>.)' has a group 'host'; known is node"),
        ("file: x", "telemetry.kernel_log.file: unknown key (did you mean 'files'?)"),
    ],
)
def test_a_setting_that_cannot_hold_is_refused_by_its_key(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        _config(tmp_path, f"telemetry: {{kernel_log: {{{text}}}}}")
    assert problem in str(caught.value)
