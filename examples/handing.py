"""Handing connections over to a program on another host, with all that may go wrong on the way.

The *front* is the program to which clients connect, on the host that has the service address as far as the
network knows. The *taker* is the program that goes on with a connection. They speak over a TCP connection of
their own, which is there before anything is isolated, in lines of JSON::

    front                                            taker
    stop the applications, tcpcp.aio.detach_many()
    {"connections": [{state, ici}, ...]}   ------->  tcpcp.create_many()
                                           <-------  {"created": n}, or {"refused": reason}
    redirect the packets: one nft batch
    release()
    {"go": true}                           ------->  tcpcp.aio.attach(), and it goes on
                                           <-------  {"ended": i}, for each, when it has

Until ``go`` is sent, the front takes back whatever fails, and the taker, seeing the end of their connection,
drops what it has made: neither has sent anything. From ``go`` on the connections are the taker's alone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import time
from collections.abc import Callable, Sequence

from common import Application, Connection, State, in_background, stop, stopped
from redirect import Nft, Redirect, Taker, host_and_port

import tcpcp.aio

MAX_LINE_BYTES = 256 << 20
#: How long clients may have to wait for a taker that does not answer, if nothing else is said.
PATIENCE_S = 2.0
#: What can go wrong between front and taker; anything else is a bug.
FAILURES = (tcpcp.TcpcpError, OSError, EOFError, ValueError, KeyError, TypeError)

_one_at_a_time = asyncio.Lock()


# --- the front ------------------------------------------------------------------------------------------


async def hand_over(
    connections: Sequence[Connection], taker: Taker, network: Redirect, patience_s: float = PATIENCE_S
) -> bool:
    """Pass *connections* to *taker*: all that can be passed, or none.

    :param patience_s: how long clients may have to wait for a taker that does not answer.
    :return: whether they went. Else they go on here; the reason was printed.
    """
    try:
        link, nft = await asyncio.wait_for(_get_ready(taker, network), patience_s)
    except OSError as error:
        print(f"{taker.host} cannot be reached, nothing is passed: {_why(error)}", flush=True)
        return False
    # So far no client had to wait. Two hand-overs at once would only make each other's clients wait longer.
    async with _one_at_a_time:
        leaving = [one for one in connections if one.can_go()]
        if not leaving:
            print(f"{len(connections)} connections are over, or cannot be passed: none is", flush=True)
        if not leaving or not await _pass(leaving, link, nft, taker, network, patience_s):
            _abandon(link, nft)
            return False
    in_background(_watch(link, leaving, network))
    return True


async def _pass(
    leaving: Sequence[Connection],
    link: tcpcp.aio.Streams,
    nft: Nft,
    taker: Taker,
    network: Redirect,
    patience_s: float,
) -> bool:
    """From the first packet that is dropped to ``go``, or back to where it was, and False."""
    await stop(leaving)
    began = time.perf_counter()
    detached: list[tcpcp.aio.Detached] = []
    try:
        detached = await tcpcp.aio.detach_many([one.streams for one in leaving])
        await asyncio.wait_for(_offer(link, leaving, detached), patience_s)
        await network.add(nft, [one.peer for one in leaving], taker)
    except BaseException as error:
        _abandon(link, nft)
        streams = [await one.back() for one in detached] or [one.streams for one in leaving]
        for one, its_own in zip(leaving, streams, strict=True):
            one.start(its_own)
        if not isinstance(error, FAILURES):
            raise
        print(f"{taker.host} did not take {len(leaving)} connections, they stay: {_why(error)}", flush=True)
        return False
    for gone in detached:
        gone.release()
    _write(link[1], {"go": True})
    isolated_ms = 1000 * (time.perf_counter() - began)
    print(f"passed {len(leaving)} connections to {taker.host}, isolated for {isolated_ms:.1f} ms", flush=True)
    for one in leaving:
        one.leave()
    return True


def _abandon(link: tcpcp.aio.Streams, nft: Nft) -> None:
    """The taker sees the end of the link and drops what it has; nft, told nothing, ends."""
    link[1].close()
    if nft.stdin:
        nft.stdin.close()


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _get_ready(taker: Taker, network: Redirect) -> tuple[tcpcp.aio.Streams, Nft]:
    link = await asyncio.open_connection(taker.host, taker.port, limit=MAX_LINE_BYTES)
    _notice_dead_host(link[1])
    return link, await network.prepare()


async def _offer(
    link: tcpcp.aio.Streams, leaving: Sequence[Connection], detached: Sequence[tcpcp.aio.Detached]
) -> None:
    """Returns when the taker has created all. :raises ValueError: it refuses."""
    entries = [
        {"state": one.state, "ici": base64.b64encode(tcpcp.dumps(its.ici)).decode()}
        for one, its in zip(leaving, detached, strict=True)
    ]
    _write(link[1], {"connections": entries})
    answer = await _read(link[0])
    if answer.get("created") != len(entries):
        raise ValueError(answer.get("refused", f"it answers {answer}"))


async def _watch(link: tcpcp.aio.Streams, gone: Sequence[Connection], network: Redirect) -> None:
    """Forget the redirection of each connection when the taker is done with it, or gone itself."""
    left = {number: one.peer for number, one in enumerate(gone)}
    with contextlib.suppress(*FAILURES):
        while left:
            in_background(network.remove(left.pop((await _read(link[0]))["ended"])))
    for peer in left.values():
        in_background(network.remove(peer))
    link[1].close()


# --- the taker ------------------------------------------------------------------------------------------


async def take(
    at: str, services: Sequence[str], application: Application, check: Callable[[State], object] = bool
) -> None:
    """Take connections over until a signal comes.

    :param at: HOST:PORT where fronts hand them over. Whoever can connect there can make connections here, so
        let it be an address that only fronts can reach.
    :param services: addresses of ours; a connection to another one is refused.
    :param check: looks at a state; ValueError, KeyError or OSError refuses it.
    """
    tcpcp.prepare()
    host, port = host_and_port(at)

    async def taken(*link: *tcpcp.aio.Streams) -> None:
        await _take_over(link, services, application, check)

    await asyncio.start_server(taken, host, port, limit=MAX_LINE_BYTES)
    print("listening", flush=True)
    await stopped()


async def _take_over(
    link: tcpcp.aio.Streams,
    services: Sequence[str],
    application: Application,
    check: Callable[[State], object],
) -> None:
    """One hand-over; returns when all of its connections have ended."""
    reader, writer = link
    _notice_dead_host(writer)
    with contextlib.closing(writer):
        try:
            offered = (await _read(reader))["connections"]
            for entry in offered:
                check(entry["state"])
            socks = _create([base64.b64decode(entry["ici"]) for entry in offered], services)
        except FAILURES as error:
            print(f"refused: {error}", flush=True)
            _write(writer, {"refused": str(error)})
            return
        try:
            _write(writer, {"created": len(socks)})
            await _read(reader)  # go
        except FAILURES:
            print(f"dropped {len(socks)} connections: the front keeps them", flush=True)
            tcpcp.release_many(socks)
            return
        streams = [await tcpcp.aio.attach(sock) for sock in socks]
        print(f"took {len(socks)} connections", flush=True)
        states = [entry["state"] for entry in offered]
        taken = [Connection(its, application, state) for its, state in zip(streams, states, strict=True)]
        await asyncio.gather(*(_tell_end(writer, *entry) for entry in enumerate(taken)))


def _create(images: Sequence[bytes], services: Sequence[str]) -> list[socket.socket]:
    """All that is offered, isolated; or an error and none."""
    icis = [tcpcp.loads(image) for image in images]
    for ici in icis:
        if str(ici.local.ip) not in services:
            raise ValueError(f"{ici.local} is no service of this host")
    return tcpcp.create_many(icis, same_path=True)  # the hosts are neighbours


async def _tell_end(writer: asyncio.StreamWriter, number: int, connection: Connection) -> None:
    await connection.ended
    _write(writer, {"ended": number})


# --- their messages --------------------------------------------------------------------------------------


def _write(writer: asyncio.StreamWriter, message: State) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


async def _read(reader: asyncio.StreamReader) -> State:
    """One message. :raises ValueError: it makes no sense, or there is none."""
    message = json.loads(await reader.readline())
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message


def _notice_dead_host(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
