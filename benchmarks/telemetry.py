"""Ingest against its baselines and its promises, every part in a process of its own, one after the other.

    python benchmarks/telemetry.py [--only PART ...] [--svg FILE] [--json]

Parts: pull (prometheus-api-client), history (its get_metric_range_data), remote_write, scrape (prometheus_client's
parser), turn. Real Prometheus servers are started where one is measured: Debian's, and 3.x from `make parts`. Each part
says by itself how far it is from what the wire, the decompression or the server allows; see their own --help.
Takes about ten minutes. With --json the last line has the promised figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import turn
from benchmarks.turn import Turn

ROOT = Path(__file__).parents[1]
PARTS = ("pull", "history", "remote_write", "scrape", "turn")


@dataclass(frozen=True, slots=True)
class Promise:
    """Attributes:
    keeps: whether a figure keeps it.
    """

    text: str
    keeps: Callable[[float], bool]


def _at_most(limit: float, text: str) -> Promise:
    return Promise(f"at most {text}", lambda figure: figure <= limit)


def _at_least(limit: float, text: str) -> Promise:
    return Promise(f"at least {text}", lambda figure: figure >= limit)


PROMISES: Mapping[str, Promise] = {
    "pull_cpu_ratio": _at_most(1 / 6, "1/6 of the client's CPU"),
    "pull_wall_over_server": _at_most(1.3, "1.3 of the server alone"),
    "history_speedup": _at_least(8, "8 x"),
    "history_memory_ratio": _at_most(0.25, "1/4"),
    "remote_write_v1_samples_per_s": _at_least(1e6, "1,000,000 a core"),
    "remote_write_v2_samples_per_s": _at_least(1e6, "1,000,000 a core"),
    "remote_write_live_core_share": _at_most(0.1, "0.1 of a core at 20,000 samples/s"),
    "scrape_speedup": _at_least(20, "20 x"),
    "turn_100k_s": _at_most(turn.LIMIT_S, "1 s on one core"),
    "turn_100k_rss_mib": _at_most(turn.LIMIT_MIB, "2 GiB"),
}


def measure(part: str) -> Mapping[str, float]:
    """All the figures of one part. Ends the program, with the part's own words, if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, str(ROOT / "benchmarks" / f"{part}.py"), "--json"]
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{part} failed with exit code {done.returncode}")
    said = json.loads(done.stdout.splitlines()[-1])
    return _of_remote_write(said) if part == "remote_write" else said


def _of_remote_write(said: Mapping[str, list[dict[str, Any]]]) -> Mapping[str, float]:
    """Version by version; of several senders the dearest."""
    figures: dict[str, float] = {}
    for decoded in said["decoded"]:
        name = f"remote_write_v{decoded['version'][0]}"
        figures[f"{name}_samples_per_s"] = decoded["samples_per_s"]
        figures[f"{name}_limit_per_s"] = decoded["limit_per_s"]
        figures[f"{name}_wire_bytes"] = decoded["wire_bytes"]
    if said["live"]:
        figures["remote_write_live_core_share"] = max(live["core_share"] for live in said["live"])
    return figures


def measure_turns(svg: Path | None) -> Mapping[str, float]:
    turns = list(turn.measure())
    if svg is not None:
        svg.write_text(turn.plot(turns), encoding="utf-8")
    largest: Turn = turns[-1]
    sizes = {f"turn_{one.gpus // 1000}k_s": one.turn_s for one in turns}
    return {**sizes, "turn_100k_rss_mib": largest.rss_mib, "turn_100k_slowest_s": largest.slowest_s}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="only these parts")
    parser.add_argument("--svg", type=Path, help="write the plot of turn time and memory here")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    given = parser.parse_args(arguments)
    figures: dict[str, float] = {}
    for part in given.only:
        print(f"{part} ...", file=sys.stderr, flush=True)
        found = measure_turns(given.svg) if part == "turn" else measure(part)
        figures |= found
        for name, figure in found.items():
            print(_line(name, figure), flush=True)
    if given.json:
        print(json.dumps({name: figures[name] for name in PROMISES if name in figures}))


def _line(name: str, figure: float | str) -> str:
    if isinstance(figure, str):
        return f"  {name:38} {figure}"
    promise = PROMISES.get(name)
    verdict = "" if promise is None else f"   {'kept' if promise.keeps(figure) else 'NOT KEPT'}: {promise.text}"
    return f"  {name:38} {figure:>14,.4g}{verdict}"


if __name__ == "__main__":
    main(sys.argv[1:])
