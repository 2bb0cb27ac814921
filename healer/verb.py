"""What every verb implements, healer's own and a deployment's, and what it is given: the world it may look at, and the
ledger through which it acts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import Means
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.domain.plan import Effect
from healer.domain.run import EffectRecord, EffectState, Outcome, Run
from healer.domain.verdict import Verdict
from healer.errors import HealerError, NoMeans, NotFound, Unavailable
from healer.ports import Clock, Cluster, NodeCare, PowerControl, Tickets
from healer.schema import Section

INTERRUPTED = "observed after an interruption"  # what is noted of an effect whose outcome a crash or a lost answer hid


def _no_incident(incident_id: str) -> Incident:
    raise NotFound("incident", f"there is no incident {incident_id}")


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """What a verb may look at. A part that is not configured is None, and asking for it says so.

    Attributes:
        frame: the newest frame; None before the first.
        power_floor_w: no cap goes below this.
        incident: one by its id, as it now stands. Raises NotFound.
        max_age: a frame that is older says nothing of now.
    """

    now: datetime
    frame: Frame | None
    configured_cluster: Cluster | None
    configured_power: PowerControl | None
    power_floor_w: float
    configured_tickets: Tickets | None = None
    incident: Callable[[str], Incident] = _no_incident
    max_age: timedelta = timedelta(seconds=90)
    configured_care: NodeCare | None = None

    @property
    def means(self) -> Means:
        return Means(
            agent=self.configured_care is not None,
            power=self.configured_power is not None,
            scheduler=self.configured_cluster is not None,
        )

    @property
    def care(self) -> NodeCare:
        if self.configured_care is None:
            raise NoMeans("agent", "no node agents are configured; set agent.url")
        return self.configured_care

    @property
    def tickets(self) -> Tickets:
        if self.configured_tickets is None:
            raise NoMeans("tickets", "tickets go nowhere; set tickets.folder or tickets.url")
        return self.configured_tickets

    @property
    def cluster(self) -> Cluster:
        if self.configured_cluster is None:
            raise NoMeans("cluster", "no scheduler is configured; set cluster.kind")
        return self.configured_cluster

    @property
    def power(self) -> PowerControl:
        if self.configured_power is None:
            raise NoMeans("power", "no node agents are configured; set power.agent_url")
        return self.configured_power


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a verb would do now.

    Attributes:
        impediments: what may slow it down; the approver sees them.
        blockers: why it cannot be done at all; then nobody is asked.
    """

    effects: tuple[Effect, ...] = ()
    impediments: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()


class GuardSpoke(HealerError):
    """A guard spoke against an effect at the last moment."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict))
        self.verdict = verdict


class NotNow(HealerError):
    """The effect did not happen and may be tried again: a disruption budget is spent."""

    def __init__(self, wait: timedelta, detail: str) -> None:
        super().__init__(detail)
        self.wait = wait


class Unresolved(HealerError):
    """It is not known whether the effect happened."""


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """Through which a verb acts: intent before the effect, outcome after it, and never the same effect twice.

    Attributes:
        records: what the journal holds of this run, in order.
        save: writes one record to the journal, committed when it returns.
        permit: asks the guards; None if nothing speaks against acting now.
        clock: an effect takes time; when it was intended and when it was settled are not the time of the look.
        inherited: reads what the journal holds of the earlier runs of the incident; few verbs ask.
    """

    world: World
    run: Run
    step_id: str
    records: Sequence[EffectRecord]
    save: Callable[[EffectRecord], None]
    permit: Callable[[], Verdict | None]
    clock: Clock
    inherited: Callable[[], Sequence[EffectRecord]] = field(default=tuple, kw_only=True)

    def effect(self, key: str, *, do: Callable[[], object], happened: Callable[[], bool], found: str = "") -> None:
        """Have the effect exactly once, also across a crash.

        Args:
            do: acts, and returns what to note about it. Unavailable, and whatever is no HealerError, means that nobody
                knows whether it happened; any other HealerError that it did not.
            happened: observes the world; asked about an intent that a crash or a lost answer left without outcome.
            found: the state before, as JSON, for the undo.
        """
        self._have(key, do=do, happened=happened, found=found, permit=self.permit)

    def give_back(self, key: str, *, do: Callable[[], object], happened: Callable[[], bool]) -> None:
        """As `effect`, for what ends another effect of this run: as an undo, it is held by no guard."""
        self._have(key, do=do, happened=happened, found="", permit=lambda: None)

    def undo(self, record: EffectRecord, *, do: Callable[[], object]) -> None:
        """Take back one effect that this run had."""
        self._settle(record, EffectState.UNDONE, _note(do()))

    def observed(self, record: EffectRecord) -> None:
        """Settle an intent whose effect a crash or a lost answer hid, and that was seen to have happened."""
        self._settle(record, EffectState.DONE, INTERRUPTED)

    def missed(self, record: EffectRecord) -> None:
        """Settle an intent whose effect a crash or a lost answer hid, and that was seen not to have happened."""
        self._settle(record, EffectState.FAILED, f"had not happened: {INTERRUPTED}")

    def note(self, key: str, detail: str) -> None:
        """Write down that something is so as of this look. It changes nothing."""
        now = self.world.now
        self.save(EffectRecord(self.run.id, self.step_id, key, EffectState.DONE, now, now, detail=detail))

    def record(self, key: str) -> EffectRecord | None:
        return next((r for r in self.records if r.step_id == self.step_id and r.key == key), None)

    def standing(self, prefix: str, *, of_any_step: bool = False) -> tuple[EffectRecord, ...]:
        """The effects that this run has had, or may have had, and not taken back."""
        own = _standing(self.records, prefix)
        return own if of_any_step else tuple(record for record in own if record.step_id == self.step_id)

    def standing_in_line(self, prefix: str) -> tuple[EffectRecord, ...]:
        """The same of any step, after those that earlier runs of the incident have kept."""
        return (*_standing(self.inherited(), prefix), *_standing(self.records, prefix))

    def _have(
        self,
        key: str,
        *,
        do: Callable[[], object],
        happened: Callable[[], bool],
        found: str,
        permit: Callable[[], Verdict | None],
    ) -> None:
        record = self.record(key)
        if record is not None and record.state is EffectState.DONE:
            return
        if record is not None and record.state is EffectState.INTENT and happened():
            self.observed(record)
            return
        verdict = permit()
        if verdict is not None:
            raise GuardSpoke(verdict)
        # What was found before the very first attempt is what an undo has to restore.
        kept = record.found if record is not None and record.state is EffectState.INTENT else found
        intent = EffectRecord(self.run.id, self.step_id, key, EffectState.INTENT, self.clock.now(), found=kept)
        self.save(intent)
        self._settle(intent, EffectState.DONE, self._attempt(intent, do))

    def _attempt(self, intent: EffectRecord, do: Callable[[], object]) -> str:
        try:
            return _note(do())
        except Unavailable as error:
            raise Unresolved(str(error)) from error
        except HealerError as error:
            self._settle(intent, EffectState.FAILED, str(error))
            raise

    def _settle(self, record: EffectRecord, state: EffectState, detail: str) -> None:
        self.save(replace(record, state=state, settled_at=self.clock.now(), detail=detail))


def _standing(records: Sequence[EffectRecord], prefix: str) -> tuple[EffectRecord, ...]:
    stands = {EffectState.DONE, EffectState.INTENT}
    return tuple(record for record in records if record.key.startswith(prefix) and record.state in stands)


def _note(said: object) -> str:
    """What was done is done, whatever was returned about it."""
    return "" if said is None else str(said)


class Action(Protocol):
    """One verb. `arguments` is an instance of its `Arguments`; all I/O of those that healer brings goes through the
    world's ports.

    Attributes:
        target: what it works on; None for anything.
        disrupts: work on its target is moved, or starts again, and undoing does not give it back.
        keeps_work_away: after it, no new work comes to its node.
    """

    @property
    def name(self) -> str: ...

    @property
    def target(self) -> ComponentKind | None: ...

    @property
    def disrupts(self) -> bool: ...

    @property
    def keeps_work_away(self) -> bool: ...

    @property
    def Arguments(self) -> type[Section]: ...  # noqa: N802

    def plan(self, arguments: Any, target: Component, world: World) -> Proposal:
        """What it would do now. Reads only."""
        ...

    def run(self, arguments: Any, target: Component, ledger: Ledger) -> Outcome:
        """Do some of it, in bounded time. Called again after RetryAfter, and after a crash."""
        ...

    def verify(self, arguments: Any, target: Component, ledger: Ledger) -> Outcome:
        """Observe whether the world is as it should be: Done, RetryAfter or Failed. Reads only."""
        ...

    def undo(self, arguments: Any, target: Component, ledger: Ledger) -> Outcome:
        """Take back what this run did, and nothing that anybody else did."""
        ...


def works_on(action: Action, kind: ComponentKind | None) -> bool:
    """Whether the verb can work on a target of this kind: what works on a node also does on that of a GPU."""
    return action.target in {None, kind} or (action.target is ComponentKind.NODE and kind is ComponentKind.GPU)


Verbs = Mapping[str, Action]
