"""A line that a node's driver writes, in a file on a log host: what the next look makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from healer.config import load_config
from healer.domain.finding import FailureMode, Finding, Health
from healer.domain.frame import Frame
from healer.runtime.knowledge import Outside
from healer.runtime.observer import Observer
from healer.runtime.outside import build_kernel_log
from healer.runtime.wiring import build_observer, load_content
from healer.telemetry.wire.series import LabelSets
from tests.kernel_lines import AT, NONE, RESET, loss, recovery, stamped, xid
from tests.readings import Series, reading_of

ROOT = Path(__file__).parents[2]
BUSES = ("17", "2A", "3D", "B3")
LINK_DOWN = "NETIR_LINK_EVT Fatal XC0 i0 Link 09 (0x004525c6 0x0 0x0 0x0 0x0 0x0)"
HARMLESS = "NETIR_BER_EVENT Nonfatal XC0 i0 Link 03 (0x00086226 0x1 0x0 0x0 0x0 0x0)"


class Site:
    """Two nodes of four GPUs, and their kernel logs."""

    def __init__(self, observer: Observer, folder: Path) -> None:
        self._observer = observer
        self._folder = folder
        self._sets = LabelSets()
        self._turn = -1

    @property
    def now(self) -> datetime:
        return AT + self._turn * timedelta(seconds=30)

    def look(self, gauge: float = 0.0) -> tuple[Frame, list[Finding]]:
        """`gauge`: the last XID of GPU 3 of n2."""
        self._turn += 1
        gpus = [
            {
                "UUID": f"GPU-{node}-{gpu}",
                "gpu": str(gpu),
                "Hostname": node,
                "instance": f"{node}:9400",
                "pci_bus_id": f"00000000:{bus}:00.0",
            }
            for node in ("n1", "n2")
            for gpu, bus in enumerate(BUSES)
        ]
        time_s = self.now.timestamp()
        temperatures: list[Series] = [(gpu, 50.0 + self._turn % 2, time_s) for gpu in gpus]
        xids: list[Series] = [(gpu, gauge * (gpu["UUID"] == "GPU-n2-3"), time_s) for gpu in gpus]
        columns = {"DCGM_FI_DEV_GPU_TEMP": temperatures, "DCGM_FI_DEV_XID_ERRORS": xids}
        frame, findings = self._observer.look(reading_of(self.now, columns, label_sets=self._sets))
        return frame, [*findings.found]

    def write(self, node: str, *messages: str) -> None:
        path = self._folder / "remote" / f"{node}.example.com" / "kern.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.writelines(f"{stamped(text, self.now + timedelta(seconds=15))}\n" for text in messages)


@contextmanager
def observed(folder: Path) -> Iterator[Site]:
    path = folder / "config.yaml"
    path.write_text(
        f"telemetry: {{kernel_log: {{files: ['{folder}/remote/*/kern.log']}}}}\n"
        f"detectors: {{path: {ROOT / 'detectors'}}}\nplaybooks: {{path: {ROOT / 'playbooks'}}}\n"
        f"models: {{path: {ROOT / 'models'}}}\n"
    )
    config = load_config(path)
    logs = build_kernel_log(config)
    assert logs is not None
    try:
        outside = Outside(source=None, kernel_log=logs)  # type: ignore[arg-type]
        yield Site(build_observer(config, load_content(config), outside), folder)
    finally:
        logs.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with observed(tmp_path) as made:
        made.write("n1", "begins")
        made.write("n2", "begins")
        assert made.look()[1] == []
        yield made


def who(finding: Finding) -> tuple[FailureMode, str | None, str | None, Health]:
    return finding.failure_mode, finding.component.node, finding.component.gpu, finding.health


def test_a_gpu_that_fell_off_the_bus_is_found_at_the_next_look(site: Site) -> None:
    site.write("n2", loss("0000:b3:00.0"))
    _, (finding,) = site.look()
    assert who(finding) == (FailureMode.GPU_FELL_OFF_BUS, "n2", "3", Health.FAILED)
    assert finding.reason == "the kernel log: the driver cannot reach the GPU any more"
    assert finding.disputed == ("the kernel log says that it is gone; its exporter still shows fresh values of it",)


def test_gauge_and_log_that_tell_of_one_xid_make_one_finding(site: Site) -> None:
    site.write("n2", xid(79, "GPU has fallen off the bus."))
    frame, (finding,) = site.look(gauge=79)
    assert who(finding) == (FailureMode.GPU_FELL_OFF_BUS, "n2", "3", Health.FAILED)
    assert finding.reason == "XID 79: the driver cannot reach the GPU any more"
    assert sorted(frame.xids.told) == ["gauge", "log"]


def test_what_the_driver_itself_asks_for_stands_above_the_catalogue(site: Site) -> None:
    _, (finding,) = site.look(gauge=154)
    assert finding.health is Health.DEGRADED, "the code alone says nothing"
    site.write("n2", recovery(NONE, RESET))
    _, (finding,) = site.look(gauge=154)
    assert who(finding) == (FailureMode.GPU_XID, "n2", "3", Health.FAILED)
    assert finding.reason == "XID 154: the driver's recovery action went from none to reset (GPU Reset Required)"
    site.write("n2", recovery(RESET, NONE))
    assert site.look(gauge=154)[1] == []


def test_a_sub_code_says_whether_a_link_is_down(site: Site) -> None:
    site.write("n2", xid(149, LINK_DOWN))
    _, findings = site.look(gauge=149)
    assert {who(finding) for finding in findings} == {
        (FailureMode.NVLINK_DOWN, "n2", "3", Health.FAILED),
        (FailureMode.NVLINK_ERRORS, "n2", "3", Health.FAILED),
    }
    assert all("XID 149: NVLink 5 sub-code" in finding.reason for finding in findings)


@pytest.mark.parametrize(
    ("code", "mode"),
    [
        (48, FailureMode.GPU_UNCORRECTABLE_ECC),
        (63, FailureMode.GPU_ROW_REMAP_PENDING),
        (64, FailureMode.GPU_ROW_REMAP_FAILED),
        (74, FailureMode.NVLINK_ERRORS),
        (92, FailureMode.GPU_CORRECTABLE_ECC_STORM),
        (119, FailureMode.GPU_XID),
    ],
)
def test_every_detector_that_judges_xids_judges_those_of_the_log(site: Site, code: int, mode: FailureMode) -> None:
    site.write("n1", xid(code, pci="0000:17:00"))
    _, (finding,) = site.look()
    assert who(finding)[:3] == (mode, "n1", "0")


def test_a_sub_code_that_is_harmless_opens_nothing_whatever_the_gauge_shows(site: Site) -> None:
    site.write("n2", xid(149, HARMLESS))
    assert site.look(gauge=149)[1] == []


def test_an_applications_xid_is_nothing(site: Site) -> None:
    site.write("n1", xid(31, "MMU Fault", pci="0000:17:00"))
    assert site.look()[1] == []


def test_what_is_about_nobody_known_is_a_warning_and_no_finding(site: Site) -> None:
    site.write("n3", loss())
    frame, findings = site.look()
    assert findings == []
    assert [text for text in frame.warnings if "kernel log of n3.example.com" in text]


def test_after_a_restart_what_is_old_is_no_finding_and_what_is_young_is_one(tmp_path: Path) -> None:
    with observed(tmp_path) as site:
        path = tmp_path / "remote" / "n1" / "kern.log"
        path.parent.mkdir(parents=True)
        old, young = AT - timedelta(hours=2), AT - timedelta(minutes=2)
        path.write_text(f"{stamped(xid(119, pci='0000:17:00'), old)}\n{stamped(xid(119, pci='0000:3d:00'), young)}\n")
        _, (finding,) = site.look()
        assert who(finding) == (FailureMode.GPU_XID, "n1", "2", Health.FAILED)
