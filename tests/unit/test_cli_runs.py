"""`healer runs explain`: where a run stands, which guard holds it with what figures, and what would lift that."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from healer.cli.run_text import lines, parsed
from healer.domain.run import RunState
from healer.errors import HealerError
from healer.runtime.web.record_views import RunDetailView, run_detail_view
from healer.sim.faults import Fault, FaultKind
from tests.unit.http_samples import NOW, effect, incident, run
from tests.virtual_site import Site, add_training

HELD = "held: budget: rack r1: 2 of 4 nodes out, 1 allowed (lifts when a node of rack r1 returns to service)"


def _view(**changes: object) -> RunDetailView:
    active = replace(run(incident()), **changes)  # type: ignore[arg-type]
    return run_detail_view(active, [effect(active, "evict/training/llm-1/9f3a")])


def _said(view: RunDetailView) -> dict[str, str]:
    """By the word that each line begins with."""
    _, *told = lines(view, NOW)
    return {text[2:12].strip(): text[13:] for text in told if text[2:12].strip()}


def test_the_guard_that_holds_it_is_named_with_its_figures_and_what_would_lift_it() -> None:
    assert _said(_view(detail=HELD))["held by"] == HELD.removeprefix("held: ")


def test_what_it_does_and_how_to_stop_it() -> None:
    said = _said(_view(detail="3 workloads have not gone yet", next_look_at=NOW + timedelta(seconds=4)))
    assert (said["now"], said["next look"]) == ("3 workloads have not gone yet", "in 4 s")
    assert said["to stop it"].startswith("healer runs cancel run-1 --reason TEXT")


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.CANCELLED, RunState.SUCCEEDED])
def test_one_that_has_ended_says_how_and_cannot_be_stopped(state: RunState) -> None:
    said = _said(_view(state=state, cause="a person said so", detail="undone", ended_at=NOW))
    assert (said["because"], said["ended"]) == ("a person said so", "undone")
    assert "to stop it" not in said
    assert not any(text.endswith(", here") for text in lines(_view(state=state, ended_at=NOW), NOW))


def test_what_a_pod_or_a_person_wrote_stays_on_its_line() -> None:
    told = [*lines(_view(detail="one\ntwo\x1b[31m"), NOW)]
    assert all(text.isprintable() for text in told)


def test_a_run_of_another_release_is_said_to_be_one() -> None:
    with pytest.raises(HealerError, match="another version"):
        parsed({"id": "run-1"})


def test_a_run_from_the_journal_is_told_step_by_step(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        add_training(site.cluster, "gpu-002")
        site.cluster.set_budget("all", owner="Job/train", min_available=2, namespace="training")
        site.fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0, node="gpu-002", gpu=1))
        site.ticks(2)
        site.answer(approve=True)
        site.ticks(3)
        (active,) = site.journal.runs()
        told = [*lines(run_detail_view(active, site.journal.effects(active.id)), site.clock.now())]
    assert told[0] == f"{active.id}: drain-node on node gpu-002 (rack-1)"
    assert "  step       quarantine: node.cordon, done" in told
    assert "             evacuate: node.drain, here" in told
    assert any("waits for the disruption budget training/all" in text for text in told)
    assert any("cordon/gpu-002 done: cordoned" in text for text in told)
