"""Throw-away network namespaces for tests, joined by a veth pair. Nothing is left on the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import TypeVar

from harness import wait

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Namespace:
    """A network namespace, alive as long as this object is open."""

    def __init__(self) -> None:
        with _staying():
            _check(_libc.unshare(CLONE_NEWNET))
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            ip("link set lo up")

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is inside while the block runs; sockets made there stay there."""
        with _staying():
            _check(_libc.setns(self.fd, CLONE_NEWNET))
            yield

    def close(self) -> None:
        os.close(self.fd)


@contextlib.contextmanager
def _staying() -> Iterator[None]:
    """The calling thread is back in its namespace afterwards, whatever happens."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        yield
    finally:
        _check(_libc.setns(home, CLONE_NEWNET))
        os.close(home)


def ip(arguments: str) -> str:
    """The `ip` program, in the calling thread's namespace."""
    return subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True).stdout


class Hosts:
    """Two hosts: *here*, whose endpoint is passed, and *there*, the peer.

    here 10.9.0.1 fd09::1 ---- veth ---- there 10.9.0.2 fd09::2
    """

    here_ip = {4: "10.9.0.1", 6: "fd09::1"}
    there_ip = {4: "10.9.0.2", 6: "fd09::2"}

    def __init__(self) -> None:
        self.here, self.there = Namespace(), Namespace()
        with self.here.entered():
            ip(f"link add here0 type veth peer name there0 netns {self.there.path}")
            self._address("here0", self.here_ip)
        with self.there.entered():
            self._address("there0", self.there_ip)

    @staticmethod
    def _address(device: str, addresses: dict[int, str]) -> None:
        ip(f"link set {device} up")
        ip(f"addr add {addresses[4]}/24 dev {device}")
        ip(f"addr add {addresses[6]}/64 dev {device} nodad")

    def close(self) -> None:
        """Let go of both; the kernel takes them, and the devices in them, apart when the last socket is gone.

        To delete a device by hand waits for every packet that still refers to it, for minutes at times.
        """
        for namespace in (self.here, self.there):
            namespace.close()

    def connect(
        self, kind: str = "v4", *, setup: Callable[[socket.socket], None] | None = None
    ) -> tuple[socket.socket, socket.socket]:
        """A connection: our end and the peer's. *kind* is v4, v6 or mapped (an AF_INET6 socket, here)."""
        version = 6 if kind == "v6" else 4
        family = socket.AF_INET if kind == "v4" else socket.AF_INET6
        there_family = socket.AF_INET6 if kind == "v6" else socket.AF_INET
        with self.here.entered():
            listener = socket.socket(family)
            if setup:
                setup(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            prefix = "::ffff:" if kind == "mapped" else ""
            listener.bind((prefix + self.here_ip[version], 0))
            listener.listen()
        with self.there.entered():
            peer = socket.socket(there_family)
        peer.connect((self.here_ip[version], listener.getsockname()[1]))
        sock, _ = listener.accept()
        listener.close()
        return sock, peer

    def counters(self, namespace: Namespace) -> dict[str, int]:
        """nstat's absolute counters of one side."""
        with namespace.entered():
            text = subprocess.run(["nstat", "-asz"], check=True, capture_output=True, text=True).stdout
        rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
        return {row[0]: int(row[1]) for row in rows}

    def ss(self, namespace: Namespace, arguments: str = "-tinHa") -> str:
        with namespace.entered():
            command = ["ss", *arguments.split()]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def eventually(condition: Callable[[], T], what: str, seconds: float = 5.0) -> T:
    """As the waiter of all tests, in less time: what takes longer has needed a timer of TCP's."""
    return wait.eventually(condition, what, seconds, pause_s=0.002)
