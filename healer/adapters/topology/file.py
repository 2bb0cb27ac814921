"""Where the nodes are, from a YAML file that people or their inventory write.

    nodes:
      - names: "gpu-[001-036]"   # as in Slurm, or a list of such
        rack: r1
        feed: A
        nvlink_domain: d1
        switch: leaf-3

A node may stand in several entries, one for its rack and one for its feed, as long as they do not contradict each
other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from healer.documents import Document, read_document
from healer.domain.hostlist import expand_hosts
from healer.domain.topology import NOWHERE, PLACE_PARTS, Place, Topology
from healer.errors import InvalidDocument, Problem
from healer.schema import Section, validated

_Version = tuple[int, int, int] | None  # when it was changed, which file it is, its size; None if it is not there


class TopologyFile:
    """Implements `healer.ports.TopologySource`. The file is read anew when it has changed.

    A new version that is wrong, or a file that has gone, leaves what was known in place, with a warning.

    Raises:
        InvalidDocument: at the start, for a file that is missing or wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = _version_of(path)
        self._places = read_places(path)
        self._told = Topology(places=self._places)

    def topology(self, at: datetime) -> Topology:  # noqa: ARG002  a file only knows what is so now
        version = _version_of(self._path)
        if version != self._version:
            self._version = version
            self._told = self._read_again()
        return self._told

    def _read_again(self) -> Topology:
        try:
            places = read_places(self._path)
        except InvalidDocument as error:
            count = len(error.problems)
            more = f", the first of {count} problems" if count > 1 else ""
            return Topology(self._places, warnings=(f"{error.problems[0]}{more}; the version before it still counts",))
        self._places = places
        return Topology(places)


def read_places(path: Path) -> Mapping[str, Place]:
    """Where each node is. Raises InvalidDocument with every problem in the file."""
    document = read_document(path)
    written = validated(document, _File)
    places: dict[str, Place] = {}
    entries: dict[str, list[int]] = {}
    problems: list[Problem] = []
    for number, entry in enumerate(written.nodes):
        place, clashes = entry.place(), dict[tuple[int, str], list[str]]()
        if place == NOWHERE:
            text = f"says nothing of its nodes; give it one of {', '.join(PLACE_PARTS)}"
            problems.append(document.problem(("nodes", number), text))
        for name in entry.names:
            for before in entries.get(name, ()):
                for part in _contradicted(place, written.nodes[before].place()):
                    clashes.setdefault((before, part), []).append(name)
            entries.setdefault(name, []).append(number)
            places[name] = place.or_else(places.get(name, NOWHERE))
        problems += _problems(document, number, clashes)
    if problems:
        raise InvalidDocument(*problems)
    return places


def _names(value: object) -> tuple[str, ...]:
    lists = value if isinstance(value, list) else [value]
    if not lists or not all(isinstance(text, str) for text in lists):
        raise ValueError('is a host list like "gpu-[001-036]", or a list of such')
    # A name twice in one entry is said once.
    return tuple(dict.fromkeys(name for text in lists for name in expand_hosts(str(text))))


def _name(value: object) -> str | None:
    """YAML makes numbers and truth values of what is meant as a name: 010 is 8, and on is true."""
    if value is None:
        return None
    if not isinstance(value, str):
        text = f"{value!r} is not a name; put it into quotes as it is meant"
        raise ValueError(text)  # noqa: TRY004  the kind that pydantic reports
    if not value.strip():
        raise ValueError("is empty; leave the key out if it is not known")
    return value


_Name = Annotated[str | None, BeforeValidator(_name)]


class _Entry(Section):
    names: Annotated[tuple[str, ...], BeforeValidator(_names)]
    rack: _Name = None
    feed: _Name = None
    nvlink_domain: _Name = None
    switch: _Name = None

    def place(self) -> Place:
        return Place(self.rack, self.feed, self.nvlink_domain, self.switch)


def _not_empty(entries: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    if not entries:
        raise ValueError("lists no nodes")
    return entries


class _File(Section):
    nodes: Annotated[tuple[_Entry, ...], AfterValidator(_not_empty)]


def _contradicted(one: Place, other: Place) -> Iterator[str]:
    """The parts that both tell, and tell differently."""
    for part in PLACE_PARTS:
        told = {getattr(one, part), getattr(other, part)} - {None}
        if len(told) > 1:
            yield part


def _problems(document: Document, number: int, clashes: Mapping[tuple[int, str], list[str]]) -> Iterator[Problem]:
    """One for each entry and part, however many nodes it is about."""
    for (before, part), names in clashes.items():
        earlier = document.problem(("nodes", before, part), "")
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        text = f"contradicts line {earlier.line}, which has another {part} for {names[0]}{more}"
        yield document.problem(("nodes", number, part), text, "keep one of them")


def _version_of(path: Path) -> _Version:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_ino, seen.st_size
