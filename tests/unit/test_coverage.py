"""What detectors read and nobody exports: found, said with what to do, and said once."""

from __future__ import annotations

import numpy as np
import pytest

from healer.domain.signal import Signal
from healer.telemetry.catalogue.signals import SPELLINGS, Vendor
from healer.telemetry.coverage import change, gaps, told

READS = {"ecc": (Signal.ECC_DBE_VOLATILE, Signal.XID), "remap": (Signal.ROW_REMAP_PENDING,)}
THREE = [Vendor.NVIDIA] * 3


def _offered(**signals: list[bool]) -> dict[Signal, np.ndarray]:
    return {Signal[name]: np.array(values, dtype=np.bool_) for name, values in signals.items()}


def test_a_signal_that_every_gpu_has_is_no_gap() -> None:
    full = [True] * 3
    assert gaps(READS, _offered(ECC_DBE_VOLATILE=full, XID=full, ROW_REMAP_PENDING=full), THREE) == ()


def test_a_signal_that_nobody_offers_is_a_gap_with_every_name_that_would_bring_it() -> None:
    full = [True] * 3
    (gap,) = gaps(READS, _offered(ECC_DBE_VOLATILE=full, XID=full), THREE)
    assert (gap.reader, gap.signal, gap.vendor, gap.lacking, gap.of) == (
        "remap",
        Signal.ROW_REMAP_PENDING,
        Vendor.NVIDIA,
        3,
        3,
    )
    assert gap.metrics == ("DCGM_FI_DEV_ROW_REMAP_PENDING",)


def test_gpus_that_lack_a_signal_are_counted_among_their_vendors() -> None:
    vendors = [Vendor.NVIDIA, Vendor.NVIDIA, Vendor.AMD, Vendor.AMD, Vendor.AMD, None]
    offered = _offered(ECC_DBE_VOLATILE=[True, False, True, False, False, False])
    found = gaps({"ecc": (Signal.ECC_DBE_VOLATILE,)}, offered, vendors)
    assert [(gap.vendor, gap.lacking, gap.of) for gap in found] == [
        (Vendor.NVIDIA, 1, 2),
        (Vendor.AMD, 2, 3),
        (None, 1, 1),
    ]
    assert set(found[0].metrics) == {"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "dcgm_ecc_dbe_volatile_total"}
    assert set(found[1].metrics) == {"gpu_ecc_uncorrect_total", "amd_gpu_ecc_uncorrect_total"}
    assert set(found[2].metrics) == {*found[0].metrics, *found[1].metrics}


def test_every_reader_of_a_signal_has_a_gap_of_its_own() -> None:
    found = gaps({"ecc": (Signal.XID,), "bus": (Signal.XID,)}, {}, THREE)
    assert [gap.reader for gap in found] == ["ecc", "bus"]


def test_a_fleet_without_gpus_has_no_gaps() -> None:
    assert gaps(READS, {}, []) == ()


def test_a_gap_is_new_once_and_mended_once() -> None:
    all_of_it, none = gaps(READS, {}, THREE), ()
    some = gaps(READS, _offered(ECC_DBE_VOLATILE=[True] * 3, XID=[True, False, False]), THREE)
    assert change(none, all_of_it).new == all_of_it
    assert not change(all_of_it, all_of_it)
    mended = change(all_of_it, some)
    assert mended.new == ()
    assert [gap.signal for gap in mended.mended] == [Signal.ECC_DBE_VOLATILE]


def test_a_gap_that_has_only_grown_or_shrunk_is_neither_new_nor_mended() -> None:
    one = gaps(READS, _offered(XID=[True, True, False]), THREE)
    two = gaps(READS, _offered(XID=[True, False, False, False]), [*THREE, Vendor.NVIDIA])
    assert not change(one, two)
    assert not change(two, one)


def test_a_gap_says_who_does_not_see_what_and_what_to_do() -> None:
    found = gaps({"ecc": (Signal.XID,), "bus": (Signal.XID,)}, {}, THREE)
    (text,) = told(found)
    assert text == (
        "no exporter offers gpu_last_xid for any of the 3 NVIDIA GPUs: ecc, bus cannot see it; "
        "add DCGM_FI_DEV_XID_ERRORS to the counters file of dcgm-exporter"
    )


def test_a_gap_of_some_gpus_says_how_many() -> None:
    found = gaps({"ecc": (Signal.XID,)}, _offered(XID=[True, False, False]), THREE)
    assert told(found)[0].startswith("no exporter offers gpu_last_xid for 2 of 3 NVIDIA GPUs: ecc cannot see it")


def test_what_amds_exporter_is_to_be_told_is_the_name_of_a_field_of_its_configuration() -> None:
    found = gaps({"heat": (Signal.GPU_TEMPERATURE,)}, {}, [Vendor.AMD])
    assert told(found)[0].endswith(
        "add GPU_JUNCTION_TEMPERATURE or GPU_EDGE_TEMPERATURE to the configuration of AMD's exporter"
    )


def test_what_no_exporter_of_a_vendor_can_bring_is_said_without_advice() -> None:
    (text,) = told(gaps({"remap": (Signal.ROW_REMAP_PENDING,)}, {}, [Vendor.AMD]))
    assert text.endswith("remap cannot see it; no exporter of theirs can")


def test_gpus_of_an_unknown_vendor_get_no_advice() -> None:
    (text,) = told(gaps({"remap": (Signal.ROW_REMAP_PENDING,)}, {}, [None]))
    assert text == "no exporter offers gpu_row_remap_pending for any of the 1 GPUs: remap cannot see it"


@pytest.mark.parametrize("vendor", Vendor)
def test_there_is_advice_for_every_signal_that_a_vendor_can_bring(vendor: Vendor) -> None:
    theirs = {spelling.signal for spelling in SPELLINGS.values() if spelling.vendor is vendor}
    for text in told(gaps({"all": tuple(theirs)}, {}, [vendor])):
        assert "; add  to" not in text
        assert "; add " in text
