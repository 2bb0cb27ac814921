"""Judging: the incidents of a simulated day against the truth about it.

An incident is *right* if it names the failure mode of a fault, on the component that is at fault or on part of it or on
what it is part of, between the fault's onset and its end. It is *late* if it names what only follows from a fault. All
others are *false*. A name is what an incident said when it ended, or when the day did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode
from healer.sim.truth import LookAlike, Truth

# A detector looks at minutes at once: what it finds just after the end was still there.
SETTLES = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Name:
    """What an incident said of itself from `at` on."""

    at: datetime
    failure_mode: FailureMode
    component: Component
    culprit: Component | None
    reason: str


@dataclass(frozen=True, slots=True)
class Case:
    """One incident: everything that it was called, the first name first."""

    id: str
    names: tuple[Name, ...]

    @property
    def opened(self) -> datetime:
        return self.names[0].at

    @property
    def last(self) -> Name:
        return self.names[-1]


class Verdict(StrEnum):
    RIGHT = "right"
    LATE = "late"
    FALSE = "false"


@dataclass(frozen=True, slots=True)
class Judged:
    """Attributes:
    truth: the number of the fault that it is of; None where it is false.
    """

    case: Case
    verdict: Verdict
    truth: int | None
    look_alikes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one fault.

    Attributes:
        latency: from its onset to its right name; None if it never got that.
        located: whether the component is exactly the one at fault, and the culprit too where there is one.
        culprit_right: whether the culprit is right; None where the truth has none.
        incidents: all that are of it, right or late.
    """

    truth: Truth
    latency: timedelta | None
    located: bool
    culprit_right: bool | None
    incidents: int


@dataclass(frozen=True, slots=True)
class Where:
    """What is in what, by GPU: its node, its rack; and whose it ever was that day."""

    gpus: tuple[Component, ...]
    jobs_of: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def overlaps(self, one: Component, other: Component) -> bool:
        """Whether one is the other, or part of it, or has it as a part."""
        if _same(one, other):
            return True
        if ComponentKind.JOB in (one.kind, other.kind):
            job, part = (one, other) if one.kind is ComponentKind.JOB else (other, one)
            return part.kind is not ComponentKind.JOB and bool(
                self.jobs_of.get(str(job.job), frozenset()) & self._nodes(part)
            )
        return bool(self._gpus(one) & self._gpus(other))

    def _gpus(self, component: Component) -> frozenset[str]:
        return frozenset(gpu.key for gpu in self.gpus if _is_of(gpu, component))

    def _nodes(self, component: Component) -> frozenset[str]:
        return frozenset(_host(gpu) for gpu in self.gpus if _is_of(gpu, component))


def _is_of(gpu: Component, component: Component) -> bool:
    match component.kind:
        case ComponentKind.GPU:
            return _same(gpu, component)
        case ComponentKind.NODE | ComponentKind.LINK:
            return _host(gpu) == _host(component)
        case ComponentKind.RACK | ComponentKind.POWER_FEED:
            return gpu.rack == component.rack
        case ComponentKind.SOURCE:
            return True
        case ComponentKind.JOB:
            return False


def judge(
    cases: Iterable[Case], truths: Sequence[Truth], look_alikes: Sequence[LookAlike], where: Where
) -> tuple[list[Judged], list[Found]]:
    """Every incident and every fault of a day."""
    judged = [_judged(case, truths, look_alikes, where) for case in cases]
    return judged, [_found(number, truth, judged, where) for number, truth in enumerate(truths)]


def _judged(case: Case, truths: Sequence[Truth], look_alikes: Sequence[LookAlike], where: Where) -> Judged:
    right = [number for number, truth in enumerate(truths) if _names(case.last, truth, where) and _met(case, truth)]
    if right:
        exact = [number for number in right if _same(truths[number].component, case.last.component)]
        newest = max(exact or right, key=lambda number: truths[number].onset)
        return Judged(case, Verdict.RIGHT, newest)
    late = [n for n, truth in enumerate(truths) if _follows_from(case.last, truth, where) and _met(case, truth)]
    if late:
        return Judged(case, Verdict.LATE, max(late, key=lambda number: truths[number].onset))
    return Judged(case, Verdict.FALSE, None, tuple(_seeming(case, look_alikes, where)))


def _names(name: Name, truth: Truth, where: Where) -> bool:
    return name.failure_mode is truth.failure_mode and where.overlaps(name.component, truth.component)


def _follows_from(name: Name, truth: Truth, where: Where) -> bool:
    """Whether it names a symptom, on what is at fault, on what is in it, or on the jobs that it harms."""
    touched = where.overlaps(name.component, truth.component) or (
        truth.culprit is not None and where.overlaps(name.component, truth.culprit)
    )
    harmed = name.component.job in truth.blast if name.component.kind is ComponentKind.JOB else False
    return name.failure_mode in truth.symptoms and (touched or harmed)


def _met(case: Case, truth: Truth) -> bool:
    end = truth.end + SETTLES if truth.end is not None else None
    return case.last.at >= truth.onset and (end is None or case.opened <= end)


def _seeming(case: Case, look_alikes: Sequence[LookAlike], where: Where) -> Iterable[str]:
    for look in look_alikes:
        if look.start <= case.opened <= look.end + SETTLES and any(
            where.overlaps(case.last.component, component) for component in look.components
        ):
            yield f"{look.kind}{f' ({look.note})' if look.note else ''}"


def _found(number: int, truth: Truth, judged: Sequence[Judged], where: Where) -> Found:
    own = [one for one in judged if one.truth == number]
    right = [one for one in own if one.verdict is Verdict.RIGHT]
    named = [name for one in right for name in one.case.names if _names(name, truth, where) and name.at >= truth.onset]
    if not named:
        return Found(
            truth, None, located=False, culprit_right=None if truth.culprit is None else False, incidents=len(own)
        )
    first = min(named, key=lambda name: name.at)
    at_last = [one.case.last for one in right]
    culprit_right = None
    if truth.culprit is not None:
        culprit_right = any(name.culprit is not None and _is_it(name.culprit, truth.culprit) for name in at_last)
    located = any(_is_at(name, truth.component) for name in at_last) and culprit_right is not False
    return Found(truth, first.at - truth.onset, located, culprit_right, len(own))


def _is_at(name: Name, component: Component) -> bool:
    """A node's port that is at fault is named as the culprit; there is one source, whatever it is called."""
    if component.kind is ComponentKind.SOURCE:
        return name.component.kind is ComponentKind.SOURCE
    port = "" if name.culprit is None else str(name.culprit.link).partition("/")[0]
    return _same(name.component, component) and component.link in {None, port}


def _is_it(named: Component, culprit: Component) -> bool:
    """Where a whole node is to blame, any of its GPUs names it."""
    return _same(named, culprit) or (culprit.kind is ComponentKind.NODE and _host(named) == _host(culprit))


def _same(one: Component, other: Component) -> bool:
    """Nodes may be called with their domain or without; a board that is swapped is another one in the same place."""
    if one.key == other.key:
        return True
    if one.kind is not other.kind or one.kind not in {ComponentKind.GPU, ComponentKind.NODE}:
        return False
    return (_host(one), one.gpu) == (_host(other), other.gpu)


def _host(component: Component) -> str:
    return str(component.node).partition(".")[0]
