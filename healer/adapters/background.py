"""Work on files that may hang, in a thread of its own: one look at a time, and no turn is held up by it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from typing import Generic, TypeVar

_T = TypeVar("_T")


class InBackground(Generic[_T]):
    """Args:
    look: what is done in the thread.
    at_most: how long a call may wait for it.
    """

    def __init__(self, look: Callable[[datetime], _T], *, name: str, at_most: timedelta = timedelta(0)) -> None:
        self._look = look
        self._wait_s = at_most.total_seconds()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._under_way: Future[_T] | None = None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def ask(self, now: datetime) -> _T | None:
        """What a look has brought, each once; None while it is under way. When none is, one begins."""
        self._under_way = self._under_way or self._thread.submit(self._look, now)
        if not wait([self._under_way], timeout=self._wait_s).done:
            return None
        done = self._under_way
        # Who does not wait for an answer asks for the next one ahead.
        self._under_way = None if self._wait_s else self._thread.submit(self._look, now)
        return done.result()
