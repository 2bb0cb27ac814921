"""What exists is documented, and what is documented exists."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from healer.actions.registry import BUILT_IN
from healer.cli import cli
from healer.content.detectors import load_detectors
from healer.content.modules import load_module
from healer.domain.finding import FailureMode
from healer.policy.causes import EXPLAINS

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
PLAYBOOKS = (ROOT / "docs" / "playbooks.md").read_text()
FAILURE_MODES = (ROOT / "docs" / "failure-modes.md").read_text()
CONTENT = {path.stem: path for path in (ROOT / "detectors").glob("*.py")}
CONTENT |= {path.parent.name: path for path in (ROOT / "models").glob("*/model.py")}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "models").rglob("*.md"))]


def test_every_verb_and_each_of_its_arguments_is_in_the_playbook_page() -> None:
    for name, action in BUILT_IN.items():
        (row,) = [line for line in PLAYBOOKS.splitlines() if line.startswith(f"| `{name}`")]
        missing = [argument for argument in action.Arguments.model_fields if f"`{argument}`" not in row]
        assert not missing, (name, missing)


def test_no_verb_is_documented_that_does_not_exist() -> None:
    assert set(re.findall(r"^\| `(\w+\.\w+)`", PLAYBOOKS, flags=re.MULTILINE)) == set(BUILT_IN)


def test_every_command_is_in_the_operations_page() -> None:
    for name, command in cli.commands.items():
        assert re.search(rf"`(healer )?{name}\b", OPERATIONS), name
        if isinstance(command, click.Group):
            assert all(sub in OPERATIONS for sub in command.commands), name


def test_every_metric_is_in_the_operations_page() -> None:
    source = (ROOT / "healer" / "runtime" / "web" / "metrics.py").read_text()
    names = set(re.findall(r'"(healer_\w+)"', source))
    assert names
    assert names == set(re.findall(r"`(healer_\w+)`", OPERATIONS))


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table under the first line that begins with `heading`, without that line."""
    table = page[page.index(f"\n{heading}") :].lstrip("\n").partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def test_every_failure_mode_is_in_its_page_with_who_finds_it() -> None:
    found_by = {mode.strip("`"): found_by for mode, _, found_by, *_ in rows(FAILURE_MODES, "| mode |")}
    assert sorted(found_by) == sorted(FailureMode)
    for name, path in CONTENT.items():
        for mode in load_module(path, prefix="docs").MODES:
            assert f"`{name}`" in found_by[mode], (mode, name)


def test_every_setting_of_what_finds_them_is_there_with_its_default() -> None:
    documented = dict(re.findall(r"^\| `(\w+\.\w+)` \| (\S+) \|", FAILURE_MODES, flags=re.MULTILINE))
    settings = {
        f"{name}.{field.name}": f"{field.default:g}"
        for name, path in CONTENT.items()
        for field in dataclasses.fields(load_module(path, prefix="docs").Settings)
    }
    assert documented == settings


def test_every_signal_that_a_detector_reads_is_there() -> None:
    for detector in load_detectors(ROOT / "detectors", settings={}):
        missing = [signal for signal in detector.reads if f"`{signal}`" not in FAILURE_MODES]
        assert not missing, (detector.name, missing)


def test_the_causes_are_there_in_their_order() -> None:
    assert [cause.strip("`") for cause, *_ in rows(FAILURE_MODES, "| cause |")] == list(EXPLAINS)


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            yield page, target


@pytest.mark.parametrize(("page", "target"), [pytest.param(p, t, id=f"{p.name}:{t}") for p, t in links()])
def test_every_link_leads_somewhere(page: Path, target: str) -> None:
    assert (page.parent / target).exists()


def test_the_two_commands_of_the_readme_are_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert commands == ["demo", "test"]
    assert all(f"\n{target}: " in makefile for target in commands)
