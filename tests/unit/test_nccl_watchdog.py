"""Who holds up a job, from what the watchdogs of its ranks have logged."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.domain.testimony import Blame, Collective, Progress, Testimony, Witness
from healer.telemetry.nccl.watchdog import Known, lines_say
from healer.telemetry.nccl.watchdog_line import Kind, Speaker, read_line
from tests.nccl_samples import AT

LOGGED = "[E810 03:04:11.061727749 ProcessGroupNCCL.cpp:683]"


def timeout(rank: int, number: int, *, group_rank: int | None = None, ran_ms: int = 600_096) -> str:
    return (
        f"[rank{rank}]:{LOGGED} [Rank {rank if group_rank is None else group_rank}] Watchdog caught collective "
        f"operation timeout: WorkNCCL(SeqNum={number}, OpType=BROADCAST, NumelIn=80, NumelOut=80, Timeout(ms)=600000) "
        f"ran for {ran_ms} milliseconds before timing out."
    )


def status(
    rank: int, number: int, enqueued: int, *, group: str = "0(default_pg)", group_rank: int | None = None
) -> str:
    return (
        f"[rank{rank}]:{LOGGED} [PG ID 0 PG GUID {group} Rank {rank if group_rank is None else group_rank}]  failure "
        f"detected by watchdog at work sequence id: {number} PG status: last enqueued work: {enqueued}, last completed "
        f"work: {number - 1}"
    )


def dump_signal(rank: int, enqueued: int) -> str:
    return (
        f"[rank{rank}]:{LOGGED} [PG ID 0 PG GUID 0(default_pg) Rank {rank}] Received a dump signal due to a collective "
        f"timeout from  rank 1 and we will try our best to dump the debug info. Last enqueued NCCL work: {enqueued}, "
        f"last completed NCCL work: {enqueued}.This is most likely caused by incorrect usages of collectives"
    )


def said(*lines: str, all_spoke: bool = True, ranks: tuple[int, ...] = ()) -> Testimony | None:
    read = [line for text in lines if (line := read_line(text)) is not None]
    return lines_say(read, Known(ranks, {4: "gpu-2"}, all_spoke), job="7", where="/logs/7.err", at=AT)


def stuck(*lines: str, all_spoke: bool = True, ranks: tuple[int, ...] = ()) -> Testimony:
    testimony = said(*lines, all_spoke=all_spoke, ranks=ranks)
    assert testimony is not None
    assert testimony.progress is Progress.STUCK
    return testimony


def blamed(testimony: Testimony) -> dict[int | None, Blame]:
    return {culprit.rank: culprit.blame for culprit in testimony.culprits}


# One line

RAY = "\x1b[36m(RayWorkerWrapper pid=4009, ip=10.0.0.7)\x1b[0m [rank1]:[E ProcessGroupNCCL.cpp:563] [Rank 1] "
DEFAULT = "[PG ID 0 PG GUID 0(default_pg) Rank 3]"
SIGNAL = (
    "Received a dump signal due to a collective timeout from  rank 1 and we will try our best to dump the debug info."
)
EXCEPTION = "Exception (either an error or timeout) detected by watchdog at work"
FAILURE = "failure detected by watchdog at work sequence id"
CAUGHT = (
    "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=158046, OpType=GATHER, NumelIn=2867200, NumelOut=0, "
    "Timeout(ms)=600000) ran for 600027 milliseconds before timing out."
)


@pytest.mark.parametrize(
    ("text", "by"),
    [
        (RAY + CAUGHT, Speaker(1, group_rank=1, host="10.0.0.7")),
        (f"[36m(RayWorkerWrapper pid=4009) [rank1]:[E] [Rank 1] {CAUGHT}", Speaker(1, group_rank=1)),
        (f"[default3]:[rank11]:[E x] [Rank 3] {CAUGHT}", Speaker(11, group_rank=3)),
        (f"12: [E ProcessGroupNCCL.cpp:475] [Rank 4] {CAUGHT}", Speaker(12, group_rank=4)),
        (f" 12: [rank13]:[E] {CAUGHT}", Speaker(13)),
        (f"2026-03-01T12:00:00.123456789Z stderr F [rank7]:{LOGGED} [Rank 7] {CAUGHT}", Speaker(7, group_rank=7)),
        (f"[pod/train-0/main] [rank7]:{LOGGED} {CAUGHT}", Speaker(7)),
        (f"[E ProcessGroupNCCL.cpp:475] [Rank 4] {CAUGHT}", Speaker(4, group_rank=4)),
        (f"Epoch 9/10: 300it [07:24,  1.48s/it][rank0]:{LOGGED} {CAUGHT}", Speaker(0)),
        (f"[rank2]:{LOGGED} [PG ID 4 PG GUID 9(tp) Rank 1] Process group watchdog thread terminated: {CAUGHT}",
         Speaker(2, "9", "tp", 1)),
        (CAUGHT, Speaker(None)),
    ],
    ids=["Ray", "Ray, without escapes", "torchrun", "srun", "srun and PyTorch", "Kubernetes", "kubectl", "PyTorch 2.1",
         "after a progress bar", "at the end of a thread", "bare"],
)  # fmt: skip
def test_the_rank_is_found_behind_every_prefix(text: str, by: Speaker) -> None:
    line = read_line(text)

    assert line is not None
    assert line.by == by
    assert (line.kind, line.number, line.operation, line.ran_for_s) == (Kind.TIMEOUT, 158046, "GATHER", 600.027)


@pytest.mark.parametrize(
    ("text", "group", "number", "enqueued"),
    [
        ("[PG 1 Rank 1] Timeout at NCCL work: 46, last enqueued NCCL work: 47, last completed NCCL", "1", 46, 47),
        (f"[PG 1 Rank 0] {EXCEPTION}: 46, last enqueued NCCL work: 47, last completed NCCL work: 45.", "1", 46, 47),
        (f"[PG ID 2 PG GUID 9 Rank 7] {EXCEPTION}: 46, last enqueued NCCL work: 47, last completed", "9", 46, 47),
        (f"{DEFAULT}  {FAILURE}: 78 PG status: last enqueued work: 79, last completed work: 77", "0", 78, 79),
        (f"{DEFAULT}  {FAILURE}: 1 PG status: last enqueued work: 547, last started work: -1, last", "0", 1, 547),
        (f"{DEFAULT} {SIGNAL} Last enqueued NCCL work: 77, last completed NCCL work: 77.This is", "0", None, 77),
    ],
    ids=["2.3", "2.4", "2.5", "2.6", "last started", "dump signal"],
)  # fmt: skip
def test_how_far_a_rank_is_in_a_group_is_read_as_every_version_says_it(
    text: str, group: str, number: int | None, enqueued: int
) -> None:
    line = read_line(f"[rank3]:{LOGGED} {text}")

    assert line is not None
    assert (line.kind, line.by.rank, line.by.group) == (Kind.STATUS, 3, group)
    assert (line.number, line.enqueued) == (number, enqueued)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[rank4]:[E] [Rank 4] Some NCCL operations have failed or timed out. Due to the asynchronous", Kind.GAVE_UP),
        ("[rank4]:[E] [PG ID 0 PG GUID 0 Rank 4] Process group watchdog thread terminated with exception: CUDA",
         Kind.GAVE_UP),
        ("[rank144]:[E] [PG 0 Rank 144] Heartbeat monitor timed out! Process will be terminated", Kind.HEARTBEAT),
        ("[rank7]:[E] [PG 0 Rank 7] ProcessGroupNCCL's watchdog got stuck for 480 seconds", Kind.HEARTBEAT),
        ("kernel: watchdog: BUG: soft lockup - CPU#3 stuck for 23s!", None),
        ("NCCL WARN Call to bind failed: Address already in use", None),
        ("loss 4.66", None),
        ("", None),
    ],
)  # fmt: skip
def test_other_lines_are_told_apart(text: str, kind: Kind | None) -> None:
    line = read_line(text)
    assert (None if line is None else line.kind) is kind


@given(text=st.text(max_size=400) | st.text("[]()Rank PG0123456789:=, \x1b[m", max_size=400))
def test_any_text_is_a_line_of_the_watchdog_or_none(text: str) -> None:
    read_line(text)
    read_line(f"Watchdog caught collective operation timeout: WorkNCCL({text}")
    read_line(f"[rank{text}] last enqueued work: {text}")


@pytest.mark.parametrize(
    "text",
    [
        "Watchdog caught collective operation timeout: " * 100_000,
        "WorkNCCL(SeqNum=1, OpType=" + "A" * 1_000_000 + " atchdog",
        "[PG ID 0 PG GUID " + "(" * 1_000_000 + "NCCL work",
        "\x1b[" + "0;" * 1_000_000 + "NCCL work",
        " " * 1_000_000 + "watchdog",
        "[rank" + "9" * 1_000_000 + "] watchdog last enqueued work: " + "9" * 1_000_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_hostile_line_costs_no_more_than_its_first_part(text: str) -> None:
    began = time.monotonic()
    read_line(text)
    assert time.monotonic() - began < 1


# Many ranks


def waiting(*ranks: int, number: int = 78, enqueued: int = 79) -> list[str]:
    return [line for rank in ranks for line in (timeout(rank, number), status(rank, number, enqueued))]


def test_who_is_behind_is_told_by_its_dump_signal() -> None:
    """Taken from a public record of such a job, in which ranks 0 and 4 had gone another way."""
    testimony = stuck(*waiting(1, 2, 3, 5, 6, 7), dump_signal(0, 77), dump_signal(4, 77))

    assert blamed(testimony) == {0: Blame.BEHIND, 4: Blame.BEHIND}
    assert [culprit.node for culprit in testimony.culprits] == [None, "gpu-2"]
    assert (testimony.witness, testimony.where, testimony.job) == (Witness.WATCHDOG, "/logs/7.err", "7")
    assert testimony.collective == Collective("Broadcast", "0 (default_pg)", 78)
    assert testimony.stuck_for == timedelta(milliseconds=600_096)
    assert testimony.says == (
        "6 of 8 ranks have waited in Broadcast 78 of group 0 (default_pg) for 600 s; behind: rank 0, rank 4"
    )


def test_who_says_nothing_is_the_one() -> None:
    assert blamed(stuck(*waiting(1, 2, 3, 5, 6, 7))) == {0: Blame.SILENT, 4: Blame.SILENT}
    assert blamed(stuck(*waiting(*range(7)), ranks=(7,))) == {7: Blame.SILENT}


def test_nobody_is_blamed_for_silence_before_all_could_speak() -> None:
    assert blamed(stuck(*waiting(1, 2, 3, 5, 6, 7), all_spoke=False)) == {}


def test_where_all_time_out_in_the_same_it_is_nobody() -> None:
    testimony = stuck(*waiting(*range(8)))
    assert blamed(testimony) == {}
    assert "all are in it" in testimony.says


def test_a_rank_that_times_out_in_an_earlier_one_is_behind() -> None:
    assert blamed(stuck(*waiting(0, 1, 2), *waiting(3, number=77, enqueued=77))) == {3: Blame.BEHIND}


def test_where_most_are_silent_nobody_is_named() -> None:
    assert blamed(stuck(*waiting(0, 63))) == {}


def test_a_rank_that_waits_in_another_group_is_not_to_blame() -> None:
    """Rank 5 hangs: its tensor-parallel group waits for it, and the rest in the group of all ranks."""
    group = {"group": "2(tp)"}
    tensor = [
        line
        for rank in (4, 6, 7)
        for line in (timeout(rank, 9, group_rank=rank - 4), status(rank, 9, 9, group_rank=rank - 4, **group))
    ]

    testimony = stuck(*tensor, *waiting(0, 1, 2, 3))

    assert blamed(testimony) == {5: Blame.SILENT}
    assert testimony.collective == Collective("Broadcast", "2 (tp)", 9)


def test_groups_that_go_by_the_same_name_name_nobody() -> None:
    lines = [
        line
        for rank in (0, 1, 4, 5)
        for line in (timeout(rank, 9, group_rank=rank % 4), status(rank, 9, 9, group="1", group_rank=rank % 4))
    ]
    assert blamed(stuck(*lines)) == {}


def test_timeouts_without_a_group_still_tell_what_waits() -> None:
    testimony = stuck(timeout(0, 5), timeout(1, 5))
    assert testimony.collective == Collective("Broadcast", "unknown", 5)
    assert blamed(testimony) == {}


def test_timeouts_without_a_rank_still_tell_that_the_job_is_stuck() -> None:
    assert stuck(CAUGHT, CAUGHT).culprits == ()


@pytest.mark.parametrize(
    ("lines", "progress"),
    [
        (["[rank4]:[E] [Rank 4] Some NCCL operations have failed or timed out."], Progress.FAILED),
        ([status(4, 78, 79)], Progress.FAILED),
        (["[rank4]:[E] [PG 0 Rank 4] Heartbeat monitor timed out!"], Progress.UNKNOWN),
        ([dump_signal(4, 77)], Progress.UNKNOWN),
    ],
    ids=["gave up", "failed", "heartbeat", "dump signal"],
)
def test_without_a_timeout_nothing_is_stuck(lines: list[str], progress: Progress) -> None:
    testimony = said(*lines)
    assert testimony is not None
    assert (testimony.progress, testimony.culprits) == (progress, ())


def test_without_a_line_there_is_no_testimony() -> None:
    assert said("loss 4.66") is None


@given(
    told=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(-1, 4), st.booleans()), max_size=30),
    ranks=st.sets(st.integers(0, 9_999_999), max_size=3),
)
def test_whatever_ranks_log_who_waits_is_not_blamed(told: list[tuple[int, int, int, bool]], ranks: set[int]) -> None:
    lines = [
        line
        for rank, number, enqueued, also in told
        for line in (status(rank, number, enqueued), *([timeout(rank, number)] if also else []))
    ]
    testimony = said(*lines, ranks=tuple(ranks))
    if testimony is not None:
        assert len(testimony.culprits) <= 10
