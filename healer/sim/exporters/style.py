"""Style: how a site exports what it exports. No two sites do it alike, and none does it worse for that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from healer.sim.exporters.fields import FieldSet, Names


class JobLabels(StrEnum):
    """How a series says whose GPU it is."""

    HPC_JOB = "hpc_job"
    HPC_JOB_AND_POD = "hpc_job, and the pod"
    POD = "the pod, and its job's name by relabelling"


class Fabric(StrEnum):
    INFINIBAND = "InfiniBand"
    ROCE = "Ethernet"


@dataclass(frozen=True, slots=True)
class Style:
    """Attributes:
    host_label: `Hostname` before dcgm-exporter 4.8.3.
    node_label: whether discovery adds the node's name to what is scraped from it.
    domain: of the names by which exporters of hosts, and the scheduler, call a node; the GPUs' exporter leaves it out.
    exported: whether Prometheus keeps its own labels where an exporter has one of the same name.
    xid_counts: whether the XIDs of the last minutes are counted, too.
    xid_labels: whether the XID's series carries the code and its text.
    whole_watts: whether power comes without digits after the point: what idles hardly moves then.
    collect_s: how often the GPUs' exporter looks at them, which need not be as often as it is scraped.
    feeds: whether a rack's meter tells its two feeds apart.
    ipmi: whether there is an exporter of the boards' management controllers.
    """

    fields: FieldSet = FieldSet.PLAIN
    names: Names = Names.CLASSIC
    host_label: str = "hostname"
    node_label: bool = True
    domain: str = ""
    job_labels: JobLabels = JobLabels.HPC_JOB_AND_POD
    exported: bool = False
    xid_labels: bool = False
    xid_counts: bool = False
    whole_watts: bool = False
    scrape_s: int = 15
    collect_s: int = 5
    feeds: bool = False
    ipmi: bool = True
    fabric: Fabric = Fabric.INFINIBAND


def drawn_style(rng: np.random.Generator) -> Style:
    names = Names(rng.choice([Names.CLASSIC, Names.CLASSIC, Names.CLASSIC, Names.DCGM_46, Names.DCGM_47]))
    recent = names is not Names.CLASSIC or rng.random() < 0.3
    fields = [FieldSet.EVERYTHING, FieldSet.EVERYTHING, FieldSet.EVERYTHING, FieldSet.DEFAULT, FieldSet.NO_PROFILING]
    scrape_s = int(rng.choice([15, 30]))
    return Style(
        fields=FieldSet(rng.choice(fields)),
        names=names,
        host_label="hostname" if recent else "Hostname",
        node_label=bool(rng.random() < 0.6),
        domain=str(rng.choice(["", "", ".cluster.local", ".hpc.example.com"])),
        job_labels=JobLabels(rng.choice(list(JobLabels))),
        exported=bool(rng.random() < 0.3),
        xid_labels=bool(recent and rng.random() < 0.5),
        xid_counts=bool(rng.random() < 0.4),
        whole_watts=bool(rng.random() < 0.25),
        scrape_s=scrape_s,
        collect_s=int(rng.choice([5, 10, scrape_s, 30])),
        feeds=bool(rng.random() < 0.6),
        ipmi=bool(rng.random() < 0.8),
        fabric=Fabric(rng.choice([Fabric.INFINIBAND, Fabric.INFINIBAND, Fabric.ROCE])),
    )
