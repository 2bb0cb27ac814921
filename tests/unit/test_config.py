"""config.yaml: strict, safe by default, secrets elsewhere, and the reference file names every key."""

from __future__ import annotations

import typing
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel

from healer.config import Config, HttpSettings, Secret, is_loopback, load_config
from healer.documents import Plain, read_document
from healer.domain.verdict import Mode
from healer.errors import InvalidDocument
from healer.schema import Section

REFERENCE = Path(__file__).parents[2] / "config.yaml"


def _config(folder: Path, text: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def _problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        _config(folder, text)
    return [
        f"{Path(p.file).name}:{p.line}: {p.key}: {p.text}" + (f" ({p.hint})" if p.hint else "")
        for p in caught.value.problems
    ]


# What stands when nothing is said


def test_an_empty_configuration_observes_and_changes_nothing(tmp_path: Path) -> None:
    config = _config(tmp_path, "")
    assert config.mode is Mode.OBSERVE
    assert config.cluster.kind == "none"
    assert config.power.agent_url is None
    assert config.agent.url is None
    assert config.http.auth == "token"
    assert is_loopback(config.http.host)


def test_nobody_may_approve_until_somebody_is_listed(tmp_path: Path) -> None:
    assert _config(tmp_path, "").approvals.approvers == ()


def test_content_is_beside_the_file_wherever_the_process_was_started(tmp_path: Path) -> None:
    config = _config(tmp_path, "playbooks: {path: ../shared/playbooks}\nmodels: {path: /srv/models}\n")
    assert config.detectors.path == tmp_path / "detectors"
    assert config.playbooks.path.resolve() == tmp_path.parent / "shared" / "playbooks"
    assert config.models.path == Path("/srv/models")


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        ("", "actions"),
        ("playbooks: {path: playbooks, actions: verbs}", "verbs"),
        ("playbooks: {path: playbooks, actions: null}", None),
        ("playbooks: {path: playbooks}", None),
    ],
    ids=["no section", "a folder", "null", "not named"],
)
def test_verbs_of_one_s_own_are_beside_the_file_too(tmp_path: Path, text: str, actions: str | None) -> None:
    assert _config(tmp_path, text).playbooks.actions == (None if actions is None else tmp_path / actions)


# What is refused


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mod: act\n", "config.yaml:1: mod: unknown key (did you mean 'mode'?)"),
        (
            "mode: act\nbudgets:\n  fleet:\n    max_node: 3\n",
            "config.yaml:4: budgets.fleet.max_node: unknown key (did you mean 'max_nodes'?)",
        ),
        ("mode: yolo\n", "config.yaml:1: mode: is one of 'observe', 'recommend' or 'act', not 'yolo'"),
        (
            "telemetry:\n  interval: 30\n",
            "config.yaml:2: telemetry.interval: 30 is not a duration; write it like 30s, 5m or 1h30m",
        ),
        ("telemetry:\n  interval: 0s\n", "config.yaml:2: telemetry.interval: must be longer than zero"),
        (
            "budgets: {fleet: {max_percent: 101}}\n",
            "config.yaml:1: budgets.fleet.max_percent: input should be less than or equal to 100, not 101",
        ),
        (
            "budgets: {rack: {max_nodes: -1}}\n",
            "config.yaml:1: budgets.rack.max_nodes: input should be greater than or equal to 0, not -1",
        ),
        (
            "topology: {rack_budget_watts: {r1: 0}}\n",
            "config.yaml:1: topology.rack_budget_watts.r1: input should be greater than 0, not 0",
        ),
        ("http: {listen: '8470'}\n", "config.yaml:1: http.listen: string should match pattern '^.+:\\d+$', not '8470'"),
        (
            "http: {listen: '0.0.0.0:8470', auth: none}\n",
            "config.yaml:1: http: auth: none is only allowed on a loopback address, not on 0.0.0.0",
        ),
        ("power: {agent_url: 'http://agents:9422/power'}\n", "config.yaml:1: power: agent_url must contain {node}"),
        ("agent: {url: 'http://agents:9422'}\n", "config.yaml:1: agent: url must contain {node}"),
        ("detectors: {clear_after: 1m}\n", "config.yaml:1: detectors.path: is missing"),
    ],
    ids=lambda value: value.splitlines()[0][:40] if "config.yaml:" not in value else "",
)
def test_a_setting_that_cannot_hold_is_refused_on_its_line(tmp_path: Path, text: str, problem: str) -> None:
    assert _problems(tmp_path, text) == [problem]


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    text = "mode: yolo\ntelemetry:\n  sourse: scrape\nstate: {url: [1]}\n"
    assert _problems(tmp_path, text) == [
        "config.yaml:1: mode: is one of 'observe', 'recommend' or 'act', not 'yolo'",
        "config.yaml:3: telemetry.sourse: unknown key (did you mean 'source'?)",
        "config.yaml:4: state.url: input should be a valid string",
    ]


@pytest.mark.parametrize("who", ["alice", "slack:", "email:alice@example.com", "*", "token:a b"])
def test_an_approver_is_named_by_a_channel_that_proves_who_it_is(tmp_path: Path, who: str) -> None:
    (problem,) = _problems(tmp_path, f"approvals:\n  approvers: ['token:bob', '{who}']\n")
    assert problem.startswith("config.yaml:2: approvals.approvers[1]: string should match pattern")


def test_groups_choose_among_the_approvers_and_may_mention_a_usergroup_of_slack(tmp_path: Path) -> None:
    text = (
        "approvals:\n  approvers: [slack:U1, token:alice]\n  groups: {oncall: [slack:U1, slack:S0ONCALL], none: []}\n"
    )
    people = _config(tmp_path, text).approvals.people()
    assert people.approvers == ("slack:U1", "token:alice")
    assert people.groups == {"oncall": ("slack:U1", "slack:S0ONCALL"), "none": ()}


@pytest.mark.parametrize(
    ("approvals", "said"),
    [
        pytest.param(
            "approvers: [token:alice], groups: {oncall: [token:alce]}",
            "groups.oncall lists token:alce, who is not in approvers: who may answer at all stands there "
            "(did you mean 'token:alice'?)",
            id="a member who is no approver",
        ),
        pytest.param(
            "groups: {oncall: [slack:U1]}",
            "groups.oncall lists slack:U1, who is not in approvers: who may answer at all stands there",
            id="a group where nobody may answer",
        ),
        pytest.param(
            "approvers: [slack:S0ONCALL]",
            "approvers lists slack:S0ONCALL, a usergroup of Slack: name its people, it stands in a group",
            id="a usergroup as an approver",
        ),
    ],
)
def test_a_group_of_others_than_approvers_is_refused(tmp_path: Path, approvals: str, said: str) -> None:
    assert _problems(tmp_path, f"approvals: {{{approvals}}}\n") == [f"config.yaml:1: approvals: {said}"]


@pytest.mark.parametrize("name", ["GPU", "token:alice", "a b"])
def test_a_group_s_name_is_no_person_s_id(tmp_path: Path, name: str) -> None:
    (problem,) = _problems(tmp_path, f"approvals:\n  groups:\n    '{name}': []\n")
    assert "approvals.groups" in problem
    assert "should match pattern" in problem


@pytest.mark.parametrize("who", ["slack:U024BE7LH", "token:alice", "local:demo"])
def test_an_approver_of_each_channel_can_be_listed(tmp_path: Path, who: str) -> None:
    assert _config(tmp_path, f"approvals: {{approvers: ['{who}']}}\n").approvals.approvers == (who,)


@pytest.mark.parametrize(
    ("slack", "says"),
    [
        ("{}", "set either bot_token (with channel) or webhook_url"),
        ("{bot_token: {env: T}, webhook_url: {env: U}, signing_secret: {env: S}}", "set either bot_token"),
        ("{bot_token: {env: T}, signing_secret: {env: S}}", "bot_token needs a channel to post to"),
        ("{bot_token: {env: T}, channel: C1}", "signing_secret is needed"),
        ("{webhook_url: {env: U}}", "signing_secret is needed"),
    ],
)
def test_slack_needs_a_way_to_post_and_a_way_to_trust_a_click(tmp_path: Path, slack: str, says: str) -> None:
    (problem,) = _problems(tmp_path, f"approvals:\n  slack: {slack}\n")
    assert problem.startswith(f"config.yaml:2: approvals.slack: {says}")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_without_authentication_the_daemon_listens_on_loopback(host: str) -> None:
    listen = f"[{host}]:8470" if ":" in host else f"{host}:8470"
    settings = HttpSettings(listen=listen, auth="none")
    assert (settings.host, settings.port) == (host, 8470)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "[::]", "healer.example", "127.0.0.1.example"])
def test_without_authentication_it_listens_nowhere_else(host: str) -> None:
    with pytest.raises(ValueError, match="auth: none is only allowed on a loopback address"):
        HttpSettings(listen=f"{host}:8470", auth="none")


# Secrets


def test_a_secret_is_read_from_its_file_without_the_newline(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cr3t\n")
    assert Secret(file=tmp_path / "token").read("power.token") == "s3cr3t"


def test_a_secret_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWER_TOKEN", "s3cr3t")
    assert Secret(env="POWER_TOKEN").read("power.token") == "s3cr3t"


def test_a_secret_that_is_missing_or_empty_is_named_by_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").write_text("\n")
    monkeypatch.delenv("POWER_TOKEN", raising=False)
    monkeypatch.setenv("EMPTY_TOKEN", "")
    for secret in (
        Secret(file=tmp_path / "gone"),
        Secret(file=tmp_path / "empty"),
        Secret(env="POWER_TOKEN"),
        Secret(env="EMPTY_TOKEN"),
    ):
        with pytest.raises(InvalidDocument, match=r"config\.yaml: power\.token: the .* is empty or missing"):
            secret.read("power.token")


def test_a_secret_file_that_is_no_text_is_named_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidDocument, match=r"power\.token: the file .*token cannot be read: not UTF-8"):
        Secret(file=tmp_path / "token").read("power.token")


@pytest.mark.parametrize("secret", ["{}", "{file: /a, env: B}"])
def test_a_secret_is_in_exactly_one_place(tmp_path: Path, secret: str) -> None:
    (problem,) = _problems(tmp_path, f"power: {{token: {secret}}}\n")
    assert problem == "config.yaml:1: power.token: a secret is either {file: PATH} or {env: NAME}"


@pytest.mark.parametrize(
    "text",
    [
        "power: {token: s3cr3t}\n",
        "approvals: {slack: {bot_token: s3cr3t, channel: C1, signing_secret: {env: S}}}\n",
        "http: {tokens: [{name: a, role: admin, token: s3cr3t}]}\n",
        "telemetry: {prometheus: {headers: {Authorization: {value: s3cr3t}}}}\n",
    ],
    ids=["power", "slack", "http", "header"],
)
def test_a_secret_that_was_written_inline_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    problems = _problems(tmp_path, text)
    assert any("known: file, env" in problem for problem in problems)
    assert not any("s3cr3t" in problem for problem in problems)


# The reference file


def test_the_reference_is_the_safe_defaults_themselves() -> None:
    written = load_config(REFERENCE).model_dump()
    for section, key in (("detectors", "path"), ("models", "path"), ("playbooks", "path"), ("playbooks", "actions")):
        written[section][key] = written[section][key].relative_to(REFERENCE.parent)
    assert written == Config().model_dump()
    assert Config().telemetry.max_age == timedelta(seconds=90)


def test_every_key_of_the_configuration_stands_in_the_reference_file() -> None:
    content = read_document(REFERENCE).content
    assert sorted(_written(content, Config)) == sorted(_known(Config))


def _known(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key that always exists: sections within lists, maps or null are shown in comments."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _known(field.annotation, f"{prefix}{name}.")
    return keys


def _written(content: Plain, model: type[BaseModel], prefix: str = "") -> list[str]:
    assert isinstance(content, dict)
    keys = []
    for name, value in content.items():
        keys.append(prefix + name)
        annotation = model.model_fields[name].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys += _written(value, annotation, f"{prefix}{name}.")
    return keys


def test_the_keys_that_the_reference_shows_only_in_comments_are_shown_there() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    optional = {model for field in _fields(Config) for model in _sections(field.annotation)}
    always = {field.annotation for field in _fields(Config)}
    for model in optional - always:
        missing = [name for name in model.model_fields if f"{name}:" not in text]
        assert missing == [], f"{model.__name__} is not documented in full"


def _fields(model: type[BaseModel]) -> list[typing.Any]:
    fields: list[typing.Any] = []
    for field in model.model_fields.values():
        fields.append(field)
        for below in _sections(field.annotation):
            fields += _fields(below)
    return fields


def _sections(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _sections(part)]


def test_an_age_below_the_interval_is_refused_since_nothing_would_be_current(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("telemetry:\n  interval: 1m\n  max_age: 30s\n")
    with pytest.raises(InvalidDocument, match=r"config.yaml:1: telemetry: max_age is shorter than interval"):
        load_config(path)
