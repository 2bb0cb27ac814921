"""`healer playbook rehearse --from-run`: a run out of the deployment's own journal, beside what happens today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from healer.actions.registry import BUILT_IN
from healer.cli import cli
from healer.config import load_config
from healer.content import playbooks as content
from healer.documents import parse_document
from healer.rehearsal.stage import Stage

ROOT = Path(__file__).parents[2]
NAME = "quarantine"
TEXT = """\
name: quarantine
description: Keep work off the node.
match: {failure_modes: [GpuXid]}
target: node
resolves_when: contained
steps:
  - {id: quarantine, use: node.cordon, timeout: 2m}
  - {id: evacuate, use: node.drain, timeout: 4m}
tests:
  - name: recorded
    workloads: [{owner: Job/train, node: gpu-002, count: 2}]
    incident: {failure_mode: GpuXid, node: gpu-002, gpu: 1}
    answer_after: 3m
    expect: {run: succeeded}
"""


@pytest.fixture
def run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A deployment with one playbook, and in its journal one run of it."""
    folders = {name: {"path": str(ROOT / name)} for name in ("detectors", "models")}
    state = {"url": f"sqlite:///{tmp_path / 'journal.db'}"}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**folders, "playbooks": {"path": "playbooks"}, "state": state}))
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / f"{NAME}.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    playbook = content.parse_playbook(parse_document(TEXT, file="quarantine.yaml"))
    (test,) = content.tests_of(playbook)[1]
    stage = Stage(tmp_path, (playbook,), test, (), load_config(config), (), BUILT_IN)
    stage.play()
    (run,) = stage.journal.runs()
    stage.journal.close()
    return run.id


def _healer(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["playbook", "rehearse", *arguments], catch_exceptions=True)


def _edit(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "playbooks" / f"{NAME}.yaml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def test_what_goes_as_it_went_is_shown_beside_it(run_id: str, tmp_path: Path) -> None:
    result = _healer(NAME, "--from-run", run_id)
    assert result.exit_code == 0, result.output
    first, second, third, *_ = lines = result.output.splitlines()
    assert first == f"{run_id}: quarantine on node gpu-002, for GpuXid of GPU 1 of gpu-002, found 2026-03-01 00:00:00"
    assert second == f"rehearsed: quarantine ({tmp_path / 'playbooks' / 'quarantine.yaml'})"
    assert third == "called here: gpu-002 is gpu-001"
    assert ["+0:03:10", "cordon", "gpu-001", "+0:03:10", "cordon", "gpu-001"] in [line.split() for line in lines]
    assert lines[-1] == "same: it asks, does and ends as it was recorded"


def test_an_edited_playbook_differs_and_that_fails(run_id: str, tmp_path: Path) -> None:
    _edit(tmp_path, "  - {id: evacuate, use: node.drain, timeout: 4m}\n", "")
    result = _healer("--from-run", run_id)
    assert result.exit_code == 1
    assert "which is another text than was run then" in result.output
    assert result.output.endswith("\ndiffers: effects: were cordon gpu-001; missing: evict default/Job/train\n")
    told: Any = json.loads(_healer("--from-run", run_id, "--json").output)
    assert (told["run"], told["same"], told["playbook"]["as_it_was"]) == (run_id, False, False)
    assert told["differences"] == ["effects: were cordon gpu-001; missing: evict default/Job/train"]
    recorded, rehearsed = ([line["what"] for line in told[side]] for side in ("recorded", "rehearsed"))
    assert "evict default/Job/train" in recorded
    assert "evict default/Job/train" not in rehearsed
    assert told["renamed"] == {"gpu-002": "gpu-001", "rack-1": "rack-1"}
    assert told["not_reproduced"] == ["the site has 4 nodes in one rack: the budgets are judged on these"]
    assert told["test"]["answer_after"] == "3m"


def test_another_playbook_may_be_played_on_it(run_id: str, tmp_path: Path) -> None:
    draft = tmp_path / "draft.yaml"
    draft.write_text(TEXT.replace("name: quarantine", "name: draft", 1))
    result = _healer(str(draft), "--from-run", run_id)
    assert result.exit_code == 0, result.output
    assert f"rehearsed: draft ({draft}), which is another text" in result.output


def test_what_is_saved_can_be_pasted_under_the_tests(run_id: str, tmp_path: Path) -> None:
    saved = _healer("--from-run", run_id, "--save")
    assert saved.exit_code == 0, saved.output
    path = tmp_path / "playbooks" / f"{NAME}.yaml"
    path.write_text(TEXT + "".join(f"  {line}\n" for line in saved.output.splitlines()))
    rehearsed = _healer(NAME)
    assert rehearsed.exit_code == 0, rehearsed.output
    assert rehearsed.output.splitlines()[-1] == "2 passed, 0 failed"
    assert f"as in {run_id} of 2026-03-01" in rehearsed.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((NAME, "--save"), "give --from-run ID"),
        ((NAME, "other", "--from-run", "run-0"), "--from-run plays one playbook"),
    ],
    ids=["save alone", "two playbooks"],
)
def test_what_cannot_be_meant_is_a_usage_error(run_id: str, arguments: tuple[str, ...], says: str) -> None:
    assert run_id
    result = _healer(*arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_a_run_or_a_journal_that_is_not_there_is_said(run_id: str, tmp_path: Path) -> None:
    assert run_id
    assert "run-0" in str(_healer("--from-run", "run-0").exception)
    (tmp_path / "journal.db").unlink()
    assert "see state.url" in str(_healer("--from-run", run_id).exception)
    assert not (tmp_path / "journal.db").exists()
