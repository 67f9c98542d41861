"""Limits of kernels that are too small for a process, and what a process has of them."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import inventories as two
import pytest

from migrate import environment
from migrate.inventory import kernel_limits, of_process
from migrate.pb.session_pb2 import HostInventory, Task

MAPS = """\
55d0a000-55d0c000 r--p 00000000 08:01 17 /usr/bin/x
55d0c000-55d0d000 ---p 00000000 00:00 0
7f000000-7f100000 rw-s 00000000 00:01 99 /dev/zero (deleted)
7ffd0000-7ffd2000 r-xp 00000000 00:00 0 [vdso]
7ffd2000-7ffd6000 r--p 00000000 00:00 0 [vvar]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
"""
MAP_NORESERVE = 0x4000
MEMINFO = "MemTotal: 9 kB\nCommitLimit:    12342040 kB\nCommitted_AS:    7268156 kB\n"


def test_what_is_mapped() -> None:
    """CRIU makes each private mapping writable at first, whatever it was."""
    task = Task()
    kernel_limits.of_task(task, MAPS, "none are large".upper)
    assert (task.mappings, task.private_bytes, task.largest_private_bytes) == (6, 0x3000, 0x2000)


def test_what_a_process_has() -> None:
    before = of_process.process(os.getpid()).tasks[0]
    high = os.dup2(0, 900)
    with mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ):
        found = of_process.process(os.getpid()).tasks[0]
        lines = Path("/proc/self/maps").read_text().count("\n")
    os.close(high)
    assert found.highest_descriptor == high and before.highest_descriptor < high
    freed = 128 << 20  # at most, of what the tests before had taken
    assert found.private_bytes - before.private_bytes >= (1 << 30) - freed
    assert abs(found.mappings - lines) < 20


def test_what_it_has_reserved() -> None:
    """Whether it may be written or not, but for what it wants no promise for."""
    with (
        mmap.mmap(-1, 3 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ),
        mmap.mmap(-1, 4 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE),
        mmap.mmap(-1, 5 << 30, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_NORESERVE),
    ):
        found = of_process.process(os.getpid()).tasks[0]
    assert 3 << 30 <= found.largest_private_bytes < 4 << 30


@pytest.mark.parametrize(("there", "refused"), [(0, False), (1 << 40, False), ((1 << 40) - 1, True)])
def test_a_kernel_that_promises_no_call_more_than_it_has(there: int, refused: bool) -> None:
    process = two.process(tasks=[two.task(largest_private_bytes=1 << 40)])
    found = two.reasons(process, None, two.destination(promised_at_once_bytes=there))
    assert [(one.code, one.role) for one in found] == [("not-promised-at-once", "destination")] * refused


def test_what_the_kernel_permits() -> None:
    found = HostInventory()
    kernel_limits.of_host(found, 0)
    assert found.most_mappings == int(Path("/proc/sys/vm/max_map_count").read_text())
    assert found.end_of_descriptors == environment.most_descriptors()
    kernel_limits.of_host(found, 1 << 24)
    assert found.end_of_descriptors == int(Path("/proc/sys/fs/nr_open").read_text())
    strict = Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    assert found.HasField("unpromised_bytes") is strict
    guessing = Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "0"
    assert (found.promised_at_once_bytes > 1 << 30) is guessing
    assert kernel_limits.at_once(MEMINFO + "SwapTotal: 2 kB\n") == 11 * 1024
    assert kernel_limits.unpromised(MEMINFO) == (12342040 - 7268156) * 1024
    assert kernel_limits.unpromised("") == 0


@pytest.mark.parametrize(("most", "refused"), [(0, False), (1000, True), (1049, True), (1050, False)])
def test_mappings(most: int, refused: bool) -> None:
    process = two.process(tasks=[two.task(mappings=1000)])
    found = two.reasons(process, None, two.destination(most_mappings=most))
    assert [(one.code, one.role) for one in found] == [("mappings", "destination")] * refused
    assert all(one.remedy.endswith("vm.max_map_count=1050") for one in found)
    found = two.reasons(process, two.origin(most_mappings=most))
    assert [(one.code, one.role) for one in found] == [("mappings", "origin")] * refused


@pytest.mark.parametrize(("end", "refused"), [(0, False), (1000, True), (1100, True), (1101, False)])
def test_numbers_of_descriptors(end: int, refused: bool) -> None:
    process = two.process(tasks=[two.task(highest_descriptor=1000)])
    found = two.reasons(process, None, two.destination(end_of_descriptors=end))
    assert [(one.code, one.role) for one in found] == [("high-descriptor", "destination")] * refused


def test_a_kernel_that_promises_no_more_than_it_has() -> None:
    process = two.process(tasks=[two.task(private_bytes=1 << 30)])
    assert two.reasons(process) == []
    assert two.reasons(process, None, two.destination(unpromised_bytes=1 << 30)) == []
    reason = two.only(two.reasons(process, None, two.destination(unpromised_bytes=(1 << 30) - 1)))
    assert (reason.code, reason.role) == ("not-promised", "destination")
