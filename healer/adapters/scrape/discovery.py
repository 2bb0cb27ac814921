"""Which exporters there are: a list, and whoever else knows. Those who do not answer leave what they said before.

A source that suddenly names nobody is not believed either: a fleet does not vanish, a selector is mistyped. So the
targets stay until somebody names others, and what is gone shows as silent.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeAlias
from urllib.parse import urlencode, urlsplit

import msgspec
import requests
import yaml

from healer.adapters.http.bounded import Bounds, exchange, redacted
from healer.decoding import convert, decode
from healer.domain.reading import Labels
from healer.errors import HealerError, Unavailable

EVERY = timedelta(seconds=60)

_LIMIT_BYTES = 64 << 20
_SETTLED_S = 1.0  # a file that was changed a moment ago may still be being written
_AS_BEFORE = "; the targets found earlier are used"


@dataclass(frozen=True, slots=True)
class Target:
    """Attributes:
    labels: what is attached to its series, `instance` among them.
    """

    url: str
    labels: Labels

    @property
    def name(self) -> str:
        return self.labels["instance"]


class TargetGroup(msgspec.Struct, frozen=True):
    """In Prometheus's own form, the labels with two underscores included that say how to ask."""

    targets: list[str]
    labels: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Found:
    groups: Sequence[TargetGroup]
    warnings: tuple[str, ...] = ()


class TargetSource(Protocol):
    """Attributes:
    name: for warnings.
    every: how long an answer counts.
    """

    @property
    def name(self) -> str: ...

    @property
    def every(self) -> timedelta: ...

    def find(self) -> Found:
        """Everybody there is. Called from other threads, never from two at once. Raises HealerError."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Asked:
    """A source, and what it said last."""

    source: TargetSource
    targets: tuple[Target, ...] = ()
    answered_at: datetime | None = None
    warnings: tuple[str, ...] = ()
    answer: Future[Found] | None = None

    def is_due(self, at: datetime) -> bool:
        return self.answered_at is None or abs(at - self.answered_at) >= self.source.every

    def take(self, answer: Future[Found], at: datetime) -> None:
        try:
            found = answer.result()
        except HealerError as error:
            self.warnings = (f"{error}{_AS_BEFORE}" if self.targets else str(error),)
            return
        targets = tuple(target_at(address, group.labels) for group in found.groups for address in group.targets)
        self.warnings = found.warnings
        if not targets:
            missing = f"{self.source.name}: names no targets{' any more' + _AS_BEFORE if self.targets else ''}"
            self.warnings += (missing,)
        elif targets != self.targets:
            self.targets = targets
        self.answered_at = at


class Discovery:
    """Puts together what all sources say. A source that takes longer than `timeout_s` is not waited for again."""

    def __init__(self, addresses: Iterable[str], sources: Sequence[TargetSource], *, timeout_s: float) -> None:
        self._fixed = tuple(target_at(address, {}) for address in addresses)
        self._asked = [_Asked(source) for source in sources]
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(max(len(sources), 1), thread_name_prefix="discovery")
        self._parts: tuple[tuple[Target, ...], ...] = ()
        self._targets: tuple[Target, ...] = ()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for asked in self._asked:
            asked.source.close()

    def targets(self, at: datetime) -> tuple[tuple[Target, ...], tuple[str, ...]]:
        """All of them, each once, and what the sources have to say. The same object while nobody says otherwise."""
        started = [asked for asked in self._asked if asked.answer is None and asked.is_due(at)]
        for asked in started:
            asked.answer = self._pool.submit(asked.source.find)
        wait([asked.answer for asked in started if asked.answer is not None], timeout=self._timeout_s)
        for asked in self._asked:
            if asked.answer is None:
                continue
            if asked.answer.done():
                answer, asked.answer = asked.answer, None
                asked.take(answer, at)
            else:
                missing = f"{asked.source.name}: gives no answer within {self._timeout_s:g} s"
                asked.warnings = (missing + (_AS_BEFORE if asked.targets else ""),)
        parts = (self._fixed, *(asked.targets for asked in self._asked))
        if any(new is not old for new, old in zip(parts, self._parts, strict=False)) or len(parts) != len(self._parts):
            self._parts = parts
            self._targets = tuple({key_of(target): target for part in parts for target in part}.values())
        return self._targets, tuple(text for asked in self._asked for text in asked.warnings)


TargetKey: TypeAlias = tuple[str, frozenset[tuple[str, str]]]


def key_of(target: Target) -> TargetKey:
    return target.url, frozenset(target.labels.items())


def target_at(address: str, labels: Mapping[str, str]) -> Target:
    """From an address, or a URL, and the labels that it was given, as Prometheus understands them."""
    given, _, rest = address.rpartition("://")
    scheme = labels.get("__scheme__") or given or "http"
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    parts = urlsplit(f"//x{rest[len(host) :]}")
    path = labels.get("__metrics_path__") or parts.path or "/metrics"
    asked = {name.removeprefix("__param_"): value for name, value in labels.items() if name.startswith("__param_")}
    query = "&".join(part for part in (parts.query, urlencode(asked)) if part)
    public = {name: value for name, value in labels.items() if value and not name.startswith("__")}
    url = f"{scheme}://{host}{path if path.startswith('/') else '/' + path}{'?' + query if query else ''}"
    return Target(url, {"instance": host.rpartition("@")[2], **public})


class HttpTargets:
    """A service discovery in Prometheus's http_sd form."""

    every = EVERY

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self.name = f"service discovery {redacted(url)}"
        self._url = url
        self._bounds = Bounds(timeout_s, _LIMIT_BYTES)
        self._session = requests.Session()

    def find(self) -> Found:
        answer = exchange(self._session, requests.Request("GET", self._url), self._bounds, component=self.name)
        if answer.status != requests.codes.ok:
            raise Unavailable(self.name, f"answered with status {answer.status}; check its log")
        try:
            return Found(decode(answer.body, list[TargetGroup]))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Unavailable(self.name, f"answered with something else than target groups: {error}") from error

    def close(self) -> None:
        self._session.close()


@dataclass(frozen=True, slots=True)
class _File:
    """Attributes:
    stamp: by which a changed file is known.
    """

    stamp: tuple[int, ...]
    groups: Sequence[TargetGroup]


@dataclass(slots=True)
class FileTargets:
    """Files in Prometheus's file_sd form, JSON or YAML, read again when they change.

    Attributes:
        patterns: paths, in which `*` stands for any part of a name.
    """

    patterns: Sequence[str]
    every: timedelta = timedelta(0)
    _files: dict[str, _File] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"target files {', '.join(self.patterns)}"

    def find(self) -> Found:
        paths = sorted({path for pattern in self.patterns for path in glob.glob(pattern)})  # noqa: PTH207 - of any folder
        if not paths:
            raise Unavailable(self.name, "no file has such a name; check telemetry.scrape.files")
        files: dict[str, _File] = {}
        warnings: list[str] = []
        for path in paths:
            before = self._files.get(path)
            try:
                files[path] = _read(path, before)
            except Unavailable as error:
                warnings.append(f"{error}{_AS_BEFORE if before else ''}")
                if before:
                    files[path] = before
        self._files = files
        return Found([group for file in files.values() for group in file.groups], tuple(warnings))

    def close(self) -> None:
        """Nothing is open between two looks."""


def _read(path: str, before: _File | None) -> _File:
    """The file as it is now, or as it was `before` if it has not changed or still does. Raises Unavailable."""
    component = f"target file {path}"
    try:
        stamp = _stamp(path)
        if before and (stamp == before.stamp or abs(time.time() - stamp[0] / 1e9) < _SETTLED_S):
            return before
        text = Path(path).read_bytes()
        if _stamp(path) != stamp:
            raise Unavailable(component, "changes while it is being read; write another and rename it")
        return _File(stamp, _groups(path, text))
    except OSError as error:
        raise Unavailable(component, f"cannot be read: {error.strerror or type(error).__name__}") from error
    except (msgspec.MsgspecError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        cause = " ".join(str(error).split())[:200]
        raise Unavailable(component, f"holds something else than target groups: {cause}") from error


def _groups(path: str, text: bytes) -> list[TargetGroup]:
    if path.endswith(".json"):
        return decode(text, list[TargetGroup])
    # Every scalar is text: a rack may well be named 7.
    return convert(yaml.load(text, Loader=yaml.BaseLoader), list[TargetGroup])  # noqa: S506 - it makes no objects


def _stamp(path: str) -> tuple[int, ...]:
    status = os.stat(path)  # noqa: PTH116 - globbing gave a string
    return status.st_mtime_ns, status.st_size, status.st_ino
