"""A lab: bringing it up and down, and running programs in its hosts."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from migrate.lab import cgroups, enter, entrance, state, topology
from migrate.lab.errors import LabError
from migrate.lab.state import Init
from migrate.lab.topology import Address

UP_DEADLINE_S = 30.0
SPAWN_DEADLINE_S = 20.0


class Host:
    """One host of a lab that is up. Which init it has is looked up at each call."""

    def __init__(self, lab: "Lab", name: str) -> None:
        self.lab = lab
        self.name = name
        self.node = topology.node_of(name) or name

    @property
    def address(self) -> Address:
        """The host's own addresses; the segment has none."""
        return topology.addresses()[self.name]

    @property
    def ipv4(self) -> str:
        """The host's own IPv4 address."""
        return self.address.ipv4

    @property
    def ipv6(self) -> str:
        """The host's own IPv6 address."""
        return self.address.ipv6

    @property
    def init(self) -> Init:
        """PID 1 of the host, as the machine sees it. :raises LabError: the lab is not up."""
        return self.lab.init_of(self.node)

    @property
    def netns(self) -> Path:
        """A path through which the host's network namespace can be entered."""
        return Path(f"/proc/{self.init.pid}/ns/net")

    @property
    def root(self) -> Path:
        """A path through which the host's files are seen from the machine."""
        return Path(f"/proc/{self.init.pid}/root")

    def _argv(self, mode: str, *words: str) -> list[str]:
        init = self.init
        return [*enter.PROGRAM, mode, str(init.pid), str(init.start_ticks), *words]

    def exec(
        self,
        command: Sequence[str],
        *,
        input: str | None = None,
        timeout: float | None = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run *command* to its end; return its output as text.

        :param timeout: seconds; then the command is killed and subprocess.TimeoutExpired raised.
        :param check: raise subprocess.CalledProcessError unless the exit status is 0.
        """
        given = (input or "").encode()
        done = self._run_to_end(command, given, timeout)
        text = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )
        if check:
            text.check_returncode()
        return text

    def _run_to_end(
        self, command: Sequence[str], given: bytes, timeout: float | None
    ) -> subprocess.CompletedProcess[bytes]:
        return entrance.of_this_process().run(self.init, command, given, timeout)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start *command* as subprocess.Popen does with *options*; a signal to it is passed on."""
        return subprocess.Popen(self._argv("exec", *command), **options)

    def spawn(self, command: Sequence[str], log: str | None = None) -> int:
        """Start *command* detached, its output in the host's file *log*; return its PID in the host.

        :raises LabError: it cannot be executed.
        """
        argv = self._argv("spawn", log or "", *command)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SPAWN_DEADLINE_S, check=False)
        if done.returncode:
            raise LabError(f"{self.name}: {done.stderr.strip()}")
        return int(done.stdout)

    def run(self, command: list[str], *, terminal: bool = False) -> int:
        """Run *command* with this process's standard streams; return its exit status, or die of its signal.

        The caller changes its namespaces for good. A terminal is passed on anyway, whatever *terminal* says.
        """
        return enter.run(*self.init, command)

    def run_detached(self, log: str | None, command: list[str]) -> int:
        """Start *command* detached and print its PID; the caller changes its namespaces for good."""
        return enter.spawn(*self.init, log, command)

    def host_pid(self, pid: int) -> int:
        """Return the machine's number of the process that is *pid* in the host.

        :raises LabError: there is none.
        """
        namespace = Path(f"/proc/{self.init.pid}/ns/pid").readlink()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _pid_inside(entry, namespace) == pid:
                return int(entry.name)
        raise LabError(f"{self.name} has no process {pid}")


def _pid_inside(process: Path, namespace: Path) -> int | None:
    """Return the PID in *namespace* of a process given as its /proc directory, if it lives there."""
    try:
        if (process / "ns" / "pid").readlink() != namespace:
            return None
        words = (process / "status").read_text().partition("\nNSpid:")[2].split("\n")[0].split()
    except OSError:  # Gone meanwhile; or, as the machine's own init may be, not ours to look at.
        return None
    return int(words[-1]) if words else None


class Lab:
    """The lab called *name*; as a context manager it is up inside and down afterwards."""

    def __init__(self, name: str = "lab") -> None:
        self.name = name
        self.directory = state.directory(name)
        names = (*topology.NODES, *topology.ALIASES)
        self.hosts: Mapping[str, Host] = {host: Host(self, host) for host in names}
        self.service = topology.SERVICE

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def host(self, name: str) -> Host:
        """Return the host, alias or segment *name*. :raises LabError: there is none of that name."""
        if name not in self.hosts:
            raise LabError(f"no host {name!r}: the lab has {', '.join(self.hosts)}")
        return self.hosts[name]

    def power_off(self, host: str) -> bool:
        """Cut the power of *host*; return whether it was on. :raises LabError: it has no power of its own."""
        raise LabError(f"{host} is no machine: migrate-lab --vm has machines")

    def power_on(self, host: str) -> bool:
        """Switch *host* on and wait until it runs commands; return whether it was off.

        :raises LabError: it is no machine.
        """
        return self.power_off(host)

    def init_of(self, node: str) -> Init:
        """Return PID 1 of *node*. :raises LabError: it does not run."""
        init = state.load(self.directory).get(node)
        if init is None or not init.alive():
            raise LabError(f"lab {self.name!r} is not up: run migrate-lab --name {self.name} up")
        return init

    def is_up(self) -> bool:
        """Return whether every host's init runs."""
        inits = state.load(self.directory)
        return set(inits) == set(topology.NODES) and all(init.alive() for init in inits.values())

    def stands(self) -> bool:
        """Return whether :meth:`up` of a lab that is up in part goes on with that; it makes it anew."""
        return False

    def up(self) -> bool:
        """Bring the lab up; what an earlier, broken one left is removed first.

        :return: False if it was up already; then nothing is changed.
        :raises LabError: it cannot be; nothing is left behind.
        """
        from migrate.lab import build  # Needs pyroute2, which is slow to import and otherwise not needed.

        with state.locked(self.name) as directory:
            if self.is_up():
                return False
            state.end(state.load(directory))
            state.empty(directory)
            try:
                build.build(self.name, directory, time.monotonic() + UP_DEADLINE_S)
            except BaseException:
                state.forget(directory)
                raise
        return True

    def down(self) -> bool:
        """End every process of the lab and remove all that was its; return whether there was one.

        :raises LabError: a process does not end.
        """
        if not self.directory.exists():
            return False
        with state.locked(self.name) as directory:
            inits = state.load(directory)
            left = cgroups.of(inits.values())
            state.end(inits)
            cgroups.remove(left)
            state.forget(directory)
        return bool(inits)

    def status(self) -> dict[str, Any]:
        """Return what ``status --json`` prints."""
        inits = state.load(self.directory)
        hosts = {name: self._host_status(name, inits) for name in (*topology.HOSTS, *topology.ALIASES)}
        segment = inits.get(topology.SEGMENT)
        return {
            "name": self.name,
            "up": self.is_up(),
            "hosts": hosts,
            "service": topology.SERVICE._asdict(),
            "segment": {
                "init_pid": segment.pid if segment and segment.alive() else None,
                "networks": {name: net._asdict() for name, net in topology.NETWORKS.items()},
                "ports": {leg.port: leg.network for leg in topology.LEGS},
            },
        }

    def _host_status(self, name: str, inits: Mapping[str, Init]) -> dict[str, Any]:
        node = topology.node_of(name) or name
        init = inits.get(node)
        legs = [
            {"interface": leg.interface, "network": leg.network, **leg.address._asdict()}
            for leg in topology.legs_of(node)
        ]
        found: dict[str, Any] = topology.addresses()[name]._asdict()
        found |= {"init_pid": init.pid if init and init.alive() else None, "legs": legs}
        return found | ({"alias_of": node} if name in topology.ALIASES else {})
