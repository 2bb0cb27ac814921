"""Host lists as Slurm writes them: "gpu-[001-036,040],login" stands for 38 names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

MOST_HOSTS = 200_000

_NUMBERS = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")


def expand_hosts(text: str) -> tuple[str, ...]:
    """The names in the order in which they are written. Raises ValueError saying what is wrong with the text."""
    hosts: list[str] = []
    for part in _outside_brackets(text):
        for host in _expanded(part, of=text):
            hosts.append(host)
            if len(hosts) > MOST_HOSTS:
                raise _too_many(text)
    return tuple(hosts)


def _outside_brackets(text: str) -> list[str]:
    """Cut at the commas that are not inside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if depth not in {0, 1}:
            raise ValueError(f"the brackets of '{_short(text)}' do not match")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise ValueError(f"the brackets of '{_short(text)}' do not match")
    parts = [part.strip() for part in parts]
    if not all(parts) or any(" " in part for part in parts):
        raise ValueError(f"'{_short(text)}' has an empty name, or a blank in one")
    return parts


def _expanded(part: str, *, of: str) -> Iterator[str]:
    choices: list[tuple[str, ...]] = []
    count = 1
    for place, piece in enumerate(re.split(r"[][]", part)):  # what stood in brackets is at the odd places
        choices.append(_numbers(piece, of=of) if place % 2 else (piece,))
        count *= len(choices[-1])
        if count > MOST_HOSTS:
            raise _too_many(of)
    return map("".join, itertools.product(*choices))


def _numbers(ranges: str, *, of: str) -> tuple[str, ...]:
    """The text of one pair of brackets: "001-003,7" as 001, 002, 003 and 7."""
    numbers: list[str] = []
    for piece in ranges.split(","):
        match = _NUMBERS.fullmatch(piece)
        first, last = (match[1], match[2] or match[1]) if match else ("1", "0")
        if int(first) > int(last):
            raise ValueError(f"'{_short(piece)}' in '{_short(of)}' is not a range; write it like 001-036")
        if len(numbers) + int(last) - int(first) >= MOST_HOSTS:
            raise _too_many(of)
        numbers += (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return tuple(numbers)


def _too_many(text: str) -> ValueError:
    return ValueError(f"'{_short(text)}' stands for more than {MOST_HOSTS} hosts")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."
