"""`healer xid`: what lines of a kernel log mean."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from healer.cli.options import json_option
from healer.telemetry.xids.stream import classify
from healer.telemetry.xids.verdict import CodeKind, Verdict

_LONGEST_LINE = 1 << 20  # bytes; what is longer is read in pieces
_BRANCH = re.compile(r"[Rr]?([1-9][0-9]{2})(?:\.[0-9]{1,4}){0,2}")


class DriverType(click.ParamType[int]):
    name = "driver"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        branch = _BRANCH.fullmatch(str(value))
        if branch is None:
            self.fail(
                f"{value!r} is no driver; write its branch, like R575, or its version, like 570.172.08", param, ctx
            )
        return int(branch[1])


class _Counted:
    """Attributes:
    read: how many lines were taken so far.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self.read = 0
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.read += 1
            yield line


@click.command()
@click.argument("lines", nargs=-1, metavar="[LINE]...")
@click.option(
    "--driver",
    type=DriverType(),
    default=None,
    help="The driver's branch or version, such as R575 or 570.172.08: sub-codes of XIDs 144 to 150 depend on it. "
    "Default: what the log itself says of the driver's start; else every reading.",
)
@json_option
def xid(lines: tuple[str, ...], driver: int | None, *, as_json: bool) -> None:
    """Classify kernel-log lines: XIDs, SXIDs, lost GPUs, and trouble of NVLink, fabric manager and NCCL.

    Without LINE it reads standard input and prints while it reads, so `dmesg -w | healer xid` works. With --json it
    prints one JSON object for each event, one a line. What it read is counted on standard error.
    """
    counted = _Counted(iter(lines) if lines else _standard_input())
    events = 0
    try:
        for verdict in classify(counted, driver=driver):
            events += 1
            click.echo(msgspec.json.encode(verdict) if as_json else "\n".join(_shown(verdict)))
    finally:
        click.echo(f"{_count(counted.read, 'line')} read, {_count(events, 'event')} recognised", err=True)


def _standard_input() -> Iterator[str]:
    while line := sys.stdin.buffer.readline(_LONGEST_LINE):
        yield line.decode(errors="replace").rstrip("\r\n")


def _shown(verdict: Verdict) -> Iterator[str]:
    code = (
        verdict.name
        if verdict.kind is CodeKind.NONE
        else f"{verdict.kind.upper()} {verdict.code} {verdict.name}".rstrip()
    )
    yield "  ".join(filter(None, (code, str(verdict.subject), verdict.action, verdict.failure_mode, verdict.time)))
    yield f"    {verdict.why} (blame: {verdict.blame})"
    for saying in verdict.said:
        yield f"    {saying.who} says {saying.says}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
