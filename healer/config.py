"""config.yaml: parsed once into frozen, typed settings; each part of the daemon gets its own small section."""

from __future__ import annotations

import ipaddress
import os
import re
from datetime import timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, PlainSerializer, PlainValidator

from healer.documents import nearest, read_document
from healer.domain.finding import FailureMode
from healer.domain.maintenance import MaintenanceWindow, Once, Period, Weekly, parse_weekly
from healer.domain.matcher import Matcher, checked_matchers, matchers_in
from healer.domain.people import People, is_usergroup
from healer.domain.verdict import Mode
from healer.errors import InvalidDocument, Problem
from healer.schema import Duration, GroupName, Member, Moment, Section, validated
from healer.telemetry.identity import NODE_LABELS, TopologyRules
from healer.telemetry.nccl.file_names import DUMP_NAMES, LOG_NAMES, FileNames
from healer.telemetry.places.kube import NodeLabels
from healer.telemetry.places.slurm import NodeWords
from healer.telemetry.xids.of_gpus import NODE_FOLDERS, LogNames

_SLURM_WORDS = NodeWords()


class Secret(Section):
    """Where a secret is: `{file: PATH}` or `{env: NAME}`. The value itself is never in the configuration."""

    file: Path | None = None
    env: str | None = None

    def model_post_init(self, _context: object) -> None:
        if (self.file is None) == (self.env is None):
            raise ValueError("a secret is either {file: PATH} or {env: NAME}")

    def read(self, key: str) -> str:
        """The secret's value. Raises InvalidDocument naming the key when it is not there."""
        if self.file is not None:
            where = f"the file {self.file}"
            value = _read_secret(self.file, key)
        else:
            where = f"the environment variable {self.env}"
            value = os.environ.get(str(self.env), "")
        if not value:
            raise InvalidDocument(
                Problem("config.yaml", 0, key, f"{where} is empty or missing", "put the secret there")
            )
        return value


def _matchers(given: object) -> tuple[Matcher, ...]:
    return checked_matchers(matchers_in(given))


def _texts(matchers: tuple[Matcher, ...]) -> list[str]:
    return [str(matcher) for matcher in matchers]


def _weekly(given: object) -> Weekly:
    return given if isinstance(given, Weekly) else parse_weekly(str(given), _zone)


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}; write it like UTC or Europe/Berlin") from None


class PrometheusSettings(Section):
    url: str = "http://localhost:9090"
    headers: dict[str, str | Secret] = Field(default_factory=dict)
    tenant: str | None = None
    query: dict[str, str] = Field(default_factory=dict)
    timeout: Duration = timedelta(seconds=10)


class DnsTargetsSettings(Section):
    """Attributes:
    port: where the exporters listen; SRV records say so themselves.
    """

    name: str
    type: Literal["A", "AAAA", "SRV"] = "SRV"
    port: Annotated[int, Field(gt=0, lt=65536)] | None = None

    def model_post_init(self, _context: object) -> None:
        if (self.port is None) != (self.type == "SRV"):
            raise ValueError("port is needed for A and AAAA records, and stands in SRV records themselves")


class KubernetesTargetsSettings(Section):
    """Attributes:
    namespace: null looks in all of them.
    port: its number, or its name in the pod.
    """

    namespace: str | None = None
    selector: str = "app.kubernetes.io/name=dcgm-exporter"
    port: int | str = 9400


class ScrapeSettings(Section):
    """Attributes:
    discovery: the URL of a service discovery in Prometheus' http_sd form.
    files: in Prometheus' file_sd form; `*` stands for any part of a name.
    kubernetes: exporters that run as pods, through the connection of cluster.kubernetes.
    """

    targets: tuple[str, ...] = ()
    discovery: str | None = None
    files: tuple[str, ...] = ()
    dns: tuple[DnsTargetsSettings, ...] = ()
    kubernetes: KubernetesTargetsSettings | None = None
    timeout: Duration = timedelta(seconds=5)


class RemoteWriteSettings(Section):
    """Attributes:
    max_series: further ones are refused, and said; each takes about a hundred bytes.
    """

    max_series: Annotated[int, Field(gt=0)] = 6_000_000


class AlertsSettings(Section):
    """Alertmanager's webhook.

    Attributes:
        modes: which failure mode an alert means, by its name; the label `healer_failure_mode` says it by itself.
        expires_after: what fires and was not repeated for so long is unknown; longer than Alertmanager's
            repeat_interval.
    """

    receive: bool = False
    modes: dict[str, FailureMode] = Field(default_factory=dict)
    expires_after: Duration = timedelta(hours=5)


class NcclRasSettings(Section):
    """Attributes:
    address: where NCCL's RAS of a node's job listens; null does not ask.
    """

    address: str | None = None
    timeout: Duration = timedelta(seconds=15)

    def model_post_init(self, _context: object) -> None:
        if self.address is not None and not re.fullmatch(r".*\{node\}.*:\d{1,5}", self.address):
            raise ValueError("address must contain {node} and a port, as in {node}:28028")


class NcclFilesSettings(Section):
    """Attributes:
    files: patterns of paths, as in a shell; `**` stands for any folders.
    pattern: a regular expression, searched in the path, with named groups job, rank and node; without job it is
        the folder's name.
    """

    files: tuple[str, ...] = ()
    pattern: str

    def model_post_init(self, _context: object) -> None:
        self.names()

    def names(self) -> FileNames:
        return FileNames(self.pattern)


class FlightRecorderSettings(NcclFilesSettings):
    pattern: str = DUMP_NAMES

    def model_post_init(self, _context: object) -> None:
        if not self.names().tells_rank:
            raise ValueError("pattern needs a group rank, as in rank_(?P<rank>\\d+)")


class NcclLogsSettings(NcclFilesSettings):
    pattern: str = LOG_NAMES


class NcclSettings(Section):
    """What jobs say from inside about a stalled collective."""

    ras: NcclRasSettings = NcclRasSettings()
    flight_recorder: FlightRecorderSettings = FlightRecorderSettings()
    logs: NcclLogsSettings = NcclLogsSettings()


class KernelLogSettings(Section):
    """Kernel logs of the nodes, where a log host collects them.

    Attributes:
        files: patterns of paths, as in a shell; `**` stands for any folders.
        pattern: a regular expression, searched in the path, with the group node; where it finds nothing, the host in
            the line counts.
    """

    files: tuple[str, ...] = ()
    pattern: str = NODE_FOLDERS

    def model_post_init(self, _context: object) -> None:
        self.names()

    def names(self) -> LogNames:
        return LogNames(self.pattern)


class TelemetrySettings(Section):
    source: Literal["prometheus", "scrape", "remote_write", "simulator"] = "prometheus"
    interval: Duration = timedelta(seconds=30)
    max_age: Duration = timedelta(seconds=90)
    window: Duration = timedelta(minutes=10)
    prometheus: PrometheusSettings = PrometheusSettings()
    scrape: ScrapeSettings = ScrapeSettings()
    remote_write: RemoteWriteSettings = RemoteWriteSettings()
    alerts: AlertsSettings = AlertsSettings()
    nccl: NcclSettings = NcclSettings()
    kernel_log: KernelLogSettings = KernelLogSettings()

    def model_post_init(self, _context: object) -> None:
        if self.max_age < self.interval:
            raise ValueError("max_age is shorter than interval: between two turns everything would be unknown")


class KubernetesTopologySettings(Section):
    """Which node labels say where a node is; of each list the first that a node has. Empty takes the usual ones."""

    rack: tuple[str, ...] = ()
    feed: tuple[str, ...] = ()
    nvlink_domain: tuple[str, ...] = ()
    switch: tuple[str, ...] = ()

    def labels(self) -> NodeLabels:
        return NodeLabels(**{part: names for part, names in self if names})


class SlurmTopologySettings(Section):
    """Attributes:
    programs: the folder of scontrol, sinfo and squeue, where they are not on the PATH.
    config: slurm.conf, where it is not where Slurm looks for it.
    rack, feed, nvlink_domain, switch: expressions with one group, tried on a node's features, `extra` and `comment`.
    """

    programs: Path | None = None
    config: Path | None = None
    timeout: Duration = timedelta(seconds=30)
    rack: str = _SLURM_WORDS.rack
    feed: str = _SLURM_WORDS.feed
    nvlink_domain: str = _SLURM_WORDS.nvlink_domain
    switch: str = _SLURM_WORDS.switch

    def model_post_init(self, _context: object) -> None:
        self.words()

    def words(self) -> NodeWords:
        return NodeWords(self.rack, self.feed, self.nvlink_domain, self.switch)


class TopologySettings(Section):
    """Who knows where a GPU is, and whose: the file, then `source`, then labels for what those leave open.

    Attributes:
        file: racks and feeds that no scheduler knows; may stand beside any source.
        every: how often the scheduler is asked.
    """

    source: Literal["labels", "file", "kubernetes", "kube_state_metrics", "slurm"] = "labels"
    file: Path | None = None
    every: Duration = timedelta(minutes=1)
    kubernetes: KubernetesTopologySettings = KubernetesTopologySettings()
    slurm: SlurmTopologySettings = SlurmTopologySettings()
    node_labels: tuple[str, ...] = NODE_LABELS
    rack_label: str = "rack"
    feed_label: str = "power_feed"
    nvlink_domain_label: str = "nvlink_domain"
    switch_label: str = "switch"
    job_labels: tuple[str, ...] = ("hpc_job", "job_name")
    rack_power: str = "rack_power_watts"
    rack_budget_watts: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)

    def model_post_init(self, _context: object) -> None:
        if self.source == "file" and self.file is None:
            raise ValueError("source: file needs file: PATH")

    def rules(self) -> TopologyRules:
        return TopologyRules(
            node_labels=self.node_labels,
            rack_label=self.rack_label,
            feed_label=self.feed_label,
            nvlink_domain_label=self.nvlink_domain_label,
            switch_label=self.switch_label,
            job_labels=self.job_labels,
            rack_power=self.rack_power,
            rack_budget_w=self.rack_budget_watts,
        )


class ContentSettings(Section):
    """A folder of content, and overrides of its parts' own settings by part name."""

    path: Path
    settings: dict[str, dict[str, bool | int | float | str]] = Field(default_factory=dict)
    disabled: tuple[str, ...] = ()


class SilencesSettings(Section):
    """How long what people silence is left alone.

    Attributes:
        lasts: when nothing else is said.
        longest: no silence, and no window that is once, lasts longer.
    """

    lasts: Duration = timedelta(hours=2)
    longest: Duration = timedelta(days=30)

    def model_post_init(self, _context: object) -> None:
        if self.longest > timedelta(days=366):
            raise ValueError("longest is more than 366d: that is for ever")
        if self.lasts > self.longest:
            raise ValueError("lasts is longer than longest")


class MaintenanceSettings(Section):
    """A silence that is known beforehand: once, from `start` to `end`, or `every` week.

    Attributes:
        match: names by label, {rack: r7}, or a list of matchers, ['rack=~"r[12]"', node!=n3].
        every: days, local times and their time zone: Sun 02:00-06:00 Europe/Berlin.
        reason: for who wonders why nothing is done.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
    match: Annotated[tuple[Matcher, ...], PlainValidator(_matchers), PlainSerializer(_texts)]
    start: Moment | None = None
    end: Moment | None = None
    every: Annotated[Weekly, PlainValidator(_weekly), PlainSerializer(str)] | None = None
    reason: str = "planned maintenance"

    def model_post_init(self, _context: object) -> None:
        self.window()

    def window(self) -> MaintenanceWindow:
        return MaintenanceWindow(self.name, self.match, self._schedule(), self.reason)

    def _schedule(self) -> Once | Weekly:
        if self.every is not None and self.start is None and self.end is None:
            return self.every
        if self.every is not None or self.start is None or self.end is None:
            raise ValueError("a window is either start and end, or every")
        if self.end <= self.start:
            raise ValueError("end is not after start")
        return Once(Period(self.start, self.end))


class DetectorsSettings(ContentSettings):
    """Attributes:
    clear_after: a component is healthy again when it was observed healthy for this long.
    maintenance: when what is found is expected, and is recorded, but neither asked about nor acted upon.
    """

    clear_after: Duration = timedelta(minutes=2)
    silences: SilencesSettings = SilencesSettings()
    maintenance: tuple[MaintenanceSettings, ...] = ()

    def model_post_init(self, _context: object) -> None:
        names = [window.name for window in self.maintenance]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"maintenance has two windows of the name {twice}")
        for window in self.windows():
            once = window.schedule if isinstance(window.schedule, Once) else None
            if once is not None and once.period.end - once.period.start > self.silences.longest:
                raise ValueError(f"the maintenance window {window.name} is longer than silences.longest")

    def windows(self) -> tuple[MaintenanceWindow, ...]:
        return tuple(settings.window() for settings in self.maintenance)


class PlaybooksSettings(Section):
    """Attributes:
    actions: the folder of the deployment's own verbs; None, or one that is not there, has none. No file is run that
        the configuration does not lead to: a section without it has None.
    params: values for the params that playbooks declare, by playbook and param.
    """

    path: Path
    actions: Path | None = None
    params: dict[str, dict[str, bool | int | float | str]] = Field(default_factory=dict)
    disabled: tuple[str, ...] = ()


class BudgetSettings(Section):
    """How many nodes of a scope may be out of service at once, whoever took them out.

    The smaller of `max_nodes` and `max_percent` (rounded down) holds, but at least `at_least` nodes are allowed.
    """

    max_nodes: Annotated[int, Field(ge=0)] = 10
    max_percent: Annotated[float, Field(ge=0, le=100)] = 10.0
    at_least: Annotated[int, Field(ge=0)] = 1


class BreakerSettings(BudgetSettings):
    """When so many nodes ask to be taken out at once that the nodes are not what is wrong, and a person must look.

    Attributes:
        max_nodes, max_percent, at_least: as of a budget; more nodes than these open the breaker.
        together: so many nodes of one rack, power feed, leaf switch or driver open it too; 0 for never.
        within: counted are the nodes of incidents that were opened within this time.
    """

    max_percent: Annotated[float, Field(ge=0, le=100)] = 5.0
    at_least: Annotated[int, Field(ge=0)] = 3
    together: Annotated[int, Field(ge=0)] = 4
    within: Duration = timedelta(minutes=10)


class BudgetsSettings(Section):
    """Attributes:
    feed: of the nodes on one power feed.
    pool: of the nodes with one value of the scheduler's pool label.
    job: of the nodes that one job runs on.
    """

    fleet: BudgetSettings = BudgetSettings()
    rack: BudgetSettings = BudgetSettings(max_nodes=2, max_percent=25.0)
    feed: BudgetSettings = BudgetSettings(max_nodes=4, max_percent=25.0)
    pool: BudgetSettings = BudgetSettings(max_percent=25.0)
    job: BudgetSettings = BudgetSettings(max_nodes=4, max_percent=25.0)
    breaker: BreakerSettings = BreakerSettings()


class SlackSettings(Section):
    """A bot token with a channel, or an incoming webhook (whose messages cannot be updated afterwards)."""

    bot_token: Secret | None = None
    channel: str | None = None
    webhook_url: Secret | None = None
    signing_secret: Secret | None = None
    api_url: str = "https://slack.com/api/"

    def model_post_init(self, _context: object) -> None:
        if (self.bot_token is None) == (self.webhook_url is None):
            raise ValueError("set either bot_token (with channel) or webhook_url")
        if self.bot_token is not None and not self.channel:
            raise ValueError("bot_token needs a channel to post to")
        if self.signing_secret is None:
            raise ValueError("signing_secret is needed: without it no click can be trusted")


class ApprovalSettings(Section):
    """Who may answer, by the id that their channel authenticates: `slack:U024BE7LH` or `token:alice`.

    Nobody is listed by default, and then nobody may: an empty list never means everyone.

    Attributes:
        approvers: all who may ever answer.
        groups: of them, for playbooks to choose among; a usergroup of Slack (`slack:S...`) is mentioned, no more.
    """

    approvers: tuple[Member, ...] = ()
    groups: dict[GroupName, tuple[Member, ...]] = Field(default_factory=dict)
    slack: SlackSettings | None = None

    def model_post_init(self, _context: object) -> None:
        for member in filter(is_usergroup, self.approvers):
            raise ValueError(f"approvers lists {member}, a usergroup of Slack: name its people, it stands in a group")
        for name, members in self.groups.items():
            for member in members:
                if member not in self.approvers and not is_usergroup(member):
                    hint = nearest(member, self.approvers)
                    text = f"groups.{name} lists {member}, who is not in approvers: who may answer at all stands there"
                    raise ValueError(text + (f" ({hint})" if hint else ""))

    def people(self) -> People:
        return People(self.approvers, self.groups)


class KubernetesSettings(Section):
    kubeconfig: Path | None = None
    context: str | None = None
    node_selector: str = ""
    rack_label: str | None = None
    pool_label: str | None = None
    timeout: Duration = timedelta(seconds=10)


class ClusterSettings(Section):
    kind: Literal["none", "simulated", "kubernetes"] = "none"
    kubernetes: KubernetesSettings = KubernetesSettings()


class PowerSettings(Section):
    """How power limits are set: through the node agents.

    Attributes:
        agent_url: with `{node}` in it, for example http://{node}:9422/power.
        floor_watts: no cap goes below this, whatever the device allows.
    """

    agent_url: str | None = None
    token: Secret | None = None
    floor_watts: Annotated[float, Field(gt=0)] = 300.0
    timeout: Duration = timedelta(seconds=5)

    def model_post_init(self, _context: object) -> None:
        if self.agent_url is not None and "{node}" not in self.agent_url:
            raise ValueError("agent_url must contain {node}")


class AgentSettings(Section):
    """The node agents: what resets a GPU, reboots its node, tests its devices and puts evidence aside.

    Attributes:
        url: with `{node}` in it, for example http://{node}:9422.
    """

    url: str | None = None
    token: Secret | None = None
    timeout: Duration = timedelta(seconds=5)

    def model_post_init(self, _context: object) -> None:
        if self.url is not None and "{node}" not in self.url:
            raise ValueError("url must contain {node}")


class TicketsSettings(Section):
    """Where a person is handed what healer can do no more about: files in a folder, or POSTs to a URL.

    Attributes:
        folder: made when it is needed.
        url: in place of the folder.
        token: of the URL, as a bearer.
    """

    folder: Path = Path("tickets")
    url: Annotated[str | None, Field(pattern="^https?://")] = None
    token: Secret | None = None
    timeout: Duration = timedelta(seconds=10)

    def model_post_init(self, _context: object) -> None:
        if self.token is not None and self.url is None:
            raise ValueError("a token is for a url")


class StateSettings(Section):
    url: str = "sqlite:///healer.db"


class TokenSettings(Section):
    name: str
    role: Literal["sender", "viewer", "approver", "admin"]
    token: Secret


class HttpSettings(Section):
    """Attributes:
    auth: `none` is only accepted on a loopback address.
    """

    listen: Annotated[str, Field(pattern=r"^.+:\d+$")] = "127.0.0.1:8470"
    auth: Literal["token", "none"] = "token"
    tokens: tuple[TokenSettings, ...] = ()

    def model_post_init(self, _context: object) -> None:
        if self.auth == "none" and not is_loopback(self.host):
            raise ValueError(f"auth: none is only allowed on a loopback address, not on {self.host}")

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


class Config(Section):
    mode: Mode = Mode.OBSERVE
    telemetry: TelemetrySettings = TelemetrySettings()
    topology: TopologySettings = TopologySettings()
    detectors: DetectorsSettings = DetectorsSettings(path=Path("detectors"))
    models: ContentSettings = ContentSettings(path=Path("models"))
    playbooks: PlaybooksSettings = PlaybooksSettings(path=Path("playbooks"), actions=Path("actions"))
    budgets: BudgetsSettings = BudgetsSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    cluster: ClusterSettings = ClusterSettings()
    power: PowerSettings = PowerSettings()
    agent: AgentSettings = AgentSettings()
    tickets: TicketsSettings = TicketsSettings()
    state: StateSettings = StateSettings()
    http: HttpSettings = HttpSettings()


def _read_secret(path: Path, key: str) -> str:
    """The file's text, empty if there is no such file. Raises InvalidDocument if it is there and cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidDocument(Problem("config.yaml", 0, key, f"the file {path} cannot be read: {why}")) from error


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_config(path: Path) -> Config:
    """Read and check config.yaml; relative content paths are relative to the file. Raises InvalidDocument."""
    config = validated(read_document(path), Config)
    base = path.resolve().parent
    absolute: dict[str, Section] = {
        name: section.model_copy(update={"path": base / section.path})
        for name, section in (
            ("detectors", config.detectors),
            ("models", config.models),
            ("playbooks", config.playbooks),
        )
    }
    if config.playbooks.actions is not None:
        update = {"path": base / config.playbooks.path, "actions": base / config.playbooks.actions}
        absolute["playbooks"] = config.playbooks.model_copy(update=update)
    if config.topology.file is not None:
        absolute["topology"] = config.topology.model_copy(update={"file": base / config.topology.file})
    return config.model_copy(update=absolute)
