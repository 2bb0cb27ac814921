"""healer is killed at every write to a real Kubernetes, before and after it, and ends every run as if it had lived.

Before a write its intent is in the journal. After it nobody but the cluster knows that it was made, until its outcome
is in the journal, too. Whoever comes next looks first, so that by the API server's own log no write is made twice: not
even one that might be, as a cordon. All points of all playbooks, on a simulated cluster, are in
tests/replay/test_crash_matrix.py.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from healer.adapters.journal.sql import SqlJournal
from healer.domain.approval import ApprovalState
from healer.domain.run import EffectState, Run, RunState
from healer.errors import Unavailable
from healer.policy.audit_chain import first_broken_link
from tests.e2e.conftest import Line, NewLine
from tests.e2e.line import HEALER, DaemonProcess, Ended, eventually

pytestmark = [pytest.mark.prometheus, pytest.mark.kubernetes, pytest.mark.timeout(400)]

Points = tuple[str, ...]  # see dying.py
Life = tuple[Callable[[Line, Points], None], Points]

DONE, UNDONE = EffectState.DONE, EffectState.UNDONE
DYING = str(Path(__file__).with_name("dying.py"))
AT_ONCE = 4
PATIENCE_S = 120.0
LOOKS_EVERY_S = 0.2
THOUGHT_S = 2.5
BUDGET = "all-of-them"
_OPENING = threading.Lock()  # alembic keeps what it migrates in its modules
# What somebody gets to know who asks, or tells, a process that dies meanwhile.
UNHEARD = (Ended, Unavailable, httpx.TransportError, http.client.HTTPException)
SENDER = "sender-token-of-the-tests"


def drained(line: Line, points: Points) -> None:
    """A node with a broken GPU: it is out of service, and its pods run elsewhere."""
    rack = line.rack
    line.break_gpu()
    daemon = line.daemon(program=_dying(points[0]))
    before = rack.deploy("train", replicas=2)
    _live(daemon, points, on_call=lambda: _approve(line, daemon), ends="resolved")

    rack.await_elsewhere("train", count=2)
    assert rack.changes_here() == (
        f"200 patch nodes {rack.node}",
        *(f"201 create pods/eviction {pod.name}" for pod in before),
    )
    run = _check(line, RunState.SUCCEEDED, [("cordon", DONE), ("evict", DONE), ("evict", DONE)])
    assert rack.cordoned_by() == run.id


def given_back(line: Line, points: Points) -> None:
    """The same, cancelled when one pod has gone and a disruption budget keeps the other: the node is in service."""
    rack = line.rack
    line.break_gpu()
    daemon = line.daemon(program=_dying(points[0]))
    (kept,) = rack.deploy("train", replicas=1)
    (gone,) = rack.deploy("web", replicas=1)
    rack.set_budget(BUDGET, app="train", min_available=1)

    def on_call() -> None:
        _approve(line, daemon)
        _cancel_what_waits(daemon)

    _live(daemon, points, on_call=on_call, ends="escalated")

    assert rack.changes_here() == (
        f"200 patch nodes {rack.node}",
        f"201 create pods/eviction {gone.name}",
        f"200 patch nodes {rack.node}",
    )
    _check(line, RunState.CANCELLED, [("cordon", UNDONE), ("evict", DONE)])
    assert rack.cordoned_by() is None
    assert not [name for name in rack.annotations() if name.startswith("healer.dev/")]
    assert rack.pods("train") == (kept,)


def restarted(line: Line, points: Points) -> None:
    """A job of which an alert says that it stands still: it is not suspended, and runs with other pods."""
    rack = line.rack
    job = f"{rack.namespace}/Job/train"
    before = rack.train("train", pods=2)
    daemon = line.daemon(program=_dying(points[0]), change=_with_jobs_and_alerts)
    _alert(daemon, job, status="firing")
    _live(daemon, points, on_call=lambda: _approve(line, daemon), ends="verifying")
    _alert(daemon, job, status="resolved")
    daemon.eventually(lambda: _is(daemon, "resolved"), what="the incident is resolved", timeout_s=PATIENCE_S)

    assert rack.changes_here() == ("200 patch jobs train", "200 patch jobs train")
    _check(line, RunState.SUCCEEDED, [("suspend", DONE), ("resume", DONE)])
    assert not rack.is_suspended("train")
    after = rack.pods("train")
    assert len(after) == len(before)
    assert not {pod.uid for pod in after} & {pod.uid for pod in before}


# Each is one incident, in the course of which healer dies at every one of the points, in this order.
LIVES: tuple[Life, ...] = (
    (restarted, ("before suspend", "after suspend")),
    (restarted, ("before resume", "after resume")),
    (drained, ("before cordon", "after cordon")),
    (drained, ("before evict", "after evict")),
    (drained, ("before evict 2", "after evict")),  # of the second process it is the first
    (drained, ("after approval.asked", "after run.started", "before run.succeeded")),
    (given_back, ("before uncordon", "after uncordon")),
)


@pytest.fixture(scope="module")
def lived(request: pytest.FixtureRequest, new_line: NewLine) -> Iterator[Mapping[Life, Future[None]]]:
    """Those lives that are to be tested. They go on side by side: most of each is waiting."""

    def begun(life: Life) -> None:
        live, points = life
        with new_line() as line:
            live(line, points)

    specs = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = [spec.params.get("life") for spec in specs if spec is not None]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield {life: threads.submit(begun, life) for life in LIVES if life in wanted}
        threads.shutdown(cancel_futures=True)


@pytest.mark.parametrize("life", LIVES, ids=lambda life: f"{life[0].__name__}: {', '.join(life[1])}")
def test_killed_again_and_again_healer_writes_nothing_twice_and_leaves_nothing_open(
    lived: Mapping[Life, Future[None]], life: Life
) -> None:
    lived[life].result()


def _dying(point: str) -> tuple[str, ...]:
    return (DYING, point)


def _live(daemon: DaemonProcess, points: Points, *, on_call: Callable[[], None], ends: str) -> None:
    """Until the incident has ended so. The first process runs; it dies at the first point, the next one at the next."""

    def died() -> bool:
        with contextlib.suppress(*UNHEARD):
            on_call()
        return daemon.was_killed

    def over() -> bool:
        on_call()
        return _is(daemon, ends)

    for point, successor in zip(points, [*map(_dying, points[1:]), HEALER], strict=True):
        eventually(died, what=f"healer has died {point}", timeout_s=PATIENCE_S, every_s=LOOKS_EVERY_S)
        daemon.start(successor)
    daemon.eventually(over, what=f"the incident is {ends}", timeout_s=PATIENCE_S, every_s=LOOKS_EVERY_S)


def _approve(line: Line, daemon: DaemonProcess) -> None:
    """By a click on whatever is asked and not answered, after some thought: it could be asked again meanwhile."""
    approvals = daemon.get("/api/v1/approvals")["items"]
    if any(approval["state"] == ApprovalState.PENDING for approval in approvals):
        for message in line.slack.messages:
            if time.time() - float(message.ts) > THOUGHT_S:
                line.click(daemon, message)


def _cancel_what_waits(daemon: DaemonProcess) -> None:
    for run in daemon.get("/api/v1/runs")["items"]:
        if BUDGET in run["detail"] and not run["cancelled_by"]:
            daemon.post(f"/api/v1/runs/{run['id']}/cancel", reason="the training must not stop tonight")


def _is(daemon: DaemonProcess, state: str) -> bool:
    """Whether the incident of the run is; there are others, of GPUs that other lives have broken."""
    runs = daemon.get("/api/v1/runs")["items"]
    return any(daemon.get(f"/api/v1/incidents/{run['incident_id']}")["state"] == state for run in runs)


def _check(line: Line, ends: RunState, had: list[tuple[str, EffectState]]) -> Run:
    """There was one run, and one question; they have ended, nothing is held or in doubt, and the record is unbroken."""
    with _OPENING:
        opened = SqlJournal(f"sqlite:///{line.folder / 'healer.db'}")
    with closing(opened) as journal:
        (run,) = journal.runs()
        (approval,) = journal.approvals()
        effects = [(effect.key.partition("/")[0], effect.state) for effect in journal.effects(run.id)]
        leases, log = journal.leases(), journal.audit_log(limit=10_000)
    assert (run.state, approval.state, effects, leases) == (ends, ApprovalState.APPROVED, had, {})
    assert len(line.slack.messages) == 1
    assert first_broken_link(log) is None
    actions = [entry.action for entry in log]
    once = ("approval.asked", "approval.approved", "run.started", f"run.{ends}")
    assert [actions.count(action) for action in once] == [1] * len(once)
    return run


def _with_jobs_and_alerts(settings: dict[str, Any]) -> None:
    """Whose the GPUs are tells Kubernetes: it knows nothing of the jobs that the simulated exporters name."""
    settings["topology"] = {"source": "kubernetes", "every": "1s", "job_labels": ["job_name"]}
    settings["telemetry"]["alerts"] = {"receive": True, "modes": {"TrainingStalled": "JobStalled"}}
    secret = Path(settings["tickets"]["folder"]).with_name("sender")
    secret.write_text(SENDER, encoding="utf-8")
    settings["http"]["tokens"].append({"name": "alertmanager", "role": "sender", "token": {"file": str(secret)}})


def _alert(daemon: DaemonProcess, job: str, *, status: str) -> None:
    """As Alertmanager sends it."""
    now = datetime.now(UTC).isoformat()
    alert = {
        "status": status,
        "labels": {"alertname": "TrainingStalled", "job_name": job, "severity": "critical"},
        "annotations": {"summary": "no step for ten minutes"},
        "startsAt": now,
        "endsAt": now if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
    }
    body = {"version": "4", "groupKey": "{}", "status": status, "receiver": "healer", "alerts": [alert]}
    answer = daemon.client.post("/api/v1/alerts", json=body, headers={"Authorization": f"Bearer {SENDER}"})
    assert answer.status_code == 200, answer.text
