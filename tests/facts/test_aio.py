"""`tcpcp.aio`: connections leave asyncio's streams with all that is in them. The judge is the peer.

Also under uvloop, where that is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import importlib.util
import random
import select
import socket
import ssl
import subprocess
import threading
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from drain import Drain
from netns import Hosts
from passing import assert_no_reset, wait_state

import tcpcp
from tcpcp import aio
from tcpcp.endpoint import isolation
from tcpcp.kernel import tcp_repair
from tcpcp.record.ici import State

Loop = Callable[[], asyncio.AbstractEventLoop]
LOOPS: list[Loop] = [asyncio.new_event_loop]
if importlib.util.find_spec("uvloop"):
    import uvloop

    LOOPS.append(uvloop.new_event_loop)

pytestmark = pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__module__.partition(".")[0])


def run(hosts: Hosts, loop: Loop, body: Coroutine[Any, Any, None]) -> None:
    """Run *body* on our host, on an event loop of that kind."""
    with hosts.here.entered(), asyncio.Runner(loop_factory=loop) as runner:
        runner.run(body)


def data(size_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


async def streams(sock: socket.socket, limit: int = aio.LIMIT_BYTES) -> aio.Streams:
    sock.setblocking(False)
    return await asyncio.open_connection(sock=sock, limit=limit)


async def passed(pair: aio.Streams) -> aio.Streams:
    """To the other side of an image, and into streams again."""
    leaving = await aio.detach(*pair)
    image = tcpcp.dumps(leaving.ici)
    leaving.release()
    return await aio.attach(tcpcp.loads(image))


def fill(peer: socket.socket, content: bytes) -> bytes:
    """Write until the kernel takes no more; what it took."""
    with contextlib.suppress(BlockingIOError):
        return content[: peer.send(content)]
    return b""


async def soon(condition: Callable[[], object]) -> None:
    """Wait until *condition* is true, and let the event loop run."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


async def both_ways(pair: aio.Streams, peer: socket.socket, sent: bytes = b"", received: bytes = b"") -> None:
    """The rest of the connection: *sent* and *received* are still under way; then more, then both ends."""
    reader, writer = pair
    more_there, more_here = data(300_000, 3), data(300_000, 4)
    peer.setblocking(True)
    drain = Drain(peer)
    thread = threading.Thread(target=lambda: (peer.sendall(more_here), peer.shutdown(socket.SHUT_WR)))
    thread.start()
    writer.write(more_there)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 10) == received + more_here
    await asyncio.to_thread(drain.finished, sent + more_there)
    thread.join()
    writer.close()
    await writer.wait_closed()
    peer.close()


@pytest.mark.parametrize("kind", ("v4", "v6", "mapped"))
def test_unread_and_unwritten(hosts: Hosts, loop: Loop, kind: str) -> None:
    """More than all buffers hold, both ways: in the reader, in the kernel, in the transport."""
    sock, peer = hosts.connect(kind)
    peer.setblocking(False)
    received, sent = data(8_000_000, 1), data(8_000_000, 2)

    async def body() -> None:
        pair = await streams(sock, 300_000)
        taken = 0
        while pair[1].transport.is_reading():
            taken += len(fill(peer, received[taken:]))
            await asyncio.sleep(0.001)
        taken += len(fill(peer, received[taken:]))
        assert await pair[0].readexactly(1000) == received[:1000]
        pair[1].write(sent)
        unwritten = pair[1].transport.get_write_buffer_size()
        assert unwritten > 1_000_000
        buffers = await settled(sock)
        leaving = await aio.detach(*pair)
        ici = leaving.ici
        assert len(ici.send_queue.unsent) > unwritten * 0.9
        assert ici.receive_queue.data == received[1000 : 1000 + len(ici.receive_queue.data)]
        assert len(ici.receive_queue.data) > 600_000
        locks = ici.options.get("SO_BUF_LOCK", 0)
        assert (locks, "TCP_NOTSENT_LOWAT" in ici.options) == (buffers[1], False)
        assert ici.options["SO_SNDBUF"] == buffers[0]
        assert await pair[0].read() == b""
        leaving.release()
        await both_ways(await aio.attach(ici), peer, sent, received[1000:taken])

    run(hosts, loop, body())
    assert_no_reset(hosts)


async def settled(sock: socket.socket) -> list[int]:
    """SO_SNDBUF and SO_BUF_LOCK, once the kernel has stopped making the buffer larger: acknowledgements do that."""
    found: list[int] = []
    while found != (
        found := [sock.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_SNDBUF, 72)]
    ):
        await asyncio.sleep(0.1)
    return found


def test_the_applications_own_buffer_stays_small(hosts: Hosts, loop: Loop) -> None:
    sock, peer = hosts.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    sock.setsockopt(socket.IPPROTO_TCP, 25, 5_000)

    async def body() -> None:
        pair = await streams(sock)
        pair[1].write(data(3_000_000))
        pair = await passed(pair)
        made = pair[1].get_extra_info("socket").fileno()
        with socket.fromfd(made, socket.AF_INET, socket.SOCK_STREAM) as again:
            assert again.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 40_000
            assert again.getsockopt(socket.SOL_SOCKET, 72) == 1
            assert again.getsockopt(socket.IPPROTO_TCP, 25) == 5_000
        await both_ways(pair, peer, data(3_000_000))

    run(hosts, loop, body())


class Peer:
    """The other end of a long conversation: sends and receives in pieces of all sizes, and dawdles."""

    def __init__(self, sock: socket.socket, to_send: bytes, seed: int) -> None:
        self.received, self.dawdles = bytearray(), True
        sock.setblocking(True)
        self._sock, self._to_send = sock, to_send
        self._threads = [
            threading.Thread(target=target, args=(random.Random(seed),), daemon=True)
            for target in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self, chance: random.Random) -> None:
        position = 0
        while position < len(self._to_send):
            size_bytes = int(10 ** chance.uniform(0, 5))
            self._sock.sendall(self._to_send[position : position + size_bytes])
            position += size_bytes
            self._dawdle(chance)
        self._sock.shutdown(socket.SHUT_WR)

    def _receive(self, chance: random.Random) -> None:
        while received := self._sock.recv(int(10 ** chance.uniform(0, 5))):
            self.received += received
            self._dawdle(chance)

    def _dawdle(self, chance: random.Random) -> None:
        if self.dawdles:
            time.sleep(chance.choice((0, 0.001, 0.02)))

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


class Talk:
    """Our end: messages of random size, and reading what has come, stopped wherever it is."""

    def __init__(self, peer: Peer, theirs: bytes, seed: int) -> None:
        self.peer, self.theirs, self.chance = peer, theirs, random.Random(seed)
        self.written, self.read = bytearray(), bytearray()
        self.seen: Counter[str] = Counter()

    async def run(self, pair: aio.Streams) -> None:
        """Without an end."""
        reader, writer = pair
        while True:
            message = self.chance.randbytes(int(10 ** self.chance.uniform(0, 5)))
            self.written += message
            writer.write(message)
            if self.chance.random() < 0.3:
                await writer.drain()
            await asyncio.sleep(self.chance.choice((0, 0.001)))
            if self.chance.random() < 0.7:
                self.read += await reader.read(int(10 ** self.chance.uniform(0, 4)))

    async def pass_on(self, pair: aio.Streams) -> aio.Streams:
        """Mostly to another socket, at times back."""
        unwritten = pair[1].transport.get_write_buffer_size()
        leaving = await aio.detach(*pair)
        ici = tcpcp.loads(tcpcp.dumps(leaving.ici))
        unread, begin = ici.receive_queue.data, len(self.read)
        assert unread == self.theirs[begin : begin + len(unread)]
        self.seen.update(unwritten=unwritten > 0, unread=bool(unread), unsent=bool(ici.send_queue.unsent))
        if self.chance.random() < 0.2:
            return await leaving.back(limit=10_000)
        leaving.release()
        return await aio.attach(ici, limit=10_000)

    async def finish(self, pair: aio.Streams) -> None:
        """Both ends have got all that the other one has written."""
        self.peer.dawdles = False
        pair[1].write_eof()
        self.read += await asyncio.wait_for(pair[0].read(), 30)
        await asyncio.to_thread(self.peer.join)
        assert (len(self.read), len(self.peer.received)) == (len(self.theirs), len(self.written))
        assert (self.read, self.peer.received) == (self.theirs, self.written)
        pair[1].close()


@pytest.mark.parametrize("seed", (1, 2))
def test_a_hundred_passes(hosts: Hosts, loop: Loop, seed: int) -> None:
    """At random moments, with bytes in every buffer: each comes once, in order."""
    sock, peer_sock = hosts.connect()
    peer_sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)

    async def body() -> None:
        pair = await streams(sock, 10_000)
        theirs = data(4_000_000, 5)
        talk = Talk(Peer(peer_sock, theirs, seed), theirs, seed)
        for _ in range(100):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(talk.run(pair), talk.chance.uniform(0, 0.02))
            pair = await talk.pass_on(pair)
        await talk.finish(pair)
        assert min(talk.seen["unwritten"], talk.seen["unread"], talk.seen["unsent"]) >= 10, talk.seen

    run(hosts, loop, body())
    assert_no_reset(hosts)


@pytest.mark.parametrize("unread", (0, 20_000))
def test_the_peer_has_closed(hosts: Hosts, loop: Loop, unread: int) -> None:
    """Its FIN has been seen by the reader, behind bytes that nobody has read; there and back."""
    sock, peer = hosts.connect()
    received = data(unread)

    async def body() -> None:
        pair = await streams(sock)
        peer.sendall(received)
        peer.shutdown(socket.SHUT_WR)
        wait_state(sock, State.CLOSE_WAIT)
        await asyncio.sleep(0.05)
        leaving = await aio.detach(*pair)
        assert (leaving.ici.receive_queue.data, leaving.ici.receive_queue.fin) == (received, True)
        pair = await passed(await leaving.back())
        pair[1].write(b"goodbye")
        pair[1].write_eof()
        assert await pair[0].read() == received
        assert await asyncio.to_thread(peer.recv, 100) == b"goodbye"
        assert await asyncio.to_thread(peer.recv, 100) == b""
        pair[1].close()

    run(hosts, loop, body())
    assert_no_reset(hosts)


@pytest.mark.parametrize("size_bytes", (0, 5_000_000))
def test_we_have_closed(hosts: Hosts, loop: Loop, size_bytes: int) -> None:
    """write_eof() behind what the transport could not yet write: the FIN comes behind it at the other host."""
    sock, peer = hosts.connect()

    async def body() -> None:
        pair = await streams(sock)
        pair[1].write(data(size_bytes))
        pair[1].write_eof()
        await asyncio.sleep(0)
        leaving = await aio.detach(*pair)
        assert leaving.ici.send_queue.fin
        leaving.release()
        reader, writer = await aio.attach(leaving.ici)
        drain = Drain(peer)
        await asyncio.to_thread(drain.finished, data(size_bytes))
        peer.sendall(b"the rest")
        peer.close()
        assert await reader.read() == b"the rest"
        writer.close()

    run(hosts, loop, body())
    assert_no_reset(hosts)


def test_back(hosts: Hosts, loop: Loop) -> None:
    """Nothing is sent for its own sake, and what was read and written is in the new streams."""
    sock, peer = hosts.connect()

    async def body() -> None:
        pair = await streams(sock)
        peer.sendall(b"unread")
        await soon(lambda: tcp_repair.get_outq(peer) == 0)
        await asyncio.sleep(0.05)
        before = hosts.counters(hosts.here)["TcpOutSegs"]
        leaving = await aio.detach(*pair)
        again = await leaving.back()
        assert hosts.counters(hosts.here)["TcpOutSegs"] == before
        assert pair[1].is_closing()
        with pytest.raises(tcpcp.TcpcpError):
            leaving.release()
        await both_ways(again, peer, b"", b"unread")

    run(hosts, loop, body())
    assert_no_reset(hosts)


def test_create_first(hosts: Hosts, loop: Loop) -> None:
    """What can fail at the destination is done before the origin lets go; a wrong ICI leads back."""
    sock, peer = hosts.connect()

    async def body() -> None:
        peer.sendall(b"unread")
        leaving = await aio.detach(*await streams(sock))
        with pytest.raises(tcpcp.IciError):
            await aio.attach(dataclasses.replace(leaving.ici, version=99))
        pair = await leaving.back()
        leaving = await aio.detach(*pair)
        leaving.release()
        made = tcpcp.create(leaving.ici)
        assert tcp_repair.get_repair(made)
        pair = await aio.attach(made, limit=1000)
        await both_ways(pair, peer, b"", b"unread")

    run(hosts, loop, body())
    assert_no_reset(hosts)


def test_cancelled(hosts: Hosts, loop: Loop) -> None:
    """While the kernel is being given what it has no room for: the streams go on, the buffer is as before."""
    sock, peer = hosts.connect()
    sent = data(4_000_000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)

    async def body() -> None:
        reader, writer = await streams(sock)
        limits = writer.transport.get_write_buffer_limits()
        writer.write(sent)
        await asyncio.sleep(0.05)
        detaching = asyncio.create_task(aio.detach(reader, writer))
        await asyncio.sleep(0)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > 1_000_000_000
        detaching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await detaching
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 40_000
        assert writer.transport.get_write_buffer_limits() == limits
        assert isolation.tables() == []
        await both_ways((reader, writer), peer, sent)

    run(hosts, loop, body())
    assert_no_reset(hosts)


def test_many_at_once_or_none(hosts: Hosts, loop: Loop) -> None:
    """One of them cannot be passed: all go on in their streams. Without it, all are passed."""
    pairs = [hosts.connect() for _ in range(20)]
    bad, bad_peer = hosts.connect()

    async def body() -> None:
        ours = [await streams(sock) for sock, _ in pairs]
        for number, (_, peer) in enumerate(pairs):
            peer.sendall(b"%d" % number)
        bad_peer.send(b"u", socket.MSG_OOB)
        await soon(lambda: select.select([], [], [bad], 0)[2])
        with pytest.raises(tcpcp.Unsupported):
            await aio.detach_many([*ours, await streams(bad)])
        for number, (reader, _) in enumerate(ours[:5]):
            assert await reader.read(100) == b"%d" % number
            pairs[number][1].sendall(b"%d" % number)
        detached = await aio.detach_many(ours)
        for one in detached:
            one.release()
        for number, one in enumerate(detached):
            pair = await aio.attach(one.ici)
            await both_ways(pair, pairs[number][1], b"", b"%d" % number)

    run(hosts, loop, body())


def test_a_task_that_waits_sees_the_end(hosts: Hosts, loop: Loop) -> None:
    """Whoever reads or waits to write while the connection leaves does not hang, and nothing is lost by it."""
    sock, peer = hosts.connect()
    sent = data(4_000_000)

    async def body() -> None:
        reader, writer = await streams(sock)
        peer.sendall(b"half a message")
        reading = asyncio.create_task(reader.readexactly(100))
        writer.write(sent)
        writing = asyncio.create_task(writer.drain())
        await asyncio.sleep(0.05)
        pair = await passed((reader, writer))
        with pytest.raises(asyncio.IncompleteReadError):
            await asyncio.wait_for(reading, 1)
        await asyncio.wait_for(writing, 1)
        await both_ways(pair, peer, sent, b"half a message")

    run(hosts, loop, body())
    assert_no_reset(hosts)


def test_a_task_just_woken(hosts: Hosts, loop: Loop) -> None:
    """Bytes have come for a reader that did not run yet."""
    sock, peer = hosts.connect()

    async def body() -> None:
        for _ in range(30):
            pair = await streams(sock) if not made else made.pop()
            reading = asyncio.create_task(pair[0].read(100))
            await asyncio.sleep(0)
            peer.sendall(b"x")
            await asyncio.sleep(0)
            made.append(await passed(pair))
            got.append(await asyncio.wait_for(reading, 1))
        await both_ways(made.pop(), peer, b"", b"x" * (30 - len(b"".join(got))))

    made: list[aio.Streams] = []
    got: list[bytes] = []
    run(hosts, loop, body())


def test_reset_meanwhile(hosts: Hosts, loop: Loop) -> None:
    sock, peer = hosts.connect()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def body() -> None:
        pair = await streams(sock)
        pair[1].write(data(8_000_000))
        peer.close()
        with pytest.raises(tcpcp.TcpcpError):
            await aio.detach(*pair)

    run(hosts, loop, body())


def test_refused(hosts: Hosts, loop: Loop) -> None:
    """What is not plain TCP, or closed already."""
    sock, peer = hosts.connect()

    async def body() -> None:
        reader, writer = await streams(sock)
        writer.close()
        with pytest.raises(tcpcp.Unsupported, match="closed"):
            await aio.detach(reader, writer)
        ours, theirs = socket.socketpair()
        reader, writer = await streams(ours)
        for waiting in (b"", bytes(1_000_000)):
            writer.write(waiting)
            with pytest.raises(tcpcp.Unsupported, match="not a TCP socket"):
                await aio.detach(reader, writer)
        writer.write(b"goes on")
        await asyncio.to_thread(theirs.recv, 1_000_000, socket.MSG_WAITALL)
        assert await asyncio.to_thread(theirs.recv, 100) == b"goes on"
        writer.close()
        theirs.close()

    run(hosts, loop, body())
    peer.close()


def test_too_much_to_write(hosts: Hosts, loop: Loop) -> None:
    sock, peer = hosts.connect()

    async def body() -> None:
        reader, writer = await streams(sock)
        writer.write(bytes(140_000_000))
        with pytest.raises(tcpcp.Unsupported, match="wait to be sent"):
            await aio.detach(reader, writer)
        assert not writer.is_closing()
        writer.transport.abort()

    run(hosts, loop, body())
    peer.close()


def test_tls(hosts: Hosts, loop: Loop, tmp_path: Path) -> None:
    """TLS's own state is in the program: refused, and the conversation goes on."""
    sock, peer = hosts.connect()
    words = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -days 1 -keyout key -out certificate"
    subprocess.run(words.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "certificate"))
    trusting.check_hostname = False

    async def body() -> None:
        sock.setblocking(False)
        client = asyncio.create_task(asyncio.to_thread(trusting.wrap_socket, peer))
        made = asyncio.get_running_loop().create_future()
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(), lambda *pair: made.set_result(pair))
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock, ssl=context)
        reader, writer = await made
        wrapped = await client
        with pytest.raises(tcpcp.Unsupported, match="TLS"):
            await aio.detach(reader, writer)
        writer.write(b"goes on")
        assert await asyncio.to_thread(wrapped.recv, 100) == b"goes on"
        wrapped.close()
        writer.close()

    run(hosts, loop, body())


def test_isolated_for_longer_than_the_isolation_lasts(
    hosts: Hosts, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop renews it."""
    monkeypatch.setattr(isolation, "TIMEOUT_S", 2)
    sock, peer = hosts.connect()

    async def body() -> None:
        leaving = await aio.detach(*await streams(sock))
        peer.sendall(b"late")
        await asyncio.sleep(5)
        assert tcp_repair.get_outq(peer) == 4
        leaving.release()
        await both_ways(await aio.attach(leaving.ici), peer, b"", b"late")

    run(hosts, loop, body())
    assert_no_reset(hosts)


def test_dropped(hosts: Hosts, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop does not keep it, nor its socket."""
    monkeypatch.setattr(isolation, "TIMEOUT_S", 3)
    sock, _ = hosts.connect()

    async def body() -> None:
        leaving = await aio.detach(*await streams(sock))
        dropped = weakref.ref(leaving)
        del leaving
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        assert dropped() is None
        await soon(lambda: not hosts.ss(hosts.here, "-tnH"))

    run(hosts, loop, body())


def test_expired(hosts: Hosts, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop stood still for too long: release refuses, and there is a way back."""
    monkeypatch.setattr(isolation, "TIMEOUT_S", 1)
    sock, peer = hosts.connect()

    async def body() -> None:
        peer.sendall(b"unread")
        pair = await streams(sock)
        await asyncio.sleep(0.05)
        leaving = await aio.detach(*pair)
        time.sleep(2.5)
        with pytest.raises(tcpcp.Expired):
            leaving.release()
        await both_ways(await leaving.back(), peer, b"", b"unread")

    run(hosts, loop, body())
    assert_no_reset(hosts)


class Collecting:
    """What nobody keeps is collected again and again, as it is in a program that runs for long."""

    async def __aenter__(self) -> None:
        gc.freeze()  # so that it is quick
        self._task = asyncio.create_task(self._collect())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        gc.unfreeze()

    async def _collect(self) -> None:
        while True:
            gc.collect()
            await asyncio.sleep(0.005)


class Serving:
    """A server whose handler passes its connection on, or not, and asks somebody else before each answer."""

    def __init__(self, back: bool) -> None:
        self.back = back
        self.asked: tuple[str, int] = ("", 0)
        self.handler: weakref.ref[asyncio.Task[None]] | None = None

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: asyncio.Task[None] | None = asyncio.current_task()
        assert task is not None
        self.handler = weakref.ref(task)
        leaving = await aio.detach(reader, writer)
        await self.ask()
        if self.back:
            reader, writer = await leaving.back()
        else:
            leaving.release()
            reader, writer = await aio.attach(leaving.ici)
        del leaving, task
        while line := await reader.readline():
            await self.ask()
            writer.write(line)
            await writer.drain()
        writer.close()

    async def ask(self) -> None:
        reader, writer = await asyncio.open_connection(*self.asked)
        assert await reader.readline() == b"yes\n"
        writer.close()

    @staticmethod
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(b"yes\n")
        writer.close()


@pytest.mark.parametrize("back", (True, False), ids=("back", "attach"))
def test_a_servers_handler_goes_on(hosts: Hosts, loop: Loop, back: bool) -> None:
    """asyncio's server keeps the task of a connection as long as that is in its streams: from then on we do."""

    async def body() -> None:
        serving = Serving(back)
        asked = await asyncio.start_server(serving.answer, "127.0.0.1", 0)
        server = await asyncio.start_server(serving.handle, "127.0.0.1", 0)
        serving.asked = asked.sockets[0].getsockname()
        async with Collecting(), asked, server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for line in (b"one\n", b"two\n"):
                writer.write(line)
                assert await asyncio.wait_for(reader.readline(), 5) == line
                await asyncio.sleep(0.02)
            writer.close()
            await soon(lambda: serving.handler is not None and serving.handler() is None)

    run(hosts, loop, body())


async def echo(pair: aio.Streams) -> None:
    while line := await pair[0].readline():
        pair[1].write(line)
        await pair[1].drain()
    pair[1].close()


@pytest.mark.parametrize("back", (True, False), ids=("back", "attach"))
def test_whoever_waits_in_the_new_streams_is_kept(hosts: Hosts, loop: Loop, back: bool) -> None:
    """Another task than the one that made them, and nobody has it; not any more when the connection is over."""
    sock, peer = hosts.connect()

    async def body() -> None:
        async with Collecting():
            leaving = await aio.detach(*await streams(sock))
            if not back:
                leaving.release()
            made = await leaving.back() if back else await aio.attach(leaving.ici)
            serving = weakref.ref(asyncio.create_task(echo(made)))
            del made, leaving
            for line in (b"one\n", b"two\n"):
                await asyncio.sleep(0.05)
                peer.sendall(line)
                assert await asyncio.to_thread(peer.recv, 100) == line
            peer.shutdown(socket.SHUT_WR)
            await soon(lambda: serving() is None)

    run(hosts, loop, body())
    assert_no_reset(hosts)
