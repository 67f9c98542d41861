"""Paper, section 4: an ICI means the same everywhere. A connection goes to another architecture and back.

arm64 has this one's byte order and other system call numbers; s390x has the other byte order.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest
from harness.workloads import WORKLOADS
from passing_lab import content, hand_over, passers, service_on_both, switch

from migrate.lab.vm import probe
from migrate.lab.vm.lab import VmLab

PORT = 7200
SIZE_BYTES = 20_000
#: What ``uname -m`` says, and the kernel.
MACHINES = {"arm64": ("aarch64", "6.12"), "s390x": ("s390x", "6.1")}


@pytest.mark.parametrize("architecture", [pytest.param("arm64", marks=pytest.mark.long), "s390x"])
def test_a_connection_goes_there_and_back(architecture: str) -> None:
    if why := probe.problem_of(architecture):
        pytest.skip(f"machines of {architecture} cannot boot here: {why}")
    machine, kernel = MACHINES[architecture]
    wishes = {"architectures": {"destination": architecture}, "kernels": {"destination": kernel}}
    with VmLab(f"arch-{os.getpid()}", **wishes) as lab:
        assert lab.hosts["destination"].exec(["uname", "-m"]).stdout.strip() == machine
        with service_on_both(lab), passers(lab) as (origin, destination):
            origin.ask("listen", address=lab.service.ipv4, port=PORT)
            peer = lab.hosts["peer"].popen(
                [
                    sys.executable,
                    str(WORKLOADS / "two_parts.py"),
                    lab.service.ipv4,
                    str(PORT),
                    str(SIZE_BYTES),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert origin.ask("accept") == 0
            assert peer.stdout.readline() == "ready\n"
            origin.ask("send", number=0, name="here", size_bytes=SIZE_BYTES)
            for one, other, where in ((origin, destination, "destination"), (destination, origin, "origin")):
                handed, ports = hand_over(one, other)
                print(f"to {where}:", handed)
                assert (handed["states"], ports) == (["ESTABLISHED"], [PORT])
                switch(lab, where)
                other.ask("activate")
                one.ask("release")
                assert other.ask("send", number=0, name=where, size_bytes=SIZE_BYTES) == SIZE_BYTES
            origin.tell("finish", more_bytes=SIZE_BYTES, mute=[])
            said, _ = peer.communicate("\n", timeout=300)
            (result,) = origin.answer()
    sent = b"".join(content(name, SIZE_BYTES) for name in ("here", "destination", "origin", "more 0"))
    assert json.loads(said) == [len(sent), hashlib.sha256(sent).hexdigest()]
    wanted = hashlib.sha256(content("first", SIZE_BYTES) + content("second", SIZE_BYTES)).hexdigest()
    assert (result["received"], result["digest"]) == (2 * SIZE_BYTES, wanted)
