"""Slurm's answers in the shapes of its versions, and the ways in which it fails to answer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from healer.adapters.slurm.objects import Gres, SlurmJob, SlurmJobs, SlurmNode, SlurmNodes, gres_in
from healer.adapters.slurm.programs import SlurmPrograms
from healer.adapters.slurm.topology import SlurmTopology, switches_in, topology_of
from healer.domain.topology import Place, Topology
from healer.errors import Unavailable
from healer.telemetry.places.slurm import NodeWords

AT = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = NodeWords()


def node(name: str, **changes: object) -> SlurmNode:
    plain = {"name": name, "gres": "gpu:h100:8(S:0-1)", "cpus": 16, "features": "h100"}
    return msgspec.convert({**plain, **changes}, type=SlurmNode)


def job(job_id: int, nodes: str, *gres: str, **changes: object) -> SlurmJob:
    plain = {"job_id": job_id, "job_state": "RUNNING", "nodes": nodes, "gres_detail": list(gres)}
    return msgspec.convert({**plain, **changes}, type=SlurmJob)


def told(nodes: list[SlurmNode], jobs: list[SlurmJob], wiring: Mapping[str, Place] | None = None) -> Topology:
    return topology_of(nodes, jobs, words=WORDS, wiring=wiring or {})


def number(value: int | None) -> dict[str, object]:
    """As from 23.02 on."""
    return {"set": value is not None, "infinite": False, "number": value or 0}


# The same array task with 4 GPUs of gpu-2 and 2 of gpu-1, whose names Slurm sorts and whose details it does not.
COMMON = {"job_id": 12, "name": "train", "user_name": "alice", "nodes": "gpu-[1-2]", "some_new_field": {"x": 1}}
GRES = {"gres_detail": ["gpu:h100:4(IDX:0-2,7)", "gpu:h100:2(IDX:0-1)"]}
SHAPES: dict[str, dict[str, Any]] = {
    "22.05": {
        "job_state": "RUNNING",
        "array_job_id": 10,
        "array_task_id": 3,
        "het_job_id": 0,
        "het_job_offset": 0,
        "job_resources": {
            "nodes": "gpu-[1-2]",
            "allocated_nodes": [{"nodename": "gpu-2", "sockets": {}}, {"nodename": "gpu-1", "sockets": {}}],
        },
    },
    "23.02": {
        "job_state": "RUNNING",
        "array_job_id": number(10),
        "array_task_id": number(3),
        "het_job_id": number(0),
        "het_job_offset": number(0),
        "job_resources": {"nodes": "gpu-[1-2]", "allocated_nodes": [{"nodename": "gpu-2"}, {"nodename": "gpu-1"}]},
    },
    "23.11": {
        "job_state": ["RUNNING"],
        "array_job_id": number(10),
        "array_task_id": number(3),
        "het_job_id": number(0),
        "het_job_offset": number(0),
        "job_resources": {"nodes": "gpu-[1-2]", "allocated_nodes": [{"nodename": "gpu-2"}, {"nodename": "gpu-1"}]},
    },
    "24.05": {
        "job_state": ["RUNNING", "CONFIGURING"],
        "array_job_id": number(10),
        "array_task_id": number(3),
        "het_job_id": number(None),
        "het_job_offset": number(None),
        "job_resources": {
            "select_type": ["CORE"],
            "nodes": {
                "list": "gpu-[1-2]",
                "allocation": [{"index": 0, "name": "gpu-2"}, {"index": 1, "name": "gpu-1"}],
            },
        },
    },
    "one that is yet to come": {
        "job_state": ["RUNNING"],
        "array_job_id": number(10),
        "array_task_id": number(3),
        "job_resources": {"nodes": ["gpu-2", "gpu-1"]},
    },
}


@pytest.mark.parametrize("version", SHAPES)
def test_the_jobs_of_every_version_are_read(version: str) -> None:
    answer = json.dumps({"meta": {}, "errors": [], "warnings": [], "jobs": [COMMON | GRES | SHAPES[version]]}).encode()

    # Where the order is not told, it is that of Slurm's node table.
    topology = told([node("gpu-2"), node("gpu-1")], msgspec.json.decode(answer, type=SlurmJobs).jobs)

    assert topology.sharing == {"gpu-1": ("12",), "gpu-2": ("12",)}
    assert set(topology.gpu_jobs) == {("gpu-2", i) for i in "0127"} | {("gpu-1", i) for i in "01"}
    assert topology.aliases == {"10_3": "12"}
    assert topology.titles == {"12": "train of alice (10_3)"}


@pytest.mark.parametrize(
    "shape",
    [
        {"features": "h100,rack-r7", "active_features": "h100,rack-r7", "cpus": 16, "alloc_cpus": 2, "state": "mixed"},
        {"features": ["h100", "rack-r7"], "active_features": ["h100", "rack-r7"], "cpus": 16, "state": ["MIXED"]},
        {"features": ["h100"], "active_features": [], "extra": "rack=r7", "effective_cpus": number(14)},
        {"comment": "moved in May, rack:r7"},
    ],
    ids=["22.05", "23.02", "in its extra", "in its comment"],
)
def test_the_rack_is_read_from_what_is_attached_to_the_node(shape: dict[str, object]) -> None:
    answer = json.dumps({"nodes": [{"name": "gpu-1", "gres": None, **shape}], "errors": []}).encode()
    running = job(1, "gpu-1")

    assert told(msgspec.json.decode(answer, type=SlurmNodes).nodes, [running]).places == {"gpu-1": Place(rack="r7")}


def test_each_site_has_its_own_words() -> None:
    words = NodeWords(rack=r"(rack\d+)", feed=r"pdu-(.)", nvlink_domain=r"nvl72-(.+)", switch=r"tor(\d+)")

    placed = words.place(["gpu", "rack12", "pdu-A", "nvl72-7", "tor3", "rack13"])

    assert placed == Place("rack12", "A", "7", "3")


@pytest.mark.parametrize("pattern", ["rack-.+", "(rack)-(.+)", "rack-("])
def test_a_word_that_names_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"regular expression|one group"):
        NodeWords(rack=pattern)


def test_a_job_with_all_gpus_has_the_node() -> None:
    topology = told([node("gpu-1"), node("gpu-2")], [job(1, "gpu-[1-2]", "gpu:h100:8(IDX:0-7)", "gpu:h100:8(IDX:0-7)")])

    assert topology.jobs == {"gpu-1": "1", "gpu-2": "1"}


@pytest.mark.parametrize(
    "state", ["PENDING", "COMPLETED", "CANCELLED", ["COMPLETED", "COMPLETING"], ["RUNNING", "COMPLETING"]]
)
def test_a_job_that_waits_or_has_ended_has_nothing(state: str | list[str]) -> None:
    ended = job(1, "gpu-1", "gpu:h100:8(IDX:0-7)", job_state=state)

    assert told([node("gpu-1")], [ended]) == Topology()


def test_a_suspended_job_has_its_gpus_still() -> None:
    suspended = job(1, "gpu-1", "gpu:h100:8(IDX:0-7)", job_state="SUSPENDED")

    assert told([node("gpu-1")], [suspended]).jobs == {"gpu-1": "1"}


def test_the_parts_of_a_heterogeneous_job_are_one_job_named_for_the_first() -> None:
    first = job(20, "gpu-1", "gpu:8(IDX:0-7)", het_job_id=20, het_job_offset=0, name="lead", user_name="bob")
    second = job(21, "gpu-2", "gpu:4(IDX:0-3)", het_job_id=20, het_job_offset=1, name="rest", user_name="bob")

    topology = told([node("gpu-1"), node("gpu-2")], [second, first])

    assert topology.jobs == {"gpu-1": "20"}
    assert topology.sharing == {"gpu-2": ("20",)}
    assert topology.aliases == {"20+0": "20", "20+1": "20", "21": "20"}
    assert topology.titles == {"20": "lead of bob"}


def test_tasks_of_an_array_are_jobs_of_their_own() -> None:
    tasks = [
        job(11, "gpu-1", "gpu:2(IDX:0-1)", array_job_id=10, array_task_id=0),
        job(10, "gpu-1", "gpu:2(IDX:2-3)", array_job_id=10, array_task_id=1),
    ]

    topology = told([node("gpu-1")], tasks)

    assert topology.sharing == {"gpu-1": ("10", "11")}
    assert (topology.gpu_jobs["gpu-1", "0"], topology.gpu_jobs["gpu-1", "2"]) == ("11", "10")


def test_without_details_the_gpus_of_a_job_are_counted_and_not_numbered() -> None:
    counted = job(1, "gpu-[1-2]", tres_alloc_str="cpu=4,gres/gpu=16,gres/gpu:h100=16")

    topology = told([node("gpu-1"), node("gpu-2")], [counted])

    assert topology.jobs == {"gpu-1": "1", "gpu-2": "1"}
    assert topology.gpu_jobs == {}


@pytest.mark.parametrize("gres", ["", "nic:2(IDX:0-1)"])
def test_a_job_without_gpus_has_none_of_a_node_that_has_some(gres: str) -> None:
    topology = told([node("gpu-1", alloc_cpus=2)], [job(1, "gpu-1", gres)])

    assert topology.jobs_on("gpu-1") == ()
    assert topology.gpu_jobs == {}


def test_instances_of_a_gpu_are_shared_and_not_numbered_like_gpus() -> None:
    sliced = node("gpu-1", gres="gpu:1g.10gb:7,gpu:a100_3g.40gb:2")

    topology = told([sliced], [job(1, "gpu-1", "gpu:1g.10gb:2(IDX:0-1)")])

    assert topology.sharing == {"gpu-1": ("1",)}
    assert topology.gpu_jobs == {}


def test_shards_are_never_a_whole_node() -> None:
    topology = told([node("gpu-1", gres="gpu:h100:8,shard:h100:64")], [job(1, "gpu-1", "shard:h100:64(8/8,8/8)")])

    assert topology.sharing == {"gpu-1": ("1",)}
    assert topology.gpu_jobs == {}


@pytest.mark.parametrize(
    ("used", "jobs", "whole"),
    [(16, 1, True), (15, 1, False), (16, 2, False)],
    ids=["alone, with all CPUs", "alone, with some CPUs", "two jobs"],
)
def test_where_slurm_knows_no_gpus_a_node_is_had_by_who_has_its_cpus(used: int, jobs: int, *, whole: bool) -> None:
    plain = node("gpu-1", gres="", cpus=18, effective_cpus=16, alloc_cpus=used)

    topology = told([plain], [job(number, "gpu-1") for number in range(jobs)])

    assert (topology.jobs == {"gpu-1": "0"}) is whole
    assert len(topology.jobs_on("gpu-1")) == jobs


def test_a_job_on_a_node_that_slurm_has_forgotten_is_left_out_there() -> None:
    assert told([node("gpu-1")], [job(1, "gpu-[1-2]", "gpu:8", "gpu:8")]).jobs == {"gpu-1": "1"}


def test_a_node_in_use_without_a_job_means_that_jobs_are_hidden() -> None:
    nodes = [node("gpu-1", alloc_cpus=2), node("gpu-2", alloc_cpus=2), node("gpu-3", alloc_cpus=2)]
    jobs = [job(1, "gpu-1", "gpu:8"), job(2, "gpu-3", "", job_state="COMPLETED")]

    with pytest.raises(Unavailable, match=r"gpu-2 is in use, .*PrivateData"):
        told(nodes, jobs)


def test_a_host_list_that_cannot_be_read_is_no_empty_one() -> None:
    with pytest.raises(Unavailable, match="cannot be read"):
        told([node("gpu-1")], [job(1, "gpu-[1-")])


@pytest.mark.parametrize(
    ("text", "gres"),
    [
        ("gpu:h100:8(S:0-1)", (Gres("gpu", "h100", 8, ()),)),
        ("gpu:h100:4(IDX:0-2,7)", (Gres("gpu", "h100", 4, (0, 1, 2, 7)),)),
        (
            "gpu:a100:2(IDX:0-1),gpu:h100:1(IDX:4),nic:1",
            (Gres("gpu", "a100", 2, (0, 1)), Gres("gpu", "h100", 1, (4,)), Gres("nic", "", 1, ())),
        ),
        ("gpu:8(CNT:8)", (Gres("gpu", "", 8, ()),)),
        ("gpu(IDX:3)", (Gres("gpu", "", 1, (3,)),)),
        ("gpu:h100", (Gres("gpu", "h100", 1, ()),)),
        ("mps:4K", (Gres("mps", "", 4096, ()),)),
        ("gpu:h100:2(IDX:N/A)", (Gres("gpu", "h100", 2, ()),)),
        ("(null)", ()),
        ("", ()),
    ],
)
def test_generic_resources_are_read(text: str, gres: tuple[Gres, ...]) -> None:
    assert gres_in(text) == gres


def test_the_leaf_is_the_switch_and_a_block_is_the_nvlink_domain() -> None:
    text = (
        "SwitchName=leaf-1 Level=0 LinkSpeed=1 Nodes=gpu-[1-2]\n"
        "SwitchName=other-rail Level=0 LinkSpeed=1 Nodes=gpu-1\n"
        "SwitchName=spine Level=1 LinkSpeed=1 Nodes=gpu-[1-4] Switches=leaf-[1-2]\n"
        "BlockName=b1 BlockIndex=0 Nodes=gpu-[2-3]\n"
        "AggregatedBlock=b[1-2] BlockIndex=2 Nodes=gpu-[1-4]\n"
        "SwitchName=empty Level=0 LinkSpeed=1\n"
    )

    assert switches_in(text) == {
        "gpu-1": Place(switch="leaf-1"),
        "gpu-2": Place(switch="leaf-1", nvlink_domain="b1"),
        "gpu-3": Place(nvlink_domain="b1"),
    }
    assert switches_in("") == {}


def test_what_is_attached_to_a_node_comes_before_the_wiring() -> None:
    nodes = [node("gpu-1", features="switch-s9"), node("gpu-2")]

    topology = told(nodes, [], {"gpu-1": Place(switch="leaf-1"), "gpu-2": Place(switch="leaf-1")})

    assert topology.places == {"gpu-1": Place(switch="s9"), "gpu-2": Place(switch="leaf-1")}


# The programs


class Installed:
    """A folder of programs that stand where Slurm's should be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script(
            "scontrol", 'case "$*" in --version) echo slurm 23.11.10-Bull.1;; "show nodes --json") cat nodes;; esac'
        )
        self.says("nodes", {"nodes": [{"name": "gpu-1", "gres": "gpu:8"}], "errors": []})
        self.script("squeue", "cat jobs")
        running = {"job_id": 7, "job_state": ["RUNNING"], "nodes": "gpu-1", "gres_detail": ["gpu:8(IDX:0-7)"]}
        self.says("jobs", {"jobs": [running], "errors": []})

    def script(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\ncd {self.folder}\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def says(self, name: str, answer: object) -> None:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        (self.folder / name).write_text(text, encoding="utf-8")

    def source(self, timeout_s: float = 20.0) -> SlurmTopology:
        return SlurmTopology(SlurmPrograms(folder=self.folder, timeout_s=timeout_s), every=timedelta(seconds=30))


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def test_the_very_same_topology_is_told_while_nothing_has_changed(installed: Installed) -> None:
    source = installed.source()

    first = source.topology(AT)
    assert first.jobs == {"gpu-1": "7"}
    assert source.topology(AT + timedelta(seconds=60)) is first

    installed.says("jobs", {"jobs": [], "errors": []})
    assert source.topology(AT + timedelta(seconds=89)) is first
    assert source.topology(AT + timedelta(seconds=90)).jobs == {}


def test_a_clock_that_is_set_back_does_not_keep_what_is_old(installed: Installed) -> None:
    source = installed.source()
    source.topology(AT)

    installed.says("jobs", {"jobs": [], "errors": []})

    assert source.topology(AT - timedelta(hours=1)).jobs == {}


@pytest.mark.parametrize(("version", "program"), [("slurm-wlm 22.05.8", "sinfo"), ("slurm 25.05.0", "scontrol")])
def test_the_nodes_are_asked_of_the_program_that_this_version_has(
    installed: Installed, version: str, program: str
) -> None:
    installed.script(
        "scontrol", f'test "$1" = --version && echo {version} && exit; test "$2" = nodes && cat nodes; exit 0'
    )
    if program == "sinfo":
        installed.script("scontrol", f'test "$1" = --version && echo {version} && exit; test "$2" = topology')
        installed.script("sinfo", "cat nodes")

    assert installed.source().topology(AT).jobs == {"gpu-1": "7"}


def test_what_people_set_for_their_convenience_does_not_cut_the_lists(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SQUEUE_USERS", "SINFO_ALL", "SLURM_TOPO_LEN", "SLURM_BITSTR_LEN", "SCONTROL_ALL"):
        monkeypatch.setenv(name, "cut")
    monkeypatch.setenv("SLURM_CONF", "/etc/other.conf")
    installed.script("squeue", "env | grep =cut && exit 1; echo $SLURM_CONF >conf; cat jobs")

    assert installed.source().topology(AT).jobs == {"gpu-1": "7"}
    assert (installed.folder / "conf").read_text(encoding="utf-8") == "/etc/other.conf\n"


def test_the_configured_slurm_conf_comes_before_that_of_the_environment(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", "/etc/other.conf")
    installed.script("squeue", "echo $SLURM_CONF")

    said = SlurmPrograms(folder=installed.folder, config=Path("/etc/mine.conf")).run("squeue")

    assert said == b"/etc/mine.conf\n"


FAILURES = {
    "fails": ("echo connection refused >&2; exit 1", "ended with status 1: connection refused"),
    "fails without a word": ("exit 3", "ended with status 3: says nothing"),
    "reports an error and ends well": (
        """echo '{"jobs": [], "errors": [{"description": "Failed while looking for jobs", "error_number": -1}]}'""",
        "squeue --json fails: Failed while looking for jobs",
    ),
    "reports an error in another shape": ("""echo '{"jobs": [], "errors": [{"error": "down"}]}'""", "fails: down"),
    "reports an error that says nothing": ("""echo '{"jobs": [], "errors": [{}]}'""", "an error without words"),
    "breaks off": ("head -c 40 jobs", "does not say what Slurm says"),
    "says nothing": ("true", "does not say what Slurm says"),
    "speaks no JSON": ("echo JOBID PARTITION", "does not say what Slurm says"),
    "tells no jobs": ("""echo '{"errors": []}'""", "does not say what Slurm says"),
    "tells a job without a state": ("""echo '{"jobs": [{"job_id": 1}]}'""", "does not say what Slurm says"),
    "writes bytes that are no text": (r"printf '{\"jobs\": [], \"x\": \"\377\"}'", "does not say what Slurm says"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_when_squeue_does_not_answer_jobs_are_unknown_and_never_none(installed: Installed, failure: str) -> None:
    script, told_as = FAILURES[failure]
    installed.script("squeue", script)

    with pytest.raises(Unavailable, match=told_as):
        installed.source().topology(AT)


def test_a_program_that_is_missing_or_must_not_be_run_leaves_everything_unknown(installed: Installed) -> None:
    squeue = installed.folder / "squeue"

    squeue.chmod(0o600)
    with pytest.raises(Unavailable, match="squeue cannot be run: Permission denied"):
        installed.source().topology(AT)
    squeue.unlink()
    with pytest.raises(Unavailable, match="squeue is not on this machine; install"):
        installed.source().topology(AT)


def test_a_program_that_hangs_is_given_up_in_time(installed: Installed) -> None:
    installed.script("squeue", "exec sleep 30")

    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"squeue --json took more than 0\.3 s"):
        installed.source(timeout_s=0.3).topology(AT)
    assert time.monotonic() - began < 10


def test_a_version_that_is_none_is_unavailable(installed: Installed) -> None:
    installed.script("scontrol", "echo hello")

    with pytest.raises(Unavailable, match="'hello', and no version"):
        installed.source().topology(AT)


def test_a_failure_is_asked_again_at_once_and_what_was_told_before_is_not_repeated(installed: Installed) -> None:
    source = installed.source()
    source.topology(AT)
    installed.script("squeue", "exit 1")

    later = AT + timedelta(seconds=60)
    for _ in range(2):
        with pytest.raises(Unavailable):
            source.topology(later)

    installed.script("squeue", "cat jobs")
    assert source.topology(later).jobs == {"gpu-1": "7"}


def test_switches_that_cannot_be_shown_are_kept_with_a_warning(installed: Installed) -> None:
    show = 'case "$*" in --version) echo slurm 23.11.1;; *nodes*) cat nodes;; *topology) {};; esac'
    installed.script("scontrol", show.format("echo SwitchName=leaf-1 Level=0 Nodes=gpu-1"))
    source = installed.source()
    source.topology(AT)

    installed.script("scontrol", show.format("echo not supported >&2; exit 1"))
    topology = source.topology(AT + timedelta(minutes=1))

    assert topology.places == {"gpu-1": Place(switch="leaf-1")}
    assert "not supported" in topology.warnings[0]


def test_programs_are_found_on_the_path(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{installed.folder}{os.pathsep}{os.environ['PATH']}")

    assert SlurmTopology(SlurmPrograms()).topology(AT).jobs == {"gpu-1": "7"}
