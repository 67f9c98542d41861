"""A PID namespace for a tree whose PIDs are taken on this host: it keeps its numbers, seen from inside.

``python -I -S pid_namespace.py LAST_PID PROGRAM ARGUMENT...`` makes a PID and a mount namespace, with a /proc of
its own, and runs PROGRAM (a CRIU worker) in it. Standard output gets one line: the PID, as this host sees it,
of the namespace's init, which reaps and ends when the last task has ended; killing it kills everything in the
namespace. The starting process lives as long as PROGRAM and ends with its status.

LAST_PID keeps PROGRAM and its helpers off the numbers that the tree will need.

Uses nothing but the standard library: it stays in memory as long as the tree lives.
"""

import ctypes
import os
import signal
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
MS_REC_PRIVATE = 0x4000 | 0x40000


def main() -> int:
    """The starting process."""
    last_pid, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "unshare")
    told, tell = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(told)
        _init(libc, last_pid, command, tell)
    os.close(tell)
    os.write(1, b"%d\n" % init)
    os.close(1)
    status = os.read(told, 4)
    return int(status) if status else 1


def _init(libc: ctypes.CDLL, last_pid: int, command: list[str], tell: int) -> None:
    """PID 1 of the namespace: start PROGRAM, say how it ended, reap until nobody is left."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None) or libc.mount(
        b"proc", b"/proc", b"proc", 0, None
    ):
        os._exit(1)
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:  # noqa: PTH123
        file.write(str(last_pid))
    program = os.fork()
    if program == 0:
        os.execv(command[0], command)
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, tell)
    os.closerange(tell + 1, 1024)
    os.chdir("/")
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            os._exit(0)
        if pid == program:
            os.write(tell, b"%d" % (os.waitstatus_to_exitcode(status) & 0xFF))
            os.close(tell)
            program = 0  # whoever gets its number later is another one


if __name__ == "__main__":
    sys.exit(main())
