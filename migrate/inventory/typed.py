"""What waits in a pseudo terminal of which both sides are in the tree: CRIU takes it and writes it once more.

So it passes the line discipline twice: line ends (ONLCR) and echoes are doubled, and a half typed line, which
nobody can read yet, is lost. What CRIU has taken is not written back when the dump is not used. Source: criu/tty.c
tty_dump_queued_data(), pty_restore_queued_data().
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from migrate.inventory import borrowed
from migrate.pb.session_pb2 import Obstacle
from tcpcp.kernel.pidfd import Lender


def obstacles(
    lender: Lender, masters: Mapping[str, tuple[int, int]], tables: Mapping[int, Mapping[int, str]]
) -> Iterator[Obstacle]:
    """Yield what there is of either side.

    :param masters: PID and descriptor of each, by the name of the terminal.
    :param tables: what each descriptor of the tree points to, by PID and number.
    """
    others = (
        {name: (pid, fd) for pid, table in tables.items() for fd, name in table.items()} if masters else {}
    )
    for name, master in masters.items():
        if borrowed.by_lines(lender, *master):
            yield Obstacle(code="terminal-line", pid=master[0], fd=master[1], what=name)
        for pid, fd in (master, *([others[name]] if name in others else [])):
            if borrowed.is_exclusive(lender, pid, fd):
                yield Obstacle(code="terminal-exclusive", pid=pid, fd=fd, what=name)
            if borrowed.has_input(lender, pid, fd):
                yield Obstacle(code="terminal-unread", pid=pid, fd=fd, what=name)
