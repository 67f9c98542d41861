"""The kinds of entries in a journal: each says what it holds, and how it is undone.

Those of files that were copied are in :mod:`migrate.files.entries`. The driver, the agent, their guardians and
``migrate --recover`` all undo by these, so there is one way back.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from migrate import limits, place, runtime, switch
from migrate.errors import MigrateError
from migrate.files.entries import Copied, Directory
from migrate.journal.entry import Entry
from migrate.processes import ended_call, freezer, identity, leaving_unit, leeway, oci, second_line
from migrate.processes.identity import Identity
from migrate.processes.waits import Wait

# What loads the library is imported where it is used: the table of the steps names these classes, and the agent
# reads that before it says hello, which is waited for.


@dataclass(frozen=True)
class Images(Entry):
    """The directory of the images.

    :ivar device: the file system that it is in, as st_dev; 0: that is not known.
    """

    word: ClassVar[str] = "images"
    path: str
    device: int = 0

    def undo(self) -> str:
        """See :class:`Entry`."""
        try:
            place.remove_images(Path(self.path), self.device)
        except OSError as error:
            raise MigrateError(f"{self.path} could not be removed: {error.strerror}") from error
        return f"images removed from {self.path}"


@dataclass(frozen=True)
class Isolation(Entry):
    """The packet filter *name*."""

    word: ClassVar[str] = "isolation"
    name: str

    def undo(self) -> str:
        """See :class:`Entry`."""
        from tcpcp.endpoint import isolation

        isolation.remove(self.name)
        return "packet filter removed"

    def forget_orphans(self) -> None:
        """Before the undo, where what had the connections that it holds has been killed.

        :raises TcpcpError: the kernel cannot; then their peers hear of it.
        """
        from tcpcp.endpoint import orphans

        orphans.forget(self.name)


@dataclass(frozen=True)
class Criu(Entry):
    """A CRIU that has begun to freeze, or to build, the tree."""

    word: ClassVar[str] = "criu"
    pid: int
    start: int

    @property
    def process(self) -> Identity:
        """It."""
        return self.pid, self.start

    def wait_gone(self) -> bool:
        """Whether it has ended, or does within a while, now that its driver or agent is gone."""
        return identity.wait_gone(self.process, time.monotonic() + limits.CRIU_END_S)

    def end(self) -> None:
        """Wait for its end. Left alone it sees its socket closed, and lets the tree go or kills what it built."""
        if not self.wait_gone():
            identity.end([self.process])

    def undo(self) -> str:
        """See :class:`Entry`."""
        self.end()
        return "CRIU ended"


@dataclass(frozen=True)
class Freezer(Entry):
    """The cgroup at *path*, in which tasks of the tree are frozen."""

    word: ClassVar[str] = "freezer"
    path: str

    def undo(self) -> str:
        """See :class:`Entry`: thaw, and each task back to the cgroup that it was in."""
        freezer.release([Path(self.path)])
        return f"{self.path} thawed and removed"


@dataclass(frozen=True)
class Keeper(Entry):
    """A process that keeps the tree still."""

    word: ClassVar[str] = "keeper"
    pid: int
    start: int

    @property
    def process(self) -> Identity:
        """It."""
        return self.pid, self.start

    def undo(self) -> str:
        """See :class:`Entry`."""
        from migrate.processes import keeper

        keeper.let_go(self.process)
        return "keeper ended"


@dataclass(frozen=True)
class Stop(Entry):
    """A SIGSTOP that waits for each of *tasks*; those that had been stopped before are not among them."""

    word: ClassVar[str] = "stop"
    tasks: tuple[Identity, ...]

    def undo(self) -> str:
        """See :class:`Entry`.

        SIGCONT also takes back a SIGSTOP that was not delivered because CRIU still holds the task. One that has
        ended meanwhile, killed by its owner, has nothing to be continued.
        """
        going = [pid for pid, start in self.tasks if second_line.take_back((pid, start))]
        ended = len(self.tasks) - len(going)
        return f"{len(going)} tasks continued" + (f", {ended} had ended" if ended else "")


@dataclass(frozen=True)
class EndedCalls(Entry):
    """System calls that CRIU's dump has ended, of *tasks*, which something but CRIU keeps still as well.

    :ivar calls: of each a :class:`migrate.processes.waits.Wait`.
    """

    word: ClassVar[str] = "calls"
    tasks: tuple[Identity, ...]
    calls: tuple[tuple[int, int, int, int, int], ...]

    def undo(self) -> str:
        """See :class:`Entry`: they begin again. One that does not has ended with EINTR, which is nobody's fault."""
        alive = {task[0] for task in self.tasks if identity.alive(task)}
        deadline = time.monotonic() + limits.ENDED_CALL_S
        living = [one for one in map(Wait._make, self.calls) if one.pid in alive]
        count = sum(ended_call.begin_again(one, deadline) for one in living)
        return f"{count} of {len(self.calls)} system calls begin again"


@dataclass(frozen=True)
class Limit(Entry):
    """A soft limit of a task, raised for CRIU's part in it.

    :ivar resource: which one, as for getrlimit(2). :ivar soft: what it was. :ivar raised: what it is meanwhile.
    """

    word: ClassVar[str] = "limit"
    pid: int
    start: int
    resource: int
    soft: int
    raised: int

    def undo(self) -> str:
        """See :class:`Entry`. A task that has ended has no limits."""
        leeway.put_back((self.pid, self.start), self.resource, now=self.raised, before=self.soft)
        return f"limit {self.resource} of process {self.pid} as before"


@dataclass(frozen=True)
class Repair(Entry):
    """The TCP sockets of *tasks* in repair mode.

    :ivar reuse: inodes of those that had SO_REUSEADDR set, which the way out of repair mode clears; True: all.
    """

    word: ClassVar[str] = "repair"
    tasks: tuple[Identity, ...]
    reuse: Literal[True] | tuple[int, ...]

    def undo(self) -> str:
        """See :class:`Entry`: out of repair mode, and their peers are woken."""
        from tcpcp.criu import stages, tree
        from tcpcp.endpoint import raw_segment, untracked
        from tcpcp.kernel.pidfd import Lender

        count = 0
        pids = [pid for pid, start in self.tasks if identity.alive((pid, start))]
        with Lender() as lender, raw_segment.keeping(), untracked.while_fed() as unseen:
            for held in tree.tcp_sockets(pids):
                with lender.borrow(*held.holders[0]) as borrowed:
                    if not stages.go_on(borrowed, unseen=unseen):
                        continue
                    if self.reuse is True or held.inode in self.reuse:
                        borrowed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    count += 1
        return f"{count} connections resumed"


@dataclass(frozen=True)
class Switch(Entry):
    """The service addresses go from or to this host, as :meth:`migrate.switch.Switch.details` describes it."""

    word: ClassVar[str] = "switch"
    details: Mapping[str, Any]

    def undo(self) -> str:
        """See :class:`Entry`."""
        switch.from_details(self.details).undo()
        return f"switch '{self.details['kind']}' undone"

    def changed(self) -> list[str]:
        """After the undo: see :meth:`migrate.switch.Switch.changed`."""
        return switch.from_details(self.details).changed()

    def remind(self) -> None:
        """After the undo: see :meth:`migrate.switch.Switch.remind`."""
        switch.from_details(self.details).remind()


@dataclass(frozen=True)
class Routes(Entry):
    """Routes to the peers that are there only while the connections are built; requests, in hexadecimal."""

    word: ClassVar[str] = "routes"
    routes: tuple[str, ...]

    def undo(self) -> str:
        """See :class:`Entry`."""
        from tcpcp.endpoint import same_path

        same_path.remove([bytes.fromhex(route) for route in self.routes])
        return f"{len(self.routes)} routes removed"


@dataclass(frozen=True)
class Sockets(Entry):
    """Unix sockets that a restore makes at *paths*, where nothing was."""

    word: ClassVar[str] = "sockets"
    paths: tuple[str, ...]

    def undo(self) -> str:
        """See :class:`Entry`."""
        from migrate.criu import unix_paths

        return unix_paths.remove(self.paths)


@dataclass(frozen=True)
class OnTheWay(Entry):
    """Directories that a restore makes on the way to deleted ones, where nothing was; the uppermost comes first."""

    word: ClassVar[str] = "on-the-way"
    paths: tuple[str, ...]

    def undo(self) -> str:
        """See :class:`Entry`: those go in which nothing is."""
        for path in reversed(self.paths):
            Directory(path).undo()
        return f"{len(self.paths)} directories removed if they were empty"


@dataclass(frozen=True)
class Tree(Entry):
    """A tree that CRIU builds.

    :ivar tasks: those that it has built when it said so.
    :ivar marked: ``NAME=VALUE`` in the environment of that CRIU. :ivar path: its images'.
    :ivar runtime: who keeps it here, see :mod:`migrate.runtime`; a journal of a version before names none.
    """

    word: ClassVar[str] = "tree"
    tasks: tuple[Identity, ...]
    marked: str
    path: str
    runtime: str = ""

    def undo(self) -> str:
        """See :class:`Entry`, as its runtime does."""
        runtime.find(self.runtime).undo(self.tasks, self.marked, self.path)
        return "restored tasks killed"


@dataclass(frozen=True)
class Container(Entry):
    """On the origin: what is moved is the container *container* of *runtime*."""

    word: ClassVar[str] = "container"
    runtime: str
    container: str
    bundle: str

    def undo(self) -> str:
        """See :class:`Entry`: it goes on as it is."""
        return f"container {self.container} of {self.runtime} stays"

    def forget(self) -> None:
        """Once its processes have ended here: its runtime is to know it no more.

        :raises MigrateError: it still does.
        """
        oci.remove(self.runtime, self.container, self.bundle)


@dataclass(frozen=True)
class Arriving(Entry):
    """On the destination: *runtime* is about to restore *container*, of which it knew none before."""

    word: ClassVar[str] = "arriving"
    runtime: str
    container: str
    bundle: str

    def undo(self) -> str:
        """See :class:`Entry`, when its processes have been ended."""
        oci.remove(self.runtime, self.container, self.bundle)
        return f"{self.runtime} knows no container {self.container}"


@dataclass(frozen=True)
class AtPodman(Entry):
    """On the origin: what is moved is a container of podman's, which runs it *by* runc or crun.

    :ivar container: its number. :ivar pid, start: of its conmon, which would start it again when it has ended.
    """

    word: ClassVar[str] = "at-podman"
    container: str
    by: str
    bundle: str
    pid: int
    start: int

    def undo(self) -> str:
        """See :class:`Entry`: it goes on as it is."""
        return f"container {self.container[:12]} of podman stays"

    def watch_no_more(self) -> None:
        """Before its processes are ended: podman is not to hear of that, and to do what it does then."""
        if self.pid:  # else there was none
            identity.end([(self.pid, self.start)])

    def forget(self) -> None:
        """Once they have ended here: podman is to know it no more. :raises MigrateError: it still does."""
        from migrate.processes import podman

        podman.remove(self.container, self.by, self.bundle)


@dataclass(frozen=True)
class OfPodman(Entry):
    """On the destination: podman is about to restore *container*, a number, of which it knew none before."""

    word: ClassVar[str] = "of-podman"
    container: str
    by: str
    bundle: str

    def undo(self) -> str:
        """See :class:`Entry`, when its processes have been ended. Its network goes with it."""
        from migrate.processes import podman

        podman.remove(self.container, self.by, self.bundle)
        return f"podman knows no container {self.container[:12]}"


@dataclass(frozen=True)
class AtUnit(Entry):
    """On the origin: what is moved to *host* is *unit*, of systemd, which is held by the drop-in at *path*."""

    word: ClassVar[str] = "at-unit"
    unit: str
    path: str
    host: str

    def undo(self) -> str:
        """See :class:`Entry`: it goes on as it is."""
        leaving_unit.stays(self.unit, Path(self.path))
        return f"{self.unit} is as before"

    def changed(self) -> list[str]:
        """After the undo: sentences, what is not as it was before."""
        return list(filter(None, [leaving_unit.ended(self.unit)]))

    def forget(self, main: int) -> None:
        """Once its processes, first of all *main*, have ended here: systemd is to know why.

        :raises MigrateError, OSError: it has not seen it.
        """
        leaving_unit.gone(self.unit, Path(self.path), self.host, main)


@dataclass(frozen=True)
class OfUnit(Entry):
    """On the destination: systemd starts *unit* with a placeholder, by the drop-in at *path*.

    :ivar pid, start: of the placeholder, 0 as long as that is not known.
    :ivar number: where the unit has the number of its main process, with owner and mode; "": nowhere.
    """

    word: ClassVar[str] = "of-unit"
    unit: str
    path: str
    host: str
    number: str
    uid: int
    gid: int
    mode: int
    pid: int = 0
    start: int = 0

    def undo(self) -> str:
        """See :class:`Entry`, when what was restored has been ended."""
        from migrate.processes import arriving_unit

        arriving_unit.undo(self.unit, Path(self.path))
        return f"{self.unit} is as before"

    def arrived(self, root: int) -> None:
        """Where it runs: it is the main process, and all else of the unit is as usual.

        :raises MigrateError, OSError: systemd does not take it for that, or something is left.
        """
        from migrate.processes import arriving_unit

        number = arriving_unit.PidFile(self.number, self.uid, self.gid, self.mode)
        placeholder = self.pid, self.start
        arriving_unit.adopt(self.unit, Path(self.path), placeholder, root, number, self.host)


@dataclass(frozen=True)
class Muted(Entry):
    """What is new on this host's bridges is mute; *name* is the migration's."""

    word: ClassVar[str] = "muted"
    name: str

    def undo(self) -> str:
        """See :class:`Entry`."""
        from migrate.processes import network
        from migrate.switch import new_interfaces

        with network.home():
            new_interfaces.speak(self.name)
        return "new interfaces speak"


@dataclass(frozen=True)
class Joined(Entry):
    """On the destination: from here on it was done in the network namespace at *path*, which is the container's."""

    word: ClassVar[str] = "joined"
    path: str

    def undo(self) -> str:
        """See :class:`Entry`: it goes with the container."""
        return "network left"


#: All of them.
KINDS: tuple[type[Entry], ...] = (
    AtPodman, OfPodman, Muted, Joined, Container, Arriving, Images, Isolation, Criu, Freezer, Keeper, Limit, Stop,
    EndedCalls, Repair, Switch, Routes, Sockets, Tree, Copied, Directory, OnTheWay, AtUnit, OfUnit,
)  # fmt: skip
#: What a tree that runs on the destination needs there.
STAYS: tuple[type[Entry], ...] = (
    Arriving,
    OfPodman,
    OfUnit,
    Joined,
    Switch,
    Tree,
    Sockets,
    Copied,
    Directory,
    OnTheWay,
)


def words(kinds: Iterable[type[Entry]]) -> set[str]:
    """How *kinds* are named in a line."""
    return {kind.word for kind in kinds}
