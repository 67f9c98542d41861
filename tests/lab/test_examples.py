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
from harness.wait import eventually

from migrate.lab import Host, Lab

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "examples"
DONE = "--done--"
#: Of a download of 100 MB, of which 10 MB written make it one to be passed on.
READ_AT_ONCE_BYTES = 40_000_000
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
        eventually(lambda: not programs(host), "no program of ours runs", 5)
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
    """A TCP segment.

    :ivar at: seconds since the epoch.
    :ivar sender, receiver: address.port.
    :ivar seq, ack: raw, mod 2**32.
    """

    at: float
    sender: str
    receiver: str
    seq: int
    ack: int
    flags: int
    payload_bytes: int

    @property
    def pair(self) -> tuple[str, str]:
        return self.sender, self.receiver


FIN, RST, ACK = 0x01, 0x04, 0x10
#: What tshark prints of each segment, the columns of :func:`segment`.
FIELDS = (
    *("frame.time_epoch", "ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport"),
    *("tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.len"),
)


def segment(line: str) -> Segment:
    """The segment that tshark prints as *line*."""
    at, ipv4, ipv6, port, to_ipv4, to_ipv6, to_port, seq, ack, flags, length = line.split("\t")
    ends = (f"{ipv4 or ipv6}.{port}", f"{to_ipv4 or to_ipv6}.{to_port}")
    return Segment(float(at), *ends, int(seq), int(ack), int(flags, 16), int(length))


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
        words = ["tshark", "-n", "-r", str(self._peer.root / "tmp/examples.pcap"), "-T", "fields"]
        for field in FIELDS:
            words += ["-e", field]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return [segment(line) for line in done.stdout.splitlines()]

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
                silence_ms = 1000 * (one.at - last.get(one.pair, one.at))
                silences[one.pair] = max(silences.get(one.pair, 0), round(silence_ms, 1))
                last[one.pair] = one.at
        names = ("TcpRetransSegs", "TcpExtTCPTimeouts", "TcpExtTCPLossProbes", "TcpExtTCPDSACKOldSent")
        print({name: self.counted[name] for name in names}, "longest silences in ms:", *silences.values())
        return max(silences.values())


def resets(segments: list[Segment]) -> list[Segment]:
    """The resets of connections that were not over: of which not both FINs had been acknowledged.

    Where the last ACK and the FIN of a server overtake each other (they may leave from two processors), a peer
    in TIME_WAIT acknowledges once more, to a host whose socket is gone. That happens to any server:
    tests/facts/test_after_the_end.py.
    """
    fins: dict[tuple[str, str], int] = {}
    over: set[tuple[str, str]] = set()
    found = []
    for one in segments:
        back = (one.receiver, one.sender)
        if one.flags & RST and not {one.pair, back} <= over:
            found.append(one)
        if one.flags & FIN:
            fins[one.pair] = (one.seq + one.payload_bytes + 1) % 2**32
        if one.flags & ACK and one.ack == fins.get(back):
            over.add(back)
    return found


def passed(log: list[str]) -> int:
    """How many connections a front says it has passed on."""
    return sum(int(found[1]) for line in log if (found := re.match(r"passed (\d+) ", line)))


def decided(log: str) -> int:
    """How many connections a front has passed on, or kept; it says so in a line for each."""
    return len(re.findall("passed|did not take|cannot be reached|are over", log))


def printed(ends: tuple[str, str], seq: int, ack: int, flags: int) -> str:
    """What tshark prints of a segment without data from the first to the second of *ends*."""
    ips = ["\t".join((end, "") if "." in end else ("", end)) for end in ends]
    ports = ("8080", "40000") if ends[0].endswith("100") else ("40000", "8080")
    numbers = (str(seq), str(ack), hex(flags), "0")
    return "\t".join(("1.5", ips[0], ports[0], ips[1], ports[1], *numbers))


@pytest.mark.parametrize("there", [("10.77.1.100", "10.77.2.1"), ("fd77:1::100", "fd77:2::1")])
def test_the_judge_knows_a_reset_after_the_end(there: tuple[str, str]) -> None:
    back = (there[1], there[0])
    lines = [
        printed(back, 200, 100, FIN | ACK),
        printed(there, 100, 201, FIN | ACK),
        printed(back, 201, 101, ACK),
        printed(there, 101, 0, RST),
    ]
    whole = [segment(line) for line in lines]
    assert resets(whole) == []
    for missing in range(3):
        rest = [one for number, one in enumerate(whole) if number != missing]
        assert resets(rest) == [whole[3]], f"without {lines[missing]}"
    other = whole[3]._replace(receiver="10.77.2.1.40001")
    assert resets([*whole, other]) == [other]


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
    """Each is passed on, for none can be over before: the last of it is not read until all have been."""
    start, _, stop = blocks("A download goes on from another host")
    start = start.replace("--pass-after", "--patience 30 --pass-after")
    said = shell.paste(start + "migrate-lab exec origin -- sha256sum /srv/files/big")
    peer, urls = hosts.hosts["peer"], "http://service:8080/big http://service:8080/big"
    # What stays unread is more than all buffers on the way hold: 4 MB of tcp_wmem, 32 MB of tcp_rmem at the most.
    sums_them = f"(head -c {READ_AT_ONCE_BYTES}; read go <&3; cat) | sha256sum"
    curls = [f"exec 3<&0; curl -sS -m 120 -{4 + 2 * (n % 2)} {urls} | {sums_them}" for n in range(8)]
    expected = shell.paste("migrate-lab exec origin -- sh -c 'cat /srv/files/big /srv/files/big | sha256sum'")
    log = hosts.hosts["origin"].root / "tmp/serve.log"
    with Watch(peer, 8080) as watch:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        running = [peer.popen(["sh", "-c", words], **pipes) for words in curls]
        eventually(lambda: decided(log.read_text()) == len(curls), "the front has dealt with all", 90)
        sums = [curl.communicate("go\n", timeout=90)[0] for curl in running]
    shell.paste(stop)
    assert said and {one.strip() for one in sums} == {expected[0].strip()}
    assert passed(log.read_text().splitlines()) == len(curls), log.read_text()
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
        eventually(lambda: established(hosts.hosts["destination"]) >= 15, "half of them are elsewhere")
        eventually(lambda: sum(map(established, movers(hosts))) == 40, "each is at one of the two")
        report: dict[str, Any] = json.loads(client.communicate(timeout=60)[0])
    said = shell.paste(use)
    shell.paste(stop)
    print(report, *said, sep="\n")
    for one in (report, json.loads(said[0])):
        assert one["errors"] == []
        assert one["connections"] == 40
        assert one["received"] >= 40 * 500  # in order, and what came before the server had read the end
        assert one["longest_silence_ms"] < 1000
    assert passed(said) >= 30
    assert watch.judge() < 1000


def movers(lab: Lab) -> list[Host]:
    return [lab.hosts["origin"], lab.hosts["destination"]]


def established(host: Host) -> int:
    """How many of the clients' connections *host* has, says ss."""
    return len(host.exec(["ss", "-tnHo", "state", "established", "sport = 8083"]).stdout.splitlines())
