"""What serves a command in a machine of the lab, without a machine: on pipes, on a terminal, and detached."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from migrate.lab.vm import client, frames, worker

DEADLINE_S = 30.0


#: As the guest does for each connection; what is detached needs a PID 1 that stays.
SERVE = (
    "import socket, sys; from migrate.lab.vm import worker;"
    " worker.serve_one(socket.socket(fileno=int(sys.argv[1])))"
)
STAYS = '"$@"; exec sleep 600'


@contextmanager
def served() -> Iterator[socket.socket]:
    """The asking end of a worker, in a PID namespace whose first process is in the machine's network."""
    ours, its = socket.socketpair()
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", STAYS, "sh"]
    number = its.fileno()
    process = subprocess.Popen([*words, sys.executable, "-c", SERVE, str(number)], pass_fds=[number])
    its.close()
    ours.settimeout(DEADLINE_S)
    try:
        yield ours
    finally:
        ours.close()
        process.kill()
        process.wait()


def received(connection: socket.socket) -> bytes:
    data = connection.recv(worker.CHUNK)
    assert data, "it has ended"
    return data


def first(connection: socket.socket) -> tuple[int, bytes]:
    """The first that it says."""
    reader, found = frames.Reader(), list[tuple[int, bytes]]()
    while not found:
        found = reader.add(received(connection))
    return found[0]


def told(connection: socket.socket) -> dict[int, bytes]:
    """All that it says until the status, by kind."""
    reader, found = frames.Reader(), dict[int, bytes]()
    while frames.STATUS not in found:
        for kind, said in reader.add(received(connection)):
            found[kind] = found.get(kind, b"") + said
    return found


def test_streams_and_status_on_pipes() -> None:
    with served() as connection:
        connection.sendall(client.request("exec", "", ["sh", "-c", "cat; echo bad >&2; exit 7"]))
        connection.sendall(frames.frame(frames.INPUT, b"given") + frames.frame(frames.INPUT))
        said = told(connection)
    assert (said[frames.OUTPUT], said[frames.ERRORS], int(said[frames.STATUS])) == (
        b"given",
        b"bad\n",
        7 << 8,
    )


def test_a_terminal_has_its_size() -> None:
    with served() as connection:
        connection.sendall(client.request("exec", "", ["stty", "size"], (7, 11)))
        said = told(connection)
    assert (said[frames.OUTPUT], int(said[frames.STATUS])) == (b"7 11\r\n", 0)


def test_a_detached_command_has_a_pid_and_its_output_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with served() as connection:
        connection.sendall(client.request("spawn", str(log), ["sh", "-c", "echo $$"]))
        pid = int(first(connection)[1])
        deadline = time.monotonic() + DEADLINE_S
        while not log.exists() or not log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert int(log.read_text()) == pid


@pytest.mark.parametrize(
    ("words", "status"), [(["true", *["x" * 120_000] * 12], 0), (["true", "x" * 200_000], 126)]
)
def test_a_command_of_more_than_a_megabyte(words: list[str], status: int) -> None:
    """Is executed, unless the kernel does not: one word of more than 128 KB is too long, as it is everywhere."""
    with served() as connection:
        connection.sendall(client.request("exec", "", words))
        assert int(told(connection)[frames.STATUS]) == status << 8


@pytest.mark.parametrize("name", ["/no/such", ""])
@pytest.mark.parametrize("mode", ["exec", "spawn"])
def test_a_command_that_is_not_there(mode: str, name: str) -> None:
    with served() as connection:
        connection.sendall(client.request(mode, "", [name]))
        if mode == "exec":
            assert int(told(connection)[frames.STATUS]) == 127 << 8
        else:
            assert first(connection)[1].startswith(b"!")
