"""Nodes and jobs as Slurm's programs describe them in JSON: only what tells who has which GPUs, in any version's shape.

22.05 writes plain numbers and one word for a state; from 23.02 on a number is {"set", "infinite", "number"}, from 23.11
on a state is a list; in 24.05 a job's nodes have moved within `job_resources`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from healer.adapters.slurm.programs import SlurmError
from healer.decoding import decode

LIVE = frozenset({"RUNNING", "SUSPENDED"})  # a suspended job has its GPUs still
ENDING = "COMPLETING"
_MIG_PROFILE = re.compile(r"\d+g\.\d+gb")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class _Set(msgspec.Struct, frozen=True, gc=False):
    """A number that may be missing."""

    set: bool
    number: float


_Number = int | float | _Set | None
_Words = str | list[str] | None


class _Named(msgspec.Struct, frozen=True, gc=False):
    nodename: str = ""
    name: str = ""


class _Allocation(msgspec.Struct, frozen=True, gc=False):
    allocation: list[_Named] = []


class _JobResources(msgspec.Struct, frozen=True, gc=False):
    allocated_nodes: list[_Named] | None = None
    nodes: str | _Allocation | None = None

    @property
    def node_names(self) -> tuple[str, ...]:
        """In the order of the job's other lists; empty where this version does not say."""
        told = self.nodes.allocation if isinstance(self.nodes, _Allocation) else self.allocated_nodes or ()
        return tuple(one.nodename or one.name for one in told)


class SlurmJob(msgspec.Struct, frozen=True, gc=False):
    """Attributes:
    gres_detail: one text for each node, with what the job has of it.
    """

    job_id: int
    job_state: str | list[str]
    name: str | None = ""
    user_name: str | None = ""
    nodes: str | None = ""
    gres_detail: list[str] | None = None
    tres_alloc_str: str | None = ""
    array_job_id: _Number = None
    array_task_id: _Number = None
    het_job_id: _Number = None
    het_job_offset: _Number = None
    job_resources: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def is_live(self) -> bool:
        states = {state.upper() for state in _words(self.job_state)}
        return bool(states & LIVE) and ENDING not in states

    @property
    def het_leader(self) -> int | None:
        """The first job of the heterogeneous job that this one is a part of."""
        return _whole(self.het_job_id) or None

    @property
    def het_place(self) -> str | None:
        return f"{self.het_leader}+{_whole(self.het_job_offset) or 0}" if self.het_leader else None

    @property
    def array_place(self) -> str | None:
        """As squeue shows a task of an array."""
        task = _whole(self.array_task_id)
        return f"{_whole(self.array_job_id)}_{task}" if _whole(self.array_job_id) and task is not None else None

    @property
    def ordered_nodes(self) -> tuple[str, ...]:
        """Its nodes in the order of `gres_detail`; empty where this version does not say."""
        try:
            resources = decode(self.job_resources, _JobResources | None)
        except msgspec.ValidationError:
            return ()
        return () if resources is None else resources.node_names


class SlurmJobs(msgspec.Struct, frozen=True):
    jobs: list[SlurmJob]
    errors: list[SlurmError] = []


class SlurmNode(msgspec.Struct, frozen=True, gc=False):
    name: str
    gres: str | None = ""
    cpus: _Number = 0
    effective_cpus: _Number = None
    alloc_cpus: _Number = 0
    features: _Words = None
    active_features: _Words = None
    extra: str | None = ""
    comment: str | None = ""

    @property
    def words(self) -> Iterator[str]:
        """Everything that an administrator attached to the node, the features first."""
        for text in (self.active_features, self.features, self.extra, self.comment):
            yield from _words(text)

    @property
    def usable_cpus(self) -> int:
        return _whole(self.effective_cpus) or _whole(self.cpus) or 0

    @property
    def used_cpus(self) -> int:
        return _whole(self.alloc_cpus) or 0

    @property
    def gpus(self) -> int:
        return sum(gres.count for gres in gres_in(self.gres or "") if gres.name == "gpu")

    @property
    def has_mig(self) -> bool:
        """Then Slurm numbers the instances, and not the GPUs."""
        return any(_MIG_PROFILE.search(gres.kind) for gres in gres_in(self.gres or ""))


class SlurmNodes(msgspec.Struct, frozen=True):
    nodes: list[SlurmNode]
    errors: list[SlurmError] = []


class Gres(msgspec.Struct, frozen=True, gc=False):
    """A generic resource, as in `gpu:h100:4(IDX:0-2,7)`.

    Attributes:
        indices: which of its kind on the node; empty where that is not said.
    """

    name: str
    kind: str
    count: int
    indices: tuple[int, ...]


@lru_cache(maxsize=4096)  # a fleet has few kinds of nodes, and jobs mostly have all of them
def gres_in(text: str) -> tuple[Gres, ...]:
    """What a list of generic resources says, which may be nothing: `(null)`."""
    return tuple(_gres(part) for part in re.findall(r"[^,()]+(?:\([^)]*\))?", text) if not part.startswith("null"))


def _gres(text: str) -> Gres:
    plain, _, inside = text.partition("(")
    name, *rest = plain.strip().split(":")
    count = _count(rest[-1]) if rest else None
    kind = rest[0] if rest and (len(rest) > 1 or count is None) else ""
    told = re.search(r"IDX:([0-9,-]+)", inside)
    return Gres(name, kind, 1 if count is None else count, _indices(told[1]) if told else ())


def _count(text: str) -> int | None:
    found = re.fullmatch(r"(\d+)([KMG]?)", text)
    return int(found[1]) * _UNITS.get(found[2], 1) if found else None


def _indices(text: str) -> tuple[int, ...]:
    """The text of a bitmap: "0-2,7" as 0, 1, 2 and 7."""
    ranges = (re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part) for part in text.split(","))
    return tuple(index for found in ranges if found for index in range(int(found[1]), int(found[2] or found[1]) + 1))


def _whole(number: _Number) -> int | None:
    if isinstance(number, _Set):
        return int(number.number) if number.set else None
    return None if number is None else int(number)


def _words(text: _Words) -> list[str]:
    return re.split(r"[,\s]+", text) if isinstance(text, str) else text or []
