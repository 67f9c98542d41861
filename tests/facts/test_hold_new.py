"""What keeps new connections away from a listener: as long as it says, and no longer, whatever others do."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from netns import Hosts, eventually

import tcpcp
from tcpcp import Expired, IsolationError, hold_new
from tcpcp.endpoint import flow_table, isolation


@contextlib.contextmanager
def listening(hosts: Hosts) -> Iterator[socket.socket]:
    """The calling thread is on *here* meanwhile."""
    with hosts.here.entered(), socket.create_server((hosts.here_ip[4], 0)) as made:
        yield made


#: A client sends its SYN again after a second.
FIRST_SYN_S = 0.9


def knocks(hosts: Hosts, listener: socket.socket, within_s: float = 0.3) -> bool:
    """Whether a new connection comes through."""
    with hosts.there.entered(), socket.socket() as peer:
        peer.settimeout(within_s)
        try:
            peer.connect(listener.getsockname())
        except TimeoutError:
            return False
        return True


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "TIMEOUT_S", 1)


def in_a_child(action: Callable[[], object]) -> int:
    """How *action* ends in a process of its own: the signal, or 0."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def holds_and_dies(listener: socket.socket) -> None:
    held = hold_new(listener)
    assert held is not None
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_reload_of_the_firewall(hosts: Hosts) -> None:
    with listening(hosts) as listener:
        held = hold_new(listener)
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        assert not knocks(hosts, listener)
        held.refresh()
        held.release()
        held.release()
        assert knocks(hosts, listener, FIRST_SYN_S)
        assert isolation.tables() == []


@pytest.mark.usefixtures("brief")
def test_it_runs_out_and_that_is_told(hosts: Hosts) -> None:
    with listening(hosts) as listener:
        held = hold_new(listener)
        eventually(lambda: knocks(hosts, listener), "it runs out")
        with pytest.raises(Expired, match=f"port {listener.getsockname()[1]}: .* held again"):
            held.refresh()
        assert not knocks(hosts, listener)
        eventually(lambda: knocks(hosts, listener), "it runs out again")
        with pytest.raises(Expired, match="has run out"):
            held.release()
        held.release()
        with pytest.raises(IsolationError, match="any more"):
            held.refresh()
        assert isolation.tables() == []


@pytest.mark.usefixtures("brief")
def test_renewed(hosts: Hosts) -> None:
    with listening(hosts) as listener:
        held = hold_new(listener)
        for _ in range(6):
            time.sleep(0.4)
            held.refresh()
        assert not knocks(hosts, listener)
        held.release()


SWEEPERS = {
    "sweep": lambda listener: flow_table.sweep(),
    "hold_new": lambda listener: hold_new(listener).release(),
    "prepare": lambda listener: in_a_child(tcpcp.prepare),
}


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("how", SWEEPERS)
def test_what_a_killed_program_leaves(hosts: Hosts, how: str) -> None:
    """It is in force for its time, which nobody cuts short; then the next one deletes it."""
    with listening(hosts) as listener:
        isolation.TIMEOUT_S = 3
        assert in_a_child(lambda: holds_and_dies(listener)) == -signal.SIGKILL
        (left,) = isolation.tables()
        SWEEPERS[how](listener)
        assert left in isolation.tables()
        assert not knocks(hosts, listener)
        eventually(lambda: knocks(hosts, listener), "it runs out")
        SWEEPERS[how](listener)
        assert left not in isolation.tables()


def test_what_lives_is_not_swept(hosts: Hosts) -> None:
    with listening(hosts) as listener:
        held = hold_new(listener)
        assert flow_table.sweep() == []
        assert in_a_child(tcpcp.prepare) == 0
        assert not knocks(hosts, listener)
        held.release()
        flow_table.sweep()


def test_in_a_child_it_is_the_parents(hosts: Hosts) -> None:
    with listening(hosts) as listener:
        held = hold_new(listener)
        reading, writing = os.pipe()

        def tries() -> None:
            for call in (held.refresh, held.release):
                try:
                    call()
                except IsolationError:
                    os.write(writing, b"n")

        assert in_a_child(tries) == 0
        assert os.read(reading, 10) == b"nn"
        os.close(reading), os.close(writing)
        assert not knocks(hosts, listener)
        held.release()
        assert knocks(hosts, listener, FIRST_SYN_S)


def test_a_daemon_that_closes_what_it_finds(hosts: Hosts) -> None:
    with listening(hosts) as listener:
        reading, writing = os.pipe()

        def closes() -> None:
            held = hold_new(listener)
            for number in range(3, 200):
                if number not in (writing, hosts.here.fd):
                    with contextlib.suppress(OSError):
                        os.close(number)
            held.refresh()
            held.release()
            os.write(writing, str(isolation.tables()).encode())

        assert in_a_child(closes) == 0
        os.close(writing)
        assert os.read(reading, 100) == b"[]"
        os.close(reading)
