"""Throws nonsense at the reading of Flight Recorder dumps, guided by which branches it reaches.

    python tests/fuzz/fuzz_flight_recorder.py -max_total_time=60 -rss_limit_mb=1024

Whatever a file holds, it is a dump or refused; and whatever dumps hold, they say something about their job.
"""

from __future__ import annotations

import pickle
import sys
from datetime import UTC, datetime

from healer.errors import Unavailable
from healer.telemetry.nccl.dump import read_dump
from healer.telemetry.nccl.flight_recorder import dumps_say
from tests.nccl_samples import Recorded, as_json, world

_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def seeds() -> list[bytes]:
    """Inputs that are dumps."""
    job = world(4)
    job.wait([0, 1, 3], "0", 78)
    pairs = Recorded({"1": ("pp", [0, 1]), "2": ("tp", [0, 1])})
    pairs.add(0, "1", 5, operation="nccl:send 0->1", p2p=True)
    pairs.add(0, "1", 5, operation="nccl:coalesced", p2p=True)
    pairs.add(0, "2", 5, "started", operation="nccl:_all_gather_base")
    raws = [job.raw(0), job.raw(2), pairs.raw(0)]
    return [*(pickle.dumps(raw, protocol) for raw in raws for protocol in (2, 4)), *map(as_json, raws)]


def one_input(data: bytes) -> None:
    """Raises whatever is not Unavailable."""
    try:
        dump = read_dump(data, name="dump")
    except Unavailable:
        return
    dumps_say({0: dump, 3: dump}, job=None, where="", at=_AT)


def main() -> None:
    import atheris  # noqa: PLC0415 - the rest of this file is also for machines without it

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
