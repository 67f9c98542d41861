"""The command `tcpcp-helper`: serves named users; see docs/helper.md."""

from __future__ import annotations

import argparse
import grp
import pwd
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tcpcp import exit_status, standard_streams
from tcpcp.helper import room
from tcpcp.helper.bounds import Bounds
from tcpcp.helper.client import DEFAULT_PATH
from tcpcp.helper.policy import Allowed, Rights, parse_grant
from tcpcp.helper.protocol import HelperError
from tcpcp.helper.server import Server, inherited, listen
from tcpcp.version import VERSION

EXITS = {0: "it was ended by a signal", 1: "it could not begin", 2: "wrong arguments"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command until SIGTERM.

    :param argv: arguments without the program's name; None: those of the process.
    :return: exit status, see :data:`EXITS`. Wrong usage exits itself.
    """
    standard_streams.open_closed()
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        allowed = Allowed(_by_number(args.user, _uid), _by_number(args.group, _gid))
    except ValueError as error:
        parser.error(str(error))
    if not (allowed.users or allowed.groups):
        parser.error("nobody is served: name somebody with --user or --group")
    bounds = Bounds(args.max_connections, args.max_held, args.max_image_bytes)
    try:
        _serve(args, allowed, _with_room(bounds))
    except (OSError, HelperError) as error:
        print(f"tcpcp-helper: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tcpcp-helper",
        description="Pass TCP connections for users without CAP_NET_ADMIN.",
        epilog=exit_status.sentence(EXITS),
    )
    parser.add_argument("--version", action="version", version=f"tcpcp {VERSION}")
    grant = "NAME[:PORT,FIRST-LAST,...,options]"
    parser.add_argument("--user", action="append", default=[], metavar=grant, help="who may ask, and claim")
    parser.add_argument("--group", action="append", default=[], metavar=grant, help="likewise, its members")
    parser.add_argument(
        "--socket", default=DEFAULT_PATH, metavar="PATH", help="where programs ask; default: %(default)s"
    )
    parser.add_argument("--mode", type=_told(_mode), default=0o660, help="mode of that socket; default: 0660")
    parser.add_argument(
        "--socket-owner", type=_told(_uid), default=-1, metavar="USER", help="who owns that socket"
    )
    parser.add_argument(
        "--socket-group", type=_told(_gid), default=-1, metavar="GROUP", help="whose group it has"
    )
    for name, value in zip(Bounds._fields, Bounds(), strict=True):
        option = f"--max-{name.replace('_', '-')}"
        parser.add_argument(
            option, type=_told(_bound), default=value, metavar="N", help="for each user; %(default)s"
        )
    return parser


def _serve(args: argparse.Namespace, allowed: Allowed, bounds: Bounds) -> None:
    if listener := inherited():
        Server(listener, allowed, bounds).run()
        return
    listener = listen(args.socket, mode=args.mode, uid=args.socket_owner, gid=args.socket_group)
    try:
        Server(listener, allowed, bounds).run()
    finally:
        Path(args.socket).unlink(missing_ok=True)


def _with_room(bounds: Bounds) -> Bounds:
    there = room.make(bounds)
    if there.held < bounds.held:
        print(
            f"tcpcp-helper: at most {there.held} sockets are held for each user instead of {bounds.held}: "
            "this process may have no more descriptors (ulimit -Hn)",
            file=sys.stderr,
            flush=True,
        )
    return there


def _by_number(grants: Sequence[str], number: Callable[[str], int]) -> dict[int, Rights]:
    found: dict[int, Rights] = {}
    for name, rights in map(parse_grant, grants):
        one = number(name)
        found[one] = found.get(one, Rights()) | rights
    return found


def _told(read: Callable[[str], int]) -> Callable[[str], int]:
    """Return *read* for argparse, which would say the function's name in place of what its ValueError says."""

    def told(text: str) -> int:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return told


def _mode(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise ValueError(f"{text!r} is no file's mode: give it in octal digits") from None


def _bound(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ValueError(f"{text!r} is no number from 1 on")
    return int(text)


def _uid(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {name!r}") from None


def _gid(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {name!r}") from None


if __name__ == "__main__":
    sys.exit(main())
