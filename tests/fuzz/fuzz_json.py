"""Throws nonsense at the decoding of Prometheus' answers, guided by which branches it reaches.

    python tests/fuzz/fuzz_json.py -max_total_time=60 -rss_limit_mb=1024

Whatever arrives, and in whatever pieces, is series or NotAnAnswer. The first byte says how large the pieces are.
"""

from __future__ import annotations

import json
import sys

from healer.adapters.prometheus.answer import NotAnAnswer, Sample, Series, SeriesReader
from healer.adapters.prometheus.series import SeriesBook
from healer.adapters.prometheus.tables import Instants, OneInstant, SeveralInstants

_INSTANTS = Instants(start_ms=1_000, step_ms=1_000, count=3)
_LABELS = {"__name__": "up", "job": 'a"]},{"metric":{', "instance": "n1:9400"}
_ANSWERS: tuple[dict[str, object], ...] = (
    {"status": "success", "data": {"resultType": "vector", "result": [{"metric": _LABELS, "value": [1, "4.5"]}] * 3}},
    {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[2, "NaN"]]}]}},
    {"status": "success", "isPartial": True, "data": {"resultType": "vector", "result": []}, "stats": {"n": "0"}},
    {"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}, "warnings": ["x"], "infos": None},
    {"status": "error", "errorType": "bad_data", "error": "parse error"},
)


def seeds() -> list[bytes]:
    """Inputs that are answers."""
    return [b"\x1f" + json.dumps(answer, separators=(",", ":")).encode() for answer in _ANSWERS]


def one_input(data: bytes) -> None:
    """Raises whatever is not NotAnAnswer."""
    size = 1 + (data[0] if data else 0)
    for taker in (OneInstant, SeveralInstants):
        understand(data[1:], size, taker(SeriesBook(None, ()).recognise("up")))


def understand(text: bytes, size: int, taker: OneInstant | SeveralInstants) -> tuple[str, ...] | None:
    """What the server remarks beside an answer that came in pieces of `size`; None if it is none."""
    reader: SeriesReader[Sample] | SeriesReader[Series]
    if isinstance(taker, OneInstant):
        reader = SeriesReader(Sample, taker, batch_bytes=16)
    else:
        reader = SeriesReader(Series, taker, batch_bytes=16)
    try:
        for first in range(0, len(text), size):
            reader.feed(text[first : first + size])
        said = reader.finish()
    except NotAnAnswer:
        return None
    if said.status != "success":
        return None
    if isinstance(taker, OneInstant):
        taker.table("up", said.remarks())
    else:
        taker.table("up", _INSTANTS, said.remarks())
    return said.remarks()


def main() -> None:
    import atheris  # noqa: PLC0415 - the rest of this file is also for machines without it

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
