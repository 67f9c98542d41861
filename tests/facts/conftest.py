from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alarm import Alarm
from gap_hosts import SERVICE, GapHosts
from netns import Hosts, Namespace

from migrate import place
from migrate.gap.capture import Capture
from migrate.gap.inject import Injector
from tcpcp.kernel import nft


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """One host of this test's own, entered."""
    namespace = Namespace()
    with namespace.entered():
        yield namespace
    namespace.close()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two hosts of this test's own."""
    if os.geteuid():
        pytest.skip("needs root: makes network namespaces")
    hosts = Hosts()
    yield hosts
    nft.close()
    hosts.close()


@pytest.fixture
def gap_hosts() -> Iterator[GapHosts]:
    """Three hosts of this test's own."""
    hosts = GapHosts()
    yield hosts
    nft.close()
    hosts.close()


@pytest.fixture
def images() -> Iterator[Path]:
    """A directory for CRIU's, as a migration makes one."""
    if os.geteuid():
        pytest.skip("needs root: reads other processes and runs CRIU")
    directory = place.choose_images(place.new_id())
    place.make_images(directory)
    yield directory
    subprocess.run(["rm", "-rf", str(directory)], check=True)


@pytest.fixture
def capture(gap_hosts: GapHosts) -> Iterator[Capture]:
    """On the origin, for the service's addresses."""
    with gap_hosts.origin.entered():
        capture = Capture(ipaddress.ip_address(one) for one in SERVICE.values())
    yield capture
    capture.close()


@pytest.fixture
def injector(gap_hosts: GapHosts) -> Iterator[Injector]:
    """On the destination."""
    with gap_hosts.destination.entered():
        injector = Injector()
    yield injector
    assert injector.refused == 0
    injector.close()


@pytest.fixture(params=(False, True), ids=("alone", "among threads"))
def interrupting(request: pytest.FixtureRequest) -> Iterator[Alarm]:
    """An alarm, which the kernel gives to any thread that lets it through."""
    alarm = Alarm()
    before = signal.signal(signal.SIGALRM, alarm.handle)
    over = threading.Event()
    others = [threading.Thread(target=over.wait) for _ in range(3 if request.param else 0)]
    for other in others:
        other.start()
    yield alarm
    alarm.over()
    over.set()
    for other in others:  # after that none of them can be in the midst of taking one
        other.join()
    signal.signal(signal.SIGALRM, before)
