"""Whether the limits of the hosts' kernels are large enough for what is moved. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks.subject import Subject
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
