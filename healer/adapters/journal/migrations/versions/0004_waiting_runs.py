"""What is asked of thousands that wait: what has changed, which runs are due, and which nodes they take out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for table in ("incidents", "approvals"):
        op.add_column(table, sa.Column("version", sa.Integer, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("due_at", sa.DateTime(timezone=True)))
    op.create_index("ix_runs_due_at", "runs", ["due_at"])
    op.add_column("leases", sa.Column("taken_out", sa.String(255)))
    # Runs of an earlier release are due at once, which sets it; what they hold may be taken out until they end.
    op.execute("UPDATE leases SET taken_out = substr(resource, 6) WHERE resource LIKE 'node/%'")
