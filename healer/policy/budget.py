"""Disruption budgets: how many nodes of a scope may be out of service at once, whoever took them out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import floor

from healer.domain.fleet import Fleet


@dataclass(frozen=True, slots=True)
class DisruptionBudget:
    """Attributes:
    at_least: allowed even where the percentage rounds down to less.
    """

    max_nodes: int
    max_percent: float
    at_least: int

    def allowed(self, size: int) -> int:
        """How many of `size` nodes may be out. An unknown size (0) allows nothing."""
        if size == 0:
            return 0
        # The epsilon keeps 10 % of 30 at 3, whatever binary floating point makes of it.
        by_percent = floor(size * self.max_percent / 100 + 1e-9)
        return max(min(self.at_least, self.max_nodes), min(self.max_nodes, by_percent))


@dataclass(frozen=True, slots=True)
class Scope:
    """A set of nodes that share a budget, as it stands now.

    Attributes:
        asked: nodes that are in service, and whose taking out awaits a person's answer: an answer must find room.
    """

    name: str
    nodes: frozenset[str]
    out: frozenset[str]
    budget: DisruptionBudget
    asked: frozenset[str] = frozenset()

    @property
    def allowed(self) -> int:
        return self.budget.allowed(len(self.nodes))

    def admits(self, more: frozenset[str]) -> bool:
        """Whether `more` nodes may be taken out too. Those that are out already cost nothing again."""
        new = more - self.out
        return not new or len(self.out | self.asked | new) <= self.allowed

    def __str__(self) -> str:
        asked = f" {len(self.asked - self.out)} more asked about," if self.asked - self.out else ""
        return f"{self.name}: {len(self.out)} of {len(self.nodes)} nodes out,{asked} {self.allowed} allowed"


class ScopeKind(StrEnum):
    """What nodes share a budget by; the values are the keys under `budgets` in config.yaml."""

    FLEET = "fleet"
    RACK = "rack"
    FEED = "feed"
    POOL = "pool"
    JOB = "job"


_NAMES = {ScopeKind.FEED: "power feed"}
_EVERY_NODE_HAS_ONE = frozenset({ScopeKind.RACK, ScopeKind.FEED})  # a node without one is a node of an unknown one

Shares = Mapping[ScopeKind, Mapping[str, Collection[str]]]  # by kind and node: the names of what it belongs to


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Which nodes share what: made once for all that is decided by it, for it walks the fleet.

    Attributes:
        nodes: all that the scheduler knows.
        out: those of them that are not in service.
        of_node: by kind and node, the names of what it belongs to. A kind that nothing is known of has no entry.
        members: by kind and name.
    """

    nodes: frozenset[str] = frozenset()
    out: frozenset[str] = frozenset()
    of_node: Shares = field(default_factory=dict)
    members: Mapping[ScopeKind, Mapping[str, frozenset[str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, fleet: Fleet, shares: Shares) -> Grouping:
        known = {kind: of_node for kind, of_node in shares.items() if of_node}
        return cls(
            nodes=frozenset(fleet.nodes),
            out=frozenset(name for name, seen in fleet.nodes.items() if not seen.available),
            of_node=known,
            members={kind: _members(fleet, of_node) for kind, of_node in known.items()},
        )

    def around(self, node: str) -> Iterator[tuple[ScopeKind, str, frozenset[str]]]:
        """What the node counts in beside the fleet: the kind, the name, and its nodes that the scheduler knows."""
        for kind, of_node in self.of_node.items():
            names = of_node.get(node, ())
            for name in sorted(names):
                yield kind, name, self.members[kind].get(name, frozenset())
            if not names and kind in _EVERY_NODE_HAS_ONE:
                yield kind, "unknown", frozenset()


def scopes_of(
    node: str,
    grouping: Grouping,
    budgets: Mapping[ScopeKind, DisruptionBudget],
    *,
    leaving: frozenset[str],
    asked: frozenset[str] = frozenset(),
) -> tuple[Scope, ...]:
    """The scopes that `node` counts in.

    Where no node has a rack there is no rack scope; a node of unknown rack among others that have one is in a rack
    scope of unknown size. So it is with power feeds. A node without a pool, or without a job, is simply in none.

    Args:
        budgets: of every kind.
        leaving: nodes that active runs are taking out, whether or not the scheduler shows it yet.
        asked: nodes that open questions would take out.
    """
    groups = [("fleet", ScopeKind.FLEET, grouping.nodes)]
    groups += [(f"{_NAMES.get(kind, kind)} {name}", kind, members) for kind, name, members in grouping.around(node)]
    return tuple(
        Scope(name, members, (grouping.out & members) | (leaving & members), budgets[kind], asked & members)
        for name, kind, members in groups
    )


def _members(fleet: Fleet, of_node: Mapping[str, Collection[str]]) -> Mapping[str, frozenset[str]]:
    members: dict[str, list[str]] = defaultdict(list)
    for node, names in of_node.items():
        if node in fleet.nodes:
            for name in names:
                members[name].append(node)
    return {name: frozenset(nodes) for name, nodes in members.items()}
