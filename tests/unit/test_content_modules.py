"""Detectors are loaded by path; whatever is wrong with a file is said, and nothing that it does stops the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from healer.content.detectors import load_detectors
from healer.domain.finding import FailureMode
from healer.domain.playbook import Scalar
from healer.domain.signal import Signal
from healer.errors import InvalidDocument
from tests.unit.core_samples import frame

GOOD = """\
from __future__ import annotations

from dataclasses import dataclass

from healer.sdk import FailureMode, Findings, Frame, Signal

MODES = (FailureMode.GPU_ANOMALY,)
READS = (Signal.POWER,)


@dataclass(frozen=True)
class Settings:
    limit: float = 1.0
    count: int = 3
    strict: bool = False
    name: str = "a"


def detect(frame: Frame, settings: Settings) -> Findings:
    raise RuntimeError(settings)
"""


def _folder(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (root / f"{name}.py").write_text(text)
    return root


def _problems(folder: Path, **settings: object) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        load_detectors(folder, **{"settings": {}, **settings})  # type: ignore[arg-type]
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_a_detector_says_what_it_finds_and_what_it_reads(tmp_path: Path) -> None:
    (detector,) = load_detectors(_folder(tmp_path, good=GOOD), settings={})
    assert (detector.name, detector.modes, detector.reads) == ("good", (FailureMode.GPU_ANOMALY,), (Signal.POWER,))


def test_a_deployment_overrides_the_settings_that_a_detector_has(tmp_path: Path) -> None:
    given: dict[str, Scalar] = {"limit": 2, "strict": True, "name": "b"}
    (detector,) = load_detectors(_folder(tmp_path, good=GOOD), settings={"good": given})
    with pytest.raises(RuntimeError, match=r"Settings\(limit=2, count=3, strict=True, name='b'\)"):
        detector.detect(frame())


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            {"limt": 2.0},
            "config.yaml: detectors.settings.good.limt: good.py has no such setting (did you mean 'limit'?)",
        ),
        (
            {"zzz": 2.0},
            "config.yaml: detectors.settings.good.zzz: good.py has no such setting (known: limit, count, strict, name)",
        ),
        ({"limit": "high"}, "config.yaml: detectors.settings.good.limit: 'high' is not float"),
        ({"limit": True}, "config.yaml: detectors.settings.good.limit: True is not float"),
        ({"count": 1.5}, "config.yaml: detectors.settings.good.count: 1.5 is not int"),
        ({"count": True}, "config.yaml: detectors.settings.good.count: True is not int"),
        ({"strict": 1}, "config.yaml: detectors.settings.good.strict: 1 is not bool"),
        ({"name": 5}, "config.yaml: detectors.settings.good.name: 5 is not str"),
    ],
)
def test_an_override_that_is_unknown_or_of_another_type_is_refused(
    tmp_path: Path, override: dict[str, Scalar], problem: str
) -> None:
    assert _problems(_folder(tmp_path, good=GOOD), settings={"good": override}) == [problem]


def test_the_configuration_can_only_name_detectors_that_there_are(tmp_path: Path) -> None:
    problems = _problems(_folder(tmp_path, good=GOOD), settings={"godo": {}}, disabled=("bad",))
    assert problems == [
        "config.yaml: detectors.godo: no such detector (known: good)",
        "config.yaml: detectors.bad: no such detector (known: good)",
    ]


def test_a_disabled_detector_is_not_even_run(tmp_path: Path) -> None:
    assert load_detectors(_folder(tmp_path, bad="raise SystemExit"), settings={}, disabled=("bad",)) == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import os\n\nx = 1 / 0\n", "bad.py:3: cannot be loaded: ZeroDivisionError('division by zero')"),
        ("import no_such_library\n", 'bad.py:1: cannot be loaded: ModuleNotFoundError("No module'),
        ("import sys\nsys.exit(0)\n", "bad.py:2: cannot be loaded: SystemExit(0)"),
        ("def f():\n    raise ValueError('x')\n\nf()\n", "bad.py:2: cannot be loaded: ValueError('x')"),
        ("def detect(:\n", "bad.py:1: syntax error: "),
        ("x = 1\n\x00", "bad.py:"),
        ("def detect(frame, settings): ...\n", "bad.py: MODES: is missing (see healer.sdk)"),
        (GOOD.replace("def detect", "def detekt"), "bad.py: detect: is missing (see healer.sdk)"),
        (GOOD + "detect = 5\n", "bad.py: detect: is not a function (see healer.sdk)"),
        (GOOD + "MODES = ('GpuAnomaly',)\n", "bad.py: MODES: is not a tuple of FailureMode (see healer.sdk)"),
        (GOOD + "MODES = 5\n", "bad.py: MODES: is not a tuple of FailureMode (see healer.sdk)"),
        (GOOD + "READS = ('power',)\n", "bad.py: READS: is not a tuple of Signal (see healer.sdk)"),
        (GOOD + "Settings = dict\n", "bad.py: Settings: is not a dataclass (see healer.sdk)"),
        (GOOD + "Settings = Settings()\n", "bad.py: Settings: is not a dataclass (see healer.sdk)"),
        (
            GOOD.replace("count: int = 3", "count: int")
            .replace("limit: float = 1.0", "limit: float")
            .replace("strict: bool = False", "strict: bool")
            .replace('name: str = "a"', "name: str"),
            "bad.py: Settings: has a field without a default (see healer.sdk)",
        ),
    ],
    ids=[
        "raises",
        "imports what is not there",
        "exits",
        "raises in a function",
        "not Python",
        "a null byte",
        "lacks most",
        "lacks detect",
        "detect is a number",
        "modes are words",
        "modes are a number",
        "reads are words",
        "settings are a dict",
        "settings are an instance",
        "settings without defaults",
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong_in_it(tmp_path: Path, text: str, problem: str) -> None:
    assert _problems(_folder(tmp_path, bad=text))[0].startswith(problem)


def test_the_problems_of_all_files_are_told_together(tmp_path: Path) -> None:
    problems = _problems(_folder(tmp_path, a="1 / 0\n", b="import sys\nsys.exit()\n", c=GOOD))
    assert [problem.split(" ")[0] for problem in problems] == ["a.py:1:", "b.py:2:"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert _problems(tmp_path / "gone") == [f"{tmp_path}/gone: detectors.path: no such folder"]
