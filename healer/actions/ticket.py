"""The verb that hands over to a person: a ticket with the evidence, so that nobody starts from nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import ClassVar

import msgspec

from healer.domain.component import Component, ComponentKind
from healer.domain.incident import Incident
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectState, Failed, Outcome
from healer.domain.ticket import Ticket
from healer.schema import Section
from healer.verb import Ledger, Proposal, World

_MOST_SYMPTOMS = 20


class OpenTicket:
    """ticket.open: a ticket with what was found, where, since when, who is hurt, and the series that show it."""

    name: ClassVar[str] = "ticket.open"
    target: ClassVar[ComponentKind | None] = None
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        """Attributes:
        note: for whoever reads it: where the runbook is, what to try first.
        """

        note: str = ""

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        _ = world.tickets  # said before anybody is asked, not in the middle of a run
        return Proposal(effects=(Effect("open a ticket", f"on {target}", harmless=True),))

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        world, plan = ledger.world, ledger.run.plan
        key = f"{ledger.run.id}-{ledger.step_id}".replace("/", "-")  # it may become a file's name

        def open_it() -> str:
            return world.tickets.open(_ticket(key, world.incident(plan.incident_id), arguments.note))

        ledger.effect(f"ticket/{key}", do=open_it, happened=lambda: world.tickets.find(key) is not None)
        return Done(f"a person has {key}")

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        """What becomes of it is the person's; it was opened."""
        done = [record for record in ledger.standing("ticket/") if record.state is EffectState.DONE]
        return Done(done[0].detail) if done else Failed("no ticket was opened")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done("the ticket stays: a person may have read it")


def _ticket(key: str, incident: Incident, note: str) -> Ticket:
    title = f"{incident.failure_mode} on {incident.component}"
    return Ticket(key, title, "\n".join(_body(incident, note)), msgspec.json.encode(incident).decode())


def _body(incident: Incident, note: str) -> Iterator[str]:
    opened = incident.opened_at.astimezone(UTC)
    yield f"{incident.severity}, found {opened:%Y-%m-%d %H:%M:%S} UTC, incident {incident.id}"
    if note:
        yield from ("", note)
    yield from ("", "## Why", *(f"* {reason}" for reason in incident.reasons))
    if incident.tried:
        yield from ("", "## What was tried", *(f"* {each}" for each in incident.tried))
    if incident.culprit is not None:
        yield from ("", f"To blame: {incident.culprit}")
    if incident.jobs:
        yield from ("", f"Jobs hurt: {', '.join(incident.jobs)}")
    if incident.symptoms:
        yield from ("", "## What follows from it", *(f"* {each}" for each in incident.symptoms[:_MOST_SYMPTOMS]))
    if incident.evidence:
        yield from ("", "## Evidence", "The series are in the JSON beside this.", "")
        for each in incident.evidence:
            value = "" if each.value is None else f" {each.value:g} {each.unit}".rstrip()
            note_of = f" ({each.note})" if each.note else ""
            yield f"* {each.signal}:{value} at {each.at.astimezone(UTC):%H:%M:%S}{note_of}"
    yield ""
