"""Acceptance 4: a destination that cannot be reached, is not the one that is known, or lacks something."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pycriu
import pytest
from bad_input_bench import InputBench, Server
from bad_input_breakage import (
    IMAGE_PLACES,
    blocked_port,
    criu_program,
    mounted_over,
    resized,
    session_bytes,
    ssh_aliases,
    stub,
)

from migrate.pb.session_pb2 import Frame, Prepare, Restore

PYTHON = f"#!{sys.executable}\nfrom migrate.destination import agent\n"


@pytest.fixture(scope="module")
def server(bench: InputBench) -> Iterator[Server]:
    """One server for all: none of these tests gets as far as touching it."""
    with bench.server() as server, ssh_aliases(bench):
        yield server


def test_host_does_not_resolve(bench: InputBench, server: Server) -> None:
    found = bench.refused(server, host="no-such-host")
    found.must_say("destination", "no-such-host does not resolve", "/etc/hosts or DNS")


def test_host_refuses(bench: InputBench, server: Server) -> None:
    bench.refused(server, "--port", 1).must_say(
        "destination", "destination port 1 refuses", "sshd runs there"
    )


def test_host_does_not_answer(bench: InputBench, server: Server) -> None:
    with blocked_port(bench.destination, 2222):
        found = bench.refused(server, host="dropped")
    found.must_say("destination", "10.77.1.2 port 2222 does not answer within 1 s", "firewall")
    assert found.seconds < 6


def test_host_is_no_ssh_server(bench: InputBench, server: Server) -> None:
    with bench.odd(bench.destination, "10.77.1.2:2223"):
        found = bench.refused(server, host="silent")
    found.must_say("destination", "did not complete an SSH handshake", "sshd listens there")
    assert found.seconds < 8


def test_unknown_host_key(bench: InputBench, server: Server) -> None:
    found = bench.refused(server, host="unknown")
    found.must_say("destination", "the host key of 10.77.1.2 is unknown", "SHA256:", "ssh-keyscan")


def test_changed_host_key(bench: InputBench, server: Server) -> None:
    found = bench.refused(server, host="changed")
    found.must_say("destination", "the host key of 10.77.1.2 has changed", "known_wrong:1", "ssh-keygen -R")


def test_wrong_login_key(bench: InputBench, server: Server) -> None:
    found = bench.refused(server, "--identity", "/root/.ssh/other")
    found.must_say("destination", "refused to log in root", "/root/.ssh/other: refused", "authorized_keys")


# --- the agent -------------------------------------------------------------------------------------------


def test_agent_is_missing(bench: InputBench, server: Server) -> None:
    found = bench.refused(server, "--agent", "/opt/none/migrate-agent")
    found.must_say("destination", "no agent on destination", "/opt/none/migrate-agent", "--agent PATH")


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken", "side"),
    [(99, 98, "(protocols 98 to 99)", "origin"), (1, 1, "(protocol 1)", "destination")],
)
def test_agent_of_another_version(
    bench: InputBench, server: Server, newest: int, oldest: int, spoken: str, side: str
) -> None:
    change = f"speech.NEWEST, speech.OLDEST, speech.VERSION = {newest}, {oldest}, '7.7'"
    words = f"from migrate.link import speech\n{change}\nspeech.hello.__kwdefaults__['protocol'] = {newest}\n"
    with stub(bench.destination, f"{PYTHON}{words}agent.main([])\n") as path:
        found = bench.refused(server, "--agent", path)
    assert found.codes == {("version", "destination")}
    found.must_say(
        "destination", f"version 7.7 {spoken}", "(protocols 2 to 3)", f"on the {side}", "pip install"
    )


def test_agent_behind_a_talkative_shell(bench: InputBench, server: Server) -> None:
    with stub(bench.destination, "#!/bin/sh\necho Welcome to web2\nexec migrate-agent\n") as path:
        found = bench.refused(server, "--agent", path)
    found.must_say("destination", "is not migrate-agent", "Welcome to web2", "~/.bashrc")


def test_agent_of_garbage(bench: InputBench, server: Server) -> None:
    with stub(bench.destination, "#!/bin/sh\nhead -c 100000 /dev/urandom\nexec cat >/dev/null\n") as path:
        found = bench.refused(server, "--agent", path)
    found.must_say("destination", "is not migrate-agent", "--version")


def test_agent_of_garbage_that_ends(bench: InputBench, server: Server) -> None:
    """Well, as it thinks: its status says nothing."""
    with stub(bench.destination, "#!/bin/sh\nhead -c 100000 /dev/urandom\n") as path:
        found = bench.refused(server, "--agent", path)
    found.must_say("destination", "is not migrate-agent", "--version")


def test_agent_that_says_nothing(bench: InputBench, server: Server) -> None:
    found = bench.refused(server, "--agent", "/bin/true")
    found.must_say("destination", "what was started as the agent on destination ended of itself", "--version")


def test_agent_that_hangs(bench: InputBench, server: Server) -> None:
    with stub(bench.destination, "#!/bin/sh\nexec cat >/dev/null\n") as path:
        found = bench.refused(server, "--agent", path, "--timeout", 2)
    found.must_say("destination", "did not say hello within 2 s", "--version")
    assert found.seconds < 8


def test_agent_that_dies(bench: InputBench, server: Server) -> None:
    with stub(bench.destination, "#!/bin/sh\necho out of paper >&2\nexit 3\n") as path:
        found = bench.refused(server, "--agent", path)
    found.must_say("destination", "ended with status 3: out of paper", "--version")


GARBAGE = (
    b"",
    b"GET / HTTP/1.1\r\nHost: destination\r\n\r\n",
    bytes(range(256)) * 40,
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff" + bytes(100),
    b"\x00\x00\x00\x05\xff\xff\xff\xff\xff",
    session_bytes(Frame(restore=Restore())),
    session_bytes(migration_id="../../etc"),
    session_bytes(Frame(prepare=Prepare(pids=[1]))),
    session_bytes() + b"\x00\x00\x10\x00 cut",
    session_bytes() + b"rubbish from here on",
)


def test_garbage_for_the_agent(bench: InputBench) -> None:
    """By hand: `ssh destination migrate-agent < garbage` ends with a status and leaves nothing."""
    command = ["ssh", "destination", "migrate-agent"]
    with bench.nothing_left():
        # All at once, for the time that it takes.
        runs = [bench.origin.popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE) for _ in GARBAGE]
        for run, data in zip(runs, GARBAGE, strict=True):
            with contextlib.suppress(BrokenPipeError):
                run.stdin.write(data)
                run.stdin.close()
        for run, data in zip(runs, GARBAGE, strict=True):
            run.stdin = None
            _, errors = run.communicate(timeout=30)
            assert run.returncode in (0, 1), (data, errors)
            assert errors == b"", data


# --- what the destination lacks --------------------------------------------------------------------------


def test_no_criu_there(bench: InputBench, server: Server) -> None:
    with mounted_over(bench.destination, criu_program().parent):
        found = bench.refused(server)
    assert found.codes == {("criu-missing", "destination")}
    found.must_say("destination", "CRIU is not installed", "Install CRIU 4.2")


def test_criu_too_old_there(bench: InputBench, server: Server) -> None:
    with (
        stub(bench.destination, "#!/bin/sh\necho Version: 3.17.1\n") as path,
        mounted_over(bench.destination, criu_program(), path),
    ):
        found = bench.refused(server)
    assert found.codes == {("criu-too-old", "destination")}
    found.must_say("destination", "CRIU 3.17.1 is too old: 4.2 is needed", "Install CRIU 4.2")


def test_criu_does_not_work_there(bench: InputBench, server: Server) -> None:
    text = '#!/bin/sh\n[ "$1" = --version ] && { echo Version: 4.2.1; exit 0; }\nexit 1\n'
    with stub(bench.destination, text) as path, mounted_over(bench.destination, criu_program(), path):
        found = bench.refused(server)
    assert found.codes == {("criu-broken", "destination")}
    found.must_say("destination", "CRIU 4.2.1 does not work with kernel", "migrate.criu.probe")


def test_no_pycriu_there(bench: InputBench, server: Server) -> None:
    """Although it was found to work before, which is remembered."""
    with mounted_over(bench.destination, Path(pycriu.__file__).parent):
        found = bench.refused(server)
    assert found.codes == {("criu-broken", "destination")}
    found.must_say("destination", "pycriu is not installed", "python3-pycriu")


def test_no_space_there(bench: InputBench, server: Server) -> None:
    with resized(bench.destination, "4m"):
        found = bench.refused(server)
    assert found.codes == {("no-image-space", "destination")}
    found.must_say("destination", "are needed for images in memory, 4.0 MiB are free", *IMAGE_PLACES)


def test_the_host_itself(bench: InputBench, server: Server) -> None:
    found = bench.refused(server, host="origin")
    # And nothing about addresses and ports that are "there already".
    assert found.codes == {("same-host", "destination")}
    found.must_say("destination", "origin is this host itself", "another host")


def test_not_root_there(bench: InputBench, server: Server) -> None:
    """An agent that has lost its privileges, as in a container."""
    drop = "#!/bin/sh\nexec setpriv --bounding-set -sys_admin --inh-caps -sys_admin migrate-agent\n"
    with stub(bench.destination, drop) as path:
        found = bench.refused(server, "--agent", path)
    assert ("not-root", "destination") not in found.codes
    found.must_say("destination", "CAP_SYS_ADMIN", "root of the whole host")
