"""What the log says of a migration at the destination: whose it is, and how it ended."""

from __future__ import annotations

import os

from migrate.destination.destination import Destination
from migrate.destination.errand import Errand
from migrate.events import log, who
from migrate.pb import session_pb2 as pb
from migrate.version import VERSION


def began(hello: pb.Hello) -> None:
    """A driver has said hello."""
    name = os.uname()
    driver = {"host": hello.hostname, "migrate": hello.version, "protocol": hello.protocol}
    driver |= {"by": hello.asked_by} if hello.asked_by else {}
    log.tell("began", migrate=VERSION, kernel=name.release, host=name.nodename, by=who.asked(), driver=driver)


def ended(here: Destination, errand: Errand) -> None:
    """The session is over, and everything settled."""
    host = os.uname().nodename
    program = f" ({errand.tree.program})" if errand.tree.program else ""
    asked = f", asked for there by {errand.asked_by}" if errand.asked_by else ""
    log.ended(
        here.outcome,
        f"process {errand.tree.pid}{program} from {errand.origin_host} to {host}{asked}: {here.outcome}",
        pid=errand.tree.pid,
        program=errand.tree.program,
        origin=errand.origin_host,
    )
