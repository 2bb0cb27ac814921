"""The book: how incidents, approvals and runs are written, each transition with its line in the audit log."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from healer.domain.approval import Approval, ApprovalState
from healer.domain.breaker import Trip
from healer.domain.incident import Incident, IncidentState
from healer.domain.people import People
from healer.domain.plan import Plan
from healer.domain.playbook import ResolvesWhen
from healer.domain.run import EffectState, Run, RunState
from healer.domain.verdict import Guard, Verdict
from healer.errors import Conflict, NotFound
from healer.policy.approval import progress
from healer.policy.breaker import Storm
from healer.policy.guards import leases_of
from healer.ports import Clock, Journal, Transaction

_log = structlog.get_logger(__name__)

# By the first part of an effect's key, the effect that ends it, if that is not its undoing.
_GIVEN_BACK_BY = {"cordon": "uncordon", "suspend": "resume", "cap": ""}


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """Attributes:
    new_id: a kind ("run") as a fresh id of that kind ("run-3f2a...").
    """

    journal: Journal
    clock: Clock
    new_id: Callable[[str], str]

    def save_all(self, incidents: Collection[Incident]) -> None:
        """Write what one turn has found, all of it or nothing: in a storm that is one commit, not hundreds."""
        if incidents:
            with self.journal.transaction() as write:
                for incident in incidents:
                    self.write_incident(write, incident)

    def save(self, incident: Incident, *, before: Incident | None = None) -> None:
        """Write the incident unless it is as `before`."""
        if incident != before:
            with self.journal.transaction() as write:
                self.write_incident(write, incident)

    def write_incident(self, write: Transaction, incident: Incident) -> None:
        """Write the incident, and its transition to the audit log if it has one."""
        try:
            state: IncidentState | None = self.journal.incident(incident.id).state
        except NotFound:
            state = None
        write.save_incident(incident)
        if incident.state is state:
            return
        name = str(incident.component)
        reason = incident.reasons[0] if state is None else incident.story
        detail = {"failure_mode": incident.failure_mode, "component": incident.component.key, "name": name}
        write.audit(self.clock.now(), "healer", f"incident.{incident.state}", incident.id, reason=reason, detail=detail)
        _log.info(
            "incident",
            incident=incident.id,
            state=str(incident.state),
            failure_mode=str(incident.failure_mode),
            component=name,
            reason=reason,
        )

    def trip(self, storm: Storm) -> Trip:
        """Open the breaker."""
        now = self.clock.now()
        trip = Trip(self.new_id("trip"), now, storm.reason, storm.nodes)
        with self.journal.transaction() as write:
            write.add_trip(trip)
            write.audit(
                now, "healer", "breaker.tripped", trip.id, reason=trip.reason, detail={"nodes": list(trip.nodes)}
            )
        _log.warning("breaker tripped", trip=trip.id, reason=trip.reason)
        return trip

    def ask(self, incident: Incident, plan: Plan, people: People) -> None:
        """Put the plan to those whom its playbook names, as the groups stand now."""
        now, asking = self.clock.now(), plan.asking
        escalation = asking.escalation
        approval = Approval(
            id=self.new_id("apr"),
            incident_id=incident.id,
            plan=plan,
            digest=plan.digest,
            state=ApprovalState.PENDING,
            asked_at=now,
            expires_at=now + plan.approval_expires_after,
            who=people.members(asking.who),
            quorum=asking.quorum,
            escalate_at=None if escalation is None else now + escalation.after,
            escalate_to=() if escalation is None else people.members(escalation.to),
        )
        asked = replace(
            incident,
            state=IncidentState.AWAITING_APPROVAL,
            plan=plan,
            verdict=None,
            approval_id=approval.id,
            changed_at=now,
            story=f"asked for approval until {approval.expires_at:%H:%M:%S}Z",
        )
        with self.journal.transaction() as write:
            self.write_incident(write, asked)
            write.add_approval(approval)
            effects = [str(effect) for effect in plan.effects]
            detail: dict[str, object] = {"digest": approval.digest, "effects": effects, "incident": incident.id}
            detail |= {"who": approval.who, "quorum": approval.quorum}
            write.audit(now, "healer", "approval.asked", approval.id, reason=plan.reason, detail=detail)

    def start(self, incident: Incident, plan: Plan, approval_id: str | None) -> Run | None:
        """Start a run of the plan with its leases; None if held back by a lease that another run took meanwhile."""
        now = self.clock.now()
        run = Run(
            id=self.new_id("run"),
            incident_id=incident.id,
            approval_id=approval_id,
            plan=plan,
            state=RunState.RUNNING,
            position=0,
            started_at=now,
            step_started_at=now,
            next_look_at=now,
            detail="started",
            line=incident.line,
        )
        started = replace(
            incident,
            state=IncidentState.REMEDIATING,
            plan=plan,
            verdict=None,
            run_id=run.id,
            line=run.owner,
            changed_at=now,
            story=f"{plan.playbook} is running",
        )
        try:
            with self.journal.transaction() as write:
                write.add_run(run, leases_of(plan))
                self.write_incident(write, started)
                detail = {"playbook": plan.playbook, "digest": plan.digest, "approval": approval_id}
                write.audit(now, "healer", "run.started", run.id, reason=plan.reason, detail=detail)
        except Conflict as error:
            verdict = Verdict(Guard.LEASE, str(error), "that run ends")
            self.save(replace(incident, plan=plan, verdict=verdict, story=str(verdict)), before=incident)
            return None
        return run

    def save_run(self, run: Run, *, before: Run) -> None:
        """Write the run as a look left it; an end is also the incident's."""
        now = self.clock.now()
        with self.journal.transaction() as write:
            write.save_run(run)
            if run.state is not before.state:
                reason = run.cause or run.detail
                write.audit(now, "healer", f"run.{run.state}", run.id, reason=reason)
                _log.info("run", run=run.id, incident=run.incident_id, state=str(run.state), detail=reason)
            if run.state.ended:
                self.write_incident(write, self._after(run, self.journal.incident(run.incident_id)))

    def reopen(self, incident: Incident, approval: Approval, why: str) -> bool:
        """Void a question that no longer says what would be done; the next turn asks anew. False if it was answered."""
        voided = self.close(approval, ApprovalState.VOID, why)
        if voided:
            self.open_again(incident, why)
        return voided

    def open_again(self, incident: Incident, why: str) -> None:
        """The next turn plans anew."""
        now = self.clock.now()
        self.save(replace(incident, state=IncidentState.OPEN, approval_id=None, changed_at=now, story=why))

    def escalate_question(self, approval: Approval) -> None:
        """Note, once, that more people may answer from now on, unless it was answered meanwhile."""
        why = f"open since {approval.asked_at:%H:%M:%S}Z: {progress(approval)}"

        def escalated(current: Approval) -> Approval:
            if current.state is not ApprovalState.PENDING or current.escalated:
                raise Conflict("approval", f"{current.id} was {current.state} meanwhile")
            return replace(current, escalated=True)

        with suppress(Conflict), self.journal.transaction() as write:
            write.change_approval(approval.id, escalated)
            detail = {"digest": approval.digest, "to": approval.escalate_to}
            write.audit(self.clock.now(), "healer", "approval.escalated", approval.id, reason=why, detail=detail)

    def close(self, approval: Approval, state: ApprovalState, why: str) -> bool:
        """Close a question that nobody has answered; False if an answer came in meanwhile, which stands."""
        now = self.clock.now()

        def closed(current: Approval) -> Approval:
            if current.state is not ApprovalState.PENDING:
                raise Conflict("approval", f"{current.id} was {current.state} meanwhile")
            return replace(current, state=state, decided_at=now, reason=why)

        try:
            with self.journal.transaction() as write:
                write.change_approval(approval.id, closed)
                write.audit(now, "healer", f"approval.{state}", approval.id, reason=why)
        except Conflict:
            return False
        return True

    def resolve(self, incident: Incident, how: str) -> None:
        """Proven to be over."""
        now = self.clock.now()
        state = IncidentState.RESOLVED
        self.save(replace(incident, state=state, resolved_at=now, changed_at=now, story=how))

    def give_up(self, incident: Incident, why: str) -> None:
        """What was tried has not helped: go on with what its playbook says is next, else call a person."""
        self.save(self._given_up(incident, why))

    def escalate(self, incident: Incident, why: str) -> None:
        """Nothing more can be done by itself: a person has to look."""
        now = self.clock.now()
        self.save(replace(incident, state=IncidentState.ESCALATED, changed_at=now, story=why))

    def _after(self, run: Run, incident: Incident) -> Incident:
        now = self.clock.now()
        if run.state is RunState.SUCCEEDED and run.plan.resolves_when is ResolvesWhen.HANDED_OVER:
            because = f"; {incident.tried[-1]}" if incident.tried else ""
            story = f"handed over by {run.plan.playbook}: {run.detail}{because}"
            return replace(incident, state=IncidentState.ESCALATED, changed_at=now, story=story)
        if run.state is RunState.SUCCEEDED:
            story = f"{run.plan.playbook} has ended: {run.detail}; verifying"
            state = IncidentState.VERIFYING
            return replace(incident, state=state, changed_at=now, healthy_since=None, kept=False, story=story)
        story = f"{run.plan.playbook} {run.state}: {run.cause or run.detail}"
        if run.state is RunState.CANCELLED or run.by_person:
            return replace(incident, state=IncidentState.ESCALATED, changed_at=now, story=story)
        return self._given_up(replace(incident, kept=incident.kept or self._keeps_something(run)), story)

    def _keeps_something(self, run: Run) -> bool:
        """Whether what it has cordoned, suspended or limited is still so in its name."""
        effects = self.journal.effects(run.id)
        done = {each.key.partition("/")[::2] for each in effects if each.state is EffectState.DONE}
        return any(verb in _GIVEN_BACK_BY and (_GIVEN_BACK_BY[verb], what) not in done for verb, what in done)

    def _given_up(self, incident: Incident, why: str) -> Incident:
        now, plan = self.clock.now(), incident.plan
        if plan is None or plan.otherwise is None:
            return replace(incident, state=IncidentState.ESCALATED, changed_at=now, story=why)
        return replace(
            incident,
            state=IncidentState.OPEN,
            next_playbook=plan.otherwise,
            tried=(*incident.tried, why),
            approval_id=None,
            changed_at=now,
            story=f"{why}; {plan.otherwise} is next",
        )
