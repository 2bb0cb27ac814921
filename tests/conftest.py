"""Fixtures that every suite shares: the real parts, each of which skips with the line that says how to get it."""

from __future__ import annotations

pytest_plugins = ["tests.controlplane.fixtures"]
