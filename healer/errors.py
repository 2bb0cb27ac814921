"""The one tree of errors. Whether trying again can help is a type, so that nobody has to guess from a message.

HealerError
├── InvalidDocument      a file that a person wrote is wrong: file, line, key, problem, hint (exit code 2)
├── Unavailable          an outside system did not answer, or answered nonsense: try again later
├── Rejected             an outside system answered no: trying again unchanged cannot help
│   └── NoMeans          there is nothing here to do it with: waiting does not help, another remedy may
├── NotPermitted         the actor may not do this
├── NotFound             nothing has this id
├── Conflict             the thing is no longer in a state that allows this (decided, expired, changed meanwhile)
└── Fenced               another process leads: this one must stop writing
"""

from __future__ import annotations

from dataclasses import dataclass


class HealerError(Exception):
    """Base of every error that healer raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document, in a form that an editor can jump to."""

    file: str
    line: int
    key: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        what = f"{self.key}: {self.text}" if self.key else self.text
        return f"{where}: {what}" + (f" ({self.hint})" if self.hint else "")


class InvalidDocument(HealerError):
    """A configuration, playbook, detector or model file that cannot be used; carries every problem found."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class _About(HealerError):
    def __init__(self, component: str, detail: str) -> None:
        super().__init__(f"{component}: {detail}")
        self.component = component
        self.detail = detail


class Unavailable(_About):
    """An outside system did not answer or answered nonsense. What it would have said is unknown, never "none"."""


class Rejected(_About):
    """An outside system understood and said no."""


class NoMeans(Rejected):
    """There is nothing here to do it with. Waiting does not help; another remedy may."""


class NotPermitted(_About):
    """The actor is known and may not do this."""


class NotFound(_About):
    """Nothing has this id or name."""


class Conflict(_About):
    """The state moved on: already decided, expired, or changed by somebody else."""


class Fenced(HealerError):
    """This process no longer leads; its writes are refused."""
