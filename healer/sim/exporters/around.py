"""What is exported around the GPUs: fabric ports, Ethernet, boards, the scheduler's view, racks' meters.

Names are those of node_exporter (its infiniband, netclass and netdev collectors, and a textfile for symbol errors),
ipmi_exporter, kube-state-metrics, and of the meter that the reference deployment reads.
"""

from __future__ import annotations

from healer.sim.exporters.metric import Metric, MetricKind

_GAUGE, _COUNTER = MetricKind.GAUGE, MetricKind.COUNTER
_IB = "node_infiniband_"

INFINIBAND = (
    Metric(f"{_IB}state_id", _GAUGE, "State of the port.", "state_id"),
    Metric(f"{_IB}physical_state_id", _GAUGE, "Physical state of the port.", "physical_state_id"),
    Metric(f"{_IB}link_downed_total", _COUNTER, "Times the link failed to recover.", "link_downed"),
    Metric(f"{_IB}link_error_recovery_total", _COUNTER, "Times the link recovered.", "link_recovery"),
    Metric(f"{_IB}port_errors_received_total", _COUNTER, "Packets with errors.", "receive_errors"),
    Metric(f"{_IB}port_discards_transmitted_total", _COUNTER, "Packets that were not sent.", "discards"),
    Metric(f"{_IB}port_data_received_bytes_total", _COUNTER, "Bytes received.", "received"),
    Metric(f"{_IB}port_data_transmitted_bytes_total", _COUNTER, "Bytes sent.", "sent"),
    Metric(f"{_IB}symbol_error_total", _COUNTER, "Symbol errors.", "symbol_errors"),
)
# The same ports, where they are Ethernet; up is state 4, down is state 1.
ROCE = (
    Metric("node_network_up", _GAUGE, "1 if the interface is up.", "state_id", scale=1 / 3, constant=-1 / 3),
    Metric("node_network_carrier_changes_total", _COUNTER, "Changes of the carrier.", "carrier_changes"),
    Metric("node_network_receive_errs_total", _COUNTER, "Packets with errors.", "receive_errors"),
)
ETHERNET = (
    Metric("node_network_up", _GAUGE, "1 if the interface is up.", "network_up"),
    Metric("node_network_carrier_changes_total", _COUNTER, "Changes of the carrier.", "carrier_changes"),
)
IPMI = (
    Metric("ipmi_temperature_celsius", _GAUGE, "Temperature, C.", "inlet_c", labels=(("name", "Inlet Temp"),)),
    Metric("ipmi_dcmi_power_consumption_watts", _GAUGE, "Power of the node, W.", "power_w"),
)
SCHEDULER = (
    Metric(
        "kube_node_status_condition",
        _GAUGE,
        "Conditions of the node.",
        "ready",
        labels=(("condition", "Ready"), ("status", "true")),
    ),
    Metric("kube_node_spec_unschedulable", _GAUGE, "1 if cordoned.", "cordoned"),
)
METER = (Metric("rack_power_watts", _GAUGE, "Power drawn by the rack, W.", "power_w"),)
UP = (Metric("up", _GAUGE, "1 if the target answered.", "up"),)
XID_COUNT = "DCGM_EXP_XID_ERRORS_COUNT"
