"""The chain of the audit log: each entry carries the digest of the one before it, so a change shows from there on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from healer.ports import AuditEntry

GENESIS = "0" * 64


def audit_digest(*fields: object) -> str:
    """The digest of one audit entry over all its other fields; a change anywhere breaks the chain from there on."""
    # As JSON, in which no text of a person can move the border between two fields.
    return hashlib.sha256(json.dumps([_canonical(field) for field in fields]).encode()).hexdigest()


def first_broken_link(entries: Sequence[AuditEntry], previous: str = GENESIS) -> AuditEntry | None:
    """The first entry that does not follow from the one before it; None for an unbroken chain."""
    for entry in entries:
        fields = (entry.number, entry.at, entry.actor, entry.action, entry.subject, entry.reason, entry.detail)
        if entry.previous != previous or entry.digest != audit_digest(*fields, entry.previous):
            return entry
        previous = entry.digest
    return None


def _canonical(field: object) -> str:
    return field.astimezone(UTC).isoformat() if isinstance(field, datetime) else str(field)
