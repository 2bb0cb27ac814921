"""Who is to be scraped: lists, files, services and the DNS. Whoever cannot say so leaves what was known."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from healer.adapters.scrape.discovery import (
    Discovery,
    FileTargets,
    Found,
    HttpTargets,
    Target,
    TargetGroup,
    TargetSource,
    target_at,
)
from healer.adapters.scrape.dns import DnsTargets, Record
from healer.errors import Rejected, Unavailable
from tests.canned_http import Canned, canned_server

AT = datetime(2026, 3, 1, tzinfo=UTC)
LATER = AT + timedelta(minutes=2)
PLENTY_S = 10.0
LONG_AGO = 1_700_000_000


@dataclass(slots=True)
class Told:
    """A source that says what the test says."""

    answer: Callable[[], Found]
    name: str = "told"
    every: timedelta = timedelta(seconds=60)
    asked: int = 0
    closed: bool = False

    def find(self) -> Found:
        self.asked += 1
        return self.answer()

    def close(self) -> None:
        self.closed = True


def found(*addresses: str, **labels: str) -> Found:
    return Found([TargetGroup(list(addresses), labels)])


@contextmanager
def discovering(
    *sources: TargetSource, fixed: tuple[str, ...] = (), timeout_s: float = PLENTY_S
) -> Iterator[Discovery]:
    with closing(Discovery(fixed, sources, timeout_s=timeout_s)) as discovery:
        yield discovery


def urls(targets: tuple[Target, ...]) -> list[str]:
    return [target.url for target in targets]


@pytest.mark.parametrize(
    ("address", "labels", "url", "shown"),
    [
        ("n1:9400", {}, "http://n1:9400/metrics", {"instance": "n1:9400"}),
        ("n1", {}, "http://n1/metrics", {"instance": "n1"}),
        ("https://n1:9400/gpu", {}, "https://n1:9400/gpu", {"instance": "n1:9400"}),
        ("http://n1:9400?kind=a", {}, "http://n1:9400/metrics?kind=a", {"instance": "n1:9400"}),
        ("http://me:secret@n1:9400", {}, "http://me:secret@n1:9400/metrics", {"instance": "n1:9400"}),
        ("[fd00::1]:9400", {}, "http://[fd00::1]:9400/metrics", {"instance": "[fd00::1]:9400"}),
        (
            "n1:9400",
            {"__scheme__": "https", "__metrics_path__": "/gpu", "__param_a": "b c", "__meta_x": "y", "rack": "r1"},
            "https://n1:9400/gpu?a=b+c",
            {"instance": "n1:9400", "rack": "r1"},
        ),
        ("n1:9400", {"instance": "node-1"}, "http://n1:9400/metrics", {"instance": "node-1"}),
    ],
)  # fmt: skip
def test_an_address_and_its_labels_make_a_target(
    address: str, labels: dict[str, str], url: str, shown: dict[str, str]
) -> None:
    assert target_at(address, labels) == Target(url, shown)


def test_all_sources_are_put_together_each_target_once() -> None:
    first, second = Told(lambda: found("a:1", "b:1")), Told(lambda: found("b:1", "c:1"))
    with discovering(first, second, fixed=("a:1", "d:1")) as discovery:
        targets, warnings = discovery.targets(AT)
    assert urls(targets) == [f"http://{name}:1/metrics" for name in "adbc"]
    assert warnings == ()
    assert first.closed


def test_the_same_address_with_other_labels_is_another_target() -> None:
    with discovering(Told(lambda: found("a:1", node="x")), Told(lambda: found("a:1", node="y"))) as discovery:
        assert [target.labels["node"] for target in discovery.targets(AT)[0]] == ["x", "y"]


def test_an_answer_counts_for_its_time_and_the_same_targets_are_the_same_object() -> None:
    source = Told(lambda: found("a:1"))
    with discovering(source) as discovery:
        first, _ = discovery.targets(AT)
        assert discovery.targets(AT + timedelta(seconds=59))[0] is first
        assert source.asked == 1
        assert discovery.targets(AT + timedelta(seconds=60))[0] is first
        assert source.asked == 2
        source.answer = lambda: found("b:1")
        assert urls(discovery.targets(LATER)[0]) == ["http://b:1/metrics"]


def _fails(error: Exception) -> Callable[[], Found]:
    def answer() -> Found:
        raise error

    return answer


@pytest.mark.parametrize("error", [Unavailable("told", "is down"), Rejected("told", "says no")], ids=type)
def test_a_source_that_fails_leaves_what_it_said_and_is_asked_again_at_once(error: Exception) -> None:
    source = Told(lambda: found("a:1"))
    with discovering(source) as discovery:
        before, _ = discovery.targets(AT)
        source.answer = _fails(error)
        targets, warnings = discovery.targets(LATER)
        assert targets is before
        assert warnings == (f"{error}; the targets found earlier are used",)
        source.answer = lambda: found("b:1")
        targets, warnings = discovery.targets(LATER + timedelta(seconds=1))
        assert (urls(targets), warnings) == (["http://b:1/metrics"], ())


def test_a_source_that_fails_at_first_leaves_the_targets_of_the_others() -> None:
    with discovering(Told(_fails(Unavailable("told", "is down"))), fixed=("a:1",)) as discovery:
        targets, warnings = discovery.targets(AT)
    assert (urls(targets), warnings) == (["http://a:1/metrics"], ("told: is down",))


def test_a_source_that_suddenly_names_nobody_is_not_believed() -> None:
    source = Told(lambda: found("a:1"))
    with discovering(source) as discovery:
        before, _ = discovery.targets(AT)
        source.answer = lambda: Found([])
        targets, warnings = discovery.targets(LATER)
        assert targets is before
        assert warnings == ("told: names no targets any more; the targets found earlier are used",)
        assert discovery.targets(LATER + timedelta(seconds=30))[1] == warnings
        source.answer = lambda: found("b:1")
        targets, warnings = discovery.targets(LATER + timedelta(minutes=1))
        assert (urls(targets), warnings) == (["http://b:1/metrics"], ())


def test_a_source_that_hangs_is_waited_for_once_and_its_answer_is_used_when_it_comes() -> None:
    hanging, answered = threading.Event(), threading.Event()

    def answer() -> Found:
        assert hanging.wait(PLENTY_S)
        answered.set()
        return found("late:1")

    with discovering(Told(answer), Told(lambda: found("a:1")), timeout_s=0.3) as discovery:
        try:
            targets, warnings = discovery.targets(AT)
            assert urls(targets) == ["http://a:1/metrics"]
            assert warnings == ("told: gives no answer within 0.3 s",)
            began = time.monotonic()
            for turn in range(20):
                discovery.targets(AT + timedelta(seconds=turn))
            assert time.monotonic() - began < 0.3
        finally:
            hanging.set()
        assert answered.wait(PLENTY_S)
        deadline = time.monotonic() + PLENTY_S
        while len(targets) < 2 and time.monotonic() < deadline:
            targets, warnings = discovery.targets(LATER)
        assert urls(targets) == ["http://late:1/metrics", "http://a:1/metrics"]
        assert warnings == ()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Canned(b"<html>"), "something else than target groups"),
        (Canned(b'{"targets": []}'), "something else than target groups"),
        (Canned(b'[{"targets": [1]}]'), "something else than target groups"),
        (Canned(b"\xff"), "something else than target groups"),
        (Canned(b"[" * 100_000), "something else than target groups"),
        (Canned(status=404), "status 404"),
        (Canned(b"[]", declared_length=9), "broke off"),
        (Canned(stalls=True), "no whole answer within 0.3 s"),
        (Canned(status=302, headers={"Location": "http://x/?secret"}), "redirects to http://x/;"),
    ],
)
def test_a_service_that_answers_nonsense_is_unavailable(answer: Canned, text: str) -> None:
    with (
        canned_server(lambda _: answer) as web,
        closing(HttpTargets(f"{web.url}/sd?secret", timeout_s=0.3)) as source,
        pytest.raises(Unavailable, match=text) as caught,
    ):
        source.find()
    assert "secret" not in str(caught.value)


def _written(path: Path, text: str | bytes, *, at: float = LONG_AGO) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    os.utime(path, (at, at))
    return path


YAML = """
# a rack
- targets: [n1:9400, n2:9400]
  labels: {rack: 7, feed: on}
- targets:
    - n3:9400
"""


def test_files_are_read_as_prometheus_reads_them(tmp_path: Path) -> None:
    _written(tmp_path / "a.json", json.dumps([{"targets": ["n0:9400"], "labels": {"rack": "6"}}]))
    _written(tmp_path / "b.yml", YAML)
    _written(tmp_path / "c.txt", "not ours")
    source = FileTargets([str(tmp_path / "*.json"), str(tmp_path / "*.yml"), str(tmp_path / "b*")])
    assert source.find() == Found(
        [
            TargetGroup(["n0:9400"], {"rack": "6"}),
            TargetGroup(["n1:9400", "n2:9400"], {"rack": "7", "feed": "on"}),
            TargetGroup(["n3:9400"]),
        ]
    )


def test_a_file_that_changes_comes_or_goes_is_noticed_at_the_next_read(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.yml", "- targets: [a:1]")
    with discovering(FileTargets([str(tmp_path / "*.yml")])) as discovery:
        assert urls(discovery.targets(AT)[0]) == ["http://a:1/metrics"]
        _written(path, "- targets: [b:1]", at=LONG_AGO + 1)
        assert urls(discovery.targets(AT)[0]) == ["http://b:1/metrics"]
        _written(tmp_path / "b.yml", "- targets: [c:1]")
        assert urls(discovery.targets(AT)[0]) == ["http://b:1/metrics", "http://c:1/metrics"]
        path.unlink()
        assert urls(discovery.targets(AT)[0]) == ["http://c:1/metrics"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '[{"targets": ["b:1"'),
        ("a.json", '[{"targets": "b:1"}]'),
        ("a.json", b"\xff\xfe"),
        ("a.json", ""),
        ("a.yml", "- targets: [b:1"),
        ("a.yml", "targets: [b:1]"),
        ("a.yml", b"- targets: [\xff]"),
        ("a.yml", "- !!python/object/apply:os.system ['true']"),
        ("a.yml", "[" * 50_000),
        ("a.yml", ""),
    ],
)
def test_a_half_written_file_keeps_its_earlier_targets_and_warns(tmp_path: Path, name: str, text: str | bytes) -> None:
    path = _written(tmp_path / name, '[{"targets": ["a:1"]}]')
    other = _written(tmp_path / "other.json", '[{"targets": ["o:1"]}]')
    with discovering(FileTargets([str(path), str(other)])) as discovery:
        discovery.targets(AT)
        _written(path, text, at=LONG_AGO + 1)
        _written(other, '[{"targets": ["p:1"]}]', at=LONG_AGO + 1)
        for _ in range(2):
            targets, warnings = discovery.targets(AT)
            assert urls(targets) == ["http://a:1/metrics", "http://p:1/metrics"]
            assert len(warnings) == 1
            assert f"target file {path}: holds something else than target groups" in warnings[0]
            assert "earlier are used" in warnings[0]
        _written(path, '[{"targets": ["b:1"]}]', at=LONG_AGO + 2)
        targets, warnings = discovery.targets(AT)
        assert (urls(targets), warnings) == (["http://b:1/metrics", "http://p:1/metrics"], ())


def test_a_file_that_was_changed_a_moment_ago_is_believed_a_moment_later(tmp_path: Path) -> None:
    """Half of a list is a list, too."""
    path = _written(tmp_path / "a.yml", "- targets: [a:1, b:1]")
    source = FileTargets([str(path)])
    before = source.find()
    _written(path, "- targets: [a:1]", at=time.time())
    assert source.find() == before
    os.utime(path, (LONG_AGO + 1, LONG_AGO + 1))
    assert source.find() == found("a:1")


def test_a_new_file_is_believed_at_once(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.yml", "- targets: [a:1]", at=time.time())
    assert FileTargets([str(path)]).find() == found("a:1")


def test_without_any_file_there_is_an_error_and_later_what_was_there(tmp_path: Path) -> None:
    pattern = str(tmp_path / "*.yml")
    with discovering(FileTargets([pattern])) as discovery:
        targets, warnings = discovery.targets(AT)
        assert targets == ()
        assert f"target files {pattern}: no file has such a name" in warnings[0]
        path = _written(tmp_path / "a.yml", "- targets: [a:1]")
        targets, _ = discovery.targets(AT)
        path.unlink()
        kept, warnings = discovery.targets(AT)
        assert kept is targets
        assert "earlier are used" in warnings[0]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yml").mkdir()
    with discovering(FileTargets([str(tmp_path / "*.yml")]), fixed=("x:1",)) as discovery:
        assert "a.yml: cannot be read: Is a directory" in discovery.targets(AT)[1][0]


Zone: TypeAlias = dict[tuple[str, str], list[str]]


@dataclass(slots=True)
class NameServer:
    """Answers over UDP, and over TCP what is too long for it."""

    zone: Zone
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    mute: bool = False
    port: int = 0
    over_tcp: int = 0
    _udp: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    _tcp: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._tcp.bind(("127.0.0.1", 0))
        self._tcp.listen()
        self.port = self._tcp.getsockname()[1]
        self._udp.bind(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=self._serve_udp), threading.Thread(target=self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._udp.sendto(b"", self._udp.getsockname())
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while True:
            wire, client = self._udp.recvfrom(65536)
            if not wire:
                return
            if not self.mute:
                answer = self._answer(wire)
                text = answer.to_wire()
                if len(text) > 1232:
                    answer.answer.clear()
                    answer.flags |= dns.flags.TC
                    text = answer.to_wire()
                self._udp.sendto(text, client)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            with connection:
                size = connection.recv(2)
                if not size:
                    return
                self.over_tcp += 1
                wire = self._answer(connection.recv(*struct.unpack("!H", size))).to_wire()
                connection.sendall(struct.pack("!H", len(wire)) + wire)

    def _answer(self, wire: bytes) -> dns.message.Message:
        query = dns.message.from_wire(wire)
        answer = dns.message.make_response(query)
        (question,) = query.question
        kind = question.rdtype.name
        records = self.zone.get((question.name.to_text(), kind))
        known = {name for name, _ in self.zone}
        answer.set_rcode(self.rcode if question.name.to_text() in known or self.rcode else dns.rcode.NXDOMAIN)
        if records and not self.rcode:
            answer.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", kind, records))
        return answer


@pytest.fixture
def names() -> Iterator[NameServer]:
    server = NameServer({})
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _in_dns(names: NameServer, domain: str, record: Record, port: int | None = None) -> DnsTargets:
    return DnsTargets(domain, record, port, timeout_s=2.0, server=("127.0.0.1", names.port))


def test_addresses_of_a_name_are_targets_in_an_order_that_stays(names: NameServer) -> None:
    addresses = ["10.0.0.7", "10.0.0.12", "10.0.0.3"]
    source = _in_dns(names, "exporters.example", Record.A, 9400)
    for _ in range(3):
        names.zone["exporters.example.", "A"] = addresses
        assert source.find() == found("10.0.0.12:9400", "10.0.0.3:9400", "10.0.0.7:9400")
        addresses = addresses[1:] + addresses[:1]


def test_addresses_of_version_six_are_targets(names: NameServer) -> None:
    names.zone["exporters.example.", "AAAA"] = ["fd00::2", "fd00::1"]
    assert _in_dns(names, "exporters.example", Record.AAAA, 9400).find() == found("[fd00::1]:9400", "[fd00::2]:9400")


def test_service_records_bring_their_ports(names: NameServer) -> None:
    names.zone["_metrics._tcp.exporters.example.", "SRV"] = ["0 50 9401 b.example.", "0 50 9400 a.example."]
    assert _in_dns(names, "_metrics._tcp.exporters.example", Record.SRV).find() == found(
        "a.example:9400", "b.example:9401"
    )


def test_thousands_of_service_records_are_all_found(names: NameServer) -> None:
    records = [f"0 1 9400 gpu-{number:05}.example." for number in range(1500)]
    names.zone["many.example.", "SRV"] = records
    (group,) = _in_dns(names, "many.example", Record.SRV).find().groups
    assert group.targets == [f"gpu-{number:05}.example:9400" for number in range(1500)]
    assert names.over_tcp == 1


def _no_such_name(names: NameServer) -> None:
    names.zone = {}


def _no_record(names: NameServer) -> None:
    names.zone = {("exporters.example.", "TXT"): ["x"]}


def _server_failure(names: NameServer) -> None:
    names.rcode = dns.rcode.SERVFAIL


def _silence(names: NameServer) -> None:
    names.mute = True


@pytest.mark.parametrize(
    ("breaks", "text"),
    [
        (_no_such_name, "there is no such name"),
        (_no_record, "does not contain an answer"),
        (_server_failure, "SERVFAIL"),
        (_silence, "timed out|lifetime expired"),
    ],
)
def test_a_name_that_cannot_be_resolved_keeps_its_earlier_targets(
    names: NameServer, breaks: Callable[[NameServer], None], text: str
) -> None:
    names.zone["exporters.example.", "A"] = ["10.0.0.1"]
    source = _in_dns(names, "exporters.example", Record.A, 9400)
    with discovering(source) as discovery:
        before, _ = discovery.targets(AT)
        breaks(names)
        with pytest.raises(Unavailable, match=text):
            source.find()
        targets, warnings = discovery.targets(LATER)
    assert targets is before
    assert warnings[0].startswith("DNS A exporters.example: ")
    assert warnings[0].endswith("the targets found earlier are used")


def test_a_name_that_is_none_is_said_to_be_none() -> None:
    source = DnsTargets("a" * 64 + ".example", Record.A, 9400, timeout_s=1.0, server=("127.0.0.1", 1))
    with pytest.raises(Unavailable, match="cannot be resolved"):
        source.find()
