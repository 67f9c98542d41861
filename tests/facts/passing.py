"""Brings a connection into a given state and passes it on, for the tests of `tcpcp.endpoint`."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import subprocess
from collections.abc import Iterator

from netns import Hosts, Namespace, eventually

from tcpcp.endpoint import calls, reader
from tcpcp.kernel import tcp_repair
from tcpcp.record import seq
from tcpcp.record.ici import Congestion, Ici, State


@contextlib.contextmanager
def deaf(namespace: Namespace, hook: str = "input") -> Iterator[None]:
    """No TCP packet gets into (or, with hook output, out of) *namespace*."""
    chain = f"chain c {{ type filter hook {hook} priority -400; meta l4proto tcp drop; }}"
    script = f"table inet deaf {{ {chain}; }}"
    with namespace.entered():
        subprocess.run(["nft", script], check=True)
    yield
    with namespace.entered():
        subprocess.run(["nft", "delete table inet deaf"], check=True)


def state_of(sock: socket.socket) -> State:
    return State(tcp_repair.get_info(sock).state)


def wait_state(sock: socket.socket, state: State) -> None:
    eventually(lambda: state_of(sock) == state, f"{state.name}, is {state_of(sock).name}")


def comparable(ici: Ici) -> Ici:
    """Without what is new in a rebuilt endpoint on purpose.

    Of the receive window the right edge counts, :func:`window_edge`: a delayed acknowledgement, though the filter
    drops it, has told the window anew (net/ipv4/tcp_output.c tcp_select_window()). And what is fed to one behind a
    shut window has told that one anew (`tcpcp.endpoint.patience`), which changes ``snd_wl1`` alone.
    """
    told_last = ici.rcv_nxt if ici.window.snd_wl1 == seq.add(ici.rcv_nxt, -1) else ici.window.snd_wl1
    return dataclasses.replace(
        ici,
        window=dataclasses.replace(ici.window, rcv_wup=0, rcv_wnd=0, snd_wl1=told_last),
        timestamp=None,
        congestion=Congestion(ici.congestion.algorithm, 0, 0, 0, 0),
        negotiated=dataclasses.replace(ici.negotiated, advmss=0),
    )


def window_edge(ici: Ici) -> int:
    """The first sequence number that the peer may not send."""
    return seq.add(ici.window.rcv_wup, ici.window.rcv_wnd)


def pass_on(hosts: Hosts, sock: socket.socket, *, same_path: bool = False) -> tuple[Ici, socket.socket]:
    """get, release, create, activate; and the rebuilt endpoint, read again, is the one that was read."""
    with hosts.here.entered():
        ici = calls.get(sock)
        calls.release(sock)
        made = calls.create(ici, same_path=same_path)
        again = reader.read_again(made, ici)
        assert comparable(again) == comparable(ici), (
            f"{again}: {comparable(again)!r}\nwas {comparable(ici)!r}"
        )
        calls.activate(made)
    return ici, made


def assert_no_reset(hosts: Hosts) -> None:
    here, there = hosts.counters(hosts.here), hosts.counters(hosts.there)
    assert here["TcpOutRsts"] == there["TcpOutRsts"] == 0
    assert there["TcpEstabResets"] == 0
