"""Turns recorded runs of nodes with eight H100 into one OpenMetrics file that Prometheus can be filled with.

    python benchmarks/h100_to_openmetrics.py --data DIR [--run t2 t3 ...] --out FILE [--resolution 1s]
    promtool tsdb create-blocks-from openmetrics FILE BLOCKS

The metrics have dcgm-exporter's names and labels, so that the daemon cannot tell the result from a fleet's own history.
Values keep the digits of the recording. The recordings come from atharvanihalani/gpu-telemetry-exploration.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import math
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from healer.errors import InvalidDocument, Problem
from healer.schema import parse_duration

NODES = {"t2": "h100-a", "t3": "h100-a", "t6": "h100-a", "b1": "h100-a", "i4": "h100-b"}
_UUIDS = uuid.UUID("5f0c5d0e-7d0b-4a5e-9a53-0d6b8f1f0f5a")

_Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a recording that was kept."""

    at_ms: int
    gpu: str
    row: _Row


@dataclass(frozen=True, slots=True)
class Run:
    """One recording, thinned out. `rows` is how many rows it had."""

    name: str
    node: str
    rows: int
    samples: Sequence[Sample]

    @property
    def start_ms(self) -> int:
        return self.samples[0].at_ms

    @property
    def end_ms(self) -> int:
        return self.samples[-1].at_ms


def _free(row: _Row) -> str:
    total, used = row["mem_total_mib"], row["mem_used_mib"]
    return f"{float(total) - float(used):.0f}" if total and used else ""


def _cell(column: str) -> Callable[[_Row], str]:
    return lambda row: row[column]


FAMILIES: Mapping[str, Callable[[_Row], str]] = {
    "DCGM_FI_DEV_GPU_TEMP": _cell("temp_c"),
    "DCGM_FI_DEV_POWER_USAGE": _cell("power_w"),
    # A counter by nature. OpenMetrics wants counters to end in _total, which no exporter's name does.
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": _cell("energy_mj"),
    "DCGM_FI_DEV_GPU_UTIL": _cell("gpu_util_pct"),
    "DCGM_FI_DEV_MEM_COPY_UTIL": _cell("mem_util_pct"),
    "DCGM_FI_DEV_FB_USED": _cell("mem_used_mib"),
    "DCGM_FI_DEV_FB_FREE": _free,
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": _cell("throttle_reasons"),
    "DCGM_FI_PROF_SM_ACTIVE": _cell("sm_active"),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": _cell("tensor_active"),
    "DCGM_FI_PROF_DRAM_ACTIVE": _cell("dram_active"),
    "DCGM_FI_PROF_PIPE_FP16_ACTIVE": _cell("fp16_active"),
    "DCGM_FI_PROF_PCIE_TX_BYTES": _cell("pcie_tx_bytes_s"),
    "DCGM_FI_PROF_PCIE_RX_BYTES": _cell("pcie_rx_bytes_s"),
    "DCGM_FI_PROF_NVLINK_TX_BYTES": _cell("nvlink_tx_bytes_s"),
    "DCGM_FI_PROF_NVLINK_RX_BYTES": _cell("nvlink_rx_bytes_s"),
}
_NUMBERS = (
    *("timestamp", "power_w", "temp_c", "mem_used_mib", "mem_total_mib", "gpu_util_pct", "mem_util_pct"),
    *("sm_active", "tensor_active", "dram_active", "fp16_active", "pcie_tx_bytes_s", "pcie_rx_bytes_s"),
    *("nvlink_tx_bytes_s", "nvlink_rx_bytes_s", "throttle_reasons", "energy_mj"),
)
_COLUMNS = (*_NUMBERS, "gpu", "gpu_model")


def gpu_uuid(node: str, gpu: str) -> str:
    return f"GPU-{uuid.uuid5(_UUIDS, f'{node}/{gpu}')}"


def labels(node: str, gpu: str, model: str) -> dict[str, str]:
    """A GPU's labels as dcgm-exporter writes them."""
    return {"gpu": gpu, "UUID": gpu_uuid(node, gpu), "device": f"nvidia{gpu}", "modelName": model, "Hostname": node}


def read_run(path: Path, *, resolution: timedelta) -> Run:
    """A recording with at most one sample per GPU and `resolution`: the first of each. Raises InvalidDocument."""
    name = path.name.removesuffix(".gz").removesuffix(".csv")
    step_ms = round(resolution.total_seconds() * 1000)
    samples: list[Sample] = []
    last: dict[str, int] = {}
    rows = 0
    for at_ms, row in _checked_rows(path):
        rows += 1
        tick = at_ms // step_ms
        before = last.get(row["gpu"])
        if before is not None and tick <= before:
            continue
        last[row["gpu"]] = tick
        samples.append(Sample(at_ms, row["gpu"], row))
    if not samples:
        raise InvalidDocument(Problem(str(path), 1, "", "has no rows"))
    return Run(name, NODES.get(name, f"h100-{name}"), rows, samples)


def write_openmetrics(runs: Iterable[Run], out: TextIO) -> int:
    """All runs as one OpenMetrics document; returns how many samples it has."""
    ordered = sorted(runs, key=lambda run: run.start_ms)
    written = 0
    for metric, value in FAMILIES.items():
        out.write(f"# TYPE {metric} gauge\n")
        for run in ordered:
            # All samples of one series in a row, oldest first.
            for sample in sorted(run.samples, key=lambda sample: sample.gpu):
                text = value(sample.row)
                if text:  # the recorder leaves a cell empty when it got no value
                    out.write(f"{metric}{{{_block(run.node, sample)}}} {text} {sample.at_ms / 1000:.3f}\n")
                    written += 1
    out.write("# EOF\n")
    return written


def _block(node: str, sample: Sample) -> str:
    pairs = labels(node, sample.gpu, sample.row["gpu_model"]).items()
    return ",".join(f'{name}="{value}"' for name, value in pairs)


def _checked_rows(path: Path) -> Iterator[tuple[int, _Row]]:
    """Every row with its time. Raises InvalidDocument naming the line and the column."""
    try:
        with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as binary:
            reader = csv.DictReader(io.TextIOWrapper(binary, encoding="utf-8", newline=""))
            missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise InvalidDocument(Problem(str(path), 1, "", f"lacks the columns {', '.join(missing)}"))
            for row in reader:
                _check(path, reader.line_num, row)
                yield round(float(row["timestamp"]) * 1000), row
    except OSError as error:
        raise InvalidDocument(Problem(str(path), 0, "", f"cannot be read: {error.strerror or error}")) from error
    except (UnicodeDecodeError, EOFError, csv.Error) as error:
        raise InvalidDocument(Problem(str(path), 0, "", f"is not a whole CSV file: {error}")) from error


def _check(path: Path, line: int, row: Mapping[str, str | None]) -> None:
    """Only a measurement may be empty. Raises InvalidDocument."""
    for column in _NUMBERS:
        text = row[column]
        try:
            sound = (text == "" and column != "timestamp") or math.isfinite(float(text or "nan"))
        except ValueError:
            sound = False
        if not sound:
            raise InvalidDocument(Problem(str(path), line, column, f"{text!r} is not a number"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with the recordings, NAME.csv.gz")
    parser.add_argument("--run", nargs="+", metavar="NAME", help="which recordings; all if left out")
    parser.add_argument("--out", type=Path, required=True, help="the OpenMetrics file to write")
    parser.add_argument("--resolution", default="1s", help="keep one sample per GPU and this time (default: 1s)")
    return parser.parse_args()


def main() -> int:
    """Exit code 0 done, 2 when an argument or a recording cannot be used."""
    arguments = _arguments()
    try:
        resolution = parse_duration(arguments.resolution)
        names = arguments.run or sorted(path.name.removesuffix(".csv.gz") for path in arguments.data.glob("*.csv.gz"))
        if not names or resolution < timedelta(milliseconds=1):
            print(f"no recordings in {arguments.data}, or a resolution below 1ms", file=sys.stderr)
            return 2
        runs = []
        for name in names:
            runs.append(read_run(arguments.data / f"{name}.csv.gz", resolution=resolution))
            print(f"{name} ({runs[-1].node}): {runs[-1].rows} rows, {len(runs[-1].samples)} kept", file=sys.stderr)
    except (InvalidDocument, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    with arguments.out.open("w", encoding="utf-8") as out:
        written = write_openmetrics(runs, out)
    print(f"{arguments.out}: {written} samples of {len(FAMILIES)} metrics", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
