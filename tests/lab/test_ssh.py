"""Connections to real sshds on the loopback device, with keys, known_hosts and configuration of the test."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate import ssh, ssh_config
from migrate.agent_stream import AgentStream
from migrate.errors import ProtocolError, TransportError
from migrate.link import Link
from migrate.pb.session_pb2 import FileChunk, Hello

DEADLINE_S = 20.0
THROUGHPUT_BYTES = 128 << 20
THROUGHPUT_MB_S = 25

pytestmark = pytest.mark.skipif(shutil.which("sshd") is None, reason="no sshd installed")


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

    def _start(self) -> subprocess.Popen[bytes]:
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
        with (self.directory / "log").open("wb") as log:
            sshd = shutil.which("sshd") or ""
            process = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=log)
        wait_listening(self.port)
        return process


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_listening(port: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"nothing listens on {port}")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(ssh_config, "SYSTEM", tmp_path / "etc")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    server = Server(tmp_path)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def nothing_left(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No thread outlives a test, and nothing is printed by a library."""
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name != "within"]
    assert left == []
    assert "Traceback" not in capfd.readouterr().err


def refused(server: Server, host: str = "root@127.0.0.1", **options: object) -> TransportError:
    with pytest.raises(TransportError) as caught:
        server.connect(host, **options)
    assert (caught.value.phase, caught.value.role) == ("connect", "destination")
    assert caught.value.hint
    return caught.value


def ended(stream: AgentStream) -> TransportError:
    """What a link says whose agent ended."""
    link = Link(stream, explain=stream.explain)
    with pytest.raises(TransportError) as caught:
        link.expect(Hello, timeout_s=DEADLINE_S)
    link.close()
    return caught.value


def test_bytes_both_ways_and_a_clean_end(server: Server) -> None:
    with server.connect() as connection:
        assert (connection.local_address, connection.peer_address) == ("127.0.0.1", "127.0.0.1")
        stream = connection.start_agent("cat")
        link = Link(stream)
        link.send(Hello(version="echo"))
        assert link.expect(Hello, timeout_s=DEADLINE_S).version == "echo"
        link.close()
        assert not link.lost.is_set()


def test_the_last_message_arrives_when_the_link_is_closed(server: Server) -> None:
    target = server.directory / "said"
    with server.connect() as connection:
        link = Link(
            connection.start_agent(server.program("keep", f"cat >{target}.new; mv {target}.new {target}"))
        )
        for i in range(50):
            link.send(Hello(protocol=i, version="x" * 1000))
        link.close()
    assert target.stat().st_size > 50_000


def test_does_not_resolve(server: Server) -> None:
    error = refused(server, "no-such-host.invalid")
    assert "no-such-host.invalid does not resolve" in str(error)


def test_refuses(server: Server) -> None:
    error = refused(server, port=free_port())
    assert "refuses the connection" in str(error)
    assert "sshd" in error.hint


def test_silent_server_times_out(server: Server) -> None:
    (server.ssh / "config").write_text("ConnectTimeout 1\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        error = refused(server, port=silent.getsockname()[1])
    assert "SSH handshake" in str(error)
    assert time.monotonic() - began < 5


def test_not_an_ssh_server(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            client, _ = other.accept()
            client.sendall(b"220 mail ready\r\n" * 200)
            client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        error = refused(server, port=other.getsockname()[1])
        thread.join(DEADLINE_S)
    assert "SSH handshake" in str(error)


def test_unknown_key_is_refused_with_the_command_that_adds_it(server: Server) -> None:
    server.known_hosts.unlink()
    error = refused(server)
    assert f"the host key of [127.0.0.1]:{server.port} is unknown" in str(error)
    listed = subprocess.run(
        ["ssh-keygen", "-lf", str(server.directory / "host_key.pub")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.split()[1] in str(error)
    assert not server.known_hosts.exists()
    command = next(part for part in error.hint.split("`") if part.startswith("ssh-keyscan"))
    subprocess.run(["sh", "-c", command], check=True, timeout=DEADLINE_S, stderr=subprocess.DEVNULL)
    server.connect().close()


def test_changed_key_is_refused_distinctly(server: Server) -> None:
    keygen(server.directory / "other")
    server.know(server.directory / "other.pub")
    error = refused(server)
    assert "has changed" in str(error)
    assert f"{server.known_hosts}:1" in str(error)
    command = next(part for part in error.hint.split("`") if part.startswith("ssh-keygen"))
    subprocess.run(["sh", "-c", command], check=True, timeout=DEADLINE_S, capture_output=True)
    assert "is unknown" in str(refused(server))


def test_lax_configuration_does_not_weaken_the_check(server: Server) -> None:
    (server.ssh / "config").write_text("StrictHostKeyChecking no\n")
    server.known_hosts.unlink()
    assert "is unknown" in str(refused(server))


def test_revoked_key(server: Server) -> None:
    server.known_hosts.write_text(server.known_hosts.read_text() + "@revoked * " + public_of(server) + "\n")
    assert "is revoked" in str(refused(server))


def public_of(server: Server) -> str:
    return " ".join((server.directory / "host_key.pub").read_text().split()[:2])


def test_hashed_names(server: Server) -> None:
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(server.known_hosts)], check=True, capture_output=True)
    assert "127.0.0.1" not in server.known_hosts.read_text()
    server.connect().close()


def test_wrong_key_says_which_were_tried(server: Server) -> None:
    keygen(server.directory / "stranger")
    shutil.copy(server.directory / "stranger.pub", server.authorized)
    error = refused(server)
    assert f"{server.ssh / 'id_ed25519'}: refused" in str(error)
    assert "authorized_keys" in error.hint
    server.connect(identity=str(server.directory / "stranger")).close()


def test_no_key_at_all(server: Server) -> None:
    (server.ssh / "id_ed25519").unlink()
    assert "there is no key to try" in str(refused(server))


def test_key_with_a_passphrase_is_not_asked_for_but_taken_from_the_agent(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = server.ssh / "id_ed25519"
    with ssh_agent(server.directory / "sock", monkeypatch):
        subprocess.run(["ssh-add", str(key)], check=True, capture_output=True, timeout=DEADLINE_S)
        words = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)]
        subprocess.run(words, check=True, capture_output=True, timeout=DEADLINE_S)
        server.connect().close()
        (server.ssh / "config").write_text("IdentitiesOnly yes\n")
        server.connect().close()
        subprocess.run(["ssh-add", "-D"], check=True, capture_output=True, timeout=DEADLINE_S)
        assert "needs a passphrase: `ssh-add" in str(refused(server))


@contextlib.contextmanager
def ssh_agent(sock: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
    deadline = time.monotonic() + DEADLINE_S
    while not sock.exists():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    yield
    process.terminate()
    process.wait(DEADLINE_S)


def test_key_that_others_may_read_is_not_used(server: Server) -> None:
    (server.ssh / "id_ed25519").chmod(0o644)
    assert "chmod 600" in str(refused(server))


def test_agent_missing(server: Server) -> None:
    with server.connect() as connection:
        error = ended(connection.start_agent("no such; agent"))
    assert "there is no agent on 127.0.0.1: no such; agent cannot be run" in str(error)
    assert "--agent" in error.hint


def test_agent_that_dies_shows_its_last_words(server: Server) -> None:
    agent = server.program("agent", "for i in $(seq 200); do echo line $i >&2; done; exit 3")
    with server.connect() as connection:
        error = ended(connection.start_agent(agent))
    assert "ended with status 3: line 200" in str(error)
    assert len(error.details) == 50


def test_agent_that_is_killed(server: Server) -> None:
    with server.connect() as connection:
        error = ended(connection.start_agent(server.program("agent", "kill -9 $$")))
    assert "was killed" in str(error)


def test_talkative_shell(server: Server) -> None:
    with server.connect() as connection:
        link = Link(connection.start_agent(server.program("agent", "echo Welcome to this host; sleep 5")))
        with pytest.raises(ProtocolError, match="Welcome to this host"):
            link.expect(Hello, timeout_s=DEADLINE_S)
        link.close()


@pytest.mark.parametrize(
    ("sudo", "text"),
    [
        ("echo 'sudo: a password is required' >&2; exit 1", "is not root on.*password is required"),
        ('echo "sudo: $3: command not found" >&2; exit 1', "there is no agent"),
        ("echo 'sh: 1: sudo: not found' >&2; exit 127", "is not root"),
    ],
)
def test_other_users_need_sudo(server: Server, sudo: str, text: str) -> None:
    server.program("sudo", sudo)
    with server.connect() as connection:
        object.__setattr__(connection.config, "user", "alice")
        error = ended(connection.start_agent("/opt/migrate-agent"))
    assert re.search(text, str(error))


def test_sudo_runs_the_agent(server: Server) -> None:
    server.program("sudo", '[ "$1 $2" = "-n --" ] && shift 2 && exec "$@"')
    with server.connect() as connection:
        object.__setattr__(connection.config, "user", "alice")
        link = Link(connection.start_agent("cat"))
        link.send(Hello(version="1"))
        link.expect(Hello, timeout_s=DEADLINE_S)
        link.close()


def test_lost_connection_ends_the_link_at_once(server: Server) -> None:
    with server.connect() as connection:
        stream = connection.start_agent(server.program("agent", "echo $PPID >&2; exec sleep 60"))
        link = Link(stream, explain=stream.explain)
        deadline = time.monotonic() + DEADLINE_S
        while not stream.stderr() and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        os.kill(int(stream.stderr()[0]), signal.SIGKILL)  # the sshd of this connection
        assert link.lost.wait(4)
        assert "broke" in str(link.error)
        link.close()


def test_peer_that_stops_reading_frees_the_sender(server: Server) -> None:
    with server.connect() as connection:
        link = Link(connection.start_agent(server.program("agent", "exec sleep 60")), silence_s=1.0)
        began = time.monotonic()
        with pytest.raises(TransportError, match="silent"):
            while True:
                link.send(FileChunk(data=b"x" * (256 << 10)), kind="image")
        assert time.monotonic() - began < 5
        link.close()


def test_proxy_command(server: Server) -> None:
    (server.ssh / "config").write_text(
        f"Host far\n HostName 127.0.0.1\n Port {server.port}\n User root\n"
        f" ProxyCommand ssh -F none -i {server.ssh}/id_ed25519 -o UserKnownHostsFile={server.known_hosts}"
        f" -W %h:%p -p {server.port} root@127.0.0.1\n"
    )
    with server.connect("far") as connection:
        assert connection.peer_address == ""
        stream = connection.start_agent("cat")
        stream.write(b"x")
        assert stream.read(10) == b"x"


def test_proxy_command_that_fails(server: Server) -> None:
    program = server.program("proxy", "echo no way through >&2; exit 1")
    (server.ssh / "config").write_text(
        f"Host far\n ProxyCommand {program}\nHost farther\n ProxyCommand /none\n"
    )
    assert "no way through" in str(refused(server, "far"))
    assert "cannot be started" in str(refused(server, "farther"))


def test_proxy_jump(server: Server) -> None:
    (server.ssh / "config").write_text(
        f"Host far\n HostName 127.0.0.1\n Port {server.port}\n User root\n"
        f"Host closed\n HostName 127.0.0.1\n Port {free_port()}\n"
        f"Host far closed\n ProxyJump root@127.0.0.1:{server.port}\n"
        "Host loop\n ProxyJump loop\n"
    )
    with server.connect("far") as connection:
        stream = connection.start_agent("cat")
        stream.write(b"x" * 100_000)
        assert stream.read(10)
    assert "cannot connect to 127.0.0.1" in str(refused(server, "closed"))
    assert "has no end" in str(refused(server, "loop"))


def test_throughput_of_images(server: Server) -> None:
    """Through the link as it is used; the judge counts what arrived."""
    count = server.directory / "count"
    sink = server.program("sink", f"wc -c >{shlex.quote(str(count))}")
    chunk = FileChunk(name="pages-1.img", data=os.urandom(256 << 10))
    with server.connect() as connection:
        link = Link(connection.start_agent(sink), silence_s=60)
        began = time.monotonic()
        for _ in range(THROUGHPUT_BYTES // len(chunk.data)):
            link.send(chunk, kind="image")
        link.flush(timeout_s=DEADLINE_S)
        mb_s = THROUGHPUT_BYTES / 1e6 / (time.monotonic() - began)
        link.close()
    print(f"{mb_s:.0f} MB/s")
    assert int(count.read_text()) >= THROUGHPUT_BYTES
    assert mb_s > THROUGHPUT_MB_S
