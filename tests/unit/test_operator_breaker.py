"""A storm, in virtual time: nothing is touched or asked, what runs is held, and a person's word lets it go on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from healer.config import BreakerSettings
from healer.domain.incident import IncidentState
from healer.domain.matcher import matchers_in
from healer.domain.reading import Labels
from healer.domain.run import RunState
from healer.domain.silence import Silence
from healer.domain.verdict import Guard, Mode
from healer.rehearsal.virtual import FleetTelemetry
from healer.sim.faults import Fault, FaultKind
from tests.virtual_site import ON_CALL, Site, add_training

NODES = tuple(f"gpu-00{number}" for number in range(1, 7))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Six nodes of one rack, of which two may be out; more than three at once are a storm."""
    with Site(tmp_path, nodes=6) as made:
        made.restart(budgets=made.config.budgets.model_copy(update={"breaker": BreakerSettings()}))
        yield made


def break_gpus(site: Site, *nodes: str) -> None:
    for node in nodes:
        add_training(site.cluster, node)
        site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=node, gpu=1))


def guards(site: Site) -> set[Guard | None]:
    return {None if each.verdict is None else each.verdict.guard for each in site.journal.incidents()}


def reset(site: Site) -> None:
    site.journal.reset_breaker(ON_CALL, site.clock.now(), "one broken switch, and it is repaired")


def storm_over_a_drain(site: Site) -> None:
    """A drain that a disruption budget holds up, and then three more nodes at once."""
    site.cluster.set_budget("all", owner="Job/train", min_available=8, namespace="training")
    break_gpus(site, NODES[0])
    site.ticks(2)
    site.answer(approve=True)
    site.ticks(3)
    break_gpus(site, *NODES[1:4])
    site.ticks(3)


def test_a_storm_touches_nothing_asks_nothing_and_tells_the_channel_once(site: Site) -> None:
    break_gpus(site, *NODES[:4])
    site.ticks(30)
    (trip,) = site.journal.trips()
    assert trip.nodes == NODES[:4]
    assert trip.reason.startswith("4 nodes of 6 would be taken out of service")
    assert guards(site) == {Guard.BREAKER}
    assert all("healer breaker reset" in incident.story for incident in site.journal.incidents())
    assert (site.channel.warned, site.channel.asked, site.cluster.effects) == ([trip.id], [], ())
    assert [line.action for line in site.journal.audit_log() if line.subject == trip.id] == ["breaker.tripped"]


def test_as_many_as_are_allowed_are_no_storm(site: Site) -> None:
    break_gpus(site, *NODES[:3])
    site.ticks(3)
    assert site.journal.trips() == ()
    assert len(site.channel.asked) == 2  # what the budget has room for


def test_after_a_person_s_word_the_worst_go_first_within_the_budget_and_the_old_storm_is_none(site: Site) -> None:
    break_gpus(site, *NODES[:4])
    site.ticks(3)
    reset(site)
    site.ticks(30)
    assert len(site.journal.trips()) == 1
    assert len(site.channel.asked) == 2
    assert guards(site) == {None, Guard.BUDGET}


def test_a_new_storm_after_the_reset_opens_it_again(site: Site) -> None:
    site.restart(budgets=site.config.budgets.model_copy(update={"breaker": BreakerSettings(at_least=1, together=0)}))
    break_gpus(site, *NODES[:2])
    site.ticks(3)
    reset(site)
    break_gpus(site, *NODES[2:4])
    site.ticks(6)
    newest, first = site.journal.trips()
    assert (newest.open, first.open) == (True, False)
    assert newest.nodes == NODES[2:4]


def test_what_runs_already_is_held_with_its_clock_and_goes_on_after_the_reset(site: Site) -> None:
    storm_over_a_drain(site)
    assert len(site.journal.trips()) == 1
    site.cluster.set_budget("all", owner="Job/train", min_available=0, namespace="training")
    site.ticks(10, seconds=600)  # longer than the step's time and the run's
    (run,) = site.journal.runs()
    assert (run.state, run.detail[:13]) == (RunState.RUNNING, "held: breaker")
    assert run.held_since is not None
    assert len(site.cluster.workloads(NODES[0])) == 3
    reset(site)
    site.ticks(10)
    assert site.journal.run(run.id).state is RunState.SUCCEEDED


def test_a_run_that_the_breaker_holds_can_be_cancelled(site: Site) -> None:
    storm_over_a_drain(site)
    (run,) = site.journal.runs()
    site.journal.request_cancel(run.id, ON_CALL, site.clock.now(), "leave it")
    site.ticks(3)
    assert site.journal.run(run.id).state is RunState.CANCELLED
    assert not site.cluster.node(NODES[0]).cordoned


def test_an_answer_while_it_is_open_waits_for_the_reset(site: Site) -> None:
    break_gpus(site, NODES[0])
    site.ticks(2)
    break_gpus(site, *NODES[1:4])
    site.ticks(2)
    site.answer(approve=True)
    site.ticks(3)
    (held,) = (each for each in site.journal.incidents() if each.state is IncidentState.AWAITING_APPROVAL)
    assert "held: breaker" in held.story
    assert site.cluster.effects == ()
    reset(site)
    site.tick()
    assert len(site.journal.runs()) == 1


def test_what_is_silenced_is_no_part_of_a_storm(site: Site) -> None:
    now = site.clock.now()
    site.journal.add_silence(
        Silence(
            "sil-1",
            matchers_in(['node=~"gpu-.*"']),
            now,
            now + timedelta(hours=1),
            ON_CALL,
            "a new switch",
            created_at=now,
        )
    )
    break_gpus(site, *NODES)
    site.ticks(5)
    assert guards(site) == {Guard.SILENCE}
    assert site.journal.trips() == ()


def test_nothing_opens_it_in_observe(site: Site) -> None:
    site.restart(mode=Mode.OBSERVE)
    break_gpus(site, *NODES)
    site.ticks(5)
    assert site.journal.trips() == ()


def test_it_is_still_open_after_a_restart(site: Site) -> None:
    break_gpus(site, *NODES[:4])
    site.ticks(2)
    site.restart()
    site.ticks(30)
    assert guards(site) == {Guard.BREAKER}
    assert len(site.journal.trips()) == 1
    assert len(site.channel.warned) == 1


def test_a_channel_that_is_down_is_told_when_it_is_back(site: Site) -> None:
    site.channel.down = True
    break_gpus(site, *NODES[:4])
    site.ticks(5)
    assert site.channel.warned == []
    site.channel.down = False
    site.ticks(2)
    assert len(site.channel.warned) == 1


class RollingOut(FleetTelemetry):
    """Attributes:
    updated: nodes that have the new driver already.
    """

    updated: frozenset[str] = frozenset()

    def _shown(self) -> Iterator[tuple[Labels, str]]:
        for target, page in super()._shown():
            yield target, page.replace("570.172.08", "580.65.06") if target.get("node") in self.updated else page


@pytest.mark.parametrize("updated", [4, 40], ids=["of a tenth of the fleet", "of all nodes"])
def test_a_driver_that_is_rolled_out_to_a_part_of_the_fleet_is_the_suspect(tmp_path: Path, updated: int) -> None:
    """Across racks, and fewer nodes than are a storm by their number alone; what all nodes have explains nothing."""
    with Site(tmp_path, racks=10, nodes=40, gpus=1) as site:
        site.telemetry = rolling_out = RollingOut(site.fleet)
        breaker = BreakerSettings(max_nodes=6, max_percent=100)
        site.restart(budgets=site.config.budgets.model_copy(update={"breaker": breaker}))
        sick = tuple(site.fleet.layout.nodes[::10])
        rolling_out.updated = frozenset(sick if updated == len(sick) else site.fleet.layout.nodes)
        site.ticks(2)
        for node in sick:
            site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=node, gpu=0))
        site.ticks(3)
        reasons = [trip.reason for trip in site.journal.trips()]
        if updated == len(sick):
            (reason,) = reasons
            assert reason.startswith("4 nodes of driver 580.65.06 would be taken out of service ")
            assert "the suspect (4 of the 4 that have it, 0 of the 36 others): " in reason
            assert site.pending() == ()
        else:
            assert reasons == []
            assert len(site.pending()) == len(sick)
