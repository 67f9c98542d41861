"""The agent's end of an SSH channel as a byte stream, and why it ended."""

from __future__ import annotations

import contextlib
import threading

import paramiko

from migrate import limits, threads
from migrate.errors import TransportError
from migrate.ssh import sockets
from migrate.ssh.agent import Started
from migrate.ssh.last_words import LastWords

_PIECE_BYTES = 32 << 10


class AgentStream:
    """Standard input and output of the agent; see :class:`migrate.link.stream.Stream`.

    Its standard error is kept, the last lines of it, for :meth:`explain`.
    """

    def __init__(self, transport: paramiko.Transport, channel: paramiko.Channel, started: Started) -> None:
        self._transport = transport
        self._channel = channel
        self._started = started
        # It must be read: it shares the channel's window with standard output.
        self._said = LastWords(channel.recv_stderr)
        self._ending: threading.Thread | None = None

    def read(self, n: int) -> bytes:
        """See :class:`migrate.link.stream.Stream`."""
        return self._channel.recv(n)

    def write(self, data: bytes) -> None:
        """See :class:`migrate.link.stream.Stream`."""
        try:
            for start in range(0, len(data), _PIECE_BYTES):
                self._channel.sendall(data[start : start + _PIECE_BYTES])
        except (paramiko.SSHException, EOFError) as error:
            raise OSError(str(error) or "the SSH connection was closed") from error

    def end(self, timeout_s: float) -> None:
        """See :class:`migrate.link.stream.Stream`: the agent's standard input ends; waits for its exit."""
        # In a thread, since this writes too and may hang on a dead connection.
        thread = threading.Thread(target=self._end_input, name="ssh-end", daemon=True)
        threads.start(thread)
        self._ending = thread
        self._channel.status_event.wait(timeout_s)

    def close(self) -> None:
        """See :class:`migrate.link.stream.Stream`. The whole SSH connection is closed: it serves nothing else."""
        sockets.close_transport(self._transport)
        self._said.wait(limits.SSH_STATUS_S)
        if self._ending is not None:  # nothing keeps it any more
            self._ending.join(limits.SSH_STATUS_S)

    def stderr(self) -> list[str]:
        """Return the last lines that the agent, or the shell that starts it, wrote to standard error."""
        return self._said.lines()

    def explain(self) -> TransportError | None:
        """Say why the stream has ended, or None if it is not known. Waits a little for the exit status."""
        self._channel.status_event.wait(limits.SSH_STATUS_S)
        if self._channel.exit_status < 0 and self._transport.is_active() and not self._channel.closed:
            return None
        self._said.wait(limits.SSH_STATUS_S)
        status, said = self._channel.exit_status, self.stderr()
        if status >= 0:
            return self._started.exited(status, said)
        if not self._transport.is_active():
            error = self._transport.get_exception()
            return self._started.broke(str(error or "it was closed"), said)
        return self._started.killed(said)

    def _end_input(self) -> None:
        with contextlib.suppress(Exception):
            self._channel.shutdown_write()
