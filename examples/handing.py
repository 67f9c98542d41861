"""Handing connections over to a program on another host, with all that may go wrong on the way.

The *front* is the program to which clients connect, on the host that has the service address as far as the
network knows. The *taker* is the program that goes on with a connection. They speak over a TCP connection of
their own, which is there before anything is isolated::

    front                                            taker
    stop the connections, tcpcp.get_many()
    {"connections": [state, ...]} + ICIs   ------->  tcpcp.create_many()
                                           <-------  {"created": n}, or {"refused": reason}
    redirect the packets: one nft batch
    tcpcp.release_many()
    {"go": true}                           ------->  tcpcp.activate_many(), and it goes on
                                           <-------  {"ended": i}, for each, when it has

Until ``go`` is sent, the front resumes whatever fails, and the taker, seeing the end of their connection,
drops what it has made: neither has sent anything. From ``go`` on the connections are the taker's alone.

A message is two lengths (4 bytes each, big-endian), so much JSON, and so many bytes of ICI images.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Sequence

from common import Connection, State, in_background, stopped
from redirect import Nft, Peer, Redirect, Taker

import tcpcp

LENGTHS = struct.Struct(">II")
MAX_JSON_BYTES = 1 << 20
MAX_ICIS_BYTES = 256 << 20
#: How long clients may have to wait for a taker that does not answer.
PATIENCE_S = 2.0
#: What can go wrong between front and taker; anything else is a bug.
FAILURES = (tcpcp.TcpcpError, OSError, EOFError, ValueError, KeyError, TypeError)

_one_at_a_time = asyncio.Lock()

Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Make = Callable[[socket.socket, State], Connection]


# --- the front ------------------------------------------------------------------------------------------


async def hand_over(
    connections: Sequence[Connection], taker: Taker, network: Redirect
) -> Sequence[Connection]:
    """Pass *connections* to *taker*: all that can be passed, or none.

    :return: those that went. The others go on here; the reason was printed.
    """
    try:
        link, nft = await asyncio.wait_for(_get_ready(taker, network), PATIENCE_S)
    except OSError as error:
        print(f"{taker.host} cannot be reached, nothing is passed: {_why(error)}", flush=True)
        return []
    # So far no client had to wait. Two hand-overs at once would only make each other's clients wait longer.
    async with _one_at_a_time:
        leaving = [one for one in connections if not one.finished and _can_go(one)]
        if not leaving or not await _pass(leaving, link, nft, taker, network):
            _abandon(link, nft)
            return []
    in_background(_watch(link, [one.peer for one in leaving], network))
    return leaving


async def _pass(leaving: Sequence[Connection], link: Link, nft: Nft, taker: Taker, network: Redirect) -> bool:
    """From the first packet that is dropped to ``go``, or to :func:`tcpcp.resume_many` and False."""
    socks = [one.sock for one in leaving]
    isolated = False
    began = time.perf_counter()
    try:
        for one in leaving:
            one.stop()
        icis = tcpcp.get_many(socks)
        isolated = True
        await asyncio.wait_for(_offer(link, leaving, icis), PATIENCE_S)
        await network.add(nft, [one.peer for one in leaving], taker)
    except BaseException as error:
        _abandon(link, nft)
        if isolated:
            tcpcp.resume_many(socks)
        for one in leaving:
            one.start()
        if not isinstance(error, FAILURES):
            raise
        print(f"{taker.host} did not take {len(leaving)} connections, they stay: {_why(error)}", flush=True)
        return False
    tcpcp.release_many(socks)
    _write(link[1], {"go": True})
    isolated_ms = 1000 * (time.perf_counter() - began)
    print(f"passed {len(leaving)} connections to {taker.host}, isolated for {isolated_ms:.1f} ms", flush=True)
    for one in leaving:
        one.leave()
    return True


def _abandon(link: Link, nft: Nft) -> None:
    """The taker sees the end of the link and drops what it has; nft, told nothing, ends."""
    link[1].close()
    if nft.stdin:
        nft.stdin.close()


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _can_go(connection: Connection) -> bool:
    try:
        tcpcp.inspect(connection.sock)
    except tcpcp.TcpcpError:
        return False
    return True


async def _get_ready(taker: Taker, network: Redirect) -> tuple[Link, Nft]:
    await asyncio.to_thread(tcpcp.prepare)  # it takes up to 0.1 s, in which others are served
    link = await asyncio.open_connection(taker.host, taker.port)
    _notice_dead_host(link[1])
    return link, await network.prepare()


async def _offer(link: Link, connections: Sequence[Connection], icis: Sequence[tcpcp.Ici]) -> None:
    """Returns when the taker has created all. :raises ValueError: it refuses."""
    images = [tcpcp.dumps(ici) for ici in icis]
    entries = [
        {"state": one.state(), "ici_bytes": len(image)}
        for one, image in zip(connections, images, strict=True)
    ]
    _write(link[1], {"connections": entries}, b"".join(images))
    await link[1].drain()
    answer, _ = await _read(link[0])
    if answer.get("created") != len(icis):
        raise ValueError(answer.get("refused", f"it answers {answer}"))


async def _watch(link: Link, peers: list[Peer], network: Redirect) -> None:
    """Forget the redirection of each connection when the taker is done with it, or gone itself."""
    left = dict(enumerate(peers))
    with contextlib.suppress(*FAILURES):
        while left:
            message, _ = await _read(link[0])
            in_background(network.remove(left.pop(message["ended"])))
    for peer in left.values():
        in_background(network.remove(peer))
    link[1].close()


# --- the taker ------------------------------------------------------------------------------------------


async def take(host: str, port: int, services: Sequence[str], make: Make) -> None:
    """Take connections over until a signal comes.

    :param host, port: where fronts hand them over. Whoever can connect there can make connections here, so
        let it be an address that only fronts can reach.
    :param services: addresses of ours; a connection to another one is refused.
    :param make: what goes on with a socket, given its state; ValueError or OSError refuses it.
    """
    tcpcp.prepare()
    server = await asyncio.start_server(lambda *link: _take_over(link, services, make), host, port)
    print("listening", flush=True)
    async with server:
        await stopped()


async def _take_over(link: Link, services: Sequence[str], make: Make) -> None:
    """One hand-over; returns when all of its connections have ended."""
    reader, writer = link
    _notice_dead_host(writer)
    with contextlib.closing(writer):
        try:
            connections = _create(*await _read(reader), services, make)
        except FAILURES as error:
            print(f"refused: {error}", flush=True)
            _write(writer, {"refused": str(error)})
            return
        socks = [one.sock for one in connections]
        try:
            _write(writer, {"created": len(connections)})
            await _read(reader)  # go
        except FAILURES:
            print(f"dropped {len(connections)} connections: the front keeps them", flush=True)
            tcpcp.release_many(socks)
            return
        tcpcp.activate_many(socks)
        for one in connections:
            one.start()
        print(f"took {len(connections)} connections", flush=True)
        await asyncio.gather(*(_tell_end(writer, *entry) for entry in enumerate(connections)))


def _create(offer: State, images: bytes, services: Sequence[str], make: Make) -> list[Connection]:
    """All that is offered, isolated; or an error and none."""
    icis, begin = [], 0
    for entry in offer["connections"]:
        icis.append(tcpcp.loads(images[begin : begin + entry["ici_bytes"]]))
        begin += entry["ici_bytes"]
        if str(icis[-1].local.ip) not in services:
            raise ValueError(f"{icis[-1].local} is no service of this host")
    socks = tcpcp.create_many(icis, same_path=True)  # the hosts are neighbours
    try:
        states = [entry["state"] for entry in offer["connections"]]
        return [make(sock, state) for sock, state in zip(socks, states, strict=True)]
    except BaseException:
        tcpcp.release_many(socks)
        raise


async def _tell_end(writer: asyncio.StreamWriter, number: int, connection: Connection) -> None:
    await connection.ended
    _write(writer, {"ended": number})


# --- their messages --------------------------------------------------------------------------------------


def _write(writer: asyncio.StreamWriter, message: State, data: bytes = b"") -> None:
    text = json.dumps(message).encode()
    writer.write(LENGTHS.pack(len(text), len(data)) + text + data)


async def _read(reader: asyncio.StreamReader) -> tuple[State, bytes]:
    """One message. :raises ValueError: it makes no sense. :raises EOFError: there is none."""
    json_bytes, data_bytes = LENGTHS.unpack(await reader.readexactly(LENGTHS.size))
    if json_bytes > MAX_JSON_BYTES or data_bytes > MAX_ICIS_BYTES:
        raise ValueError(f"a message of {json_bytes} and {data_bytes} bytes")
    message = json.loads(await reader.readexactly(json_bytes))
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message, await reader.readexactly(data_bytes)


def _notice_dead_host(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
