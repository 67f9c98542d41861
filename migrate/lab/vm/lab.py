"""A lab of machines: bringing it up and down, and running programs in them, as in the lab of namespaces.

    with VmLab("try", kernels={"origin": "6.1"}) as lab:
        pid = lab.hosts["origin"].spawn(["redis-server"], log="/tmp/redis.log")
        lab.power_off("origin")

It needs root and QEMU; with KVM where that boots a machine, else by emulation, some 20 times slower.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from migrate.lab import remedies, state, topology
from migrate.lab.errors import LabError
from migrate.lab.host import PROJECT
from migrate.lab.lab import Host, Lab
from migrate.lab.state import Init
from migrate.lab.vm import made, qemu, seed
from migrate.lab.vm.host import VmHost
from migrate.lab.vm.machines import Machines
from migrate.lab.vm.wish import Wish

#: Of the lab's run directory, so that a lab of namespaces may have the same name.
KIND = ".vm"
UP_DEADLINE_S = 600.0


def _need_systemd(host: str, architecture: str) -> None:
    """:raises LabError: a machine of *architecture* has none."""
    if architecture != qemu.OWN:
        has = f"a machine of {architecture} has Python and the library alone"
        raise LabError(f"{host} cannot boot systemd: {has}, so --systemd does not go with it")


class VmLab(Lab):
    """The lab of machines called *name*; as a context manager it is up inside and down afterwards.

    The parameters are those of :class:`migrate.lab.vm.wish.Wish`.
    """

    def __init__(
        self,
        name: str = "lab",
        *,
        kernels: Mapping[str, str] | None = None,
        cpus: Mapping[str, str] | None = None,
        clocks: Mapping[str, int] | None = None,
        architectures: Mapping[str, str] | None = None,
        systemd: bool = False,
    ) -> None:
        super().__init__(name)
        self.directory = state.directory(name, KIND)
        self.wish = Wish(kernels or {}, cpus or {}, clocks or {}, architectures or {}, systemd)
        for host in {host for wishes in self.wish[:4] for host in wishes} - set(topology.HOSTS):
            raise LabError(f"no host {host!r}: the lab has {', '.join(topology.HOSTS)}")
        for architecture in set(self.wish.architectures.values()) - set(qemu.ARCHITECTURES):
            raise LabError(f"no architecture {architecture!r}: there are {', '.join(qemu.ARCHITECTURES)}")
        if systemd:
            for host, architecture in self.wish.architectures.items():
                _need_systemd(host, architecture)
        names = (*topology.HOSTS, *(alias for alias in topology.ALIASES))
        for seconds in self.wish.clocks.values():
            qemu.clock(seconds, time.time())
        machines: dict[str, Host] = {host: VmHost(self, host, lambda: self.machines) for host in names}
        self.hosts = machines | {topology.SEGMENT: Host(self, topology.SEGMENT)}

    def init_of(self, node: str) -> Init:
        """Return the segment's init, in whose namespaces the machines are. :raises LabError: it does not run."""
        init = state.load(self.directory).get(topology.SEGMENT)
        if init is None or not init.alive():
            raise LabError(f"lab {self.name!r} is not up: run migrate-lab --vm --name {self.name} up")
        return init

    @property
    def machines(self) -> Machines:
        """What starts and stops them. :raises LabError: the lab is not up."""
        return Machines(self.directory, self.init_of(topology.SEGMENT))

    def off(self) -> list[str]:
        """Return the machines of a lab that was brought up that do not run. :raises LabError: it is not up."""
        machines = self.machines
        return [name for name in topology.HOSTS if not machines.is_on(name)]

    def is_up(self) -> bool:
        """Return whether every machine runs."""
        try:
            return not self.off()
        except LabError:
            return False

    def up(self) -> bool:
        """Bring the lab up; what an earlier, broken one left is removed first.

        Of one that is up, the machines that are off are switched on, as they were made; the others go on.

        :return: False if it was up already; then nothing is changed.
        :raises LabError: it cannot be, or it is up and not made of what is asked for; nothing is left behind,
            of one that was up what ran.
        """
        from migrate.lab.vm import build

        with state.locked(self.name, KIND) as directory:
            if stands := self.stands():
                self._need_wish()
            if self.is_up():
                self._need_answers()
                return False
            if stands:
                self._switch_on(self.off())
                self._need_answers()
                return True
            state.end(state.load(directory))
            state.empty(directory)
            try:
                build.build(self.name, self.wish, directory, time.monotonic() + UP_DEADLINE_S)
            except BaseException:
                state.forget(directory)
                raise
        return True

    def stands(self) -> bool:
        """Return whether :meth:`up` goes on with what there is: a segment, and machines that are known."""
        try:
            return set(self.machines.load()) == set(topology.HOSTS)
        except LabError:
            return False

    def _need_wish(self) -> None:
        """:raises LabError: the machines that there are were made of something else than what is asked for."""
        if differs := made.differences(self.wish, self.machines.load()):
            helps = f"none of that is changed of machines that there are: {remedies.makes_anew(self.name)}"
            raise LabError(f"lab {self.name!r} differs from what is asked for: {'; '.join(differs)}; {helps}")

    def _need_answers(self) -> None:
        """:raises LabError: one of the machines, all of which run, runs no commands."""
        machines = self.machines
        if silent := machines.silent(topology.HOSTS):
            raise LabError("\n".join(f"{name} does not answer: {machines.silence(name)}" for name in silent))

    def _switch_on(self, names: Sequence[str]) -> None:
        machines = self.machines
        for name in names:
            machines.power_on(name)
        for name in names:
            machines.wait_ready(name)

    def down(self) -> bool:
        """End every machine and remove all that was its; return whether there was one."""
        if not self.directory.exists():
            return False
        with state.locked(self.name, KIND) as directory:
            inits = state.load(directory)
            if segment := inits.get(topology.SEGMENT):
                Machines(directory, segment).forget()
            state.end(inits)
            state.forget(directory)
        return bool(inits)

    @contextlib.contextmanager
    def _changing(self, host: str) -> Iterator[Machines]:
        """Hold the lab's lock: what is written down of the machines is changed by one at a time.

        :raises LabError: *host* is no machine, the lab is not up, or another process changes it for too long.
        """
        if host not in topology.HOSTS:
            raise LabError(f"{host} is no machine: the machines are {', '.join(topology.HOSTS)}")
        self.init_of(topology.SEGMENT)  # The lock of a lab that is not up would be made.
        with state.locked(self.name, KIND) as directory:
            try:
                yield self.machines
            except LabError:
                with contextlib.suppress(OSError):  # Unless `down` was quicker, there is something in it.
                    directory.rmdir()
                raise

    def power_off(self, host: str) -> bool:
        """Cut the power of *host*; return whether it was on. :raises LabError: it is no machine."""
        with self._changing(host) as machines:
            return machines.power_off(host)

    def power_on(self, host: str) -> bool:
        """Switch *host* on and wait until it runs commands; return whether it was off.

        :raises LabError: it is no machine, or fails.
        """
        with self._changing(host) as machines:
            was_off = machines.power_on(host)
        machines.wait_ready(host)
        return was_off

    def reboot(self, host: str, *, systemd: bool = False, **fields: Any) -> None:
        """Cut the power of *host* and boot it anew, with systemd or without.

        :param fields: what is changed of it, see :class:`migrate.lab.vm.qemu.Machine`.
        """
        with self._changing(host) as machines:
            architecture = machines.known(host)["architecture"]
            if systemd:
                _need_systemd(host, architecture)
            told = qemu.words(seed.SYSTEMD if systemd else seed.INIT, PROJECT, architecture)
            machines.power_off(host)
            machines.change(host, words=told, **fields)
            machines.power_on(host)
        machines.wait_ready(host)

    def link(self, port: str, up: bool) -> None:
        """Cut a link, or mend it, from outside. *port*: its end in the segment, e.g. ``origin0``."""
        self.hosts[topology.SEGMENT].exec(["ip", "link", "set", port, "up" if up else "down"])

    def status(self) -> dict[str, Any]:
        """Return what ``status --json`` prints: as of the other lab, and what the machines are."""
        status = super().status()
        try:
            known, machines = self.machines.load(), self.machines
        except LabError:
            return status
        off = [name for name in known if not machines.is_on(name)]
        silent = machines.silent([name for name in known if name not in off])
        if machines.is_taken_down():  # They were on their way to their end, and nothing is wrong with them.
            return status | {"up": False}
        status["up"] = status["up"] and not silent
        for name, machine in known.items():
            status["hosts"][name]["machine"] = {
                "on": name not in off,
                "answers": name not in (*off, *silent),
                "stopped": name in silent and machines.has_stopped(name),
                "kernel": made.release(machine),
                "accelerator": machine["accelerator"],
                "cpu": machine["cpu"] or "the best there is",
            }
        return status
