"""Runs that a person has paused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("runs", sa.Column("paused_by", sa.String(255), nullable=False, server_default=""))
