"""From an incident to a plan: choose the playbook, bind its target, ask each verb what it would do. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from healer.actions.registry import bound_arguments
from healer.actions.wait import unmet
from healer.content.boundary import call
from healer.content.expressions import variables_of
from healer.content.playbooks import lock_named
from healer.domain.component import Component
from healer.domain.incident import Incident
from healer.domain.plan import Plan, PlannedStep
from healer.domain.playbook import OnError, Playbook, Step, given
from healer.domain.verdict import Guard, Mode, Verdict
from healer.errors import HealerError, NoMeans, Rejected, Unavailable
from healer.policy.selection import choose_playbook, items_of, target_of
from healer.schema import format_duration
from healer.verb import Proposal, Verbs, World

_LATER = datetime.max.replace(tzinfo=UTC)  # by then all has lasted long enough


@dataclass(frozen=True, slots=True)
class Planned:
    """Attributes:
    verdict: why there can be no plan, or why the plan cannot be carried out.
    lacking: whether that is because there is nothing here to do it with.
    waits: for how long the fault has to have lasted before there is a plan; empty if that is not why there is none.
    """

    plan: Plan | None = None
    verdict: Verdict | None = None
    lacking: bool = False
    waits: str = ""


@dataclass(frozen=True, slots=True)
class Planner:
    playbooks: Sequence[Playbook]
    verbs: Verbs

    def plan(self, incident: Incident, world: World, mode: Mode) -> Planned:
        """The plan for the incident as the world is now; neither plan nor verdict if no playbook answers it."""
        try:
            return self._plan(incident, world, mode, world.now)
        except Unavailable as error:
            return Planned(verdict=Verdict(Guard.FRESHNESS, str(error), f"{error.component} answers again"))
        except HealerError as error:
            return Planned(verdict=Verdict(Guard.TARGET, str(error), "that is put right"))

    def _plan(self, incident: Incident, world: World, mode: Mode, now: datetime) -> Planned:
        known = variables_of(incident, {}, world.means)
        playbook = choose_playbook(incident, self.playbooks, known, now)
        if playbook is None:
            later = choose_playbook(incident, self.playbooks, known, _LATER)
            hold = "" if later is None else f"{later.name} is planned when it has lasted {format_duration(later.hold)}"
            return Planned(waits=hold)
        target = target_of(incident, playbook.target)
        if target is None:
            message = (
                f"{playbook.name} works on a {playbook.target}, and the telemetry names none for {incident.component}"
            )
            return Planned(verdict=Verdict(Guard.TARGET, message, "the topology labels are there; see topology"))
        variables = variables_of(incident, playbook.params, world.means)
        steps = tuple(
            _bound(step, seen, items)
            for step in playbook.steps
            if (seen := step.sees(variables)) is not None
            and (items := _items(step, incident, target, world)) is not None
        )
        proposals, lacks = self._proposals(steps, target, world)
        plan = Plan(
            incident_id=incident.id,
            playbook=playbook.name,
            playbook_digest=playbook.digest,
            target=target,
            effects=tuple(effect for proposal in proposals for effect in proposal.effects),
            steps=steps,
            needs_approval=mode is Mode.RECOMMEND or _asks(playbook, variables),
            approval_expires_after=playbook.approval.expires_after,
            deadline=playbook.deadline,
            resolves_when=playbook.resolves_when,
            impediments=tuple(text for proposal in proposals for text in proposal.impediments),
            reason=incident.reasons[0],
            otherwise=playbook.otherwise,
            on_return=playbook.on_return,
            locks=tuple(lock_named(lock, variables) for lock in playbook.locks),
            asking=playbook.approval.asking,
        )
        if lacks:
            verdict = Verdict(Guard.TARGET, "; ".join(lacks), "that is put right")
            return Planned(replace(plan, effects=()), verdict, lacking=True)
        blockers = [text for proposal in proposals for text in proposal.blockers]
        if blockers:
            return Planned(plan, Verdict(Guard.TARGET, "; ".join(blockers), "that is put right"))
        waits = unmet(playbook.moment, target, world) if playbook.moment else None
        return Planned(plan, None if waits is None else Verdict(Guard.MOMENT, f"waits until {waits}", "that is so"))

    def _proposals(
        self, steps: Sequence[PlannedStep], target: Component, world: World
    ) -> tuple[list[Proposal], tuple[str, ...]]:
        """What the verbs would do, and what they lack for it here."""
        proposals: list[Proposal] = []
        lacks: dict[str, None] = {}
        for step in steps:
            for part in step.parts(target):
                try:
                    proposals.append(self._proposal(step, part.target, world))
                except NoMeans as error:
                    lacks[str(error)] = None
        return proposals, tuple(lacks)

    def _proposal(self, step: PlannedStep, target: Component, world: World) -> Proposal:
        action = self.verbs[step.use]
        return call(step.use, lambda: action.plan(bound_arguments(action, step.arguments), target, world))


def _bound(step: Step, variables: Mapping[str, object], items: tuple[Component, ...]) -> PlannedStep:
    return PlannedStep(
        id=step.id,
        use=step.use,
        arguments=given(step.arguments, variables),
        timeout=step.timeout,
        on_failure=step.on_failure,
        on_error=step.on_error,
        retry=step.retry,
        items=items,
        max_parallel=step.max_parallel,
        verify=step.verify,
    )


def _items(step: Step, incident: Incident, target: Component, world: World) -> tuple[Component, ...] | None:
    """What the step is done to one by one; empty if that is the target itself, None if the step may be left out.

    Raises Rejected: a step that is done to nothing was not meant, unless the run goes on without it.
    """
    if step.for_each is None:
        return ()
    items = items_of(step.for_each, incident, target, world.frame)
    if not items and step.on_error is not OnError.GO_ON:
        raise Rejected(f"step {step.id}", f"{target} has no {step.for_each} that is known now")
    return items or None


def _asks(playbook: Playbook, variables: Mapping[str, object]) -> bool:
    """Whether a person must be asked. An expression that cannot be evaluated, or gives no boolean, asks."""
    try:
        return playbook.approval.when(variables) is not False
    except Rejected:
        return True
