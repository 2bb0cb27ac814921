"""The pages by which a simulated fleet is scraped, as text: dcgm-exporter's for a node, a power meter's for racks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from healer.domain.axes import Floats
from healer.sim.exporters.fields import FieldSet, Names, gpu_metrics
from healer.sim.exporters.metric import Formats, Metric
from healer.sim.exporters.text import escaped
from healer.sim.fleet import NodeReading
from healer.sim.layout import pci_bus_id
from healer.sim.state import GpuState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DRIVER = "570.172.08"
_NAMESPACE = "training"
_CONTAINER = "trainer"
_FORMATS = {
    fields: Formats(gpu_metrics(fields, Names.CLASSIC), GpuState.names())
    for fields in (FieldSet.PLAIN, FieldSet.EVERYTHING)
}


def node_page(reading: NodeReading, *, host_label: str = "hostname", fields: FieldSet = FieldSet.PLAIN) -> str:
    """One node's page. `host_label` is `Hostname` for exporters from before May 2026."""
    formats = _FORMATS[fields]
    labels = [
        _labels(reading, gpu, uuid, host_label=host_label)
        for gpu, uuid in zip(reading.gpus, reading.uuids, strict=True)
    ]
    values = formats.values(reading.state.matrix)
    hidden = _hidden(reading, formats, values)
    lines: list[str] = []
    for number, metric in enumerate(formats.metrics) if labels else ():
        lines += _head(metric)
        lines += [
            f"{metric.name}{{{label}}} {value:.{metric.decimals}f}"
            for place, (label, value) in enumerate(zip(labels, values[number].tolist(), strict=True))
            if (number, place) not in hidden
        ]
    return "".join(f"{line}\n" for line in lines)


def rack_page(power_w: Mapping[str, float]) -> str:
    lines = [
        "# HELP rack_power_watts Power drawn by the rack, W.",
        "# TYPE rack_power_watts gauge",
        *(f'rack_power_watts{{rack="{rack}"}} {watts:.0f}' for rack, watts in power_w.items()),
    ]
    return "".join(f"{line}\n" for line in lines)


def _head(metric: Metric) -> Iterable[str]:
    return f"# HELP {metric.name} {metric.meaning}", f"# TYPE {metric.name} {metric.kind}"


def _hidden(reading: NodeReading, formats: Formats, values: Floats) -> set[tuple[int, int]]:
    """Which (metric, GPU) the exporter leaves out; what it shows as no value is written into `values`."""
    left_out: set[tuple[int, int]] = set()
    for one in reading.hidden:
        for number in formats.index_of(one.rows):
            for place, gpu in enumerate(reading.gpus):
                if gpu in one.gpus:
                    if one.value is None:
                        left_out.add((number, place))
                    else:
                        values[number, place] = one.value
    return left_out


def _labels(reading: NodeReading, gpu: int, uuid: str, *, host_label: str) -> str:
    labels = {
        "gpu": str(gpu),
        "UUID": uuid,
        "pci_bus_id": pci_bus_id(gpu),
        "device": f"nvidia{gpu}",
        "modelName": reading.model,
        host_label: reading.node,
        "DCGM_FI_DRIVER_VERSION": _DRIVER,
    }
    if reading.job is not None:
        pod = f"{reading.job}-worker-0"
        labels |= {"hpc_job": reading.job, "container": _CONTAINER, "namespace": _NAMESPACE, "pod": pod}
    return ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
