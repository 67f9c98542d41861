"""A program in an IPC or UTS namespace of its own: what CRIU makes again, and what is found that it does not."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns import Namespace, eventually
from programs import program

from migrate import inventory
from migrate.checks.obstacles import NOTES, WORDS
from migrate.inventory import open_files, own_ipc
from migrate.memory import sources
from migrate.memory.sources import SHARED, Key
from migrate.processes import ipc_namespace
from tcpcp.criu import tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces")

PAGE = 4096
LIBC = """
libc = ctypes.CDLL(None, use_errno=True); libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int); libc.shmdt.argtypes = (ctypes.c_void_p,)
"""
OWN = LIBC + "assert libc.unshare(0x08000000) == 0\n"
ATTACHED = """
number = libc.shmget(0x4D, 8 * 4096, 0o1600); at = libc.shmat(number, None, 0)
ctypes.memmove(at + 4096, b"second", 6); ctypes.memmove(at + 5 * 4096, b"sixth", 5)
"""
IDLE = """
idle = libc.shmat(libc.shmget(0, 4 * 4096, 0o1600), None, 0); ctypes.memset(idle, 7, 9); libc.shmdt(idle)
"""
QUEUE = """
q = libc.msgget(0, 0o1600); send = lambda n: libc.msgsnd(q, struct.pack("=q", 1) + bytes(n), n, 0)
"""
SMALL = """
status = ctypes.create_string_buffer(256); libc.msgctl(q, 2, status)
status[88:96] = struct.pack("=Q", 100); assert libc.msgctl(q, 1, status) == 0
"""
LARGE = "open('/proc/sys/kernel/msgmax', 'w').write('16384'); assert send(9000) == 0\n"


def found_in(code: str) -> tuple[set[str], set[str]]:
    """The obstacles of a program while it runs, and when it is looked at again."""
    with program(code + "ready()") as pid:
        obstacles = inventory.process(pid).obstacles
        again = open_files.again(tree.tasks(pid), (), ()).obstacles
    assert all(one.code in {**WORDS, **NOTES} for one in (*obstacles, *again))
    return {one.code for one in obstacles}, {one.code for one in again}


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        pytest.param(LIBC + "assert libc.unshare(0x04000000) == 0\n", set(), id="host names"),
        pytest.param(OWN + ATTACHED + IDLE, set(), id="shared memory"),
        pytest.param(OWN + QUEUE + "assert send(5) == 0\n", set(), id="a message"),
        pytest.param(OWN + "libc.semget(0, 2, 0o1600)\n", {"sysv-undo"}, id="semaphores"),
        pytest.param(OWN + QUEUE + SMALL, {"sysv-queue"}, id="a queue of another size"),
        pytest.param(OWN + QUEUE + LARGE, {"sysv-queue"}, id="a large message"),
        pytest.param(
            OWN + "os.close(libc.mq_open(b'/\\xff', 0o102, 0o600, None))\n", {"posix-queue"}, id="POSIX queue"
        ),
        pytest.param(
            LIBC + ATTACHED + "libc.shmctl(number, 0, None); assert libc.unshare(0x08000000) == 0\n",
            {"sysv-elsewhere"},
            id="shared memory of another namespace",
        ),
        pytest.param(
            OWN + ATTACHED + "if os.fork() == 0:\n  libc.unshare(0x08000000); ready()\nsignal.pause()\n",
            {"namespace"},
            id="a child in one of its own",
        ),
    ],
)
def test_what_is_found(namespace: Namespace, code: str, kinds: set[str]) -> None:
    assert found_in(code) == (kinds, kinds)


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """This host lends some to whoever asks, as long as the test takes, if it may be told to."""
    path = Path("/proc/sys/vm/nr_overcommit_hugepages")
    try:
        before = path.read_text()
        path.write_text(str(int(before) + 2))
    except OSError:
        yield
        return
    yield
    path.write_text(before)


@pytest.mark.usefixtures("huge_pages")
def test_huge_pages(namespace: Namespace) -> None:
    """Of which the destination may have none."""
    code = (
        OWN + "at = libc.shmat(libc.shmget(0, 2 << 20, 0o5600), None, 0)\nif at == 2**64 - 1: os._exit(3)\n"
    )
    try:
        assert found_in(code) == ({"sysv-huge"}, {"sysv-huge"})
    except AssertionError as error:
        if "program failed" in str(error):
            pytest.skip("this host has no huge pages")
        raise


def test_who_has_attached_it_and_is_in_no_namespace_of_the_tree(namespace: Namespace) -> None:
    """The kernel counts who has it; while the tree runs it may be one of its own that is just forking."""
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    with program(OWN + ATTACHED + "ready()") as pid:
        address = ipc_namespace.within(pid, lambda: libc.shmat(0, None, 0))
        try:
            again = open_files.again(tree.tasks(pid), (), ()).obstacles
        finally:
            libc.shmdt(ctypes.c_void_p(address))
        assert [(one.code, one.what) for one in again] == [("sysv-elsewhere", "ipcs -m -i 0")]
        assert open_files.again(tree.tasks(pid), (), ()).obstacles == []


def test_who_else_is_in_it(namespace: Namespace) -> None:
    """Not the tree's own children; another process is named."""
    with program(OWN + "os.fork() or ready()\nready()") as pid:
        assert list(inventory.process(pid).obstacles) == []
        command = ["nsenter", "-t", str(pid), "-i", sys.executable, "-c", "input()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as other:
            try:
                found = eventually(lambda: inventory.process(pid).obstacles, "it is in there")
                assert [one.code for one in found] == ["ipc-beside"]
                assert f"(PID {other.pid})" in found[0].what
            finally:
                other.kill()


def test_memory_of_it(namespace: Namespace) -> None:
    """What is attached is read before the freeze, by the number that CRIU's image has; what is not is counted."""
    with program(OWN + IDLE + ATTACHED + "ready()") as pid:
        found = {}
        for source in sources.sources([pid]):
            with source:
                if source.key.kind == SHARED:
                    page = bytearray(PAGE)
                    found[source.key] = [
                        (start // PAGE, source.read(memoryview(page), start), bytes(page).rstrip(b"\0"))
                        for start, _ in source.runs()
                    ]
        assert found == {Key(SHARED, 1): [(1, PAGE, b"second"), (5, PAGE, b"sixth")]}
        assert own_ipc.idle_bytes([pid]) == PAGE
