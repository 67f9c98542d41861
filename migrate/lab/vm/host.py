"""One machine of a lab, as a host: running programs in it."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from migrate.lab import enter
from migrate.lab.ends import complain
from migrate.lab.errors import LabError
from migrate.lab.lab import Host, Lab
from migrate.lab.vm import client
from migrate.lab.vm.exchange import Ended, Gone, Silent
from migrate.lab.vm.machines import Machines


class VmHost(Host):
    """One machine of a lab that is up."""

    def __init__(self, lab: Lab, name: str, machines: Callable[[], Machines]) -> None:
        """*machines*: of *lab*; raises LabError where that is not up."""
        super().__init__(lab, name)
        self._machines = machines

    @property
    def netns(self) -> Path:
        """Not to be entered from here. :raises LabError: always."""
        raise LabError(f"{self.name} is a machine: its network namespace is not one of this kernel's")

    @property
    def root(self) -> Path:
        """Not to be seen from here. :raises LabError: always."""
        raise LabError(f"{self.name} is a machine: its files are not seen from here")

    def host_pid(self, pid: int) -> int:
        """Not a process of this machine. :raises LabError: always."""
        raise LabError(f"{self.name} is a machine: {pid} is no process of this kernel's")

    def _argv(self, mode: str, *words: str) -> list[str]:
        log, command = (words[0], words[1:]) if mode == "spawn" else ("", words)
        return client.argv(mode, self.init, self.node, log, list(command))

    def _need_power(self) -> None:
        """:raises LabError: the machine is off, and would be waited for."""
        if not self._machines().is_on(self.node):
            how = f"migrate-lab --vm --name {self.lab.name} power {self.node} on"
            raise LabError(f"{self.node} is off: {how} starts it")

    def _run_to_end(
        self, command: Sequence[str], given: bytes, timeout: float | None
    ) -> subprocess.CompletedProcess[bytes]:
        argv = self._argv("exec", *command)
        return subprocess.run(argv, capture_output=True, input=given, timeout=timeout, check=False)

    def run(self, command: list[str], *, terminal: bool = False) -> int:
        """Run *command* with this process's standard streams; the caller changes its network for good."""
        self._need_power()
        try:
            return client.run(self.init, self.node, command, terminal=terminal)
        except Ended as error:
            complain(str(self._gone(error)))
            return enter.end_like(error.number)
        except Gone as error:
            raise self._gone(error) from None

    def run_detached(self, log: str | None, command: list[str]) -> int:
        """Start *command*, print its PID in the machine; the caller changes its network for good."""
        self._need_power()
        try:
            return client.spawn(self.init, self.node, log or "", command)
        except Gone as error:
            raise self._gone(error) from None

    def _gone(self, error: Gone) -> LabError:
        """Why it did not answer, and what helps, if it runs."""
        try:
            machines = self._machines()
        except LabError:
            return LabError(f"{error}; the lab was taken down")
        if machines.is_taken_down():
            return LabError(f"{error}; the lab was taken down")
        helps = isinstance(error, Silent) and machines.is_on(self.node)
        return LabError(f"{error}: {machines.silence(self.node)}" if helps else str(error))
