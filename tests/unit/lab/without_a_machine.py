"""Runs a command as ``migrate-lab --vm exec`` does, ``shell`` with ``-t``, ``spawn`` with ``-s``; no machine."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3])]

from migrate import standard_streams  # noqa: E402
from migrate.lab import LabError, enter  # noqa: E402
from migrate.lab.ends import complain  # noqa: E402
from migrate.lab.vm import client, worker  # noqa: E402


def main() -> int:
    standard_streams.open_closed()
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        worker.serve_one(theirs)
    theirs.close()
    client.connect = lambda *_: ours  # type: ignore[assignment]
    terminal = sys.argv[1] == "-t"
    if sys.argv[1] == "-s":
        return client.spawn((0, 0), "", "", sys.argv[2:])
    try:
        return client.run((0, 0), "", sys.argv[1 + terminal :], terminal=terminal)
    except LabError as error:
        complain(str(error))
        return enter.EXIT_LAB


sys.exit(main())
