"""The journal's tables. Columns are what is queried; the whole domain value is the JSON document beside them."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

leader = Table(
    "leader",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("holder", String(255), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("live", Boolean, nullable=False, index=True),
    Column("state", String(32), nullable=False, index=True),
    Column("opened_at", DateTime(timezone=True), nullable=False, index=True),
    Column("version", Integer, nullable=False, server_default="0"),  # of the document: it counts its changes
    Column("document", Text, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("incident_id", String(64), ForeignKey("incidents.id"), nullable=False, index=True),
    Column("live", Boolean, nullable=False, index=True),
    Column("asked_at", DateTime(timezone=True), nullable=False),
    Column("version", Integer, nullable=False, server_default="0"),
    Column("document", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("incident_id", String(64), ForeignKey("incidents.id"), nullable=False, index=True),
    Column("live", Boolean, nullable=False, index=True),
    Column("state", String(32), nullable=False, index=True, server_default=""),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("due_at", DateTime(timezone=True), index=True),  # of the next look
    Column("document", Text, nullable=False),
    Column("cancelled_by", String(255), nullable=False, server_default=""),
    Column("paused_by", String(255), nullable=False, server_default=""),
    Column("playbook", String(255), nullable=False, server_default=""),
    Column("target", String(512), nullable=False, server_default=""),  # as a component key
)
# Each covers its question, so that no row is read past its document.
Index("starts_of_playbook", runs.c.playbook, runs.c.started_at, runs.c.target)
Index("active_of_playbook", runs.c.playbook, runs.c.live)

effects = Table(
    "effects",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(64), ForeignKey("runs.id"), nullable=False),
    Column("step_id", String(255), nullable=False),
    Column("key", Text, nullable=False),
    Column("document", Text, nullable=False),
    UniqueConstraint("run_id", "step_id", "key", name="one_effect"),
)
Index("effects_of_run", effects.c.run_id, effects.c.number)

leases = Table(
    "leases",
    metadata,
    Column("resource", String(512), primary_key=True),
    Column("run_id", String(64), ForeignKey("runs.id"), nullable=False, index=True),
    Column("taken_out", String(255)),  # the node, if the run takes it out of service
)

silences = Table(
    "silences",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("until", DateTime(timezone=True), nullable=False, index=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("document", Text, nullable=False),
)

trips = Table(
    "trips",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, index=True),
    Column("document", Text, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("action", String(255), nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
)
