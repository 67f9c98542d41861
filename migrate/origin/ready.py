"""What has been made before the freeze, and is there in every state after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from migrate.files.images import Sender
from migrate.gap.capture import Capture, Forwarder
from migrate.gap.lease import Lease
from migrate.journal.journal import Journal
from migrate.memory import Memory
from migrate.origin.ending import Ending
from migrate.origin.move import Move
from migrate.recovery.guardian import Guardian
from migrate.recovery.hold import Hold
from migrate.switch import Switch
from tcpcp.endpoint.isolation import Isolation


@dataclass(frozen=True, slots=True)
class Packets:
    """What becomes of packets meanwhile: the filter holds them off, we catch them, and send them on."""

    capture: Capture
    forwarder: Forwarder
    isolation: Isolation
    lease: Lease


@dataclass(frozen=True, slots=True)
class Images:
    """Where the images are written, who sends them, and what becomes of the memory."""

    directory: Path
    sender: Sender
    memory: Memory


@dataclass(frozen=True, slots=True)
class Ready:
    """All of it.

    :ivar ending: how it ends, well or not.
    :ivar hold: what keeps the tree still beside CRIU.
    """

    move: Move
    journal: Journal
    guardian: Guardian
    ending: Ending
    hold: Hold
    packets: Packets
    images: Images
    switch: Switch
