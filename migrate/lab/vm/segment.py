"""Bridges and taps of the machines, by netlink, in the network namespace of the lab's segment."""

from pyroute2 import IPRoute

from migrate.lab import topology
from migrate.lab.vm import network


def make(netlink: IPRoute) -> None:
    """Make bridges and taps in the segment's namespace; QEMU opens the taps by name."""
    for name in (*topology.NETWORKS, network.CONTROL):
        netlink.link("add", ifname=name, kind="bridge", br_stp_state=0, br_mcast_snooping=0)
    masters = {leg.port: leg.network for leg in topology.LEGS}
    masters |= {network.control_port(host): network.CONTROL for host in topology.HOSTS}
    for name in masters:
        netlink.link("add", ifname=name, kind="tuntap", mode="tap")
    index = {link.get("ifname"): link["index"] for link in netlink.link("dump")}
    for name, master in masters.items():
        netlink.link("set", index=index[name], master=index[master], state="up")
    for name in ("lo", *topology.NETWORKS, network.CONTROL):
        netlink.link("set", index=index[name], state="up")
    netlink.addr(
        "add", index=index[network.CONTROL], address=network.CONTROL_OWN, prefixlen=network.CONTROL_BITS
    )
