"""Plan: a playbook bound to a target, with its effects spelled out. What a person approves is the digest of those
effects.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from healer.domain.component import Component
from healer.domain.playbook import Asking, OnError, OnFailure, OnReturn, ResolvesWhen, Retry, Scalar


@dataclass(frozen=True, slots=True)
class Effect:
    """One change of the world.

    Attributes:
        verb: what is done: "cordon", "evict", "cap".
        target: to what, by a name that does not churn: a pod is named by its controller.
        detail: for the reader: the pods of the moment, the watts. Not part of the digest.
        takes_out: the node that leaves service by it; budgets count these.
        harmless: no work is lost if it was done for nothing: a ticket, an exporter that starts again.
        interrupts: work is moved or lost by it.
    """

    verb: str
    target: str
    detail: str = ""
    takes_out: str | None = None
    harmless: bool = False
    interrupts: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.target}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that a step is done to.

    Attributes:
        step_id: under which the journal keeps its effects.
    """

    step_id: str
    target: Component


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """Attributes:
    items: what it is done to one by one, in place of the plan's target; empty if it is done to that.
    verify: a condition on the world (CEL) that has to be met before it counts as done.
    """

    id: str
    use: str
    arguments: Mapping[str, Scalar]
    timeout: timedelta
    on_failure: OnFailure = OnFailure.UNDO
    on_error: OnError = OnError.STOP
    retry: Retry | None = None
    items: tuple[Component, ...] = ()
    max_parallel: int = 1
    verify: str = ""

    def parts(self, target: Component) -> tuple[Part, ...]:
        """What it is done to, if the plan is for `target`."""
        if not self.items:
            return (Part(self.id, target),)
        return tuple(Part(f"{self.id}/{item.key}", item) for item in self.items)


@dataclass(frozen=True, slots=True)
class Plan:
    """Attributes:
    effects: empty when the world already is as the playbook would leave it.
    impediments: what already stands in the way (a spent disruption budget, an unmanaged pod): for the approver.
    budget: one line on what the plan takes from which disruption budget.
    otherwise: the playbook that is next if this one fails; None for a person.
    on_return: what is next if it succeeds, and the fault is found again.
    locks: names that its run holds exclusively, besides its target and the nodes that it takes out.
    """

    incident_id: str
    playbook: str
    playbook_digest: str
    target: Component
    effects: tuple[Effect, ...]
    steps: tuple[PlannedStep, ...]
    needs_approval: bool
    approval_expires_after: timedelta
    deadline: timedelta
    resolves_when: ResolvesWhen
    impediments: tuple[str, ...] = ()
    budget: str = ""
    reason: str = ""
    otherwise: str | None = None
    on_return: OnReturn = OnReturn.NEXT
    locks: tuple[str, ...] = ()
    asking: Asking = field(default_factory=Asking)

    @property
    def digest(self) -> str:
        """sha256 over the playbook's text, the target and the effects' stable names, order-free."""
        stable = {
            "playbook": self.playbook_digest,
            "target": self.target.key,
            "effects": sorted([effect.verb, effect.target] for effect in self.effects),
        }
        return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()

    @property
    def takes_out(self) -> frozenset[str]:
        return frozenset(effect.takes_out for effect in self.effects if effect.takes_out is not None)

    @property
    def interrupts(self) -> bool:
        """Whether work is moved or lost."""
        return any(effect.interrupts for effect in self.effects)

    @property
    def disrupts(self) -> bool:
        """Whether a node leaves service, or work is moved or lost."""
        return bool(self.takes_out) or self.interrupts

    @property
    def harmless(self) -> bool:
        return all(effect.harmless for effect in self.effects)

    def exceeds(self, approved: Plan) -> tuple[Effect, ...]:
        """The effects of this plan that `approved` did not show to the approver.

        Fewer effects than approved are within the approval: a pod that ended by itself must not void it. Another
        text of the playbook, or another target, exceeds it as a whole.
        """
        if self.playbook_digest != approved.playbook_digest or self.target.key != approved.target.key:
            return self.effects
        shown = {(effect.verb, effect.target) for effect in approved.effects}
        return tuple(effect for effect in self.effects if (effect.verb, effect.target) not in shown)
