"""The journal in SQL: SQLite (one process, WAL) or PostgreSQL. Every write is fenced by the leader's epoch."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, TypeVar

import alembic.command
import alembic.config
import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from healer.adapters.journal import tables as schema
from healer.decoding import decode
from healer.domain.approval import Approval, ApprovalState, Person
from healer.domain.breaker import Trip
from healer.domain.component import Component, ComponentKind
from healer.domain.incident import Incident, IncidentState
from healer.domain.run import EffectRecord, Run, RunState, Start
from healer.domain.silence import Silence, SilenceState
from healer.errors import Conflict, Fenced, NotFound, Unavailable
from healer.policy.approval import answered, not_open
from healer.policy.audit_chain import GENESIS, audit_digest
from healer.ports import AuditEntry, Counts, Lease, Transaction

_T = TypeVar("_T")
_MOST_KNOWN = 50_000  # values that are kept: of thousands that wait, hardly one changes between two reads
_AT_ONCE = 500  # keys in one question
_OF_RUNS = (schema.runs.c.document, schema.runs.c.cancelled_by, schema.runs.c.paused_by)
_IDLE_MS = 10_000  # no transaction of ours waits for anything but the database


class SqlJournal:
    """Implements `healer.ports.Journal`. Until `lead` has succeeded it can only be read."""

    def __init__(self, url: str) -> None:
        """Open the database and bring its tables to this release. Raises Unavailable."""
        self._url = url
        self._epoch: int | None = None
        self._lock_file: IO[str] | None = None
        self._known: dict[tuple[str, str], tuple[int, Any] | None] = {}  # by table and id: its version, and the value
        try:
            self._engine = _engine(url)
            with self._engine.begin() as connection:
                _migrate(connection)
        except (sa.exc.SQLAlchemyError, ModuleNotFoundError, OSError) as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        self._engine.dispose()
        if self._lock_file is not None:
            self._lock_file.close()

    # Leadership

    def lead(self, holder: str, now: datetime, ttl: timedelta) -> int:
        alone = self._lock_sqlite_file()
        with self._connection() as connection:
            row = connection.execute(sa.select(schema.leader).with_for_update()).one_or_none()
            if row is None:
                epoch = 1
                connection.execute(schema.leader.insert().values(id=1, holder=holder, epoch=epoch, seen_at=now))
            elif self._epoch not in {None, row.epoch}:
                # Whoever leads now, or led last: what this process knows is older than what the journal holds.
                raise Fenced(f"this process led in epoch {self._epoch}, the journal is in epoch {row.epoch}")
            elif self._epoch == row.epoch or row.holder == holder or alone or _utc(row.seen_at) + ttl < now:
                # A namesake is another process (a container's is always 1): it gets an epoch of its own.
                epoch = row.epoch if self._epoch == row.epoch else row.epoch + 1
                connection.execute(schema.leader.update().values(holder=holder, epoch=epoch, seen_at=now))
            else:
                raise Conflict(
                    "journal", f"{row.holder} leads since epoch {row.epoch} and was seen at {_utc(row.seen_at)}"
                )
        self._epoch = epoch
        return epoch

    def _lock_sqlite_file(self) -> bool:
        """For SQLite: hold the file's lock for the life of the process, which also outlives no crash.

        Returns whether that lock proves that no other process leads. Raises Conflict if another one holds it.
        """
        match = re.fullmatch(r"sqlite(?:\+\w+)?:///(.+)", self._url)
        if match is None or match.group(1) == ":memory:":
            return match is not None
        if self._lock_file is not None:
            return True
        path = Path(f"{match.group(1)}.lock")
        lock_file = path.open("w")
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock_file.close()
            raise Conflict("journal", f"another healer is running on {match.group(1)}; stop it first") from error
        self._lock_file = lock_file
        return True

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._connection() as connection:
            self._fence(connection)
            yield _SqlTransaction(connection)

    def _fence(self, connection: Connection) -> None:
        # The row lock (PostgreSQL) or the immediate transaction (SQLite) keeps the epoch as it is until the commit.
        epoch = connection.execute(sa.select(schema.leader.c.epoch).with_for_update()).scalar_one_or_none()
        if self._epoch is None or epoch != self._epoch:
            raise Fenced(f"this process leads in epoch {self._epoch}, the journal is in epoch {epoch}")

    # Reads

    def incidents(
        self, *, open_only: bool = False, states: Collection[IncidentState] = (), limit: int = 1000
    ) -> tuple[Incident, ...]:
        table = schema.incidents
        query = sa.select(table.c.id, table.c.version).order_by(table.c.opened_at.desc())
        if states:
            query = query.where(table.c.state.in_([str(state) for state in states]))
        return self._documents(query, table, Incident, open_only=open_only, limit=limit)

    def incident(self, incident_id: str) -> Incident:
        return self._document(schema.incidents, incident_id, Incident)

    def approvals(self, *, open_only: bool = False, limit: int = 1000) -> tuple[Approval, ...]:
        query = sa.select(schema.approvals.c.id, schema.approvals.c.version)
        query = query.order_by(schema.approvals.c.asked_at.desc())
        return self._documents(query, schema.approvals, Approval, open_only=open_only, limit=limit)

    def approval(self, approval_id: str) -> Approval:
        return self._document(schema.approvals, approval_id, Approval)

    def runs(self, *, active_only: bool = False, due_at: datetime | None = None, limit: int = 1000) -> tuple[Run, ...]:
        table = schema.runs
        query = sa.select(*_OF_RUNS).order_by(table.c.started_at.desc()).limit(limit)
        if active_only:
            query = query.where(table.c.live)
        if due_at is not None:
            due = sa.or_(table.c.due_at.is_(None), table.c.due_at <= due_at.astimezone(UTC), table.c.cancelled_by != "")
            query = query.where(table.c.live, due)
        with self._connection(read_only=True) as connection:
            return tuple(_run(row) for row in connection.execute(query))

    def starts(self, after: Mapping[str, datetime]) -> tuple[Start, ...]:
        table = schema.runs
        wanted = [(table.c.playbook == name) & (table.c.started_at > at.astimezone(UTC)) for name, at in after.items()]
        if not wanted:
            return ()
        query = sa.select(table.c.playbook, table.c.target, table.c.started_at).where(sa.or_(*wanted))
        with self._connection(read_only=True) as connection:
            rows = connection.execute(query)
            return tuple(Start(row.playbook, row.target, _utc(row.started_at)) for row in rows)

    def active(self, playbooks: Collection[str]) -> Mapping[str, int]:
        table = schema.runs
        if not playbooks:
            return {}
        query = sa.select(table.c.playbook, sa.func.count().label("number")).group_by(table.c.playbook)
        with self._connection(read_only=True) as connection:
            rows = connection.execute(query.where(table.c.playbook.in_(playbooks), table.c.live))
            return {str(row.playbook): int(row.number) for row in rows}

    def run(self, run_id: str) -> Run:
        table = schema.runs
        query = sa.select(*_OF_RUNS).where(table.c.id == run_id)
        with self._connection(read_only=True) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("run", f"there is no run {run_id}")
        return _run(row)

    def effects(self, run_id: str) -> tuple[EffectRecord, ...]:
        table = schema.effects
        query = sa.select(table.c.document).where(table.c.run_id == run_id).order_by(table.c.number)
        with self._connection(read_only=True) as connection:
            return tuple(_decoded(row.document, EffectRecord) for row in connection.execute(query))

    def inherited(self, run: Run) -> tuple[EffectRecord, ...]:
        effects, runs = schema.effects, schema.runs
        earlier = sa.select(runs.c.id).where(runs.c.incident_id == run.incident_id, runs.c.id != run.id)
        query = sa.select(effects.c.document).where(effects.c.run_id.in_(earlier)).order_by(effects.c.number)
        with self._connection(read_only=True) as connection:
            return tuple(_decoded(row.document, EffectRecord) for row in connection.execute(query))

    def silences(self, *, unended_at: datetime | None = None, limit: int | None = None) -> tuple[Silence, ...]:
        table = schema.silences
        query = sa.select(table.c.document).order_by(table.c.created_at.desc()).limit(limit)
        if unended_at is not None:
            query = query.where(table.c.until > unended_at.astimezone(UTC))
        with self._connection(read_only=True) as connection:
            return tuple(_decoded(row.document, Silence) for row in connection.execute(query))

    def silence(self, silence_id: str) -> Silence:
        return self._document(schema.silences, silence_id, Silence)

    def trips(self, *, limit: int = 1000) -> tuple[Trip, ...]:
        table = schema.trips
        query = sa.select(table.c.document).order_by(table.c.at.desc()).limit(limit)
        with self._connection(read_only=True) as connection:
            return tuple(_decoded(row.document, Trip) for row in connection.execute(query))

    def leases(self) -> Mapping[str, Lease]:
        with self._connection(read_only=True) as connection:
            rows = connection.execute(sa.select(schema.leases))
            return {row.resource: Lease(row.run_id, row.taken_out) for row in rows}

    def counts(self) -> Counts:
        with self._connection(read_only=True) as connection:
            incidents, runs = (
                {str(row.state): int(row.number) for row in connection.execute(_count_by_state(table))}
                for table in (schema.incidents, schema.runs)
            )
        return Counts(incidents, runs)

    def audit_log(self, *, after: int = 0, limit: int = 1000) -> tuple[AuditEntry, ...]:
        table = schema.audit
        query = sa.select(table).where(table.c.number > after).order_by(table.c.number).limit(limit)
        with self._connection(read_only=True) as connection:
            return tuple(_audit_entry(row) for row in connection.execute(query))

    # A person's words

    def decide(self, approval_id: str, person: Person, now: datetime, *, approve: bool, reason: str) -> Approval:
        with self._connection() as connection:
            self._fence(connection)
            write = _SqlTransaction(connection)
            # Locked: of two who agree at once, the second one adds to what the first one has left.
            approval = write.locked_approval(approval_id)
            refusal = not_open(approval, person, now, approve=approve)
            if refusal is not None:
                raise Conflict("approval", refusal.message)
            decided = answered(approval, person, now, approve=approve, reason=reason)
            write.save_approval(decided)
            action = "agreed" if decided.state is ApprovalState.PENDING else str(decided.state)
            detail = {"digest": approval.digest, "agreed": [agreement.person.id for agreement in decided.agreed]}
            write.audit(now, person.id, f"approval.{action}", approval_id, reason=reason, detail=detail)
        return decided

    def request_cancel(self, run_id: str, person: Person, now: datetime, reason: str) -> Run:
        with self._word_on(run_id, person, now, "cancel", reason) as (run, say):
            if run.state.ended:
                raise Conflict("run", f"{run_id} has ended: {run.state}")
            return say(cancelled_by=f"{person}: {reason}"[:255])

    def pause(self, run_id: str, person: Person, now: datetime, reason: str) -> Run:
        with self._word_on(run_id, person, now, "pause", reason) as (run, say):
            if run.state is not RunState.RUNNING or run.cancelled_by:
                what = f"has ended: {run.state}" if run.state.ended else "is being undone"
                raise Conflict("run", f"{run_id} {what}")
            if run.paused_by:
                raise Conflict("run", f"{run_id} is paused already by {run.paused_by}")
            return say(paused_by=f"{person}: {reason}"[:255])

    def resume(self, run_id: str, person: Person, now: datetime, reason: str) -> Run:
        with self._word_on(run_id, person, now, "resume", reason) as (run, say):
            if not run.paused_by:
                raise Conflict("run", f"{run_id} is not paused")
            return say(paused_by="")

    @contextmanager
    def _word_on(
        self, run_id: str, person: Person, now: datetime, word: str, reason: str
    ) -> Iterator[tuple[Run, Callable[..., Run]]]:
        """The run, and how to write what a person says about it: columns of their own, so that the executor, which
        writes the document, cannot overwrite them.
        """
        with self._connection() as connection:
            self._fence(connection)
            run = self.run(run_id)

            def say(**words: str) -> Run:
                connection.execute(schema.runs.update().where(schema.runs.c.id == run_id).values(**words))
                _SqlTransaction(connection).audit(now, person.id, f"run.{word}", run_id, reason=reason)
                return replace(run, **words)  # type: ignore[arg-type]  # all of them are texts

            yield run, say

    def add_silence(self, silence: Silence) -> None:
        detail = {
            "matchers": [str(matcher) for matcher in silence.matchers],
            "starts_at": silence.starts_at.isoformat(),
            "ends_at": silence.ends_at.isoformat(),
        }
        with self._connection() as connection:
            self._fence(connection)
            write = _SqlTransaction(connection)
            write.save_silence(silence)
            person = silence.created_by.id
            write.audit(silence.created_at, person, "silence.added", silence.id, reason=silence.reason, detail=detail)

    def expire_silence(self, silence_id: str, person: Person, now: datetime, reason: str) -> Silence:
        with self._connection() as connection:
            self._fence(connection)
            write = _SqlTransaction(connection)
            silence = write.locked_silence(silence_id)
            if silence.state(now) is SilenceState.EXPIRED:
                by = f", expired by {silence.expired_by}" if silence.expired_by else ""
                raise Conflict("silence", f"{silence_id} ended at {_utc(silence.until):%Y-%m-%dT%H:%M:%SZ}{by}")
            expired = replace(silence, expired_by=person, expired_at=now)
            write.save_silence(expired)
            write.audit(now, person.id, "silence.expired", silence_id, reason=reason)
        return expired

    def reset_breaker(self, person: Person, now: datetime, reason: str) -> Trip:
        with self._connection() as connection:
            self._fence(connection)
            newest = next(iter(self.trips(limit=1)), None)
            if newest is None:
                raise Conflict("breaker", "it has never opened: there is nothing to reset")
            write = _SqlTransaction(connection)
            reset = write.change_trip(newest.id, lambda trip: _reset(trip, person, now, reason))
            write.audit(now, person.id, "breaker.reset", newest.id, reason=reason)
        return reset

    # How it is done

    @contextmanager
    def _connection(self, *, read_only: bool = False) -> Iterator[Connection]:
        try:
            if read_only:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    yield connection
            else:
                with self._engine.begin() as connection:
                    yield connection
        except sa.exc.SQLAlchemyError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> Unavailable:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        shown = sa.engine.make_url(self._url).render_as_string(hide_password=True)
        return Unavailable("journal", f"{shown}: {cause}; see state.url")

    def _documents(
        self, query: sa.Select[Any], table: sa.Table, kind: type[_T], *, open_only: bool, limit: int
    ) -> tuple[_T, ...]:
        query = query.where(table.c.live) if open_only else query
        with self._connection(read_only=True) as connection:
            rows = connection.execute(query.limit(limit)).all()
            known = {row.id: self._known.get((table.name, row.id)) for row in rows}
            changed = [row.id for row in rows if (kept := known[row.id]) is None or kept[0] != row.version]
            for start in range(0, len(changed), _AT_ONCE):
                keys = changed[start : start + _AT_ONCE]
                documents = sa.select(table.c.id, table.c.version, table.c.document).where(table.c.id.in_(keys))
                for row in connection.execute(documents):
                    known[row.id] = row.version, _decoded(row.document, kind)
        if len(self._known) + len(changed) > _MOST_KNOWN:
            self._known.clear()
        self._known.update({(table.name, key): known[key] for key in changed})
        return tuple(value for _, value in filter(None, known.values()))

    def _document(self, table: sa.Table, key: str, kind: type[_T]) -> _T:
        with self._connection(read_only=True) as connection:
            query = sa.select(table.c.document).where(table.c.id == key)
            document = connection.execute(query).scalar_one_or_none()
        return _found(document, kind, key)


class _SqlTransaction:
    """Implements `healer.ports.Transaction` on one open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save_incident(self, incident: Incident) -> None:
        live = not incident.state.ended or incident.persists
        values = {
            "live": live,
            "state": str(incident.state),
            "opened_at": incident.opened_at,
            "document": _encoded(incident),
        }
        self._save(schema.incidents, incident.id, values)

    def add_approval(self, approval: Approval) -> None:
        self.save_approval(approval)

    def change_approval(self, approval_id: str, change: Callable[[Approval], Approval]) -> Approval:
        changed = change(self.locked_approval(approval_id))
        self.save_approval(changed)
        return changed

    def locked_approval(self, approval_id: str) -> Approval:
        return self._locked(schema.approvals, approval_id, Approval)

    def save_approval(self, approval: Approval) -> None:
        live = approval.state is ApprovalState.PENDING or not approval.closed
        self._save(
            schema.approvals,
            approval.id,
            {
                "incident_id": approval.incident_id,
                "live": live,
                "asked_at": approval.asked_at,
                "document": _encoded(approval),
            },
        )

    def add_run(self, run: Run, leases: Sequence[str]) -> None:
        taken = self._connection.execute(sa.select(schema.leases).where(schema.leases.c.resource.in_(leases))).first()
        if taken is not None:
            raise Conflict("lease", f"{taken.resource} is held by {taken.run_id}")
        self.save_run(run)
        nodes = {Component(ComponentKind.NODE, node=node).key: node for node in run.plan.takes_out}
        for resource in leases:
            values = {"resource": resource, "run_id": run.id, "taken_out": nodes.get(resource)}
            self._connection.execute(schema.leases.insert().values(values))

    def save_run(self, run: Run) -> None:
        values = {
            "incident_id": run.incident_id,
            "live": not run.state.ended,
            "state": str(run.state),
            "started_at": run.started_at.astimezone(UTC),  # it is compared
            "due_at": run.next_look_at.astimezone(UTC),
            "document": _encoded(run),
            "playbook": run.plan.playbook,
            "target": run.plan.target.key,
        }
        self._save(schema.runs, run.id, values)
        if run.state.ended:
            self._connection.execute(schema.leases.delete().where(schema.leases.c.run_id == run.id))

    def save_effect(self, effect: EffectRecord) -> None:
        table = schema.effects
        document = _encoded(effect)
        same = (table.c.run_id == effect.run_id) & (table.c.step_id == effect.step_id) & (table.c.key == effect.key)
        if self._connection.execute(table.update().where(same).values(document=document)).rowcount == 0:
            self._connection.execute(
                table.insert().values(run_id=effect.run_id, step_id=effect.step_id, key=effect.key, document=document)
            )

    def add_trip(self, trip: Trip) -> None:
        self._save_trip(trip)

    def change_trip(self, trip_id: str, change: Callable[[Trip], Trip]) -> Trip:
        changed = change(self._locked(schema.trips, trip_id, Trip))
        self._save_trip(changed)
        return changed

    def _save_trip(self, trip: Trip) -> None:
        self._save(schema.trips, trip.id, {"at": trip.at.astimezone(UTC), "document": _encoded(trip)})

    def locked_silence(self, silence_id: str) -> Silence:
        return self._locked(schema.silences, silence_id, Silence)

    def save_silence(self, silence: Silence) -> None:
        # Both times are compared and sorted by: SQLite drops the zone.
        until, created_at = silence.until.astimezone(UTC), silence.created_at.astimezone(UTC)
        values = {"until": until, "created_at": created_at, "document": _encoded(silence)}
        self._save(schema.silences, silence.id, values)

    def audit(
        self,
        at: datetime,
        actor: str,
        action: str,
        subject: str,
        *,
        reason: str = "",
        detail: Mapping[str, object] | None = None,
    ) -> None:
        table = schema.audit
        last = self._connection.execute(
            sa.select(table.c.number, table.c.digest).order_by(table.c.number.desc()).limit(1)
        ).one_or_none()
        number, previous = (1, GENESIS) if last is None else (last.number + 1, last.digest)
        text = json.dumps(detail or {}, sort_keys=True, default=str)
        digest = audit_digest(number, at, actor, action, subject, reason, text, previous)
        self._connection.execute(
            table.insert().values(
                number=number,
                at=at.astimezone(UTC),  # SQLite drops the zone
                actor=actor,
                action=action,
                subject=subject,
                reason=reason,
                detail=text,
                previous=previous,
                digest=digest,
            )
        )

    def _locked(self, table: sa.Table, key: str, kind: type[_T]) -> _T:
        query = sa.select(table.c.document).where(table.c.id == key).with_for_update()
        return _found(self._connection.execute(query).scalar_one_or_none(), kind, key)

    def _save(self, table: sa.Table, key: str, values: dict[str, object]) -> None:
        counted = {"version": table.c.version + 1} if "version" in table.c else {}
        if (
            self._connection.execute(table.update().where(table.c.id == key).values({**values, **counted})).rowcount
            == 0
        ):
            self._connection.execute(table.insert().values(id=key, **values))


def _reset(trip: Trip, person: Person, now: datetime, reason: str) -> Trip:
    if trip.reset_at is not None:
        raise Conflict("breaker", f"it was closed at {_utc(trip.reset_at):%Y-%m-%dT%H:%M:%SZ} by {trip.reset_by}")
    return replace(trip, reset_at=now, reset_by=person, reset_reason=reason)


def _count_by_state(table: sa.Table) -> sa.Select[Any]:
    return sa.select(table.c.state, sa.func.count().label("number")).group_by(table.c.state)


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        # A leader that is stopped in the middle of a transaction would keep its lock, and the next one out, for ever.
        options = {"options": f"-c idle_in_transaction_session_timeout={_IDLE_MS}"} if "postgresql" in url else {}
        return sa.create_engine(url, pool_pre_ping=True, connect_args=options)
    engine = sa.create_engine(url, connect_args={"timeout": 30, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        # FULL: an intent that was written must survive a power cut, or the effect after it could happen twice.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # Take the write lock at once: upgrading a read lock later fails under contention instead of waiting.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _migrate(connection: Connection) -> None:
    configuration = alembic.config.Config(attributes={"connection": connection})
    configuration.set_main_option("script_location", "healer.adapters.journal:migrations")
    configuration.set_main_option("path_separator", "os")
    alembic.command.upgrade(configuration, "head")


def _encoded(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _decoded(document: str, kind: type[_T]) -> _T:
    return decode(document, kind)


def _found(document: str | None, kind: type[_T], key: str) -> _T:
    if document is None:
        raise NotFound(kind.__name__.lower(), f"there is no {kind.__name__.lower()} {key}")
    return _decoded(document, kind)


def _run(row: Any) -> Run:
    return replace(_decoded(row.document, Run), cancelled_by=row.cancelled_by, paused_by=row.paused_by)


def _audit_entry(row: Any) -> AuditEntry:
    return AuditEntry(
        row.number, _utc(row.at), row.actor, row.action, row.subject, row.reason, row.detail, row.previous, row.digest
    )


def _utc(moment: datetime) -> datetime:
    """SQLite forgets the zone; everything was written in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
