"""A route of the gateway is changed: what a switch promises, what is refused, and what whoever has the key may do.

The ssh program is one that goes to the gateway's network here and runs the command that the key is bound to.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from gap_hosts import SERVICE, GapHosts
from netns import Namespace, ip
from test_switches import bindable
from test_switches_on_both import state

from migrate import switch
from migrate.errors import SwitchError
from migrate.switch import Address
from migrate.switch.route import asked, table
from migrate.testing import switches

ADDRESSES = [Address(SERVICE[4], 32, "lo"), Address(SERVICE[6], 128, "lo")]
BITS = {4: 32, 6: 128}
HOPS = {"origin": ("10.9.0.1", "fd09::1"), "destination": ("10.9.0.2", "fd09::2")}
SILENT = ("net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
AGENT = [sys.executable, "-m", "migrate.destination.agent", "--gateway"]
#: It is not in the tests' path.
ROOT = Path(__file__).parents[2]


def lead(gateway: Namespace, to: str, more: str = "") -> None:
    with gateway.entered():
        for version, hop in zip(SERVICE, HOPS[to], strict=True):
            ip(f"route replace {SERVICE[version]}/{BITS[version]} via {hop} {more}")


def routes(gateway: Namespace) -> list[str]:
    with gateway.entered():
        return [ip(f"-{version} -d route show {SERVICE[version]}/{BITS[version]}") for version in SERVICE]


@pytest.fixture
def hosts(gap_hosts: GapHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GapHosts]:
    """Figure 3: the service on lo of both, silent; the peer is the gateway."""
    for host in (gap_hosts.origin, gap_hosts.destination):
        with host.entered():
            subprocess.run(["sysctl", "-qw", *SILENT], check=True)
            for version, address in SERVICE.items():
                if host is gap_hosts.origin:
                    ip(f"addr del {address}/{24 if version == 4 else 64} dev eth0")
                ip(f"addr add {address}/{BITS[version]} dev lo")
    with gap_hosts.peer.entered():
        ip(f"route del {SERVICE[4]} dev eth0")
        ip(f"route del {SERVICE[6]} dev eth0")
    lead(gap_hosts.peer, "origin", "mtu 1400")
    named = [word for pair in HOPS.values() for hop in pair for word in ("--to", hop)]
    bound(tmp_path, gap_hosts.peer, [*named, *SERVICE.values()])
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield gap_hosts
    _gone()


def bound(tmp_path: Path, gateway: Namespace, words: list[str]) -> None:
    """From now on the key is bound to that."""
    program = tmp_path / "ssh"
    command = " ".join([*AGENT, *words])
    program.write_text(
        f'#!/bin/sh\necho "$@" >{tmp_path}/words\nexec nsenter --net={gateway.path} {command}\n'
    )
    program.chmod(0o755)
    _gone()


def _gone() -> None:
    """Nothing is connected."""
    asked.disconnect()


def case(hosts: GapHosts) -> switches.Case:
    def on(role: str) -> AbstractContextManager[object]:
        return {"origin": hosts.origin, "destination": hosts.destination}[role].entered()

    def all_of_it() -> object:
        return state(), routes(hosts.peer)

    return switches.Case("route:gateway", ADDRESSES, on, all_of_it, bindable, ("destination",))


@pytest.mark.parametrize("check", switches.CHECKS, ids=lambda check: check.__name__)
def test_it_is_one(hosts: GapHosts, check: Callable[[switches.Case], None]) -> None:
    """All else of the routes, as their mtu, stays."""
    assert all("mtu 1400" in line for line in routes(hosts.peer))
    check(case(hosts))


def make(role: str = "destination") -> switch.Switch:
    return switch.make("route:gateway", role, switches.ID, ADDRESSES)


def refused(host: Namespace, role: str, words: str) -> SwitchError:
    with host.entered(), pytest.raises(SwitchError, match=words) as told:
        make(role).choose()
    return told.value


def test_both_ways(hosts: GapHosts) -> None:
    """The kernel of the gateway is asked, not what was said before."""
    with hosts.destination.entered():
        made = make()
        made.choose()
        made.switch()
        made.verify()
        lead(hosts.peer, "origin")
        with pytest.raises(SwitchError, match=r"leads .* to 10\.9\.0\.1"):
            made.verify()


def test_a_route_that_somebody_has_changed_meanwhile_is_left_as_it_is(hosts: GapHosts) -> None:
    with hosts.destination.entered():
        made = make()
        made.choose()
    with hosts.peer.entered():
        ip(f"route replace {SERVICE[4]}/32 via 10.9.0.77")
    before = routes(hosts.peer)
    with hosts.destination.entered():
        with pytest.raises(SwitchError, match=r"leads to 10\.9\.0\.77, not to 10\.9\.0\.1"):
            made.switch()
        made.undo()
    assert routes(hosts.peer) == before
    error = refused(hosts.origin, "origin", r"leads .* to 10\.9\.0\.77")
    assert "ip route get" in error.problem.hint


def test_an_origin_to_which_nothing_leads(hosts: GapHosts) -> None:
    lead(hosts.peer, "destination")
    refused(hosts.origin, "origin", r"leads .* to 10\.9\.0\.2")
    refused(hosts.destination, "destination", r"leads .* to 10\.9\.0\.2")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (f"route del {SERVICE[4]}/32", "no route by a single next hop"),
        (f"route replace {SERVICE[4]}/32 dev eth0", "no route by a single next hop"),
        (f"route add {SERVICE[4]}/32 via 10.9.0.2 metric 9", "several routes"),
        (
            f"route replace {SERVICE[4]}/32 nexthop via 10.9.0.1 nexthop via 10.9.0.2",
            "no route by a single next hop",
        ),
        (f"rule add to {SERVICE[4]} blackhole", "does not use its route"),
    ],
)
def test_a_route_that_is_not_as_expected(hosts: GapHosts, change: str, words: str) -> None:
    with hosts.peer.entered():
        ip(change)
    for role, host in (("origin", hosts.origin), ("destination", hosts.destination)):
        assert refused(host, role, words).problem.hint


def test_rights_that_are_missing(hosts: GapHosts, tmp_path: Path) -> None:
    """Each is named, with what to write where."""
    own = [word for hop in HOPS["origin"] for word in ("--to", hop)]
    bound(tmp_path, hosts.peer, [*own, *SERVICE.values()])
    error = refused(hosts.destination, "destination", f"may lead {SERVICE[4]} to no address of this host")
    assert "--to ADDRESS" in error.problem.hint
    both = [word for pair in HOPS.values() for hop in pair for word in ("--to", hop)]
    bound(tmp_path, hosts.peer, [*both, SERVICE[4]])
    error = refused(hosts.destination, "destination", f"{SERVICE[6]}' is not named there")
    assert "authorized_keys" in error.problem.hint


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Permission denied (publickey).' >&2; exit 255", "cannot be asked: Permission denied"),
        ("echo hello; sleep 9", "cannot be asked"),
        ('echo "[]"; sleep 9', "cannot be asked: it says something else"),
        ("exit 0", "cannot be asked: it has ended"),
    ],
)
def test_a_gateway_that_cannot_be_asked(hosts: GapHosts, tmp_path: Path, script: str, words: str) -> None:
    (tmp_path / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    error = refused(hosts.destination, "destination", words)
    assert "ssh -oBatchMode=yes gateway" in error.problem.hint


def test_a_gateway_that_is_lost_is_asked_anew(hosts: GapHosts) -> None:
    """An undo may come long after, and in another process."""
    with hosts.destination.entered():
        made = make()
        made.choose()
        made.switch()
        asked.gateway("gateway").close()
        made.undo()
    assert "via 10.9.0.1" in routes(hosts.peer)[0]


def test_how_ssh_is_called(hosts: GapHosts, tmp_path: Path) -> None:
    with hosts.destination.entered():
        switch.make("route:root@gateway", "destination", switches.ID, ADDRESSES).choose()
        words = (tmp_path / "words").read_text().split()
        assert words[-6:] == ["-oConnectTimeout=5", "-lroot", "--", "gateway", "migrate-agent", "--gateway"]
        assert {"-oBatchMode=yes", "-oStrictHostKeyChecking=yes"} <= {*words}
        for name in ("-oProxyCommand=x", "a b", "@g"):
            with pytest.raises(SwitchError, match="no name of a gateway"):
                switch.make(f"route:{name}", "destination", switches.ID, ADDRESSES).choose()


# --- neighbours must not find the address ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "words"),
    [("arp_ignore=0", "answers ARP requests"), ("arp_announce=0", "may name it in ARP requests")],
)
def test_a_host_that_answers(hosts: GapHosts, setting: str, words: str) -> None:
    with hosts.destination.entered():
        subprocess.run(["sysctl", "-qw", f"net.ipv4.conf.all.{setting}"], check=True)
    error = refused(hosts.destination, "destination", words)
    assert "sysctl -w net.ipv4.conf.all." in error.problem.hint


@pytest.mark.parametrize("version", [4, 6])
def test_an_address_of_the_segments_interface(hosts: GapHosts, version: int) -> None:
    with hosts.destination.entered():
        ip(f"addr del {SERVICE[version]}/{BITS[version]} dev lo")
        ip(f"addr add {SERVICE[version]}/{BITS[version]} dev eth0" + (" nodad" if version == 6 else ""))
    refused(hosts.destination, "destination", f"may find {SERVICE[version]} here")


# --- what whoever has the key may do -----------------------------------------------------------------------


def answers(gateway: Namespace, *lines: Any, words: tuple[str, ...] = ()) -> tuple[int, list[Any]]:
    """Exit status, and what is said to *lines*."""
    told = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
    allowed = words or ("--to", "10.9.0.1", "--to", "10.9.0.2", SERVICE[4])
    command = ["nsenter", f"--net={gateway.path}", *AGENT, *allowed]
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(asked.boot_time() - one.pop("now") < 60 for one in said)
    return done.returncode, said


def test_what_it_says(hosts: GapHosts) -> None:
    look = {"do": "look", "address": SERVICE[4]}
    status, said = answers(hosts.peer, look)
    assert (status, said[0]) == (0, {"addresses": [SERVICE[4]], "hops": ["10.9.0.1", "10.9.0.2"]})
    assert said[1] == {"route": "10.9.0.1", "used": "10.9.0.1"}


@pytest.mark.parametrize(
    "asked_for",
    [
        {"do": "lead", "address": SERVICE[6], "before": "fd09::1", "to": "fd09::2"},
        {"do": "lead", "address": "10.9.0.0/24", "before": "10.9.0.1", "to": "10.9.0.2"},
        {"do": "lead", "address": "0.0.0.0", "before": "10.9.0.1", "to": "10.9.0.2"},
        {"do": "lead", "address": SERVICE[4], "before": "10.9.0.1", "to": "10.9.0.66"},
        {"do": "lead", "address": SERVICE[4], "before": "10.9.0.66", "to": "10.9.0.2"},
        {"do": "look", "address": "10.9.0.1"},
    ],
)
def test_what_is_not_named_is_not_done(hosts: GapHosts, asked_for: dict[str, Any]) -> None:
    before = routes(hosts.peer)
    if asked_for["do"] == "lead":
        asked_for = asked_for | {"until": asked.boot_time() + 60}
    status, said = answers(hosts.peer, asked_for)
    assert status == 0 and "is not named there" in said[1]["problem"]
    assert routes(hosts.peer) == before


def test_a_change_that_comes_late_is_not_made(hosts: GapHosts) -> None:
    """When nobody waits for the answer any more, the opposite may have been asked for since."""
    before = routes(hosts.peer)
    change = {"do": "lead", "address": SERVICE[4], "before": "10.9.0.1", "to": "10.9.0.2"}
    for until in (asked.boot_time() - 0.001, float("nan"), -1.0):
        _, said = answers(hosts.peer, change | {"until": until})
        assert "too late" in said[1]["problem"]
    assert routes(hosts.peer) == before
    _, said = answers(hosts.peer, change | {"until": asked.boot_time() + 60})
    assert said[1] == {"route": "10.9.0.2", "used": "10.9.0.2"}


@pytest.mark.parametrize(
    "line",
    [
        "ip route flush table main",
        "[]",
        "7",
        '{"do": "flush"}',
        {"do": "look"},
        {"do": "look", "address": [1]},
        {"do": ["look"], "address": SERVICE[4]},
        {"do": "look", "address": SERVICE[4], "more": ""},
        {"do": "lead", "address": SERVICE[4], "before": "10.9.0.1", "to": "10.9.0.2"},
        {"do": "lead", "address": SERVICE[4], "before": "10.9.0.1", "to": "10.9.0.2", "until": "1e9"},
        "[" * 4000,
        "x" * 10000,
    ],
)
def test_what_is_no_question_ends_it(hosts: GapHosts, line: Any) -> None:
    before = routes(hosts.peer)
    status, said = answers(hosts.peer, line)
    assert (status, len(said)) == (1, 1)
    assert routes(hosts.peer) == before


@pytest.mark.parametrize("words", [("--to",), ("--to", "--to"), ("gateway",), ("10.9.0.0/24",), ("--help",)])
def test_words_that_make_no_sense(hosts: GapHosts, words: tuple[str, ...]) -> None:
    assert answers(hosts.peer, words=words) == (2, [])


def test_without_rights(hosts: GapHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    with hosts.peer.entered():
        assert table.may_change()
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", *AGENT, SERVICE[4]]
    look = json.dumps({"do": "look", "address": SERVICE[4]}) + "\n"
    done = subprocess.run(
        ["nsenter", f"--net={hosts.peer.path}", *command],
        input=look,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "may change no routes" in done.stdout, done
