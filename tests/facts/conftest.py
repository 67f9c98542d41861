from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from netns import Hosts

from tcpcp import nft


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two hosts of this test's own."""
    if os.geteuid():
        pytest.skip("needs root: makes network namespaces")
    hosts = Hosts()
    yield hosts
    nft.close()
    hosts.close()
