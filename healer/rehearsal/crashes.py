"""What the author of a verb runs on it: one run, killed at every instant, has to end as if nothing had been.

In a test of the author's own: `crash_test(AssetMark.rehearsed, {"state": "in repair"}, NODE)`, NODE being its target.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from healer.adapters.journal.sql import SqlJournal
from healer.content.own_verb import OwnVerb
from healer.domain.approval import Person
from healer.domain.component import Component
from healer.domain.finding import FailureMode, Finding, Health
from healer.domain.incident import Incident
from healer.domain.plan import Plan, PlannedStep
from healer.domain.playbook import ResolvesWhen, Scalar
from healer.domain.run import Done, EffectState, Outcome, RetryAfter, Run, RunState
from healer.errors import Unavailable
from healer.ports import Transaction
from healer.rehearsal.virtual import START, VirtualClock
from healer.runtime.executor import Executor
from healer.schema import Section
from healer.verb import Ledger, Proposal, Verbs, World

_LONG = timedelta(days=36500)
_MOST_LOOKS = 200
_A_MOMENT = timedelta(seconds=1)
_PERSON = Person("crash-test")
_FOR_EVER = "crash.waits"

Look = Callable[[datetime], World]


def _nothing(now: datetime) -> World:
    return World(now, None, None, None, 0.0)


def crash_test(
    make: Callable[[], Any], arguments: Mapping[str, Scalar], target: Component, *, look: Look = _nothing
) -> tuple[str, ...]:
    """Have the verb run, and have it run and undone, once for each instant at which healer can be killed or an answer
    be lost; returns the instants.

    Raises AssertionError, naming the instant, if an effect happens twice, if the run does not end as it would have, or
    if it stays unknown whether an effect happened. How often `undo` acts is not counted: it may be asked again.

    Args:
        make: the verb, in a world in which nothing has happened yet.
        arguments: what would stand under `with`.
        look: the world that it is given, if it acts through that.
    """
    met: list[str] = []
    with tempfile.TemporaryDirectory(prefix="healer-crashes-") as folder:
        empty = Path(folder) / "empty.db"
        SqlJournal(f"sqlite:///{empty}").close()
        life = partial(_Life, empty=empty, arguments=arguments, target=target, look=look)
        for undone in (False, True):
            clean = _Fuse()
            life(path=Path(folder) / f"{undone}.db", verb=OwnVerb(make()), fuse=clean, undone=undone).live()
            for number, point in enumerate(clean.points):
                path, fuse = Path(folder) / f"{undone}-{number}.db", _Fuse(number)
                try:
                    life(path=path, verb=OwnVerb(make()), fuse=fuse, undone=undone).live()
                except AssertionError as error:
                    raise AssertionError(f"{point}{', to be undone' if undone else ''}: {error}") from error
                met.append(point)
    return tuple(met)


class _Killed(BaseException):
    """The process ends here; nothing of it runs any more."""


class _Fuse:
    """Attributes:
    points: what each instant is called.
    done: how often each effect has happened.
    """

    def __init__(self, blows_at: int | None = None) -> None:
        self.points: list[str] = []
        self.done: Counter[str] = Counter()
        self._blows_at = blows_at

    def point(self, name: str, error: BaseException) -> None:
        self.points.append(name)
        if len(self.points) - 1 == self._blows_at:
            raise error


class _Journal(SqlJournal):
    def __init__(self, path: Path, fuse: _Fuse) -> None:
        super().__init__(f"sqlite:///{path}")
        self._fuse = fuse

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self._fuse.point("killed before a write", _Killed())
        with super().transaction() as write:
            yield write
        self._fuse.point("killed after a write", _Killed())


@dataclass(frozen=True, slots=True, eq=False)
class _Ledger(Ledger):
    """Has the fuse in each effect, and counts it."""

    fuse: _Fuse

    def effect(self, key: str, *, do: Callable[[], object], happened: Callable[[], bool], found: str = "") -> None:
        def counted() -> object:
            self.fuse.point(f"killed before {key}", _Killed())
            note = do()
            self.fuse.done[key] += 1
            self.fuse.point(f"killed after {key}", _Killed())
            self.fuse.point(f"the answer to {key} is lost", Unavailable("crash test", "lost the answer"))
            return note

        Ledger.effect(self, key, do=counted, happened=happened, found=found)


class _Fused(OwnVerb):
    """The verb behind its boundary, with a ledger that has the fuse in it."""

    def __init__(self, verb: OwnVerb, fuse: _Fuse) -> None:
        super().__init__(verb)
        self._fuse = fuse

    def run(self, arguments: Any, target: Component, ledger: Ledger) -> Outcome:
        given = {each.name: getattr(ledger, each.name) for each in fields(Ledger)}
        return super().run(arguments, target, _Ledger(**given, fuse=self._fuse))


class _ForEver:
    """What comes after a run that is to be undone: it waits until it is cancelled."""

    name = _FOR_EVER
    target = None
    disrupts = False
    keeps_work_away = False
    Arguments = Section

    def plan(self, arguments: Section, target: Component, world: World) -> Proposal:  # noqa: ARG002
        return Proposal()

    def run(self, arguments: Section, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return RetryAfter(_A_MOMENT, "waits")

    def verify(self, arguments: Section, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done()

    def undo(self, arguments: Section, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done()


@dataclass(slots=True, eq=False, kw_only=True)
class _Life:
    """One run, from its plan to its end, by as many processes as it takes."""

    empty: Path  # a journal, which is quicker copied than made anew
    path: Path
    verb: OwnVerb
    arguments: Mapping[str, Scalar]
    target: Component
    look: Look
    fuse: _Fuse
    undone: bool
    clock: VirtualClock = field(default_factory=VirtualClock)

    def live(self) -> None:
        """Raises AssertionError."""
        verbs: Verbs = {self.verb.name: _Fused(self.verb, self.fuse), _FOR_EVER: _ForEver()}
        key = self._begin()
        for process in itertools.count():
            journal = _Journal(self.path, self.fuse)
            try:
                journal.lead(f"process-{process}", self.clock.now(), _LONG)
                self._pursue(journal, key, Executor(journal, verbs, lambda _run: None, self.clock))
                self._check(journal, journal.run(key))
            except _Killed:
                continue
            finally:
                journal.close()
            return

    def _begin(self) -> str:
        """Start a run of what the verb proposes; returns its id."""
        verb, target = self.verb, self.target
        proposal = verb.plan(verb.Arguments.model_validate(self.arguments), target, self.look(START))
        assert not proposal.blockers, f"it says that it cannot be done: {'; '.join(proposal.blockers)}"
        assert proposal.effects, "its plan has no effect: there is nothing to be tested"
        incident = Incident.opened(Finding(FailureMode.GPU_XID, target, Health.FAILED, 1.0, "a crash test"), START)
        steps = [PlannedStep("step", verb.name, self.arguments, _LONG)]
        steps += [PlannedStep("then", _FOR_EVER, {}, _LONG)] if self.undone else []
        plan = Plan(
            incident_id=incident.id,
            playbook="crash-test",
            playbook_digest="",
            target=target,
            effects=proposal.effects,
            steps=tuple(steps),
            needs_approval=False,
            approval_expires_after=_LONG,
            deadline=_LONG,
            resolves_when=ResolvesWhen.HEALTHY,
            reason="a crash test",
        )
        run = Run("run", incident.id, None, plan, RunState.RUNNING, 0, START, START, START)
        shutil.copy(self.empty, self.path)
        journal = SqlJournal(f"sqlite:///{self.path}")
        try:
            journal.lead("beginning", START, _LONG)
            with journal.transaction() as write:
                write.save_incident(incident)
                write.add_run(run, [])
        finally:
            journal.close()
        return run.id

    def _pursue(self, journal: SqlJournal, key: str, executor: Executor) -> None:
        """Look after the run until it has ended, and cancel it when it only waits."""
        for _ in range(_MOST_LOOKS):
            run = journal.run(key)
            if run.state.ended:
                return
            if run.position == 1 and not run.cancelled_by:
                run = journal.request_cancel(key, _PERSON, self.clock.now(), "to have it undone")
            self.clock.time = max(self.clock.now() + _A_MOMENT, run.next_look_at)
            looked = executor.look(run, self.look(self.clock.now()))
            with journal.transaction() as write:
                write.save_run(looked)
        raise AssertionError(f"it has not ended after {_MOST_LOOKS} looks: {journal.run(key).detail}")

    def _check(self, journal: SqlJournal, run: Run) -> None:
        wanted = RunState.CANCELLED if self.undone else RunState.SUCCEEDED
        assert run.state is wanted, f"the run has {run.state}, not {wanted}: {run.cause or run.detail}"
        assert "could not undo" not in run.cause, run.cause
        twice = [key for key, count in self.fuse.done.items() if count > 1]
        assert not twice, f"{', '.join(twice)} happened more than once; does `happened` see that it did?"
        open_ones = [record.key for record in journal.effects(run.id) if record.state is EffectState.INTENT]
        assert not open_ones, f"whether {', '.join(open_ones)} happened stays unknown"
