"""What exists is documented, and what is documented exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from healer.actions.registry import BUILT_IN
from healer.cli import cli

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
PLAYBOOKS = (ROOT / "docs" / "playbooks.md").read_text()
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
