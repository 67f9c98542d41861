"""System calls with a time limit, in which a thread waits: CRIU's dump ends them, and they begin again.

The kernel remembers how such a call goes on (its restart_block), nobody else can read that, and CRIU lets the call
end as by a signal (compel/arch/x86/src/lib/infect.c, "with interrupted system call"). A program that has no handler
for any signal may count on never seeing that, signal(7). What the call was shows before the dump. Afterwards the
registers are set as they were when it began, so that it begins again:

- exactly as it would have gone on: poll(2) without a limit, futex(2) until a point in time (all timed waits of
  glibc), and a sleep that has a place for what is left of it, since the kernel has written it there;
- else its time runs again: it ends late, never early.

Where the program has a handler the call ends with EINTR: the handler may run before the call has begun again, and
what it waited for would have come already. On x86-64 only: arm64's kernel shows the registers of the beginning to
whoever traces the thread, so that there every call begins again by itself; no other machine was tried. One in which
the thread was stopped before has lost its number, which is looked for in the code; syscall(3) has none in its own.

Source: arch/x86/kernel/signal.c arch_do_signal_or_restart(), arch/arm64/kernel/signal.c do_signal(); the calls of
set_restart_fn(): fs/select.c, kernel/futex/waitwake.c, kernel/time/hrtimer.c, posix-cpu-timers.c, alarmtimer.c.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

#: Numbers of system calls of x86-64.
POLL, NANOSLEEP, FUTEX, RESTART, CLOCK_NANOSLEEP = 7, 35, 202, 219, 230
NUMBERS = frozenset({POLL, NANOSLEEP, FUTEX, CLOCK_NANOSLEEP})
#: What CRIU leaves as the call's result, -EINTR.
ENDED = (1 << 64) - 4
#: Segment of a program's 64-bit code.
CODE_64 = 0x33
_FUTEX_WAITS, _FUTEX_COMMAND = frozenset({0, 9}), 0x7F
_TIMER_ABSTIME = 1
_SYSCALL = b"\x0f\x05"
#: mov $NUMBER, %eax and syscall: how a call is made, as a rule.
_CALL_BYTES = 7
#: The C library's own, SIGCANCEL and SIGSETXID; and those by which a thread is told what it did itself.
_NOT_WAITED_FOR = (
    *(32, 33, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS),
    signal.SIGABRT,
)
_WAITED_FOR = ~sum(1 << (number - 1) for number in _NOT_WAITED_FOR)
_CAUGHT, _BLOCKED = (
    re.compile(rb"^%s:\t([0-9a-f]+)$" % name, re.MULTILINE) for name in (b"SigCgt", b"SigBlk")
)


class Wait(NamedTuple):
    """The thread *tid* of *pid* waits in the call *number*, with its stack at *sp*, and would go on at *pc*."""

    pid: int
    tid: int
    number: int
    sp: int
    pc: int


class Call(NamedTuple):
    """What /proc/PID/syscall says."""

    number: int
    arguments: tuple[int, ...]
    sp: int
    pc: int


def read(pids: Iterable[int]) -> list[Wait]:
    """The waits of *pids*, which stand still and were not dumped yet; what cannot be read is left out."""
    return list(_read(pids)) if os.uname().machine == "x86_64" else []


def _read(pids: Iterable[int]) -> Iterator[Wait]:
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    yield from _wait(pid, int(name))


def _wait(pid: int, tid: int) -> Iterator[Wait]:
    task = f"/proc/{pid}/task/{tid}"
    call = parse(_content(f"{task}/syscall"))
    if call is None or not (call.number == RESTART or has_limit(call)):
        return
    code = _content(f"{task}/mem", _CALL_BYTES, call.pc - _CALL_BYTES)
    call = call._replace(number=made(code, call.number))
    if has_limit(call) and not may_handle(_content(f"{task}/status")):
        yield Wait(pid, tid, call.number, call.sp, call.pc)


def _content(path: str, size: int = 1 << 14, offset: int = 0) -> bytes:
    """Of a file of /proc; not by way of a Path, of which there would be one for each of thousands of threads."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(file, size, offset)
    finally:
        os.close(file)


def parse(line: bytes) -> Call | None:
    """The line of /proc/PID/syscall; None: the task is in no call."""
    words = line.split()
    if len(words) != 9:
        return None
    number, *values = (int(word, 0) for word in words)
    return Call(number, tuple(values[:6]), values[6], values[7])


def made(code: bytes, number: int) -> int:
    """The number of the call that *code* has made; 0, which is none that waits so, where it does not show.

    :param number: by which the kernel is in it: :data:`RESTART` if somebody has stopped the task in it before.
    """
    if not code.endswith(_SYSCALL):  # a 32-bit program's have other numbers
        return 0
    if number != RESTART:
        return number
    return int.from_bytes(code[1:5], "little") if code[0] == 0xB8 else 0


def has_limit(call: Call) -> bool:
    """Whether the kernel remembers how to go on with *call*."""
    if call.number == FUTEX:
        return call.arguments[1] & _FUTEX_COMMAND in _FUTEX_WAITS and call.arguments[3] != 0
    if call.number == CLOCK_NANOSLEEP:
        return not call.arguments[1] & _TIMER_ABSTIME
    return call.number in (POLL, NANOSLEEP)


def may_handle(status: bytes) -> bool:
    """Whether a handler may run in the thread of which this is /proc/TID/status."""
    caught, blocked = _CAUGHT.search(status), _BLOCKED.search(status)
    if caught is None or blocked is None:
        return True
    return bool(int(caught[1], 16) & ~int(blocked[1], 16) & _WAITED_FOR)


def again(number: int, registers: Mapping[str, int]) -> dict[str, int]:
    """What of *registers* is to be set, of a thread whose call *number* has ended, for it to begin again.

    A sleep is told to sleep for what is left of it, where it has asked for that.

    :param registers: by the names that CRIU has for them.
    """
    changed = {"ax": number, "ip": registers["ip"] - len(_SYSCALL)}
    if number == NANOSLEEP and registers["si"]:
        changed["di"] = registers["si"]
    elif number == CLOCK_NANOSLEEP and registers["r10"]:
        changed["dx"] = registers["r10"]
    return changed
