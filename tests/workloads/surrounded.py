"""A program that sets all that surrounds a process, and says how it is to whoever connects.

``surrounded.py PORT`` has two threads with attributes of their own. A connection gets one line of JSON: what the
program sees of itself by its own system calls; a connection to PORT+1 stays open and echoes.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
#: x86-64 and arm64 have different numbers. Source: man syscalls(2).
IOPRIO_SET, IOPRIO_GET, SCHED_SETATTR, SCHED_GETATTR, GET_MEMPOLICY, SET_MEMPOLICY = (
    (251, 252, 314, 315, 239, 238) if os.uname().machine == "x86_64" else (30, 31, 274, 275, 236, 237)
)
PDEATHSIG, TIMERSLACK, THP, NO_NEW_PRIVS, SUBREAPER, KEEPCAPS, SECUREBITS = 1, 29, 41, 38, 36, 8, 28
SPECULATION, IO_FLUSHER, MCE, DUMPABLE = 53, 57, 33, 4
NICE_IDLE, BEST_EFFORT = (3 << 13), (2 << 13) | 6
ADDR_NO_RANDOMIZE = 0x0040000


def prctl(option: int, *values: int) -> int:
    """prctl(2); -1 where it fails."""
    return int(LIBC.prctl(option, *(ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4])))


def by_pointer(option: int) -> int:
    """A prctl(2) that writes its answer."""
    found = ctypes.c_int()
    LIBC.prctl(option, ctypes.byref(found), 0, 0, 0)
    return found.value


def status(*names: str) -> dict[str, str]:
    """Of /proc/self/status."""
    lines = (line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: value.split("\n")[0].strip() for name, value in lines if name in names}


def sched_attr() -> list[int]:
    """struct sched_attr of this thread."""
    buffer = ctypes.create_string_buffer(56)
    LIBC.syscall(SCHED_GETATTR, 0, buffer, 56, 0)
    return list(struct.unpack("=IIQiIQQQII", buffer.raw))


def of_thread() -> dict[str, Any]:
    """What each thread has for itself."""
    return {
        "affinity": sorted(os.sched_getaffinity(0)),
        "sched": sched_attr(),
        "nice": os.getpriority(os.PRIO_PROCESS, threading.get_native_id()),
        "ionice": LIBC.syscall(IOPRIO_GET, 1, 0),
        "timer slack": prctl(30),
        "parent's death": by_pointer(2),
        "securebits": prctl(27),
        "speculation": [prctl(52, kind) for kind in range(3)],
    }


def of_process() -> dict[str, Any]:
    """What all threads have together."""
    limits = [number for name, number in vars(resource).items() if name.startswith("RLIMIT_")]
    names = ("Umask", "Groups", "Uid", "Gid", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    with contextlib.suppress(OSError):
        Path("/proc/self/loginuid").read_text()
    return {
        "groups": sorted(os.getgroups()),
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_text().strip(),
        "coredump_filter": Path("/proc/self/coredump_filter").read_text().strip(),
        "autogroup": autogroup().read_text().split()[-1] if autogroup().exists() else "",
        "limits": {number: resource.getrlimit(number) for number in limits},
        "thp": prctl(42),
        "no_new_privs": prctl(39),
        "subreaper": by_pointer(37),
        "dumpable": prctl(3),
        "mce": prctl(34),
        "io flusher": prctl(58),
        "personality": LIBC.personality(0xFFFFFFFF),
        "mempolicy": mempolicy(),
        "environment": dict(os.environ),
        "own environment": Path("/proc/self/environ").read_bytes().decode(errors="replace"),
        "name": Path("/proc/self/comm").read_text(),
        "cwd": str(Path.cwd()),
        "session": os.getsid(0) == os.getpid(),
        "timer": signal.getitimer(signal.ITIMER_VIRTUAL)[0] > 900,
        "descriptors": sorted(path.name for path in Path("/proc/self/fd").iterdir())[:3],
        "locked": status("VmLck"),
    } | status(*names)


def autogroup() -> Path:
    """What the scheduler has of this session; not of every kernel."""
    return Path("/proc/self/autogroup")


def mempolicy() -> int:
    """The policy of get_mempolicy(2)."""
    found = ctypes.c_int(-1)
    LIBC.syscall(GET_MEMPOLICY, ctypes.byref(found), None, 0, None, 0)
    return found.value


def attempt(what: str, call: Any) -> None:
    """Set one thing; where it is not permitted the program goes on without."""
    try:
        if call() == -1:
            print(what, "failed", os.strerror(ctypes.get_errno()), flush=True)
    except OSError as error:
        print(what, error, flush=True)


def set_of_process() -> None:
    """Everything that is not as it is for most."""
    Path("/proc/self/oom_score_adj").write_text("300")
    Path("/proc/self/coredump_filter").write_text("0x7f")
    attempt("autogroup", lambda: autogroup().write_text("7"))
    os.umask(0o027)
    os.setgroups([int(word) for word in os.environ.get("GROUPS_WANTED", "").split()])
    resource.setrlimit(resource.RLIMIT_NOFILE, (777, 888))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for option, value in ((THP, 1), (SUBREAPER, 1)):
        attempt(f"prctl {option}", lambda option=option, value=value: prctl(option, value))
    attempt("io flusher", lambda: prctl(IO_FLUSHER, 1))
    attempt("mce", lambda: prctl(MCE, 1, 0))
    attempt("personality", lambda: LIBC.personality(ADDR_NO_RANDOMIZE))
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_VIRTUAL, 1000)
    attempt("mempolicy", lambda: LIBC.syscall(SET_MEMPOLICY, 3, ctypes.byref(ctypes.c_ulong(1)), 2))


def set_of_thread(*, first: bool) -> None:
    """The two threads have different ones."""
    os.sched_setaffinity(0, {1 if first else 0} & os.sched_getaffinity(0))
    attempt("ionice", lambda: LIBC.syscall(IOPRIO_SET, 1, 0, BEST_EFFORT if first else NICE_IDLE))
    prctl(TIMERSLACK, 123456 if first else 7000)
    policy, nice, slice_ns = (3, 5, 3_000_000) if first else (0, 7, 0)
    attr = struct.pack("=IIQiIQQQII", 56, policy, 0, nice, 0, slice_ns, 0, 0, 0, 0)
    attempt("sched", lambda: LIBC.syscall(SCHED_SETATTR, 0, attr, 0))
    attempt("speculation", lambda: prctl(SPECULATION, 0, 4))
    attempt("parent's death", lambda: prctl(PDEATHSIG, int(os.environ.get("PARENTS_DEATH", "0"))))
    attempt("securebits", lambda: prctl(SECUREBITS, 1 << 4))


SAYS: dict[str, Any] = {}
ASKED, ANSWERED = threading.Event(), threading.Event()


def second() -> None:
    """The other thread, which waits to be asked."""
    set_of_thread(first=False)
    while True:
        ANSWERED.set()
        ASKED.wait()
        ASKED.clear()
        SAYS.update(of_thread())


def report() -> dict[str, Any]:
    """Everything, as it is now."""
    ANSWERED.clear()
    ASKED.set()
    ANSWERED.wait(10)
    return {"process": of_process(), "first": of_thread(), "second": dict(SAYS)}


def main(port: int) -> None:
    """Set everything, and serve."""
    set_of_process()
    threading.Thread(target=second, daemon=True).start()
    ANSWERED.wait(10)
    set_of_thread(first=True)
    listening = socket.create_server(("", port))
    while True:
        connection, _ = listening.accept()
        with connection:
            while connection.recv(100):
                connection.sendall(json.dumps(report()).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
