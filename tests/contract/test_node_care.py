"""What a node care keeps to, the simulated one directly and through its agents' HTTP; and what the client makes of
agents that misbehave.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta

import pytest

from healer.adapters.care import AgentCare
from healer.domain.care import CareOrder, CareReport, CareState, Operation
from healer.errors import HealerError, Rejected, Unavailable
from healer.ports import NodeCare
from healer.sim.care import SINCE, FleetCare
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import SimulatedFleet
from healer.sim.server import FleetServer
from tests.canned_http import Canned, CannedServer, canned_server

NODE = "gpu-001"
REBOOT, COLLECT = CareOrder(Operation.REBOOT), CareOrder(Operation.COLLECT)
BURN_IN = CareOrder(Operation.BURN_IN, duration=timedelta(minutes=5))


@pytest.fixture
def fleet() -> SimulatedFleet:
    fleet = SimulatedFleet(racks=1, nodes=2, gpus=4, seed=5)
    fleet.set_idle(NODE, idle=True)
    return fleet


@pytest.fixture(params=["simulated", "over HTTP"])
def care(request: pytest.FixtureRequest, fleet: SimulatedFleet) -> Iterator[NodeCare]:
    if request.param == "simulated":
        yield FleetCare(fleet)
        return
    with ExitStack() as stack:
        server = stack.enter_context(FleetServer(fleet, speed=0.0, token="t0ken"))
        yield stack.enter_context(closing(AgentCare(f"{server.url}/agents/{{node}}", token="t0ken")))


def _reset(fleet: SimulatedFleet, gpu: int = 1) -> CareOrder:
    return CareOrder(Operation.RESET_GPU, gpu, fleet.layout.uuids[fleet.layout.gpu_index(NODE, gpu)])


def _state(care: NodeCare, key: str) -> CareState | None:
    report = care.report(NODE, key)
    return None if report is None else report.state


def test_a_node_says_what_its_driver_lists_and_how_many_processes_use_it(fleet: SimulatedFleet, care: NodeCare) -> None:
    idle, works = care.condition(NODE), care.condition("gpu-002")
    assert [(use.gpu, use.processes) for use in idle.gpus] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert [use.uuid for use in idle.gpus] == list(fleet.read(NODE).uuids)
    assert {use.processes for use in works.gpus} == {1}
    assert idle.boot_id != works.boot_id


def test_what_was_never_asked_for_is_none(care: NodeCare) -> None:
    assert care.report(NODE, "run-1.boot.1") is None


def test_an_operation_goes_on_and_then_tells_how_it_ended(fleet: SimulatedFleet, care: NodeCare) -> None:
    begun = care.start(NODE, "run-1.evidence.1", COLLECT)
    assert (begun.state, begun.started_at, begun.ended_at) == (CareState.RUNNING, SINCE, None)
    assert care.report(NODE, "run-1.evidence.1") == begun
    fleet.advance(15)
    ended = care.report(NODE, "run-1.evidence.1")
    assert ended is not None
    assert ended.state is CareState.DONE
    assert ended.ended_at == SINCE + timedelta(seconds=15)
    assert "evidence" in ended.detail


def test_the_same_key_again_is_the_same_operation_while_it_runs_and_afterwards(
    fleet: SimulatedFleet, care: NodeCare
) -> None:
    first = care.start(NODE, "k", BURN_IN)
    fleet.advance(200)
    assert care.start(NODE, "k", BURN_IN) == first
    fleet.advance(100)
    over = care.start(NODE, "k", BURN_IN)
    assert (over.state, over.started_at) == (CareState.DONE, first.started_at)
    assert care.report("gpu-002", "k") is None, "a key is its node's"


def test_a_key_that_was_given_to_another_order_is_refused(care: NodeCare) -> None:
    care.start(NODE, "k", COLLECT)
    with pytest.raises(Rejected, match="another operation"):
        care.start(NODE, "k", REBOOT)


def test_a_reset_ends_what_waits_for_a_reset_on_that_gpu_alone(fleet: SimulatedFleet, care: NodeCare) -> None:
    for gpu in (1, 2):
        fleet.inject(Fault(FaultKind.ROW_REMAP_PENDING, 0, node=NODE, gpu=gpu))
    care.start(NODE, "k", _reset(fleet))
    fleet.advance(25)
    assert _state(care, "k") is CareState.DONE
    assert fleet.read(NODE).state.remap_pending.tolist() == [0, 0, 1, 0]


def test_a_gpu_that_is_in_use_or_is_another_one_is_not_reset(fleet: SimulatedFleet, care: NodeCare) -> None:
    with pytest.raises(Rejected, match="lists no GPU 1"):
        care.start(NODE, "k", CareOrder(Operation.RESET_GPU, 1, "GPU-another"))
    fleet.set_idle(NODE, idle=False)
    with pytest.raises(Rejected, match="in use"):
        care.start(NODE, "k", _reset(fleet))
    assert care.report(NODE, "k") is None


def test_a_reboot_is_another_boot_that_brings_back_what_fell_off_the_bus(fleet: SimulatedFleet, care: NodeCare) -> None:
    fleet.inject(Fault(FaultKind.GPU_LOST, 0, node=NODE, gpu=1))
    before = care.condition(NODE)
    assert [use.gpu for use in before.gpus] == [0, 2, 3]
    assert care.start(NODE, "k", REBOOT).state is CareState.RUNNING
    with pytest.raises(Unavailable, match=f"node agent of {NODE}"):
        care.report(NODE, "k")
    fleet.advance(60)
    assert not fleet.read(NODE).exporter_up
    with pytest.raises(Unavailable):
        care.condition(NODE)
    fleet.advance(40)
    after = care.condition(NODE)
    assert after.boot_id != before.boot_id
    assert [use.gpu for use in after.gpus] == [0, 1, 2, 3]
    assert fleet.read(NODE).exporter_up
    assert _state(care, "k") is CareState.DONE, "what was asked for is known after the boot, too"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (None, "passed"),
        (FaultKind.ROW_REMAP_PENDING, "GPU 1: a row awaits its remap"),
        (FaultKind.GPU_LOST, "GPU 1: off the bus"),
        (FaultKind.NVLINK_DOWN, "GPU 1: an NVLink is down"),
        (FaultKind.UNCORRECTABLE_ECC, "GPU 1: "),
    ],
)
def test_a_burn_in_passes_on_sound_gpus_alone(
    fleet: SimulatedFleet, care: NodeCare, fault: FaultKind | None, says: str
) -> None:
    if fault is not None:
        fleet.inject(Fault(fault, 0, node=NODE, gpu=1))
    care.start(NODE, "k", BURN_IN)
    assert {use.processes for use in care.condition(NODE).gpus} == {1}, "the test uses them"
    fleet.advance(299)
    assert _state(care, "k") is CareState.RUNNING
    fleet.advance(2)
    report = care.report(NODE, "k")
    assert report is not None
    assert report.state is (CareState.DONE if fault is None else CareState.FAILED)
    assert report.detail.startswith(says)
    assert {use.processes for use in care.condition(NODE).gpus} == {0}


def test_a_burn_in_without_its_duration_and_an_unknown_node_are_refused(care: NodeCare) -> None:
    with pytest.raises(Rejected, match="duration"):
        care.start(NODE, "k", CareOrder(Operation.BURN_IN))
    for ask in (lambda: care.condition("elsewhere"), lambda: care.start("elsewhere", "k", COLLECT)):
        with pytest.raises(Rejected, match="node agent of elsewhere"):
            ask()


def test_a_lost_answer_leaves_an_operation_that_is_known_under_its_key(fleet: SimulatedFleet) -> None:
    care = FleetCare(fleet)
    care.lose_next_answer(Unavailable("agent", "cut off"))
    with pytest.raises(Unavailable):
        care.start(NODE, "k", COLLECT)
    assert _state(care, "k") is CareState.RUNNING
    assert care.begun == [(NODE, COLLECT)]


# The client


def test_a_wrong_token_is_refused_and_not_shown(fleet: SimulatedFleet) -> None:
    with FleetServer(fleet, speed=0.0, token="right") as server:
        agents = AgentCare(f"{server.url}/agents/{{node}}", token="wr0ng")
        with closing(agents), pytest.raises(Rejected, match=r"check agent\.token") as caught:
            agents.condition(NODE)
    assert "wr0ng" not in str(caught.value)


def test_an_address_without_its_node_is_found_at_once() -> None:
    with pytest.raises(ValueError, match="url must contain"):
        AgentCare("http://agents:9422")


@pytest.fixture
def web() -> Iterator[CannedServer]:
    with canned_server() as server:
        yield server


@pytest.fixture
def agents(web: CannedServer) -> Iterator[AgentCare]:
    with closing(AgentCare(f"{web.url}/{{node}}/", timeout_s=0.5)) as made:
        yield made


def _operation(status: int = 200, **said: object) -> Canned:
    document: dict[str, object] = {"node": "n1", "key": "k", "operation": "collect", "state": "running"}
    document |= {"started_at": "2026-03-01T00:00:00Z", "ended_at": None, "detail": ""}
    return Canned(json.dumps({**document, "more": "later", **said}).encode(), status=status)


def _condition(**said: object) -> Canned:
    gpus = [{"gpu": 0, "uuid": "U", "processes": 0}]
    return Canned(json.dumps({"node": "n1", "boot_id": "b", "gpus": gpus, **said}).encode())


def test_an_order_is_put_under_its_key_without_what_it_does_not_need(web: CannedServer, agents: AgentCare) -> None:
    web.respond = lambda asked: _operation(202, operation=json.loads(asked.body)["operation"])
    agents.start("n1", "k", BURN_IN)
    agents.start("n1", "k", CareOrder(Operation.RESET_GPU, 3, "GPU-3"))
    agents.start("n1", "k", REBOOT)
    assert [(asked.method, asked.path) for asked in web.asked] == [("PUT", "/n1/operations/k")] * 3
    assert [json.loads(asked.body) for asked in web.asked] == [
        {"operation": "burn_in", "duration_s": 300.0},
        {"operation": "reset_gpu", "gpu": 3, "uuid": "GPU-3"},
        {"operation": "reboot"},
    ]


def _ask_for_report(agents: AgentCare) -> CareReport | None:
    return agents.report("n1", "k")


def _order(agents: AgentCare) -> CareReport | None:
    return agents.start("n1", "k", COLLECT)


@pytest.mark.parametrize("ask", [_ask_for_report, _order])
@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        pytest.param(_operation(node="n2"), Rejected, "is the agent of 'n2'", id="another node"),
        pytest.param(_operation(key="j"), Unavailable, "answers about 'j'", id="another key"),
        pytest.param(_operation(state="lost"), Unavailable, "something else", id="an unknown state"),
        pytest.param(_operation(state="done"), Unavailable, "is done and has not ended", id="done without an end"),
        pytest.param(
            _operation(ended_at="2026-03-01T00:00:00Z"), Unavailable, "running and has ended", id="ended and running"
        ),
        pytest.param(_operation(started_at="2026-03-01T00:00:00"), Unavailable, "something else", id="no time zone"),
        pytest.param(Canned(b"<html>"), Unavailable, "something else", id="html"),
        pytest.param(Canned(b"{}"), Unavailable, "something else", id="another document"),
        pytest.param(Canned(b"", status=204), Unavailable, "something else", id="nothing"),
        pytest.param(Canned(b"no such page", status=404), Rejected, "status 404", id="somebody else's 404"),
        pytest.param(
            Canned(b'{"node": "n2", "key": "k"}', status=404), Rejected, "status 404", id="another node's 404"
        ),
        pytest.param(Canned(b'{"error": "GPU 1 is in use"}', status=409), Rejected, "GPU 1 is in use (409)", id="409"),
        pytest.param(Canned(b"busy", status=429), Unavailable, "status 429", id="429"),
        pytest.param(Canned(b'{"error": "NVML is gone"}', status=500), Unavailable, "NVML is gone (500)", id="500"),
        pytest.param(Canned(b"x" * 100, drips=True), Unavailable, "within 0.5 s", id="drips"),
    ],
)
def test_an_agent_that_misbehaves_is_never_believed(
    web: CannedServer,
    agents: AgentCare,
    *,
    answer: Canned,
    error: type[HealerError],
    text: str,
    ask: Callable[[AgentCare], CareReport | None],
) -> None:
    web.respond = lambda _: answer
    with pytest.raises(error) as caught:
        ask(agents)
    assert text in str(caught.value)
    assert "node agent of n1" in str(caught.value)


def test_only_the_agent_s_own_word_says_that_it_was_never_asked(web: CannedServer, agents: AgentCare) -> None:
    web.respond = lambda _: Canned(b'{"node": "n1", "key": "k", "error": "never asked"}', status=404)
    assert agents.report("n1", "k") is None


def test_an_operation_that_the_agent_knows_as_another_one_is_refused(web: CannedServer, agents: AgentCare) -> None:
    web.respond = lambda _: _operation(operation="reboot")
    with pytest.raises(Rejected, match="knows k for another operation, reboot, not collect"):
        agents.start("n1", "k", COLLECT)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (_condition(node="n2"), Rejected, "is the agent of 'n2'"),
        (_condition(boot_id=""), Unavailable, "something else"),
        (_condition(gpus=[{"gpu": 0, "uuid": "U", "processes": -1}]), Unavailable, "something else"),
        (_condition(gpus=[{"gpu": n, "uuid": "U", "processes": 0} for n in (0, 1)]), Unavailable, "one GPU twice"),
        (_condition(gpus=[{"gpu": 0, "uuid": u, "processes": 0} for u in "UV"]), Unavailable, "one GPU twice"),
    ],
    ids=["another node", "no boot", "negative processes", "a UUID twice", "an index twice"],
)
def test_a_condition_that_cannot_be_is_never_believed(
    web: CannedServer, agents: AgentCare, answer: Canned, error: type[HealerError], text: str
) -> None:
    web.respond = lambda _: answer
    with pytest.raises(error, match=text):
        agents.condition("n1")


def test_names_and_keys_cannot_leave_their_place_in_the_url(web: CannedServer, agents: AgentCare) -> None:
    web.respond = lambda _: _operation(node="../n", key="../k?x=1")
    agents.report("../n", "../k?x=1")
    assert [(asked.path, asked.query) for asked in web.asked] == [("/..%2Fn/operations/..%2Fk%3Fx%3D1", {})]


def test_nobody_there_is_unavailable() -> None:
    agents = AgentCare("http://127.0.0.1:1/{node}")
    with closing(agents), pytest.raises(Unavailable, match="Connection refused"):
        agents.condition("n1")
