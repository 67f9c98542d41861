"""What this host's kernel permits one process, and what a process has of it.

Source: Documentation/admin-guide/sysctl/vm.rst, fs.rst; Documentation/mm/overcommit-accounting.rst; CRIU's
criu/util.c rlimit_unlimit_nofile().
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from migrate import environment
from migrate.pb.session_pb2 import HostInventory, Task

_CAP_SYS_RESOURCE = 24
_NEVER_MORE_THAN_IT_HAS = "2"
#: Of /proc/PID/maps: addresses, and mode with a ``p``; those that the kernel makes for every process are left out.
_PRIVATE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ...p (?!.*\[v(?:dso|var|syscall))", re.MULTILINE)
_COMMIT = re.compile(r"^(CommitLimit|Committed_AS): +(\d+) kB", re.MULTILINE)


def of_host(found: HostInventory, effective: int) -> None:
    """Add to *found* what the kernel permits.

    :param effective: our capabilities, as bits.
    """
    found.most_mappings = _number("/proc/sys/vm/max_map_count")
    raises = effective >> _CAP_SYS_RESOURCE & 1
    most = _number("/proc/sys/fs/nr_open") if raises else environment.most_descriptors()
    found.end_of_descriptors = min(most, 0xFFFFFFFF)
    if _text("/proc/sys/vm/overcommit_memory") == _NEVER_MORE_THAN_IT_HAS:
        found.unpromised_bytes = unpromised(_text("/proc/meminfo"))


def of_task(found: Task, maps: str) -> None:
    """Add to *found* what it has mapped, *maps* being the content of /proc/PID/maps.

    CRIU makes each private mapping writable at first, and only such are promised (criu/mem.c premap_private_vma()).
    """
    found.mappings = maps.count("\n")
    found.private_bytes = sum(int(end, 16) - int(first, 16) for first, end in _PRIVATE.findall(maps))


def unpromised(meminfo: str) -> int:
    """What the kernel may still promise, from the content of /proc/meminfo, in bytes."""
    found = {name: int(number) * 1024 for name, number in _COMMIT.findall(meminfo)}
    return max(0, found.get("CommitLimit", 0) - found.get("Committed_AS", 0))


def _number(path: str) -> int:
    text = _text(path)
    return int(text) if text.isdecimal() else 0


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text().strip()
    return ""
