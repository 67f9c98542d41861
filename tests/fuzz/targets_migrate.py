"""The decoders of `migrate`: the session, journals, configurations, packets, /proc, CRIU's answers."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shutil
import socket
import struct
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import mutate
import paramiko.config
from engine import HERE, Target
from google.protobuf.message import DecodeError
from pycriu import rpc_pb2

sys.path.insert(0, str(HERE.parent / "unit"))
from golden_icis import GOLDEN
from inventories import connection, host, listener, process

from migrate import checks, place, switch
from migrate.criu import log, worker
from migrate.errors import (
    ImageError,
    MigrateError,
    ProtocolError,
    Refused,
    SwitchError,
    TransportError,
    UsageError,
)
from migrate.files import locks
from migrate.files.entries import Copied
from migrate.files.images import Receiver
from migrate.gap import packets
from migrate.gap.inject import Inlet
from migrate.inventory import elf, ports, proc
from migrate.lab import state as lab_state
from migrate.lab.host import mount_points_in
from migrate.link import failure, message_checks, payloads, speech
from migrate.link import frames as wire
from migrate.link.clock import Clocks, Offset
from migrate.memory import pagemap, sources
from migrate.memory.page_server import PageServer
from migrate.origin import observed
from migrate.pb import session_pb2 as pb
from migrate.pb.manifest_pb2 import ImageFile, Manifest
from migrate.processes import identity, mounts, stat, unix_diag
from migrate.recovery import hold, records
from migrate.recovery.entries import Switch
from migrate.recovery.instructions import in_doubt
from migrate.report import html, svg
from migrate.report.report import Outcome, Report
from migrate.report.text import render
from migrate.report.timeline import Timeline
from migrate.request import Along
from migrate.ssh import config as ssh_config
from migrate.ssh import host as ssh_host
from migrate.ssh import host_key, known_hosts
from migrate.ssh.agent import Started
from migrate.transport import sentences
from tcpcp.endpoint.isolation import Flow
from tcpcp.kernel import diag
from tcpcp.record import codec
from tcpcp.record.ici import Endpoint

ID = "0123456789ab"
LOCAL, PEER = (
    Endpoint(ipaddress.ip_address(ip), port) for ip, port in (("10.1.2.3", 80), ("10.9.8.7", 4000))
)


# --- the session ------------------------------------------------------------------------------------------


def frames(protocol: int) -> Callable[[bytes], None]:
    """migrate.link.frames, payloads, protocol_2: a stream in pieces; every message as its receiver takes it."""

    def run(data: bytes) -> None:
        decoder, clocks, got = wire.Decoder(), Clocks(lambda: 1000), []
        for piece in (data[:3], data[3:200], data[200:]):
            got += decoder.feed(piece)
        theirs, ours = speech.of(protocol, "1"), speech.of(protocol, "1")
        for frame, payload in got:
            clocks.take(frame.stamp, 2000)
            kind, received = theirs.heard(
                frame.WhichOneof("kind"), getattr(frame, frame.WhichOneof("kind")), payload
            )
            message_checks.check(received)
            USES.get(kind, lambda _: None)(received)
            assert all(isinstance(one[2], bytes) for one in ours.frames(received, kind))
        decoder.finish()

    return run


def payload_frames(data: bytes, rng: Random) -> bytes:
    """A message of one frame changed, or the bytes behind it, which it mostly announces as they are."""
    decoder = wire.Decoder()
    with contextlib.suppress(ProtocolError):
        if whole := decoder.feed(data):
            at, change = rng.randrange(len(whole)), mutate.message_of(pb.Frame)
            frame, payload = whole[at]
            if rng.random() < 0.5:
                payload = mutate.of_bytes(payload, rng)
            with contextlib.suppress(DecodeError):
                frame = pb.Frame.FromString(change(frame.SerializeToString(), rng))
            if rng.random() < 0.9:
                frame.payload_bytes = len(payload)
            body = frame.SerializeToString()
            whole_bytes = [wire.encode(one.frame) + one.payload for one in whole]
            whole_bytes[at] = struct.pack(">I", len(body)) + body + payload
            return b"".join(whole_bytes)[: mutate.MOST_BYTES]
    return mutate.of_bytes(data, rng)


def _report(error: MigrateError) -> None:
    report = Report(outcome=Outcome.UNTOUCHED)
    report.fail(error)
    assert all(line.isprintable() for line in render(report, verbose=True))
    json.dumps(report.as_json())


def _failure(received: pb.Failure) -> None:
    error = failure.from_failure(received)
    failure.to_failure(error)
    _report(error)


def _host(received: pb.HostInventory) -> None:
    reasons = checks.refusals(process(), host("a", 1), received, Along(), {})
    checks.files_to_copy(process(), received)
    if reasons:
        _report(Refused(reasons))


def _compare(received: pb.Compare) -> None:
    for file in received.files:
        for one in file.locks:
            locks.conflict(one, file.locks[-1])


def _compared(received: pb.Compared) -> None:
    _host(pb.HostInventory(files=received.files))


def _process(received: pb.ProcessInventory) -> None:
    claims = ports.Claims(received.sockets)
    for theirs in (listener(), connection()):
        if claims:
            claims.clash(theirs)


def _prepare(received: pb.Prepare) -> None:
    for one in received.addresses:
        ipaddress.ip_address(one.address)
    max([*received.pids, *received.tids])
    with contextlib.suppress(SwitchError):
        switch.make(received.switch_kind, "destination", ID, [switch.Address("10.0.0.1", 24)])


def _restore(received: pb.Restore) -> None:
    assert all(one.holders[0].pid >= 0 for one in received.sockets)
    with contextlib.suppress(ImageError):
        Receiver(Path("/nonexistent")).verify(received.manifest)


def _activated(received: pb.Activated) -> None:
    report = Report(outcome=Outcome.IN_DOUBT, pid=100)
    observed.on_destination(report, "b", observed.Seen([pb.TaskState(pid=100, state="S")], received))
    assert report.outcome in (Outcome.MOVED, Outcome.ENDED)
    render(report)
    json.dumps(report.as_json())


class _Nowhere:
    """An injector that gives packets to nobody."""

    def give(self, segment: packets.Segment, *, marked: bool = False) -> None:
        """See :class:`migrate.gap.inject.Injector`."""
        assert segment.version in (4, 6) and segment.packet


def _connections(received: payloads.Connections) -> None:
    assert all(one.holders[0].pid >= 0 for one in received.sockets)
    codec.whole_records(received.records)


def _gap(received: payloads.Packets) -> None:
    inlet: Any = Inlet(_Nowhere())  # type: ignore[arg-type]
    inlet.only([Flow(LOCAL, PEER)], [Endpoint(ipaddress.ip_address("::"), 80)])
    inlet.add(packets.parse_all(received.packets))
    inlet.fill()
    inlet.open()
    inlet.add(packets.parse_all(received.packets))


def _phases(received: Any) -> None:
    """What the destination says of its phases, drawn."""
    now = iter(range(10_000))
    timeline = Timeline(lambda: float(next(now)))
    timeline.begin("build", "origin")
    timeline.end("build", "origin")
    timeline.hear(received.phases, Offset(0, 10**9))
    report = Report(outcome=Outcome.MOVED, host="b")
    report.times = timeline.times()
    svg.to_text(svg.draw(report, "a"))
    html.page(report, "a")
    render(report)
    json.dumps(report.as_json())


USES: dict[str, Callable[[Any], object]] = {
    "failure": _failure,
    "host": _host,
    "process": _process,
    "prepare": _prepare,
    "restore": _restore,
    "activated": _activated,
    "gap": _gap,
    "connections": _connections,
    "compare": _compare,
    "compared": _compared,
    "copy": lambda received: place.is_absolute(received.name),
}


def phases(data: bytes) -> None:
    """migrate.report.interval, and the drawings: the phases in an Activated."""
    _phases(wire._parse(pb.Frame(activated=pb.Activated.FromString(data)).SerializeToString()).activated)


def frame_bytes(payload: bytes = b"", **fields: Any) -> bytes:
    """A frame on the wire."""
    stamp = pb.Stamp(sent_ns=1500, answered_ns=1100, received_ns=1200)
    return wire.encode(pb.Frame(stamp=stamp, payload_bytes=len(payload), **fields)) + payload


def _frames(protocol: int) -> dict[str, bytes]:
    address = pb.ServiceAddress(address="10.77.1.100", prefix_length=24, device="eth0")
    manifest = Manifest(
        version=1, migration_id=ID, files=[ImageFile(name="a.img", size_bytes=3, sha256=b"x")]
    )
    held = pb.HeldSocket(inode=5, holders=[pb.Descriptor(pid=100, fd=3)])
    listening = pb.SocketOptions(inode=6, options={"SO_KEEPALIVE": 1}, congestion="cubic")
    failed = pb.Failure(phase="dump", kind="CriuError", message="no", hint="Try.", log_tail=["a", "b"])
    refused = pb.Failure(phase="check", kind="Refused", message="no", log_tail=["a [b]"])
    task = pb.TaskState(pid=100, state="S")
    phase = pb.PhaseTime(name="build", start_ns=1, duration_ns=2)
    each: dict[str, Any] = {
        "hello": pb.Hello(protocol=3, oldest_protocol=2, version="1", migration_id=ID, hostname="a"),
        "process": process(),
        "host": host("b", 2),
        "prepare": pb.Prepare(
            switch_kind="address", addresses=[address], pids=[100], tids=[100], timeout_s=60
        ),
        "copy": payloads.Piece(name="/etc/x", data=b"abc", last=True, mode=0o100644),
        "image": payloads.Piece(name="inventory.img", data=b"abc"),
        "connections": payloads.Connections(codec.dumps(GOLDEN["established"]), [held]),
        "restore": pb.Restore(
            tasks=[task], manifest=manifest, sockets=[held], listeners=[listening], closed=[1]
        ),
        "compare": pb.Compare(files=[pb.File(path="/a", locks=["FLOCK WRITE 0 EOF", "POSIX READ 1 9"])]),
        "compared": pb.Compared(files=[pb.File(path="/a", content=b"x", real_path="/b")]),
        "restored": pb.Restored(destination_pid=7, phases=[phase]),
        "activated": pb.Activated(destination_pid=7, tasks=[task], problems=["x"]),
        "gap": payloads.Packets(list(_packets().values())),
        "aborted": pb.Aborted(undone=["x"], problems=["y"], packets=list(_packets().values())),
        "ask": pb.Ask(migration_id=ID, wait_ms=5000),
        "answer": pb.Answer(where=pb.Answer.RUNS, destination_pid=7),
        "ping": pb.Ping(),
    }
    said, found = speech.of(protocol, "1"), {}
    for name, one in each.items():
        parts = said.frames(one, name)
        found[name] = b"".join(frame_bytes(payload, **{kind: part}) for kind, part, payload in parts)
    found |= {"failure": frame_bytes(failure=failed), "refused": frame_bytes(failure=refused)}
    return found | {"all": b"".join(found.values())}


def image_stream(directory: Path) -> Callable[[bytes], None]:
    """migrate.files.images.Receiver: chunks as of protocol 2, the last message is the manifest."""
    where = directory / "images"

    def run(data: bytes) -> None:
        where.mkdir()
        try:
            *chunks, last = list(_cut(data)) or [b""]
            receiver = Receiver(where)
            for chunk in chunks:
                with contextlib.suppress(DecodeError):
                    message = pb.FileChunk.FromString(chunk)
                    receiver.take(payloads.piece(message, message.data))
            with contextlib.suppress(DecodeError):
                receiver.verify(Manifest.FromString(last))
        finally:
            shutil.rmtree(where)

    return run


def _cut(data: bytes) -> Iterator[bytes]:
    offset = 0
    while offset + 4 <= len(data):
        (size,) = struct.unpack_from(">I", data, offset)
        yield data[offset + 4 : offset + 4 + size]
        offset += 4 + size


def _image_streams() -> dict[str, bytes]:
    import hashlib

    content = {"inventory.img": b"abc", "level-1/pages-1.img": b"x" * 50, "level-2/pages-1.img": b"y"}
    parts = [pb.FileChunk(name=name, data=data).SerializeToString() for name, data in content.items()]
    files = [
        ImageFile(name=name, size_bytes=len(data), sha256=hashlib.sha256(data).digest())
        for name, data in content.items()
    ]
    parts.append(Manifest(version=1, migration_id=ID, files=files).SerializeToString())
    return {"levels": b"".join(struct.pack(">I", len(part)) + part for part in parts)}


def copied_path(data: bytes) -> None:
    """migrate.place.is_absolute: what is one is absolute, and stays where it is."""
    name = data.decode(errors="replace")
    if place.is_absolute(name):
        assert name.startswith("/") and ".." not in name.split("/") and "\0" not in name


# --- what is left on a host -----------------------------------------------------------------------------------


def journal_lines(data: bytes) -> None:
    """migrate.recovery.records: read, and used by who settles it."""
    record = records.parse(data, ID)
    hold.frozen(record)
    in_doubt(record)
    for entry in record.entries:
        assert isinstance(entry.kind, str) and isinstance(entry.line(), dict)
    for copied in record.of(Copied):
        assert isinstance(copied.backup, str)
    for one in record.of(Switch):
        with contextlib.suppress(SwitchError, LookupError, TypeError, ValueError):
            switch.from_details(one.details)


def _journals() -> dict[str, bytes]:
    details = {
        "kind": "address",
        "role": "origin",
        "migration_id": ID,
        "addresses": [["10.0.0.1", 24, "eth0"]],
        "found": [
            {
                "ip": "10.0.0.1",
                "prefix_length": 24,
                "index": 2,
                "device": "eth0",
                "attributes": {"scope": 0, "flags": 512},
                "peer": "10.0.0.2",
                "until": [5000.5, None],
                "routes": ["02180000fe02fd01000000000800010001020300"],
            }
        ],
    }
    lines: list[dict[str, Any]] = [
        {"id": ID, "role": "origin", "pid": 42, "other_host": "there"},
        {"did": "isolation", "name": ID},
        {"did": "images", "path": f"/dev/shm/migrate-{ID}"},
        {"did": "criu", "pid": 7, "start": 99},
        {"did": "stop", "tasks": [[42, 7], [43, 8]]},
        {"did": "repair", "tasks": [[42, 7]], "reuse": [5, 6]},
        {"did": "switch", "details": details},
        {"did": "routes", "routes": ["00ff"]},
        {"did": "tree", "tasks": [[42, 5]], "marked": f"MIGRATE_ID={ID}", "path": "/dev/shm/none"},
        {"did": "copied", "path": "/x", "backup": "/x.before"},
        {"did": "directory", "path": "/y"},
        {"state": "COMMITTED", "destination_pid": 43},
        {"end": "MOVED"},
    ]
    return {"all": b"".join(json.dumps(line).encode() + b"\n" for line in lines)}


def saved_lab(directory: Path) -> Callable[[bytes], None]:
    """migrate.lab.state.load."""

    def run(data: bytes) -> None:
        (directory / "state.json").write_bytes(data)
        lab_state.load(directory)

    return run


def _labs() -> dict[str, bytes]:
    return {
        "one": json.dumps(
            {"boot": lab_state.boot_id(), "inits": {"origin": [5, 77], "peer": [6, 78]}}
        ).encode()
    }


# --- SSH ------------------------------------------------------------------------------------------------------


def known(data: bytes) -> None:
    """migrate.ssh.known_hosts, and the fingerprints of its keys."""
    entries = known_hosts.parse(data.decode("utf-8", "replace").splitlines(), "file")
    for name in ("h", "[h]:2222", "10.0.0.1", "", "*"):
        known_hosts.judge(entries, name, "ssh-ed25519", b"key")
        known_hosts.kinds(entries, name)
    for entry in entries[:20]:
        host_key._fingerprint(entry)


def ssh_says(data: bytes) -> None:
    """migrate.transport.sentences: an error with a remedy, whatever the ssh program, or the other host, says."""
    said = data.decode("utf-8", "replace").splitlines()
    for status in (-9, 1, 127, 255):
        error = sentences.explained(Started("h", "u", "migrate-agent"), status, said)
        assert error.problem.hint and str(error)


def configuration(directory: Path) -> Callable[[bytes], None]:
    """migrate.ssh.config: without programs, name servers, and files other than ours."""
    ssh = directory / "home" / ".ssh"
    ssh.mkdir(parents=True)
    (directory / "etc").mkdir()
    (ssh / "more").write_text("Host h\n Port 5\n")
    _tame(directory)

    def run(data: bytes) -> None:
        (ssh / "config").write_bytes(data)
        config = ssh_config.look_up("u@h", home=ssh.parent)
        for jump in config.proxy_jump:
            ssh_config.split_jump(jump)
        assert 1 <= config.port <= 65535 and 0 < config.timeout_s < 1e7

    return run


def _tame(directory: Path) -> None:
    def refused(*_: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "no name servers here")

    def found(pattern: str) -> list[str]:
        inside = pattern.startswith(f"{directory}/") and "**" not in pattern and pattern.count("*") < 5
        return glob(pattern) if inside and ".." not in pattern else []

    glob = ssh_config.glob.glob
    ssh_config.SYSTEM = directory / "etc"
    ssh_config.glob = types.SimpleNamespace(glob=found)  # type: ignore[assignment]
    said_no = types.SimpleNamespace(ok=False)
    modules: Any = paramiko.config
    modules.invoke = types.SimpleNamespace(run=lambda *_, **__: said_no)
    names = {"gethostname": lambda: "host", "getfqdn": lambda *_: "host.example", "gaierror": socket.gaierror}
    lookups = {"getaddrinfo": refused, "gethostbyname": refused}
    constants = {name: getattr(socket, name) for name in dir(socket) if name.isupper()}
    modules.socket = types.SimpleNamespace(**names, **lookups, **constants)


def host_argument(data: bytes) -> None:
    """migrate.ssh.host."""
    user, name = ssh_host.split(data.decode(errors="replace"))
    assert name and not set(user + name) & set(" '\"`(){};&|<>\\\n\r\t/")


def jump(data: bytes) -> None:
    """migrate.ssh.config.split_jump."""
    name, port = ssh_config.split_jump(data.decode(errors="replace"))
    ssh_host.split(name)
    assert port is None or 1 <= port <= 65535


def _known() -> dict[str, bytes]:
    import paramiko

    lines = []
    for key in (paramiko.ECDSAKey.generate(), paramiko.RSAKey.generate(1024)):
        lines.append(f"h,10.0.0.1,*.example.com,!x {key.get_name()} {key.get_base64()} comment")
    lines.append("[h]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g")
    lines.append("@revoked * ssh-dss a2V5\n# comment\n@cert-authority *.x ssh-rsa AAAA")
    lines.append("|1|AAECAwQFBgcICQoLDA0ODxAREhM=|LMu4Oj1fqf3zCNtuSHd8AtWKf4o= ssh-ed25519 a2V5")
    return {"lines": "\n".join(lines).encode()}


def _configurations() -> dict[str, bytes]:
    return {
        "all": b"Include more\nHost h g !x\n HostName %h.example\n Port 2222\n User admin\n"
        b" IdentityFile ~/.ssh/%r\n IdentitiesOnly yes\n UserKnownHostsFile ~/.ssh/k /k\n ConnectTimeout 3\n"
        b" ProxyJump j1, admin@j2:23\n ProxyCommand nc %h %p\n AddressFamily inet\n HostKeyAlias a\n"
        b' Ciphers +aes\nMatch host h exec "true"\n Port=5\nMatch all\n CanonicalizeHostname no\nHost *\n User u\n',
        "canonical": b"CanonicalizeHostname yes\nCanonicalDomains a.b c.d\nCanonicalizeMaxDots 1\n"
        b"Match canonical final\n Port 3\nMatch localuser root user u originalhost h\n ProxyJump none\n",
    }


# --- packets and files ------------------------------------------------------------------------------------


def packet(data: bytes) -> None:
    """migrate.gap.packets: as a capture makes them ready, and as they are given to the stack."""
    segment = packets.parse(data)
    if segment is None:
        return
    packets.intact(segment)
    wanted = packets.Wanted([Flow(LOCAL, PEER)], [LOCAL])
    assert segment in wanted or segment not in wanted
    made = [packets.whole(piece).packet for piece in packets.split(segment, 1500)]
    assert sum(map(len, made)) <= 3 * len(data) + 2000
    assert all(packets.parse(one) is not None for one in made)
    packets.whole(packets.outdated(segment))


def packet_fields(data: bytes, rng: Random) -> bytes:
    """One field of the headers at an edge; now and then longer than a packet can be."""
    result = bytearray(data.ljust(64, b"\0"))
    at, size = rng.choice(
        ((0, 1), (2, 2), (4, 2), (6, 2), (6, 1), (9, 1), (32, 2), (40, 2), (52, 2), (60, 2))
    )
    values = (0, 1, 2, 4, 6, 0x12, 0x45, 0x4F, 0x50, 0x60, 0xF0, 0xFF, 0x5002, 0x5004, 0x5020, 0x06FF, 0xFFFF)
    result[at : at + size] = (rng.choice((*values, len(data), len(data) - 40)) % (1 << 8 * size)).to_bytes(
        size, "big"
    )
    return bytes(result) + bytes(rng.choice((0, 0, 0, 1, 3000, 70000 if rng.random() < 0.05 else 9)))


def _packets() -> dict[str, bytes]:
    tcp = struct.pack("!HHIIBBHHH", 4000, 80, 5, 9, 8 << 4, 0x18, 500, 0, 0) + b"\1\1\x08\x0a" + bytes(8)
    four = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp) + 3000, 1, 0x4000, 61, 6, 0, PEER.ip.packed, LOCAL.ip.packed
    )
    six = struct.pack("!IHBB16s16s", 6 << 28, len(tcp) + 3000, 6, 61, bytes(15) + b"\2", bytes(15) + b"\1")
    hop = six[:4] + struct.pack("!HB", len(tcp) + 108, 0) + six[7:] + b"\6\0\1\4\0\0\0\0" + tcp + bytes(100)
    return {"four": four + tcp + bytes(3000), "six": six + tcp + bytes(3000), "hop": hop}


def pagemap_image(data: bytes) -> None:
    """migrate.memory.pagemap.Pagemap."""
    found = pagemap.Pagemap.from_bytes(data)
    assert all(0 <= run.start < 1 << 64 and 0 <= run.pages < 1 << 64 for run in found.runs)


def _pagemaps() -> dict[str, bytes]:
    runs = [pagemap.Run(4096, 2, pagemap.PE_PRESENT), pagemap.Run(65536, 1, pagemap.PE_PARENT)]
    return {"two": pagemap.Pagemap(1, runs).to_bytes()}


def elf_file(data: bytes) -> None:
    """migrate.inventory.elf: a build-id or none, and little read for it."""
    asked = []

    def read(offset: int, size: int) -> bytes:
        part = data[offset : offset + size]
        asked.append(len(part))
        return part

    assert len(elf.build_id(read)) <= 64
    assert sum(asked) < 1 << 20


def elf_fields(data: bytes, rng: Random) -> bytes:
    """Sizes and numbers at their edges; or as many program headers as there can be, all for the same notes."""
    result = bytearray(data.ljust(176, b"\0"))
    if rng.random() < 0.01:
        header = struct.pack("<IIQQQQQQ", 4, 4, rng.choice((0, 64, 28736)), 0, 0, 65536, 65536, 4)
        return bytes(result[:54]) + struct.pack("<HHIH", 56, 512, 0, 0)[:10] + header * 512 + bytes(65536)
    at, size = rng.choice(
        ((4, 1), (5, 1), (28, 4), (32, 8), (42, 4), (54, 4), (64, 4), (72, 8), (96, 8), (120, 8))
    )
    result[at : at + size] = (rng.choice(mutate.NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(result) + bytes(rng.choice((0, 0, 70000 if rng.random() < 0.05 else 9)))


def _elfs() -> dict[str, bytes]:
    note = struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes(range(20))
    other = struct.pack("<III", 4, 4, 1) + b"GNU\0" + bytes(4)
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    notes = other + note
    both = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, 0, 0, 4)
    both += struct.pack("<IIQQQQQQ", 4, 4, 176, 0, 0, len(notes), len(notes), 4)
    head4 = b"\x7fELF\1\2\1".ljust(16, b"\0") + struct.pack(
        ">HHIIIIIHHHHHH", 3, 8, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    big = struct.pack(">III", 4, 20, 3) + b"GNU\0" + bytes(range(20))
    one = struct.pack(">IIIIIIII", 4, 84, 0, 0, len(big), len(big), 4, 4)
    return {"wide": head + both + notes, "narrow": head4 + one + big}


# --- CRIU -----------------------------------------------------------------------------------------------------


def criu_answer(data: bytes) -> None:
    """migrate.criu.worker.parsed."""
    reply = worker.parsed(data)
    if reply is not None:
        assert isinstance(reply.notify.script, str) and isinstance(reply.cr_errmsg.strip(), str)
        assert isinstance(reply.version.major_number, int) and reply.type >= 0


def _criu_answers() -> dict[str, bytes]:
    note = rpc_pb2.criu_notify(script="post-dump", pid=7)
    version = rpc_pb2.criu_version(major_number=4, minor_number=2)
    return {
        "notify": rpc_pb2.criu_resp(type=rpc_pb2.NOTIFY, success=True, notify=note).SerializeToString(),
        "version": rpc_pb2.criu_resp(type=rpc_pb2.VERSION, success=True, version=version).SerializeToString(),
        "failed": rpc_pb2.criu_resp(
            type=rpc_pb2.DUMP, success=False, cr_errno=3, cr_errmsg="no"
        ).SerializeToString(),
    }


def criu_log(directory: Path) -> Callable[[bytes], None]:
    """migrate.criu.log.errors."""
    path = directory / "dump.log"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        errors = log.errors(path)
        assert len(errors) <= log.LOG_LINES
        log.sentence(errors)

    return run


LOG = b"(00.01) 237: Error (criu/sk-unix.c:22): unix: FATAL: Peer\n(00.02) Warn (x)\n"
LOG += b"(00.03) Error (c): Restoring FAILED.\n"


class _Changed:
    """Everything has changed since it was sent ahead."""

    def changed(self, _: object, start: int, __: int, size: int) -> Iterator[tuple[int, int]]:
        """See :meth:`migrate.memory.rounds.Ahead.changed`."""
        yield start, start + size


def page_server(directory: Path) -> Callable[[bytes], None]:
    """migrate.memory.page_server: what CRIU sends, up to 64 kB; it fails, or not, with an error of ours."""
    where = directory / "pages"
    where.mkdir()

    def run(data: bytes) -> None:
        server = PageServer(where, _Changed(), lambda _: None)  # type: ignore[arg-type]
        try:
            server.client.sendall(data)
            server.client.shutdown(socket.SHUT_WR)
            server._run()
            if server._error is not None:
                raise server._error
        finally:
            server.close()
            for path in where.iterdir():
                path.unlink()

    return run


def _page_streams() -> dict[str, bytes]:
    def one(command: int, pages: int = 0, start: int = 0, image: int = 42 << 8 | 1) -> bytes:
        return struct.pack("=I4xQQQ", command, pages, start, image)

    pages = one(6 | 4 << 16, 2, 4096) + bytes(8192) + one(6 | 4 << 16, 1, 65536) + bytes(4096)
    return {"dump": one(4) + pages + one(4, image=9 << 8 | 2) + one(0x1023)}


# --- /proc and the kernel ---------------------------------------------------------------------------------


def text(parse: Callable[[str], object]) -> Callable[[bytes], None]:
    """A reader of texts, as it is given what stands in a file."""
    return lambda data: void(parse(data.decode(errors="replace")))


def void(_: object) -> None:
    """Nothing."""


def unix_dump(data: bytes) -> None:
    """migrate.processes.unix_diag."""
    listeners: dict[int, int] = {}
    for where in diag.sockets(data, unix_diag._MESSAGE.size):
        unix_diag._parse(*where, listeners)


def _unix_dumps() -> dict[str, bytes]:
    body = struct.pack("=BBBxI8x", 1, 1, 1, 77) + struct.pack("=HH", 9, 0) + b"\0name\0\0\0"
    body += struct.pack("=HHI", 8, 2, 78) + struct.pack("=HHII", 12, 3, 5, 6)
    return {"one": struct.pack("=IHHII", 16 + len(body), 20, 0, 1, 0) + body}


STAT = b"42 (a) b (c) S 1 42 42 34816 42 4194560 " + b"7 " * 40 + b"\n"
STATUS = (
    b"Name:\tx\nUmask:\t0022\nState:\tS\nUid:\t0\t0\t0\t0\nNSpid:\t70\t7\nVmRSS:\t   5 kB\nTracerPid:\t0\n"
)
MAPS = (
    b"55d0a000-55d0b000 r-xp 00001000 fe:00 260 \t /usr/bin/x y\n".replace(b"\t", b"")
    + b"7f00-7f10 rw-p 00000000 00:00 0 \n7f10-7f20 rw-s 00000000 00:01 9        /dev/zero (deleted)\n"
    + b"7ffe-7fff r--p 00000000 00:00 0          [vvar]\n"
)
SSH_SAYS = b"""Warning: Identity file /k not accessible: No such file or directory.
ssh: Could not resolve hostname h: Name or service not known
ssh: connect to host h port 22: Connection refused
kex_exchange_identification: Connection closed by remote host
Unable to negotiate with 10.0.0.1 port 22: no matching cipher found. Their offer: aes256-ctr
u@h: Permission denied (publickey).
Host key verification failed.
channel 0: open failed: connect failed: {0} {host} %s
sudo: a password is required
"""
FDINFO = b"pos:\t0\nflags:\t0100002\nmnt_id:\t29\nino:\t5\ntty-index:\t3\nPid:\t9\n"
MOUNTINFO = b"22 1 254:0 / / rw - ext4 /dev/vda rw\n23 22 0:5 /a\\040b /dev rw - tmpfs none rw\n"
MOUNTS = b"/dev/vda / ext4 rw 0 0\nnone /dev/shm tmpfs rw 0 0\nnone /run tmpfs rw 0 0\n"


def targets(directory: Path) -> list[Target]:
    """The table; what needs files makes them in *directory*."""
    words = [b"Match", b"Host", b"Include", b"ProxyJump", b"%h", b"*", b"!", b"@revoked", b"|1|", b",", b"="]
    words += [
        b"exec",
        b"CanonicalizeHostname yes",
        b"~x/y",
        b'"',
        b"ssh-rsa",
        b"ecdsa-sha2-nistp256",
        b"none",
    ]

    def lines(data: bytes, rng: Random) -> bytes:
        return mutate.of_text(data, rng, words)

    plain = mutate.of_bytes
    wire_frames = mutate.framed(">I", mutate.message_of(pb.Frame))
    chunks = mutate.framed(
        ">I",
        lambda data, rng: mutate.message_of(rng.choice((pb.FileChunk, pb.FileChunk, Manifest)))(data, rng),
    )
    entries = mutate.framed("<I", mutate.message_of(pagemap.pb.pagemap_entry), 8)
    texts = (ValueError, IndexError)

    def same(name: str, data: bytes) -> Callable[[], dict[str, bytes]]:
        return lambda: {name: data}

    tests: dict[str, Any] = {
        "frames": (
            frames(speech.NEWEST),
            (ProtocolError,),
            (plain, payload_frames, payload_frames, payload_frames),
            lambda: _frames(speech.NEWEST),
        ),
        "protocol_2": (frames(2), (ProtocolError,), (plain, wire_frames, payload_frames), lambda: _frames(2)),
        "phases": (
            phases,
            (ProtocolError, DecodeError),
            (plain, mutate.message_of(pb.Activated)),
            lambda: {
                "one": pb.Activated(
                    phases=[pb.PhaseTime(name="build", start_ns=1, duration_ns=2)]
                ).SerializeToString()
            },
        ),
        "image_stream": (image_stream(directory), (ImageError,), (plain, chunks, chunks), _image_streams),
        "copied_path": (copied_path, (), (plain, lines), same("path", b"/etc/nginx/a.conf")),
        "journal": (
            journal_lines,
            (MigrateError,),
            (plain, mutate.of_json_lines, mutate.of_json_lines),
            _journals,
        ),
        "lab": (saved_lab(directory), (), (plain, mutate.of_json_lines), _labs),
        "known_hosts": (known, (), (plain, lines), _known),
        "ssh_says": (ssh_says, (), (plain, lines), same("lines", SSH_SAYS)),
        "ssh_config": (configuration(directory), (TransportError,), (plain, lines, lines), _configurations),
        "host": (host_argument, (UsageError,), (plain, lines), same("host", b"root@[fe80::1%eth0]")),
        "jump": (jump, (ValueError,), (plain, lines), same("jump", b"ssh://root@[fe80::1]:22/")),
        "packet": (packet, (), (plain, packet_fields, packet_fields), _packets),
        "pagemap": (pagemap_image, (ImageError,), (plain, entries), _pagemaps),
        "elf": (elf_file, (), (plain, elf_fields), _elfs),
        "criu_answer": (criu_answer, (), (plain, mutate.message_of(rpc_pb2.criu_resp)), _criu_answers),
        "criu_log": (criu_log(directory), (), (plain, lines), same("log", LOG)),
        "page_server": (page_server(directory), (MigrateError,), (plain,), _page_streams),
        "unix_dump": (unix_dump, (OSError,), (plain,), _unix_dumps),
        "stat": (text(stat.parse), texts, (plain, lines), same("stat", STAT)),
        "status": (text(proc.parse_fields), (), (plain, lines), same("status", STATUS)),
        "nspid": (
            lambda data: void(identity.innermost_in(data)),
            texts,
            (plain, lines),
            same("status", STATUS),
        ),
        "maps": (text(proc.parse_maps), texts, (plain, lines), same("maps", MAPS)),
        "mappings": (lambda data: void(sources.mappings_in(data)), (), (plain, lines), same("maps", MAPS)),
        "fdinfo": (text(proc.parse_fdinfo), texts, (plain, lines), same("fdinfo", FDINFO)),
        "mountinfo": (text(mounts.parse), (), (plain, lines), same("mountinfo", MOUNTINFO)),
        "mount_points": (
            lambda data: void(mount_points_in(data)),
            (),
            (plain, lines),
            same("mountinfo", MOUNTINFO),
        ),
        "mounts": (lambda data: void(place.tmpfs_in(data)), (), (plain, lines), same("mounts", MOUNTS)),
    }
    return [Target(name, *rest) for name, rest in tests.items()]
