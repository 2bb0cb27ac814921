"""Alertmanager's webhook: its body, read into typed notices, and the object that the route and the turn share.

The payload is version "4" of Alertmanager's `webhook_config`; Grafana's own alerting sends the same shape as version
"1", with more in it. What is not read here is skipped without being built. The senders try again after 5xx alone, so a
body is refused only if it cannot be understood.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias

import msgspec
import structlog

from healer.decoding import decode
from healer.domain.finding import Findings
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.errors import Rejected
from healer.telemetry.notices import Delivery, HeldNotices, Notice

_COMPONENT = "alerts"
_MOST_AT_ONCE = 20_000
_LONGEST_FINGERPRINT = 64
_LONGEST_MESSAGE = 300
_log = structlog.get_logger(__name__)

_Time: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class _Alert(msgspec.Struct, frozen=True, rename="camel"):
    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] | None = None
    starts_at: _Time | None = None
    ends_at: _Time | None = None
    generator_url: str | None = msgspec.field(name="generatorURL", default=None)
    fingerprint: str = ""


class _Body(msgspec.Struct, frozen=True, rename="camel"):
    version: Literal["4", "1"]
    alerts: Annotated[list[_Alert], msgspec.Meta(max_length=_MOST_AT_ONCE)]
    group_key: str = ""
    receiver: str = ""
    truncated_alerts: Annotated[int, msgspec.Meta(ge=0)] = 0


def parse(body: bytes) -> Delivery:
    """Raises Rejected, naming what is wrong and where in the body."""
    try:
        read = decode(body, _Body)
        notices = tuple(_notice(alert) for alert in read.alerts)
    except msgspec.ValidationError as error:
        raise Rejected(_COMPONENT, f"not a notification of Alertmanager: {str(error)[:_LONGEST_MESSAGE]}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejected(_COMPONENT, f"the body is not JSON: {str(error)[:_LONGEST_MESSAGE]}") from error
    except RecursionError:
        raise Rejected(_COMPONENT, "the body is nested too deep") from None
    except OverflowError:
        raise Rejected(_COMPONENT, "a time in it is outside of the calendar") from None
    return Delivery(read.group_key or read.receiver, notices, read.truncated_alerts)


class AlertmanagerWebhook:
    """Takes deliveries from the HTTP server's threads, and is asked by the turn what they amount to."""

    def __init__(self, held: HeldNotices) -> None:
        self._held = held
        self._lock = threading.Lock()

    def receive(self, body: bytes, now: datetime) -> Mapping[str, int]:
        """How many alerts met which fate. Raises Rejected."""
        delivery = parse(body)
        with self._lock:
            taken = self._held.take(delivery, now)
        for text in taken.news:
            _log.info("alerts", detail=text)
        return {str(fate): count for fate, count in sorted(taken.fates.items())}

    def recall(self, incidents: Iterable[Incident], now: datetime) -> None:
        """After a start: the live incidents of the journal."""
        with self._lock:
            self._held.recall(incidents, now)

    def findings(self, frame: Frame, now: datetime) -> Findings:
        with self._lock:
            return self._held.findings(frame, now)

    def warnings(self, now: datetime) -> tuple[str, ...]:
        with self._lock:
            return self._held.warnings(now)

    def told(self) -> Mapping[str, int]:
        """How many alerts met which fate since the process started."""
        with self._lock:
            return {str(fate): count for fate, count in sorted(self._held.told.items())}


def _notice(alert: _Alert) -> Notice:
    return Notice(
        fingerprint=alert.fingerprint if 0 < len(alert.fingerprint) <= _LONGEST_FINGERPRINT else _fingerprint(alert),
        firing=alert.status == "firing",
        labels=alert.labels,
        annotations=alert.annotations or {},
        starts_at=_time(alert.starts_at),
        ends_at=_time(alert.ends_at),
        link=alert.generator_url or "",
    )


def _fingerprint(alert: _Alert) -> str:
    """The labels are what makes an alert the same one."""
    return hashlib.sha256(msgspec.json.encode(sorted(alert.labels.items()))).hexdigest()


def _time(at: datetime | None) -> datetime | None:
    """In UTC; the zero time of Go is none. Raises OverflowError."""
    return None if at is None or at.year <= 1 else at.astimezone(UTC)
