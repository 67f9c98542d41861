"""What this host is and can do."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from migrate import environment, limits, place, rtnetlink
from migrate.criu import probe, worker
from migrate.inventory import cgroups, kernel_limits, queued
from migrate.pb.session_pb2 import HostInventory, Interface
from tcpcp.errors import IsolationError
from tcpcp.kernel import nft
from tcpcp.version import VERSION

#: What CRIU and TCP_REPAIR need, by bit number (include/uapi/linux/capability.h).
CAPABILITIES = {
    0: "CAP_CHOWN",
    1: "CAP_DAC_OVERRIDE",
    5: "CAP_KILL",
    6: "CAP_SETGID",
    7: "CAP_SETUID",
    8: "CAP_SETPCAP",
    12: "CAP_NET_ADMIN",
    13: "CAP_NET_RAW",
    18: "CAP_SYS_CHROOT",
    19: "CAP_SYS_PTRACE",
    21: "CAP_SYS_ADMIN",
}

#: Instructions that libraries choose at start-up when the processor has them, and never ask again.
_CPU_FEATURES = re.compile(
    r"ssse3|sse4_[12]|sse4a|popcnt|movbe|aes|pclmulqdq|avx\w*|f16c|fma4?|bmi[12]|abm|adx|rdrand|rdseed"
    r"|erms|fsrm|sha_ni|vaes|vpclmulqdq|gfni|rtm|pku|xsave(?:c|opt|s)?|amx_\w+|rdpid|clwb|movdiri|serialize"
)
_FIRST_PROCESSOR_BYTES = 8192

#: Addresses for documentation (RFC 5737, RFC 3849): reached over the default route, if there is one.
_FAR_AWAY = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))

_VERSION = re.compile(r"Version: *v?([0-9][\w.]*)")


def inspect(
    ssh_addresses: Iterable[str] = (), criu_problem: Callable[[str | None], str] = probe.problem
) -> HostInventory:
    """Look at this host. Nothing changes; no error is raised, ``problems`` says what could not be found out.

    :param ssh_addresses: addresses of this host that our own session uses, beside SSH_CONNECTION's.
    :param criu_problem: says what is wrong with the CRIU at a path, or "".
    """
    found = HostInventory(
        hostname=os.uname().nodename,
        version=VERSION,
        kernel=os.uname().release,
        machine=os.uname().machine,
        memory_available_bytes=_memory_available_bytes(),
        congestion_algorithms=_congestion_algorithms(),
        ssh_addresses=_ssh_addresses(ssh_addresses),
        own_addresses=_own_addresses(),
        pid_max=int(_read("/proc/sys/kernel/pid_max") or 0),
        cpu_features=_cpu_features(),
        most_backlog=_most_backlog(),
        most_signals=min(queued.most(os.getpid()), 0xFFFFFFFF),
        most_descriptors=min(environment.most_descriptors(), 0xFFFFFFFF),
    )
    found.problems.extend([*environment.problems(), *place.problems()])
    _privileges(found)
    _criu(found, criu_problem)
    _image_space(found)
    _packet_filter(found)
    _interfaces(found)
    with contextlib.suppress(OSError):
        found.cgroup.CopyFrom(cgroups.of(os.getpid()))
    return found


def _privileges(found: HostInventory) -> None:
    status = dict(line.split(":", 1) for line in _read("/proc/self/status").splitlines() if ":" in line)
    effective = int(status.get("CapEff", "0"), 16)
    missing = [name for bit, name in CAPABILITIES.items() if not effective >> bit & 1]
    found.root = os.geteuid() == 0 and not missing
    kernel_limits.of_host(found, effective)
    if os.geteuid() == 0 and missing:
        found.problems.append(f"root has no {', '.join(missing)} here")


def _criu(found: HostInventory, problem: Callable[[str | None], str]) -> None:
    path = worker.program()
    if path is None:
        found.criu_problem = "CRIU is not installed"
        return
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=limits.VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        found.criu_problem = f"{path} cannot be started: {error}"
        return
    match = _VERSION.search(done.stdout)
    found.criu_version = match.group(1) if match else ""
    if found.root:
        # First, since that a CRIU works is remembered.
        found.criu_problem = worker.bindings_problem() or problem(path)


def _image_space(found: HostInventory) -> None:
    try:
        found.image_space_bytes = shutil.disk_usage(place.image_root()).free
    except OSError as error:
        found.problems.append(f"there is no place in memory for images: {error}")


def _packet_filter(found: HostInventory) -> None:
    if not found.root:
        return
    try:
        nft.run("list tables")
    except IsolationError as error:
        found.problems.append(f"the packet filter cannot be used: {error}")


def _interfaces(found: HostInventory) -> None:
    try:
        links = {
            link.index: Interface(name=_name_of(link), up=link.up, hardware=link.hardware.hex(":"))
            for link in rtnetlink.links()
        }
        for told in rtnetlink.addresses():
            links[told.index].addresses.append(f"{told.ip}/{told.prefix_length}")
    except (OSError, KeyError) as error:
        found.problems.append(f"the network interfaces cannot be listed: {error}")
        return
    found.interfaces.extend(links.values())


def _name_of(link: rtnetlink.Link) -> str:
    """A message has text alone."""
    try:
        return link.raw_name.decode()
    except UnicodeDecodeError:
        return f"interface {link.index}"


def _memory_available_bytes() -> int:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def _most_backlog() -> int:
    """Source: man listen(2)."""
    text = _read("/proc/sys/net/core/somaxconn").strip()
    return int(text) if text.isdecimal() else 0


def _congestion_algorithms() -> list[str]:
    """Return those in the kernel, and those it would load as a module when a socket asks for them."""
    loaded = _read("/proc/sys/net/ipv4/tcp_available_congestion_control").split()
    modules = Path("/lib/modules") / os.uname().release / "kernel/net/ipv4"
    loadable = (path.name.split(".", 1)[0].removeprefix("tcp_") for path in modules.glob("tcp_*.ko*"))
    return sorted({*loaded, *loadable} - {"diag"})


def _ssh_addresses(more: Iterable[str]) -> list[str]:
    """Return this host's addresses that SSH sessions run to. Source: man ssh(1), SSH_CONNECTION."""
    fields = os.environ.get("SSH_CONNECTION", "").split()
    addresses = [*more, *fields[2:3]]
    return list(dict.fromkeys(address.partition("%")[0] for address in addresses))


def _own_addresses() -> list[str]:
    """Return the addresses that this host itself uses towards the rest of the world.

    Connecting a UDP socket asks the routing table and sends nothing.
    """
    found = []
    for family, address in _FAR_AWAY:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((address, 9))
                found.append(sock.getsockname()[0])
        except OSError:
            continue  # no route, or no such family
    return found


def _cpu_features() -> list[str]:
    try:
        with Path("/proc/cpuinfo").open() as file:
            start = file.read(_FIRST_PROCESSOR_BYTES)
    except OSError:
        return []
    match = re.search(r"^(?:flags|Features)\s*: (.*)$", start, re.MULTILINE)
    words = match.group(1).split() if match else []
    if os.uname().machine == "x86_64":
        words = [word for word in words if _CPU_FEATURES.fullmatch(word)]
    return sorted(words)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
