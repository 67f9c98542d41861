"""What every :class:`migrate.transport.Transport` must do, over a real connection to a real host."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from migrate.testing import transport_failures
from migrate.testing.leftovers import DEADLINE_S
from migrate.testing.together import begun, joined
from migrate.testing.transport_case import MUCH_BYTES, Case, read
from migrate.transport import AgentStream


def bytes_both_ways(case: Case) -> None:
    """Much of them, at the same time; no byte is changed, lost or sent twice."""
    sent = os.urandom(MUCH_BYTES)
    with case.opened("cat") as stream:
        threads = begun(lambda: stream.write(sent))
        assert read(stream, len(sent)) == sent
        joined(threads)
        assert stream.ends == case.ends
        assert stream.sudo in (False, True)


def what_was_written_arrives_before_the_end(case: Case) -> None:
    """The agent's input ends after the last byte, and what it says then is still read."""
    with case.opened(case.program("wc -c")) as stream:
        stream.write(b"x" * 300_000)
        stream.end(DEADLINE_S)
        assert read(stream, 1 << 20).strip() == b"300000"
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
        threads = begun(lambda: _write(stream, raised), lambda: ended.append(stream.read(1)))
        time.sleep(0.5)
        stream.close()
        joined(threads)
        assert len(raised) == 1, "the writer is free, by an OSError"
        assert ended == [b""]
        assert stream.read(1) == b""


def several_threads_may_close_it(case: Case) -> None:
    """The link's threads do, and the driver's."""
    with case.opened("cat") as stream:
        stream.write(b"x")
        assert stream.read(1) == b"x"
        joined(begun(*[stream.close] * 4))


CHECKS: tuple[Callable[[Case], None], ...] = (
    bytes_both_ways,
    what_was_written_arrives_before_the_end,
    the_end_waits_no_longer_than_it_may,
    a_close_frees_who_hangs_in_it,
    several_threads_may_close_it,
    *transport_failures.CHECKS,
)


def check(case: Case) -> None:
    """All of them."""
    for one in CHECKS:
        one(case)


def _write(stream: AgentStream, raised: list[BaseException]) -> None:
    """Until it fails."""
    try:
        while True:
            stream.write(b"x" * (1 << 20))
    except OSError as error:
        raised.append(error)
