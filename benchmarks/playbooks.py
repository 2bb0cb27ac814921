"""The engine under load: crashes at every instant, 200 faults at once, 10,000 runs that wait, steps in the journal.

    python benchmarks/playbooks.py [--only PART...] [--runs N] [--json]

Parts: `crashes` kills the process at every point of the reference playbooks' crash matrices (tests/replay) and counts
what was then wrong; `admission` lets two hundred GPUs fail between two turns, and times that turn from its reading to
the plans that are admitted, asked or refused; `waiting` fills a journal with runs that wait, and times a turn and a
pass of the runs beside them; `journal` writes what one step of a run writes (intent, outcome, the run) as often as it
can, to SQLite and, where it is installed, to PostgreSQL, both durable. With --json the last line has the figures.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from healer.adapters.journal.sql import SqlJournal
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Evidence, FailureMode, Finding, Health
from healer.domain.incident import Incident, IncidentState
from healer.domain.plan import Effect, Plan, PlannedStep
from healer.domain.playbook import ResolvesWhen
from healer.domain.run import EffectRecord, EffectState, Run, RunState
from healer.policy.guards import leases_of
from healer.sim.faults import Fault, FaultKind
from tests.realparts.postgresql import RunningPostgresql, find_postgresql
from tests.replay import test_crash_matrix as matrix
from tests.virtual_site import Site

FAULTS = 200


# Crashes


def crashes() -> dict[str, Any]:
    points = violations = 0
    for make, check, seconds, since in matrix.MATRICES:
        with tempfile.TemporaryDirectory() as folder:
            found = matrix.crash_points(Path(folder), make, check, seconds=seconds, since=since)
            for point, wrong in found:
                points += 1
                violations += wrong is not None
                if wrong is not None:
                    print(f"{make.__name__}, killed {point}: {wrong}", file=sys.stderr)
        print(f"{make.__name__}: {points} points so far", file=sys.stderr)
    return {"crash_points": points, "crash_violations": violations}


# Two hundred faults at once


def admission() -> dict[str, Any]:
    took, verdicts = [], Counter[str]()
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder, Site(Path(folder), racks=20, nodes=400, gpus=1) as site:
            site.restart(
                budgets=site.config.budgets.model_copy(
                    update={"fleet": site.config.budgets.fleet.model_copy(update={"max_nodes": 40})}
                )
            )
            site.ticks(2)
            for node in site.fleet.layout.nodes[::2]:
                site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=node, gpu=0))
            site.let_pass(10)
            before = site.clock.now()
            reading = site.operator.observer.read(before)
            began = time.perf_counter()
            site.operator.take(reading, before)
            took.append(time.perf_counter() - began)
            incidents = site.journal.incidents(limit=1000)
            assert len(incidents) == FAULTS, len(incidents)
            verdicts = Counter("asked" if each.verdict is None else str(each.verdict.guard) for each in incidents)
    print(f"{FAULTS} faults at once: {dict(verdicts)}", file=sys.stderr)
    return {"admit_200_s": round(statistics.median(took), 3), "admitted": dict(verdicts)}


# Ten thousand runs that wait


def waiting(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder), racks=1, nodes=4, gpus=1) as site:
        site.ticks(2)
        idle = _passes(site)
        now, before_mib = site.clock.now(), _rss_mib()
        incidents = [_incident(number, now) for number in range(count)]
        with site.journal.transaction() as write:
            for incident in incidents:
                assert incident.plan is not None
                assert incident.run_id is not None
                write.save_incident(incident)
                write.add_run(_run(incident.run_id, incident.plan, now), leases_of(incident.plan))
        del incidents
        turns, pursuits = _passes(site)
        mib = _rss_mib() - before_mib
    return {
        "waiting_runs": count,
        "waiting_10k_rss_mib": round(mib),
        "waiting_10k_turn_s": round(turns, 3),
        "waiting_10k_pursue_s": round(pursuits, 3),
        "idle_turn_s": round(idle[0], 3),
    }


def _passes(site: Site, times: int = 5) -> tuple[float, float]:
    """The median seconds of a turn, and of a pass of the runs, after one that warms up."""
    turns, pursuits = [], []
    for _ in range(times + 1):
        site.let_pass(10)
        turns.append(_timed(site.operator.turn))
        pursuits.append(_timed(site.operator.pursue))
    return statistics.median(turns[1:]), statistics.median(pursuits[1:])


def _timed(what: Callable[[], None]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def _rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _incident(number: int, now: datetime) -> Incident:
    """As a drain's that waits for work to end: with evidence, a plan and a run."""
    where = Component(
        ComponentKind.GPU, rack=f"r{number // 8}", node=f"w{number}", gpu="3", uuid=f"GPU-{number}", job="j"
    )
    points = tuple((now - timedelta(seconds=30 * tick), float(tick)) for tick in range(40))
    seen = tuple(Evidence(f"gpu_signal_{index}", 1.0, "", now, points=points) for index in range(3))
    finding = Finding(
        FailureMode.GPU_UNCORRECTABLE_ECC, where, Health.FAILED, 1.0, "2 uncorrectable errors", evidence=seen
    )
    incident = replace(Incident.opened(finding, now - timedelta(hours=1)), id=f"inc-{number}")
    return replace(incident, state=IncidentState.REMEDIATING, plan=_plan(incident), run_id=f"run-{number}")


def _plan(incident: Incident) -> Plan:
    node = str(incident.component.node)
    return Plan(
        incident_id=incident.id,
        playbook="drain-node",
        playbook_digest="0" * 64,
        target=Component(ComponentKind.NODE, node=node),
        effects=(Effect("cordon", node, takes_out=node), Effect("evict", "a/Job/train", "train-1, train-2", node)),
        steps=(
            PlannedStep("quarantine", "node.cordon", {"reason": "2 uncorrectable errors"}, timedelta(minutes=2)),
            PlannedStep("evacuate", "node.drain", {}, timedelta(days=1)),
        ),
        needs_approval=True,
        approval_expires_after=timedelta(minutes=30),
        deadline=timedelta(days=1),
        resolves_when=ResolvesWhen.CONTAINED,
        reason="2 uncorrectable errors",
    )


def _run(key: str, plan: Plan, now: datetime) -> Run:
    later = now + timedelta(days=1)
    return Run(key, plan.incident_id, None, plan, RunState.RUNNING, 1, now, now, later, "waits for a disruption budget")


# The journal


def journal() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        figures = {"journal_sqlite_steps_per_s": _steps_per_s(f"sqlite:///{Path(folder) / 'journal.db'}")}
    programs = find_postgresql()
    if programs is None:
        print("no PostgreSQL on this machine; to get it: apt-get install postgresql", file=sys.stderr)
        return {**figures, "journal_postgresql_steps_per_s": None}
    with RunningPostgresql(programs, durable=True) as running:
        return {**figures, "journal_postgresql_steps_per_s": _steps_per_s(running.new_database())}


def _steps_per_s(url: str, seconds: float = 5.0) -> int:
    now = datetime.now(UTC)
    written = SqlJournal(url)
    written.lead("benchmark", now, timedelta(days=1))
    incident = _incident(1, now)
    assert incident.plan is not None
    run = _run("run-1", incident.plan, now)
    with written.transaction() as write:
        write.save_incident(incident)
        write.add_run(run, leases_of(incident.plan))
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for record in _records(run, steps, now):
            with written.transaction() as write:
                write.save_effect(record)
                write.audit(now, "healer", f"effect.{record.state}", f"{run.id}/{record.key}")
        with written.transaction() as write:
            write.save_run(replace(run, detail=f"step {steps}"))
        steps += 1
    took = time.perf_counter() - began
    written.close()
    return round(steps / took)


def _records(run: Run, number: int, now: datetime) -> Iterator[EffectRecord]:
    intent = EffectRecord(run.id, "evacuate", f"evict/a/train-{number}/uid", EffectState.INTENT, now)
    yield intent
    yield replace(intent, state=EffectState.DONE, settled_at=now, detail="accepted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["crashes", "admission", "waiting", "journal"])
    parser.add_argument("--runs", type=int, default=10_000, help="that wait")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    # What waits is measured first: memory is measured at its highest.
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "waiting": lambda: waiting(args.runs),
        "admission": admission,
        "journal": journal,
        "crashes": crashes,
    }
    figures: dict[str, Any] = {}
    for name, part in parts.items():
        if args.only is None or name in args.only:
            figures |= part()
    for name, value in figures.items():
        print(f"{name:34}{value}")
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
