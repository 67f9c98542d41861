"""The machines' network: what each is told, as lines of ``ip -batch``; and the taps' names. Pure.

A machine has one more interface than a host of the lab of namespaces: the control's. Its guest puts it into a
network namespace of its own, so programs there, and ``migrate``, never see it.
"""

from collections.abc import Iterator

from migrate.lab import topology
from migrate.lab.topology import Leg

CONTROL = "control"
#: Where the guests' agents listen; in namespaces of their own on both ends.
CONTROL_NETWORK = "192.0.2."
CONTROL_BITS = 24
CONTROL_OWN = CONTROL_NETWORK + "254"
CONTROL_PORT = 7


def control_address(host: str) -> str:
    """Return where the agent of *host* listens."""
    return f"{CONTROL_NETWORK}{topology.HOSTS.index(host) + 1}"


def control_port(host: str) -> str:
    """Return the name of the tap of *host*'s control interface, in the segment's namespace."""
    return f"{host[:10]}-ctl"


def hardware_address(host: str, number: int) -> str:
    """Return the Ethernet address of interface *number* of *host*; its control has the number after the last."""
    return f"52:54:00:77:{topology.HOSTS.index(host) + 1:02x}:{number:02x}"


def taps(host: str) -> list[tuple[str, str]]:
    """Return the taps of *host*, in the order of its interfaces: name in the segment, Ethernet address."""
    names = [leg.port for leg in topology.legs_of(host)] + [control_port(host)]
    return [(name, hardware_address(host, number)) for number, name in enumerate(names)]


def interfaces(host: str) -> dict[str, str]:
    """Return Ethernet address -> the name that the guest gives the interface."""
    names = [leg.interface for leg in topology.legs_of(host)] + [CONTROL]
    return {hardware_address(host, number): name for number, name in enumerate(names)}


def service_device(host: str) -> str:
    """Return the interface on which *host* takes the service's addresses at boot; "": it takes none."""
    return topology.SERVICE_LEG.interface if host == topology.SERVICE_LEG.host else ""


def commands(host: str, *, own_default: bool = True) -> list[str]:
    """Return what ``ip -batch`` does in the machine *host*: as :mod:`migrate.lab.network` does it by netlink.

    The service's IPv4 address is taken after it, see :mod:`migrate.lab.vm.claim`.

    :param own_default: False: the default route is somebody else's; only the lab's networks go by its gateway.
    """
    lines = ["link set lo up"]
    legs = topology.legs_of(host)
    lines += [f"link set {leg.interface} up" for leg in legs]
    for leg in legs:
        lines += _addresses(leg)
        if leg.name == "neighbour":
            lines += _neighbour(leg)
    if host != "gateway":
        lines += _routes(legs[0], own_default)
    return lines


def _routes(leg: Leg, own_default: bool) -> Iterator[str]:
    gateway = topology.NETWORKS[leg.network].gateway
    far = [network for name, network in topology.NETWORKS.items() if name != leg.network]
    for ipv4, ipv6 in [("default", "default")] if own_default else [(one.ipv4, one.ipv6) for one in far]:
        yield f"route add {ipv4} via {gateway.ipv4} dev {leg.interface} src {leg.address.ipv4}"
        yield f"route add {ipv6} via {gateway.ipv6} dev {leg.interface} src {leg.address.ipv6}"


def _addresses(leg: Leg) -> Iterator[str]:
    """The order decides what a new connection comes from; see network._addresses_of."""
    device = f"dev {leg.interface}" + (" noprefixroute" if leg.name == "neighbour" else "")
    if leg == topology.SERVICE_LEG:  # Not for good before the kernel knows that it is free: see claim.
        yield f"addr add {topology.SERVICE.ipv6}/{topology.IPV6_PREFIX_BITS} {device}"
    yield f"addr add {leg.address.ipv4}/{topology.IPV4_PREFIX_BITS} {device}"
    yield f"addr add {leg.address.ipv6}/{topology.IPV6_PREFIX_BITS} {device} nodad"


def _neighbour(leg: Leg) -> Iterator[str]:
    """What comes from the second leg's addresses goes straight to the servers' segment, nothing else."""
    network, table, priority = (
        topology.NETWORKS[leg.network],
        topology.NEIGHBOUR_TABLE,
        topology.NEIGHBOUR_RULE_PRIORITY,
    )
    own, device = leg.address, f"dev {leg.interface} table {table}"
    yield f"route add {network.ipv4} {device} scope link src {own.ipv4}"
    yield f"route add {network.ipv6} {device} src {own.ipv6}"
    yield f"rule add from {own.ipv4}/32 priority {priority} table {table}"
    yield f"rule add from {own.ipv6}/128 priority {priority} table {table}"
