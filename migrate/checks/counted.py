"""Whether there may be as many as are needed of what the kernel counts: descriptors, signals that wait. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks.subject import DESTINATION, Subject
from migrate.errors import Reason

#: What driver and agent have open themselves.
_SPARE_DESCRIPTORS = 200


def descriptors(subject: Subject) -> Iterator[Reason]:
    """Every socket of the tree is borrowed at once, beside what we and a library that is loaded have open."""
    needed = len(subject.process.sockets) + _SPARE_DESCRIPTORS
    for role, host in subject.hosts():
        if 0 < host.most_descriptors < needed:
            text = (
                f"migrate may open {host.most_descriptors} files there and needs {needed}, for"
                f" {len(subject.process.sockets)} sockets of the process"
            )
            remedy = (
                f"Raise the hard limit of root there to {needed}: ulimit -Hn; LimitNOFILE= of sshd's unit."
            )
            yield Reason("descriptors", role, text, remedy)


def queued_signals(subject: Subject) -> Iterator[Reason]:
    """CRIU sends the real-time signals that wait once more, in the place of the user there."""
    needed, most = subject.process.queued_signals, subject.destination.most_signals
    if 0 < most < needed:
        text = (
            f"signals wait for the process ({needed} of its user), and {most} may be queued there (ulimit -i)"
        )
        remedy = (
            f"Let the program take them, or raise the limit of sshd there: prlimit --pid PID --sigpending={needed},"
            " LimitSIGPENDING= of its unit."
        )
        yield Reason("queued-signals", DESTINATION, text, remedy)
