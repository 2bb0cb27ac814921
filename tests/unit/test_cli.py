"""The command line as people and scripts meet it: help, exit codes, and one line for everything that goes wrong."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import click
import pytest

from healer import __version__
from healer.adapters.http.server import HttpServer
from healer.adapters.journal.sql import SqlJournal
from healer.cli import cli, main
from healer.config import HttpSettings
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.runtime.web.auth import ResolvedToken, Role
from tests.unit.http_samples import NOW, SetClock, fill, leading_journal, snapshot, stall

ROOT = Path(__file__).parents[2]
TOKENS = {
    "bob": ResolvedToken(Role.APPROVER, "approver-secret"),
    "viv": ResolvedToken(Role.VIEWER, "viewer-secret"),
}


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What went wrong, line by line; nothing may have been printed beside it."""
        assert self.out == ""
        return self.err.splitlines()


Healer = Callable[..., Ended]


@pytest.fixture
def healer(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> Healer:
    """`healer ...` from an empty folder, with nothing in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("HEALER_URL", "HEALER_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["healer", *map(str, arguments)])
        try:
            main()
            code: int | str | None = 0
        except SystemExit as ended:
            code = ended.code
        out, err = (stream.decode() for stream in capfdbinary.readouterr())
        return Ended(int(code or 0), out, err)

    return run


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    """A copy of the reference deployment that a test may spoil."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name in ("detectors", "playbooks", "models"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "config.yaml", folder)
    return folder


def _config(folder: Path, text: str) -> Path:
    content = ("detectors", "playbooks", "models")
    sections = "".join(f"{name}: {{path: {ROOT / name}}}\n" for name in content)
    path = folder / "config.yaml"
    path.write_text(sections + text)
    return path


# Help


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


COMMANDS = [pytest.param(path, command, id=" ".join(path)) for path, command in _commands(cli)]
LEAVES = [(path, command) for path, command in _commands(cli) if not isinstance(command, click.Group)]


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_every_command_explains_itself_and_each_of_its_options(
    healer: Healer, path: tuple[str, ...], command: click.Command
) -> None:
    ended = healer(*path, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: healer {' '.join(path)}")
    assert command.help
    for option in (parameter for parameter in command.params if isinstance(parameter, click.Option)):
        assert all(name in ended.out for name in option.opts)
        assert option.help or option.show_default, f"{option.opts} says nothing about itself"


def test_the_commands_are_those_that_work_and_none_of_later_work() -> None:
    assert sorted(" ".join(path) for path, _ in _commands(cli)) == [
        "approvals",
        "approvals list",
        "approvals show",
        "approve",
        "audit",
        "audit export",
        "audit verify",
        "backtest",
        "breaker",
        "breaker reset",
        "breaker status",
        "check",
        "demo",
        "deny",
        "incidents",
        "incidents list",
        "incidents show",
        "init",
        "model",
        "model card",
        "model list",
        "model promote",
        "model train",
        "playbook",
        "playbook lint",
        "playbook new",
        "playbook plan",
        "playbook rehearse",
        "playbook schema",
        "run",
        "runs",
        "runs cancel",
        "runs explain",
        "runs list",
        "runs pause",
        "runs resume",
        "runs show",
        "silence",
        "silence add",
        "silence expire",
        "silence list",
        "simulate",
        "status",
        "xid",
    ]


def test_every_command_that_works_with_a_deployment_takes_config() -> None:
    without = {" ".join(path) for path, command in LEAVES if "config_path" not in {p.name for p in command.params}}
    assert without == {"demo", "init", "simulate", "xid"}


def test_the_version_is_that_of_the_package(healer: Healer) -> None:
    assert healer("--version") == Ended(0, f"healer, version {__version__}\n", "")


def test_python_m_healer_is_the_same_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "healer", "run", "--config", "gone.yaml"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "gone.yaml: no such file\n")


# Usage


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Usage: healer"),
        (("chek",), "No such command 'chek'"),
        (("check", "--json"), "No such option"),
        (("check", "a", "--config", "b"), "give either FOLDER or --config"),
        (("approve",), "Missing argument 'ID'"),
        (("approve", "apr-1"), "Missing option '--reason'"),
        (("runs", "cancel", "run-1"), "Missing option '--reason'"),
        (("simulate", "--listen", "nowhere"), "'nowhere' is not HOST:PORT"),
        (("simulate", "--gpus", "0"), "0 is not in the range"),
        (("demo", "--duration", "soon"), "'soon' is not a duration; write it like 30s, 5m or 1h30m"),
        (("demo", "--duration", "0s"), "'0s' is not longer than zero"),
        (("backtest",), "Missing option '--start'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_cannot_be_understood_ends_with_2(healer: Healer, arguments: tuple[str, ...], says: str) -> None:
    ended = healer(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


START, END = "2026-11-20T18:00:00Z", "2026-11-20T19:00:00Z"


@pytest.mark.parametrize(
    ("start", "end", "step", "says"),
    [
        ("yesterday", END, "30s", "'yesterday' is not a time; write it like 2026-11-20T18:00:00Z"),
        ("2026-11-20T18:00:00", END, "30s", "names no time zone; append Z for UTC"),
        (END, START, "30s", "--end 2026-11-20T18:00:00Z is not after --start"),
        (START, START, "30s", "is not after --start"),
        (START, END, "30", "'30' is not a duration"),
        (START, END, "0s", "'0s' is not longer than zero"),
    ],
    ids=["no time", "no zone", "ends before", "ends at once", "no unit", "no step"],
)
def test_a_backtest_over_no_time_at_all_is_a_usage_error(
    healer: Healer, start: str, end: str, step: str, says: str
) -> None:
    ended = healer("backtest", "--start", start, "--end", end, "--step", step)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--mode", "act"), "say how changed playbooks are compared: give --playbooks"),
        (("--answer-after", "5m"), "say how changed playbooks are compared: give --playbooks"),
        (("--playbooks", "gone.yaml"), "'gone.yaml' does not exist"),
        (("--playbooks", "."), "there is no *.yaml in ."),
        (("--playbooks", ".", "--mode", "observe"), "'observe' is not one of"),
    ],
    ids=["a mode alone", "an answer alone", "no such file", "an empty folder", "observe"],
)
def test_a_comparison_with_nothing_is_a_usage_error(healer: Healer, arguments: tuple[str, ...], says: str) -> None:
    ended = healer("backtest", "--start", START, "--end", END, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


def test_a_backtest_whose_history_does_not_answer_ends_with_1(healer: Healer, tmp_path: Path) -> None:
    config = _config(tmp_path, f"telemetry: {{prometheus: {{url: 'http://127.0.0.1:{_free_port()}', timeout: 1s}}}}\n")
    ended = healer("backtest", "--start", START, "--end", END, "--config", config)
    assert (ended.code, ended.out) == (1, "")
    assert "healer: " in ended.err
    assert "Traceback" not in ended.err


# check and init


def test_check_says_what_a_deployment_consists_of(healer: Healer, deployment: Path) -> None:
    ended = healer("check", deployment)
    assert (ended.code, ended.err) == (0, "")
    assert f"{deployment / 'config.yaml'}: mode observe" in ended.out
    detectors = sorted(file.stem for file in (deployment / "detectors").glob("*.py"))
    assert f"{len(detectors)} detectors: {', '.join(detectors)}\n" in ended.out
    assert "GpuUncorrectableEcc: drain-node" in ended.out
    assert ended.out.endswith("\nok\n")
    assert healer("check", "--config", deployment / "config.yaml").out == ended.out


def test_check_without_a_folder_looks_here_first(
    healer: Healer, deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(deployment)
    (deployment / "config.yaml").write_text("mode: yolo\n")
    ended = healer("check")
    assert ended.code == 2
    assert ended.lines[0].startswith("config.yaml:1: mode: is one of")


def test_check_names_every_mistake_of_a_configuration(healer: Healer, deployment: Path) -> None:
    path = deployment / "config.yaml"
    path.write_text(
        path.read_text()
        .replace("mode: observe ", "mode: yolo    ")
        .replace("  interval: 30s", "  interval: 30x")
        .replace("floor_watts", "flor_watts")
    )
    lines = path.read_text().splitlines()
    where = {key: 1 + next(i for i, line in enumerate(lines) if key in line) for key in ("mode:", "30x", "flor_watts")}
    ended = healer("check", deployment)
    assert ended.code == 2
    assert [line.split(" ")[0] + " " + line.split(" ")[1] for line in ended.lines] == [
        f"{path}:{where['mode:']}: mode:",
        f"{path}:{where['30x']}: telemetry.interval:",
        f"{path}:{where['flor_watts']}: power.flor_watts:",
    ]


def test_check_names_every_mistake_of_all_content(healer: Healer, deployment: Path) -> None:
    (deployment / "detectors" / "bad.py").write_text("import os\n1 / 0\n")
    (deployment / "detectors" / "worse.py").write_text("raise SystemExit(0)\n")
    (deployment / "models" / "gpu_anomaly" / "card.md").unlink()
    (deployment / "playbooks" / "typo.yaml").write_text("name: typo\ntarget: nod\n")
    ended = healer("check", deployment)
    assert ended.code == 2
    shown = [line.replace(f"{deployment}/", "").split(" ")[:2] for line in ended.lines]
    assert shown == [
        ["detectors/bad.py:2:", "cannot"],
        ["detectors/worse.py:1:", "cannot"],
        ["models/gpu_anomaly/card.md:", "is"],
        ["playbooks/typo.yaml:1:", "description:"],
        ["playbooks/typo.yaml:2:", "target:"],
        ["playbooks/typo.yaml:1:", "resolves_when:"],
        ["playbooks/typo.yaml:1:", "steps:"],
    ]


def test_check_names_an_unknown_verb_in_the_file_where_it_stands(healer: Healer, deployment: Path) -> None:
    text = (deployment / "playbooks" / "drain-node.yaml").read_text()
    renamed = deployment / "playbooks" / "my-own.yaml"
    renamed.write_text(text.replace("name: drain-node", "name: drain-twice").replace("node.drain", "node.drian"))
    line = 1 + renamed.read_text().splitlines().index("    use: node.drian")
    ended = healer("check", deployment)
    assert ended.code == 2
    assert ended.lines == [
        f"{renamed}:{line}: steps[1].use: there is no verb 'node.drian' (did you mean 'node.drain'?)"
    ]


def test_a_configuration_that_is_not_there_ends_with_2_for_every_command(healer: Healer) -> None:
    for command in (["check"], ["status"], ["audit", "verify"], ["model", "list"]):
        ended = healer(*command, "--config", "gone.yaml")
        assert (ended.code, ended.lines) == (2, ["gone.yaml: no such file"])


def test_init_writes_the_four_names_and_check_passes_on_them(healer: Healer, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "site"
    ended = healer("init", folder)
    assert (ended.code, ended.err) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "detectors", "models", "playbooks"]
    assert list(folder.rglob("__pycache__")) == []
    assert healer("check", folder).code == 0


@pytest.mark.parametrize("name", ["config.yaml", "detectors", "playbooks", "models"])
def test_init_overwrites_nothing(healer: Healer, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "site"
    (folder / name).mkdir(parents=True)
    ended = healer("init", folder)
    assert (ended.code, ended.lines) == (1, [f"healer: {folder} already has {name}; nothing was written"])
    assert [path.name for path in folder.iterdir()] == [name]


# model


def test_models_are_listed_with_their_version_and_metrics(healer: Healer, deployment: Path) -> None:
    config = deployment / "config.yaml"
    (model,) = json.loads(healer("model", "list", "--json", "--config", config).out)
    manifest = json.loads((deployment / "models" / "gpu_anomaly" / model["version"] / "manifest.json").read_text())
    assert model == {"name": "gpu_anomaly", **manifest}
    table = healer("model", "list", "--config", config).out.splitlines()
    assert table[0].split() == ["MODEL", "VERSION", "TRAINED", "METRIC"]
    assert len(table) == 1 + len(model["metrics"])


def test_the_card_of_a_model_is_printed_as_it_is(healer: Healer, deployment: Path) -> None:
    ended = healer("model", "card", "gpu_anomaly", "--config", deployment / "config.yaml")
    assert (ended.code, ended.out) == (0, (deployment / "models" / "gpu_anomaly" / "card.md").read_text() + "\n")


def test_a_model_without_a_card_and_one_that_is_not_there_end_with_1(healer: Healer, deployment: Path) -> None:
    config = deployment / "config.yaml"
    (deployment / "models" / "gpu_anomaly" / "card.md").unlink()
    assert healer("model", "card", "gpu_anomaly", "--config", config).code == 1
    ended = healer("model", "card", "zzz", "--config", config)
    assert (ended.code, ended.lines) == (1, [f"healer: model: there is no model zzz in {deployment / 'models'}"])


def test_only_a_version_that_is_there_is_promoted(healer: Healer, deployment: Path) -> None:
    config, folder = deployment / "config.yaml", deployment / "models" / "gpu_anomaly"
    before = (folder / "CURRENT").read_text().strip()
    assert healer("model", "promote", "gpu_anomaly", "v0", "--config", config).lines == [
        "healer: model: gpu_anomaly has no version v0"
    ]
    shutil.copytree(folder / before, folder / "v90")
    ended = healer("model", "promote", "gpu_anomaly", "v90", "--config", config)
    assert (ended.code, ended.out) == (0, f"gpu_anomaly: {before} -> v90\n")
    assert (folder / "CURRENT").read_text() == "v90\n"


# audit


@pytest.fixture
def audited(tmp_path: Path) -> Path:
    """The configuration of a deployment whose audit log has three entries."""
    journal = leading_journal(tmp_path)
    with journal.transaction() as write:
        write.audit(NOW, "healer", "incident.open", "inc-1", reason="2 errors", detail={"component": "gpu/A"})
        write.audit(NOW, "slack:U1", "approval.approved", "apr-1", reason="go", detail={"digest": "5f"})
        write.audit(NOW + timedelta(seconds=1), "healer", "run.started", "run-1")
    journal.close()
    return _config(tmp_path, f"state: {{url: 'sqlite:///{tmp_path / 'journal.db'}'}}\n")


def test_an_untouched_log_is_unbroken(healer: Healer, audited: Path) -> None:
    ended = healer("audit", "verify", "--config", audited)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("3 entries, unbroken, the last is ")


@pytest.mark.parametrize(
    ("tampering", "broken"),
    [
        ("update audit set reason = 'no' where number = 2", "entry 2: approval.approved apr-1"),
        ("update audit set actor = 'slack:U2' where number = 2", "entry 2: approval.approved apr-1"),
        ("update audit set detail = '{}' where number = 1", "entry 1: incident.open inc-1"),
        ("delete from audit where number = 1", "entry 2: approval.approved apr-1"),
        ("delete from audit where number = 2", "entry 3: run.started run-1"),
        ("update audit set number = 9 where number = 3", "entry 9: run.started run-1"),
    ],
    ids=["reason", "actor", "detail", "first removed", "one removed", "renumbered"],
)
def test_a_log_that_somebody_changed_is_broken_where_they_did(
    healer: Healer, audited: Path, tmp_path: Path, tampering: str, broken: str
) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as database:
        changed = database.execute(tampering).rowcount
    database.close()
    assert changed == 1
    ended = healer("audit", "verify", "--config", audited)
    assert (ended.code, ended.lines) == (1, [f"healer: the audit log is broken at {broken}"])


def test_the_log_is_exported_as_json_lines_oldest_first(healer: Healer, audited: Path) -> None:
    ended = healer("audit", "export", "--config", audited)
    entries = [json.loads(line) for line in ended.out.splitlines()]
    assert [entry["number"] for entry in entries] == [1, 2, 3]
    assert (entries[1]["actor"], entries[1]["action"], entries[1]["detail"]) == (
        "slack:U1",
        "approval.approved",
        {"digest": "5f"},
    )
    assert entries[0]["at"].startswith("2026-03-14T03:07:09")


@pytest.mark.parametrize("command", ["verify", "export"])
def test_a_log_that_is_not_there_is_not_an_unbroken_one(healer: Healer, tmp_path: Path, command: str) -> None:
    config = _config(tmp_path, f"state: {{url: 'sqlite:///{tmp_path / 'gone.db'}'}}\n")
    ended = healer("audit", command, "--config", config)
    assert (ended.code, ended.lines) == (
        1,
        [f"healer: journal: there is no {tmp_path / 'gone.db'}; see state.url"],
    )
    assert not (tmp_path / "gone.db").exists()


# The commands that ask a running daemon


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("incidents",),
        ("approvals", "list"),
        ("runs", "show", "run-1"),
        ("approve", "apr-1", "--reason", "x"),
        ("silence", "add", "rack=r7", "--reason", "x"),
    ],
    ids=" ".join,
)
def test_where_no_daemon_listens_it_is_one_line_and_1(healer: Healer, tmp_path: Path, command: tuple[str, ...]) -> None:
    port = _free_port()
    config = _config(tmp_path, f"http: {{listen: '127.0.0.1:{port}'}}\n")
    ended = healer(*command, "--config", config)
    assert ended.code == 1
    assert ended.lines == [
        f"healer: http://127.0.0.1:{port}: no healer answers there (ConnectionError); is it running? --url"
    ]


@dataclass(frozen=True)
class Running:
    url: str
    journal: SqlJournal


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Running]:
    """The API of a daemon with a pending approval apr-1 and a running run run-1."""
    journal = leading_journal(tmp_path)
    fill(journal)
    app = build_app(
        journal=journal,
        board=Board(snapshot()),
        clock=SetClock(),
        approvers=("token:bob",),
        http=HttpSettings(listen="127.0.0.1:0"),
        tokens=TOKENS,
        slack=None,
    )
    server = HttpServer(app, "127.0.0.1", 0)
    yield Running(f"http://127.0.0.1:{server.start()}", journal)
    server.stop()
    journal.close()


def _as(monkeypatch: pytest.MonkeyPatch, daemon: Running, name: str = "bob") -> None:
    environment: Mapping[str, str] = {"HEALER_URL": daemon.url, "HEALER_TOKEN": TOKENS[name].secret}
    for key, value in environment.items():
        monkeypatch.setenv(key, value)


def test_the_status_counts_what_is_open(healer: Healer, daemon: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    _as(monkeypatch, daemon)
    status = json.loads(healer("status", "--json").out)
    assert (status["nodes"], status["open_incidents"], status["waiting_for_approval"], status["active_runs"]) == (
        8,
        3,
        1,
        1,
    )
    assert "waiting for approval" in healer("status").out


@pytest.mark.parametrize(("noun", "item"), [("incidents", None), ("approvals", "apr-1"), ("runs", "run-1")])
def test_what_there_is_can_be_listed_and_shown(
    healer: Healer, daemon: Running, monkeypatch: pytest.MonkeyPatch, noun: str, item: str | None
) -> None:
    _as(monkeypatch, daemon)
    items = json.loads(healer(noun, "list", "--json").out)
    assert items == json.loads(healer(noun, "--json").out)
    table = healer(noun).out
    assert healer(noun, "list").out == table
    assert all(each["id"] in table for each in items)
    wanted = item or items[0]["id"]
    assert json.loads(healer(noun, "show", wanted, "--json").out)["id"] == wanted
    missing = healer(noun, "show", "zzz")
    assert missing.code == 1
    assert len(missing.lines) == 1


def test_an_incident_is_shown_in_words_unless_json_is_asked_for(
    healer: Healer, daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as(monkeypatch, daemon)
    with daemon.journal.transaction() as write:
        write.save_incident(stall())
    shown = healer("incidents", "show", stall().id)
    assert (shown.code, shown.err) == (0, "")
    assert "  culprit    GPU 2 of node-03 (rack-0)\n" in shown.out
    row = next(line for line in healer("incidents").out.splitlines() if line.startswith(stall().id))
    assert "GPU 2 of node-03 (rack-0)" in row
    assert "llm-pretrain, chat-eval" in row


def test_the_options_of_a_group_hold_for_its_commands(healer: Healer, daemon: Running) -> None:
    secret = TOKENS["bob"].secret
    ended = healer("runs", "--url", daemon.url, "--token", secret, "show", "run-1")
    assert (ended.code, json.loads(ended.out)["id"]) == (0, "run-1")
    other = healer("runs", "--url", "http://127.0.0.1:1", "show", "run-1", "--url", daemon.url, "--token", secret)
    assert other.code == 0


def test_a_person_who_may_answers_once(healer: Healer, daemon: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    _as(monkeypatch, daemon)
    ended = healer("approve", "apr-1", "--reason", "seen on the BMC")
    assert (ended.code, ended.out) == (0, "apr-1 is approved\n")
    decided = daemon.journal.approval("apr-1")
    assert decided.decided_by is not None
    assert (decided.decided_by.id, decided.reason) == ("token:bob", "seen on the BMC")
    again = healer("deny", "apr-1", "--reason", "changed my mind")
    assert again.code == 1
    assert "already approved" in again.lines[0]


def test_of_a_yes_that_is_not_the_last_one_needed_it_says_how_many_more_are(
    healer: Healer, daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as(monkeypatch, daemon)
    with daemon.journal.transaction() as write:
        write.change_approval("apr-1", lambda approval: replace(approval, quorum=2))
    ended = healer("approve", "apr-1", "--reason", "seen on the BMC")
    assert (ended.code, ended.out) == (
        0,
        "apr-1: 1 of 2 have agreed; 1 more has to agree before 2026-03-14 03:35:09Z\n",
    )
    shown = healer("approvals", "show", "apr-1")
    assert "  agreed     1 of 2 have agreed\n" in shown.out
    again = healer("approve", "apr-1", "--reason", "once more")
    assert again.code == 1
    assert "another person is needed" in again.lines[0]


def test_a_person_who_may_not_is_told_so(healer: Healer, daemon: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    _as(monkeypatch, daemon, "viv")
    for command in (("approve", "apr-1"), ("deny", "apr-1"), ("runs", "cancel", "run-1")):
        ended = healer(*command, "--reason", "x")
        assert ended.code == 1
        assert len(ended.lines) == 1
    monkeypatch.setenv("HEALER_TOKEN", "a guess")
    assert healer("status").code == 1


def test_a_run_is_paused_and_resumed_and_says_so(
    healer: Healer, daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as(monkeypatch, daemon)
    ended = healer("runs", "pause", "run-1", "--reason", "let me look")
    assert (ended.code, ended.out) == (0, "run-1 is paused; healer runs resume run-1 --reason TEXT lets it go on\n")
    assert "let me look; healer runs resume run-1" in healer("runs", "explain", "run-1").out
    assert healer("runs", "resume", "run-1", "--reason", "all is well").out == "run-1 goes on\n"
    assert "paused" not in healer("runs", "explain", "run-1").out
    assert "is not paused" in healer("runs", "resume", "run-1", "--reason", "again").err


def test_a_run_is_cancelled_by_name_and_reason(
    healer: Healer, daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as(monkeypatch, daemon)
    ended = healer("runs", "cancel", "run-1", "--reason", "wrong node")
    assert (ended.code, ended.out) == (0, "run-1 is being undone\n")
    assert "wrong node" in daemon.journal.run("run-1").cancelled_by
