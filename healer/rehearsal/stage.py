"""The stage on which a playbook's test is played: the operator that runs playbooks in earnest, on a site that is not.

Nothing is mocked between the finding and the effect: the guards, the question, the interpreter, the journal and the
verbs are the daemon's own. Simulated are the fleet and its exporters, the scheduler, the agents, on-call and the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from healer.adapters.journal.sql import SqlJournal
from healer.adapters.simulated_cluster import SimulatedCluster
from healer.config import Config
from healer.content.detectors import Detector
from healer.content.own_verb import rehearsed
from healer.content.playbook_tests import Answer, Deed, Event, PlaybookTest, Told
from healer.domain.approval import ApprovalState, Person
from healer.domain.care import CareOrder, Operation
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Finding, Findings, Health, Report
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.domain.people import is_usergroup
from healer.domain.playbook import Playbook
from healer.domain.run import EffectRecord, EffectState, Run
from healer.errors import Conflict, Unavailable
from healer.policy.approval import may_decide
from healer.rehearsal.virtual import START, ClusterJobs, FleetPower, FleetTelemetry, HeldTickets, VirtualClock
from healer.runtime.knowledge import Outside
from healer.runtime.operator import Operator
from healer.runtime.snapshot import Board, Snapshot
from healer.runtime.wiring import Content, build_operator
from healer.sim.care import FleetCare
from healer.sim.faults import Fault
from healer.sim.fleet import SimulatedFleet
from healer.sim.layout import Layout
from healer.verb import Verbs

_STEP = timedelta(seconds=10)
_ON_CALL = Person("rehearsal", "on-call")
_LEASE = timedelta(days=36500)
_TERMINATION = timedelta(seconds=30)
_MOST_LINES = 10_000
_SETTLED = timedelta(minutes=1)  # so long nothing more has to happen before a test is over


class _Told:
    """The incident that a test states, as another system would tell of it. Implements `healer.ports.Notices`."""

    def __init__(self, told: Told, layout: Layout) -> None:
        self._told = told
        rack = told.rack if told.node is None else layout.rack_of(told.node)
        gpu = None if told.gpu is None else str(told.gpu)
        component = Component.finest(rack=rack, node=told.node, gpu=gpu, job=told.job)
        assert component is not None  # the test is refused else
        if told.gpu is not None and told.node is not None:
            component = replace(component, uuid=layout.uuids[layout.gpu_index(told.node, told.gpu)])
        self._component = component
        at = told.culprit
        self._culprit = None if at is None else Component(ComponentKind.NODE, rack=layout.rack_of(at), node=at)

    def findings(self, frame: Frame, now: datetime) -> Findings:
        told, since = self._told, now - START
        if since < told.at:
            return Findings()
        if told.lasts is not None and since >= told.at + told.lasts:
            return Findings(reports=(Report(told.failure_mode, self._component, Health.HEALTHY),))
        row = frame.row_of(self._component)
        known = frame.gpus.components[row] if row is not None and self._component.kind is ComponentKind.GPU else None
        finding = Finding(
            failure_mode=told.failure_mode,
            component=known or self._component,
            health=Health[told.health.upper()],
            score=told.score,
            reason=told.reason,
            basis=told.basis,
            culprit=self._culprit,
        )
        return Findings((finding,), reports=(Report(told.failure_mode, finding.component, finding.health),))

    def warnings(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002
        return ()


@dataclass(slots=True)
class Stage:
    """The site of one test, the operator on it, and what has happened so far."""

    folder: Path
    playbooks: Sequence[Playbook]  # the one under test first
    test: PlaybookTest
    faults: Sequence[Fault]
    config: Config
    detectors: Sequence[Detector]
    verbs: Verbs  # of the deployment; then, with the stand-ins of its own
    clock: VirtualClock = field(default_factory=VirtualClock)
    fleet: SimulatedFleet = field(init=False)
    cluster: SimulatedCluster = field(init=False)
    power: FleetPower = field(init=False)
    care: FleetCare = field(init=False)
    telemetry: FleetTelemetry = field(init=False)
    jobs: ClusterJobs = field(init=False)
    tickets: HeldTickets = field(default_factory=HeldTickets)
    journal: SqlJournal = field(init=False)
    operator: Operator = field(init=False)
    effects: list[str] = field(default_factory=list)
    _happened: list[tuple[datetime, str]] = field(default_factory=list)
    _said: set[tuple[str, int]] = field(default_factory=set)  # question, and which of the test's answers
    _starts: int = 0
    # How many changes of the cluster, the power limits, the nodes and the tickets are in `effects`.
    _seen: tuple[int, int, int, int] = (0, 0, 0, 0)
    # Of the nodes that the test gives work, whether any is left.
    _worked: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        site = self.test.site
        self.fleet = SimulatedFleet(racks=site.racks, nodes=site.nodes, gpus=site.gpus, seed=1, faults=self.faults)
        layout = self.fleet.layout
        self.cluster = SimulatedCluster(
            {node: layout.rack_of(node) for node in layout.nodes},
            clock=self.clock,
            termination=_TERMINATION,
            gpus_per_node=site.gpus,
        )
        for each in self.test.workloads:
            for _ in range(each.count):
                self.cluster.add_workload(
                    each.owner, node=each.node, namespace=each.namespace, gpus=each.gpus, priority=each.priority
                )
        self._worked = {node: True for node in layout.nodes if self.cluster.gpus_in_use(node)}
        for budget in self.test.workload_budgets:
            self.cluster.set_budget(
                budget.name, owner=budget.owner, min_available=budget.min_available, namespace=budget.namespace
            )
        self.power = FleetPower(self.fleet)
        self.care = FleetCare(self.fleet, cluster=self.cluster, since=START)
        self.care.silent = self.power.silent  # one agent, whatever it is asked for
        self.telemetry = FleetTelemetry(self.fleet)
        # Like the rest of the site, what a stand-in has been told survives healer.
        self.verbs = rehearsed(self.verbs, heard=self._note_own)
        self.jobs = ClusterJobs(self.cluster)
        self._start()

    def _start(self) -> None:
        self._starts += 1
        self.journal = SqlJournal(f"sqlite:///{self.folder / 'journal.db'}")
        self.journal.lead(f"rehearsal-{self._starts}", self.clock.now(), _LEASE)
        config = _config(self.config, self.test)
        told = self.test.incident
        tested, *others = self.playbooks
        self.operator = build_operator(
            config,
            content=Content(
                detectors=tuple(self.detectors) if self.faults else (),
                models=(),
                playbooks=(replace(tested, params={**tested.params, **self.test.params}), *others),
                verbs=self.verbs,
            ),
            outside=Outside(
                self.telemetry,
                cluster=self.cluster,
                power=self.power,
                tickets=self.tickets,
                topology=self.jobs,
                care=self.care if self.test.site.agents else None,
                notices=None if told is None else _Told(told, self.fleet.layout),
            ),
            journal=self.journal,
            board=Board(Snapshot(config.mode)),
            clock=self.clock,
        )

    # Playing

    def play(self) -> None:
        events = sorted(self.test.events, key=lambda event: event.at)
        quiet_since: datetime | None = None
        while self.clock.now() - START < self.test.lasts:
            while events and START + events[0].at <= self.clock.now():
                self._happens(events.pop(0))
            self._turn()
            self._answer()
            self._note_effects()
            quiet_since = (quiet_since or self.clock.now()) if not events and self._is_over() else None
            if quiet_since is not None and self.clock.now() - quiet_since >= _SETTLED:
                break
            self.clock.advance(_STEP)
            self._let_idle()
            self.fleet.advance(_STEP.total_seconds())

    def _let_idle(self) -> None:
        """The GPUs of a node whose work has gone draw little."""
        for node, worked in self._worked.items():
            works = self.cluster.gpus_in_use(node) > 0
            if works is not worked:
                self.fleet.set_idle(node, idle=not works)
                self._worked[node] = works

    def _turn(self) -> None:
        with suppress(Unavailable):  # as in the daemon: what cannot be observed now is observed later
            self.operator.announce()
        self.operator.pursue()
        with suppress(Unavailable):
            self.operator.turn()

    def _is_over(self) -> bool:
        """Whether everything that went wrong has been dealt with, as far as healer deals with it."""
        incidents = self.journal.incidents()
        return bool(incidents) and all(incident.state.ended for incident in incidents)

    def _answer(self) -> None:
        now = self.clock.now()
        for approval in self.journal.approvals(open_only=True):
            if approval.state is not ApprovalState.PENDING:
                continue
            if self.test.answers:
                self._say(approval.id)
            elif self.test.answer is not Answer.NOBODY and now - approval.asked_at >= self.test.answer_after:
                approve = self.test.answer is Answer.APPROVE
                for number in range(approval.missing if approve else 1):
                    with suppress(Conflict):
                        self._decide(approval.id, _on_call(number), approve=approve)

    def _say(self, approval_id: str) -> None:
        """What those whom the test names have to say by now, each once; and what is refused of it."""
        for number, said in enumerate(self.test.answers):
            now, person, approve = self.clock.now(), Person(said.by), said.say == "approve"
            if START + said.at > now or (approval_id, number) in self._said:
                continue
            self._said.add((approval_id, number))
            approvers = self.operator.knowledge.rules.people.approvers
            refusal = may_decide(self.journal.approval(approval_id), person, approvers, now, approve=approve)
            if refusal is None:
                self._decide(approval_id, person, approve=approve)
            else:
                self._happened.append((now, f"the test: {said.say} by {said.by} does not count: {refusal}"))

    def _decide(self, approval_id: str, person: Person, *, approve: bool) -> None:
        self.journal.decide(approval_id, person, self.clock.now(), approve=approve, reason="rehearsed")

    def _happens(self, event: Event) -> None:
        node, job = event.node or "", event.job or ""
        self._happened.append((self.clock.now(), f"the test: {event.do} {node}{job}".rstrip()))
        match event.do:
            case Deed.CANCEL:
                for run in self.journal.runs(active_only=True):
                    self.journal.request_cancel(run.id, _ON_CALL, self.clock.now(), "the test cancels it")
            case Deed.RESTART:
                self.journal.close()
                self._start()
            case Deed.SUSPEND:
                self.cluster.suspend_by_person(job)
            case Deed.RESUME:
                self.cluster.resume_by_person(job)
            case _:
                self._happens_to(node, event.do)

    def _happens_to(self, node: str, deed: Deed) -> None:
        deeds = {
            Deed.CORDON: lambda: self.cluster.cordon_by_person(node),
            Deed.UNCORDON: lambda: self.cluster.uncordon_by_person(node),
            Deed.NOT_READY: lambda: self.cluster.set_ready(node, ready=False),
            Deed.WORK_ENDS: lambda: self.cluster.finish_work(node),
            Deed.READY: lambda: self.cluster.set_ready(node, ready=True),
            Deed.EXPORTER_DOWN: lambda: self.telemetry.silent.add(node),
            Deed.EXPORTER_UP: lambda: self.telemetry.silent.discard(node),
            Deed.AGENT_DOWN: lambda: self.power.silent.add(node),
            Deed.AGENT_UP: lambda: self.power.silent.discard(node),
            Deed.LIMIT: lambda: self.power.limit_by_person(node),
            Deed.BURN_IN_FAILS: lambda: self.care.broken.add(node),
        }
        deeds[deed]()

    # What came of it

    def _note_effects(self) -> None:
        of_cluster, of_power, of_care, of_tickets = self._seen
        for effect in self.cluster.effects[of_cluster:]:
            self.effects.append(f"{effect.verb} {effect.of or effect.node}")
        for node, limits_w in self.power.asked[of_power:]:
            self.effects.append(f"limit {node}" if limits_w else f"restore {node}")
        self.effects += [_operated(node, order) for node, order in self.care.begun[of_care:]]
        self.effects += ["ticket"] * (len(self.tickets.opened) - of_tickets)
        self._seen = len(self.cluster.effects), len(self.power.asked), len(self.care.begun), len(self.tickets.opened)

    def _note_own(self, verb: str, record: EffectRecord) -> None:
        """The effect of a verb of the deployment's own, after all that came before it."""
        if record.state in {EffectState.DONE, EffectState.UNDONE}:
            self._note_effects()
            self.effects.append(f"{'undo ' if record.state is EffectState.UNDONE else ''}{verb} {record.key}")

    def incident(self) -> Incident | None:
        """The first that a plan was made for, else the first."""
        incidents = sorted(self.journal.incidents(), key=lambda each: (each.plan is None, each.opened_at))
        return incidents[0] if incidents else None

    def run(self) -> Run | None:
        runs = self.journal.runs()
        return runs[0] if runs else None

    def transcript(self) -> tuple[str, ...]:
        said = [
            (entry.at, f"{entry.action} {entry.subject}" + (f": {entry.reason}" if entry.reason else ""))
            for entry in self.journal.audit_log(limit=_MOST_LINES)
            if entry.action != "effect.intent"  # its outcome follows
        ]
        lines = sorted([*self._happened, *said], key=lambda line: line[0])
        return tuple(f"+{_clock(at - START)}  {text}" for at, text in lines)


def _on_call(number: int) -> Person:
    """The people of on-call, of whom one after the other agrees."""
    return Person(f"{_ON_CALL.id}-{number + 1}", f"{_ON_CALL.name} {number + 1}") if number else _ON_CALL


def _approvals(test: PlaybookTest) -> dict[str, object]:
    """Whoever the test names may answer; whether they are asked is the playbook's to say."""
    members = [*(member for group in test.groups.values() for member in group), *(said.by for said in test.answers)]
    people = dict.fromkeys(member for member in members if not is_usergroup(member))
    return {"approvers": tuple(people), "groups": test.groups}


def _operated(node: str, order: CareOrder) -> str:
    if order.operation is Operation.RESET_GPU:
        return f"reset {node}/{order.gpu}"
    return f"{order.operation.replace('_', ' ')} {node}"


def _clock(span: timedelta) -> str:
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _config(config: Config, test: PlaybookTest) -> Config:
    """The deployment's own rules, on the test's site."""
    budgets = {} if test.site.rack_budget_watts is None else {"default": test.site.rack_budget_watts}
    return Config.model_validate(
        {
            "mode": test.mode,
            "telemetry": {"source": "simulator", "interval": _STEP},
            "topology": {"rack_budget_watts": budgets},
            "detectors": {"path": config.detectors.path, "clear_after": config.detectors.clear_after},
            "models": {"path": config.models.path},
            "playbooks": {"path": config.playbooks.path},
            "budgets": config.budgets,
            "power": {"floor_watts": config.power.floor_watts},
            "approvals": _approvals(test),
            "cluster": {"kind": "simulated"},
            "http": {"listen": "127.0.0.1:0", "auth": "none"},
        }
    )
