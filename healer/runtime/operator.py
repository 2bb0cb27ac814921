"""The operator: one turn of the loop reads aloud, and between turns it pursues what was decided.

Three things run side by side and share the journal: `turn` (observe, detect, correlate, plan, admit), `pursue` (answers
into runs, runs one look further, outcomes into incidents) and `announce` (the approval channel). `turn` and `pursue`
change incidents under one lock; neither holds it while it waits for telemetry or for a step's I/O.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from healer.domain.approval import Approval, ApprovalState
from healer.domain.finding import Findings
from healer.domain.frame import Frame
from healer.domain.incident import Incident, IncidentState
from healer.domain.plan import Plan
from healer.domain.playbook import OnExpire, ResolvesWhen
from healer.domain.reading import Reading
from healer.domain.run import Done, Failed, RetryAfter, Run, RunState
from healer.domain.verdict import Guard, Mode, Verdict
from healer.errors import HealerError, Rejected, Unavailable
from healer.policy.approval import progress
from healer.policy.breaker import Demand, storm_in
from healer.policy.correlation import correlate
from healer.policy.guards import budget_line, first_verdict, is_demand
from healer.policy.selection import urgency
from healer.ports import ApprovalChannel, Clock, Journal
from healer.runtime.book import Book
from healer.runtime.docket import Docket, brought_up_to_date
from healer.runtime.executor import Executor
from healer.runtime.knowledge import EVERY, Knowledge
from healer.runtime.observer import Observer
from healer.runtime.planning import Planned, Planner
from healer.runtime.snapshot import Board, TurnFigures
from healer.schema import format_duration

_LOOKS_AT_A_TIME = 20
_NOT_MENDED_BY_WAITING = frozenset({Guard.TARGET, Guard.BASIS, Guard.WITNESS, Guard.FRESHNESS, Guard.MOMENT})
_log = structlog.get_logger(__name__)


def _unseen(_frame: Frame, _findings: Findings) -> None:
    """Nobody else looks."""


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    observer: Observer
    planner: Planner
    executor: Executor
    knowledge: Knowledge
    book: Book
    journal: Journal
    channel: ApprovalChannel | None
    board: Board
    clock: Clock
    deciding: threading.Lock

    # One turn

    def turn(self) -> None:
        """Observe and decide. Telemetry that cannot be had fails the turn: nothing is concluded from silence."""
        started = self.clock.now()
        self.take(self.observer.read(started), started)

    def take(self, reading: Reading, started: datetime, *, seen: Callable[[Frame, Findings], None] = _unseen) -> None:
        """The turn from its reading on: the same for the live daemon and for a replay of history.

        Args:
            seen: told of the frame and what was found before anything is concluded; a replay learns its nodes so.
        """
        frame, findings = self.observer.look(reading, self._live())
        seen(frame, findings)
        self.conclude(frame, findings)
        self._pin(frame, findings, reading, started)

    def conclude(self, frame: Frame, findings: Findings) -> None:
        """From what was found to incidents, plans, questions and runs, whoever has looked."""
        self.knowledge.learn(frame)
        with self.deciding:
            # Read again: runs have gone on while the telemetry was looked at. From here on nobody else changes it.
            before = self._live()
            changed = correlate(before, findings, frame, clear_after=self.knowledge.rules.clear_after)
            self.book.save_all(changed)
            docket = Docket(brought_up_to_date(before, changed), self.knowledge.claims())
            answers = {incident.id: self._plan(incident) for incident in docket.incidents if _wants_answer(incident)}
            self._watch_for_storm(docket, answers)
            for incident in sorted(docket.incidents, key=urgency):
                self._consider(incident, answers.get(incident.id), docket)
            self.book.save_all(docket.noted)

    def _live(self) -> tuple[Incident, ...]:
        return self.journal.incidents(open_only=True, limit=EVERY)

    def _watch_for_storm(self, docket: Docket, answers: Mapping[str, Planned]) -> None:
        """Open the breaker before the first of too many is touched, or asked about."""
        last, fleet = docket.claims.trip, self.knowledge.fleet()
        if self.knowledge.rules.mode is Mode.OBSERVE or (last is not None and last.open):
            return
        if fleet.problem is not None:
            return  # how many are too many is not known; the guards let nothing act meanwhile
        demands = tuple(self._demands(docket, answers))
        if not demands:
            return
        storm = storm_in(
            demands,
            self.knowledge.rules.breaker,
            fleet=len(fleet.nodes),
            now=self.clock.now(),
            reset_at=None if last is None else last.reset_at,
            sizes=self.knowledge.sizes(),
        )
        if storm is not None:
            docket.tripped(self.book.trip(storm))

    def _demands(self, docket: Docket, answers: Mapping[str, Planned]) -> Iterator[Demand]:
        """The nodes that are to be taken out, were asked about, or have been taken out for what still lasts."""
        since = self.clock.now() - self.knowledge.rules.breaker.within
        for incident in docket.incidents:
            if incident.found_at <= since:
                continue
            planned = answers.get(incident.id)
            if planned is None:
                plan = None if incident.state is IncidentState.OPEN else incident.plan
            else:
                plan = planned.plan if planned.verdict is None else None
                if plan is not None and not is_demand(plan, self.knowledge.situation(incident, docket.claims)):
                    plan = None
            for node in plan.takes_out if plan is not None else ():
                yield Demand(node, incident.found_at, self.knowledge.shares_of(node))

    def _consider(self, incident: Incident, planned: Planned | None, docket: Docket) -> None:
        """Act upon what is planned for an open incident; check that what was asked is still what would be done."""
        if incident.state is IncidentState.OPEN and incident.healthy_since is not None and not incident.kept:
            # It may be over: it ends by itself, or is answered when it is found again.
            story = f"nothing is done now: observed healthy since {incident.healthy_since:%H:%M:%S}Z"
            docket.note(replace(incident, story=story), before=incident)
        elif planned is not None:
            self._answer(incident, planned, docket)
        elif incident.state is IncidentState.AWAITING_APPROVAL:
            approval = self.journal.approval(str(incident.approval_id))
            if approval.state is ApprovalState.PENDING:
                self._void_if_changed(incident, approval, docket)

    def _answer(self, incident: Incident, planned: Planned, docket: Docket) -> None:
        plan, verdict = planned.plan, planned.verdict
        if plan is not None:
            situation = self.knowledge.situation(incident, docket.claims_with_questions)
            plan = replace(plan, budget=budget_line(plan, situation))
            verdict = verdict or first_verdict(plan, situation) or docket.asked_elsewhere(incident, plan)
        if plan is not None and planned.lacking and plan.otherwise is not None:
            self.book.give_up(replace(incident, plan=plan), f"{plan.playbook} cannot be done here: {verdict}")
        elif plan is not None and verdict is not None and self._is_stuck(incident, plan, verdict):
            self.book.give_up(incident, f"{plan.playbook} was held for {format_duration(plan.deadline)}: {verdict}")
        elif plan is None or verdict is not None:
            story = str(verdict) if verdict else planned.waits or "no playbook answers this failure mode"
            docket.note(replace(incident, plan=plan, verdict=verdict, story=story), before=incident)
        elif not plan.effects:
            self._settle_without_run(replace(incident, plan=plan, verdict=None))
        elif plan.needs_approval:
            self.book.ask(incident, plan, self.knowledge.rules.people)
            docket.asked(incident, plan)
        else:
            self._start(incident, plan, None, docket)

    def _is_stuck(self, incident: Incident, plan: Plan, verdict: Verdict) -> bool:
        """Whether waiting any longer mends nothing, and its playbook says what is next."""
        waited = self.clock.now() - incident.changed_at
        return plan.otherwise is not None and verdict.guard in _NOT_MENDED_BY_WAITING and waited > plan.deadline

    def _start(self, incident: Incident, plan: Plan, approval_id: str | None, docket: Docket) -> None:
        run = self.book.start(incident, plan, approval_id)
        if run is not None:
            docket.started(run)

    def _settle_without_run(self, incident: Incident) -> None:
        """The world already is as the playbook would leave it: a second GPU of a node that is out of service."""
        plan = incident.plan
        if plan is not None and plan.resolves_when is ResolvesWhen.CONTAINED:
            self.book.resolve(incident, f"contained already: nothing is left to do on {plan.target}")
        else:
            self.book.save(replace(incident, story="nothing to do but wait"))

    def _void_if_changed(self, incident: Incident, approval: Approval, docket: Docket) -> None:
        changed = _beyond(self._plan(incident), approval)
        if changed and self.book.reopen(incident, approval, f"the plan changed: {changed}"):
            docket.voided(incident)

    def _plan(self, incident: Incident) -> Planned:
        return self.planner.plan(incident, self.knowledge.world(), self.knowledge.rules.mode)

    # Between turns

    def pursue(self) -> None:
        """Turn answers into runs, carry every run that is due one look further, settle what has ended."""
        with self.deciding:
            self._follow_answers()
        for run in self.journal.runs(active_only=True, due_at=self.clock.now(), limit=EVERY):
            self._carry_on(run)
        with self.deciding:
            for incident in self.journal.incidents(states=(IncidentState.VERIFYING,), limit=EVERY):
                self._verify(incident)

    def _follow_answers(self) -> None:
        """Act upon every answer; void the questions whose incident has ended, or is asking another one, meanwhile."""
        asking = self.journal.incidents(states=(IncidentState.AWAITING_APPROVAL,), limit=EVERY)
        questions = {approval.id: approval for approval in self.journal.approvals(open_only=True, limit=EVERY)}
        if asking:
            docket = Docket(asking, self.knowledge.claims())
            for incident in sorted(asking, key=urgency):
                # Not every one is among the open: the channel may show an answer before it is acted upon.
                key = str(incident.approval_id)
                self._follow_up(incident, questions.get(key) or self.journal.approval(key), docket)
        current = {incident.approval_id for incident in asking}
        for approval in questions.values():
            if approval.state is ApprovalState.PENDING and approval.id not in current:
                self.book.close(approval, ApprovalState.VOID, "the incident has moved on")

    def _follow_up(self, incident: Incident, approval: Approval, docket: Docket) -> None:
        match approval.state:
            case ApprovalState.PENDING if self.clock.now() >= approval.expires_at:
                enough = f"not enough people answered in time: {progress(approval)}"
                why = enough if approval.agreed else "nobody answered in time"
                if self.book.close(approval, ApprovalState.EXPIRED, why):
                    self._unanswered(incident, replace(approval, reason=why))
            case ApprovalState.PENDING:
                self._ask_on(incident, approval, docket)
            case ApprovalState.EXPIRED:
                self._unanswered(incident, approval)
            case ApprovalState.VOID:
                self.book.open_again(incident, approval.reason)
            case ApprovalState.DENIED:
                self.book.escalate(incident, f"denied by {approval.decided_by}: {approval.reason}")
            case ApprovalState.APPROVED:
                self._start_approved(incident, approval, docket)

    def _unanswered(self, incident: Incident, approval: Approval) -> None:
        if approval.plan.asking.on_expire is OnExpire.ESCALATE:
            self.book.escalate(incident, approval.reason)
        else:
            self.book.give_up(incident, approval.reason)

    def _ask_on(self, incident: Incident, approval: Approval, docket: Docket) -> None:
        """When it is time, let others answer, too. Nobody is asked about what a person wants left alone: if it outlasts
        the silence, it is asked anew.
        """
        silenced = self.knowledge.silenced(incident, docket.claims)
        if silenced is not None:
            self.book.reopen(incident, approval, str(silenced))
        elif approval.is_escalated(self.clock.now()) and not approval.escalated:
            self.book.escalate_question(approval)

    def _start_approved(self, incident: Incident, approval: Approval, docket: Docket) -> None:
        """The answer counts for what was shown: plan once more, and ask again rather than do more than that."""
        planned = self._plan(incident)
        changed = _beyond(planned, approval)
        verdict = planned.verdict or first_verdict(approval.plan, self.knowledge.situation(incident, docket.claims))
        if changed:
            self.book.open_again(incident, f"the plan changed after it was approved: {changed}")
        elif verdict is None:
            self._start(incident, approval.plan, approval.id, docket)
        elif verdict.guard is Guard.SILENCE:
            self.book.open_again(incident, f"approved by {approval.approved_by}, but {verdict.message}")
        elif self.clock.now() >= approval.expires_at:
            self.book.escalate(incident, f"approved by {approval.approved_by}, but held until it expired: {verdict}")
        else:
            story = f"approved by {approval.approved_by}, held: {verdict}"
            self.book.save(replace(incident, verdict=verdict, story=story), before=incident)

    def _carry_on(self, run: Run) -> None:
        if self.knowledge.rules.mode is Mode.OBSERVE and not run.cancelled_by:
            # Begun before the mode was changed. Caps fall back to their safe share; undoing waits for a person's word.
            held = replace(run, detail="held: mode is observe: nothing acts")
            if held != run:
                self.book.save_run(held, before=run)
            return
        for _ in range(_LOOKS_AT_A_TIME):
            due = run.next_look_at <= self.clock.now() or (run.cancelled_by and run.state is RunState.RUNNING)
            if run.state.ended or not due:
                return
            looked = self.executor.look(run, self.knowledge.world())
            with self.deciding:
                self.book.save_run(looked, before=run)
                if looked.state.ended:
                    # From now on only the scheduler says which nodes it has out: what was read before it says less.
                    self.knowledge.forget_fleet()
            # The journal has the person's newest word: a cancellation may have come in during the look.
            run = self.journal.run(run.id)

    def _verify(self, incident: Incident) -> None:
        """Contained means observed in the cluster; healthy means observed in the telemetry, which `correlate` does."""
        plan, now = incident.plan, self.clock.now()
        if plan is None or incident.run_id is None:
            return
        if plan.resolves_when is ResolvesWhen.HEALTHY:
            if now - incident.changed_at > plan.deadline:
                self.book.give_up(incident, f"{plan.playbook} ended, but the telemetry still does not say healthy")
            return
        match self.executor.still_holds(self.journal.run(incident.run_id), self.knowledge.world()):
            case Done():
                self.book.resolve(incident, f"contained by {plan.playbook}: {plan.target} is out of service")
            case Failed(detail):
                self.book.escalate(incident, detail)
            case RetryAfter(_, detail) if now - incident.changed_at > plan.deadline:
                self.book.give_up(incident, f"{plan.playbook} ended, but it is not contained: {detail}")
            case _:
                pass

    # The approval channel

    def announce(self) -> None:
        """Put new questions to the channel, and show answers in place of old ones. At least once, never a decision."""
        failures: list[HealerError] = []
        for approval in self.journal.approvals(open_only=True, limit=EVERY):
            try:
                self._show(approval)
            except (Unavailable, Rejected) as error:  # one message that cannot be shown must not hold up the others
                failures.append(error)
        try:
            self._warn()
        except (Unavailable, Rejected) as error:
            failures.append(error)
        if failures:
            raise failures[0]

    def _warn(self) -> None:
        """Tell the channel that the breaker has opened, unless a person has closed it by now."""
        for trip in self.journal.trips(limit=1):
            if trip.announced or not trip.open:
                continue
            if self.channel is not None:
                self.channel.warn(trip)
            with self.journal.transaction() as write:
                write.change_trip(trip.id, lambda current: replace(current, announced=True))

    def _show(self, approval: Approval) -> None:
        if approval.state is ApprovalState.PENDING:
            told = approval.announced and approval.escalation_announced is approval.escalated
            if told and approval.shown == len(approval.agreed):
                return
            incident = self.journal.incident(approval.incident_id)
            if self.knowledge.silenced(incident) is None:  # else it is about to be voided
                self._put(approval, incident)
        elif not approval.closed:
            if self.channel is not None and approval.announced:
                self.channel.close(approval, self.journal.incident(approval.incident_id))
            self._mark(approval, lambda now: replace(now, closed=True))

    def _put(self, approval: Approval, incident: Incident) -> None:
        """Show what the channel does not show yet: the question, that it was escalated, or who has agreed."""
        channel, agreed = self.channel, len(approval.agreed)
        if not approval.announced:
            name = channel.ask(approval, incident) if channel is not None else ""
            self._mark(approval, lambda now: replace(now, announced=True, announced_as=name, shown=agreed))
        elif approval.escalated and not approval.escalation_announced:
            name = channel.escalate(approval, incident) if channel is not None else ""
            self._mark(approval, lambda now: replace(now, escalation_announced=True, escalated_as=name))
        else:
            if channel is not None:
                channel.update(approval, incident)
            self._mark(approval, lambda now: replace(now, shown=agreed))

    def _mark(self, approval: Approval, shown: Callable[[Approval], Approval]) -> None:
        """Note what the channel shows, and nothing else: an answer may have come in meanwhile."""
        with self.journal.transaction() as write:
            write.change_approval(approval.id, shown)

    def _pin(self, frame: Frame, findings: Findings, reading: Reading, started: datetime) -> None:
        now, last = self.clock.now(), self.board.look()
        figures = TurnFigures(
            turns=last.figures.turns + 1,
            failed_turns=last.figures.failed_turns,
            samples=last.figures.samples + reading.samples,
            last_turn_s=(now - started).total_seconds(),
        )
        fleet = self.knowledge.fleet()
        gaps = self.observer.gaps
        self.board.pin(replace(last, at=now, frame=frame, fleet=fleet, findings=findings, gaps=gaps, figures=figures))


def _wants_answer(incident: Incident) -> bool:
    return incident.state is IncidentState.OPEN and (incident.healthy_since is None or incident.kept)


def _beyond(planned: Planned, approval: Approval) -> str:
    """What the plan, made once more, does that the question did not show; empty if nothing."""
    if planned.plan is None:
        return "" if planned.verdict is not None else "no playbook answers this failure mode any more"
    return next((str(effect) for effect in planned.plan.exceeds(approval.plan)), "")


def failed_turn(board: Board, error: Exception) -> None:
    """Pin that a turn failed: what was seen before stays visible, with its age."""
    last = board.look()
    figures = replace(last.figures, failed_turns=last.figures.failed_turns + 1, last_error=str(error))
    board.pin(replace(last, figures=figures))
