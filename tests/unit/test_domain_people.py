from __future__ import annotations

import pytest

from healer.domain.people import People, is_usergroup

PEOPLE = People(
    ("slack:U1", "token:alice", "token:bob"),
    {"oncall": ("slack:U1", "slack:S0ONCALL"), "leads": ("token:alice", "slack:U1"), "empty": ()},
)


@pytest.mark.parametrize(
    ("names", "members", "people"),
    [
        pytest.param(None, PEOPLE.approvers, set(PEOPLE.approvers), id="none named is every approver"),
        pytest.param((), (), set(), id="nobody named is nobody"),
        pytest.param(("empty",), (), set(), id="a group of nobody is nobody"),
        pytest.param(("oncall",), ("slack:U1", "slack:S0ONCALL"), {"slack:U1"}, id="nobody answers by a usergroup"),
        pytest.param(
            ("leads", "oncall"),
            ("token:alice", "slack:U1", "slack:S0ONCALL"),
            {"token:alice", "slack:U1"},
            id="who is in two groups is one person",
        ),
        pytest.param(("token:bob",), ("token:bob",), {"token:bob"}, id="a person"),
        pytest.param(("token:zoe",), ("token:zoe",), set(), id="a stranger may not answer"),
        pytest.param(("nogroup",), ("nogroup",), set(), id="a group that there is not is nobody"),
    ],
)
def test_who_is_meant_by_names(names: tuple[str, ...] | None, members: tuple[str, ...], people: set[str]) -> None:
    assert PEOPLE.members(names) == members
    assert PEOPLE.who_may(names) == people


@pytest.mark.parametrize("member", ["slack:U0S1", "token:S0ONCALL", "slack:s0oncall", "slack:S", "slack:S0-1"])
def test_what_is_no_usergroup_of_slack(member: str) -> None:
    assert is_usergroup("slack:S0ONCALL")
    assert not is_usergroup(member)
