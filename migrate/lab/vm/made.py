"""In what the machines that there are differ from those that are asked for. Pure."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from migrate.lab.vm import debian, seed
from migrate.lab.vm.wish import Wish

#: A part of the wish, what that is called in words, and the field of qemu.Machine that has it.
_FIELDS = (
    ("cpus", "processor", "cpu"),
    ("clocks", "clock", "clock_s"),
    ("architectures", "architecture", "architecture"),
)


def release(machine: Mapping[str, Any]) -> str:
    """Return which kernel *machine*, as it is written down, boots: what ``uname -r`` says there."""
    return Path(machine["kernel"]).parent.name.split("-", 2)[-1]


def differences(wish: Wish, machines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return each thing that *wish* names and that *machines*, as they are written down, are not made of."""
    return list(_differences(wish, machines))


def _differences(wish: Wish, machines: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for host, version in wish.kernels.items():
        if not _is_kernel(version, machines[host]):
            yield f"{host} has the kernel {release(machines[host])}, not {version}"
    for part, what, field in _FIELDS:
        for host, value in getattr(wish, part).items():
            if (has := machines[host][field]) != value:
                yield f"{host} has {_told(what, has)}, not {value}"
    if wish.systemd and (without := [host for host, one in machines.items() if not _boots_systemd(one)]):
        yield f"{', '.join(without)} {'does' if len(without) == 1 else 'do'} not boot systemd"


def _told(what: str, value: object) -> str:
    return f"the {what} {value}" if value != "" else f"the best {what} there is"


def _is_kernel(version: str, machine: Mapping[str, Any]) -> bool:
    """Whether it is what *version* meant when the machine was made, or what it means of that kernel alone."""
    if version == machine.get("version"):
        return True
    has = "linux-image-" + release(machine)
    return debian.settled([has], version, machine["architecture"]) == has


def _boots_systemd(machine: Mapping[str, Any]) -> bool:
    return f"lab.init={seed.SYSTEMD}" in machine["words"].split()
