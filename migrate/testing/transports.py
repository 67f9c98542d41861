"""What every :class:`migrate.transport.Transport` must do, over a real connection to a real host."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from migrate.errors import MigrateError, TransportError
from migrate.journal.reach import Reach
from migrate.transport import AgentStream, Transport

DEADLINE_S = 20.0
MUCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One transport, and a host that it reaches.

    :ivar program: makes a shell script of that text on the host, and returns its path.
    :ivar nowhere: a way on which nobody answers.
    :ivar ends: the addresses that are expected of the connection.
    """

    transport: Transport
    reach: Reach
    program: Callable[[str], str]
    nowhere: Reach
    ends: tuple[str, str] = ("", "")

    @contextmanager
    def opened(self, agent: str) -> Iterator[AgentStream]:
        """A stream to *agent*, closed in the end, with nothing left of it."""
        before, children, descriptors = set(threading.enumerate()), _children(), _descriptors()
        stream = self.transport.open(dataclasses.replace(self.reach, agent=agent))
        try:
            yield stream
        finally:
            stream.close()
            stream.close()
        _until(lambda: _threads(before) == [], "no thread is left")
        assert _children() == children, "a child is left"
        assert _descriptors() == descriptors, "a descriptor is left"


def bytes_both_ways(case: Case) -> None:
    """Much of them, at the same time; no byte is changed, lost or sent twice."""
    sent = os.urandom(MUCH_BYTES)
    with case.opened("cat") as stream:
        writer = threading.Thread(target=stream.write, args=(sent,))
        writer.start()
        assert _read(stream, len(sent)) == sent
        writer.join(DEADLINE_S)
        assert stream.ends == case.ends
        assert stream.sudo in (False, True)


def what_was_written_arrives_before_the_end(case: Case) -> None:
    """The agent's input ends after the last byte, and what it says then is still read."""
    with case.opened(case.program("wc -c")) as stream:
        stream.write(b"x" * 300_000)
        stream.end(DEADLINE_S)
        assert _read(stream, 1 << 20).strip() == b"300000"
        assert stream.read(1) == b""


def the_end_waits_no_longer_than_it_may(case: Case) -> None:
    """For an agent that does not look at its input."""
    with case.opened(case.program("exec sleep 600")) as stream:
        began = time.monotonic()
        stream.end(0.5)
        assert time.monotonic() - began < DEADLINE_S / 2


def a_close_frees_who_hangs_in_it(case: Case) -> None:
    """A reader that nobody writes to, and a writer that nobody reads from."""
    with case.opened(case.program("exec sleep 600")) as stream:
        raised: list[BaseException] = []
        ended: list[bytes] = []

        def write() -> None:
            try:
                while True:
                    stream.write(b"x" * (1 << 20))
            except OSError as error:
                raised.append(error)

        threads = [
            threading.Thread(target=write),
            threading.Thread(target=lambda: ended.append(stream.read(1))),
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        stream.close()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert len(raised) == 1, "the writer is free, by an OSError"
        assert ended == [b""]
        assert stream.read(1) == b""


def several_threads_may_close_it(case: Case) -> None:
    """The link's threads do, and the driver's."""
    with case.opened("cat") as stream:
        stream.write(b"x")
        assert stream.read(1) == b"x"
        threads = [threading.Thread(target=stream.close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert not any(thread.is_alive() for thread in threads)


def nothing_is_explained_while_it_runs(case: Case) -> None:
    """There is nothing to explain."""
    with case.opened("cat") as stream:
        stream.write(b"x")
        assert stream.read(1) == b"x"
        assert stream.explain() is None


def an_agent_that_fails_is_explained(case: Case) -> None:
    """By its status and its last words, of which there are never too many."""
    text = "i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done; exit 3"
    error = _explained(case, case.program(text))
    assert "ended with status 3" in str(error) and "line 19999" in str(error), error
    assert 0 < len(error.problem.details) <= 100


def an_agent_that_is_not_there_is_explained(case: Case) -> None:
    """Its name stays one word, whatever is in it."""
    error = _explained(case, "no such; exit 5")
    assert "there is no agent" in str(error) and "no such; exit 5" in str(error), error
    assert "--agent" in error.problem.hint


def an_agent_that_is_killed_is_explained(case: Case) -> None:
    """It has no status."""
    assert "was killed" in str(_explained(case, case.program("kill -9 $$")))


def a_host_that_does_not_answer_is_explained(case: Case) -> None:
    """At once or later, with what to do."""
    before = set(threading.enumerate())
    children = _children()
    try:
        stream = case.transport.open(case.nowhere)
    except MigrateError as error:
        _typed(error)
    else:
        assert _until_end(stream) == b""
        _typed(stream.explain())
        stream.close()
    _until(lambda: _threads(before) == [], "no thread is left")
    assert _children() == children


CHECKS: tuple[Callable[[Case], None], ...] = (
    bytes_both_ways,
    what_was_written_arrives_before_the_end,
    the_end_waits_no_longer_than_it_may,
    a_close_frees_who_hangs_in_it,
    several_threads_may_close_it,
    nothing_is_explained_while_it_runs,
    an_agent_that_fails_is_explained,
    an_agent_that_is_not_there_is_explained,
    an_agent_that_is_killed_is_explained,
    a_host_that_does_not_answer_is_explained,
)


def check(case: Case) -> None:
    """All of them."""
    for one in CHECKS:
        one(case)


def _explained(case: Case, agent: str) -> MigrateError:
    with case.opened(agent) as stream:
        assert _until_end(stream) == b""
        return _typed(stream.explain())


def _typed(error: MigrateError | None) -> MigrateError:
    """It is one that a user can do something about."""
    assert isinstance(error, TransportError), error
    assert error.problem.hint, error
    return error


def _read(stream: AgentStream, most: int) -> bytes:
    found = b""
    while len(found) < most and (data := stream.read(min(1 << 18, most - len(found)))):
        found += data
    return found


def _until_end(stream: AgentStream) -> bytes:
    """What is read until the end; one that comes as an error is an end, too."""
    try:
        return _read(stream, MUCH_BYTES)
    except OSError:
        return b""


def _threads(before: set[threading.Thread]) -> list[str]:
    # A call that had no deadline of its own may still hang in a thread, which nobody waits for.
    return [one.name for one in set(threading.enumerate()) - before if one.name != "within"]


def _children() -> set[int]:
    """PIDs of our children, those that nobody has reaped too."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one more than there are, at either time


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
