"""Whether the limits of the hosts' kernels are large enough for what is moved. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks.subject import DESTINATION, Subject
from migrate.environment import LEAST_DESCRIPTORS
from migrate.errors import Reason
from migrate.units import size

#: What driver and agent have open themselves.
_SPARE_DESCRIPTORS = LEAST_DESCRIPTORS
#: What CRIU has open itself in a task that it builds, above the task's own.
_CRIUS_DESCRIPTORS = 100
#: What CRIU has mapped itself in a task that it builds, or that it dumps.
_CRIUS_MAPPINGS = 50


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


def numbers_of_descriptors(subject: Subject) -> Iterator[Reason]:
    """CRIU can give a process each descriptor that it has."""
    end = subject.destination.end_of_descriptors
    for task in subject.process.tasks:
        needed = task.highest_descriptor + _CRIUS_DESCRIPTORS
        if 0 < end <= needed:
            text = (
                f"{subject.who(task.pid)} has a descriptor {task.highest_descriptor}; CRIU needs numbers up to"
                f" {needed} for that, and they end at {end} there"
            )
            remedy = (
                f"Permit more than {needed} there: sysctl fs.nr_open, and for a root without CAP_SYS_RESOURCE the"
                " hard limit: ulimit -Hn; LimitNOFILE= of sshd's unit."
            )
            yield Reason("high-descriptor", DESTINATION, text, remedy)


def mappings(subject: Subject) -> Iterator[Reason]:
    """A process may have all its mappings, and CRIU some of its own beside them."""
    for role, host in subject.hosts():
        for task in subject.process.tasks:
            needed = task.mappings + _CRIUS_MAPPINGS
            if 0 < host.most_mappings < needed:
                text = (
                    f"{subject.who(task.pid)} has {task.mappings} mappings, CRIU needs {_CRIUS_MAPPINGS} more, and"
                    f" its kernel permits {host.most_mappings}"
                )
                yield Reason("mappings", role, text, f"Permit more: sysctl -w vm.max_map_count={needed}")


def promised(subject: Subject) -> Iterator[Reason]:
    """A kernel that promises no more memory than it has promises what the whole tree has mapped."""
    if not subject.destination.HasField("unpromised_bytes"):
        return
    needed, there = (
        sum(task.private_bytes for task in subject.process.tasks),
        subject.destination.unpromised_bytes,
    )
    if there < needed:
        text = (
            f"the process has mapped {size(needed)}, and its kernel, which promises no more than it has"
            f" (vm.overcommit_memory is 2), may promise {size(there)} more"
        )
        remedy = "Let it promise more: sysctl -w vm.overcommit_memory=0, or a larger vm.overcommit_ratio."
        yield Reason("not-promised", DESTINATION, text, remedy)


def promised_at_once(subject: Subject) -> Iterator[Reason]:
    """A kernel that guesses promises no call more than all of its memory: CRIU asks for all that is reserved."""
    there = subject.destination.promised_at_once_bytes
    for task in subject.process.tasks:
        if 0 < there < task.largest_private_bytes:
            text = (
                f"{subject.who(task.pid)} has reserved {size(task.largest_private_bytes)} at once, which CRIU asks"
                f" for when it builds it; the kernel there promises {size(there)}, its memory and swap"
            )
            remedy = "Let it promise more, until the process has moved: sysctl -w vm.overcommit_memory=1"
            yield Reason("not-promised-at-once", DESTINATION, text, remedy)


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
