"""What Kubernetes' own answers mean to healer, without asking anybody: whose cordon it is, what a drain does with each
pod, which budget is in its way, and what a refusal says. A drain's rules are kubectl's, without its --force.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from healer.adapters.kubernetes.objects import (
    NAME,
    Budget,
    Condition,
    NodeObject,
    NodeStatus,
    Pod,
    Question,
    Status,
    status_of,
    understood,
)
from healer.domain.fleet import Disposition, Node, Workload
from healer.errors import Conflict, HealerError, NotFound, Rejected, Unavailable
from healer.ports import Eviction, EvictionAnswer
from healer.telemetry.places.kube import is_gpu

FIELD_MANAGER = "healer"
CORDONED_BY = "healer.dev/cordoned-by"
CORDON_REASON = "healer.dev/cordon-reason"
MIRROR = "kubernetes.io/config.mirror"
POD_TEMPLATE_HASH = "pod-template-hash"
FINISHED = frozenset({"Succeeded", "Failed"})
BLOCKED_RETRY = timedelta(seconds=5)  # a spent budget does not say when it will have recovered


def node_of(seen: NodeObject, *, rack_label: str | None, pool_label: str | None = None) -> Node:
    """A Ready condition that is Unknown, or absent, is not ready."""
    return Node(
        name=seen.metadata.name,
        ready=_is_true(seen.status.conditions, "Ready"),
        cordoned=seen.spec.unschedulable,
        cordoned_by=cordon_owner(seen),
        rack=seen.metadata.labels.get(rack_label) if rack_label else None,
        lost_gpus=_lost_gpus(seen.status),
        pool=seen.metadata.labels.get(pool_label) or None if pool_label else None,
    )


def _lost_gpus(status: NodeStatus) -> int:
    """What the kubelet counts and does not give away: a device plugin takes back a device that it finds unhealthy."""
    lost = (
        int(amount) - int(status.allocatable.get(resource, amount))
        for resource, amount in status.capacity.items()
        if is_gpu(resource) and amount.isdecimal() and status.allocatable.get(resource, amount).isdecimal()
    )
    return sum(each for each in lost if each > 0)


def cordon_owner(seen: NodeObject) -> str | None:
    """The run that cordoned the node; None for a person's cordon, and for none.

    The annotation alone is not proof. A person who lifts our cordon leaves the annotation behind, and a cordon that
    they set later is theirs: the server records who set the field last.
    """
    if not seen.spec.unschedulable:
        return None
    managers = {entry.manager for entry in seen.metadata.managed_fields if "f:unschedulable" in entry.fields_v1.spec}
    if managers and FIELD_MANAGER not in managers:
        return None
    return seen.metadata.annotations.get(CORDONED_BY)


def workload_of(pod: Pod, budgets: Sequence[Budget]) -> Workload:
    disposition, why = disposition_of(pod)
    stays = disposition is Disposition.STAYS
    return Workload(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        node=pod.spec.node_name,
        owner=owner_of(pod),
        disposition=disposition,
        leaving=pod.leaving,
        why=why,
        blocked_by=None if stays else blocked_by(pod, budgets),
    )


def is_movable(pod: Pod) -> bool:
    """Whether a budget may have a say in the pod's going."""
    return not pod.leaving and disposition_of(pod)[0] is not Disposition.STAYS


def disposition_of(pod: Pod) -> tuple[Disposition, str]:
    """What a drain does with the pod, and why. A pod that is leaving anyway is waited for, whoever made it."""
    stays = _why_it_stays(pod)
    if stays:
        return Disposition.STAYS, stays
    if pod.leaving:
        return Disposition.EVICT, ""
    if pod.controller is None:
        return Disposition.REFUSES, "no controller would make it again"
    if any(volume.empty_dir is not None for volume in pod.spec.volumes):
        return Disposition.EVICT, "loses its emptyDir data"
    return Disposition.EVICT, ""


def owner_of(pod: Pod) -> str:
    """What would make the pod again, by the name that outlives a rollout: the Deployment, not its ReplicaSet."""
    controller = pod.controller
    if controller is None:
        return f"Pod/{pod.metadata.name}"
    template_hash = pod.metadata.labels.get(POD_TEMPLATE_HASH)
    if controller.kind == "ReplicaSet" and template_hash and controller.name.endswith(f"-{template_hash}"):
        return f"Deployment/{controller.name.removesuffix(f'-{template_hash}')}"
    return f"{controller.kind}/{controller.name}"


def blocked_by(pod: Pod, budgets: Iterable[Budget]) -> str | None:
    """The budget that would refuse the pod's eviction now, as the API server would decide it."""
    if pod.leaving or pod.status.phase in FINISHED or pod.status.phase == "Pending":
        return None
    covering = [budget for budget in budgets if _covers(budget, pod)]
    if len(covering) > 1:
        names = ", ".join(sorted(budget.full_name for budget in covering))
        return f"{names} (Kubernetes evicts no pod that more than one budget covers)"
    if not covering or _is_let_go_unready(pod, covering[0]):
        return None
    budget = covering[0]
    if budget.status.observed_generation < budget.metadata.generation:
        return f"{budget.full_name} (not counted yet)"
    if budget.status.disruptions_allowed <= 0:
        return f"{budget.full_name} (0 disruptions allowed)"
    return None


def eviction_answer(status: int, body: bytes, question: Question) -> Eviction:
    """Raises what `refusal` makes of any answer that does not decide the eviction.

    A pod in a namespace that is being deleted cannot be evicted, nor need it be: the namespace takes it along. That
    counts as accepted, so that a drain waits for the pod instead of failing.
    """
    if 200 <= status <= 299:
        if understood(body, Status, question).status != "Success":
            raise Unavailable(NAME, f"the answer to {question} says neither yes nor no")
        return Eviction(EvictionAnswer.ACCEPTED)
    said = status_of(body) or Status(kind="Status")
    causes = {cause.reason: cause.message for cause in said.details.causes}
    if status == 429 and "DisruptionBudget" in causes:
        retry_after = timedelta(seconds=said.details.retry_after_seconds) or BLOCKED_RETRY
        detail = f"namespace {question.namespace}: {causes['DisruptionBudget'] or said.message}"
        return Eviction(EvictionAnswer.BLOCKED, detail, retry_after)
    if status == 403 and "NamespaceTerminating" in causes:
        return Eviction(EvictionAnswer.ACCEPTED, f"it goes with namespace {question.namespace}, which is being deleted")
    if status == 404 and said.details.name == question.name:
        return Eviction(EvictionAnswer.GONE)
    if status == 500 and "more than one PodDisruptionBudget" in said.message:
        raise Rejected(NAME, f"cannot {question}: {said.message}")
    raise refusal(status, body, question)


def refusal(status: int, body: bytes, question: Question) -> HealerError:
    """The error that an answer other than 2xx amounts to. Only the API server's own no counts as one."""
    said = status_of(body)
    words = f" ({said.message})" if said is not None and said.message else ""
    if status == 401:
        return Rejected(NAME, f"cannot {question}: the credentials were not accepted; renew them or name others")
    if status == 429:
        return Unavailable(NAME, f"cannot {question} now: the API server throttles{words}")
    if said is None or status >= 500 or status in {408, 410}:
        return Unavailable(NAME, f"no answer to {question}, only HTTP {status}{words}")
    return _own_refusal(status, question, said.message)


def _own_refusal(status: int, question: Question, message: str) -> HealerError:
    if status == 404:
        return NotFound(NAME, f"cannot {question}: {message}")
    if status == 409:
        return Conflict(NAME, f"cannot {question}: {message}")
    if status == 403 and " cannot " in message:  # else a policy in front of it refuses, and no rule would help
        return Rejected(NAME, f"cannot {question}: add {question.rule} to its ClusterRole ({message})")
    return Rejected(NAME, f"cannot {question}: {message}")


def _why_it_stays(pod: Pod) -> str:
    """Empty if it does not."""
    if pod.controller is not None and pod.controller.kind == "DaemonSet":
        return "its DaemonSet would start it here again"
    if MIRROR in pod.metadata.annotations:
        return "a static pod of the node itself"
    return "it has finished" if pod.status.phase in FINISHED else ""


def _covers(budget: Budget, pod: Pod) -> bool:
    """An empty selector selects every pod of the namespace, a missing one none."""
    if budget.spec.selector is None or budget.metadata.namespace != pod.metadata.namespace:
        return False
    return budget.spec.selector.matches(pod.metadata.labels)


def _is_let_go_unready(pod: Pod, budget: Budget) -> bool:
    """A pod that is not ready does not count as healthy, so that losing it may cost the budget nothing."""
    if _is_true(pod.status.conditions, "Ready"):
        return False
    status = budget.status
    return budget.spec.unhealthy_pod_eviction_policy == "AlwaysAllow" or (
        status.desired_healthy > 0 and status.current_healthy >= status.desired_healthy
    )


def _is_true(conditions: Iterable[Condition], kind: str) -> bool:
    return any(condition.type == kind and condition.status == "True" for condition in conditions)
