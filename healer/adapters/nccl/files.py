"""Which files there are to look at."""

from __future__ import annotations

from collections.abc import Iterable
from glob import iglob
from itertools import islice

_MOST_FILES = 20_000


def matching(patterns: Iterable[str]) -> list[str]:
    """The paths that match any of the patterns, each once; none for what cannot be listed."""
    paths = (path for pattern in patterns for path in iglob(pattern, recursive=True))  # noqa: PTH207  absolute ones
    return [*dict.fromkeys(islice(paths, _MOST_FILES))]
