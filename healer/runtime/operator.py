"""The operator: one turn of the loop reads aloud, and between turns it pursues what was decided.

Three things run side by side and share the journal: `turn` (observe, detect, correlate, plan, admit), `pursue` (answers
into runs, runs one look further, outcomes into incidents) and `announce` (the approval channel). `turn` and `pursue`
change incidents under one lock; neither holds it while it waits for telemetry or for a step's I/O.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import structlog

from healer.actions.base import Verbs, World
from healer.content.detectors import Detector
from healer.content.models import Model
from healer.domain.approval import Approval, ApprovalState
from healer.domain.component import ComponentKind
from healer.domain.finding import Findings
from healer.domain.fleet import Fleet
from healer.domain.frame import Frame
from healer.domain.incident import Incident, IncidentState
from healer.domain.plan import Plan
from healer.domain.playbook import ResolvesWhen
from healer.domain.reading import Reading
from healer.domain.run import Done, Failed, Run, RunState
from healer.domain.verdict import Guard, Mode, Verdict
from healer.errors import Conflict, HealerError, NotFound
from healer.policy.budget import DisruptionBudget
from healer.policy.correlation import correlate
from healer.policy.guards import Situation, budget_line, first_verdict, leases_of
from healer.ports import ApprovalChannel, Clock, Cluster, Journal, PowerControl, TelemetrySource, Transaction
from healer.runtime.executor import Executor
from healer.runtime.planning import Planner
from healer.runtime.snapshot import Board, TurnFigures
from healer.telemetry.window import Window

_FLEET_REFRESH = timedelta(seconds=5)
_LOOKS_AT_A_TIME = 20
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator decides by.

    Attributes:
        max_age: telemetry and scheduler knowledge older than this permits nothing.
        clear_after: how long a component must be observed healthy before its incident ends by itself.
    """

    mode: Mode
    fleet_budget: DisruptionBudget
    rack_budget: DisruptionBudget
    max_age: timedelta = timedelta(seconds=90)
    clear_after: timedelta = timedelta(minutes=2)
    power_floor_w: float = 300.0


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """The outside systems; those that are not configured are None."""

    source: TelemetrySource
    cluster: Cluster | None = None
    power: PowerControl | None = None
    channel: ApprovalChannel | None = None


class Operator:
    def __init__(
        self,
        *,
        rules: Rules,
        outside: Outside,
        journal: Journal,
        window: Window,
        detectors: Sequence[Detector],
        models: Sequence[Model],
        planner: Planner,
        verbs: Verbs,
        board: Board,
        clock: Clock,
        new_id: Callable[[str], str],
    ) -> None:
        self._rules = rules
        self._outside = outside
        self._journal = journal
        self._window = window
        self._detectors = detectors
        self._models = models
        self._planner = planner
        self._executor = Executor(journal, verbs, permit=self._permit)
        self._board = board
        self._clock = clock
        self._new_id = new_id
        self._deciding = threading.Lock()
        self._frame: Frame | None = None
        self._fleet = Fleet(as_of=clock.now(), problem="not asked yet")

    # One turn

    def turn(self) -> None:
        """Observe and decide. Telemetry that cannot be had fails the turn: nothing is concluded from silence."""
        started = self._clock.now()
        self.take(self._outside.source.read(started), started)

    def take(self, reading: Reading, started: datetime, *, seen: Callable[[Frame], None] = lambda _frame: None) -> None:
        """The turn from its reading on: the same for the live daemon and for a replay of history.

        Args:
            seen: told of the frame before anything is concluded from it; a replay learns its nodes so.
        """
        frame, findings = self._detect(self._window.add(reading))
        self._frame = frame
        seen(frame)
        fleet = self._observe_fleet()
        with self._deciding:
            live = self._journal.incidents(open_only=True)
            for incident in correlate(live, findings, frame, clear_after=self._rules.clear_after):
                self._save(incident)
            for incident in self._journal.incidents(open_only=True):
                self._consider(incident)
        self._pin(frame, findings, fleet, reading, started)

    def _detect(self, frame: Frame) -> tuple[Frame, Findings]:
        scores = {model.name: model.score(frame) for model in self._models}
        frame = replace(frame, scores=scores)
        findings = Findings()
        for detector in self._detectors:
            findings += detector.detect(frame)
        for model in self._models:
            findings += model.judge(frame, scores[model.name])
        return frame, findings

    def _consider(self, incident: Incident) -> None:
        """Plan for an open incident; check that what was asked is still what would be done."""
        match incident.state:
            case IncidentState.OPEN:
                self._answer(incident)
            case IncidentState.AWAITING_APPROVAL:
                self._recheck(incident)
            case _:
                pass

    def _answer(self, incident: Incident) -> None:
        now = self._clock.now()
        planned = self._planner.plan(incident, self._world(), self._rules.mode)
        plan, verdict = planned.plan, planned.verdict
        if plan is not None:
            situation = self._situation(incident, run=None)
            plan = replace(plan, budget=budget_line(plan, situation))
            verdict = verdict or first_verdict(plan, situation)
        if plan is None or verdict is not None:
            story = str(verdict) if verdict else "no playbook answers this failure mode"
            self._save(replace(incident, plan=plan, verdict=verdict, story=story), before=incident)
        elif plan.needs_approval:
            self._ask(replace(incident, plan=plan, verdict=None), plan, now)
        else:
            self._start(replace(incident, plan=plan, verdict=None), plan, None)

    def _ask(self, incident: Incident, plan: Plan, now: datetime) -> None:
        approval = Approval(
            id=self._new_id("apr"),
            incident_id=incident.id,
            plan=plan,
            digest=plan.digest,
            state=ApprovalState.PENDING,
            asked_at=now,
            expires_at=now + plan.approval_expires_after,
        )
        asked = replace(
            incident,
            state=IncidentState.AWAITING_APPROVAL,
            approval_id=approval.id,
            changed_at=now,
            story=f"asked for approval until {approval.expires_at:%H:%M:%S}Z",
        )
        with self._journal.transaction() as write:
            self._write_incident(write, asked)
            write.add_approval(approval)
            effects = [str(effect) for effect in plan.effects]
            detail = {"digest": approval.digest, "effects": effects, "incident": incident.id}
            write.audit(now, "healer", "approval.asked", approval.id, reason=plan.reason, detail=detail)

    def _recheck(self, incident: Incident) -> None:
        """Void a question that no longer says what would be done."""
        approval = self._journal.approval(str(incident.approval_id))
        if approval.state is not ApprovalState.PENDING:
            return
        planned = self._planner.plan(incident, self._world(), self._rules.mode)
        if planned.plan is not None and planned.plan.exceeds(approval.plan):
            self._reopen(incident, approval, f"the plan changed: {planned.plan.exceeds(approval.plan)[0]}")

    # Between turns

    def pursue(self) -> None:
        """Turn answers into runs, carry every run that is due one look further, settle what has ended."""
        with self._deciding:
            for approval in self._journal.approvals(open_only=True):
                self._follow_up(approval)
        for run in self._journal.runs(active_only=True):
            self._carry_on(run)
        with self._deciding:
            for incident in self._journal.incidents(open_only=True):
                if incident.state is IncidentState.VERIFYING:
                    self._verify(incident)

    def _follow_up(self, approval: Approval) -> None:
        now = self._clock.now()
        incident = self._journal.incident(approval.incident_id)
        if incident.approval_id != approval.id or incident.state is not IncidentState.AWAITING_APPROVAL:
            if approval.state is ApprovalState.PENDING:
                self._close(approval, ApprovalState.VOID, "the incident has moved on")
            return
        match approval.state:
            case ApprovalState.PENDING if now >= approval.expires_at:
                self._close(approval, ApprovalState.EXPIRED, "nobody answered in time")
                self._escalate(incident, "nobody answered in time; a person has to look")
            case ApprovalState.DENIED:
                self._escalate(incident, f"denied by {approval.decided_by}: {approval.reason}")
            case ApprovalState.APPROVED:
                self._start_approved(incident, approval)
            case _:
                pass

    def _start_approved(self, incident: Incident, approval: Approval) -> None:
        """The answer counts for what was shown: plan once more, and ask again rather than do more than that."""
        planned = self._planner.plan(incident, self._world(), self._rules.mode)
        if planned.plan is not None and planned.plan.exceeds(approval.plan):
            self._reopen(incident, approval, f"the plan changed: {planned.plan.exceeds(approval.plan)[0]}")
            return
        plan = planned.plan or approval.plan
        verdict = planned.verdict or first_verdict(plan, self._situation(incident, run=None))
        if verdict is None:
            self._start(replace(incident, plan=approval.plan, verdict=None), approval.plan, approval.id)
            return
        story = f"approved by {approval.decided_by}, held: {verdict}"
        self._save(replace(incident, verdict=verdict, story=story), before=incident)

    def _start(self, incident: Incident, plan: Plan, approval_id: str | None) -> None:
        now = self._clock.now()
        run = Run(
            id=self._new_id("run"),
            incident_id=incident.id,
            approval_id=approval_id,
            plan=plan,
            state=RunState.RUNNING,
            position=0,
            started_at=now,
            step_started_at=now,
            next_look_at=now,
            detail="started",
        )
        started = replace(
            incident,
            state=IncidentState.REMEDIATING,
            run_id=run.id,
            changed_at=now,
            story=f"{plan.playbook} is running",
        )
        try:
            with self._journal.transaction() as write:
                write.add_run(run, leases_of(plan))
                self._write_incident(write, started)
                detail = {"playbook": plan.playbook, "digest": plan.digest, "approval": approval_id}
                write.audit(now, "healer", "run.started", run.id, reason=plan.reason, detail=detail)
        except Conflict as error:
            verdict = Verdict(Guard.LEASE, str(error), "that run ends")
            self._save(replace(incident, verdict=verdict, story=str(verdict)), before=incident)

    def _carry_on(self, run: Run) -> None:
        for _ in range(_LOOKS_AT_A_TIME):
            now = self._clock.now()
            due = run.next_look_at <= now or bool(run.cancelled_by and run.state is RunState.RUNNING)
            if run.state.ended or not due:
                return
            looked = self._executor.look(run, self._world())
            self._save_run(looked, before=run)
            # The journal has the person's newest word: a cancellation may have come in during the look.
            run = self._journal.run(run.id)

    def _save_run(self, run: Run, *, before: Run) -> None:
        now = self._clock.now()
        with self._deciding, self._journal.transaction() as write:
            write.save_run(run)
            if run.state is not before.state:
                reason = run.cause or run.detail
                write.audit(now, "healer", f"run.{run.state}", run.id, reason=reason)
                _log.info("run", run=run.id, state=str(run.state), detail=reason)
            if run.state.ended:
                self._write_incident(write, _after_run(self._journal.incident(run.incident_id), run, now))

    def _verify(self, incident: Incident) -> None:
        """Contained means observed in the cluster; healthy means observed in the telemetry, which `correlate` does."""
        plan, now = incident.plan, self._clock.now()
        if plan is None or incident.run_id is None:
            return
        if plan.resolves_when is ResolvesWhen.HEALTHY:
            if now - incident.changed_at > plan.deadline:
                self._escalate(incident, f"{plan.playbook} ended, but the telemetry still does not say healthy")
            return
        match self._executor.still_holds(self._journal.run(incident.run_id), self._world()):
            case Done():
                story = f"contained by {plan.playbook}: {plan.target} is out of service"
                resolved = replace(incident, state=IncidentState.RESOLVED, resolved_at=now, changed_at=now, story=story)
                self._save(resolved)
            case Failed(detail):
                self._escalate(incident, detail)
            case _:
                pass

    # The approval channel

    def announce(self) -> None:
        """Put new questions to the channel, and show answers in place of old ones. At least once, never a decision."""
        for approval in self._journal.approvals(open_only=True):
            incident = self._journal.incident(approval.incident_id)
            if approval.state is ApprovalState.PENDING and not approval.announced:
                name = self._outside.channel.ask(approval, incident) if self._outside.channel else ""
                self._mark(approval.id, lambda a, name=name: replace(a, announced=True, announced_as=name))  # type: ignore[misc]
            elif approval.state is not ApprovalState.PENDING and not approval.closed:
                if self._outside.channel is not None and approval.announced:
                    self._outside.channel.close(approval, incident)
                self._mark(approval.id, lambda a: replace(a, closed=True))

    def _mark(self, approval_id: str, change: Callable[[Approval], Approval]) -> None:
        with self._journal.transaction() as write:
            write.change_approval(approval_id, change)

    # What everything above stands on

    def _permit(self, run: Run) -> Verdict | None:
        incident = self._journal.incident(run.incident_id)
        return first_verdict(run.plan, self._situation(incident, run=run))

    def _situation(self, incident: Incident, *, run: Run | None) -> Situation:
        others = [other for other in self._journal.runs(active_only=True) if run is None or other.id != run.id]
        return Situation(
            now=self._clock.now(),
            mode=self._rules.mode,
            fleet=self._observe_fleet(),
            basis=incident.basis,
            data_age=self._age_of(incident),
            max_age=self._rules.max_age,
            racks=self._racks(),
            leases=self._journal.leases(),
            leaving=frozenset(node for other in others for node in other.plan.takes_out),
            fleet_budget=self._rules.fleet_budget,
            rack_budget=self._rules.rack_budget,
            run_id=None if run is None else run.id,
        )

    def _observe_fleet(self) -> Fleet:
        now = self._clock.now()
        if self._fleet.problem is None and now - self._fleet.as_of < _FLEET_REFRESH:
            return self._fleet
        if self._outside.cluster is None:
            self._fleet = Fleet(as_of=now, problem="no scheduler is configured; set cluster.kind")
            return self._fleet
        try:
            nodes = self._outside.cluster.nodes()
            self._fleet = Fleet(as_of=now, nodes={node.name: node for node in nodes})
        except HealerError as error:
            self._fleet = Fleet(as_of=now, problem=str(error))
        return self._fleet

    def _racks(self) -> Mapping[str, str]:
        racks = {node.name: node.rack for node in self._fleet.nodes.values() if node.rack is not None}
        gpus = self._frame.gpus.components if self._frame is not None else ()
        return racks | {gpu.node: gpu.rack for gpu in gpus if gpu.node is not None and gpu.rack is not None}

    def _age_of(self, incident: Incident) -> timedelta | None:
        """How old the newest sample of the incident's own component is."""
        frame = self._frame
        row = None if frame is None else frame.row_of(incident.component)
        if frame is None or row is None:
            return None
        since = self._clock.now() - frame.at
        if incident.component.kind is ComponentKind.RACK:
            return None if np.isnan(frame.racks.power_w[-1, row]) else since
        age_s = float(frame.age_s[row])
        return None if np.isnan(age_s) else since + timedelta(seconds=age_s)

    def _world(self) -> World:
        return World(
            now=self._clock.now(),
            frame=self._frame,
            configured_cluster=self._outside.cluster,
            configured_power=self._outside.power,
            power_floor_w=self._rules.power_floor_w,
        )

    def _reopen(self, incident: Incident, approval: Approval, why: str) -> None:
        self._close(approval, ApprovalState.VOID, why)
        now = self._clock.now()
        self._save(replace(incident, state=IncidentState.OPEN, approval_id=None, changed_at=now, story=why))

    def _close(self, approval: Approval, state: ApprovalState, why: str) -> None:
        now = self._clock.now()
        with self._journal.transaction() as write:
            write.change_approval(approval.id, lambda a: replace(a, state=state, decided_at=now, reason=why))
            write.audit(now, "healer", f"approval.{state}", approval.id, reason=why)

    def _escalate(self, incident: Incident, why: str) -> None:
        now = self._clock.now()
        self._save(replace(incident, state=IncidentState.ESCALATED, changed_at=now, resolved_at=None, story=why))

    def _save(self, incident: Incident, *, before: Incident | None = None) -> None:
        if incident != before:
            with self._journal.transaction() as write:
                self._write_incident(write, incident)

    def _write_incident(self, write: Transaction, incident: Incident) -> None:
        """Write the incident, and its transition to the audit log if it has one."""
        try:
            state: IncidentState | None = self._journal.incident(incident.id).state
        except NotFound:
            state = None
        write.save_incident(incident)
        if incident.state is not state:
            _log.info(
                "incident",
                incident=incident.id,
                state=str(incident.state),
                failure_mode=str(incident.failure_mode),
                component=str(incident.component),
                story=incident.story,
            )
            detail = {
                "failure_mode": incident.failure_mode,
                "component": incident.component.key,
                "name": str(incident.component),
            }
            write.audit(
                self._clock.now(),
                "healer",
                f"incident.{incident.state}",
                incident.id,
                reason=incident.reasons[0] if state is None else incident.story,
                detail=detail,
            )

    def _pin(self, frame: Frame, findings: Findings, fleet: Fleet, reading: Reading, started: datetime) -> None:
        now, last = self._clock.now(), self._board.look()
        figures = TurnFigures(
            turns=last.figures.turns + 1,
            failed_turns=last.figures.failed_turns,
            samples=last.figures.samples + reading.samples,
            last_turn_s=(now - started).total_seconds(),
        )
        self._board.pin(replace(last, at=now, frame=frame, fleet=fleet, findings=findings, figures=figures))


def _after_run(incident: Incident, run: Run, now: datetime) -> Incident:
    match run.state:
        case RunState.SUCCEEDED:
            story = f"{run.plan.playbook} has ended: {run.detail}; verifying"
            return replace(incident, state=IncidentState.VERIFYING, changed_at=now, healthy_since=None, story=story)
        case _:
            story = f"{run.plan.playbook} {run.state}: {run.cause or run.detail}"
            return replace(incident, state=IncidentState.ESCALATED, changed_at=now, story=story)


def failed_turn(board: Board, error: Exception) -> None:
    """Pin that a turn failed: what was seen before stays visible, with its age."""
    last = board.look()
    figures = replace(last.figures, failed_turns=last.figures.failed_turns + 1, last_error=str(error))
    board.pin(replace(last, figures=figures))
