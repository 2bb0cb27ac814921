"""The simulated site for a recorded run: as many nodes and GPUs as it needs, and what ran there. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from healer.content.playbook_tests import Site, WorkloadBudget, Workloads
from healer.domain.component import ComponentKind
from healer.domain.incident import Incident
from healer.domain.plan import Effect
from healer.domain.run import EffectState, RunState
from healer.errors import Rejected
from healer.rehearsal.record import Record
from healer.runtime.course import Carried, deeds_of, owner_of, pods_of

_MOST_NODES, MOST_GPUS, _MOST_PODS = 32, 8, 100  # of a site, of a node, of one owner
_FEWEST_NODES, _FEWEST_GPUS = 4, 2
_SURGE_W = 1650.0  # of each node: a rack with so little cannot bear a surge
_HELD_BY = re.compile(r"(\S+) (?:is held by|waits for) the disruption budget (\S+)")


def nodes_of(record: Record) -> tuple[str, ...]:
    """Every node that was found faulty, planned for, or touched: that of the incident first."""
    plans = [carried.run.plan for carried in record.runs]
    touched = [each.key.split("/")[1] for carried in record.runs for each in carried.records if each.key[:4] == "cap/"]
    named = [
        record.incident.component.node,
        *(plan.target.node for plan in plans),
        *sorted({node for plan in plans for node in plan.takes_out}),
        *sorted(touched),
    ]
    return tuple(dict.fromkeys(name for name in named if name is not None))


def site_for(record: Record, nodes: int, *, surge: bool) -> Site:
    if nodes > _MOST_NODES:
        raise Rejected("rehearsal", f"{record.run.id} is about {nodes} nodes, and a site has {_MOST_NODES} at most")
    if surge:
        return Site(nodes=max(nodes, 1), gpus=_FEWEST_GPUS, rack_budget_watts=_SURGE_W * max(nodes, 1))
    index = gpu_of(record.incident)
    gpus = _FEWEST_GPUS if index is None else min(MOST_GPUS, max(_FEWEST_GPUS, index + 1))
    return Site(nodes=min(_MOST_NODES, max(_FEWEST_NODES, 2 * nodes)), gpus=gpus)


def gpu_of(incident: Incident) -> int | None:
    """The index of its GPU; None if it is about none, or one without a number."""
    index = (incident.component.gpu or "").partition(":")[0]
    return int(index) if incident.component.kind is ComponentKind.GPU and index.isdigit() else None


# What ran there


def _evictions(record: Record) -> Mapping[tuple[str, str], tuple[Carried, Effect]]:
    """By owner and node: the first plan that would have moved, or started anew, what it owns there; in the order in
    which they went, then those that did not.
    """
    found: dict[tuple[str, str], tuple[Carried, Effect]] = {}
    for carried in record.runs:
        for effect in carried.run.plan.effects:
            owner, _, on = effect.target.partition(" on ")
            node = on or effect.takes_out
            if effect.verb in {"evict", "restart"} and node is not None:
                found.setdefault((owner, node), (carried, effect))
    went = [deed.text for carried in record.runs for deed in deeds_of(carried)]
    places = {text: place for place, text in reversed([*enumerate(went)])}
    return dict(sorted(found.items(), key=lambda item: places.get(f"evict {item[0][0]}", len(went))))


def workloads_of(record: Record, renamed: Mapping[str, str], lost: list[str]) -> Iterator[Workloads]:
    for (owner, node), (_, effect) in _evictions(record).items():
        namespace, _, kind_and_name = owner.partition("/")
        count = max(1, len(pods_of(effect.detail)))
        if count > _MOST_PODS:
            lost.append(f"of {count} workloads of {owner} there are {_MOST_PODS}")
        try:
            yield Workloads(
                owner=kind_and_name, node=renamed.get(node, node), namespace=namespace, count=min(count, _MOST_PODS)
            )
        except ValidationError:
            lost.append(f"{owner} is no workload that a simulated cluster has")


def budgets_of(record: Record, lost: list[str]) -> Iterator[WorkloadBudget]:
    """What did not go then does not go here: held by the disruption budget that was named, or else for no reason."""
    named = _budgets_named(record)
    evicted = {deed.text for carried in record.runs for deed in deeds_of(carried)}
    for (owner, _), (carried, effect) in _evictions(record).items():
        namespace, _, kind_and_name = owner.partition("/")
        if f"evict {owner}" in evicted:
            if owner in named:
                lost.append(f"{owner} was held by {named[owner]} before it went: here nothing holds it")
        elif effect.verb == "evict" and carried.run.state is not RunState.SUCCEEDED:
            name = named.get(owner, "recorded").rpartition("/")[2]
            count = min(_MOST_PODS, max(1, len(pods_of(effect.detail))))
            yield WorkloadBudget(name=name, owner=kind_and_name, namespace=namespace, min_available=count)


def _budgets_named(record: Record) -> Mapping[str, str]:
    """Owner -> the disruption budget that something of it was held by."""
    found: dict[str, str] = {}
    for carried in record.runs:
        run = carried.run
        for text in (*run.plan.impediments, run.detail, run.cause):
            for pod, budget in _HELD_BY.findall(text):
                found.setdefault(owner_of(pod, run.plan), budget.rstrip(",;"))
        for each in carried.records:
            if each.state is EffectState.FAILED and each.key.startswith("evict/") and each.detail.startswith("budget "):
                pod = "/".join(each.key.split("/")[1:3])
                found.setdefault(owner_of(pod, run.plan), each.detail.split()[1])
    return found
