"""Connections to real sshds on the loopback device: their set-up, their agent, their end."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import threading
import time

import pytest
from harness.wait import eventually
from ssh_server import DEADLINE_S, Server, ended, free_port, refused

from migrate.errors import ProtocolError, TransportError
from migrate.link import frames
from migrate.link.heartbeat import Limits
from migrate.link.link import Link
from migrate.link.payloads import Piece
from migrate.pb.session_pb2 import Frame, Hello, Ping

THROUGHPUT_BYTES = 128 << 20
THROUGHPUT_MB_S = 25
pytestmark = pytest.mark.skipif(shutil.which("sshd") is None, reason="no sshd installed")


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
    eventually(target.exists, "all is written")
    assert target.stat().st_size > 50_000


def test_does_not_resolve(server: Server) -> None:
    error = refused(server, "no-such-host.invalid")
    assert "no-such-host.invalid does not resolve" in str(error)


def test_refuses(server: Server) -> None:
    error = refused(server, port=free_port())
    assert "refuses the connection" in str(error)
    assert "sshd" in error.problem.hint


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


def test_agent_missing(server: Server) -> None:
    with server.connect() as connection:
        error = ended(connection.start_agent("no such; agent"))
    assert "there is no agent on 127.0.0.1: no such; agent cannot be run" in str(error)
    assert "--agent" in error.problem.hint


def test_agent_that_dies_shows_its_last_words(server: Server) -> None:
    agent = server.program("agent", "for i in $(seq 200); do echo line $i >&2; done; exit 3")
    with server.connect() as connection:
        error = ended(connection.start_agent(agent))
    assert "ended with status 3: line 200" in str(error)
    assert len(error.problem.details) == 50


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
        eventually(stream.stderr, "the agent says who started it")
        os.kill(int(stream.stderr()[0]), signal.SIGKILL)  # the sshd of this connection
        assert link.lost.wait(4)
        assert "broke" in str(link.error)
        link.close()


def test_peer_that_stops_reading_frees_the_sender(server: Server) -> None:
    with server.connect() as connection:
        ping = "".join(f"\\{byte:03o}" for byte in frames.encode(Frame(ping=Ping())))
        agent = server.program("agent", f"printf '{ping}'; exec sleep 60")
        link = Link(connection.start_agent(agent), quiet=Limits(silence_s=1.0))
        began = time.monotonic()
        with pytest.raises(TransportError, match="silent"):
            while True:
                link.send(Piece(name="a", data=b"x" * (256 << 10)), kind="image")
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
    chunk = Piece(name="pages-1.img", data=os.urandom(256 << 10))
    with server.connect() as connection:
        link = Link(connection.start_agent(sink), quiet=Limits(silence_s=60))
        began = time.monotonic()
        for _ in range(THROUGHPUT_BYTES // len(chunk.data)):
            link.send(chunk, kind="image")
        link.flush(timeout_s=DEADLINE_S)
        mb_s = THROUGHPUT_BYTES / 1e6 / (time.monotonic() - began)
        link.close()
    print(f"{mb_s:.0f} MB/s")
    assert int(count.read_text()) >= THROUGHPUT_BYTES
    assert mb_s > THROUGHPUT_MB_S
