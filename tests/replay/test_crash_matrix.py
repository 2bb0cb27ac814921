"""The process is killed before and after every write and every effect; its successor ends every run the same way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from healer.adapters.journal.sql import SqlJournal
from healer.adapters.simulated_cluster import SimulatedCluster, Verb
from healer.domain.approval import ApprovalState
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode, Finding, Findings, Health, Report
from healer.domain.frame import Frame
from healer.domain.incident import IncidentState
from healer.domain.run import EffectState, RunState
from healer.policy.audit_chain import first_broken_link
from healer.rehearsal.virtual import START, ClusterJobs
from healer.sim.faults import Fault, FaultKind
from tests.virtual_site import ON_CALL, Crash, Fuse, Site, add_training

SICK = "gpu-002"
EXPORTER = "DaemonSet/dcgm-exporter"
JOB = "training/Job/train"
MOST_TICKS = 60

MakeSite = Callable[[Path, Fuse], Site]
Check = Callable[[Site], None]


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


class StalledUntilResumed:
    """Implements `healer.ports.Notices`: another system finds that the job stands still, until it has begun anew."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster

    def findings(self, frame: Frame, now: datetime) -> Findings:  # noqa: ARG002
        mode, job = FailureMode.JOB_STALLED, Component(ComponentKind.JOB, job=JOB)
        if any(effect.verb is Verb.RESUME for effect in self._cluster.effects):
            return Findings(reports=(Report(mode, job, Health.HEALTHY),))
        stalled = Finding(mode, job, Health.FAILED, 1.0, "all of its ranks wait")
        return Findings((stalled,), reports=(Report(mode, job, Health.FAILED),))

    def warnings(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002
        return ()


class ToldOf:
    """Implements `healer.ports.Notices`: another system tells of a failure mode, for as long as it lasts.

    Args:
        gpu: on `SICK`, if it is of a GPU; else it is of the job that runs there, and that node is to blame.
    """

    def __init__(self, mode: FailureMode, health: Health, *, gpu: str | None = None, lasts: timedelta) -> None:
        self._mode, self._health, self._gpu, self._lasts = mode, health, gpu, lasts

    def findings(self, frame: Frame, now: datetime) -> Findings:
        where, culprit = Component(ComponentKind.JOB, job=JOB), None
        if self._gpu is None:
            culprit = Component(ComponentKind.NODE, rack="rack-1", node=SICK)
        else:
            (where,) = (each for each in frame.gpus.components if (each.node, each.gpu) == (SICK, self._gpu))
        if now - START >= self._lasts:
            return Findings(reports=(Report(self._mode, where, Health.HEALTHY),))
        found = Finding(self._mode, where, self._health, 1.0, "as another system tells", culprit=culprit)
        return Findings((found,), reports=(Report(self._mode, where, self._health),))

    def warnings(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002
        return ()


class CoolingAlarm:
    """Implements `healer.ports.Notices`: the cooling unit of a rack is out for some minutes, and says so."""

    def findings(self, frame: Frame, now: datetime) -> Findings:  # noqa: ARG002
        out = now - START < timedelta(minutes=4)
        where, mode = Component(ComponentKind.RACK, rack="rack-1"), FailureMode.RACK_COOLING_DEGRADED
        report = Report(mode, where, Health.FAILED if out else Health.HEALTHY)
        finding = Finding(mode, where, Health.FAILED, 1.0, "the cooling unit is out")
        return Findings((finding,) if out else (), reports=(report,))

    def warnings(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002
        return ()


def stalled_site(folder: Path, fuse: Fuse) -> Site:
    site = Site(folder, fuse=fuse)
    add_training(site.cluster, SICK)
    site.topology, site.notices = ClusterJobs(site.cluster), StalledUntilResumed(site.cluster)
    site.restart()
    return site


def reset_site(folder: Path, fuse: Fuse) -> Site:
    """A GPU waits for a reset, and the site has agents on its nodes."""
    site = Site(folder, fuse=fuse, agents=True)
    add_training(site.cluster, SICK)
    site.fleet.inject(Fault(FaultKind.ROW_REMAP_PENDING, 0, node=SICK, gpu=1))
    return site


def lost_site(folder: Path, fuse: Fuse) -> Site:
    """A GPU has fallen off its bus, and the site has agents on its nodes."""
    site = Site(folder, fuse=fuse, agents=True)
    add_training(site.cluster, SICK)
    site.ticks(2)
    site.fleet.inject(Fault(FaultKind.GPU_LOST, 0, node=SICK, gpu=1))
    return site


def sick_site(folder: Path, fuse: Fuse) -> Site:
    """A GPU waits for a reset, and the node fails its test."""
    site = reset_site(folder, fuse)
    site.care.broken.add(SICK)
    return site


def hot_site(folder: Path, fuse: Fuse) -> Site:
    """A rack has lost its cooling, and has no meter."""
    site = Site(folder, nodes=2, gpus=1, fuse=fuse, notices=CoolingAlarm())
    site.telemetry.metered = False
    return site


class ToldSite(Site):
    """Nobody but the other system finds anything, and a frame is not soon too old for great steps of time."""

    def start(self) -> None:
        telemetry = self.config.telemetry.model_copy(update={"max_age": timedelta(minutes=10)})
        self.config = self.config.model_copy(update={"telemetry": telemetry})
        super().start()
        self.observe_with()


def slow_site(folder: Path, fuse: Fuse) -> Site:
    """A node slows a job down, and the site has agents on its nodes."""
    told = ToldOf(FailureMode.JOB_STRAGGLER, Health.DEGRADED, lasts=timedelta(hours=2))
    site = ToldSite(folder, fuse=fuse, agents=True, notices=told)
    add_training(site.cluster, SICK)
    site.topology = ClusterJobs(site.cluster)
    site.restart()
    return site


def linked_site(folder: Path, fuse: Fuse) -> Site:
    """A link of a GPU errs."""
    told = ToldOf(FailureMode.NVLINK_ERRORS, Health.DEGRADED, gpu="1", lasts=timedelta(hours=2))
    site = ToldSite(folder, fuse=fuse, notices=told)
    add_training(site.cluster, SICK)
    return site


def suspect_site(folder: Path, fuse: Fuse) -> Site:
    """A GPU of an idle node is expected to fail, and the site has agents on its nodes."""
    told = ToldOf(FailureMode.GPU_FAILURE_PREDICTED, Health.DEGRADED, gpu="1", lasts=timedelta(hours=2))
    return ToldSite(folder, fuse=fuse, agents=True, notices=told)


def warm_site(folder: Path, fuse: Fuse) -> Site:
    """A GPU is at its thermal limit for some minutes."""
    told = ToldOf(FailureMode.GPU_THERMAL_LIMIT, Health.DEGRADED, gpu="1", lasts=timedelta(seconds=150))
    return ToldSite(folder, fuse=fuse, notices=told)


class WorkingSite(Site):
    """The GPUs of a node without work idle."""

    def let_pass(self, seconds: float) -> None:
        for node in self.fleet.layout.nodes:
            self.fleet.set_idle(node, idle=not self.cluster.gpus_in_use(node))
        super().let_pass(seconds)


def heavy_site(folder: Path, fuse: Fuse) -> Site:
    """A rack draws more than its budget for some minutes, and its agents lower no limit."""
    site = WorkingSite(folder, nodes=2, budget_w=3300.0, fuse=fuse)
    for owner, node, priority in (("Job/pretrain", "gpu-001", 100), ("Job/train", SICK, 0)):
        site.cluster.add_workload(owner, node=node, namespace="training", gpus=2, priority=priority)
    site.topology = ClusterJobs(site.cluster)
    site.power.refused |= {*site.fleet.layout.nodes}
    site.restart()
    site.fleet.inject(Fault(FaultKind.LOAD_SURGE, 0, rack="rack-1", duration_s=180))
    return site


def on_call(site: Site) -> None:
    """Approves what is asked, and cancels what gets nowhere."""
    if site.channel.asked and site.pending():
        site.answer(approve=True)
    for run in site.journal.runs(active_only=True):
        if "training/all" in run.detail and not run.cancelled_by:
            site.journal.request_cancel(run.id, ON_CALL, site.clock.now(), "it gets nowhere")
        if run.plan.playbook == "quarantine-links" and site.tickets.opened:
            site.cluster.finish_work(SICK)
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


def assert_restarted_once(site: Site) -> None:
    assert_ended(site, IncidentState.RESOLVED, RunState.SUCCEEDED)
    (approval,) = site.journal.approvals()
    assert approval.state is ApprovalState.APPROVED
    assert [(effect.verb, effect.of) for effect in site.cluster.effects] == [(Verb.SUSPEND, JOB), (Verb.RESUME, JOB)]
    gang = site.cluster.job(JOB)
    assert (gang.suspended, gang.running) == (False, 2)
    assert site.tickets.opened == {}


def assert_shed_and_readmitted_once(site: Site) -> None:
    """The cap has failed; the least important job was suspended, and runs again."""
    incident = site.incident()
    assert incident.state is IncidentState.RESOLVED, incident.story
    second, first = site.journal.runs()
    assert (first.plan.playbook, first.state) == ("cap-rack-power", RunState.FAILED)
    assert (second.plan.playbook, second.state) == ("shed-rack-load", RunState.SUCCEEDED), second.cause
    assert [(effect.verb, effect.of) for effect in site.cluster.effects] == [(Verb.SUSPEND, JOB), (Verb.RESUME, JOB)]
    assert site.cluster.job(JOB).running == 1
    assert len(site.journal.approvals()) == 1
    assert site.journal.leases() == {}
    for run in (first, second):
        assert EffectState.INTENT not in {effect.state for effect in site.journal.effects(run.id)}
    assert first_broken_link(site.journal.audit_log(limit=10_000)) is None


def operations(site: Site) -> list[str]:
    """What the agent of the sick node was made to do, each once however often it was told."""
    keys = {key: order.operation for _, key, order in site.care.asked}
    assert len(keys) == len(site.care.begun)
    return [str(operation) for operation in keys.values()]


def assert_reset_once(site: Site) -> None:
    assert_ended(site, IncidentState.RESOLVED, RunState.SUCCEEDED)
    assert operations(site) == ["reset_gpu", "burn_in"]
    assert_back_in_service(site)


def assert_rebooted_once(site: Site) -> None:
    assert_ended(site, IncidentState.RESOLVED, RunState.SUCCEEDED)
    assert operations(site) == ["collect", "reboot", "burn_in"]
    assert_back_in_service(site)


def assert_back_in_service(site: Site) -> None:
    assert all(node.available for node in site.cluster.nodes())
    verbs = [effect.verb for effect in site.cluster.effects]
    assert verbs == [Verb.CORDON, *[Verb.EVICT] * 3, Verb.UNCORDON]
    assert site.tickets.opened == {}


def assert_kept_and_handed_over(site: Site) -> None:
    """The node has failed its test: out of service in the name of the run, and one ticket."""
    incident = site.incident()
    assert (incident.state, incident.next_playbook) == (IncidentState.ESCALATED, "hand-over"), incident.story
    assert "wrong results under load" in incident.story
    assert operations(site) == ["reset_gpu", "burn_in"]
    second, first = site.journal.runs()
    assert (first.state, second.state) == (RunState.FAILED, RunState.SUCCEEDED)
    assert [node.name for node in site.cluster.nodes() if node.cordoned] == [SICK]
    assert site.cluster.node(SICK).cordoned_by == first.id
    assert [effect.verb for effect in site.cluster.effects] == [Verb.CORDON, *[Verb.EVICT] * 3]
    assert len(site.tickets.opened) == 1
    assert site.journal.leases() == {}
    assert first_broken_link(site.journal.audit_log(limit=10_000)) is None


def assert_kept_and_told_once(site: Site) -> None:
    """Out of service in the name of the run, with one ticket; nothing was moved."""
    assert_ended(site, IncidentState.ESCALATED, RunState.SUCCEEDED)
    assert operations(site) == ["collect"]
    assert_quarantined_once(site)


def assert_emptied_once(site: Site) -> None:
    assert_ended(site, IncidentState.RESOLVED, RunState.SUCCEEDED)
    assert_quarantined_once(site)


def assert_quarantined_once(site: Site) -> None:
    (run,) = site.journal.runs()
    assert [(effect.verb, effect.node) for effect in site.cluster.effects] == [(Verb.CORDON, SICK)]
    assert site.cluster.node(SICK).cordoned_by == run.id
    assert len(site.tickets.opened) == 1
    assert len(site.journal.approvals()) == 1


def assert_tested_once(site: Site) -> None:
    """The node has passed its test and serves again, and a person was told."""
    assert_ended(site, IncidentState.ESCALATED, RunState.SUCCEEDED)
    assert operations(site) == ["collect", "burn_in"]
    assert [effect.verb for effect in site.cluster.effects] == [Verb.CORDON, Verb.UNCORDON]
    assert all(node.available for node in site.cluster.nodes())
    assert len(site.tickets.opened) == 1


def assert_gpu_cooled_and_restored(site: Site) -> None:
    assert_ended(site, IncidentState.RESOLVED, RunState.SUCCEEDED)
    assert site.limits_w() == {700.0}
    assert {(node, *limits) for node, limits in site.power.asked} == {(SICK, 1), (SICK,)}
    assert len(site.tickets.opened) == 1


def assert_cooled_and_restored(site: Site) -> None:
    """Limited alike, with one ticket, and put back."""
    assert_ended(site, IncidentState.RESOLVED, RunState.SUCCEEDED)
    assert site.journal.approvals() == ()
    assert site.limits_w() == {700.0}
    assert {watts for _, limits in site.power.asked for watts in limits.values()} == {420.0}
    assert {node for node, limits in site.power.asked if limits} == {*site.fleet.layout.nodes}
    assert site.cluster.effects == ()
    assert len(site.tickets.opened) == 1


def crash_points(
    folder: Path, make: MakeSite, check: Check, *, seconds: float, since: str = ""
) -> Iterator[tuple[str, str | None]]:
    """The points of a clean pass, from `since` on, and what was wrong when the process was killed there, if at all."""
    SqlJournal(f"sqlite:///{folder / 'empty.db'}").close()
    (folder / "clean").mkdir()
    with make(folder / "clean", Fuse()) as clean:
        assert lived_through(clean, seconds=seconds) == 0
        check(clean)
    points = clean.fuse.points
    for number in range(points.index(since) if since else 0, len(points)):
        (folder / str(number)).mkdir()
        shutil.copy(folder / "empty.db", folder / str(number) / "journal.db")  # quicker than to migrate it anew
        with make(folder / str(number), Fuse(number)) as site:
            try:
                assert lived_through(site, seconds=seconds) == 1
                check(site)
            except AssertionError as error:
                yield f"at point {number} of {len(points)}, {points[number]}", str(error)
            else:
                yield points[number], None


def crash_everywhere(folder: Path, make: MakeSite, check: Check, *, seconds: float, since: str = "") -> list[str]:
    """Returns the points at each of which one site's process was killed, and nothing was wrong afterwards."""
    points = []
    for point, wrong in crash_points(folder, make, check, seconds=seconds, since=since):
        assert wrong is None, f"killed {point}: {wrong}"
        points.append(point)
    return points


# What is lived through, how it must end, the seconds of a tick, and the first point at which healer dies.
MATRICES: tuple[tuple[MakeSite, Check, float, str], ...] = (
    (drain_site, assert_drained_once, 10, ""),
    (blocked_site, assert_cancelled_and_back_in_service, 10, "after evict"),
    (cap_site, assert_capped_and_restored, 12, ""),
    (blind_site, assert_exporter_started_once, 30, "after write"),
    (blind_for_ever_site, assert_handed_over_once, 30, "after evict"),
    (stalled_site, assert_restarted_once, 10, "before suspend"),
    (reset_site, assert_reset_once, 30, "before reset_gpu"),
    (lost_site, assert_rebooted_once, 30, "before reboot"),
    (sick_site, assert_kept_and_handed_over, 30, "before burn_in"),
    (hot_site, assert_cooled_and_restored, 30, "before set_limits"),
    (heavy_site, assert_shed_and_readmitted_once, 10, "before suspend"),
    (slow_site, assert_kept_and_told_once, 60, "before collect"),
    (linked_site, assert_emptied_once, 60, "before cordon"),
    (suspect_site, assert_tested_once, 60, "before cordon"),
    (warm_site, assert_gpu_cooled_and_restored, 30, "before set_limits"),
)


HAS = (
    {"before cordon", "after cordon", "before evict", "after evict"},
    {"before uncordon", "after uncordon"},
    {"before set_limits", "after set_limits", "before restore", "after restore"},
    {"before evict", "after evict"},
    {"before ticket", "after ticket"},
    {"before suspend", "after suspend", "before resume", "after resume"},
    {"before reset_gpu", "after reset_gpu", "before burn_in", "after burn_in", "before uncordon", "after uncordon"},
    {"before reboot", "after reboot", "before burn_in", "after burn_in", "before uncordon", "after uncordon"},
    {"before burn_in", "after burn_in", "before ticket", "after ticket"},
    {"before set_limits", "after set_limits", "before restore", "after restore", "after ticket"},
    {"before suspend", "after suspend", "before resume", "after resume"},
    {"before collect", "after collect", "before cordon", "after cordon", "before ticket", "after ticket"},
    {"before cordon", "after cordon", "before ticket", "after ticket"},
    {"before burn_in", "after burn_in", "before uncordon", "after uncordon", "before ticket", "after ticket"},
    {"before set_limits", "after set_limits", "before restore", "after restore", "before ticket", "after ticket"},
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("matrix", "has"),
    [*zip(MATRICES, HAS, strict=True)],
    ids=[make.__name__.removesuffix("_site") for make, *_ in MATRICES],
)
def test_it_ends_the_same_way_whenever_healer_dies(
    tmp_path: Path, matrix: tuple[MakeSite, Check, float, str], has: set[str]
) -> None:
    make, check, seconds, since = matrix
    assert has <= set(crash_everywhere(tmp_path, make, check, seconds=seconds, since=since))
