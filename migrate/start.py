"""What the command ``migrate`` is: until it listens to signals by itself, Ctrl-C ends it in one line."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

#: What reads these words minds Ctrl-C itself: it may have done something, and has no such status.
_OTHERS = ("doctor", "plugin", "ps", "--forwards")
_UNTOUCHED = 3


def main() -> int:
    """Call the command with the words of this process; the exit status."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours and not {*_OTHERS}.intersection(sys.argv[1:]):
        signal.signal(signal.SIGINT, _stopped)
    # Here: what is loaded takes longer than a person who has seen a mistake.
    from migrate import cli

    return cli.main()


def _stopped(number: int, frame: FrameType | None) -> None:
    """Nothing has been begun. By the system's own calls: this comes in the middle of whatever is loaded."""
    os.write(2, b"migrate: stopped by SIGINT: nothing was touched\n")
    os._exit(_UNTOUCHED)
