"""A session of each protocol that is spoken, as it was recorded, is said again: to the agent, and by the origin.

What CRIU, the kernel and the network do is faked; the link, the order of messages and the images are real.
"""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from destination_fakes import World, world
from golden_session import Said, images, session

from migrate.destination import agent, destination, gate, incoming
from migrate.files.images import Receiver, Sender
from migrate.gap.inject import Inlet
from migrate.gap.packets import Segment
from migrate.link import questions
from migrate.link.frames import PROTOCOL, Decoder
from migrate.link.link import Link
from migrate.link.stream import FdStream
from migrate.pb import session_pb2 as pb
from tcpcp.criu import completion
from tcpcp.endpoint import host
from tcpcp.record.ici import State

__all__ = ["world"]

DEADLINE_S = 10.0
BULK = ("image", "copy")


class Far:
    """The other end of a stream, as bytes; closed, the link that had ours has ended."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket, self._decoder, self._frames = ours, Decoder(), list[pb.Frame]()
        ours.settimeout(DEADLINE_S)

    def say(self, data: bytes) -> None:
        self._socket.sendall(data)

    def hear(self) -> pb.Frame:
        """The next frame that is no ping."""
        while True:
            while self._frames:
                if (frame := self._frames.pop(0)).WhichOneof("kind") != "ping":
                    return frame
            data = self._socket.recv(1 << 16)
            assert data, "the stream has ended"
            self._frames += self._decoder.feed(data)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def ends() -> Iterator[tuple[Far, FdStream]]:
    far, near = socket.socketpair()
    end = Far(far)
    yield end, FdStream(fd := near.detach(), fd)
    end.close()


# --- to the agent ----------------------------------------------------------------------------------------


class Given:
    """The injector: what the stack would have got."""

    packets: list[bytes]

    def __init__(self) -> None:
        type(self).packets = []

    def by_device(self, devices: Any) -> None:
        assert not devices

    def give(self, segment: Segment, *, marked: bool = False) -> None:
        type(self).packets.append(segment.packet)


@pytest.fixture
def there(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The destination of any tree, with real images."""
    monkeypatch.setattr(incoming, "Receiver", Receiver)
    monkeypatch.setattr(incoming.completion, "Completion", Completion)
    monkeypatch.setattr(destination, "answer", lambda _: pb.HostInventory(hostname="destination"))
    monkeypatch.setattr(gate, "Injector", Given)
    monkeypatch.setattr(gate, "Inlet", Inlet)
    monkeypatch.setattr(gate, "Capture", world.fake("capture", take=[]))
    limits = dataclasses.replace(host.limits(), congestion_algorithms=None)
    monkeypatch.setattr(host, "limits", lambda: limits)
    return world


Completion = completion.Completion


def test_the_agent_takes_it(there: World, ends: tuple[Far, FdStream], tmp_path: Path) -> None:
    far, stream = ends
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(agent.serve(stream)))
    thread.start()
    for one in session(PROTOCOL):
        if one.who == "o":
            far.say(one.data)
            continue
        answer = far.hear()
        assert (answer.WhichOneof("kind"), answer.question) == (one.kind, one.frame.question), answer
    thread.join(DEADLINE_S)
    assert status == [0]
    assert_complete(tmp_path, session(PROTOCOL))


def assert_complete(directory: Path, said: list[Said]) -> None:
    """The images are there, and those of the two connections; the packets of the gap were given, in their order."""
    for name, content in images(said).items():
        if name not in (completion.ICI_IMAGE, "inventory.img", "files.img"):
            assert (directory / name.replace("level-1", "parent")).read_bytes() == content, name
    restore = next(one.frame.restore for one in said if one.kind == "restore")
    connected = {one.inode for one in restore.sockets} - {one.inode for one in restore.listeners}
    assert {int(path.stem.rpartition("-")[2], 16) for path in directory.glob("tcp-stream-*")} == connected
    packets = [packet for one in said if one.kind == "gap" for packet in one.frame.gap.packets]
    given = [one for one in Given.packets if len(one) > 52]  # not the last nudge, which is empty
    assert given == packets and len(packets) > 3


# --- by the origin ---------------------------------------------------------------------------------------


def test_the_origin_says_it(
    ends: tuple[Far, FdStream], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, (far, stream) = session(PROTOCOL), ends
    asked = iter([one.frame.question for one in said if one.who == "o" and one.frame.question])
    monkeypatch.setattr(questions.secrets, "randbelow", lambda _: next(asked) - 1)
    link = Link(stream)
    try:
        heard = list(said_again(link, far, said, tmp_path))
    finally:
        link.close()
    expected = [bare(one.frame) for one in said if one.who == "o" and one.kind not in BULK]
    assert [bare(frame) for frame in heard if frame.WhichOneof("kind") not in BULK] == expected


def said_again(link: Link, far: Far, said: list[Said], directory: Path) -> Iterator[pb.Frame]:
    """Have *link* say what the origin has said, with images of *directory*; what comes out of it."""
    write(directory, images(said))
    sender = Sender(directory, lambda chunk: link.send(chunk, kind="image", timeout_s=DEADLINE_S))
    for one in said:
        frame = one.frame
        if one.who == "d":
            far.say(one.data)
            link.receive(one.kind, timeout_s=DEADLINE_S)
        elif one.kind == "restore":
            manifest = sender.finish(frame.restore.manifest.migration_id)
            link.flush(timeout_s=DEADLINE_S)
            assert manifest == frame.restore.manifest
            yield from until(far, lambda: link.send(frame.restore), "restore")  # noqa: B023
        elif one.kind != "image":
            link.send(getattr(frame, one.kind))
            yield far.hear()


def until(far: Far, send: Callable[[], None], kind: str) -> Iterator[pb.Frame]:
    send()
    while True:
        yield (frame := far.hear())
        if frame.WhichOneof("kind") == kind:
            return


def write(directory: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)


def bare(frame: pb.Frame) -> pb.Frame:
    """It without its times."""
    found = pb.Frame()
    found.CopyFrom(frame)
    found.ClearField("stamp")
    return found


def test_the_states_of_its_connections() -> None:
    said = images(session(PROTOCOL))
    icis = list(completion.codec.loads_many(said[completion.ICI_IMAGE]))
    assert {one.state for one in icis} == {State.ESTABLISHED, State.CLOSE_WAIT}
    assert [one.receive_queue.data for one in icis if one.state is State.CLOSE_WAIT] == [b"nobody reads this"]
