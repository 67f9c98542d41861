"""Whether a process can be moved: two hosts and a process in, *all* reasons against it out.

Pure: what there is was found out by :mod:`migrate.inventory`. One small function per kind of reason, in the
tables at the end; those about files, networks and things that CRIU cannot dump have files of their own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from migrate.checks import containers, reconnections, units, wildcards
from migrate.checks.addresses import addresses_movable
from migrate.checks.around import unsupervised
from migrate.checks.beside import no_directory_emptied, nothing_left_behind, trees_sound
from migrate.checks.bound_nowhere import nowhere_there
from migrate.checks.directories import none_read_in_part
from migrate.checks.files import (
    appended,
    databases,
    deleted_names_free,
    files_there,
    files_to_copy,
    locks_free,
    written_here_alone,
)
from migrate.checks.forwarded import nobody_comes
from migrate.checks.hard_links import one_file
from migrate.checks.kernel_limits import (
    descriptors,
    mappings,
    numbers_of_descriptors,
    promised,
    promised_at_once,
    queued_signals,
)
from migrate.checks.mounted import mounts_permit
from migrate.checks.names import interfaces_there, names_free, sockets_apart
from migrate.checks.network import peers_elsewhere, ports_free, sockets_whole
from migrate.checks.obstacles import ghost_bytes, locked_bytes, obstacles
from migrate.checks.space import room_for_copies
from migrate.checks.subject import DESTINATION, ORIGIN, Subject
from migrate.checks.together import together
from migrate.checks.wildcards import address_named
from migrate.checks.writable import attributes_lost, writable_there
from migrate.errors import MAKE_ROOM, Reason
from migrate.pb.session_pb2 import HostInventory, ProcessInventory
from migrate.request import SWITCH, Along
from migrate.units import size

__all__ = ["files_to_copy", "notes", "notes_on_files", "refusals"]

#: Below this CRIU cannot dump sockets on current kernels.
OLDEST_CRIU = (4, 2)

#: CRIU's small files and our own, beside the pages.
_SPARE_BYTES = 32 << 20
_GET_CRIU = (
    "Install CRIU 4.2 or newer with its pycriu, for the Python that runs migrate there; migrate-criu, which comes"
    " with migrate, does that."
)
_HOST_REMEDIES = (
    ("ulimit -", "Raise the hard limit of root there: ulimit -H, or in the unit of sshd."),
    ("read-only", "Mount it writable there: mount -o remount,rw DIRECTORY."),
    ("is full", MAKE_ROOM),
    ("images", "Mount a tmpfs on /dev/shm."),
    ("CAP_", "Run it as root of the whole host, not of a container or a restricted service."),
)
#: A thousand sockets of one process may have the same trouble; so many of one kind are told one by one.
_MOST_OF_A_KIND = 5


def refusals(
    process: ProcessInventory,
    origin: HostInventory,
    destination: HostInventory,
    along: Along,
    needed: Mapping[str, tuple[str, str]] | None = None,
    *,
    switch: str = SWITCH,
) -> list[Reason]:
    """Return every reason not to begin, the ones about whole hosts first; none when the way is free.

    :param origin: from :func:`migrate.inventory.host`, with *process* given to it.
    :param destination: from :func:`migrate.inventory.answer` about the same *process*.
    :param along: what the user has said of what goes along.
    :param needed: service addresses that the origin cannot do without: why, and what to do.
    :param switch: how traffic is switched; a name of ``migrate.switch``.
    """
    subject = Subject(process, origin, destination, along, needed or {}, switch)
    return judged(subject, OF_THE_CHOICE, OF_HOSTS, OF_THE_PROCESS)


def judged(
    subject: Subject,
    choice: Iterable[Check],
    hosts: Iterable[Check],
    process: Iterable[Check],
    role: str = "",
) -> list[Reason]:
    """All that is in the way of *subject*; each reason once.

    :param choice, hosts, process: checks of what was named, of whole hosts, and of what the process holds.
    :param role: of the host that alone is looked at, if it is one.
    """

    def found(checks: Iterable[Check]) -> list[Reason]:
        return [one for check in checks for one in check(subject) if one.role == (role or one.role)]

    wrong = found(choice)
    # What init or a kernel thread has open is of no interest: another process has to be named. And nobody
    # shall take an address away from this very host because it is "there already".
    others = [] if wrong else found(process)
    return shortened(together([*wrong, *found(hosts), *others], subject))


def notes(
    process: ProcessInventory, origin: HostInventory | None = None, *, switch: str = SWITCH
) -> list[str]:
    """Return what the user should know about addresses although it is no reason to refuse."""
    return wildcards.notes(Subject(process, origin or HostInventory(), HostInventory(), switch=switch))


def notes_on_files(process: ProcessInventory, destination: HostInventory, along: Along) -> list[str]:
    """Return what the user should know about files although it is no reason to refuse."""
    subject = Subject(process, HostInventory(), destination, along)
    return [*appended(subject), *attributes_lost(subject)]


def shortened(reasons: list[Reason]) -> list[Reason]:
    """Leave a few reasons of each kind, and count the others."""
    kinds: defaultdict[tuple[str, str], list[Reason]] = defaultdict(list)
    for reason in reasons:
        kinds[reason.code, reason.role].append(reason)
    kept: list[Reason] = []
    for (code, role), same in kinds.items():
        kept.extend(same[:_MOST_OF_A_KIND])
        more = len(same) - _MOST_OF_A_KIND
        if more > 0:
            pids = {pid for one in same[_MOST_OF_A_KIND:] for pid in one.pids}
            text = f"and {more} more of this kind"
            kept.append(Reason(code, role, text, same[0].remedy, tuple(sorted(pids))))
    return kept


# --- the hosts ------------------------------------------------------------------------------------------


def privileges(subject: Subject) -> Iterator[Reason]:
    """The agent needs root, as the command does, which looks at itself before it asks anybody; of a root that lacks
    capabilities the host's problems tell."""
    if not subject.destination.root and not _lacks_capabilities(subject.destination):
        yield Reason(
            "not-root",
            DESTINATION,
            "migrate-agent runs without root's privileges",
            f"Log in as root: migrate {subject.process.root_pid} root@{subject.destination.hostname}",
        )


def _lacks_capabilities(host: HostInventory) -> bool:
    return any("CAP_" in problem for problem in host.problems)


def host_problems(subject: Subject) -> Iterator[Reason]:
    """What the inventory could not do on a host, the migration cannot do either."""
    for role, host in subject.hosts():
        for problem in host.problems:
            fitting = (remedy for word, remedy in _HOST_REMEDIES if word in problem)
            yield Reason("host-problem", role, problem, next(fitting, "Repair this and try again."))


def two_hosts(subject: Subject) -> Iterator[Reason]:
    """A process cannot be moved to where it is."""
    mine, its = (
        {text for interface in host.interfaces for text in interface.addresses} for _, host in subject.hosts()
    )
    same_name = subject.origin.hostname == subject.destination.hostname
    if same_name and mine == its and any(not text.startswith(("127.", "::1")) for text in mine):
        yield Reason(
            "same-host",
            DESTINATION,
            f"{subject.destination.hostname} is this host itself",
            "Name another host.",
        )


def criu_works(subject: Subject) -> Iterator[Reason]:
    """CRIU is there, new enough, and has just dumped and restored something."""
    for role, host in subject.hosts():
        numbers = tuple(map(int, re.findall(r"\d{1,9}", host.criu_version)[:2]))
        if not numbers:
            text = host.criu_problem or "CRIU does not say its version"
            yield Reason("criu-missing", role, text, _GET_CRIU)
        elif numbers < OLDEST_CRIU:
            text = f"CRIU {host.criu_version} is too old: 4.2 is needed"
            yield Reason("criu-too-old", role, text, _GET_CRIU)
        elif "pycriu" in host.criu_problem:
            remedy = (
                "Run migrate-criu there, which comes with migrate, or install the pycriu that comes with that CRIU"
                " (python3-pycriu) for the Python that runs migrate."
            )
            yield Reason("criu-broken", role, host.criu_problem, remedy)
        elif " /tmp/" in host.criu_problem:
            text = f"CRIU cannot make what it needs in /tmp: {host.criu_problem}"
            remedy = (
                "Make /tmp writable: mount -o remount,rw /tmp, or mount -t tmpfs -o mode=1777 tmpfs /tmp."
            )
            yield Reason("criu-broken", role, text, remedy)
        elif host.criu_problem:
            text = f"CRIU {host.criu_version} does not work with kernel {host.kernel}: {host.criu_problem}"
            remedy = "Run `python3 -m migrate.criu.probe` there, and criu check, to see more."
            yield Reason("criu-broken", role, text, remedy)


def same_processor(subject: Subject) -> Iterator[Reason]:
    """A program keeps the instructions that it chose when it started."""
    here, there = subject.origin, subject.destination
    if here.machine != there.machine:
        text = f"its processor is {there.machine or 'unknown'}, the origin's is {here.machine}"
        yield Reason("machine", DESTINATION, text, f"Choose a host with {here.machine} processors.")
        return
    missing = sorted(set(here.cpu_features) - set(there.cpu_features))
    if missing and there.cpu_features:
        text = f"its processor lacks {', '.join(missing)}, which the process may be using"
        yield Reason(
            "processor",
            DESTINATION,
            text,
            "Choose a host with the same or a newer processor, or give the virtual machines of both hosts"
            " the same processor model.",
        )


def room(subject: Subject) -> Iterator[Reason]:
    """The images are in memory, on the destination beside the process itself.

    At the origin, pages that change while memory is sent ahead are kept again: half as much, for a start.
    """
    for role, host in subject.hosts():
        memory = subject.process.memory_bytes
        images = memory + ghost_bytes(subject) + _SPARE_BYTES + (memory // 2 if role == ORIGIN else 0)
        if host.image_space_bytes < images:
            text = f"{size(images)} are needed for images in memory, {size(host.image_space_bytes)} are free"
            yield Reason("no-image-space", role, text, MAKE_ROOM)
        needed = images if role == ORIGIN else images + memory + locked_bytes(subject)
        if host.memory_available_bytes < needed:
            text = f"{size(needed)} of memory are needed, {size(host.memory_available_bytes)} are available"
            yield Reason("no-memory", role, text, "End what is not needed there, or choose a larger host.")


def congestion_known(subject: Subject) -> Iterator[Reason]:
    """Every connection keeps its congestion control."""
    used = {one.congestion for one in subject.process.sockets} - {""}
    for name in sorted(used - set(subject.destination.congestion_algorithms)):
        text = f"its kernel has no congestion control {name}, which connections of the process use"
        remedy = f"Load it with `modprobe tcp_{name}`, or install a kernel that has it."
        yield Reason("congestion", DESTINATION, text, remedy)


# --- the process ----------------------------------------------------------------------------------------


def not_ourselves(subject: Subject) -> Iterator[Reason]:
    """What we run under would be frozen with the tree, and we with it."""
    inside = set(subject.process.driver_pids) & {task.pid for task in subject.process.tasks}
    if inside:
        text = f"migrate itself runs inside process {subject.process.root_pid}"
        yield Reason("self", ORIGIN, text, "Name a process that is not a parent of your shell.")


def an_ordinary_process(subject: Subject) -> Iterator[Reason]:
    """Kernel threads, the init process and the dead stay where they are."""
    root = subject.root
    if root.pid == 1:
        yield Reason("init", ORIGIN, "PID 1 is the init process", "Name the PID of the service itself.")
    if root.kernel_thread:
        text = f"{subject.who(root.pid)} is a thread of the kernel"
        yield Reason("kernel-thread", ORIGIN, text, "Name the PID of a program.")
    if root.zombie:
        text = f"{subject.who(root.pid)} has ended and waits for its parent to notice"
        yield Reason("zombie", ORIGIN, text, "Name a process that runs.")


def own_session(subject: Subject) -> Iterator[Reason]:
    """CRIU moves whole sessions (criu/pstree.c dump_pstree()), or puts the tree into its own."""
    root = subject.root
    if not root.sid:
        text = f"the session of {subject.who(root.pid)} belongs to another PID namespace"
        yield Reason("shell-job", ORIGIN, text, "Start the program with setsid.")
        return
    if root.sid == root.pid or subject.process.session_ended or subject.along.shell_job:
        return
    text = f"{subject.who(root.pid)} belongs to session {root.sid}, whose leader would stay behind"
    if root.sid in {task.pid for task in subject.process.tasks}:
        text = f"{subject.who(root.pid)} is not the leader of its session {root.sid}"
    yield Reason(
        "shell-job",
        ORIGIN,
        text,
        "Pass --shell-job if nothing depends on the session, or start the program with setsid.",
    )


Check = Callable[[Subject], Iterator[Reason]]

#: Each table in the order in which an operator would want to hear.
OF_HOSTS: tuple[Check, ...] = (
    privileges,
    host_problems,
    criu_works,
    same_processor,
)
#: Whether it is a process, and a host, that can be named at all.
OF_THE_CHOICE: tuple[Check, ...] = (two_hosts, not_ourselves, an_ordinary_process)
OF_THE_PROCESS: tuple[Check, ...] = (
    own_session,
    unsupervised,
    units.described,
    containers.described,
    containers.there,
    containers.loopback,
    obstacles,
    sockets_whole,
    peers_elsewhere,
    address_named,
    nobody_comes,
    addresses_movable,
    nowhere_there,
    ports_free,
    names_free,
    reconnections.idle,
    reconnections.heard,
    sockets_apart,
    interfaces_there,
    congestion_known,
    files_there,
    databases,
    deleted_names_free,
    none_read_in_part,
    written_here_alone,
    locks_free,
    nothing_left_behind,
    no_directory_emptied,
    trees_sound,
    writable_there,
    mounts_permit,
    room_for_copies,
    one_file,
    room,
    descriptors,
    numbers_of_descriptors,
    mappings,
    promised,
    promised_at_once,
    queued_signals,
)
