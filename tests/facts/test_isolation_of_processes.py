"""Several processes pass connections on one host: forked, of the same PID, one to another, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import traceback
from collections.abc import Callable, Iterator

import pytest
from actor import actor
from netns import Hosts, eventually
from passing import assert_no_reset
from traces import NOTHING, goes_through, is_held, rules

import tcpcp
from tcpcp import cli
from tcpcp.kernel import tcp_repair


class Child:
    """A forked child that carries out its steps, each when it is told to."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(10)
        self.pid = os.fork()
        if not self.pid:
            self._ours.close()
            _obey(theirs, steps)
        theirs.close()

    def step(self) -> None:
        self.send()
        self.wait()

    def send(self) -> None:
        """Tell it to take its next step."""
        self._ours.send(b".")

    def wait(self) -> None:
        """Until it has."""
        assert self._ours.recv(1) == b".", "the child failed"

    def end(self) -> None:
        """It has come to its end by itself, in order."""
        assert os.waitpid(self.pid, 0)[1] == 0
        self._ours.close()
        self.pid = 0


def _obey(told: socket.socket, steps: tuple[Callable[[], object], ...]) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the test runner's is no business of the child's
    signal.alarm(20)  # whatever becomes of the test
    try:
        for step in steps:
            if told.recv(1):
                step()
                told.send(b".")
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


@contextlib.contextmanager
def child(*steps: Callable[[], object]) -> Iterator[Child]:
    one = Child(*steps)
    try:
        yield one
    finally:
        if one.pid:
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)


@pytest.mark.parametrize("before", ("prepared", "holding"))
def test_after_fork(hosts: Hosts, before: str) -> None:
    """A prefork server: what one child lets through is its own, and the parent's stays held."""
    connections = [hosts.connect() for _ in range(3)]
    (one, its_peer), (two, other_peer), (parents, peer) = connections
    with hosts.here.entered():
        tcpcp.prepare()
        if before == "holding":
            tcpcp.get(parents)
        with (
            child(lambda: tcpcp.get(one), lambda: tcpcp.resume(one)) as first,
            child(lambda: tcpcp.get(two), lambda: tcpcp.resume(two)) as second,
        ):
            first.step()
            second.step()
            if before == "prepared":
                tcpcp.get(parents)
            first.step()
            first.end()
            assert goes_through(its_peer)
            assert is_held(other_peer)
            assert is_held(peer)
            second.step()
            second.end()
        assert is_held(peer)
        tcpcp.resume(parents)
    eventually(lambda: not tcp_repair.get_outq(peer), "acknowledged")
    assert rules(hosts.here).holding == 0
    assert_no_reset(hosts)


def test_a_child_has_got_nothing(hosts: Hosts) -> None:
    """What the parent got is the parent's to activate or release."""
    sock, peer = hosts.connect()

    def refused() -> None:
        for call in (tcpcp.activate, tcpcp.release, tcpcp.resume, tcpcp.renew):
            with pytest.raises(tcpcp.NotGot):
                call(sock)

    with hosts.here.entered():
        tcpcp.get(sock)
        with child(refused) as one:
            one.step()
            one.end()
        assert is_held(peer)
        tcpcp.resume(sock)


def test_two_of_the_same_pid(hosts: Hosts) -> None:
    """Two containers of a pod: both are PID 1, in one network namespace."""
    (one, its_peer), (two, other_peer) = hosts.connect(), hosts.connect()
    with (
        actor(hosts.here, one, own_pids=True) as first,
        actor(hosts.here, two, own_pids=True) as second,
    ):
        first.do("get")
        second.do("get")
        assert is_held(its_peer)
        assert is_held(other_peer)
        first.do("resume")
        assert is_held(other_peer)
        second.do("release")
        assert is_held(other_peer)
        assert goes_through(its_peer)
    assert_no_reset(hosts)


def test_a_restarted_one(hosts: Hosts) -> None:
    """A container passes its connections, ends and is started again, as PID 1 again: no reset for them."""
    (one, its_peer), (two, _) = hosts.connect(), hosts.connect()
    with actor(hosts.here, one, own_pids=True) as first:
        first.pass_away()
    one.close()
    with actor(hosts.here, two, own_pids=True) as again:
        again.do("prepare")
        assert is_held(its_peer)
        again.do("get")
        again.do("resume")
        assert is_held(its_peer)
    assert_no_reset(hosts)


@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_passed_between_processes(hosts: Hosts, kind: str) -> None:
    """A passes to B, B back to A, A on to C, all within the minute: each has it at once."""
    sock, peer = hosts.connect(kind)
    with actor(hosts.here, sock) as a, actor(hosts.here) as b, actor(hosts.here) as c:
        sock.close()
        a.answers(peer)
        giver = a
        for taker in (b, a, c, b, c, a):
            taker.take(giver.pass_away())
            taker.answers(peer)
            giver = taker
    assert_no_reset(hosts)


def test_held_by_one_let_through_by_another_held_again(hosts: Hosts) -> None:
    """After B's activate let it through, A's release of another does not hold it again; B's get does."""
    (sock, peer), (other, its_peer) = hosts.connect(), hosts.connect()
    with hosts.here.entered():
        ici = tcpcp.get_many([sock, other])[0]
        tcpcp.release(sock)
        with actor(hosts.here) as b:
            b.take(tcpcp.dumps(ici).hex())
            b.answers(peer)
            tcpcp.renew(other)
            b.answers(peer)
            tcpcp.release(other)
            b.answers(peer)
            b.do("get")
            assert is_held(peer)
            b.do("activate")
            eventually(lambda: not tcp_repair.get_outq(peer), "acknowledged")
            assert is_held(its_peer)
            assert_no_reset(hosts)


def test_passed_on_by_another_than_who_let_it_through(hosts: Hosts) -> None:
    """It came back to the parent, and a child that has the socket passes it on: still no reset."""
    sock, peer = hosts.connect()
    with hosts.here.entered(), actor(hosts.here, sock) as first:
        ici = tcpcp.loads(bytes.fromhex(first.pass_away()))
        sock.close()
        made = tcpcp.create(ici)
        tcpcp.activate(made)

        def pass_on() -> None:
            tcpcp.get(made)
            tcpcp.release(made)

        with child(pass_on) as one:
            one.step()
            one.end()
        assert is_held(peer)
        assert_no_reset(hosts)


@pytest.mark.parametrize("adopter", ("who passed it on", "a third one"))
@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_who_took_it_over_has_ended(hosts: Hosts, kind: str, adopter: str) -> None:
    """It went on in the background, as a daemon does: its connection is not held when its table is taken over."""
    (sock, peer), (other, _) = hosts.connect(kind), hosts.connect()
    with hosts.here.entered(), actor(hosts.here, other) as third:
        fresh = socket.socket(sock.family)
        ici = tcpcp.get(sock)
        tcpcp.release(sock)

        def take() -> None:
            tcpcp.activate(tcpcp.create(ici, sock=fresh))

        with child(take) as one:
            one.step()
            one.end()
        exchange(fresh, peer)
        if adopter == "who passed it on":
            tcpcp.get(other)
            tcpcp.resume(other)
        else:
            third.do("prepare")
        assert rules(hosts.here).tables == (1 if adopter == "who passed it on" else 2)
        exchange(fresh, peer)
        ici = tcpcp.get(fresh)
        tcpcp.release(fresh)
        assert is_held(peer)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    assert made.recv(100) == b"x"  # what is closed before it has been read is answered with a reset
    assert_no_reset(hosts)


def exchange(sock: socket.socket, peer: socket.socket) -> None:
    """Without anybody's retransmission timer."""
    for one, another in ((peer, sock), (sock, peer)):
        another.settimeout(0.5)
        one.sendall(b"goes on")
        assert another.recv(100) == b"goes on"


@pytest.mark.parametrize("after", ("get", "release", "create"))
def test_killed(hosts: Hosts, after: str) -> None:
    """By SIGKILL: a second, here, and nothing of it is in force; other connections never notice."""
    (sock, peer), (other, its_peer) = hosts.connect(), hosts.connect()
    with actor(hosts.here, sock, timeout_s=1) as killed, actor(hosts.here, other) as bystander:
        image = killed.do("get")
        if after != "get":
            sock.close()
            killed.do("release")
        if after == "create":
            killed.do("create", image)
        assert is_held(peer)
        killed.kill()
        bystander.answers(its_peer)
        eventually(lambda: rules(hosts.here).elements == 0, "expired", 3)
        bystander.answers(its_peer)
        if after == "get":  # the socket is open here still
            eventually(lambda: not tcp_repair.get_outq(peer), "acknowledged")
        else:
            eventually(lambda: hosts.counters(hosts.here)["TcpOutRsts"] == 1, "answered")
        bystander.answers(its_peer)
    assert tcp_repair.get_state(its_peer) == tcp_repair.get_state(other)


def test_a_program_that_ends_leaves_no_table_of_what_it_resumed(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    with actor(hosts.here, sock) as one:
        one.do("prepare")
        one.do("get")
        one.do("resume")
        one.answers(peer)
        one.process.communicate(timeout=5)
    assert rules(hosts.here) == NOTHING


def test_a_program_that_ends_after_release_leaves_its_filter(hosts: Hosts) -> None:
    """In order, within the minute: the connection lives elsewhere, and this host keeps quiet."""
    sock, peer = hosts.connect()
    with actor(hosts.here, sock) as one:
        sock.close()
        one.pass_away()
        one.process.communicate(timeout=5)
    assert is_held(peer)
    assert_no_reset(hosts)


def test_swept_by_command(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    """`tcpcp sweep` leaves alone what is in force, or somebody's, and takes away what is neither."""
    (sock, peer), (other, _) = hosts.connect(), hosts.connect()
    with hosts.here.entered(), actor(hosts.here, other) as alive:
        alive.do("prepare")
        with actor(hosts.here, sock, timeout_s=1) as killed:
            killed.do("get")
            killed.kill()
            assert cli.main(["sweep"]) == 0
            assert capsys.readouterr().out == ""
            assert is_held(peer)
        eventually(lambda: rules(hosts.here).elements == 0, "expired", 3)
        assert cli.main(["sweep"]) == 0
        assert capsys.readouterr().out.startswith("deleted table inet tcpcp_")
        assert rules(hosts.here).tables == 1


def test_released_by_one_that_has_ended_and_a_reload_of_the_firewall(hosts: Hosts) -> None:
    """While it lives its table is its own. Afterwards anybody's, and a late segment draws a reset without it."""
    sock, peer = hosts.connect()

    def passes_on() -> None:
        tcpcp.get(sock)
        tcpcp.release(sock)

    with hosts.here.entered(), child(passes_on, lambda: None) as one:
        one.step()
        sock.close()
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        peer.sendall(b"late")
        assert_no_reset(hosts)
        one.step()
        one.end()
        assert rules(hosts.here) != NOTHING
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        assert rules(hosts.here) == NOTHING
    with pytest.raises(ConnectionResetError):  # sent again, by the peer's timer
        peer.settimeout(5)
        peer.recv(1)
