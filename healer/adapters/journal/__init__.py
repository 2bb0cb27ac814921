"""The journal in SQL: SQLite or PostgreSQL."""
