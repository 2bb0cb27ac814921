"""Where the nodes are and which jobs have their GPUs, from Slurm: node features, topology.conf, and the jobs that run.

A job is its job id, which is what exporters write beside a GPU (`hpc_job`); a task of an array is a job of its own; the
parts of a heterogeneous job are one job, named for the first of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from healer.adapters.slurm.objects import Gres, SlurmJob, SlurmJobs, SlurmNode, SlurmNodes, gres_in
from healer.adapters.slurm.programs import NAME, SlurmPrograms
from healer.adapters.topology.layers import Kept
from healer.domain.hostlist import expand_hosts
from healer.domain.topology import NOWHERE, Claim, GpuSlot, Place, Topology, held
from healer.errors import Unavailable
from healer.telemetry.places.slurm import NodeWords

_GPU_GRES = frozenset({"gpu", "shard", "mps"})
SCONTROL_SPEAKS_JSON = (23, 2)  # before that, `sinfo --json` tells the nodes


class SlurmTopology:
    """Implements `healer.ports.TopologySource`.

    Args:
        every: what was read counts for this long.
    """

    def __init__(
        self, programs: SlurmPrograms, words: NodeWords | None = None, *, every: timedelta = timedelta(minutes=1)
    ) -> None:
        self._programs = programs
        self._words = words or NodeWords()
        self._kept = Kept(every)
        self._wiring: Mapping[str, Place] = {}

    def topology(self, at: datetime) -> Topology:
        """Raises Unavailable: nothing is known then, and least of all that there are no jobs."""
        return self._kept.get(at, self._read)

    def _read(self) -> Topology:
        # In this order a job that ends meanwhile is still listed as ended, and its node is not in use for no reason.
        nodes = self._nodes()
        jobs = self._programs.ask(SlurmJobs, "squeue", "--json").jobs
        warnings = self._read_wiring()
        return replace(topology_of(nodes, jobs, words=self._words, wiring=self._wiring), warnings=warnings)

    def _read_wiring(self) -> tuple[str, ...]:
        """Not every topology plugin has something to show. One that fails leaves what was known."""
        try:
            self._wiring = switches_in(self._programs.run("scontrol", "show", "topology").decode(errors="replace"))
        except Unavailable as error:
            return (f"{error}; switches may be missing or out of date",)
        return ()

    def _nodes(self) -> Sequence[SlurmNode]:
        if self._programs.version() < SCONTROL_SPEAKS_JSON:
            return self._programs.ask(SlurmNodes, "sinfo", "--json").nodes
        return self._programs.ask(SlurmNodes, "scontrol", "show", "nodes", "--json").nodes


@dataclass(frozen=True, slots=True)
class _Part:
    """One node of a job, and what the job has there of generic resources."""

    job: SlurmJob
    node: SlurmNode
    gres: tuple[Gres, ...]


def topology_of(
    nodes: Sequence[SlurmNode], jobs: Sequence[SlurmJob], *, words: NodeWords, wiring: Mapping[str, Place]
) -> Topology:
    """Raises Unavailable when a node is in use and no job is shown on it: others must be hidden, too."""
    table = {node.name: node for node in nodes}
    _check_all_are_shown(nodes, jobs)
    live = sorted((job for job in jobs if job.is_live), key=lambda job: job.job_id, reverse=True)
    parts = [part for job in live for part in _parts(job, table)]
    capacity = {node.name: {"gpu": node.gpus} if node.gpus else {"cpu": node.usable_cpus} for node in nodes}
    whole, sharing = held((claim for part in parts for claim in _claims(part)), capacity)
    places = {node.name: words.place(tuple(node.words)).or_else(wiring.get(node.name, NOWHERE)) for node in nodes}
    return Topology(
        places={node: place for node, place in places.items() if place != NOWHERE},
        jobs=whole,
        sharing=sharing,
        gpu_jobs={slot: _key(part.job) for part in parts for slot in _slots(part)},
        aliases={alias: _key(job) for job in live for alias in _other_names(job)},
        titles={_key(job): _title(job) for job in live},  # the first part of a heterogeneous job comes last, and stays
    )


def switches_in(text: str) -> dict[str, Place]:
    """By node, the leaf switch (topology/tree) and the block (topology/block), which is made of NVLink domains.

    Raises Unavailable for a host list that cannot be read. Without a topology plugin the text is empty.
    """
    places: dict[str, Place] = {}
    for line in text.splitlines():
        told = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "SwitchName" in told and told.get("Level") == "0":
            place = Place(switch=told["SwitchName"])
        elif "BlockName" in told:
            place = Place(nvlink_domain=told["BlockName"])
        else:
            continue
        for node in _hosts(told.get("Nodes", "")):
            places[node] = places.get(node, NOWHERE).or_else(place)
    return places


def _check_all_are_shown(nodes: Iterable[SlurmNode], jobs: Iterable[SlurmJob]) -> None:
    told = {node for job in jobs for node in _hosts(job.nodes or "")}
    unexplained = [node.name for node in nodes if node.used_cpus and node.name not in told]
    if unexplained:
        text = f"{unexplained[0]} is in use, but no job is shown there (on {len(unexplained)} nodes)"
        raise Unavailable(NAME, f"{text}; if PrivateData hides the jobs of others, make healer's user an operator")


def _parts(job: SlurmJob, table: Mapping[str, SlurmNode]) -> Iterator[_Part]:
    names = _hosts(job.nodes or "")
    ordered = job.ordered_nodes
    if sorted(ordered) != sorted(names):
        # Slurm lists what a job has by the place of the node in its table, and sorts the names.
        place = {name: number for number, name in enumerate(table)}
        ordered = tuple(sorted(names, key=lambda name: place.get(name, -1)))
    details = job.gres_detail or ()
    if len(details) == len(ordered):
        each = [gres_in(detail) for detail in details]
    else:
        each = [_share(job, len(ordered))] * len(ordered)
    for name, gres in zip(ordered, each, strict=True):
        if name in table:
            yield _Part(job, table[name], gres)


def _share(job: SlurmJob, nodes: int) -> tuple[Gres, ...]:
    """Where nothing is said of each node: as many GPUs on one as on the other."""
    total = re.search(r"(?:^|,)gres/gpu=(\d+)", job.tres_alloc_str or "")
    return (Gres("gpu", "", int(total[1]) // nodes, ()),) if total else ()


def _claims(part: _Part) -> Iterator[Claim]:
    """A node without GPUs in Slurm's configuration is had by who has its CPUs."""
    if not part.node.gpus:
        yield Claim(_key(part.job), part.node.name, {"cpu": part.node.used_cpus})
    for gres in part.gres:
        if gres.name in _GPU_GRES:
            yield Claim(_key(part.job), part.node.name, {gres.name: gres.count})


def _slots(part: _Part) -> Iterator[GpuSlot]:
    if not part.node.has_mig:
        for gres in part.gres:
            yield from ((part.node.name, str(index)) for index in gres.indices if gres.name == "gpu")


def _key(job: SlurmJob) -> str:
    return str(job.het_leader or job.job_id)


def _other_names(job: SlurmJob) -> Iterator[str]:
    if job.het_leader and job.het_leader != job.job_id:
        yield str(job.job_id)
    yield from (name for name in (job.array_place, job.het_place) if name)


def _title(job: SlurmJob) -> str:
    task = f" ({job.array_place})" if job.array_place else ""
    return f"{job.name or 'a job'} of {job.user_name or 'a user'}{task}"


def _hosts(text: str) -> tuple[str, ...]:
    try:
        return expand_hosts(text) if text else ()
    except ValueError as error:
        raise Unavailable(NAME, f"names its nodes in a way that cannot be read: {error}") from error
