"""Whether the sockets of the process can be moved, and have a place on the destination. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from migrate.checks import interfaces
from migrate.checks.subject import DESTINATION, ORIGIN, Subject
from migrate.errors import Reason
from migrate.inventory import ports, translated
from migrate.pb.session_pb2 import ProcessInventory, TcpSocket
from tcpcp.record.ici import State

#: What can be done about a socket, by a word of the problem that `tcpcp.endpoint.inspect` names.
_SOCKET_REMEDIES = (
    *translated.REMEDIES,
    ("MSG_ZEROCOPY", "Switch zero-copy sending off in the program (SO_ZEROCOPY)."),
    ("has not", "Try again when the program has read that, or has closed the connection."),
    ("state", "Wait a moment and try again: the connection is being opened or has just ended."),
    ("urgent", "Try again when the program has read it."),
    ("MD5", "Let the program close the connection, or use it without TCP-MD5."),
    ("TCP-AO", "Let the program close the connection, or use it without TCP-AO."),
    ("protocol tls", "Switch kernel TLS off in the program (e.g. nginx: ssl_conf_command Options -KTLS)."),
    ("Multipath", "Let the program use plain TCP (sysctl net.mptcp.enabled=0, and start it again)."),
)


def sockets_whole(subject: Subject) -> Iterator[Reason]:
    """The kernel tells everything about each socket."""
    for one in subject.process.sockets:
        if one.problem:
            text = f"{one.problem} (descriptor {one.fd} of {subject.who(one.pid)})"
            yield Reason("socket", ORIGIN, text, _socket_remedy(one.problem))


def _socket_remedy(problem: str) -> str:
    for word, remedy in _SOCKET_REMEDIES:
        if word in problem:
            return remedy
    return "Let the program close the connection."


def peers_elsewhere(subject: Subject) -> Iterator[Reason]:
    """The far end of a connection is in the tree, or on a third host."""
    inside = _inside(subject.process)
    here, there = interfaces.addresses(subject.origin), interfaces.addresses(subject.destination)
    for one in subject.process.sockets:
        if not ports.is_connection(one):
            continue
        if ports.is_loopback(one.peer_ip) or one.peer_ip in here:
            if inside(one):
                continue
            yield Reason("peer-on-origin", ORIGIN, *_on_origin(one))
        elif one.peer_ip in there:
            text = f"the other end of {ports.name(one)} is on the destination itself"
            remedy = "Choose a third host, or let the process close the connection."
            yield Reason("peer-on-destination", DESTINATION, text, remedy)


def _on_origin(one: TcpSocket) -> tuple[str, str]:
    if one.state == State.CLOSE_WAIT:
        text = f"the other end of {ports.name(one)} was on this host, and has closed it"
        return text, "Try again when the process has closed its end too."
    text = f"the other end of {ports.name(one)} is a process on this host that is not moved"
    return text, "Name a parent of both processes, or let one of them close the connection."


def ports_free(subject: Subject) -> Iterator[Reason]:
    """Nothing on the destination keeps a port that the process has."""
    for taken in subject.destination.taken_ports:
        if ports.is_connection(taken):
            text = f"it has the connection {ports.name(taken)} of the process already"
        else:
            text = f"port {taken.local_port} is taken by {taken.holder or 'a socket'} on {ports.name(taken)}"
        remedy = f"End what uses it there; ss -tanp 'sport = :{taken.local_port}' shows it."
        yield Reason("port-taken", DESTINATION, text, remedy)


def _inside(process: ProcessInventory) -> Callable[[TcpSocket], bool]:
    """Return whether the other end of a connection is in the tree, accepted or waiting to be."""
    sockets = process.sockets
    ends = {(one.peer_ip, one.peer_port, one.local_ip, one.local_port) for one in sockets}
    listening = {(one.local_ip, one.local_port) for one in sockets if not ports.is_connection(one)}
    wildcards = {port for ip, port in listening if not any(ip)}
    return lambda one: (
        (one.local_ip, one.local_port, one.peer_ip, one.peer_port) in ends
        or (one.peer_ip, one.peer_port) in listening
        or one.peer_port in wildcards
    )
