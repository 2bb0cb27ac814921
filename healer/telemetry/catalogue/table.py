"""The catalogue as people read it: the page of signals, and dcgm-exporter's counters file. `make docs` writes both.

dcgm-exporter takes a counters file in place of its own, refuses to start on a name that it does not know, and reads the
file as CSV: neither a comma nor a double quote may stand in a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from healer.domain.signal import Signal
from healer.telemetry.catalogue.amd import AMD_PREFIX
from healer.telemetry.catalogue.signals import MEANINGS, SPELLINGS, Kind, Meaning, Spelling, Vendor, spelled
from healer.telemetry.catalogue.spelling import COUNT, LARGE, RATIO_OR_PERCENT, READING, SECONDS, Combine, Listing

_FIELDS = {
    READING: "65,535 and more",
    COUNT: "int32, uint32 and int64 blanks",
    LARGE: "int64 blanks",
    SECONDS: "2^47 and more",
    RATIO_OR_PERCENT: "65,535 and more",
}

_EXPORTED_UNITS = {
    ("Hz", 1e6): "MHz",
    ("ratio", 0.01): "%",
    ("J", 1e-3): "mJ",
    ("J", 1e-6): "µJ",
    ("s", 1e-9): "ns",
    ("B", 1024.0): "KiB",
    ("B", 1024.0 * 1024.0): "MiB",
    ("B/s", 1024.0 * 1000.0): "MB/s of 1024000 bytes",
    ("T/s", 1e9): "GT/s",
}

_PAGE = """\
<!-- Written by `make docs` from healer/telemetry/catalogue/signals.py; change that. -->
# Signals

What detectors and models can read of a GPU, and which exported metrics bring it. Every spelling in use is known, and
the *name* of a metric decides its unit: DCGM 4.7 gave eleven of the fields that dcgm-exporter exports by default a new
name *and* a new unit. Where an exporter offers several spellings of one signal, the first one below counts.

* **Counters** fall only when something was reset. Which signals are counters is decided here, not by the exported TYPE:
  AMD's exporter types everything gauge, NVIDIA's types counts within a time window counter.
* **Step** is the smallest difference that the coarsest exporter can show.
* **MIG** says whether the instances of a divided GPU have values of their own; else each shows the whole GPU's.
* **No value** is an ordinary number that a vendor writes where it has none. It is unknown here, as NaN and infinity
  are. DCGM's blanks start at 0x7ffffff0 (int32), 0x7ffffffffffffff0 (int64) and 2^47 (floating point); AMD's are all
  bits set, in the width of the sensor.
* **Rows** says how several rows of one GPU make one number: of rows that do not differ in the label named there the
  newest counts, then those that do are combined. Without it, the newest row counts.

Most of what tells a sick GPU is off in the exporters as they come. The
[counters file](../deploy/dcgm-exporter/counters.csv) turns on all that is used here. What is missing in a fleet is said
once in the log, with the detectors that miss it.

Not read: NVLink fields of single lanes (`..._L0` to `..._L17`; the totals and the rows by link are), NVSwitch,
ConnectX, InfiniBand and processor fields, and `DCGM_FI_DEV_PCIE_TX_THROUGHPUT` and `..._RX_THROUGHPUT`, which are
totals in one release and rates in another.
"""

_COUNTERS = """\
# Counters for dcgm-exporter: everything that healer can use. Written by `make docs`.
# It stands in place of the exporter's own (-f counters.csv, or the chart's customMetrics): add what else you chart.
# The names are the oldest ones of each field, which DCGM still accepts.
# An exporter refuses to start on a name that it does not know: see the last part.
# DCGM field, Prometheus type, help
"""

_RECENT = """
# Known to dcgm-exporter 4.8.3 and newer; an older one may not know all of these. Put a # before what it refuses.
"""


def signals_page() -> str:
    """docs/signals.md."""
    rows = [_signal_row(signal, meaning) for signal, meaning in MEANINGS.items()]
    overview = _table(("signal", "kind", "unit", "step", "MIG", "meaning"), rows)
    parts = [_PAGE, f"## Meaning\n\n{overview}"]
    for vendor in Vendor:
        columns = ("signal", "metrics", "exported in", "no value", "rows")
        spellings = [row for signal in MEANINGS for row in _spelling_rows(signal, vendor)]
        prefix = f"Each also with the prefix `{AMD_PREFIX}`.\n\n" if vendor is Vendor.AMD else ""
        parts.append(f"## Spellings of {vendor}'s exporters\n\n{prefix}{_table(columns, spellings)}")
    return "\n".join(parts)


def counters_file() -> str:
    """deploy/dcgm-exporter/counters.csv."""
    always = [_counter(s) for s in SPELLINGS.values() if s.listing is Listing.ALWAYS]
    recent = [_counter(s) for s in SPELLINGS.values() if s.listing is Listing.RECENT]
    return _COUNTERS + "".join(always) + _RECENT + "".join(recent)


def _signal_row(signal: Signal, meaning: Meaning) -> tuple[str, ...]:
    step = "" if meaning.step is None else f"{meaning.step:.10g}"
    return f"`{signal}`", meaning.kind, meaning.unit, step, "yes" if meaning.by_instance else "", meaning.text


def _spelling_rows(signal: Signal, vendor: Vendor) -> Iterator[tuple[str, ...]]:
    """A row for the names that mean the very same."""
    plain = (s for s in spelled(signal, vendor) if not s.metric.startswith(AMD_PREFIX))
    for (unit, blanks, rows), alike in groupby(plain, key=lambda s: (_exported_unit(s), _blanks(s), _rows(s))):
        yield f"`{signal}`", ", ".join(f"`{s.metric}`" for s in alike), unit, blanks, rows


def _exported_unit(spelling: Spelling) -> str:
    if spelling.field is RATIO_OR_PERCENT:
        return "ratio; above 1 it is percent, as in DCGM 4.6"
    if spelling.offset:
        return "1 for good, 0 for bad"
    unit = MEANINGS[spelling.signal].unit
    return _EXPORTED_UNITS[unit, spelling.scale] if spelling.scale != 1 else unit


def _blanks(spelling: Spelling) -> str:
    return ("0; " if spelling.zero_is_blank else "") + _FIELDS[spelling.field]


def _rows(spelling: Spelling) -> str:
    only = f"only `{spelling.only[0]}` {' or '.join(sorted(spelling.only[1]))}" if spelling.only else ""
    how = "" if spelling.combine is Combine.NEWEST else f"{spelling.combine.value} of `{spelling.part}`"
    return ", ".join(filter(None, (only, how)))


def _counter(spelling: Spelling) -> str:
    meaning = MEANINGS[spelling.signal]
    kind = "counter" if meaning.kind is Kind.COUNTER else "gauge"
    unit = _exported_unit(spelling)
    text = f"{meaning.text} (in {unit})" if unit else meaning.text
    return f"{spelling.metric}, {kind}, {text.replace(',', ';').replace('°', '')}.\n"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(columns)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]
    return "\n".join(lines) + "\n"
