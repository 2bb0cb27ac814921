"""What sources of topology have in common, and sources put together: several that complete each other, and a slow one
that must not hold up a turn.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from functools import reduce

from healer.domain.topology import Topology
from healer.errors import Unavailable
from healer.ports import TopologySource


class Kept:
    """What was read counts for `every`. What is read anew and is the same is the very same object."""

    def __init__(self, every: timedelta) -> None:
        self._every = every
        self._read_at: datetime | None = None
        self._told = Topology()

    def get(self, at: datetime, read: Callable[[], Topology]) -> Topology:
        """Raises what `read` raises; then it is asked again at the next call."""
        if self._read_at is None or not timedelta(0) <= at - self._read_at < self._every:
            told = read()
            self._told = self._told if told == self._told else told
            self._read_at = at
        return self._told


class LayeredTopology:
    """Implements `healer.ports.TopologySource`: what the first source says, else what the next one says.

    A file with racks and power feeds before the scheduler that knows the jobs, for example.
    """

    def __init__(self, *sources: TopologySource) -> None:
        self._sources = sources
        self._parts: tuple[Topology, ...] = ()
        self._told = Topology()

    def topology(self, at: datetime) -> Topology:
        """Raises what any of the sources raises: half of an answer could read as no jobs."""
        parts = tuple(source.topology(at) for source in self._sources)
        if len(parts) != len(self._parts) or any(a is not b for a, b in zip(parts, self._parts, strict=True)):
            self._parts = parts
            self._told = reduce(Topology.or_else, parts)
        return self._told


class BackgroundTopology:
    """Implements `healer.ports.TopologySource`: the source is asked in a thread of its own.

    A turn waits for the answer a moment; while it is under way, the last one counts.

    Args:
        at_most: how long a turn may be held up.
        stale_after: an answer that is older than this does not count any more.
    """

    def __init__(self, source: TopologySource, *, at_most: timedelta, stale_after: timedelta) -> None:
        self._source = source
        self._wait_s = at_most.total_seconds()
        self._stale_after = stale_after
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="topology")
        self._asked: tuple[Future[Topology], datetime] | None = None
        self._told: tuple[Topology, datetime] | None = None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def topology(self, at: datetime) -> Topology:
        """Raises what the source raises, once for each time it was asked; Unavailable while it takes too long."""
        future, asked_at = self._asked or (self._threads.submit(self._source.topology, at), at)
        self._asked = future, asked_at
        if not wait([future], timeout=self._wait_s).done:
            return self._last(at, asked_at)
        self._asked = None
        told = future.result()
        self._told = told, asked_at
        return told

    def _last(self, at: datetime, asked_at: datetime) -> Topology:
        waited_s = (at - asked_at).total_seconds()
        if self._told is None or at - self._told[1] > self._stale_after:
            raise Unavailable("topology", f"the source has been asked for {waited_s:.0f} s and has not answered yet")
        return self._told[0]
