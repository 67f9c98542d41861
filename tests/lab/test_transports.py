"""Both ways to the agent keep what a transport promises, over a real sshd; what the ssh program says is told."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.wait import eventually
from ssh_server import DEADLINE_S, Server, free_port, keygen

from migrate import transport
from migrate.errors import MigrateError, TransportError
from migrate.journal.reach import Reach
from migrate.link.link import Link
from migrate.pb.session_pb2 import Hello
from migrate.testing import transports
from migrate.transport.by_ssh import BySsh

NUMBERS = itertools.count()


@pytest.fixture
def ssh_program(server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ssh program with the configuration of this test: it looks for its own by the password database."""
    config = server.ssh / "ssh_config"
    wrapper = server.directory / "programs" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {config} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    configure(server)
    return config


def configure(server: Server, *lines: str) -> None:
    """Write the ssh program's configuration: *lines*, and after them the test's keys."""
    own = f"Host *\nIdentityFile {server.ssh}/id_ed25519\nUserKnownHostsFile {server.known_hosts}\n"
    (server.ssh / "ssh_config").write_text("\n".join([*lines, own]))


def reach(server: Server, host: str = "root@127.0.0.1", **more: object) -> Reach:
    return Reach(host=host, home=str(server.home), **({"port": server.port} | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("check", transports.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", transport.OWN)
def test_it_is_one(
    server: Server, ssh_program: Path, name: str, check: Callable[[transports.Case], None]
) -> None:
    case = transports.Case(
        transport.find(name),
        reach(server),
        lambda text: server.program(f"program{next(NUMBERS)}", text),
        nowhere=reach(server, port=free_port()),
        ends=("127.0.0.1", "127.0.0.1"),
    )
    check(case)


# --- the ssh program -------------------------------------------------------------------------------------


def failure(way: Reach) -> MigrateError:
    """Why the ssh program cannot be used there, or has ended."""
    try:
        stream = BySsh().open(way)
    except MigrateError as error:
        return error
    with contextlib.closing(stream):
        assert stream.read(1) == b""
        found = stream.explain()
    assert isinstance(found, TransportError) and found.problem.hint
    return found


def echoes(way: Reach) -> tuple[str, str]:
    """Speak with an agent there; the addresses of the connection."""
    with contextlib.closing(BySsh().open(dataclasses.replace(way, agent="cat"))) as stream:
        link = Link(stream, explain=stream.explain)
        link.send(Hello(version="echo"))
        assert link.expect(Hello, timeout_s=DEADLINE_S).version == "echo"
        ends = stream.ends
        link.close()
        assert not link.lost.is_set()
    return ends


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("no-such-host.invalid", "the host name no-such-host.invalid does not resolve"),
        ("root@unknown", "host key of unknown.*unknown"),
        ("root@changed", "host key of changed has changed"),
        ("nobody@127.0.0.1", "refused to log in nobody"),
        ("root@senseless", "configuration for senseless makes no sense"),
        ("root@behind", "the jump host cannot connect to behind"),
        ("root@offers", "offers did not complete an SSH handshake: no matching"),
    ],
)
def test_its_sentences_are_understood(server: Server, ssh_program: Path, host: str, said: str) -> None:
    keygen(server.directory / "other_key")
    kind, blob = (server.directory / "other_key.pub").read_text().split()[:2]
    (server.directory / "other_hosts").write_text(f"[127.0.0.1]:{server.port} {kind} {blob}\n")
    configure(
        server,
        "Host unknown changed offers behind\nHostName 127.0.0.1",
        "Host unknown\nUserKnownHostsFile /dev/null",
        f"Host changed\nUserKnownHostsFile {server.directory}/other_hosts",
        "Host offers\nMACs umac-64@openssh.com\nCiphers aes128-ctr\nKexAlgorithms curve25519-sha256",
        f"Host behind\nProxyCommand ssh -W 127.0.0.1:{free_port()} -p {server.port} root@127.0.0.1",
        "Match originalhost senseless\nPort many" if "senseless" in host else "",
    )
    if "offers" in host:
        server.restart("Ciphers aes256-ctr")
    error = failure(reach(server, host))
    assert re.search(said, str(error)), (str(error), error.problem.details)


def test_a_silent_server_times_out(server: Server, ssh_program: Path) -> None:
    configure(server, "ConnectTimeout 1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        error = failure(reach(server, port=silent.getsockname()[1]))
    assert "did not complete an SSH handshake in time" in str(error)
    assert time.monotonic() - began < 10


def test_nothing_that_is_asked_for_becomes_an_option_or_another_word(
    server: Server, ssh_program: Path, tmp_path: Path
) -> None:
    """Neither for ssh here nor for the shell there."""
    identity = tmp_path / 'a key; touch %h "$(touch x)\\'
    identity.write_bytes((server.ssh / "id_ed25519").read_bytes())
    identity.chmod(0o600)
    agent = server.program("agent; touch x $(touch y)", "exec cat")
    configure(server)
    (server.ssh / "id_ed25519").unlink()
    with contextlib.closing(BySsh().open(reach(server, agent=agent, identity=str(identity)))) as stream:
        stream.write(b"x")
        assert stream.read(1) == b"x", stream.explain()
    for host in ("-oProxyCommand=touch x", "a;b", "root@-x"):
        with pytest.raises(MigrateError):
            BySsh().open(reach(server, host))


def test_what_the_users_configuration_would_do_beside_the_agent_is_left_out(
    server: Server, ssh_program: Path
) -> None:
    """It would get into the stream, or need a port, or take the agent's place."""
    mark = server.directory / "mark"
    configure(
        server,
        "Host *\nPermitLocalCommand yes\nLocalCommand echo noise\nRemoteCommand echo noise\nRequestTTY force",
        f"StrictHostKeyChecking no\nLocalForward {server.port} 127.0.0.1:1\nExitOnForwardFailure yes",
        f"ControlMaster auto\nControlPath {mark}\nControlPersist 60\nLogLevel QUIET",
    )
    assert echoes(reach(server)) == ("127.0.0.1", "127.0.0.1")
    assert not mark.exists()
    server.known_hosts.write_text("")
    assert "host key" in str(failure(reach(server)))


def test_a_jump_host(server: Server, ssh_program: Path) -> None:
    configure(
        server,
        f"Host far jump\nHostName 127.0.0.1\nUser root\nPort {server.port}\nHost far\nProxyJump jump",
    )
    assert echoes(reach(server, "far", port=None)) == ("", "")


def test_a_certificate(server: Server, ssh_program: Path) -> None:
    """Which paramiko's way does not know: the server trusts who signed the key, and no key by itself."""
    keygen(server.directory / "authority")
    public = server.ssh / "id_ed25519.pub"
    authority = server.directory / "authority"
    words = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", "-n", "root", str(public)]
    subprocess.run(words, check=True, timeout=DEADLINE_S)
    server.authorized.write_text(f"cert-authority {(server.directory / 'authority.pub').read_text()}")
    assert echoes(reach(server)) == ("127.0.0.1", "127.0.0.1")


def test_a_shared_connection_is_used(server: Server, ssh_program: Path) -> None:
    """Also where nobody could log in any more."""
    control = server.directory / "control"
    configure(server, f"Host *\nControlPath {control}")
    words = ["ssh", "-M", "-N", "-p", str(server.port), "root@127.0.0.1"]
    master = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        eventually(control.exists, "the connection is there")
        server.authorized.write_text("")
        assert echoes(reach(server)) == ("", "")
    finally:
        # ssh may miss a SIGTERM: it looks at what its handler noted, and only then begins to poll().
        master.kill()
        master.wait(DEADLINE_S)
    assert "refused to log in" in str(failure(reach(server)))


def test_other_users_start_the_agent_by_sudo(server: Server, ssh_program: Path) -> None:
    """Who they are says the configuration."""
    configure(server, "Host other\nHostName 127.0.0.1\nUser alice")
    with contextlib.closing(BySsh().open(reach(server, "other"))) as stream:
        assert stream.sudo
    with contextlib.closing(BySsh().open(reach(server, "root@other"))) as stream:
        assert not stream.sudo


@pytest.mark.parametrize("victim", ["ssh", "sshd"])
def test_a_connection_that_is_killed_ends_the_link_at_once(
    server: Server, ssh_program: Path, victim: str
) -> None:
    agent = server.program("agent", "echo $PPID >&2; exec sleep 60")
    with contextlib.closing(BySsh().open(reach(server, agent=agent))) as stream:
        link = Link(stream, explain=stream.explain)
        eventually(stream.stderr, "the agent says who started it")
        pid = {"ssh": stream.pid, "sshd": int(stream.stderr()[0])}[victim]
        os.kill(pid, signal.SIGKILL)
        assert link.lost.wait(4)
        link.close()
    assert ("was killed" if victim == "ssh" else "broke") in str(link.error)


def test_a_child_that_does_not_end_is_killed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has started."""
    asked = "for word; do [ $word = -G ] && exit 0; done"
    server.program("ssh", f"{asked}\ntrap '' TERM\nsleep 600 &\necho $! >&2\nsleep 600")
    monkeypatch.setenv("PATH", f"{server.bin}:{os.environ['PATH']}")
    stream = BySsh().open(reach(server))
    eventually(stream.stderr, "it has started another")
    helper = int(stream.stderr()[0])
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        while time.monotonic() - began < 10:
            os.kill(helper, 0)
            threading.Event().wait(0.01)


def test_without_an_ssh_program(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(server.directory))
    error = failure(reach(server))
    assert "there is no ssh program" in str(error) and "openssh-client" in error.problem.hint
