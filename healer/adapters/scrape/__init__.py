"""Exporters read directly, and who tells where they are."""
