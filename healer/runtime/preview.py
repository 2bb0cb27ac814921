"""What a playbook would do to the real fleet as it is now. Reads only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from healer.config import Config
from healer.domain.component import Component
from healer.domain.finding import FailureMode, Finding, Health
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.domain.plan import Plan
from healer.domain.playbook import Playbook
from healer.domain.verdict import Mode, Verdict
from healer.errors import NotFound
from healer.policy.guards import GUARDS, budget_line
from healer.ports import Clock, Journal
from healer.runtime.knowledge import Knowledge, Outside
from healer.runtime.planning import Planner
from healer.runtime.wiring import Content, build_observer, rules_of


@dataclass(frozen=True, slots=True)
class Preview:
    """Attributes:
    plan: None if the playbook does not answer such an incident, or cannot be planned.
    verdicts: everything that would speak against acting on it now.
    """

    incident: Incident
    plan: Plan | None
    verdicts: tuple[Verdict, ...]


def preview(
    playbook: Playbook,
    mode: FailureMode,
    where: Component,
    *,
    config: Config,
    content: Content,
    outside: Outside,
    journal: Journal,
    clock: Clock,
) -> Preview:
    """Raises NotFound if the telemetry knows no such component, Unavailable if there is none.

    Args:
        where: by the names that matter: the node, with the GPU's index if it is about one, the rack, or the job.
    """
    now = clock.now()
    frame, _ = build_observer(config, content, outside).look(outside.source.read(now), ())
    knowledge = Knowledge(rules=rules_of(config), outside=outside, journal=journal, clock=clock, playbooks=(playbook,))
    knowledge.learn(frame)
    incident = _incident(mode, _known(where, frame), now)
    # As if the mode were act: whether it is says the guard.
    planned = Planner((playbook,), content.verbs).plan(incident, knowledge.world(), Mode.ACT)
    if planned.plan is None:
        return Preview(incident, None, () if planned.verdict is None else (planned.verdict,))
    situation = knowledge.situation(incident, knowledge.claims())
    spoken = [planned.verdict, *(guard(planned.plan, situation) for guard in GUARDS)]
    verdicts = tuple(verdict for verdict in spoken if verdict is not None)
    return Preview(incident, replace(planned.plan, budget=budget_line(planned.plan, situation)), verdicts)


def _incident(mode: FailureMode, where: Component, now: datetime) -> Incident:
    return Incident.opened(Finding(mode, where, Health.FAILED, 1.0, "asked for by a person"), now)


def _known(where: Component, frame: Frame) -> Component:
    """The component as the telemetry names it."""
    for axis in (frame.gpus.components, frame.nodes.components, frame.racks.components, frame.jobs.components):
        for component in axis:
            if component.kind is where.kind and all(
                getattr(where, name) in {None, getattr(component, name)} for name in ("rack", "node", "gpu", "job")
            ):
                return component
    raise NotFound("telemetry", f"shows no {where}")
