"""The three ways put together: a call returns at once, whatever is slow, and each job is asked by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from healer.adapters.nccl.dumps import DumpFiles
from healer.adapters.nccl.logs import LogFiles
from healer.adapters.nccl.ras_jobs import RasJobs
from healer.adapters.nccl.witness import NcclWitness
from healer.config import Config, load_config
from healer.domain.testimony import Blame, Progress, Testimony, Witness
from healer.errors import InvalidDocument, Unavailable
from healer.ports import JobWitness
from healer.runtime.outside import build_job_witness
from healer.telemetry.nccl.file_names import LOG_NAMES, FileNames
from healer.telemetry.nccl.ras_answer import Answer, read_json
from tests.nccl_samples import AT, ras_communicator, ras_json, ras_rank
from tests.unit.test_nccl_files import _dumps, _stuck, dump_files, lines, write

MINUTE = timedelta(minutes=1)
NOBODY: Mapping[str, Sequence[str]] = {}


def answer(*, behind: int | None) -> Answer:
    ranks = [
        ras_rank(rank, host=f"127.0.0.{1 + rank // 4}", gpu=rank % 4, launched=641 - (rank == behind))
        for rank in range(8)
    ]
    return read_json(ras_json(ras_communicator("cf26", ranks)), name="ras")


@dataclass(slots=True)
class Jobs:
    """Answers for the job of each node; at once, unless it is held."""

    answers: dict[str, Answer | Unavailable] = field(default_factory=dict)
    open: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open.set()

    def ask(self, node: str) -> Answer:
        self.asked.append(node)
        assert self.open.wait(60)
        told = self.answers.get(node, Unavailable(f"NCCL RAS at {node}", "cannot be reached"))
        if isinstance(told, Unavailable):
            raise told
        return told


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.open.set()


@contextmanager
def witness(jobs: Jobs | None = None, **parts: DumpFiles | LogFiles) -> Iterator[NcclWitness]:
    ras = None if jobs is None else RasJobs(jobs.ask)
    with closing(NcclWitness(ras=ras, **parts)) as made:  # type: ignore[arg-type]
        yield made


def eventually(ask: Callable[[], tuple[Testimony, ...]], progress: Progress) -> Testimony:
    """Asked until it is told: answers come in threads of their own."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for testimony in ask():
            if testimony.progress is progress:
                return testimony
        time.sleep(0.01)
    raise AssertionError(progress)


def test_a_suspect_job_is_asked_and_what_it_answers_a_later_call_tells(jobs: Jobs) -> None:
    jobs.answers["127.0.0.1"] = answer(behind=5)
    suspects = {"7": ["127.0.0.1", "127.0.0.2"]}
    with witness(jobs) as made:
        assert made.testimonies(AT, suspects) == ()
        first = eventually(lambda: made.testimonies(AT, suspects), Progress.UNKNOWN)
        stuck = eventually(lambda: made.testimonies(AT + MINUTE, suspects), Progress.STUCK)

    assert (first.witness, first.job, first.at) == (Witness.RAS, "7", AT)
    assert (stuck.at, stuck.stuck_for, stuck.where) == (AT + MINUTE, MINUTE, "127.0.0.1")
    assert [(c.rank, c.node, c.gpu, c.blame) for c in stuck.culprits] == [(5, "127.0.0.2", "1", Blame.BEHIND)]


def test_a_job_that_is_not_suspect_is_not_asked(jobs: Jobs) -> None:
    with witness(jobs) as made:
        made.testimonies(AT, {"7": []})
        made.testimonies(AT, NOBODY)
    assert jobs.asked == []


def test_a_node_that_does_not_answer_does_not_hide_the_job(jobs: Jobs) -> None:
    jobs.answers["n3"] = answer(behind=5)
    suspects = {"7": ["n1", "n2", "n3"]}
    with witness(jobs) as made:
        eventually(lambda: made.testimonies(AT, suspects), Progress.UNKNOWN)
        assert jobs.asked == ["n1", "n2", "n3"]
        eventually(lambda: made.testimonies(AT + MINUTE, suspects), Progress.STUCK)
    assert jobs.asked == ["n1", "n2", "n3", "n3"]


def test_a_job_that_nobody_answers_for_is_a_warning_and_no_testimony(jobs: Jobs) -> None:
    with witness(jobs) as made:
        deadline = time.monotonic() + 60
        while not made.warnings(AT) and time.monotonic() < deadline:
            assert made.testimonies(AT, {"7": ["n1"]}) == ()
        assert made.warnings(AT) == ("job 7: NCCL RAS at n1: cannot be reached",)


def test_a_call_returns_at_once_while_jobs_hang_and_each_is_asked_once(jobs: Jobs) -> None:
    jobs.open.clear()
    suspects = {str(job): [f"n{job}"] for job in range(100)}
    with witness(jobs) as made:
        began = time.monotonic()
        for turn in range(5):
            assert made.testimonies(AT + turn * MINUTE, suspects) == ()
        assert time.monotonic() - began < 5
        assert len(jobs.asked) <= 8
        assert len(set(jobs.asked)) == len(jobs.asked)
        jobs.open.set()


def test_a_job_is_not_asked_more_often_than_it_says_anything_new(jobs: Jobs) -> None:
    jobs.answers["n1"] = answer(behind=5)
    with witness(jobs) as made:
        eventually(lambda: made.testimonies(AT, {"7": ["n1"]}), Progress.UNKNOWN)
        for second in range(19):
            made.testimonies(AT + timedelta(seconds=second), {"7": ["n1"]})
    assert jobs.asked == ["n1"]


def test_what_a_job_said_is_forgotten_some_time_after_it_is_no_longer_suspect(jobs: Jobs) -> None:
    jobs.answers["n1"] = answer(behind=5)
    with witness(jobs) as made:
        eventually(lambda: made.testimonies(AT, {"7": ["n1"]}), Progress.UNKNOWN)
        assert len(made.testimonies(AT + MINUTE, NOBODY)) == 1
        assert made.testimonies(AT + timedelta(minutes=11), NOBODY) == ()


def test_files_that_hang_do_not_hold_up_a_call(tmp_path: Path) -> None:
    open_again = threading.Event()

    class _Slow(LogFiles):
        def look(self, now: object) -> tuple[Testimony, ...]:  # noqa: ARG002
            open_again.wait(60)
            return ()

    _dumps(tmp_path / "7", _stuck(behind=5))
    with witness(logs=_Slow([], FileNames(LOG_NAMES)), dumps=dump_files(tmp_path)) as made:
        told = eventually(lambda: made.testimonies(AT + MINUTE, NOBODY), Progress.STUCK)
        open_again.set()
    assert told.witness is Witness.FLIGHT_RECORDER


def test_where_a_culprit_of_the_dumps_runs_ras_may_know(jobs: Jobs, tmp_path: Path) -> None:
    jobs.answers["127.0.0.1"] = answer(behind=None)
    _dumps(tmp_path / "7", _stuck(behind=5))
    suspects = {"7": ["127.0.0.1"]}
    with witness(jobs, dumps=dump_files(tmp_path)) as made:
        eventually(lambda: made.testimonies(AT, suspects), Progress.UNKNOWN)
        told = eventually(lambda: made.testimonies(AT + MINUTE, suspects), Progress.STUCK)

    assert told.witness is Witness.FLIGHT_RECORDER
    assert [(culprit.rank, culprit.node, culprit.gpu) for culprit in told.culprits] == [(5, "127.0.0.2", "1")]


def test_what_could_not_be_read_is_told_as_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "7" / "nccl_trace_rank_0", b"no dump")
    with witness(dumps=dump_files(tmp_path)) as made:
        deadline = time.monotonic() + 60
        while not made.warnings(AT) and time.monotonic() < deadline:
            made.testimonies(AT + MINUTE, NOBODY)
        assert "nccl_trace_rank_0: is no dump" in made.warnings(AT)[0]


# From the configuration


def _config(folder: Path, text: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_nobody_is_asked_until_it_is_configured(tmp_path: Path) -> None:
    assert build_job_witness(_config(tmp_path, "")) is None


def test_each_way_can_be_configured_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "slurm-7.out", lines(0, 1))
    for text in (
        "telemetry: {nccl: {ras: {address: '{node}:28028'}}}",
        f"telemetry: {{nccl: {{flight_recorder: {{files: ['{tmp_path}/rank_*']}}}}}}",
        f"telemetry: {{nccl: {{logs: {{files: ['{tmp_path}/*.out']}}}}}}",
    ):
        made: JobWitness | None = build_job_witness(_config(tmp_path, text))
        assert isinstance(made, NcclWitness)
        with closing(made):
            if "logs" not in text:
                assert made.testimonies(AT, NOBODY) == ()
            else:
                written = (tmp_path / "slurm-7.out").stat().st_mtime
                assert written == AT.timestamp()
                assert eventually(lambda made=made: made.testimonies(AT, NOBODY), Progress.STUCK).job == "7"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ras: {address: 'gpu-1:28028'}", "telemetry.nccl.ras: address must contain {node} and a port"),
        ("ras: {address: '{node}'}", "telemetry.nccl.ras: address must contain {node} and a port"),
        ("ras: {timeout: 0s}", "telemetry.nccl.ras.timeout: must be longer than zero"),
        ("flight_recorder: {pattern: 'trace_(.*)'}", "telemetry.nccl.flight_recorder: pattern needs a group rank"),
        ("logs: {pattern: '('}", "telemetry.nccl.logs: '(' is not a regular expression"),
        ("logs: {glob: x}", "telemetry.nccl.logs.glob: unknown key"),
    ],
)
def test_a_setting_that_cannot_hold_is_refused_by_its_key(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        _config(tmp_path, f"telemetry: {{nccl: {{{text}}}}}")
    assert problem in str(caught.value)
