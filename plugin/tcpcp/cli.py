"""The command `tcpcp`: looks at ICI images, and tidies up. Passing connections is for programs; see the package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from tcpcp import exit_status, standard_streams
from tcpcp.errors import CodecError, TcpcpError
from tcpcp.record import codec, text
from tcpcp.record.ici import Ici
from tcpcp.version import VERSION

EXITS = {
    0: "done, all images were good",
    1: "an image was not, or could not be read, or its contents not be written; or tidying up was not permitted",
    2: "wrong arguments",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    :param argv: arguments without the program's name; None: those of the process.
    :return: exit status, see :data:`EXITS`. Wrong usage exits itself.
    """
    standard_streams.open_closed()
    args = _parser().parse_args(argv)
    try:
        good = _sweep() if args.command == "sweep" else _show_all(args.files, as_json=args.json)
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = None  # keep the interpreter from flushing again
        if isinstance(error, BrokenPipeError):  # `tcpcp show ... | head`
            return 0
        print(f"tcpcp: standard output: {error.strerror}", file=sys.stderr)
        return 1
    return 0 if good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tcpcp", description="Look at images of TCP connections.", epilog=exit_status.sentence(EXITS)
    )
    parser.add_argument("--version", action="version", version=f"tcpcp {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    show = commands.add_parser("show", help="print the connections in ICI images")
    show.add_argument("files", nargs="+", metavar="FILE", help="an ICI image; - is the standard input")
    show.add_argument("--json", action="store_true", help="one JSON object a line for each connection")
    commands.add_parser("sweep", help="delete empty packet filters that programs which have ended left here")
    return parser


def _sweep() -> bool:
    from tcpcp.endpoint import flow_table

    try:
        swept = flow_table.sweep()
    except TcpcpError as error:
        print(f"tcpcp: {error}", file=sys.stderr)
        return False
    for name in swept:
        print(f"deleted table inet {name}")
    return True


def _show_all(names: Sequence[str], *, as_json: bool) -> bool:
    good = True
    for name in names:
        good &= _show(name, as_json=as_json)
    return good


def _show(name: str, *, as_json: bool) -> bool:
    """Print what is good in one image; whether all of it was.

    :raises OSError: the standard output does not take it.
    """
    try:
        for ici in _icis(name):
            print(json.dumps(text.as_json(ici)) if as_json else text.as_text(ici))
    except (CodecError, _Unreadable) as error:
        print(f"tcpcp: {text.file_name(name)}: {error}", file=sys.stderr)
        return False
    return True


class _Unreadable(Exception):
    """A file that cannot be read, and why: not an OSError, for such are those of the standard output."""


def _icis(name: str) -> Iterator[Ici]:
    try:
        data = _read(name)
    except OSError as error:
        raise _Unreadable(error.strerror) from error
    if not data:
        raise CodecError("offset 0: expected an ICI record, the file is empty")
    return codec.loads_many(data)


def _read(name: str) -> bytes:
    if name == "-":
        return _records(sys.stdin.buffer)
    with Path(name).open("rb") as file:
        return _records(file)


def _records(file: BinaryIO) -> bytes:
    """What the codec needs to see of *file*: all its records, and the beginning of what is none.

    So a device without an end, or a large file of another kind, is not read until memory is full.

    :raises OSError: it cannot be read.
    """
    data = bytearray()
    while head := file.read(codec.HEADER.size):
        data += head
        if len(head) < codec.HEADER.size or not head.startswith(codec.MAGIC):
            break
        length = int(codec.HEADER.unpack(head)[3])
        if length > codec.MAX_MESSAGE_BYTES:
            break
        data += file.read(length)
    return bytes(data)


if __name__ == "__main__":
    sys.exit(main())
