"""Which memory of a running process is worth a copy, and reading it, while the process runs on.

Nothing here stops, traces or changes the process. What is read may be torn or stale: whoever uses it compares
it with what CRIU finds after the freeze. So an address that cannot be read is left out, never an error.

Source: man proc(5) for /proc/PID/{maps,mem,pagemap,map_files}; fs/proc/task_mmu.c do_pagemap_scan();
criu/mem.c should_dump_page() and criu/proc_parse.c for what CRIU writes into its pages images.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import mmap
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from migrate.memory.pagemap import PAGE_BYTES
from migrate.processes import identity

#: Of which kind a pages image is, with CRIU's page server's numbers (criu/page-xfer.c PS_TYPE_*).
TASK, SHARED = 1, 2

#: include/uapi/linux/fs.h: PAGEMAP_SCAN, since Linux 6.7.
_PAGEMAP_SCAN = 0xC0606610
_SCAN = struct.Struct("=12Q")
_REGION = struct.Struct("=3Q")
_REGIONS = 1024
_IS_FILE, _IS_PRESENT, _IS_SWAPPED, _IS_PFNZERO = 4, 8, 16, 32

#: /proc/PID/pagemap, the way of older kernels.
_PM_PRESENT, _PM_SWAPPED, _PM_FILE, _PM_FRAME = 1 << 63, 1 << 62, 1 << 61, (1 << 55) - 1
_PM_ENTRIES = 1 << 16
#: With pagemap, a mapping larger than this that may be sparse is left for the freeze.
_PM_MOST_BYTES = 64 << 30

#: Mappings that are not the process's own memory.
_KERNELS = ("[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]")
#: Shared memory that goes into CRIU's images: anonymous, memfd, and System V's, whose inode is its number; files in
#: /dev/shm stay files.
_SHARED_NAMES = re.compile(r"(/dev/zero|/memfd:.*|/SYSV[0-9a-f]{8}) \(deleted\)")
_MAP = re.compile(
    r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) (...)(.) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d{1,20})(?!\d) *(.*)",
    re.ASCII,
)

_libc = ctypes.CDLL(None)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Key(NamedTuple):
    """What a pages image belongs to: ``TASK`` and the PID that CRIU uses, or ``SHARED`` and the inode."""

    kind: int
    number: int

    @property
    def image(self) -> str:
        """The name of its pagemap image (criu/image-desc.c)."""
        return f"pagemap-{'shmem-' if self.kind == SHARED else ''}{self.number}.img"


@dataclass(frozen=True, slots=True)
class Mapping:
    """A line of /proc/PID/maps."""

    start: int
    end: int
    private: bool
    inode: int
    name: str


def equal(address: int, other: int, size: int) -> bool:
    """Compare *size* bytes at two addresses of this process; other threads run meanwhile."""
    return bool(_libc.memcmp(address, other, size) == 0)


def address_of(memory: mmap.mmap) -> int:
    """Where a writable mapping of ours lies; it must not be closed while the address is in use."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def mappings(pid: int) -> list[Mapping]:
    """The mappings of *pid*, ascending; none if it has ended."""
    try:
        return mappings_in(Path(f"/proc/{pid}/maps").read_bytes())
    except OSError:
        return []


def mappings_in(maps: bytes) -> list[Mapping]:
    """The same from the content of /proc/PID/maps; of names, only line feeds are written otherwise."""
    lines = maps.decode(errors="replace").split("\n")
    found = []
    for match in filter(None, map(_MAP.fullmatch, lines)):
        start, end, _, sharing, _, _, inode, name = match.groups()
        found.append(Mapping(int(start, 16), int(end, 16), sharing == "p", int(inode), name))
    return found


class Source:
    """Memory to copy. Use as a context manager; runs and addresses are multiples of the page size.

    :ivar key: to which of CRIU's images it belongs.
    """

    def __init__(self, key: Key, path: str) -> None:
        self.key = key
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def runs(self) -> Iterator[tuple[int, int]]:
        """(start, end) of what has pages now, ascending."""
        raise NotImplementedError

    def read(self, view: memoryview, address: int) -> int:
        """Fill *view* from *address* on.

        :return: how many bytes, a multiple of the page size; 0 when the first page cannot be read.
        """
        try:
            got = os.preadv(self._file, [view], address)
        except OSError:
            return 0
        return got - got % PAGE_BYTES


class TaskMemory(Source):
    """Private memory of one task: anonymous pages, and pages of files that it has written to."""

    def __init__(self, pid: int) -> None:
        super().__init__(Key(TASK, identity.innermost(pid)), f"/proc/{pid}/mem")
        self._pid = pid

    def runs(self) -> Iterator[tuple[int, int]]:
        try:
            pagemap = os.open(f"/proc/{self._pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it has ended
            return
        try:
            for mapping in mappings(self._pid):
                if mapping.private and mapping.name not in _KERNELS:
                    yield from _resident(pagemap, mapping)
        finally:
            os.close(pagemap)


class SharedMemory(Source):
    """Shared memory that has no file, of which *mapping* in *pid* is one mapping: offsets, not addresses."""

    def __init__(self, pid: int, mapping: Mapping) -> None:
        path = f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
        super().__init__(Key(SHARED, mapping.inode), path)

    def runs(self) -> Iterator[tuple[int, int]]:
        size = os.fstat(self._file).st_size // PAGE_BYTES * PAGE_BYTES
        end = 0
        while end < size:
            try:
                start = os.lseek(self._file, end, os.SEEK_DATA) // PAGE_BYTES * PAGE_BYTES
                end = min(size, -(-os.lseek(self._file, start, os.SEEK_HOLE) // PAGE_BYTES) * PAGE_BYTES)
            except OSError:  # ENXIO: no data after this
                return
            yield start, end


def sources(pids: Iterable[int]) -> Iterator[Source]:
    """What is to be copied of the processes *pids*, opened; what cannot be opened is left out."""
    shared = set()
    for pid in pids:
        try:
            yield TaskMemory(pid)
        except OSError:
            continue
        for mapping in mappings(pid):
            if mapping.private or mapping.inode in shared or not _SHARED_NAMES.fullmatch(mapping.name):
                continue
            try:
                yield SharedMemory(pid, mapping)
            except OSError:
                continue
            shared.add(mapping.inode)


def _resident(pagemap: int, mapping: Mapping) -> Iterator[tuple[int, int]]:
    """The parts of a private *mapping* that CRIU would write: no untouched file page, no zero page."""
    try:
        yield from _scanned(pagemap, mapping.start, mapping.end)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            return
        if mapping.end - mapping.start <= _PM_MOST_BYTES:
            yield from _looked_up(pagemap, mapping.start, mapping.end)


def _scanned(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    regions = bytearray(_REGIONS * _REGION.size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(regions))
    unwanted, wanted = _IS_FILE | _IS_PFNZERO, _IS_PRESENT | _IS_SWAPPED
    while start < end:
        argument = bytearray(
            _SCAN.pack(_SCAN.size, 0, start, end, 0, address, _REGIONS, 0, unwanted, unwanted, wanted, wanted)
        )
        count = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, argument)
        for begin, stop, _ in _REGION.iter_unpack(bytes(regions[: count * _REGION.size])):
            yield begin, stop
        walked = _SCAN.unpack(argument)[4]
        if walked <= start:
            return
        start = walked


def _looked_up(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    zero = _zero_frame()
    while start < end:
        entries = array.array("Q")
        size = min(_PM_ENTRIES, (end - start) // PAGE_BYTES) * entries.itemsize
        try:
            entries.frombytes(os.pread(pagemap, size, start // PAGE_BYTES * entries.itemsize))
        except OSError:
            return
        if not entries:
            return
        run = None
        for index, entry in enumerate(entries):
            wanted = (
                entry & (_PM_PRESENT | _PM_SWAPPED) and not entry & _PM_FILE and entry & _PM_FRAME != zero
            )
            if wanted and run is None:
                run = index
            elif not wanted and run is not None:
                yield start + run * PAGE_BYTES, start + index * PAGE_BYTES
                run = None
        if run is not None:
            yield start + run * PAGE_BYTES, start + len(entries) * PAGE_BYTES
        start += len(entries) * PAGE_BYTES


def _zero_frame() -> int:
    """The frame that memory never written to shares; as criu/kerndat.c kerndat_get_zero_page_pfn()."""
    with mmap.mmap(-1, PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page[0]  # noqa: B018 - a read maps the zero page
        with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
            entry = os.pread(file.fileno(), 8, address_of(page) // PAGE_BYTES * 8)
    return int.from_bytes(entry, "little") & _PM_FRAME
