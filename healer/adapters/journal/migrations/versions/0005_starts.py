"""What limits ask: which playbooks were started, on what and when, and how many of their runs go on."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from healer.decoding import convert
from healer.domain.component import Component

revision = "0005"
down_revision = "0004"

_AT_A_TIME = 500
_RUNS = sa.table("runs", *(sa.column(name) for name in ("id", "document", "playbook", "target")))


def upgrade() -> None:
    op.add_column("runs", sa.Column("playbook", sa.String(255), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("target", sa.String(512), nullable=False, server_default=""))
    connection, last = op.get_bind(), ""
    while rows := connection.execute(_after(last)).all():
        for row in rows:
            plan = json.loads(row.document)["plan"]
            target = convert(plan["target"], Component)
            told = {"playbook": plan["playbook"], "target": target.key}
            connection.execute(_RUNS.update().where(_RUNS.c.id == row.id).values(told))
        last = rows[-1].id
    op.create_index("starts_of_playbook", "runs", ["playbook", "started_at", "target"])
    op.create_index("active_of_playbook", "runs", ["playbook", "live"])


def _after(last: str) -> sa.Select[tuple[str, str]]:
    return sa.select(_RUNS.c.id, _RUNS.c.document).where(_RUNS.c.id > last).order_by(_RUNS.c.id).limit(_AT_A_TIME)
