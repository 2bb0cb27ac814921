"""Limits of a playbook: how often it may be started, and how many of its runs may go on at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from healer.domain.plan import Plan
from healer.domain.playbook import Limits, Rate
from healer.domain.run import Start
from healer.domain.verdict import Guard, Verdict
from healer.schema import format_duration


@dataclass(frozen=True, slots=True)
class Tally:
    """What has been started of one playbook.

    Attributes:
        starts: all that its limits may ask about, whatever has become of the runs.
        active: how many of its runs have not ended.
        asked: how many open questions would start one: an answer must find room.
    """

    limits: Limits
    starts: tuple[Start, ...] = ()
    active: int = 0
    asked: int = 0

    def with_start(self, start: Start) -> Tally:
        return replace(self, starts=(*self.starts, start), active=self.active + 1)

    def verdict(self, plan: Plan, now: datetime) -> Verdict | None:
        """What speaks against one more run now; None if nothing does."""
        limits, target = self.limits, plan.target.key
        if limits.starts is not None:
            what = f"runs of {plan.playbook}"
            verdict = _too_often(what, limits.starts, [start.at for start in self.starts], now, asked=self.asked)
            if verdict is not None:
                return verdict
        if limits.per_target is not None:
            what = f"runs of {plan.playbook} on {plan.target}"
            here = [start.at for start in self.starts if start.target == target]
            # There is only one question about a target anyway.
            verdict = _too_often(what, limits.per_target, here, now, asked=0)
            if verdict is not None:
                return verdict
        if limits.at_once is not None and self.active + self.asked >= limits.at_once:
            message = f"{self.active} of {limits.at_once} runs of {plan.playbook} at once{_more(self.asked)}"
            answered = ", or a question about one is answered" if self.asked else ""
            return Verdict(Guard.LIMIT, message, f"one of them ends{answered}" if self.active else _ANSWERED)
        return None


_ANSWERED = "a question about one is answered"


def _too_often(what: str, rate: Rate, starts: Sequence[datetime], now: datetime, *, asked: int) -> Verdict | None:
    counting = sorted(at for at in starts if at > now - rate.per)
    if len(counting) + asked < rate.runs:
        return None
    message = f"{len(counting)} of {rate.runs} {what} within {format_duration(rate.per)}{_more(asked)}"
    if len(counting) < rate.runs:
        return Verdict(Guard.LIMIT, message, _ANSWERED)
    lifts = (counting[len(counting) - rate.runs] + rate.per).astimezone(UTC)
    return Verdict(Guard.LIMIT, message, f"it is {lifts:%Y-%m-%dT%H:%M:%SZ}")


def _more(asked: int) -> str:
    return f", {asked} more asked about" if asked else ""
