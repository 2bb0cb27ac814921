"""Pickles are read without running anything: plain data as Python reads it, everything else refused by name."""

from __future__ import annotations

import contextlib
import copyreg
import os
import pickle
import pickletools
import struct
import time
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.errors import Unavailable
from healer.telemetry.nccl.plain_pickle import Bounds, Plain, read_plain

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)

_scalars = st.none() | st.booleans() | st.integers(-(2**2000), 2**2000) | st.text() | st.floats(allow_nan=False)
_plain = st.recursive(
    _scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=40,
)


@given(value=_plain, protocol=st.sampled_from(PROTOCOLS))
def test_plain_data_is_what_python_makes_of_it(value: Plain, protocol: int) -> None:
    assert read_plain(pickle.dumps(value, protocol), name="dump") == value


def test_a_tuple_of_nothing_may_be_written_in_two_ways() -> None:
    assert read_plain(b"\x80\x02(t.", name="dump") == read_plain(b"\x80\x02).", name="dump") == ()


def test_what_is_in_it_twice_is_one_object() -> None:
    frame = {"name": "step", "line": 12}
    found = read_plain(pickle.dumps([frame, frame]), name="dump")
    assert isinstance(found, list)
    assert found[0] is found[1]


@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"\x80\x02", b"\x80\x04\x95", b"\x80\x02]q\x00("]))
def test_any_bytes_are_plain_data_or_refused(data: bytes, start: bytes) -> None:
    with contextlib.suppress(Unavailable):
        read_plain(start + data, name="dump")


_codes = st.sampled_from([op.code.encode("latin-1") for op in pickletools.opcodes])


@given(codes=st.lists(_codes, max_size=60).map(b"".join), data=st.binary(max_size=20))
def test_any_instructions_are_plain_data_or_refused(codes: bytes, data: bytes) -> None:
    with contextlib.suppress(Unavailable):
        read_plain(b"\x80\x04" + codes + data + b".", name="dump")


# Programs


class _Runs:
    """Pickled as a call."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call = call
        self.arguments = arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.arguments


class _Restored:
    """Pickled with a state that it is given back."""

    def __init__(self) -> None:
        self.state = 1


def _touch(path: Path) -> str:
    return f"touch {path}"


def _by_hand(module: str, name: str, argument: str) -> bytes:
    """In the oldest protocol, in which instructions are text."""
    return f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()


PROGRAMS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "os.system": (lambda mark: pickle.dumps(_Runs(os.system, _touch(mark)), 2), "GLOBAL of posix.system"),
    "os.system, protocol 4": (lambda mark: pickle.dumps(_Runs(os.system, _touch(mark)), 4), "STACK_GLOBAL of posix"),
    "eval": (
        lambda mark: pickle.dumps(_Runs(eval, f"open({str(mark)!r}, 'w')"), 4),
        "STACK_GLOBAL of builtins.eval",
    ),
    "deep inside of a dump": (
        lambda mark: pickle.dumps({"version": "2.4", "entries": [{"frames": [_Runs(os.system, _touch(mark))]}]}, 4),
        "STACK_GLOBAL",
    ),
    "as the key of a dict": (lambda mark: pickle.dumps({_Runs(os.system, _touch(mark)): 1}, 2), "GLOBAL"),
    "by hand": (lambda mark: _by_hand("os", "system", _touch(mark)), "GLOBAL of os.system"),
    "INST": (lambda _: b"\x80\x02(X\x05\x00\x00\x00touchios\nsystem\n.", "INST of os.system"),
    "OBJ": (lambda _: b"\x80\x02(X\x05\x00\x00\x00toucho.", "OBJ"),
    "an object with a state": (lambda _: pickle.dumps(_Restored(), 2), "GLOBAL of .*_Restored"),
    "copyreg's extensions": (lambda _: b"\x80\x02\x82\x01.", "EXT1"),
    "a persistent id": (lambda _: b"\x80\x02Pid\n.", "PERSID"),
    "a persistent id from the stack": (lambda _: b"\x80\x02K\x01Q.", "BINPERSID"),
    "REDUCE without a function": (lambda _: b"\x80\x02K\x01)R.", "REDUCE"),
    "BUILD": (lambda _: b"\x80\x02}}b.", "BUILD"),
    "NEWOBJ": (lambda _: b"\x80\x02K\x01)\x81.", "NEWOBJ"),
    "a subclass of dict": (lambda _: pickle.dumps(OrderedDict(a=1), 4), "STACK_GLOBAL of collections.OrderedDict"),
    "a path": (lambda _: pickle.dumps(Path("/etc/passwd"), 4), "STACK_GLOBAL of pathlib"),
    "bytes outside of the stream": (lambda _: b"\x80\x05\x97.", "NEXT_BUFFER"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_pickle_that_would_run_something_is_refused_by_name_and_does_not_run(program: str, tmp_path: Path) -> None:
    make, names = PROGRAMS[program]
    mark = tmp_path / "it_ran"

    with pytest.raises(Unavailable, match=rf"^/dumps/rank_0: is no plain pickle: .*({names})"):
        read_plain(make(mark), name="/dumps/rank_0")

    assert not mark.exists()


def test_what_the_running_process_has_registered_with_copyreg_does_not_run_either(tmp_path: Path) -> None:
    mark = tmp_path / "it_ran"
    copyreg.add_extension("os", "system", 240)
    try:
        with pytest.raises(Unavailable, match="EXT1"):
            read_plain(b"\x80\x02\x82\xf0X\x05\x00\x00\x00touch\x85R.", name="dump")
    finally:
        copyreg.remove_extension("os", "system", 240)
    assert not mark.exists()


def test_the_same_programs_do_run_in_pythons_own_reader(tmp_path: Path) -> None:
    mark = tmp_path / "it_ran"
    pickle.loads(PROGRAMS["eval"][0](mark)).close()
    assert mark.exists()


# Bombs


def _length(code: bytes, width: str, length: int) -> bytes:
    return b"\x80\x04" + code + struct.pack(width, length) + b"x."


def _nested(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def _tuple_in_itself() -> bytes:
    inner: list[object] = []
    outer = (inner,)
    inner.append(outer)
    return pickle.dumps(outer, 2)


BOMBS = {
    "a number of two billion bytes": (_length(b"\x8b", "<i", 2**31 - 1), "LONG4"),
    "a text of exabytes": (_length(b"\x8d", "<Q", 2**62), "ends within a value"),
    "a text of gigabytes": (_length(b"X", "<I", 2**32 - 1), "ends within a value"),
    "a byte array of exabytes": (_length(b"\x96", "<Q", 2**62), "BYTEARRAY8"),
    "bytes of gigabytes": (_length(b"B", "<I", 2**32 - 1), "BINBYTES"),
    "a frame of exabytes": (_length(b"\x95", "<Q", 2**62), "ends within|no instruction|ends without"),
    "kept as number four billion": (b"\x80\x02]r\xff\xff\xff\xffj\xff\xff\xff\xff", "ends without STOP"),
    "recalls what was never kept": (b"\x80\x02h\x05.", "recalls 5"),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "already part of another"),
    "two lists in each other": (b"\x80\x02]q\x00]q\x01h\x00aa.", "already part of another"),
    "a dict in itself": (b"\x80\x02}q\x00K\x01h\x00s.", "already part of another"),
    "a tuple in itself": (_tuple_in_itself(), "already part of another"),
    "nested a hundred deep": (_nested(100), "nested more than 32 deep"),
    "nested a hundred deep, from the inside": (b"\x80\x02)" + b"\x85" * 100 + b".", "nested more than 32 deep"),
    "a tuple as a key": (b"\x80\x02}K\x01\x85K\x01s.", "a key is no text"),
    "a float as a key": (b"\x80\x02}G" + struct.pack(">d", float("nan")) + b"K\x01s.", "a key is no text"),
    "numbers that clash as keys": (pickle.dumps({i * (2**61 - 1): 0 for i in range(9)}, 2), "a key is no text"),
    "a mark that is missing": (b"\x80\x02]K\x01e.", "a mark is missing"),
    "a mark as a value": (b"\x80\x02(.", "a value is missing"),
    "a value that is missing": (b"\x80\x02.", "a value is missing"),
    "a key without a value": (b"\x80\x02}(K\x01u.", "do not make a dict"),
    "appended to a number": (b"\x80\x02K\x01K\x01a.", "no list"),
    "text that is none": (b"\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"),
    "an end that is missing": (b"\x80\x02", "ends without STOP"),
    "nothing": (b"", "ends without STOP"),
    "a byte that is no instruction": (b"\x80\x02\xff.", "0xff"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_would_take_more_than_its_size_is_refused(bomb: str) -> None:
    data, why = BOMBS[bomb]
    tracemalloc.start()
    try:
        with pytest.raises(Unavailable, match=why):
            read_plain(data, name="dump")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("data", "bounds", "why"),
    [
        (pickle.dumps(list(range(100))), Bounds(size=50), "more than 50 are not read"),
        (pickle.dumps(list(range(100))), Bounds(steps=50), "more than 50 instructions"),
        (pickle.dumps([[i] for i in range(100)]), Bounds(kept=50), "more than 50 (containers|values)"),
        (pickle.dumps([str(i) for i in range(100)]), Bounds(kept=50), "keeps more than 50 values"),
        (_nested(5), Bounds(depth=4), "nested more than 4 deep"),
    ],
    ids=["bytes", "instructions", "containers", "kept values", "depth"],
)
def test_everything_is_bounded(data: bytes, bounds: Bounds, why: str) -> None:
    with pytest.raises(Unavailable, match=why):
        read_plain(data, name="dump", bounds=bounds)


@pytest.mark.parametrize("filler", [b"N", b"]", b"(", b"\x94", b"K\x01"], ids=["None", "lists", "marks", "kept", "1"])
def test_a_large_file_of_nothing_ends_soon_and_takes_bounded_memory(filler: bytes) -> None:
    data = b"\x80\x04N" + filler * ((1 << 20) // len(filler))
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(Unavailable):
            read_plain(data, name="dump", bounds=Bounds(steps=200_000, kept=100_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert time.monotonic() - began < 30


@settings(max_examples=50)
@given(value=_plain, place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_dump_with_one_byte_changed_is_read_or_refused(value: Plain, place: int, byte: int) -> None:
    data = bytearray(pickle.dumps(value, 2))
    data[place % len(data)] = byte
    with contextlib.suppress(Unavailable):
        read_plain(bytes(data), name="dump")
