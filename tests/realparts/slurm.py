"""A real Slurm for tests, with as many nodes as wanted on this one machine, or the line that says how to get it.

Everything is in a folder of its own: the munge key and socket, the state, the logs. No service of the system is used or
touched. The GPUs are files that nobody opens; everything else about them is decided by Slurm.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.controlplane import processes

PART = "slurm"
HOW_TO_GET = "apt-get install slurm-wlm munge"
_PATIENCE_S = 60.0
_PROGRAMS = ("munged", "slurmctld", "slurmd", "salloc", "sbatch", "scancel", "sinfo", "squeue", "scontrol", "setpriv")


@dataclass(frozen=True, slots=True)
class LabNode:
    """A node as slurm.conf has it."""

    name: str
    gpus: int = 8
    features: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Lab:
    """Attributes:
    switches: leaf switch -> host list.
    settings: further lines of slurm.conf.
    """

    nodes: Sequence[LabNode]
    switches: Mapping[str, str] = field(default_factory=dict)
    settings: Sequence[str] = ()


def require() -> Mapping[str, Path]:
    """The programs by name; without them the test is skipped, or fails if HEALER_TEST_REQUIRE names the part."""
    places = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    found = {name: Path(path) for name in _PROGRAMS if (path := shutil.which(name, path=places))}
    if len(found) == len(_PROGRAMS):
        return found
    text = f"no {PART} on this machine; to get it: {HOW_TO_GET}"
    if PART in re.split(r"[,\s]+", os.environ.get("HEALER_TEST_REQUIRE", "")):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


class RunningSlurm:
    """All nodes are idle on entry. On exit everything is killed, what jobs have started included."""

    def __init__(self, programs: Mapping[str, Path], lab: Lab) -> None:
        self._found = programs
        self._lab = lab
        self._owned = contextlib.ExitStack()
        self._started: dict[str, processes.Program] = {}
        self._folder = Path()

    @property
    def config(self) -> Path:
        return self._folder / "slurm.conf"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            temporary = tempfile.TemporaryDirectory(prefix="healer-slurm-", ignore_cleanup_errors=True)
            self._folder = Path(starting.enter_context(temporary))
            self._folder.chmod(0o755)  # munge serves nobody in whose folder others may write, or cannot look
            starting.callback(self._kill_all)
            self._write_files()
            self._start("munged", "munged", "--foreground", "--force", *_munge_flags(self._folder))
            self.eventually((self._folder / "munge.socket").exists, "munge listens")
            self.start_controller()
            for node in self._lab.nodes:
                self._start(node.name, "slurmd", "-D", "-N", node.name, "-f", self.config)
            self.eventually(self.is_idle, "all nodes are idle")
            self._owned = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()

    def start_controller(self) -> None:
        self._start("slurmctld", "slurmctld", "-D", "-f", self.config)
        self.eventually(lambda: "UP" in self.run("scontrol", "ping"), "the controller answers")

    def stop_controller(self) -> None:
        self._started.pop("slurmctld").kill()

    def is_idle(self) -> bool:
        return set(self.run("sinfo", "-N", "-h", "-o", "%T").split()) == {"idle"}

    def allocate(self, *arguments: str) -> int:
        """A job without processes that lasts until it is cancelled; `arguments` as for salloc. Returns its id."""
        said = self.run("salloc", "--no-shell", "--job-name=train", *arguments)
        return int(re.findall(r"Granted job allocation (\d+)", said)[0])

    def submit(self, *arguments: str) -> int:
        """A batch job that sleeps; `arguments` as for sbatch. Returns its id."""
        said = self.run("sbatch", "--output=/dev/null", *arguments, "--wrap=sleep 300")
        return int(re.findall(r"Submitted batch job (\d+)", said)[0])

    def cancel_all(self) -> None:
        self.run("scancel", f"--user={_user()}")
        self.eventually(self.is_idle, "all nodes are idle again")

    def run(self, program: str, *arguments: str) -> str:
        """What it writes to both its outputs, whether it succeeds or not."""
        environment = {**os.environ, "SLURM_CONF": str(self.config)}
        done = subprocess.run(
            [self._found[program], *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        return done.stdout

    def eventually(self, look: Callable[[], object], what: str) -> None:
        """Looks until the answer is truthy. Fails the test, with the logs' ends, if it takes too long."""
        deadline = time.monotonic() + _PATIENCE_S
        while not look():
            if time.monotonic() > deadline or any(program.has_exited() for program in self._started.values()):
                tails = "\n".join(program.tail() for program in self._started.values())
                pytest.fail(f"waited for Slurm until {what}; {tails}", pytrace=False)
            time.sleep(0.05)

    def _start(self, name: str, program: str, *arguments: str | Path) -> None:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        argv = ["env", f"SLURM_CONF={self.config}", self._found[program], *arguments]
        self._started[name] = processes.start(argv, setpriv=self._found["setpriv"], folder=folder)

    def _write_files(self) -> None:
        key = self._folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        for number in range(max(node.gpus for node in self._lab.nodes)):
            (self._folder / f"nvidia{number}").touch()
        with _free_ports(len(self._lab.nodes) + 1) as ports:
            text = "\n".join(_configuration(self._lab, self._folder, ports)) + "\n"
        self.config.write_text(text, encoding="utf-8")
        gres = [_gres_line(node, self._folder) for node in self._lab.nodes if node.gpus]
        (self._folder / "gres.conf").write_text("\n".join(gres) + "\n", encoding="utf-8")
        leaves = [f"SwitchName={name} Nodes={nodes}" for name, nodes in self._lab.switches.items()]
        spine = [f"SwitchName=spine Switches={','.join(self._lab.switches)}"] if leaves else []
        (self._folder / "topology.conf").write_text("\n".join([*leaves, *spine]) + "\n", encoding="utf-8")
        # Of the two plugins this one asks nothing of the machine as long as nothing is constrained.
        (self._folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n", encoding="utf-8")

    def _kill_all(self) -> None:
        while self._started:
            self._started.popitem()[1].kill()
        # What jobs run has left slurmd's process group; it is known by its environment.
        mark = f"SLURM_CONF={self.config}".encode()
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in environment.read_bytes().split(b"\0"):
                    os.kill(int(environment.parent.name), signal.SIGKILL)


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _munge_flags(folder: Path) -> Iterator[str]:
    for flag, name in (("key", "key"), ("seed", "seed"), ("pid", "pid"), ("log", "log")):
        yield f"--{flag}-file={folder / f'munge.{name}'}"
    yield f"--socket={folder / 'munge.socket'}"


def _configuration(lab: Lab, folder: Path, ports: Sequence[int]) -> Iterator[str]:
    host = socket.gethostname().partition(".")[0]
    yield f"ClusterName=lab\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={ports[0]}"
    yield f"SlurmUser={_user()}\nSlurmdUser={_user()}"
    yield f"AuthType=auth/munge\nCredType=cred/munge\nAuthInfo=socket={folder / 'munge.socket'}"
    yield f"StateSaveLocation={folder / 'slurmctld'}\nSlurmdSpoolDir={folder}/%n"
    yield f"SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/%n.pid"
    yield "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nGresTypes=gpu"
    yield "SlurmdParameters=config_overrides\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none"
    yield "MpiDefault=none\nJobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none"
    yield f"TopologyPlugin=topology/{'tree' if lab.switches else 'none'}\nReturnToService=2\nMailProg=/bin/true"
    yield "SchedulerParameters=bf_interval=1\nKillWait=1\nMessageTimeout=5"
    yield from lab.settings
    for node, port in zip(lab.nodes, ports[1:], strict=True):
        gres = f" Gres=gpu:h100:{node.gpus}" if node.gpus else ""
        features = f" Feature={','.join(node.features)}" if node.features else ""
        where = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
        yield f"NodeName={node.name} {where} CPUs=16 RealMemory=1000{gres}{features}"
    yield "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP"


def _gres_line(node: LabNode, folder: Path) -> str:
    return f"NodeName={node.name} Name=gpu Type=h100 File={folder}/nvidia[0-{node.gpus - 1}]"


@contextlib.contextmanager
def _free_ports(count: int) -> Iterator[tuple[int, ...]]:
    """Different ones, as long as this lasts."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        yield tuple(probe.getsockname()[1] for probe in probes)
