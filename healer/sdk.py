"""All that content may import: detectors, models, and actions of a deployment's own.

A **detector** is a file `detectors/NAME.py` with

* `MODES`: the failure modes it can find,
* `READS`: the signals it looks at (the daemon reports those that no exporter offers),
* `REMEMBERS`, if it compares with the past: the signals whose hours before the window it needs (`frame.past`),
* `Settings`: a frozen dataclass with a default for every field; `config.yaml` overrides them under `detectors: NAME:`,
* `detect(frame, settings) -> Findings`: a pure function on arrays.

A **model** is a folder `models/NAME/` with `model.py` and `card.md`:

* `READS`: the signals it needs,
* `features(frame) -> (n_gpus, n_features) float64`, NaN where unknown,
* `build(**hyper_parameters)`: an unfitted scikit-learn estimator,
* `score(estimator, features) -> (n_gpus,) float64` in 0 to 1, NaN where the features are unknown or out of the fitted
  range,
* `judge(frame, scores, settings) -> Findings`.

An **action**, the verb of a playbook's step, is a class in a file `actions/NAME.py`, or of an installed package by an
entry point of the group `healer.actions`. It needs no base class, is made without arguments, and has

* `name`: how playbooks call it, `word.word`,
* `target`: the ComponentKind that it works on; None for anything,
* `disrupts`: work on its target is moved, or starts again, and undoing does not give it back,
* `keeps_work_away`: after it, no new work comes to its node,
* `Arguments`: a Section, what stands under `with`,
* `plan(arguments, target, world) -> Proposal`: what it would do now. Reads only, and answers soon, for every decision
  waits for it. An Effect by which a node leaves service says so (`takes_out`): budgets count these,
* `run(arguments, target, ledger) -> Outcome`: does some of it in bounded time, each effect through `ledger.effect`.
  Called again after RetryAfter, and after a crash,
* `verify(arguments, target, ledger) -> Outcome`: observes whether the world is as it should be. Reads only; asked
  again before each later step,
* `undo(arguments, target, ledger) -> Outcome`: takes back what this run did (`ledger.standing`) through
  `ledger.undo`, and nothing that anybody else did,
* `rehearsed()`, a class method: what plays it in tests of playbooks and in backtests, an instance with these four
  methods that reaches nothing real; `cls()` for a verb that acts through `ledger.world` alone. Without it they refuse
  the verb.

It raises Unavailable when nobody knows (no answer, or one without sense): the effect is in doubt, and `happened` is
asked before it is tried again; Rejected when the answer was no; NotNow when it did not happen and may later. Whatever
else it raises is a defect, and leaves the effect in doubt, too. `run_program` runs a program within a timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from healer.domain.axes import NOWHERE_ROW, Bools, Floats, GroupAxis, Ints, Singles, grouped_medians
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis, Evidence, FailureMode, Finding, Findings, Health, Judgement, Report
from healer.domain.frame import Frame, Presence
from healer.domain.history import Past, Signals, Xids
from healer.domain.kernel_line import KernelLine
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectRecord, EffectState, Failed, Outcome, RetryAfter
from healer.domain.signal import NodeSignal, PortSignal, Signal
from healer.domain.testimony import Progress, Testimony
from healer.errors import Conflict, HealerError, NotFound, Rejected, Unavailable
from healer.programs import Ended, run_program
from healer.schema import Duration, Section
from healer.telemetry.catalogue.signals import MEANINGS
from healer.telemetry.xids.catalogue import Xid, codes_blamed_on, codes_of, xid
from healer.telemetry.xids.words import Action, Blame
from healer.verb import Ledger, NotNow, Proposal, World

__all__ = [
    "NOWHERE_ROW",
    "Action",
    "Basis",
    "Blame",
    "Bools",
    "Component",
    "ComponentKind",
    "Conflict",
    "Done",
    "Duration",
    "Effect",
    "EffectRecord",
    "EffectState",
    "Ended",
    "Evidence",
    "Failed",
    "FailureMode",
    "Finding",
    "Findings",
    "Floats",
    "Frame",
    "GroupAxis",
    "HealerError",
    "Health",
    "Ints",
    "Judgement",
    "KernelLine",
    "Ledger",
    "NodeSignal",
    "NotFound",
    "NotNow",
    "Outcome",
    "Past",
    "PortSignal",
    "Presence",
    "Progress",
    "Proposal",
    "Rejected",
    "Report",
    "RetryAfter",
    "Said",
    "Section",
    "Signal",
    "Signals",
    "Singles",
    "Testimony",
    "Unavailable",
    "World",
    "Xid",
    "Xids",
    "codes_blamed_on",
    "codes_of",
    "evidence",
    "findings",
    "grouped_medians",
    "lasting",
    "peers",
    "points",
    "run_program",
    "xid",
]

_MOST_POINTS = 40


@dataclass(frozen=True, slots=True)
class Said:
    """What a detector says of one component that it finds degraded or failed.

    Attributes:
        reason: one sentence with its figures, for the person who has to decide.
        evidence: the series that convinced it.
        score: 0 to 1, how sure it is; 1 for a rule that the data meets outright.
        culprit: of a job or a rack, the part that is to blame.
        disputed: who said what, one sentence each, where sources disagree.
        members: of what is no component with GPUs of its own (a source, a switch), what it is about.
        vanished: concluded only from what is not shown any more: before anything destructive is done about it, somebody
            beside the telemetry has to say so, too.
    """

    reason: str
    evidence: tuple[Evidence, ...] = ()
    score: float = 1.0
    culprit: Component | None = None
    disputed: tuple[str, ...] = ()
    members: tuple[Component, ...] = ()
    vanished: bool = False


def findings(
    mode: FailureMode,
    kind: ComponentKind,
    health: NDArray[np.int8],
    components: Sequence[Component],
    describe: Callable[[int], Said],
    *,
    basis: Basis = Basis.RULE,
) -> Findings:
    """Turn one health per component into Findings.

    Args:
        health: (n_components,) of Health, in the order of `components`, which is that of the frame's axis of `kind`.
        describe: row -> what there is to say; called only for the components that are DEGRADED or FAILED.
    """
    found = []
    for row in np.flatnonzero(health > Health.HEALTHY).tolist():
        said = describe(row)
        found.append(
            Finding(
                failure_mode=mode,
                component=components[row],
                health=Health(int(health[row])),
                score=said.score,
                reason=said.reason,
                basis=basis,
                evidence=said.evidence,
                culprit=said.culprit,
                disputed=said.disputed,
                members=said.members,
                vanished=said.vanished,
            )
        )
    return Findings(tuple(found), (Judgement(mode, kind, health, basis),))


def evidence(frame: Frame, *signals: Signal, row: int, note: str = "") -> tuple[Evidence, ...]:
    """The history of these signals of one GPU over the window; those that are not known at all are left out."""
    told = ((signal, frame.signals.of_row(signal, row)) for signal in signals)
    return tuple(
        Evidence(
            signal=str(signal),
            value=float(history[-1]),
            unit=MEANINGS[signal].unit,
            at=frame.at,
            note=note,
            points=points(frame.signals.times_s, history),
        )
        for signal, history in told
        if not np.isnan(history).all()
    )


def points(times_s: Floats, values: Floats) -> tuple[tuple[datetime, float], ...]:
    """A series as evidence has it: (time, value), oldest first, without the unknown, thinned out to a few dozen."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) > _MOST_POINTS:
        known = known[np.unique(np.linspace(0, len(known) - 1, _MOST_POINTS).astype(np.int64))]
    pairs = zip(times_s[known].tolist(), values[known].tolist(), strict=True)
    return tuple((datetime.fromtimestamp(at, UTC), value) for at, value in pairs)


def lasting(history: Bools, ticks: int) -> Bools:
    """(n,) what was true at each of the last `ticks` ticks of `history` (n_ticks, n); not if there were fewer."""
    if len(history) < ticks:
        return np.zeros(history.shape[1], dtype=np.bool_)
    held: Bools = np.logical_and.reduce(history[-ticks:], axis=0)
    return held


def peers(frame: Frame) -> Ints:
    """(n_gpus,) the peer group of each GPU: the GPUs of the same model."""
    return frame.gpus.peers
