"""What the tests of bad input share: a lab, servers in it, and what migrate says.

A server is used through a connection from the peer, opened before, which must work afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bad_input_look import DEADLINE_S, changes, holder, in_network, listens, names, traces, wait_until

from migrate.lab import Host, Lab

ODD = Path(__file__).resolve().parents[1] / "workloads" / "odd.py"


@dataclass
class Answer:
    """How a run of migrate ended.

    :ivar report: the last of its JSON lines.
    """

    status: int
    events: list[dict[str, Any]]
    errors: str
    seconds: float

    @property
    def report(self) -> dict[str, Any]:
        """The report."""
        return self.events[-1]

    @property
    def said(self) -> list[str]:
        """What it says to the operator."""
        found = [f"{one['role']}: {one['text']} -> {one['remedy']}" for one in self.report["reasons"]]
        error = self.report["error"]
        if error and not found:
            found = [f"{error['role']}: {error['phase']}: {error['message']} -> {error['hint']}"]
        return found + self.report["notes"]

    @property
    def codes(self) -> set[tuple[str, str]]:
        """The reasons, as code and host."""
        return {(one["code"], one["role"]) for one in self.report["reasons"]}

    def must_say(self, role: str, *words: str) -> None:
        """One sentence about the host *role* has all of *words*, and says what to do."""
        fitting = [one for one in self.said if one.startswith(f"{role}: ") and all(w in one for w in words)]
        assert fitting, f"nothing about {role} with {words} in {self.said}"
        assert len(fitting[0].partition(" -> ")[2]) > 10, f"no remedy: {fitting[0]}"


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


class Running:
    """A migrate that runs, and stops where it was told to."""

    def __init__(self, bench: Bench, state: str, server: Server, *words: str) -> None:
        self._bench = bench
        command = ["migrate", "--json", "--stop-at", state, *words, str(server.pid), "destination"]
        self._process = bench.origin.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._lines: list[str] = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            if f"stopped at {state}" in line:
                return
        raise AssertionError(self._lines)

    def go(self) -> None:
        """Let it go on."""
        for name in names(self._bench.origin.root / "run/migrate"):
            directory = self._bench.origin.root / "run/migrate" / name
            if (directory / "journal").exists():
                (directory / "go").touch()

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def answer(self) -> Answer:
        """Wait for its end."""
        output, errors = self._process.communicate(timeout=60)
        return answer(self._process.returncode, "".join(self._lines) + output, errors)

    def end(self) -> None:
        """Nothing of it runs afterwards."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.communicate(timeout=60)


@contextlib.contextmanager
def stopped_at(bench: Bench, state: str, server: Server, *words: str) -> Iterator[Running]:
    """A migrate that has stopped at *state* of its machine."""
    run = Running(bench, state, server, *words)
    try:
        yield run
    finally:
        run.end()


class Bench:
    """A lab of its own, on which everything can be broken."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.origin, self.destination = lab.hosts["origin"], lab.hosts["destination"]
        self.peer = lab.hosts["peer"]
        self.service = lab.service.ipv4
        self._port = 7000

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
            wait_until(lambda: listens(host, int(port)), f"odd.py on {where} {words}")
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

        def run() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
            sock.settimeout(DEADLINE_S)
            prepare(sock)
            sock.connect((address, port))
            return sock

        return in_network(host or self.peer, run)

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
        wait_until(lambda: name.encode() in process.read_bytes(), f"{name} as PID {pid}")

    def wait_for_tracer(self, server: Server, tracer: int) -> None:
        """Wait until *server* is traced."""
        status = Path(f"/proc/{self.origin.host_pid(server.pid)}/status")
        wait_until(lambda: "TracerPid:\t0\n" not in status.read_text(), f"traced by {tracer}")

    def wait_for_no_connection(self, server: Server) -> None:
        """Wait until nobody is connected to *server*."""
        command = ["ss", "-Htn", "state", "connected", f"sport = :{server.port}"]
        shown = lambda: subprocess.run(command, capture_output=True, text=True).stdout  # noqa: E731
        wait_until(lambda: not in_network(self.origin, shown), "no connection")

    # --- migrate -----------------------------------------------------------------------------------------

    def migrate(self, *words: object, wrap: tuple[str, ...] = ()) -> Answer:
        """Run migrate on the origin to its end."""
        began = time.monotonic()
        command = [*wrap, "migrate", "--json", *map(str, words)]
        done = self.origin.exec(command, check=False, timeout=60)
        return answer(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def refused(
        self,
        server: Server,
        *words: object,
        host: str = "destination",
        status: int = 3,
        wrap: tuple[str, ...] = (),
    ) -> Answer:
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
    ) -> Answer:
        """Move *server*, which must serve its connection there; then end it, and put the addresses back.

        :param then: called while it runs there.
        :param addresses: that move, beside the server's.
        """
        found = self.migrate(server.pid, "destination", *words)
        moving = (server.address, *addresses)
        try:
            assert (found.status, found.report["outcome"]) == (0, "MOVED"), found
            server.serves()
            then()
        finally:
            self.end_there(found, *moving)
        return found

    def end_there(self, found: Answer, *moving: str) -> None:
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
        before = [traces(host) for host in hosts]
        yield
        deadline = time.monotonic() + DEADLINE_S
        while (after := [traces(host) for host in hosts]) != before and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        found = [changes(*pair) for pair in zip(before, after, strict=True)]
        assert found == [[], []], found


def answer(status: int, output: str, errors: str, seconds: float = 0.0) -> Answer:
    """The answer in the output of a run: lines of JSON, the last one the report, and no traceback."""
    assert "Traceback" not in output + errors, output + errors
    events = [json.loads(line) for line in output.splitlines()]
    assert events and events[-1]["event"] == "report", errors
    assert not any(event["event"] == "report" for event in events[:-1])
    return Answer(status, events, errors, seconds)
