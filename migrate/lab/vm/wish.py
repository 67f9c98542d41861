"""In what the machines of a lab differ from those that one gets without asking."""

from collections.abc import Mapping
from typing import NamedTuple


class Wish(NamedTuple):
    """What was asked for.

    :ivar kernels: host -> version, see :func:`migrate.lab.vm.debian.newest`.
    :ivar cpus: host -> QEMU's name of a processor's model.
    :ivar clocks: host -> seconds by which its clock is ahead.
    :ivar architectures: host -> Debian's name of it; such a host has Python and the library, no sshd and no CRIU.
    :ivar systemd: the machines boot systemd, all of this machine's architecture: half a minute where they are
        emulated, not five seconds.
    """

    kernels: Mapping[str, str]
    cpus: Mapping[str, str]
    clocks: Mapping[str, int]
    architectures: Mapping[str, str]
    systemd: bool
