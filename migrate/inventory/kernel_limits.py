"""What this host's kernel permits one process, and what a process has of it.

Source: Documentation/admin-guide/sysctl/vm.rst, fs.rst; Documentation/mm/overcommit-accounting.rst; CRIU's
criu/util.c rlimit_unlimit_nofile().
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

from migrate import environment
from migrate.pb.session_pb2 import HostInventory, Task

_CAP_SYS_RESOURCE = 24
_BY_A_GUESS, _NEVER_MORE_THAN_IT_HAS = "0", "2"
#: Of /proc/PID/maps: addresses, and mode with a ``p``; those that the kernel makes for every process are left out.
_PRIVATE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ...p (?!.*\[v(?:dso|var|syscall))", re.MULTILINE)
#: Of /proc/PID/smaps, the same: addresses, and flags.
_FLAGS = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ...p .*\n(?:[A-Z].*\n)*?VmFlags:(.*)$", re.MULTILINE)
_MEMINFO = re.compile(r"^(\w+): +(\d+) kB", re.MULTILINE)
#: Smaller ones every host can promise, and to ask for flags takes long.
_LARGE_BYTES = 1 << 30


def of_host(found: HostInventory, effective: int) -> None:
    """Add to *found* what the kernel permits.

    :param effective: our capabilities, as bits.
    """
    found.most_mappings = _number("/proc/sys/vm/max_map_count")
    raises = effective >> _CAP_SYS_RESOURCE & 1
    most = _number("/proc/sys/fs/nr_open") if raises else environment.most_descriptors()
    found.end_of_descriptors = min(most, 0xFFFFFFFF)
    promising = _text("/proc/sys/vm/overcommit_memory")
    if promising == _NEVER_MORE_THAN_IT_HAS:
        found.unpromised_bytes = unpromised(_text("/proc/meminfo"))
    elif promising == _BY_A_GUESS:
        found.promised_at_once_bytes = at_once(_text("/proc/meminfo"))


def of_task(found: Task, maps: str, smaps: Callable[[], str]) -> None:
    """Add to *found* what it has mapped, *maps* and *smaps* being the content of these in /proc/PID.

    CRIU makes each private mapping writable at first, and only such are promised (criu/mem.c premap_private_vma()).
    """
    found.mappings = maps.count("\n")
    sizes = [int(end, 16) - int(first, 16) for first, end in _PRIVATE.findall(maps)]
    found.private_bytes, found.largest_private_bytes = sum(sizes), max(sizes, default=0)
    if found.largest_private_bytes >= _LARGE_BYTES:
        found.largest_private_bytes = largest_promised(smaps())


def largest_promised(smaps: str) -> int:
    """Bytes of the largest private mapping without MAP_NORESERVE, in the content of /proc/PID/smaps."""
    promised = [one for one in _FLAGS.findall(smaps) if "nr" not in one[2].split()]
    return max((int(end, 16) - int(first, 16) for first, end, _ in promised), default=0)


def at_once(meminfo: str) -> int:
    """What one call may map where the kernel guesses (mm/util.c __vm_enough_memory()), in bytes."""
    found = _sizes(meminfo)
    return found.get("MemTotal", 0) + found.get("SwapTotal", 0)


def unpromised(meminfo: str) -> int:
    """What the kernel may still promise, from the content of /proc/meminfo, in bytes."""
    found = _sizes(meminfo)
    return max(0, found.get("CommitLimit", 0) - found.get("Committed_AS", 0))


def _sizes(meminfo: str) -> dict[str, int]:
    return {name: int(number) * 1024 for name, number in _MEMINFO.findall(meminfo)}


def _number(path: str) -> int:
    text = _text(path)
    return int(text) if text.isdecimal() else 0


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text().strip()
    return ""
