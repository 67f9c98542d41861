"""A session of each protocol that is spoken, as it was recorded, is said again: to the agent, and by the origin.

What CRIU, the kernel and the network do is faked; the link, the order of messages and the images are real.
"""

from __future__ import annotations

import dataclasses
import queue
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from destination_fakes import World, world
from golden_session import Said, images, names, packets, protocol_of, records, session

from migrate.destination import agent, destination, gate, incoming, restored
from migrate.files.images import Receiver, Sender
from migrate.gap.inject import Inlet
from migrate.gap.packets import Segment
from migrate.link import questions, speech
from migrate.link.frames import Decoder, Whole
from migrate.link.link import Link
from migrate.link.payloads import Connections, Packets
from migrate.link.stream import FdStream
from migrate.origin import connections
from migrate.pb import session_pb2 as pb
from tcpcp.criu.completion import Completion
from tcpcp.endpoint import host
from tcpcp.record import codec
from tcpcp.record.ici import State

__all__ = ["world"]

DEADLINE_S = 10.0
#: The version of the agent: that of none of the sessions.
OTHER = "9.9"
#: What may be cut otherwise, and come in another order.
BULK = ("image", "copy", "connections")


class Far:
    """The other end of a stream, as bytes; a thread reads it, so that who writes does not wait."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket, self._frames = ours, queue.SimpleQueue[Whole]()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        decoder = Decoder()
        while data := self._socket.recv(1 << 16):
            for whole in decoder.feed(data):
                if not whole.frame.HasField("ping"):
                    self._frames.put(whole)

    def say(self, data: bytes) -> None:
        self._socket.sendall(data)

    def hear(self) -> Whole:
        """The next frame that is no ping."""
        return self._frames.get(timeout=DEADLINE_S)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(DEADLINE_S)
        self._socket.close()


@pytest.fixture
def ends() -> Iterator[tuple[Far, FdStream]]:
    far, near = socket.socketpair()
    end = Far(far)
    yield end, FdStream(fd := near.detach(), fd)
    end.close()


def test_each_protocol_that_is_spoken_has_one() -> None:
    assert {str(one) for one in range(speech.OLDEST, speech.NEWEST + 1)} <= set(names())


def test_that_of_the_newest_version_has_what_came_later() -> None:
    """Fields that the first version of its protocol had not, and passed over: its session has none of them."""

    def later(name: str) -> list[bool]:
        said = {one.kind: one.frame for one in session(name) if one.who == "o"}
        hello, prepare, restore = said["hello"].hello, said["prepare"].prepare, said["restore"].restore
        return [bool(one) for one in (hello.logged, prepare.runtime, restore.ended_calls, restore.others)]

    assert later(str(speech.NEWEST)) == [True] * 4
    assert not any(later(f"{speech.NEWEST}-first"))


# --- to the agent ----------------------------------------------------------------------------------------


class Given:
    """The injector: what the stack would have got."""

    packets: list[bytes]
    #: And what sockets would have been set to.
    options: list[dict[str, Any]]

    def __init__(self) -> None:
        type(self).packets = []

    def by_device(self, devices: Any) -> None:
        assert not devices

    def give(self, segment: Segment, *, marked: bool = False) -> None:
        type(self).packets.append(segment.packet)

    @classmethod
    def put_back(cls, wanted: Iterable[tuple[int, Any]], holders: Any) -> list[str]:
        cls.options = [dict(options) for inode, options in wanted if inode in holders]
        return []


@pytest.fixture
def there(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The destination of any tree, with real images."""
    monkeypatch.setattr(incoming, "Receiver", Receiver)
    monkeypatch.setattr(incoming.completion, "Completion", Completion)
    monkeypatch.setattr(speech, "VERSION", OTHER)
    here = pb.HostInventory(hostname="destination", version=OTHER)
    monkeypatch.setattr(destination, "answer", lambda _: here)
    monkeypatch.setattr(gate, "Injector", Given)
    monkeypatch.setattr(gate, "Inlet", Inlet)
    monkeypatch.setattr(restored.plain_options, "put_back", Given.put_back)
    monkeypatch.setattr(gate, "Capture", world.fake("capture", take=[]))
    limits = dataclasses.replace(host.limits(), congestion_algorithms=None)
    monkeypatch.setattr(host, "limits", lambda: limits)
    return world


@pytest.mark.parametrize("name", names())
def test_the_agent_takes_it(there: World, ends: tuple[Far, FdStream], tmp_path: Path, name: str) -> None:
    (far, stream), said, protocol = ends, session(name), protocol_of(name)
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(agent.serve(stream)))
    thread.start()
    for one in said:
        if one.who == "o":
            far.say(one.data)
            continue
        answer = far.hear().frame
        assert (answer.WhichOneof("kind"), answer.question) == (one.kind, one.frame.question), answer
        if one.kind == "hello":
            assert answer.hello.protocol == protocol
        if one.kind in ("hello", "host"):
            # A driver of protocol 2 relies on its own.
            version = getattr(one.frame, one.kind).version if protocol == 2 else OTHER
            assert getattr(answer, one.kind).version == version
    thread.join(DEADLINE_S)
    assert status == [0]
    assert_complete(tmp_path, said)


def assert_complete(directory: Path, said: list[Said]) -> None:
    """The images are there, and those of the two connections; the packets of the gap were given, in their order."""
    restore = next(one.frame.restore for one in said if one.kind == "restore")
    begun_again = {f"core-{one.tid}.img" for one in restore.ended_calls}
    for name, content in images(said).items():
        if name not in ("ici.img", "inventory.img", "files.img"):
            as_sent = (directory / name.replace("level-1", "parent")).read_bytes() == content
            assert as_sent == (name not in begun_again), name
    assert not (directory / "ici.img").exists()
    found = {int(path.stem.rpartition("-")[2], 16) for path in directory.glob("tcp-stream-*")}
    assert found == {ici.tag for ici in codec.loads_many(records(said))}
    given = [one for one in Given.packets if len(one) > 52]  # not the last nudge, which is empty
    assert given == packets(said) and len(given) > 3
    assert [one["IP_TTL"] for one in Given.options] == [7 for _ in restore.others]


@pytest.mark.parametrize("name", names())
def test_the_states_of_its_connections(name: str) -> None:
    icis = list(codec.loads_many(records(session(name))))
    assert {one.state for one in icis} == {State.ESTABLISHED, State.CLOSE_WAIT}
    assert [one.receive_queue.data for one in icis if one.state is State.CLOSE_WAIT] == [b"nobody reads this"]


# --- by the origin ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_the_origin_says_it(
    ends: tuple[Far, FdStream], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    said, (far, stream) = session(name), ends
    asked = iter([one.frame.question for one in said if one.who == "o" and one.frame.question])
    monkeypatch.setattr(questions.secrets, "randbelow", lambda _: next(asked) - 1)
    link = Link(stream)
    try:
        heard = list(said_again(link, far, said, tmp_path))
    finally:
        link.close()
    again = [Said("o", str(one.frame.WhichOneof("kind")), framed(one)) for one in heard]
    assert images(again) == images(said)
    assert records(again) == records(said)
    expected = [one for one in said if one.who == "o" and one.kind not in BULK]
    assert [bare(one) for one in again if one.kind not in BULK] == [bare(one) for one in expected]


def said_again(link: Link, far: Far, said: list[Said], directory: Path) -> Iterator[Whole]:
    """Have *link* say what the origin has said, with images of *directory*; what comes out of it."""
    files = images(said)
    write(directory, {name: content for name, content in files.items() if name != "ici.img"})
    sender = Sender(directory, lambda piece: link.send(piece, kind="image", timeout_s=DEADLINE_S))
    for name in files:
        if name.startswith("level-"):
            sender.grew(name)
    for one in said:
        frame = one.frame
        if one.who == "d":
            far.say(one.data)
            answer = link.receive(one.kind, timeout_s=DEADLINE_S)
            if isinstance(answer, pb.Hello):
                link.speak(speech.agreed(answer), answer.version)
        elif one.kind == "restore":
            yield from said_at_the_end(link, far, said, sender)
        elif one.kind == "gap":
            link.send(Packets(packets([one])))
            yield far.hear()
        elif one.kind not in BULK:
            link.send(getattr(frame, one.kind))
            yield far.hear()


def said_at_the_end(link: Link, far: Far, said: list[Said], sender: Sender) -> Iterator[Whole]:
    """Images, connections, and the message that says that this was all, as the origin makes them."""
    restore = next(one.frame.restore for one in said if one.kind == "restore")
    icis = list(codec.loads_many(records(said)))
    held = {one.inode: one for one in restore.sockets}
    for one in said:
        held |= {holder.inode: holder for holder in one.frame.connections.sockets}
    for batch in connections.batches(icis, held):
        link.send(batch, timeout_s=DEADLINE_S)
    manifest = sender.finish(restore.manifest.migration_id)
    link.flush(timeout_s=DEADLINE_S)
    mine = pb.Restore()
    mine.CopyFrom(restore)
    mine.manifest.CopyFrom(manifest)
    del mine.sockets[:]
    mine.sockets.extend(held[inode] for inode in sorted(held.keys() - {ici.tag for ici in icis}))
    mine.connections = len(icis)
    link.send(mine)
    while True:
        yield (whole := far.hear())
        if whole.frame.HasField("restore"):
            return


def write(directory: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)


def framed(whole: Whole) -> bytes:
    body = whole.frame.SerializeToString()
    return len(body).to_bytes(4, "big") + body + whole.payload


def bare(said: Said) -> tuple[pb.Frame, bytes]:
    """It without its times, and the holders of sockets in one order."""
    found = said.frame
    found.ClearField("stamp")
    found.restore.sockets.sort(key=lambda one: one.inode) if said.kind == "restore" else None
    return found, said.payload


# --- what else protocol 2 may say ------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["content", "size", "unlisted", "offset"])
def test_damage_to_the_connections_of_protocol_2_is_told_as_that_of_an_image(
    change: str, tmp_path: Path
) -> None:
    """As it was in that version: a failure of this migration, and no end of the session."""
    taking, receiver = speech.of(2, "0.1.0"), Receiver(tmp_path)
    piece = pb.FileChunk(name="ici.img", data=b"record", offset=1 if change == "offset" else 0)
    kind, said = taking.heard("image", piece, b"")
    if change == "offset":
        with pytest.raises(incoming.ImageError, match="ici.img: a piece at 1, expected at 0"):
            receiver.take(said)  # type: ignore[arg-type]
        return
    assert (kind, said) == ("connections", Connections(b"record"))
    restore = pb.Restore()
    restore.manifest.version = 1
    if change != "unlisted":
        restore.manifest.files.add(name="ici.img", size_bytes=6 + (change == "size"), sha256=b"another")
    taking.heard("restore", restore, b"")
    with pytest.raises(incoming.ImageError, match="as they were sent: ici.img"):
        receiver.verify(restore.manifest)


def test_a_record_larger_than_a_chunk_is_cut_in_both_protocols() -> None:
    said = Connections(b"x" * 600_000)
    (old,) = [[part[1] for part in speech.of(2, "").frames(said, "connections")]]
    assert [(one.offset, len(one.data)) for one in old] == [  # type: ignore[attr-defined]
        (0, 262144),
        (262144, 262144),
        (524288, 75712),
    ]
