"""The boundary to what may be anybody's code: detectors, models, verbs. A defect ends in an error, not in the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from healer.errors import HealerError

_T = TypeVar("_T")


class Defect(HealerError):
    """A part of the content raised what it never should."""


def call(name: str, part: Callable[[], _T]) -> _T:
    """Call a part of the content called `name`. Raises HealerError: its own, or Defect for whatever else it raised."""
    try:
        return part()
    except HealerError:
        raise
    except Exception as error:
        raise Defect(f"{name} failed unexpectedly: {error!r}") from error
