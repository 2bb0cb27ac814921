"""Replays recorded H100 runs through the daemon's own code, on a real Prometheus, and lists every incident.

    python benchmarks/h100_backtest.py --data DIR [--step 5s] [--json]

The recordings (see h100_to_openmetrics.py) are healthy as far as known, so every incident is a false alarm unless a
person agrees with it. Each run is replayed by `healer backtest` with the reference detectors, models and playbooks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from benchmarks.h100_to_openmetrics import Run, read_run, write_openmetrics
from healer.cli.options import reference_folder
from healer.errors import HealerError
from healer.schema import parse_duration
from tests.realparts.prometheus import Programs, RunningPrometheus, find_prometheus


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with the recordings, NAME.csv.gz")
    parser.add_argument("--step", default="5s", help="one turn of the loop (default: 5s)")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    arguments = parser.parse_args()
    programs = find_prometheus()
    if programs is None:
        return _fail("no Prometheus on this machine; to get it: apt-get install prometheus")
    try:
        step = parse_duration(arguments.step)
        runs = [_read(path) for path in sorted(arguments.data.glob("*.csv.gz"))]
    except (HealerError, ValueError) as error:
        return _fail(str(error))
    if not runs:
        return _fail(f"no recordings (*.csv.gz) in {arguments.data}")
    reports = _replayed(programs, runs, step)
    if not arguments.json:
        _print(reports)
    print(json.dumps(_summary(reports)))
    return 0


def _read(path: Path) -> Run:
    _say(f"reading {path.name}")
    return read_run(path, resolution=timedelta(seconds=1))


def _replayed(programs: Programs, runs: Sequence[Run], step: timedelta) -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="healer-h100-") as temporary:
        folder = Path(temporary)
        document, blocks = folder / "runs.om", folder / "blocks"
        with document.open("w", encoding="utf-8") as out:
            _say(f"{write_openmetrics(runs, out)} samples into Prometheus")
        command: list[str | Path] = [programs.promtool, "tsdb", "create-blocks-from", "openmetrics", document, blocks]
        subprocess.run(command, check=True, capture_output=True)
        with RunningPrometheus(programs, blocks=blocks) as prometheus:
            reference = {
                name: {"path": str(reference_folder() / name)} for name in ("detectors", "models", "playbooks")
            }
            config = {"telemetry": {"prometheus": {"url": prometheus.url}}, **reference}
            (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
            return {run.name: _backtest(run, step, folder / "config.yaml") for run in runs}


def _backtest(run: Run, step: timedelta, config: Path) -> dict[str, Any]:
    _say(f"replaying {run.name}")
    start, end = (datetime.fromtimestamp(at / 1000, UTC).isoformat() for at in (run.start_ms, run.end_ms))
    options = ["--start", start, "--end", end, "--step", f"{step.total_seconds():g}s", "--config", str(config)]
    command = [sys.executable, "-m", "healer", "backtest", "--json", *options]
    report: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return report


def _print(reports: dict[str, dict[str, Any]]) -> None:
    print(f"{'run':6}{'turns':>7}{'GPUs':>6}{'samples':>9}{'wall s':>8}  incidents")
    for name, report in reports.items():
        stats = report["stats"]
        print(
            f"{name:6}{stats['ticks']:>7}{stats['gpus']:>6}{stats['samples']:>9}{stats['wall_s']:>8.2f}"
            f"  {len(report['incidents'])}"
        )
        for incident in report["incidents"]:
            where = incident["component"]
            place = f"{where['node']} GPU {where['gpu']}"
            print(f"        {incident['opened_at']} {incident['failure_mode']} {place}: {incident['reasons'][0]}")


def _summary(reports: dict[str, dict[str, Any]]) -> dict[str, float]:
    return {
        "runs": len(reports),
        "turns": sum(report["stats"]["ticks"] for report in reports.values()),
        "samples": sum(report["stats"]["samples"] for report in reports.values()),
        "incidents": sum(len(report["incidents"]) for report in reports.values()),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _fail(reason: str) -> int:
    _say(f"h100_backtest: {reason}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
