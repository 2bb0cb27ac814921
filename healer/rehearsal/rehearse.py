"""Plays the tests that stand in playbooks, and says what did not end as it should have."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from healer.config import Config
from healer.content.detectors import Detector
from healer.content.own_verb import refused
from healer.content.playbook_tests import Expected, PlaybookTest, SimulatedFault
from healer.content.playbooks import tests_of
from healer.documents import Document, KeyPath, nearest
from healer.domain.finding import FailureMode
from healer.domain.incident import Incident
from healer.domain.playbook import Playbook
from healer.errors import InvalidDocument, Problem
from healer.rehearsal.stage import Stage
from healer.rehearsal.virtual import START
from healer.sim.faults import Fault, FaultKind, objections
from healer.sim.layout import Layout, build_layout
from healer.verb import Verbs

_NO_STAND_IN = "has no stand-in, so that nothing can be said of what it would do; give its class a rehearsed()"


@dataclass(frozen=True, slots=True)
class Played:
    """Attributes:
    problems: what did not end as it should have, each on its line of the playbook.
    transcript: what happened, in order, with the time of the test.
    took: in the time of the test.
    """

    playbook: str
    test: str
    problems: tuple[Problem, ...]
    transcript: tuple[str, ...]
    took: timedelta


def rehearse(
    playbook: Playbook,
    config: Config,
    detectors: Sequence[Detector],
    *,
    verbs: Verbs,
    beside: Sequence[Playbook] = (),
) -> Iterator[Played]:
    """Play every test of the playbook. Raises InvalidDocument for a test that names what there is not.

    Args:
        detectors: those that have to find what a test breaks.
        verbs: the deployment's; for its own stand their stand-ins.
        beside: the other playbooks of the deployment: those that this one leads to are played, too.
    """
    document, tests = tests_of(playbook)
    problems = [
        document.problem(("tests", number, *path), text, hint)
        for number, test in enumerate(tests)
        for path, text, hint in _objections(test, playbook)
    ]
    if problems:
        raise InvalidDocument(*problems)
    ladder = ladder_of(playbook, beside)
    for number, test in enumerate(tests):
        with played(test, ladder, config, detectors, verbs) as stage:
            unmet = [
                *(document.problem(("tests", number), f"{name} {_NO_STAND_IN}") for name in refused(stage.verbs)),
                *(_problem(document, number, *each) for each in unmet_by(test.expect, stage)),
            ]
            transcript = stage.transcript()
        yield Played(playbook.name, test.name, tuple(unmet), transcript, stage.clock.now() - START)


@contextmanager
def played(
    test: PlaybookTest, ladder: Sequence[Playbook], config: Config, detectors: Sequence[Detector], verbs: Verbs
) -> Iterator[Stage]:
    """The stage after the test was played on it."""
    with tempfile.TemporaryDirectory(prefix="healer-rehearsal-") as folder:
        stage = Stage(Path(folder), ladder, test, [_fault(said) for said in test.faults], config, detectors, verbs)
        try:
            stage.play()
            yield stage
        finally:
            stage.journal.close()


def ladder_of(playbook: Playbook, beside: Sequence[Playbook]) -> tuple[Playbook, ...]:
    """The playbook, and those that it leads to, which answer nothing by themselves here."""
    by_name = {each.name: each for each in beside}
    rungs = [playbook if playbook.failure_modes else replace(playbook, failure_modes=frozenset(FailureMode))]
    while (following := by_name.get(rungs[-1].otherwise or "")) is not None and following.name != playbook.name:
        rungs.append(replace(following, failure_modes=frozenset()))
    return tuple(rungs)


def _problem(document: Document, number: int, key: KeyPath, text: str) -> Problem:
    return document.problem(("tests", number, "expect", *key), text)


# Before it is played

_Objection = tuple[KeyPath, str, str]


def _objections(test: PlaybookTest, playbook: Playbook) -> Iterator[_Objection]:
    """What the test names and neither its site nor the playbook has: where in the test, what, and a hint."""
    layout = build_layout(racks=test.site.racks, nodes=test.site.nodes, gpus=test.site.gpus, seed=0)
    for name in test.params:
        if name not in playbook.params:
            yield ("params", name), "the playbook has no such param", nearest(name, playbook.params)
    for name in _groups_missing(test, playbook):
        hint = nearest(name, test.groups) or "say under groups who is in it"
        yield ("answers",), f"the playbook asks {name}, and the test has no such group", hint
    for path, place, known in _places(test, layout):
        if place is not None and place not in known:
            yield path, f"the site has no {place!r}", nearest(place, known) or f"it has {', '.join(known)}"
    if test.incident is not None and test.incident.gpu is not None and test.incident.gpu >= layout.gpus_per_node:
        yield ("incident", "gpu"), f"the nodes of the site have GPUs 0 to {layout.gpus_per_node - 1}", ""
    for position, said in enumerate(test.faults):
        if said.kind not in {*FaultKind}:
            hint = nearest(said.kind, [str(kind) for kind in FaultKind])
            yield ("faults", position, "kind"), f"{said.kind!r} is not a known kind of fault", hint
        else:
            for wrong in objections(_fault(said), layout):
                yield ("faults", position, wrong.field), wrong.text, wrong.hint


def _groups_missing(test: PlaybookTest, playbook: Playbook) -> Sequence[str]:
    """Those that the playbook asks, at first or later, in a test where it matters who answers."""
    asking = playbook.approval.asking
    later = () if asking.escalation is None else asking.escalation.to
    named = [name for name in (*(asking.who or ()), *later) if ":" not in name]  # an id is a person
    return [name for name in named if name not in test.groups] if test.answers else ()


def _places(test: PlaybookTest, layout: Layout) -> Iterator[tuple[KeyPath, str | None, Sequence[str]]]:
    """Every node, rack and job that the test names: where, which, and which there are."""
    for position, each in enumerate(test.workloads):
        yield ("workloads", position, "node"), each.node, layout.nodes
    for position, event in enumerate(test.events):
        yield ("events", position, "node"), event.node, layout.nodes
    jobs = sorted({f"{each.namespace}/{each.owner}" for each in test.workloads})
    for position, event in enumerate(test.events):
        yield ("events", position, "job"), event.job, jobs
    for node in test.expect.nodes:
        yield ("expect", "nodes", node), node, layout.nodes
    if test.incident is not None:
        yield ("incident", "node"), test.incident.node, layout.nodes
        yield ("incident", "culprit"), test.incident.culprit, layout.nodes
        yield ("incident", "rack"), test.incident.rack, layout.racks


def _fault(said: SimulatedFault) -> Fault:
    return Fault(
        kind=FaultKind(said.kind),
        at_s=said.at.total_seconds(),
        node=said.node,
        gpu=said.gpu,
        rack=said.rack,
        duration_s=None if said.duration is None else said.duration.total_seconds(),
        severity=said.severity,
        variant=said.variant,
        ramp_s=None if said.ramp is None else said.ramp.total_seconds(),
    )


# After it was played


def unmet_by(expect: Expected, stage: Stage) -> Iterator[tuple[KeyPath, str]]:
    """The key of each expectation that was not met, and what was instead."""
    incident = stage.incident()
    story = "" if incident is None else str(incident.verdict or incident.story)
    asked = bool(stage.journal.approvals())
    if expect.asked not in {None, asked}:
        yield ("asked",), f"{'a person' if asked else 'nobody'} was asked; {story}"
    yield from _other_ends(expect, stage, incident, story)
    happened = tuple(dict.fromkeys(stage.effects))
    if expect.effects not in {None, happened}:
        yield ("effects",), f"were {', '.join(happened) or 'none'}; {_difference(happened, expect.effects or ())}"
    for name, wanted in expect.nodes.items():
        by = _service(stage, name)
        if by != wanted:
            yield ("nodes", name), f"is {by}, not {wanted}"
    if expect.says is not None and expect.says not in story:
        yield ("says",), f"{expect.says!r} is not in {story!r}"


def _other_ends(expect: Expected, stage: Stage, incident: Incident | None, story: str) -> Iterator[tuple[KeyPath, str]]:
    run = stage.run()
    ended = "none" if run is None else str(run.state)
    if expect.run is not None and ended != str(expect.run):
        why = story if run is None else run.cause or run.detail
        yield ("run",), f"is {ended}, not {expect.run}: {why}"
    state = "not there" if incident is None else str(incident.state)
    if expect.incident is not None and state != str(expect.incident):
        yield ("incident",), f"is {state}, not {expect.incident}: {story or 'nothing was found'}"


def _service(stage: Stage, name: str) -> str:
    node = stage.cluster.node(name)
    if not node.cordoned:
        return "in service"
    return "cordoned by a person" if node.cordoned_by is None else "cordoned"


def _difference(happened: Sequence[str], wanted: Sequence[str]) -> str:
    missing = [line for line in wanted if line not in happened]
    more = [line for line in happened if line not in wanted]
    told = [f"missing: {', '.join(missing)}"] if missing else []
    told += [f"not expected: {', '.join(more)}"] if more else []
    return "; ".join(told) or "in another order than expected"
