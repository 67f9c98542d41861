"""What a rebuilt connection may start with when its path is the old one (paper section 5).

A connection that is rebuilt knows nothing of its path: it starts with 10 segments, and takes 1 to 3 s until
it sends again what was lost, because no round-trip time is known (net/ipv4/tcp_metrics.c
tcp_init_metrics()). Where the path is the same, as within one subnet:

- `congestion_state` gives a connection its congestion window and threshold. Where the kernel does not let it:
- :class:`InitialWindows` has connect() start with the congestion window the connections had, by routes to
  their peers with ``initcwnd`` that exist only meanwhile. Around :func:`tcpcp.create`, or CRIU's restore.

Where it is another, too:

- :func:`teach_rtt` gives a connection its round-trip time. :func:`tcpcp.create` does so by itself. No TCP
  forgets it when the route changes under it either: nobody tells it. Where it is longer now by more than 0.2 s,
  something is sent twice, once. Where it is not known, whatever was lost in the gap, the peer's acknowledgement
  too, is a standstill of a second and more; for the peer does not answer more than two probes a second, and so
  not every wake-up.

Source: rtnetlink(7); net/ipv4/tcp_input.c tcp_init_transfer(), tcp_ack_update_rtt(), tcp_rtt_tsopt_us().
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

from tcpcp.endpoint import raw_segment, socket_ends
from tcpcp.errors import KernelError, Unfed
from tcpcp.kernel import routing, tcp_repair
from tcpcp.record import seq
from tcpcp.record.ici import Ici, Window

#: A window beyond this is not restored: it was measured, but a burst of it is a burst.
MOST_SEGMENTS = 1000
#: The kernel's own initial window: nothing to gain below.
_INITIAL_SEGMENTS = 10
#: How long a segment fed for the sake of speed may take to arrive.
FEED_DEADLINE_S = 0.1

#: From here on the timer would be longer than that of a connection that knows nothing, 3 s (TCP_TIMEOUT_FALLBACK).
_LONG_US, _ANY_US = 1_000_000, 2**32

#: The shortest time that is taught is the smoothed one, divided by this. The shorter it is the sooner SACKs count;
#: but a segment that another overtakes by more than a quarter of it is sent twice (net/ipv4/tcp_recovery.c
#: tcp_rack_reo_wnd()), as long as the kernel remembers it, and the larger are the bursts (tcp_tso_autosize()).
_SHORTER = 8
#: But no shorter than this: less than a tick of most clocks, for which the kernel takes 1 ms.
_SHORTEST_US = 999
_TICK_US = 1000
#: A sample after the first counts an eighth (tcp_rtt_estimator()).
_WEIGHT = 8
#: Algorithms that send by ``min_rtt``: with one that is too short they hardly send at all, for 10 s.
_BY_SHORTEST = "bbr"
#: An algorithm that remembers nothing of the samples; the kernel always has it.
_FORGETFUL = "reno"

_RTAX_INITCWND = 11
#: Of the numbers the kernel leaves to programs (rtnetlink(7)); it marks our routes as ours.
_RT_TABLE_MAIN, _RTPROT_OURS = 254, 207
_UNIVERSE, _LINK = 0, 253


def initial_windows(icis: Iterable[Ici]) -> dict[bytes, int]:
    """Segments to start with, by the peer's address as bytes: the smallest of its connections'."""
    windows: dict[bytes, int] = {}
    for ici in icis:
        cwnd = min(ici.congestion.cwnd, MOST_SEGMENTS)
        peer = ici.peer.ip.packed
        windows[peer] = min(cwnd, windows.get(peer, cwnd))
    return {peer: cwnd for peer, cwnd in windows.items() if cwnd > _INITIAL_SEGMENTS}


class InitialWindows:
    """While entered, connections to the peers of *icis* start with the congestion window they had.

    Makes routes to single hosts in the main table, copies of the routes in use; a peer that has such a route
    already, or none at all, is left out. Leaving removes them, whatever happened meanwhile; connections keep
    working, by the routes that were copied. Best effort: no route is worth a failed restore.

    :ivar routes: what will be made, for :func:`remove` by whoever finds out that the one who entered has died.
    """

    def __init__(self, icis: Iterable[Ici]) -> None:
        self.routes: list[bytes] = []
        self._open: socket.socket | None = None
        windows = initial_windows(icis)
        with contextlib.suppress(OSError):
            if windows:
                with routing.netlink() as netlink:
                    found = (_copied_route(netlink, peer, segments) for peer, segments in windows.items())
                    self.routes = [route for route in found if route]

    def __enter__(self) -> InitialWindows:
        with contextlib.suppress(OSError):
            if self.routes:
                self._open = routing.netlink()  # until the end, which must not lack a descriptor
                for route in self.routes:
                    routing.ask(
                        self._open, routing.RTM_NEWROUTE, routing.ACK | routing.CREATE | routing.EXCL, route
                    )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is None:
            return
        with self._open as netlink, contextlib.suppress(OSError):
            for route in self.routes:
                routing.ask(netlink, routing.RTM_DELROUTE, routing.ACK, route)


def remove(routes: Iterable[bytes]) -> None:
    """Remove those of *routes* that are there; nobody else's have our protocol number."""
    routes = list(routes)
    if routes:
        with routing.netlink() as netlink:
            for route in routes:
                routing.ask(netlink, routing.RTM_DELROUTE, routing.ACK, route)


def _copied_route(netlink: socket.socket, peer: bytes, segments: int) -> bytes:
    """A route to *peer* alone, by the way that is in use now; none if there is no way."""
    found = routing.ask(netlink, routing.RTM_GETROUTE, 0, routing.route(peer, 0, 0, 0, b""))
    return b"" if isinstance(found, int) else _copy(found, peer, segments)


def _copy(found: bytes, peer: bytes, segments: int) -> bytes:
    hops = {
        kind: value
        for kind, value in routing.attributes(found)
        if kind in (routing.RTA_OIF, routing.RTA_GATEWAY)
    }
    if routing.kind_of(found) != routing.UNICAST or routing.RTA_OIF not in hops:
        return b""
    scope = _UNIVERSE if routing.RTA_GATEWAY in hops or len(peer) == 16 else _LINK
    hop = b"".join(routing.attribute(kind, value) for kind, value in hops.items())
    metrics = routing.attribute(
        routing.RTA_METRICS, routing.attribute(_RTAX_INITCWND, routing.U32.pack(segments))
    )
    return routing.route(peer, _RT_TABLE_MAIN, _RTPROT_OURS, scope, hop + metrics)


def can_teach_rtt(ici: Ici, *, same_path: bool = True) -> bool:
    """Whether *ici* has what :func:`teach_rtt` needs, and on another path that would be better than nothing."""
    most_us = _ANY_US if same_path else _LONG_US
    return ici.timestamp is not None and 0 < ici.congestion.srtt_us < most_us


def bytes_to_teach(ici: Ici) -> int:
    """How many samples a socket is to be given of the round-trip time, of a byte each.

    What is put in as sent counts as sent again (TCPCB_REPAIRED), from now on. A selective acknowledgement of it
    that comes sooner than in ``min_rtt`` is taken for one of the first sending, and what is missing before it is
    not found to be lost (net/ipv4/tcp_recovery.c tcp_rack_advance()): it would wait for a timer. ``min_rtt`` is
    the shortest sample, so there is a short one, and another before it.
    """
    needed = ici.send_queue.sent and ici.negotiated.sack and ici.congestion.srtt_us > _SHORTEST_US
    return 2 if needed else 1


@contextlib.contextmanager
def samples(sock: socket.socket, ici: Ici) -> Iterator[Sequence[int | None]]:
    """The times for :func:`teach_rtt`, as many as :func:`bytes_to_teach`, which make the smoothed time.

    Where one is short it is not seen by the congestion control of *sock*, which begins anew afterwards: CUBIC would
    take it for the delay of an empty path, and end its slow start at once (HyStart). BBR sends by ``min_rtt``, and
    would hardly send at all for 10 s, so it gets none, nor does one that the route locks.
    """
    same = [None] * bytes_to_teach(ici)
    algorithm = tcp_repair.get_congestion(sock) if len(same) > 1 else _BY_SHORTEST
    if algorithm.startswith(_BY_SHORTEST) or not _chosen(sock, _FORGETFUL):
        yield same
        return
    try:
        shortest_us = max(ici.congestion.srtt_us // _SHORTER, _SHORTEST_US)
        first_us = (_WEIGHT * ici.congestion.srtt_us - shortest_us) // (_WEIGHT - 1)
        yield [first_us + _TICK_US, shortest_us]
    finally:
        tcp_repair.set_congestion(sock, algorithm)


def _chosen(sock: socket.socket, algorithm: str) -> bool:
    """Whether *sock* has *algorithm* now; False: it has one that the route to its peer locks."""
    try:
        tcp_repair.set_congestion(sock, algorithm)
    except KernelError as exc:
        if exc.errno != errno.EPERM:
            raise
        return False
    return True


def teach_rtt(
    sock: socket.socket, ici: Ici, number: int, ack: int, window: int, rtt_us: int | None = None
) -> None:
    """Let *sock* take *rtt_us* as a sample of its round-trip time; None: the ICI's smoothed one.

    :param sock: in repair mode, with one byte more in its send queue, put there as sent, before ``snd_una``.
        An acknowledgement of it is fed whose echoed timestamp is as old as the round-trip time: the kernel
        does not time repaired segments itself and takes the sample from the timestamp.
    :param number: ``rcv_nxt`` now; :param ack: ``snd_una``.
    :param window: that the acknowledgement tells, as on the wire.
    :raises Unfed: the acknowledgement did not arrive.

    Its precision is a tick, 1 ms in most cases, rounded up: right for a timer whose minimum is 200 ms. The
    peer's timestamp is set along with it where it is known, else left unset.
    """
    assert ici.timestamp is not None
    tick_us = 1 if ici.timestamp.microseconds else 1000
    # Rounded up: with a time that is too short the timer would send again what is under way.
    ticks = -(-ici.congestion.srtt_us // tick_us) if rtt_us is None else rtt_us // tick_us
    echo = seq.add(tcp_repair.get_timestamp(sock), -ticks) or 1
    known = ici.timestamp.ts_recent is not None
    # A segment behind rcv_wup leaves the kernel's ts_recent alone (tcp_replace_ts_recent()).
    wup = number if known else seq.add(number, -1)
    tcp_repair.set_window(sock, Window(seq.add(number, -1), 0, 0, max(ici.window.rcv_wnd, 1), wup))
    local = socket_ends.local_end(sock)
    stamps = (ici.timestamp.echo, echo)
    flags = raw_segment.ACK
    packet = raw_segment.build(
        ici.peer, local, seq=number, ack=ack, flags=flags, window=window, timestamp=stamps
    )  # fmt: skip
    before = tcp_repair.get_outq(sock)
    raw_segment.feed(packet, local, ici.device)
    deadline = time.monotonic() + FEED_DEADLINE_S
    while tcp_repair.get_outq(sock) == before:
        if time.monotonic() > deadline:
            raise Unfed(f"{ici}: a segment fed to this host did not arrive; {raw_segment.why_lost()}")
        time.sleep(0.0001)
