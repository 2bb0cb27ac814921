"""What can be wrong before anything runs: the daemon says it, a line for each problem, and ends with the right code."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from healer.sim.fleet import SimulatedFleet
from healer.sim.server import FleetServer
from tests.e2e.line import ROOT, DaemonProcess, run_healer

CONFIGURATION, OPERATION = 2, 1


@pytest.fixture(scope="module")
def fleet_url() -> Iterator[str]:
    with FleetServer(SimulatedFleet(nodes=2, gpus=1)) as server:
        yield server.url


@pytest.fixture
def deployment(tmp_path: Path, fleet_url: str) -> Path:
    """A folder with the content of the reference deployment, less its models, and a daemon that could start."""
    for name in ("detectors", "playbooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "models").mkdir()
    _configure(tmp_path, telemetry=f"{{source: scrape, interval: 1s, scrape: {{discovery: '{fleet_url}/sd'}}}}")
    return tmp_path


def _configure(folder: Path, **sections: str) -> None:
    """Writes config.yaml, one section a line."""
    base = {
        "mode": "observe",
        "telemetry": "{source: scrape}",
        "state": f"{{url: 'sqlite:///{folder / 'healer.db'}'}}",
        "http": "{listen: '127.0.0.1:0', auth: none}",
    }
    lines = [f"{name}: {text}" for name, text in {**base, **sections}.items()]
    (folder / "config.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _refused(folder: Path) -> tuple[int, list[str]]:
    """The exit code of `healer run` in the folder, and its lines on standard error."""
    done = run_healer("run", "--config", str(folder / "config.yaml"), cwd=folder, timeout_s=20.0)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("sections", "line", "said"),
    [
        ({"mod": "act"}, 5, "mod: unknown key (did you mean 'mode'?)"),
        ({"telemetry": "{source: scrape, interval: soon}"}, 2, "telemetry.interval"),
        ({"budgets": "{fleet: {max_nodes: many}}"}, 5, "budgets.fleet.max_nodes"),
        ({"mode": "[observe"}, 2, "not valid YAML"),
    ],
    ids=["unknown key", "wrong duration", "wrong type", "bad YAML"],
)
def test_a_wrong_configuration_is_one_line_with_its_place(
    deployment: Path, sections: dict[str, str], line: int, said: str
) -> None:
    _configure(deployment, **sections)
    code, (problem,) = _refused(deployment)
    assert code == CONFIGURATION
    assert problem.startswith(f"{deployment / 'config.yaml'}:{line}: ")
    assert said in problem


def test_every_problem_of_the_deployment_is_told_at_once(deployment: Path) -> None:
    (deployment / "detectors" / "ecc.py").write_text("MODES = (\n", encoding="utf-8")
    playbook = deployment / "playbooks" / "drain-node.yaml"
    playbook.write_text(playbook.read_text(encoding="utf-8").replace("node.drain", "node.drian"), encoding="utf-8")
    code, problems = _refused(deployment)
    assert code == CONFIGURATION
    assert len(problems) == 2
    assert problems[0].startswith(f"{deployment / 'detectors' / 'ecc.py'}:")
    assert problems[1].startswith(f"{playbook}")
    assert "node.drain" in problems[1]


def test_a_configuration_that_is_not_there_is_named(deployment: Path) -> None:
    (deployment / "config.yaml").unlink()
    code, (problem,) = _refused(deployment)
    assert code == CONFIGURATION
    assert problem.startswith(f"{deployment / 'config.yaml'}: ")


def test_a_secret_that_is_not_there_is_named_by_its_key(deployment: Path) -> None:
    slack = "{channel: C1, bot_token: {file: /no/such/token}, signing_secret: {env: NO_SUCH_SECRET_IS_SET}}"
    _configure(deployment, approvals=f"{{slack: {slack}}}")
    code, (problem,) = _refused(deployment)
    assert code == CONFIGURATION
    assert "approvals.slack.bot_token" in problem
    assert "/no/such/token" in problem


def test_a_journal_that_cannot_be_opened_is_one_line(deployment: Path) -> None:
    _configure(deployment, state="{url: 'sqlite:////no/such/folder/healer.db'}")
    code, (problem,) = _refused(deployment)
    assert code == OPERATION
    assert problem.startswith("healer: journal")
    assert "/no/such/folder/healer.db" in problem


def test_an_address_in_use_is_one_line(deployment: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        _configure(deployment, http=f"{{listen: '{address}', auth: none}}")
        code, (problem,) = _refused(deployment)
    assert code == OPERATION
    assert "address in use" in problem
    assert address in problem


def test_a_second_daemon_on_the_same_database_is_refused_and_the_first_goes_on(deployment: Path) -> None:
    first = DaemonProcess(deployment / "config.yaml").start()
    try:
        first.let_turns_pass(1)
        code, (problem,) = _refused(deployment)
        assert code == OPERATION
        assert "another healer is running on" in problem
        first.let_turns_pass(1)
        assert first.stop() == 0
    finally:
        first.close()
