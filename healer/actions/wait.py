"""The verb that waits: for a good moment, or for the effect of what was done."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import ClassVar

import numpy as np

from healer.content.expressions import CelExpression, Shape, compile_expression
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import Disposition
from healer.domain.plan import Effect
from healer.domain.run import Done, Failed, Outcome, RetryAfter
from healer.domain.signal import Signal
from healer.errors import Rejected
from healer.schema import Section
from healer.verb import Ledger, Proposal, World

_LOOK_AGAIN = timedelta(seconds=15)
_ON_A_NODE = frozenset({ComponentKind.NODE, ComponentKind.GPU})
_GPUS: Shape = dict.fromkeys(("count", "utilization", "power_watts", "temperature"))
_NODE: Shape = dict.fromkeys(("name", "ready", "cordoned", "workloads"))


class Until:
    """wait.until: goes on when a condition on the world is met. What is not known meets no condition."""

    name: ClassVar[str] = "wait.until"
    target: ClassVar[ComponentKind | None] = None
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        """Attributes:
        until: CEL, on `gpus` of the target (count; utilization and temperature, the highest; power_watts, of all),
            and where the target is a node, or a GPU of one, on `node` (name, ready, cordoned, and workloads: all that
            would not stay in a drain).
        """

        until: str

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        try:
            compile_condition(arguments.until, target.kind)
        except ValueError as error:
            return Proposal(blockers=(str(error),))
        # Shown to who approves what comes after it.
        return Proposal(effects=(Effect("wait until", arguments.until, harmless=True),))

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        try:
            why = unmet(arguments.until, target, ledger.world)
        except ValueError as error:
            return Failed(str(error))
        return Done(arguments.until) if why is None else RetryAfter(_LOOK_AGAIN, f"waits until {why}")

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        """It was met once, and need not be for ever."""
        return Done(arguments.until)

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done("nothing was done")


@lru_cache(maxsize=256)
def compile_condition(text: str, kind: ComponentKind | None) -> CelExpression:
    """On a target of this kind. Raises ValueError."""
    return compile_expression(text, shape={"gpus": _GPUS, "node": _NODE} if kind in _ON_A_NODE else {"gpus": _GPUS})


def unmet(until: str, target: Component, world: World) -> str | None:
    """The condition that is not met, and what of it is unknown; None if it is met.

    Raises:
        ValueError: it is no condition on such a target.
        Unavailable: it is about the node, and the scheduler does not answer.
    """
    condition = compile_condition(until, target.kind)
    variables = _variables(condition, target, world)
    try:
        return None if condition(variables) is True else until
    except Rejected as error:
        return f"{until}: {error.detail}"


def _variables(condition: CelExpression, target: Component, world: World) -> Mapping[str, object]:
    """Those that are known. Raises Unavailable if the scheduler does not answer; it is asked only if it is meant."""
    variables: dict[str, object] = {"gpus": _gpus(target, world)}
    if target.kind in _ON_A_NODE and target.node is not None and "node" in condition.text:
        node = world.cluster.node(target.node)
        workloads = [each for each in world.cluster.workloads(node.name) if each.disposition is not Disposition.STAYS]
        variables["node"] = {
            "name": node.name,
            "ready": node.ready,
            "cordoned": node.cordoned,
            "workloads": len(workloads),
        }
    return variables


def _gpus(target: Component, world: World) -> dict[str, object]:
    """Of all GPUs of the target; a figure that one of them does not show now is not known of all."""
    frame = world.frame
    if frame is None or world.now - frame.at > world.max_age:
        return {}
    rows = frame.parts_of(target)
    if not len(rows):
        return {}
    found: dict[str, object] = {"count": len(rows)}
    for name, signal, fold in (
        ("utilization", Signal.UTILIZATION, np.max),
        ("temperature", Signal.GPU_TEMPERATURE, np.max),
        ("power_watts", Signal.POWER, np.sum),
    ):
        values = np.where(frame.current[rows], frame.latest(signal)[rows], np.nan)
        if not np.isnan(values).any():
            found[name] = float(fold(values))
    return found
