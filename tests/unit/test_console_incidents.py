"""Incidents in the console: what is wrong, who is to blame, who is hurt, and the series that convinced."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from html import unescape

import pytest

from healer.adapters.journal.sql import SqlJournal
from healer.config import HttpSettings
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import Evidence
from healer.domain.incident import Incident, IncidentState
from healer.runtime.snapshot import Board
from healer.runtime.web.api import build_app
from healer.runtime.web.auth import local_person
from healer.runtime.web.plots import SPARK_HEIGHT, SPARK_WIDTH, trace
from tests.unit.http_samples import NOW, Client, SetClock, approval, incident, snapshot, stall

HOSTILE = "<script>alert(1)</script>&\"'"

Shown = Callable[..., str]


@pytest.fixture
def shown(journal: SqlJournal) -> Shown:
    def save_and_show(about: Incident, *, asked: bool = False) -> str:
        """The first page, as HTML; with a question to a person about it, if `asked`."""
        with journal.transaction() as write:
            write.save_incident(about)
            if asked:
                write.add_approval(approval(about))
        app = build_app(
            journal=journal,
            board=Board(snapshot()),
            clock=SetClock(),
            approvers=(local_person().id,),
            http=HttpSettings(auth="none"),
            tokens={},
        )
        return Client(app).get("/").text

    return save_and_show


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", "", html)).split())


def part(html: str, start: str, end: str) -> str:
    return html.partition(start)[2].partition(end)[0]


class TestRow:
    def test_it_names_the_culprit_and_counts_symptoms_and_returns(self, shown: Shown) -> None:
        row = text_of(part(shown(stall()), 'class="row"', "</summary>"))
        assert "GPU 2 of node-03 is to blame · explains 2 symptoms · back after" in row
        assert "JobStalled reopened 2" in row

    def test_of_what_there_is_not_it_says_nothing(self, shown: Shown) -> None:
        row = part(shown(incident()), 'class="row"', "</details>")
        for word in ("to blame", "To blame", "Jobs hurt", "xplains", "disagree", "back", "Its fault"):
            assert word not in row, word


class TestDetails:
    def test_what_is_wrong_who_is_to_blame_and_who_is_hurt(self, shown: Shown) -> None:
        text = text_of(part(shown(replace(stall(), told_at=NOW - timedelta(minutes=3))), "</summary>", "</form>"))
        for told in (
            "JobStalled of job llm-pretrain",
            "no rank has made progress for 12 min while 63 of 64 spin as of 3 min ago",
            "To blameGPU 2 of node-03 in rack rack-0 GPU-00030002",
            "Jobs hurtllm-pretrain, chat-eval",
            "Rests ona rule, score 0.97",
            "Came back2 times after it had gone away by itself",
        ):
            assert told in text, told

    def test_who_said_what_stands_apart_from_the_reason(self, shown: Shown) -> None:
        apart = part(shown(stall()), "Sources disagree", "</div>")
        assert "the Flight Recorder says rank 26; RAS says that all ranks answer" in apart
        assert "63 of 64 spin" not in apart

    def test_symptoms_are_folded_under_it_each_with_its_own_component_and_reason(self, shown: Shown) -> None:
        folded = part(shown(stall()), f'<details id="symptoms-{stall().id}"', "</details>")
        assert folded.count("<li>") == 2
        assert "GpuThrottled of GPU 1 of node-01: clock of 1201 MHz, its peers have 1980" in text_of(folded)

    @pytest.mark.parametrize(
        ("gone", "persists", "says"),
        [
            (True, True, "observed to be over; if it is back soon, it is this incident again"),
            (True, False, "observed to be over"),
            (False, True, "not observed to be over: found again, it opens nothing new"),
            (False, False, "not observed to be over: found again, it is a new incident"),
        ],
    )
    def test_of_an_ended_one_it_says_whether_the_fault_is_over(
        self, shown: Shown, says: str, *, gone: bool, persists: bool
    ) -> None:
        ended = replace(stall(), state=IncidentState.ESCALATED, gone=gone, persists=persists)
        assert text_of(part(shown(ended), "<dt>Its fault</dt>", "</div>")) == says

    def test_the_question_to_a_person_says_it_too(self, shown: Shown) -> None:
        question = part(shown(stall(), asked=True), '<article class="card question"', "</article>")
        text = text_of(question)
        assert "JobStalled of job llm-pretrain" in text
        assert "To blameGPU 2 of node-03" in text
        assert "Jobs hurtllm-pretrain, chat-eval" in text
        assert "Sources disagree" in text
        assert f'2 symptoms: <a href="#{stall().id}">' in question

    def test_a_question_about_many_jobs_names_some_and_counts_the_others(self, shown: Shown) -> None:
        html = shown(replace(stall(), jobs=tuple(f"job-{n}" for n in range(9))), asked=True)
        assert "job-4 and 4 more" in part(html, '<article class="card question"', "</article>")
        assert "job-7, job-8" in part(html, 'class="row"', "</form>")

    def test_what_others_wrote_stays_text(self, shown: Shown) -> None:
        about = stall()
        named = Component(ComponentKind.GPU, rack=HOSTILE, node=HOSTILE, gpu=HOSTILE, uuid=HOSTILE)
        html = shown(
            replace(
                about,
                culprit=named,
                jobs=(HOSTILE,),
                reasons=(HOSTILE, HOSTILE),
                symptoms=(replace(about.symptoms[0], component=named, reason=HOSTILE),),
                evidence=(replace(about.evidence[0], signal=HOSTILE, unit=HOSTILE, note=HOSTILE),),
            )
        )
        assert "<script>" not in html.replace('<script src="/static/', "")
        assert 'aria-label="&lt;script&gt;' in html


class TestEvidence:
    def test_a_series_is_drawn_with_what_a_screen_reader_needs(self, shown: Shown) -> None:
        table = part(shown(stall()), '<table class="evidence">', "</table>")
        label = part(table, 'aria-label="', '"')
        assert label == (
            "gpu_utilisation_percent from 2026-03-14 02:57:24 to 03:07:09 UTC: lowest 81 %, highest 99 %, last 99 %"
        )
        assert f"<title>{label}</title>" in table
        assert 'role="img"' in table
        assert table.count("<polyline") == 1
        text = text_of(table)
        assert "all ranks but one spin" in text
        assert "81 to 99 %" in text
        assert "2026-03-14 02:57:24 to 03:07:09 UTC" in text

    def test_what_has_no_value_and_no_course_says_so(self, shown: Shown) -> None:
        silent = replace(stall(), evidence=stall().evidence[1:])
        table = part(shown(silent), '<table class="evidence">', "</table>")
        assert "<svg" not in table
        assert "unknown" in text_of(table)
        assert "not recorded" in text_of(table)

    def test_a_course_over_midnight_names_both_days(self, shown: Shown) -> None:
        evidence = _series(1.0, 2.0, step=timedelta(hours=4))
        assert "2026-03-13 23:07:09 to 2026-03-14 03:07:09 UTC" in shown(replace(incident(), evidence=(evidence,)))


def _series(*values: float, step: timedelta = timedelta(seconds=15)) -> Evidence:
    start = NOW - step * (len(values) - 1)
    points = tuple((start + step * number, value) for number, value in enumerate(values))
    return Evidence("s", values[-1], "", NOW, points=points)


def _without(evidence: Evidence, *places: int) -> Evidence:
    return replace(evidence, points=tuple(p for place, p in enumerate(evidence.points) if place not in places))


def _dots(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, _, y in (dot.partition(",") for dot in line.split())]


class TestTrace:
    def test_it_goes_from_edge_to_edge_and_high_is_up(self) -> None:
        drawn = trace(_series(0.0, 5.0, 10.0))
        assert drawn is not None
        (line,) = drawn.lines
        (x0, y0), _, (x2, y2) = _dots(line)
        assert (x0, x2) == (0.0, SPARK_WIDTH)
        assert 0.0 < y2 < y0 < SPARK_HEIGHT

    def test_what_does_not_change_is_a_level_line_in_the_middle(self) -> None:
        drawn = trace(_series(3.0, 3.0))
        assert drawn is not None
        assert {y for _, y in _dots(drawn.lines[0])} == {SPARK_HEIGHT / 2}

    def test_where_nothing_was_known_the_line_is_broken(self) -> None:
        drawn = trace(_without(_series(*range(12)), 4, 5, 6))
        assert drawn is not None
        assert [len(_dots(line)) for line in drawn.lines] == [4, 5]

    def test_a_point_on_its_own_is_a_dot(self) -> None:
        drawn = trace(_without(_series(*range(12)), 8, 9, 10))
        assert drawn is not None
        first, last = _dots(drawn.lines[-1])
        assert first == last

    @pytest.mark.parametrize("evidence", [_series(1.0), _series(1.0, float("nan"))], ids=["one", "one known"])
    def test_one_point_is_no_course(self, evidence: Evidence) -> None:
        assert trace(evidence) is None
