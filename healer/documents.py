"""YAML documents with the line of every key, so that each problem can be shown where it stands.

Strict on purpose: a key twice, a tag, or an alias that hides what is meant is an error, not a surprise.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from healer.errors import InvalidDocument, Problem

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
KeyPath = tuple[str | int, ...]

_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass(frozen=True, slots=True)
class Document:
    """Attributes:
    lines: the line of each key, by its path from the root.
    """

    file: str
    text: str
    content: Plain
    lines: dict[KeyPath, int]

    def problem(self, path: KeyPath, text: str, hint: str = "") -> Problem:
        """A problem at `path`, on the line of the nearest key that is really there."""
        near = path
        while near not in self.lines and near:
            near = near[:-1]
        return Problem(self.file, self.lines.get(near, 1), dotted(path), text, hint)


def read_document(path: Path) -> Document:
    """Raises InvalidDocument: missing file, not UTF-8, not YAML, a duplicate key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidDocument(Problem(str(path), 0, "", "no such file")) from None
    except UnicodeDecodeError as error:
        raise InvalidDocument(Problem(str(path), 0, "", f"not UTF-8 at byte {error.start}")) from error
    except OSError as error:
        raise InvalidDocument(Problem(str(path), 0, "", f"cannot be read: {error.strerror}")) from error
    return parse_document(text, file=str(path))


def parse_document(text: str, *, file: str) -> Document:
    """Raises InvalidDocument."""
    try:
        # An alias can make a document that is endless, or huge; nothing that people write here needs one.
        alias = next(
            (part for part in yaml.parse(text, Loader=yaml.SafeLoader) if isinstance(part, yaml.AliasEvent)), None
        )
        if alias is not None:
            line = alias.start_mark.line + 1 if alias.start_mark else 0
            raise InvalidDocument(
                Problem(file, line, "", f"the alias *{alias.anchor} is not supported", "write it out")
            )
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise InvalidDocument(Problem(file, line, "", f"not valid YAML: {error.problem}")) from error
    except yaml.YAMLError as error:
        raise InvalidDocument(Problem(file, 0, "", f"not valid YAML: {error}")) from error
    lines: dict[KeyPath, int] = {(): 1}
    content = None if node is None else _plain(node, (), file=file, lines=lines)
    return Document(file, text, content, lines)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: "did you mean ...?", or "" when nothing is near."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else ""


def dotted(path: KeyPath) -> str:
    """("steps", 2, "use") as "steps[2].use"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def _plain(node: yaml.Node, path: KeyPath, *, file: str, lines: dict[KeyPath, int]) -> Plain:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, path, file=file)
    if node.tag not in _PLAIN_TAGS:
        raise InvalidDocument(Problem(file, line, dotted(path), f"the tag {node.tag} is not supported", "leave it out"))
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, (*path, i), file=file, lines=lines) for i, child in enumerate(node.value)]
    content: dict[str, Plain] = {}
    for key_node, value_node in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise InvalidDocument(Problem(file, key_line, dotted(path), "a key is a plain word, not a list or a map"))
        key = str(key_node.value)
        if key in content:
            raise InvalidDocument(
                Problem(file, key_line, dotted((*path, key)), "stands here twice", "keep one of them")
            )
        lines[(*path, key)] = key_line
        content[key] = _plain(value_node, (*path, key), file=file, lines=lines)
    return content


def _scalar(node: yaml.ScalarNode, path: KeyPath, *, file: str) -> Plain:
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidDocument(
            Problem(file, node.start_mark.line + 1, dotted(path), f"'{node.value}' cannot be read as a value")
        ) from error
    # YAML turns unquoted dates into objects; nothing here wants one, so they stay what the author typed.
    return value if value is None or isinstance(value, bool | int | float | str) else str(node.value)
