"""Disruption budgets: how many nodes of a scope may be out of service at once, whoever took them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


def scopes_of(
    node: str,
    fleet: Fleet,
    *,
    racks: Mapping[str, str],
    leaving: frozenset[str],
    fleet_budget: DisruptionBudget,
    rack_budget: DisruptionBudget,
    asked: frozenset[str] = frozenset(),
) -> tuple[Scope, ...]:
    """The scopes that `node` counts in.

    Args:
        racks: node -> rack, as far as known. Where no node has a rack there is no rack scope; a node of unknown rack
            among others that have one is in a rack scope of unknown size.
        leaving: nodes that active runs are taking out, whether or not the scheduler shows it yet.
        asked: nodes that open questions would take out.
    """
    out = frozenset(name for name, seen in fleet.nodes.items() if not seen.available) | leaving
    everywhere = frozenset(fleet.nodes)
    scopes = [Scope("fleet", everywhere, out & everywhere, fleet_budget, asked & everywhere)]
    if racks:
        rack = racks.get(node)
        members = frozenset(name for name in everywhere if rack is not None and racks.get(name) == rack)
        scopes.append(Scope(f"rack {rack or 'unknown'}", members, out & members, rack_budget, asked & members))
    return tuple(scopes)
