"""The daemon, to be killed at one point: `python dying.py "before evict 2" run --config FILE`.

It is the real daemon and knows nothing of this: the methods through which it writes are wrapped from outside. A point
is before or after a write to Kubernetes, or a commit of the journal, by what that puts into the audit log; the number
says which of them in this process, if not the first. Nothing of the process runs after its point.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast

from healer.adapters.journal.sql import SqlJournal
from healer.adapters.kubernetes.cluster import KubernetesCluster
from healer.cli import main
from healer.ports import Transaction

WRITES = ("cordon", "uncordon", "evict", "suspend", "resume")

Reach = Callable[[str, str], None]


class Fuse:
    """Kills the process, as the kernel's out-of-memory killer does, when it reaches its point."""

    def __init__(self, point: str) -> None:
        self._when, self._what, *number = point.split()
        self._left = int(number[0]) if number else 1
        self._counting = threading.Lock()

    def reach(self, when: str, what: str) -> None:
        if (when, what) != (self._when, self._what):
            return
        with self._counting:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class _Heard:
    """A transaction, and what it has put into the audit log."""

    def __init__(self, write: Transaction) -> None:
        self._write = write
        self.actions: list[str] = []

    def audit(self, at: datetime, actor: str, action: str, subject: str, **more: Any) -> None:
        self.actions.append(action)
        self._write.audit(at, actor, action, subject, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._write, name)


def _wrap_write(name: str, reach: Reach) -> None:
    act = getattr(KubernetesCluster, name)

    def acts(*args: Any, **kwargs: Any) -> Any:
        reach("before", name)
        answer = act(*args, **kwargs)
        reach("after", name)
        return answer

    setattr(KubernetesCluster, name, acts)


def _wrap_journal(reach: Reach) -> None:
    begin = SqlJournal.transaction

    @contextmanager
    def transaction(journal: SqlJournal) -> Iterator[Transaction]:
        with begin(journal) as write:
            heard = _Heard(write)
            yield cast("Transaction", heard)
            for action in heard.actions:
                reach("before", action)
        for action in heard.actions:
            reach("after", action)

    SqlJournal.transaction = transaction  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    fuse = Fuse(sys.argv.pop(1))
    for write in WRITES:
        _wrap_write(write, fuse.reach)
    _wrap_journal(fuse.reach)
    main()
