"""Throws nonsense at the remote write receiver, guided by which branches it reaches.

    python tests/fuzz/fuzz_remote_write.py -runs=200000 -rss_limit_mb=1024

Whatever arrives is answered with one of the statuses that are meant for it, and a message that is taken says what the
slow reading of it says. The first byte says the version, and whether the rest is a body or the message in one.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["healer.telemetry", "healer.adapters.push.remote_write"]):
    from healer.adapters.push.remote_write import RemoteWrite
    from tests.both_readings import check_agreement

from tests import prompb
from tests.prompb import Series

_NOW = datetime(2026, 3, 1, tzinfo=UTC)
_NOW_MS = round(_NOW.timestamp() * 1000)
_LABELS = (("UUID", "GPU-1"), ("__name__", "DCGM_FI_DEV_GPU_TEMP"), ("job", "gpu"))
_REQUESTS: tuple[tuple[Series, ...], ...] = (
    (Series((("__name__", "up"), ("job", "gpu")), ((1.0, _NOW_MS),)), Series(_LABELS, ((0.0, _NOW_MS),))),
    (Series(_LABELS, ((61.5, _NOW_MS), (prompb.STALE, _NOW_MS)), histograms=1, exemplars=1),),
    (Series((("__name__", "m"), *((f"s{number:03}", "v" * number) for number in range(130))), ((1.0, _NOW_MS),)),),
)


def seeds() -> list[bytes]:
    """Inputs that are requests."""
    messages = [(version, prompb.message(version, series)) for version in (1, 2) for series in _REQUESTS]
    bodies = [bytes([version]) + prompb.compressed(content) for version, content in messages]
    return [bytes([version | 4]) + content for version, content in messages] + bodies


def one_input(data: bytes) -> None:
    """Raises whatever is no answer."""
    version = 2 if data[:1] and data[0] & 2 else 1
    content = data[1:]
    if data[:1] and data[0] & 4:
        check_agreement(version, content)
        content = prompb.compressed(content)
    receiver = RemoteWrite(limit_bytes=1 << 20)
    for _ in range(2):  # the second time its series are known
        status = receiver.receive(prompb.HEADERS[version], content, _NOW).status
        assert status in (204, 400, 413), status


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds()):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
