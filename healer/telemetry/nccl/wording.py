"""How testimonies word what they say: one sentence with the figures, however many ranks it is about."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta

from healer.domain.testimony import Blame, Culprit
from healer.telemetry.nccl.blame import Member, Stall

_MOST_LISTED = 8
_IS = {
    Blame.FAILED: "failed by itself",
    Blame.DIFFERENT: "in another operation, or another size",
    Blame.BEHIND: "behind",
    Blame.NOT_STARTED: "enqueued, and not begun by the GPU",
    Blame.SILENT: "silent",
}


def listed(names: Iterable[object]) -> str:
    """'3, 5 and 9 more'."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - _MOST_LISTED} more" if len(texts) > _MOST_LISTED else ""
    return ", ".join(texts[:_MOST_LISTED]) + more


def stuck_sentence(culprits: Collection[Culprit], stall: Stall[Member], stuck_for: timedelta | None) -> str:
    """Who holds up which collective, how many wait in it, and for how long."""
    time = ", since when is not told" if stuck_for is None else f" for {stuck_for.total_seconds():.0f} s"
    wait = f"{stall.entered} of {stall.size} ranks have waited in {stall.collective}{time}"
    if not culprits:
        if stall.entered >= stall.size:
            return f"{wait}: all are in it, so a GPU or the network between them is stuck, and it is not told whose"
        return f"{wait}; for whom is not told"
    by_blame: dict[Blame, list[Culprit]] = {}
    for culprit in culprits:
        by_blame.setdefault(culprit.blame, []).append(culprit)
    return "; ".join([wait, *(f"{_IS[blame]}: {listed(of_it)}" for blame, of_it in by_blame.items())])
