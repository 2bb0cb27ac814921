"""Typed decoding in several threads: what is learnt of a type is complete before anybody uses it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Four threads meet one type after the other for the first time, at once.
STORM = """
import sys, threading, msgspec
from dataclasses import make_dataclass
from healer.decoding import decode
sys.setswitchinterval(1e-6)
fields = [(f"f{i}", int) for i in range(20)]
document = msgspec.json.encode({f"part{i}": {f"f{j}": j for j in range(20)} for i in range(6)})
for number in range(300):
    parts = [(f"part{i}", make_dataclass(f"Part{number}{i}", fields)) for i in range(6)]
    kind, together, done = make_dataclass(f"Whole{number}", parts), threading.Barrier(4), []
    def meet():
        together.wait()
        done.append(decode(document, kind))
    threads = [threading.Thread(target=meet) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(done) == 4
"""


def test_threads_that_meet_a_type_at_once_decode_by_it() -> None:
    """With msgspec's own decode the process ends with SIGSEGV, almost at once."""
    assert subprocess.run([sys.executable, "-c", STORM], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("folder", ["healer", "detectors", "models"])
def test_nothing_else_has_msgspec_learn_a_type(folder: str) -> None:
    learns = re.compile(r"msgspec\.(json\.|msgpack\.|yaml\.)?(convert\(|Decoder\(|decode\([^\n]*type=)")
    files = [path for path in (ROOT / folder).rglob("*.py") if path.name != "decoding.py"]
    assert [str(path) for path in files if learns.search(path.read_text(encoding="utf-8"))] == []
