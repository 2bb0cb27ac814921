"""The crash test that authors run on a verb: it passes what is sound, and names the instant that is not survived."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

import pytest

from healer.domain.component import Component, ComponentKind
from healer.rehearsal.crashes import crash_test
from healer.sdk import Done, Effect, Failed, Ledger, Outcome, Proposal, Rejected, RetryAfter, Section, World

NODE = Component(ComponentKind.NODE, node="n1")


class Lamp:
    """lamp.light: a lamp beside the rack, which remembers how often it was switched."""

    name: ClassVar[str] = "lamp.light"
    target: ClassVar[ComponentKind | None] = None
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        colour: str

    def __init__(self) -> None:
        self.colour = "off"

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        return Proposal(effects=(Effect("light", arguments.colour),))

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        ledger.effect("lamp", do=lambda: self.switch(arguments.colour), happened=lambda: self.is_on(arguments.colour))
        return self.verify(arguments, target, ledger)

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done() if self.colour == arguments.colour else Failed(f"it is {self.colour}")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        for record in ledger.standing("lamp"):
            ledger.undo(record, do=lambda: self.switch("off"))
        return Done()

    def switch(self, colour: str) -> None:
        self.colour = colour

    def is_on(self, colour: str) -> bool:
        return self.colour == colour


class Forgetful(Lamp):
    def is_on(self, colour: str) -> bool:  # noqa: ARG002
        return False


class Stuck(Lamp):
    def undo(self, arguments: Lamp.Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        raise Rejected("lamp", "it glows for ever")


class Broken(Lamp):
    def switch(self, colour: str) -> None:
        pass


class Patient(Lamp):
    def run(self, arguments: Lamp.Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return RetryAfter(timedelta(seconds=1), "not yet")


class Idle(Lamp):
    def plan(self, arguments: Lamp.Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        return Proposal()


class Blocked(Lamp):
    def plan(self, arguments: Lamp.Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        return Proposal(blockers=("the bulb is missing",))


def test_a_sound_verb_is_killed_at_each_instant_of_its_run_and_of_its_undoing() -> None:
    instants = crash_test(Lamp, {"colour": "red"}, NODE)
    assert instants[:6] == (
        "killed before a write",
        "killed after a write",
        "killed before lamp",
        "killed after lamp",
        "the answer to lamp is lost",
        "killed before a write",
    )
    assert instants.count("killed after lamp") == 2


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        pytest.param(
            Forgetful, "^killed after lamp: lamp happened more than once; does `happened` see that it did", id="twice"
        ),
        pytest.param(Stuck, "could not undo step: lamp: it glows for ever", id="cannot be undone"),
        pytest.param(Broken, "^the run has failed, not succeeded: it is off", id="does nothing"),
        pytest.param(Patient, "^it has not ended after 200 looks: not yet", id="never ends"),
        pytest.param(Idle, "^its plan has no effect", id="plans nothing"),
        pytest.param(Blocked, "^it says that it cannot be done: the bulb is missing", id="is blocked"),
    ],
)
def test_what_does_not_survive_is_told_with_the_instant(verb: type[Lamp], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        crash_test(verb, {"colour": "red"}, NODE)
