"""A day as one OpenMetrics document, from which `promtool tsdb create-blocks-from openmetrics` makes history.

The format wants all samples of a metric together, and a day is lived through step by step: so each metric is written to
a file of its own first. Everything is typed gauge, because the format wants counters to end in _total, which few of the
exporters' names do; a Prometheus does not keep the types of what is filled in.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from healer.domain.axes import Ints
from healer.domain.reading import Labels
from healer.sim.days.day import STEP_S, Day
from healer.sim.exporters.sheet import Sheet
from healer.sim.exporters.text import escaped

_TELLS_EVERY = 0.01


def write_openmetrics(day: Day, out: TextIO, *, progress: Callable[[float], None] = lambda _share: None) -> int:
    """How many samples were written. `progress` is told how much of the day is done, 0 to 1."""
    steps = day.duration.total_seconds() / STEP_S
    told, written = 0.0, 0
    with TemporaryDirectory(prefix="healer-history-") as folder:
        parts = _Parts(Path(folder))
        for number, (collection, scraped) in enumerate(day.scrapes()):
            for one in scraped:
                written += parts.add(one.sheet, one.rows, collection.book)
            if number / steps >= told:
                told += _TELLS_EVERY
                progress(number / steps)
        parts.join(out)
    out.write("# EOF\n")
    progress(1.0)
    return written


class _Parts:
    """One file for each metric."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, TextIO] = {}
        self._series: dict[tuple[str, int], str] = {}

    def add(self, sheet: Sheet, rows: Ints, book: Sequence[Labels]) -> int:
        written = 0
        for metric, ids, values, times_s in sheet.samples(rows):
            if not len(ids):
                continue
            lines = [
                f"{self._series_of(metric.name, number, book)} {_number(value)} {time_s:.3f}\n"
                for number, value, time_s in zip(ids.tolist(), values.tolist(), times_s.tolist(), strict=True)
            ]
            self._file(metric.name).write("".join(lines))
            written += len(lines)
        return written

    def join(self, out: TextIO) -> None:
        for file in self._files.values():
            file.close()
        for name in sorted(self._files):
            out.write(f"# TYPE {name} gauge\n")
            with self._path(name).open(encoding="utf-8") as part:
                shutil.copyfileobj(part, out)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.om"

    def _file(self, name: str) -> TextIO:
        if name not in self._files:
            self._files[name] = self._path(name).open("w", encoding="utf-8")
        return self._files[name]

    def _series_of(self, name: str, number: int, book: Sequence[Labels]) -> str:
        text = self._series.get((name, number))
        if text is None:
            labels = ",".join(f'{label}="{escaped(value)}"' for label, value in book[number].items())
            text = self._series[name, number] = f"{name}{{{labels}}}"
        return text


def _number(value: float) -> str:
    """The shortest text that is this number."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
