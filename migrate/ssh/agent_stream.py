"""The agent's end of an SSH channel as a byte stream, and why it ended."""

from __future__ import annotations

import collections
import contextlib
import shlex
import threading

import paramiko

from migrate import limits, threads
from migrate.errors import TransportError
from migrate.ssh import sockets
from migrate.ssh.config import HostConfig

PHASE = "connect"

_PIECE_BYTES = 32 << 10
_STDERR_LINES = 50
_LINE_CHARS = 500
_NOT_FOUND = 127
_NOT_EXECUTABLE = 126


class AgentStream:
    """Standard input and output of the agent; see :class:`migrate.link.stream.Stream`.

    Its standard error is kept, the last lines of it, for :meth:`explain`.
    """

    def __init__(
        self,
        transport: paramiko.Transport,
        channel: paramiko.Channel,
        config: HostConfig,
        agent: str,
    ) -> None:
        self._transport = transport
        self._channel = channel
        self._config = config
        self._agent = agent
        self._stderr: collections.deque[str] = collections.deque(maxlen=_STDERR_LINES)
        # It must be read: it shares the channel's window with standard output.
        self._stderr_thread = threading.Thread(target=self._read_stderr, name="ssh-stderr", daemon=True)
        threads.start(self._stderr_thread)

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
        self._channel.status_event.wait(timeout_s)

    def close(self) -> None:
        """See :class:`migrate.link.stream.Stream`. The whole SSH connection is closed: it serves nothing else."""
        sockets.close_transport(self._transport)
        if self._stderr_thread is not threading.current_thread():
            self._stderr_thread.join(limits.SSH_STATUS_S)

    def stderr(self) -> list[str]:
        """Return the last lines that the agent, or the shell that starts it, wrote to standard error."""
        return list(self._stderr)

    def explain(self) -> TransportError | None:
        """Say why the stream has ended, or None if it is not known. Waits a little for the exit status."""
        self._channel.status_event.wait(limits.SSH_STATUS_S)
        if self._channel.exit_status < 0 and self._transport.is_active() and not self._channel.closed:
            return None
        self._stderr_thread.join(limits.SSH_STATUS_S)
        status = self._channel.exit_status
        if status >= 0:
            return self._exited(status)
        if not self._transport.is_active():
            error = self._transport.get_exception()
            text = f"the SSH connection to {self._config.name} broke: {error or 'it was closed'}"
            return self._error(text, "Look whether the host is up and the network between the two works.")
        hint = f"Look at the log of {self._config.name}: something killed it."
        return self._error(f"the agent on {self._config.name} was killed", hint)

    def _exited(self, status: int) -> TransportError:
        name, user, said = self._config.name, self._config.user, " ".join(self._stderr)
        if "sudo:" in said and f"{self._agent}: command not found" not in said:
            return self._error(
                f"{user} is not root on {name} and may not become root: {self._last_line()}",
                f"Log in as root@{name}, or let {user} run {self._agent} there by sudo without a password.",
            )
        if status in (_NOT_FOUND, _NOT_EXECUTABLE) or "command not found" in said:
            return self._error(
                f"there is no agent on {name}: {self._agent} cannot be run: {self._last_line()}",
                "Install migrate there in the same version (`pip install . ./plugin` or `make setup`), or say "
                "where its migrate-agent is with --agent PATH.",
            )
        text = f"the agent on {name} ended with status {status}"
        hint = (
            f"`ssh {shlex.quote(name)} {shlex.quote(self._agent)} --version` shows whether it starts at all."
        )
        return self._error(text + (f": {self._last_line()}" if said else ""), hint)

    def _error(self, text: str, hint: str) -> TransportError:
        return TransportError(text, hint=hint, details=self.stderr())

    def _last_line(self) -> str:
        return self._stderr[-1] if self._stderr else "it said nothing"

    def _end_input(self) -> None:
        with contextlib.suppress(Exception):
            self._channel.shutdown_write()

    def _read_stderr(self) -> None:
        rest = ""
        with contextlib.suppress(OSError):
            while data := self._channel.recv_stderr(_PIECE_BYTES):
                *lines, rest = (rest + data.decode(errors="replace")).split("\n")
                self._stderr += [line[:_LINE_CHARS] for line in lines if line.strip()]
                rest = rest[-_LINE_CHARS:]
        if rest.strip():
            self._stderr.append(rest)
