"""The process is killed before and after every write and every effect; its successor ends every run the same way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from healer.adapters.journal.sql import SqlJournal
from healer.adapters.simulated_cluster import Verb
from healer.domain.approval import ApprovalState
from healer.domain.incident import IncidentState
from healer.domain.run import EffectState, RunState
from healer.policy.audit_chain import first_broken_link
from healer.sim.faults import Fault, FaultKind
from tests.virtual_site import ON_CALL, Crash, Fuse, Site, add_training

SICK = "gpu-002"
EXPORTER = "DaemonSet/dcgm-exporter"
MOST_TICKS = 60


def drain_site(folder: Path, fuse: Fuse) -> Site:
    site = Site(folder, fuse=fuse)
    add_training(site.cluster, SICK)
    site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=SICK, gpu=1))
    return site


def blocked_site(folder: Path, fuse: Fuse) -> Site:
    """As `drain_site`, but a disruption budget keeps the training where it is, and then a person cancels the drain."""
    site = drain_site(folder, fuse)
    site.cluster.set_budget("all", owner="Job/train", min_available=2, namespace="training")
    return site


def cap_site(folder: Path, fuse: Fuse) -> Site:
    site = Site(folder, nodes=2, budget_w=3300.0, fuse=fuse)
    site.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1", duration_s=40))
    return site


def blind_site(folder: Path, fuse: Fuse) -> Site:
    """The exporter of a node hangs until it is started anew."""
    site = Site(folder, fuse=fuse)
    site.cluster.add_workload(EXPORTER, node=SICK, namespace="gpu-operator")
    site.ticks(3)
    site.telemetry.silent.add(SICK)
    return site


def blind_for_ever_site(folder: Path, fuse: Fuse) -> Site:
    """The same, and starting it anew does not help."""
    site = blind_site(folder, fuse)
    site.cluster.add_workload("DaemonSet/helpless", node=SICK)
    return site


def on_call(site: Site) -> None:
    """Approves what is asked, and cancels what gets nowhere."""
    if site.channel.asked and site.pending():
        site.answer(approve=True)
    for run in site.journal.runs(active_only=True):
        if "training/all" in run.detail and not run.cancelled_by:
            site.journal.request_cancel(run.id, ON_CALL, site.clock.now(), "it gets nowhere")
    helpless = any(each.owner == "DaemonSet/helpless" for each in site.cluster.workloads(SICK))
    if not helpless and any(effect.of == f"gpu-operator/{EXPORTER}" for effect in site.cluster.effects):
        site.telemetry.silent.discard(SICK)


def lived_through(site: Site, *, seconds: float) -> int:
    """Let the site live, on-call answer, and a new process start after each crash; returns how many there were."""
    crashes = 0
    for _ in range(MOST_TICKS):
        try:
            site.tick(seconds)
            on_call(site)
        except Crash:
            crashes += 1
            site.restart()
        incidents = site.journal.incidents()
        if incidents and incidents[0].state.ended and not site.journal.approvals(open_only=True):
            break
    return crashes


def assert_ended(site: Site, ends: IncidentState, run_ends: RunState) -> None:
    incident = site.incident()
    assert incident.state is ends, incident.story
    (run,) = site.journal.runs()
    assert run.state is run_ends, run.cause
    assert site.journal.leases() == {}
    assert first_broken_link(site.journal.audit_log(limit=10_000)) is None
    assert EffectState.INTENT not in {effect.state for effect in site.journal.effects(run.id)}


def assert_drained_once(site: Site) -> None:
    assert_ended(site, IncidentState.RESOLVED, RunState.SUCCEEDED)
    (approval,) = site.journal.approvals()
    assert approval.state is ApprovalState.APPROVED
    (run,) = site.journal.runs()
    assert site.cluster.node(SICK).cordoned_by == run.id
    evicted = [effect.workload for effect in site.cluster.effects if effect.verb is Verb.EVICT]
    assert len(evicted) == len(set(evicted)) == 3
    assert site.cluster.effects[0].verb is Verb.CORDON
    assert sum(effect.verb is Verb.CORDON for effect in site.cluster.effects) == 1
    # A crash between asking and noting it asks the channel twice, about one and the same approval.
    assert set(site.channel.asked) == {approval.id}


def assert_cancelled_and_back_in_service(site: Site) -> None:
    assert_ended(site, IncidentState.ESCALATED, RunState.CANCELLED)
    assert site.cluster.node(SICK).available
    assert [effect.verb for effect in site.cluster.effects] == [Verb.CORDON, Verb.EVICT, Verb.UNCORDON]
    assert len(site.journal.approvals()) == 1


def assert_capped_and_restored(site: Site) -> None:
    assert_ended(site, IncidentState.RESOLVED, RunState.SUCCEEDED)
    assert site.journal.approvals() == ()
    assert site.limits_w() == {700.0}
    assert site.cluster.effects == ()
    by_tick = [set(limits.values()) for _, limits in site.power.asked]
    assert all(len(watts) <= 1 for watts in by_tick)


def assert_exporter_started_once(site: Site) -> None:
    assert_ended(site, IncidentState.RESOLVED, RunState.SUCCEEDED)
    assert [effect.of for effect in site.cluster.effects] == [f"gpu-operator/{EXPORTER}"]
    assert site.journal.approvals() == ()
    assert site.tickets.opened == {}


def assert_handed_over_once(site: Site) -> None:
    """Up the ladder: the exporter was started anew once, and there is one ticket."""
    incident = site.incident()
    assert (incident.state, incident.next_playbook) == (IncidentState.ESCALATED, "hand-over"), incident.story
    assert [effect.of for effect in site.cluster.effects] == [f"gpu-operator/{EXPORTER}"]
    assert len(site.tickets.opened) == 1
    second, first = site.journal.runs()
    assert (first.state, second.state) == (RunState.SUCCEEDED, RunState.SUCCEEDED)
    assert site.journal.leases() == {}
    for run in (first, second):
        assert EffectState.INTENT not in {effect.state for effect in site.journal.effects(run.id)}
    assert first_broken_link(site.journal.audit_log(limit=10_000)) is None


def crash_everywhere(
    folder: Path, make: Callable[[Path, Fuse], Site], check: Callable[[Site], None], *, seconds: float, since: str = ""
) -> list[str]:
    """Returns the points of the clean pass, at each of which, from `since` on, one site's process was killed."""
    SqlJournal(f"sqlite:///{folder / 'empty.db'}").close()
    (folder / "clean").mkdir()
    with make(folder / "clean", Fuse()) as clean:
        assert lived_through(clean, seconds=seconds) == 0
        check(clean)
    points = clean.fuse.points
    for number in range(points.index(since) if since else 0, len(points)):
        point = points[number]
        (folder / str(number)).mkdir()
        shutil.copy(folder / "empty.db", folder / str(number) / "journal.db")  # quicker than to migrate it anew
        with make(folder / str(number), Fuse(number)) as site:
            where = f"killed at point {number} of {len(points)}, {point}"
            assert lived_through(site, seconds=seconds) == 1, where
            try:
                check(site)
            except AssertionError as error:
                raise AssertionError(where) from error
    return points


def test_a_drain_survives_a_crash_at_any_instant(tmp_path: Path) -> None:
    points = crash_everywhere(tmp_path, drain_site, assert_drained_once, seconds=10)
    assert {"before cordon", "after cordon", "before evict", "after evict"} <= set(points)


def test_a_drain_that_is_cancelled_is_undone_after_a_crash_at_any_instant(tmp_path: Path) -> None:
    check = assert_cancelled_and_back_in_service
    points = crash_everywhere(tmp_path, blocked_site, check, seconds=10, since="after evict")
    assert {"before uncordon", "after uncordon"} <= set(points)


def test_a_power_cap_survives_a_crash_at_any_instant(tmp_path: Path) -> None:
    points = crash_everywhere(tmp_path, cap_site, assert_capped_and_restored, seconds=12)
    assert {"before set_limits", "after set_limits", "before restore", "after restore"} <= set(points)


def test_an_exporter_is_started_anew_once_whenever_healer_dies(tmp_path: Path) -> None:
    points = crash_everywhere(tmp_path, blind_site, assert_exporter_started_once, seconds=30, since="after write")
    assert {"before evict", "after evict"} <= set(points)


def test_a_ladder_is_climbed_once_whenever_healer_dies(tmp_path: Path) -> None:
    points = crash_everywhere(tmp_path, blind_for_ever_site, assert_handed_over_once, seconds=30, since="after evict")
    assert {"before ticket", "after ticket"} <= set(points)
