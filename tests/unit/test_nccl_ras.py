"""Whether a job moves and who holds it up, from what NCCL's RAS answers in two looks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.domain.testimony import Blame, Collective, Culprit, Progress, Testimony, Witness
from healer.errors import Unavailable
from healer.telemetry.nccl.ras import Look, look_says, places
from healer.telemetry.nccl.ras_answer import Answer, read_json
from healer.telemetry.nccl.ras_text import read_text
from tests.nccl_samples import AT, Raw, ras_communicator, ras_json, ras_lost, ras_rank, ras_text

MINUTE = timedelta(minutes=1)


def parsed(data: bytes) -> Answer:
    return read_json(data, name="ras") if data.startswith(b"{") else read_text(data, name="ras")


def seen(*answers: bytes) -> Testimony:
    """One look a minute."""
    look = Look.first(parsed(answers[0]), AT)
    for number, answer in enumerate(answers[1:], 1):
        look = look.then(parsed(answer), AT + number * MINUTE)
    return look_says(look, job="7", where="gpu-1", nodes={"10.0.0.2": "gpu-2"})


def host(rank: int) -> str:
    return f"10.0.0.{1 + rank // 8}"


def ranks(
    launched: Sequence[int], *, of: Sequence[int] | None = None, error_on: dict[int, int] | None = None
) -> list[Raw]:
    return [
        ras_rank(number, host=host(rank), gpu=rank % 8, launched=count, error=(error_on or {}).get(rank, 0))
        for number, (rank, count) in enumerate(zip(of or range(len(launched)), launched, strict=True))
    ]


def whole(launched: Sequence[int], **more: dict[int, int]) -> bytes:
    return ras_json(ras_communicator("cf26", ranks(launched, error_on=more.get("error_on"))))


def counts(*, behind: Sequence[int], of: int = 16, top: int = 641) -> list[int]:
    return [top - (rank in behind) for rank in range(of)]


def blamed(testimony: Testimony) -> dict[int | None, Blame]:
    return {culprit.rank: culprit.blame for culprit in testimony.culprits}


# Two looks


def test_counts_that_stand_still_name_who_has_launched_fewer() -> None:
    answer = whole(counts(behind=[12]))

    testimony = seen(answer, answer)

    assert testimony == Testimony(
        witness=Witness.RAS,
        where="gpu-1",
        at=AT + MINUTE,
        job="7",
        progress=Progress.STUCK,
        says="15 of 16 ranks have waited in AllReduce 641 of group cf26 for 60 s; behind: rank 12",
        culprits=(Culprit(Blame.BEHIND, "cf26", rank=12, group_rank=12, node="gpu-2", gpu="4"),),
        collective=Collective("AllReduce", "cf26", 641),
        stuck_for=MINUTE,
    )


def test_counts_that_differ_and_move_are_a_job_at_work() -> None:
    testimony = seen(whole(counts(behind=[12])), whole(counts(behind=[12], top=642)))
    assert (testimony.progress, testimony.culprits) == (Progress.PROGRESSING, ())


def test_one_look_does_not_tell() -> None:
    testimony = seen(whole(counts(behind=[12])))
    assert (testimony.progress, testimony.culprits) == (Progress.UNKNOWN, ())
    assert "next look" in testimony.says


def test_counts_have_to_stand_still_for_a_while() -> None:
    answer = parsed(whole(counts(behind=[12])))
    look = Look.first(answer, AT).then(answer, AT + timedelta(seconds=5))
    assert look_says(look, job=None, where="").progress is Progress.UNKNOWN


def test_how_long_it_is_stuck_counts_from_the_last_move() -> None:
    before, stuck = whole(counts(behind=[], top=640)), whole(counts(behind=[12]))
    assert seen(before, stuck, stuck, stuck).stuck_for == 2 * MINUTE


def test_equal_counts_that_stand_still_do_not_tell_a_stuck_gpu_from_a_job_that_computes() -> None:
    """As in a public report: RAS called the job healthy while its watchdog timed out."""
    answer = whole(counts(behind=[]))

    testimony = seen(answer, answer)

    assert (testimony.progress, testimony.culprits) == (Progress.UNKNOWN, ())
    assert testimony.says == "1 communicators of 16 GPUs: no rank has launched an operation for 60 s"


@pytest.mark.parametrize(("behind", "named"), [(8, 8), (9, 0), (15, 0)], ids=["half", "more than half", "all but one"])
def test_where_most_are_behind_nobody_is_named(behind: int, named: int) -> None:
    answer = whole(counts(behind=range(behind)))
    testimony = seen(answer, answer)
    assert testimony.progress is Progress.STUCK
    assert len(testimony.culprits) == named


def test_who_waits_in_one_communicator_is_not_to_blame_in_another() -> None:
    """Two tensor-parallel groups of four and four data-parallel pairs across them; GPU 5 hangs."""
    tensor = [ranks([9, 9, 9, 9], of=range(4)), ranks([9, 8, 9, 9], of=range(4, 8))]
    data = [ranks([21, 20], of=[rank, rank + 4]) for rank in range(4)]
    everybody = ras_communicator("0", ranks([3] * 8))
    answer = ras_json(
        everybody,
        *(ras_communicator(f"{number:x}", told) for number, told in enumerate([*tensor, *data], 1)),
    )

    testimony = seen(answer, answer)

    assert blamed(testimony) == {5: Blame.BEHIND}


# Who does not answer, and who reports errors


def test_a_rank_that_does_not_answer_holds_up_a_job_that_does_not_move() -> None:
    lost = ras_lost(15, host=host(15), gpu=7)
    answer = ras_json(ras_communicator("cf26", ranks([641] * 15), [lost]))

    testimony = seen(answer, answer)

    assert testimony.progress is Progress.STUCK
    assert testimony.culprits == (Culprit(Blame.SILENT, "cf26", rank=15, group_rank=15, node="gpu-2", gpu="7"),)
    assert testimony.says == "15 of 16 ranks have waited in an operation of group cf26 for 60 s; silent: rank 15"


def test_a_rank_that_counts_as_dead_has_failed_the_job_at_the_first_look() -> None:
    lost = ras_lost(15, host=host(15), gpu=7, dead=True)

    testimony = seen(ras_json(ras_communicator("cf26", ranks([641] * 15), [lost])))

    assert testimony.progress is Progress.FAILED
    assert blamed(testimony) == {15: Blame.SILENT}
    assert testimony.says == "1 ranks do not answer and count as dead: rank 15"


def test_a_rank_that_answers_and_has_left_the_communicator_is_not_lost() -> None:
    left = ras_lost(15, host=host(15), gpu=7, unresponsive=False)
    answer = ras_json(ras_communicator("cf26", ranks([641] * 15), [left]))
    assert seen(answer, answer).culprits == ()


def test_who_reports_an_error_of_its_own_is_named_and_who_suffers_from_it_is_not() -> None:
    testimony = seen(whole([641] * 8, error_on={3: 1, 4: 6, 5: 6}))

    assert testimony.progress is Progress.FAILED
    assert blamed(testimony) == {3: Blame.FAILED}
    assert "1 ranks report 'Unhandled CUDA error'" in testimony.says
    assert "2 ranks report 'Remote process error'" in testimony.says


def test_what_is_in_progress_is_no_error() -> None:
    assert seen(whole([641] * 8, error_on={3: 7})).progress is Progress.UNKNOWN


def test_where_each_global_rank_runs_is_told_by_the_communicator_of_all() -> None:
    pair = ras_communicator("1", ranks([5, 5], of=[8, 9]))
    answer = parsed(ras_json(pair, ras_communicator("cf26", ranks([641] * 16))))

    told = places(answer, {"10.0.0.2": "gpu-2"})

    assert len(told) == 16
    assert (told[0], told[12]) == (("10.0.0.1", "0"), ("gpu-2", "4"))
    assert places(parsed(ras_json(pair, ras_communicator("2", ranks([5, 5], of=[6, 7])))), {}) == {}


# As text

ROW = "    0         1         4         8        32        32   RUNNING  MISMATCH\n"
BEHIND = """#0-0 (fa93daea854b060b) MISMATCH
  Communicator ranks have different AllGather operation counts
  30 ranks have launched up to operation 641
  2 ranks have launched up to operation 640
  Rank 12 -- GPU 4 managed by process 323032 on node 10.0.0.2
  Rank 13 -- GPU 0 (NVML 5) managed by process 323033 on node 10.0.0.2

"""
ALONE = """#0-0 (fa93daea854b060b) MISMATCH
  Communicator ranks have different AllReduce operation counts
  31 ranks have launched up to operation 641
  Rank 12 has not launched any operations -- GPU 4 managed by process 323032 on node 10.0.0.2

"""
BEFORE_2_26 = """#0-0 (27a079b828ff1a75) MISMATCH
  Communicator ranks have different collective operation counts
  31 ranks have launched up to operation 6650
  Rank 12 has launched up to operation 6649 -- GPU 4 managed by process 483072 on node 10.0.0.2

"""
LEADERS = """#0-0 (fa93daea854b060b) MISMATCH
  Communicator ranks have different AllGather operation counts
  30 ranks have launched up to operation 640
  2 ranks have launched up to operation 641
  Rank 12 -- GPU 4 managed by process 323032 on node 10.0.0.2
  Rank 13 -- GPU 5 managed by process 323033 on node 10.0.0.2

"""
STATUS = """#0-0 (9e17999afaa87dbb) MISMATCH
  Communicator ranks have different status
  30 ranks have status NOCOMM
  Rank 4 has status FINALIZE -- GPU 4 managed by process 507289 on node 10.0.0.2
  Rank 5 has status RUNNING -- [process information not found]

"""
LOST = """INCOMPLETE
  Missing communicator data from 1 job process
  Process 3487984 on node 10.0.0.2 managing GPU 5

#0-0 (cf264af53edbe986) INCOMPLETE
  Missing communicator data from 1 rank
  {}

"""
NEW_LOST = LOST.format("Rank 21 -- GPU 5 managed by process 3487984 on node 10.0.0.2")
OLD_LOST = LOST.format("The missing rank: 21")
ERROR = """#0-0 (cf264af53edbe986) ERROR
  Asynchronous errors on 3 ranks
  2 ranks reported Remote process error
  Rank 1 -- GPU 1 managed by process 11 on node 10.0.0.1
  Rank 2 -- GPU 2 managed by process 12 on node 10.0.0.1
  Rank 3 reported Unhandled CUDA error -- GPU 3 managed by process 13 on node 10.0.0.1

"""


@pytest.mark.parametrize(
    ("errors", "warnings", "culprits"),
    [
        ("", BEHIND, {12: ("gpu-2", "4"), 13: ("gpu-2", "5")}),
        ("", ALONE, {12: ("gpu-2", "4")}),
        ("", BEFORE_2_26, {12: ("gpu-2", "4")}),
        ("", LEADERS, {}),
        (NEW_LOST, "", {21: ("gpu-2", "5")}),
        (OLD_LOST, "", {21: ("gpu-2", "5")}),
    ],
    ids=["behind", "one behind", "before 2.26", "one step ahead is no fault", "lost", "lost, before 2.26"],
)
def test_text_names_the_fewer(errors: str, warnings: str, culprits: dict[int, tuple[str, str]]) -> None:
    answer = ras_text(ROW, errors, warnings)

    testimony = seen(answer, answer)

    assert testimony.progress is Progress.STUCK
    assert {c.rank: (c.node, c.gpu) for c in testimony.culprits} == culprits


def test_text_that_calls_everything_well_tells_nothing() -> None:
    answer = ras_text(ROW.replace("MISMATCH", "OK"))
    testimony = seen(answer, answer)
    assert testimony.progress is Progress.UNKNOWN
    assert "how many is not told" in testimony.says


def test_text_that_changes_is_a_job_at_work() -> None:
    assert seen(ras_text(ROW, "", BEHIND), ras_text(ROW, "", LEADERS)).progress is Progress.PROGRESSING


def test_ranks_in_different_states_are_no_counts() -> None:
    answer = ras_text(ROW, "", STATUS)
    assert seen(answer, answer).culprits == ()


def test_text_tells_errors() -> None:
    testimony = seen(ras_text(ROW, ERROR))
    assert testimony.progress is Progress.FAILED
    assert blamed(testimony) == {3: Blame.FAILED}


def test_text_tells_of_the_dead() -> None:
    dead = NEW_LOST.replace("INCOMPLETE\n  Missing", "DEAD\n  1 job process is considered dead\n  Missing", 1)
    testimony = seen(ras_text(ROW, dead))
    assert testimony.progress is Progress.FAILED
    assert blamed(testimony) == {21: Blame.SILENT}


def test_where_text_does_not_tell_who_waits_the_one_who_is_missing_most_often_is_named() -> None:
    """Two groups of four and pairs across them, as before: who waits in the groups of four is not named."""
    rows = (
        "    0         2         1         4         4         8   RUNNING  MISMATCH\n"
        "    1         4         2         1         2         8   RUNNING  MISMATCH\n"
    )
    four = (
        "#0-1 (a2) MISMATCH\n  Communicator ranks have different AllReduce operation counts\n"
        "  3 ranks have launched up to operation 9\n"
        "  Rank 1 has launched up to operation 8 -- GPU 5 managed by process 15 on node n1\n\n"
    )
    pairs = "".join(
        f"#1-{i} (b{i}) MISMATCH\n  Communicator ranks have different AllReduce operation counts\n"
        f"  Rank 0 has launched up to operation 21 -- GPU {i} managed by process 1{i} on node n1\n"
        f"  Rank 1 has launched up to operation 20 -- GPU {i + 4} managed by process 1{i + 4} on node n1\n\n"
        for i in range(4)
    )
    answer = ras_text(rows, "", four + pairs)

    assert [culprit.gpu for culprit in seen(answer, answer).culprits] == ["5"]


# What is no answer


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "does not answer as NCCL RAS does"),
        (b"SSH-2.0-OpenSSH_9.6\n", "does not answer as NCCL RAS does"),
        (ras_text(ROW).partition(b"Warnings")[0], "broke off"),
        (b"{", "does not answer as NCCL RAS does"),
        (b'{"communicators": 1}', "does not answer as NCCL RAS does"),
        (b'{"communicators": ' + b"[" * 100_000, "does not answer as NCCL RAS does"),
        (whole([1])[:-40], "does not answer as NCCL RAS does"),
    ],
)
def test_what_is_no_answer_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Unavailable, match=why):
        parsed(data)


_lines = st.sampled_from(
    [*(BEHIND + ALONE + STATUS + NEW_LOST + OLD_LOST + ERROR + ROW).splitlines(), "DEAD", "(total)  (total)", "7 8"]
)


@given(lines=st.lists(_lines | st.text(max_size=40), max_size=40))
def test_any_lines_in_any_order_are_an_answer_and_say_something(lines: list[str]) -> None:
    answer = ("Communicators...\n" + "\n".join(lines) + "\nWarnings\n").encode()
    assert isinstance(seen(answer, answer), Testimony)


@given(data=st.binary(max_size=60), place=st.integers(0, 2000))
def test_an_answer_with_anything_in_it_is_read_or_refused(data: bytes, place: int) -> None:
    for answer in (whole(counts(behind=[1], of=3)), ras_text(ROW, NEW_LOST, BEHIND)):
        at = place % len(answer)
        with contextlib.suppress(Unavailable):
            parsed(answer[:at] + data + answer[at + len(data) :])


def test_unknown_fields_do_not_matter() -> None:
    told = json.loads(whole(counts(behind=[12]))) | {"diagnostics": [1]}
    told["communicators"][0]["ranks"][0]["nvl_domain"] = 3
    answer = json.dumps(told).encode()
    assert seen(answer, answer).progress is Progress.STUCK
