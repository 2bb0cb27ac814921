"""Which silence or window covers an incident, and which silences are not taken."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta

import pytest

from healer.domain.approval import Person
from healer.domain.component import Component, ComponentKind
from healer.domain.maintenance import MaintenanceWindow, Once, Period, Weekly
from healer.domain.matcher import covers, matchers_in
from healer.domain.silence import Silence, Silenced
from healer.policy.silencing import Fault, covering, matchers_of, objection
from tests.unit.core_samples import START, after, gpu, incident, node, rack

ALICE = Person("slack:U024BE7LH", "alice")
LONGEST = timedelta(days=30)


def silence(*matchers: str, starts: float = -60, ends: float = 3600, name: str = "sil-1") -> Silence:
    return Silence(name, matchers_in(matchers), after(starts), after(ends), ALICE, "cables", after(-60))


def window(*matchers: str, starts: float = -60, ends: float = 3600, name: str = "cooling") -> MaintenanceWindow:
    return MaintenanceWindow(name, matchers_in(matchers), Once(Period(after(starts), after(ends))), "pumps")


COVER = Silenced("sil-1", "alice (slack:U024BE7LH)", after(3600), "cables")


# What covers


def test_a_silence_that_matches_says_who_until_when_and_why() -> None:
    assert covering(incident(gpu("A")), [silence("rack=r1")], [], START) == COVER


def test_a_window_that_matches_says_its_name_until_when_and_why() -> None:
    cover = covering(incident(gpu("A")), [], [window("rack=r1")], START)
    assert cover == Silenced("cooling", "the maintenance window cooling", after(3600), "pumps")


def test_a_weekly_window_covers_until_its_next_end() -> None:
    weekly = replace(window("rack=r1"), schedule=Weekly(frozenset({5}), 120, 240, UTC))  # Saturday, as is START
    cover = covering(incident(gpu("A")), [], [weekly], START)
    assert cover is not None
    assert cover.until == after(3600)


@pytest.mark.parametrize(
    "silences",
    [
        pytest.param([], id="none"),
        pytest.param([silence("rack=r2")], id="another rack"),
        pytest.param([silence("rack=r1", "node=n2")], id="one matcher of two"),
        pytest.param([silence("rack=r1", starts=1)], id="not yet"),
        pytest.param([silence("rack=r1", ends=0)], id="no more"),
        pytest.param([replace(silence("rack=r1"), expired_by=ALICE, expired_at=START)], id="expired by a person"),
    ],
)
def test_what_does_not_match_now_covers_nothing(silences: list[Silence]) -> None:
    assert covering(incident(gpu("A")), silences, [window("rack=r2"), window("rack=r1", ends=-1)], START) is None


def test_of_several_the_one_that_lasts_longest_counts() -> None:
    silences = [silence("rack=r1"), silence("node=n1", ends=7200, name="sil-2"), silence("gpu=0", ends=60)]
    cover = covering(incident(gpu("A")), silences, [window("rack=r1", ends=5000)], START)
    assert cover is not None
    assert (cover.source, cover.until) == ("sil-2", after(7200))
    cover = covering(incident(gpu("A")), silences, [window("rack=r1", ends=9000)], START)
    assert cover is not None
    assert cover.source == "cooling"


# What is taken


@pytest.mark.parametrize(
    ("starts", "ends", "fault"),
    [
        (0.0, 60.0, None),
        (0.0, LONGEST.total_seconds(), None),
        (LONGEST.total_seconds(), LONGEST.total_seconds() + 60, None),
        (60.0, 60.0, Fault.ENDS_FIRST),
        (60.0, 0.0, Fault.ENDS_FIRST),
        (-60.0, 0.0, Fault.OVER),
        (0.0, LONGEST.total_seconds() + 1, Fault.TOO_LONG),
        (LONGEST.total_seconds() + 1, LONGEST.total_seconds() + 60, Fault.TOO_FAR),
    ],
    ids=["now", "as long as can be", "as late as can be", "no time", "backwards", "over", "too long", "too far"],
)
def test_a_silence_ends_and_within_bounds(starts: float, ends: float, fault: Fault | None) -> None:
    against = objection(silence("rack=r1", starts=starts, ends=ends), START, longest=LONGEST)
    assert (None if against is None else against.fault) is fault


def test_an_objection_names_the_bound_and_where_it_is_set() -> None:
    against = objection(silence("rack=r1", ends=3e6), START, longest=LONGEST)
    assert str(against) == "a silence lasts at most 30d: see detectors.silences.longest"


# A component


@pytest.mark.parametrize(
    ("component", "text"),
    [
        (gpu("A"), 'uuid="A"'),
        (replace(gpu("A"), uuid=None), 'node="n1" gpu="0"'),
        (node("n1"), 'node="n1"'),
        (rack("r1"), 'kind="rack" rack="r1"'),
        (Component(ComponentKind.JOB, job="j1"), 'kind="job" job="j1"'),
        (Component(ComponentKind.LINK, link="n1/mlx5_0"), 'kind="link" link="n1/mlx5_0"'),
        (Component(ComponentKind.POWER_FEED, link="A"), 'kind="power_feed" link="A"'),
        (Component(ComponentKind.SOURCE, link="n1:9400"), 'kind="source" link="n1:9400"'),
        (Component(ComponentKind.LINK), 'kind="link" link=""'),
    ],
    ids=str,
)
def test_a_component_is_silenced_by_what_names_it(component: Component, text: str) -> None:
    matchers = matchers_of(component)
    assert " ".join(str(matcher) for matcher in matchers) == text
    assert covers(matchers, incident(component))


def test_a_node_is_silenced_with_its_gpus_but_a_rack_without_its_nodes() -> None:
    of_gpu = incident(gpu("A", "n1", rack="r1"))
    assert covers(matchers_of(node("n1")), of_gpu)
    assert not covers(matchers_of(rack("r1")), of_gpu)
    assert not covers(matchers_of(Component(ComponentKind.JOB, job="j1")), of_gpu)
