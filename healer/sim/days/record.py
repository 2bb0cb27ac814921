"""The truth about a day as one JSON object: what was wrong, what only looked so, and which jobs ran."""

from __future__ import annotations

import numpy as np

from healer.sim.days.day import Day, at
from healer.sim.jobs.run import Run
from healer.sim.truth import as_json


def record(day: Day) -> dict[str, object]:
    style = day.style
    return {
        "seed": day.seed,
        "start": day.start.isoformat(),
        "end": day.end.isoformat(),
        "scrape_interval_s": style.scrape_s,
        "fields": style.fields.name.lower(),
        "names": style.names.name.lower(),
        "nodes": {node: day.layout.rack_of(node) for node in day.layout.nodes},
        "gpus_per_node": day.layout.gpus_per_node,
        "rack_budget_watts": dict(day.rack_budget_w),
        "truths": [as_json(truth) for truth in day.truths],
        "look_alikes": [as_json(look) for look in day.look_alikes],
        "jobs": [_job(day, run) for run in day.runs if run.end_s > run.start_s],
    }


def _job(day: Day, run: Run) -> dict[str, object]:
    nodes = np.unique(run.gpus // day.layout.gpus_per_node).tolist()
    return {
        "job": run.job,
        "kind": str(run.profile.kind),
        "nodes": [day.layout.nodes[node] for node in nodes],
        "gpus": len(run.gpus),
        "attempt": run.attempt,
        "start": at(day.start, run.start_s).isoformat(),
        "end": at(day.start, run.end_s).isoformat(),
    }
