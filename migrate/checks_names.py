"""Whether what a tree takes by name is free on the destination: unix sockets and UDP ports. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks_subject import DESTINATION, Subject
from migrate.errors import Reason
from migrate.pb.session_pb2 import TakenName


def names_free(subject: Subject) -> Iterator[Reason]:
    """CRIU would remove a socket of somebody else, or fail after the freeze."""
    for one in subject.destination.taken_names:
        holder = one.holder or "a program of another namespace"
        if one.kind == TakenName.UDP:
            text = f"UDP port {one.port} is taken by {holder} on {one.name}"
            remedy = f"End what uses it there; ss -uanp 'sport = :{one.port}' shows it."
            yield Reason("udp-port-taken", DESTINATION, text, remedy)
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
