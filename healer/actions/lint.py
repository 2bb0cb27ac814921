"""What is valid in a playbook and still cannot be meant: found before the night in which it would have mattered.

Expressions are judged by what they give for incidents of all kinds that the playbook matches, so a wrong type is found
however deep it hides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum

from healer.actions.node import Drain, Uncordon
from healer.actions.registry import bound_arguments
from healer.content.expressions import variables_of
from healer.content.playbooks import lock_named, tests_of
from healer.documents import KeyPath
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis, FailureMode, Finding, Health
from healer.domain.fleet import Means
from healer.domain.incident import Incident
from healer.domain.playbook import Expression, OnError, Playbook, ResolvesWhen, Step, given
from healer.errors import Problem, Rejected
from healer.policy.budget import DisruptionBudget
from healer.schema import format_duration
from healer.verb import Verbs

_NODE = Component(ComponentKind.NODE, rack="rack-1", node="gpu-001")
_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class Weight(StrEnum):
    ERROR = "error"  # it cannot do what it says
    WARNING = "warning"  # it can, and hardly anybody would want it to


@dataclass(frozen=True, slots=True)
class Remark:
    weight: Weight
    problem: Problem

    def __str__(self) -> str:
        return f"{self.problem} [{self.weight}]"


def lint(
    playbook: Playbook,
    verbs: Verbs,
    *,
    before: Sequence[Playbook] = (),
    budgets: Mapping[str, DisruptionBudget],
    is_part: bool = False,
) -> tuple[Remark, ...]:
    """Of a playbook that is valid: its verbs and their arguments were checked when it was loaded.

    Args:
        before: the playbooks that are asked first.
        budgets: by their key in config.yaml.
        is_part: it only ever stands in other playbooks, and there the order of all steps is judged.
    """
    linter = _Linter(playbook, verbs)
    linter.match(before)
    linter.steps()
    if not is_part:
        linter.order()
    linter.approval()
    linter.limits(budgets)
    linter.rates()
    linter.locks()
    linter.tests()
    return tuple(linter.remarks)


@dataclass(frozen=True, slots=True)
class _Sample:
    """An incident that the playbook may meet, and where.

    Attributes:
        variables: what expressions see of it.
        means: what the site has.
    """

    incident: Incident
    variables: Mapping[str, object]
    means: Means


class _Linter:
    """Attributes:
    samples: incidents of all kinds that the playbook matches.
    """

    def __init__(self, playbook: Playbook, verbs: Verbs) -> None:
        self.playbook = playbook
        self.verbs = verbs
        self.document, self._tests = tests_of(playbook)
        self.samples = tuple(_samples(playbook))
        self.remarks: list[Remark] = []

    def match(self, before: Sequence[Playbook]) -> None:
        condition, path = self.playbook.condition, ("match", "if")
        if condition is not None:
            met = self._true_of(condition, path)
            if not met:
                self._error(path, "is true of no incident of these failure modes: the playbook never runs")
            self.samples = met or self.samples
        for other in before:
            modes = self.playbook.failure_modes
            covers = bool(modes) and modes <= other.failure_modes and other.condition is None
            if covers and other.hold <= self.playbook.hold:
                text = f"{other.name} answers all of these first, without a condition: the playbook never runs"
                self._error(("match", "failure_modes"), text, "give one of them an if, or disable it")

    def steps(self) -> None:
        for step in self.playbook.steps:
            path: KeyPath = ("steps", step.place)
            if step.within:
                continue  # it is judged where it is written
            # What its params decide, the deployment does.
            judged = step.condition is not None and "params." not in step.condition.text
            if step.condition is not None and not self._true_of(step.condition, (*path, "if")) and judged:
                self._error((*path, "if"), "is true of no incident that the playbook matches: the step never runs")
            self._arguments(step, (*path, "with"))
            if step.timeout > self.playbook.deadline:
                timeout, deadline = format_duration(step.timeout), format_duration(self.playbook.deadline)
                text = f"{timeout} can never be used up: the run's deadline is {deadline}"
                self._warning((*path, "timeout"), text, "shorten it, or lengthen the deadline")

    def order(self) -> None:
        """What disrupts a node's work comes after what keeps new work away, and before the node serves again."""
        quarantined = False
        for step in self.playbook.steps:
            verb = self.verbs[step.use]
            certain = step.on_error is OnError.STOP and not _conditional(step)
            quarantined |= verb.keeps_work_away and certain
            quarantined &= not isinstance(verb, Uncordon)
            if verb.disrupts and verb.target in {ComponentKind.NODE, ComponentKind.GPU} and not quarantined:
                moves = "what it moves may come back at once"
                why = moves if isinstance(verb, Drain) else "new work may come in the middle of it"
                self._error(
                    ("steps", step.place, "playbook" if step.within else "use"),
                    f"{step.use} without a node.cordon before it: {why}",
                    "add a step with node.cordon before it, without an if, and that stops the run if it fails",
                )
        if self.playbook.resolves_when is ResolvesWhen.CONTAINED and not quarantined:
            text = "contained is seen in the cluster, and no step keeps work away from the node"
            self._error(("resolves_when",), text, "healthy, or add a node.cordon")

    def approval(self) -> None:
        when = self.playbook.approval.when
        asked = self._true_of(when, ("approval", "when"))
        unasked = [sample for sample in self.samples if sample not in asked]
        risky = [step for step in self.playbook.steps if self.verbs[step.use].disrupts]
        if risky and unasked:
            text = f"nobody is asked before {risky[0].use}, e.g. for {_named(unasked[0])}"
            self._warning(("approval", "when"), text, '"true" asks always')
        self._escalation()

    def _escalation(self) -> None:
        rule, escalation = self.playbook.approval, self.playbook.approval.asking.escalation
        if escalation is None:
            return
        if escalation.after >= rule.expires_after:
            after, expires = format_duration(escalation.after), format_duration(rule.expires_after)
            text = f"{after} never comes: the question has expired after {expires}"
            self._error(("approval", "escalate", "after"), text, "shorten it, or lengthen expires_after")
        known = rule.asking.who
        if known is None or set(escalation.to) <= set(known):
            text = "these may answer from the start: it only tells them once more"
            self._warning(("approval", "escalate", "to"), text, "name in who whom the question is put to at first")

    def limits(self, budgets: Mapping[str, DisruptionBudget]) -> None:
        if not any(self.verbs[step.use].keeps_work_away for step in self.playbook.steps):
            return
        for key, budget in budgets.items():
            if budget.allowed(1_000_000) == 0:
                scope = key.rpartition(".")[2]
                never = "the playbook never runs" if scope == "fleet" else f"it never runs where a {scope} is known"
                text = f"{key} of config.yaml lets no node out of service: {never}"
                self._error(("steps",), text, f"raise {key}.max_nodes or {key}.max_percent")

    def rates(self) -> None:
        """Of two limits, one that the other never lets be reached says something else than its author thinks."""
        limits = self.playbook.limits
        if limits is None or limits.starts is None:
            return
        most, per = limits.starts.runs, limits.starts.per
        whole = f"{most} within {format_duration(per)} on all targets"
        one = limits.per_target
        if one is not None and one.runs >= most * math.ceil(one.per / per):
            text = f"{one.runs} within {format_duration(one.per)} on one target is never reached: {whole} comes first"
            self._warning(("limits", "per_target"), text, "make it smaller, or its time longer, or leave it out")
        if limits.at_once is not None and limits.at_once >= most * math.ceil(self.playbook.deadline / per):
            deadline = format_duration(self.playbook.deadline)
            text = f"{limits.at_once} are hardly ever reached: {whole} comes first, and a run ends within {deadline}"
            self._warning(("limits", "at_once"), text, "make it smaller, or leave it out")

    def locks(self) -> None:
        """That what expressions give are names."""
        for number, lock in enumerate(self.playbook.locks):
            for sample in self.samples:
                try:
                    lock_named(lock, sample.variables)
                except Rejected as error:
                    self._error(("locks", number), f"{error.detail}, e.g. for {_named(sample)}")
                    break

    def tests(self) -> None:
        if not self._tests:
            self._warning(("tests",), "it has none", "healer playbook new shows how they look")
        names = [test.name for test in self._tests]
        for number, name in enumerate(names):
            if name in names[:number]:
                self._error(("tests", number, "name"), f"another test is named {name!r}")

    def _true_of(self, expression: Expression, path: KeyPath) -> tuple[_Sample, ...]:
        """The samples that it is true of; all of them if it is no condition, which is then said once."""
        met = []
        for sample in self.samples:
            try:
                said = expression(sample.variables)
            except Rejected as error:
                self._error(path, f"{error.detail}, e.g. for {_named(sample)}")
                return self.samples
            if not isinstance(said, bool):
                text = f"{expression.text!r} gives {said!r}, which is neither true nor false"
                self._error(path, text, f"that is so for {_named(sample)}")
                return self.samples
            if said:
                met.append(sample)
        return tuple(met)

    def _arguments(self, step: Step, path: KeyPath) -> None:
        """That what expressions give is what the verb takes."""
        verb = self.verbs[step.use]
        if not any(callable(argument) for argument in step.arguments.values()):
            return
        for sample in self.samples:
            try:
                bound_arguments(verb, given(step.arguments, sample.variables))
            except Rejected as error:
                self._error(path, f"{error.detail}, e.g. for {_named(sample)}")
                return

    def _error(self, path: KeyPath, text: str, hint: str = "") -> None:
        self.remarks.append(Remark(Weight.ERROR, self.document.problem(path, text, hint)))

    def _warning(self, path: KeyPath, text: str, hint: str = "") -> None:
        self.remarks.append(Remark(Weight.WARNING, self.document.problem(path, text, hint)))


def _conditional(step: Step) -> bool:
    return step.condition is not None or any(scope.condition is not None for scope in step.within)


def _samples(playbook: Playbook) -> Iterator[_Sample]:
    sites = _every_site() if _asks_for_the_site(playbook) else (Means(agent=True, power=True, scheduler=True),)
    kinds = itertools.product(
        sorted(playbook.failure_modes or FailureMode),
        (Health.DEGRADED, Health.FAILED),
        (Basis.RULE, Basis.LEARNT),
        (0.0, 0.5, 1.0),
        sites,
    )
    for mode, health, basis, score, means in kinds:
        for culprit in (_NODE, None) if mode.startswith(("Job", "Rack")) else (None,):
            finding = Finding(mode, _somewhere(mode), health, score, "a reason", basis=basis, culprit=culprit)
            incident = Incident.opened(finding, _SOME_TIME)
            yield _Sample(incident, variables_of(incident, playbook.params, means), means)


def _every_site() -> tuple[Means, ...]:
    here = (True, False)
    return tuple(Means(agent=a, power=p, scheduler=s) for a, p, s in itertools.product(here, here, here))


def _asks_for_the_site(playbook: Playbook) -> bool:
    """Whether any of its expressions does: else one site stands for all of them."""
    steps = [expression for step in playbook.steps for expression in (step.condition, *step.arguments.values())]
    expressions = [playbook.condition, playbook.approval.when, *steps]
    return any("site" in expression.text for expression in expressions if callable(expression))


def _somewhere(mode: FailureMode) -> Component:
    """A component that the mode may be found on."""
    if mode.startswith("Rack"):
        return Component(ComponentKind.RACK, rack="rack-1")
    if mode.startswith("Job"):
        return Component(ComponentKind.JOB, job="default/Job/train")
    if mode.startswith(("Node", "Fabric", "Telemetry")):
        return _NODE
    return Component(ComponentKind.GPU, rack="rack-1", node="gpu-001", gpu="0", uuid="GPU-0", job="default/Job/train")


def _named(sample: _Sample) -> str:
    incident = sample.incident
    health = incident.health.name.lower()
    lacks = [name for name, there in asdict(sample.means).items() if not there]
    where = f", at a site without {' and '.join(lacks)}" if lacks else ""
    blamed = f", {incident.culprit} to blame" if incident.culprit is not None else ""
    said = f"a {incident.failure_mode} that is {health}, by a {incident.basis}, with score {incident.score:g}"
    return f"{said}{blamed}{where}"
