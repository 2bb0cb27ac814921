"""The answer of NCCL's RAS as text, as every version since 2.24.3 gives it.

A table has a row for each group of alike communicators; below it come sections that begin with `#group-number (hash)`.
Of ranks that differ only the fewer are named: in a verbose answer those that are under half of the communicator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from healer.errors import Unavailable
from healer.telemetry.nccl.operations import operation_named
from healer.telemetry.nccl.ras_answer import Answer, Communicator, Member, Standing

_LONGEST_LINE = 1000
_N = r"\d{1,18}"
_GPU = r"(?P<gpu>\d{1,9})(?: \(NVML (?P<nvml>\d{1,9})\))?"
_AT = rf"-- (?:GPU {_GPU} managed by process (?P<pid>{_N}) on node (?P<host>\S{{1,100}})|\[process .*)"
_COUNT = rf"launched up to operation (?P<launched>{_N})|not launched any operations"
_ERROR = r"reported (?P<error>[A-Z][A-Za-z ]{1,60}?)"

_TOTALS = re.compile(r"\(total\) +\(total\)$")
_ROW = re.compile(r"(?P<group>\d{1,9}) +\d+ +\d+ +[\d-]+ +(?P<size>\d{1,9}) +\d+ +[A-Z]+ +[A-Z,]+")
_HEAD = re.compile(r"#(?P<group>\d{1,9})-\d{1,9} \((?P<name>[0-9a-f]{1,16})\) [A-Z]+")
_DIFFERENT = re.compile(r"Communicator ranks have different (?P<what>\w{1,40})(?P<counts> operation counts)?")
_MANY = re.compile(rf"(?P<count>{_N}) ranks (?:have (?:{_COUNT})|have status [A-Z]+|{_ERROR})")
_ONE = re.compile(rf"Rank (?P<rank>{_N}) (?:has (?:{_COUNT}) |has status [A-Z]+ |{_ERROR} )?{_AT}")
_MISSING = re.compile(r"The missing ranks?: (?P<ranks>[\d, ]{1,900})")
_PROCESS = re.compile(rf"Process (?P<pid>{_N}) on node (?P<host>\S{{1,100}}) managing GPU {_GPU}")


def read_text(data: bytes, *, name: str) -> Answer:
    """Raises Unavailable for what is no such answer, or breaks off."""
    text = data.decode("utf-8", "replace")
    lines = [line[:_LONGEST_LINE].strip() for line in text.splitlines()]
    if not any(line.startswith("Communicators...") for line in lines):
        raise Unavailable(name, "does not answer as NCCL RAS does")
    if "Warnings" not in lines:
        raise Unavailable(name, "broke off its answer")
    reader = _Reader()
    for line in lines:
        reader.take(line)
    return Answer(reader.communicators(), _gpus(lines), is_whole=False)


def _gpus(lines: Iterable[str]) -> int | None:
    """The last number below the last heading of totals."""
    found: int | None = None
    headed = False
    for line in lines:
        if headed and line and line.replace(" ", "").isdecimal():
            found = int(line.split()[-1][:9])
        headed = bool(_TOTALS.search(line))
    return found


@dataclass(slots=True)
class _Communicator:
    size: int | None
    standings: list[Standing] = field(default_factory=list)
    errors: dict[Member, str] = field(default_factory=dict)
    lost: list[Member] = field(default_factory=list)


class _Reader:
    """What was read so far, and in which part of the answer the next line stands."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._found: dict[str, _Communicator] = {}
        self._current: _Communicator | None = None
        self._operation: str | None = None
        self._many: re.Match[str] | None = None  # what the ranks that follow have in common
        self._dead = False
        self._processes: list[tuple[Member, bool]] = []

    def take(self, line: str) -> None:
        if line in {"DEAD", "INCOMPLETE"}:
            self._dead = line == "DEAD"
        elif row := _ROW.fullmatch(line):
            self._sizes[row["group"]] = int(row["size"])
        elif process := _PROCESS.fullmatch(line):
            self._processes.append((_member(process, rank=-1), self._dead))
        elif head := _HEAD.fullmatch(line):
            self._current = self._found.setdefault(head["name"], _Communicator(self._sizes.get(head["group"])))
            self._operation = self._many = None
        elif self._current is not None:
            self._take_rank(self._current, line)

    def _take_rank(self, into: _Communicator, line: str) -> None:
        if different := _DIFFERENT.fullmatch(line):
            self._operation = operation_named(different["what"]) if different["counts"] else None
            self._many = None
        elif many := _MANY.fullmatch(line):
            self._many = many
            if many["error"] is None and self._operation is not None and " status " not in line:
                into.standings.append(Standing(self._operation, int(many["launched"] or 0), int(many["count"])))
        elif missing := _MISSING.fullmatch(line):
            into.lost += (Member(int(rank[:9]), None, None, None) for rank in re.findall(r"\d+", missing["ranks"]))
        elif one := _ONE.fullmatch(line):
            self._take_one(into, one, _member(one, rank=int(one["rank"])))

    def _take_one(self, into: _Communicator, one: re.Match[str], member: Member) -> None:
        alone = f"Rank {one['rank']} --" not in one[0]
        error = one["error"] or (self._many["error"] if self._many else None)
        if error is not None:
            into.errors[member] = error
        elif " has status " in one[0]:
            return
        elif alone and self._operation is not None:
            into.standings.append(Standing(self._operation, int(one["launched"] or 0), 1, (member,)))
        elif self._operation is not None and into.standings:
            last = into.standings[-1]
            into.standings[-1] = Standing(last.operation, last.launched, last.count, (*last.members, member))
        elif self._many is None:
            into.lost.append(member)

    def communicators(self) -> tuple[Communicator, ...]:
        dead = {(process.host, process.pid) for process, is_dead in self._processes if is_dead}
        return tuple(
            Communicator(
                name=name,
                size=found.size,
                standings=tuple(found.standings),
                errors=found.errors,
                lost={member: (member.host, member.pid) in dead for member in self._known(found.lost)},
            )
            for name, found in self._found.items()
        )

    def _known(self, lost: list[Member]) -> list[Member]:
        """Before 2.26 a lost rank is only a number; with one rank and one process lost it is plain which runs it."""
        if len(lost) == len(self._processes) == 1 and lost[0].host is None:
            process = self._processes[0][0]
            return [Member(lost[0].rank, process.host, process.gpu, process.pid)]
        return lost


def _member(told: re.Match[str], *, rank: int) -> Member:
    pid = told["pid"]
    return Member(rank, told["host"], told["nvml"] or told["gpu"], None if pid is None else int(pid))
