"""One call of a program that has a few seconds: told something, waited for, ended with all that it has started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from migrate import limits
from migrate.errors import SwitchError

#: So much of what it has said, from its end, stands in an error.
_MOST_SAID_BYTES, _MOST_SAID_LINES = 8192, 20


def run(words: Sequence[str], told: bytes, environment: Mapping[str, str], stage: str) -> None:
    """Run *words*, with *told* on its standard input; it is over when this returns.

    :param stage: what it is called for, for the message.
    :raises SwitchError: it could not be started, has ended with another status than 0, or not within
        limits.COMMAND_S: then its process group is killed. What it has said is in the details.
    """
    with _file("told", told) as told_file, _file("said") as said_file:
        try:
            process = subprocess.Popen(
                words,
                stdin=told_file,
                stdout=said_file,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise SwitchError(f"{words[0]} cannot be started: {error.strerror}") from error
        how = _waited(process)
        if how:
            said = _said(said_file)
            text = f"{words[0]} {how} at the stage {stage}" + (f": {said[-1]}" if said else "")
            hint = f"Look for why it fails, and what it has left half done: its stage is {stage!r}."
            raise SwitchError(text, hint=hint, details=said)


def _waited(process: subprocess.Popen[bytes]) -> str:
    """How it has failed, or "". It is gone in any case, and reaped."""
    pidfd = os.pidfd_open(process.pid)  # its number is its own until it is reaped
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(1000 * limits.COMMAND_S):
            status = process.wait()
            return _failure(status)
        return f"did not end within {limits.COMMAND_S:g} s"
    finally:
        os.close(pidfd)
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _failure(status: int) -> str:
    if status < 0:
        return f"was killed by signal {-status}"
    return f"ended with status {status}" if status else ""


@contextlib.contextmanager
def _file(name: str, content: bytes = b"") -> Iterator[int]:
    """A file in memory: no pipe has to be read or filled while the program runs."""
    made = os.memfd_create(f"migrate-{name}")
    try:
        os.write(made, content)
        os.lseek(made, 0, os.SEEK_SET)
        yield made
    finally:
        os.close(made)


def _said(said_file: int) -> list[str]:
    size = os.fstat(said_file).st_size
    begin = max(0, size - _MOST_SAID_BYTES)
    text = os.pread(said_file, _MOST_SAID_BYTES, begin).decode(errors="replace")
    lines = ("".join(c if c.isprintable() else "?" for c in line).strip() for line in text.splitlines())
    return [line for line in lines if line][-_MOST_SAID_LINES:]
