"""`--report FILE`: a migration's timeline, written to a file when it is over."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from migrate.errors import UsageError
from migrate.report.report import Report

SUFFIXES = (".html", ".svg")


def check(text: str) -> str:
    """Return *text* if a report can be written to that file. Leaves nothing behind.

    :raises UsageError: another suffix, no such directory, or one that cannot be written to.
    """
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise _wrong(f"--report is a file that ends in {' or '.join(SUFFIXES)}, not {text!r}")
    if path.exists() and not path.is_file():
        raise _wrong(f"--report {text!r}: that is there, and no file")
    try:
        # To root, permissions say nothing, and a file system may still refuse.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _wrong(f"--report {text!r}: its directory cannot be written to: {error.strerror}") from None
    return text


def write(text: str, report: Report) -> None:
    """Write the timeline of *report* to the file, in place of what was there. It is whole, or as it was.

    :raises OSError: it could not be written; nothing is left.
    """
    # Here, since few migrations are drawn.
    from migrate.report import html, svg

    path, origin_name = Path(text), os.uname().nodename
    if path.suffix == ".svg":
        drawing = svg.to_text(svg.draw(report, origin_name))
    else:
        drawing = html.page(report, origin_name)
    _replace(path, drawing.encode())


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(beside, flags, 0o666), "wb") as file:
            file.write(data)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _wrong(text: str) -> UsageError:
    return UsageError(text, hint="See `migrate --help`.")
