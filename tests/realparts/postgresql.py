"""A PostgreSQL of the test's own: a cluster in a folder, thrown away at the end."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import sqlalchemy as sa

_USER = "healer"
_SYSTEM_USER = "postgres"  # initdb refuses to work for root
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def find_postgresql() -> Path | None:
    """The newest release's programs; Debian keeps them off the path."""
    found = [Path(path).parent for path in (shutil.which("initdb"),) if path is not None]
    found += sorted(
        (path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").is_file()),
        key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0),
    )
    return found[-1] if found else None


class RunningPostgresql:
    """Args:
    durable: as in production; the tests' own does not wait for the disk.
    """

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="healer-postgresql-"))
        self._data = self._folder / "data"
        self._numbers = itertools.count(1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        if os.geteuid() == 0:
            shutil.chown(self._folder, _SYSTEM_USER)
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", _USER, "-E", "UTF8", "--no-sync")
        settings = {"port": self._port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self._folder}
        settings |= {} if durable else _FAST
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._run("pg_ctl", "-D", self._data, "-l", self._folder / "log", "-w", "-o", options, "start")

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"journal_{next(self._numbers)}"
        engine = sa.create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url(name)

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://{_USER}@127.0.0.1:{self._port}/{database}"

    def _run(self, program: str, *arguments: object) -> None:
        command: Sequence[str] = (str(self._programs / program), *map(str, arguments))
        if os.geteuid() == 0:
            command = ("runuser", "-u", _SYSTEM_USER, "--", *command)
        # The server inherits what it is given: pipes would never end.
        with (self._folder / f"{program}.out").open("w") as out:
            done = subprocess.run(command, stdout=out, stderr=out, cwd="/", check=False, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{program}: {(self._folder / f'{program}.out').read_text()[-500:]}")
