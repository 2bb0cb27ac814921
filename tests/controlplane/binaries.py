"""Where the programs of the control plane are found on this machine, or the one line that says how to get them."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Binaries:
    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    openssl: Path
    setpriv: Path


@dataclass(frozen=True, slots=True)
class Missing:
    reason: str
    how_to_get: str

    def __str__(self) -> str:
        return f"no Kubernetes control plane: {self.reason}; to get it: {self.how_to_get}"


def find_binaries() -> Binaries | Missing:
    """Looks in the folder KUBEBUILDER_ASSETS first, if that is set, then where `make kube` builds, then on the PATH."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    found: dict[str, Path] = {}
    for program in ("etcd", "kube-apiserver"):
        path = _executable(Path(assets) / program) if assets else _installed(program)
        if path is None and assets:
            return Missing(f"{program} is not in KUBEBUILDER_ASSETS={assets}", "unset it and run `make kube`")
        if path is None:
            return Missing(f"{program} was not found", _how_to_get(program))
        found[program] = path
    for program in ("kube-controller-manager", "kube-scheduler", "openssl", "setpriv"):
        # The usual content of KUBEBUILDER_ASSETS has an API server but no controllers: those come from the cache then.
        path = (_executable(Path(assets) / program) if assets else None) or _installed(program)
        if path is None:
            return Missing(f"{program} was not found", _how_to_get(program))
        found[program] = path
    return Binaries(**{program.replace("-", "_"): path for program, path in found.items()})


def cache_folder() -> Path:
    """The folder that build.sh fills, by the same rule."""
    versions = re.findall(r"^\s*k8s\.io/kubernetes (\S+)", (HERE / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    xdg = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = os.environ.get("HEALER_KUBE_CACHE") or Path(xdg) / "healer" / "kubernetes"
    return Path(cache) / str(versions[0])


def _installed(program: str) -> Path | None:
    if program.startswith("kube-"):
        return _executable(cache_folder() / program)
    found = shutil.which(program)
    return Path(found) if found else None


def _executable(path: Path) -> Path | None:
    return path if os.access(path, os.X_OK) else None


def _how_to_get(program: str) -> str:
    package = {"etcd": "etcd-server", "openssl": "openssl", "setpriv": "util-linux"}.get(program)
    return f"apt-get install {package}" if package else "make kube"
