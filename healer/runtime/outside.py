"""From the configuration to the outside systems: who shows the fleet, who schedules it, who can act on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from healer.adapters.agents import AgentPower
from healer.adapters.care import AgentCare
from healer.adapters.kernel_logs import KernelLogFiles
from healer.adapters.kubernetes.client import KubernetesClient
from healer.adapters.kubernetes.cluster import KubernetesCluster
from healer.adapters.kubernetes.topology import KubernetesTopology
from healer.adapters.nccl.dumps import DumpFiles
from healer.adapters.nccl.logs import LogFiles
from healer.adapters.nccl.ras import RasClient
from healer.adapters.nccl.ras_jobs import RasJobs
from healer.adapters.nccl.witness import NcclWitness
from healer.adapters.prometheus.api import PrometheusApi
from healer.adapters.prometheus.source import PrometheusSource
from healer.adapters.push.alertmanager import AlertmanagerWebhook
from healer.adapters.push.remote_write import RemoteWrite
from healer.adapters.scrape.discovery import FileTargets, TargetSource
from healer.adapters.scrape.dns import DnsTargets, Record
from healer.adapters.scrape.kubernetes import KubernetesTargets
from healer.adapters.scrape.source import ScrapeSource
from healer.adapters.slurm.programs import SlurmPrograms
from healer.adapters.slurm.topology import SlurmTopology
from healer.adapters.tickets.folder import FolderTickets
from healer.adapters.tickets.webhook import WebhookTickets
from healer.adapters.topology.file import TopologyFile
from healer.adapters.topology.kube_state import KubeStateTopology
from healer.adapters.topology.layers import BackgroundTopology, LayeredTopology
from healer.config import Config, PrometheusSettings, Secret
from healer.ports import Cluster, NodeCare, PowerControl, TelemetrySource, Tickets, TopologySource
from healer.telemetry.catalogue.site import READ_METRICS
from healer.telemetry.identity import PCI_LABEL
from healer.telemetry.notices import HeldNotices

_HOLDS_A_TURN = timedelta(seconds=2)  # how long a turn waits for a scheduler that lists its jobs
_LATE = timedelta(minutes=5)


def build_source(config: Config) -> TelemetrySource:
    """The configured telemetry source; `simulator` is not one of them, its fleet lives outside of the runtime."""
    telemetry = config.telemetry
    if telemetry.source == "remote_write":
        return RemoteWrite(
            wanted=(*READ_METRICS, config.topology.rack_power),
            kept_labels=_kept_labels(config),
            most_series=telemetry.remote_write.max_series,
        )
    if telemetry.source == "scrape":
        return ScrapeSource(
            telemetry.scrape.targets,
            discovery=telemetry.scrape.discovery,
            sources=tuple(_targets(config)),
            timeout_s=telemetry.scrape.timeout.total_seconds(),
            rack_power=config.topology.rack_power,
            kept=_kept_labels(config),
        )
    return build_prometheus(config)


def _targets(config: Config) -> Iterator[TargetSource]:
    """Who knows of exporters, beside the list and the URL in the settings."""
    scrape = config.telemetry.scrape
    if scrape.files:
        yield FileTargets(scrape.files)
    for dns in scrape.dns:
        yield DnsTargets(dns.name, Record(dns.type), dns.port, scrape.timeout.total_seconds())
    if scrape.kubernetes is not None:
        pods = scrape.kubernetes
        yield KubernetesTargets(_kubernetes(config), namespace=pods.namespace, selector=pods.selector, port=pods.port)


def _kubernetes(config: Config) -> KubernetesClient:
    connection = config.cluster.kubernetes
    timeout_s = connection.timeout.total_seconds()
    return KubernetesClient(kubeconfig=connection.kubeconfig, context=connection.context, timeout_s=timeout_s)


def build_prometheus(config: Config) -> PrometheusSource:
    settings = config.telemetry.prometheus
    return PrometheusSource(
        settings.url,
        headers=_headers(settings),
        tenant=settings.tenant,
        query=settings.query,
        timeout_s=settings.timeout.total_seconds(),
        rack_power=config.topology.rack_power,
        lookback=config.telemetry.max_age,
        kept_labels=_kept_labels(config),
    )


def _kept_labels(config: Config) -> frozenset[str]:
    """The labels that anything reads; PCI addresses among them only where kernel logs name GPUs by them."""
    labels = config.topology.rules().labels
    return labels | {PCI_LABEL} if config.telemetry.kernel_log.files else labels


def _headers(settings: PrometheusSettings) -> Mapping[str, str]:
    return {
        name: value.read(f"telemetry.prometheus.headers.{name}") if isinstance(value, Secret) else value
        for name, value in settings.headers.items()
    }


def build_topology(config: Config) -> TopologySource | None:
    """None where labels say everything. Raises InvalidDocument for a file that is missing or wrong."""
    topology = config.topology
    layers: list[TopologySource] = []
    if topology.file is not None:
        layers.append(TopologyFile(topology.file))
    scheduler = _scheduler_topology(config)
    if scheduler is not None:
        layers.append(BackgroundTopology(scheduler, at_most=_HOLDS_A_TURN, stale_after=topology.every + _LATE))
    return LayeredTopology(*layers) if layers else None


def _scheduler_topology(config: Config) -> TopologySource | None:
    topology = config.topology
    match topology.source:
        case "labels" | "file":
            return None
        case "kubernetes":
            labels, selector = topology.kubernetes.labels(), config.cluster.kubernetes.node_selector
            return KubernetesTopology(_kubernetes(config), labels, node_selector=selector, every=topology.every)
        case "kube_state_metrics":
            settings = config.telemetry.prometheus
            api = PrometheusApi(
                settings.url,
                headers=_headers(settings),
                tenant=settings.tenant,
                query=settings.query,
                timeout_s=settings.timeout.total_seconds(),
            )
            return KubeStateTopology(api, topology.kubernetes.labels(), every=topology.every)
        case "slurm":
            slurm = topology.slurm
            programs = SlurmPrograms(
                folder=slurm.programs, config=slurm.config, timeout_s=slurm.timeout.total_seconds()
            )
            return SlurmTopology(programs, slurm.words(), every=topology.every)


def build_notices(config: Config) -> AlertmanagerWebhook | None:
    alerts = config.telemetry.alerts
    if not alerts.receive:
        return None
    held = HeldNotices(config.topology.rules(), modes=alerts.modes, expires_after=alerts.expires_after)
    return AlertmanagerWebhook(held)


def build_job_witness(config: Config) -> NcclWitness | None:
    """None where jobs are not to be asked in any way."""
    ras, recorder, logs = config.telemetry.nccl.ras, config.telemetry.nccl.flight_recorder, config.telemetry.nccl.logs
    if ras.address is None and not recorder.files and not logs.files:
        return None
    asking = None if ras.address is None else RasClient(ras.address, timeout_s=ras.timeout.total_seconds())
    return NcclWitness(
        ras=None if asking is None else RasJobs(asking.ask),
        dumps=DumpFiles(recorder.files, recorder.names()) if recorder.files else None,
        logs=LogFiles(logs.files, logs.names()) if logs.files else None,
    )


def build_kernel_log(config: Config) -> KernelLogFiles | None:
    logs = config.telemetry.kernel_log
    return KernelLogFiles(logs.files, logs.names()) if logs.files else None


def build_cluster(config: Config) -> Cluster | None:
    if config.cluster.kind != "kubernetes":
        return None
    settings = config.cluster.kubernetes
    return KubernetesCluster(
        kubeconfig=settings.kubeconfig,
        context=settings.context,
        node_selector=settings.node_selector,
        rack_label=settings.rack_label,
        pool_label=settings.pool_label,
        timeout_s=settings.timeout.total_seconds(),
    )


def build_tickets(config: Config) -> Tickets:
    """Raises InvalidDocument if a secret is missing."""
    settings = config.tickets
    if settings.url is None:
        return FolderTickets(settings.folder)
    token = None if settings.token is None else settings.token.read("tickets.token")
    return WebhookTickets(settings.url, token=token, timeout_s=settings.timeout.total_seconds())


def build_power(config: Config) -> PowerControl | None:
    settings = config.power
    if settings.agent_url is None:
        return None
    token = settings.token.read("power.token") if settings.token is not None else None
    return AgentPower(settings.agent_url, token=token, timeout_s=settings.timeout.total_seconds())


def build_care(config: Config) -> NodeCare | None:
    settings = config.agent
    if settings.url is None:
        return None
    token = settings.token.read("agent.token") if settings.token is not None else None
    return AgentCare(settings.url, token=token, timeout_s=settings.timeout.total_seconds())
