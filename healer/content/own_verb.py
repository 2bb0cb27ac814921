"""The boundary around a verb of a deployment's own: whatever it does costs its own run, and nothing else.

A call that does not come back holds nobody up. It goes on by itself, for a thread cannot be ended; but it begins no
other effect, and until it is back there is no other call for its run: nothing acts twice, or after its run has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import msgspec

from healer.content.boundary import Defect
from healer.decoding import convert
from healer.domain.component import Component, ComponentKind
from healer.domain.run import Done, EffectRecord, Failed, Outcome, Refused, RetryAfter, Unknown
from healer.domain.verdict import Verdict
from healer.errors import Rejected, Unavailable
from healer.schema import Section, format_duration
from healer.verb import Action, Ledger, Proposal, Verbs, World

_OUTCOMES: tuple[type[Outcome], ...] = (Done, RetryAfter, Failed, Refused, Unknown)
_LONGEST_WAIT = timedelta(days=1)

Heard = Callable[[str, EffectRecord], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a call may take.

    Attributes:
        planning: every decision waits for it.
        acting: every other run waits for it.
    """

    planning: timedelta = timedelta(seconds=10)
    acting: timedelta = timedelta(seconds=60)


class OwnVerb:
    """Implements `healer.verb.Action` by a class that was checked when it was loaded.

    Attributes:
        acting: who is called: an instance of the class, or what stands in for it.
    """

    def __init__(
        self, verb: Action, *, acting: Any = None, heard: Heard = lambda _verb, _record: None, limits: Limits = Limits()
    ) -> None:
        self.name: str = verb.name
        self.target: ComponentKind | None = verb.target
        self.disrupts: bool = verb.disrupts
        self.keeps_work_away: bool = verb.keeps_work_away
        self.Arguments: type[Section] = verb.Arguments
        self.acting = verb if acting is None else acting
        self.__doc__ = verb.__doc__
        self._heard = heard
        self._limits = limits
        self._calls: dict[str, _Call] = {}

    def plan(self, arguments: Any, target: Component, world: World) -> Proposal:
        call = _Call(self.name, lambda: self.acting.plan(arguments, target, world))
        given = self._within(self._limits.planning, "plan", call)
        proposal: Proposal = self._whole("plan", given, Proposal)
        return proposal

    def run(self, arguments: Any, target: Component, ledger: Ledger) -> Outcome:
        return self._act("run", arguments, target, ledger)

    def verify(self, arguments: Any, target: Component, ledger: Ledger) -> Outcome:
        return self._act("verify", arguments, target, ledger)

    def undo(self, arguments: Any, target: Component, ledger: Ledger) -> Outcome:
        return self._act("undo", arguments, target, ledger)

    def rehearsed(self, heard: Heard) -> OwnVerb:
        """The same with a fresh stand-in; without one, it refuses.

        Args:
            heard: told of each effect, by the verb's name and as the ledger has it.
        """
        kind = type(self.acting)
        acting = kind.rehearsed() if hasattr(kind, "rehearsed") else Unrehearsed(self.name)
        return OwnVerb(self, acting=acting, heard=heard, limits=self._limits)

    def _act(self, part: str, arguments: Any, target: Component, ledger: Ledger) -> Outcome:
        def save(record: EffectRecord) -> None:
            ledger.save(record)
            self._heard(self.name, record)

        def permit() -> Verdict | None:
            if call.given_up:
                raise Unavailable(self.name, "came back too late to begin an effect")
            return ledger.permit()

        guarded, method = replace(ledger, save=save, permit=permit), getattr(self.acting, part)
        call = _Call(self.name, lambda: method(arguments, target, guarded))
        given = self._within(self._limits.acting, f"run {ledger.run.id}", call)
        outcome: Outcome = self._whole(part, given, *_OUTCOMES)
        if isinstance(outcome, RetryAfter | Unknown) and not timedelta(0) <= outcome.wait <= _LONGEST_WAIT:
            raise Defect(f"{self.name} failed: {part} wants to wait for {outcome.wait}; it is nought to a day")
        return outcome

    def _within(self, limit: timedelta, what: str, call: _Call) -> object:
        """Raises Unavailable if it does not come back in time, or if the call before it has not come back yet."""
        before = self._calls.get(what)
        if before is not None and before.is_alive():
            raise Unavailable(self.name, f"is still busy with {what}; restart healer if it never comes back")
        self._calls[what] = call
        call.start()
        call.join(limit.total_seconds())
        if call.is_alive():
            call.given_up = True
            hint = "give what it calls a timeout, and return RetryAfter for what takes longer"
            raise Unavailable(self.name, f"did not come back within {format_duration(limit)}; {hint}")
        del self._calls[what]
        if call.error is not None:
            raise call.error
        return call.given

    def _whole(self, part: str, given: object, *kinds: type[Any]) -> Any:
        """What was returned, if it is one of these in every field: the journal must be able to give it back."""
        returned = f"{self.name} failed: {part} returned {given!r}"
        if type(given) not in kinds:
            raise Defect(f"{returned}, which is no {' or '.join(kind.__name__ for kind in kinds)}")
        try:
            return convert(msgspec.to_builtins(given), type(given))
        except (msgspec.MsgspecError, TypeError) as error:
            raise Defect(f"{returned}: {error}") from error


class Unrehearsed:
    """What stands in for a verb without a stand-in: it refuses, and remembers that it was asked."""

    def __init__(self, name: str) -> None:
        self.asked = False
        self._name = name

    def refuse(self, *_: object) -> Any:
        self.asked = True
        text = "has no stand-in, and is not called outside of real runs; give its class a rehearsed(), see healer.sdk"
        raise Rejected(self._name, text)

    plan = run = verify = undo = refuse


def rehearsed(verbs: Verbs, heard: Heard = lambda _verb, _record: None) -> Verbs:
    """The verbs for where nothing real may be reached: healer's own act through the world that they are given, and for
    the others stand their stand-ins.
    """
    return {name: verb.rehearsed(heard) if isinstance(verb, OwnVerb) else verb for name, verb in verbs.items()}


def refused(verbs: Verbs) -> tuple[str, ...]:
    """The names of those that were asked and have no stand-in."""
    return tuple(
        name
        for name, verb in verbs.items()
        if isinstance(verb, OwnVerb) and isinstance(verb.acting, Unrehearsed) and verb.acting.asked
    )


class _Call(threading.Thread):
    """Attributes:
    error: what was raised; it is raised again where the answer is waited for.
    given_up: nobody waits for the answer any more.
    """

    def __init__(self, name: str, part: Callable[[], object]) -> None:
        super().__init__(name=f"verb {name}", daemon=True)
        self.given: object = None
        self.error: BaseException | None = None
        self.given_up = False
        self._verb = name
        self._part = part

    def run(self) -> None:
        try:
            self.given = self._part()
        except SystemExit as error:
            self.error = Defect(f"{self._verb} failed unexpectedly: {error!r}")
        except BaseException as error:  # noqa: BLE001 - nothing is swallowed: who waits for the answer gets it
            self.error = error
