"""How HOST is reached: the options that say it, of every command that goes there, and what they say."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from migrate import transport, words
from migrate.request import AGENT, TRANSPORT, Way


def add(add: Callable[..., object]) -> None:
    """Add them, by a parser's *add*."""
    add(
        "--transport",
        metavar="KIND",
        default=TRANSPORT,
        help="how HOST is reached (%(default)s); ssh: by your own ssh program, with all that it can",
    )
    add("--agent", metavar="PATH", default=AGENT, help="the agent's program on HOST (%(default)s)")
    add("--identity", metavar="FILE", default="", help="private key to log in with")
    add("--port", metavar="N", help="port of HOST's sshd")
    add("--no-config", action="store_true", help="look at no configuration file")


def way(options: argparse.Namespace) -> Way:
    """What they say. :raises UsageError: it makes no sense."""
    return Way(
        transport=words.known("--transport", options.transport, transport.OWN, transport.names),
        agent=words.word("--agent", options.agent),
        identity=options.identity,
        port=None if options.port is None else words.number("--port", options.port, 65535),
    )
