"""Maintenance windows and silences in config.yaml: what is read, and what is refused on which line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from healer.config import Config, DetectorsSettings, load_config
from healer.domain.maintenance import Once, Period, Weekly
from healer.errors import InvalidDocument


def _config(folder: Path, maintenance: str, silences: str = "{}") -> DetectorsSettings:
    path = folder / "config.yaml"
    path.write_text(f"detectors:\n  path: d\n  silences: {silences}\n  maintenance:\n{maintenance}", encoding="utf-8")
    return load_config(path).detectors


def _problems(folder: Path, maintenance: str, silences: str = "{}") -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        _config(folder, maintenance, silences)
    return [f"{problem.line}: {problem.key}: {problem.text}" for problem in caught.value.problems]


def test_a_window_is_once_or_every_week(tmp_path: Path) -> None:
    once, weekly = _config(
        tmp_path,
        """
    - {name: r7, match: {rack: r7, kind: gpu}, start: 2026-11-20T18:00:00Z, end: 2026-11-20T23:00:00+01:00}
    - name: fabric
      match: ['failure_mode=~"Nvlink.*"', rack!=r1]
      every: Sun 02:00-06:00 Europe/Berlin
      reason: firmware of the switches
""",
    ).windows()
    start = datetime(2026, 11, 20, 18, tzinfo=UTC)
    assert once.schedule == Once(Period(start, start + timedelta(hours=4)))
    assert [str(matcher) for matcher in once.matchers] == ['rack="r7"', 'kind="gpu"']
    assert (once.name, once.reason) == ("r7", "planned maintenance")
    assert isinstance(weekly.schedule, Weekly)
    assert str(weekly.schedule) == "Sun 02:00-06:00 Europe/Berlin"
    assert [str(matcher) for matcher in weekly.matchers] == ['failure_mode=~"Nvlink.*"', 'rack!="r1"']
    assert (weekly.name, weekly.reason) == ("fabric", "firmware of the switches")


def test_a_configuration_with_windows_survives_being_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "detectors: {path: d, maintenance: [{name: a, match: {rack: r1}, every: Sun 02:00-06:00 UTC},"
        " {name: b, match: [rack=~r.], start: 2026-11-20T18:00:00Z, end: 2026-11-20T19:00:00Z}]}"
    )
    config = load_config(path)
    assert Config.model_validate_json(config.model_dump_json()) == config


WEEKLY = "every: Sun 02:00-06:00 UTC"
START, END = "start: 2026-11-20T18:00:00Z", "end: 2026-11-20T19:00:00Z"
R7 = "match: {rack: r7}"


@pytest.mark.parametrize(
    ("lines", "at", "text"),
    [
        (("match: {rak: r7}", WEEKLY), "6: .match", "there is no label 'rak'"),
        (("match: {rack: 7}", WEEKLY), "6: .match", "rack: 7 is not a name; put it in quotes"),
        (("match: rack=r7", WEEKLY), "6: .match", "write it like {rack: r7}"),
        (("match: []", WEEKLY), "6: .match", "at least one matcher is needed"),
        (("match: [rack=~.*]", WEEKLY), "6: .match", "this would silence everything"),
        ((R7, "every: Son 02:00-06:00 UTC"), "7: .every", "'Son' is not a day or a range of days"),
        ((R7, "every: Sun 02:00-06:00"), "7: .every", "'Sun 02:00-06:00' is not days, times and a time zone"),
        ((R7, "every: Sun 02:00-06:00 Europe/Berlon"), "7: .every", "there is no time zone 'Europe/Berlon'"),
        ((R7, "every: Sun 02:00-06:00 Europe"), "7: .every", "there is no time zone 'Europe'"),
        ((R7, "every: Sun 02:00-06:00 ../../etc/passwd"), "7: .every", "there is no time zone '../../etc/passwd'"),
        ((R7, "start: soon", END), "7: .start", "'soon' is not a time"),
        ((R7, START, "end: 2026-11-20T19:00:00"), "8: .end", "'2026-11-20T19:00:00' names no time zone"),
        ((R7, START, "end: 2026-11-20T18:00:00Z"), "5: ", "end is not after start"),
        ((R7, START), "5: ", "a window is either start and end, or every"),
        ((R7, END), "5: ", "a window is either start and end, or every"),
        ((R7,), "5: ", "a window is either start and end, or every"),
        ((R7, START, END, WEEKLY), "5: ", "a window is either start and end, or every"),
        ((WEEKLY,), "5: .match", "is missing"),
        ((R7, "evry: Sun 02:00-06:00 UTC"), "7: .evry", "unknown key"),
    ],
    ids=range(19),
)
def test_a_window_that_cannot_be_meant_is_refused_on_its_line(
    tmp_path: Path, lines: tuple[str, ...], at: str, text: str
) -> None:
    line, _, key = at.partition(" ")
    problems = _problems(tmp_path, "    - name: w\n" + "".join(f"      {each}\n" for each in lines))
    assert [told for told in problems if told.startswith(f"{line} detectors.maintenance[0]{key}: {text}")] == problems


def test_a_window_that_is_once_is_no_longer_than_a_silence(tmp_path: Path) -> None:
    window = f"    - {{name: w, {R7}, {START}, end: 2026-12-21T18:00:00Z}}\n"
    assert _problems(tmp_path, window) == ["1: detectors: the maintenance window w is longer than silences.longest"]


def test_two_windows_have_two_names(tmp_path: Path) -> None:
    window = "    - {name: w, match: {rack: r7}, every: Sun 02:00-06:00 UTC}\n"
    assert _problems(tmp_path, 2 * window) == ["1: detectors: maintenance has two windows of the name w"]


@pytest.mark.parametrize(
    ("silences", "problem"),
    [
        ("{lasts: 3d, longest: 2d}", "3: detectors.silences: lasts is longer than longest"),
        ("{longest: 400d}", "3: detectors.silences: longest is more than 366d: that is for ever"),
        ("{lasts: 0s}", "3: detectors.silences.lasts: must be longer than zero"),
    ],
)
def test_no_silence_is_for_ever(tmp_path: Path, silences: str, problem: str) -> None:
    (told,) = _problems(tmp_path, "    []\n", silences)
    assert told.startswith(problem)
