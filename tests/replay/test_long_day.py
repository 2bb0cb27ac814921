"""A day of the daemon's loops in a minute: what the process holds does not grow beyond its window.

Pods and jobs change all day, so that every GPU gets new label sets again and again, an exporter is replaced, a GPU is
swapped, faults come and go. It runs in a process of its own, whose memory is nobody else's.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from healer.domain.reading import Labels
from healer.rehearsal.virtual import FleetTelemetry
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import SimulatedFleet
from tests.virtual_site import Site

TURN = timedelta(seconds=30)
TURNS_PER_HOUR = timedelta(hours=1) // TURN
GROWN_MIB = 4.0
GROWN_BLOCKS = 0.02


class ChurningTelemetry(FleetTelemetry):
    """The pod of each GPU is another one every five minutes, the exporter of a node every hour."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        super().__init__(fleet)
        self.turn = 0

    def _shown(self) -> Iterator[tuple[Labels, str]]:
        hour, pod = self.turn // TURNS_PER_HOUR, self.turn // 10
        for labels, page in super()._shown():
            other = {"instance": f"10.0.{hour}.1:9400/{labels['node']}"} if "node" in labels else {}
            yield {**labels, **other}, page.replace('gpu="', f'pod="worker-{pod}",namespace="team-{pod % 7}",gpu="')


class NothingKept(list[str]):
    """In place of a list of the test harness that would grow all day."""

    def append(self, _item: str) -> None:
        pass


def a_day() -> Iterator[tuple[int, int]]:
    """Hour by hour: the allocated blocks, and the resident KiB."""
    with TemporaryDirectory() as folder, Site(Path(folder), nodes=2, gpus=2) as site:
        site.fuse.points = NothingKept()
        telemetry = ChurningTelemetry(site.fleet)
        site.telemetry = telemetry
        site.restart()
        for hour in range(24):
            at, node = site.fleet.elapsed_s, f"gpu-00{hour % 2 + 1}"
            surge = Fault(FaultKind.LOAD_SURGE, at + 600, rack="rack-1", duration_s=300)
            silence = Fault(FaultKind.EXPORTER_DOWN, at + 1800, node=node, duration_s=120)
            site.fleet.schedule((surge, silence))
            for _ in range(TURNS_PER_HOUR):
                telemetry.turn += 1
                site.tick(TURN.total_seconds())
            gc.collect()
            resident_kib = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4
            yield sys.getallocatedblocks(), resident_kib


@pytest.mark.timeout(300)
def test_a_day_of_churn_leaves_no_more_behind_than_its_second_hour() -> None:
    argv = [sys.executable, "-m", "tests.replay.test_long_day"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    hours = [json.loads(line) for line in done.stdout.splitlines()]
    blocks, resident_kib = [hour[0] for hour in hours], [hour[1] for hour in hours]
    assert len(hours) == 24
    assert max(blocks[12:]) <= max(blocks[2:8]) * (1 + GROWN_BLOCKS), hours
    assert (max(resident_kib[12:]) - max(resident_kib[2:8])) / 1024 < GROWN_MIB, hours


if __name__ == "__main__":
    for figures in a_day():
        sys.stdout.write(json.dumps(figures) + "\n")
