"""What the API server's audit log says about writes: who changed what, and how the server answered.

The server writes a request's line before it ends its answer, so a client that has its answer finds its line here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Requests that change something are logged with their body, which tells a rehearsed eviction from a real one. What the
# control plane's own parts say about themselves all the time (leases, events) would only bury the rest.
POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [
        {
            "level": "None",
            "users": ["kubelet-player", "system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"],
            "resources": [
                {"group": "", "resources": ["events"]},
                {"group": "events.k8s.io", "resources": ["events"]},
                {"group": "coordination.k8s.io", "resources": ["leases"]},
            ],
        },
        {"level": "Request", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True, slots=True)
class Write:
    """One finished request to change something; `code` is the HTTP status it got, 429 for a blocked eviction."""

    user: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    dry_run: bool


def read_writes(log: Path, *, user: str) -> tuple[Write, ...]:
    """Every write of this user so far, oldest first. A last line still being written is left for the next look."""
    if not log.exists():
        return ()
    complete, _, _ = log.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    entries = (json.loads(line) for line in complete.splitlines())
    return tuple(
        _write(entry) for entry in entries if entry["stage"] == "ResponseComplete" and entry["user"]["username"] == user
    )


def _write(entry: dict[str, Any]) -> Write:
    target = entry.get("objectRef", {})
    return Write(
        user=entry["user"]["username"],
        verb=entry["verb"],
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=entry["responseStatus"]["code"],
        dry_run=_is_rehearsal(entry),
    )


def _is_rehearsal(entry: dict[str, Any]) -> bool:
    """A dry run is asked for in the query, and for an eviction also in the options that its body carries."""
    body = entry.get("requestObject") or {}
    options = body.get("deleteOptions") or {}
    return "dryRun=All" in entry["requestURI"] or bool(body.get("dryRun") or options.get("dryRun"))
