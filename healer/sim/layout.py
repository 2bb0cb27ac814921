"""Where things stand in a simulated fleet: which racks, nodes and GPUs there are, and how each is called."""

from __future__ import annotations

import difflib
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from healer.errors import NotFound, Rejected

COMPONENT = "simulated fleet"
_MODEL = "NVIDIA H100 80GB HBM3"
_BUS_NUMBERS = (0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF)  # the eight GPUs of an HGX board, as lspci lists them


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Names and positions. GPU arrays are node-major: GPU `g` of node `n` is at `n * gpus_per_node + g`."""

    racks: tuple[str, ...]
    nodes: tuple[str, ...]
    gpus_per_node: int
    rack_of_node: NDArray[np.intp]  # (n_nodes,)
    uuids: tuple[str, ...]  # (n_gpus,)
    model: str = _MODEL

    @property
    def n_gpus(self) -> int:
        return len(self.nodes) * self.gpus_per_node

    def node_index(self, node: str) -> int:
        return _position(self.nodes, node, kind="node")

    def rack_index(self, rack: str) -> int:
        return _position(self.racks, rack, kind="rack")

    def gpus_of_node(self, node: str) -> slice:
        first = self.node_index(node) * self.gpus_per_node
        return slice(first, first + self.gpus_per_node)

    def gpus_of_rack(self, rack: str) -> NDArray[np.bool_]:
        """Mask over all GPUs."""
        return np.repeat(self.rack_of_node == self.rack_index(rack), self.gpus_per_node)

    def gpu_index(self, node: str, gpu: int) -> int:
        if not 0 <= gpu < self.gpus_per_node:
            raise NotFound(COMPONENT, f"{node} has no GPU {gpu}, only 0 to {self.gpus_per_node - 1}")
        return self.node_index(node) * self.gpus_per_node + gpu

    def rack_of(self, node: str) -> str:
        return self.racks[int(self.rack_of_node[self.node_index(node)])]

    def nodes_of(self, rack: str) -> tuple[str, ...]:
        index = self.rack_index(rack)
        return tuple(node for node, at in zip(self.nodes, self.rack_of_node, strict=True) if at == index)


@dataclass(frozen=True, slots=True)
class Naming:
    """How a site calls its racks and nodes: formats of their numbers, from 1 on; `slot` is that in the rack."""

    rack: str = "rack-{rack}"
    node: str = "gpu-{node:0{width}d}"


NAMINGS = (
    Naming(),
    Naming("R{rack:02d}", "r{rack:02d}-n{slot:02d}"),
    Naming("dh1-a{rack:02d}", "dgx{node:0{width}d}"),
    Naming("row-b.{rack}", "ip-10-12-{rack}-{slot}"),
    Naming("{rack:03d}", "h100-{rack:03d}-{slot:02d}"),
)


def build_layout(*, racks: int, nodes: int, gpus: int, seed: int, naming: Naming = NAMINGS[0]) -> Layout:
    """`nodes` is the number of nodes in all; neighbours by number share a rack, as they do in a machine room.

    Raises:
        Rejected: a rack would be empty, or there is nothing to simulate.
    """
    if min(racks, nodes, gpus) < 1:
        raise Rejected(COMPONENT, f"{racks} racks, {nodes} nodes, {gpus} GPUs per node: each must be at least 1")
    if nodes < racks:
        raise Rejected(COMPONENT, f"{nodes} nodes cannot fill {racks} racks: ask for at least one node per rack")
    width = max(3, len(str(nodes)))
    rack_of_node = np.arange(nodes) * racks // nodes
    slots = np.arange(nodes) - np.searchsorted(rack_of_node, rack_of_node)
    names = tuple(
        naming.node.format(node=number + 1, rack=rack + 1, slot=slot + 1, width=width)
        for number, (rack, slot) in enumerate(zip(rack_of_node.tolist(), slots.tolist(), strict=True))
    )
    return Layout(
        racks=tuple(naming.rack.format(rack=number) for number in range(1, racks + 1)),
        nodes=names,
        gpus_per_node=gpus,
        rack_of_node=rack_of_node,
        uuids=tuple(_gpu_uuid(seed, name, gpu) for name in names for gpu in range(gpus)),
    )


def pci_bus_id(gpu: int) -> str:
    domain, place = divmod(gpu, len(_BUS_NUMBERS))
    return f"{domain:08X}:{_BUS_NUMBERS[place]:02X}:00.0"


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint for a name that nobody knows: the closest known one, or a few of them."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    return f"known: {shown}"


def _gpu_uuid(seed: int, node: str, gpu: int) -> str:
    digest = hashlib.sha256(f"{seed}/{node}/{gpu}".encode()).digest()
    return f"GPU-{uuid.UUID(bytes=digest[:16], version=4)}"


def _position(known: tuple[str, ...], name: str, *, kind: str) -> int:
    try:
        return known.index(name)
    except ValueError:
        raise NotFound(COMPONENT, f"there is no {kind} {name!r} ({nearest(name, known)})") from None
