"""One end of a connection passing, told what to do line by line; the peer of the connections is the test.

``passer.py`` reads commands from its standard input, one JSON object a line with the command's name as
``do``, and answers each with one: the result, or ``{"error": ...}``. Connections are numbered from 0. Two
passers, on origin and destination, hand ICIs to each other over a TCP connection of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import sys
import threading
import time
from typing import Any

import tcpcp

CHUNK_BYTES = 1 << 20
DEADLINE_S = float(os.environ.get("PASSER_DEADLINE_S", "20"))


def content(name: str, size_bytes: int) -> bytes:
    """What is sent under that name; the test knows it too."""
    return random.Random(name).randbytes(size_bytes)


class Passer:
    """The commands are the methods."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        self.listener: socket.socket | None = None

    def listen(self, address: str, port: int, mapped: bool = False, congestion: str = "") -> None:
        """Listen for peers; *mapped*: by an AF_INET6 socket at an IPv4 address."""
        ipv6 = mapped or ":" in address
        self.listener = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if congestion:
            self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        self.listener.bind((f"::ffff:{address}" if mapped else address, port))
        self.listener.listen(100)

    def accept(self) -> int:
        """Accept a peer; its number."""
        assert self.listener is not None
        self.listener.settimeout(DEADLINE_S)
        made, _ = self.listener.accept()
        made.setblocking(False)
        self.connections.append(made)
        return len(self.connections) - 1

    def send(self, number: int, name: str, size_bytes: int) -> int:
        """Write until all of it, or no more, is taken by the kernel; how much was."""
        view = memoryview(content(name, size_bytes))
        done = 0
        try:
            while done < size_bytes:
                done += self.connections[number].send(view[done : done + CHUNK_BYTES])
        except BlockingIOError:
            pass
        return done

    def shut(self, number: int) -> None:
        """Send our FIN."""
        self.connections[number].shutdown(socket.SHUT_WR)

    def option(self, number: int, level: int, name: int, value: int) -> None:
        """Set a socket option."""
        self.connections[number].setsockopt(level, name, value)

    def hand(self, address: str, port: int) -> dict[str, Any]:
        """Get all connections and give them to the passer at *address*; they stay here, isolated."""
        bounds = [tcpcp.size(one) for one in self.connections]
        icis = tcpcp.get_many(self.connections)
        isolated_at_s = time.time()
        images = [tcpcp.dumps(ici) for ici in icis]
        assert all(len(image) <= bound for image, bound in zip(images, bounds, strict=True))
        with socket.create_connection((address, port), DEADLINE_S) as other:
            other.sendall(b"".join(len(image).to_bytes(4, "big") + image for image in images))
            other.shutdown(socket.SHUT_WR)
            assert other.recv(10) == b"built"
        return {
            "sizes": [len(image) for image in images],
            "states": [ici.state.name for ici in icis],
            "isolated_at_s": isolated_at_s,
        }

    def take(
        self,
        port: int,
        same_path: bool = False,
        address: str | None = None,
        any_port: bool = False,
        bind: list[Any] | None = None,
    ) -> list[int]:
        """Take connections from a passer and build them; answers at once that it is ready to.

        :param address: another local address, :param any_port: any free port.
        :param bind: address and port to bind the socket of each connection to beforehand.
        :return: their local ports.
        """
        listener = socket.create_server(("", port))
        say("ready")
        listener.settimeout(DEADLINE_S)
        other, _ = listener.accept()
        listener.close()
        with other, other.makefile("rb") as file:
            data = file.read()
            icis = [ici.at(address, 0 if any_port else None) for ici in _icis(data)]
            bound = [_bound(*bind) if bind else None for _ in icis]
            self.connections = tcpcp.create_many(icis, socks=bound, same_path=same_path)
            other.sendall(b"built")
        for one in self.connections:
            one.setblocking(False)
        return [one.getsockname()[1] for one in self.connections]

    def activate(self) -> None:
        """Let all connections run."""
        tcpcp.activate_many(self.connections)

    def release(self) -> None:
        """Drop all connections without a word."""
        tcpcp.release_many(self.connections)
        self.connections = []
        if self.listener is not None:
            self.listener.close()

    def finish(self, more_bytes: int, mute: list[int]) -> list[dict[str, Any]]:
        """Send *more_bytes* on each connection and close it, but on those in *mute*; read all to the end."""
        results: list[dict[str, Any]] = [{} for _ in self.connections]
        threads = [
            threading.Thread(target=self._finish, args=(number, 0 if number in mute else more_bytes, result))
            for number, result in enumerate(results)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def _finish(self, number: int, more_bytes: int, result: dict[str, Any]) -> None:
        one = self.connections[number]
        one.settimeout(DEADLINE_S)
        sender = threading.Thread(target=self._send_rest, args=(one, number, more_bytes, result))
        sender.start()
        digest = hashlib.sha256()
        result["received"] = 0
        try:
            while data := one.recv(CHUNK_BYTES):
                digest.update(data)
                result["received"] += len(data)
        except OSError as error:
            result["error"] = str(error)
        sender.join()
        result["digest"] = digest.hexdigest()
        one.close()

    @staticmethod
    def _send_rest(one: socket.socket, number: int, more_bytes: int, result: dict[str, Any]) -> None:
        try:
            if more_bytes:
                one.sendall(content(f"more {number}", more_bytes))
                one.shutdown(socket.SHUT_WR)
        except OSError as error:
            result["error"] = str(error)


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.bind((address, port))
    return made


def _icis(data: bytes) -> list[tcpcp.Ici]:
    found = []
    while data:
        length = int.from_bytes(data[:4], "big")
        found.append(tcpcp.loads(data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def say(result: object) -> None:
    """Answer."""
    print(json.dumps(result), flush=True)


def main() -> None:
    passer = Passer()
    for line in sys.stdin:
        words = json.loads(line)
        try:
            say(getattr(passer, words.pop("do"))(**words))
        except Exception as error:
            say({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
