"""One session with the destination: connect, start the agent, compare the hosts, check everything.

Nothing is touched on either host; leaving the session ends the agent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from migrate import checks, inventory, limits, place, switch
from migrate.checks import around, names
from migrate.errors import ProtocolError, Reason, Refused, SwitchError, TransportError
from migrate.inventory import beside, ports
from migrate.journal.reach import Reach, boot_id
from migrate.link import message_checks
from migrate.link.frames import PROTOCOL
from migrate.link.link import Link
from migrate.origin import patience
from migrate.origin.carried_files import CarriedFiles
from migrate.pb import session_pb2 as pb
from migrate.pb.manifest_pb2 import Manifest
from migrate.processes import surroundings
from migrate.recovery import settle
from migrate.report.observer import Observer
from migrate.report.report import Timeline
from migrate.request import Request
from migrate.ssh import connect
from migrate.watch import Watch
from tcpcp.criu import stages
from tcpcp.version import VERSION

#: How fast files are read at the least, to be compared.
READ_BYTES_S = 20 << 20
#: Packets to the peers take the same path from both hosts, which are on the service address's network: the
#: checks made sure.
SAME_PATH = True


@dataclass(slots=True)
class Plan:
    """What the checks found out and the steps need.

    :ivar copy: files to copy before the freeze.
    :ivar notes: what the user should know although it is no reason to refuse.
    """

    process: pb.ProcessInventory
    prepare: pb.Prepare
    addresses: list[switch.Address]
    copy: list[pb.File] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def restore_message(
    manifest: Manifest, extract: stages.Extract, tasks: list[pb.TaskState], most_s: float
) -> pb.Restore:
    """What the destination needs beside the images.

    :param tasks: those that were frozen, the root first.
    :param most_s: how long it may take to build the tree.
    """
    return pb.Restore(
        most_ms=int(most_s * 1000),
        manifest=manifest,
        tasks=tasks,
        closed=extract.closed,
        sockets=[
            pb.HeldSocket(inode=one.inode, holders=[pb.Descriptor(pid=pid, fd=fd) for pid, fd in one.holders])
            for one in extract.held
        ],
        listeners=[
            pb.SocketOptions(inode=one.inode, options=one.options, congestion=one.congestion)
            for one in extract.listeners
        ],
    )


class Session:
    """A context manager.

    :ivar link: messages to and from the agent, after ``__enter__``.
    :ivar files: the tree's files, of which the destination needs some.
    :ivar migration_id: the name of this migration on both hosts.
    :ivar reach: how the destination was reached, after ``__enter__``.
    :ivar watch: what the link and others that wait look at meanwhile.
    """

    def __init__(self, request: Request, observer: Observer, timeline: Timeline) -> None:
        self._request, self._observer, self._timeline = request, observer, timeline
        self.migration_id = place.new_id()
        self.watch = Watch()
        self.files = CarriedFiles(
            self._ask_about_files,
            self._send_copy,
            copying=request.copy_files,
            trees=request.copy_trees,
            checkpoint=self.watch,
        )

    def __enter__(self) -> Session:
        if os.geteuid() != 0:
            raise Refused([Reason("not-root", "origin", "migrate needs root", "Run it as root.")])
        settle.clear_the_way(self._request.pid, self._observer.note)
        with self._phase("connect"):
            self._connect()
        return self

    def _connect(self) -> None:
        request = self._request
        self._connection = connect.connect(request.host, port=request.port, identity=request.identity)
        try:
            stream = self._connection.start_agent(request.agent)
            self.link = Link(stream, role="destination", explain=stream.explain, checkpoint=self.watch)
            self.link.send(self._hello())
            self._same_version(greeting := self._greeting())
            sudo = self._connection.config.user != "root"
            self.reach = Reach.of(request, sudo=sudo, boot_id=greeting.boot_id)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _greeting(self) -> pb.Hello:
        """The agent's first message; what else may come instead has nothing to do with migrate."""
        agent, host = self._request.agent, self._request.host
        start_s = min(limits.AGENT_START_S, self._request.timeout_s)
        try:
            return self.link.expect(pb.Hello, timeout_s=start_s)
        except ProtocolError as error:
            raise ProtocolError(
                f"what starts there as {agent} is not migrate-agent: {error}",
                phase="connect",
                role="destination",
                hint=f"`ssh {host} {agent} --version` must print a version and nothing else. Look at --agent, and"
                " for an echo in the shell's start-up files there (~/.bashrc).",
            ) from error
        except TransportError as error:
            if error.phase != "session":  # it says why the agent has ended
                raise
            late = self.link.error is None
            raise TransportError(
                f"{agent} was started there and did not say hello within {start_s:g} s"
                if late
                else f"{agent} was started there and does not answer: {error}",
                phase="connect",
                role="destination",
                hint=f"Look whether `ssh {host} {agent} --version` prints a version, and how long that takes.",
            ) from error

    @staticmethod
    def _same_version(answer: pb.Hello) -> None:
        if (answer.protocol, answer.version) != (PROTOCOL, VERSION):
            its, ours = (
                f"{v} (protocol {p})" for v, p in ((answer.version, answer.protocol), (VERSION, PROTOCOL))
            )
            text = f"its migrate-agent is version {its}, this migrate is {ours}"
            raise Refused([Reason("version", "destination", text, "Install the same version on both hosts.")])

    def _hello(self) -> pb.Hello:
        hostname = os.uname().nodename
        return pb.Hello(
            protocol=PROTOCOL,
            version=VERSION,
            migration_id=self.migration_id,
            hostname=hostname,
            boot_id=boot_id(),
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "link"):
            self.link.close()
        self._connection.close()

    def check(self) -> Plan:
        """Look at the process and both hosts.

        :raises Refused: with all reasons.
        """
        with self._phase("check"):
            process = inventory.process(self._request.pid)
            process.service_addresses.extend(self._request.addresses)
            process.service_addresses[:] = ports.service_addresses(process)
            beside.add(process, self._request.copy_trees, copying=self._request.copy_files)
            self.link.send(process)
            here = inventory.host([self._connection.local_address], process)
            there = self.link.expect(pb.HostInventory, timeout_s=limits.ANSWER_S)
            message_checks.check(there)
            there.ssh_addresses.append(self._connection.peer_address)
            self.files.compare(process, there)
            options = checks.Options(
                switch=self._request.switch,
                no_address=self._request.no_address,
                copy_files=self._request.copy_files,
                trees=self._request.copy_trees,
                shell_job=self._request.shell_job,
                leave_supervisor=self._request.leave_supervisor,
                new_pid_namespace_possible=True,
            )
            plan = self._plan(process, here, there)
            reasons = checks.refusals(process, here, there, options, self._needed(plan.addresses))
            if reasons:
                raise Refused(reasons)
            plan.notes += checks.notes_on_files(process, there, options)
            return plan

    def _needed(self, addresses: list[switch.Address]) -> dict[str, tuple[str, str]]:
        """Which of *addresses* this host cannot do without: why, and what to do."""
        found = {}
        for one in addresses:
            try:
                switch.make(self._request.switch, "origin", self.migration_id, [one]).choose()
            except SwitchError as error:
                found[one.ip] = (str(error), error.hint)
        return found

    def _plan(self, process: pb.ProcessInventory, here: pb.HostInventory, there: pb.HostInventory) -> Plan:
        placed = {}
        for interface in here.interfaces:
            for text in interface.addresses:
                ip, _, length = text.partition("/")
                placed[ip] = switch.Address(ip, int(length), interface.name)
        addresses = [placed[ip] for ip in process.service_addresses if ip in placed]
        prepare = pb.Prepare(
            switch_kind=self._request.switch,
            addresses=[
                pb.ServiceAddress(address=one.ip, prefix_length=one.prefix_length, device=one.device)
                for one in addresses
            ],
            shell_job=self._request.shell_job,
            new_pid_namespace=around.needs_new_pids(process, there),
            pids=[task.pid for task in process.tasks],
            tids=[tid for task in process.tasks for tid in task.tids],
            timeout_s=int(self._request.timeout_s),
            same_path=SAME_PATH,
            personality=surroundings.personality(process.root_pid),
            connections=sum(1 for one in process.sockets if one.peer_port),
            unix_sockets=[one for one in process.names if one.kind == pb.TakenName.PATH],
        )
        trees = self._request.copy_trees
        copy = checks.files_to_copy(process, there, trees) if self._request.copy_files else []
        notes = checks.notes(process) + names.notes(process) + around.notes(process)
        notes += around.notes_on_pids(process, there)
        if self._request.check:
            notes.append(patience.in_words(self._request.max_gap_s))
        return Plan(process, prepare, addresses, copy=copy, notes=notes)

    def _ask_about_files(self, question: pb.Compare, meanwhile: Callable[[], None]) -> pb.Compared:
        self.link.send(question)
        meanwhile()
        reading_s = sum(file.size_bytes for file in question.files) / READ_BYTES_S
        return self.link.expect(pb.Compared, timeout_s=limits.ANSWER_S + reading_s)

    def _send_copy(self, chunk: pb.FileChunk) -> None:
        self.link.send(chunk, kind="copy", timeout_s=self._request.timeout_s)

    def _phase(self, name: str) -> _Phase:
        return _Phase(name, self._observer, self._timeline)


class _Phase:
    """Tells observer and timeline about a ``with`` block."""

    def __init__(self, name: str, observer: Observer, timeline: Timeline) -> None:
        self._name, self._observer, self._timeline = name, observer, timeline

    def __enter__(self) -> None:
        self._observer.phase_begin(self._name, "origin")
        self._timeline.begin(self._name)

    def __exit__(self, kind: object, *_: object) -> None:
        self._timeline.end(self._name)
        if kind is None:
            self._observer.phase_end(self._name)
