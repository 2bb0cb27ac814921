"""Trains and measures a model on simulated fleets: healthy days to fit on, unseen fleets with faults to measure on.

Recall and false alarms are measured at one fixed score, so that versions can be compared whatever their default
threshold is, also where that lets them show their scores and find nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import numpy as np

from healer.content.models import Manifest
from healer.domain.frame import Floats, Frame
from healer.sim.exposition import node_page
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import SimulatedFleet
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from healer.telemetry.wire.exposition import Pages

OPERATING_POINT = 0.9  # a score above it counts as found
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_STEP = timedelta(seconds=10)
_SICK_GPU = 2
_TRAINING_SEEDS = range(100, 106)
_TEST_SEEDS = range(200, 206)
_SEVERITIES = (0.3, 0.6, 1.0)


@dataclass(frozen=True, slots=True)
class Trained:
    estimator: Any
    manifest: Manifest


def train_on_simulation(code: ModuleType, version: str, *, now: datetime, progress: Callable[[str], None]) -> Trained:
    """Fit on healthy fleets and measure on others, of other seeds, in which one GPU of each node loses cooling."""
    rows: list[Floats] = []
    for seed in _TRAINING_SEEDS:
        progress(f"healthy fleet {seed}: 30 minutes of 64 GPUs")
        frames = simulated_frames(_fleet(seed), minutes=30)
        # Neighbouring frames share most of their minute: every third says almost as much and makes a smaller file.
        rows += [code.features(frame) for frame in itertools.islice(frames, 0, None, 3)]
    table = np.concatenate(rows)
    table = table[~np.isnan(table).any(axis=1)]
    progress(f"fitting on {len(table)} rows of {table.shape[1]} features")
    estimator = code.build().fit(table)
    metrics = _measured(code, estimator, progress)
    seeds = f"{_TRAINING_SEEDS.start}-{_TRAINING_SEEDS.stop - 1}"
    data = f"{len(table)} rows from 6 simulated healthy fleets of 64 GPUs, seeds {seeds}, 30 minutes each"
    return Trained(estimator, Manifest(version, now, "", "", data, metrics))


def simulated_frames(fleet: SimulatedFleet, *, minutes: int) -> Iterator[Frame]:
    """One frame per ten seconds, through the same page parser and window as live telemetry."""
    window, pages = Window(TopologyRules(), span=timedelta(minutes=2)), Pages()
    for tick in range(int(timedelta(minutes=minutes) / _STEP)):
        fleet.advance(_STEP.total_seconds())
        at = _EPOCH + tick * _STEP
        yield window.add(pages.reading(at, (({}, node_page(fleet.read(node))) for node in fleet.layout.nodes)))


def measured_at_operating_point(healthy: Floats, sick: Floats, *, gpus: int) -> dict[str, float]:
    """What scores are worth at OPERATING_POINT, which the names say, and at any threshold (ROC-AUC).

    Args:
        healthy, sick: (n_rows,) known scores.
        gpus: how many are sick. Rows of one GPU are near copies of each other: the interval is over GPUs, not rows.
    """
    recall = float(np.mean(sick > OPERATING_POINT))
    at = f"at_{OPERATING_POINT}"
    return {
        f"recall_{at}": recall,
        f"recall_{at}_half_interval_95": 1.96 * math.sqrt(recall * (1 - recall) / gpus),
        "roc_auc": roc_auc(healthy, sick),
        f"false_{at}_per_1000_healthy_rows": 1000.0 * float(np.mean(healthy > OPERATING_POINT)),
    }


def _measured(code: ModuleType, estimator: Any, progress: Callable[[str], None]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for severity in _SEVERITIES:
        progress(f"unseen fleets: one GPU in eight loses {severity:.0%} of its cooling")
        healthy, sick = _scored(code, estimator, severity)
        measured = measured_at_operating_point(healthy, sick, gpus=8 * len(_TEST_SEEDS))
        prefix = f"cooling_loss_{severity:.0%}".replace("%", "_percent")
        metrics |= {f"{prefix}_{name}": value for name, value in measured.items()}
    return metrics


def _scored(code: ModuleType, estimator: Any, severity: float) -> tuple[Floats, Floats]:
    """The known scores of the healthy rows and of the sick rows of unseen fleets."""
    healthy: list[Floats] = []
    sick: list[Floats] = []
    for seed in _TEST_SEEDS:
        layout = SimulatedFleet(seed=seed).layout
        # It strikes in the fifth minute; the two in which the GPU warms up are left out.
        faults = [Fault(FaultKind.COOLING_LOSS, 300.0, node=n, gpu=_SICK_GPU, severity=severity) for n in layout.nodes]
        for tick, frame in enumerate(simulated_frames(_fleet(seed, faults), minutes=12)):
            scores = code.score(estimator, code.features(frame))
            is_sick = np.array([gpu.gpu == str(_SICK_GPU) for gpu in frame.gpus.components])
            healthy.append(scores[~is_sick & ~np.isnan(scores)])
            if tick * _STEP.total_seconds() >= 420.0:
                sick.append(scores[is_sick & ~np.isnan(scores)])
    return np.concatenate(healthy), np.concatenate(sick)


def roc_auc(negatives: Floats, positives: Floats) -> float:
    """The chance that a sick row scores above a healthy one; ties count half."""
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - takes a second, and every command would wait for it

    labels = np.concatenate([np.zeros(len(negatives)), np.ones(len(positives))])
    return float(roc_auc_score(labels, np.concatenate([negatives, positives])))


def _fleet(seed: int, faults: Sequence[Fault] = ()) -> SimulatedFleet:
    return SimulatedFleet(racks=2, nodes=8, gpus=8, seed=seed, faults=faults)
