"""How things are said in each protocol, and which of them two sides speak: the newest that both know. Pure.

The driver says in its hello the newest and the oldest protocol that it speaks, the agent which of them it is to be,
or, if there is none, what it speaks itself. A hello is the same in all of them, and so is a ping. Of protocol 2 and
before a side speaks one only, and says no oldest.

A change of a format that is carried (an ICI's, the manifest's) makes another protocol: so it is refused here,
before anything was touched, and not in the freeze.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from google.protobuf.message import Message

from migrate.errors import Reason, Refused
from migrate.link import payloads, protocol_2
from migrate.link.payloads import Said
from migrate.pb.session_pb2 import Hello
from migrate.version import VERSION

#: What we speak, and all between the two.
NEWEST, OLDEST = 3, 2


class Speech(Protocol):
    """One side of a session in one protocol."""

    def frames(self, said: Said, kind: str) -> Iterable[tuple[str, Message, bytes]]:
        """The frames that *said* becomes: kind, message and payload of each."""

    def heard(self, kind: str, message: Message, payload: bytes) -> tuple[str, Said]:
        """What a frame says, and of which kind that is. :raises ProtocolError: nothing."""

    def unheard(self, said: Said) -> list[str]:
        """What of *said* a partner of this protocol passes over: sentences for the user."""


class Newest:
    """As it is said today: see :mod:`migrate.link.payloads`."""

    def frames(self, said: Said, kind: str) -> Iterator[tuple[str, Message, bytes]]:
        """See :class:`Speech`."""
        if isinstance(said, Message):
            yield kind, said, b""
        else:
            yield kind, *payloads.split(said)

    def heard(self, kind: str, message: Message, payload: bytes) -> tuple[str, Said]:
        """See :class:`Speech`."""
        return kind, payloads.joined(message, payload)

    def unheard(self, said: Said) -> list[str]:
        """See :class:`Speech`."""
        return []


def of(protocol: int, version: str) -> Speech:
    """That of *protocol*, with a partner of *version*."""
    return protocol_2.Speech(version) if protocol == protocol_2.NUMBER else Newest()


def hello(
    migration_id: str,
    *,
    hostname: str,
    boot_id: str,
    protocol: int = NEWEST,
    logged: bool = False,
    asked_by: str = "",
) -> Hello:
    """Ours.

    :param logged: a log of the migration is wanted, and kept.
    :param asked_by: who has asked for it, for that log.
    """
    return Hello(
        protocol=protocol,
        oldest_protocol=OLDEST,
        version=VERSION,
        migration_id=migration_id,
        hostname=hostname,
        boot_id=boot_id,
        logged=logged,
        asked_by=asked_by,
    )


def answer(driver: Hello) -> int:
    """The protocol that an agent says in its answer to *driver*."""
    common = min(NEWEST, driver.protocol)
    return common if common >= max(OLDEST, driver.oldest_protocol or driver.protocol) else NEWEST


def agreed(agent: Hello) -> int:
    """The protocol that a driver speaks with *agent*, by its answer.

    :raises Refused: none; which side needs another version, and how it gets it.
    """
    if OLDEST <= agent.protocol <= NEWEST:
        return agent.protocol
    theirs = _range(agent.oldest_protocol or agent.protocol, agent.protocol)
    text = (
        f"its migrate-agent is version {agent.version} ({theirs}), this migrate is {VERSION}"
        f" ({_range(OLDEST, NEWEST)})"
    )
    side, wanted = ("destination", VERSION) if agent.protocol < OLDEST else ("origin", agent.version)
    remedy = (
        f"Install version {wanted}, or one next to it, on the {side}: `pip install . ./plugin` there, in its"
        " sources. The process was not touched."
    )
    raise Refused([Reason("version", "destination", text, remedy)])


def _range(oldest: int, newest: int) -> str:
    return f"protocol {newest}" if oldest == newest else f"protocols {oldest} to {newest}"
