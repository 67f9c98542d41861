"""The network is switched by a command of the user's, which is on both hosts: ``exec:/COMMAND``.

It is called without a shell, once for each stage, with one JSON object on its standard input: ``stage``, ``role``
(``"origin"`` or ``"destination"``), ``migration``, and ``addresses``, with the ``ip``, ``prefix_length`` and
``device`` of each. In the order of a move: ``prepare`` on the destination, ``switch`` on the origin and then on the
destination, ``verify`` on both. When it has to be taken back: ``undo`` on each host where one of these may have
been called, also where it was not or has failed, and more than once; on the destination before its filter ends, so
that what still comes there is not answered with a reset.

The addresses are on both hosts all the time, see :mod:`migrate.switch.on_both`: sockets can be bound to them before
the network knows.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from pathlib import Path
from typing import Any

from migrate.errors import SwitchError
from migrate.processes import identity
from migrate.switch import Address, Switch, command
from migrate.switch.on_both import OnBoth

#: In the environment of the command: which migration's, and which host's, it is.
MARK = "MIGRATE_SWITCH"


def make(role: str, migration_id: str, addresses: list[Address], arguments: str = "", **more: Any) -> Switch:
    """See :class:`migrate.switch.Kind`. :raises SwitchError: *arguments* are no command."""
    return ByCommand(role, migration_id, addresses, arguments)


class ByCommand(OnBoth):
    """One host's part.

    :param line: path and arguments of the command, quoted as in a shell, which none sees.
    """

    def __init__(self, role: str, migration_id: str, addresses: list[Address], line: str) -> None:
        super().__init__(f"exec:{line}", role, migration_id, addresses)
        self._words = _words(line)
        self._mark = f"{migration_id}/{role}"

    def choose(self) -> None:
        """See :class:`migrate.switch.Switch`; refused as well if the command is not there, or not root's alone."""
        super().choose()
        if self.addresses:
            _require_safe(Path(self._words[0]))

    def prepare(self) -> None:
        """See :class:`migrate.switch.Switch`."""
        self._call("prepare")

    def switch(self) -> None:
        """See :class:`migrate.switch.Switch`."""
        self._call("switch")

    def verify(self) -> None:
        """See :class:`migrate.switch.Switch`: the command has asked the network."""
        super().verify()
        self._call("verify")

    def undo(self) -> None:
        """See :class:`migrate.switch.Switch`. A command that whoever called it has left behind is ended before."""
        if not self.addresses:
            return
        identity.end(identity.with_environment(f"{MARK}={self._mark}"))
        self._call("undo")

    def _call(self, stage: str) -> None:
        if self.addresses:
            _require_safe(Path(self._words[0]))
            said = json.dumps(self._described(stage)).encode() + b"\n"
            command.run(self._words, said, os.environ | {MARK: self._mark}, stage)

    def _described(self, stage: str) -> dict[str, Any]:
        addresses = [
            {"ip": one.ip, "prefix_length": one.prefix_length, "device": one.device} for one in self.addresses
        ]
        return {"stage": stage, "role": self.role, "migration": self.migration_id, "addresses": addresses}


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise SwitchError(f"--switch exec:{line} makes no sense: {error}") from error
    if not words or not words[0].startswith("/"):
        raise SwitchError(f"--switch exec is followed by the absolute path of a command, not by {line!r}")
    return words


def _require_safe(path: Path) -> None:
    """Root is about to run it, and the other host has named it: it must be what root has put there."""
    try:
        found = path.stat()
    except OSError as error:
        hint = "The command is needed on both hosts: install it there."
        raise SwitchError(f"{path} cannot be run: {error.strerror}", hint=hint) from error
    if not stat.S_ISREG(found.st_mode) or not os.access(path, os.X_OK):
        raise SwitchError(f"{path} is not an executable file", hint=f"Make it one: chmod 755 {path}")
    if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        hint = f"Give it to root alone: chown root:root {path}; chmod go-w {path}"
        raise SwitchError(f"others than root may change {path}, which root would run", hint=hint)
