"""The agent's start over SSH, whichever program speaks it: the words, and what its end means. Pure.

A user other than root needs ``sudo -n`` to work there.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from migrate.errors import EndedWell, TransportError

PHASE = "connect"

_NOT_FOUND = 127
_NOT_EXECUTABLE = 126


@dataclass(frozen=True, slots=True)
class Started:
    """An agent that was started, or at least asked for.

    :ivar host: as the user wrote it, without the user.
    :ivar user: as whom we are logged in there.
    :ivar agent: a name or path.
    """

    host: str
    user: str
    agent: str

    @property
    def sudo(self) -> bool:
        """Whether it is started by ``sudo -n``."""
        return self.user != "root"

    @property
    def command(self) -> str:
        """For the shell there; the agent's name stays one word of it."""
        return shlex.join([*(["sudo", "-n", "--"] if self.sudo else []), self.agent])

    def exited(self, status: int, said: Sequence[str]) -> TransportError:
        """What it means that it ended with *status*.

        :param said: the last lines of its standard error, or of the shell's that was to start it.
        """
        name, user, agent, text = self.host, self.user, self.agent, " ".join(said)
        if "sudo:" in text and f"{agent}: command not found" not in text:
            return self.error(
                f"{user} is not root on {name} and may not become root: {last(said)}",
                f"Log in as root@{name}, or let {user} run {agent} there by sudo without a password.",
                said,
            )
        if status in (_NOT_FOUND, _NOT_EXECUTABLE) or "command not found" in text:
            return self.error(
                f"there is no agent on {name}: {agent} cannot be run: {last(said)}",
                "Install migrate there in the same version (`pip install . ./plugin` or `make setup`), or say "
                "where its migrate-agent is with --agent PATH.",
                said,
            )
        hint = f"`ssh {shlex.quote(name)} {shlex.quote(agent)} --version` shows whether it starts at all."
        ended = f"the agent on {name} ended with status {status}"
        if status == 0:
            ended = f"what was started as the agent on {name} ended of itself (status 0), too early"
        text = ended + (f": {last(said)}" if said else "")
        kind = EndedWell if status == 0 else TransportError
        return kind(text, hint=hint, details=[*said])

    def killed(self, said: Sequence[str]) -> TransportError:
        """It ended by a signal."""
        hint = f"Look at the log of {self.host}: something killed it."
        return self.error(f"the agent on {self.host} was killed", hint, said)

    def broke(self, why: str, said: Sequence[str]) -> TransportError:
        """The connection ended before it did."""
        text = f"the SSH connection to {self.host} broke: {why}"
        return self.error(text, "Look whether the host is up and the network between the two works.", said)

    def error(self, text: str, hint: str, said: Sequence[str]) -> TransportError:
        """An error of the start, with *said* as its details."""
        return TransportError(text, hint=hint, details=[*said])


def last(said: Sequence[str]) -> str:
    """The last line of it."""
    return said[-1] if said else "it said nothing"
