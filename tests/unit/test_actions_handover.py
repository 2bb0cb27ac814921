"""The verbs that touch no work: an exporter that starts anew, and a ticket for a person."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from healer.actions.exporter import RestartExporter
from healer.actions.ticket import OpenTicket
from healer.adapters.simulated_cluster import SimulatedCluster, Verb
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Evidence
from healer.domain.incident import Incident
from healer.domain.run import Done, EffectState, Failed, Outcome, RetryAfter
from healer.errors import Rejected, Unavailable
from healer.rehearsal.virtual import HeldTickets, VirtualClock
from healer.verb import Proposal, World
from tests.journal_samples import NODE, NOW, Notes, incident_of, plan_of, run_of

RESTART, TICKET = RestartExporter(), OpenTicket()
OWNER = "DaemonSet/dcgm-exporter"


class Bench:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.cluster = SimulatedCluster({"n1": "r1", "n2": "r1"}, clock=self.clock, termination=timedelta(seconds=10))
        for node in ("n1", "n2"):
            self.cluster.add_workload(OWNER, node=node, namespace="gpu-operator")
        self.cluster.add_workload("Job/train", node="n1", gpus=1)
        self.tickets = HeldTickets()
        self.incident: Incident = incident_of()
        self.notes = Notes(run_of(plan_of()))

    def world(self) -> World:
        return World(
            self.clock.now(),
            None,
            self.cluster,
            None,
            300.0,
            configured_tickets=self.tickets,
            incident=lambda _id: self.incident,
        )

    def restart(self, owner: str = "DaemonSet/*dcgm-exporter*") -> Outcome:
        return RESTART.run(RestartExporter.Arguments(owner=owner), NODE, self.notes.ledger(self.world(), "restart"))

    def proposed(self, owner: str = "DaemonSet/*dcgm-exporter*") -> Proposal:
        return RESTART.plan(RestartExporter.Arguments(owner=owner), NODE, self.world())

    def hand_over(self, note: str = "") -> Outcome:
        return TICKET.run(OpenTicket.Arguments(note=note), NODE, self.notes.ledger(self.world(), "ticket"))

    def evicted(self) -> list[str]:
        return [effect.of for effect in self.cluster.effects if effect.verb is Verb.EVICT]


# The exporter


def test_the_exporter_of_that_node_is_started_anew_once_and_nothing_else() -> None:
    bench = Bench()
    assert [str(effect) for effect in bench.proposed().effects] == [f"restart gpu-operator/{OWNER} on n1"]
    assert all(effect.harmless and effect.takes_out is None for effect in bench.proposed().effects)
    assert isinstance(bench.restart(), RetryAfter)
    bench.clock.advance(timedelta(seconds=10))
    assert isinstance(bench.restart(), Done)
    assert isinstance(bench.restart(), Done)
    assert bench.evicted() == [f"gpu-operator/{OWNER}"]


@pytest.mark.parametrize(
    ("owner", "says"),
    [("DaemonSet/node-exporter", "no DaemonSet/node-exporter is on n1"), ("Job/train", "no Job/train is on n1")],
    ids=["none there", "what is no exporter is never restarted"],
)
def test_what_is_not_there_is_told_before_anything_is_done(owner: str, says: str) -> None:
    bench = Bench()
    assert bench.proposed(owner).blockers == (says,)
    assert isinstance(bench.restart(owner), Failed)
    assert bench.evicted() == []


def test_on_a_node_that_is_not_ready_nothing_is_started() -> None:
    bench = Bench()
    bench.cluster.set_ready("n1", ready=False)
    assert bench.proposed().blockers == ("n1 is not ready: nothing is started there",)


def test_a_restart_whose_answer_was_lost_is_recognised_and_not_repeated() -> None:
    bench = Bench()
    bench.cluster.lose_next_answer(Unavailable("cluster", "timed out"))
    with pytest.raises(Exception, match="timed out"):
        bench.restart()
    bench.clock.advance(timedelta(seconds=10))
    assert isinstance(bench.restart(), Done)
    assert bench.evicted() == [f"gpu-operator/{OWNER}"]
    assert [record.state for record in bench.notes.records] == [EffectState.DONE]


# The ticket


def test_a_ticket_has_all_that_a_person_needs_and_the_series_as_json() -> None:
    bench = Bench()
    blamed = Component(ComponentKind.GPU, rack="r1", node="n1", gpu="3", uuid="GPU-3")
    seen = Evidence("gpu_ecc_errors", 2.0, "", NOW, points=((NOW, 0.0), (NOW, 2.0)))
    tried = ("drain-node failed: a disruption budget holds it",)
    bench.incident = replace(bench.incident, culprit=blamed, jobs=("train-1",), evidence=(seen,), tried=tried)
    assert isinstance(bench.hand_over(note="runbook 12"), Done)
    (ticket,) = bench.tickets.opened.values()
    assert ticket.title == "GpuUncorrectableEcc on node n1"
    for part in (
        "an uncorrectable memory error",
        "GPU 3 of n1",
        "train-1",
        tried[0],
        "runbook 12",
        "gpu_ecc_errors: 2",
    ):
        assert part in ticket.body
    evidence: dict[str, Any] = json.loads(ticket.evidence)
    assert [value for _, value in evidence["evidence"][0]["points"]] == [0.0, 2.0]


def test_after_a_crash_between_the_ticket_and_its_outcome_there_is_one_ticket() -> None:
    bench = Bench()

    def dies(record: object) -> None:
        if getattr(record, "state", None) is EffectState.DONE:
            raise RuntimeError

    bench.notes.dies_before = dies
    with pytest.raises(RuntimeError):
        bench.hand_over()
    bench.notes.dies_before = lambda _record: None
    assert isinstance(bench.hand_over(), Done)
    assert len(bench.tickets.opened) == 1
    assert [record.state for record in bench.notes.records] == [EffectState.DONE]


def test_where_tickets_go_nowhere_that_is_said_when_it_is_planned() -> None:
    world = World(NOW, None, None, None, 300.0)
    with pytest.raises(Rejected, match=r"set tickets\.folder or tickets\.url"):
        TICKET.plan(OpenTicket.Arguments(), NODE, world)


def test_without_a_ticket_the_step_is_not_done_and_what_was_opened_stays() -> None:
    bench = Bench()
    ledger = bench.notes.ledger(bench.world(), "ticket")
    assert isinstance(TICKET.verify(OpenTicket.Arguments(), NODE, ledger), Failed)
    bench.hand_over()
    ledger = bench.notes.ledger(bench.world(), "ticket")
    assert isinstance(TICKET.verify(OpenTicket.Arguments(), NODE, ledger), Done)
    assert isinstance(TICKET.undo(OpenTicket.Arguments(), NODE, ledger), Done)
    assert len(bench.tickets.opened) == 1
