"""One line of Prometheus's text format: name, labels, value and time, whatever its spacing.

The grammar is that of version 0.0.4, with the quoted names of version 1.0.0. All of it is linear in the line's length.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from healer.domain.reading import Labels

_BLANK = " \t\r\n\v\f\x1c\x1d\x1e\x1f"
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_QUOTED = r'"((?:[^"\\]++|\\.)*+)"'
_TERM = re.compile(rf"[ \t]*(?:([a-zA-Z_][a-zA-Z0-9_]*)|{_QUOTED})[ \t]*(?:=[ \t]*{_QUOTED}[ \t]*)?([,}}])", re.DOTALL)
_OPENING = re.compile(r"[ \t]*\{")
_CLOSING = re.compile(r"[ \t]*\}")
_ESCAPED = re.compile(r'\\([\\"n])')


@dataclass(frozen=True, slots=True)
class Line:
    """Attributes:
    series: name and labels as they were written, without the blanks between them.
    """

    name: str
    labels: Labels
    series: str
    value: float
    time_s: float | None


def parse_line(line: str) -> Line | None:
    """Any line of a page; None for a comment or a blank one. Raises ValueError if it makes no sense."""
    line = line.strip(_BLANK)
    if not line or line.startswith("#"):
        return None
    start = _NAME.match(line)
    name, labels, end = (start.group(), dict[str, str](), start.end()) if start else ("", {}, 0)
    series = name
    if opening := _OPENING.match(line, end):
        inside, labels, end = _labels(line, opening.end())
        if bool(inside) is bool(name):
            raise ValueError(line)
        series, name = name + line[opening.end() - 1 : end], name or inside
    elif line[end : end + 1] not in {" ", "\t"}:
        raise ValueError(line)
    value, *stamp = line[end:].split() or [""]
    if not line[end:].isascii() or len(stamp) > 1:
        raise ValueError(line)
    return Line(name, labels, series, value_of(value), _seconds(stamp[0]) if stamp else None)


def labels_of(text: str) -> Labels:
    """The labels of a series, braces included; none of nothing. Raises ValueError."""
    if not text:
        return {}
    name, labels, end = _labels(text, 1)
    if name or end != len(text):
        raise ValueError(text)
    return labels


def _labels(text: str, start: int) -> tuple[str, dict[str, str], int]:
    """What stands after an opening brace: the metric's name or "", the labels, their end. Raises ValueError."""
    name, labels, at = "", dict[str, str](), start
    while (closing := _CLOSING.match(text, at)) is None:
        term = _TERM.match(text, at)
        if term is None:
            raise ValueError(text)
        bare, quoted, value, end = term.groups()
        label = bare or _unescaped(quoted or "")
        if value is None:
            if name or bare or not label:
                raise ValueError(text)
            name = label
        elif label in labels or label == "__name__":
            raise ValueError(text)
        else:
            labels[label] = _unescaped(value)
        at = term.end()
        if end == "}":
            return name, labels, at
    return name, labels, closing.end()


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text) if "\\" in text else text


def value_of(text: str) -> float:
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return float(text)


def _seconds(milliseconds: str) -> float:
    seconds = value_of(milliseconds) / 1000
    if not math.isfinite(seconds):
        raise ValueError(milliseconds)
    return seconds


def decoded(text: bytes) -> str:
    return text.decode("utf-8", errors="replace")
