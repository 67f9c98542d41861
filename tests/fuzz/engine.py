"""Runs one target with changed examples: bounded in time and memory, and away from everything dangerous.

An input that leads to something new, an error from another line or a line of ours that none before has
reached, becomes an example itself. Lines are looked at in one execution of many, for that is slow.
"""

from __future__ import annotations

import functools
import hashlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import mutate

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CORPUS, CRASHES = HERE / "corpus", HERE / "crashes"

#: An input is at most 1 MB; nothing that is done with it may take longer (of processor time), or more memory.
MOST_S = 2.0
#: Or hang.
MOST_WAITING_S = 30.0
MOST_KB = 192 << 10
#: What all executions of a target together may leave behind.
MOST_LEFT_KB = 128 << 10
_TRACED = 25
_MOST_EXAMPLES = 3000
_OURS = (str(ROOT / "migrate"), str(ROOT / "plugin"))
#: No decoder starts a program, speaks to anybody, or changes a file but in the directory it is given.
_FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.kill", "socket.connect")
_FORBIDDEN += ("socket.getaddrinfo", "socket.gethostby", "socket.bind", "socket.sendto", "pty.spawn")
_CHANGING = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.chown",
)


class Slow(BaseException):
    """The time is over; no `except Exception` of the code under test hides it."""


class Forbidden(BaseException):
    """The code under test did what no decoder does."""


@dataclass(frozen=True)
class Target:
    """A decoder.

    :ivar run: decodes, and uses what was decoded as the program does; what it returns is ignored.
    :ivar errors: what its docstring says that it raises.
    :ivar seeds: valid examples, by name.
    """

    name: str
    run: Callable[[bytes], object]
    errors: tuple[type[BaseException], ...]
    mutators: Sequence[mutate.Mutator]
    seeds: Callable[[], dict[str, bytes]]


@dataclass
class Fault:
    """What must not happen, and the input that leads to it."""

    target: str
    data: bytes
    what: str
    where: str

    def save(self) -> Path:
        """Write the input to a file."""
        CRASHES.mkdir(exist_ok=True)
        path = CRASHES / f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:12]}"
        path.write_bytes(self.data)
        return path

    def __str__(self) -> str:
        repeat = f"{sys.executable} tests/fuzz/fuzz.py {self.target} --file {self.save().relative_to(ROOT)}"
        return f"{self.target}: {self.what}\n{self.where}\nrepeat it with: {repeat}"


@dataclass
class Run:
    """All executions of one target."""

    target: Target
    rng: Random
    examples: list[bytes] = field(default_factory=list)
    executions: int = 0
    faults: list[Fault] = field(default_factory=list)
    _left_kb: int = 0
    _seen: set[object] = field(default_factory=set)
    _places: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.examples += corpus(self.target).values()

    def all_of_the_corpus(self) -> None:
        """Execute every example as it is."""
        for data in list(self.examples):
            self.execute(data, traced=True)

    def go_on(self, *, seconds: float = float("inf"), count: float = float("inf")) -> None:
        """Execute changed examples until the time is over, or *count* is reached."""
        end, last = time.monotonic() + seconds, self.executions + count
        before_kb = _resident_kb()
        while self.executions < last and time.monotonic() < end:
            self.execute(self._changed(), traced=self.executions % _TRACED == 0)
        self._left_kb += _resident_kb() - before_kb
        if self._left_kb > MOST_LEFT_KB:
            self._fault(b"", f"{self._left_kb} kB of memory were left behind", "left")

    def _changed(self) -> bytes:
        rng = self.rng
        from_these = self.examples if rng.random() < 0.7 else self.examples[-50:]
        # The shorter of two: long ones take time and seldom tell more.
        data = min(rng.choice(from_these), rng.choice(from_these), key=len)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
            data = rng.choice(self.target.mutators)(data, rng)
        return data

    def execute(self, data: bytes, *, traced: bool = False) -> None:
        """Run the target once, and keep *data* if something new came of it."""
        self.executions += 1
        lines: set[object] = set()
        before_kb, began = _largest_kb(), time.process_time()
        outcome: object = "good"
        _guard().on(traced and lines)
        try:
            self.target.run(data)
        except self.target.errors as error:
            outcome = type(error), _raised_at(error)
        except BaseException as error:
            _guard().off()
            if isinstance(error, KeyboardInterrupt):
                raise
            self._fault(data, "".join(traceback.format_exception_only(error)).strip(), _place_of(error))
        finally:
            _guard().off()
        took_s, grown_kb = time.process_time() - began, _largest_kb() - before_kb
        if took_s > MOST_S and not traced:
            self._fault(data, f"{len(data)} bytes took {took_s:.1f} s", "slow")
        if grown_kb > MOST_KB:
            self._fault(data, f"{len(data)} bytes took {grown_kb} kB of memory", "large")
        if fresh := ({outcome} | lines) - self._seen:
            self._seen |= fresh
            if len(self.examples) < _MOST_EXAMPLES:
                self.examples.append(data)

    def _fault(self, data: bytes, what: str, where: str) -> None:
        if where not in self._places:  # one for each place in the code
            self._places.add(where)
            self.faults.append(Fault(self.target.name, data, what, where))
            print(f"\n{self.faults[-1]}\n", flush=True)


def corpus(target: Target) -> dict[str, bytes]:
    """The examples of *target* that are kept in files; what once was a fault is among them."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / target.name).glob("*"))}


def _resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


#: Opened before anything is forbidden.
_STATUS = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)


def _largest_kb() -> int:
    """Not ru_maxrss: that is also of the program that this process was before it called exec()."""
    return int(os.pread(_STATUS, 1 << 16, 0).split(b"VmHWM:", 1)[1].split(None, 1)[0])


def _raised_at(error: BaseException) -> object:
    """The line in which it was raised: two errors of one line tell nothing new."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace and (trace.tb_frame.f_code, trace.tb_lineno)


def _place_of(error: BaseException) -> str:
    """Where in our code it was raised."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(_OURS)]
    return "\n".join(f"  {one.filename}:{one.lineno} {one.name}: {one.line}" for one in frames[-4:]) or "  ?"


class _Guard:
    """Time, forbidden calls, and lines reached, while a target runs."""

    def __init__(self) -> None:
        self._watching = False
        self.directory = ""
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, self._over)
        sys.addaudithook(self._audit)

    def on(self, lines: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, MOST_WAITING_S)
        signal.setitimer(signal.ITIMER_PROF, MOST_S if lines is False else 5 * MOST_S)
        self._watching = True
        if lines is not False:

            def local(frame: FrameType, event: str, _: object) -> Any:
                lines.add((frame.f_code, frame.f_lineno))
                return local

            sys.settrace(lambda frame, *_: local if frame.f_code.co_filename.startswith(_OURS) else None)

    def off(self) -> None:
        if self._watching:
            sys.settrace(None)
            self._watching = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _over(self, *_: object) -> None:
        if self._watching:
            raise Slow("no end")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._watching:
            return
        if event == "open":
            path, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) and not self._is_inside(path):
                raise Forbidden(f"{event} {path!r}")
        elif event.startswith(_FORBIDDEN) or (event in _CHANGING and not self._is_inside(arguments[0])):
            raise Forbidden(f"{event} {arguments!r}"[:300])

    def _is_inside(self, path: object) -> bool:
        if isinstance(path, int):
            return True  # a descriptor that is open already
        text = os.fsdecode(path)  # type: ignore[arg-type]
        if "/" not in text:
            return text not in ("", "..")  # of a directory that is open
        return bool(self.directory) and ".." not in text.split("/") and text.startswith(f"{self.directory}/")


@functools.cache
def _guard() -> _Guard:
    """Made when it is needed: a test that only imports this keeps its signals, and is not watched."""
    return _Guard()


def allow(directory: Path) -> None:
    """Let targets change files in *directory*."""
    _guard().directory = str(directory)
