"""The examples, started by the lines of their README. The judges: curl, sha256sum, tcpdump, nstat, ss."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest
from judge import wait_for

from migrate.lab import Host, Lab

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "examples"
DONE = "--done--"
SERVICES = ["--service", "10.77.1.100", "--service", "fd77:1::100"]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Lab]:
    """A lab of this file's own: the examples change addresses and settings of its hosts."""
    with Lab(f"examples-{os.getpid()}") as lab:
        yield lab


def blocks(section: str) -> list[str]:
    """The shell lines of a section of the README, block by block."""
    text = (EXAMPLES / "README.md").read_text()
    sections = dict(part.partition("\n")[::2] for part in text.split("\n## ")[1:])
    return re.findall(r"```sh\n(.*?)```", sections[section], re.DOTALL)


class Shell:
    """A user's bash, in which lines are pasted; it differs in that its lab has a name."""

    def __init__(self, lab: Lab) -> None:
        words = ["bash", "--noprofile", "--norc"]
        pipe = subprocess.PIPE
        self._bash = subprocess.Popen(words, cwd=PROJECT, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        self.paste(f'set -e\nmigrate-lab() {{ command migrate-lab --name {lab.name} "$@"; }}')
        for block in blocks("Preparation"):
            self.paste(block.replace("migrate-lab up", ": it is up"))

    def paste(self, lines: str) -> list[str]:
        """Run *lines*; they must succeed; return what they print."""
        assert self._bash.stdin and self._bash.stdout
        self._bash.stdin.write(f"{lines}\necho {DONE}\n")
        self._bash.stdin.flush()
        said: list[str] = []
        for line in self._bash.stdout:
            if line.strip() == DONE:
                return said
            said.append(line.rstrip("\n"))
        raise AssertionError(f"failed: {lines}\n" + "\n".join(said))

    def close(self) -> None:
        assert self._bash.stdin
        self._bash.stdin.close()
        self._bash.wait(10)


@pytest.fixture
def shell(hosts: Lab) -> Iterator[Shell]:
    """A shell in which the page's preparation is done; afterwards the hosts are as before."""
    shell = Shell(hosts)
    yield shell
    shell.close()
    left = [line for name in ("origin", "destination", "gateway") for line in reset(hosts.hosts[name])]
    assert left == []


def reset(host: Host) -> list[str]:
    """Make *host* as it was; return what the examples have left there."""
    try:
        wait_for(lambda: not programs(host), "no program of ours runs", 5)
    except AssertionError:
        left = [f"{host.name}: {words}" for words in programs(host).values()]
        for pid in programs(host):
            host.exec(["kill", "-9", str(pid)], check=False)
    else:
        left = []
    script = "ip address flush dev lo scope global; nft list tables; nft flush ruleset"
    tables = host.exec(["sh", "-c", script]).stdout.splitlines()
    return left + [f"{host.name}: {table}" for table in tables if "passed-" in table]


def programs(host: Host) -> dict[int, str]:
    """PID -> command line of examples that run on *host*."""
    lines = host.exec(["ps", "-e", "-ww", "-o", "pid=,args="]).stdout.splitlines()
    found = (line.split(None, 1) for line in lines if str(EXAMPLES) in line)
    return {int(pid): words for pid, words in found}


class Segment(NamedTuple):
    at: float
    sender: str
    receiver: str
    flags: int
    payload_bytes: int


class Watch:
    """The peer's capture, headers only, and its counters, while the ``with`` block runs."""

    def __init__(self, peer: Host, port: int) -> None:
        self._peer, self._port = peer, port

    def __enter__(self) -> Self:
        self._before = self._counters()
        words = [
            "tcpdump",
            "-Z",
            "root",
            "-n",
            "-U",
            "--immediate-mode",
            "-B",
            "65536",
            "-s",
            "128",
            "-i",
            "eth0",
        ]
        self._tcpdump = self._peer.popen(
            [*words, "-w", "/tmp/examples.pcap", f"tcp port {self._port}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._tcpdump.stderr
        assert any("listening on" in line for line in self._tcpdump.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tcpdump.terminate()
        _, said = self._tcpdump.communicate(timeout=10)
        if kind is None:
            assert "\n0 packets dropped by kernel" in "\n" + said, said
            after = self._counters()
            self.counted = {name: after[name] - self._before.get(name, 0) for name in after}

    def _counters(self) -> dict[str, int]:
        found = json.loads(self._peer.exec(["nstat", "-aszj"]).stdout)
        return dict(found["kernel"])

    def segments(self) -> list[Segment]:
        fields = (
            "frame.time_epoch",
            "ip.src",
            "ipv6.src",
            "tcp.srcport",
            "tcp.dstport",
            "tcp.flags",
            "tcp.len",
        )
        words = ["tshark", "-n", "-r", str(self._peer.root / "tmp/examples.pcap"), "-T", "fields"]
        for field in (*fields, "tcp.flags", "tcp.len"):
            words += ["-e", field]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found = []
        for line in done.stdout.splitlines():
            at, ipv4, ipv6, port, to_ipv4, to_ipv6, to_port, flags, length = line.split("\t")
            ends = (f"{ipv4 or ipv6}.{port}", f"{to_ipv4 or to_ipv6}.{to_port}")
            found.append(Segment(float(at), *ends, int(flags, 16), int(length)))
        return found

    def judge(self) -> float:
        """Nobody was reset; return the longest silence in ms of a service that had begun to send.

        For whatever reason: a client that takes no more (``curl --limit-rate``) makes for silences too.
        """
        segments = self.segments()
        assert segments
        assert resets(segments) == []
        for name in ("TcpEstabResets", "TcpOutRsts", "TcpExtTCPAbortOnData", "TcpAttemptFails"):
            assert self.counted[name] == 0, f"{name}: {self.counted[name]}"
        last: dict[tuple[str, str], float] = {}
        silences: dict[tuple[str, str], float] = {}
        for one in segments:
            if one.sender.endswith(f".{self._port}") and one.payload_bytes:
                stream = (one.sender, one.receiver)
                silence_ms = 1000 * (one.at - last.get(stream, one.at))
                silences[stream] = max(silences.get(stream, 0), round(silence_ms, 1))
                last[stream] = one.at
        names = ("TcpRetransSegs", "TcpExtTCPTimeouts", "TcpExtTCPLossProbes", "TcpExtTCPDSACKOldSent")
        print({name: self.counted[name] for name in names}, "longest silences in ms:", *silences.values())
        return max(silences.values())


def resets(segments: list[Segment]) -> list[Segment]:
    """The resets of connections that were not over.

    Where the last ACK and FIN of a server overtake each other (they may leave from two processors), a peer
    in TIME_WAIT acknowledges once more, to a host whose socket is gone. That happens to any server.
    """
    closed: set[tuple[str, str]] = set()
    found = []
    for one in segments:
        both = {(one.sender, one.receiver), (one.receiver, one.sender)}
        if one.flags & 0x04 and not both <= closed:
            found.append(one)
        if one.flags & 0x01:
            closed.add((one.sender, one.receiver))
    return found


def passed(log: list[str]) -> int:
    """How many connections a front says it has passed on."""
    return sum(int(found[1]) for line in log if (found := re.match(r"passed (\d+) ", line)))


def test_downloads_go_on(shell: Shell, hosts: Lab) -> None:
    start, use, stop = blocks("A download goes on from another host")
    shell.paste(start)
    with Watch(hosts.hosts["peer"], 8080) as watch:
        said = shell.paste(use)
    shell.paste(stop)
    print(*said, sep="\n")
    assert len({line.split()[0] for line in said[:3]}) == 1
    assert passed(said[3:]) == 2
    assert watch.judge() < 1000


def test_many_downloads_at_once(shell: Shell, hosts: Lab) -> None:
    start, _, stop = blocks("A download goes on from another host")
    said = shell.paste(start + "migrate-lab exec origin -- sha256sum /srv/files/big")
    peer, urls = hosts.hosts["peer"], "http://service:8080/big"
    curls = [["sh", "-c", f"curl -sS -m 60 -{4 + 2 * (n % 2)} {urls} {urls} | sha256sum"] for n in range(8)]
    expected = shell.paste("migrate-lab exec origin -- sh -c 'cat /srv/files/big /srv/files/big | sha256sum'")
    with Watch(peer, 8080) as watch:
        running = [peer.popen(words, stdout=subprocess.PIPE, text=True) for words in curls]
        sums = [curl.communicate(timeout=90)[0] for curl in running]
    log = shell.paste("migrate-lab exec origin -- cat /tmp/serve.log")
    shell.paste(stop)
    assert said and {one.strip() for one in sums} == {expected[0].strip()}
    assert passed(log) == len(curls)
    watch.judge()


def _no_taker(shell: Shell) -> str:
    shell.paste("migrate-lab exec destination -- kill $taker")
    return "destination cannot be reached"


def _stopped_taker(shell: Shell) -> str:
    shell.paste("migrate-lab exec destination -- kill -STOP $taker")
    return "destination did not take 1 connections, they stay"


def _other_file(shell: Shell) -> str:
    shell.paste("migrate-lab exec destination -- truncate -s 40000000 /srv/files/big")
    return "big has 40000000 bytes here, not 50000000"


def _no_address(shell: Shell) -> str:
    shell.paste("migrate-lab exec destination -- ip address del 10.77.1.100/32 dev lo")
    return "destination did not take 1 connections, they stay: "


@pytest.mark.parametrize("trouble", [_no_taker, _stopped_taker, _other_file, _no_address])
def test_download_stays_where_it_was(shell: Shell, hosts: Lab, trouble: Callable[[Shell], str]) -> None:
    start, _, _ = blocks("A download goes on from another host")
    shell.paste(start)
    reason = trouble(shell)
    with Watch(hosts.hosts["peer"], 8080) as watch:
        ours = shell.paste("migrate-lab exec origin -- sha256sum /srv/files/big")
        curl = "curl -sS -4 -m 60 http://service:8080/big | sha256sum"
        theirs = shell.paste(f"migrate-lab exec peer -- sh -c '{curl}'")
    log = shell.paste("migrate-lab exec origin -- cat /tmp/serve.log")
    shell.paste("migrate-lab exec destination -- sh -c 'kill -KILL $0 2>&- || :' $taker")
    shell.paste("migrate-lab exec origin -- kill $front")
    assert theirs[0].split()[0] == ours[0].split()[0]
    assert passed(log) == 0
    assert any(reason in line for line in log), log
    watch.judge()


def test_dispatcher(shell: Shell, hosts: Lab) -> None:
    start, use, stop = blocks("A dispatcher and its workers")
    workers = [int(line) for line in shell.paste(start) if line.isdigit()]
    with Watch(hosts.hosts["peer"], 8080) as watch:
        said = shell.paste(use)
    shell.paste(stop)
    for name, pid in zip(("origin", "destination"), workers, strict=True):
        shell.paste(f"migrate-lab exec {name} -- kill {pid}")
    print(*said, sep="\n")
    users = ["ann", "bob", "cleo", "dan", "ann"]
    assert [line for line in said if "welcome" in line] == [f"welcome, {user}" for user in users]
    answered = re.compile(r"/(\w+): request (\d+) of (\w+), answered by (\w+)")
    answers = [found.groups() for line in said if (found := answered.match(line))]
    where = {user: host for _, _, user, host in answers}
    assert {(user, host) for _, _, user, host in answers} == set(where.items())
    assert set(where.values()) == {"origin", "destination"}
    assert [int(count) for _, count, user, _ in answers if user == "ann"] == [1, 2, 3, 4]
    assert passed(said) == len(users)
    assert watch.counted["TcpActiveOpens"] == len(users)
    assert watch.judge() < 1000


def test_load_shedding(shell: Shell, hosts: Lab) -> None:
    start, use, stop = blocks("Shedding load")
    shell.paste(start)
    peer = hosts.hosts["peer"]
    words = [sys.executable, str(EXAMPLES / "numbers_client.py"), "service", "--port", "8083"]
    words += ["--connections", "40", "--numbers", "500"]
    with Watch(peer, 8083) as watch:
        client = peer.popen(words, stdout=subprocess.PIPE, text=True)
        wait_for(lambda: established(hosts.hosts["destination"]) >= 15, "half of them are elsewhere")
        wait_for(lambda: sum(map(established, movers(hosts))) == 40, "each is at one of the two")
        report: dict[str, Any] = json.loads(client.communicate(timeout=60)[0])
    said = shell.paste(use)
    shell.paste(stop)
    print(report, *said, sep="\n")
    for one in (report, json.loads(said[0])):
        assert one["errors"] == []
        assert one["connections"] == 40
        assert one["received"] == 40 * 500
        assert one["longest_silence_ms"] < 1000
    assert passed(said) >= 30
    assert watch.judge() < 1000


def movers(lab: Lab) -> list[Host]:
    return [lab.hosts["origin"], lab.hosts["destination"]]


def established(host: Host) -> int:
    """How many of the clients' connections *host* has, says ss."""
    return len(host.exec(["ss", "-tnHo", "state", "established", "sport = 8083"]).stdout.splitlines())
