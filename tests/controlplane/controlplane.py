"""A real Kubernetes control plane for tests: etcd, API server, controller manager and scheduler, all on loopback.

Nothing here stands in for Kubernetes: evictions, budgets, taints and admission are decided by the release that go.mod
names. Only the kubelets are played (see kubelet.py), because no container needs to run for what is tested.
"""

from __future__ import annotations

import contextlib
import http.client
import secrets
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import yaml
from kubernetes.client import ApiClient, Configuration

from tests.controlplane import audit, processes
from tests.controlplane.audit import Write
from tests.controlplane.binaries import Binaries, Missing, find_binaries

__all__ = ["Binaries", "ControlPlane", "ControlPlaneFailed", "Missing", "Write", "find_binaries"]

Seen = TypeVar("Seen")

POLL_INTERVAL_S = 0.1
START_TIMEOUT_S = 60.0
CONTROLLER_MANAGER = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"
# healer and reader may do only what a test grants them.
GROUPS_BY_USER = {
    "admin": "system:masters",
    "kubelet-player": "system:masters",
    CONTROLLER_MANAGER: "system:masters",
    SCHEDULER: "system:masters",
    "healer": "healer",
    "reader": "reader",
}
# What owns or removes pods and judges nodes. The rest would only cost start-up time.
CONTROLLERS = (
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "statefulset-controller",
    "taint-eviction-controller",
)


class ControlPlaneFailed(RuntimeError):
    """A part of the control plane did not start, or has died; the message ends with its last log lines."""


class ControlPlane:
    """Starts the control plane on entry, kills it and removes its files on exit. Enter it from the main thread."""

    url: str
    ca_file: Path

    def __init__(self, binaries: Binaries) -> None:
        self._binaries = binaries
        self._tokens = {user: secrets.token_hex(16) for user in GROUPS_BY_USER}
        self._programs: list[processes.Program] = []
        self._owned = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            temporary = tempfile.TemporaryDirectory(prefix="healer-controlplane-", ignore_cleanup_errors=True)
            self._folder = Path(starting.enter_context(temporary))
            starting.callback(self._kill_all)
            port = starting.enter_context(_reserved_port())
            self.url = f"https://127.0.0.1:{port}"
            self.ca_file = self._folder / "server.crt"
            self._write_files()
            self._start_all(port)
            self._owned = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()

    def token(self, user: str) -> str:
        return self._tokens[user]

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig file of one of the users in GROUPS_BY_USER."""
        self.token(user)  # an unknown user fails here, not at the first connection
        return self._folder / f"{user.replace(':', '-')}.kubeconfig"

    def client(self, user: str) -> ApiClient:
        """A client of the official library. Use it in a `with`, which closes its connections."""
        return ApiClient(
            Configuration(
                host=self.url,
                api_key={"authorization": self.token(user)},
                api_key_prefix={"authorization": "Bearer"},
                ssl_ca_cert=str(self.ca_file),
                proxy="",  # a proxy for the world outside must not be asked for a loopback address
            )
        )

    def writes(self, user: str) -> tuple[Write, ...]:
        """What this user has asked the server to change so far, granted or not, oldest first."""
        return audit.read_writes(self._folder / "audit.log", user=user)

    def check(self) -> None:
        """Raises ControlPlaneFailed if a part has died."""
        for program in self._programs:
            if program.has_exited():
                code = program.process.returncode
                raise ControlPlaneFailed(f"{program.name} ended with code {code}; {program.tail()}")

    def eventually(self, look: Callable[[], Seen | None], *, what: str, timeout_s: float = 30.0) -> Seen:
        """Looks until the answer is truthy and returns it; fails with `what` was awaited and what was seen last."""
        deadline = time.monotonic() + timeout_s
        while not (seen := look()):
            self.check()
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s:g} s: {what}; last seen: {seen!r}")
            time.sleep(POLL_INTERVAL_S)
        return seen

    def _write_files(self) -> None:
        _make_certificate(self._binaries.openssl, self._folder)
        rows = [f'{self._tokens[user]},{user},{user},"{group}"' for user, group in GROUPS_BY_USER.items()]
        (self._folder / "tokens.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (self._folder / "audit-policy.yaml").write_text(yaml.safe_dump(audit.POLICY), encoding="utf-8")
        for user in GROUPS_BY_USER:
            self.kubeconfig(user).write_text(self._kubeconfig_text(user), encoding="utf-8")

    def _kubeconfig_text(self, user: str) -> str:
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.token(user)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        return yaml.safe_dump(document)

    def _start_all(self, port: int) -> None:
        found = self._binaries
        self._start(found.etcd, *_etcd_flags())
        self._start(found.kube_apiserver, *_apiserver_flags(port))
        self._wait_ready(port)
        manager, scheduler = self.kubeconfig(CONTROLLER_MANAGER), self.kubeconfig(SCHEDULER)
        self._start(found.kube_controller_manager, *_controller_manager_flags(manager))
        self._start(found.kube_scheduler, *_scheduler_flags(scheduler))

    def _start(self, program: Path, *flags: str) -> None:
        self._programs.append(processes.start([program, *flags], setpriv=self._binaries.setpriv, folder=self._folder))

    def _wait_ready(self, port: int) -> None:
        tls = ssl.create_default_context(cafile=self.ca_file)
        headers = {"Authorization": f"Bearer {self.token('admin')}"}
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_ready(http.client.HTTPSConnection("127.0.0.1", port, timeout=5.0, context=tls), headers):
            self.check()
            if time.monotonic() > deadline:
                tails = "\n".join(program.tail() for program in self._programs)
                raise ControlPlaneFailed(f"kube-apiserver was not ready after {START_TIMEOUT_S:g} s; {tails}")
            time.sleep(POLL_INTERVAL_S)

    def _kill_all(self) -> None:
        while self._programs:  # clients before servers, etcd last
            self._programs.pop().kill()


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """A free loopback port that stays ours: the socket never listens, and the server may bind beside it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def _make_certificate(openssl: Path, folder: Path) -> None:
    """One key pair serves for TLS, as its own authority, and for signing service account tokens."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "server.key"]
    names = ["-subj", "/CN=kube-apiserver", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    usage = ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    command: list[str | Path] = [openssl, "req", "-x509", "-days", "2", "-out", "server.crt", *key, *names, *usage]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise ControlPlaneFailed(f"openssl made no certificate: {made.stderr.strip()}")


def _is_ready(connection: http.client.HTTPSConnection, headers: dict[str, str]) -> bool:
    try:
        connection.request("GET", "/readyz", headers=headers)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _etcd_flags() -> tuple[str, ...]:
    """Sockets are files in the working folder, so that two test runs cannot meet on a port."""
    return (
        "--data-dir=etcd",
        "--unsafe-no-fsync",
        "--listen-client-urls=unix://localhost:1",
        "--advertise-client-urls=unix://localhost:1",
        "--listen-peer-urls=unix://localhost:2",
        "--initial-advertise-peer-urls=unix://localhost:2",
        "--initial-cluster=default=unix://localhost:2",
    )


def _apiserver_flags(port: int) -> tuple[str, ...]:
    return (
        "--etcd-servers=unix://localhost:1",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        "--permit-port-sharing",
        "--tls-cert-file=server.crt",
        "--tls-private-key-file=server.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-key-file=server.crt",
        "--service-account-signing-key-file=server.key",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--token-auth-file=tokens.csv",
        "--authorization-mode=RBAC",
        "--audit-policy-file=audit-policy.yaml",
        "--audit-log-path=audit.log",
        "--audit-log-mode=blocking",
        "--audit-log-maxsize=0",
        # Pods need no service account here; without this they wait for a controller that makes one per namespace.
        "--disable-admission-plugins=ServiceAccount",
        "--enable-priority-and-fairness=false",
        "--profiling=false",
    )


def _controller_manager_flags(kubeconfig: Path) -> tuple[str, ...]:
    return (
        f"--kubeconfig={kubeconfig}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--leader-elect=false",
        "--secure-port=0",
        "--node-monitor-period=1s",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--profiling=false",
    )


def _scheduler_flags(kubeconfig: Path) -> tuple[str, ...]:
    return (
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--profiling=false",
    )
