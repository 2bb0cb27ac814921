"""All that content may import: detectors, models, and actions of a deployment's own.

A **detector** is a file `detectors/NAME.py` with

* `MODES`: the failure modes it can find,
* `READS`: the signals it looks at (the daemon reports those that no exporter offers),
* `Settings`: a frozen dataclass with a default for every field; `config.yaml` overrides them under `detectors: NAME:`,
* `detect(frame, settings) -> Findings`: a pure function on arrays.

A **model** is a folder `models/NAME/` with `model.py` and `card.md`:

* `READS`: the signals it needs,
* `features(frame) -> (n_gpus, n_features) float64`, NaN where unknown,
* `build(**hyper_parameters)`: an unfitted scikit-learn estimator,
* `score(estimator, features) -> (n_gpus,) float64` in 0 to 1, NaN where the features are unknown or out of the fitted
  range,
* `judge(frame, scores, settings) -> Findings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis, Evidence, FailureMode, Finding, Findings, Health, Judgement
from healer.domain.frame import Floats, Frame
from healer.domain.signal import Signal

__all__ = [
    "Basis",
    "Component",
    "ComponentKind",
    "Evidence",
    "FailureMode",
    "Finding",
    "Findings",
    "Floats",
    "Frame",
    "Health",
    "Judgement",
    "Signal",
    "counter_growth",
    "findings",
    "peers",
]


def findings(
    mode: FailureMode,
    kind: ComponentKind,
    health: NDArray[np.int8],
    components: Sequence[Component],
    describe: Callable[[int], tuple[float, str, tuple[Evidence, ...]]],
    *,
    basis: Basis = Basis.RULE,
) -> Findings:
    """Turn one health per component into Findings.

    Args:
        health: (n_components,) of Health, in the order of `components`.
        describe: row -> (score 0 to 1, the reason in one sentence with its figures, evidence); called only for the
            components that are DEGRADED or FAILED.
    """
    found = []
    for row in np.flatnonzero(health > Health.HEALTHY).tolist():
        score, reason, evidence = describe(row)
        found.append(Finding(mode, components[row], Health(int(health[row])), score, reason, basis, evidence))
    return Findings(tuple(found), (Judgement(mode, kind, health, basis),))


def counter_growth(window: Floats) -> Floats:
    """(n_gpus,) by how much a counter grew over `window` (n_ticks, n_gpus), oldest first.

    A fall is a reset, after which counting starts again; a gap hides nothing, the next sample is compared with the
    last.
    """
    last = np.maximum.accumulate(np.where(np.isnan(window), -1, np.arange(len(window))[:, None]), axis=0)
    filled = np.take_along_axis(window, np.maximum(last, 0), axis=0)
    growth: Floats = np.nansum(np.clip(np.diff(filled, axis=0), 0, None), axis=0)
    return growth


def peers(frame: Frame) -> NDArray[np.int64]:
    """(n_gpus,) the peer group of each GPU: the GPUs of the same model."""
    return frame.gpus.peers
