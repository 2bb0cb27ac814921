"""What a playbook's file may say, key by key. What it means is read from it in `healer.content.playbooks`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from healer.content.playbook_tests import PlaybookTest
from healer.domain.finding import FailureMode
from healer.domain.playbook import (
    Asking,
    Escalation,
    ForEach,
    Limits,
    OnError,
    OnExpire,
    OnFailure,
    OnReturn,
    Rate,
    ResolvesWhen,
    Retry,
)
from healer.schema import Duration, Section

_NAME = r"^[a-z][a-z0-9-]*$"


class MatchSection(Section):
    failure_modes: Annotated[tuple[FailureMode, ...], Field(min_length=1)]
    condition: Annotated[str | None, Field(alias="if")] = None
    hold: Annotated[Duration | None, Field(alias="for")] = None
    moment: str | None = None
    priority: int = 0


class EscalationSection(Section):
    """Attributes:
    after: if nobody has decided by then.
    to: groups of approvals.groups, or people: they may answer from then on, too.
    """

    after: Duration
    to: Annotated[tuple[str, ...], Field(min_length=1)]


class ApprovalSection(Section):
    """Attributes:
    who: groups of approvals.groups, or people; null for all of approvals.approvers.
    quorum: so many different people have to agree; one no is a no.
    on_expire: next is what `otherwise` names, else a person; escalate is a person, whatever it says.
    """

    when: str = "true"
    who: Annotated[tuple[str, ...] | None, Field(min_length=1)] = None
    quorum: Annotated[int, Field(ge=1, le=20)] = 1
    expires_after: Duration = timedelta(minutes=30)
    escalate: EscalationSection | None = None
    on_expire: OnExpire = OnExpire.NEXT

    def asking(self) -> Asking:
        escalation = None if self.escalate is None else Escalation(self.escalate.after, self.escalate.to)
        return Asking(self.who, self.quorum, escalation, self.on_expire)


class RetrySection(Section):
    times: Annotated[int, Field(ge=1, le=100)]
    wait: Duration = timedelta(seconds=30)
    factor: Annotated[float, Field(ge=1.0, le=10.0)] = 2.0
    longest: Duration = timedelta(minutes=10)

    def retry(self) -> Retry:
        return Retry(self.times, self.wait, self.factor, self.longest)


_OF_NESTED = frozenset({"id", "playbook", "arguments", "condition"})


class RateSection(Section):
    runs: Annotated[int, Field(ge=1)]
    per: Duration

    def rate(self) -> Rate:
        return Rate(self.runs, self.per)


class LimitsSection(Section):
    """Attributes:
    runs, per: of starts, on all targets together.
    at_once: of runs that have not ended.
    per_target: of starts, on one and the same target.
    """

    runs: Annotated[int | None, Field(ge=1)] = None
    per: Duration | None = None
    at_once: Annotated[int | None, Field(ge=1)] = None
    per_target: RateSection | None = None

    def model_post_init(self, _context: object) -> None:
        if (self.runs is None) is not (self.per is None):
            raise ValueError("runs and per go together: so many runs per so much time")
        if self.runs is None and self.at_once is None and self.per_target is None:
            raise ValueError("limits nothing: it has runs with per, at_once, or per_target")

    def limits(self) -> Limits:
        starts = None if self.runs is None or self.per is None else Rate(self.runs, self.per)
        return Limits(starts, None if self.per_target is None else self.per_target.rate(), self.at_once)


class StepSection(Section):
    """Attributes:
    wait_until: in place of `use`: a condition on the world that is waited for.
    playbook: in place of `use`: another playbook, whose steps are done here; `with` has its params.
    """

    id: Annotated[str, Field(pattern=_NAME)]
    use: str = ""
    wait_until: str | None = None
    playbook: Annotated[str | None, Field(pattern=_NAME)] = None
    arguments: Annotated[dict[str, bool | int | float | str | None], Field(alias="with")] = Field(default_factory=dict)
    condition: Annotated[str | None, Field(alias="if")] = None
    timeout: Duration = timedelta(minutes=15)
    on_failure: OnFailure = OnFailure.UNDO
    on_error: OnError = OnError.STOP
    retry: RetrySection | None = None
    for_each: ForEach | None = None
    max_parallel: Annotated[int, Field(ge=1, le=1000)] = 1
    verify: str | None = None

    def model_post_init(self, _context: object) -> None:
        given = [bool(self.use), self.wait_until is not None, self.playbook is not None]
        if sum(given) != 1:
            raise ValueError("a step has one of use, the verb; wait_until, the condition; playbook, whose steps it is")
        if self.wait_until is not None and self.arguments:
            raise ValueError("wait_until takes no with")
        if self.playbook is not None and not self.model_fields_set <= _OF_NESTED:
            raise ValueError("a playbook in a playbook takes only with and if; everything else is in its own steps")
        if "max_parallel" in self.model_fields_set and self.for_each is None:
            raise ValueError("max_parallel goes with for_each")


class PlaybookDocument(Section):
    name: Annotated[str, Field(pattern=_NAME)]
    description: Annotated[str, Field(min_length=1)]
    match: MatchSection | None = None
    target: Literal["gpu", "node", "rack", "power_feed", "job", "link", "source", "incident"]
    params: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    approval: ApprovalSection = ApprovalSection()
    limits: LimitsSection | None = None
    locks: tuple[Annotated[str, Field(description="a name, or ${...} that gives one")], ...] = ()
    deadline: Duration = timedelta(hours=1)
    resolves_when: ResolvesWhen
    otherwise: Annotated[str | None, Field(pattern=_NAME)] = None
    on_return: OnReturn = OnReturn.NEXT
    steps: Annotated[tuple[StepSection, ...], Field(min_length=1)]
    tests: tuple[PlaybookTest, ...] = ()
