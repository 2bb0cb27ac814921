"""Alembic's scripts: how a journal of an older release becomes one of this."""
