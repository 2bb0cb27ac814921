"""Lines that other projects judge in their tests, judged by us.

A project tests each of its matchers on what it is for and on what it leaves to the others, so the same line can be
expected and not expected. We have one classifier for all lines: see docs/decisions/0012-kernel-log-verdicts.md.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from healer.domain.finding import FailureMode
from healer.telemetry.xids.stream import classify
from healer.telemetry.xids.verdict import CodeKind

FILE = Path(__file__).parent / "kernel_log_cases.tsv"
GPUD = "leptonai/gpud@4a8de33 components/accelerator/nvidia/"
NVSENTINEL = "dims/NVSentinel@3b7f639 health-monitors/syslog-health-monitor/pkg/"

ANOTHER_MATCHER = "the same line is expected of another matcher in the same file"
AN_XID_IN_IT = "left to the matcher of XIDs, whose case it is: it has an XID 79, which is the verdict"
JUDGED_OTHERWISE = {
    GPUD + "fabric-manager/log_matcher_test.go#L32": ANOTHER_MATCHER,
    GPUD + "fabric-manager/log_matcher_test.go#L75": ANOTHER_MATCHER,
    GPUD + "fabric-manager/log_matcher_test.go#L80": ANOTHER_MATCHER,
    GPUD + "fabric-manager/log_matcher_test.go#L123": ANOTHER_MATCHER,
    GPUD + "fabric-manager/log_matcher_test.go#L176": ANOTHER_MATCHER,
    GPUD + "fabric-manager/log_matcher_test.go#L229": ANOTHER_MATCHER,
    GPUD + "fabric-manager/log_matcher_test.go#L234": ANOTHER_MATCHER,
    NVSENTINEL + "gpufallen/gpufallen_handler_test.go#L55": AN_XID_IN_IT,
    NVSENTINEL + "gpufallen/gpufallen_handler_test.go#L63": AN_XID_IN_IT,
}
KINDS = {  # family -> what its lines are, and the failure modes that they can be
    "xid": (CodeKind.XID, set(FailureMode)),
    "sxid": (CodeKind.SXID, {FailureMode.NVLINK_ERRORS, FailureMode.NVLINK_DOWN}),
    "gpu_lost": (CodeKind.NONE, {FailureMode.GPU_FELL_OFF_BUS}),
    "nvrm": (CodeKind.NONE, {FailureMode.NVLINK_ERRORS}),
    "nccl": (CodeKind.NONE, {FailureMode.JOB_STALLED}),
    "nccl_watchdog": (CodeKind.NONE, {FailureMode.JOB_STALLED}),
}


@dataclass(frozen=True)
class Case:
    line: str
    family: str
    should_match: str
    expected_code: str
    source: str

    @property
    def is_expected(self) -> bool:
        return self.should_match == "yes"


def _read() -> Iterator[Case]:
    with FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield Case(**row)


CASES = [*_read()]
EXPECTED = {case.line for case in CASES if case.is_expected}
_SEEN: Counter[str] = Counter()


def _named(case: Case) -> object:
    name = case.source.rpartition("/")[2]
    _SEEN[name] += 1
    return pytest.param(case, id=f"{case.family}-{case.should_match}-{name}-{_SEEN[name]}")


@pytest.mark.parametrize("case", [_named(case) for case in CASES if case.is_expected])
def test_what_is_expected_is_recognised_as_what_it_is(case: Case) -> None:
    (verdict,) = classify([case.line])
    if case.expected_code:
        assert verdict.code == int(case.expected_code)
    if case.family != "fabric_manager":  # its lines name an SXID, or carry no code
        kind, modes = KINDS[case.family]
        assert verdict.kind is kind
        assert verdict.failure_mode in modes


@pytest.mark.parametrize("case", [_named(c) for c in CASES if not c.is_expected and c.source not in JUDGED_OTHERWISE])
def test_what_is_nothing_to_others_is_nothing_to_us(case: Case) -> None:
    assert [*classify([case.line])] == []


@pytest.mark.parametrize("case", [_named(c) for c in CASES if c.source in JUDGED_OTHERWISE])
def test_what_we_judge_otherwise_is_judged_for_the_reason_that_is_given(case: Case) -> None:
    assert not case.is_expected
    if JUDGED_OTHERWISE[case.source] == ANOTHER_MATCHER:
        assert case.line in EXPECTED
    else:
        assert case.line not in EXPECTED
        (xid,) = [verdict for verdict in classify([case.line]) if verdict.kind is CodeKind.XID]
        assert (xid.code, xid.failure_mode) == (79, FailureMode.GPU_FELL_OFF_BUS)


def test_every_exception_is_one_case() -> None:
    count = Counter(case.source for case in CASES)
    assert {source: count[source] for source in JUDGED_OTHERWISE} == dict.fromkeys(JUDGED_OTHERWISE, 1)
