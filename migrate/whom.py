"""Whom the command line names: a process, a container or a unit, and the host where it is to go."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from migrate import words
from migrate.request import Named


def add_to(add: Callable[..., object]) -> None:
    """Add the words for it to a parser's."""
    add(
        "pid",
        metavar="PID",
        nargs="?",
        help="process on this host, by its number, by the name of its program, or as :PORT on which it listens; its"
        " children move with it",
    )
    add("host", metavar="HOST", nargs="?", help="[user@]host, as ssh understands it")
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


def asked(options: argparse.Namespace) -> tuple[int, Named, str]:
    """The PID, or 0; what was named instead; and the host, which is still to be looked at.

    :raises UsageError: it makes no sense.
    """
    if options.container or options.unit:
        return 0, _alone(options), options.pid
    if options.pid is None or options.host is None:
        raise words.wrong("PID and HOST are needed")
    pid, process = words.process(options.pid)
    return pid, Named(process=process), options.host


def _alone(options: argparse.Namespace) -> Named:
    """A container or a unit. :raises UsageError: it does not go with what else was said."""
    which = "--container" if options.container else "--unit"
    if options.container and options.unit:
        raise words.wrong("--container and --unit exclude each other")
    if options.host is not None or options.pid is None:
        raise words.wrong(f"{which} takes the place of PID: HOST alone is needed beside it")
    if options.unit:
        return Named(unit=words.unit(options.unit))
    if options.copy_files:
        raise words.wrong("--container brings its files along, and takes no --copy-files")
    return Named(container=words.container(options.container))
