"""The storm breaker: when so many nodes fail at once, the nodes are not what is wrong.

A bad driver, a switch, a feed or our own misreading condemns nodes by the dozen; each of them alone would be drained
rightly. So the demand is watched, not what was admitted: a storm is seen before the first node of it is touched.

What the nodes share is the suspect only if it tells them from the others: where all have one driver, it explains
nothing. It is not what more than half of the fleet has, and among those that have it, the share of nodes that are to
be taken out is at least three times that among those that have not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from healer.policy.budget import DisruptionBudget

_NAMED = 5
_CLEARLY = 3  # times as often as among the others


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """Attributes:
    nodes: more than these within the time are a storm, wherever they are.
    together: so many of one rack, feed, switch or driver are a storm too, if that tells them from others. 0 for never.
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
        shares: what the node has in common with others: "rack r7", "feed A", "driver 570.12".
    """

    node: str
    since: datetime
    shares: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Storm:
    reason: str
    nodes: tuple[str, ...]


def storm_in(
    demands: Iterable[Demand],
    rule: BreakerRule,
    *,
    fleet: int,
    now: datetime,
    reset_at: datetime | None,
    sizes: Mapping[str, int],
) -> Storm | None:
    """The storm that the demands are; None if they are none.

    Args:
        fleet: how many nodes there are.
        sizes: by share, how many nodes of the fleet have it.
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
    found = [(share, sharing, max(sizes.get(share, 0), len(sharing))) for share, sharing in by_share.items()]
    # The most nodes first; of what explains as many, what fewer others have.
    for share, sharing, size in sorted(found, key=lambda each: (-len(each[1]), each[2], each[0])):
        others = len(nodes) - len(sharing)
        if 0 < rule.together <= len(sharing) and _explains(len(sharing), size, others, fleet - size):
            figures = f"{len(sharing)} of the {size} that have it, {others} of the {fleet - size} others"
            why = f"what they share is the suspect ({figures})"
            return _storm(sharing, f"of {share} would be taken out of service", why, rule)
    return None


def _explains(affected: int, size: int, others_affected: int, others: int) -> bool:
    """Whether what `size` nodes share tells the `affected` of them from the rest of the fleet."""
    return size <= others and affected * others >= _CLEARLY * others_affected * size


def _storm(nodes: set[str], what: str, why: str, rule: BreakerRule) -> Storm:
    named = sorted(nodes)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    minutes = rule.within.total_seconds() / 60
    reason = f"{len(named)} nodes {what} for what began within {minutes:g} minutes, {why}"
    return Storm(f"{reason}: {', '.join(named[:_NAMED])}{more}", tuple(named))
