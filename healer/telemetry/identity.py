"""Which component a series belongs to, read from its labels.

Rows are keyed by UUID and MIG instance, because everything else churns: pods come and go, `instance` changes with the
exporter's pod, and Prometheus renames clashing labels to `exported_*`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from healer.domain.component import Component, ComponentKind
from healer.domain.reading import Labels
from healer.domain.topology import Place, PodName
from healer.telemetry.catalogue.signals import SPELLINGS, Vendor
from healer.telemetry.catalogue.site import SITE_LABELS
from healer.telemetry.catalogue.spelling import label_of

# dcgm-exporter; its NVLink rows, and AMD's exporter; AMD's first generation; dcgm-exporter 1.x.
_UUID_LABELS = ("UUID", "gpu_uuid", "GPU_UUID", "uuid")
_INDEX_LABELS = ("gpu", "gpu_id")
# An AMD card has a series ("AMD Instinct MI300X OAM") where it is configured, and always a model (a part number).
_MODEL_LABELS = ("modelName", "model_name", "card_series", "card_model")
# dcgm-exporter, whose default counters have it as a label; AMD's exporter.
_DRIVER_LABELS = ("DCGM_FI_DRIVER_VERSION", "driver_version")
# NVIDIA's MIG instances, which have a profile ("1g.6gb"); AMD's partitions, which have a type ("cpx").
_MIG_ID, _MIG_PROFILE = "GPU_I_ID", "GPU_I_PROFILE"
_PARTITION_ID, _PARTITION_TYPE = "gpu_partition_id", "gpu_compute_partition_type"
_FIRST_PARTITION = ("0", "NA")  # the whole GPU, or the partition that has its sensors
_UNDIVIDED = ("spx", "none", "NA")
# What dcgm-exporter says under a metric of GPUs about something else.
_OTHER_PARTS = ("nvswitch", "cpu", "cpucore")
# `Hostname` before dcgm-exporter 4.8.3, `hostname` after; `node` is what relabelling usually adds, and it is the
# scheduler's name of the node where `Hostname` may be the exporter's pod.
NODE_LABELS = ("node", "Hostname", "hostname")
_TARGET_LABELS = ("instance", "job")
PCI_LABEL = "pci_bus_id"  # dcgm-exporter; only kept where somebody reads kernel logs, which name GPUs by it
_BARE_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_POD_LABELS = ("namespace", "pod")
# What a rack's meter may call the feeds that it measures one by one, beside the configured label.
_FEED_LABELS = ("feed", "psu", "pdu", "power_shelf", "shelf")


@dataclass(frozen=True, slots=True)
class TopologyRules:
    """Which labels say where a GPU is.

    Attributes:
        rack_power: the metric, or the PromQL, that gives watts by rack.
        rack_budget_w: watts by rack name; "default" holds for all others.
    """

    node_labels: tuple[str, ...] = NODE_LABELS
    rack_label: str = "rack"
    feed_label: str = "power_feed"
    nvlink_domain_label: str = "nvlink_domain"
    switch_label: str = "switch"
    job_labels: tuple[str, ...] = ("hpc_job", "job_name")
    rack_power: str = "rack_power_watts"
    rack_budget_w: Mapping[str, float] = field(default_factory=dict)

    @property
    def labels(self) -> frozenset[str]:
        """Every label that anything reads: all others may be forgotten as soon as they are seen."""
        places = (self.rack_label, self.feed_label, self.nvlink_domain_label, self.switch_label)
        return frozenset(
            (
                *_UUID_LABELS,
                *_INDEX_LABELS,
                *_MODEL_LABELS,
                *_DRIVER_LABELS,
                _MIG_ID,
                _MIG_PROFILE,
                _PARTITION_ID,
                _PARTITION_TYPE,
                *_OTHER_PARTS,
                *_TARGET_LABELS,
                *_POD_LABELS,
                *SITE_LABELS,
                *_FEED_LABELS,
                *self.node_labels,
                *self.job_labels,
                *places,
                *(spelling.part for spelling in SPELLINGS.values() if spelling.part),
                *(spelling.only[0] for spelling in SPELLINGS.values() if spelling.only is not None),
            )
        )


def gpu_of(labels: Labels, rules: TopologyRules) -> Component | None:
    """The GPU, or the MIG instance of one, that the labels name; None if they name none, which the caller reports."""
    uuid = _first(labels, _UUID_LABELS)
    index = _first(labels, _INDEX_LABELS)
    node = _first(labels, rules.node_labels)
    if uuid is None and (index is None or node is None):
        return None
    instance = _instance_of(labels)
    return Component(
        kind=ComponentKind.GPU,
        rack=label_of(labels, rules.rack_label),
        node=node,
        gpu=index if instance is None else f"{index or ''}:{instance}",
        uuid=uuid,
        job=_first(labels, rules.job_labels),
    )


def is_of_another_part(labels: Labels) -> bool:
    """Whether a series that names no GPU is right not to: it is a switch's or a processor's, under a GPU's metric."""
    return any(name in labels for name in _OTHER_PARTS)


def rack_of(labels: Labels, rules: TopologyRules) -> Component | None:
    rack = label_of(labels, rules.rack_label)
    return None if rack is None else Component(kind=ComponentKind.RACK, rack=rack)


def feed_of(labels: Labels, rules: TopologyRules) -> str | None:
    """Which power feed of its rack a measurement is about; None for one of the whole rack."""
    return _first(labels, (rules.feed_label, *_FEED_LABELS))


def host_of(labels: Labels, rules: TopologyRules) -> str | None:
    """The node that a series of another exporter, or its `up`, is about: by label, else by the target's address."""
    named = _first(labels, (*rules.node_labels, "nodename"))
    if named is not None:
        return named
    instance = labels.get("instance", "")
    return instance.rpartition(":")[0].strip("[]") or instance or None


def place_of(labels: Labels, rules: TopologyRules) -> Place:
    return Place(
        rack=label_of(labels, rules.rack_label),
        feed=label_of(labels, rules.feed_label),
        nvlink_domain=label_of(labels, rules.nvlink_domain_label),
        switch=label_of(labels, rules.switch_label),
    )


def driver_of(labels: Labels) -> str | None:
    """The version of the driver that the GPU's node runs."""
    return _first(labels, _DRIVER_LABELS)


def target_of(labels: Labels) -> str:
    """What was scraped, as `up` names it; where nobody scrapes, the node; "" if neither is named."""
    return labels.get("instance") or _first(labels, NODE_LABELS) or ""


def pod_of(labels: Labels) -> PodName | None:
    """The pod that has the GPU. Where Prometheus keeps its own labels, `pod` is the exporter's and no GPU's."""
    for prefix in ("exported_", ""):
        namespace, pod = labels.get(f"{prefix}namespace"), labels.get(f"{prefix}pod")
        if pod:
            return (namespace, pod) if namespace else None
    return None


def model_of(labels: Labels) -> str:
    """The GPU's model; a part of a GPU is a model of its own, for a slice is no peer of the whole."""
    model = _first(labels, _MODEL_LABELS) or ""
    partition = label_of(labels, _PARTITION_TYPE)
    part = label_of(labels, _MIG_PROFILE) or (None if partition in _UNDIVIDED else partition)
    return model if part is None else f"{model} {part}".strip()


def vendor_of(component: Component, model: str) -> Vendor | None:
    """Who made the GPU, by its UUID (NVIDIA's have a prefix, AMD's have none) or its model; None if neither says so."""
    uuid = component.uuid or ""
    if uuid.startswith(("GPU-", "MIG-")) or "NVIDIA" in model:
        return Vendor.NVIDIA
    if _BARE_UUID.fullmatch(uuid) or any(name in model for name in ("AMD", "Instinct", "Radeon")):
        return Vendor.AMD
    return None


def _instance_of(labels: Labels) -> str | None:
    partition = label_of(labels, _PARTITION_ID)
    return label_of(labels, _MIG_ID) or (None if partition in _FIRST_PARTITION else partition)


def _first(labels: Labels, names: tuple[str, ...]) -> str | None:
    for name in names:
        found = label_of(labels, name)
        if found is not None:
            return found
    return None
