"""The boundary around a verb of a deployment's own: what it returns, raises, or never does, costs its own run only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, ClassVar, cast

import pytest

from healer.content.boundary import Defect
from healer.content.own_verb import Limits, OwnVerb, refused, rehearsed
from healer.domain.component import Component, ComponentKind
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectState, Failed, Refused, RetryAfter, Run, Unknown
from healer.domain.verdict import Guard, Verdict
from healer.errors import Fenced, HealerError, NotFound, Rejected, Unavailable
from healer.schema import Section
from healer.verb import Action, Ledger, NotNow, Proposal, World
from tests.journal_samples import NODE, NOW, Notes, plan_of, run_of

WORLD = World(NOW, None, None, None, 0.0)
SOON = Limits(planning=timedelta(seconds=0.1), acting=timedelta(seconds=0.1))
LONG = Limits()
NO = Verdict(Guard.BUDGET, "2 of 2 nodes out", "one returns")


class Scripted:
    """hook.call: does what the test wants of it."""

    name: ClassVar[str] = "hook.call"
    target: ClassVar[ComponentKind | None] = None
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False
    Arguments = Section

    def __init__(self, does: Callable[..., Any]) -> None:
        self.plan = self.run = self.verify = self.undo = does


def verb_that(does: Callable[..., Any], *, limits: Limits = LONG) -> OwnVerb:
    return OwnVerb(cast("Action", Scripted(does)), limits=limits)


def raising(error: BaseException) -> Callable[..., Any]:
    def does(*_: object) -> Any:
        raise error

    return does


def asked(verb: OwnVerb, part: str, run: Run | None = None, notes: Notes | None = None) -> Any:
    if part == "plan":
        return verb.plan(Section(), NODE, WORLD)
    notes = notes or Notes(run or run_of(plan_of()))
    return getattr(verb, part)(Section(), NODE, notes.ledger(WORLD))


@pytest.mark.parametrize(
    "outcome",
    [
        Done("well"),
        RetryAfter(timedelta(0), "at once"),
        RetryAfter(timedelta(days=1), "tomorrow"),
        Failed("no", by_person=True),
        Refused(NO),
        Unknown(timedelta(seconds=5), "who knows"),
    ],
    ids=lambda outcome: str(outcome)[:30],
)
def test_an_outcome_is_passed_on_as_it_is(outcome: object) -> None:
    assert asked(verb_that(lambda *_: outcome), "run") == outcome


def test_a_proposal_is_passed_on_and_its_lists_become_what_they_should_be() -> None:
    proposal = Proposal(effects=[Effect("call", "n1", takes_out="n1")], blockers=["x"])  # type: ignore[arg-type]
    assert asked(verb_that(lambda *_: proposal), "plan") == Proposal(
        (Effect("call", "n1", takes_out="n1"),), (), ("x",)
    )


@pytest.mark.parametrize(
    ("part", "returned", "said"),
    [
        pytest.param("plan", None, "plan returned None, which is no Proposal", id="a plan of nothing"),
        pytest.param("plan", Done(), "which is no Proposal", id="a plan that is done"),
        pytest.param("plan", Proposal(effects=("call",)), "returned Proposal", id="an effect in words"),  # type: ignore[arg-type]
        pytest.param(
            "plan", Proposal((Effect("call", cast("str", NODE)),)), "Expected `str`", id="a target that is none"
        ),
        pytest.param("run", None, "run returned None, which is no Done or RetryAfter or Failed", id="no outcome"),
        pytest.param("run", True, "run returned True", id="a bool"),
        pytest.param("verify", Proposal(), "verify returned Proposal", id="a proposal"),
        pytest.param("undo", Done(cast("str", 5)), "Expected `str`, got `int`", id="a detail that is a number"),
        pytest.param("run", Done(cast("str", object())), "run returned Done", id="a detail that is anything"),
        pytest.param("run", RetryAfter(timedelta(days=2), "x"), "wants to wait for 2 days", id="a wait of days"),
        pytest.param("run", RetryAfter(timedelta(seconds=-1), "x"), "it is nought to a day", id="a wait for the past"),
        pytest.param("run", RetryAfter(cast("timedelta", 5), "x"), "Expected `duration`", id="a wait without a unit"),
    ],
)
def test_a_result_that_the_journal_could_not_give_back_is_a_defect(part: str, returned: object, said: str) -> None:
    with pytest.raises(Defect, match=r"^hook\.call failed: ") as caught:
        asked(verb_that(lambda *_: returned), part)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [Rejected("hook", "no"), Unavailable("hook", "?"), NotNow(timedelta(1), "x"), Fenced("x"), KeyError("x")],
    ids=repr,
)
def test_what_it_raises_arrives_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        asked(verb_that(raising(error)), "run")
    assert caught.value is error


def test_one_that_would_end_the_process_is_a_defect() -> None:
    with pytest.raises(Defect, match="SystemExit"):
        asked(verb_that(raising(SystemExit(0))), "plan")


@pytest.mark.parametrize(("note", "kept"), [(None, ""), (204, "204"), ("sent", "sent")])
def test_what_was_done_is_done_whatever_is_returned_about_it(note: object, kept: str) -> None:
    def does(_arguments: Section, _target: Component, ledger: Ledger) -> Done:
        ledger.effect("call", do=lambda: note, happened=lambda: False)
        return Done()

    notes = Notes(run_of(plan_of()))
    asked(verb_that(does), "run", notes=notes)
    assert [(record.state, record.detail) for record in notes.records] == [(EffectState.DONE, kept)]


# What does not come back


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a verb hangs at until it is set."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.mark.parametrize("part", ["plan", "run", "verify", "undo"])
def test_a_call_that_does_not_come_back_is_given_up(gate: threading.Event, part: str) -> None:
    verb = verb_that(lambda *_: gate.wait(), limits=SOON)
    with pytest.raises(Unavailable, match=r"^hook\.call: did not come back within 100ms; give what it calls a timeout"):
        asked(verb, part)


def test_until_it_is_back_nothing_of_its_run_is_called(gate: threading.Event) -> None:
    calls: list[str] = []

    def does(*_: object) -> Done:
        calls.append("called")
        gate.wait()
        return Done()

    verb, other = verb_that(does, limits=SOON), run_of(plan_of(), "run-2")
    for part, said in (
        ("run", "did not come back"),
        ("verify", "is still busy with run run-1"),
        ("undo", "still busy"),
    ):
        with pytest.raises(Unavailable, match=said):
            asked(verb, part)
    assert len(calls) == 1
    with pytest.raises(Unavailable, match="did not come back"):
        asked(verb, "run", other)
    assert len(calls) == 2
    gate.set()
    assert eventually(lambda: asked(verb, "undo")) == Done()


def test_it_begins_nothing_when_nobody_waits_for_it_any_more(gate: threading.Event) -> None:
    done: list[str] = []

    def does(_arguments: Section, _target: Component, ledger: Ledger) -> Done:
        if not gate.is_set():
            gate.wait()
            ledger.effect("call", do=lambda: done.append("call"), happened=lambda: False)
        return Done()

    verb, notes = verb_that(does, limits=SOON), Notes(run_of(plan_of()))
    with pytest.raises(Unavailable):
        asked(verb, "run", notes=notes)
    gate.set()
    assert eventually(lambda: asked(verb, "undo", notes=notes)) == Done()
    assert (done, notes.records) == ([], [])


def test_what_it_does_late_is_in_the_journal(gate: threading.Event) -> None:
    def does(_arguments: Section, _target: Component, ledger: Ledger) -> Done:
        ledger.effect("call", do=gate.wait, happened=lambda: False)
        return Done()

    verb, notes = verb_that(does, limits=SOON), Notes(run_of(plan_of()))
    with pytest.raises(Unavailable):
        asked(verb, "run", notes=notes)
    assert [record.state for record in notes.records] == [EffectState.INTENT]
    gate.set()
    assert eventually(lambda: asked(verb, "verify", notes=notes)) == Done()
    assert [record.state for record in notes.records] == [EffectState.DONE]


def eventually(ask: Callable[[], object]) -> object:
    for _ in range(100):
        try:
            return ask()
        except Unavailable:
            threading.Event().wait(0.05)
    raise AssertionError("it never came back")


# Where nothing real may be reached


class Rehearsed(Scripted):
    def __init__(self) -> None:
        super().__init__(raising(NotFound("hook", "the real one")))

    @classmethod
    def rehearsed(cls) -> Scripted:
        calls: list[str] = []

        def does(_arguments: Section, _target: Component, ledger: Ledger) -> Done:
            ledger.effect("call", do=lambda: calls.append("call"), happened=lambda: bool(calls))
            return Done(str(len(calls)))

        return Scripted(does)


def test_its_stand_in_is_called_in_its_place_anew_for_each() -> None:
    heard: list[str] = []
    verbs = {"hook.call": OwnVerb(cast("Action", Rehearsed()))}
    for _ in range(2):
        played = rehearsed(verbs, heard=lambda verb, record: heard.append(f"{verb} {record.key} {record.state}"))
        assert played["hook.call"].run(Section(), NODE, Notes(run_of(plan_of())).ledger(WORLD)) == Done("1")
        assert refused(played) == ()
    assert heard == 2 * ["hook.call call intent", "hook.call call done"]


@pytest.mark.parametrize("part", ["plan", "run", "verify", "undo"])
def test_without_a_stand_in_it_refuses_and_that_is_known(part: str) -> None:
    played = rehearsed({"hook.call": verb_that(raising(AssertionError("the real one was called")))})
    assert refused(played) == ()
    with pytest.raises(HealerError, match=r"^hook\.call: has no stand-in, .* give its class a rehearsed\(\)"):
        asked(cast("OwnVerb", played["hook.call"]), part)
    assert refused(played) == ("hook.call",)
