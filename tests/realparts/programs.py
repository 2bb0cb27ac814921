"""Where the real parts of the tests are found on this machine, or the one line that says how to get them.

Prometheus 2.x comes from the system; Prometheus 3.x and VictoriaMetrics from the cache that `make parts` fills.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

_HOW_TO_GET = {
    "alertmanager": "apt-get install prometheus-alertmanager",
    "postgresql": "apt-get install postgresql",
    "prometheus": "apt-get install prometheus",
    "prometheus3": "make parts",
    "victoriametrics": "make parts",
}


def installed(program: str) -> Path | None:
    """A program of the system."""
    found = shutil.which(program)
    return None if found is None else Path(found)


def fetched(package: str, program: str) -> Path | None:
    """A program of the newest `package` that fetch.sh has unpacked."""
    xdg = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("HEALER_PARTS_CACHE") or Path(xdg) / "healer" / "parts")
    found = [path for path in cache.glob(f"{package}-[0-9]*/{program}") if os.access(path, os.X_OK)]
    return max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.parent.name)], default=None)


def absent(part: str) -> NoReturn:
    """Skip the test that needs `part`, or fail it if HEALER_TEST_REQUIRE names the part."""
    text = f"no {part} on this machine; to get it: {_HOW_TO_GET[part]}"
    if part in re.split(r"[,\s]+", os.environ.get("HEALER_TEST_REQUIRE", "")):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
