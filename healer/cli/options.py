"""What the commands share: the options, where the configuration is looked for, and how data is printed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

import healer
from healer.config import Config, load_config
from healer.decoding import convert
from healer.errors import HealerError
from healer.schema import parse_duration, parse_moment

_P = ParamSpec("_P")
_R = TypeVar("_R")
_View = TypeVar("_View", bound=msgspec.Struct)
_SYSTEM_CONFIG = Path("/etc/healer/config.yaml")
_WIDE = 1000


class DurationType(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            span = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if span <= timedelta(0):
            self.fail(f"{value!r} is not longer than zero", param, ctx)
        return span


class MomentType(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return parse_moment(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def config_option(command: Callable[_P, _R]) -> Callable[_P, _R]:
    option: Callable[[Callable[_P, _R]], Callable[_P, _R]] = click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        default=None,
        help="Default: ./config.yaml, then /etc/healer/config.yaml, then the reference deployment.",
    )
    return option(command)


def json_option(command: Callable[_P, _R]) -> Callable[_P, _R]:
    option: Callable[[Callable[_P, _R]], Callable[_P, _R]] = click.option(
        "--json", "as_json", is_flag=True, help="Print JSON."
    )
    return option(command)


def find_config(given: Path | None) -> Config:
    """The configuration that was given, else the default one. Raises InvalidDocument."""
    return load_config(given or default_config())


def default_config() -> Path:
    """The first place that has a configuration."""
    places = (Path("config.yaml"), _SYSTEM_CONFIG, reference_folder() / "config.yaml")
    return next(place for place in places if place.is_file())


@functools.cache
def reference_folder() -> Path:
    """The reference deployment: inside the wheel, or the project's root in a checkout."""
    package = Path(healer.__file__).parent
    inside = package / "_reference"
    return inside if inside.is_dir() else package.parent


def view_of(item: dict[str, Any], kind: type[_View], *, what: str) -> _View:
    """An item of the daemon's API. Raises HealerError if the daemon's version says less of it than is asked for."""
    try:
        return convert(item, kind)
    except msgspec.ValidationError as error:
        raise HealerError(f"the daemon describes {what} in another way, is it of another version? {error}") from error


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    if not rows:
        click.echo(empty)
        return
    # What is read by a program, or cut by `awk`, must be whole: only a terminal has a width to keep to.
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    console.print(table)


def one_line(text: str) -> str:
    """What telemetry, pods or people wrote, so that it can neither move the cursor nor pretend to be another line."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def age(at: datetime, now: datetime) -> str:
    seconds = (now - at).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"
