"""Pages of exporters give the signals that they hold, and what is written from the catalogue is in step with it."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from healer.domain.frame import Frame
from healer.domain.signal import Signal
from healer.telemetry.catalogue.amd import AMD_PREFIX
from healer.telemetry.catalogue.signals import COUNTERS, SPELLINGS
from healer.telemetry.catalogue.table import counters_file, signals_page
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from healer.telemetry.wire.series import LabelSets
from tests.readings import reading_of

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "tests" / "content" / "pages"
COUNTERS_FILE = ROOT / "deploy" / "dcgm-exporter" / "counters.csv"
AT = datetime(2026, 3, 1, tzinfo=UTC)
MIB = 1024.0 * 1024.0

H100 = "GPU-11111111-2222-3333-4444-555555555555"
T4_IDLE, T4_STATES, A10G = (
    "GPU-20c56d28-0da5-6d26-a36a-e7af1ce2586e",
    "GPU-9ef1b6d0-3643-5dd7-b823-c0ec20dcf2d5",
    "GPU-abc",
)
BUSY = "GPU-6bf47ca9-ad3e-15db-beed-1079a7d74116"
BLANK = "GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52"
A30 = "GPU-265c9814-6156-355b-e589-ff2064894f16"
T400 = "GPU-b9f9e81b-bee7-34bc-af17-132ef6592740"
MI210 = "6699c0a8-4200-4242-037f-f97e6cae0f09"
KNOWN: dict[str, dict[str, dict[Signal, float]]] = {  # page -> GPU -> signal -> value
    "dcgm_2x_busy_emptypod": {
        BUSY: {
            Signal.SM_CLOCK: 1.53e9,
            Signal.MEMORY_CLOCK: 877e6,
            Signal.MEMORY_TEMPERATURE: 54,
            Signal.GPU_TEMPERATURE: 55,
            Signal.POWER: 302.206,
            Signal.ENERGY: 4335301.032,
            Signal.PCIE_REPLAY: 0,
            Signal.UTILIZATION: 0.44,
        }
    },
    "dcgm_2x_sentinel": {BLANK: {Signal.SM_CLOCK: 139e6, Signal.MEMORY_CLOCK: 405e6}},
    "dcgm_grace_cpu": {},
    "dcgm_k8s_pod_labels": {
        "GPU-916b8073-39e4-200a-f89a-45fa79439232": {
            Signal.SM_CLOCK: 585e6,
            Signal.MEMORY_CLOCK: 5e9,
            Signal.GPU_TEMPERATURE: 54,
            Signal.POWER: 30.099,
        }
    },
    "dcgm_mig_a30": {
        f"{A30}:3": {Signal.MEMORY_CLOCK: 1.215e9, Signal.GPU_TEMPERATURE: 35},
        f"{A30}:4": {Signal.MEMORY_CLOCK: 1.215e9, Signal.GPU_TEMPERATURE: 35},
    },
    "dcgm_t4_idle": {
        T4_IDLE: {
            Signal.SM_CLOCK: 3e8,
            Signal.GPU_TEMPERATURE: 25,
            Signal.POWER: 8.969,
            Signal.UTILIZATION: 0,
            Signal.MEMORY_UTILIZATION: 0,
            Signal.MEMORY_FREE: 15109 * MIB,
            Signal.MEMORY_USED: 0,
            Signal.NVLINK_THROUGHPUT: 0,
            Signal.XID: 0,
        },
        T4_STATES: {Signal.SLOWDOWN_TEMPERATURE: 93, Signal.POWER_LIMIT: 70, Signal.CLOCK_REASONS: 1},
        A10G: {Signal.DRAM_ACTIVE: 0.000003},
    },
    "dcgm_xid": {T400: {Signal.XID_RECENT: 1}},
    "dcgm_4_9_links": {
        H100: {
            Signal.SM_CLOCK: 1.98e9,
            Signal.UTILIZATION: 0.97,
            Signal.ENERGY: 4335301032,
            Signal.MEMORY_USED: 2147483648,
            Signal.NVLINK_REPLAY: 7,
            Signal.NVLINK_STATE: 0,
            Signal.XID_RECENT: 3,
            Signal.GPU_HEALTH: 10,
        }
    },
    "amd_metrics_mini": {MI210: {Signal.POWER: 41, Signal.UTILIZATION: 0}},
    "amd_mixed": {
        "xxxx/0": {
            Signal.NVLINK_RECEIVED: 19870922180 * 1024.0,
            Signal.NVLINK_SENT: 25412710192 * 1024.0,
            Signal.SM_CLOCK: 132e6,
        },
        "cb76105c40d0/0": {Signal.MEMORY_FREE: 24534 * MIB},
    },
}
UNKNOWN = {
    "dcgm_2x_sentinel": [(BLANK, Signal.MEMORY_TEMPERATURE)],
    "amd_mixed": [
        ("17ff74b5-0000-1000-805c-37b0fbe69430", Signal.GPU_TEMPERATURE),  # a guest sees 0
        ("cb76105c40d0/0", Signal.ENERGY),  # a Radeon has no such counter, and says 0
        ("xxxx/5", Signal.SM_CLOCK),  # clocks of other parts of the chip
    ],
}


def _frame(page: str) -> Frame:
    rules = TopologyRules()
    columns: dict[str, list[tuple[dict[str, str], float, float]]] = {}
    for line in (PAGES / f"{page}.prom").read_text(encoding="utf-8").splitlines():
        if sample := re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line):
            metric, labels, value = sample.groups()
            series = (dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value), AT.timestamp())
            columns.setdefault(metric, []).append(series)
    return Window(rules).add(reading_of(AT, columns, label_sets=LabelSets(rules.labels)))


def test_there_is_a_table_for_every_page() -> None:
    assert {path.stem for path in PAGES.glob("*.prom")} == set(KNOWN)


@pytest.mark.parametrize("page", KNOWN)
def test_a_page_gives_its_signals(page: str) -> None:
    frame = _frame(page)
    for gpu, signals in KNOWN[page].items():
        row = frame.gpus.rows[f"gpu/{gpu}"]
        said = {signal: float(frame.latest(signal)[row]) for signal in signals}
        assert said == pytest.approx(signals, rel=1e-12), gpu


@pytest.mark.parametrize("page", UNKNOWN)
def test_what_a_page_does_not_know_is_unknown(page: str) -> None:
    frame = _frame(page)
    for gpu, signal in UNKNOWN[page]:
        assert np.isnan(frame.latest(signal)[frame.gpus.rows[f"gpu/{gpu}"]]), (gpu, signal)


def test_a_link_of_a_switch_is_no_gpu_and_nothing_to_complain_of() -> None:
    frame = _frame("dcgm_4_9_links")
    assert list(frame.gpus.rows) == [f"gpu/{H100}"]
    assert frame.warnings == ()


def test_the_page_of_signals_is_the_catalogue() -> None:
    written = (ROOT / "docs" / "signals.md").read_text(encoding="utf-8")
    assert written == signals_page(), "docs/signals.md is not what the catalogue says: make docs"


def test_the_page_of_signals_has_every_signal_and_every_spelling() -> None:
    names = set(re.findall(r"`(\w+)`", signals_page()))
    assert set(Signal) <= names
    assert {metric.removeprefix(AMD_PREFIX) for metric in SPELLINGS} <= names


def test_the_counters_file_is_the_catalogue() -> None:
    written = COUNTERS_FILE.read_text(encoding="utf-8")
    assert written == counters_file(), "deploy/dcgm-exporter/counters.csv is not what the catalogue says: make docs"


def test_dcgm_exporter_can_read_the_counters_file() -> None:
    text = counters_file()
    assert text.isascii()
    assert '"' not in text
    rows = [row for row in csv.reader(text.splitlines()) if row and not row[0].startswith("#")]
    assert all(len(row) == 3 for row in rows)
    assert len({row[0] for row in rows}) == len(rows) > 60
    for metric, kind, help_text in rows:
        assert kind.strip() == ("counter" if SPELLINGS[metric].signal in COUNTERS else "gauge")
        assert help_text.strip()
