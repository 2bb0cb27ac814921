"""The life of a silence, by the clock and by a person's word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from healer.domain.approval import Person
from healer.domain.matcher import parse_matcher
from healer.domain.silence import Silence, Silenced, SilenceState
from tests.unit.core_samples import START, after

ALICE = Person("token:alice")
SILENCE = Silence("sil-1", (parse_matcher("rack=r7"),), after(60), after(3600), ALICE, "cables", START)


@pytest.mark.parametrize(
    ("seconds", "state"),
    [
        (0, SilenceState.PENDING),
        (59, SilenceState.PENDING),
        (60, SilenceState.ACTIVE),
        (3599, SilenceState.ACTIVE),
        (3600, SilenceState.EXPIRED),
        (1e9, SilenceState.EXPIRED),
    ],
    ids=["before", "just before", "at its start", "just before its end", "at its end", "long after"],
)
def test_a_silence_holds_from_its_start_to_its_end(seconds: float, state: SilenceState) -> None:
    assert SILENCE.state(after(seconds)) is state


@pytest.mark.parametrize(
    ("expired", "at", "state"),
    [
        (10, 9, SilenceState.PENDING),
        (10, 10, SilenceState.EXPIRED),
        (10, 70, SilenceState.EXPIRED),
        (100, 99, SilenceState.ACTIVE),
        (100, 100, SilenceState.EXPIRED),
        (9999, 3599, SilenceState.ACTIVE),
        (9999, 3600, SilenceState.EXPIRED),
    ],
)
def test_a_silence_that_was_expired_is_over_from_then_on(expired: float, at: float, state: SilenceState) -> None:
    silence = replace(SILENCE, expired_by=ALICE, expired_at=after(expired))
    assert silence.state(after(at)) is state
    assert silence.until == min(after(expired), SILENCE.ends_at)


def test_it_reads_as_who_until_when_and_why() -> None:
    cover = Silenced("sil-1", str(ALICE), SILENCE.until, SILENCE.reason)
    assert str(cover) == "silenced by token:alice until 2026-03-14T04:00:00Z: cables"
