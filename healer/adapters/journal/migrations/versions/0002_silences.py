"""Silences."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "silences",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("until", moment, nullable=False, index=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
