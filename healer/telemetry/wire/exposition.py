"""Pages in Prometheus's text format, as samples of a head.

A page is nearly the same every time: the same lines, other numbers. Of each target only hashes of its lines' beginnings
are kept, so that a page that is still laid out as before costs a hash and a number for each of its lines that somebody
reads, and a comparison of names for each of the others. Whatever is unusual in a page (timestamps, odd spacing, series
twice, nonsense) is read line by line, and one bad line costs that line.
"""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import compress, islice, repeat

import numpy as np

from healer.domain.reading import Labels, Reading
from healer.telemetry.catalogue.site import READ_METRICS
from healer.telemetry.wire.series import NO_ROOM, NOT_WANTED, UNKNOWN, Floats, Head, Ints
from healer.telemetry.wire.text_format import decoded, labels_of, parse_line, value_of

LOOKBACK = timedelta(minutes=5)  # a sample whose own timestamp is older is not shown, as in Prometheus

_MOST_LINES = 200_000  # more than 72 GPUs with seven instances each and 300 metrics
_LONGEST_LINE = 1 << 14
_LOOKED_AT = 1_000  # lines, to find one that is a sample, in a page that nobody reads
_IRREGULAR = -4  # the number of a line that has to be read anew each time

_NAME = re.compile(rb"[a-zA-Z_:][a-zA-Z0-9_:]*")
_HEAD = re.compile(rb"([a-zA-Z_:][a-zA-Z0-9_:]*)[{ \t]|#")

_NONE: Ints = np.empty(0, dtype=np.int64)
_NOTHING: Floats = np.empty(0)


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """What one page of a target brought.

    Attributes:
        series, values, times: (n,) numbers of the head, values as exported, unix seconds; for `Head.put`.
        ended: (m,) the series that the page before had and this one does not have; for `Head.end`.
        bad: the first line that made no sense, or "".
        repeated: how many samples of a series that the page had shown already were left out: the first one counts.
        flaw: why this is not a page of metrics at all, or "".
    """

    series: Ints
    values: Floats
    times: Floats
    ended: Ints
    bad: str = ""
    repeated: int = 0
    flaw: str = ""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class _Layout:
    """Which lines of a page are read, and how each of the others begins. All exporters of a kind share one.

    Attributes:
        read, others: a byte for each line, one the opposite of the other.
    """

    read: bytes
    others: bytes
    heads: tuple[bytes, ...]

    def fits(self, lines: Sequence[bytes]) -> bool:
        return len(lines) == len(self.read) and all(map(bytes.startswith, compress(lines, self.others), self.heads))


class Exposition:
    """The pages of many targets, all for one head. Whoever reads a page holds the head's lock until its `put`."""

    def __init__(self, head: Head, wanted: Collection[str]) -> None:
        self.head = head
        self.wanted = frozenset(name.encode() for name in wanted)
        self._layouts: weakref.WeakValueDictionary[tuple[bytes, ...], _Layout] = weakref.WeakValueDictionary()

    def target(self, labels: Labels, *, identity: str = "") -> PageReader:
        """A reader for the pages of one target, whose `labels` it attaches.

        Args:
            identity: tells targets apart that have the same labels.
        """
        return PageReader(self, labels, salt=hash((identity, *sorted(labels.items()))))

    def layout(self, lines: Sequence[bytes]) -> _Layout:
        read = bytearray(len(lines))
        heads: dict[bytes, bytes] = {}
        order: list[bytes] = []
        for number, line in enumerate(lines):
            start = _HEAD.match(line)
            if start is None or start.group(1) in self.wanted:
                read[number] = 1
                order.append(b"")
            else:
                head = start.group()
                order.append(heads.setdefault(head, head))
        key = tuple(order)
        layout = self._layouts.get(key)
        if layout is None:
            others = bytes(not flag for flag in read)
            layout = self._layouts[key] = _Layout(bytes(read), others, tuple(filter(None, order)))
        return layout


class PageReader:
    """Reads the pages of one target, one after the other."""

    __slots__ = ("_labels", "_layout", "_live", "_numbers", "_odd", "_prints", "_salt", "_shared")

    def __init__(self, shared: Exposition, labels: Labels, *, salt: int) -> None:
        self._shared = shared
        self._labels = labels
        self._salt = np.int64(salt)
        self._layout: _Layout | None = None
        self._prints: Ints | None = None  # the hash of each line that is read, without its value
        self._numbers = _NONE.astype(np.int32)
        self._odd = False
        self._live = self._numbers  # what the last page brought

    def take(self, body: bytes, at: datetime) -> Page:
        """The samples of a page that was scraped at `at`. The caller puts and ends them."""
        # A flood is not cut into lines: each of them would cost fifty bytes.
        lines = body.split(b"\n", _MOST_LINES + 1)
        if len(lines) > _MOST_LINES + 1:
            return self._flawed(f"has more than {_MOST_LINES} lines; let it export less, or split it up")
        if not lines[-1]:
            lines.pop()
        if self._layout is None or not self._layout.fits(lines):
            self._layout = self._shared.layout(lines)
        read = list(compress(lines, self._layout.read))
        prefixes, _, texts = zip(*map(bytes.rpartition, read, repeat(b" ")), strict=True) if read else ((), (), ())
        changed = self._recognize(read, prefixes)
        regular = None if self._odd else self._regular(texts)
        if regular is None:
            series, values, times, bad, repeated = self._one_by_one(read, texts, at)
            changed, live = True, series.astype(np.int32)
        else:
            series, values = regular
            times, bad, repeated, live = np.full(len(series), at.timestamp()), "", 0, self._numbers
        if not len(series) and (flaw := _flaw(lines, bad)):
            return self._flawed(flaw)
        ended = np.setdiff1d(self._live, live).astype(np.int64) if changed else _NONE
        self._live = live
        return Page(series, values, times, ended[ended >= 0], bad, repeated)

    def lost(self) -> Ints:
        """The target did not answer, or is gone: the series that ended with it."""
        live = self._live[self._live >= 0].astype(np.int64)
        # Their numbers may be given to others before the target is back.
        self._prints = None
        self._live = _NONE.astype(np.int32)
        return live

    def _flawed(self, flaw: str) -> Page:
        return Page(_NONE, _NOTHING, _NOTHING, self.lost(), flaw=flaw)

    def _recognize(self, read: Sequence[bytes], prefixes: Sequence[bytes]) -> bool:
        """Find the number of each line's series. False if they are those of the last page."""
        prints = np.fromiter(map(hash, prefixes), np.int64, len(prefixes))
        if not prints.all():  # a line without a space is known by the whole of it
            for i in np.flatnonzero(prints == 0).tolist():
                prints[i] = hash(read[i])
        known = self._numbers
        if self._prints is not None and np.array_equal(prints, self._prints) and not (known == NO_ROOM).any():
            return False
        keys = prints ^ self._salt
        numbers = self._shared.head.numbers.find(keys)
        met: dict[int, int] = {}
        sets: dict[bytes, int] = {}
        for i in np.flatnonzero(numbers == UNKNOWN).tolist():
            key = keys.item(i)
            if key not in met:
                met[key] = self._meet(prefixes[i], read[i], key=key, sets=sets)
            numbers[i] = met[key]
        self._prints, self._numbers = prints, numbers.astype(np.int32)
        series = numbers[numbers >= 0]
        self._odd = bool((numbers == _IRREGULAR).any()) or len(np.unique(series)) < len(series)
        return True

    def _meet(self, prefix: bytes, line: bytes, *, key: int, sets: dict[bytes, int]) -> int:
        """The number of a series that is new, if everything before the line's last space is a series."""
        name = _NAME.match(prefix)
        if name is None:
            return _IRREGULAR if line.strip() else NOT_WANTED
        block = prefix[name.end() :]
        if len(line) > _LONGEST_LINE or (block and not block.startswith(b"{")):
            return _IRREGULAR
        if name.group() not in self._shared.wanted:
            return NOT_WANTED
        head, metric = self._shared.head, name.group().decode()
        if block in sets:
            return head.register_in(key, metric, sets[block])
        try:
            labels = labels_of(decoded(block))
        except ValueError:
            return _IRREGULAR
        number = head.register(key, {"__name__": metric, **attached(labels, self._labels)})
        if number >= 0:
            sets[block] = head.label_set_of(number)
        return number

    def _regular(self, texts: Sequence[bytes]) -> tuple[Ints, Floats] | None:
        """Series and values, if each of the lines is a series, a space and a number."""
        series = self._numbers.astype(np.int64)
        used = series != NOT_WANTED
        if not used.all():
            texts, series = tuple(compress(texts, used.tobytes())), series[used]
        everything = b"".join(texts)
        if b"_" in everything or not everything.isascii():
            return None
        try:
            return series, np.fromiter(map(float, texts), np.float64, len(texts))
        except ValueError:
            return None

    def _one_by_one(
        self, read: Sequence[bytes], texts: Sequence[bytes], at: datetime
    ) -> tuple[Ints, Floats, Floats, str, int]:
        """Series, values, times, the first bad line, and how many samples repeat a series."""
        now, bad, repeated = at.timestamp(), "", 0
        samples: dict[tuple[int, float], float] = {}
        refused = 0
        for line, text, known in zip(read, texts, self._numbers.tolist(), strict=True):
            if known == NOT_WANTED:
                continue
            try:
                sample = self._sample(line, now) if known == _IRREGULAR else self._known_sample(known, line, text, now)
            except ValueError:
                bad = bad or repr(decoded(line).strip(" \t\r")[:80])
                continue
            if sample is None:
                continue
            number, value, time = sample
            if number == NO_ROOM:
                refused += 1
            elif (number, time) in samples:
                repeated += 1
            else:
                samples[number, time] = value
        series = np.array([number for number, _ in samples] + [NO_ROOM] * refused, dtype=np.int64)
        times = np.array([time for _, time in samples] + [now] * refused, dtype=np.float64)
        values = np.array([*samples.values()] + [math.nan] * refused, dtype=np.float64)
        return series, values, times, bad, repeated

    def _known_sample(self, number: int, line: bytes, text: bytes, now: float) -> tuple[int, float, float] | None:
        try:
            return number, value_of(decoded(text)), now
        except ValueError:
            self._prints = None  # a series that brings no sample may lose its number
            return self._sample(line, now)

    def _sample(self, line: bytes, now: float) -> tuple[int, float, float] | None:
        """Number, value and time of whatever line; None if nobody reads its metric. Raises ValueError."""
        if len(line) > _LONGEST_LINE:
            raise ValueError(line)
        parsed = parse_line(decoded(line))
        if parsed is None or parsed.name.encode() not in self._shared.wanted:
            return None
        key = hash(parsed.series.encode()) ^ int(self._salt)
        number = self._shared.head.numbers.get(key)
        if number is None:
            labels = {"__name__": parsed.name, **attached(parsed.labels, self._labels)}
            number = self._shared.head.register(key, labels)
        return number, parsed.value, now if parsed.time_s is None else parsed.time_s


def attached(scraped: Labels, target: Labels) -> Labels:
    """A series' labels with its target's, which win: what they displace becomes `exported_...`. Empty is absent."""
    labels = {name: value for name, value in scraped.items() if value}
    clashes = {name: labels.pop(name) for name in sorted(target, key=len) if name in labels}
    labels.update(target)
    for clash, value in clashes.items():
        name = f"exported_{clash}"
        while name in labels:
            name = f"exported_{name}"
        labels[name] = value
    return labels


class Pages:
    """Pages that did not come over the network, as readings: of simulated exporters, and in tests."""

    def __init__(self, wanted: Collection[str] = (*READ_METRICS, "rack_power_watts")) -> None:
        self._exposition = Exposition(Head(wanted), wanted)
        self._readers: dict[tuple[int, frozenset[tuple[str, str]]], PageReader] = {}

    def reading(self, at: datetime, pages: Iterable[tuple[Labels, str]]) -> Reading:
        """Of each target its labels and its page. A target whose page is missing this time has ended."""
        head = self._exposition.head
        gone = dict(self._readers)
        for place, (labels, text) in enumerate(pages):
            key = place, frozenset(labels.items())
            reader = gone.pop(key, None) or self._exposition.target(labels, identity=str(place))
            self._readers[key] = reader
            page = reader.take(text.encode(), at)
            head.put(page.series, page.values, page.times, at)
            head.end(page.ended, at)
        for key, reader in gone.items():
            head.end(reader.lost(), at)
            del self._readers[key]
        return head.reading(at, LOOKBACK)


def _flaw(lines: Sequence[bytes], bad: str) -> str:
    """Why a page that has no sample for us is none of metrics; "" if it is one."""
    for line in islice(filter(None, lines), _LOOKED_AT):
        text = decoded(line[:_LONGEST_LINE])
        try:
            if parse_line(text) is not None:
                return ""
        except ValueError:
            bad = bad or repr(text.strip(" \t\r")[:80])
    return (
        f"answered with something else than metrics: {bad}"
        if bad
        else "answered with an empty page; it may be starting"
    )
