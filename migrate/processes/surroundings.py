"""What the kernel keeps for a task beside what CRIU carries: read at the origin, set again on the destination.

Processors, priority of input and output, timer slack and time slice of each thread; limits of a process, what a
core dump has of it, and the nice value of its session. A task that CRIU has built has those of CRIU, which has
those of our agent and its SSH session; limits it carries, but says nothing where it may not raise them (no
CAP_SYS_RESOURCE). All of it can be read and set from outside, while the task stands still. What cannot be made the
same is told as a sentence: the process works without.

Supplementary groups, if there are none, and the personality come by descent: see
:class:`migrate.criu.worker.Worker`.

Source: man sched_setaffinity(2), ioprio_set(2), proc(5), prctl(2) PR_SET_TIMERSLACK, core(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from migrate import number_list
from migrate.pb.session_pb2 import ResourceLimit, Surroundings, ThreadSurroundings
from migrate.processes import autogroup, freezer, identity, slices

_IOPRIO_WHO_PROCESS = 1
#: Numbers of ioprio_set(2) and ioprio_get(2), for which there is no function in the C library: those of x86-64,
#: and those of all machines that came later. Source: man syscalls(2); include/uapi/asm-generic/unistd.h.
_IOPRIO_SET, _IOPRIO_GET = (251, 252) if os.uname().machine == "x86_64" else (30, 31)
_ONLINE, _POSSIBLE = (Path(f"/sys/devices/system/cpu/{name}") for name in ("online", "possible"))
_KEEP_PERSONALITY = 0xFFFFFFFF
#: Number -> name, as ulimit(1) and systemd know it.
_LIMITS = {
    value: name.removeprefix("RLIMIT_")
    for name, value in vars(resource).items()
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"  # which is NOFILE's other name
}
#: What the kernel has for RLIM_INFINITY, which is -1 here.
_UNLIMITED = (1 << 64) - 1

_libc = ctypes.CDLL(None, use_errno=True)


def read(pids: Iterable[int]) -> list[Surroundings]:
    """What surrounds each of *pids*, which stand still; those that have ended are left out."""
    found = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append(_read_one(pid))
    return found


def _read_one(pid: int) -> Surroundings:
    process = Surroundings(
        pid=pid,
        coredump_filter=int(_word(pid, "coredump_filter") or "0", 16),
        personality=personality(pid),
        limits=_limits(pid),
        autogroup_nice=autogroup.nice(pid),
    )
    may = _may_use(pid)
    for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            process.threads.append(_read_thread(int(name), may))
    return process


def _read_thread(tid: int, may: set[int]) -> ThreadSurroundings:
    processors = os.sched_getaffinity(tid)
    return ThreadSurroundings(
        tid=tid,
        processors=[] if processors >= may else sorted(processors),
        io_priority=_io_priority(tid),
        timer_slack_ns=int(_word(tid, "timerslack_ns") or "0"),
        slice_ns=slices.asked_for(tid),
    )


def _limits(pid: int) -> list[ResourceLimit]:
    """The limits of *pid*; none where this root may not see them."""
    try:
        found = {kind: resource.prlimit(pid, kind) for kind in _LIMITS}
    except PermissionError:
        return []
    return [
        ResourceLimit(resource=kind, soft=soft & _UNLIMITED, hard=hard & _UNLIMITED)
        for kind, (soft, hard) in found.items()
    ]


def personality(pid: int) -> int:
    """The execution domain and its flags, as in personality(2); 0, the usual one, where it is not to be seen."""
    with contextlib.suppress(OSError):
        return int(_word(pid, "personality"), 16)
    return 0


@contextlib.contextmanager
def with_personality(wanted: int | None) -> Iterator[None]:
    """Programs that this thread starts meanwhile have that personality, and so has whatever they start.

    :param wanted: None: the one that it has.
    """
    if wanted is None:
        yield
        return
    before = _libc.personality(_KEEP_PERSONALITY)
    _libc.personality(wanted)
    try:
        yield
    finally:
        _libc.personality(before)


def put_back(wanted: Iterable[Surroundings], numbers: Mapping[int, int]) -> list[str]:
    """Give the tree that was built, and has not run, what surrounded it before.

    :param numbers: PID on the origin -> PID here.
    :return: sentences: what is different now.
    """
    told: dict[str, None] = {}
    for process in wanted:
        pid = numbers.get(process.pid)
        if pid is None:
            continue
        for problem in (
            *_put_back_one(process, pid),
            *autogroup.put_back(pid, process.autogroup_nice, numbers.values()),
        ):
            told[f"process {process.pid}: {problem}"] = None
    return list(told)


def _put_back_one(process: Surroundings, pid: int) -> Iterator[str]:
    text = f"{process.coredump_filter:#x}"
    if int(_word(pid, "coredump_filter") or "0", 16) != process.coredump_filter:
        yield from _attempt(
            f"its filter of core dumps is not {text}", lambda: _write(pid, "coredump_filter", text)
        )
    if personality(pid) != process.personality:
        yield f"its personality is {personality(pid):#x}, not {process.personality:#x}"
    for limit in process.limits:
        yield from _limit(pid, limit)
    here = _threads(pid)
    for thread in process.threads:
        if tid := here.get(thread.tid):
            yield from _put_back_thread(thread, tid)


def _limit(pid: int, wanted: ResourceLimit) -> Iterator[str]:
    """Set one limit, or as near to it as this root may."""
    kind, limits = wanted.resource, (_number(wanted.soft), _number(wanted.hard))
    if kind not in _LIMITS or resource.prlimit(pid, kind) == limits:
        return
    try:
        resource.prlimit(pid, kind, limits)
    except (OSError, ValueError):
        soft, hard = (_shown(one) for one in resource.prlimit(pid, kind))
        was = f"{_shown(limits[0])} (hard: {_shown(limits[1])})"
        yield f"its limit {_LIMITS[kind]} is {soft} (hard: {hard}), not {was} as before: root may not raise it here"


def _number(limit: int) -> int:
    """A limit as Python has it; what is beyond its numbers is none."""
    return limit if limit < 1 << 63 else resource.RLIM_INFINITY


def _shown(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _threads(pid: int) -> dict[int, int]:
    """Number of each thread in its own PID namespace -> its number as this host sees it."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[identity.innermost_in(Path(f"/proc/{pid}/task/{name}/status").read_bytes())] = int(name)
    return found


def _put_back_thread(thread: ThreadSurroundings, tid: int) -> Iterator[str]:
    yield from _use(set(thread.processors), tid)
    if _io_priority(tid) != thread.io_priority:
        what = f"its priority of input and output is not {thread.io_priority:#x}"
        yield from _attempt(what, lambda: _set_io_priority(tid, thread.io_priority))
    if int(_word(tid, "timerslack_ns") or "0") != thread.timer_slack_ns:
        slack = str(thread.timer_slack_ns)
        yield from _attempt(f"its timer slack is not {slack} ns", lambda: _write(tid, "timerslack_ns", slack))
    asked = thread.slice_ns
    what = f"it does not run for {asked} ns at a stretch" if asked else "its time slice is not the usual one"
    yield from _attempt(what, lambda: slices.ask(tid, asked))


def _use(wanted: set[int], tid: int) -> Iterator[str]:
    """Run *tid* on the processors *wanted*; empty: on all that there are."""
    everything = _list(_POSSIBLE)
    try:
        os.sched_setaffinity(tid, (wanted & everything) or everything)
        now = os.sched_getaffinity(tid)
    except OSError as error:
        yield f"the processors that it may use are not those of before: {error.strerror}"
        return
    if wanted and now != wanted:
        yield f"it may use processor {_told(now)}, not {_told(wanted)} as before: there are no others here for it"


def _attempt(what: str, call: Callable[[], None]) -> Iterator[str]:
    try:
        call()
    except OSError as error:
        yield f"{what}: {error.strerror}"


def _word(number: int, name: str) -> str:
    """The content of /proc/NUMBER/*name*; "" where this kernel or this root does not show it."""
    try:
        return Path(f"/proc/{number}/{name}").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        if not Path(f"/proc/{number}").exists():
            raise
    except OSError:
        pass
    return ""


def _write(number: int, name: str, text: str) -> None:
    Path(f"/proc/{number}/{name}").write_text(text)


def _io_priority(tid: int) -> int:
    return max(0, int(_libc.syscall(_IOPRIO_GET, _IOPRIO_WHO_PROCESS, tid)))


def _set_io_priority(tid: int, value: int) -> None:
    if _libc.syscall(_IOPRIO_SET, _IOPRIO_WHO_PROCESS, tid, value):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _may_use(pid: int) -> set[int]:
    """The processors that *pid* may use as far as it has not chosen itself: those of its cgroup, or all."""
    online = _list(_ONLINE)
    with contextlib.suppress(OSError, freezer.Unavailable):
        root = freezer.mount_point()
        here = freezer.cgroup_of(root, pid)
        for cgroup in (here, *here.parents):
            if (file := cgroup / "cpuset.cpus.effective").exists():
                return _list(file) & online
            if cgroup == root.place:
                break
    return online


def _list(path: Path) -> set[int]:
    """A list of processors."""
    return number_list.parse(path.read_text())


def _told(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
