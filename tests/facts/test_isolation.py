"""The packet filter: what passes and what does not, judged by sockets and counters of both sides."""

from __future__ import annotations

import ipaddress
import os
import resource
import socket
import sys
import threading

import pytest
from netns import Hosts, eventually

from tcpcp.endpoint import calls, isolation
from tcpcp.endpoint.isolation import Flow, Isolation
from tcpcp.errors import IsolationError
from tcpcp.kernel import nft, tcp_repair
from tcpcp.record.ici import Endpoint

KINDS = ("v4", "v6", "mapped")


def left_over() -> list[str]:
    """Names of all filters of ours in this network namespace, in force or expired."""
    prefix = f"table inet {isolation.PREFIX}"
    return [one.removeprefix(prefix) for one in nft.run("list tables").splitlines() if one.startswith(prefix)]


def let_through(filter_: Isolation, flows: list[Flow]) -> None:
    """*flows*, which *filter_* holds, are not held any more; the others stay held."""
    nft.change_elements("delete", filter_.table_name, isolation.flow_sets("flows", flows))


def reaches(sender: socket.socket, receiver: socket.socket, within_s: float) -> bool:
    """Whether a byte from *sender* arrives in time."""
    sender.send(b"x")
    receiver.settimeout(within_s)
    try:
        return receiver.recv(1) == b"x"
    except TimeoutError:
        return False


@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_are_dropped_and_come_back(hosts: Hosts, kind: str) -> None:
    sock, peer = hosts.connect(kind)
    other, other_peer = hosts.connect(kind)
    with hosts.here.entered():
        filter_ = Isolation("one")
        filter_.hold([calls.flow_of(sock)])
        assert not reaches(peer, sock, 0.05)
        assert not reaches(sock, peer, 0.05)
        assert reaches(other, other_peer, 1)
        assert reaches(other_peer, other, 1)
        let_through(filter_, [calls.flow_of(sock)])
        sock.settimeout(3)
        peer.settimeout(3)
        assert sock.recv(1) == peer.recv(1) == b"x"
        filter_.release()
        filter_.release()
    assert hosts.counters(hosts.here)["TcpOutRsts"] == 0


def test_it_expires_by_itself_unless_renewed_or_kept(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    with hosts.here.entered():
        filter_ = Isolation("brief", timeout_s=2)
        filter_.hold([calls.flow_of(sock)])
        assert not reaches(peer, sock, 1.1)
        filter_.refresh()
        assert not reaches(peer, sock, 1.2)
        filter_.keep()
        assert not reaches(peer, sock, 2.2)
        filter_.refresh()
        sock.settimeout(10)  # the peer tries again at 6 s, then at 13 s
        assert sock.recv(1) == b"x"
        assert left_over() == ["brief"]
        isolation.remove("brief")
        assert left_over() == []


@pytest.mark.parametrize("address", ("10.9.0.1", "0.0.0.0"))
def test_listener(hosts: Hosts, address: str) -> None:
    """Held: no answer of any kind. syn_only: what is established goes on. Exempt flows go on."""
    with hosts.here.entered():
        listener = socket.create_server((address, 0), reuse_port=False)
        port = listener.getsockname()[1]
    with hosts.there.entered():
        peer, newcomer = socket.create_connection(("10.9.0.1", port)), socket.socket()
    sock, _ = listener.accept()
    end = Endpoint(ipaddress.ip_address(address), port)
    newcomer.setblocking(False)
    with hosts.here.entered():
        filter_ = Isolation("listener")
        filter_.hold(listeners=[end], syn_only=True)
        newcomer.connect_ex(("10.9.0.1", port))
        assert reaches(peer, sock, 1)
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()
        filter_.hold(listeners=[end])
        assert not reaches(peer, sock, 0.1)
        filter_.add(except_flows=[calls.flow_of(sock)])
        sock.settimeout(3)
        assert sock.recv(1) == b"x"
        listener.close()
        isolated = hosts.counters(hosts.here)
        assert isolated["TcpOutRsts"] == 0
        filter_.release()


@pytest.mark.parametrize(
    ("bound", "asked"), (("10.9.0.1", "10.9.0.1"), ("0.0.0.0", "10.9.0.1"), ("0.0.0.0", "127.0.0.1"))
)
def test_programs_of_this_host_may_connect(hosts: Hosts, bound: str, asked: str) -> None:
    """Where that is let: they alone, until it is let no more."""
    with hosts.here.entered():
        listener = socket.create_server((bound, 0))
        port = listener.getsockname()[1]
        filter_ = Isolation("inside")
        filter_.prepare()
        filter_.let_inside(connect=True)
        filter_.hold(listeners=[Endpoint(ipaddress.ip_address(bound), port)], syn_only=True)
        socket.create_connection((asked, port), timeout=1).close()
    with hosts.there.entered(), pytest.raises(TimeoutError):
        socket.create_connection(("10.9.0.1", port), timeout=0.3)
    with hosts.here.entered():
        filter_.let_inside(connect=False)
        with pytest.raises(TimeoutError):
            socket.create_connection((asked, port), timeout=0.3)
        filter_.let_inside(connect=True)
        socket.create_connection((asked, port), timeout=1).close()
        filter_.release()


def test_marked_packets_pass(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    with hosts.here.entered():
        filter_ = Isolation("mark")
        filter_.hold([calls.flow_of(sock)])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, isolation.MARK)
        assert reaches(sock, peer, 1)
        filter_.release()


def test_many(hosts: Hosts) -> None:
    with hosts.here.entered():
        local = Endpoint(ipaddress.ip_address("10.9.0.1"), 80)
        flows = [
            Flow(local, Endpoint(ipaddress.IPv4Address(0x0A0A0000 + i // 50000), 1024 + i % 50000))
            for i in range(12000)
        ]
        filter_ = Isolation("many")
        filter_.hold(flows)
        assert nft.run("list set inet tcpcp-many flows4").count("10.9.0.1") == 12000
        let_through(filter_, flows[1:])
        assert nft.run("list set inet tcpcp-many flows4").count("10.9.0.1") == 1


def test_whether_it_holds_is_asked_with_one_socket(hosts: Hosts) -> None:
    """To close one after a deletion waits for the kernel, 10 ms and more: a frozen process would wait for it."""
    made: list[str] = []
    watching = [False]
    sys.addaudithook(
        lambda event, _: made.append(event) if watching[0] and event == "socket.__new__" else None
    )
    with hosts.here.entered():
        filter_ = Isolation("asked")
        filter_.hold()
        assert filter_.in_force()
        watching[0] = True
        assert filter_.in_force()
        filter_.release()
        assert not filter_.in_force()
        watching[0] = False
    assert made == []


def test_nothing_in_force_after_an_error(hosts: Hosts) -> None:
    with hosts.here.entered():
        with pytest.raises(IsolationError, match="No such file"):
            Isolation("absent").refresh()
        with pytest.raises(IsolationError):
            Isolation("absent").add([Flow(*(Endpoint(ipaddress.ip_address("10.9.0.1"), 1),) * 2)])
        assert left_over() == []


@pytest.mark.parametrize("name", ("", "a b", "x;y", "ü", "a" * 65, "-a", "a\n"))
def test_names_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        Isolation(name)


def test_more_descriptors_than_select_takes(hosts: Hosts) -> None:
    """libnftables uses select(2), which ends a process whose descriptor is 1024 or more.

    Source: src/mnl.c mnl_nft_event_listener(), mnl_batch_talk() of nftables 1.0.6.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("hard limit of descriptors below 4096")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    nft.close()
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(2000)]
    try:
        with hosts.here.entered():
            filter_ = Isolation("low")
            filter_.hold()
            filter_.release()
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_from_several_threads_and_after_fork(hosts: Hosts) -> None:
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            with hosts.here.entered():
                for _ in range(5):
                    filter_ = Isolation(name)
                    filter_.hold()
                    assert name in left_over()
                    filter_.release()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    child = os.fork()
    if not child:
        work("child")
        os._exit(len(errors))
    assert os.waitpid(child, 0)[1] == 0
    work("parent")
    assert errors == []


def test_resumed_connection_works(hosts: Hosts) -> None:
    """After get() and resume() the connection is a normal one."""
    sock, peer = hosts.connect()
    with hosts.here.entered():
        calls.get(sock)
        calls.resume(sock)
    sock.sendall(b"y")
    eventually(lambda: not tcp_repair.get_outq(sock), "acknowledged")
    assert peer.recv(1) == b"y"
