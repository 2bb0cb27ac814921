"""Sources that complete each other, and one that is slow."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from healer.adapters.topology.layers import BackgroundTopology, LayeredTopology
from healer.domain.topology import Place, Topology
from healer.errors import Unavailable

AT = datetime(2026, 1, 1, tzinfo=UTC)
MOMENT = timedelta(milliseconds=20)
LONG = timedelta(seconds=30)


@dataclass(slots=True)
class Told:
    """Says what it is told to, or fails so; at once, unless it is held."""

    answer: Topology | Unavailable
    open: threading.Event = field(default_factory=threading.Event)
    asked: list[datetime] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open.set()

    def topology(self, at: datetime) -> Topology:
        self.asked.append(at)
        assert self.open.wait(60)
        if isinstance(self.answer, Unavailable):
            raise self.answer
        return self.answer


RACKS = Topology(places={"gpu-1": Place(rack="r1")})
JOBS = Topology(places={"gpu-1": Place(rack="r9", switch="leaf-1")}, jobs={"gpu-1": "7"})


def test_each_layer_completes_the_one_before_it() -> None:
    layered = LayeredTopology(Told(RACKS), Told(JOBS))

    assert layered.topology(AT) == Topology(places={"gpu-1": Place(rack="r1", switch="leaf-1")}, jobs={"gpu-1": "7"})


def test_layers_tell_the_very_same_topology_until_one_of_them_changes() -> None:
    jobs = Told(JOBS)
    layered = LayeredTopology(Told(RACKS), jobs)

    first = layered.topology(AT)
    assert layered.topology(AT) is first

    jobs.answer = Topology(jobs={"gpu-1": "8"})
    assert layered.topology(AT).jobs == {"gpu-1": "8"}


def test_a_layer_that_fails_leaves_no_half_of_an_answer() -> None:
    with pytest.raises(Unavailable, match="down"):
        LayeredTopology(Told(RACKS), Told(Unavailable("slurm", "down"))).topology(AT)


@pytest.fixture
def slow() -> Iterator[Told]:
    told = Told(JOBS)
    yield told
    told.open.set()


def in_background(source: Told, *, at_most: timedelta) -> contextlib.closing[BackgroundTopology]:
    return contextlib.closing(BackgroundTopology(source, at_most=at_most, stale_after=timedelta(minutes=5)))


def _answered(source: BackgroundTopology) -> Topology:
    """Asked until there is an answer: on a busy machine none comes within a moment."""
    while True:
        with contextlib.suppress(Unavailable):
            return source.topology(AT)


def test_an_answer_that_comes_at_once_is_told_at_once(slow: Told) -> None:
    with in_background(slow, at_most=LONG) as source:
        assert source.topology(AT) is JOBS
        assert source.topology(AT + MOMENT) is JOBS

    assert slow.asked == [AT, AT + MOMENT]


def test_while_an_answer_is_under_way_the_last_one_counts_and_nobody_asks_again(slow: Told) -> None:
    with in_background(slow, at_most=MOMENT) as source:
        assert _answered(source) is JOBS
        asked = len(slow.asked)
        slow.open.clear()
        slow.answer = RACKS

        for minute in (1, 2, 5):
            assert source.topology(AT + timedelta(minutes=minute)) is JOBS
        with pytest.raises(Unavailable, match="has been asked for 241 s and has not answered yet"):
            source.topology(AT + timedelta(minutes=5, seconds=1))
        slow.open.set()
        while source.topology(AT + timedelta(minutes=1)) is not RACKS:
            pass
        assert len(slow.asked) == asked + 1


def test_before_the_first_answer_nothing_is_known(slow: Told) -> None:
    slow.open.clear()
    with in_background(slow, at_most=MOMENT) as source, pytest.raises(Unavailable, match="has not answered yet"):
        source.topology(AT)


def test_a_late_answer_is_told_at_the_next_turn(slow: Told) -> None:
    slow.open.clear()
    with in_background(slow, at_most=MOMENT) as source:
        with pytest.raises(Unavailable):
            source.topology(AT)
        slow.open.set()
        assert _answered(source) is JOBS


def test_a_failure_is_told_and_then_it_is_asked_again(slow: Told) -> None:
    slow.answer = Unavailable("slurm", "down")
    with in_background(slow, at_most=LONG) as source:
        with pytest.raises(Unavailable, match="slurm: down"):
            source.topology(AT)

        slow.answer = JOBS
        assert source.topology(AT) is JOBS
