"""The page on verbs of one's own, executed: its verb, its playbook, and the register that it writes to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from healer.cli import cli
from healer.content.modules import load_module
from healer.domain.component import Component, ComponentKind
from healer.errors import HealerError, Rejected, Unavailable
from healer.rehearsal.crashes import crash_test
from tests.canned_http import Asked, Canned, canned_server

PAGE = Path(__file__).parents[2] / "docs" / "playbooks.md"
_FILES = re.compile(r"^```(?:python|yaml) ((?:actions|playbooks)/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NODE = Component(ComponentKind.NODE, node="gpu-002")


def healer(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "fleet"
    assert healer("init", str(folder)).exit_code == 0
    monkeypatch.chdir(folder)
    for name, text in _FILES.findall(PAGE.read_text(encoding="utf-8")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_page_s_verb_and_playbook_are_valid_and_pass_their_tests(deployment: Path) -> None:
    assert {path.name for path in (deployment / "actions").iterdir()} == {"asset_mark.py"}
    checked = healer("check")
    assert checked.exit_code == 0, checked.output
    assert "1 verbs of its own: asset.mark" in checked.output
    linted = healer("playbook", "lint", "--strict", "repair")
    assert (linted.exit_code, linted.output) == (0, "1 playbooks: nothing to say\n")
    rehearsed = healer("playbook", "rehearse", "repair")
    assert rehearsed.exit_code == 0, rehearsed.output
    assert rehearsed.output.splitlines()[-1] == "2 passed, 0 failed"


class AssetRegister:
    """The other side: it keeps what it is told, and what it took.

    Attributes:
        status: of the next answer to a change, which it makes all the same.
    """

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.taken: list[str] = []
        self.status = 200

    def respond(self, asked: Asked) -> Canned:
        node, status = asked.path.removeprefix("/nodes/"), 200
        if asked.method == "PUT":
            self.states[node] = json.loads(asked.body)["state"]
            self.taken.append(f"{node} {self.states[node]} {asked.headers['idempotency-key']}")
            status, self.status = self.status, 200
        return Canned(json.dumps({"state": self.states.get(node, "in use")}).encode(), status)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[AssetRegister]:
    register = AssetRegister()
    with canned_server(register.respond) as server:
        monkeypatch.setenv("ASSETS_URL", server.url)
        yield register


def module_of(deployment: Path) -> Any:
    return load_module(deployment / "actions" / "asset_mark.py", prefix="page")


def test_it_marks_a_node_once_whenever_healer_dies(deployment: Path, register: AssetRegister) -> None:
    make, lives = module_of(deployment).AssetMark, []

    def in_a_new_world() -> Any:
        register.states.clear()
        lives.append(len(register.taken))
        return make()

    instants = crash_test(in_a_new_world, {"state": "in repair"}, NODE)
    assert {"killed before gpu-002", "killed after gpu-002", "the answer to gpu-002 is lost"} <= set(instants)
    in_each_life = [register.taken[start:end] for start, end in pairwise([*lives, len(register.taken)])]
    assert len(in_each_life) == len(instants) + 2
    assert {taken.count("gpu-002 in repair run/step") for taken in in_each_life} == {1}


@pytest.mark.parametrize(
    ("status", "raised"), [pytest.param(503, Unavailable, id="in doubt"), pytest.param(409, Rejected, id="a no")]
)
def test_it_tells_an_answer_that_is_none_from_a_no(
    deployment: Path, register: AssetRegister, status: int, raised: type[HealerError]
) -> None:
    register.status = status
    with pytest.raises(raised):
        module_of(deployment).Register().put("gpu-002", "in repair", "key")


def test_a_register_that_does_not_answer_is_no_register_without_the_node(
    deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSETS_URL", "http://127.0.0.1:1")
    with pytest.raises(Unavailable):
        module_of(deployment).Register().state("gpu-002")
