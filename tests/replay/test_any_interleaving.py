"""Whatever happens in whatever order, faults, people, crashes and deaf schedulers: what must hold, holds."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from healer.adapters.simulated_cluster import Verb
from healer.config import BudgetSettings
from healer.content.expressions import compile_expression
from healer.domain.approval import ApprovalState, Person
from healer.domain.fleet import Node
from healer.domain.incident import IncidentState
from healer.domain.matcher import matchers_in
from healer.domain.playbook import Rate
from healer.domain.run import RunState
from healer.domain.silence import Silence
from healer.errors import Conflict, Unavailable
from healer.policy.audit_chain import first_broken_link
from healer.sim.faults import Fault, FaultKind
from tests.virtual_site import ON_CALL, Site, add_training

NODES = tuple(f"gpu-00{number}" for number in range(1, 7))
MOST_OUT = 2  # of the six nodes of the rack
# Each pool has a node of each job, so that neither budget does the other's work.
POOLS = {name: "first" if name < "gpu-004" else "second" for name in NODES}
JOBS = {name: f"serve-{number % 3}" for number, name in enumerate(NODES)}
STARTS, AT_ONCE, A_NODE_S = Rate(3, timedelta(minutes=10)), 2, Rate(1, timedelta(minutes=5))
LIMITS = "limits: {runs: 3, per: 10m, at_once: 2, per_target: {runs: 1, per: 5m}}"
LOCKS = """locks: ['${incident.component.node < "gpu-003" ? "small-loop" : "large-loop"}']"""
ONE, AMPLE = BudgetSettings(max_nodes=1), BudgetSettings(max_nodes=100, max_percent=100)


class Holds(StrEnum):
    """What is in the way of draining all that is broken; all else is ample then."""

    RACK = "the budget of the rack"
    SCOPES = "the budgets of pools and jobs"
    LIMITS = "limits of the playbook"
    LOCKS = "locks of the playbook"


SOMEBODY = Person("token:somebody", "somebody")

compile_expression("true")  # CEL's parser raises the recursion limit, which hypothesis wants to stay as it is

S, R = IncidentState, RunState
# From which state an incident, or a run, is seen in which other one a moment later.
INCIDENT_MOVES = {
    S.OPEN: {S.AWAITING_APPROVAL, S.REMEDIATING, S.RESOLVED, S.ESCALATED},
    S.AWAITING_APPROVAL: {S.OPEN, S.REMEDIATING, S.RESOLVED, S.ESCALATED},
    S.REMEDIATING: {S.VERIFYING, S.OPEN, S.ESCALATED, S.RESOLVED},
    S.VERIFYING: {S.OPEN, S.RESOLVED, S.ESCALATED, S.REMEDIATING},
    S.RESOLVED: {S.OPEN},
    S.ESCALATED: set(),
}
RUN_MOVES = {R.RUNNING: {R.UNDOING, R.SUCCEEDED, R.FAILED, R.CANCELLED}, R.UNDOING: {R.FAILED, R.CANCELLED}}

node = st.sampled_from(NODES)


@cache
def playbooks(more: str) -> Path:
    """The reference playbooks, where the one that drains says this too."""
    folder = Path(tempfile.mkdtemp(prefix="healer-playbooks-"))
    atexit.register(shutil.rmtree, folder)
    for path in sorted((Path(__file__).parents[2] / "playbooks").glob("*.yaml")):
        said = f"\n{more}\nsteps:\n" if path.name == "drain-node.yaml" else "\nsteps:\n"
        (folder / path.name).write_text(path.read_text().replace("\nsteps:\n", said, 1))
    return folder


class Fleet(RuleBasedStateMachine):
    """A rack of six nodes that run a training, on-call, a person with kubectl, and healer, which dies now and then."""

    @initialize(holds=st.sampled_from(Holds), broken=st.sets(node, min_size=2))
    def begin(self, holds: Holds, broken: set[str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.holds = holds
        self.site = Site(Path(self._folder.name), nodes=len(NODES), pools=POOLS)
        if holds is not Holds.RACK:
            scopes = ONE if holds is Holds.SCOPES else AMPLE
            budgets = {"fleet": AMPLE, "rack": AMPLE, "pool": scopes, "job": scopes}
            more = {Holds.LIMITS: LIMITS, Holds.LOCKS: LOCKS}.get(holds, "")
            self.site.restart(
                budgets=self.site.config.budgets.model_copy(update=budgets),
                playbooks=self.site.config.playbooks.model_copy(update={"path": playbooks(more)}),
            )
        for name in NODES:
            add_training(self.site.cluster, name)
            self.site.fleet.place_job(name, JOBS[name])
        self.incidents: dict[str, IncidentState] = {}
        self.runs: dict[str, RunState] = {}
        self.by_person: set[str] = set()  # nodes that a person has cordoned, and nobody has uncordoned
        self.site.ticks(2)
        self.gpus_fail(broken, 0)
        self.on_call_answers_all(approve=True)

    def teardown(self) -> None:
        if hasattr(self, "site"):
            self.site.stop()
            self._folder.cleanup()

    # What happens

    @rule(names=st.sets(node, min_size=1, max_size=4), gpu=st.integers(0, 1))
    def gpus_fail(self, names: set[str], gpu: int) -> None:
        for name in sorted(names):
            self.site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=name, gpu=gpu))
        self.time_passes(2, 10)

    @rule(ticks=st.integers(1, 4), seconds=st.sampled_from([5, 10, 60]))
    def time_passes(self, ticks: int, seconds: int) -> None:
        for _ in range(ticks):
            self.site.tick(seconds)
            self._look()

    @rule(approve=st.booleans())
    def on_call_answers_all(self, approve: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        for approval in self.site.pending():
            with suppress(Conflict):
                self.site.journal.decide(
                    approval.id, ON_CALL, self.site.clock.now(), approve=approve, reason="as drawn"
                )
        self.time_passes(2, 10)

    @rule(name=node)
    def a_person_cordons(self, name: str) -> None:
        seen = self._node(name)
        self.site.cluster.cordon_by_person(name)
        if not seen.cordoned:
            self.by_person.add(name)

    @rule(name=node)
    def a_person_uncordons(self, name: str) -> None:
        self.site.cluster.uncordon_by_person(name)
        self.by_person.discard(name)

    @rule()
    def a_person_cancels_everything(self) -> None:
        for run in self.site.journal.runs(active_only=True):
            self.site.journal.request_cancel(run.id, ON_CALL, self.site.clock.now(), "as drawn")

    @rule(name=node, seconds=st.sampled_from([30, 300]))
    def a_person_silences(self, name: str, seconds: int) -> None:
        now = self.site.clock.now()
        number = len(self.site.journal.silences())
        until = now + timedelta(seconds=seconds)
        matchers = matchers_in([f"node={name}"])
        self.site.journal.add_silence(
            Silence(f"sil-{number}", matchers, now, until, SOMEBODY, "as drawn", created_at=now)
        )

    @rule(blocked=st.booleans())
    def a_disruption_budget(self, blocked: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        least = 2 * len(NODES) if blocked else 0
        self.site.cluster.set_budget("all", owner="Job/train", min_available=least, namespace="training")

    @rule()
    def healer_dies_and_comes_back(self) -> None:
        self.site.restart()
        self.time_passes(1, 10)

    @rule(times=st.integers(1, 3))
    def the_scheduler_does_not_answer(self, times: int) -> None:
        self.site.cluster.fail_next(Unavailable("cluster", "as drawn"), times=times)
        with suppress(Unavailable):
            self.site.tick(10)
        self._look()

    @rule()
    def an_answer_is_lost(self) -> None:
        self.site.cluster.lose_next_answer(Unavailable("cluster", "timed out"))

    # What holds

    @invariant()
    def no_more_nodes_are_out_by_our_hand_than_the_budget_allows(self) -> None:
        out = [name for name in NODES if (seen := self._node(name)).cordoned and seen.cordoned_by is not None]
        match self.holds:
            case Holds.RACK:
                assert len(out) <= MOST_OUT, out
            case Holds.SCOPES:
                assert len({POOLS[name] for name in out}) == len(out), out
                assert len({JOBS[name] for name in out}) == len(out), out
            case Holds.LIMITS | Holds.LOCKS:
                pass

    @invariant()
    def no_more_is_started_than_the_limits_allow(self) -> None:
        if self.holds is not Holds.LIMITS:
            return
        runs = [run for run in self.site.journal.runs(limit=10_000) if run.plan.playbook == "drain-node"]
        assert sum(not run.state.ended for run in runs) <= AT_ONCE
        for first in runs:
            since = [run for run in runs if run.started_at >= first.started_at]
            assert sum(run.started_at < first.started_at + STARTS.per for run in since) <= STARTS.runs
            here = [run for run in since if run.plan.target == first.plan.target]
            assert sum(run.started_at < first.started_at + A_NODE_S.per for run in here) <= A_NODE_S.runs

    @invariant()
    def what_shares_a_lock_never_runs_at_once(self) -> None:
        active = self.site.journal.runs(active_only=True)
        locks = [lock for run in active for lock in run.plan.locks]
        assert len(locks) == len(set(locks)), locks
        held = self.site.journal.leases()
        assert all(held[f"lock/{lock}"].run_id == run.id for run in active for lock in run.plan.locks)

    @invariant()
    def what_a_person_has_cordoned_stays_theirs(self) -> None:
        for name in self.by_person:
            seen = self._node(name)
            assert (seen.cordoned, seen.cordoned_by) == (True, None), name

    @invariant()
    def a_component_has_one_active_run(self) -> None:
        active = {run.id for run in self.site.journal.runs(active_only=True)}
        held = self.site.journal.leases()
        assert {lease.run_id for lease in held.values()} <= active
        nodes = [name for run in self.site.journal.runs(active_only=True) for name in run.plan.takes_out]
        assert len(nodes) == len(set(nodes)), nodes

    @invariant()
    def nothing_is_done_twice(self) -> None:
        evicted = [effect.workload for effect in self.site.cluster.effects if effect.verb is Verb.EVICT]
        assert len(evicted) == len(set(evicted))

    @invariant()
    def only_what_was_approved_has_run(self) -> None:
        approved = {a.id for a in self.site.journal.approvals() if a.state is ApprovalState.APPROVED}
        for run in self.site.journal.runs():
            assert not run.plan.needs_approval or run.approval_id in approved

    @invariant()
    def the_audit_log_is_one_chain(self) -> None:
        assert first_broken_link(self.site.journal.audit_log(limit=100_000)) is None

    def _node(self, name: str) -> Node:
        """Also while the scheduler does not answer healer."""
        while True:
            with suppress(Unavailable):
                return self.site.cluster.node(name)

    def _look(self) -> None:
        """Incidents and runs only move along their transitions."""
        for incident in self.site.journal.incidents(limit=10_000):
            before = self.incidents.get(incident.id, S.OPEN)
            assert incident.state is before or incident.state in INCIDENT_MOVES[before], (before, incident.state)
            self.incidents[incident.id] = incident.state
        for run in self.site.journal.runs(limit=10_000):
            was = self.runs.get(run.id, R.RUNNING)
            assert run.state is was or run.state in RUN_MOVES.get(was, set()), (was, run.state)
            self.runs[run.id] = run.state


TestAnyInterleaving = Fleet.TestCase
TestAnyInterleaving.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a failing case is told as it was found: each takes seconds
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
