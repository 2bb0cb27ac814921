"""Nothing that is found is lost, and no fault is two incidents: causes that end, wholes that take over, returns."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode as Mode
from healer.domain.finding import Finding, Findings, Health, Judgement
from healer.domain.incident import IncidentState
from healer.domain.playbook import Playbook
from healer.policy.selection import choose_playbook
from tests.unit.core_samples import ECC, after, finding, found, judged, playbook
from tests.unit.lives import FLEET, GPU, HEALTHY, JOB, NODE, NODES, FleetLife, Life, gpu_at, sick

LOST = sick(Mode.GPU_FELL_OFF_BUS, gpu_at(0, 3))
XID = sick(Mode.GPU_XID, gpu_at(0, 3))
BRAKE, GONE = Mode.GPU_POWER_BRAKE, Mode.NODE_UNREACHABLE


def all_well(mode: Mode, kind: ComponentKind = ComponentKind.GPU, *, but: Iterable[int] = ()) -> Judgement:
    bad = set(but)
    n = len(FLEET) if kind is ComponentKind.GPU else NODES
    return judged(*[Health.FAILED if r in bad else Health.HEALTHY for r in range(n)], mode=mode, kind=kind)


def over(life: FleetLife, *, until: int) -> None:
    """The GPU that is lost at first is there again."""
    for seconds in range(30, until, 30):
        life.look(seconds, judgements=[all_well(Mode.GPU_FELL_OFF_BUS)])


def test_a_cause_that_is_over_explains_nothing_that_comes_later() -> None:
    life = FleetLife()
    life.look(0, LOST)
    over(life, until=210)
    life.look(210, XID, judgements=[all_well(Mode.GPU_FELL_OFF_BUS)])
    assert life.open() == [(Mode.GPU_XID, "gpu/U0-3")]


def test_what_a_cause_leaves_behind_is_explained_for_as_long_as_the_cause_can_come_back() -> None:
    life = FleetLife()
    life.look(0, LOST, XID)
    for seconds in range(30, 181, 30):
        life.look(seconds, XID, judgements=[all_well(Mode.GPU_FELL_OFF_BUS)])
    for seconds in range(210, 1801, 30):
        life.look(seconds, XID, judgements=[all_well(Mode.GPU_FELL_OFF_BUS)])
        assert life.open() == []
    life.look(1830, XID, judgements=[all_well(Mode.GPU_FELL_OFF_BUS)])
    life.look(1860, XID, judgements=[all_well(Mode.GPU_FELL_OFF_BUS)])
    assert life.open() == [(Mode.GPU_XID, "gpu/U0-3")]


def test_a_stall_that_comes_later_is_not_explained_by_what_a_cause_has_left_behind() -> None:
    life, stalled = FleetLife(), sick(Mode.JOB_STALLED, JOB[0])
    life.look(0, LOST, XID)
    over(life, until=210)
    for seconds in (210, 240):
        life.look(seconds, XID, stalled, judgements=[all_well(Mode.GPU_FELL_OFF_BUS)])
    assert life.open() == [(Mode.JOB_STALLED, "job/j1")]


def test_incidents_of_gpus_end_when_their_node_takes_them_over() -> None:
    life = FleetLife()
    life.look(0, *(sick(BRAKE, gpu_at(2, i)) for i in range(5)))
    sicks = range(16, 22)
    for seconds in (30, 60):
        life.look(seconds, *(sick(BRAKE, gpu_at(2, i)) for i in range(6)), judgements=[all_well(BRAKE, but=sicks)])
    assert life.open() == [(BRAKE, "node/n2")]


def test_a_part_that_the_whole_was_not_put_together_from_keeps_its_own_incident() -> None:
    life = FleetLife()
    life.look(0, sick(BRAKE, gpu_at(2, 7)))
    life.become(IncidentState.REMEDIATING)
    life.look(30, *(sick(BRAKE, gpu_at(2, i)) for i in range(6)))  # and of the last one nobody says anything
    assert life.open() == [(BRAKE, "gpu/U2-7"), (BRAKE, "node/n2")]


def test_incidents_of_nodes_end_when_their_rack_takes_them_over() -> None:
    life = FleetLife()
    life.look(0, *(sick(GONE, NODE[i]) for i in range(2)))
    for seconds in (30, 60):
        judgements = [all_well(GONE, ComponentKind.NODE, but=range(4))]
        life.look(seconds, *(sick(GONE, NODE[i]) for i in range(4)), judgements=judgements)
    assert life.open() == [(GONE, "rack/r0")]


def test_an_incident_ends_also_where_one_looks_more_seldom_than_the_time_to_clear() -> None:
    life = Life()
    life.turn(0, found(finding(GPU)))
    for seconds in range(150, 3600, 150):
        life.turn(seconds, HEALTHY)
    assert life.only().state is IncidentState.RESOLVED


def test_of_a_node_s_own_finding_and_that_of_its_gpus_the_worse_counts() -> None:
    mode = Mode.GPU_COOLING_DEGRADED
    life = FleetLife()
    life.look(0, sick(mode, NODE[2]), *(sick(mode, gpu_at(2, i), Health.DEGRADED) for i in range(8)))
    assert life.only().health is Health.FAILED


def test_a_cause_is_as_bad_as_what_follows_from_it_also_when_that_becomes_worse() -> None:
    slow = sick(Mode.NVLINK_ERRORS, gpu_at(0, 3), Health.DEGRADED)
    life = FleetLife()
    life.look(0, slow, sick(Mode.JOB_STALLED, JOB[0], Health.DEGRADED))
    life.look(30, slow, sick(Mode.JOB_STALLED, JOB[0], Health.FAILED))
    assert life.only().health is Health.FAILED


def test_gpus_that_are_on_no_known_node_are_no_neighbours() -> None:
    strangers = [Component(ComponentKind.GPU, gpu=str(i), uuid=f"X{i}") for i in range(4)]
    life = Life()
    told = found(finding(strangers[0], mode=Mode.GPU_FELL_OFF_BUS), finding(strangers[1], mode=Mode.NVLINK_ERRORS))
    life.turn(0, told, gpus=strangers)
    assert len(life.open()) == 2


def test_a_node_of_mig_instances_is_gathered_like_any_other() -> None:
    instances = [
        Component(ComponentKind.GPU, rack="r1", node="n1", gpu=f"{device}:{instance}", uuid=f"U{device}")
        for device in range(8)
        for instance in range(7)
    ]
    of_devices = [instance for instance in instances if str(instance.gpu).endswith(":0")]  # one for each device
    life = Life()
    life.turn(0, found(*(finding(each, mode=BRAKE) for each in of_devices)), gpus=instances)
    assert life.open() == [(BRAKE, "node/n1")]


def test_a_fault_that_is_back_is_explained_by_what_began_with_its_return() -> None:
    throttled, cooling = sick(Mode.GPU_THROTTLED, gpu_at(0, 1)), sick(Mode.GPU_COOLING_DEGRADED, gpu_at(0, 1))
    life = FleetLife()
    life.look(0, throttled)
    for seconds in range(30, 1500, 30):
        life.look(seconds, judgements=[all_well(Mode.GPU_THROTTLED)])
    assert life.open() == []
    life.look(1500, throttled, cooling)
    assert life.open() == [(Mode.GPU_COOLING_DEGRADED, "gpu/U0-1")]


def test_a_cause_that_is_back_explains_what_it_has_explained_before() -> None:
    hot, throttled = sick(Mode.GPU_THERMAL_LIMIT, gpu_at(0, 1)), sick(Mode.GPU_THROTTLED, gpu_at(0, 1))
    cool = [all_well(Mode.GPU_THERMAL_LIMIT), all_well(Mode.GPU_THROTTLED)]
    life = FleetLife()
    life.look(0, hot, throttled)
    for seconds in range(30, 1500, 30):
        life.look(seconds, judgements=cool)
    life.look(1500, hot)
    for seconds in range(1530, 1800, 30):
        life.look(seconds, hot, throttled)
        assert life.open() == [(Mode.GPU_THERMAL_LIMIT, "gpu/U0-1")]
    assert len(life.incidents) == 1


def test_a_silence_does_not_let_a_fault_that_is_over_stand_for_ever() -> None:
    life = Life()
    life.turn(0, found(finding(GPU)))
    for seconds in range(30, 181, 30):
        life.turn(seconds, HEALTHY)
    for seconds in range(210, 2 * 86400, 600):
        life.turn(seconds, Findings())
    life.turn(2 * 86400, found(finding(GPU)))
    assert len(life.incidents) == 2, "days later it is a new one"


_POOL = (
    LOST,
    XID,
    sick(Mode.NVLINK_ERRORS, gpu_at(0, 5)),
    sick(Mode.NVLINK_ERRORS, gpu_at(0, 6)),
    sick(Mode.JOB_STALLED, JOB[0]),
    sick(Mode.GPU_THROTTLED, gpu_at(1, 1)),
)


def _judgements(seen: Iterable[Finding]) -> list[Judgement]:
    """Everything of which something may be found is looked at."""
    bad = {one.failure_mode: set[int]() for one in _POOL}
    for one in seen:
        bad[one.failure_mode] |= {row for row, where in enumerate((*FLEET, *JOB)) if where == one.component}
    of_jobs = [
        Health.FAILED if row in bad[Mode.JOB_STALLED] else Health.HEALTHY for row in (len(FLEET), len(FLEET) + 1)
    ]
    gpus = [all_well(mode, but=rows) for mode, rows in bad.items() if mode is not Mode.JOB_STALLED]
    return [*gpus, judged(*of_jobs, mode=Mode.JOB_STALLED, kind=ComponentKind.JOB)]


@settings(deadline=None)
@example(spells=[({0, 1}, 1), (set(), 5), ({1, 4}, 2)])
@given(spells=st.lists(st.tuples(st.sets(st.sampled_from(range(len(_POOL)))), st.integers(1, 8)), max_size=6))
def test_whatever_is_found_is_an_open_incident_or_a_symptom_of_one(spells: list[tuple[set[int], int]]) -> None:
    life, seconds = FleetLife(), 0
    missed: set[str] = set()
    for numbers, turns in spells:
        seen = [_POOL[number] for number in sorted(numbers)]
        for _ in range(turns):
            life.look(seconds, *seen, judgements=_judgements(seen))
            seconds += 30
            every = life.incidents.values()
            alive = [incident for incident in every if not incident.state.ended]
            lately = [i for i in every if i.resolved_at and after(seconds) - i.resolved_at <= timedelta(minutes=31)]
            told = {incident.key for incident in alive}
            told |= {symptom.key for incident in (*alive, *lately) for symptom in incident.symptoms}
            missing = {one.key for one in seen} - told
            assert not missing & missed, "in the turn in which its cause ends it may be missed, and no longer"
            missed = missing


def _patient(mode: Mode) -> Playbook:
    return playbook("patient", mode=mode, hold=timedelta(minutes=10))


def test_a_playbook_waits_anew_when_a_fault_is_back() -> None:
    life = Life()
    life.turn(0, found(finding(GPU)))
    for seconds in range(30, 1200, 30):
        life.turn(seconds, HEALTHY)
    life.turn(1200, found(finding(GPU)))
    assert life.only().state is IncidentState.OPEN
    assert choose_playbook(life.only(), [_patient(ECC)], {}, after(1200)) is None


def test_a_playbook_waits_for_a_cause_that_was_noticed_only_now() -> None:
    life = FleetLife()
    for seconds in range(0, 900, 30):
        life.look(seconds, sick(Mode.JOB_STALLED, JOB[0]))
    life.look(900, sick(Mode.JOB_STALLED, JOB[0]), LOST)
    assert life.open() == [(Mode.GPU_FELL_OFF_BUS, "gpu/U0-3")]
    assert choose_playbook(life.only(), [_patient(Mode.GPU_FELL_OFF_BUS)], {}, after(900)) is None
