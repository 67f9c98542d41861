"""The arguments of ``migrate``: words in, what was asked for out, or why it makes no sense."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from migrate import limits, reached
from migrate.errors import MEANS
from migrate.request import (
    MEMORY,
    SWITCH,
)
from migrate.words import Parser
from tcpcp import exit_status
from tcpcp.version import VERSION

STOP_AT = "MIGRATE_STOP_AT"

_EPILOG = f"""\
{exit_status.sentence(MEANS)}

Every migration leaves a log in /var/log/migrate/ID on both hosts, for 30 days and at most 200 of them
(MIGRATE_LOG_DAYS, MIGRATE_LOGS), and one line in the system's log.
"""
_USAGE = (
    "migrate [options] PID [PID ...] HOST\n"
    "       migrate --check [options] PID\n"
    "       migrate [options] --container NAME[@RUNTIME] HOST\n"
    "       migrate [options] --unit NAME HOST\n"
    "       migrate --recover [--resume ID | --release ID] [--force] [options]\n"
    "       migrate --forwards [--end ID]\n"
    "       migrate ps [--json]\n"
    "       migrate doctor [options] [HOST]\n"
    "       migrate plugin install|status|uninstall"
)


def parser() -> argparse.ArgumentParser:
    """What reads the words; it raises UsageError where they make no sense."""
    made = Parser(
        prog="migrate",
        usage=_USAGE,
        description="Move the process PID, its children and all their TCP connections to HOST.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    _add_whom(add)
    add("--version", action="version", version=f"migrate {VERSION}")
    add("--json", action="store_true", help="JSON lines on standard output; the last one is the report")
    add(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="show the main events of the log as they come, on standard error, and details on failure: the first"
        " errors of CRIU's log; -vv shows all events",
    )
    _add_what_moves(add)
    add(
        "--memory",
        metavar="KIND",
        default=MEMORY,
        help="what is sent of it while the process runs (default: %(default)s, in rounds); none: all in the freeze",
    )
    _add_limits(add)
    reached.add(add)
    add("--report", metavar="FILE", default="", help="write a timeline of it to FILE, .html or .svg")
    _add_recover(add)
    add("--stop-at", metavar="STATE", default=os.environ.get(STOP_AT, ""), help=argparse.SUPPRESS)
    return made


def _add_whom(add: Callable[..., object]) -> None:
    """What moves, and where to."""
    add(
        "pid",
        metavar="PID",
        nargs="*",
        help="process on this host, by its number, by the name of its program, or as :PORT on which it listens; its"
        " children move with it. Several are moved one after the other",
    )
    # Filled by nobody: the words before it take all, and the last of them is it.
    add("host", metavar="HOST", nargs="?", help="[user@]host, as ssh understands it")
    add(
        "--keep-going",
        action="store_true",
        help="of several processes: move those that can be moved, although others are refused or were not moved",
    )
    add(
        "--container",
        metavar="NAME[@RUNTIME]",
        default="",
        help="instead of PID: the container NAME of podman, runc or crun on this host, with its files",
    )
    add(
        "--unit",
        metavar="NAME",
        default="",
        help="instead of PID: the service NAME of systemd on this host; on HOST it becomes that of the same name,"
        " which is there and stopped",
    )
    add(
        "--check",
        action="store_true",
        help="only say whether it would work: 0, or 3 with all reasons; without HOST: those that this host knows",
    )


def _add_what_moves(add: Callable[..., object]) -> None:
    """What goes along with the process, what stays although it goes, and how its clients find it then."""
    add(
        "--switch",
        metavar="KIND",
        default=SWITCH,
        help="how traffic is switched (%(default)s: it moves with the process). With the service address on both"
        " hosts: route:GATEWAY, of which a route is changed, by ssh; exec:/COMMAND, called on both for each stage;"
        " none, if the network does it by itself. forward: this host forwards connections that the process has made"
        " from its own address, and is needed as long as they live; forward+KIND: these, and service addresses by"
        " KIND; auto: address, with forward for what needs it",
    )
    add("--copy-files", action="store_true", help="copy files and directories that HOST lacks")
    add("--copy-tree", metavar="DIR", action="append", default=[], help="copy DIR and all in it; repeatable")
    add(
        "--external-socket",
        metavar="PATH",
        action="append",
        default=[],
        help="connections to the unix socket PATH of another program are begun anew on HOST, to the one there: as"
        " new ones, which the process has to bear; refused while something is on its way; repeatable",
    )
    add("--shell-job", action="store_true", help="the process belongs to a shell's session")
    add(
        "--leave-supervisor",
        action="store_true",
        help="go on although a supervisor of the process (a parent, systemd) will see it die here",
    )
    _add_addresses(add)


def _add_addresses(add: Callable[..., object]) -> None:
    """Which addresses move with it."""
    add(
        "--address",
        metavar="ADDR",
        action="append",
        default=[],
        help="a service address that moves too, beside those that sockets of the process are bound to or have"
        " connections on; for a server that is bound to 0.0.0.0 or [::] and may have no client; repeatable",
    )
    add(
        "--no-address",
        action="store_true",
        help="no address moves with a server that is bound to 0.0.0.0 or [::] and has no client: you see to it that"
        " clients find it on HOST",
    )


def _add_limits(add: Callable[..., object]) -> None:
    """How long it may take."""
    add(
        "--timeout", metavar="S", default=limits.STEP_S, help="for one step as a whole, seconds (%(default)g)"
    )
    add(
        "--max-gap",
        metavar="S",
        default=limits.MOST_GAP_S,
        help="how long the process may be frozen, and new connections be held, seconds (%(default)g); it goes on"
        " here if it could not be given away by then",
    )


def _add_recover(add: Callable[..., object]) -> None:
    add("--recover", action="store_true", help="undo or explain what a migration that died left on this host")
    add("--resume", metavar="ID", default="", help="with --recover: let the process go on here")
    add("--release", metavar="ID", default="", help="with --recover: it runs on HOST; end the copy here")
    add(
        "--force",
        action="store_true",
        help="with --resume or --release: although HOST cannot be asked where the process is; if you are wrong,"
        " two copies run, or none",
    )
    _add_forwards(add)


def _add_forwards(add: Callable[..., object]) -> None:
    add(
        "--forwards",
        action="store_true",
        help="list the connections that --switch forward has forwarded from this host, or to it",
    )
    add("--end", metavar="ID", default="", help="with --forwards: forward those of that migration no more")
