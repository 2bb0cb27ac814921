"""What is shipped: one importable package, the reference deployment inside of it, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = "healer/_reference/"
CONTENT = ("config.yaml", "detectors", "playbooks", "models")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    built = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *build],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("healer-*-py3-none-any.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_only_healer_can_be_imported(names: list[str]) -> None:
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"healer"}


def test_every_file_of_the_package_is_in_it(names: list[str]) -> None:
    files = [path for path in (ROOT / "healer").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in files} == {
        name for name in names if name.startswith("healer/") and not name.startswith(REFERENCE)
    }


def test_the_reference_deployment_is_in_it_as_it_is_in_the_checkout(wheel: Path, names: list[str]) -> None:
    shipped = {name.removeprefix(REFERENCE) for name in names if name.startswith(REFERENCE)}
    assert {name.partition("/")[0] for name in shipped} == set(CONTENT)
    roots = [ROOT / name for name in CONTENT]
    files = [path for root in roots for path in (root, *root.rglob("*")) if path.is_file()]
    assert shipped == {p.relative_to(ROOT).as_posix() for p in files if "__pycache__" not in p.parts}
    with zipfile.ZipFile(wheel) as archive:
        for name in shipped:
            assert archive.read(REFERENCE + name) == (ROOT / name).read_bytes()


def test_neither_tests_nor_anything_built_is_in_it(names: list[str]) -> None:
    assert not [name for name in names if name.endswith(".pyc") or Path(name).name.startswith(("test_", "conftest"))]


def test_its_command_is_healer(wheel: Path, names: list[str]) -> None:
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(entry_points).decode().split("\n")[:2] == ["[console_scripts]", "healer = healer.cli:main"]


def test_from_the_wheel_alone_init_writes_a_deployment_that_check_accepts(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "wheel")
    # The checkout must not be importable; the libraries beside it must be.
    program = """
import sys
wheel, folder = sys.argv[1:]
sys.path[:] = [wheel, *(path for path in sys.path if "lib" in path)]
import healer.cli
assert healer.__file__.startswith(wheel), healer.__file__
for command in ("init", "check"):
    sys.argv[1:] = [command, folder]
    healer.cli.main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "wheel"), str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("\nok\n")
