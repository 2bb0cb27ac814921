"""The harness itself, without a control plane: what is missing is named, and the audit log is read with care."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.controlplane.audit import read_writes
from tests.controlplane.binaries import Binaries, Missing, find_binaries
from tests.controlplane.controlplane import ControlPlane, ControlPlaneFailed


def test_a_line_of_the_audit_log_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    first, second = _audit_line("gpu-1"), _audit_line("gpu-2")
    log.write_text(f"{first}\n{second[:80]}", encoding="utf-8")
    assert [write.name for write in read_writes(log, user="healer")] == ["gpu-1"]

    log.write_text(f"{first}\n{second}\n", encoding="utf-8")
    assert [write.name for write in read_writes(log, user="healer")] == ["gpu-1", "gpu-2"]


def test_the_writes_of_other_users_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(_audit_line("gpu-1") + "\n", encoding="utf-8")

    assert read_writes(log, user="reader") == ()


def test_a_missing_program_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etcd = _script(tmp_path / "etcd", "exit 0")
    monkeypatch.setenv("PATH", str(etcd.parent))
    monkeypatch.setenv("HEALER_KUBE_CACHE", str(tmp_path / "nothing-built"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)

    assert find_binaries() == Missing(reason="kube-apiserver was not found", how_to_get="make kube")
    etcd.unlink()
    assert find_binaries() == Missing(reason="etcd was not found", how_to_get="apt-get install etcd-server")


@pytest.mark.kubernetes
def test_a_part_that_dies_at_the_start_is_named_with_its_last_words(
    tmp_path: Path, kubernetes_binaries: Binaries
) -> None:
    broken = replace(kubernetes_binaries, etcd=_script(tmp_path / "etcd", "echo the disk is on fire; exit 3"))
    last_words = r"(?s)etcd ended with code 3.*the disk is on fire"

    with pytest.raises(ControlPlaneFailed, match=last_words), ControlPlane(broken):
        pass


def _audit_line(node: str) -> str:
    entry = {
        "stage": "ResponseComplete",
        "verb": "patch",
        "requestURI": f"/api/v1/nodes/{node}",
        "user": {"username": "healer"},
        "objectRef": {"resource": "nodes", "name": node},
        "responseStatus": {"code": 200},
    }
    return json.dumps(entry)


def _script(path: Path, command: str) -> Path:
    path.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    path.chmod(0o755)
    return path
