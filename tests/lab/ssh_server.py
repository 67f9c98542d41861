"""A real sshd on the loopback device, with keys, known_hosts and configuration of the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.wait import eventually

from migrate.errors import TransportError
from migrate.link.link import Link
from migrate.pb.session_pb2 import Hello
from migrate.ssh import connect as ssh
from migrate.ssh.agent_stream import AgentStream

DEADLINE_S = 20.0


def keygen(path: Path, *options: str) -> None:
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path), *options]
    subprocess.run(words, check=True, timeout=DEADLINE_S)


class Server:
    """An sshd on 127.0.0.1 that lets root in by the keys in ``authorized``, and a home that can use it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.ssh = self.home / ".ssh"
        self.bin = directory / "bin"
        for made in (self.ssh, self.bin, directory / "etc"):
            made.mkdir(parents=True)
        keygen(directory / "host_key")
        keygen(self.ssh / "id_ed25519")
        self.authorized = directory / "authorized"
        shutil.copy(self.ssh / "id_ed25519.pub", self.authorized)
        self.port = free_port()
        self.known_hosts = self.ssh / "known_hosts"
        self.know(self.directory / "host_key.pub")
        self.process = self._start()

    def know(self, public: Path) -> None:
        kind, blob = public.read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {blob}\n")

    def program(self, name: str, text: str) -> str:
        """Write a shell script that can be an agent; return its path."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def connect(self, host: str = "root@127.0.0.1", **options: object) -> ssh.Connection:
        if host.endswith("127.0.0.1"):
            options.setdefault("port", self.port)
        return ssh.connect(host, home=self.home, **options)  # type: ignore[arg-type]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE_S)

    def restart(self, *lines: str) -> None:
        """Start it again, with *lines* in its configuration."""
        self.stop()
        self.process = self._start(*lines)

    def _start(self, *lines: str) -> subprocess.Popen[bytes]:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.directory / "sshd_config"
        config.write_text(
            f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {self.directory}/host_key
AuthorizedKeysFile {self.authorized}
PidFile none
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
SetEnv PATH={self.bin}:{os.environ["PATH"]}
"""
        )
        with config.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        with (self.directory / "log").open("wb") as log:
            sshd = shutil.which("sshd") or ""
            process = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=log)
        eventually(lambda: listens(self.port), f"it listens on {self.port}")
        return process


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def refused(server: Server, host: str = "root@127.0.0.1", **options: object) -> TransportError:
    with pytest.raises(TransportError) as caught:
        server.connect(host, **options)
    assert (caught.value.problem.phase, caught.value.problem.host) == ("connect", "destination")
    assert caught.value.problem.hint
    return caught.value


def ended(stream: AgentStream) -> TransportError:
    """What a link says whose agent ended."""
    link = Link(stream, explain=stream.explain)
    with pytest.raises(TransportError) as caught:
        link.expect(Hello, timeout_s=DEADLINE_S)
    link.close()
    return caught.value


def public_of(server: Server) -> str:
    return " ".join((server.directory / "host_key.pub").read_text().split()[:2])


@contextlib.contextmanager
def ssh_agent(sock: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
    eventually(sock.exists, "the agent listens")
    yield
    process.terminate()
    process.wait(DEADLINE_S)
