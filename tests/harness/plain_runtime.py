"""A container by runc or crun alone, as docs/containers.md says it: a network made by hand, and two commands."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import containers
from harness.containers import BRIDGE, HOSTS, MACVLAN_PARENT, MACVLAN_PREFIX, PREFIX
from migrate.lab import Host, Lab

NAME = "web"
#: On each host: the root file system, config.json, and CRIU's images in between.
BUNDLE = "/srv/web"
IMAGES, WORK = f"{BUNDLE}/images", "/var/tmp/web"
HARDWARE, OTHER_HARDWARE = "02:00:00:00:00:60", "02:00:00:00:00:61"
ADDRESSES = {"bridge": f"{PREFIX}.60", "macvlan": f"{MACVLAN_PREFIX}.60"}
_WIRES = {
    "bridge": f"""
        ip netns add {NAME}
        ip -n {NAME} link set lo up
        ip link add web0 type veth peer name eth0 netns {NAME} address {HARDWARE}
        ip -n {NAME} address add {ADDRESSES["bridge"]}/24 dev eth0
        ip -n {NAME} link set eth0 up
        ip link set web0 master {BRIDGE} up
    """,
    "macvlan": f"""
        ip netns add {NAME}
        ip -n {NAME} link set lo up
        ip link add link {MACVLAN_PARENT} name eth0 netns {NAME} address {HARDWARE} type macvlan mode bridge
        ip -n {NAME} address add {ADDRESSES["macvlan"]}/24 dev eth0
        ip -n {NAME} link set eth0 up
    """,
}
#: The interface goes first: without its sockets the namespace would answer.
UNWIRE = f"ip -n {NAME} link del eth0; ip netns del {NAME}"
#: Between the network and the sockets, so that each client asks the one without the other.
SILENT_S = 1


class Plain:
    """Both hosts of *lab* with a bundle; they have a bridge to the peer already.

    :param runtime: the program, runc or crun.
    :param network: "bridge" or "macvlan".
    :param apart: it has another cgroup on each host. The hosts of a lab have the same ones, and crun, when it
        forgets a container, kills what is in its cgroup.
    """

    def __init__(self, lab: Lab, runtime: str, network: str, *, apart: bool = False) -> None:
        self.lab, self.runtime, self._wire, self._apart = lab, runtime, _WIRES[network], apart
        self.address = ADDRESSES[network]

    def give(self, command: Sequence[str]) -> None:
        """The bundle, in which *command* runs, to each host."""
        for name in HOSTS:
            host = self.lab.hosts[name]
            bundle = Path(f"{host.root}{BUNDLE}")
            bundle.mkdir(parents=True)
            configuration = self._configuration(host, command)
            with tarfile.open(fileobj=io.BytesIO(containers.root_file_system())) as archive:
                archive.extractall(bundle / "rootfs", filter="fully_trusted")
            (bundle / "config.json").write_text(json.dumps(configuration))

    def _configuration(self, host: Host, command: Sequence[str]) -> dict[str, Any]:
        """As the runtime itself suggests, with what the documentation says of it."""
        file = Path(f"{host.root}{BUNDLE}/config.json")
        host.exec([self.runtime, "spec", "-b", BUNDLE])
        suggested: dict[str, Any] = json.loads(file.read_text())
        suggested["process"] |= {"terminal": False, "args": list(command)}
        suggested["root"]["readonly"] = False
        suggested["linux"]["cgroupsPath"] = (
            f"{containers.cgroup_parent(self.lab)}/{NAME}{'-' + host.name if self._apart else ''}"
        )
        for namespace in suggested["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"/run/netns/{NAME}"
        return suggested

    def run(self) -> None:
        """Start it at the origin, where the peer has to find it anew: it may know an earlier one elsewhere."""
        origin = self.lab.hosts[HOSTS[0]]
        self.lab.hosts["peer"].exec(["ip", "neigh", "flush", "dev", "eth1"])
        origin.exec(["sh", "-ec", self._wire])
        self._detached(origin, "run -d --bundle", BUNDLE)

    def wire_bare(self, name: str) -> None:
        """Make its network on host *name*, without its address, and with another hardware address."""
        host = self.lab.hosts[name]
        host.exec(["sh", "-ec", self._wire.replace(HARDWARE, OTHER_HARDWARE)])
        host.exec(["ip", "-n", NAME, "-4", "address", "flush", "dev", "eth0"])

    def move(self, here: str, there: str) -> None:
        """The two commands, with what belongs to them."""
        origin, destination = self.lab.hosts[here], self.lab.hosts[there]
        where = f"--image-path {IMAGES} --work-path {WORK} --tcp-established"
        origin.exec(["sh", "-ec", f"{self.runtime} checkpoint {where} {NAME}; {UNWIRE}"])
        shutil.move(f"{origin.root}{IMAGES}", f"{destination.root}{IMAGES}")
        destination.exec(["sh", "-ec", f"{self._wire}\nsleep {SILENT_S}"])
        self._detached(destination, f"restore -d {where} --bundle", BUNDLE)
        shutil.rmtree(f"{destination.root}{IMAGES}")

    def _detached(self, host: Host, *words: str) -> None:
        """Its standard streams are the container's."""
        command = " ".join([self.runtime, "--log", "/var/tmp/web.log", *words, NAME])
        log = Path(f"{host.root}/var/tmp/web.log")
        ran = host.exec(["sh", "-c", f"exec {command} </dev/null >/dev/null 2>&1"], check=False)
        assert ran.returncode == 0, log.read_text() if log.exists() else command

    def runs(self, host: str) -> bool:
        """Whether the runtime says that it runs on *host*."""
        told = self.lab.hosts[host].exec([self.runtime, "list", "-f", "json"]).stdout
        return [one["status"] for one in json.loads(told) or [] if one["id"] == NAME] == ["running"]

    def remove(self) -> None:
        """End it, wherever it is, and take its network and bundle."""
        for name in HOSTS:
            command = f"{self.runtime} delete -f {NAME}; {UNWIRE}; rm -rf {BUNDLE}"
            self.lab.hosts[name].exec(["sh", "-c", command], check=False)
