"""Incidents as the commands print them, from what the API says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from healer.cli import incident_text
from healer.domain.component import Component, ComponentKind
from healer.domain.incident import Incident, IncidentState
from healer.domain.silence import Silenced
from healer.domain.verdict import Guard, Verdict
from healer.errors import HealerError
from healer.runtime.web.views import incident_view
from tests.unit.http_samples import NOW, incident, plan, stall


def answered(about: Incident, silenced: Silenced | None = None) -> dict[str, Any]:
    """As it comes over HTTP."""
    item: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(incident_view(about, silenced)))
    return item


def facts(about: Incident, silenced: Silenced | None = None) -> Mapping[str, list[str]]:
    """What is printed, by the word that it stands under; the first line under ""."""
    first, *others = incident_text.lines(incident_text.parsed(answered(about, silenced)), NOW)
    told, word = {"": [first]}, ""
    for line in others:
        word = line[2:13].strip() or word
        told.setdefault(word, []).append(line[13:])
    return told


def cells(about: Incident) -> Mapping[str, str]:
    row = incident_text.row(incident_text.parsed(answered(about)), NOW)
    return dict(zip(incident_text.COLUMNS, row, strict=True))


def test_a_row_names_the_culprit_the_jobs_and_the_number_of_symptoms() -> None:
    row = cells(stall())
    assert (row["COMPONENT"], row["CULPRIT"]) == ("job llm-pretrain", "GPU 2 of node-03 (rack-0)")
    assert (row["JOBS"], row["SYMPTOMS"], row["AGE"]) == ("llm-pretrain, chat-eval", "2", "6m")


def test_a_row_of_many_jobs_counts_the_others() -> None:
    assert cells(replace(stall(), jobs=("a", "b", "c", "d")))["JOBS"] == "a, b +2"


def test_a_row_says_nothing_of_what_there_is_not() -> None:
    row = cells(incident())
    assert (row["CULPRIT"], row["JOBS"], row["SYMPTOMS"]) == ("", "", "")


def test_all_that_there_is_to_say_is_said() -> None:
    told = facts(stall())
    assert told[""] == [f"{stall().id}: JobStalled of job llm-pretrain"]
    assert told["state"] == [
        "critical, open, opened 2026-03-14T03:01:09Z, 6m ago",
        "back after it went away by itself, time 2",
    ]
    assert told["why"] == ["no rank has made progress for 12 min while 63 of 64 spin"]
    assert told["disputed"] == ["the Flight Recorder says rank 26; RAS says that all ranks answer"]
    assert told["basis"] == ["rule, score 0.97"]
    assert told["culprit"] == ["GPU 2 of node-03 (rack-0)"]
    assert told["jobs"] == ["llm-pretrain", "chat-eval"]
    assert told["symptoms"][1] == "GpuThrottled of GPU 1 of node-01 (rack-0): clock of 1201 MHz, its peers have 1980"
    series, remark = told["evidence"]
    assert series.startswith(
        "gpu_utilisation_percent: 99 % at 2026-03-14T03:07:09Z; 81 to 99 since 2026-03-14T02:57:24Z"
    )
    assert series.endswith("; all ranks but one spin")
    assert remark == "flight_recorder: unknown at 2026-03-14T03:07:09Z; rank 26 has not joined all_reduce 4711"
    assert told["reopened"] == ["2, each time after it had gone away by itself"]


def test_of_a_plain_incident_only_what_there_is_is_said() -> None:
    assert set(facts(incident())) == {"", "state", "why", "basis", "evidence"}


def test_the_plan_its_effects_and_what_holds_it() -> None:
    held = replace(incident(), plan=plan(incident()), verdict=Verdict(Guard.MODE, "it only observes", "mode is act"))
    told = facts(held)["plan"]
    assert told[0].startswith("drain-node, needs approval: an uncorrectable error")
    assert told[1] == "cordon node-01"
    assert told[-1] == "held by mode: it only observes; lifts when mode is act"


def test_by_whom_and_why_it_is_silenced() -> None:
    until = NOW + timedelta(hours=1)
    told = facts(incident(), Silenced("sil-1", "alice", until, "cables"))["silenced"]
    assert told == ["by alice until 2026-03-14T04:07:09Z: cables (sil-1)"]


@pytest.mark.parametrize(
    ("gone", "persists", "says"),
    [
        (True, True, "observed to be over, if it is back soon, it is this incident again"),
        (True, False, "observed to be over"),
        (False, True, "not observed to be over, found again, it opens nothing"),
        (False, False, "not observed to be over, found again, it is a new incident"),
    ],
)
def test_of_an_ended_one_it_says_whether_the_fault_is_over(says: str, *, gone: bool, persists: bool) -> None:
    ended = replace(incident(), state=IncidentState.RESOLVED, gone=gone, persists=persists)
    assert facts(ended)["fault"] == [says]


def test_what_others_wrote_can_neither_move_the_cursor_nor_forge_lines() -> None:
    hostile = "\x1b[2J\n  culprit    somebody else\r\u202e"
    node = Component(ComponentKind.NODE, node=hostile)
    about = replace(stall(), reasons=(hostile,), culprit=node, jobs=(hostile,))
    printed = [*incident_text.lines(incident_text.parsed(answered(about)), NOW)]
    assert all(line.isprintable() for line in printed)
    assert sum(line.startswith("  culprit") for line in printed) == 1


def test_an_answer_of_another_version_is_an_error_that_says_so() -> None:
    item = answered(incident())
    del item["symptoms"]
    with pytest.raises(HealerError, match="of another version"):
        incident_text.parsed(item)
