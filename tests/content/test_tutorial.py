"""The tutorial, executed: every command of it does what stands below it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial-playbook.md"
_BLOCK = re.compile(r"^```(console|yaml) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MAY_FAIL = ("lint", "rehearse")


@pytest.mark.timeout(300)
def test_every_command_of_the_tutorial_prints_what_it_says(tmp_path: Path) -> None:
    healer = tmp_path / "bin" / "healer"
    healer.parent.mkdir()
    healer.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m healer "$@"\n')
    healer.chmod(0o755)
    environment = {**os.environ, "PATH": f"{healer.parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    folder, commands = tmp_path, 0
    for kind, name, text in _BLOCK.findall(TUTORIAL.read_text(encoding="utf-8")):
        if kind == "yaml":
            (folder / name).write_text(text, encoding="utf-8")
            continue
        for command, expected in _commands(text):
            commands += 1
            if command.startswith("cd "):
                folder /= command.removeprefix("cd ")
                continue
            done = subprocess.run(
                ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            printed = done.stdout + done.stderr
            assert re.fullmatch(_pattern(expected), printed.rstrip("\n")), f"$ {command}\n{printed}"
            assert done.returncode == 0 or any(word in command for word in _MAY_FAIL), printed
    assert commands > 10


def _commands(block: str) -> list[tuple[str, str]]:
    """Each with what it prints."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    return [(part.partition("\n")[0], part.partition("\n")[2].rstrip("\n")) for part in parts if part]


def _pattern(expected: str) -> str:
    """A line of three dots is any number of lines; three dots in a line are anything on it."""
    return r"\n".join(
        r"(?:.*\n)*?.*" if line == "..." else ".*".join(map(re.escape, line.split("...")))
        for line in expected.split("\n")
    )
