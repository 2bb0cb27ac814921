"""Topology: where each node is, and which job holds which GPUs, as somebody other than the telemetry tells it.

Level-triggered: a source tells the whole of what is so now, and nothing here remembers. That a node moved, a job ended
or a machine was replaced under its old name needs no event; who wants to log it compares two topologies.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from healer.domain.component import Component

_Told = TypeVar("_Told")

GpuSlot = tuple[str, str]  # node, and the GPU's index there as `Component.gpu` has it
PodName = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is. None is unknown.

    Attributes:
        feed: the power feed.
        nvlink_domain: what shares memory over NVLink: the rack of an NVL72, else no more than the node.
        switch: the leaf switch.
    """

    rack: str | None = None
    feed: str | None = None
    nvlink_domain: str | None = None
    switch: str | None = None

    def or_else(self, other: Place) -> Place:
        """What this one says, else what the other says, for each part."""
        return Place(*(getattr(self, part) or getattr(other, part) for part in PLACE_PARTS))

    def __str__(self) -> str:
        told = [(part, getattr(self, part)) for part in PLACE_PARTS]
        return ", ".join(f"{part} {name}" for part, name in told if name) or "nowhere known"


PLACE_PARTS = tuple(part.name for part in fields(Place))
NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything a source knows at one time. A source returns the very same object while nothing has changed.

    A job is named by what stays the same while it lives: Slurm's job id (of a heterogeneous job that of its leader), in
    Kubernetes `namespace/Kind/name` of the topmost owner.

    Attributes:
        places: by node.
        jobs: by node: the one job that has all the GPUs of the node.
        sharing: by node: the jobs that have some of its GPUs, where none has all.
        gpu_jobs: the job that has this GPU, where the source says which GPUs of a node a job was given.
        pods: which job a pod belongs to; who exports a pod's name with a GPU thereby says whose the GPU is.
        aliases: another name under which telemetry may know a job -> the job.
        titles: job -> what people call it.
        warnings: what could not be found out, or contradicts itself.
    """

    places: Mapping[str, Place] = field(default_factory=dict)
    jobs: Mapping[str, str] = field(default_factory=dict)
    sharing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gpu_jobs: Mapping[GpuSlot, str] = field(default_factory=dict)
    pods: Mapping[PodName, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def place(self, node: str | None) -> Place:
        return NOWHERE if node is None else self.places.get(node, NOWHERE)

    def jobs_on(self, node: str) -> tuple[str, ...]:
        """Every job that has a GPU of the node: what is lost with it."""
        return (self.jobs[node],) if node in self.jobs else self.sharing.get(node, ())

    def job_of(self, gpu: Component, pod: PodName | None = None) -> str | None:
        """The job that has this GPU; None for no job as well as for one that nobody can name.

        The finest knowledge wins: the pod that the exporter names, the slot, the exporter's own word, the whole node.

        Args:
            pod: as exported with the GPU.
        """
        if pod is not None and pod in self.pods:
            return self.pods[pod]
        if gpu.node is None:
            return self._known_as(gpu.job)
        index = gpu.gpu or ""
        slots = ((gpu.node, index), (gpu.node, index.partition(":")[0]))  # the instance, or the whole GPU
        given = next((self.gpu_jobs[slot] for slot in slots if slot in self.gpu_jobs), None)
        return given or self._known_as(gpu.job) or self.jobs.get(gpu.node)

    def _known_as(self, job: str | None) -> str | None:
        return None if job is None else self.aliases.get(job, job)

    @property
    def nodes(self) -> frozenset[str]:
        """Every node that the topology says something of."""
        return frozenset(self.places) | self.jobs.keys() | self.sharing.keys() | {node for node, _ in self.gpu_jobs}

    def or_else(self, other: Topology) -> Topology:
        """What this one says, else what the other says: of each node's place, and of each node's jobs."""
        other = spoken_as(other, self.nodes)
        told = self.jobs.keys() | self.sharing.keys()
        untold = {node for node in other.nodes if node not in told}
        return Topology(
            places={node: self.place(node).or_else(other.place(node)) for node in [*self.places, *other.places]},
            jobs={**_only(other.jobs, untold), **self.jobs},
            sharing={**_only(other.sharing, untold), **self.sharing},
            gpu_jobs={**{slot: job for slot, job in other.gpu_jobs.items() if slot[0] in untold}, **self.gpu_jobs},
            pods={**other.pods, **self.pods},
            aliases={**other.aliases, **self.aliases},
            titles={**other.titles, **self.titles},
            warnings=self.warnings + other.warnings,
        )


def spoken_as(topology: Topology, names: Collection[str]) -> Topology:
    """The same topology with its nodes named as in `names`, which come from elsewhere (the telemetry).

    A name without a domain and one with it are the same node where only one of each can be meant. A node that `names`
    does not have keeps its own name. What is ambiguous stays unmatched, and is said.
    """
    renamed, unclear = matched(topology.nodes, names)
    if all(ours == theirs for ours, theirs in renamed.items()) and not unclear:
        return topology
    warnings = topology.warnings
    if unclear:
        warnings += (f"node names that could be several nodes, with and without domain: {_listed(unclear)}",)
    return replace(
        topology,
        places={renamed.get(node, node): place for node, place in topology.places.items()},
        jobs={renamed.get(node, node): job for node, job in topology.jobs.items()},
        sharing={renamed.get(node, node): jobs for node, jobs in topology.sharing.items()},
        gpu_jobs={(renamed.get(node, node), gpu): job for (node, gpu), job in topology.gpu_jobs.items()},
        warnings=warnings,
    )


def matched(ours: Collection[str], theirs: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Which of `theirs` each of `ours` is, and which of `ours` could be more than one.

    Equal names match. `gpu-1` and `gpu-1.example.com` match unless either side has another `gpu-1` of its own; two
    different domains never match. Case does not matter, as in any host name.
    """
    exact = {name: name for name in set(ours).intersection(theirs)}
    taken = set(exact)
    by_short = _by_short_name(name for name in theirs if name not in taken)
    found: dict[str, str] = {}
    unclear: list[str] = []
    for short, mine in _by_short_name(name for name in ours if name not in exact).items():
        for name in mine:
            candidates = [other for other in by_short.get(short, ()) if _may_be_same(name, other)]
            rivals = [other for other in mine if any(_may_be_same(other, candidate) for candidate in candidates)]
            if len(candidates) == len(rivals) == 1:
                found[name] = candidates[0]
            elif candidates:
                unclear.append(name)
    return exact | found, tuple(sorted(unclear))


def _by_short_name(names: Iterable[str]) -> dict[str, list[str]]:
    by_short: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_short[_short(name)].append(name)
    return by_short


def _short(name: str) -> str:
    """Without its domain. An address is no name, so its first number means nothing."""
    first, _, domain = name.lower().partition(".")
    return name.lower() if first.isdecimal() and domain else first


def _may_be_same(one: str, other: str) -> bool:
    one, other = one.lower().rstrip("."), other.lower().rstrip(".")
    return one == other or "." not in one or "." not in other


@dataclass(frozen=True, slots=True)
class Claim:
    """What a part of a job (a pod, a Slurm job on one node) has of a node's GPUs, by the name of the resource."""

    job: str
    node: str
    amounts: Mapping[str, int]


def held(
    claims: Iterable[Claim], capacity: Mapping[str, Mapping[str, int]]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """`jobs` and `sharing` of a topology.

    A job has a node whole when it alone has something of it, and as much as there is of every resource (a MIG profile
    is one). Where the capacity is not known, no job is known to have it whole.

    Args:
        capacity: of each node, by resource.
    """
    by_node: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for claim in claims:
        by_node[claim.node][claim.job].update(claim.amounts)
    jobs: dict[str, str] = {}
    sharing: dict[str, tuple[str, ...]] = {}
    for node, by_job in by_node.items():
        there = {resource: amount for resource, amount in capacity.get(node, {}).items() if amount > 0}
        first, *others = sorted(by_job)
        if there and not others and all(by_job[first][resource] >= amount for resource, amount in there.items()):
            jobs[node] = first
        else:
            sharing[node] = (first, *others)
    return jobs, sharing


@dataclass(frozen=True, slots=True)
class Changes:
    """What one topology says and an earlier one did not.

    Attributes:
        moved: nodes that are elsewhere now, with where they were. A node that is new, or gone, has not moved.
        started, ended: jobs.
    """

    moved: Mapping[str, tuple[Place, Place]]
    started: frozenset[str]
    ended: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.moved or self.started or self.ended)


def changes(before: Topology, after: Topology) -> Changes:
    both = before.places.keys() & after.places.keys()
    old, new = _all_jobs(before), _all_jobs(after)
    return Changes(
        moved={n: (before.places[n], after.places[n]) for n in sorted(both) if before.places[n] != after.places[n]},
        started=new - old,
        ended=old - new,
    )


def departed(gpus: Sequence[Component], first_seen_s: Sequence[float], last_seen_s: Sequence[float]) -> frozenset[int]:
    """The rows whose GPU is no longer there: its slot has a GPU that came after this one was last heard of.

    That is a machine replaced under its old name, or one GPU swapped. A GPU that fell off the bus has not departed: the
    others of its node then move up into its index, and were there before.

    Args:
        first_seen_s, last_seen_s: (n_gpus,) unix seconds of the first and the last sample of each GPU.
    """
    rows_by_slot: dict[GpuSlot, list[int]] = defaultdict(list)
    for row, gpu in enumerate(gpus):
        if gpu.node is not None and gpu.gpu is not None:
            rows_by_slot[gpu.node, gpu.gpu].append(row)
    return frozenset(
        row
        for rows in rows_by_slot.values()
        if len(rows) > 1
        for row in rows
        if any(first_seen_s[other] > last_seen_s[row] for other in rows)
    )


def _all_jobs(topology: Topology) -> frozenset[str]:
    shared = (job for jobs in topology.sharing.values() for job in jobs)
    return frozenset(topology.jobs.values()).union(shared)


def _only(by_node: Mapping[str, _Told], nodes: Collection[str]) -> dict[str, _Told]:
    return {node: told for node, told in by_node.items() if node in nodes}


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
