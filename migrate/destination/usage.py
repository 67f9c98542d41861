"""How ``migrate-agent`` is used; apart from the agent, whose start has no time for it."""

from __future__ import annotations

import argparse

from tcpcp import exit_status
from tcpcp.version import VERSION

EXITS = {
    0: "the session is over, and what was begun is done or undone",
    1: "the other side said what does not belong there",
    2: "wrong arguments, or no connection to a driver",
}


def parser() -> argparse.ArgumentParser:
    """What says it; the agent reads its words itself."""
    made = argparse.ArgumentParser(
        prog="migrate-agent",
        usage="migrate-agent [--version]\n       migrate-agent --gateway [--to HOP]... ADDRESS...",
        description="The part of migrate on the destination: migrate starts it over SSH, and speaks to it on its"
        " standard input and output. With --gateway it is what a key on a gateway is bound to (command= in"
        " authorized_keys): whoever has the key may have routes to the ADDRESSes lead to the HOPs, and no more.",
        epilog=exit_status.sentence(EXITS),
    )
    made.add_argument("--version", action="version", version=VERSION)
    made.add_argument("--gateway", action="store_true", help="answer for the routes of this host")
    made.add_argument(
        "--to",
        metavar="HOP",
        action="append",
        help="with --gateway: an address that routes may lead to; repeatable",
    )
    made.add_argument(
        "addresses",
        metavar="ADDRESS",
        nargs="*",
        help="with --gateway: an address whose route may be changed",
    )
    return made
