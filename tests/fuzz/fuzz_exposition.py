"""Throws nonsense at the reading of exporters' pages, guided by which branches it reaches.

    python tests/fuzz/fuzz_exposition.py -max_total_time=60 -rss_limit_mb=1024

Pages follow one another, each taken twice, and every time what is known has to be what the page says when its lines are
read one by one: what is remembered of the page before must not show.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from healer.domain.reading import Reading
from healer.telemetry.catalogue.signals import SPELLINGS
from healer.telemetry.wire.exposition import LOOKBACK, Exposition, attached
from healer.telemetry.wire.series import Head
from healer.telemetry.wire.text_format import Line, parse_line

WANTED = frozenset(("m", "n", *SPELLINGS))
TARGET = {"instance": "n1:9400", "a": "b"}
NEXT_PAGE = b"\xff\n"  # no text has this in it
_AT = datetime(2026, 3, 1, tzinfo=UTC)
_STEP = timedelta(seconds=30)
_GPU = b'DCGM_FI_DEV_GPU_TEMP{gpu="%d",UUID="GPU-1",modelName="NVIDIA H100 80GB"} %d\n'
_HELP = b"# HELP DCGM_FI_DEV_GPU_TEMP C\n# TYPE DCGM_FI_DEV_GPU_TEMP gauge\n"
_PAGES = (
    (_HELP + _GPU % (0, 40) + _GPU % (1, 41), _HELP + _GPU % (1, 42) + _GPU % (0, 43), _HELP + _GPU % (0, 44)),
    (b'm{a="b"} 1\nother{a="b"} 2\nn 3\n', b'm{a="b"} 4\nn{a="b"} 2\nn 3\n', b"other 1\n"),
    (
        b'm {a="b"} 1\nm{a="b"} 2\n m{a="b",}\t3\r\n\nm{a="\\"} \\n\\\\"}  NaN 1767225600000\n',
        b'm{a="b"} forty\nm 1_0\n',
    ),
    (b'{"m",a="b"} +Inf\nm{"a"="b"} 1e400\nm{a="b",a="c"} 1\n# EOF\n', b"<html>\n", b""),
)


def seeds() -> list[bytes]:
    """Inputs that are pages."""
    return [NEXT_PAGE.join(pages) for pages in _PAGES]


def one_input(data: bytes) -> None:
    """Raises AssertionError if a page shows something else than its lines say, and whatever else goes wrong."""
    head = Head(WANTED)
    reader = Exposition(head, WANTED).target(TARGET)
    at = _AT
    for body in data.split(NEXT_PAGE):
        for _ in range(2):
            at += _STEP
            page = reader.take(body, at)
            head.put(page.series, page.values, page.times, at)
            head.end(page.ended, at)
        lines = list(_lines(body))
        if any(line.time_s is not None for line in lines) or not _is_text(body):
            return  # a sample from long ago leaves in place what is newer
        shown, said = sorted(_shown(head.reading(at, LOOKBACK))), sorted(_said(lines))
        assert shown == said, f"{body!r} shows {shown} and says {said}"


def _lines(body: bytes) -> Iterator[Line]:
    """The wanted samples of a page, by the grammar alone."""
    for text in body.decode(errors="replace").split("\n"):
        try:
            line = parse_line(text)
        except ValueError:
            continue
        if line is not None and line.name in WANTED:
            yield line


def _said(lines: list[Line]) -> Iterator[str]:
    """Of each series, as it is written, the first sample."""
    first: dict[str, Line] = {}
    for line in lines:
        first.setdefault(line.series, line)
    for line in first.values():
        yield repr((line.name, sorted(attached(line.labels, TARGET).items()), line.value))


def _shown(reading: Reading) -> Iterator[str]:
    for column in reading.columns:
        for labels, value in zip(reading.labels(column), column.values.tolist(), strict=True):
            yield repr((column.metric, sorted(labels.items()), value))


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def main() -> None:
    import atheris  # noqa: PLC0415 - the rest of this file is also for machines without it

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
