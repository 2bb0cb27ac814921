"""What surrounds the GPUs, as node_exporter, ipmi_exporter and kube-state-metrics spell it: nodes and fabric ports.

Sources: node_exporter's infiniband and netclass collectors (state_id 4 is active), ipmi_exporter's sensors, and
kube-state-metrics' node metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from healer.domain.reading import Labels
from healer.domain.signal import NodeSignal, PortSignal
from healer.telemetry.catalogue.signals import SPELLINGS

DEVICE_LABEL, PORT_LABEL = "device", "port"
_ACTIVE = 4.0
_INLET_SENSORS = (
    "Inlet Temp",
    "Inlet_Temp",
    "INLET_TEMP",
    "Inlet Ambient",
    "Ambient",
    "Front Panel Temp",
    "TEMP_INLET",
)
# What carries RDMA or storage; not the interfaces that come and go with containers.
_PHYSICAL = ("ib", "eth", "en", "rdma", "roce", "mlx", "bond", "hsn", "irdma", "bnxt")


@dataclass(frozen=True, slots=True)
class SiteSpelling:
    """Attributes:
    only: labels that a series must have, with the values of which it must have one.
    active_at: the value that means 1, where a state is numbered; all others are 0.
    """

    metric: str
    signal: NodeSignal | PortSignal
    only: tuple[tuple[str, tuple[str, ...]], ...] = ()
    active_at: float | None = None

    @property
    def query(self) -> str:
        """PromQL for just the series that count."""
        exact = [f'{label}="{values[0]}"' for label, values in self.only if len(values) == 1]
        return f"{self.metric}{{{','.join(exact)}}}" if exact else self.metric

    def is_about(self, labels: Labels) -> bool:
        if isinstance(self.signal, PortSignal):
            device = labels.get(DEVICE_LABEL, "")
            return device.startswith(_PHYSICAL)
        return all(labels.get(label) in values for label, values in self.only)


def _port(metric: str, signal: PortSignal, *, active_at: float | None = None) -> SiteSpelling:
    return SiteSpelling(metric, signal, active_at=active_at)


_ALL = (
    SiteSpelling("kube_node_status_condition", NodeSignal.READY, (("condition", ("Ready",)), ("status", ("true",)))),
    SiteSpelling("kube_node_spec_unschedulable", NodeSignal.CORDONED),
    SiteSpelling("ipmi_temperature_celsius", NodeSignal.INLET_TEMPERATURE, (("name", _INLET_SENSORS),)),
    _port("node_infiniband_state_id", PortSignal.ACTIVE, active_at=_ACTIVE),
    _port("node_infiniband_link_downed_total", PortSignal.LINK_DOWNED),
    _port("node_infiniband_link_error_recovery_total", PortSignal.LINK_RECOVERY),
    _port("node_infiniband_symbol_error_total", PortSignal.SYMBOL_ERRORS),
    _port("node_infiniband_port_errors_received_total", PortSignal.RECEIVE_ERRORS),
    _port("node_infiniband_port_data_received_bytes_total", PortSignal.RECEIVED),
    _port("node_infiniband_port_data_transmitted_bytes_total", PortSignal.SENT),
    _port("node_network_up", PortSignal.ACTIVE),
    _port("node_network_carrier_changes_total", PortSignal.CARRIER_CHANGES),
    _port("node_network_receive_errs_total", PortSignal.RECEIVE_ERRORS),
)

SITE_SPELLINGS: Mapping[str, SiteSpelling] = {spelling.metric: spelling for spelling in _ALL}
# Under what a reading may have them: the metric, or the query where only some of its series were asked for.
SITE_COLUMNS: Mapping[str, SiteSpelling] = {**SITE_SPELLINGS, **{one.query: one for one in _ALL}}
READ_METRICS = (*SPELLINGS, *SITE_SPELLINGS)  # every metric that anybody reads
SITE_LABELS = frozenset((DEVICE_LABEL, PORT_LABEL, *(label for one in _ALL for label, _ in one.only)))
MOVING_PORT_SIGNALS = frozenset({PortSignal.RECEIVED, PortSignal.SENT})
