"""The first journal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "leader",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("seen_at", moment, nullable=False),
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("live", sa.Boolean, nullable=False, index=True),
        sa.Column("state", sa.String(32), nullable=False, index=True),
        sa.Column("opened_at", moment, nullable=False, index=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    for name, moment_column in (("approvals", "asked_at"), ("runs", "started_at")):
        op.create_table(
            name,
            sa.Column("id", sa.String(64), primary_key=True),
            sa.Column("incident_id", sa.String(64), sa.ForeignKey("incidents.id"), nullable=False, index=True),
            sa.Column("live", sa.Boolean, nullable=False, index=True),
            sa.Column(moment_column, moment, nullable=False),
            sa.Column("document", sa.Text, nullable=False),
        )
    op.add_column("runs", sa.Column("state", sa.String(32), nullable=False, server_default=""))
    op.create_index("ix_runs_state", "runs", ["state"])
    op.add_column("runs", sa.Column("cancelled_by", sa.String(255), nullable=False, server_default=""))
    op.create_table(
        "effects",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("step_id", sa.String(255), nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.UniqueConstraint("run_id", "step_id", "key", name="one_effect"),
    )
    op.create_index("effects_of_run", "effects", ["run_id", "number"])
    op.create_table(
        "leases",
        sa.Column("resource", sa.String(512), primary_key=True),
        sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id"), nullable=False, index=True),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("action", sa.String(255), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
