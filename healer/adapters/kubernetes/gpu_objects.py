"""Of nodes, pods and resource claims only what tells who has which GPUs; see kubernetes_objects for why so little."""

from __future__ import annotations

import msgspec

from healer.adapters.kubernetes.objects import ListMetadata


class Owner(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An owner reference."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False

    @property
    def group_version(self) -> tuple[str, str]:
        group, _, version = self.api_version.rpartition("/")
        return group, version


class _Part(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Unknown fields are skipped."""


class OwnedMetadata(_Part, frozen=True):
    uid: str
    name: str = ""
    namespace: str = ""
    owner_references: list[Owner] = []

    @property
    def owner(self) -> Owner | None:
        """The controller, else the first that would take the object along."""
        owners = self.owner_references
        return next((owner for owner in owners if owner.controller), owners[0] if owners else None)


class OwnedObject(_Part, frozen=True):
    """Anything, by its metadata alone."""

    metadata: OwnedMetadata


class OwnedObjectList(_Part, frozen=True):
    items: list[OwnedObject] | None
    metadata: ListMetadata


class Resource(_Part, frozen=True):
    """How the API serves a kind."""

    name: str
    kind: str
    namespaced: bool


class ResourceList(_Part, frozen=True):
    resources: list[Resource]


class GpuNodeMetadata(_Part, frozen=True):
    name: str
    labels: dict[str, str] = {}


class GpuNodeStatus(_Part, frozen=True):
    allocatable: dict[str, str] = {}


class GpuNode(_Part, frozen=True):
    metadata: GpuNodeMetadata
    status: GpuNodeStatus = GpuNodeStatus()


class GpuNodeList(_Part, frozen=True):
    items: list[GpuNode] | None
    metadata: ListMetadata


class Resources(_Part, frozen=True):
    requests: dict[str, str] = {}


class Container(_Part, frozen=True):
    resources: Resources = Resources()


class GpuPodSpec(_Part, frozen=True):
    node_name: str = ""
    containers: list[Container] = []
    init_containers: list[Container] = []
    resource_claims: list[msgspec.Raw] = []


class GpuPod(_Part, frozen=True):
    metadata: OwnedMetadata
    spec: GpuPodSpec


class GpuPodList(_Part, frozen=True):
    items: list[GpuPod] | None
    metadata: ListMetadata


class GroupVersion(_Part, frozen=True):
    version: str


class ApiGroup(_Part, frozen=True):
    preferred_version: GroupVersion


class Device(_Part, frozen=True):
    """Attributes:
    admin_access: it was given for looking at, beside whoever has it.
    """

    driver: str
    admin_access: bool | None = None


class Devices(_Part, frozen=True):
    results: list[Device] = []


class Allocation(_Part, frozen=True):
    devices: Devices = Devices()


class Consumer(_Part, frozen=True):
    uid: str


class ClaimStatus(_Part, frozen=True):
    allocation: Allocation | None = None
    reserved_for: list[Consumer] = []


class ResourceClaim(_Part, frozen=True):
    status: ClaimStatus = ClaimStatus()


class ResourceClaimList(_Part, frozen=True):
    items: list[ResourceClaim] | None
    metadata: ListMetadata
