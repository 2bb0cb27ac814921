"""The head: the newest sample of every series, in whatever order they come, and no memory of what is gone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.domain.reading import Reading
from healer.telemetry.wire.numbers import UNKNOWN, Numbers
from healer.telemetry.wire.series import NO_ROOM, NOT_WANTED, STALE_BITS, Head, LabelSets

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TEMPERATURE, POWER = "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"
STALE = float(np.array(STALE_BITS).view(np.float64))
LOOKBACK = timedelta(minutes=5)


def _head(most_series: int = 1_000_000) -> Head:
    return Head([TEMPERATURE, POWER], most_series=most_series)


def _series(head: Head, metric: str = TEMPERATURE, **labels: str) -> int:
    key = hash((metric, *labels.items()))
    known = head.numbers.get(key)
    return head.register(key, {"__name__": metric, **labels}) if known is None else known


def _put(head: Head, number: int, *samples: tuple[float, float], now: datetime = NOW) -> None:
    """Samples as value and seconds before `now`."""
    bits = np.array([value for value, _ in samples])
    times = np.array([now.timestamp() - age for _, age in samples])
    head.put(np.full(len(samples), number), bits, times, now)


def _shown(reading: Reading) -> dict[tuple[str, str], tuple[float, float]]:
    """Metric and UUID -> value and age."""
    return {
        (column.metric, labels.get("UUID", "")): (value, reading.at.timestamp() - time)
        for column in reading.columns
        for labels, value, time in zip(
            reading.labels(column), column.values.tolist(), column.times.tolist(), strict=True
        )
    }


def _now(head: Head, after: timedelta = timedelta()) -> dict[tuple[str, str], tuple[float, float]]:
    return _shown(head.reading(NOW + after, LOOKBACK))


def test_the_newest_sample_is_shown_whatever_order_they_come_in() -> None:
    head = _head()
    number = _series(head, UUID="a")
    _put(head, number, (1.0, 10))
    _put(head, number, (2.0, 5))
    _put(head, number, (3.0, 20))
    assert _now(head) == {(TEMPERATURE, "a"): (2.0, 5.0)}
    assert (head.taken, head.late) == (3, 1)


def test_of_several_samples_at_once_the_newest_is_shown() -> None:
    head = _head()
    a, b = _series(head, UUID="a"), _series(head, UUID="b")
    ages = np.array([3.0, 1.0, 2.0, 9.0])
    head.put(np.array([a, a, a, b]), np.array([1.0, 2.0, 3.0, 4.0]), NOW.timestamp() - ages, NOW)
    assert _now(head) == {(TEMPERATURE, "a"): (2.0, 1.0), (TEMPERATURE, "b"): (4.0, 9.0)}


def test_a_stale_mark_ends_a_series_and_a_nan_does_not() -> None:
    head = _head()
    a, b = _series(head, UUID="a"), _series(head, UUID="b")
    for number in (a, b):
        _put(head, number, (1.0, 10))
    _put(head, a, (STALE, 5))
    _put(head, b, (float("nan"), 5))
    assert list(_now(head)) == [(TEMPERATURE, "b")]
    _put(head, a, (2.0, 7))
    assert (TEMPERATURE, "a") not in _now(head), "a sample from before the end came late"
    _put(head, a, (2.0, 4))
    assert _now(head)[TEMPERATURE, "a"] == (2.0, 4.0)


def test_a_stale_mark_counts_in_the_order_of_times_within_one_batch() -> None:
    head = _head()
    a, b = _series(head, UUID="a"), _series(head, UUID="b")
    _put(head, a, (STALE, 1), (1.0, 2))
    _put(head, b, (STALE, 2), (1.0, 1))
    assert list(_now(head)) == [(TEMPERATURE, "b")]


def test_what_ends_here_and_now_ends_even_if_its_clock_is_ahead() -> None:
    head = _head()
    number = _series(head, UUID="a")
    _put(head, number, (1.0, -20))
    head.end(np.array([number, NOT_WANTED, NO_ROOM]), NOW)
    assert _now(head) == {}
    _put(head, number, (1.0, -10))
    assert _now(head) == {}, "it is from before the end"
    _put(head, number, (2.0, -21))
    assert list(_now(head)) == [(TEMPERATURE, "a")]


def test_a_clock_that_is_a_little_ahead_is_shown_as_now_and_keeps_its_order() -> None:
    head = _head()
    number = _series(head, UUID="a")
    _put(head, number, (1.0, -20))
    _put(head, number, (2.0, -10), now=NOW + timedelta(seconds=1))
    assert _now(head, timedelta(seconds=2)) == {(TEMPERATURE, "a"): (1.0, 0.0)}


def test_what_is_from_the_future_is_left_out_and_said_once() -> None:
    head = _head()
    number = _series(head, UUID="a")
    _put(head, number, (1.0, 0))
    _put(head, number, (2.0, -31))
    reading = head.reading(NOW, LOOKBACK)
    assert _shown(reading) == {(TEMPERATURE, "a"): (1.0, 0.0)}
    assert [word for word in reading.warnings if "1 samples from more than 30 s ahead" in word]
    assert head.reading(NOW, LOOKBACK).warnings == ()


def test_what_is_older_than_the_lookback_is_not_shown() -> None:
    head = _head()
    _put(head, _series(head, UUID="a"), (1.0, LOOKBACK.total_seconds()))
    assert _now(head)
    assert not _now(head, timedelta(seconds=0.1))


def test_a_metric_that_nobody_reads_is_known_and_never_shown() -> None:
    head = _head()
    assert _series(head, "node_load1", UUID="a") == NOT_WANTED
    assert head.numbers.get(hash(("node_load1", ("UUID", "a")))) == NOT_WANTED
    _put(head, NOT_WANTED, (1.0, 0))
    assert _now(head) == {}
    assert (len(head), head.taken, head.refused) == (0, 0, 0)


def test_further_series_than_there_is_room_for_are_refused_and_said() -> None:
    head = _head(most_series=2)
    numbers = [_series(head, UUID=uuid) for uuid in "abc"]
    assert numbers[2] == NO_ROOM
    for number in numbers:
        _put(head, number, (1.0, 0))
    reading = head.reading(NOW, LOOKBACK)
    assert len(_shown(reading)) == 2
    assert reading.warnings == ("1 samples of new series were left out: there are 2 series already",)


def test_room_is_made_by_series_that_nobody_sends_any_more() -> None:
    head = _head(most_series=2)
    for uuid in "ab":
        _put(head, _series(head, UUID=uuid), (1.0, 0))
    later = NOW + head.forget_after + timedelta(seconds=1)
    head.reading(later, LOOKBACK)
    number = _series(head, UUID="c")
    assert number >= 0
    assert not head.reading(later, timedelta(days=1)).columns, "it has the place of another, and no sample yet"
    _put(head, number, (2.0, 0), now=later)
    assert _shown(head.reading(later, LOOKBACK)) == {(TEMPERATURE, "c"): (2.0, 0.0)}


def test_memory_stays_within_what_is_sent_while_pods_come_and_go() -> None:
    head, per_generation = _head(), 12_000
    at = NOW
    for generation in range(6):
        numbers = np.array([_series(head, UUID=f"{gpu}", pod=f"train-{generation}") for gpu in range(per_generation)])
        head.put(numbers, np.ones(len(numbers)), np.full(len(numbers), at.timestamp()), at)
        reading = head.reading(at, LOOKBACK)
        assert {labels["pod"] for column in reading.columns for labels in reading.labels(column)} == {
            f"train-{generation}"
        }
        assert reading.samples == per_generation
        at += head.forget_after + timedelta(seconds=1)
    assert len(head) <= 2 * per_generation
    assert len(head.numbers) <= 2 * per_generation
    assert len(head.label_sets) <= 3 * per_generation


def test_label_sets_that_were_handed_out_stay_as_they_are() -> None:
    head = _head()
    first = np.array([_series(head, UUID=f"{gpu}") for gpu in range(12_000)])
    head.put(first, np.ones(len(first)), np.full(len(first), NOW.timestamp()), NOW)
    before = head.reading(NOW, LOOKBACK)
    labels = before.labels(before.columns[0])
    later = NOW + head.forget_after + timedelta(seconds=1)
    _put(head, _series(head, UUID="new"), (1.0, 0), now=later)
    after = head.reading(later, LOOKBACK)
    assert before.labels(before.columns[0]) == labels
    assert after.label_sets is not before.label_sets
    assert [each["UUID"] for each in after.labels(after.columns[0])] == ["new"]


UP = "up"


def _up(head: Head, instance: str, value: float, *, age: float = 0, job: str = "gpu", **labels: str) -> None:
    _put(head, _series(head, UP, instance=instance, job=job, **labels), (value, age))


def _silent(head: Head) -> tuple[str, ...]:
    return head.reading(NOW, LOOKBACK).silent


def test_targets_that_cannot_be_scraped_are_silent_if_their_job_brings_gpus() -> None:
    head = _head()
    _put(head, _series(head, job="gpu", instance="n1:9400"), (1.0, 0))
    _up(head, "n1:9400", 1)
    _up(head, "n2:9400", 0)
    _up(head, "db:80", 0, job="db")
    assert _silent(head) == ("n2:9400",)


def test_a_target_that_was_removed_is_not_silent() -> None:
    head = _head()
    _put(head, _series(head, job="gpu", instance="n1:9400"), (1.0, 0))
    _up(head, "n2:9400", 0, age=10)
    _up(head, "n2:9400", STALE, age=5)
    assert _silent(head) == ()


def test_a_target_is_silent_when_its_prometheus_is() -> None:
    """No stale mark came and nothing newer: it was not removed, somebody who knows about it fell silent."""
    head = _head()
    _put(head, _series(head, job="gpu", instance="n1:9400"), (1.0, 400))
    _up(head, "n1:9400", 1, age=400)
    _up(head, "n2:9400", 1)
    assert _silent(head) == ("n1:9400",)


def test_a_target_stays_silent_when_the_series_of_its_gpus_are_forgotten() -> None:
    head = _head(most_series=3)
    _put(head, _series(head, job="gpu", instance="n1:9400"), (1.0, 0))
    _up(head, "n1:9400", 1)
    _up(head, "n2:9400", 1)
    _up(head, "n2:9400", STALE)
    later = NOW + timedelta(hours=23)
    for _ in range(2):
        assert head.reading(later, LOOKBACK).silent == ("n1:9400",)
    assert len(head) == 1, "there was no room left, so what nobody sends any more was forgotten"
    assert head.reading(NOW + timedelta(hours=25), LOOKBACK).silent == ()


def test_a_target_that_another_prometheus_reaches_is_not_silent() -> None:
    head = _head()
    _put(head, _series(head, job="gpu", instance="n1:9400"), (1.0, 0))
    _up(head, "n1:9400", 0, replica="a")
    _up(head, "n1:9400", 1, replica="b")
    _up(head, "n2:9400", 1, age=400, replica="a")
    _up(head, "n2:9400", 1, replica="b")
    assert _silent(head) == ()


def test_labels_that_nobody_reads_make_no_difference() -> None:
    sets = LabelSets(frozenset({"UUID", "pod"}))
    first = sets.add({"__name__": "x", "UUID": "a", "driver": "570", "exported_pod": "p", "pod": ""})
    assert sets.add({"UUID": "a", "driver": "580", "exported_pod": "p"}) == first
    assert sets[first] == {"UUID": "a", "exported_pod": "p"}
    assert sets.add({"UUID": "a", "exported_pod": "q"}) == first + 1 == len(sets) - 1


def test_without_a_choice_all_labels_are_kept() -> None:
    sets = LabelSets()
    assert sets[sets.add({"__name__": "x", "any": "thing"})] == {"any": "thing"}


_UNSPREAD = pow(0x9E3779B97F4A7C15, -1, 1 << 64)


def _together(number: int) -> int:
    """Keys that all fall on the first slot."""
    return int(np.uint64(number * _UNSPREAD % (1 << 64)).astype(np.int64))


_keys = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-3, 3) | st.integers(0, 40).map(_together)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(_keys, st.integers(-2, 1 << 30), max_size=400), st.lists(_keys, max_size=50))
def test_numbers_are_a_map(wanted: Mapping[int, int], others: list[int]) -> None:
    numbers = Numbers()
    for key, number in wanted.items():
        numbers.set(key, number + 1)
        numbers.set(key, number)
    asked = [*wanted, *others]
    assert len(numbers) == len(wanted)
    assert [numbers.get(key) for key in asked] == [wanted.get(key) for key in asked]
    found = numbers.find(np.array(asked, dtype=np.int64))
    assert found.tolist() == [wanted.get(key, UNKNOWN) for key in asked]
    numbers.keep(lambda all_numbers: all_numbers % 2 == 0)
    kept = {key: number for key, number in wanted.items() if number % 2 == 0}
    assert len(numbers) == len(kept)
    assert numbers.find(np.array(asked, dtype=np.int64)).tolist() == [kept.get(key, UNKNOWN) for key in asked]


@pytest.mark.parametrize("count", [1_000, 200_000])
def test_many_numbers_are_found(count: int) -> None:
    rng = np.random.default_rng(5)
    keys = rng.integers(-(1 << 63), (1 << 63) - 1, count)
    numbers = Numbers()
    for number, key in enumerate(keys.tolist()):
        numbers.set(key, number)
    assert (numbers.find(keys) == np.arange(count)).all()
    assert (numbers.find(keys + 1) == UNKNOWN).all()


def test_keys_that_fall_together_are_told_apart() -> None:
    together = [_together(number) for number in range(40)]
    numbers = Numbers()
    for number, key in enumerate(together[:30]):
        numbers.set(key, number)
    assert numbers.find(np.array(together)).tolist() == [*range(30), *[UNKNOWN] * 10]


def test_the_key_zero_is_not_taken_for_a_free_slot() -> None:
    numbers = Numbers()
    numbers.set(_together(1), 1)
    assert numbers.find(np.array([0, _together(1)])).tolist() == [UNKNOWN, 1]
    numbers.set(0, 0)
    assert numbers.find(np.array([0, _together(1)])).tolist() == [0, 1]
