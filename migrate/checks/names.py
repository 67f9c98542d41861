"""Whether what a tree takes by name is free on the destination, and what it needs by name is there. Pure.

Unix sockets, UDP ports and pseudo terminals; interfaces that sockets are bound to, receivers of datagrams.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from migrate.checks.file_differences import same_place
from migrate.checks.files import pairs
from migrate.checks.subject import DESTINATION, Subject
from migrate.checks.subject import names as words
from migrate.errors import Reason
from migrate.inventory import ports
from migrate.pb.session_pb2 import File, HostInventory, ProcessInventory, TakenName


def names_free(subject: Subject) -> Iterator[Reason]:
    """CRIU would remove a socket of somebody else, or fail after the freeze."""
    for one in subject.destination.taken_names:
        holder = one.holder or "a program of another namespace"
        if one.kind == TakenName.UDP:
            text = f"UDP port {one.port} is taken by {holder} on {one.name}"
            remedy = f"End what uses it there; ss -uanp 'sport = :{one.port}' shows it."
            yield Reason("udp-port-taken", DESTINATION, text, remedy)
        elif one.kind == TakenName.PING:
            text = f"descriptor {one.fd} of {subject.who(one.pid)} is a ping socket, and nobody may have any there"
            remedy = "Permit it there, to root's group at least: sysctl net.ipv4.ping_group_range='0 0'"
            yield Reason("no-ping-sockets", DESTINATION, text, remedy)
        elif one.kind == TakenName.TERMINAL:
            yield _terminal(one)
        elif one.kind == TakenName.RECEIVER:
            text = f"nobody receives on {one.name} there, where {subject.who(one.pid)} sends datagrams"
            remedy = "Start the service there that does (for /dev/log: rsyslog, or systemd-journald)."
            yield Reason("no-receiver", DESTINATION, text, remedy)
        elif one.elsewhere:
            yield _elsewhere(one)
        elif one.occupied:
            text = f"{one.name}, where the process has a unix socket, is something else there"
            yield Reason("unix-path-occupied", DESTINATION, text, "Remove or rename what is there.")
        elif one.kind == TakenName.PATH:
            text = f"the unix socket {one.name} is in use there by {holder}"
            remedy = "End that program there, or let one of the two use another path; ss -xap shows it."
            yield Reason("unix-path-taken", DESTINATION, text, remedy)
        else:
            text = f"the abstract name {one.name} of a unix socket is taken there by {holder}"
            yield Reason("unix-name-taken", DESTINATION, text, "End that program there; ss -xap shows it.")


def _elsewhere(one: TakenName) -> Reason:
    name = one.linked_name or one.name
    text = (
        f"the unix socket {name} of the process would be made at {one.elsewhere} there, and is at {one.name} here:"
        " symbolic links on the way lead elsewhere, or are missing"
    )
    remedy = (
        f"Have the same links on both hosts (namei -l {shlex.quote(name)} shows them), or bind it elsewhere."
    )
    return Reason("unix-path-elsewhere", DESTINATION, text, remedy)


def _terminal(one: TakenName) -> Reason:
    """A pseudo terminal keeps its number, which is part of its name: programs in it know it by that."""
    if one.occupied:
        text = f"the pseudo terminal {one.name} of the process has a number too far above those in use there"
        remedy = (
            "Let the process open it anew when there are fewer, or choose a host with more terminals in use."
        )
        return Reason("terminal-too-high", DESTINATION, text, remedy)
    holder = one.holder or "a program of another namespace"
    text = f"the pseudo terminal {one.name} of the process is in use there by {holder}"
    remedy = f"End that session there (fuser -v {one.name} shows it), or let the process open another one."
    return Reason("terminal-taken", DESTINATION, text, remedy)


def sockets_apart(subject: Subject) -> Iterator[Reason]:
    """CRIU replaces a socket file that is there, and a rollback would find none here if both hosts have the one."""
    for here, there in pairs(subject.process, subject.destination):
        if here.use == File.SOCKET_DIRECTORY and same_place(here, there):
            text = (
                f"{here.path}, in which the process has a unix socket, is one directory for both hosts: the socket"
                " would be replaced while the process may still have to go on at the origin"
            )
            remedy = (
                "Let the program have its socket where each host has a directory of its own, as below /run."
            )
            yield Reason("unix-path-shared", DESTINATION, text, remedy)


def notes(process: ProcessInventory) -> list[str]:
    """Return what becomes of datagrams: to programs that stay, each name once; and of UDP."""
    names = dict.fromkeys(one.name for one in process.names if one.kind == TakenName.RECEIVER)
    found = [f"what the process sends to {name} goes to the destination's after the move" for name in names]
    if udp := sorted({one.port for one in process.names if one.kind == TakenName.UDP}):
        found.append(
            f"datagrams to UDP port {words(map(str, udp))} that the process has not read when it is frozen, or"
            " that arrive while it is, are lost: with UDP the sender has to expect that"
        )
    return found


def notes_on_backlogs(process: ProcessInventory, destination: HostInventory) -> list[str]:
    """Return which listeners get shorter queues there: the kernel cuts what listen(2) asks for."""
    most = destination.most_backlog
    wanted = [(ports.name(one), one.backlog) for one in process.sockets]
    wanted += [(one.name, one.backlog) for one in process.names]
    cut = {name: backlog for name, backlog in wanted if 0 < most < backlog}
    if not cut:
        return []
    return [
        f"at most {most} connections wait to be accepted on {words(cut)} after the move, here up to"
        f" {max(cut.values())}: sysctl net.core.somaxconn={max(cut.values())} on the destination keeps that"
    ]


def interfaces_there(subject: Subject) -> Iterator[Reason]:
    """CRIU binds sockets to interfaces by name (SO_BINDTODEVICE)."""
    there = {one.name for one in subject.destination.interfaces}
    wanted = {one.device: (one.pid, one.fd) for one in subject.process.sockets if one.device}
    wanted |= {o.name: (o.pid, o.fd) for o in subject.process.names if o.kind == TakenName.INTERFACE}
    for name, (pid, fd) in sorted(wanted.items()):
        if name not in there:
            text = f"descriptor {fd} of {subject.who(pid)} is bound to the interface {name}, which does not exist"
            remedy = (
                f"Give an interface there that name (ip link set DEVICE name {name}), or let the program bind to an"
                " address instead."
            )
            yield Reason("no-interface", DESTINATION, text, remedy)
