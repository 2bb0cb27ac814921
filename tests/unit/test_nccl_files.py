"""Dumps and logs as files: which belong to which job, what is read when, and what happens to those that change."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from healer.adapters.nccl.dumps import DumpFiles
from healer.adapters.nccl.logs import LogFiles
from healer.domain.testimony import Blame, Progress, Testimony
from healer.telemetry.nccl.file_names import DUMP_NAMES, LOG_NAMES, FileNames, Named
from tests.nccl_samples import AT, world
from tests.unit.test_nccl_plain_pickle import PROGRAMS

SOON = timedelta(seconds=90)  # when everybody has spoken


def blamed(testimony: Testimony) -> dict[int | None, Blame]:
    return {culprit.rank: culprit.blame for culprit in testimony.culprits}


def write(path: Path, data: bytes, *, at: datetime = AT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (at.timestamp(), at.timestamp()))


# Names


@pytest.mark.parametrize(
    ("pattern", "path", "named"),
    [
        (DUMP_NAMES, "/shared/42/nccl_trace_rank_7", Named("42", 7, None)),
        (DUMP_NAMES, "/shared/42/comm_lib_trace_rank_7.json", Named("42", 7, None)),
        (DUMP_NAMES, "/shared/42/readme", None),
        (r"job(?P<job>\w+)/(?P<node>[^/]+)/r(?P<rank>\d+)", "/x/job9/gpu-1/r12", Named("9", 12, "gpu-1")),
        (DUMP_NAMES, "/shared/42/rank_99999999", None),
        (DUMP_NAMES, "/shared/42/rank_²", None),
        (LOG_NAMES, "/logs/slurm-4242.out", Named("4242", None, None)),
        (LOG_NAMES, "/logs/llama/rank0.err", Named("llama", None, None)),
    ],
)
def test_a_path_tells_job_rank_and_node(pattern: str, path: str, named: Named | None) -> None:
    assert FileNames(pattern).told_by(path) == named


@pytest.mark.parametrize(
    ("pattern", "why"), [("(", "is not a regular expression"), ("(?P<host>x)", "known are job, rank and node")]
)
def test_a_pattern_that_cannot_be_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        FileNames(pattern)


# Dumps


def _dumps(folder: Path, files: Mapping[int, bytes], *, at: datetime = AT) -> None:
    for rank, data in files.items():
        write(folder / f"nccl_trace_rank_{rank}", data, at=at)


def _stuck(*, behind: int, size: int = 8) -> dict[int, bytes]:
    job = world(size)
    job.wait([rank for rank in range(size) if rank != behind], "0", 78)
    return job.files()


def dump_files(folder: Path, pattern: str = DUMP_NAMES) -> DumpFiles:
    return DumpFiles([f"{folder}/*/nccl_trace_rank_*"], FileNames(pattern))


def test_dumps_are_put_together_job_by_job(tmp_path: Path) -> None:
    _dumps(tmp_path / "41", _stuck(behind=5))
    _dumps(tmp_path / "42", _stuck(behind=2))

    told = {testimony.job: testimony for testimony in dump_files(tmp_path).look(AT + SOON)}

    assert {job: blamed(testimony) for job, testimony in told.items()} == {
        "41": {5: Blame.BEHIND},
        "42": {2: Blame.BEHIND},
    }
    assert told["41"].where == str(tmp_path / "41")
    assert told["41"].at == AT


def test_the_path_may_tell_the_node(tmp_path: Path) -> None:
    for rank, data in _stuck(behind=5).items():
        write(tmp_path / "job-7" / f"gpu-{rank // 4}" / f"rank{rank}", data)
    names = FileNames(r"job-(?P<job>\d+)/(?P<node>[^/]+)/rank(?P<rank>\d+)$")

    (testimony,) = DumpFiles([f"{tmp_path}/**/rank*"], names).look(AT + SOON)

    assert testimony.job == "7"
    assert [(culprit.rank, culprit.node) for culprit in testimony.culprits] == [(5, "gpu-1")]


def test_a_rank_is_silent_only_after_all_have_had_the_time_to_dump(tmp_path: Path) -> None:
    files = _stuck(behind=5)
    del files[5]
    _dumps(tmp_path / "7", files)
    source = dump_files(tmp_path)

    (early,) = source.look(AT + timedelta(seconds=5))
    assert (early.progress, blamed(early)) == (Progress.STUCK, {})
    (late,) = source.look(AT + SOON)
    assert blamed(late) == {5: Blame.SILENT}


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _dumps(tmp_path / "7", _stuck(behind=5))
    source = dump_files(tmp_path)
    source.look(AT + SOON)

    opened: list[str] = []
    really_open = Path.open

    def noted(path: Path, mode: str = "r") -> object:
        opened.append(path.name)
        return really_open(path, mode)

    monkeypatch.setattr(Path, "open", noted)
    source.look(AT + SOON)
    assert opened == []

    write(tmp_path / "7" / "nccl_trace_rank_5", _stuck(behind=4)[5], at=AT + timedelta(seconds=1))
    opened.clear()
    (testimony,) = source.look(AT + SOON)
    assert opened == ["nccl_trace_rank_5"]
    assert blamed(testimony) == {}


def test_a_dump_that_would_run_something_is_refused_and_its_rank_is_not_called_silent(tmp_path: Path) -> None:
    mark = tmp_path / "it_ran"
    files = _stuck(behind=5)
    job = world(8)
    job.wait([rank for rank in range(8) if rank != 5], "0", 78)
    _dumps(tmp_path / "7", job.files(without=[5]))
    write(tmp_path / "7" / "nccl_trace_rank_5", PROGRAMS["deep inside of a dump"][0](mark))
    source = dump_files(tmp_path)

    (testimony,) = source.look(AT + SOON)

    assert not mark.exists()
    assert len(files) == 8
    assert blamed(testimony) == {}
    (warning,) = source.warnings()
    assert "nccl_trace_rank_5: is no plain pickle: STACK_GLOBAL of posix.system" in warning


def test_a_job_of_which_nothing_can_be_read_says_nothing(tmp_path: Path) -> None:
    write(tmp_path / "7" / "nccl_trace_rank_0", b"half of a d")
    source = dump_files(tmp_path)
    assert source.look(AT + SOON) == ()
    assert "is no dump" in source.warnings()[0]


def test_old_dumps_do_not_count_and_those_of_an_earlier_incident_do_not_mix(tmp_path: Path) -> None:
    _dumps(tmp_path / "7", _stuck(behind=5), at=AT)
    earlier = _stuck(behind=1)[3]
    write(tmp_path / "7" / "nccl_trace_rank_3", earlier, at=AT - timedelta(minutes=30))
    source = dump_files(tmp_path)

    (testimony,) = source.look(AT + SOON)
    assert blamed(testimony) == {5: Blame.BEHIND}
    assert testimony.says.startswith("6 of 8 ranks")
    assert source.look(AT + timedelta(hours=2)) == ()


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    """PyTorch asks its ranks for dumps by pipes that lie beside them; who opens one waits for ever."""
    _dumps(tmp_path / "7", _stuck(behind=5))
    os.mkfifo(tmp_path / "7" / "nccl_trace_rank_9")
    (tmp_path / "7" / "nccl_trace_rank_10").mkdir()
    (tmp_path / "7" / "nccl_trace_rank_11").symlink_to("/dev/zero")
    (tmp_path / "7" / "nccl_trace_rank_12").symlink_to("nowhere")

    (testimony,) = dump_files(tmp_path).look(AT + SOON)

    assert blamed(testimony) == {5: Blame.BEHIND}


def test_a_file_that_is_larger_than_any_dump_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "7" / "nccl_trace_rank_0"
    write(path, pickle.dumps({}))
    os.truncate(path, 65 << 20)
    os.utime(path, (AT.timestamp(), AT.timestamp()))
    source = dump_files(tmp_path)
    assert source.look(AT + SOON) == ()
    assert "more than 67108864 are not read" in source.warnings()[0]


# Logs

STATUS = (
    "[rank{rank}]:[E810 x] [PG ID 0 PG GUID 0(default_pg) Rank {rank}]  failure detected by watchdog at work sequence "
    "id: 78 PG status: last enqueued work: 79, last completed work: 77\n"
)
TIMEOUT = (
    "[rank{rank}]:[E810 x] [Rank {rank}] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=78, "
    "OpType=ALLREDUCE, NumelIn=80, NumelOut=80, Timeout(ms)=600000) ran for 600096 milliseconds before timing out.\n"
)


def lines(*ranks: int) -> bytes:
    return "".join((TIMEOUT + STATUS).format(rank=rank) for rank in ranks).encode()


def append(path: Path, data: bytes, *, at: datetime = AT) -> None:
    write(path, (path.read_bytes() if path.exists() else b"") + data, at=at)


def log_files(folder: Path, pattern: str = LOG_NAMES) -> LogFiles:
    return LogFiles([f"{folder}/**/*.out", f"{folder}/**/*.err"], FileNames(pattern))


def only(told: tuple[Testimony, ...]) -> Testimony:
    (testimony,) = told
    return testimony


def test_logs_are_read_on_and_put_together_job_by_job(tmp_path: Path) -> None:
    source = log_files(tmp_path)
    append(tmp_path / "slurm-7.out", b"loss 4.66\n" + lines(0, 1))
    append(tmp_path / "other" / "a.err", lines(0))

    told = {testimony.job: testimony for testimony in source.look(AT)}
    assert set(told) == {"7", "other"}
    assert (told["7"].progress, blamed(told["7"])) == (Progress.STUCK, {})

    append(tmp_path / "slurm-7.out", lines(3), at=AT + timedelta(seconds=10))
    told = {testimony.job: testimony for testimony in source.look(AT + SOON)}
    assert blamed(told["7"]) == {2: Blame.SILENT}
    assert told["7"].at == AT + timedelta(seconds=10)
    assert told["7"].where == str(tmp_path / "slurm-7.out")


def test_one_file_for_each_rank_tells_the_rank_and_the_node(tmp_path: Path) -> None:
    source = log_files(tmp_path, r"job(?P<job>\d+)/(?P<node>[^/]+)/(?P<rank>\d+)\.err$")
    text = (TIMEOUT + STATUS).format(rank=0).replace("[rank0]:", "")
    for rank in (0, 1, 2):
        append(tmp_path / "job7" / f"gpu-{rank // 2}" / f"{rank}.err", text.replace("Rank 0", f"Rank {rank}").encode())
    append(tmp_path / "job7" / "gpu-1" / "3.err", b"loading data\n")

    testimony = only(source.look(AT + SOON))

    assert [(culprit.rank, culprit.node, culprit.blame) for culprit in testimony.culprits] == [
        (3, "gpu-1", Blame.SILENT)
    ]


def test_a_line_that_has_not_ended_waits_for_its_end(tmp_path: Path) -> None:
    source = log_files(tmp_path)
    half = len(lines(0)) - 40
    append(tmp_path / "slurm-7.out", lines(0)[:half])
    assert "0 (default_pg)" not in only(source.look(AT)).says

    append(tmp_path / "slurm-7.out", lines(0)[half:])
    assert "0 (default_pg)" in only(source.look(AT)).says


def test_a_line_after_a_progress_bar_is_found(tmp_path: Path) -> None:
    append(tmp_path / "slurm-7.out", b"\rEpoch 1: 10%" * 2000 + b"\r" + lines(0))
    assert only(log_files(tmp_path).look(AT)).progress is Progress.STUCK


@pytest.mark.parametrize("how", ["truncated", "rotated", "replaced by a shorter one"])
def test_a_log_that_begins_anew_is_read_from_its_beginning(tmp_path: Path, how: str) -> None:
    path = tmp_path / "slurm-7.out"
    source = log_files(tmp_path)
    append(path, b"loss 4.66\n" * 1000)
    assert source.look(AT) == ()

    if how == "truncated":
        os.truncate(path, 0)
    elif how == "rotated":
        path.rename(tmp_path / "slurm-7.out.1")
    else:
        path.unlink()
    write(path, lines(0))

    assert only(source.look(AT)).progress is Progress.STUCK


def test_of_a_log_that_is_there_at_the_start_only_the_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "slurm-7.out"
    append(path, lines(0) + b"x" * 79 + b"\n" + b"loss 4.66\n" * 200_000)
    assert log_files(tmp_path).look(AT) == ()

    append(path, lines(1))
    assert only(log_files(tmp_path).look(AT)).progress is Progress.STUCK


def test_of_a_log_that_grows_faster_than_it_is_read_the_newest_counts(tmp_path: Path) -> None:
    path = tmp_path / "slurm-7.out"
    source = log_files(tmp_path)
    append(path, b"begins\n")
    source.look(AT)
    append(path, b"loss 4.66\n" * 900_000 + lines(1))
    assert only(source.look(AT)).progress is Progress.STUCK


def test_what_a_job_said_an_hour_ago_does_not_count_and_after_a_silence_it_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "slurm-7.out"
    source = log_files(tmp_path)
    append(path, lines(0, 1, 3))
    source.look(AT)

    later = AT + timedelta(minutes=45)
    append(path, lines(0, 1, 2), at=later)
    assert blamed(only(source.look(later + SOON))) == {}
    assert source.look(later + timedelta(hours=2)) == ()


def test_a_log_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path / "slurm-7.out", lines(0))
    source = log_files(tmp_path)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    assert source.look(AT) == ()
    assert source.warnings() == (f"{tmp_path}/slurm-7.out: cannot be read: Permission denied",)


def test_pipes_and_folders_that_look_like_logs_are_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slurm-7.out")
    (tmp_path / "slurm-8.out").mkdir()
    looking = threading.Thread(target=log_files(tmp_path).look, args=[AT], daemon=True)
    looking.start()
    looking.join(30)
    assert not looking.is_alive()
