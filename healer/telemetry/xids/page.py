"""docs/xids.md, which `make docs` writes: how a line is judged, and what the catalogue says of each XID."""

from __future__ import annotations

from healer.telemetry.xids.catalogue import CATALOGUE, Part, Xid
from healer.telemetry.xids.words import Action

_PAGE = """\
<!-- Written by `make docs` from healer/telemetry/xids; change that. -->
# Kernel-log lines and XIDs

What lines of a log mean is told by `healer xid "NVRM: Xid (PCI:0000:b3:00): 79, ..."`, or by `dmesg -w | healer xid`,
which prints each event while it reads. With `--json` it is one JSON object a line. It reads no configuration, and lines
that are nothing to it are only counted.

## What is recognised

* XIDs and SXIDs in the spellings of all drivers, with process, MIG instance, link and processors.
* A GPU that has fallen off the bus without an XID, on one line or on three.
* Trouble that has no code: NVLink discovery, a GPU that cannot be initialised, unified memory that needs a reboot.
* Fabric manager's errors; crashes inside NCCL; the watchdog of PyTorch's NCCL process groups.

Any heading will do, or none: dmesg's stamps, `/dev/kmsg` records, syslog, journalctl, fabric manager's log. PCI
addresses are shown as `0000:b3:00`: domain, bus, device. The log's own lines of a driver's start and of a GPU's UUID
are used where they are there; `--driver` names the driver's branch where they are not.

## How it is judged

1. **XID 154** carries the driver's own recovery action, and that wins over any table. Its number counts; where its
   words are known and contradict the number, the worse of the two. Field 1523 has the same numbers.
2. **XIDs 144 to 150** have a sub-code, which is read from IntrInfo (bits 9:0 before R575, bits 6:0 since) and
   ErrorStatus, and by its name. Without a known driver both layouts are tried. Where they ask for different things,
   the worst counts. A line that calls itself fatal is never ignored for a table that calls it harmless.
3. **XIDs 94 and 95** may end with `RST: Yes`: then a reset is needed, whatever the catalogue says.
4. **XID 45** is what an application's end leaves behind. Soon (30 s) after another XID of its GPU or its host, or
   where it names its cause itself, it is to be ignored and the other one to be followed. Alone it is mostly a job that
   was killed; a run of them, one for each GPU, counts up.
5. Otherwise **the catalogue**: NVIDIA's immediate action. An unknown code is UNKNOWN: it opens a question and permits
   nothing. Codes that the catalogue has without an action are decided by their mnemonics, marked * below.
6. **SXIDs** are fatal if the line says so; where the table excludes what the line says, they are fatal. A fatal one
   asks for RESET_FABRIC: the switch's GPUs and switches together.

Whoever was overruled is shown with what they say.

## Blame

| class | means | and so |
| --- | --- | --- |
| application | the application did something illegal; 94: a memory error hit nothing else | restart it, leave the GPU |
| hardware | memory, the board, or a GPU that needs a reset | the action below |
| link | NVLink, NVSwitch, the link to a Grace processor | look at both ends |
| software | driver, firmware, virtualisation | the action below; an update if it recurs |
| information | a message that is no error | nothing |
| unknown | nobody says whose fault it is | a person looks |

## XIDs

Action and investigation are NVIDIA's words. *154 since* is the driver branch since which an XID 154 follows with the
driver's own verdict. Parts are those that the catalogue has the code for; without any, only older ones report it.

"""

_COLUMNS = ("XID", "mnemonic", "action", "then", "blame", "failure mode", "parts", "154 since")


def xids_page() -> str:
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_row, CATALOGUE.values())]
    return _PAGE + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _row(entry: Xid) -> tuple[str, ...]:
    since = {None: "", 0: "always"}.get(entry.recovery_since, f"R{entry.recovery_since}")
    ours = "*" if entry.nvidia is Action.UNKNOWN and entry.action is not Action.UNKNOWN else ""
    parts = "all" if len(entry.parts) == len(Part) else " ".join(part for part in Part if part in entry.parts)
    return (
        str(entry.code),
        " or ".join(entry.mnemonic.split("/")),
        entry.action + ours,
        entry.inquiry,
        entry.blame,
        entry.mode,
        parts,
        since,
    )
