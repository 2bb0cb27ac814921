"""PCI addresses in every spelling, in one form: "0000:b3:00", domain, bus and device in lower-case hexadecimal.

XIDs come as PCI:0000:b3:00 and, by driver and tool, without "PCI:", with a function (.0), with the eight-digit domain
of nvidia-smi and DCGM (00000000:B3:00.0), or without a domain. The function is left out: an XID does not name it, and a
GPU is its device's function 0.
"""

from __future__ import annotations

import re

_HEX = "[0-9A-Fa-f]"
_ADDRESS = re.compile(f"(?:PCI:)?(?:({_HEX}{{4,8}}):)?({_HEX}{{2,4}}):({_HEX}{{2}})(?:\\.{_HEX})?", re.IGNORECASE)
_WITHIN = re.compile(f"(?<![0-9A-Za-z])(?:PCI:)?{_HEX}{{4,8}}:{_HEX}{{2}}:{_HEX}{{2}}(?:\\.{_HEX})?(?![0-9A-Za-z:])")


def pci_address(text: str) -> str | None:
    """In the one form; None if the text is not an address."""
    parts = _ADDRESS.fullmatch(text)
    if parts is None:
        return None
    domain, bus, device = (int(part or "0", 16) for part in parts.groups())
    return f"{domain:04x}:{bus:02x}:{device:02x}"


def pci_address_within(text: str) -> str | None:
    """The first address in the text, which has to have a domain: a time of day looks like one without."""
    found = _WITHIN.search(text)
    return None if found is None else pci_address(found[0])
