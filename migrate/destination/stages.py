"""The destination's part of a migration: what the agent does for each message of the driver.

One :class:`Destination` is one migration. Its methods are called in the order of the machine's table; each
writes to the journal what would have to be undone before it does it. :meth:`Destination.abort` undoes
everything, up to the moment in which :meth:`Destination.commit` begins.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from migrate import inventory, limits, place, switch
from migrate.criu import renamed_files, unix_paths
from migrate.criu.worker import Options, Stage, Worker
from migrate.destination import announced, built
from migrate.errors import CriuError, ProtocolError
from migrate.files.content import Digests
from migrate.files.images import Receiver
from migrate.files.taker import FileTaker
from migrate.gap.capture import Capture
from migrate.gap.inject import Injector, Inlet
from migrate.gap.lease import Lease
from migrate.journal import journal
from migrate.machine import State
from migrate.pb import session_pb2 as pb
from migrate.processes import identity, parents_death, surroundings
from migrate.recovery import arrived, guardian, undo
from migrate.recovery.settle import note_problems
from migrate.watch import nothing
from tcpcp.criu import completion, stages, tree
from tcpcp.endpoint.isolation import Flow, Isolation
from tcpcp.endpoint.same_path import InitialWindows
from tcpcp.errors import TcpcpError
from tcpcp.record.ici import Ici
from tcpcp.record.ici import State as TcpState

#: In one message, beside everything else.
MOST_GIVEN_BACK_BYTES = 8 << 20
#: When CRIU has not built the tree in time.
WAITING_HINT = (
    "Look there for what it waits for: a lock that somebody holds (lslocks), a device or a file system that does"
    " not answer. Or allow more with --max-gap."
)


class Destination:
    """One migration on the destination.

    :param migration_id: the driver's name for it, checked by the caller.
    :param called_off: called again and again while we work for the driver; raises when that has become vain.
    """

    def __init__(self, migration_id: str, origin_host: str, called_off: Callable[[], None] = nothing) -> None:
        self.migration_id = migration_id
        self.origin_host = origin_host
        self.phases: list[pb.PhaseTime] = []
        self.committed = self.activated = self._switched = False
        self._journal: journal.Journal | None = None
        self._taker: FileTaker | None = None
        self._built: built.Built | None = None
        self._called_off = called_off
        self._digests = Digests(called_off)
        self._build_until = float("inf")
        #: What was caught for connections that do not live here after all.
        self.caught: list[bytes] = []

    def prepare(self, request: pb.Prepare) -> None:
        """Make ready what needs no image: guardian, image directory, CRIU, the place of the addresses.

        :raises MigrateError: :meth:`abort` leaves nothing.
        """
        with self._timed("prepare"):
            self._prepare(request)

    def _prepare(self, request: pb.Prepare) -> None:
        self._request = request
        self._journal = journal.Journal(
            self.migration_id, role="destination", pid=request.pids[0], other_host=self.origin_host
        )
        self._guardian = guardian.Guardian(self._journal.directory, "destination")
        avoid = [*request.pids, *request.tids] if request.new_pid_namespace else None
        self._worker = Worker(
            role="destination",
            avoid_pids=avoid,
            mark=self._mark,
            personality=request.personality,
            heed=self._heed,
        )
        addresses = [switch.Address(one.address, one.prefix_length) for one in request.addresses]
        self._switch = switch.make(request.switch_kind, "destination", self.migration_id, addresses)
        self._switch.choose()
        self._isolation = Isolation(
            self.migration_id, timeout_s=request.timeout_s + int(limits.FILTER_MARGIN_S)
        )
        self._journal.did("isolation", name=self.migration_id)
        self._isolation.prepare()
        self._lease = Lease(self._isolation)
        stages.prepare()
        # Closing them takes long, so they end with the agent, which does one migration.
        self._capture = Capture(ipaddress.ip_address(one.ip) for one in addresses)
        self._injector = Injector()
        self._inlet = Inlet(self._injector)
        self._images = self._make_images()
        self._receiver = Receiver(self._images)
        fed = request.same_path and request.connections <= stages.MOST_FED
        self._completion = completion.Completion(self._images, one_more=fed)
        self._guardian.wait_ready()

    @property
    def _mark(self) -> str:
        return f"MIGRATE_ID={self.migration_id}"

    def watch(self) -> None:
        """While we wait for the driver: look whether CRIU, which holds what it builds together, is alive; then
        go on answering for the service addresses.

        :raises CriuError, SwitchError: it is not, or we cannot; :meth:`abort` leaves nothing.
        :raises FilterLost: likewise.
        """
        if self._journal is None or self.committed or not hasattr(self, "_worker"):
            return
        self._watch_tree()
        self._worker.check()
        if hasattr(self, "_lease"):
            self._lease.renew()
        if self._switched:
            self._switch.renew()

    def _heed(self) -> None:
        """While we wait for CRIU: it keeps a process of the origin waiting, unless that was given to us."""
        self._watch_tree()
        if self.committed:
            return
        self._called_off()
        if hasattr(self, "_lease"):
            self._lease.renew()
        if time.monotonic() > self._build_until:
            text = "CRIU could not build it in the time that the origin allows"
            raise CriuError(text, phase="restore", role="destination", hint=WAITING_HINT)

    def _watch_tree(self) -> None:
        """Nobody but us would notice that a task which waits to run was killed. :raises CriuError: one was."""
        if self._built is not None and not self.activated:
            self._built.require()

    @property
    def not_here(self) -> bool:
        """Whether the process does not run here, and will not: nothing was built, or it is gone again."""
        return not self.activated and (self._built is None or self._built.gone())

    def _make_images(self) -> Path:
        assert self._journal is not None
        path = place.image_root() / f"migrate-{self.migration_id}"
        self._journal.did("images", path=str(path))
        return place.images(self.migration_id)

    def take(self, chunk: pb.FileChunk) -> None:
        """Take a piece of an image.

        :raises MigrateError, TcpcpError: :meth:`abort` leaves nothing.
        """
        self._receiver.take(chunk)
        if chunk.name == completion.ICI_IMAGE:
            self._completion.take(chunk.data)

    def compare(self, question: pb.Compare) -> pb.Compared:
        """Say what this host has of the files that the origin asks about, with their content."""
        return pb.Compared(files=inventory.contents(list(question.files), self._digests))

    def copy(self, chunk: pb.FileChunk) -> None:
        """Take a piece of a file that is copied to its own place."""
        assert self._journal is not None
        if self._taker is None:
            self._taker = FileTaker(self._journal)
        self._taker.take(chunk)

    def restore(self, request: pb.Restore) -> pb.Restored:
        """Build the tree; it has not run an instruction when this returns, and its sockets are mute.

        :raises MigrateError, TcpcpError: :meth:`abort` leaves nothing.
        """
        announced.tasks(self._request, request.tasks)
        if request.most_ms:
            self._build_until = time.monotonic() + request.most_ms / 1000
        with self._timed("verify"):
            self._receiver.verify(request.manifest)
        with self._timed("compile"):
            icis = self._completion.finish(request.closed)
            announced.addresses(self._request, icis)
        with self._timed("hold"):
            self._hold(icis)
        renamed_files.rename(self._images, request.renamed)
        notes = self._forget_parent(request)
        self._place_unix_sockets()
        if not self._worker.namespace_init:
            built.free(task.pid for task in request.tasks)
        with self._timed("build"), self._initial_windows(icis):
            self._build()
        self._pids = self._numbers([task.pid for task in request.tasks])
        self._built = built.Built(request.tasks, self._pids)
        self._note_state(State.RESTORED)
        self._icis, self._holders = icis, self._local_holders(request)
        with self._timed("finish"):
            self._finish(request)
            notes += surroundings.put_back(request.surroundings, self._pids)
        self._lease.check()
        return pb.Restored(destination_pid=self._pids[self._request.pids[0]], phases=self.phases, notes=notes)

    def _place_unix_sockets(self) -> None:
        """They get the paths that they had last, and a rollback removes those that are not there yet."""
        assert self._journal is not None
        wanted = self._request.unix_sockets
        self._journal.did("sockets", paths=unix_paths.absent(wanted))
        unix_paths.place(self._images, wanted)

    def _forget_parent(self, request: pb.Restore) -> list[str]:
        """The root's parent is not here. Sentences: what that means."""
        root = self._request.pids[0]
        tids = [thread.tid for one in request.surroundings if one.pid == root for thread in one.threads]
        return parents_death.forget(self._images, root, tids)

    def _numbers(self, pids: list[int]) -> dict[int, int]:
        """PID on the origin -> PID as this host sees it: the same, but in a new PID namespace."""
        init = self._worker.namespace_init
        if not init:
            return {pid: pid for pid in pids}
        return {identity.innermost(pid): pid for pid in tree.tasks(init)}

    def _hold(self, icis: list[Ici]) -> None:
        """No packet may meet a half-built socket, or none."""
        assert self._journal is not None
        self._flows = {ici.tag: Flow(ici.local, ici.peer) for ici in icis}
        self._listening = completion.listeners_of_images(self._images)
        self._injector.by_device({i.local.ip: socket.if_nametoindex(i.device) for i in icis if i.device})
        self._inlet.only(self._flows.values(), self._listening)
        # Nobody else is at these ends, so a few elements do for all connections.
        self._lease.hold((), {*self._listening, *(ici.local for ici in icis)})
        self._switch.require_free()
        self._journal.did("switch", details=self._switch.details())
        self._switch.prepare()

    def _initial_windows(self, icis: list[Ici]) -> InitialWindows:
        """What CRIU's restore happens within; routes that it makes are ours to remove."""
        assert self._journal is not None
        windows = stages.restoring(icis, same_path=self._request.same_path)
        if windows.routes:
            self._journal.did("routes", routes=[route.hex() for route in windows.routes])
        return windows

    def _build(self) -> None:
        assert self._journal is not None
        self._note_tree(())
        self._journal.did("criu", pid=self._worker.pid, start=self._worker.start)
        options = Options(
            self._images,
            "restore.log",
            shell_job=self._request.shell_job,
            timeout_s=self._request.timeout_s,
        )
        self._stages: Generator[Stage, bool | None, None] = self._worker.restore(options)
        for stage in self._stages:
            if stage.name == "post-restore":
                if not self._worker.namespace_init:
                    announced.root(self._request, stage.pid)
                self._note_tree(tree.tasks(self._worker.namespace_init or self._request.pids[0]))
                return
        raise CriuError("CRIU ended before the tree was built", phase="restore", role="destination")

    def _note_tree(self, pids: Iterable[int]) -> None:
        """What a rollback would kill: *pids*, which CRIU says it has built, and what bears our marks."""
        assert self._journal is not None
        tasks = [identity.identity(pid) for pid in pids]
        self._journal.did("tree", tasks=tasks, marked=self._mark, path=str(self._images))

    def _note_state(self, state: State) -> None:
        assert self._journal is not None
        self._journal.state(state.value, destination_pid=self._pids[self._request.pids[0]])

    def _local_holders(self, request: pb.Restore) -> dict[int, tuple[int, int]]:
        """Inode on the origin -> PID here and descriptor."""
        holders = (one.holders[0].pid for one in request.sockets)
        if strangers := sorted({pid for pid in holders if pid not in self._pids}):
            text = f"received a Restore with sockets of processes that were not restored: {strangers[:5]}"
            raise ProtocolError(text, phase="restore", role="destination")
        return {one.inode: (self._pids[one.holders[0].pid], one.holders[0].fd) for one in request.sockets}

    def _finish(self, request: pb.Restore) -> None:
        listeners = {one.inode: (dict(one.options), one.congestion) for one in request.listeners}
        stages.finish(self._icis, self._holders, listeners, same_path=self._request.same_path)

    def switch(self) -> None:
        """Answer for the service addresses; the origin has withdrawn them. What arrives now is kept."""
        self._capture.everything()
        with self._timed("switch"):
            self._switch.switch()
            self._switched = True
            self._switch.verify()
        self.watch()
        self._require_whole()
        self._guardian.check()
        self._lease.check()

    def commit(self) -> pb.Activated:
        """Let packets in and the tree run. From here on it is ours, whatever happens to the link.

        :raises MigrateError: the tree is not whole any more, or CRIU failed before it was; :meth:`settle` leaves
            nothing.
        """
        assert self._journal is not None
        self.watch()  # the last moment in which it costs a rollback and no doubt
        self._require_whole()
        self._note_state(State.COMMITTED)
        self.committed = True
        with self._timed("activate"):
            self._switch.keep()
            try:
                for stage in self._stages:
                    if stage.name == "pre-resume":
                        self._activate()
            except CriuError:
                if not self.activated:
                    raise
        assert self._built is not None
        return pb.Activated(
            destination_pid=self._pids[self._request.pids[0]],
            phases=self.phases,
            tasks=self._built.seen(),
            problems=built.not_listening(self._listening),
        )

    def _require_whole(self) -> None:
        assert self._built is not None
        self._built.require_whole()

    def _activate(self) -> None:
        """The tree is whole and stopped, and runs on even if CRIU or we die now.

        Not before: what arrives is acknowledged, and would be lost if the tree came to nothing after all.
        """
        assert self._journal is not None
        self._note_state(State.ACTIVATED)
        self.activated = True
        self._inlet.add(self._capture.take())
        self._inlet.fill(self._flows[ici.tag] for ici in self._icis if ici.state is not TcpState.ESTABLISHED)
        self._isolation.release()
        self._inlet.open()
        self._capture.nothing()
        self._inlet.add(self._capture.take())
        with contextlib.suppress(TcpcpError):  # the connections work without
            stages.wake(self._icis, self._holders)

    def gap(self, message: pb.GapPackets) -> None:
        """Take packets that arrived at the origin: for the connections when they live here, else for nobody."""
        self._inlet.add(message.packets)

    def end(self) -> list[str]:
        """Clean up after the tree has been activated; sentences: what could not be."""
        assert self._journal is not None
        self._worker.close()
        problems = undo.tidy_destination(self._journal.read())
        self._close("MOVED", problems)
        return problems

    def abort(self) -> tuple[list[str], list[str]]:
        """Undo everything; nothing of the migration is left here. What commit() began is not undone here.

        :return: what was undone and what could not be, as sentences.
        """
        if self._journal is None:
            return [], []
        if self.committed:
            raise ProtocolError("an abort after the commit", phase="abort", role="destination")
        if hasattr(self, "_worker"):
            if hasattr(self, "_stages"):
                self._stages.close()
            self._worker.close(grace_s=limits.CRIU_GIVE_UP_S)  # what it has built is killed anyway
        undone, problems = undo.roll_back(self._journal.read())
        if self._switched:
            self.caught += self._capture.take(MOST_GIVEN_BACK_BYTES)
        self._close("ROLLED_BACK", problems)
        return undone, problems

    def settle(self) -> list[str]:
        """After the commit, without the driver: leave what runs, else remove everything; say which."""
        if self.activated:
            assert self._journal is not None
            arrived.keep(self._journal.read())
            return ["the process runs on the destination", *self.end()]
        self.committed = False
        return ["the process does not run on the destination", *self.abort()[1]]

    def _close(self, outcome: str, problems: list[str]) -> None:
        """Forget the journal, or leave it to the guardian with what could not be done."""
        assert self._journal is not None
        ours, self._journal = self._journal, None
        if problems:
            note_problems(ours.directory, problems)
            ours.abandon()
            return
        ours.end(outcome)
        ours.remove()
        if hasattr(self, "_guardian"):
            self._guardian.wait_end()

    def _timed(self, phase: str) -> _Timed:
        return _Timed(self.phases, phase)


class _Timed:
    """Adds when a ``with`` block began and how long it took to *phases*, also when it fails."""

    def __init__(self, phases: list[pb.PhaseTime], name: str) -> None:
        self._phases, self._name = phases, name

    def __enter__(self) -> None:
        self._start_ns = time.monotonic_ns()

    def __exit__(self, *_: object) -> None:
        duration_ns = time.monotonic_ns() - self._start_ns
        self._phases.append(pb.PhaseTime(name=self._name, start_ns=self._start_ns, duration_ns=duration_ns))
