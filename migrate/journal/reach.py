"""How the other host of a migration was reached, so that it can be reached again, by us or by a person.

It stands in the first line of the origin's journal.
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from migrate.request import AGENT, TRANSPORT, Request


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The way to a host; what a :class:`migrate.transport.Transport` is asked to open.

    :ivar transport: a name of :mod:`migrate.transport`: it is asked again in the way in which it was reached.
    :ivar host: as in :class:`migrate.request.Request`.
    :ivar port, identity, agent: as in :class:`migrate.request.Way`; the file's path is absolute.
    :ivar home: whose ``.ssh`` was used.
    :ivar sudo: whether the agent was started with ``sudo -n``.
    :ivar boot_id: of the kernel that ran there (/proc/sys/kernel/random/boot_id); after a restart, or on
        another machine that has got the name, it is another one.
    """

    host: str
    port: int | None = None
    identity: str = ""
    agent: str = AGENT
    home: str = ""
    sudo: bool = False
    boot_id: str = ""
    transport: str = TRANSPORT

    @classmethod
    def of(cls, request: Request) -> Reach:
        """The way that *request* names; how it was there is not known before it has been gone."""
        way = request.way
        identity = str(Path(way.identity).expanduser().absolute()) if way.identity else ""
        return cls(
            host=request.host,
            port=way.port,
            identity=identity,
            agent=way.agent,
            home=str(Path.home()),
            transport=way.transport,
        )

    def gone(self, *, sudo: bool, boot_id: str) -> Reach:
        """It when it has been gone, and the host there has said who it is."""
        return dataclasses.replace(self, sudo=sudo, boot_id=boot_id)

    def as_json(self) -> dict[str, Any]:
        """It as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, found: dict[str, Any], host: str) -> Reach:
        """What :meth:`as_json` wrote; where a field is missing, the default counts, and *host*."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{"host": host} | {name: value for name, value in found.items() if name in names})

    def command(self, *words: str) -> str:
        """The shell command that runs ``migrate`` with *words* there, as root."""
        program = str(Path(self.agent).with_name("migrate")) if "/" in self.agent else "migrate"
        there = [*(["sudo", "-n"] if self.sudo else []), program, *words]
        port = ["-p", str(self.port)] if self.port else []
        identity = ["-i", self.identity] if self.identity else []
        return shlex.join(["ssh", *port, *identity, self.host, shlex.join(there)])


def boot_id() -> str:
    """The id of this boot of this host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
