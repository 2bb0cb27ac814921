"""A person's silences: the one way in, whether the API or the console carried them, and what they cover."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from healer.domain.approval import Person
from healer.domain.incident import Incident
from healer.domain.matcher import Matcher, checked_matchers
from healer.domain.silence import Silence, Silenced
from healer.policy.silencing import covering, objection
from healer.ports import Journal
from healer.runtime.web.decisions import checked_id
from healer.runtime.web.site import BadRequest, Site, checked_reason

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants silenced.

    Attributes:
        starts_at: now, if it is None or earlier.
        lasts: the configured time, if neither it nor `ends_at` is given.
    """

    matchers: Sequence[Matcher]
    reason: str
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    lasts: timedelta | None = None


def add_silence(site: Site, wish: Wish, person: Person, now: datetime) -> Silence:
    """Raises BadRequest (422) with what speaks against it."""
    starts_at, ends_at = _times(wish, now, default=site.silences.lasts)
    silence = Silence(
        id=f"sil-{secrets.token_hex(6)}",
        matchers=_checked(wish.matchers),
        starts_at=starts_at,
        ends_at=ends_at,
        created_by=person,
        reason=checked_reason(wish.reason),
        created_at=now,
    )
    against = objection(silence, now, longest=site.silences.longest)
    if against is not None:
        raise BadRequest(against.message, 422)
    site.journal.add_silence(silence)
    _log.info("silence added", silence=silence.id, by=person.id, matchers=[str(m) for m in silence.matchers])
    return silence


def expire_silence(journal: Journal, silence_id: str, person: Person, now: datetime, reason: str) -> Silence:
    """Raises NotFound; Conflict if it has ended; BadRequest (422) without a proper reason."""
    expired = journal.expire_silence(checked_id(silence_id, "silence"), person, now, checked_reason(reason))
    _log.info("silence expired", silence=expired.id, by=person.id)
    return expired


def silenced(site: Site, incidents: Iterable[Incident], now: datetime) -> tuple[Silenced | None, ...]:
    """Of each incident, why it is left alone now."""
    silences = site.journal.silences(unended_at=now)
    return tuple(covering(incident, silences, site.maintenance, now) for incident in incidents)


def _times(wish: Wish, now: datetime, *, default: timedelta) -> tuple[datetime, datetime]:
    if wish.ends_at is not None and wish.lasts is not None:
        raise BadRequest("give either ends_at or duration", 422)
    try:
        starts_at = max(now, wish.starts_at or now).astimezone(UTC).replace(microsecond=0)
        lasts = default if wish.lasts is None else wish.lasts
        ends_at = starts_at + lasts if wish.ends_at is None else wish.ends_at.astimezone(UTC)
    except OverflowError:
        raise BadRequest("the silence would end after the end of time", 422) from None
    return starts_at, ends_at


def _checked(matchers: Iterable[Matcher]) -> tuple[Matcher, ...]:
    try:
        return checked_matchers(matchers)
    except ValueError as error:
        raise BadRequest(str(error), 422) from error
