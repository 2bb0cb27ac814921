"""People: who may ever answer, and the groups that playbooks choose among them by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_USERGROUP = re.compile(r"slack:S[A-Z0-9]+")


def is_usergroup(member: str) -> bool:
    """Whether it is a usergroup of Slack: it can be mentioned, and nobody can answer as it."""
    return _USERGROUP.fullmatch(member) is not None


@dataclass(frozen=True, slots=True)
class People:
    """Attributes:
    approvers: the ids of all who may ever answer.
    groups: by name, their members: ids of approvers, and usergroups of Slack.
    """

    approvers: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def members(self, names: Iterable[str] | None) -> tuple[str, ...]:
        """The members of groups and the people that are named, each once; all approvers for None.

        A name that is neither stands for itself: it is nobody whom `may_decide` lets answer.
        """
        if names is None:
            return self.approvers
        return tuple(dict.fromkeys(member for name in names for member in self.groups.get(name, (name,))))

    def who_may(self, names: Iterable[str] | None) -> frozenset[str]:
        """Those of them who may answer."""
        return frozenset(self.members(names)) & frozenset(self.approvers)
