"""The three ways in which jobs tell of themselves, put together, and never in the way of a turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice

from healer.adapters.background import InBackground
from healer.adapters.nccl.dumps import DumpFiles
from healer.adapters.nccl.logs import LogFiles
from healer.adapters.nccl.ras_jobs import RasJobs
from healer.domain.testimony import Culprit, Testimony

_MOST_WARNINGS = 20
_Places = Mapping[int, tuple[str, str]]


class NcclWitness:
    """Implements `healer.ports.JobWitness`. Every part may be missing.

    Files are looked at in one thread, for they may lie on a file system that hangs; RAS has threads of its own.
    """

    def __init__(
        self, *, ras: RasJobs | None = None, dumps: DumpFiles | None = None, logs: LogFiles | None = None
    ) -> None:
        self._ras = ras
        self._files = [_Files(part) for part in (dumps, logs) if part is not None]

    def close(self) -> None:
        for part in self._files:
            part.close()
        if self._ras is not None:
            self._ras.close()

    def testimonies(self, now: datetime, suspects: Mapping[str, Sequence[str]]) -> tuple[Testimony, ...]:
        """What is known now; what is asked for with this call, a later one tells."""
        heard = () if self._ras is None else self._ras.look(now, suspects)
        places = {told.testimony.job: told.places for told in heard}
        from_files = (told for part in self._files for told in part.look(now))
        return (*(told.testimony for told in heard), *(_placed(told, places.get(told.job, {})) for told in from_files))

    def warnings(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002  what was wrong at the last look
        said = [warning for part in self._files for warning in part.warnings]
        return tuple(islice((*said, *(() if self._ras is None else self._ras.warnings())), _MOST_WARNINGS))


class _Files:
    """What the last look saw counts while the next one is under way."""

    def __init__(self, part: DumpFiles | LogFiles) -> None:
        self._looking = InBackground(lambda now: (part.look(now), part.warnings()), name="nccl-files")
        self._seen: tuple[Testimony, ...] = ()
        self.warnings: tuple[str, ...] = ()

    def close(self) -> None:
        self._looking.close()

    def look(self, now: datetime) -> tuple[Testimony, ...]:
        seen = self._looking.ask(now)
        if seen is not None:
            self._seen, self.warnings = seen
        return self._seen


def _placed(told: Testimony, places: _Places) -> Testimony:
    """Where its culprits run, from what RAS has told of the same job."""
    return replace(told, culprits=tuple(_culprit_at(culprit, places) for culprit in told.culprits)) if places else told


def _culprit_at(culprit: Culprit, places: _Places) -> Culprit:
    if culprit.rank is None or culprit.rank not in places:
        return culprit
    node, gpu = places[culprit.rank]
    return replace(culprit, node=culprit.node or node, gpu=culprit.gpu or gpu)
