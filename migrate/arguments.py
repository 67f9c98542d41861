"""The arguments of ``migrate``: words in, what was asked for out, or why it makes no sense."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import NoReturn

from migrate import limits, memory, switch, transport, whom, words
from migrate.errors import UsageError
from migrate.report import file as report_file
from migrate.request import (
    AGENT,
    MEMORY,
    SWITCH,
    TRANSPORT,
    Along,
    ForwardsRequest,
    RecoverRequest,
    Request,
    Way,
)
from migrate.ssh import host
from tcpcp.version import VERSION

STOP_AT = "MIGRATE_STOP_AT"

_USAGE = (
    "migrate [options] PID HOST\n"
    "       migrate [options] --container NAME[@RUNTIME] HOST\n"
    "       migrate [options] --unit NAME HOST\n"
    "       migrate --recover [--resume ID | --release ID] [--force] [options]\n"
    "       migrate --forwards [--end ID]\n"
    "       migrate plugin install|status|uninstall"
)
_EPILOG = """\
Exit status: 0 moved (or the check passed), 2 wrong arguments, 3 nothing was touched, 4 rolled back: the
process runs on here, 5 in doubt: do what the report says, 6 it has ended, 70 a bug.

Every migration leaves a log in /var/log/migrate/ID on both hosts, for 30 days and at most 200 of them
(MIGRATE_LOG_DAYS, MIGRATE_LOGS), and one line in the system's log.
"""


class _Parser(argparse.ArgumentParser):
    """Raises instead of leaving the program."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint="See `migrate --help`.")


def parser() -> argparse.ArgumentParser:
    """What reads the words; it raises UsageError where they make no sense."""
    made = _Parser(
        prog="migrate",
        usage=_USAGE,
        description="Move the process PID, its children and all their TCP connections to HOST.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    whom.add_to(add)
    add("--version", action="version", version=f"migrate {VERSION}")
    add("--check", action="store_true", help="only say whether it would work: 0, or 3 with all reasons")
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
    _add_way(add)
    add("--report", metavar="FILE", default="", help="write a timeline of it to FILE, .html or .svg")
    _add_recover(add)
    add("--stop-at", metavar="STATE", default=os.environ.get(STOP_AT, ""), help=argparse.SUPPRESS)
    return made


def _add_way(add: Callable[..., object]) -> None:
    """How HOST is reached."""
    add(
        "--transport",
        metavar="KIND",
        default=TRANSPORT,
        help="how HOST is reached (%(default)s); ssh: by your own ssh program, with all that it can",
    )
    add("--agent", metavar="PATH", default=AGENT, help="the agent's program on HOST (%(default)s)")
    add("--identity", metavar="FILE", default="", help="private key to log in with")
    add("--port", metavar="N", help="port of HOST's sshd")


def _add_what_moves(add: Callable[..., object]) -> None:
    """What goes along with the process, what stays although it goes, and how its clients find it then."""
    add(
        "--switch",
        metavar="KIND",
        default=SWITCH,
        help="how traffic is switched (%(default)s: it moves with the process). With the service address on both"
        " hosts: route:GATEWAY, of which a route is changed, by ssh; exec:/COMMAND, called on both for each stage;"
        " none, if the network does it by itself. forward: this host forwards connections that the process has made"
        " from its own address, as long as they live",
    )
    add("--copy-files", action="store_true", help="copy files and directories that HOST lacks")
    add("--copy-tree", metavar="DIR", action="append", default=[], help="copy DIR and all in it; repeatable")
    add("--shell-job", action="store_true", help="the process belongs to a shell's session")
    add(
        "--leave-supervisor",
        action="store_true",
        help="go on although a supervisor of the process (a parent, systemd) will see it die here",
    )
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


def request(options: argparse.Namespace) -> Request | RecoverRequest | ForwardsRequest:
    """Return what was asked for.

    :raises UsageError: it makes no sense.
    """
    if options.end and not options.forwards:
        raise words.wrong("--end needs --forwards")
    if options.forwards:
        return _forwards_request(options)
    if options.recover:
        return _recover_request(options)
    if options.resume or options.release or options.force:
        raise words.wrong("--resume, --release and --force need --recover")
    pid, named, host = whom.asked(options)
    return Request(
        pid=pid,
        host=_host(host),
        named=named,
        check=options.check,
        along=_along(options),
        switch=words.switch(options.switch, switch.OWN, switch.names),
        memory=words.known("--memory", options.memory, memory.OWN, lambda: [*memory.OWN]),
        timeout_s=words.seconds("--timeout", options.timeout),
        max_gap_s=words.seconds("--max-gap", options.max_gap),
        way=_way(options),
        report_file=options.report and report_file.check(options.report),
        stop_at=options.stop_at,
    )


def _along(options: argparse.Namespace) -> Along:
    return Along(
        copy_files=options.copy_files,
        copy_trees=tuple(dict.fromkeys(map(words.tree, options.copy_tree))),
        shell_job=options.shell_job,
        leave_supervisor=options.leave_supervisor,
        addresses=tuple(dict.fromkeys(map(words.address, options.address))),
        no_address=_no_address(options),
    )


def _way(options: argparse.Namespace) -> Way:
    return Way(
        transport=words.known("--transport", options.transport, transport.OWN, transport.names),
        agent=words.word("--agent", options.agent),
        identity=options.identity,
        port=None if options.port is None else words.number("--port", options.port, 65535),
    )


def _recover_request(options: argparse.Namespace) -> RecoverRequest:
    if options.pid is not None:
        raise words.wrong("--recover takes no PID and no HOST")
    if options.report:
        raise words.wrong("--recover takes no --report")
    if options.resume and options.release:
        raise words.wrong("--resume and --release exclude each other")
    if options.force and not (options.resume or options.release):
        raise words.wrong("--force needs --resume or --release")
    return RecoverRequest(
        resume=options.resume,
        release=options.release,
        force=options.force,
    )


def _forwards_request(options: argparse.Namespace) -> ForwardsRequest:
    if options.pid is not None or options.recover or options.json or options.report:
        raise words.wrong("--forwards is used alone, or with --end")
    return ForwardsRequest(end=options.end)


def _no_address(options: argparse.Namespace) -> bool:
    if options.no_address and options.address:
        raise words.wrong("--address and --no-address exclude each other")
    return bool(options.no_address)


def _host(text: str) -> str:
    host.split(text)
    return text
