"""What the laboratories of the contract suites have in common where they are a real Kubernetes."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import yaml
from kubernetes.client import ApiClient

from healer.adapters.kubernetes.cluster import KubernetesCluster
from healer.ports import Cluster
from tests.controlplane import fleet
from tests.controlplane.controlplane import ControlPlane

REFUSING_PORT = 1  # nothing listens on tcpmux
POLL_INTERVAL_S = 0.05


class Closable(Protocol):
    def close(self) -> None: ...


A = TypeVar("A", bound=Closable)
C = TypeVar("C", bound=KubernetesCluster)


class RealLab(Generic[A]):
    """A namespace of a control plane, and healer's adapters on it, which are closed with it."""

    def __init__(self, control_plane: ControlPlane, admin: ApiClient, namespace: str, folder: Path) -> None:
        self.control_plane = control_plane
        self.admin = admin
        self.namespace = namespace
        self._folder = folder
        self._opened = contextlib.ExitStack()
        self.healer: A = self.opened_as("healer")

    def adapter(self, kubeconfig: Path) -> A:
        raise NotImplementedError

    def opened_as(self, user: str) -> A:
        return self._open(self.control_plane.kubeconfig(user))

    def unplugged(self) -> A:
        config = yaml.safe_load(self.control_plane.kubeconfig("healer").read_text(encoding="utf-8"))
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{REFUSING_PORT}"
        unplugged = self._folder / "unplugged.kubeconfig"
        unplugged.write_text(yaml.safe_dump(config), encoding="utf-8")
        return self._open(unplugged)

    def advance(self) -> None:
        self.control_plane.check()
        time.sleep(POLL_INTERVAL_S)

    def await_started(self, app: str, *, count: int) -> None:
        self.control_plane.eventually(
            lambda: len(fleet.running_pods(self.admin, self.namespace, app)) == count,
            what=f"{count} pods of {app} are running",
        )

    def close(self) -> None:
        self._opened.close()

    def _open(self, kubeconfig: Path) -> A:
        opened = self.adapter(kubeconfig)
        self._opened.callback(opened.close)
        return opened


class RealClusterLab(RealLab[C]):
    """Where the adapter is the scheduler."""

    def __init__(self, control_plane: ControlPlane, admin: ApiClient, namespace: str, folder: Path) -> None:
        super().__init__(control_plane, admin, namespace, folder)
        self.cluster: Cluster = self.healer
