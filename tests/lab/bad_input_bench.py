"""What the tests of bad input share: a lab, servers in it, and what migrate says.

A server is used through a connection from the peer, opened before, which must work afterwards.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bad_input_look import holder, names
from harness.hosts import connect, in_network, listeners
from harness.left import View
from harness.migrate import Held, Ran, run_migrate
from harness.wait import eventually
from harness.workloads import WORKLOADS

from migrate.lab import Host, Lab

ODD = WORKLOADS / "odd.py"


@dataclass
class Server:
    """A server on the origin, and a connection to it from the peer.

    :ivar name: the connection as ss names it.
    """

    pid: int
    address: str
    port: int
    connection: socket.socket
    name: str

    def serves(self, connection: socket.socket | None = None) -> None:
        """Fail unless the connection, or another one, works."""
        used = connection or self.connection
        word = os.urandom(2000)
        used.sendall(word)
        got = b""
        while len(got) < len(word):
            piece = used.recv(4096)
            assert piece, "the connection was closed"
            got += piece
        assert got == word


@contextlib.contextmanager
def stopped_at(bench: InputBench, state: str, server: Server, *words: str) -> Iterator[Held]:
    """A migrate of *server* that has stopped at *state* of its machine."""
    held = Held(bench.origin, state, *words, server.pid, "destination")
    try:
        yield held
    finally:
        held.stop()


class InputBench:
    """A lab of its own, on which everything can be broken.

    :ivar pid_there: on the destination, of what was moved last: another one where its own was not free.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.origin, self.destination = lab.hosts["origin"], lab.hosts["destination"]
        self.peer = lab.hosts["peer"]
        self.service = lab.service.ipv4
        self._port, self.pid_there = 7000, 0

    def free_port(self) -> int:
        """A port that no other test uses."""
        self._port += 1
        return self._port

    # --- servers -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def program(self, host: Host, *command: str) -> Iterator[int]:
        """A program in *host*; it is killed in the end."""
        pid = host.spawn(list(command), log="/dev/null")
        try:
            yield pid
        finally:
            host.exec(["kill", "-9", str(pid)], check=False)

    @contextlib.contextmanager
    def odd(self, host: Host, where: str, *words: str, wrap: tuple[str, ...] = ()) -> Iterator[int]:
        """An odd.py in *host*, see there; it serves when this returns."""
        with self.program(host, *wrap, sys.executable, str(ODD), where, *words) as pid:
            address, _, port = where.rpartition(":")
            eventually(lambda: listeners(host, int(port)), f"odd.py on {where} {words}")
            yield pid

    @contextlib.contextmanager
    def server(
        self,
        *words: str,
        address: str = "",
        wrap: tuple[str, ...] = (),
        bound: str = "",
        protocol: int = 0,
        prepare: Callable[[socket.socket], None] = lambda _: None,
    ) -> Iterator[Server]:
        """An odd.py on the origin and a connection to it.

        :param address: what the peer connects to, the service address if "".
        :param bound: what the server is bound to, *address* if "".
        :param wrap: a program that starts the server, e.g. unshare.
        """
        port, address = self.free_port(), address or self.service
        with (
            self.odd(self.origin, f"{bound or address}:{port}", *words, wrap=wrap),
            self.connect(address, port, protocol=protocol, prepare=prepare) as connection,
        ):
            pid = holder(self.origin, port)
            peer_address, peer_port = connection.getsockname()
            name = f"{address}:{port} - {peer_address}:{peer_port}"
            server = Server(pid, address, port, connection, name)
            server.serves()
            try:
                yield server
            finally:
                if wrap:
                    self.origin.exec(["kill", "-9", str(pid)], check=False)

    def connect(
        self,
        address: str,
        port: int,
        *,
        host: Host | None = None,
        protocol: int = 0,
        prepare: Callable[[socket.socket], None] = lambda _: None,
    ) -> socket.socket:
        """A connection from the peer, or from *host*."""

        return connect(host or self.peer, address, port, protocol=protocol, prepare=prepare)

    @contextlib.contextmanager
    def address(self, host: Host, address: str, device: str = "eth0") -> Iterator[None]:
        """One more address on *host*."""
        words = [address if "/" in address else f"{address}/24", "dev", device]
        host.exec(["ip", "addr", "add", *words])
        try:
            yield
        finally:
            host.exec(["ip", "addr", "del", *words], check=False)

    # --- files -------------------------------------------------------------------------------------------

    @staticmethod
    def write(host: Host, path: str, text: str) -> None:
        """Make a file on *host*."""
        file = host.root / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    @staticmethod
    def read(host: Host, path: str) -> str:
        """The content of a file on *host*."""
        return (host.root / path[1:]).read_text()

    @staticmethod
    def names(host: Host, path: str) -> set[str]:
        """What is in a directory on *host*."""
        return set(names(host.root / path[1:]))

    @contextlib.contextmanager
    def written(self, host: Host, path: str, text: str) -> Iterator[None]:
        """A file on *host* for a while."""
        self.write(host, path, text)
        try:
            yield
        finally:
            (host.root / path[1:]).unlink()

    # --- waiting -----------------------------------------------------------------------------------------

    @staticmethod
    def wait_for_program(host: Host, pid: int, name: str) -> None:
        """Wait until process *pid* of *host* executes *name*."""
        process = Path(f"/proc/{host.host_pid(pid)}/cmdline")
        eventually(lambda: name.encode() in process.read_bytes(), f"{name} as PID {pid}")

    def wait_for_tracer(self, server: Server, tracer: int) -> None:
        """Wait until *server* is traced."""
        status = Path(f"/proc/{self.origin.host_pid(server.pid)}/status")
        eventually(lambda: "TracerPid:\t0\n" not in status.read_text(), f"traced by {tracer}")

    def wait_for_no_connection(self, server: Server) -> None:
        """Wait until nobody is connected to *server*."""
        command = ["ss", "-Htn", "state", "connected", f"sport = :{server.port}"]
        shown = lambda: subprocess.run(command, capture_output=True, text=True).stdout  # noqa: E731
        eventually(lambda: not in_network(self.origin, shown), "no connection")

    # --- migrate -----------------------------------------------------------------------------------------

    def migrate(self, *words: object, wrap: tuple[str, ...] = ()) -> Ran:
        """Run migrate on the origin to its end."""
        return run_migrate(self.origin, *words, program=[*wrap, "migrate"])

    def refused(
        self,
        server: Server,
        *words: object,
        host: str = "destination",
        status: int = 3,
        wrap: tuple[str, ...] = (),
    ) -> Ran:
        """Try to move *server*; it must be refused, serve as before, and leave nothing anywhere."""
        with self.nothing_left():
            found = self.migrate(server.pid, host, *words, wrap=wrap)
            for line in found.said:
                print(line)
            assert found.status == status, found
            outcome = {3: "UNTOUCHED", 4: "ROLLED_BACK"}[status]
            assert (found.report["outcome"], found.report["exit_status"]) == (outcome, status)
            assert all(one["remedy"] and one["role"] for one in found.report["reasons"])
            server.serves()
        return found

    def moved(
        self,
        server: Server,
        *words: object,
        then: Callable[[], None] = lambda: None,
        addresses: tuple[str, ...] = (),
    ) -> Ran:
        """Move *server*, which must serve its connection there; then end it, and put the addresses back.

        :param then: called while it runs there, as :attr:`pid_there`.
        :param addresses: that move, beside the server's.
        """
        found = self.migrate(server.pid, "destination", *words)
        moving = (server.address, *addresses)
        try:
            assert (found.status, found.report["outcome"]) == (0, "MOVED"), found
            server.serves()
            self.pid_there = found.report["destination_pid"]
            then()
        finally:
            self.end_there(found, *moving)
        return found

    def end_there(self, found: Ran, *moving: str) -> None:
        """End the process that was moved, and put the addresses back that moved with it."""
        self.destination.exec(["kill", "-9", str(found.report["destination_pid"])], check=False)
        for address in moving:
            self.destination.exec(["ip", "addr", "del", f"{address}/24", "dev", "eth0"], check=False)
            self.origin.exec(["ip", "addr", "replace", f"{address}/24", "dev", "eth0"])
        self.lab.hosts["gateway"].exec(["ip", "neigh", "flush", "dev", "eth0"])

    @contextlib.contextmanager
    def nothing_left(self) -> Iterator[None]:
        """Afterwards both hosts are as they were."""
        hosts = (self.origin, self.destination)
        before = [View(host) for host in hosts]
        yield
        found: list[str] = []

        def is_as_before() -> bool:
            pairs = zip(hosts, before, strict=True)
            found[:] = [f"{host.name}: {line}" for host, old in pairs for line in View(host).changes(old)]
            return not found

        eventually(is_as_before, lambda: str(found))
