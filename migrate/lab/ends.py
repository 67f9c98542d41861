"""How ``migrate-lab`` ends when it is broken off, or has something to complain of."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from migrate.lab.errors import LabError


def say(text: str) -> None:
    """Say it on standard output. :raises LabError: that takes nothing; BrokenPipeError: nobody reads it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Where Python will try again.
        raise LabError(f"standard output: {error.strerror}") from None


def complain(text: str) -> None:
    """Say it on standard error; what cannot be said there is dropped."""
    try:
        print(f"migrate-lab: {text}", file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Where Python will try again.


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """A ``with`` block that SIGTERM and SIGHUP break off like Ctrl-C; then they end this process, with a word."""
    ends = [signal.SIGTERM, signal.SIGHUP]
    got: list[int] = []

    def break_off(number: int, _: object) -> None:
        for each in ends:
            signal.signal(each, signal.SIG_IGN)
        got.append(number)
        raise KeyboardInterrupt

    before = {each: signal.getsignal(each) for each in ends}
    for each, how in before.items():
        if how is signal.SIG_DFL:
            signal.signal(each, break_off)
    try:
        yield
    finally:
        for each, how in before.items():
            signal.signal(each, how)
        for number in got:
            complain(f"interrupted by {signal.Signals(number).name}")
            os.kill(os.getpid(), number)
