"""The storm breaker: when so many nodes fail at once, the nodes are not what is wrong.

A bad driver, a switch, a feed or our own misreading condemns nodes by the dozen; each of them alone would be drained
rightly. So the demand is watched, not what was admitted: a storm is seen before the first node of it is touched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from healer.policy.budget import DisruptionBudget

_NAMED = 5


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """Attributes:
    nodes: more than these within the time are a storm, wherever they are.
    together: so many of one rack, feed or switch are a storm too: what they share explains them better. 0 for never.
    within: the time.
    """

    nodes: DisruptionBudget
    together: int
    within: timedelta


@dataclass(frozen=True, slots=True)
class Demand:
    """A node that an incident's plan takes out of service, or would.

    Attributes:
        since: when the fault was found, in its present spell.
        shares: what the node has in common with others: "rack r7", "feed A".
    """

    node: str
    since: datetime
    shares: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Storm:
    reason: str
    nodes: tuple[str, ...]


def storm_in(
    demands: Iterable[Demand], rule: BreakerRule, *, fleet: int, now: datetime, reset_at: datetime | None
) -> Storm | None:
    """The storm that the demands are; None if they are none.

    Args:
        fleet: how many nodes there are.
        reset_at: when a person last closed the breaker: they knew of all that had begun by then.
    """
    since = now - rule.within
    recent = [each for each in demands if each.since > since and (reset_at is None or each.since > reset_at)]
    nodes = {each.node for each in recent}
    allowed = rule.nodes.allowed(fleet)
    if len(nodes) > allowed:
        return _storm(nodes, f"of {fleet} would be taken out of service", f"{allowed} are allowed", rule)
    by_share: dict[str, set[str]] = defaultdict(set)
    for each in recent:
        for share in each.shares:
            by_share[share].add(each.node)
    for share, sharing in sorted(by_share.items(), key=lambda item: (-len(item[1]), item[0])):
        if 0 < rule.together <= len(sharing):
            return _storm(sharing, f"of {share} would be taken out of service", "what they share is the suspect", rule)
    return None


def _storm(nodes: set[str], what: str, why: str, rule: BreakerRule) -> Storm:
    named = sorted(nodes)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    minutes = rule.within.total_seconds() / 60
    reason = f"{len(named)} nodes {what} for what began within {minutes:g} minutes, {why}"
    return Storm(f"{reason}: {', '.join(named[:_NAMED])}{more}", tuple(named))
