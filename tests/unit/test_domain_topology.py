"""Where nodes are and whose GPUs are whose: names with and without domain, moves, replacements, and who shares."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.domain.component import Component, ComponentKind
from healer.domain.hostlist import MOST_HOSTS, expand_hosts
from healer.domain.topology import (
    NOWHERE,
    Changes,
    Claim,
    Place,
    Topology,
    changes,
    departed,
    held,
    matched,
    spoken_as,
)

GPUS = "nvidia.com/gpu"


def gpu(node: str | None, index: str | None = "0", *, job: str | None = None, uuid: str | None = None) -> Component:
    return Component(ComponentKind.GPU, node=node, gpu=index, uuid=uuid, job=job)


# Places and whole topologies


def test_a_place_is_what_the_first_says_and_else_what_the_second_says() -> None:
    configured, labelled = Place(rack="r1", feed="A"), Place(rack="r9", switch="leaf-1")

    assert configured.or_else(labelled) == Place("r1", "A", None, "leaf-1")
    assert NOWHERE.or_else(configured) == configured


def test_a_place_reads_as_what_is_known_of_it() -> None:
    assert str(Place(rack="r1", switch="leaf-3")) == "rack r1, switch leaf-3"
    assert str(NOWHERE) == "nowhere known"


def test_of_two_topologies_the_first_decides_for_each_node_who_has_it() -> None:
    first = Topology(
        places={"n1": Place(rack="r1")},
        jobs={"n1": "a"},
        sharing={"n2": ("b", "c")},
        gpu_jobs={("n2", "0"): "b"},
        pods={("ml", "p"): "a"},
        aliases={"x": "a"},
        titles={"a": "first"},
        warnings=("one",),
    )
    second = Topology(
        places={"n1": Place(rack="r8", feed="A"), "n3": Place(rack="r3")},
        jobs={"n1": "z", "n2": "z", "n3": "z"},
        sharing={"n4": ("y",)},
        gpu_jobs={("n2", "0"): "z", ("n4", "1"): "y"},
        pods={("ml", "p"): "z", ("ml", "q"): "z"},
        aliases={"x": "z"},
        titles={"a": "second", "z": "last"},
        warnings=("two",),
    )

    assert first.or_else(second) == Topology(
        places={"n1": Place(rack="r1", feed="A"), "n3": Place(rack="r3")},
        jobs={"n1": "a", "n3": "z"},
        sharing={"n2": ("b", "c"), "n4": ("y",)},
        gpu_jobs={("n2", "0"): "b", ("n4", "1"): "y"},
        pods={("ml", "p"): "a", ("ml", "q"): "z"},
        aliases={"x": "a"},
        titles={"a": "first", "z": "last"},
        warnings=("one", "two"),
    )


def test_of_two_topologies_the_names_of_the_first_are_used() -> None:
    jobs = Topology(jobs={"gpu-1.example.com": "a"})
    racks = Topology(places={"gpu-1": Place(rack="r1")})

    assert jobs.or_else(racks) == Topology(
        places={"gpu-1.example.com": Place(rack="r1")}, jobs={"gpu-1.example.com": "a"}
    )


# Which job has a GPU


TOLD = Topology(
    jobs={"whole": "all"},
    sharing={"shared": ("b", "c")},
    gpu_jobs={("shared", "0"): "b", ("shared", "1:2"): "c"},
    pods={("ml", "worker-0"): "ml/Job/train"},
    aliases={"12": "11"},
)


@pytest.mark.parametrize(
    ("component", "pod", "job"),
    [
        (gpu("whole"), None, "all"),
        (gpu("whole"), ("ml", "worker-0"), "ml/Job/train"),
        (gpu("whole"), ("ml", "unheard-of"), "all"),
        (gpu("whole", job="labelled"), None, "labelled"),
        (gpu("whole", job="12"), None, "11"),
        (gpu("shared"), None, "b"),
        (gpu("shared", job="stale"), None, "b"),
        (gpu("shared", "0:5"), None, "b"),
        (gpu("shared", "1:2"), None, "c"),
        (gpu("shared", "1:3"), None, None),
        (gpu("shared", "7"), None, None),
        (gpu("shared", None), None, None),
        (gpu("elsewhere"), None, None),
        (gpu(None, job="12"), None, "11"),
        (gpu(None), None, None),
    ],
    ids=[
        "the job that has the node",
        "the pod that is exported with it",
        "a pod that is not known says nothing",
        "the exporter's label",
        "a label under another name",
        "its slot",
        "its slot, before a label",
        "an instance of a GPU that a job has whole",
        "the slot of an instance",
        "another instance of the same GPU",
        "a slot that nobody has",
        "an index that is not known",
        "a node that is not known",
        "no node, but a label",
        "no node",
    ],
)
def test_the_finest_knowledge_names_the_job_of_a_gpu(
    component: Component, pod: tuple[str, str] | None, job: str | None
) -> None:
    assert TOLD.job_of(component, pod) == job


def test_a_node_takes_along_every_job_that_has_a_gpu_of_it() -> None:
    assert TOLD.jobs_on("whole") == ("all",)
    assert TOLD.jobs_on("shared") == ("b", "c")
    assert TOLD.jobs_on("elsewhere") == ()


def test_a_place_is_asked_for_by_node() -> None:
    topology = Topology(places={"n1": Place(rack="r1")})

    assert topology.place("n1") == Place(rack="r1")
    assert topology.place("n2") == topology.place(None) == NOWHERE


@pytest.mark.parametrize(
    ("claims", "capacity", "jobs", "sharing"),
    [
        ([Claim("a", "n", {GPUS: 8})], {GPUS: 8}, {"n": "a"}, {}),
        ([Claim("a", "n", {GPUS: 4}), Claim("a", "n", {GPUS: 4})], {GPUS: 8}, {"n": "a"}, {}),
        ([Claim("a", "n", {GPUS: 8})], {GPUS: 7}, {"n": "a"}, {}),
        ([Claim("a", "n", {GPUS: 4})], {GPUS: 8}, {}, {"n": ("a",)}),
        ([Claim("b", "n", {GPUS: 4}), Claim("a", "n", {GPUS: 4})], {GPUS: 8}, {}, {"n": ("a", "b")}),
        ([Claim("a", "n", {"mig-1g": 7})], {"mig-1g": 7, "mig-3g": 1}, {}, {"n": ("a",)}),
        ([Claim("a", "n", {"mig-1g": 7, "mig-3g": 1})], {"mig-1g": 7, "mig-3g": 1, GPUS: 0}, {"n": "a"}, {}),
        ([Claim("a", "n", {GPUS: 8})], {}, {}, {"n": ("a",)}),
        ([], {GPUS: 8}, {}, {}),
    ],
    ids=[
        "all of it",
        "all of it, by two pods",
        "more than there is, since one was taken out",
        "a part",
        "two jobs",
        "all of one profile",
        "all of every profile",
        "of a node whose capacity is unknown",
        "nobody",
    ],
)
def test_a_job_has_a_node_whole_when_it_has_everything_there_is(
    claims: list[Claim], capacity: dict[str, int], jobs: dict[str, str], sharing: dict[str, tuple[str, ...]]
) -> None:
    assert held(claims, {"n": capacity}) == (jobs, sharing)


# Names


@pytest.mark.parametrize(
    ("ours", "theirs", "pairs", "unclear"),
    [
        ({"gpu-1"}, {"gpu-1"}, {"gpu-1": "gpu-1"}, ()),
        ({"gpu-1"}, {"gpu-1.example.com"}, {"gpu-1": "gpu-1.example.com"}, ()),
        ({"gpu-1.example.com"}, {"gpu-1"}, {"gpu-1.example.com": "gpu-1"}, ()),
        ({"GPU-1"}, {"gpu-1.example.com."}, {"GPU-1": "gpu-1.example.com."}, ()),
        ({"gpu-1.a"}, {"gpu-1.b"}, {}, ()),
        ({"gpu-1"}, {"gpu-1.a", "gpu-1.b"}, {}, ("gpu-1",)),
        ({"gpu-1.a", "gpu-1.b"}, {"gpu-1"}, {}, ("gpu-1.a", "gpu-1.b")),
        ({"gpu-1", "gpu-1.a"}, {"gpu-1", "gpu-1.a"}, {"gpu-1": "gpu-1", "gpu-1.a": "gpu-1.a"}, ()),
        ({"gpu-1", "gpu-1.a"}, {"gpu-1.a"}, {"gpu-1.a": "gpu-1.a"}, ()),
        ({"gpu-1.A", "gpu-1.b"}, {"gpu-1.a", "gpu-1.B"}, {"gpu-1.A": "gpu-1.a", "gpu-1.b": "gpu-1.B"}, ()),
        ({"10.0.0.1"}, {"10.0.0.2", "10"}, {}, ()),
        ({"10.0.0.1"}, {"10.0.0.1"}, {"10.0.0.1": "10.0.0.1"}, ()),
        ({"gpu-1"}, {"gpu-2"}, {}, ()),
    ],
    ids=[
        "equal",
        "theirs has a domain",
        "ours has a domain",
        "case, and the root's dot",
        "two domains are two nodes",
        "theirs could be two",
        "ours could be two",
        "equal names come first",
        "a name that is taken is not matched again",
        "two domains, each in another case",
        "addresses have no short name",
        "equal addresses",
        "others",
    ],
)
def test_names_match_with_and_without_domain_where_only_one_can_be_meant(
    ours: set[str], theirs: set[str], pairs: dict[str, str], unclear: tuple[str, ...]
) -> None:
    assert matched(ours, theirs) == (pairs, unclear)


@given(st.sets(st.sampled_from(["a", "A", "a.x", "a.y", "b", "b.x", "10.1", "10.2", "10"])).map(sorted), st.data())
def test_no_two_nodes_are_ever_taken_for_one(ours: list[str], data: st.DataObject) -> None:
    theirs = data.draw(st.sets(st.sampled_from(["a", "a.x", "A.y", "b", "b.y", "10.1", "10"])))

    pairs, unclear = matched(ours, theirs)

    assert len(set(pairs.values())) == len(pairs)
    assert not pairs.keys() & set(unclear)
    assert all(name in theirs for name in pairs.values())
    assert all(pairs[name] == name for name in theirs.intersection(ours))


def test_a_topology_takes_the_names_that_the_telemetry_uses() -> None:
    told = Topology(
        places={"gpu-1": Place(rack="r1"), "gpu-9": Place(rack="r9")},
        jobs={"gpu-1": "a"},
        sharing={"gpu-2": ("b",)},
        gpu_jobs={("gpu-2", "0"): "b"},
    )

    assert spoken_as(told, {"gpu-1.example.com", "gpu-2.example.com"}) == Topology(
        places={"gpu-1.example.com": Place(rack="r1"), "gpu-9": Place(rack="r9")},
        jobs={"gpu-1.example.com": "a"},
        sharing={"gpu-2.example.com": ("b",)},
        gpu_jobs={("gpu-2.example.com", "0"): "b"},
    )


def test_a_topology_whose_names_fit_is_the_very_same() -> None:
    told = Topology(places={"gpu-1": Place(rack="r1")})

    assert spoken_as(told, {"gpu-1", "gpu-2"}) is told


def test_a_name_that_could_be_two_nodes_is_matched_with_neither_and_said() -> None:
    told = Topology(places={f"gpu-{n}": Place(rack="r1") for n in range(7)})
    names = {f"gpu-{n}.{domain}" for n in range(7) for domain in ("a", "b")}

    spoken = spoken_as(told, names)

    assert spoken.places == told.places
    (warning,) = spoken.warnings
    assert warning.endswith("gpu-0, gpu-1, gpu-2, gpu-3, gpu-4 and 2 more")


def test_few_ambiguous_names_are_all_listed() -> None:
    (warning,) = spoken_as(Topology(jobs={"gpu-1": "a"}), {"gpu-1.a", "gpu-1.b"}).warnings

    assert warning.endswith(": gpu-1")


# What changes over time


def test_a_node_that_moves_is_told_with_where_it_was() -> None:
    before = Topology(places={"n1": Place(rack="r1"), "n2": Place(rack="r1"), "gone": Place(rack="r1")})
    after = Topology(places={"n1": Place(rack="r2"), "n2": Place(rack="r1"), "new": Place(rack="r1")})

    assert changes(before, after).moved == {"n1": (Place(rack="r1"), Place(rack="r2"))}


def test_jobs_that_start_and_end_are_told_wherever_they_are() -> None:
    before = Topology(jobs={"n1": "a", "n2": "b"}, sharing={"n3": ("c", "d")})
    after = Topology(jobs={"n1": "a", "n3": "d"}, sharing={"n2": ("e",)})

    found = changes(before, after)

    assert found.started == {"e"}
    assert found.ended == {"b", "c"}


def test_what_stays_as_it_is_is_no_change() -> None:
    same = Topology(places={"n1": Place(rack="r1")}, jobs={"n1": "a"})

    assert not changes(same, same)
    assert changes(Topology(), same)
    assert not Changes({}, frozenset(), frozenset())


def test_the_gpus_of_a_machine_that_was_replaced_under_its_name_have_departed() -> None:
    old, new = (
        [gpu("n1", str(i), uuid=f"old-{i}") for i in range(2)],
        [gpu("n1", str(i), uuid=f"new-{i}") for i in range(2)],
    )

    assert departed([*old, *new], [0, 0, 200, 200], [100, 100, 300, 300]) == {0, 1}


def test_one_gpu_that_was_swapped_has_departed_and_its_neighbours_have_not() -> None:
    gpus = [gpu("n1", "0", uuid="old"), gpu("n1", "1", uuid="stays"), gpu("n1", "0", uuid="new")]

    assert departed(gpus, [0, 0, 200], [100, 300, 300]) == {0}


def test_a_gpu_that_fell_off_the_bus_has_not_departed_when_its_neighbours_move_up() -> None:
    fallen, neighbour = gpu("n1", "3", uuid="fallen"), gpu("n1", "3", uuid="was gpu 4 until then")

    assert departed([fallen, neighbour], [0, 0], [100, 300]) == frozenset()


def test_gpus_that_were_never_seen_or_have_no_slot_have_not_departed() -> None:
    gpus = [gpu("n1", uuid="a"), gpu("n1", uuid="b"), gpu(None, uuid="c"), gpu("n1", None, uuid="d")]

    assert departed(gpus, [math.nan, 200, 0, 0], [math.nan, 300, 1, 1]) == frozenset()


# Host lists


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("login", ("login",)),
        ("gpu-[001-003]", ("gpu-001", "gpu-002", "gpu-003")),
        ("gpu-[9-11]", ("gpu-9", "gpu-10", "gpu-11")),
        ("gpu-[01,07-08],login, head", ("gpu-01", "gpu-07", "gpu-08", "login", "head")),
        ("r[1-2]n[1-2].example.com", tuple(f"r{r}n{n}.example.com" for r in (1, 2) for n in (1, 2))),
        ("gpu-[99-101]-bmc", ("gpu-99-bmc", "gpu-100-bmc", "gpu-101-bmc")),
    ],
)
def test_a_host_list_stands_for_its_names_in_order(text: str, hosts: tuple[str, ...]) -> None:
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "an empty name"),
        ("a,,b", "an empty name"),
        ("gpu 1", "a blank"),
        ("gpu-[1-3", "brackets"),
        ("gpu-1]", "brackets"),
        ("gpu-[1-[2]]", "brackets"),
        ("gpu-[3-1]", "'3-1'"),
        ("gpu-[]", "not a range"),
        ("gpu-[a-b]", "'a-b'"),
        ("gpu-[1-3,]", "not a range"),
        ("gpu-[1-999999999999]", f"more than {MOST_HOSTS}"),
        (f"gpu-[{'1-150000,' * 1000}1]", f"more than {MOST_HOSTS}"),
        (f"gpu-{'[1-150000]' * 1000}", f"more than {MOST_HOSTS}"),
        ("a[1-150000],b[1-150000]", f"more than {MOST_HOSTS}"),
        (f"gpu-[{'9' * 5000}]", "not a range"),
        ("gpu-[1-1000][1-1000]", f"more than {MOST_HOSTS}"),
        (f"x[{'1,' * 100}", "x[1,1,1"),
    ],
)
def test_a_host_list_that_means_nothing_is_refused_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=r"host|range|name|brackets") as refused:
        expand_hosts(text)

    assert fault in str(refused.value)
    assert len(str(refused.value)) < 200


@given(st.text(alphabet="ab1[]-,. ", max_size=30))
def test_whatever_is_written_is_a_list_of_names_or_refused(text: str) -> None:
    try:
        hosts = expand_hosts(text)
    except ValueError:
        return
    assert hosts
    assert all(host and not set(host) & set("[], ") for host in hosts)
