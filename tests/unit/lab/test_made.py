"""What machines that there are were made of, beside what is asked for. No machine is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from migrate.lab import topology
from migrate.lab.vm import made, qemu, seed
from migrate.lab.vm.wish import Wish

RELEASE = "6.12.118+deb13-cloud-amd64"
KERNEL = Path(f"/cache/kernel-6-{RELEASE}/image")


def machines(init: str = seed.INIT, version: str = "", **fields: object) -> dict[str, dict[str, Any]]:
    """Four, all with *fields*, as they are written down."""
    one = qemu.Machine("x", KERNEL, KERNEL, qemu.words(init, Path("/p")), (), (), Path("/run"))
    written = one._asdict() | {"kernel": str(KERNEL), "version": version} | fields
    return dict.fromkeys(topology.HOSTS, written)


def wish(**parts: object) -> Wish:
    return Wish({}, {}, {}, {}, False)._replace(**parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["6.12", "6.12.118", RELEASE, f"linux-image-{RELEASE}"])
def test_a_kernel_by_each_of_its_names(version: str) -> None:
    assert made.differences(wish(kernels={"origin": version}), machines()) == []


@pytest.mark.parametrize("version", ["6.1", "6.12.119", "6.12.118+deb13-rt-amd64", "linux-image-rt-amd64"])
def test_another_kernel(version: str) -> None:
    found = made.differences(wish(kernels={"origin": version}), machines())
    assert found == [f"origin has the kernel {RELEASE}, not {version}"]


def test_a_kernel_by_the_package_that_it_was_asked_for_by() -> None:
    """One that only depends on it: what it means is known to Debian's archive alone."""
    asked = wish(kernels={"origin": "linux-image-cloud-amd64"})
    assert made.differences(asked, machines(version="linux-image-cloud-amd64")) == []


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"cpus": {"peer": "Haswell"}}, "peer has the best processor there is, not Haswell"),
        ({"clocks": {"peer": 7}}, "peer has the clock 0, not 7"),
        ({"architectures": {"peer": "s390x"}}, "peer has the architecture amd64, not s390x"),
        ({"systemd": True}, "origin, destination, gateway, peer do not boot systemd"),
    ],
)
def test_other_machines(parts: dict[str, object], said: str) -> None:
    assert made.differences(wish(**parts), machines()) == [said]


def test_all_as_it_was_made() -> None:
    """Asked for again; and if nothing is asked for, whatever they are made of."""
    there = machines(seed.SYSTEMD, cpu="Haswell", clock_s=7)
    again = wish(cpus={"peer": "Haswell"}, clocks={"peer": 7}, architectures={"peer": "amd64"}, systemd=True)
    assert made.differences(again, there) == []
    assert made.differences(wish(), there) == []
