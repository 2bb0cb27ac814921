"""gpu_anomaly: how unlike its peers a GPU behaves, over several signals at once.

Mechanism: GPUs of one model reach like temperatures at like power; a failing heat sink, a stuck fan or dried paste
shows as a GPU that leaves the common line of its peers, long before any limit. Each feature is what is left of one
temperature when power is taken out by a line fitted over the peers *of this frame*, so that the room, the season and
the load drop out. An elliptic envelope over the healthy residuals gives the distance. Limits: it needs at least eight
peers of the same model at steady power for most of a minute; it says nothing about a change that all peers share, and
it does not know how a GPU was built: one in some hundreds runs warmer all its life.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from sklearn.covariance import EllipticEnvelope
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from healer.sdk import (
    Basis,
    ComponentKind,
    Evidence,
    FailureMode,
    Findings,
    Floats,
    Frame,
    Health,
    Said,
    Signal,
    findings,
    peers,
)

MODES = (FailureMode.GPU_ANOMALY,)
FEATURES = (
    ("core temperature that power does not explain", Signal.GPU_TEMPERATURE, Signal.POWER),
    ("memory temperature that power does not explain", Signal.MEMORY_TEMPERATURE, Signal.POWER),
)
READS = tuple(dict.fromkeys(signal for _, *signals in FEATURES for signal in signals))

_SPAN = timedelta(seconds=60)
_SHORTEST = timedelta(seconds=45)  # of history, for its mean to stand for a minute
_FEWEST_PEERS = 8
_NO_GROUP = -1
_LARGEST_SWING = 0.2  # of the mean power within the span


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    threshold: a score above it is a finding. 0.5 is as unusual as one healthy GPU in a thousand; the score then grows
        with the squared distance d2 as d2 / (d2 + d2 at 0.5).
    """

    threshold: float = 1.0


def features(frame: Frame) -> Floats:
    """(n_gpus, 2) residuals over the last minute's means, in degrees Celsius; NaN where unknown or not settled.

    Temperature follows power with a delay of tens of seconds: a GPU whose power has just changed has no common line.
    """
    covered = frame.times[0] <= -_SHORTEST.total_seconds() if len(frame.times) else False
    settled = _settled(frame.window(Signal.POWER, _SPAN)) & covered
    groups = np.where(settled, peers(frame), _NO_GROUP)
    means = {signal: _mean(frame.window(signal, _SPAN)) for signal in READS}
    columns = [_residuals(means[wanted], means[explaining], groups) for _, wanted, explaining in FEATURES]
    return np.column_stack(columns) if len(frame.gpus) else np.empty((0, len(FEATURES)))


def build(*, contamination: float = 0.001, random_state: int = 0) -> Pipeline:
    """An unfitted estimator; `contamination` is the share of healthy rows that score above 0.5."""
    envelope = EllipticEnvelope(contamination=contamination, random_state=random_state)
    return Pipeline([("scale", StandardScaler()), ("envelope", envelope)])


def score(estimator: Any, features: Floats) -> Floats:
    """(n_gpus,) in 0 to 1; NaN where a feature is unknown."""
    scores = np.full(len(features), np.nan)
    known = ~np.isnan(features).any(axis=1)
    if known.any():
        envelope = estimator.named_steps["envelope"]
        squared = envelope.mahalanobis(estimator.named_steps["scale"].transform(features[known]))
        scores[known] = squared / (squared - envelope.offset_)
    return scores


def judge(frame: Frame, scores: Floats, settings: Settings) -> Findings:
    health = np.full(len(scores), Health.UNKNOWN, dtype=np.int8)
    health[scores <= settings.threshold] = Health.HEALTHY
    health[scores > settings.threshold] = Health.DEGRADED
    residuals = features(frame) if (health == Health.DEGRADED).any() else np.empty((0, len(FEATURES)))

    def describe(row: int) -> Said:
        evidence = tuple(
            Evidence(str(wanted), float(residual), "C", frame.at, name)
            for (name, wanted, _), residual in zip(FEATURES, residuals[row], strict=True)
        )
        largest = int(np.argmax(np.abs(residuals[row])))
        reason = f"unlike its peers: {FEATURES[largest][0]} is {residuals[row][largest]:+.1f} C off"
        return Said(reason, evidence, score=float(scores[row]))

    components = frame.gpus.components
    return findings(MODES[0], ComponentKind.GPU, health, components, describe, basis=Basis.LEARNT)


def _settled(power_w: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(n_gpus,) whether power was known and steady throughout the span."""
    swing = power_w.max(axis=0) - power_w.min(axis=0)
    steady: np.ndarray[Any, np.dtype[np.bool_]] = swing <= _LARGEST_SWING * power_w.mean(axis=0)
    return steady


def _mean(window: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # a GPU without a sample in the window has no mean, which is NaN
        mean: Floats = np.nanmean(window, axis=0)
    return mean


def _residuals(wanted: Floats, explaining: Floats, groups: np.ndarray[Any, np.dtype[np.int64]]) -> Floats:
    """What a line over the peers leaves of `wanted`; NaN in groups that are too small to have one."""
    residuals = np.full(len(wanted), np.nan)
    known = ~np.isnan(wanted) & ~np.isnan(explaining)
    for group in np.unique(groups[groups != _NO_GROUP]):
        members = np.flatnonzero(known & (groups == group))
        if len(members) >= _FEWEST_PEERS:
            residuals[members] = _from_line(explaining[members], wanted[members])
    return residuals


def _from_line(x: Floats, y: Floats) -> Floats:
    """Residuals from a least-squares line that is fitted again without the tenth that fits worst.

    The second fit keeps one sick GPU from bending the line towards itself.
    """
    design = np.column_stack([np.ones_like(x), x])
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    kept = np.argsort(np.abs(left))[: max(_FEWEST_PEERS - 1, len(x) - len(x) // 10 - 1)]
    residuals: Floats = y - design @ np.linalg.lstsq(design[kept], y[kept], rcond=None)[0]
    return residuals
