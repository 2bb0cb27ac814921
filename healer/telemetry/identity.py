"""Which component a series belongs to, read from its labels.

Rows are keyed by UUID and MIG instance, because everything else churns: pods come and go, `instance` changes with the
exporter's pod, and Prometheus renames clashing labels to `exported_*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from healer.domain.component import Component, ComponentKind
from healer.domain.reading import Labels

# dcgm-exporter; its NVLink rows; AMD's exporter, two generations.
_UUID_LABELS = ("UUID", "gpu_uuid", "GPU_UUID", "uuid")
_INDEX_LABELS = ("gpu", "gpu_id")
_MODEL_LABELS = ("modelName", "model_name", "card_series", "card_model")
# `Hostname` before dcgm-exporter 4.8.3, `hostname` after; `node` is what relabelling usually adds, and it is the
# scheduler's name of the node where `Hostname` may be the exporter's pod.
NODE_LABELS = ("node", "Hostname", "hostname")


@dataclass(frozen=True, slots=True)
class TopologyRules:
    """Which labels say where a GPU is.

    Attributes:
        rack_power: the metric, or the PromQL, that gives watts by rack.
        rack_budget_w: watts by rack name; "default" holds for all others.
    """

    node_labels: tuple[str, ...] = NODE_LABELS
    rack_label: str = "rack"
    job_labels: tuple[str, ...] = ("hpc_job", "job_name")
    rack_power: str = "rack_power_watts"
    rack_budget_w: Mapping[str, float] = field(default_factory=dict)


def gpu_of(labels: Labels, rules: TopologyRules) -> Component | None:
    """The GPU that the labels name; None if they name none, which is for the caller to report."""
    uuid = _first(labels, _UUID_LABELS)
    index = _first(labels, _INDEX_LABELS)
    node = _first(labels, rules.node_labels)
    if uuid is None and (index is None or node is None):
        return None
    instance = labels.get("GPU_I_ID")
    return Component(
        kind=ComponentKind.GPU,
        rack=_first(labels, (rules.rack_label,)),
        node=node,
        gpu=f"{index}:{instance}" if index is not None and instance else index,
        uuid=uuid,
        job=_first(labels, rules.job_labels),
    )


def rack_of(labels: Labels, rules: TopologyRules) -> Component | None:
    rack = _first(labels, (rules.rack_label,))
    return None if rack is None else Component(kind=ComponentKind.RACK, rack=rack)


def model_of(labels: Labels) -> str:
    return _first(labels, _MODEL_LABELS) or ""


def _first(labels: Labels, names: tuple[str, ...]) -> str | None:
    """The first that is there and not empty, the exporter's own spelling before the scraper's target label."""
    for name in names:
        found = labels.get(f"exported_{name}") or labels.get(name)
        if found:
            return found
    return None
