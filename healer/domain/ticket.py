"""Ticket: what a person is handed when healer can do no more, with the evidence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ticket:
    """Attributes:
    key: what makes it the same ticket: asked for twice, it is one.
    body: Markdown, for a person.
    evidence: JSON: the incident as the API shows it, with the series that convinced the detector.
    """

    key: str
    title: str
    body: str
    evidence: str
