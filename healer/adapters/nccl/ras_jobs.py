"""Jobs asked through RAS, each at most once at a time, in threads of their own; what was heard last counts."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from healer.domain.testimony import Testimony
from healer.errors import Unavailable
from healer.telemetry.nccl.ras import Look, look_says, places
from healer.telemetry.nccl.ras_answer import Answer

_THREADS = 8
_MOST_JOBS = 64  # that are followed at once
_MOST_RESOLVED = 1024  # nodes of one job
_RESOLVE_S = 10.0
_KEPT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Heard:
    """What one job said last.

    Attributes:
        node: which answered.
        places: node and GPU of each global rank, as far as they are told.
    """

    node: str
    look: Look
    testimony: Testimony
    places: Mapping[int, tuple[str, str]]


@dataclass(slots=True, eq=False)
class _Job:
    asked_at: datetime
    under_way: Future[Heard]
    heard: Heard | None = None
    trouble: str = ""

    def take(self) -> None:
        try:
            self.heard = self.under_way.result()
        except Unavailable as error:
            self.trouble = str(error)
        else:
            self.trouble = ""


class RasJobs:
    """Args:
    ask: the answer of one node; raises Unavailable.
    every: how often a job is asked while it is suspect.
    """

    def __init__(self, ask: Callable[[str], Answer], *, every: timedelta = timedelta(seconds=20)) -> None:
        self._ask = ask
        self._every = every
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="nccl-ras")
        self._jobs: dict[str, _Job] = {}
        self._names: dict[str, str] = {}  # of nodes, by address
        self._resolved: set[str] = set()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def look(self, now: datetime, suspects: Mapping[str, Sequence[str]]) -> tuple[Heard, ...]:
        """What is known now; jobs that are suspect and not just being asked are asked anew."""
        for job in self._jobs.values():
            if job.under_way.done():
                job.take()
        self._jobs = {name: job for name, job in self._jobs.items() if abs(now - job.asked_at) < _KEPT}
        for name, nodes in suspects.items():
            if nodes:
                self._follow(name, tuple(nodes), now)
        return tuple(job.heard for job in self._jobs.values() if job.heard is not None)

    def warnings(self) -> tuple[str, ...]:
        return tuple(f"job {name}: {job.trouble}" for name, job in self._jobs.items() if job.trouble)

    def _follow(self, name: str, nodes: tuple[str, ...], now: datetime) -> None:
        job = self._jobs.get(name)
        if job is None and len(self._jobs) < _MOST_JOBS:
            self._jobs[name] = _Job(now, self._threads.submit(self._hear, name, nodes, now, None))
        elif job is not None and job.under_way.done() and abs(now - job.asked_at) >= self._every:
            job.under_way = self._threads.submit(self._hear, name, nodes, now, job.heard)
            job.asked_at = now

    def _hear(self, name: str, nodes: tuple[str, ...], now: datetime, before: Heard | None) -> Heard:
        """Ask the node that has answered before, else the first, the middle and the last. Raises Unavailable."""
        known = (before.node,) if before is not None and before.node in nodes else ()
        trouble = Unavailable("NCCL RAS", "was not asked")
        for node in dict.fromkeys((*known, nodes[0], nodes[len(nodes) // 2], nodes[-1])):
            try:
                answer = self._ask(node)
            except Unavailable as error:
                trouble = error
                continue
            look = Look.first(answer, now) if before is None else before.look.then(answer, now)
            self._resolve(nodes)
            testimony = look_says(look, job=name, where=node, nodes=self._names)
            return Heard(node, look, testimony, places(answer, self._names))
        raise trouble

    def _resolve(self, nodes: Sequence[str]) -> None:
        """Learn the addresses of nodes, for that is how RAS names them; what takes too long waits for the next time."""
        deadline = time.monotonic() + _RESOLVE_S
        for node in nodes[:_MOST_RESOLVED]:
            if node in self._resolved:
                continue
            if time.monotonic() > deadline:
                return
            self._resolved.add(node)
            try:
                found = socket.getaddrinfo(node, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                continue  # then it stays an address
            self._names |= {str(address[0]): node for *_, address in found}
