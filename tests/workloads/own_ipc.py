"""A numbered stream's server that has all that System V offers, in an IPC namespace of its own.

``PORT SAYS USER``: serves as ``numbered.py serve PORT``, with a child. Before, it makes shared memory that both
have attached, locked, and one segment that has been removed since and one that nobody has; semaphores; and a
message queue with two messages. All that belongs to USER, a number, and not to root, as whom it runs. On SIGUSR1
the two speak by way of these, and it writes into the file SAYS, as JSON, what it sees.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import runpy
import signal
import socket
import struct
import sys
from pathlib import Path

PAGE = 4096
IPC_PRIVATE, IPC_CREAT, IPC_RMID, SHM_LOCK, SETVAL, GETVAL = 0, 0o1000, 0, 11, 16, 12
MSG_COPY, IPC_NOWAIT = 0o40000, 0o4000
QUESTION, ANSWER = 0, 1

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
libc.shmdt.argtypes = (ctypes.c_void_p,)
libc.msgrcv.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_long, ctypes.c_int)


def checked(result: int) -> int:
    """It, or the error."""
    if result in (-1, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Segment:
    """One of *size* bytes, attached."""

    def __init__(self, size: int, key: int = IPC_PRIVATE) -> None:
        self.number = checked(libc.shmget(key, size, IPC_CREAT | 0o600))
        self.address = checked(libc.shmat(self.number, None, 0))

    def write(self, offset: int, text: bytes) -> None:
        """Put *text* there."""
        ctypes.memmove(self.address + offset, text, len(text))

    def read(self, offset: int, size: int) -> bytes:
        """What is there."""
        return ctypes.string_at(self.address + offset, size)


def operate(semaphores: int, which: int, by: int) -> int:
    """As semop(2); it is waited for as long as it takes. How often that was interrupted."""
    interrupted = 0
    while libc.semop(semaphores, struct.pack("=Hhh", which, by, 0), 1):
        if ctypes.get_errno() != errno.EINTR:
            raise OSError(ctypes.get_errno(), "semop")
        interrupted += 1
    return interrupted


def answer(memory: Segment, semaphores: int) -> None:
    """The child: what is asked it says again, backwards, and how often it was interrupted as it waited for that."""
    while True:
        memory.write(3 * PAGE, bytes([operate(semaphores, QUESTION, -1)]))
        memory.write(2 * PAGE, memory.read(PAGE, 8)[::-1])
        operate(semaphores, ANSWER, 1)


def messages(queue: int) -> list[str]:
    """Those that wait, which they do afterwards, too."""
    found = []
    for number in range(2):
        got = ctypes.create_string_buffer(100)
        size = checked(libc.msgrcv(queue, got, 80, number, MSG_COPY | IPC_NOWAIT))
        found.append(f"{struct.unpack_from('=q', got.raw)[0]} {got.raw[8 : 8 + size].decode()}")
    return found


def table(name: str, columns: str) -> list[list[str]]:
    """Of /proc/sysvipc."""
    lines = [line.split() for line in Path("/proc/sysvipc", name).read_text().splitlines()]
    return [[row[lines[0].index(one)] for one in columns.split()] for row in lines[1:]]


def main(port: str, says: str, user: str) -> None:
    """See the module."""
    os.seteuid(int(user))
    memory = Segment(40 * PAGE, key=0x4D)
    gone, idle = Segment(2 * PAGE), Segment(5000, key=0x4E)
    memory.write(5 * PAGE, b"of both")
    gone.write(PAGE, b"removed")
    idle.write(4990, b"idle")
    checked(libc.shmdt(idle.address))
    checked(libc.shmctl(gone.number, IPC_RMID, None))
    semaphores = checked(libc.semget(0x4F, 3, IPC_CREAT | 0o600))
    checked(libc.semctl(semaphores, 2, SETVAL, 42))
    queue = checked(libc.msgget(0x50, IPC_CREAT | 0o600))
    for kind, text in ((7, b"first"), (3, b"second")):
        checked(libc.msgsnd(queue, struct.pack("=q", kind) + text, len(text), 0))
    os.seteuid(0)
    checked(libc.shmctl(memory.number, SHM_LOCK, None))
    if os.fork() == 0:
        answer(memory, semaphores)

    def say(*_: object) -> None:
        memory.write(PAGE, question := os.urandom(8))
        operate(semaphores, QUESTION, 1)
        operate(semaphores, ANSWER, -1)
        said = {
            "hostname": socket.gethostname(),
            "answered": memory.read(2 * PAGE, 8) == question[::-1],
            "interrupted": memory.read(3 * PAGE, 1)[0],
            "memory": [memory.read(5 * PAGE, 7).decode(), gone.read(PAGE, 7).decode()],
            "segments": table("shm", "key shmid perms size nattch uid gid"),
            "semaphores": table("sem", "key semid perms nsems uid gid"),
            "value": libc.semctl(semaphores, 2, GETVAL),
            "queues": table("msg", "key msqid perms cbytes qnum uid gid"),
            "messages": messages(queue),
        }
        Path(says + ".new").write_text(json.dumps(said))
        os.rename(says + ".new", says)  # noqa: PTH104

    signal.signal(signal.SIGUSR1, say)
    program = Path(__file__).with_name("numbered.py")
    sys.argv = [str(program), "serve", port]
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
