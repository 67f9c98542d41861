"""What is done at CRIU's hooks for whoever drives CRIU, so that connections survive: podman, runc, a script.

CRIU must be told ``network-lock skip``: the filter is ours. The images need nothing special; who restores asks for
``--tcp-established`` as always. By the stage of CRIU's action script:

At the dump:

- ``network-lock``: the tree is stopped; its connections and listeners are isolated, every connection is read, and
  what was read is put beside the images. The sockets are then as they were, for CRIU to dump.
- ``post-dump``: the isolation must have held, and lasts from here on, for the connections: what is late must not
  find a host without sockets.
- ``network-unlock``: only where the tree goes on here. The isolation ends.

At the restore:

- ``pre-restore``: CRIU's images of the connections are completed; the ends are held in the network namespace that
  the runtime made, where it says which that is.
- ``post-setup-namespaces``: they are held at the latest.
- ``network-unlock``: the sockets are there, mute, in repair mode; they get what CRIU does not know, and are let go.
- ``pre-resume``: the peers are told.

An error at the dump is CRIU's error: the tree goes on. One at the restore is not, since the tree may be nowhere
else by then: CRIU goes on with the images it wrote itself, and the error is told.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tcpcp.criu import carried, images, namespaces, stages, tree
from tcpcp.criu.carried import Carried
from tcpcp.criu.completion import Completion, listeners_of_images
from tcpcp.endpoint.isolation import Flow, Isolation
from tcpcp.errors import IsolationError, KernelError, TcpcpError
from tcpcp.kernel import netfilter, tracking
from tcpcp.record.ici import Endpoint

#: Until the dump is done or the tree goes on. Longer than memory takes to be written; as long as a connection
#: stays silent should CRIU be killed just then, with nobody there to see it.
LOCK_S = 600
#: What has the place of a listener is its own again, some time after the tree has gone.
_AFTER_S = 10

#: Those at which there is nothing to be done are not in it.
STAGES = (
    "network-lock",
    "post-dump",
    "pre-restore",
    "post-setup-namespaces",
    "network-unlock",
    "pre-resume",
)
#: A file among the images: the ends are held already, and the script need not ask for it once more.
HELD = "tcpcp-held"
#: The others must not fail: see above.
MAY_FAIL = frozenset({"network-lock", "post-dump"})


@dataclass(frozen=True, slots=True)
class Hook:
    """A call of CRIU's.

    :ivar directory: the directory of the images, open.
    :ivar root: the tree's root as this host numbers it; 0: there is none yet.
    :ivar caller: the hook's own process.
    :ivar tell: takes a sentence for whoever looks after the host.
    """

    stage: str
    directory: int
    root: int
    caller: int
    tell: Callable[[str], None]

    @property
    def images(self) -> Path:
        """The directory, by a path that leads there from this process alone."""
        return Path(f"/proc/self/fd/{self.directory}")


def run(hook: Hook) -> bool:
    """Do what is to be done; the calling thread changes its network namespace for good.

    :return: whether CRIU may go on.
    """
    work = {
        "network-lock": _network_lock,
        "post-dump": _post_dump,
        "pre-restore": _pre_restore,
        "post-setup-namespaces": _hold_there,
        "network-unlock": _network_unlock,
        "pre-resume": _pre_resume,
    }[hook.stage]
    try:
        work(hook)
    except (TcpcpError, OSError) as error:
        hook.tell(f"{hook.stage}: {error}")
        return hook.stage not in MAY_FAIL
    return True


class Filters:
    """The two filters of a dump or a restore: around the connections, and around the listeners."""

    def __init__(self, name: str) -> None:
        self.connections = Isolation(f"criu-{name}", timeout_s=LOCK_S)
        self.listeners = Isolation(f"criu-{name}-new", timeout_s=LOCK_S)

    def hold(self, flows: Iterable[Flow], listening: Iterable[Endpoint]) -> None:
        """Hold all of them. :raises IsolationError: nothing may be held, or a part."""
        self.listeners.hold(listeners=listening)
        self.connections.hold(flows)

    def in_force(self) -> bool:
        """Whether they hold."""
        return self.connections.in_force() and self.listeners.in_force()

    def keep(self) -> None:
        """The tree has gone: its connections stay unanswered here, its ports are for whoever comes next."""
        self.connections.keep()
        Isolation(self.listeners.name, timeout_s=_AFTER_S).refresh()

    def release(self) -> None:
        """Remove them, whoever made them."""
        try:
            self.connections.release()
        finally:
            self.listeners.release()


# --- the dump --------------------------------------------------------------------------------------------


def _network_lock(hook: Hook) -> None:
    namespaces.enter_network(hook.root)
    pids = tree.tasks(hook.root)
    name = secrets.token_hex(8)
    extract, filters = stages.Extract.collect(pids), Filters(name)
    try:
        extract.prepare()
        filters.hold(extract.flows, extract.listening)
        icis = [ici for some in extract.get() for ici in some]
        extract.resume()
        numbers = namespaces.inside(pids)
        carried_along = Carried(
            name,
            icis,
            {one.inode: _holder(one, numbers) for one in extract.held},
            {one.inode: (one.options, one.congestion) for one in (*extract.listeners, *extract.unconnected)},
            extract.closed,
        )
        carried_along.write(hook.directory)
    except BaseException:
        with contextlib.suppress(TcpcpError):
            extract.resume()
        filters.release()
        raise
    finally:
        extract.close()


def _holder(one: tree.HeldSocket, numbers: dict[int, int]) -> tuple[int, int]:
    pid, fd = one.holders[0]
    return numbers[pid], fd


def _post_dump(hook: Hook) -> None:
    known = carried.read(hook.directory)
    if known is None:
        raise IsolationError(f"{carried.SOCKETS} is not there any more")
    namespaces.enter_network(hook.root)
    filters = Filters(known.name)
    if not filters.in_force():
        raise IsolationError("the connections were not isolated while they were dumped")
    filters.keep()


def dumped_from(hook: Hook, known: Carried) -> bool:
    """Whether the tree is the one that was dumped, not one that was restored of it.

    The inodes of sockets tell: those that were restored have others.
    """
    numbers = namespaces.here(hook.root)
    for inode, (own, fd) in known.holders.items():
        with contextlib.suppress(OSError, KeyError):
            if os.stat(f"/proc/{numbers[own]}/fd/{fd}").st_ino == inode:  # noqa: PTH116
                return True
    return False


# --- the restore -----------------------------------------------------------------------------------------


def _known(hook: Hook) -> Carried | None:
    """What came along; None where nothing did, or where whoever dumped wanted all connections closed."""
    known = carried.read(hook.directory)
    if known is None or images.closes((hook.images / "inventory.img").read_bytes()):
        return None
    return known


def _pre_restore(hook: Hook) -> None:
    known = _known(hook)
    if known is None:
        return
    listening = listeners_of_images(hook.images)
    with _telling(hook, "CRIU restores what it knows itself"):
        completion = Completion(hook.images)
        completion.take_all(known.icis)
        completion.finish(known.closed)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(HELD, dir_fd=hook.directory)
    runtime = namespaces.parent(criu_of(hook.caller))
    if descriptor := namespaces.given_by(runtime):
        try:
            namespaces.enter(descriptor)
        finally:
            os.close(descriptor)
        Filters(known.name).hold(_flows(known), listening)
        os.close(os.open(HELD, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=hook.directory))


def _hold_there(hook: Hook) -> None:
    known = _known(hook)
    if known is not None:
        namespaces.enter_network(hook.root)
        Filters(known.name).hold(_flows(known), listeners_of_images(hook.images))


def _network_unlock(hook: Hook) -> None:
    known = carried.read(hook.directory)
    if known is None:
        return
    namespaces.enter_network(hook.root)
    try:
        if not dumped_from(hook, known) and _known(hook):
            with _telling(hook, "the sockets have what CRIU knows"):
                stages.finish(known.icis, _holders(hook, known), known.listeners, same_path=False)
            with contextlib.closing(netfilter.Netlink()) as netlink:
                tracking.introduce(netlink, ((ici.local, ici.peer) for ici in known.icis))
    finally:
        Filters(known.name).release()


def _pre_resume(hook: Hook) -> None:
    known = _known(hook)
    if known is not None:
        namespaces.enter_network(hook.root)
        stages.wake(known.icis, _holders(hook, known))


def _holders(hook: Hook, known: Carried) -> dict[int, tuple[int, int]]:
    numbers = namespaces.here(hook.root)
    try:
        return {inode: (numbers[pid], fd) for inode, (pid, fd) in known.holders.items()}
    except KeyError as error:
        raise KernelError("read(/proc/PID/status)", 0, f"no process {error} was restored") from None


def _flows(known: Carried) -> list[Flow]:
    return [Flow(ici.local, ici.peer) for ici in known.icis]


@contextlib.contextmanager
def _telling(hook: Hook, instead: str) -> Iterator[None]:
    """What goes wrong is told, and what happens *instead*."""
    try:
        yield
    except (TcpcpError, OSError) as error:
        hook.tell(f"{hook.stage}: {error}; {instead}")


def criu_of(caller: int) -> int:
    """The CRIU that called the hook *caller*; 0: there is none above it."""
    pid = caller
    while pid > 1 and namespaces.name(pid) != "criu":
        pid = namespaces.parent(pid)
    return pid if pid > 1 else 0


def release(root: int, name: str) -> None:
    """The filters *name* of the tree *root* go; the calling thread changes its network namespace for good.

    :raises TcpcpError: they could not be removed.
    """
    namespaces.enter_network(root)
    Filters(name).release()
