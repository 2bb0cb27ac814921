"""Jobs that Kubernetes restarts as a whole: those that can be suspended, and how each of their kinds is.

Suspended, a job loses all its pods at once, and none is made until it is resumed. Who suspended it is kept in an
annotation, as the owner of a cordon is. Sources: the API types of batch/v1, JobSet, Kubeflow's training operator and
Trainer, and mpi-operator. KubeRay's RayJob is not among them: its pods carry the name of its RayCluster, and that goes
first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from healer.adapters.kubernetes import rules
from healer.adapters.kubernetes.client import KubernetesClient
from healer.adapters.kubernetes.objects import NAME, JobObject, Pod, PodList, Question
from healer.decoding import decode
from healer.domain.fleet import Gang, GangEnd, GangPod, parse_gang_name
from healer.errors import Conflict, NotFound, Rejected, Unavailable
from healer.telemetry.places.kube import is_above_jobs

ATTEMPTS = 5
SUSPENDED_BY = "healer.dev/suspended-by"
SUSPEND_REASON = "healer.dev/suspend-reason"
QUEUE = "kueue.x-k8s.io/queue-name"
NAMESPACE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
JOB_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
ENDS = {
    "Complete": GangEnd.COMPLETE,
    "Completed": GangEnd.COMPLETE,
    "Succeeded": GangEnd.COMPLETE,
    "Failed": GangEnd.FAILED,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """How the API serves a kind of job.

    Attributes:
        suspend: where in its spec the field is.
        label: that its pods carry, with the job's name.
    """

    group: str
    version: str
    plural: str
    suspend: tuple[str, ...]
    label: str

    def change(self, *, suspend: bool) -> dict[str, object]:
        *above, field = ("spec", *self.suspend)
        changed: dict[str, object] = {field: suspend}
        for part in reversed(above):
            changed = {part: changed}
        return changed


def _kubeflow(plural: str, version: str = "v1") -> Kind:
    return Kind("kubeflow.org", version, plural, ("runPolicy", "suspend"), "training.kubeflow.org/job-name")


_JOB_SET_LABEL = "jobset.sigs.k8s.io/jobset-name"
KINDS = {
    "Job": Kind("batch", "v1", "jobs", ("suspend",), "job-name"),
    "JobSet": Kind("jobset.x-k8s.io", "v1alpha2", "jobsets", ("suspend",), _JOB_SET_LABEL),
    # Its JobSet has its name.
    "TrainJob": Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs", ("suspend",), _JOB_SET_LABEL),
    "MPIJob": _kubeflow("mpijobs", "v2beta1"),
    "PaddleJob": _kubeflow("paddlejobs"),
    "PyTorchJob": _kubeflow("pytorchjobs"),
    "TFJob": _kubeflow("tfjobs"),
    "XGBoostJob": _kubeflow("xgboostjobs"),
}


class KubernetesJobs:
    """The part of `healer.ports.Cluster` that is about jobs."""

    def __init__(self, client: KubernetesClient) -> None:
        self._client = client

    def job(self, name: str) -> Gang:
        namespace, word, stem = _parsed(name)
        kind = KINDS.get(word)
        if kind is None:
            return Gang(namespace, word, stem, why_not=_why_no_kind(word))
        seen = self._read(name, kind)
        pods = self._pods(namespace, kind, stem)
        return Gang(
            namespace,
            word,
            stem,
            suspended=is_suspended(seen, kind),
            suspended_by=suspension_owner(seen, kind),
            pods=tuple(_pod_of(pod) for pod in pods),
            why_not=why_not(seen),
            end=end_of(seen),
            priority=max((pod.spec.priority for pod in pods), default=0),
        )

    def suspend(self, job: str, *, by: str, reason: str) -> None:
        kind = _suspendable(job)
        notes = {SUSPENDED_BY: by, SUSPEND_REASON: reason}
        for _ in range(ATTEMPTS):
            seen = self._read(job, kind)
            if refusal := why_not(seen):
                raise Rejected(NAME, f"cannot suspend {job}: {refusal}")
            if is_suspended(seen, kind) and suspension_owner(seen, kind) == by:
                return
            if is_suspended(seen, kind):
                raise Conflict(NAME, f"{job} is already suspended by {_holder(seen, kind)}")
            if self._patch_unless_changed(job, kind, seen, kind.change(suspend=True), notes):
                return
        raise Unavailable(NAME, f"{job} changed under each of {ATTEMPTS} attempts to suspend it")

    def resume(self, job: str, *, by: str) -> None:
        kind = _suspendable(job)
        notes = {SUSPENDED_BY: None, SUSPEND_REASON: None}
        for _ in range(ATTEMPTS):
            seen = self._read(job, kind)
            if not is_suspended(seen, kind):
                raise Conflict(NAME, f"{job} is not suspended any more: somebody has resumed what {by} suspended")
            if suspension_owner(seen, kind) != by:
                raise Conflict(NAME, f"{job} is suspended by {_holder(seen, kind)}, not by {by}")
            if self._patch_unless_changed(job, kind, seen, kind.change(suspend=False), notes):
                return
        raise Unavailable(NAME, f"{job} changed under each of {ATTEMPTS} attempts to resume it")

    def _read(self, name: str, kind: Kind) -> JobObject:
        return self._client.ask(JobObject, _about("get", name, kind))

    def _pods(self, namespace: str, kind: Kind, stem: str) -> tuple[Pod, ...]:
        """Those that have not ended."""
        query = {"labelSelector": f"{kind.label}={stem}"}
        pages = self._client.pages(PodList, Question("list", "pods", namespace=namespace), query)
        pods = (pod for page in pages for pod in page.items or ())
        return tuple(pod for pod in pods if pod.status.phase not in rules.FINISHED)

    def _patch_unless_changed(
        self, name: str, kind: Kind, seen: JobObject, change: Mapping[str, object], notes: Mapping[str, str | None]
    ) -> bool:
        """False if the job is no longer as it was seen."""
        question = _about("patch", name, kind)
        return self._client.patch_unless_changed(question, seen.metadata, change, notes)


def is_suspended(seen: JobObject, kind: Kind) -> bool:
    return _is_set(seen.spec, kind.suspend)


def suspension_owner(seen: JobObject, kind: Kind) -> str | None:
    """The run that suspended it; None for a person's suspension, and for none.

    As with a cordon, the annotation alone is not proof: the server records who set the field last.
    """
    if not is_suspended(seen, kind):
        return None
    path = tuple(f"f:{part}" for part in kind.suspend)
    managers = {entry.manager for entry in seen.metadata.managed_fields if _at(entry.fields_v1.spec, path) is not None}
    if managers and rules.FIELD_MANAGER not in managers:
        return None
    return seen.metadata.annotations.get(SUSPENDED_BY)


def why_not(seen: JobObject) -> str:
    """Why somebody else decides whether the job runs; empty if nobody does."""
    owner = next((each for each in seen.metadata.owner_references if each.controller), None)
    if owner is not None and not is_above_jobs(owner.kind):
        return f"it is a part of {owner.kind}/{owner.name}, which decides whether it runs"
    if queue := seen.metadata.labels.get(QUEUE):
        return f"it is in Kueue's queue {queue}, and Kueue decides whether it runs"
    if _is_set(seen.spec, ("manualSelector",)):
        return "its pods are selected by hand, so that nothing says which they are"
    return ""


def end_of(seen: JobObject) -> GangEnd | None:
    return next(
        (ENDS[each.type] for each in seen.status.conditions if each.type in ENDS and each.status == "True"), None
    )


def _pod_of(pod: Pod) -> GangPod:
    return GangPod(pod.metadata.name, pod.spec.node_name, running=pod.status.phase == "Running" and not pod.leaving)


def _parsed(name: str) -> tuple[str, str, str]:
    """Names come from telemetry; only what can be a job's name may become part of a request."""
    parts = parse_gang_name(name)
    if parts is None or not (NAMESPACE_NAME.fullmatch(parts[0]) and JOB_NAME.fullmatch(parts[2])):
        raise NotFound(NAME, f"no job can have the name {name!r}: it is not of the form namespace/Kind/name")
    return parts


def _about(verb: str, name: str, kind: Kind) -> Question:
    namespace, _, stem = _parsed(name)
    return Question(verb, kind.plural, stem, namespace, group=kind.group, version=kind.version)


def _suspendable(name: str) -> Kind:
    word = _parsed(name)[1]
    if word not in KINDS:
        raise Rejected(NAME, f"cannot suspend {name}: {_why_no_kind(word)}")
    return KINDS[word]


def _why_no_kind(word: str) -> str:
    return "no controller would make it again" if word == "Pod" else f"a {word} cannot be suspended by healer"


def _holder(seen: JobObject, kind: Kind) -> str:
    return suspension_owner(seen, kind) or "a person"


def _is_set(spec: Mapping[str, msgspec.Raw], path: tuple[str, ...]) -> bool:
    raw = _at(spec, path)
    try:
        return raw is not None and decode(raw, bool | None) is True
    except msgspec.DecodeError as error:
        raise _nonsense(path, error) from error


def _at(fields: Mapping[str, msgspec.Raw], path: tuple[str, ...]) -> msgspec.Raw | None:
    """What stands there; None if nothing does."""
    first, *rest = path
    raw = fields.get(first)
    if raw is None or not rest:
        return raw
    try:
        below = decode(raw, dict[str, msgspec.Raw] | None)
    except msgspec.DecodeError as error:
        raise _nonsense(path, error) from error
    return _at(below or {}, tuple(rest))


def _nonsense(path: tuple[str, ...], error: msgspec.DecodeError) -> Unavailable:
    return Unavailable(NAME, f"{'.'.join(path)} of a job is not what Kubernetes sends ({error})")
