"""Other packages' ways are found by name; one that is not there is told with a remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from migrate import arguments, switch, transport, wanted
from migrate.errors import SwitchError, TransportError, UsageError
from migrate.journal.reach import Reach
from migrate.recovery import doubt
from migrate.recovery.records import Record
from migrate.switch import Address

MODULE = """
class Transport:
    def open(self, reach):
        return reach.host

def make(role, migration_id, addresses, **more):
    return role, migration_id, addresses, more

def plain(role, migration_id, addresses):
    return role
"""
ENTRY_POINTS = """
[migrate.transports]
pigeon = {module}:Transport
ssh = {module}:Transport
broken = {module}:absent

[migrate.switches]
flags = {module}:make
plain = {module}:plain
address = {module}:make
gone = {module}_gone:make
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with ways of its own, as pip leaves it; its module's name."""
    name = f"pigeons_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    info = tmp_path / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS.format(module=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_they_are_known_by_name(installed: str) -> None:
    asked = wanted.request(
        arguments.parser().parse_args(["--transport", "pigeon", "--switch", "flags", "4", "h"])
    )
    assert (asked.way.transport, asked.switch) == ("pigeon", "flags")  # type: ignore[union-attr]
    assert transport.find("pigeon").open(Reach(host="h")) == "h"
    address = Address("10.0.0.1", 24)
    assert switch.make("flags", "origin", "ab12", [address], seen=[1]) == (
        "origin",
        "ab12",
        [address],
        {"seen": [1]},
    )


def test_what_stands_behind_the_colon_is_theirs(installed: str) -> None:
    parsed = arguments.parser().parse_args(["--switch", "flags:red:green", "4", "h"])
    assert wanted.request(parsed).switch == "flags:red:green"  # type: ignore[union-attr]
    made = switch.make("flags:red:green", "origin", "ab12", [])
    assert made == ("origin", "ab12", [], {"arguments": "red:green"})
    assert switch.make("plain", "origin", "ab12", []) == "origin"
    with pytest.raises(SwitchError, match="--switch plain is followed by nothing, not by 'red'"):
        switch.make("plain:red", "origin", "ab12", [])


def test_none_can_put_itself_before_ours(installed: str) -> None:
    assert type(transport.find("ssh")).__module__ == "migrate.transport.by_ssh"
    assert type(switch.make("address", "origin", "ab12", [])).__module__ == "migrate.switch.address.origin"


def test_one_that_is_not_there_is_told_with_those_that_are(installed: str) -> None:
    with pytest.raises(TransportError, match="called owl") as caught:
        transport.find("owl")
    assert "paramiko, ssh, broken, pigeon" in caught.value.problem.hint
    with pytest.raises(SwitchError, match="called lamps") as refused:
        switch.make("lamps", "origin", "ab12", [])
    assert "both hosts" in refused.value.problem.hint
    with pytest.raises(UsageError, match="--transport is one of paramiko, ssh"):
        wanted.request(arguments.parser().parse_args(["--transport", "owl", "4", "h"]))


def test_one_that_cannot_be_loaded_is_told_as_what_it_is(installed: str) -> None:
    with pytest.raises(TransportError, match=f"broken .* from {installed}:absent: AttributeError"):
        transport.find("broken")
    with pytest.raises(SwitchError, match="ModuleNotFoundError"):
        switch.make("gone", "origin", "ab12", [])


def test_ours_need_no_look_at_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes some milliseconds, and the guardian of an older environment may have nothing to look at."""
    monkeypatch.setattr("importlib.metadata.entry_points", None)
    transport.find("ssh")
    switch.make("address", "destination", "ab12", [])
    wanted.request(arguments.parser().parse_args(["--transport", "ssh", "4", "h"]))


def test_the_words_are_read_without_loading_ssh() -> None:
    """As wrong arguments are refused at once."""
    code = "import sys, migrate.arguments; print('paramiko' in sys.modules, 'pyroute2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(("reach", "name"), [({}, "paramiko"), ({"transport": "ssh"}, "ssh")])
def test_who_asks_later_goes_the_way_that_was_gone(
    monkeypatch: pytest.MonkeyPatch, reach: dict[str, str], name: str
) -> None:
    """The journal of the version before says nothing of it: there was one way."""

    class Closed:
        def open(self, reach: Reach) -> transport.AgentStream:
            raise TransportError(f"no way to {reach.host} by {reach.transport}")

    monkeypatch.setattr(transport, "find", {name: Closed()}.__getitem__)
    with pytest.raises(TransportError, match=f"no way to there by {name}"):
        doubt.ask(Record("0123456789ab", role="origin", other_host="there", reach=reach))
