"""The verbs on a rack's power: equal shares within the budget, others' limits left alone, and back as it was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from healer.actions.power import Cap, Hold, Restore
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import GpuPower
from healer.domain.frame import Frame
from healer.domain.reading import Reading
from healer.domain.run import Done, EffectRecord, EffectState, Failed, Outcome, RetryAfter
from healer.errors import NotFound, Rejected, Unavailable
from healer.rehearsal.virtual import FleetPower, FleetTelemetry, VirtualClock
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import SimulatedFleet
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from healer.verb import World
from tests.journal_samples import NOW, Notes, plan_of, run_of
from tests.readings import reading_of

RACK = Component(ComponentKind.RACK, rack="rack-1")
CAP, HOLD, RESTORE = Cap(), Hold(), Restore()
CAPPING = Cap.Arguments()
HOLDING = Hold.Arguments(lasting=timedelta(seconds=20))
RESTORING = Restore.Arguments()
FLOOR_W = 300.0


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Bench:
    """A rack whose load surges: 2 nodes of 2 GPUs, about 3400 W, against a budget of 3000 W."""

    budget_w: float = 3000.0
    floor_w: float = FLOOR_W
    fleet: SimulatedFleet = field(default_factory=lambda: SimulatedFleet(racks=1, nodes=2, gpus=2, seed=3))
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(NOW))
    notes: Notes = field(default_factory=lambda: Notes(run_of(plan_of(target=RACK))))

    def __post_init__(self) -> None:
        self.power = FleetPower(self.fleet)
        self.telemetry = FleetTelemetry(self.fleet)
        self.window = Window(TopologyRules(rack_budget_w={"default": self.budget_w}))
        self.frame: Frame | None = None
        self.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1"))
        self.let_pass(30)

    def let_pass(self, seconds: float) -> None:
        """Time passes, and is observed at its end; what is done then is done a moment later."""
        self.clock.advance(timedelta(seconds=seconds))
        self.fleet.advance(seconds)
        self.frame = self.window.add(self.telemetry.read(self.clock.now()))
        self.clock.advance(timedelta(milliseconds=1))

    def world(self) -> World:
        return World(self.clock.now(), self.frame, None, self.power, self.floor_w)

    def cap(self) -> Outcome:
        return CAP.run(CAPPING, RACK, self.notes.ledger(self.world(), "cap"))

    def cap_on(self) -> None:
        """As often as it takes after an interruption."""
        for _ in range(3):
            if isinstance(self.cap(), Done):
                return
        raise AssertionError("the cap did not finish")

    def capped(self) -> Outcome:
        return CAP.verify(CAPPING, RACK, self.notes.ledger(self.world(), "cap"))

    def hold(self) -> Outcome:
        return HOLD.run(HOLDING, RACK, self.notes.ledger(self.world(), "hold"))

    def restore(self) -> Outcome:
        return RESTORE.run(RESTORING, RACK, self.notes.ledger(self.world(), "restore"))

    def limits(self, node: str = "gpu-001") -> list[float]:
        return [gpu.limit_w for gpu in self.power.limits(node)]

    def all_limits(self) -> list[float]:
        return self.limits("gpu-001") + self.limits("gpu-002")

    def calm(self) -> None:
        """The surge is over; nothing runs any more."""
        for node in self.fleet.layout.nodes:
            self.fleet.set_idle(node, idle=True)

    def rack_w(self) -> float:
        return self.fleet.rack_power_w()["rack-1"]


@pytest.fixture
def bench() -> Bench:
    return Bench()


# power.cap


def test_every_gpu_of_the_rack_gets_the_same_share(bench: Bench) -> None:
    assert bench.rack_w() > 3000
    outcome = bench.cap()
    (limit_w,) = set(bench.all_limits())
    assert outcome == Done(f"GPUs of 2 nodes are limited to {limit_w:.0f} W")
    bench.let_pass(10)
    assert bench.capped() == Done(f"the rack draws {round(bench.rack_w())} W of 3000 W")
    assert bench.rack_w() <= 0.96 * 3000


def test_the_plan_says_how_many_gpus_go_from_what_to_what(bench: Bench) -> None:
    proposal = CAP.plan(CAPPING, RACK, bench.world())
    bench.cap()
    (effect,) = proposal.effects
    assert (effect.verb, effect.target) == ("cap power", "rack rack-1")
    assert effect.detail == f"4 GPUs on 2 nodes from 700 W to {bench.limits()[0]:.0f} W each"
    assert effect.takes_out is None
    assert proposal.impediments == ()


def test_no_cap_goes_below_the_floor_and_the_plan_says_that_it_will_not_do() -> None:
    bench = Bench(budget_w=1500.0)
    (short,) = CAP.plan(CAPPING, RACK, bench.world()).impediments
    assert "even at the floor of 300 W" in short
    bench.cap()
    assert set(bench.all_limits()) == {300.0}


def test_no_cap_goes_below_what_the_device_takes() -> None:
    bench = Bench(budget_w=1200.0, floor_w=50.0)
    bench.cap()
    assert set(bench.all_limits()) == {200.0}
    bench.let_pass(10)
    bench.hold()
    assert set(bench.all_limits()) == {200.0}


def test_a_limit_that_somebody_else_lowered_is_left_alone_and_counted(bench: Bench) -> None:
    bench.power.set_limits("gpu-001", {0: 400.0}, ttl=timedelta(days=1), fallback_w=400.0)
    bench.let_pass(20)
    bench.cap()
    first, *ours = bench.all_limits()
    assert first == 400
    assert len(set(ours)) == 1
    assert ours[0] > 563  # what it would be if the foreign GPU had to be taken for one of ours
    bench.let_pass(10)
    assert bench.rack_w() <= 3000
    bench.restore()
    assert bench.all_limits() == [400, 700, 700, 700]


def test_where_every_limit_is_somebody_else_s_nothing_is_planned_or_done(bench: Bench) -> None:
    for node in ("gpu-001", "gpu-002"):
        bench.power.set_limits(node, {0: 650.0, 1: 650.0}, ttl=timedelta(days=1), fallback_w=650.0)
    assert CAP.plan(CAPPING, RACK, bench.world()).blockers == (
        "no GPU of rack rack-1 has a limit that is ours to change",
    )
    assert isinstance(bench.cap(), Failed)
    assert set(bench.all_limits()) == {650.0}


@pytest.mark.parametrize("blind", ["meter", "agent", "everything"])
def test_what_is_not_known_blocks_the_plan_and_the_cap(bench: Bench, blind: str) -> None:
    if blind == "meter":
        bench.telemetry.metered = False
        bench.let_pass(10)
    elif blind == "agent":
        bench.power.silent.add("gpu-002")
    else:
        bench.frame = None
    with pytest.raises(Unavailable):
        CAP.plan(CAPPING, RACK, bench.world())
    with pytest.raises(Unavailable):
        bench.cap()
    bench.power.silent.clear()
    assert set(bench.all_limits()) == {700.0}
    assert bench.notes.records == []


def test_a_rack_without_a_budget_says_which_setting_is_missing() -> None:
    bench = Bench(budget_w=float("nan"))
    with pytest.raises(NotFound, match=r"set topology\.rack_budget_watts"):
        CAP.plan(CAPPING, RACK, bench.world())


def test_without_agents_it_says_which_setting_is_missing(bench: Bench) -> None:
    with pytest.raises(Rejected, match=r"set power\.agent_url"):
        CAP.plan(CAPPING, RACK, replace(bench.world(), configured_power=None))


def test_the_meter_must_have_measured_after_the_cap(bench: Bench) -> None:
    bench.cap()
    assert bench.capped() == RetryAfter(timedelta(seconds=2), "waiting for the rack's meter")


def test_a_rack_that_is_still_over_its_budget_is_not_capped_yet(bench: Bench) -> None:
    bench.cap()
    for node in ("gpu-001", "gpu-002"):
        bench.power.restore(node, [0, 1])
    bench.let_pass(10)
    outcome = bench.capped()
    assert isinstance(outcome, RetryAfter)
    assert "still over the budget" in outcome.detail


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_interrupted_cap_goes_on_with_the_same_limits(bench: Bench, after: int) -> None:
    writes = 0

    def die(_record: EffectRecord) -> None:
        nonlocal writes
        writes += 1
        if writes > after:
            raise Killed

    bench.notes.dies_before = die
    with pytest.raises(Killed):
        bench.cap()
    begun = {watts for _, limits in bench.power.asked for watts in limits.values()}
    bench.notes.dies_before = lambda _record: None
    bench.calm()  # by now the rack looks different, and a new share would be another one
    bench.let_pass(10)
    bench.cap_on()
    assert len(set(bench.all_limits())) == 1
    assert begun <= set(bench.all_limits())
    assert {record.state for record in bench.notes.records} == {EffectState.DONE}


def test_a_cap_whose_answer_was_lost_is_read_back(bench: Bench) -> None:
    bench.power.lose_next_answer(Unavailable("agent", "connection reset"))
    with pytest.raises(Exception, match="connection reset"):
        bench.cap()
    asked = len(bench.power.asked)
    bench.cap_on()
    assert len(bench.power.asked) == asked + 1  # only the other node's
    assert len(set(bench.all_limits())) == 1


def test_nobody_coming_back_lets_the_caps_fall_to_the_static_share(bench: Bench) -> None:
    CAP.run(Cap.Arguments(fallback_share=0.6), RACK, bench.notes.ledger(bench.world(), "cap"))
    (cap_w,) = set(bench.all_limits())
    bench.let_pass(119)
    assert set(bench.all_limits()) == {cap_w}
    bench.let_pass(2)
    assert set(bench.all_limits()) == {0.6 * 3000 / 4}
    bench.let_pass(3600)
    assert set(bench.all_limits()) == {0.6 * 3000 / 4}


def test_the_static_share_is_never_more_than_the_cap(bench: Bench) -> None:
    CAP.run(Cap.Arguments(fallback_share=1.0), RACK, bench.notes.ledger(bench.world(), "cap"))
    (cap_w,) = set(bench.all_limits())
    bench.let_pass(121)
    assert set(bench.all_limits()) == {cap_w}


# power.hold


def test_holding_renews_the_caps(bench: Bench) -> None:
    bench.cap()
    capped = bench.all_limits()
    for seconds in range(50, 110, 10):
        bench.telemetry.metered = seconds < 80  # also when the meter has gone silent
        bench.let_pass(seconds)
        assert isinstance(bench.hold(), RetryAfter)
    assert bench.all_limits() == capped


def test_a_lower_limit_that_a_person_sets_meanwhile_is_not_raised(bench: Bench) -> None:
    bench.cap()
    (cap_w,) = set(bench.all_limits())
    bench.let_pass(10)
    bench.power.set_limits("gpu-002", {0: 350.0}, ttl=timedelta(days=1), fallback_w=350.0)
    bench.hold()
    assert bench.all_limits() == [cap_w, cap_w, 350, cap_w]


def test_what_fell_to_the_static_share_is_still_ours_to_renew_and_to_put_back(bench: Bench) -> None:
    CAP.run(Cap.Arguments(fallback_share=0.6), RACK, bench.notes.ledger(bench.world(), "cap"))
    (cap_w,) = set(bench.all_limits())
    bench.let_pass(121)
    assert max(bench.all_limits()) < cap_w
    bench.hold()
    assert min(bench.all_limits()) >= cap_w
    bench.let_pass(121)
    assert max(bench.all_limits()) < cap_w
    bench.restore()
    assert set(bench.all_limits()) == {700.0}


def test_a_cap_that_no_longer_binds_is_given_up(bench: Bench) -> None:
    bench.cap()
    bench.let_pass(10)
    bench.calm()
    outcomes = []
    for _ in range(6):
        bench.let_pass(10)
        outcomes.append(bench.hold())
    assert isinstance(outcomes[0], RetryAfter)
    assert isinstance(outcomes[-1], Done)


def test_a_rack_over_its_budget_never_loses_its_caps_though_no_gpu_is_at_its_limit(bench: Bench) -> None:
    bench.cap()
    bench.calm()
    for _ in range(5):
        bench.let_pass(10)
    bench.window = Window(TopologyRules(rack_budget_w={"default": 500.0}))
    for _ in range(5):
        bench.let_pass(10)
        assert bench.rack_w() > 500
        assert isinstance(bench.hold(), RetryAfter)
    assert max(bench.all_limits()) < 600


def test_an_interrupted_change_is_finished_so_that_all_ranks_stay_alike(bench: Bench) -> None:
    bench.cap()
    bench.window = Window(TopologyRules(rack_budget_w={"default": 3500.0}))
    changes = 0

    def die(record: EffectRecord) -> None:
        nonlocal changes
        changes += record.key.startswith("cap/gpu-002") and record.state is EffectState.INTENT
        if changes:
            raise Killed

    bench.notes.dies_before = die
    bench.let_pass(20)
    with pytest.raises(Killed):
        bench.hold()
    assert len(set(bench.all_limits())) == 2
    bench.notes.dies_before = lambda _record: None
    bench.let_pass(10)
    bench.hold()
    assert len(set(bench.all_limits())) == 1


# power.restore


def test_restoring_puts_back_what_was_found_and_nothing_else(bench: Bench) -> None:
    bench.cap()
    bench.let_pass(10)
    bench.power.set_limits("gpu-002", {0: 450.0}, ttl=timedelta(days=1), fallback_w=450.0)
    assert isinstance(bench.restore(), Done)
    assert bench.limits("gpu-001") == [700, 700]
    assert bench.limits("gpu-002") == [450, 700]
    assert {record.state for record in bench.notes.records} == {EffectState.UNDONE}
    assert isinstance(RESTORE.verify(RESTORING, RACK, bench.notes.ledger(bench.world(), "restore")), Done)


def test_a_node_that_cannot_be_restored_does_not_keep_the_others_from_it(bench: Bench) -> None:
    bench.cap()
    bench.power.silent.add("gpu-001")
    with pytest.raises(Unavailable):
        bench.restore()
    assert bench.limits("gpu-002") == [700, 700]
    bench.power.silent.clear()
    assert isinstance(bench.restore(), Done)
    assert set(bench.all_limits()) == {700.0}


def test_undoing_any_of_the_steps_restores(bench: Bench) -> None:
    bench.cap()
    HOLD.undo(HOLDING, RACK, bench.notes.ledger(bench.world(), "hold"))
    assert set(bench.all_limits()) == {700.0}
    CAP.undo(CAPPING, RACK, bench.notes.ledger(bench.world(), "cap"))
    assert set(bench.all_limits()) == {700.0}


def test_a_gpu_that_is_lost_does_not_cost_the_others_their_cap(bench: Bench) -> None:
    bench.cap()
    (cap_w,) = set(bench.all_limits())
    bench.fleet.inject(Fault(FaultKind.GPU_LOST, 0, node="gpu-001", gpu=0))
    for _ in range(4):
        bench.let_pass(60)
        assert isinstance(bench.hold(), RetryAfter)
    assert bench.all_limits() == [cap_w] * 3
    assert isinstance(bench.restore(), Done)
    assert bench.all_limits() == [700.0] * 3


def test_a_limit_that_the_agent_refuses_for_another_reason_is_a_refusal(bench: Bench) -> None:
    bench.power.refused.add("gpu-002")
    with pytest.raises(Rejected, match="not in this maintenance window"):
        bench.cap()
    assert [record.state for record in bench.notes.records] == [EffectState.DONE, EffectState.FAILED]


# For all loads


class StaticRack:
    """Implements `healer.ports.PowerControl`: single-GPU nodes that draw what they want, up to their limit."""

    overhead_w = 600.0

    def __init__(self, wanted_w: Sequence[float]) -> None:
        self.wanted_w = np.array(wanted_w)
        self.limit_w = np.full(len(wanted_w), 700.0)

    @property
    def drawn_w(self) -> float:
        return float(np.minimum(self.wanted_w, self.limit_w).sum()) + self.overhead_w

    def read(self, at: datetime) -> Reading:
        now = at.timestamp()
        drawn = [
            ({"UUID": f"GPU-{i}", "gpu": "0", "node": f"n{i:02}", "rack": "rack-1"}, watts, now)
            for i, watts in enumerate(np.minimum(self.wanted_w, self.limit_w).tolist())
        ]
        meter = [({"rack": "rack-1"}, self.drawn_w, now)]
        return reading_of(at, {"DCGM_FI_DEV_POWER_USAGE": drawn, "rack_power_watts": meter})

    def limits(self, node: str) -> tuple[GpuPower, ...]:
        i = int(node[1:])
        drawn_w = float(min(self.wanted_w[i], self.limit_w[i]))
        return (GpuPower(node, 0, f"GPU-{i}", float(self.limit_w[i]), 700.0, 200.0, 700.0, drawn_w),)

    def set_limits(self, node: str, limits_w: Mapping[int, float], *, ttl: timedelta, fallback_w: float) -> None:
        assert all(200 <= watts <= 700 for watts in (*limits_w.values(), fallback_w))
        assert ttl > timedelta(0)
        self.limit_w[int(node[1:])] = limits_w[0]

    def restore(self, node: str, gpus: Sequence[int]) -> None:
        assert gpus
        self.limit_w[int(node[1:])] = 700.0


LOADS = st.lists(st.floats(70, 700), min_size=6, max_size=6)


@settings(max_examples=40, deadline=None)
@example(loads=[[70, 70, 70, 509, 612, 654], [70, 70, 70, 393, 699, 699]], share=1.0, budget_w=2600.0)  # 1 W over
@given(loads=st.lists(LOADS, min_size=1, max_size=3), share=st.floats(0.8, 1.0), budget_w=st.floats(2600, 4500))
def test_no_change_ever_brings_a_rack_over_its_budget(loads: list[list[float]], share: float, budget_w: float) -> None:
    rack, clock = StaticRack([700.0] * 6), VirtualClock(NOW)
    # Loads that stand still for minutes, to the milliwatt, would be those of a hung exporter.
    window = Window(TopologyRules(rack_budget_w={"default": budget_w}), max_age=timedelta(hours=1))
    notes = Notes(run_of(plan_of(target=RACK)))
    holding = Hold.Arguments(share_of_budget=share, lasting=timedelta(seconds=20))

    def look() -> World:
        clock.advance(timedelta(seconds=10))
        frame = window.add(rack.read(clock.now()))
        clock.advance(timedelta(milliseconds=1))
        return World(clock.now(), frame, None, rack, FLOOR_W)

    CAP.run(CAPPING, RACK, notes.ledger(look(), "cap"))
    assert rack.drawn_w <= budget_w
    for wanted_w in loads:
        rack.wanted_w = np.array(wanted_w)
        for _ in range(12):
            before_w = rack.drawn_w
            outcome = HOLD.run(holding, RACK, notes.ledger(look(), "hold"))
            assert rack.drawn_w <= max(before_w, budget_w)
            (limit_w,) = set(rack.limit_w.tolist())
            assert FLOOR_W <= limit_w <= 700
            if isinstance(outcome, Done):
                RESTORE.run(RESTORING, RACK, notes.ledger(look(), "restore"))
                assert rack.drawn_w <= budget_w
                return
        # Within two minutes of a load that does not change, the rack is within its budget, or at the floor.
        assert rack.drawn_w <= budget_w or rack.limit_w[0] == FLOOR_W
