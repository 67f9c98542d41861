"""The way by the user's own ssh program: what ``ssh HOST`` can do without a question, this can do.

So jump hosts, certificates, keys in hardware, GSSAPI, a shared connection (ControlMaster) and all that the user's
configuration says work to the letter. What is set here, beside what the user asked for: nothing is asked, an
unknown host is refused, and nothing but the agent runs over the connection.

Source: man ssh(1), ssh_config(5); ssh.c main() of OpenSSH 9.2: the first value of an option counts, so the command
line's, and after ``--`` a word is no option.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from migrate import limits
from migrate.errors import MigrateError, TransportError
from migrate.journal.reach import Reach
from migrate.ssh import host, program, sockets
from migrate.ssh.agent import Started
from migrate.transport import sentences
from migrate.transport.child import Child
from tcpcp.errors import TcpcpError
from tcpcp.kernel.pidfd import Lender

_INSTALL = "Install it (Debian: apt-get install openssh-client), or leave out --transport ssh."


class BySsh:
    """See :class:`migrate.transport.Transport`.

    ``reach.home`` does not count: ssh looks in the home directory that the user has by the password database.
    """

    def open(self, reach: Reach) -> SshStream:
        """See :class:`migrate.transport.Transport`. Returns at once: ssh connects meanwhile."""
        words = [_program(), *_words(reach)]
        settings = _settings(words, reach)
        started = Started(host.split(reach.host)[1], settings.get("user", "root"), reach.agent)
        if settings.get("connecttimeout", "none") in ("none", "0"):
            words.append(f"-oConnectTimeout={limits.CONNECT_S:g}")
        words += ["--", started.host, started.command]
        try:
            return SshStream(Child(words, os.environ | program.ENVIRONMENT), started)
        except OSError as error:
            text = f"the ssh program cannot be started: {error.strerror}"
            raise TransportError(text, hint=_INSTALL) from error


class SshStream:
    """The ssh program with the agent at its other end."""

    def __init__(self, child: Child, started: Started) -> None:
        self._child, self._started = child, started
        self.read, self.write, self.end, self.close = child.read, child.write, child.end, child.close

    @property
    def pid(self) -> int:
        """The number of the ssh program."""
        return self._child.pid

    def stderr(self) -> list[str]:
        """The last lines that ssh, or the agent, wrote to standard error."""
        return self._child.said()

    @property
    def sudo(self) -> bool:
        return self._started.sudo

    @property
    def ends(self) -> tuple[str, str]:
        """Of the one TCP connection that ssh itself has; behind a proxy, or on a shared connection, it has none."""
        with contextlib.suppress(OSError, TcpcpError), Lender() as lender:
            for path in Path(f"/proc/{self._child.pid}/fd").iterdir():
                if str(path.readlink()).startswith("socket:"):
                    with lender.borrow(self._child.pid, int(path.name)) as sock:
                        if any(found := sockets.addresses(sock)):
                            return found
        return "", ""

    def explain(self) -> MigrateError | None:
        status = self._child.wait(limits.SSH_STATUS_S)
        if status is None:
            return None
        return sentences.explained(self._started, status, self._child.said(limits.SSH_STATUS_S))


def _program() -> str:
    found = shutil.which("ssh")
    if found is None:
        raise TransportError("there is no ssh program on PATH", hint=_INSTALL)
    return found


def _words(reach: Reach) -> list[str]:
    """The options: ours, and what the user asked for. Each is one word with its value."""
    user, _ = host.split(reach.host)
    words = [f"-o{option}" for option in program.OPTIONS]
    words += [f"-l{user}"] if user else []
    words += [f"-p{reach.port}"] if reach.port else []
    words += [f"-oIdentityFile={_quoted(reach.identity)}"] if reach.identity else []
    return words


def _quoted(path: str) -> str:
    """As one word of ssh's configuration, in which a % begins a token."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _settings(words: Sequence[str], reach: Reach) -> Mapping[str, str]:
    """What ssh will do for that host, by names in lower case. It does not connect for that.

    :raises TransportError: its configuration makes no sense.
    """
    name = host.split(reach.host)[1]
    try:
        done = subprocess.run(
            [*words, "-G", "--", name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limits.SSH_CONFIG_S,
            env=os.environ | program.ENVIRONMENT,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _senseless(name, str(error), []) from error
    said = done.stderr.decode(errors="replace").splitlines()
    if done.returncode:
        raise _senseless(name, said[-1] if said else f"ssh -G ended with status {done.returncode}", said)
    lines = done.stdout.decode(errors="replace").splitlines()
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def _senseless(name: str, why: str, said: list[str]) -> TransportError:
    hint = f"Correct it; `ssh -G {name}` shows what it says for this host."
    text = f"the ssh configuration for {name} makes no sense: {why}"
    return TransportError(text, hint=hint, details=said)
