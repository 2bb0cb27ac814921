"""Lines in the wild: what is recognised in them, what they name, and that nothing in them can do harm."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.telemetry.xids.heading import Clock, Heading, Stamp, split_heading
from healer.telemetry.xids.jobs import Collective, Crash
from healer.telemetry.xids.lines import (
    DriverLoaded,
    GpuName,
    Loss,
    LossBegins,
    Noted,
    Process,
    SxidLine,
    XidLine,
    link_in,
    pieces,
    said_in,
    unit_in,
)
from healer.telemetry.xids.places import pci_address, pci_address_within
from healer.telemetry.xids.stream import classify
from healer.telemetry.xids.words import Severity
from tests.fuzz.fuzz_kernel_log import NEXT_LINE, one_input, seeds

NOBODY = Process()
LOST = "GPU has fallen off the bus."
MEGABYTE = 1_000_000
BAITS = (
    "Xid (",
    "NVRM: Xid (PCI:0000:b3:00",
    "segfault at ",
    "segfault at x in libnccl",
    "[ ",
    "\\n",
    "#012     ",
    "a b:",
    "fallen off the bus GPU ",
    "0000:b3:00.0",
    "knvlink:",
    "watchdog Rank 1",
    "loading NVIDIA UNIX ",
    "Link 1",
    " (0x1 0x2 ",
    "\x1b[31m",
    "0",
    "\x00",
)
WATCHDOG = (
    "[rank1]:[E ProcessGroupNCCL.cpp:563] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL("
    "SeqNum=158046, OpType=GATHER, NumelIn=2867200, NumelOut=0, Timeout(ms)=600000) ran for 600027 milliseconds before "
    "timing out."
)
WATCHDOG_SINCE_2_6 = (
    "[rank3]:[E710 18:00:32 ProcessGroupNCCL.cpp:2395] [PG ID 0 PG GUID 0(default_pg) Rank 3]  failure detected by "
    "watchdog at work sequence id: 59958 PG status: last enqueued work: 59998, last completed work: 59957"
)
SEGFAULT = (
    "[Thu Oct 10 03:06:53 2024] pt_main_thread[2536443]: segfault at 7f797fe00000 ip 00007f7c7ac69996 sp "
    "00007f7c12fd7c30 error 4 in libnccl.so.2[7f7c7ac00000+d3d3000]"
)
FABRIC_SXID = (
    "[ERROR] detected NVSwitch fatal error 20034 on fid 0 on NVSwitch pci bus id 00000000:86:00.0 physical id 3 port 33"
)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("PCI:0000:b3:00", "0000:b3:00"),
        ("PCI:0000:B3:00.0", "0000:b3:00"),
        ("00000000:B3:00.0", "0000:b3:00"),
        ("0000:b3:00", "0000:b3:00"),
        ("b3:00.0", "0000:b3:00"),
        ("000d:00:00", "000d:00:00"),
        ("00010000:01:00.0", "10000:01:00"),
        ("invalid", None),
        ("", None),
        ("0001:b3", "0000:01:b3"),  # bus and device, as drivers wrote before they knew of domains
        ("0000:b3:00:00", None),
        ("0000:b3:00.", None),
        ("x0000:b3:00", None),
    ],
)
def test_an_address_has_one_form(written: str, address: str | None) -> None:
    assert pci_address(written) == address


def test_a_time_of_day_is_no_address() -> None:
    assert pci_address_within("at 14:56:49 GPU 00000000:b3:00.0 was lost") == "0000:b3:00"
    assert pci_address_within("2025-02-10T16:28:06,502716+00:00 14:56:49") is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"NVRM: Xid (PCI:0000:01:00): 79, {LOST}", XidLine(79, "0000:01:00", None, NOBODY, LOST)),
        ("NVRM: Xid (0000:03:00): 14, Channel 00000001", XidLine(14, "0000:03:00", None, NOBODY, "Channel 00000001")),
        ("NVRM: Xid (PCI:0000:b3:00.0): 79", XidLine(79, "0000:b3:00", None, NOBODY, "")),
        (
            f"NVRM: Xid (PCI:0000:05:00): 79, pid='<unknown>', name=<unknown>, {LOST}",
            XidLine(79, "0000:05:00", None, NOBODY, LOST),
        ),
        (
            "NVRM: Xid (PCI:0000:66:00): 32, pid=2280636, name=train.3, Channel ID 0000000d intr0 00040000",
            XidLine(32, "0000:66:00", None, Process(2280636, "train.3"), "Channel ID 0000000d intr0 00040000"),
        ),
        (
            "NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9). RST: No, D-RST: No",
            XidLine(
                94,
                "0000:01:00",
                "5",
                Process(7194),
                "Contained: CE User Channel (0x9). RST: No, D-RST: No",
            ),
        ),
        (
            "NVRM: Xid (PCI:0000:01:00 GPU-I:05 GPU-CI:01): 31, x",
            XidLine(31, "0000:01:00", "5:1", NOBODY, "x"),
        ),
        (
            "NVRM: Xid (PCI:0000:01:00): 43, pid=9, name=VLLM::Worker TP, Ch 00000008",
            XidLine(43, "0000:01:00", None, Process(9, "VLLM::Worker TP"), "Ch 00000008"),
        ),
        ("nvrm: XID (pci:0000:01:00): 4294967295, x", XidLine(4294967295, "0000:01:00", None, NOBODY, "x")),
        ("NVRM: Xid (invalid): some error", None),
        ("NVRM: Xid : 32, pid=2280636", None),
        ("NVRM: Xid (PCI:0000:66:00): abc, pid=2280636", None),
        ("NVRM: Xid (PCI:0000:66:00): 79x", None),
        ("NVRM: Xid (PCI:0000:66:00): 79.5", None),
        ("NVRM: Xid (PCI:0000:66:00): \u0667\u0669, x", None),
        ("NVRM: Xid (PCI:0000:66:00", None),
        ("aXid (PCI:0000:66:00): 79, x", None),
        (
            "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)",
            SxidLine(12028, "0000:05:00", "nvidia-nvswitch3", Severity.NON_FATAL, 32),
        ),
        (
            "nvidia-nvswitch2: SXid (PCI:0000:c4:00.0): 10002, Severity 5 Engine instance 00 Sub-engine instance 00",
            SxidLine(10002, "0000:c4:00", "nvidia-nvswitch2", None, None, is_dump=True),
        ),
        (
            "nvidia-nvswitch2: SXid (PCI:0000:c4:00.0): 10004, NVSWITCH Temperature 95C | TSENSE WARN Threshold 90C",
            SxidLine(10004, "0000:c4:00", "nvidia-nvswitch2", None, None),
        ),
        ("nvidia-nvswitch0: SXid (PCI:0000:00:00.0): xyz, Fatal error", None),
        ("nvidia-nvswitch0: SXid (invalid): 20034, Fatal error", None),
        (FABRIC_SXID, SxidLine(20034, "0000:86:00", None, Severity.FATAL, 33)),
        ("detected NVSwitch non-fatal error 54321", SxidLine(54321, None, None, Severity.NON_FATAL, None)),
        (f"NVRM: GPU 0000:19:00.0: {LOST}", Loss("0000:19:00")),
        ("NVRM: GPU at 0000:03:00.0 has fallen off the bus.", Loss("0000:03:00")),
        ("NVRM: fallen off the bus and is not responding to commands.", Loss(None)),
        (
            "NVRM: The NVIDIA GPU 0000:05:00.0 installed in this system has fallen off the bus and is not responding",
            Loss("0000:05:00"),
        ),
        ("NVRM: The NVIDIA GPU 0000:b3:00.0", LossBegins("0000:b3:00")),
        ("NVRM: The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:26b5)", LossBegins("0000:b3:00")),
        ("NVRM: The NVIDIA GPU invalid-bdf.0", LossBegins(None)),
        ("the tram has fallen off the bus", None),
        (
            "NVRM: GPU at PCI:0000:00:08.0: GPU-12345678-1234-1234-1234-123456789012",
            GpuName("0000:00:08", "GPU-12345678-1234-1234-1234-123456789012"),
        ),
        ("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12", DriverLoaded(535)),
        ("NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.172.08  Release Build", DriverLoaded(570)),
        ("NVRM: loading NVIDIA UNIX Open Kernel Module for aarch64  610.43.02  Release", DriverLoaded(610)),
        (SEGFAULT, Crash("pt_main_thread", 2536443)),
        ("segfault at 7f ip 1 sp 2 error 4 in libnccl.so", Crash(None, None)),
        ("python3[1]: segfault at 7f ip 1 sp 2 error 4 in libtorch.so", None),
        ("error in libnccl.so", None),
        (WATCHDOG, Collective(1, 158046, "GATHER", 600.027, None, None)),
        (WATCHDOG_SINCE_2_6, Collective(3, 59958, None, None, 59998, 59957)),
        ("Heartbeat monitor timed out, switching state to candidate", None),
        ("Some other NVRM message", None),
        ("", None),
    ],
)
def test_a_line_says_what_it_says(line: str, said: object) -> None:
    assert said_in(line) == said
    if line != SEGFAULT:
        assert said_in(f"Feb 10 16:28:06 gpu-17 kernel: [171167.630899] {line}") == said


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("NVRM: knvlinkUpdatePostRxDetectLinkMask_IMPL: Failed to update Rx Detect Link mask!", "NVLINK_DISCOVERY"),
        ("NVRM: GPU 0000:4f:00.0: RmInitAdapter failed! (0x62:0x40:1941)", "INIT_ADAPTER"),
        (
            "NVRM: nvGpuOpsReportFatalError: uvm encountered global fatal error 0x60, requiring os reboot to recover.",
            "UVM_FATAL",
        ),
        (
            "nv-fabricmanager[1]: detected number of NVSwitches don't match with any supported system topology",
            "FABRIC_TOPOLOGY",
        ),
    ],
)
def test_a_message_without_a_code_has_a_name_of_ours(line: str, name: str) -> None:
    said = said_in(line)
    assert isinstance(said, Noted)
    assert said.trouble.name == name


def test_words_in_another_order_are_another_message() -> None:
    assert said_in("NVRM: failed: knvlink") is None
    assert said_in("NVRM: NVLink link training completed") is None


def test_links_and_processors_are_named() -> None:
    assert link_in("NVLink: fatal error detected on link 14(0x0, 0x0, 0x10000)") == 14
    assert link_in("NETIR Fatal XC0 i0 Link -1 (0x000fe406)") is None
    assert link_in("linked 14 times") is None
    assert unit_in("Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0): Out Of Range") == "GPC 1, TPC 3, SM 0"
    assert unit_in("Exception on (GPC 1, TPC 3)") == "GPC 1, TPC 3"
    assert unit_in("Exception") is None


@pytest.mark.parametrize(
    ("heading", "host", "stamp"),
    [
        ("", None, None),
        ("[171167.630899] ", None, Stamp("+171167.630899s", Clock.UPTIME, 171167.630899)),
        ("[    1.500000][  T1234] ", None, Stamp("+1.500000s", Clock.UPTIME, 1.5)),
        ("<3>[  123.456789] ", None, Stamp("+123.456789s", Clock.UPTIME, 123.456789)),
        ("3,1234,171167630899,-;", None, Stamp("+171167.630899s", Clock.UPTIME, 171167.630899)),
        ("[Fri Oct 14 14:56:49 2022] ", None, Stamp("2022-10-14T14:56:49", Clock.LOCAL, 1665759409.0)),
        ("[Jul 23 2024 07:53:55] [ERROR] [tid 841] ", None, Stamp("2024-07-23T07:53:55", Clock.LOCAL, 1721721235.0)),
        (
            "kern  :err   : 2025-02-10T16:28:06,502716+00:00 ",
            None,
            Stamp("2025-02-10T16:28:06.502716+00:00", Clock.UTC, 1739204886.502716),
        ),
        ("kern  :err   : [Fri Oct 14 14:56:49 2022] ", None, Stamp("2022-10-14T14:56:49", Clock.LOCAL, 1665759409.0)),
        ("kernel: ", None, None),
        ("kernel: [16450076.435595] ", None, Stamp("+16450076.435595s", Clock.UPTIME, 16450076.435595)),
        ("gpu-17 kernel: ", "gpu-17", None),
        (
            "Feb 10 16:28:06 gpu-17.rack kernel: [123.4] ",
            "gpu-17.rack",
            Stamp("Feb 10 16:28:06", Clock.YEARLESS, 950200086.0),
        ),
        (
            "Feb  1 16:28:06.123456 gpu-17 kernel: ",
            "gpu-17",
            Stamp("Feb  1 16:28:06.123456", Clock.YEARLESS, 949422486.0),
        ),
        (
            "2025-02-10T16:28:06+0100 gpu-17 kernel: ",
            "gpu-17",
            Stamp("2025-02-10T16:28:06+01:00", Clock.UTC, 1739201286.0),
        ),
        (
            "2025-02-10 16:28:06Z gpu-17 nv-fabricmanager[1929729]: ",
            "gpu-17",
            Stamp("2025-02-10T16:28:06+00:00", Clock.UTC, 1739204886.0),
        ),
        ("2025-13-45T16:28:06 gpu-17 kernel: ", "gpu-17", Stamp("2025-13-45T16:28:06", Clock.LOCAL, None)),
        ("[...] ", None, None),
    ],
)
def test_a_heading_says_when_and_where(heading: str, host: str | None, stamp: Stamp | None) -> None:
    assert split_heading(f"{heading}NVRM: Xid (PCI:0000:66:00): 32") == (
        Heading(host, stamp),
        "NVRM: Xid (PCI:0000:66:00): 32",
    )


def test_stamps_of_two_clocks_are_not_compared() -> None:
    boot, later = Stamp("+1.0s", Clock.UPTIME, 1.0), Stamp("+3.5s", Clock.UPTIME, 3.5)
    assert later.seconds_since(boot) == 2.5
    assert later.seconds_since(Stamp("Feb 10 16:28:06", Clock.YEARLESS, 1.0)) is None
    assert later.seconds_since(Stamp("2025-13-45T16:28:06", Clock.UPTIME, None)) is None


def test_a_line_may_hold_several_and_nothing_that_a_terminal_obeys() -> None:
    assert pieces("a\nb\\nc\r\nd\\x0ae#012   NVRM: f#012g") == ["a", "b", "c", "d", "e", "   NVRM: f#012g"]
    assert pieces("\x1b[31mred\x1b[0m \x07bell\x9b") == ["red  bell "]


@given(st.text())
def test_any_text_is_read_and_what_is_shown_of_it_is_printable(text: str) -> None:
    for verdict in classify([text]):
        assert (verdict.why + verdict.line + verdict.time + str(verdict.subject)).isprintable()


@given(st.lists(st.binary(max_size=200)))
def test_any_bytes_are_read(lines: list[bytes]) -> None:
    one_input(NEXT_LINE.join(lines))


@given(seed=st.sampled_from(seeds()), at=st.floats(0, 1), gone=st.integers(0, 20), junk=st.binary(max_size=20))
def test_damaged_lines_are_read(seed: bytes, at: float, gone: int, junk: bytes) -> None:
    place = int(at * len(seed))
    one_input(seed[:place] + junk + seed[place + gone :])


@pytest.mark.parametrize("seed", seeds(), ids=lambda seed: seed[:40].decode(errors="replace"))
def test_the_seeds_of_the_fuzzer_are_events(seed: bytes) -> None:
    one_input(seed)
    assert [*classify(seed.decode(errors="replace").split("\n"))]


@pytest.mark.parametrize(
    "before", ["", "NVRM: Xid (PCI:0000:b3:00): 149, ", "NVRM: Xid (PCI:0000:b3:00): 31, pid=1, name="]
)
@pytest.mark.parametrize("bait", BAITS)
def test_a_megabyte_is_read_in_time_that_grows_with_its_length_only(before: str, bait: str) -> None:
    line = before + bait * (MEGABYTE // len(bait))
    started = time.process_time()
    events = [*classify([line])]
    assert time.process_time() - started < 20
    assert len(events) <= 1
