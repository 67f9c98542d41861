"""An interface of a container's own is mute, and speaks again: nobody behind it hears anything meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs network namespaces of its own")

#: A bridge with two ports in a namespace, a "container" behind each; the first one is made mute and speaks again.
SCRIPT = """
import socket, subprocess, sys
from migrate.errors import SwitchError
from migrate.processes import network
from migrate.switch import Address, new_interfaces
from migrate.switch.interface import OwnInterface

def ip(words):
    subprocess.run(["ip", *words.split()], check=True)

def container(name, number):
    ip(f"link add {name} type veth peer name eth0 netns {name}")
    ip(f"-n {name} link set eth0 address 02:00:00:00:00:0{number} up")
    ip(f"-n {name} address add 10.9.0.{number}/24 dev eth0")
    ip(f"link set {name} master bridge up")

def reaches(here, number):
    # Nobody listens there: who is heard is refused.
    try:
        with network.within(f"/run/netns/{here}"):
            socket.create_connection((f"10.9.0.{number}", 9), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    finally:
        subprocess.run(["ip", "-n", here, "neigh", "flush", "dev", "eth0"], check=True)

def learnt():
    shown = subprocess.run(["bridge", "fdb", "show", "br", "bridge"], capture_output=True, text=True)
    return any(one.startswith("02:00:00:00:00:01 ") for one in shown.stdout.splitlines())

subprocess.run(["mount", "-t", "tmpfs", "netns", "/run"], check=True)
ip("link add bridge type bridge")
ip("link set bridge up")
for name in ("one", "two"):
    ip(f"netns add {name}")
container("two", 2)
new_interfaces.mute("abc123", ["02:00:00:00:00:01"])
container("one", 1)
assert not reaches("one", 2) and not reaches("two", 1) and not learnt()
with network.within("/run/netns/one"):
    there = OwnInterface("destination", "abc123", [Address("10.9.0.1", 24, "eth0")])
    there.choose()
    there.mute()
new_interfaces.speak("abc123")
assert not reaches("one", 2) and not reaches("two", 1) and not learnt()
with network.within("/run/netns/one"):
    try:
        there.verify()
        raise SystemExit("it is said to speak, and does not")
    except SwitchError:
        pass
    there.switch()
    there.verify()
assert learnt() and reaches("two", 1)
with network.within("/run/netns/one"):
    there.undo()
assert not reaches("two", 1)
with network.within("/run/netns/one"):
    there.switch()
with network.within("/run/netns/one"):
    there.keep()
    there.verify()
assert reaches("two", 1) and reaches("one", 2)
with network.within("/run/netns/one"):
    here = OwnInterface("origin", "abc124", [Address("10.9.0.1", 24, "eth0")])
    here.switch()
    here.verify()
assert not reaches("two", 1)
there.undo()  # another namespace, in which there is no such table
with network.within("/run/netns/one"):
    here.undo()
    here.undo()
assert reaches("two", 1)
"""


def test_nobody_hears_of_it_until_it_speaks() -> None:
    command = ["unshare", "--net", "--mount", sys.executable, "-c", SCRIPT]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, ran.stderr
