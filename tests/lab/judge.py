"""Judges of a migration that are not ours: the peer's capture read by tshark, ``ss``, ``ip``, ``nft``, ps.

And what the lab tests share: running ``migrate``, connections whose peer is the test itself, and putting the
lab back as it was, after looking that the migration has left nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from migrate.lab import Host, Lab

WORKLOADS = Path(__file__).resolve().parent.parent / "workloads"
DEADLINE_S = 15.0
MOVERS = ("origin", "destination")
#: What a host has running by itself.
OWN = ("init.py hold", "/usr/sbin/sshd", "lab keeper")
_CLONE_NEWNET = 0x40000000


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait until *condition* gives something true, and return it."""
    deadline = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        time.sleep(0.005)
    return found


# --- processes ------------------------------------------------------------------------------------------


def spawn(host: Host, command: list[str], *, first_pid: int | None = None, log: str | None = None) -> int:
    """Start *command* on *host* with a PID that no other host of the lab has in use.

    :param first_pid: its PID if that is free.
    """
    number = first_pid or spawn.following  # type: ignore[attr-defined]
    spawn.following = number + 200  # type: ignore[attr-defined]
    host.exec(["sh", "-c", f"echo {number - 2} > /proc/sys/kernel/ns_last_pid"])
    return host.spawn(command, log=log)


spawn.following = 20_000  # type: ignore[attr-defined]


def processes(host: Host) -> dict[int, str]:
    """PID -> command line of everything on *host* but what belongs to the host itself."""
    lines = host.exec(["ps", "-e", "-ww", "-o", "pid=,args="]).stdout.splitlines()
    found = {int(line.split()[0]): line.split(None, 1)[1] for line in lines}
    own = ("ps -e", *OWN)
    return {pid: words for pid, words in found.items() if not any(word in words for word in own)}


# --- migrations -----------------------------------------------------------------------------------------


class Moved(NamedTuple):
    """What a run of ``migrate --json`` said.

    :ivar began, ended: seconds since the epoch, as captures count.
    """

    status: int
    report: dict[str, Any]
    stderr: str
    began: float
    ended: float


def run_migrate(host: Host, *words: str, timeout_s: float = 60) -> Moved:
    """Run ``migrate --json`` on *host* to its end, whatever that is."""
    began = time.time()
    done = host.exec(["migrate", "--json", *words], check=False, timeout=timeout_s)
    ended = time.time()
    lines = done.stdout.splitlines()
    assert lines, f"migrate said nothing: {done.stderr}"
    report = json.loads(lines[-1])
    assert report["event"] == "report"
    return Moved(done.returncode, report, done.stderr, began, ended)


def move(lab: Lab, pid: int, *options: str, start: str = "origin") -> Moved:
    """Move *pid* from *start* to the other host; it must succeed, and be told so truthfully."""
    end = MOVERS[1 - MOVERS.index(start)]
    moved = run_migrate(lab.hosts[start], *options, str(pid), end)
    report = moved.report
    assert moved.status == 0, json.dumps(report, indent=1) + moved.stderr
    assert report["outcome"] == "MOVED"
    assert report["destination_pid"] in processes(lab.hosts[end])
    assert_service_on(lab, end, all_of_it=False)
    return moved


# --- what is left behind --------------------------------------------------------------------------------


def addresses(host: Host) -> set[str]:
    """Every address of *host*, says ``ip``."""
    found = json.loads(host.exec(["ip", "-json", "address"]).stdout)
    return {info["local"] for interface in found for info in interface["addr_info"]}


def assert_service_on(lab: Lab, where: str, *, all_of_it: bool = True) -> None:
    """The service addresses are on *where* alone.

    :param all_of_it: False: one of them may be on the other host, because the process does not use it.
    """
    found = {name: set(lab.service) & addresses(lab.hosts[name]) for name in MOVERS}
    assert sorted(address for one in found.values() for address in one) == sorted(lab.service), found
    assert found[where] == set(lab.service) or (found[where] and not all_of_it), found


def leftovers(host: Host) -> list[str]:
    """What a migration that is over has left on *host*."""
    script = """
    nft list tables
    for one in /run/migrate/* /run/migrate-* /dev/shm/*; do
        [ -e "$one" ] && echo "$one"
    done
    find /tmp /srv /root /var/log -xdev -name '*.migrate-*' 2>/dev/null
    ip route show table all | grep -w initcwnd
    for one in /sys/class/net/*; do echo "interface ${one##*/}"; done
    """
    ours = {"/run/migrate/probe", "interface lo", "interface eth0"}
    lines = host.exec(["sh", "-c", script], check=False).stdout.splitlines()
    return [line for line in lines if line.strip() not in ours]


def helpers(host: Host) -> list[str]:
    """Processes of ours that still run on *host*, but for the init of a PID namespace of a moved tree."""
    ours = re.compile(r"migrate|criu")
    return [
        words for words in processes(host).values() if ours.search(words) and "pid_namespace" not in words
    ]


def assert_nothing_left(lab: Lab) -> None:
    """No rule, file, route, interface or process of a migration is left on either host."""
    for name in MOVERS:
        host = lab.hosts[name]
        assert leftovers(host) == [], name
        assert helpers(host) == [], name


def reset(lab: Lab) -> None:
    """Make the lab as it was when it came up: nothing runs, and the service is on origin."""
    for name in ("peer", *MOVERS):
        _kill_all(lab.hosts[name])
    origin, destination = (lab.hosts[name] for name in MOVERS)
    there = [one for one in lab.service if one in addresses(destination)]
    for address in there:
        length, nodad = ("64", ["nodad"]) if ":" in address else ("24", [])
        destination.exec(["ip", "address", "del", f"{address}/{length}", "dev", "eth0"])
        origin.exec(["ip", "address", "add", f"{address}/{length}", "dev", "eth0", *nodad])
    if lab.service.ipv6 in there:
        # The kernel prefers the latest IPv6 address as a source, and that is not to be the service's.
        for verb in ("del", "add"):
            origin.exec(
                ["ip", "address", verb, f"{origin.ipv6}/64", "dev", "eth0", *["nodad"][: verb == "add"]]
            )
    if there:
        for name in ("destination", "gateway", "peer"):
            lab.hosts[name].exec(["ip", "neigh", "flush", "all"])
    assert_service_on(lab, "origin")


def _kill_all(host: Host) -> None:
    def kill() -> bool:
        found = processes(host)
        if found:
            host.exec(["kill", "-9", *map(str, found)], check=False)
        return not found

    wait_for(kill, f"{host.name} is empty")


# --- connections of the test itself ---------------------------------------------------------------------


def connect(host: Host, address: str, port: int, **options: Any) -> socket.socket:
    """A connection whose near end is on *host* and belongs to this process.

    :param options: ``receive_buffer``, bytes; ``source``, an address.
    """
    result: list[socket.socket | BaseException] = []

    def work() -> None:
        try:
            _enter_network(host)
            result.append(_connected(address, port, **options))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def _connected(address: str, port: int, *, receive_buffer: int = 0, source: str = "") -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.settimeout(DEADLINE_S)
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if source:
        made.bind((source, 0))
    made.connect((address, port))
    return made


def _enter_network(host: Host) -> None:
    """Move this thread, and no other, into the network of *host*."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(host.netns, os.O_RDONLY)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


def ss(host: Host, *words: str) -> list[dict[str, str]]:
    """TCP sockets of *host* as ``ss`` tells them: state, queues, ends, and its details by name."""
    lines = host.exec(["ss", "-tinoeHOa", *words]).stdout.splitlines()
    return [_ss_line(line) for line in lines]


def _ss_line(line: str) -> dict[str, str]:
    state, received, sent, local, peer, *rest = line.split()
    details = {"state": state, "recv_q": received, "send_q": sent, "local": local, "peer": peer}
    words = " ".join(rest)
    algorithm = re.search(r"(?<= )(cubic|reno|bbr)(?= )", words)
    details["congestion"] = algorithm[0] if algorithm else ""
    return details | dict(re.findall(r"([a-z_]+):(\S+)", words)) | {"all": words}


# --- captures -------------------------------------------------------------------------------------------


class Packet(NamedTuple):
    """One TCP segment as the capturing host saw it.

    :ivar stream: tshark's number of the connection.
    :ivar at: seconds since the epoch.
    :ivar sender: address.port of who sent it.
    :ivar seq, ack: raw, modulo 2**32.
    :ivar flags: of the TCP header.
    :ivar tsval, tsecr: RFC 7323; None without the option.
    :ivar ttl: or hop limit.
    :ivar notes: what tshark's analysis says, e.g. ``retransmission``.
    """

    stream: int
    at: float
    sender: str
    seq: int
    ack: int
    payload: bytes
    flags: int
    tsval: int | None
    tsecr: int | None
    ttl: int
    notes: frozenset[str]

    def __repr__(self) -> str:
        flags = "".join(letter for bit, letter in enumerate("FSRPA.") if self.flags >> bit & 1)
        stamps = f"TSval {self.tsval} TSecr {self.tsecr}"
        where = f"{self.at:.6f} {self.sender}"
        notes = " ".join(sorted(self.notes))
        return f"<{where} [{flags}] {self.seq} +{len(self.payload)} ack {self.ack} {stamps} {notes}>"


FIN, SYN, RST, ACK = 1, 2, 4, 16
#: tshark's names of what is sent again, or sent with nothing new.
SENT_AGAIN = frozenset({"retransmission", "fast_retransmission", "spurious_retransmission"})
PROBE = frozenset({"keep_alive", "zero_window_probe"})
_NOTES = (*sorted(SENT_AGAIN), *sorted(PROBE), "lost_segment", "ack_lost_segment", "out_of_order")
_FIELDS = (
    *("tcp.stream", "frame.time_epoch", "ip.src", "ipv6.src", "tcp.srcport", "tcp.seq_raw", "tcp.ack_raw"),
    *("tcp.payload", "tcp.flags", "tcp.options.timestamp.tsval", "tcp.options.timestamp.tsecr"),
    *("ip.ttl", "ipv6.hlim"),
    *(f"tcp.analysis.{note}" for note in _NOTES),
)


class Capture:
    """tcpdump on one interface of *host*, running inside the ``with`` block.

    Entering returns when it captures; leaving ends it, and fails if the kernel dropped a packet.
    """

    def __init__(self, host: Host, interface: str, words: str = "tcp", name: str = "capture") -> None:
        self._host, self._interface, self._words = host, interface, words
        self._inside = f"/tmp/{name}-{interface}.pcap"

    def __enter__(self) -> Self:
        command = ["tcpdump", "-Z", "root", "-n", "-U", "-B", "65536", "-s", "0"]
        self._process = self._host.popen(
            [*command, "-i", self._interface, "-w", self._inside, self._words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = []
        for line in self._process.stderr:
            said.append(line)
            if "listening on" in line:
                return self
        raise AssertionError("tcpdump: " + "".join(said))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        _, said = self._process.communicate(timeout=DEADLINE_S)
        if kind is None:
            assert "\n0 packets dropped by kernel" in "\n" + said, said

    def packets(self) -> list[Packet]:
        """All TCP segments, in the order in which they were seen."""
        words = ["tshark", "-n", "-r", str(self._host.root / self._inside[1:]), "-Y", "tcp"]
        words += ["-o", "tcp.relative_sequence_numbers:FALSE", "-T", "fields", "-E", "occurrence=f"]
        for field in _FIELDS:
            words += ["-e", field]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return [_packet(line.split("\t")) for line in done.stdout.splitlines()]


def _packet(fields: list[str]) -> Packet:
    stream, at, ipv4, ipv6, port, seq, ack, payload, flags, tsval, tsecr, ttl, hops, *notes = fields
    return Packet(
        int(stream),
        float(at),
        f"{ipv4 or ipv6}.{port}",
        int(seq),
        int(ack or 0),
        bytes.fromhex(payload.replace(":", "")),
        int(flags, 16),
        int(tsval) if tsval else None,
        int(tsecr) if tsecr else None,
        int(ttl or hops),
        frozenset(note for note, found in zip(_NOTES, notes, strict=True) if found),
    )


def directions(packets: Iterable[Packet]) -> dict[tuple[int, str], list[Packet]]:
    """The segments of each connection by who sent them, in the order in which they were sent.

    On a lab of several processors a segment may overtake another one: what two of them forward at once is
    not kept in order. That is put right here, but only among segments much closer than a migration's gap.
    """
    found: defaultdict[tuple[int, str], list[Packet]] = defaultdict(list)
    for packet in packets:
        same = found[packet.stream, packet.sender]
        place = len(same)
        while place and packet.at - same[place - 1].at < _OVERTAKING_S and _earlier(packet, same[place - 1]):
            place -= 1
        same.insert(place, packet)
    return dict(found)


_OVERTAKING_S = 0.002


def _earlier(one: Packet, other: Packet) -> bool:
    """Whether *one* was sent before *other*, as far as they say."""
    if (one.flags | other.flags) & SYN:  # whose acknowledgement number says nothing
        return bool(one.flags & ~other.flags & SYN)
    ahead = (
        distance(one.tsval or 0, other.tsval or 0),
        distance(one.ack, other.ack),
        distance(one.tsecr or 0, other.tsecr or 0),
        distance(one.seq, other.seq),
    )
    return next((step < 0 for step in ahead if step), False)


def distance(new: int, old: int) -> int:
    """How far *new* is ahead of *old*, modulo 2**32; negative if it is behind."""
    return (new - old + 2**31) % 2**32 - 2**31


def assert_no_reset(packets: Iterable[Packet]) -> None:
    """Nobody reset anything."""
    assert [packet for packet in packets if packet.flags & RST] == []


def sent_again(packets: Iterable[Packet]) -> list[Packet]:
    """What tshark calls a retransmission of some kind."""
    return [packet for packet in packets if packet.notes & SENT_AGAIN]


def assert_sequence_never_back(packets: list[Packet]) -> bytes:
    """One direction: every segment follows the one before or says again what was said; return the stream.

    No gap either: what was never sent cannot be followed. A segment without content that begins one byte
    early is a keep-alive or window probe (RFC 9293 section 3.8.4).
    """
    first = packets[0].seq
    stream = bytearray(1 if packets[0].flags & SYN else 0)
    ended = False  # a FIN has a number too
    for packet in packets:
        begin = distance(packet.seq, first) + bool(packet.flags & SYN)
        assert begin <= len(stream) + ended, f"a gap of {begin - len(stream)}: {packet}"
        if not packet.payload:
            # A probe has the number before the oldest octet that is not acknowledged, so it is earlier yet
            # while octets are under way (net/ipv4/tcp_output.c tcp_xmit_probe_skb()).
            fine = begin >= len(stream) - 1 or packet.flags & FIN or packet.notes & PROBE
            assert fine, f"back by {len(stream) - begin}: {packet}"
        again = stream[begin : begin + len(packet.payload)]
        assert again == packet.payload[: len(again)], f"something else at the same place: {packet}"
        stream += packet.payload[len(again) :]
        ended = ended or bool(packet.flags & FIN)
    return bytes(stream)


def assert_acknowledgements_never_back(packets: list[Packet]) -> None:
    """One direction: nothing that was acknowledged is taken back."""
    for before, after in zip(packets, packets[1:], strict=False):
        if before.flags & after.flags & ACK:
            assert distance(after.ack, before.ack) >= 0, f"{before} {after}"


def assert_timestamps_go_on(packets: list[Packet], slack_ms: float = 3.0) -> float:
    """One direction: TSval never goes back, nor ahead of time; return by how many ms it ran ahead.

    A segment may reach the capture late, so a clock that goes on shows up as TSval minus time staying at or
    below its highest value so far. Clocks of 1 ms.
    """
    first, highest, worst = packets[0], 0.0, 0.0
    for number, (before, after) in enumerate(zip(packets, packets[1:], strict=False)):
        assert before.tsval is not None and after.tsval is not None and first.tsval is not None
        assert distance(after.tsval, before.tsval) >= 0, f"TSval went back: {before} {after}"
        ahead = distance(after.tsval, first.tsval) - 1000 * (after.at - first.at)
        if number > _WARM_UP:
            worst = max(worst, ahead - highest)
        assert worst <= slack_ms, f"TSval {worst:.1f} ms ahead of time: {after}"
        highest = max(highest, ahead)
    return worst


def assert_echoes_never_back(packets: list[Packet]) -> int:
    """One direction: TSecr never goes back; return how many segments have none (0, in spite of an ACK)."""
    acks = [packet for packet in packets if packet.flags & ACK]
    known = [packet for packet in acks if packet.tsecr]
    for before, after in zip(known, known[1:], strict=False):
        assert distance(after.tsecr or 0, before.tsecr or 0) >= 0, f"TSecr went back: {before} {after}"
    return len(acks) - len(known)


#: So many segments are needed to see one that was not late.
_WARM_UP = 10


def across(packets: list[Packet], moved: Moved) -> tuple[Packet, Packet]:
    """One direction: the two segments around the longest silence while *moved* was made."""
    during = [packet for packet in packets if moved.began <= packet.at <= moved.ended]
    pairs = zip(during, during[1:], strict=False)
    return max(pairs, key=lambda pair: pair[1].at - pair[0].at)


def ask(client: subprocess.Popen[str], word: str = "") -> dict[str, Any]:
    """Have a client of tests/workloads say how it is."""
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(word + "\n")
    client.stdin.flush()
    line = client.stdout.readline()
    assert line, f"the client ended: {client.wait(timeout=5)}"
    return dict(json.loads(line))
