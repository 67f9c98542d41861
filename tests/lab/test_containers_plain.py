"""Plain runc moves a container between hosts by two commands; with the plug-in no connection notices."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from harness import containers, plugin
from harness.containers import HOSTS, REDIS, Containers, there_and_back
from harness.plain_runtime import Plain
from harness.steady import asked, clients, errors, served

from migrate.lab import Lab

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(containers.missing()), reason="needs `make setup-containers`"),
    pytest.mark.timeout(900),
]
MOVES = 6
EACH = pytest.mark.parametrize(
    "plain",
    [("runc", "bridge"), ("runc", "macvlan"), ("crun", "bridge"), ("crun", "macvlan")],
    ids="-".join,
    indirect=True,
)


@pytest.fixture(scope="module")
def built() -> Iterator[Containers]:
    """A lab of its own, with a bridge to the peer on both hosts."""
    with Lab(f"plain-{os.getpid()}") as lab:
        yield Containers(lab)
    containers.sweep()


@pytest.fixture
def plain(built: Containers, request: pytest.FixtureRequest) -> Iterator[Plain]:
    """No container is there before, or stays."""
    made = Plain(built.lab, *request.param)
    made.give(REDIS)
    yield made
    made.remove()


@EACH
def test_there_and_back_under_traffic(plain: Plain) -> None:
    with plugin.installed(plain.lab, runtime=plain.runtime):
        plain.run()
        with clients(plain.lab, plain.address) as asking:
            for here, there in there_and_back(MOVES):
                plain.move(here, there)
                assert plain.runs(there) and not plain.runs(here)
                assert served(asking, asked(asking))
        assert [plugin.said(plain.lab.hosts[name]) for name in HOSTS] == ["", ""]


@EACH
def test_without_the_plugin_connections_are_reset(plain: Plain) -> None:
    """So that the test before this one can fail."""
    found: list[str] = []
    plain.run()
    with clients(plain.lab, plain.address) as asking:
        for here, there in there_and_back(MOVES):
            plain.move(here, there)
            if found := errors(asking):
                break
    assert any("reset" in one for one in found), found
