"""Which job a pod belongs to: the topmost of its owners that is still a job.

A pod of a RayJob is owned by a RayCluster, one of a JobSet by a Job, one of a LeaderWorkerSet by a StatefulSet by a pod
by a StatefulSet. What an object is owned by hardly ever changes while it lives, so that each is read once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from healer.adapters.kubernetes.client import KubernetesClient
from healer.adapters.kubernetes.gpu_objects import OwnedObject, OwnedObjectList, Owner, Resource, ResourceList
from healer.adapters.kubernetes.objects import NAME, Question
from healer.errors import NotFound, Rejected
from healer.telemetry.places.kube import is_above_jobs

LEVELS = 8
LIST_FROM = 20  # from so many unknown objects of one kind on, one list is cheaper than asking for each
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


@dataclass(frozen=True, slots=True)
class Owned:
    """Something in a namespace, and what owns it."""

    namespace: str
    owner: Owner


class Owners:
    """What it has read is kept as long as it is asked for."""

    def __init__(self, client: KubernetesClient) -> None:
        self._client = client
        self._above: dict[str, Owner | None] = {}  # uid of an owner -> its own owner
        self._resources: dict[str, dict[str, Resource]] = {}  # API version -> kind -> resource

    def topmost(self, owned: Iterable[Owned]) -> tuple[Mapping[str, Owner], tuple[str, ...]]:
        """By the uid of the owner, the topmost that is a job; and what could not be read on the way there.

        Who cannot be read is taken for the topmost. Raises Unavailable when the server does not answer.
        """
        first = {one.owner.uid: one for one in owned}
        seen: dict[str, Owner | None] = {}
        warnings: dict[str, None] = {}
        level = first
        for _ in range(LEVELS):
            unread = [one for uid, one in level.items() if uid not in self._above and not is_above_jobs(one.owner.kind)]
            warnings |= dict.fromkeys(self._read(unread))
            above = {uid: self._above.get(uid) for uid in level}
            seen |= above
            level = {
                owner.uid: Owned(level[uid].namespace, owner)
                for uid, owner in above.items()
                if owner is not None and owner.uid not in seen
            }
        self._above = {uid: owner for uid, owner in seen.items() if uid in self._above}
        return {uid: _climbed(one.owner, seen) for uid, one in first.items()}, tuple(warnings)

    def _read(self, unread: Iterable[Owned]) -> list[str]:
        """Learn the owners of these; says what it may not read."""
        by_kind: dict[tuple[str, str], list[Owned]] = defaultdict(list)
        for one in unread:
            by_kind[one.owner.api_version, one.owner.kind].append(one)
        refused: list[str] = []
        for (_, kind), those in by_kind.items():
            try:
                self._read_kind(those)
            except (Rejected, NotFound) as error:
                refused.append(f"{error}; jobs are named for their {kind}, not for what may own it")
        return refused

    def _read_kind(self, those: list[Owned]) -> None:
        resource = self._resource(those[0].owner)
        if len(those) < LIST_FROM:
            for one in those:
                self._above[one.owner.uid] = self._owner_of(one, resource)
            return
        group, version = those[0].owner.group_version
        question = Question("list", resource.name, group=group, version=version)
        wanted = {one.owner.uid for one in those}
        found: dict[str, Owner | None] = dict.fromkeys(wanted)  # who is not in the list has just gone
        for page in self._client.pages(OwnedObjectList, question, {}, accept=METADATA_LIST):
            for item in page.items or ():
                if item.metadata.uid in wanted:
                    found[item.metadata.uid] = item.metadata.owner
        self._above |= found

    def _owner_of(self, one: Owned, resource: Resource) -> Owner | None:
        group, version = one.owner.group_version
        namespace = one.namespace if resource.namespaced else ""
        question = Question("get", resource.name, one.owner.name, namespace, group=group, version=version)
        try:
            seen = self._client.ask(OwnedObject, question, accept=METADATA)
        except NotFound:
            return None
        same = seen.metadata.uid == one.owner.uid  # else it is a namesake that came later
        return seen.metadata.owner if same else None

    def _resource(self, owner: Owner) -> Resource:
        """Under which name the API serves the kind. Raises NotFound if it does not."""
        known = self._resources.get(owner.api_version, {})
        if owner.kind not in known:
            group, version = owner.group_version
            told = self._client.ask(ResourceList, Question("get", "", group=group, version=version))
            known = {one.kind: one for one in told.resources if "/" not in one.name}
            self._resources[owner.api_version] = known
        if owner.kind not in known:
            raise NotFound(NAME, f"serves no {owner.kind} of {owner.api_version}")
        return known[owner.kind]


def _climbed(owner: Owner, above: Mapping[str, Owner | None]) -> Owner:
    for _ in range(LEVELS):
        higher = above.get(owner.uid)
        if higher is None or is_above_jobs(higher.kind):
            break
        owner = higher
    return owner
