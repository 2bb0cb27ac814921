"""Is the loop keeping up? One answer for the readiness probe and for the console's banner."""

from __future__ import annotations

from datetime import datetime, timedelta

from healer.runtime.snapshot import Snapshot

_TURNS_MISSED = 5


def why_not_ready(snapshot: Snapshot, now: datetime, interval: timedelta) -> str | None:
    """None when the newest turn succeeded and is not too long ago."""
    error = snapshot.figures.last_error
    if snapshot.at is None:
        return "no turn has succeeded yet" + (f": {error}" if error else "")
    if error:
        return f"the newest turn failed: {error}"
    age_s = (now - snapshot.at).total_seconds()
    if age_s > _TURNS_MISSED * interval.total_seconds():
        return f"no turn has ended for {age_s:.0f} s; one is due every {interval.total_seconds():g} s"
    return None
