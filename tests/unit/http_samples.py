"""A plausible fleet, its incidents, plans, approvals and runs, for the tests of what is shown over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
from starlette.types import ASGIApp

from healer.adapters.journal.sql import SqlJournal
from healer.domain.approval import Approval, ApprovalState, Person
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Basis, Evidence, FailureMode, Finding, Findings, Health, Judgement
from healer.domain.fleet import Fleet, Node
from healer.domain.frame import Frame
from healer.domain.incident import Incident, IncidentState, Symptom
from healer.domain.plan import Effect, Plan, PlannedStep
from healer.domain.playbook import ResolvesWhen
from healer.domain.run import EffectRecord, EffectState, Run, RunState
from healer.domain.signal import Signal
from healer.domain.verdict import Guard, Mode, Verdict
from healer.runtime.snapshot import Snapshot, TurnFigures
from tests.frames import frame_of

NOW = datetime(2026, 3, 14, 3, 7, 9, tzinfo=UTC)
ALICE = Person("slack:U024BE7LH", "alice")
ECC, ANOMALY = FailureMode.GPU_UNCORRECTABLE_ECC, FailureMode.GPU_ANOMALY


@dataclass
class SetClock:
    at: datetime = NOW

    def now(self) -> datetime:
        return self.at


def gpu(node: int, index: int) -> Component:
    uuid = f"GPU-{node:04x}{index:04x}"
    return Component(
        ComponentKind.GPU,
        rack=f"rack-{node // 4}",
        node=f"node-{node:02}",
        gpu=str(index),
        uuid=uuid,
        job="llm-pretrain",
    )


def snapshot(
    *,
    nodes: int = 8,
    ecc: Mapping[int, Health] | None = None,
    anomaly: Mapping[int, Health] | None = None,
    at: datetime | None = NOW - timedelta(seconds=3),
    mode: Mode = Mode.ACT,
    warnings: tuple[str, ...] = (),
    last_error: str = "",
) -> Snapshot:
    """Every GPU is healthy but for the rows named by `ecc` and `anomaly`."""
    figures = TurnFigures(turns=412, failed_turns=2, samples=905_216, last_turn_s=0.18, last_error=last_error)
    if at is None:
        return Snapshot(mode, figures=figures)
    components = tuple(gpu(node, index) for node in range(nodes) for index in range(8))
    frame = _frame(components, at, warnings)
    judgements = (
        Judgement(ECC, ComponentKind.GPU, _health(len(components), ecc)),
        Judgement(ANOMALY, ComponentKind.GPU, _health(len(components), anomaly)),
    )
    fleet = Fleet(at, {f"node-{n:02}": Node(f"node-{n:02}", ready=True, cordoned=n == 5) for n in range(nodes)})
    return Snapshot(mode, at, frame, fleet, Findings((), judgements), figures)


def _health(count: int, exceptions: Mapping[int, Health] | None) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    health = np.zeros(count, dtype=np.int8)
    for row, value in (exceptions or {}).items():
        health[row] = int(value)
    return health


def _frame(components: tuple[Component, ...], at: datetime, warnings: tuple[str, ...]) -> Frame:
    rng, ticks, n = np.random.default_rng(7), 40, len(components)
    racks = tuple(Component(ComponentKind.RACK, rack=name) for name in sorted({str(c.rack) for c in components}))
    power = np.cumsum(rng.normal(0, 400, (ticks, len(racks))), axis=0) + 33_000
    power[-12:, :1] += 6_000
    power[10:14, -1:] = np.nan
    temperature = rng.normal(62, 4, (1, n))
    temperature[0, -1:] = np.nan
    scores = rng.beta(1, 30, n)
    scores[-1:] = np.nan
    return frame_of(
        components,
        at=at,
        times=np.linspace(-600, 0, ticks).tolist(),
        values={
            Signal.GPU_TEMPERATURE: np.repeat(temperature, ticks, axis=0),
            Signal.POWER: np.repeat(rng.normal(540, 60, (1, n)), ticks, axis=0),
        },
        models=("NVIDIA H100 80GB HBM3",) * n,
        racks=racks,
        rack_power_w=power,
        rack_budget_w=np.full(len(racks), 36_000.0),
        age_s=np.full(n, 4.0),
        warnings=warnings,
        scores={"gpu_anomaly": scores},
    )


def incident(*, node: int = 1, index: int = 3, opened_at: datetime = NOW - timedelta(minutes=4)) -> Incident:
    evidence = Evidence("gpu_ecc_dbe_volatile_total", 2.0, "errors", opened_at, "was 0 before")
    reason = "2 uncorrectable ECC errors in 10 minutes (volatile DBE counter went from 0 to 2)"
    return Incident.opened(
        Finding(ECC, gpu(node, index), Health.FAILED, 1.0, reason, Basis.RULE, (evidence,)), opened_at
    )


def stall(*, opened_at: datetime = NOW - timedelta(minutes=6)) -> Incident:
    """A job that one GPU holds up: with a culprit, jobs, symptoms, sources that disagree, and a series; back twice."""
    course = tuple((NOW - timedelta(seconds=15 * ago), 99.0 if ago < 20 else 81.0) for ago in range(39, -1, -1))
    evidence = (
        Evidence("gpu_utilisation_percent", 99.0, "%", NOW, "all ranks but one spin", course),
        Evidence("flight_recorder", None, "", NOW, "rank 26 has not joined all_reduce 4711"),
    )
    finding = Finding(
        FailureMode.JOB_STALLED,
        Component(ComponentKind.JOB, job="llm-pretrain"),
        Health.FAILED,
        0.97,
        "no rank has made progress for 12 min while 63 of 64 spin",
        Basis.RULE,
        evidence,
        culprit=gpu(3, 2),
        disputed=("the Flight Recorder says rank 26; RAS says that all ranks answer",),
    )
    symptoms = tuple(
        Symptom(FailureMode.GPU_THROTTLED, gpu(node, 1), f"clock of {1200 + node} MHz, its peers have 1980")
        for node in range(2)
    )
    return replace(
        Incident.opened(finding, opened_at),
        symptoms=symptoms,
        jobs=("llm-pretrain", "chat-eval"),
        reopened=2,
        story="back after it went away by itself, time 2",
    )


def plan(about: Incident, *, effects: tuple[Effect, ...] | None = None) -> Plan:
    node = str(about.component.node)
    shown = (
        Effect("cordon", node, takes_out=node),
        Effect("evict", "training/Job/llm-pretrain", "pod llm-pretrain-3-x7k2p; restarts from its checkpoint"),
        Effect("evict", "serving/ReplicaSet/chat-7d9f", "pod chat-7d9f-qqn5c"),
    )
    steps = (
        PlannedStep("keep-work-away", "cordon", {"node": node}, timedelta(minutes=1)),
        PlannedStep("empty", "drain", {"node": node, "grace": "5m"}, timedelta(minutes=15)),
        PlannedStep("check", "verify", {"node": node}, timedelta(minutes=10)),
    )
    return Plan(
        incident_id=about.id,
        playbook="drain-node",
        playbook_digest="5f" * 32,
        target=Component(ComponentKind.NODE, rack=about.component.rack, node=node),
        effects=shown if effects is None else effects,
        steps=steps,
        needs_approval=True,
        approval_expires_after=timedelta(minutes=30),
        deadline=timedelta(hours=1, minutes=30),
        resolves_when=ResolvesWhen.CONTAINED,
        impediments=("serving/chat-pdb allows no disruption now: 2 of 2 pods are needed",),
        budget="fleet: 2 of 2 nodes out with this plan; rack-0: 1 of 1",
        reason="an uncorrectable error has hit application memory: the GPU needs a reset, so the node is emptied first",
    )


def approval(about: Incident, name: str = "apr-1", *, effects: tuple[Effect, ...] | None = None) -> Approval:
    asked = plan(about, effects=effects)
    return Approval(
        id=name,
        incident_id=about.id,
        plan=asked,
        digest=asked.digest,
        state=ApprovalState.PENDING,
        asked_at=NOW - timedelta(minutes=2),
        expires_at=NOW + timedelta(minutes=28),
    )


def run(about: Incident, name: str = "run-1", *, state: RunState = RunState.RUNNING, position: int = 1) -> Run:
    started = NOW - timedelta(minutes=1)
    return Run(
        id=name,
        incident_id=about.id,
        approval_id=None,
        plan=plan(about),
        state=state,
        position=position,
        started_at=started,
        step_started_at=started,
        next_look_at=NOW,
        detail="1 of 2 pods has gone; chat-7d9f-qqn5c waits for serving/chat-pdb",
        ended_at=NOW if state.ended else None,
    )


def effect(of: Run, key: str, state: EffectState = EffectState.DONE) -> EffectRecord:
    return EffectRecord(of.id, "empty", key, state, of.started_at, of.started_at, detail="gone after 12 s")


def leading_journal(path: Path) -> SqlJournal:
    journal = SqlJournal(f"sqlite:///{path / 'journal.db'}")
    journal.lead("test", NOW, timedelta(minutes=5))
    return journal


def fill(journal: SqlJournal) -> tuple[Incident, Approval, Run]:
    """One incident of each kind of life, a pending approval `apr-1`, a running run `run-1` with one effect."""
    asking = replace(incident(), state=IncidentState.AWAITING_APPROVAL, approval_id="apr-1", story="waits for approval")
    asking = replace(asking, plan=plan(asking))
    healing = replace(
        incident(node=2, index=0, opened_at=NOW - timedelta(minutes=9)),
        state=IncidentState.REMEDIATING,
        run_id="run-1",
        story="drain-node is at step 2 of 3",
    )
    verdict = Verdict(Guard.BASIS, "the plan rests on a learnt score alone", "a rule or a second detector agrees")
    held = replace(
        incident(node=6, index=5, opened_at=NOW - timedelta(minutes=31)),
        failure_mode=ANOMALY,
        health=Health.DEGRADED,
        score=0.87,
        basis=Basis.LEARNT,
        verdict=verdict,
        reasons=("power draws 31 % less than its peers at the same load, 0.87 anomalous",),
    )
    asked, active = approval(asking), run(healing)
    with journal.transaction() as transaction:
        for each in (asking, healing, held):
            transaction.save_incident(each)
        transaction.add_approval(asked)
        transaction.add_run(active, ["node/node-02"])
        transaction.save_effect(effect(active, "evict/training/llm-pretrain-3-x7k2p/9f3a"))
    return asking, asked, active


class Client:
    """Speaks HTTP to an application without a network; follows no redirect and keeps no cookie by itself."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str] | None = None) -> None:
        self._app = app
        self._headers = dict(headers or {})

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.request("GET", path, headers=headers)

    def post(
        self, path: str, *, headers: Mapping[str, str | bytes] | None = None, content: bytes = b""
    ) -> httpx.Response:
        return self.request("POST", path, headers=headers, content=content)

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str | bytes] | None = None, content: bytes = b""
    ) -> httpx.Response:
        return asyncio.run(self._send(method, path, {**self._headers, **(headers or {})}, content))

    async def _send(self, method: str, path: str, headers: Mapping[str, str | bytes], content: bytes) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8470") as client:
            raw = [(name.encode(), v.encode() if isinstance(v, str) else v) for name, v in headers.items()]
            return await client.request(method, path, headers=raw, content=content)
