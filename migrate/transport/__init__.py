"""How the agent on the other host is started and spoken to: one module each, one small protocol.

A transport gives the agent's standard input and output as a stream of bytes, and all that the rest of the program
wants to know of the way: its two addresses, and why it ended. It asks nobody anything, and trusts no host that the
user does not know. Other packages add theirs to the group :data:`GROUP` of entry points;
:mod:`migrate.testing.transports` says whether one keeps what is promised here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from migrate import plugins
from migrate.errors import MigrateError, TransportError
from migrate.link.stream import Stream

if TYPE_CHECKING:
    from migrate.journal.reach import Reach

GROUP = "migrate.transports"
OWN = ("paramiko", "ssh")


class AgentStream(Stream, Protocol):
    """Standard input and output of an agent, which is being started or runs.

    ``close()`` ends all that was needed for it, may be called twice and by several threads, and leaves neither a
    child nor a thread. Who dies without it ends the agent's input all the same.
    """

    @property
    def ends(self) -> tuple[str, str]:
        """IP addresses of the connection, ours and the host's, once the agent has answered; "" if there is none, as
        behind a proxy."""

    @property
    def sudo(self) -> bool:
        """Whether the agent is started by ``sudo -n``."""

    def explain(self) -> MigrateError | None:
        """Why the stream has ended, with a remedy, or None if that is not known; waits a little for it."""


class Transport(Protocol):
    """One way."""

    def open(self, reach: Reach) -> AgentStream:
        """Start ``reach.agent`` as root on ``reach.host``.

        That it cannot be started may show here, or when the stream is read: then :meth:`AgentStream.explain` tells.

        :raises MigrateError: with a remedy; nothing is left of the try.
        """


def names() -> list[str]:
    """All that are known on this host."""
    return [*OWN, *plugins.names(GROUP)]


def find(name: str) -> Transport:
    """The transport *name*.

    :raises TransportError: it is not known here.
    """
    if name == "paramiko":
        from migrate.transport.by_paramiko import ByParamiko

        return ByParamiko()
    if name == "ssh":
        from migrate.transport.by_ssh import BySsh

        return BySsh()
    made: Transport = plugins.load(GROUP, name, OWN, TransportError)()
    return made
