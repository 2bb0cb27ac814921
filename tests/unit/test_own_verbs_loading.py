"""Verbs of a deployment's own are loaded by path, or from packages; what is wrong with one is said by file and line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from healer.content.actions import load_actions
from healer.domain.component import ComponentKind
from healer.errors import InvalidDocument

GOOD = """\
from __future__ import annotations

from healer.sdk import ComponentKind, Done, Proposal, Section


class Reload:
    '''fabric.reload: the port is taken down and up.'''

    name = "fabric.reload"
    target = ComponentKind.NODE
    disrupts = True
    keeps_work_away = False

    class Arguments(Section):
        port: int = 1

    def plan(self, arguments, target, world):
        return Proposal()

    def run(self, arguments, target, ledger):
        return Done("up")

    def verify(self, arguments, target, ledger):
        return Done()

    def undo(self, arguments, target, ledger):
        return Done()
"""


def folder_of(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (root / f"{name}.py").write_text(text)
    return root


def problems_of(folder: Path, *taken: str) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        load_actions(folder, taken=taken)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_a_verb_is_what_its_class_says(tmp_path: Path) -> None:
    (verb,) = load_actions(folder_of(tmp_path, good=GOOD), taken=()).values()
    assert (verb.name, verb.target, verb.disrupts, verb.keeps_work_away) == (
        "fabric.reload",
        ComponentKind.NODE,
        True,
        False,
    )
    assert verb.Arguments.model_validate({}).model_dump() == {"port": 1}
    assert verb.__doc__ == "fabric.reload: the port is taken down and up."


@pytest.mark.parametrize("folder", [None, Path("nowhere")], ids=["null", "not there"])
def test_a_deployment_need_not_have_any(folder: Path | None) -> None:
    assert load_actions(folder, taken=()) == {}


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    assert problems_of(folder_of(tmp_path, good=GOOD) / "good.py")[0].endswith(
        "good.py: playbooks.actions: is a file (name its folder)"
    )


def test_a_file_may_have_several_and_what_they_share(tmp_path: Path) -> None:
    more = ("class _Base(Reload): pass", "class Reset(_Base): name = 'fabric.reset'", "class Client: x = 1")
    folder = folder_of(tmp_path, good="\n".join((GOOD, *more)))
    assert [*load_actions(folder, taken=())] == [
        "fabric.reload",
        "fabric.reset",
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param(
            '"fabric.reload"',
            '"reload"',
            "bad.py:9: Reload.name: is 'reload', and no name like asset.mark (see healer.sdk)",
            id="a name of one word",
        ),
        pytest.param(
            '    name = "fabric.reload"\n',
            "",
            "bad.py:6: Reload.name: is None, and no name like asset.mark (see healer.sdk)",
            id="no name",
        ),
        pytest.param(
            "ComponentKind.NODE",
            '"node"',
            "bad.py:10: Reload.target: is 'node', neither a ComponentKind nor None (see healer.sdk)",
            id="a target in words",
        ),
        pytest.param(
            "    target = ComponentKind.NODE\n",
            "",
            "bad.py:6: Reload.target: is missing (a ComponentKind, or None for anything)",
            id="no target",
        ),
        pytest.param(
            "disrupts = True",
            "disrupts = 1",
            "bad.py:11: Reload.disrupts: is missing, or neither True nor False (see healer.sdk)",
            id="disrupts is a number",
        ),
        pytest.param(
            "    keeps_work_away = False\n",
            "",
            "bad.py:6: Reload.keeps_work_away: is missing, or neither True nor False (see healer.sdk)",
            id="does not say whether it keeps work away",
        ),
        pytest.param(
            "Arguments(Section)",
            "Arguments",
            "bad.py:14: Reload.Arguments: is missing, or no subclass of Section (see healer.sdk)",
            id="arguments of any class",
        ),
        pytest.param(
            "    def undo(self, arguments, target, ledger):\n        return Done()\n",
            "",
            "bad.py:6: Reload.undo: undo is missing, or no method (see healer.sdk)",
            id="no undo",
        ),
        pytest.param(
            "def verify(self, arguments, target, ledger)",
            "def verify(self, arguments, target)",
            "bad.py:23: Reload.verify: verify does not take (self, arguments, target, ledger) (see healer.sdk)",
            id="verify takes two",
        ),
        pytest.param(
            "def plan(",
            "async def plan(",
            "bad.py:17: Reload.plan: plan is no plain function: it must return its outcome (see healer.sdk)",
            id="plan is a coroutine",
        ),
        pytest.param(
            "    def plan(self, arguments, target, world):\n        return Proposal()\n",
            "    plan = 5\n",
            "bad.py:17: Reload.plan: plan is missing, or no method (see healer.sdk)",
            id="plan is a number",
        ),
        pytest.param(
            "    class Arguments(Section):\n",
            "    def __init__(self, url):\n        self.url = url\n\n    class Arguments(Section):\n",
            "bad.py:6: Reload: cannot be made without arguments: TypeError(",
            id="needs an argument",
        ),
        pytest.param(
            "    class Arguments(Section):\n",
            "    def rehearsed(self):\n        return self\n\n    class Arguments(Section):\n",
            "bad.py:14: Reload.rehearsed: rehearsed cannot be called without arguments: make it a @classmethod",
            id="its stand-in needs an instance",
        ),
        pytest.param(
            "    class Arguments(Section):\n",
            "    @staticmethod\n    def rehearsed():\n        return 5\n\n    class Arguments(Section):\n",
            "bad.py:15: Reload.rehearsed: what it returns: plan is missing, or no method (see healer.sdk)",
            id="its stand-in is none",
        ),
        pytest.param("class Reload:", "class _Reload:", "bad.py: has no verb: no class with plan, run,", id="no class"),
        pytest.param(
            "import ComponentKind,", "import Cluster,", "bad.py:3: cannot be loaded: ImportError(", id="import"
        ),
        pytest.param("class Reload:", "class Reload", "bad.py:6: syntax error: ", id="no Python"),
    ],
)
def test_what_is_wrong_with_a_class_is_said_on_its_line(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert GOOD.count(old) == 1
    assert problems_of(folder_of(tmp_path, bad=GOOD.replace(old, new)))[0].startswith(problem)


def test_everything_that_is_wrong_with_all_of_them_is_told_together(tmp_path: Path) -> None:
    bad = GOOD.replace("disrupts = True", "").replace("def undo", "def redo")
    told = problems_of(folder_of(tmp_path, a=bad, b=bad.replace("fabric.reload", "fabric.reset")))
    assert [line.partition(" ")[2].partition(": ")[0] for line in told] == 2 * ["Reload.disrupts", "Reload.undo"]


@pytest.mark.parametrize("taken", [("fabric.reload",), ()], ids=["healer's", "another file's"])
def test_no_two_verbs_have_the_same_name(tmp_path: Path, taken: tuple[str, ...]) -> None:
    folder = folder_of(tmp_path, a=GOOD) if taken else folder_of(tmp_path, a=GOOD, b=GOOD)
    (problem,) = problems_of(folder, *taken)
    who = "a.py:9: Reload.name: fabric.reload is a verb of healer's own"
    other = "b.py:9: Reload.name: fabric.reload is also Reload in a.py"
    assert problem == f"{who if taken else other} (choose another name)"


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package with an entry point into the environment, as an installer leaves it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def install(value: str, text: str) -> None:
        (tmp_path / "acme_fabric.py").write_text(text)
        about = tmp_path / "acme_fabric-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-fabric\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[healer.actions]\nfabric = {value}\n")
        monkeypatch.delitem(sys.modules, "acme_fabric", raising=False)

    return install


@pytest.mark.parametrize("value", ["acme_fabric", "acme_fabric:Reload"], ids=["a module", "a class"])
def test_an_installed_package_brings_verbs(install: Install, value: str) -> None:
    install(value, GOOD)
    assert [*load_actions(None, taken=())] == ["fabric.reload"]


@pytest.mark.parametrize(
    ("value", "text", "problem"),
    [
        pytest.param(
            "acme_fabric:Relaod",
            GOOD,
            "package acme-fabric: healer.actions.fabric: acme_fabric:Relaod cannot be loaded: AttributeError(",
            id="names what is not there",
        ),
        pytest.param("acme_fabric", "1 / 0", "package acme-fabric: healer.actions.fabric: ", id="raises"),
        pytest.param(
            "acme_fabric:x",
            "x = 1",
            "package acme-fabric: healer.actions.fabric: acme_fabric:x is neither",
            id="a number",
        ),
        pytest.param("acme_fabric", "x = 1", "package acme-fabric: healer.actions.fabric: has no verb", id="has none"),
        pytest.param(
            "acme_fabric",
            GOOD.replace("True", "1"),
            "FOLDER/acme_fabric.py:11: Reload.disrupts: is missing",
            id="a flag",
        ),
    ],
)
def test_what_is_wrong_with_a_package_names_it(
    install: Install, tmp_path: Path, value: str, text: str, problem: str
) -> None:
    install(value, text)
    with pytest.raises(InvalidDocument) as caught:
        load_actions(None, taken=())
    (told,) = caught.value.problems
    assert str(told).startswith(problem.replace("FOLDER", str(tmp_path)))
