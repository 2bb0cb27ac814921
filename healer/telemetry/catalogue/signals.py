"""The catalogue: what each signal is, and which exported metric is which signal, for every spelling in use.

Whether a signal is a counter is decided here, by what the field counts, never by the exported TYPE: AMD types
everything gauge, dcgm-exporter types windowed counts counter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from healer.domain.signal import Signal
from healer.telemetry.catalogue.amd import AMD
from healer.telemetry.catalogue.links import NVLINK, PCIE
from healer.telemetry.catalogue.nvidia import DEVICE
from healer.telemetry.catalogue.spelling import Spelling, Vendor, convert

__all__ = ["COUNTERS", "LIMITS", "MEANINGS", "SPELLINGS", "Kind", "Meaning", "Spelling", "Vendor", "convert", "spelled"]


class Kind(StrEnum):
    GAUGE = "gauge"  # moves both ways
    STATE = "state"  # one of a few numbers, or a bit mask: comparing sizes means little
    COUNTER = "counter"  # falls only when something was reset


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one signal is.

    Attributes:
        unit: "" for counts, codes and states.
        step: the smallest difference that the coarsest of its exporters can show, in `unit`; None for fractions.
        by_instance: MIG instances have values of their own; else each shows that of the whole GPU.
    """

    text: str
    kind: Kind = Kind.GAUGE
    unit: str = ""
    step: float | None = 1.0
    by_instance: bool = False


def _celsius(text: str) -> Meaning:
    return Meaning(text, unit="°C")


def _watts(text: str, *, step: float = 1.0) -> Meaning:
    return Meaning(text, unit="W", step=step)


def _hertz(text: str) -> Meaning:
    return Meaning(text, unit="Hz", step=1e6)


def _percent(text: str) -> Meaning:
    return Meaning(text, unit="ratio", step=0.01)


def _share(text: str) -> Meaning:
    return Meaning(text, unit="ratio", step=None, by_instance=True)


def _memory(text: str) -> Meaning:
    return Meaning(text, unit="B", step=1024.0 * 1024.0, by_instance=True)


def _rate(text: str) -> Meaning:
    return Meaning(text, unit="B/s")


def _time(text: str) -> Meaning:
    return Meaning(text, Kind.COUNTER, "s", 1e-9)


def _count(text: str) -> Meaning:
    return Meaning(text, Kind.COUNTER)


def _bytes(text: str) -> Meaning:
    return Meaning(text, Kind.COUNTER, "B", 1024.0)


def _state(text: str) -> Meaning:
    return Meaning(text, Kind.STATE)


MEANINGS: Mapping[Signal, Meaning] = {
    Signal.GPU_TEMPERATURE: _celsius("temperature of the chip, at its hottest point where that is measured"),
    Signal.MEMORY_TEMPERATURE: _celsius("temperature of the memory"),
    Signal.TEMPERATURE_MARGIN: _celsius("distance to the nearest temperature at which the GPU slows down"),
    Signal.SLOWDOWN_TEMPERATURE: _celsius("limit: here the GPU slows itself down"),
    Signal.SHUTDOWN_TEMPERATURE: _celsius("limit: here the GPU shuts itself down"),
    Signal.HIGHEST_OPERATING_TEMPERATURE: _celsius("limit: the highest temperature at which the chip should work"),
    Signal.HIGHEST_OPERATING_MEMORY_TEMPERATURE: _celsius("limit: above this the memory makes the GPU slow down"),
    Signal.FAN_SPEED: _percent("speed of the GPU's own fan, as a share of the quiet maximum; can exceed 1"),
    Signal.POWER: _watts("power drawn by the board"),
    Signal.POWER_LIMIT: _watts("power limit that was asked for"),
    Signal.POWER_LIMIT_ENFORCED: _watts("power limit that the driver enforces, the lowest of all that apply"),
    Signal.ENERGY: Meaning("energy used since the driver was loaded", Kind.COUNTER, "J", 1.0),
    Signal.SM_CLOCK: _hertz("clock of the compute units"),
    Signal.SM_CLOCK_MAX: _hertz("the highest clock of the compute units that the GPU supports"),
    Signal.MEMORY_CLOCK: _hertz("clock of the memory"),
    Signal.CLOCK_REASONS: _state(
        "bit mask of what holds the clocks down: 0x4 software power cap, 0x8 hardware slowdown, 0x20 software thermal, "
        "0x40 hardware thermal, 0x80 power brake"
    ),
    Signal.POWER_VIOLATION: _time("time held back by the power limit"),
    Signal.THERMAL_VIOLATION: _time("time held back by temperature"),
    Signal.SYNC_BOOST_VIOLATION: _time("time held back by the slowest GPU of a sync-boost group"),
    Signal.BOARD_LIMIT_VIOLATION: _time("time held back by the board's own limits of power and current"),
    Signal.RELIABILITY_VIOLATION: _time("time held back for the sake of voltage reliability"),
    Signal.THERMAL_SLOWDOWN: _time("time in which the hardware halved the clocks for heat"),
    Signal.POWER_BRAKE: _time("time in which the hardware halved the clocks because the system pulled the power brake"),
    Signal.POWER_THROTTLE: _percent("share of the time held back by the package's power limit"),
    Signal.THERMAL_THROTTLE: _percent("share of the time held back by the socket's temperature"),
    Signal.MEMORY_THERMAL_THROTTLE: _percent("share of the time held back by the memory's temperature"),
    Signal.PROCESSOR_HOT: _percent("share of the time held back by the system's own signal that it is too hot"),
    Signal.UTILIZATION: _percent("share of the time in which any kernel ran"),
    Signal.MEMORY_UTILIZATION: _percent("share of the time in which the memory was read or written"),
    Signal.MEMORY_USED: _memory("memory in use"),
    Signal.MEMORY_FREE: _memory("memory that is free"),
    Signal.GRAPHICS_ACTIVE: _share("share of cycles in which the compute or graphics engine was active"),
    Signal.SM_ACTIVE: _share("share of cycles with work on a compute unit, over all of them"),
    Signal.TENSOR_ACTIVE: _share("share of cycles in which the tensor pipes were active"),
    Signal.DRAM_ACTIVE: _share("share of cycles in which the memory interface moved data"),
    Signal.XID: _state("the last XID; never clears by itself"),
    Signal.XID_RECENT: Meaning("XIDs within the exporter's window, 5 minutes unless it was changed; falls again"),
    Signal.XID_ERRORS: _count("XIDs since the exporter was started; not there before the first"),
    Signal.AFID: _state("the first AMD field identifier of the last error record"),
    Signal.RECOVERY_ACTION: _state(
        "the driver's own verdict: 0 none, 1 reset, 2 reboot of the node, 3 drain peer to peer, 4 drain and reset, "
        "5 recover IMEX, 6 bus reset, 7 reboot of the system"
    ),
    Signal.GPU_HEALTH: _state("the vendor's health check, the worst of its parts: 0 passed, 10 warning, 20 failed"),
    Signal.ECC_SBE_VOLATILE: _count("memory errors that were corrected, since the driver was loaded"),
    Signal.ECC_DBE_VOLATILE: _count("memory errors that could not be corrected, since the driver was loaded"),
    Signal.ECC_SBE_AGGREGATE: _count("memory errors that were corrected, over the GPU's life"),
    Signal.ECC_DBE_AGGREGATE: _count("memory errors that could not be corrected, over the GPU's life"),
    Signal.ECC_DEFERRED: _count("memory errors that were found and poisoned, and will be one when they are read"),
    Signal.SRAM_THRESHOLD_EXCEEDED: _state("1: more uncorrectable SRAM errors than NVIDIA tolerates"),
    Signal.MEMORY_UNREPAIRABLE: _state("1: the memory cannot be repaired any more"),
    Signal.ROW_REMAP_FAILED: _state("1: a memory row could not be remapped"),
    Signal.ROW_REMAP_PENDING: _state("1: a memory row will be remapped at the next reset"),
    Signal.ROW_REMAP_UNCORRECTABLE: _count("memory rows remapped for errors that could not be corrected"),
    Signal.ROW_REMAP_CORRECTABLE: _count("memory rows remapped for errors that could"),
    Signal.ROW_REMAP_EXHAUSTED_BANKS: Meaning("memory banks without a spare row"),
    Signal.PAGES_RETIRED_DBE: _count("memory pages retired for errors that could not be corrected, before Ampere"),
    Signal.PAGES_PENDING: _state("1: memory pages will be retired at the next reset, before Ampere"),
    Signal.PCIE_TX: _rate("sent over PCIe, headers included"),
    Signal.PCIE_RX: _rate("received over PCIe, headers included"),
    Signal.PCIE_REPLAY: _count("PCIe packets that had to be sent again"),
    Signal.PCIE_CORRECTABLE: _count("PCIe errors that were corrected"),
    Signal.PCIE_GENERATION: _state("PCIe generation of the link; falls while the GPU idles"),
    Signal.PCIE_GENERATION_MAX: _state("the highest PCIe generation that GPU and slot allow"),
    Signal.PCIE_WIDTH: Meaning("lanes of the PCIe link", Kind.STATE, "lanes"),
    Signal.PCIE_WIDTH_MAX: Meaning("the most lanes that GPU and slot allow", Kind.STATE, "lanes"),
    Signal.PCIE_SPEED: Meaning("speed of a PCIe lane", unit="T/s", step=5e8),
    Signal.PCIE_SPEED_MAX: Meaning("the highest speed of a PCIe lane that GPU and slot allow", unit="T/s", step=5e8),
    Signal.NVLINK_TX: _rate("sent over all NVLinks"),
    Signal.NVLINK_RX: _rate("received over all NVLinks"),
    Signal.NVLINK_THROUGHPUT: Meaning("sent and received over all NVLinks", unit="B/s", step=1024.0 * 1000.0),
    Signal.NVLINK_SENT: _bytes("sent over all NVLinks or xGMI links"),
    Signal.NVLINK_RECEIVED: _bytes("received over all NVLinks or xGMI links"),
    Signal.NVLINK_STATE: _state("the lowest state of the GPU's NVLinks: 0 down, 1 active, 2 asleep"),
    Signal.NVLINK_CRC_FLIT: _count("NVLink checksum errors of flow control"),
    Signal.NVLINK_CRC_DATA: _count("NVLink checksum errors of data"),
    Signal.NVLINK_CRC: _count("NVLink checksum errors of the data link, since Hopper"),
    Signal.NVLINK_REPLAY: _count("NVLink packets that had to be sent again"),
    Signal.NVLINK_RECOVERY: _count("NVLink recoveries"),
    Signal.NVLINK_RECOVERY_FAILED: _count("NVLink recoveries that failed, since Blackwell"),
    Signal.NVLINK_RX_ERRORS: _count("NVLink packets received with an error, since Blackwell"),
    Signal.NVLINK_ECC: _count("ECC errors of the NVLinks or xGMI links"),
    Signal.NVLINK_BIT_ERROR_RATE: Meaning("bit error rate of the NVLinks, since Blackwell", unit="ratio", step=None),
    Signal.FABRIC_STATUS: _state(
        "registration with the NVLink fabric: 0 none, 1 not started, 2 going on, 3 done, 4 failed"
    ),
    Signal.FABRIC_HEALTH: _state("health of the NVLink fabric: 0 none, 1 healthy, 2 unhealthy, 3 limited capacity"),
}

# In the order of precedence: where an exporter offers two spellings of one signal, the earlier one wins.
SPELLINGS: Mapping[str, Spelling] = {spelling.metric: spelling for spelling in (*DEVICE, *PCIE, *NVLINK, *AMD)}

LIMITS = frozenset(  # gauges that nobody sets but now and then
    {
        *(Signal.SLOWDOWN_TEMPERATURE, Signal.SHUTDOWN_TEMPERATURE),
        *(Signal.HIGHEST_OPERATING_TEMPERATURE, Signal.HIGHEST_OPERATING_MEMORY_TEMPERATURE),
        *(Signal.POWER_LIMIT, Signal.POWER_LIMIT_ENFORCED, Signal.SM_CLOCK_MAX, Signal.PCIE_SPEED_MAX),
    }
)
# Counters that never stand still, for all that GPUs do: of these every value is kept.
_MOVING = frozenset({Signal.ENERGY, Signal.NVLINK_SENT, Signal.NVLINK_RECEIVED, Signal.POWER_VIOLATION})


def is_step(signal: Signal) -> bool:
    """Whether it hardly ever changes, so that its changes say everything: counters of errors, states and limits."""
    return signal in LIMITS or (MEANINGS[signal].kind is not Kind.GAUGE and signal not in _MOVING)


COUNTERS = frozenset(signal for signal, meaning in MEANINGS.items() if meaning.kind is Kind.COUNTER)


def spelled(signal: Signal, vendor: Vendor | None = None) -> tuple[Spelling, ...]:
    """Every spelling of the signal, of one vendor's or of all exporters."""
    return tuple(s for s in SPELLINGS.values() if s.signal is signal and vendor in (None, s.vendor))
