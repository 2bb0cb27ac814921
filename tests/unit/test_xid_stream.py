"""From lines to verdicts: what one line says is judged in the light of those before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from healer.domain.finding import FailureMode
from healer.telemetry.xids.stream import classify
from healer.telemetry.xids.verdict import CodeKind, Earlier, SubjectKind, Verdict
from healer.telemetry.xids.words import Action, Blame, Saying, Teller

LOST_LINES = (
    "NVRM: The NVIDIA GPU 0000:b3:00.0",
    "NVRM: (PCI ID: 10de:26b5) installed in this system has",
    "NVRM: fallen off the bus and is not responding to commands.",
)
LOADED = "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  {}.57.08  Release Build"
TO_RESET = "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"
SOURCE_TRACK = "RLW_SRC_TRACK Nonfatal XC1 i0 Link 03 (0x040868e2 0x00000008 0x00000000)"


def _xid(code: int, text: str = "x", *, gpu: str = "17", at: float | None = None, host: str = "") -> str:
    heading = (f"{host} kernel: " if host else "") + ("" if at is None else f"[{at:.6f}] ")
    return f"{heading}NVRM: Xid (PCI:0000:{gpu}:00): {code}, {text}"


def _judged(*lines: str, driver: int | None = None) -> list[Verdict]:
    return [*classify(lines, driver=driver)]


# What an XID asks for


def test_an_xid_is_judged_by_the_catalogue() -> None:
    (verdict,) = _judged(
        "Feb 10 16:28:06 n1 kernel: [1.0] NVRM: Xid (PCI:0000:b5:00 GPU-I:05): 13, pid=12, name=train, Graphics SM "
        "Warp Exception on (GPC 1, TPC 3, SM 0): Out Of Range Address"
    )
    assert (verdict.kind, verdict.code, verdict.failure_mode) == (CodeKind.XID, 13, FailureMode.GPU_XID)
    assert (verdict.action, verdict.blame) == (Action.RESTART_APP, Blame.APPLICATION)
    assert str(verdict.subject) == "GPU 0000:b5:00, instance 5, GPC 1, TPC 3, SM 0, train [12], host n1"
    assert verdict.why.endswith("(GPC 1, TPC 3, SM 0); NVIDIA asks for RESTART_APP, then WORKFLOW_XID_13")
    assert (verdict.time, verdict.said, verdict.follows) == ("Feb 10 16:28:06", (), None)
    assert verdict.line.startswith("NVRM: Xid (PCI:0000:b5:00 GPU-I:05): 13, pid=12")


@pytest.mark.parametrize("code", [173, 999, 0, 4294967295])
def test_a_code_that_nobody_knows_surfaces(code: int) -> None:
    (verdict,) = _judged(_xid(code))
    assert (verdict.code, verdict.action, verdict.blame) == (code, Action.UNKNOWN, Blame.UNKNOWN)
    assert "in no catalogue" in verdict.why


def test_where_nvidia_names_no_action_the_reason_of_ours_is_told() -> None:
    (verdict,) = _judged(_xid(171))
    assert verdict.action is Action.RESET_GPU
    assert "NVIDIA names no action, we say RESET_GPU: an uncorrectable memory error" in verdict.why


@pytest.mark.parametrize(
    ("code", "flags", "action", "overruled"),
    [
        (94, "RST: No, D-RST: No", Action.RESTART_APP, ""),
        (94, "RST: Yes, D-RST: No", Action.RESET_GPU, "RESTART_APP"),
        (94, "RST: No, D-RST: Yes", Action.DRAIN_AND_RESET, "RESTART_APP"),
        (95, "RST: Yes, D-RST: No", Action.RESET_GPU, ""),
        (95, "RST: No, D-RST: No", Action.RESET_GPU, ""),
        (31, "RST: Yes, D-RST: No", Action.RESTART_APP, ""),
    ],
)
def test_a_memory_error_may_say_itself_that_a_reset_is_needed(
    code: int, flags: str, action: Action, overruled: str
) -> None:
    (verdict,) = _judged(_xid(code, f"Contained: SM (0x1). {flags}"))
    assert verdict.action is action
    assert [saying.says for saying in verdict.said if saying.who is Teller.CATALOGUE] == [overruled] * bool(overruled)


# XID 154


def test_the_drivers_own_verdict_wins_over_the_catalogue_and_both_are_told() -> None:
    lost, recovery = _judged(_xid(79, at=1), _xid(154, TO_RESET, at=2))
    assert lost.action is Action.RESTART_BM
    assert (recovery.action, recovery.blame, recovery.follows) == (
        Action.RESET_GPU,
        Blame.HARDWARE,
        Earlier(79, "0000:17:00"),
    )
    assert recovery.said == (
        Saying(Teller.RECOVERY, "RESET_GPU"),
        Saying(Teller.CATALOGUE, "RESTART_BM for XID 79"),
    )
    assert "from none to reset (GPU Reset Required), after XID 79 of GPU 0000:17:00" in recovery.why


@pytest.mark.parametrize("before", [_xid(140, at=99), _xid(149, at=99), _xid(79, gpu="18", at=99), _xid(79, at=1)])
def test_there_is_no_disagreement_with_the_same_an_open_action_another_gpu_or_long_ago(before: str) -> None:
    assert _judged(before, _xid(154, TO_RESET, at=100))[-1].said == ()


def test_a_recovery_action_that_ends_is_nothing_to_do() -> None:
    text = "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    verdict = _judged(_xid(79), _xid(154, text))[-1]
    assert (verdict.action, verdict.said) == (Action.IGNORE, ())


def test_known_words_against_their_number_are_told_and_the_worse_counts() -> None:
    (verdict,) = _judged(_xid(154, TO_RESET.replace("GPU Reset Required", "Node Reboot Required")))
    assert verdict.action is Action.RESTART_BM
    assert verdict.said == (Saying(Teller.RECOVERY, "RESET_GPU"), Saying(Teller.RECOVERY_WORDS, "RESTART_BM"))


def test_a_recovery_action_of_tomorrow_is_unknown() -> None:
    (verdict,) = _judged(_xid(154, "GPU recovery action changed from 0x0 (None) to 0x14 (Cold Reboot)"))
    assert verdict.action is Action.UNKNOWN
    assert "to unknown (Cold Reboot)" in verdict.why


def test_an_xid_154_without_its_text_refers_to_the_recovery_action() -> None:
    assert _judged(_xid(154, "?"))[0].action is Action.XID_154


# NVLink 5


def test_a_sub_code_that_leaves_it_to_the_driver_takes_what_the_driver_said_last() -> None:
    assert _judged(_xid(145, SOURCE_TRACK))[0].action is Action.XID_154
    verdict = _judged(_xid(154, TO_RESET), _xid(145, SOURCE_TRACK))[-1]
    assert verdict.action is Action.RESET_GPU
    assert verdict.why.endswith("(the driver's recovery action decides), then IGNORE; the last one says RESET_GPU")
    assert _judged(_xid(154, TO_RESET, gpu="18"), _xid(145, SOURCE_TRACK))[-1].action is Action.XID_154


@pytest.mark.parametrize(
    ("text", "mode", "action"),
    [
        ("NETIR_LINK_EVT Fatal XC0 i0 Link 09 (0x004525c6 0x0 0x0)", FailureMode.NVLINK_DOWN, Action.RESET_GPU),
        ("NETIR_BER_EVENT Nonfatal XC0 i0 Link 03 (0x00086226 0x1)", FailureMode.NVLINK_ERRORS, Action.IGNORE),
        ("NETIR_NEW Fatal XC0 i0 Link 03 (0xffffffff 0x1)", FailureMode.NVLINK_ERRORS, Action.WORKFLOW_NVLINK5_ERR),
        (
            "NETIR_BER_EVENT Fatal XC0 i0 Link 03 (0x00086226 0x1)",
            FailureMode.NVLINK_ERRORS,
            Action.WORKFLOW_NVLINK5_ERR,
        ),
    ],
)
def test_a_link_error_is_judged_by_its_sub_code(text: str, mode: FailureMode, action: Action) -> None:
    (verdict,) = _judged(_xid(149, text))
    assert (verdict.failure_mode, verdict.action, verdict.blame) == (mode, action, Blame.LINK)


@pytest.mark.parametrize(("driver", "action"), [(570, Action.WORKFLOW_NVLINK5_ERR), (575, Action.RESET_GPU)])
def test_the_log_itself_tells_the_driver_of_its_host(driver: int, action: Action) -> None:
    error = _xid(144, "(0x00000001 0x00000002)", host="n1")
    assert _judged(f"n1 kernel: {LOADED.format(driver)}", error)[0].action is action
    assert _judged(f"n2 kernel: {LOADED.format(driver)}", error)[0].action is Action.RESET_GPU
    assert _judged(f"n1 kernel: {LOADED.format(570)}", error, driver=575)[0].action is Action.RESET_GPU


# XID 45


def _removals(*lines: str) -> Iterator[tuple[Action, int | None, str | None, int]]:
    for verdict in _judged(*lines):
        if verdict.code == 45:
            cause = verdict.follows
            yield verdict.action, cause.code if cause else None, cause.pci if cause else None, verdict.run


ALONE = Action.WORKFLOW_XID_45


def test_a_removal_follows_the_xid_of_its_gpu() -> None:
    log = (_xid(31, at=1), _xid(45, at=1.5))
    assert [*_removals(*log)] == [(Action.IGNORE, 31, "0000:17:00", 1)]
    assert _judged(*log)[-1].blame is Blame.APPLICATION
    assert _judged(_xid(79), _xid(45))[-1].blame is Blame.HARDWARE


def test_one_kill_takes_a_job_from_all_its_gpus() -> None:
    log = [_xid(13, at=1, host="n1")] + [_xid(45, gpu=f"{n:02}", at=1.1, host="n1") for n in (17, 18, 19)]
    assert [*_removals(*log)] == [(Action.IGNORE, 13, "0000:17:00", run) for run in (1, 2, 3)]


def test_removals_without_another_xid_stand_alone_and_are_counted() -> None:
    log = [_xid(45, gpu=f"{n:02}", at=1.1) for n in (17, 18, 19)]
    assert [*_removals(*log)] == [(ALONE, None, None, run) for run in (1, 2, 3)]
    assert "number 3 in a row on this host; no other XID came shortly before it" in _judged(*log)[-1].why


@pytest.mark.parametrize(
    "earlier",
    [
        _xid(31, at=1, host="n1"),  # long ago
        _xid(31, gpu="18", at=99, host="n2"),  # on another host
        _xid(154, TO_RESET, at=99, host="n1"),  # itself a consequence
    ],
)
def test_a_removal_does_not_follow_what_has_nothing_to_do_with_it(earlier: str) -> None:
    assert [*_removals(earlier, _xid(45, at=100, host="n1"))] == [(ALONE, None, None, 1)]


def test_without_stamps_to_compare_the_order_has_to_do() -> None:
    assert [*_removals(_xid(31), _xid(45, at=100))] == [(Action.IGNORE, 31, "0000:17:00", 1)]


def test_a_removal_may_name_its_cause_itself() -> None:
    assert [*_removals(_xid(31), _xid(45, "Ch 00000008 caused by previous Xid 149"))] == [(Action.IGNORE, 149, None, 1)]


# A GPU that is off the bus


@pytest.mark.parametrize(
    "lines",
    [
        LOST_LINES,
        ("\\n               ".join(LOST_LINES),),
        ("\n".join(LOST_LINES),),
        (" ".join(LOST_LINES),),
        ("[1.0] " + LOST_LINES[0], "[1.0] usb 1-4: hello", *(f"[1.0] {line}" for line in LOST_LINES[1:])),
        ("NVRM: GPU 0000:b3:00.0: GPU has fallen off the bus.",),
    ],
    ids=["three lines", "escaped newlines", "newlines", "one line", "another between", "the short form"],
)
def test_a_lost_gpu_is_one_event_over_one_line_or_three(lines: tuple[str, ...]) -> None:
    (verdict,) = _judged(*lines)
    assert (verdict.kind, verdict.code, verdict.action) == (CodeKind.NONE, None, Action.RESTART_BM)
    assert (verdict.failure_mode, verdict.subject.pci) == (FailureMode.GPU_FELL_OFF_BUS, "0000:b3:00")


def test_what_continues_a_line_has_its_heading() -> None:
    (verdict,) = _judged(f"n1 kernel: [1.5] hello\\n  {_xid(79)}")
    assert (verdict.subject.host, verdict.time) == ("n1", "+1.5s")


def test_what_was_said_long_before_names_no_gpu() -> None:
    (verdict,) = _judged(LOST_LINES[0], *["something else"] * 3, LOST_LINES[2])
    assert verdict.subject.pci is None
    assert "which GPU it is, this line does not say" in verdict.why


def test_what_another_host_said_names_no_gpu_of_this_one() -> None:
    (verdict,) = _judged(f"n1 kernel: {LOST_LINES[0]}", f"n2 kernel: {LOST_LINES[2]}")
    assert (verdict.subject.host, verdict.subject.pci) == ("n2", None)


def test_a_message_that_the_driver_cannot_have_written_is_none() -> None:
    assert _judged("NVRM: The NVIDIA GPU invalid-bdf.0", LOST_LINES[2]) == []


def test_the_last_line_alone_is_a_gpu_that_is_not_named() -> None:
    (verdict,) = _judged(LOST_LINES[2])
    assert str(verdict.subject) == "GPU that is not named"


def test_a_loss_that_an_xid_told_before_says_so() -> None:
    first, again = _judged(_xid(79, gpu="b3"), *LOST_LINES)
    assert (first.code, again.code) == (79, None)
    assert again.follows == Earlier(79, "0000:b3:00")


# Switches, messages and jobs


def test_the_registers_of_a_switchs_error_are_no_other_error() -> None:
    error = "nvidia-nvswitch2: SXid (PCI:0000:c4:00.0): 23001, {}"
    first, thermal = _judged(
        error.format("Fatal, Link 3 ingress"),
        error.format("Severity 5 Engine instance 00 Sub-engine instance 00"),
        error.format("Data {0x00000000, 0x00000000}"),
        error.format("Severity 5 Engine instance 00").replace("23001", "10004"),
    )
    assert (first.code, first.action, str(first.subject)) == (23001, Action.RESET_FABRIC, "NVSwitch 0000:c4:00, link 3")
    assert (thermal.code, thermal.action) == (10004, Action.UNKNOWN)


def test_fabric_managers_line_of_a_switchs_error_is_that_sxid() -> None:
    (verdict,) = _judged(
        "[Jul 23 2024 07:53:55] [ERROR] detected NVSwitch fatal error 20034 on pci bus id 00000000:86:00.0"
    )
    assert (verdict.kind, verdict.code, verdict.failure_mode) == (CodeKind.SXID, 20034, FailureMode.NVLINK_DOWN)
    assert verdict.time == "2024-07-23T07:53:55"


def test_a_message_without_a_code_asks_for_nothing_that_nvidia_did_not_say() -> None:
    discovery, memory = _judged(
        "n1 kernel: NVRM: knvlinkUpdatePostRxDetectLinkMask_IMPL: Failed to update Rx Detect Link mask!",
        "NVRM: nvGpuOpsReportFatalError: uvm encountered global fatal error 0x60, requiring os reboot to recover.",
    )
    assert (discovery.action, str(discovery.subject)) == (Action.UNKNOWN, "node n1")
    assert memory.action is Action.RESTART_BM
    (adapter,) = _judged("NVRM: GPU 0000:4f:00.0: RmInitAdapter failed! (0x62:0x40:1941)")
    assert (adapter.subject.kind, adapter.subject.pci) == (SubjectKind.GPU, "0000:4f:00")


def test_a_stalled_job_is_told_by_the_rank_that_waited() -> None:
    crash, watchdog, symptom = _judged(
        "n1 kernel: python3[7]: segfault at 7f ip 1 sp 2 error 4 in libnccl.so.2[7f]",
        "[rank1]:[E] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=8, OpType=GATHER, "
        "Timeout(ms)=600000) ran for 600027 milliseconds before timing out.",
        "[PG 1 Rank 2] Timeout at NCCL work: 8, last enqueued NCCL work: 9, last completed NCCL work: 7.",
    )
    assert {verdict.failure_mode for verdict in (crash, watchdog, symptom)} == {FailureMode.JOB_STALLED}
    assert str(crash.subject) == "process, python3 [7], host n1"
    assert str(watchdog.subject) == "rank 1"
    assert "waited for 600 s for GATHER number 8" in watchdog.why
    assert "had completed 7 of 9" in symptom.why


def test_a_gpus_uuid_is_kept_from_the_line_that_tells_it() -> None:
    uuid = "GPU-12345678-1234-1234-1234-123456789012"
    named, other = _judged(f"NVRM: GPU at PCI:0000:17:00: {uuid}", _xid(79), _xid(79, gpu="18"))
    assert (named.subject.uuid, other.subject.uuid) == (uuid, None)


def test_verdicts_come_while_lines_come() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield _xid(31)

    verdicts = classify(endless())
    assert [next(verdicts).run for _ in range(3)] == [1, 2, 3]


def test_hosts_beyond_number_are_forgotten_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("healer.telemetry.xids.stream._MOST_REMEMBERED", 3)
    log = [_xid(31, host=f"n{number}") for number in range(5)]
    assert [*_removals(*log, _xid(45, host="n0"))] == [(ALONE, None, None, 1)]
    assert [*_removals(*log, _xid(45, host="n4"))] == [(Action.IGNORE, 31, "0000:17:00", 1)]
