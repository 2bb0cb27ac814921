"""A playbook played on what was recorded of a run, and the two laid side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from difflib import SequenceMatcher

from healer.config import Config
from healer.content.detectors import Detector
from healer.domain.playbook import Playbook
from healer.rehearsal.record import Record
from healer.rehearsal.recorded import Remade
from healer.rehearsal.rehearse import ladder_of, played, unmet_by
from healer.rehearsal.stage import Stage
from healer.runtime.course import Carried, course_of
from healer.runtime.knowledge import EVERY
from healer.verb import Verbs


@dataclass(frozen=True, slots=True)
class Line:
    """Attributes:
    after: so long after the fault was found.
    note: for the reader: the figures and reasons.
    """

    after: timedelta
    text: str
    note: str


@dataclass(frozen=True, slots=True)
class Beside:
    """Attributes:
    rows: what was recorded and what was rehearsed, in order, alike where they are; None where one has nothing alike.
    differences: what was done, or ended, otherwise; none if it went as it was recorded.
    transcript: all that happened in the rehearsal.
    """

    rows: tuple[tuple[Line | None, Line | None], ...]
    differences: tuple[str, ...]
    transcript: tuple[str, ...]


def play_beside(
    playbook: Playbook,
    record: Record,
    remake: Remade,
    config: Config,
    detectors: Sequence[Detector],
    *,
    verbs: Verbs,
    beside: Sequence[Playbook],
) -> Beside:
    """Play the playbook, as it is now, on what was recorded.

    Args:
        detectors: those that have to find what the remake breaks.
        verbs: the deployment's; for its own stand their stand-ins.
        beside: the other playbooks of the deployment: those that this one leads to are played, too.
    """
    recorded = course_of(record.incident, record.approvals, record.runs)
    before = [
        Line(each.at - record.began, remake.in_site_names(each.text), remake.in_site_names(each.note))
        for each in recorded
    ]
    if not record.is_first:
        answers = frozenset({record.incident.failure_mode})
        playbook = replace(playbook, failure_modes=answers, condition=None, hold=timedelta(0))
    with played(remake.test, ladder_of(playbook, beside), config, detectors, verbs) as stage:
        return Beside(
            rows=tuple(_aligned(before, _rehearsed(stage))),
            differences=tuple(f"{key[-1]}: {text}" for key, text in unmet_by(remake.test.expect, stage)),
            transcript=stage.transcript(),
        )


def _rehearsed(stage: Stage) -> list[Line]:
    incident, journal = stage.incident(), stage.journal
    if incident is None:
        return []
    runs = [run for run in reversed(journal.runs(limit=EVERY)) if run.incident_id == incident.id]
    asked = [each for each in reversed(journal.approvals(limit=EVERY)) if each.incident_id == incident.id]
    moments = course_of(incident, asked, [Carried(run, journal.effects(run.id)) for run in runs])
    return [Line(each.at - incident.opened_at, each.text, each.note) for each in moments]


def _aligned(before: Sequence[Line], after: Sequence[Line]) -> Iterator[tuple[Line | None, Line | None]]:
    matcher = SequenceMatcher(None, [line.text for line in before], [line.text for line in after], autojunk=False)
    for kind, first, last, first_after, last_after in matcher.get_opcodes():
        if kind == "equal":
            yield from zip(before[first:last], after[first_after:last_after], strict=True)
        else:
            yield from ((line, None) for line in before[first:last])
            yield from ((None, line) for line in after[first_after:last_after])
