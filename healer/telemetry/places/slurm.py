"""What the words that people put on a Slurm node mean for topology: its features, its `extra` and its `comment`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from healer.domain.topology import Place


@dataclass(frozen=True, slots=True)
class NodeWords:
    """Regular expressions, each with one group, for where a node is. Each is tried on the node's features, then on the
    words of its `extra` and `comment`; the first word that matches as a whole counts.

    Raises:
        ValueError: for something that is no such expression.
    """

    rack: str = r"rack[-_:=](.+)"
    feed: str = r"feed[-_:=](.+)"
    nvlink_domain: str = r"nvlink[-_:=](.+)"
    switch: str = r"switch[-_:=](.+)"

    def __post_init__(self) -> None:
        for pattern in (self.rack, self.feed, self.nvlink_domain, self.switch):
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
            if groups != 1:
                raise ValueError(f"{pattern!r} has {groups} groups; the one group is the name, as in rack-(.+)")

    def place(self, words: Sequence[str]) -> Place:
        return Place(
            rack=_first_match(self.rack, words),
            feed=_first_match(self.feed, words),
            nvlink_domain=_first_match(self.nvlink_domain, words),
            switch=_first_match(self.switch, words),
        )


def _first_match(pattern: str, words: Iterable[str]) -> str | None:
    matching = re.compile(pattern).fullmatch
    matches = (matching(word) for word in words)
    return next((match[1] for match in matches if match and match[1]), None)
