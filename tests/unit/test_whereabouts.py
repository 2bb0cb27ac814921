"""What is known of what nodes share: by the scheduler, by the telemetry, and anew when either speaks anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from healer.config import BudgetSettings
from healer.domain.fleet import Fleet
from healer.domain.topology import Place
from healer.domain.verdict import Guard
from healer.policy.budget import ScopeKind, scopes_of
from healer.runtime.whereabouts import Whereabouts
from healer.sim.faults import Fault, FaultKind
from tests.frames import frame_of
from tests.unit.core_samples import AMPLE, START, gpu, nodes
from tests.virtual_site import Site

FLEET = Fleet(START, nodes("n1", "n2", "n3"))
EVERY_AMPLE = dict.fromkeys(ScopeKind, AMPLE)


def told(whereabouts: Whereabouts, node: str, fleet: Fleet = FLEET) -> list[str]:
    scopes = scopes_of(node, whereabouts.grouping(fleet), EVERY_AMPLE, leaving=frozenset())
    return [f"{scope.name}: {' '.join(sorted(scope.nodes))}" for scope in scopes[1:]]


def test_before_anything_is_seen_only_the_scheduler_s_racks_and_pools_are_known() -> None:
    of_scheduler = {
        name: replace(node, rack="r1", pool="inference" if name == "n2" else None) for name, node in FLEET.nodes.items()
    }
    fleet = Fleet(START, of_scheduler)
    assert told(Whereabouts(), "n1", fleet) == ["rack r1: n1 n2 n3"]
    assert told(Whereabouts(), "n2", fleet) == ["rack r1: n1 n2 n3", "pool inference: n2"]


def test_racks_and_feeds_are_the_topology_s_and_jobs_are_those_that_have_a_gpu_of_the_node() -> None:
    whereabouts = Whereabouts()
    places = {"n1": Place(rack="r1", feed="A"), "n2": Place(rack="r1", feed="B"), "n3": Place(rack="r2", feed="A")}
    seen = [
        gpu("A", "n1", job="train"),
        gpu("B", "n1", job="serve"),
        gpu("C", "n1", job="serve"),
        gpu("D", "n2", job="train"),
        gpu("E", "n3", job=None),
        gpu("F", None, job="nowhere"),
    ]
    whereabouts.learn(frame_of(seen, places=places))
    assert told(whereabouts, "n1") == ["rack r1: n1 n2", "power feed A: n1 n3", "job serve: n1", "job train: n1 n2"]
    assert told(whereabouts, "n3") == ["rack r2: n3", "power feed A: n1 n3"]


def test_of_two_words_on_a_rack_the_topology_s_counts() -> None:
    whereabouts = Whereabouts()
    fleet = Fleet(START, {name: replace(node, rack="elsewhere") for name, node in FLEET.nodes.items()})
    whereabouts.learn(frame_of([gpu("A", "n1", job=None)], places={"n1": Place(rack="r1")}))
    assert told(whereabouts, "n1", fleet) == ["rack r1: n1"]
    assert told(whereabouts, "n2", fleet) == ["rack elsewhere: n2 n3"]
    assert whereabouts.shares_of("n1", fleet) == ("rack r1",)


def test_it_is_made_anew_when_the_scheduler_or_the_telemetry_speaks_anew_and_not_before() -> None:
    whereabouts = Whereabouts()
    first = whereabouts.grouping(FLEET)
    assert whereabouts.grouping(FLEET) is first
    whereabouts.learn(frame_of([gpu("A", "n1", job="train")]))
    assert told(whereabouts, "n1") == ["job train: n1"]
    assert told(whereabouts, "n1", Fleet(START, nodes("n2"))) == ["job train: "]


def test_what_a_node_shares_with_others_is_named_for_the_breaker() -> None:
    whereabouts = Whereabouts()
    assert whereabouts.shares_of("n1", FLEET) == ()
    places = {"n1": Place("r1", "A", "nv1", "s1"), "n2": Place(feed="A"), "gone": Place(feed="A")}
    whereabouts.learn(frame_of([gpu("A", "n1")], places=places, drivers={"n1": "570.12"}))
    assert whereabouts.shares_of("n1", FLEET) == ("rack r1", "feed A", "switch s1", "driver 570.12")
    assert whereabouts.shares_of("n2", FLEET) == ("feed A",)
    assert whereabouts.sizes(FLEET) == {"rack r1": 1, "feed A": 2, "switch s1": 1, "driver 570.12": 1}


def test_of_one_job_s_nodes_one_is_asked_about_while_the_other_keeps_its_work(tmp_path: Path) -> None:
    with Site(tmp_path, nodes=4) as site:
        one = BudgetSettings(max_nodes=1)
        site.restart(budgets=site.config.budgets.model_copy(update={"job": one}))
        for name in ("gpu-001", "gpu-002"):
            site.fleet.place_job(name, "serve")
            site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=name, gpu=0))
        site.ticks(2)
        assert len(site.pending()) == 1
        (held,) = (each for each in site.journal.incidents() if each.verdict is not None)
        assert held.verdict is not None
        assert (held.verdict.guard, held.verdict.message) == (
            Guard.BUDGET,
            "job serve: 0 of 2 nodes out, 1 more asked about, 1 allowed",
        )


def test_a_pool_s_budget_holds_back_its_second_node_wherever_it_stands(tmp_path: Path) -> None:
    with Site(tmp_path, racks=2, nodes=4, pools={"gpu-001": "inference", "gpu-003": "inference"}) as site:
        for name in ("gpu-001", "gpu-003", "gpu-004"):
            site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node=name, gpu=0))
        site.ticks(2)
        held = [each.verdict.message for each in site.journal.incidents() if each.verdict is not None]
        assert "pool inference: 0 of 2 nodes out, 1 more asked about, 1 allowed" in held
