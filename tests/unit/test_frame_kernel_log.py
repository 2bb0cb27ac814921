"""Lines of kernel logs on a frame: which GPU they are about, and that one XID told by several is one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest

from healer.domain.frame import Frame
from healer.domain.kernel_line import KernelLine
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from healer.telemetry.wire.series import LabelSets
from tests.kernel_lines import AT, kernel_line
from tests.readings import Series, reading_of

XID, RECENT, TEMPERATURE = "DCGM_FI_DEV_XID_ERRORS", "DCGM_EXP_XID_ERRORS_COUNT", "DCGM_FI_DEV_GPU_TEMP"
PCI = ("0000:17:00", "0000:b3:00")


def labels(gpu: int = 1, *, node: str = "n1", **more: str) -> dict[str, str]:
    named = {"UUID": f"GPU-{node}-{gpu}", "gpu": str(gpu), "node": node, "instance": f"{node}:9400", "hpc_job": "a"}
    return {**named, "pci_bus_id": f"0000{PCI[gpu].upper()}.0", **more}


BOTH = (labels(0), labels(1))


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


class Watch:
    def __init__(self) -> None:
        self.window = Window(TopologyRules())
        self.sets = LabelSets()

    def see(
        self,
        seconds: float,
        *lines: KernelLine,
        gpus: tuple[Mapping[str, str], ...] = BOTH,
        xid: float | None = None,
        recent: Mapping[int, float] | None = None,
    ) -> Frame:
        """`xid`: the gauge of GPU 1; `recent`: its counts by code."""
        time_s = at(seconds).timestamp()
        columns: dict[str, list[Series]] = {TEMPERATURE: [(gpu, 50.0, time_s) for gpu in gpus]}
        if xid is not None:
            columns[XID] = [(gpus[-1], xid, time_s)]
        if recent is not None:
            columns[RECENT] = [({**gpus[-1], "xid": str(code)}, count, time_s) for code, count in recent.items()]
        return self.window.add(reading_of(at(seconds), columns, label_sets=self.sets), kernel_lines=lines)


def told(frame: Frame) -> list[tuple[str | None, str | None, int]]:
    gpus = frame.gpus.components
    return [
        (gpus[row].node, gpus[row].gpu, code)
        for row, code, who in zip(frame.xids.rows.tolist(), frame.xids.codes.tolist(), frame.xids.told, strict=True)
        if who == "log"
    ]


# Which GPU it is


@pytest.mark.parametrize(
    "spelling",
    ["00000000:B3:00.0", "00000000:b3:00.0", "0000:b3:00.0", "0000:B3:00.0", "0000:b3:00"],
)
def test_a_pci_address_is_the_same_in_every_spelling(spelling: str) -> None:
    frame = Watch().see(0, kernel_line(), gpus=(labels(0), labels(1, pci_bus_id=spelling)))
    assert told(frame) == [("n1", "1", 79)]
    assert frame.warnings == ()


def test_a_domain_of_its_own_is_told_apart() -> None:
    gpus = (labels(0, pci_bus_id="00000001:00:00.0"), labels(1, pci_bus_id="00000002:00:00.0"))
    assert told(Watch().see(0, kernel_line(pci="0002:00:00"), gpus=gpus)) == [("n1", "1", 79)]


def test_the_label_may_have_been_renamed_by_prometheus() -> None:
    gpu = {**labels(1), "exported_pci_bus_id": "00000000:B3:00.0", "pci_bus_id": ""}
    assert told(Watch().see(0, kernel_line(), gpus=(gpu,))) == [("n1", "1", 79)]


@pytest.mark.parametrize(
    ("log", "exporter"),
    [("n1", "n1.example.com"), ("n1.example.com", "n1"), ("N1", "n1"), ("10.0.0.7", "10.0.0.7")],
)
def test_a_node_has_its_name_with_and_without_its_domain(log: str, exporter: str) -> None:
    frame = Watch().see(0, kernel_line(node=log), gpus=(labels(1, node=exporter), labels(1, node="n2")))
    assert told(frame) == [(exporter, "1", 79)]


def test_another_domain_is_another_node() -> None:
    frame = Watch().see(0, kernel_line(node="n1.b.example"), gpus=(labels(1, node="n1.a.example"),))
    assert told(frame) == []


def test_a_uuid_that_the_log_told_is_enough() -> None:
    gpus = tuple({**gpu, "pci_bus_id": ""} for gpu in BOTH)
    assert told(Watch().see(0, kernel_line(uuid="GPU-n1-1"), gpus=gpus)) == [("n1", "1", 79)]
    assert told(Watch().see(0, kernel_line(uuid="GPU-n1-1", node=None, pci=None), gpus=gpus)) == [("n1", "1", 79)]


@pytest.mark.parametrize(
    ("instance", "rows"),
    [("5", ["1:5"]), ("5:1", ["1:5"]), (None, ["1:4", "1:5"]), ("7", ["1:4", "1:5"])],
    ids=["an instance", "a compute instance", "the whole GPU", "an instance that is not shown"],
)
def test_a_divided_gpu_is_told_by_instance(instance: str | None, rows: list[str]) -> None:
    gpus = tuple(labels(1, GPU_I_ID=number, GPU_I_PROFILE="1g.10gb") for number in ("4", "5"))
    assert [gpu for _, gpu, _ in told(Watch().see(0, kernel_line(instance=instance), gpus=gpus))] == rows


def test_of_two_gpus_that_were_in_one_slot_the_newer_is_meant() -> None:
    watch = Watch()
    watch.see(0)
    frame = watch.see(60, kernel_line(), gpus=(labels(0), labels(1, UUID="GPU-new")))
    (row,) = frame.xids.rows.tolist()
    assert frame.gpus.components[row].uuid == "GPU-new"


def test_a_gpu_that_is_no_longer_shown_is_known_by_where_it_was() -> None:
    watch = Watch()
    watch.see(0)
    watch.sets = LabelSets()  # the source has forgotten the series that ended
    assert told(watch.see(30, kernel_line(), gpus=(labels(0),))) == [("n1", "1", 79)]


# Which it is not known


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({"pci": "0000:c1:00"}, "kernel log of n1: GPU 0000:c1:00: XID 79 at 2026-03-14T03:00:00Z; no exporter shows"),
        ({"node": "n9"}, "kernel log of n9: GPU 0000:b3:00: XID 79 at 2026-03-14T03:00:00Z; no exporter shows a GPU"),
        ({"pci": None, "has_code": False}, "kernel log of n1: a GPU that is not named: fallen off the bus at"),
        ({"node": None}, "kernel log of a node that is not named: GPU 0000:b3:00: XID 79"),
    ],
    ids=["no such address", "no such node", "no address", "no node"],
)
def test_a_line_whose_gpu_is_not_known_is_said_with_its_node(given: dict[str, object], warning: str) -> None:
    watch = Watch()
    line = kernel_line(**given)
    frame = watch.see(0, line)
    assert told(frame) == []
    assert frame.warnings[0].startswith(warning)
    assert frame.warnings[0].endswith(f"({line.where})")
    assert watch.see(3590).warnings == frame.warnings
    assert watch.see(3630).warnings == ()


@pytest.mark.parametrize("given", [{"is_old": True}, {"counts": False}])
def test_what_counts_for_nothing_is_not_said(given: dict[str, object]) -> None:
    assert Watch().see(0, kernel_line(node="n9", **given)).warnings == ()


def test_an_exporter_that_comes_later_tells_which_it_is() -> None:
    watch = Watch()
    assert watch.see(0, kernel_line(node="n2"), kernel_line(node="n3")).warnings
    frame = watch.see(300, gpus=(*BOTH, labels(1, node="n2")))
    assert told(frame) == [("n2", "1", 79)]
    assert frame.xids.last_s.tolist() == [AT.timestamp()]
    assert [text.split(":")[0] for text in frame.warnings] == ["kernel log of n3"]


def test_of_many_the_newest_are_shown_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("healer.telemetry.frames.kernel_log._MOST_WAITING", 30)
    lines = [kernel_line(node=f"m{number}", at=at(number)) for number in range(40)]
    warnings = Watch().see(60, *lines).warnings
    assert len(warnings) == 21
    assert warnings[0].startswith("kernel log of m29:")
    assert warnings[-1] == "and 20 more lines of kernel logs about GPUs that are not known"


# One XID that several tell of


def test_a_line_counts_from_when_it_was_written() -> None:
    frame = Watch().see(60, kernel_line(at=at(20), count=3))
    assert (frame.xids.first_s.tolist(), frame.xids.last_s.tolist()) == ([at(20).timestamp()], [at(20).timestamp()])
    assert (frame.xids.counts.tolist(), frame.xids.standing.tolist()) == ([3], [False])


def test_what_stood_there_before_anybody_looked_stands() -> None:
    frame = Watch().see(60, kernel_line(is_old=True))
    assert frame.xids_since_reset((79,)).tolist() == [False, False]
    assert frame.xids_since_reset((79,), standing=True).tolist() == [False, True]


@pytest.mark.parametrize("log_first", [True, False], ids=["the log first", "the exporter first"])
def test_one_xid_that_is_told_again_once_the_next_job_runs_is_of_the_first(*, log_first: bool) -> None:
    """By the time that the second one tells, another job has the GPU."""
    line, next_job = kernel_line(code=94, at=at(25)), (labels(0), labels(1, hpc_job="b"))
    watch = Watch()
    watch.see(0, xid=0, recent={})
    if log_first:
        watch.see(30, line, xid=0, recent={})
        frame = watch.see(60, gpus=next_job, xid=94, recent={94: 1})
    else:
        watch.see(30, xid=94, recent={94: 1})
        frame = watch.see(60, line, gpus=next_job, xid=94, recent={94: 1})
    assert sorted(frame.xids.told) == ["gauge", "log", "recent"]
    assert frame.jobs_with_xid((94,)).tolist() == [0, 1]
    assert frame.xid_codes(1, (94,)) == (94,)


def test_the_same_xid_of_the_next_job_is_another_one() -> None:
    watch = Watch()
    watch.see(0, xid=0, recent={})
    watch.see(30, kernel_line(code=94, at=at(20)), xid=94, recent={94: 1})
    next_job = (labels(0), labels(1, hpc_job="b"))
    frame = watch.see(90, kernel_line(code=94, at=at(80)), gpus=next_job, xid=94, recent={94: 2})
    assert frame.jobs_with_xid((94,)).tolist() == [0, 2]


def test_an_action_of_none_is_not_noted_and_takes_back_the_gauges_word() -> None:
    watch = Watch()
    watch.see(0, xid=0)
    frame = watch.see(30, kernel_line(code=154, counts=False, at=at(20)), xid=154)
    assert len(frame.xids) == 0
    watch = Watch()
    watch.see(0, xid=0)
    watch.see(30, kernel_line(code=154, counts=False, at=at(20)), xid=0)
    assert len(watch.see(60, xid=154).xids) == 0


def test_a_recovery_action_that_ended_takes_back_those_before_and_none_after() -> None:
    watch = Watch()
    watch.see(0)
    watch.see(30, kernel_line(code=154, action="RESET_GPU", at=at(20)))
    assert len(watch.see(600, kernel_line(code=154, counts=False, at=at(590))).xids) == 0
    frame = watch.see(630, kernel_line(code=154, action="RESTART_BM", at=at(620)))
    assert [line.action for _, line in frame.xid_lines((154,))] == ["RESTART_BM"]


def test_a_harmless_sub_code_takes_back_nothing_but_the_same_one_of_the_exporter() -> None:
    watch = Watch()
    watch.see(0, kernel_line(code=149, action="RESET_GPU", at=at(-10)), xid=0)
    frame = watch.see(30, kernel_line(code=149, counts=False, at=at(20)), xid=149)
    assert [line.action for _, line in frame.xid_lines((149,))] == ["RESET_GPU"]
    assert frame.xids.told == ("log",)


def test_an_old_line_with_nothing_to_do_takes_back_nothing() -> None:
    watch = Watch()
    watch.see(0, xid=0)
    frame = watch.see(30, kernel_line(code=154, counts=False, at=at(20), is_old=True), xid=154)
    assert frame.xids.told == ("gauge",)


def test_of_several_lines_each_action_stands_and_the_newest_comes_last() -> None:
    watch = Watch()
    lines = [kernel_line(code=154, action=action, at=at(s)) for s, action in ((1, "RESTART_BM"), (2, "RESET_GPU"))]
    frame = watch.see(30, *lines)
    assert [line.action for _, line in frame.xid_lines((154,))] == ["RESTART_BM", "RESET_GPU"]


def test_rows_that_are_forgotten_take_their_lines_along() -> None:
    watch = Watch()
    watch.see(0, kernel_line(pci=PCI[0]))
    day = 24 * 3600.0
    watch.see(day - 60, kernel_line(at=at(day - 70)), gpus=(labels(1),))
    frame = watch.see(day + 60, gpus=(labels(1),), xid=0)
    assert (len(frame.gpus), told(frame)) == (1, [("n1", "1", 79)])


def test_where_nobody_reads_kernel_logs_no_address_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("healer.telemetry.frames.kernel_log.KernelLog.meet", looked)
    series: list[Series] = [(labels(1), 50.0, AT.timestamp())]
    assert Window(TopologyRules()).add(reading_of(AT, {TEMPERATURE: series})).xids.lines == ()
