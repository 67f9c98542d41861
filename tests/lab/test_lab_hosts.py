"""The hosts of a lab: what is their own, how they reach each other. Judged by ``ip``, ssh and bash."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab_command import HOSTS, read

from migrate.lab import Lab

ADDRESSES = (
    ("10.77.1.1", "fd77:1::1"),
    ("10.77.1.2", "fd77:1::2"),
    ("10.77.1.254", "fd77:1::fe"),
    ("10.77.2.254", "fd77:2::fe"),
    ("10.77.2.1", "fd77:2::1"),
    ("10.77.1.3", "fd77:1::3"),
)


@pytest.mark.parametrize(
    "directory", ["/root", "/etc", "/tmp", "/run", "/dev/shm", "/var/tmp", "/usr/local/bin"]
)
def test_files_are_private(lab: Lab, directory: str) -> None:
    path = f"{directory}/private-{os.getpid()}"
    lab.hosts["origin"].exec(["sh", "-c", f"echo x > {path}"])
    for host in ("destination", "gateway", "peer", "segment"):
        assert lab.hosts[host].exec(["test", "-e", path], check=False).returncode == 1
    assert not Path(path).exists()
    lab.hosts["origin"].exec(["rm", path])


def test_the_machines_keys_are_not_seen(lab: Lab) -> None:
    listed = lab.hosts["origin"].exec(["ls", "-A", "/root/.ssh"]).stdout.split()
    assert listed == ["authorized_keys", "id_ed25519", "id_ed25519.pub", "known_hosts"]
    listed = lab.hosts["origin"].exec(["ls", "-A", "/etc/ssh"]).stdout.split()
    assert listed == ["ssh_config", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "sshd_config"]
    hosts_keys = {lab.hosts[host].exec(["cat", "/etc/ssh/ssh_host_ed25519_key"]).stdout for host in HOSTS}
    assert len(hosts_keys) == len(HOSTS)
    assert read(Path("/etc/ssh/ssh_host_ed25519_key")).decode() not in hosts_keys


def test_own_name_and_namespaces(lab: Lab) -> None:
    kinds = ("mnt", "net", "pid", "uts", "ipc")
    seen = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]  # noqa: PTH115
    for host in HOSTS:
        assert lab.hosts[host].exec(["hostname"]).stdout.strip() == host
        script = "".join(f"readlink /proc/self/ns/{kind};" for kind in kinds)
        seen += lab.hosts[host].exec(["sh", "-c", script]).stdout.split()
    assert len(set(seen)) == len(kinds) * (len(HOSTS) + 1)


@pytest.mark.parametrize("host", HOSTS)
def test_names_resolve(lab: Lab, host: str) -> None:
    expected = {"origin": ADDRESSES[0], "destination": ADDRESSES[1], "peer": ADDRESSES[4]}
    expected |= {"neighbour": ADDRESSES[5], "service": ("10.77.1.100", "fd77:1::100")}
    for name, (ipv4, ipv6) in expected.items():
        for database, address in (("ahostsv4", ipv4), ("ahostsv6", ipv6)):
            found = lab.hosts[host].exec(["getent", database, name]).stdout
            assert found.split()[0] == address


@pytest.mark.parametrize("host", HOSTS)
def test_every_address_is_reached(lab: Lab, host: str) -> None:
    texts = list(itertools.chain.from_iterable(ADDRESSES))
    script = "for a; do exec 3<>/dev/tcp/$a/22 && head -c 4 <&3; done"
    done = lab.hosts[host].exec(["timeout", "10", "bash", "-c", script, "bash", *texts])
    assert done.stdout == "SSH-" * len(texts)


@pytest.mark.parametrize("host", HOSTS)
def test_ssh_works_to_each(lab: Lab, host: str) -> None:
    wanted = {"origin": "origin", "destination": "destination", "gateway": "gateway", "peer": "peer"}
    wanted |= {"neighbour": "peer", "10.77.1.1": "origin", "fd77:2::1": "peer"}
    for name, hostname in wanted.items():
        done = lab.hosts[host].exec(["ssh", name, "hostname"])
        assert (done.stdout, done.stderr) == (f"{hostname}\n", "")


def test_sshd_is_not_on_the_service_address(lab: Lab) -> None:
    for address in lab.service:
        listening = f"exec 3<>/dev/tcp/{address}/22"
        assert lab.hosts["peer"].exec(["bash", "-c", listening], check=False).returncode == 1


def test_service_addresses_are_origins_and_not_its_source(lab: Lab) -> None:
    shown = json.loads(lab.hosts["origin"].exec(["ip", "-json", "addr", "show", "eth0"]).stdout)[0][
        "addr_info"
    ]
    assert {(a["local"], a["prefixlen"]) for a in shown} >= {("10.77.1.100", 24), ("fd77:1::100", 64)}
    for target, source in (
        ("10.77.2.1", "10.77.1.1"),
        ("fd77:2::1", "fd77:1::1"),
        ("fd77:1::2", "fd77:1::1"),
    ):
        (route,) = json.loads(lab.hosts["origin"].exec(["ip", "-json", "route", "get", target]).stdout)
        assert route["prefsrc"] == source


CONNECT_WITH_TTL_1 = """
import socket, sys
source, target = sys.argv[1:]
family = socket.AF_INET6 if ":" in target else socket.AF_INET
with socket.socket(family) as s:
    s.settimeout(3)
    level, option = (41, socket.IPV6_UNICAST_HOPS) if family == socket.AF_INET6 else (0, socket.IP_TTL)
    s.setsockopt(level, option, 1)
    if source:
        s.bind((source, 0))
    try:
        s.connect((target, 22))
    except OSError:
        print("lost")
    else:
        print(s.getsockname()[0])
"""


@pytest.mark.parametrize(
    ("source", "target", "outcome"),
    [
        ("", "10.77.2.254", "10.77.2.1"),
        ("", "10.77.1.1", "lost"),
        ("", "fd77:1::1", "lost"),
        ("10.77.1.3", "10.77.1.1", "10.77.1.3"),
        ("fd77:1::3", "fd77:1::1", "fd77:1::3"),
    ],
)
def test_peer_by_the_gateway_neighbour_directly(lab: Lab, source: str, target: str, outcome: str) -> None:
    """A packet with one hop to live reaches the servers segment only from the second leg."""
    done = lab.hosts["neighbour"].exec(["python3", "-c", CONNECT_WITH_TTL_1, source, target])
    assert done.stdout.strip() == outcome


def test_peer_answers_arp_for_an_interfaces_own_addresses_only(lab: Lab) -> None:
    """Nobody on the servers segment learns 10.77.2.1 from the second leg."""
    lab.hosts["origin"].exec(["ip", "route", "add", "10.77.2.1/32", "dev", "eth0"])
    try:
        script = "exec 3<>/dev/tcp/10.77.2.1/22"
        assert lab.hosts["origin"].exec(["bash", "-c", script], check=False).returncode == 1
    finally:
        lab.hosts["origin"].exec(["ip", "route", "del", "10.77.2.1/32", "dev", "eth0"])


def test_segment_sees_the_packets(lab: Lab) -> None:
    capture = lab.hosts["segment"].popen(
        ["tcpdump", "-c", "1", "-nli", "servers", "tcp port 22 and host 10.77.1.3"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert capture.stderr is not None
    while "listening on" not in capture.stderr.readline():
        assert capture.poll() is None
    lab.hosts["peer"].exec(["bash", "-c", "exec 3<>/dev/tcp/10.77.1.3/22"])  # Local: unseen.
    lab.hosts["origin"].exec(["bash", "-c", "exec 3<>/dev/tcp/10.77.1.3/22"])
    out, _ = capture.communicate(timeout=10)
    assert "10.77.1.1." in out


def test_nothing_leads_out(lab: Lab) -> None:
    for host in HOSTS:
        routes = json.loads(lab.hosts[host].exec(["ip", "-json", "route", "show", "default"]).stdout)
        assert [route["gateway"] for route in routes] == ([] if host == "gateway" else [routes[0]["gateway"]])
    assert lab.hosts["gateway"].exec(["ip", "route", "get", "192.0.2.1"], check=False).returncode != 0


def test_tun_is_usable(lab: Lab) -> None:
    lab.hosts["destination"].exec(
        ["sh", "-ec", "ip tuntap add mode tun name t0; ip tuntap del mode tun name t0"]
    )


def test_large_images_fit(lab: Lab) -> None:
    script = "for d in /run /dev/shm /tmp; do df --output=avail -k $d | tail -1; done"
    assert all(
        int(line) > 2 << 20 for line in lab.hosts["destination"].exec(["sh", "-c", script]).stdout.split()
    )


def test_commands_are_on_the_path(lab: Lab) -> None:
    bin_directory = Path(sys.executable).parent
    for program in ("migrate", "migrate-agent", "migrate-lab", "tcpcp", "criu"):
        if not (bin_directory / program).exists():
            continue
        for words in (["which", program], ["ssh", "destination", "which", program]):
            assert lab.hosts["origin"].exec(words).stdout == f"/usr/local/bin/{program}\n"
