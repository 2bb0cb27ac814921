"""Pages become samples: real ones of several generations, those that change in every way, and those without sense."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from healer.domain.frame import Frame
from healer.domain.reading import Reading
from healer.domain.signal import Signal
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from healer.telemetry.wire.exposition import LOOKBACK, Exposition, Page, Pages, attached
from healer.telemetry.wire.series import Head
from healer.telemetry.wire.text_format import parse_line
from tests.fuzz.fuzz_exposition import NEXT_PAGE, one_input, seeds

AT = datetime(2026, 3, 1, tzinfo=UTC)
STEP = timedelta(seconds=30)
PAGES = Path(__file__).parents[1] / "content" / "pages"
TARGET = {"instance": "n1:9400"}
TEMPERATURE, POWER = "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"

Shown = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Watched:
    """One target, its pages taken one after the other, thirty seconds apart."""

    def __init__(self, *wanted: str, most_series: int = 1000) -> None:
        names = wanted or (TEMPERATURE, POWER)
        self.head = Head(names, most_series=most_series)
        self.exposition = Exposition(self.head, names)
        self.reader = self.exposition.target(TARGET)
        self.at = AT - STEP

    def take(self, page: str | bytes) -> Page:
        self.at += STEP
        taken = self.reader.take(page.encode() if isinstance(page, str) else page, self.at)
        self.head.put(taken.series, taken.values, taken.times, self.at)
        self.head.end(taken.ended, self.at)
        return taken

    def lose(self) -> None:
        self.at += STEP
        self.head.end(self.reader.lost(), self.at)

    def reading(self) -> Reading:
        return self.head.reading(self.at, LOOKBACK)

    def shown(self, page: str | bytes) -> Shown:
        """What is known after one more page."""
        self.take(page)
        return shown(self.reading())


def shown(reading: Reading) -> Shown:
    return {
        (column.metric, frozenset(labels.items())): value
        for column in reading.columns
        for labels, value in zip(reading.labels(column), column.values.tolist(), strict=True)
    }


def series(metric: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return metric, frozenset((TARGET | labels).items())


def temperature(value: object, **labels: str) -> str:
    block = ",".join(f'{name}="{text}"' for name, text in labels.items())
    return f"{TEMPERATURE}{{{block}}} {value}\n"


def _real(name: str) -> str:
    return (PAGES / f"{name}.prom").read_text(encoding="utf-8")


def _frame(text: str, **labels: str) -> Frame:
    return Window(TopologyRules()).add(Pages().reading(AT, [({"instance": "n1:9400", **labels}, text)]))


@pytest.mark.parametrize("page", [path.stem for path in sorted(PAGES.glob("*.prom"))])
def test_a_real_page_is_read_as_the_reference_reads_it(page: str) -> None:
    """prometheus_client calls counters `_total` that were not, and keeps the empty labels that Prometheus drops."""
    text = _real(page)
    names = {line.name for line in map(parse_line, text.split("\n")) if line is not None}
    expected: Shown = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name if sample.name in names else sample.name.removesuffix("_total")
            labels = frozenset(attached(sample.labels, TARGET).items())
            expected.setdefault((name, labels), float(sample.value))
    assert expected
    watched = Watched(*names)
    assert watched.take(text).bad == ""
    np.testing.assert_equal(shown(watched.reading()), expected)


def test_a_label_that_clashes_with_the_targets_is_kept_as_exported() -> None:
    scraped = {"instance": "a", "exported_instance": "b", "pod": "", "UUID": "GPU-1"}
    expected = {"instance": "n1:9400", "exported_instance": "b", "exported_exported_instance": "a", "UUID": "GPU-1"}
    assert attached(scraped, {"instance": "n1:9400"}) == expected


def test_the_exporters_own_node_wins_over_the_targets() -> None:
    (component,) = _frame('DCGM_FI_DEV_GPU_TEMP{UUID="GPU-1",node="n1"} 40', node="exporter-pod").gpus.components
    assert component.node == "n1"


def test_the_order_of_the_lines_does_not_matter() -> None:
    lines = [temperature(30 + gpu, gpu=str(gpu)) for gpu in range(8)] + [
        f'{POWER}{{gpu="{gpu}"}} 300\n' for gpu in "07"
    ]
    watched = Watched()
    expected = watched.shown("".join(lines))
    shuffled = random.Random(1).sample(lines, len(lines))
    assert shuffled != lines
    again = watched.take("".join(shuffled))
    assert again.ended.tolist() == []
    assert shown(watched.reading()) == expected
    assert len(watched.head) == len(lines)


def test_other_values_of_the_same_lines_are_taken() -> None:
    watched = Watched()
    watched.take(temperature(40, gpu="0") + temperature(41, gpu="1"))
    assert watched.shown(temperature(50, gpu="0") + temperature(51.5, gpu="1")) == {
        series(TEMPERATURE, gpu="0"): 50,
        series(TEMPERATURE, gpu="1"): 51.5,
    }
    assert [column.times.tolist() for column in watched.reading().columns] == [[watched.at.timestamp()] * 2]


def test_when_a_pod_comes_or_goes_the_old_series_ends_at_once() -> None:
    watched = Watched()
    watched.take(temperature(40, gpu="0", pod="a") + temperature(40, gpu="1", pod="b"))
    changed = temperature(41, gpu="0", pod="c") + temperature(41, gpu="1", pod="b")
    assert watched.shown(changed) == {
        series(TEMPERATURE, gpu="0", pod="c"): 41,
        series(TEMPERATURE, gpu="1", pod="b"): 41,
    }
    assert watched.shown(temperature(42, gpu="0") + temperature(42, gpu="1", pod="b")) == {
        series(TEMPERATURE, gpu="0"): 42,
        series(TEMPERATURE, gpu="1", pod="b"): 42,
    }


def test_a_gpu_that_is_missing_from_the_page_ends_alone() -> None:
    watched = Watched()
    watched.take(temperature(40, gpu="0") + temperature(40, gpu="1"))
    assert watched.shown(temperature(40, gpu="1")) == {series(TEMPERATURE, gpu="1"): 40}


def test_a_target_that_is_lost_takes_its_series_along_and_brings_the_same_ones_back() -> None:
    watched = Watched()
    page = temperature(40, gpu="0") + temperature(40, gpu="1")
    before = watched.shown(page)
    watched.lose()
    assert shown(watched.reading()) == {}
    assert watched.shown(page) == before
    assert len(watched.head) == 2


def test_a_target_that_comes_back_after_its_series_were_forgotten_gets_series_of_its_own() -> None:
    """Their numbers may have been given to somebody else meanwhile."""
    watched = Watched(most_series=20_000)
    watched.head.forget_after = timedelta(minutes=1)
    page = "".join(temperature(40, gpu=str(gpu)) for gpu in range(15_000))
    watched.take(page)
    watched.lose()
    for _ in range(5):
        watched.at += STEP
        watched.reading()
    other = watched.exposition.target({"instance": "n2:9400"})
    taken = other.take(temperature(99, gpu="0").encode(), watched.at)
    watched.head.put(taken.series, taken.values, taken.times, watched.at)
    after = watched.shown(page)
    assert len(after) == 15_001
    assert after["DCGM_FI_DEV_GPU_TEMP", frozenset({("instance", "n2:9400"), ("gpu", "0")})] == 99
    assert after[series(TEMPERATURE, gpu="0")] == 40


def test_a_series_whose_value_makes_no_sense_for_long_does_not_come_back_as_another() -> None:
    watched = Watched(most_series=40_000)
    watched.head.forget_after = timedelta(minutes=1)
    page = "".join(temperature(40, gpu=str(gpu)) for gpu in range(15_000)) + f"{POWER} 300\n"
    watched.take(page)
    for _ in range(5):
        watched.take(page.replace(" 40\n", " forty\n"))
        watched.reading()
    newcomers = "".join(temperature(77, gpu=str(gpu)) for gpu in range(15_000))
    taken = watched.exposition.target({"instance": "n2:9400"}).take(newcomers.encode(), watched.at)
    watched.head.put(taken.series, taken.values, taken.times, watched.at)
    known = watched.shown(page)
    values = {(dict(labels)["instance"], value) for (metric, labels), value in known.items() if metric == TEMPERATURE}
    assert values == {("n1:9400", 40), ("n2:9400", 77)}


def test_a_frozen_page_is_delivered_as_it_is() -> None:
    watched = Watched()
    page = temperature(40, gpu="0")
    watched.take(page)
    assert watched.shown(page) == {series(TEMPERATURE, gpu="0"): 40}
    assert watched.reading().columns[0].times.tolist() == [watched.at.timestamp()]


def test_a_restarted_exporter_shows_its_counters_from_the_beginning() -> None:
    watched = Watched("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION")
    watched.take('DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0"} 123456789')
    assert list(watched.shown('DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0"} 17').values()) == [17]


def test_of_a_series_that_stands_twice_on_a_page_the_first_sample_counts() -> None:
    watched = Watched()
    for _ in range(2):
        page = watched.take(temperature(1, gpu="0") + temperature(2, gpu="1") + temperature(3, gpu="0"))
        assert page.repeated == 1
        assert shown(watched.reading()) == {series(TEMPERATURE, gpu="0"): 1, series(TEMPERATURE, gpu="1"): 2}
    page = watched.take(temperature(4, gpu="0"))
    assert (page.repeated, shown(watched.reading())) == (0, {series(TEMPERATURE, gpu="0"): 4})


@pytest.mark.parametrize(
    ("text", "value"),
    [("NaN", math.nan), ("+Inf", math.inf), ("-Inf", -math.inf), ("1e3", 1000), ("-0", -0.0), ("4.9e-324", 5e-324)],
)
def test_a_number_is_what_it_says(text: str, value: float) -> None:
    watched = Watched()
    for _ in range(2):
        watched.take(temperature(text, gpu="0"))
        (column,) = watched.reading().columns
        np.testing.assert_equal(column.values, [value])


def _stamped(value: float, gpu: str, at: datetime) -> str:
    return temperature(f"{value} {round(at.timestamp() * 1000)}", gpu=gpu)


def test_a_sample_with_a_time_of_its_own_has_that_age() -> None:
    watched = Watched()
    for minute in range(3):
        now = AT + minute * STEP
        watched.take(
            _stamped(40, "past", now - timedelta(seconds=20)) + _stamped(41, "ahead", now + timedelta(seconds=9))
        )
        ages = {
            labels["gpu"]: now.timestamp() - time
            for column in watched.reading().columns
            for labels, time in zip(watched.reading().labels(column), column.times.tolist(), strict=True)
        }
        assert ages == {"past": 20, "ahead": 0}


def test_a_sample_from_far_ahead_is_left_out_and_complained_of() -> None:
    watched = Watched()
    watched.take(_stamped(40, "0", AT + timedelta(hours=1)) + temperature(41, gpu="1"))
    reading = watched.reading()
    assert shown(reading) == {series(TEMPERATURE, gpu="1"): 41}
    assert "ahead" in reading.warnings[0]


def test_a_sample_from_long_ago_is_not_shown() -> None:
    watched = Watched()
    assert watched.shown(_stamped(40, "0", AT - timedelta(hours=1))) == {}


def test_a_series_that_changes_between_stamped_and_not_stays_one_series() -> None:
    watched = Watched()
    watched.take(temperature(40, gpu="0"))
    assert watched.shown(_stamped(41, "0", AT + STEP)) == {series(TEMPERATURE, gpu="0"): 41}
    assert watched.shown(temperature(42, gpu="0")) == {series(TEMPERATURE, gpu="0"): 42}
    assert len(watched.head) == 1


@pytest.mark.parametrize(
    "line",
    [
        ' DCGM_FI_DEV_GPU_TEMP{gpu="0"} 40',
        'DCGM_FI_DEV_GPU_TEMP{gpu="0"}  40',
        'DCGM_FI_DEV_GPU_TEMP{gpu="0"}\t40',
        'DCGM_FI_DEV_GPU_TEMP{gpu="0"}40',
        'DCGM_FI_DEV_GPU_TEMP {gpu="0"} 40 ',
        'DCGM_FI_DEV_GPU_TEMP{gpu="0"} 40\r',
        'DCGM_FI_DEV_GPU_TEMP{ gpu = "0" , } 40',
        'DCGM_FI_DEV_GPU_TEMP{"gpu"="0"} 40',
        '{"DCGM_FI_DEV_GPU_TEMP",gpu="0"} 40',
        'DCGM_FI_DEV_GPU_TEMP{gpu="0",pod=""} 40',
    ],
)
def test_odd_spacing_and_quoting_are_understood(line: str) -> None:
    watched = Watched()
    for _ in range(2):
        assert watched.shown(f"{line}\nother 1\n") == {series(TEMPERATURE, gpu="0"): 40}


def test_lines_may_end_as_on_windows_with_blank_ones_between_them() -> None:
    watched = Watched()
    text = (
        "# HELP x y\r\n\r\n" + temperature(40, gpu="0").replace("\n", "\r\n") + "\r\n\n\r\n" + temperature(41, gpu="1")
    )
    for _ in range(2):
        page = watched.take(text)
        assert page.bad == ""
        assert list(shown(watched.reading()).values()) == [40, 41]


def test_a_line_without_a_space_in_the_place_of_a_blank_one_is_noticed() -> None:
    watched = Watched()
    before, after = temperature(40, gpu="0"), temperature(41, gpu="1")
    assert len(watched.shown(f"{before}\n{after}")) == 2
    assert watched.shown(f"{before}{POWER}\t300\n{after}")[series(POWER)] == 300
    assert watched.shown(f"{before}{POWER}\t301\n{after}")[series(POWER)] == 301
    assert watched.take(f"{before}nonsense\n{after}").bad == "'nonsense'"


def test_escapes_in_label_values_are_undone() -> None:
    watched = Watched()
    assert watched.shown(r'DCGM_FI_DEV_GPU_TEMP{a="q\"b\\n\n",b="} # {\d"} 40') == {
        series(TEMPERATURE, a='q"b\\n\n', b="} # {\\d"): 40
    }


_LONG = 'DCGM_FI_DEV_GPU_TEMP{gpu="' + "B" * 20000 + '"} 40'
_NONSENSE = [
    'DCGM_FI_DEV_GPU_TEMP{gpu="B"',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B"}',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B"} forty',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B"} 4_0',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B"} \uff14\uff10',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B"}  40\u00a0',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B"} 40 soon',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B"} 40 1e400',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B"} 40 1 2',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B",gpu="C"} 40',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B",__name__="DCGM_FI_DEV_POWER_USAGE"} 40',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B",,} 40',
    "DCGM_FI_DEV_GPU_TEMP{gpu=B} 40",
    "DCGM_FI_DEV_GPU_TEMP{gpu='B'} 40",
    'DCGM_FI_DEV_GPU_TEMP{"DCGM_FI_DEV_GPU_TEMP"} 40',
    'DCGM_FI_DEV_GPU_TEMP{gpu="B"} 5 # {trace="x"} 40',
    "DCGM_FI_DEV_GPU_TEMP}{ 40",
    "DCGM_FI_DEV_GPU_TEMP",
    _LONG,
    "<html><body>",
    '{"status": "ok"}',
    "{} 40",
    "\x00\x01\x02",
]


@pytest.mark.parametrize("line", _NONSENSE)
def test_a_bad_line_costs_that_line_only(line: str) -> None:
    text = f"{temperature(40, gpu='A')}{line}\n{temperature(42, gpu='C')}"
    watched = Watched()
    for _ in range(2):
        page = watched.take(text)
        assert page.bad == repr(line[:80])
        assert page.flaw == ""
        assert shown(watched.reading()) == {series(TEMPERATURE, gpu="A"): 40, series(TEMPERATURE, gpu="C"): 42}


def test_a_series_whose_value_makes_no_sense_is_unknown_until_it_does() -> None:
    watched = Watched()
    watched.take(temperature(40, gpu="0") + temperature(40, gpu="1"))
    assert watched.shown(temperature("?", gpu="0") + temperature(41, gpu="1")) == {series(TEMPERATURE, gpu="1"): 41}
    both = {series(TEMPERATURE, gpu="0"): 42, series(TEMPERATURE, gpu="1"): 42}
    assert watched.shown(temperature(42, gpu="0") + temperature(42, gpu="1")) == both


@pytest.mark.parametrize("line", ["forty{", "other{gpu=B} 40", 'other{gpu="B"} forty', "other"])
def test_what_nobody_reads_is_passed_over(line: str) -> None:
    watched = Watched()
    page = watched.take(f"# HELP other\n# TYPE other gauge\n{line} 1\n{temperature(40, gpu='0')}")
    assert page.bad == ""
    assert shown(watched.reading()) == {series(TEMPERATURE, gpu="0"): 40}


def test_a_metric_that_takes_the_place_of_one_that_nobody_reads_is_found() -> None:
    watched = Watched()
    watched.take('other{gpu="0"} 1\n' + temperature(40, gpu="0"))
    page = f'{POWER}{{gpu="0"}} 300\n' + temperature(41, gpu="0")
    assert watched.shown(page) == {series(POWER, gpu="0"): 300, series(TEMPERATURE, gpu="0"): 41}
    assert watched.shown('other{gpu="0"} 1\nother{gpu="1"} 1\n') == {}


def test_a_metric_whose_name_goes_on_is_another_one() -> None:
    watched = Watched("DCGM_FI_DEV_GPU_UTIL")
    page = 'DCGM_FI_DEV_GPU_UTIL_RATIO{gpu="0"} 0.5\nDCGM_FI_DEV_GPU{gpu="0"} 1\n'
    assert watched.shown(page) == {}
    assert watched.shown(page.replace("UTIL_RATIO", "UTIL")) == {series("DCGM_FI_DEV_GPU_UTIL", gpu="0"): 0.5}


@pytest.mark.parametrize(
    ("page", "flaw"),
    [
        pytest.param(b"", "an empty page", id="nothing"),
        pytest.param(b"\n\n", "an empty page", id="blank"),
        pytest.param(b"# HELP a b\n# TYPE a gauge\n", "an empty page", id="comments"),
        pytest.param(b"<html>log in</html>", "something else than metrics: '<html>log in</html>'", id="web page"),
        pytest.param(b"the service is starting up", "something else than metrics", id="words"),
        pytest.param(b"\xff\xfe\x00\x00", "something else than metrics", id="binary"),
        pytest.param(b"DCGM_FI_DEV_GPU_TEMP forty", "something else than metrics", id="only nonsense"),
        pytest.param(b"\n" * 300_000, "more than 200000 lines", id="many lines"),
        pytest.param(b'a{b="c"} 1\n' * 300_000, "more than 200000 lines", id="many samples"),
    ],
)
def test_what_is_no_page_of_metrics_is_a_lost_target(page: bytes, flaw: str) -> None:
    watched = Watched()
    watched.take(temperature(40, gpu="0"))
    taken = watched.take(page)
    assert flaw in taken.flaw
    assert shown(watched.reading()) == {}
    assert watched.shown(temperature(41, gpu="0")) == {series(TEMPERATURE, gpu="0"): 41}


def test_a_page_without_anything_that_is_read_is_a_page() -> None:
    watched = Watched()
    assert watched.take("node_load1 0.5\n").flaw == ""
    watched.take(temperature(40, gpu="0"))
    assert watched.take("node_load1 0.5\n").flaw == ""
    assert shown(watched.reading()) == {}


def test_more_series_than_there_is_room_for_are_refused_until_there_is() -> None:
    watched = Watched(most_series=3)
    page = "".join(temperature(gpu, gpu=str(gpu)) for gpu in range(5))
    for _ in range(2):
        watched.take(page)
        reading = watched.reading()
        assert sorted(shown(reading).values()) == [0, 1, 2]
        assert reading.warnings == ("2 samples of new series were left out: there are 3 series already",)
    watched.head._most_series = 10  # noqa: SLF001 - others have left
    watched.take(page)
    assert sorted(shown(watched.reading()).values()) == [0, 1, 2, 3, 4]


def test_what_is_kept_of_a_page_is_a_few_bytes_a_line() -> None:
    """Twelve thousand targets with five hundred lines of four hundred bytes each are read by one process."""
    watched = Watched()
    gpus = [f"GPU-{number:032x}" for number in range(100)]
    watched.take("".join(temperature(40, UUID=gpu, pod="x" * 300) + f'other{{UUID="{gpu}"}} 1\n' for gpu in gpus))
    kept = [getattr(watched.reader, name) for name in ("_prints", "_numbers", "_live")]
    assert sum(array.nbytes for array in {id(array): array for array in kept}.values()) <= 12 * len(gpus)
    twin = watched.exposition.target({"instance": "n2:9400"})
    twin.take("".join(temperature(40, UUID=f"{gpu}2") + f'other{{UUID="{gpu}2"}} 1\n' for gpu in gpus).encode(), AT)
    assert twin._layout is watched.reader._layout  # noqa: SLF001 - what takes room is there once


_label_values = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_names = st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@settings(deadline=None)
@given(
    labels=st.dictionaries(_names, _label_values, max_size=4),
    values=st.lists(st.floats(allow_nan=False), min_size=2, max_size=2),
)
def test_any_labels_and_values_come_back_as_they_went_in(labels: dict[str, str], values: list[float]) -> None:
    block = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    watched = Watched("m")
    expected = attached(labels, TARGET)
    for value in values:
        assert watched.shown(f"m{{{block}}} {value!r}\n") == {("m", frozenset(expected.items())): value}


@settings(deadline=None)
@given(line=st.text(st.sampled_from('m_x{}=",\\ \t#0123456789.eE+-NaInf\x00é'), max_size=120))
def test_a_line_that_is_understood_is_understood_as_the_reference_understands_it(line: str) -> None:
    try:
        ours = parse_line(line)
    except ValueError:
        return
    families = list(text_string_to_metric_families(line))
    samples = [sample for family in families for sample in family.samples]
    if ours is None:
        assert samples == []
        return
    (sample,) = samples
    assert (ours.name, ours.labels) == (sample.name, sample.labels)
    np.testing.assert_equal(ours.value, float(sample.value))
    assert ours.time_s == sample.timestamp


_PIECES = (
    'm{a="1"}', 'm{a="2"}', 'm{a="1",b="x y"}', "m", 'n{a="1"}', 'n{a="}"}', r'm{a="\""}', 'o{a="1"}', "o", 'm{a="3"',
    "<p>", "#", "# TYPE m gauge", 'm {a="1"}', ' m{a="1"}', '"m"', '{"m",a="9"}', "é",
)  # fmt: skip
_VALUES = ("1", "2.5", "NaN", "-Inf", "forty", "1_0", "", "40\r", "7 ", "\t8", "٣")
_lines = st.builds(
    lambda piece, blank, value: f"{piece}{blank}{value}",
    st.sampled_from(_PIECES),
    st.sampled_from((" ", "  ", "\t", "")),
    st.sampled_from(_VALUES),
)


@settings(deadline=None, max_examples=300)
@given(pages=st.lists(st.lists(_lines, max_size=8).map("\n".join), min_size=1, max_size=5))
def test_whatever_came_before_a_page_shows_what_its_lines_say(pages: list[str]) -> None:
    one_input(NEXT_PAGE.join(page.encode() for page in pages))


@pytest.mark.parametrize("pages", seeds())
def test_the_seeds_of_the_fuzzer_show_what_their_lines_say(pages: bytes) -> None:
    one_input(pages)


@settings(deadline=None, max_examples=300)
@given(pages=st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_no_page_is_an_error(pages: list[bytes]) -> None:
    watched = Watched()
    good = temperature(40, gpu="0").encode()
    for page in pages:
        watched.take(page)
        watched.take(good[: len(page)] + page + good[len(page) :])
    assert watched.shown(good) == {series(TEMPERATURE, gpu="0"): 40}


@settings(deadline=None)
@given(data=st.data(), page=st.sampled_from([path.stem for path in sorted(PAGES.glob("*.prom"))]))
def test_a_damaged_real_page_shows_what_its_lines_say(data: st.DataObject, page: str) -> None:
    pages = [_real(page)]
    for _ in range(3):
        text = pages[-1]
        at = data.draw(st.integers(0, len(text)))
        until = data.draw(st.integers(at, min(at + 30, len(text))))
        pages.append(
            text[:at] + data.draw(st.sampled_from(["", " ", '"', "{", "}", "\n", "1", "\\", "é"])) + text[until:]
        )
    one_input(NEXT_PAGE.join(text.encode() for text in pages))


def test_pages_that_come_without_a_network_become_readings() -> None:
    pages = Pages()
    first = pages.reading(AT, [({}, temperature(40, gpu="0")), ({}, temperature(41, gpu="0"))])
    assert sorted(value for column in first.columns for value in column.values.tolist()) == [40, 41]
    second = pages.reading(AT + STEP, [({}, temperature(50, gpu="0"))])
    assert (second.samples, list(shown(second).values())) == (1, [50])
    assert second.label_sets is first.label_sets


def test_the_signals_of_a_page_are_those_of_its_gpu() -> None:
    frame = _frame(_real("dcgm_2x_sentinel"))
    assert np.isnan(frame.latest(Signal.MEMORY_TEMPERATURE)).all()
    assert frame.latest(Signal.SM_CLOCK).tolist() == [139e6]
