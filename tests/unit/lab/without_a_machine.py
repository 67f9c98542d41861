"""Runs a command as ``migrate-lab --vm exec`` does, or ``shell`` with ``-t``: both ends, and no machine."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3])]

from migrate import standard_streams  # noqa: E402
from migrate.lab.vm import begun, client, worker  # noqa: E402


def main() -> int:
    standard_streams.open_closed()
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        begun._back_home = lambda: None  # type: ignore[assignment]  # Of a machine's network there is none.
        worker.serve_one(theirs)
    theirs.close()
    client.connect = lambda *_: ours  # type: ignore[assignment]
    terminal = sys.argv[1] == "-t"
    return client.run((0, 0), ("", 0), sys.argv[1 + terminal :], terminal=terminal)


sys.exit(main())
