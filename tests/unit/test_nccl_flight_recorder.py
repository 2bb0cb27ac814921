"""Who holds up a job, from the dumps of its ranks: each way of standing still, and when nobody is named."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.domain.testimony import Blame, Collective, Progress, Testimony, Witness
from healer.errors import Unavailable
from healer.telemetry.nccl.dump import read_dump
from healer.telemetry.nccl.flight_recorder import dumps_say
from tests.fuzz.fuzz_flight_recorder import one_input, seeds
from tests.nccl_samples import AT, DONE, STARTED, STUCK_S, Recorded, as_json, entry, world

REAL = Path(__file__).parent / "flight_recorder"
REAL_AT = datetime(2026, 11, 27, 8, tzinfo=UTC)


def said(files: Mapping[int, bytes], *, at: datetime = AT, patience_s: float = 60, all_spoke: bool = True) -> Testimony:
    dumps = {rank: read_dump(data, name=f"rank {rank}") for rank, data in files.items()}
    patience = timedelta(seconds=patience_s)
    return dumps_say(dumps, job="7", where="/dumps", at=at, all_spoke=all_spoke, patience=patience)


def blamed(testimony: Testimony) -> dict[int | None, Blame]:
    return {culprit.rank: culprit.blame for culprit in testimony.culprits}


def all_but(*ranks: int, of: int = 8) -> list[int]:
    return [rank for rank in range(of) if rank not in ranks]


# One group


def _never_asked() -> dict[int, bytes]:
    job = world(8)
    job.wait(all_but(5), "0", 78)
    return job.files()


def _another_operation() -> dict[int, bytes]:
    job = world(8)
    job.wait(all_but(5), "0", 78)
    job.add(5, "0", 78, operation="nccl:_all_gather_base")
    return job.files()


def _another_size() -> dict[int, bytes]:
    job = world(8)
    job.wait(all_but(5), "0", 78)
    job.add(5, "0", 78, size=4095)
    return job.files()


def _another_type() -> dict[int, bytes]:
    job = world(8)
    job.wait(all_but(5), "0", 78)
    job.add(5, "0", 78, dtype="Float")
    return job.files()


def _gpu_has_not_come_to_it() -> dict[int, bytes]:
    job = world(8)
    job.wait(all_but(5), "0", 78, STARTED)
    job.add(5, "0", 78)
    return job.files()


def _no_dump() -> dict[int, bytes]:
    job = world(8)
    job.wait(all_but(5), "0", 78)
    return job.files(without=[5])


def _others_are_out_of_it() -> dict[int, bytes]:
    job = world(8)
    for rank in all_but(5):
        job.add(rank, "0", 78, DONE)
        job.add(rank, "0", 79, ago_s=STUCK_S - 1)
    job.add(5, "0", 78)
    return job.files()


def _two_are_behind() -> dict[int, bytes]:
    job = world(8)
    job.wait(all_but(0, 4), "0", 78)
    job.wait(all_but(0, 4), "0", 79)
    return job.files()


def _all_are_in() -> dict[int, bytes]:
    job = world(8)
    job.wait(range(8), "0", 78, STARTED)
    return job.files()


def _most_are_behind() -> dict[int, bytes]:
    job = world(8)
    job.wait([3], "0", 78)
    return job.files()


def _half_against_half() -> dict[int, bytes]:
    job = world(8)
    job.wait(range(4), "0", 78)
    job.wait(range(4, 8), "0", 78, operation="nccl:broadcast")
    return job.files()


def _most_dumps_are_elsewhere() -> dict[int, bytes]:
    job = world(8)
    job.wait(range(8), "0", 78)
    return job.files(without=range(3, 8))


def _uneven_by_right() -> dict[int, bytes]:
    job = world(8)
    for rank in range(8):
        job.add(rank, "0", 78, STARTED, operation="nccl:all_to_all", size=1000 + rank)
    return job.files()


ONE_GROUP: dict[str, tuple[Callable[[], dict[int, bytes]], dict[int, Blame]]] = {
    "has not asked for it": (_never_asked, {5: Blame.BEHIND}),
    "asked for another operation": (_another_operation, {5: Blame.DIFFERENT}),
    "asked for another size": (_another_size, {5: Blame.DIFFERENT}),
    "asked for another type": (_another_type, {5: Blame.DIFFERENT}),
    "its GPU has not come to it": (_gpu_has_not_come_to_it, {5: Blame.NOT_STARTED}),
    "has not dumped": (_no_dump, {5: Blame.SILENT}),
    "is still in what the others are out of": (_others_are_out_of_it, {5: Blame.BEHIND}),
    "two of eight": (_two_are_behind, {0: Blame.BEHIND, 4: Blame.BEHIND}),
    "nobody: all are in it": (_all_are_in, {}),
    "nobody: most are behind": (_most_are_behind, {}),
    "nobody: half against half": (_half_against_half, {}),
    "nobody: most dumps are not to be seen": (_most_dumps_are_elsewhere, {}),
    "nobody: sizes may differ": (_uneven_by_right, {}),
}


@pytest.mark.parametrize("case", ONE_GROUP)
def test_the_culprit_is_the_rank_that_does_not_do_as_the_others(case: str) -> None:
    files, culprits = ONE_GROUP[case]

    testimony = said(files())

    assert testimony.progress is Progress.STUCK
    assert blamed(testimony) == culprits
    assert testimony.collective is not None
    assert (testimony.collective.group, testimony.collective.number) == ("0 (default_pg)", 78)


@pytest.mark.parametrize("case", ONE_GROUP)
def test_dumps_as_json_say_the_same(case: str) -> None:
    files = ONE_GROUP[case][0]()
    again = {rank: as_json(pickle.loads(data)) for rank, data in files.items()}

    assert said(again) == said(files)


@pytest.mark.parametrize("size", [8, 16, 64])
def test_the_testimony_tells_who_where_what_and_for_how_long(size: int) -> None:
    job = world(size)
    job.wait(all_but(5, of=size), "0", 78)

    testimony = said(job.files())

    assert (testimony.witness, testimony.where, testimony.job) == (Witness.FLIGHT_RECORDER, "/dumps", "7")
    assert testimony.at == AT
    assert testimony.stuck_for == timedelta(seconds=STUCK_S)
    assert testimony.collective == Collective("AllReduce", "0 (default_pg)", 78)
    assert testimony.says == (
        f"{size - 1} of {size} ranks have waited in AllReduce 78 of group 0 (default_pg) for 600 s; behind: rank 5"
    )


def test_where_all_are_in_it_says_that_it_cannot_tell() -> None:
    assert said(_all_are_in()).says == (
        "8 of 8 ranks have waited in AllReduce 78 of group 0 (default_pg) for 600 s: all are in it, so a GPU or the "
        "network between them is stuck, and it is not told whose"
    )


def test_nobody_is_blamed_for_silence_before_all_could_speak() -> None:
    assert blamed(said(_no_dump(), all_spoke=False)) == {}
    assert blamed(said(_never_asked(), all_spoke=False)) == {5: Blame.BEHIND}


def test_nodes_are_told_where_they_are_known() -> None:
    dumps = {rank: read_dump(data, name="") for rank, data in _never_asked().items()}
    (culprit,) = dumps_say(dumps, job=None, where="", at=AT, nodes={5: "gpu-2"}).culprits
    assert (culprit.node, culprit.gpu) == ("gpu-2", None)


# Several groups

TENSOR, DATA = 8, 8


def _grid() -> Recorded:
    """64 ranks in 8 tensor-parallel groups of neighbours and 8 data-parallel ones across them."""
    groups: dict[str, tuple[str, list[int]]] = {"0": ("default_pg", list(range(TENSOR * DATA)))}
    for row in range(DATA):
        groups[str(1 + row)] = ("tp", list(range(row * TENSOR, (row + 1) * TENSOR)))
    for column in range(TENSOR):
        groups[str(1 + DATA + column)] = ("dp", list(range(column, TENSOR * DATA, TENSOR)))
    job = Recorded(groups)
    for name, (desc, _) in groups.items():
        if desc != "default_pg":
            job.ran(name, range(10, 21), ago_s=STUCK_S + 60)
    return job


def _row(rank: int) -> str:
    return str(1 + rank // TENSOR)


def _column(rank: int) -> str:
    return str(1 + DATA + rank % TENSOR)


def test_who_waits_in_one_group_is_not_to_blame_in_another() -> None:
    job, culprit = _grid(), 37
    for rank in all_but(culprit, of=64):
        if _row(rank) == _row(culprit):
            job.add(rank, _row(rank), 21)  # they wait for it at once
        else:
            job.add(rank, _row(rank), 21, DONE, ago_s=STUCK_S - 1)
            job.add(rank, _column(rank), 21, ago_s=STUCK_S - 2)  # and these for those, a moment later

    testimony = said(job.files())

    assert blamed(testimony) == {culprit: Blame.BEHIND}
    assert testimony.collective == Collective("AllReduce", "5 (tp)", 21)
    assert [c.group_rank for c in testimony.culprits] == [culprit % TENSOR]
    assert testimony.says.startswith("7 of 8 ranks have waited in AllReduce 21 of group 5 (tp) for 600 s; behind: rank")


def test_a_whole_node_that_has_gone_is_named_whole() -> None:
    job = _grid()
    gone = range(8, 16)
    for rank in all_but(*gone, of=64):
        job.add(rank, _row(rank), 21, DONE, ago_s=STUCK_S + 1)
        job.add(rank, _column(rank), 21)

    assert blamed(said(job.files(without=gone))) == dict.fromkeys(gone, Blame.SILENT)


def test_a_rank_that_is_behind_counts_more_than_one_that_is_silent() -> None:
    job = world(8)
    job.wait(all_but(5, 6), "0", 78)
    assert blamed(said(job.files(without=[6]))) == {5: Blame.BEHIND}


def test_where_everybody_waits_for_somebody_who_waits_the_first_to_stand_still_explains_it() -> None:
    job = Recorded({"1": ("a", [0, 1]), "2": ("b", [0, 1])})
    job.add(0, "1", 5, ago_s=STUCK_S)
    job.add(1, "2", 5, ago_s=STUCK_S - 5)

    testimony = said(job.files())

    assert blamed(testimony) == {1: Blame.BEHIND}
    assert testimony.collective == Collective("AllReduce", "1 (a)", 5)


def test_groups_with_the_same_name_and_other_members_are_other_groups() -> None:
    job = Recorded({"0": ("default_pg", range(8))})
    files = job.files()
    for rank in range(8):
        mine = range(4) if rank < 4 else range(4, 8)
        config = {"9": {"name": "9", "desc": "tp", "ranks": str(list(mine))}}
        number = 30 if rank < 4 else 78
        entries = [] if rank == 6 else [entry(("9", "tp"), number, DONE if rank < 4 else "scheduled")]
        files[rank] = pickle.dumps({"version": "2.4", "pg_config": config, "entries": entries})

    assert blamed(said(files)) == {6: Blame.BEHIND}


def test_a_dump_that_does_not_tell_who_is_in_a_group_makes_no_group_of_its_own() -> None:
    job = world(8)
    job.wait(all_but(5), "0", 78)
    files = job.files()
    files[3] = pickle.dumps(job.raw(3) | {"pg_config": {}})
    assert blamed(said(files)) == {5: Blame.BEHIND}
    assert said(files).says.startswith("7 of 8 ranks")


def test_ranks_of_a_group_are_counted_in_the_group_and_named_in_the_job() -> None:
    job = Recorded({"4": ("tp", [12, 13, 14, 15])})
    job.wait([12, 13, 15], "4", 3)

    (culprit,) = said(job.files()).culprits

    assert (culprit.rank, culprit.group_rank, culprit.group) == (14, 2, "4 (tp)")


# Point to point


def _pipeline(stages: int) -> Recorded:
    return Recorded({"3": ("pp", [10 * stage for stage in range(stages)])})


def test_a_receiver_waits_for_the_sender_that_has_not_sent() -> None:
    job = _pipeline(4)
    for stage in (1, 2, 3):
        job.add(10 * stage, "3", 5, operation=f"nccl:recv {stage}<-{stage - 1}", p2p=True, ago_s=STUCK_S - stage)

    testimony = said(job.files())

    assert blamed(testimony) == {0: Blame.BEHIND}
    assert testimony.collective == Collective("Recv", "3 (pp)", 5)


def test_a_sender_whose_receiver_is_in_it_too_waits_for_the_network() -> None:
    job = _pipeline(2)
    job.add(0, "3", 5, operation="nccl:send 0->1", p2p=True)
    job.add(10, "3", 5, operation="nccl:recv 1<-0", p2p=True)

    testimony = said(job.files())

    assert testimony.progress is Progress.STUCK
    assert blamed(testimony) == {}


def test_a_peer_without_a_dump_is_silent() -> None:
    job = _pipeline(2)
    job.add(10, "3", 5, operation="nccl:recv 1<-0", p2p=True)
    assert blamed(said(job.files(without=[0]))) == {0: Blame.SILENT}


def test_operations_of_a_coalesced_group_end_with_it_whatever_they_say_themselves() -> None:
    job = _pipeline(2)
    for rank, peers in ((0, "send 0->1"), (10, "recv 1<-0")):
        job.add(rank, "3", 5, operation=f"nccl:{peers}", p2p=True)
        job.add(rank, "3", 5, DONE, operation="nccl:coalesced", p2p=True)
    assert said(job.files()).progress is Progress.UNKNOWN

    job.add(10, "3", 6, operation="nccl:recv 1<-0", p2p=True)
    job.add(10, "3", 6, operation="nccl:coalesced", p2p=True)
    assert blamed(said(job.files())) == {0: Blame.BEHIND}


def test_point_to_point_numbers_do_not_count_as_those_of_collectives() -> None:
    job = world(2)
    for rank in range(2):
        job.add(rank, "0", 500, DONE, operation=f"nccl:send {rank}->{1 - rank}", p2p=True)
        job.add(rank, "0", 78, STARTED)
    assert blamed(said(job.files())) == {}


# Not stuck, or not known to be


def test_what_has_not_lasted_long_is_no_stall() -> None:
    job = world(8)
    job.wait(all_but(5), "0", 78, ago_s=2)

    testimony = said(job.files())

    assert (testimony.progress, testimony.culprits) == (Progress.PROGRESSING, ())
    assert said(job.files(), patience_s=1).progress is Progress.STUCK


def test_ranks_that_are_in_no_collective_are_held_up_by_something_else_if_at_all() -> None:
    testimony = said(world(8).files())
    assert testimony.progress is Progress.UNKNOWN
    assert "not NCCL" in testimony.says


def test_dumps_without_entries_tell_who_is_behind_and_not_since_when() -> None:
    job = world(8)
    files = {}
    for rank in range(8):
        raw = job.raw(rank) | {"entries": []}
        enqueued = 77 if rank == 5 else 78
        raw["pg_status"] = {"0": {"last_enqueued_collective": enqueued, "last_completed_collective": 77}}
        files[rank] = as_json(raw) if rank % 2 else pickle.dumps(raw)

    testimony = said(files)

    assert testimony.progress is Progress.UNKNOWN
    assert testimony.stuck_for is None
    assert blamed(testimony) == {5: Blame.BEHIND}
    assert testimony.says == (
        "7 of 8 ranks have waited in an operation 78 of group 0 (default_pg), since when is not told; behind: rank 5"
    )


def test_a_recorder_that_has_overwritten_the_collective_still_shows_who_is_behind() -> None:
    job = world(8)
    for rank in all_but(5):
        job.entries[rank] = []
    for number in range(600, 605):
        job.wait(all_but(5), "0", number)
    assert blamed(said(job.files())) == {5: Blame.BEHIND}


# What is read


@pytest.mark.parametrize("form", ["pickle", "json"])
def test_what_pytorch_itself_has_written_is_understood(form: str) -> None:
    """By PyTorch 2.9.1 over Gloo: rank 2 never came to the third all_reduce, and not to the broadcast of its group."""
    files = {rank: (REAL / f"torch-2.9.1-rank_{rank}.{form}").read_bytes() for rank in range(4)}

    testimony = said(files, at=REAL_AT)

    assert blamed(testimony) == {2: Blame.BEHIND}
    assert testimony.collective == Collective("AllReduce", "0 (default_pg)", 3)
    assert testimony.says.startswith("3 of 4 ranks have waited in AllReduce 3 of group 0 (default_pg) for ")
    del files[2]
    assert blamed(said(files, at=REAL_AT)) == {2: Blame.SILENT}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no dump"),
        (b"{}", "no dump of the Flight Recorder .*version"),
        (b'{"version":"1.5","entries":[]}', "version 1.5; 2.x is understood"),
        (pickle.dumps({"version": "3.0"}), "version 3.0"),
        (pickle.dumps([1]), "no dump"),
        (pickle.dumps({"version": "2.4", "entries": [{}]}), "missing required field"),
        (b'{"version":"2.4","pg_config":{"0":{"ranks":"[0, x]"}}}', "no dump"),
        (b'{"version":"2.4","pg_config":{"0":{"ranks":"__import__(\'os\')"}}}', "no dump"),
        (b'{"version":"2.4","pg_config":{"0":{"ranks":"[-1]"}}}', "no dump"),
        (b'{"version":"2.4","pg_config":{"0":{"ranks":"[2305843009213693951]"}}}', "no dump"),
        (pickle.dumps({"version": "2.4", "entries": [entry(("0", ""), 2**61 * 8)]}), "no dump"),
        (b"{" + b" " * (65 << 20), "more than 67108864 are not read"),
        (b"[" * 100_000, "no dump"),
        (b'{"version":"2.4","entries":[', "no dump"),
        (pickle.dumps({"version": "2.4", "entries": [entry(("0", ""), 1) | {"time_created_ns": 2**2000}]}), "no dump"),
    ],
)
def test_what_is_no_dump_is_refused_with_its_name(data: bytes, why: str) -> None:
    with pytest.raises(Unavailable, match=f"^/dumps/rank_0: .*{why}"):
        read_dump(data, name="/dumps/rank_0")


@pytest.mark.parametrize("data", seeds())
def test_the_seeds_of_the_fuzzer_are_dumps(data: bytes) -> None:
    assert read_dump(data, name="seed").groups
    one_input(data)


@given(data=st.binary(max_size=200), seed=st.sampled_from(seeds()), place=st.integers(0, 5000))
def test_a_dump_with_anything_in_it_is_read_or_refused(data: bytes, seed: bytes, place: int) -> None:
    place %= len(seed)
    one_input(seed[:place] + data + seed[place + len(data) :])


_numbers = st.integers(-2, 4)


@given(
    waits=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("012"), _numbers, st.sampled_from([DONE, STARTED, "scheduled"])),
        max_size=30,
    ),
    missing=st.sets(st.integers(0, 5), max_size=5),
)
def test_whatever_ranks_do_no_more_than_half_of_a_group_is_blamed_and_nobody_who_waits_elsewhere(
    waits: list[tuple[int, str, int, str]], missing: set[int]
) -> None:
    job = Recorded({"0": ("all", range(6)), "1": ("left", range(3)), "2": ("right", range(3, 6))})
    for rank, group, number, state in waits:
        if rank in job.groups[group][1]:
            job.add(rank, group, number, state)

    testimony = said(job.files(without=missing))

    assert len(testimony.culprits) <= 3 + 1 + 1
    assert (testimony.progress is Progress.STUCK) or not testimony.culprits
    assert all(culprit.group_rank is not None for culprit in testimony.culprits)
