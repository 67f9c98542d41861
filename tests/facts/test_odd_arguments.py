"""Every public call, given what is no argument for it: an error of the library's own, and nothing has changed."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from netns import Hosts
from traces import changed, everything, rules

import tcpcp
from tcpcp import aio
from tcpcp.helper import client


class Stands:
    """Has a fileno() that returns, or raises, *what*."""

    def __init__(self, what: object) -> None:
        self.what = what

    def fileno(self) -> object:
        if isinstance(self.what, Exception):
            raise self.what
        return self.what


class Unspeakable:
    """Cannot be shown, or gone through."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    def __iter__(self) -> Iterator[object]:
        raise TypeError("not to be gone through")


_PLAIN = (
    None,
    0,
    -1,
    10**30,
    1.5,
    float("nan"),
    "x",
    b"x",
    True,
    object(),
    int,
    (),
    (1,),
    (1, 2, 3),
    {"a": 1},
)
_FILENOS = (None, "3", b"3", 1.5, -1, 2**31, 2**63, 10**30, [], RuntimeError("x"), KeyError("x"))


def odd() -> list[object]:
    one = [*_PLAIN, Unspeakable(), *map(Stands, _FILENOS), Stands, Path("/"), socket]
    return [*one, *([each] for each in one), *([(1, each)] for each in one), [("x", None)], [[]]]


def calls_of(module: object, names: list[str]) -> Iterator[tuple[str, Callable[..., object]]]:
    for name in names:
        call = getattr(module, name)
        if inspect.isfunction(call) or inspect.ismethod(call):
            yield name, call


def attempts(call: Callable[..., object]) -> Iterator[tuple[tuple[object, ...], dict[str, object]]]:
    """All that is odd in each place, the others being odd too."""
    wanted = inspect.signature(call).parameters.values()
    places = [one for one in wanted if one.kind is not one.KEYWORD_ONLY and one.default is one.empty]
    if places:
        for value in odd():
            yield (value,) * len(places), {}


def _done(call: Callable[..., object], *arguments: object) -> None:
    result = call(*arguments)
    if inspect.iscoroutine(result):
        result = asyncio.run(_of(result))
    if isinstance(result, tcpcp.endpoint.block.Passing):
        with result:
            pass


async def _of(result: object) -> object:
    return await result  # type: ignore[misc]


def found_in(name: str, call: Callable[..., object]) -> Iterator[str]:
    """What is raised that is not the library's."""
    for arguments, named in attempts(call):
        try:
            _done(call, *arguments, **named)
        except tcpcp.TcpcpError:
            pass
        except Exception as exc:
            with contextlib.suppress(RuntimeError):
                yield f"{name}{arguments!r}: {exc!r} {traceback.extract_tb(exc.__traceback__)[-1]}"


def test_of_the_library(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    before = everything(sock)
    with hosts.here.entered():
        public = [*calls_of(tcpcp, tcpcp.__all__), *calls_of(aio, ["attach", "detach", "detach_many"])]
        assert len(public) > 20
        bare = [one for name, call in public for one in found_in(name, call)]
        assert not bare, "\n".join(bare)
        assert rules(hosts.here).holding == 0
    assert changed(sock, before) == {}
    peer.sendall(b"x")
    assert sock.recv(1) == b"x"


def test_of_the_helpers_client(hosts: Hosts) -> None:
    """What is odd is found out before anything is sent."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(1)
    with ours, theirs, hosts.here.entered():
        made = client.Client(ours)
        names = [name for name in vars(client.Client) if name[0] != "_" and name not in ("close", "greet")]
        bare = [one for name, call in calls_of(made, names) for one in found_in(name, call)]
        bare += found_in("connect", client.connect)
        assert not bare, "\n".join(bare)


def test_values_by_name(hosts: Hosts) -> None:
    sock, _ = hosts.connect()
    with hosts.here.entered(), socket.socket() as listener:
        listener.bind(("10.9.0.1", 0))
        listener.listen()
        ici = tcpcp.get(sock)
        for value in (None, "x", float("nan"), [], object()):
            refused(tcpcp.drain, listener, deadline_s=value)
        for value in (5, "x", [1], [None, None], [object()], [Stands("3")]):
            refused(tcpcp.create_many, [ici], socks=value)
            refused(tcpcp.create, ici, sock=value)
        for key in (None, "x" * 20, 5, b"short", [0] * 20):
            refused(tcpcp.dumps_sealed, ici, key)
            refused(tcpcp.loads_sealed, tcpcp.dumps_sealed(ici, bytes(16)), key)
        for timeout in ("x", [], -1):
            refused(client.connect, "/nowhere", timeout_s=timeout)
        tcpcp.resume(sock)


def refused(call: Callable[..., object], *arguments: object, **named: object) -> None:
    try:
        call(*arguments, **named)
    except tcpcp.TcpcpError:
        return
    raise AssertionError(f"{call.__name__}{named or arguments[1:]} is taken")


def test_a_block_that_is_entered_twice(hosts: Hosts) -> None:
    sock, peer = hosts.connect()
    with hosts.here.entered():
        block = tcpcp.passing([sock])
        with contextlib.suppress(KeyError), block:
            refused(block.__enter__)
            raise KeyError
        refused(block.__enter__)
        sock.sendall(b"on")
    assert peer.recv(2) == b"on"


def test_what_is_no_listener(hosts: Hosts) -> None:
    with hosts.here.entered():
        for family, kind in ((socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)):
            with socket.socket(family, kind) as sock:
                for call in (tcpcp.drain, tcpcp.hold_new):
                    with pytest.raises(tcpcp.Unsupported, match="not a TCP socket"):
                        call(sock)
