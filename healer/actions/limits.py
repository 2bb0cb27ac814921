"""Verbs on power limits as such, which need neither a meter nor a budget: for what runs hot.

A limit is a share of the device's own default, and is what the agent falls back to as well: should nobody come back to
renew it, the GPUs stay as cool as they were made. Nodes of which nothing can be had now are told, and left as they
are: that one agent is silent must not let all the others get hot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from healer.actions.caps import NodeCap, caps_in_line, caps_of, first_number, renew, restore_all, set_cap, spread
from healer.actions.evictions import node_of
from healer.actions.rack import TOLERANCE_W
from healer.actions.wait import compile_condition, unmet
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import GpuPower
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectState, Failed, Outcome, RetryAfter
from healer.errors import Rejected, Unavailable
from healer.schema import Duration, Section, format_duration
from healer.verb import Ledger, Proposal, World

_LOOK_AGAIN = timedelta(seconds=15)
_MOST_LATE = timedelta(minutes=1)  # a look that comes later than that cannot say what was meanwhile
_MET = "met"


class Limit:
    """power.limit: every GPU of the target gets a share of its own default limit."""

    name: ClassVar[str] = "power.limit"
    target: ClassVar[ComponentKind | None] = None
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        """Attributes:
        share: of each GPU's default limit; not below what the device takes, nor below the configured floor.
        ttl: how long the agents hold it without being asked again.
        """

        share: Annotated[float, Field(gt=0, lt=1)] = 0.7
        ttl: Duration = timedelta(minutes=10)

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:
        reached = _reached(target, world)
        caps = _caps(reached, arguments, world)
        if not caps:
            return Proposal(blockers=(f"no GPU of {target} has a limit that is ours to lower",))
        limited = sum(len(cap.gpus) for cap in caps.values())
        from_w, to_w = spread([cap.default_w for cap in caps.values()]), _limits(caps)
        left = reached.asked_for - limited
        return Proposal(
            effects=(
                Effect("limit power", str(target), f"{limited} GPUs on {len(caps)} nodes from {from_w} to {to_w} each"),
            ),
            impediments=(
                *reached.unknown,
                *([f"{left} of its {reached.asked_for} GPUs are left as they are"] if left else []),
                *_slowed(target, world),
            ),
        )

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        begun = caps_of(ledger)
        reached = _reached(target, ledger.world, without=begun)
        failures = [*reached.unknown]
        limited: dict[str, NodeCap] = {}
        for node, cap in {**begun, **_caps(reached, arguments, ledger.world)}.items():
            try:
                set_cap(ledger, node, cap, number=first_number(ledger))
                limited[node] = cap
            except Rejected as error:  # it said no, so that nothing is in doubt there
                failures.append(str(error))
        if not limited:
            return Failed("; ".join([f"no GPU of {target} could be limited", *failures]))
        return Done("; ".join([_described(limited), *failures]))

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        """The agents answered that it was so. What a person makes of it later is theirs, and ends no run."""
        return Done(_described(caps_of(ledger)))

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return restore_all(ledger)


class Keep:
    """power.keep: renew the limits of this run until a condition on the world has held for some time.

    What is not known meets no condition, and the limits stay. Those that earlier runs of the incident have kept are
    renewed as well.
    """

    name: ClassVar[str] = "power.keep"
    target: ClassVar[ComponentKind | None] = None
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        """Attributes:
        until: CEL, as that of wait.until.
        lasting: for how long it has to have held, at every look.
        """

        until: str
        lasting: Duration = timedelta(minutes=10)

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        try:
            compile_condition(arguments.until, target.kind)
        except ValueError as error:
            return Proposal(blockers=(str(error),))
        return Proposal(
            effects=(
                Effect(
                    "keep limits until",
                    f"{arguments.until} for {format_duration(arguments.lasting)}",
                    harmless=True,
                ),
            )
        )

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        failures = _renewed(ledger)
        try:
            why = unmet(arguments.until, target, ledger.world)
        except ValueError as error:
            return Failed(str(error))
        except Unavailable as error:
            why = str(error)
        since, now = _met_since(ledger, arguments.until, met=why is None), ledger.world.now
        if since is not None and now - since >= arguments.lasting:
            return Done(f"{arguments.until} for {format_duration(arguments.lasting)}")
        waits = f"kept until {why or arguments.until}" + ("" if since is None else f", so since {since:%H:%M:%S}Z")
        wait = min([_LOOK_AGAIN, *(cap.ttl / 3 for cap in caps_in_line(ledger).values())])
        return RetryAfter(wait, "; ".join([waits, *failures]))

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        """It has held for so long once, and need not for ever."""
        return Done(arguments.until)

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return restore_all(ledger)


@dataclass(frozen=True, slots=True)
class _Reached:
    """The GPUs of a target as the agents of their nodes report them.

    Attributes:
        asked_for: how many GPUs the target has, as the telemetry has it.
        unknown: why those of a node could not be read.
    """

    asked_for: int
    gpus: Mapping[str, tuple[GpuPower, ...]]
    unknown: tuple[str, ...]


def _reached(target: Component, world: World, *, without: Collection[str] = ()) -> _Reached:
    """Raises Unavailable if nothing is known of the target, or no agent answers: nothing known is not nothing there.

    Args:
        without: nodes that need not be read.
    """
    devices = _devices(target, world)
    gpus: dict[str, tuple[GpuPower, ...]] = {}
    unknown: list[Unavailable] = []
    for node in sorted(devices.keys() - set(without)):
        try:
            seen = world.power.limits(node)
        except Unavailable as error:
            unknown.append(error)
            continue
        gpus[node] = tuple(gpu for gpu in seen if devices[node] & {gpu.uuid, f"{node}/{gpu.gpu}"})
    if unknown and not gpus and not without:
        raise unknown[0]
    return _Reached(sum(map(len, devices.values())), gpus, tuple(map(str, unknown)))


def _devices(target: Component, world: World) -> Mapping[str, set[str]]:
    """By node, the physical GPUs of the target."""
    frame = world.frame
    rows = [] if frame is None else frame.parts_of(target).tolist()
    if frame is None or not rows:
        raise Unavailable("telemetry", f"knows no GPU of {target} yet")
    devices: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        component = frame.gpus.components[row]
        devices[node_of(component)].add(component.device)
    return devices


def _caps(reached: _Reached, arguments: Limit.Arguments, world: World) -> dict[str, NodeCap]:
    """By node, the limits of those GPUs that nobody else has limited, and that take a lower one."""
    caps = {}
    for node, gpus in reached.gpus.items():
        # One fallback goes for all that an agent is told at once, so none goes lower than all of them take.
        lowest_w = max([world.power_floor_w, *(gpu.min_w for gpu in gpus)])
        limits = {
            gpu.gpu: max(float(round(arguments.share * gpu.default_w)), lowest_w)
            for gpu in gpus
            if gpu.limit_w >= gpu.default_w - TOLERANCE_W and lowest_w < gpu.default_w - TOLERANCE_W
        }
        if limits:
            each_w = tuple(limits.values())
            caps[node] = NodeCap(
                cap_w=max(each_w),
                fallback_w=min(each_w),
                default_w=max(gpu.default_w for gpu in gpus if gpu.gpu in limits),
                lowest_w=lowest_w,
                ttl_s=arguments.ttl.total_seconds(),
                gpus=tuple(limits),
                each_w=each_w if len(set(each_w)) > 1 else (),
            )
    return caps


def _slowed(target: Component, world: World) -> Iterator[str]:
    """The jobs that have GPUs outside of the target, too: all ranks wait for the slowest."""
    frame = world.frame
    if frame is None:
        return
    rows = frame.parts_of(target)
    of_target = frame.jobs.of_gpu[rows]
    for job in np.unique(of_target[of_target >= 0]).tolist():
        outside = len(np.setdiff1d(frame.jobs.members(job), rows))
        if outside:
            yield f"{frame.jobs.components[job]} has {outside} more GPUs outside: all of them go as slowly"


def _renewed(ledger: Ledger) -> list[str]:
    """Renew the limits on every node, and say where it could not be done: there the agent falls back to the same."""
    failures = []
    for node, cap in caps_in_line(ledger).items():
        try:
            renew(ledger, node, cap)
        except (Unavailable, Rejected) as error:
            failures.append(str(error))
    return failures


def _met_since(ledger: Ledger, until: str, *, met: bool) -> datetime | None:
    """Since when the condition has been met at every look, None while it is not; written down when that changes.

    After a pause in which nobody looked it counts anew.
    """
    now, run, noted = ledger.world.now, ledger.run, ledger.record(_MET)
    standing = noted if noted is not None and noted.state is EffectState.DONE else None
    if met and standing is not None and now - run.next_look_at <= _MOST_LATE:
        return standing.intended_at
    if met:
        ledger.note(_MET, until)
        return now
    if standing is not None:
        ledger.save(replace(standing, state=EffectState.UNDONE, settled_at=now, detail=f"no longer {until}"))
    return None


def _described(caps: Mapping[str, NodeCap]) -> str:
    if not caps:
        return "every limit is back"
    number = sum(len(cap.gpus) for cap in caps.values())
    return f"{number} GPUs on {len(caps)} nodes are limited to {_limits(caps)}"


def _limits(caps: Mapping[str, NodeCap]) -> str:
    return spread([watts for cap in caps.values() for watts in cap.limits.values()])
