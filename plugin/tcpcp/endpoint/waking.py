"""Lets a connection run so that its peer hears of it at once: the wake-up of the paper, in every state.

In ESTABLISHED the kernel sends a window probe when repair mode is switched off, in the other states it does not
(net/ipv4/tcp.c tcp_repair_off_probe -> tcp_send_window_probe()). And the probe makes the peer answer, but tells it
nothing: it lies before the peer's window, so its acknowledgement does not count. A peer whose last octets have not
been acknowledged, since a delayed acknowledgement was due in the gap, would wait for its own timer, and with
Nagle's algorithm keep back what its program has written since. So a segment that is not acceptable is fed to the
socket, which answers such a one with an acknowledgement that counts (RFC 9293 section 3.10.7.4,
net/ipv4/tcp_input.c tcp_validate_incoming(), tcp_send_dupack()).

It is one octet beyond every window. One without data would do for the answer, but of those a socket answers one in
half a second, and after that it does not ask either whether a reset was meant that has another number than the
expected one (tcp_oow_rate_limited(), tcp_send_challenge_ack(); RFC 5961 section 3.2). That is what a peer sends
whose last octets were lost in the gap, should it reset the connection: nobody would hear of it. A segment with data
does not count for that. And an octet from before the window the kernel would take for a sign that its own
acknowledgements get lost: it would tell the peer so, by a D-SACK, and delay the next ones no more.

Connection tracking calls such a segment invalid. It does not see it, for the rule of our filters or that of
`untracked`. Where there can be none the segment is an empty one from before the window, which is valid, and of a
reset in the half-second after it nobody may hear.

What the peer itself had sent in the gap it sends again by its own timer, which has backed off: it took each of
its attempts for under way, and no acknowledgement of ours but that of the data makes it think otherwise. So what
it sent is late by as much as the gap was long, at most, and never by more than two minutes (TCP_RTO_MAX). Or by 3 s
if that is more, where the peer has measured no round trip yet, as without timestamps one whose SYN had to be sent
again or asked for a cookie of Fast Open (RFC 6298 section 5.7, net/ipv4/tcp_metrics.c tcp_init_metrics()). An ICMP
error would end the waiting (RFC 6069), but programs may be told of it, and nothing was unreachable.

A peer whose window is shut is asked whether it has been opened meanwhile: `asking`, where the kernel does not.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from typing import NamedTuple

from tcpcp.endpoint import asking, inspection, raw_segment, repair_mode, socket_ends
from tcpcp.errors import KernelError, TcpcpError
from tcpcp.kernel import tcp_repair
from tcpcp.record import seq
from tcpcp.record.ici import Endpoint, Ici, State

#: From here on a timer may have backed off so far that one would notice.
LATE_S = 1.0
#: So far beyond what was acknowledged is what no window holds, for that is 2**30 octets at most (RFC 7323 section
#: 2.3); from 2**31 on it would be before it.
_BEYOND = 3 << 29
#: States with a peer that may be waiting for something.
_WAITED_FOR = inspection.READABLE - {State.CLOSE}


class Known(NamedTuple):
    """What a connection was when it was isolated, so that its socket need not be asked when it is to run.

    :ivar namespace: the cookie of its network namespace.
    :ivar told: ``rcv_wup`` then: up to where we had acknowledged. :ivar acknowledged: ``snd_una`` then.
    :ivar recent: the peer's last timestamp, 0 where it is not known.
    :ivar device: that it is bound to, or ""; None: it is asked, for the program may have bound it to another.
    :ivar hung_up: nothing more was to come: the peer had closed, or reading was shut.
    """

    namespace: int
    local: Endpoint
    peer: Endpoint
    told: int
    acknowledged: int
    recent: int = 0
    device: str | None = None
    hung_up: bool = False

    @classmethod
    def of(
        cls, ici: Ici, namespace: int, local: Endpoint, peer: Endpoint, device: str | None = None
    ) -> Known:
        """What *ici* says of a connection between *local* and *peer*, in the network namespace *namespace*."""
        recent = ici.timestamp.echo if ici.timestamp else 0
        hung_up = ici.receive_queue.fin or ici.receive_queue.shut
        return cls(
            namespace, local, peer, ici.window.rcv_wup, ici.snd_una, recent, device, hung_up
        )  # fmt: skip

    def question(self, sock: socket.socket, state: int) -> asking.Question | None:
        """As :func:`tcpcp.endpoint.asking.question`, of *sock*, which is this connection's."""
        return asking.question(sock, state, self.recent, self.acknowledged)


def prepare(known: Iterable[Known | None]) -> None:
    """Open what :func:`wake` needs for *known*, which are isolated still; within :func:`raw_segment.keeping`.

    :raises KernelError: there is no descriptor left; nothing has changed. It names one of those that need it.
    """
    for local, one in {one.local: one for one in known if one}.items():
        try:
            if not local.is_link_local:
                raw_segment.stays_here(local)
            raw_segment.namespace(raw_segment.family(local))
        except KernelError as exc:
            raise KernelError(exc.call, exc.errno, f"{local} - {one.peer}") from exc


def unacceptable(sock: socket.socket, state: int, known: Known | None = None, *, unseen: bool) -> bytes:
    """What :func:`wake` feeds to *sock*, which is in repair mode; b"" where nothing would arrive.

    That nothing seems to be unacknowledged does not count: the timer of a delayed acknowledgement may have run out
    while the connection was isolated.

    :param state: in which *sock* is. :param known: of it; None: it is asked.
    :param unseen: connection tracking will not see it.
    """
    if state not in _WAITED_FOR:
        return b""
    known = known or _known(sock)
    if not hears(sock, known.local, known.namespace, known.device):
        return b""
    # It is answered before its acknowledgement and its window are looked at.
    return raw_segment.build(
        known.peer,
        known.local,
        seq=seq.add(known.told, _BEYOND if unseen else -1),
        ack=known.acknowledged,
        flags=raw_segment.ACK,
        window=0,
        data=b"\0" if unseen else b"",
    )


def _known(sock: socket.socket) -> Known:
    local, peer, _ = socket_ends.ends(sock)
    told = tcp_repair.get_window(sock).rcv_wup
    return Known(tcp_repair.get_namespace(sock), local, peer, told, repair_mode.acknowledged(sock))


class Overdue(NamedTuple):
    """What has to be done so that what waits is sent at once.

    :ivar mode: the value of TCP_REPAIR to leave repair mode by.
    :ivar fed: for :func:`wake` after that, or b"". :ivar asked: for :func:`tcpcp.endpoint.asking.ask`.
    """

    mode: int = tcp_repair.OFF_NO_PROBE
    fed: bytes = b""
    asked: asking.Question | None = None


def overdue(sock: socket.socket, state: int, held_s: float, known: Known | None = None) -> Overdue:
    """How *sock*, which was isolated for *held_s* seconds, sends at once what is not acknowledged, and what waits.

    Its attempts to send that again met our filter. The kernel counts them all the same, and waits twice as long
    after each (net/ipv4/tcp_timer.c tcp_retransmit_timer()). But it takes what it has not sent for lost, and
    whatever acknowledgement arrives then lets it go out (tcp_process_loss()). In ESTABLISHED the peer's answer to
    a window probe is one. Else the socket is fed the peer's last one again.

    Where nothing is under way and the peer's window is shut, it may have been opened in the gap, however short
    that was, and the kernel's probe may have backed off to two minutes: then the peer is asked.

    :param state: in which *sock* is. :param known: of it; None: it is asked.
    """
    with contextlib.suppress(TcpcpError):
        if state == State.ESTABLISHED:
            asked = asking.waits(sock) or _is_under_way(sock, held_s)
            return Overdue(tcp_repair.OFF) if asked else Overdue()
        if question := (known.question(sock, state) if known else asking.question(sock, state)):
            return Overdue(asked=question)
        if _is_under_way(sock, held_s):
            return Overdue(fed=_last_again(sock, known))
    return Overdue()  # where it could not be found out, it waits, but runs


def _is_under_way(sock: socket.socket, held_s: float) -> bool:
    """Whether something that was sent is not acknowledged, after so long that one would notice."""
    return held_s >= LATE_S and tcp_repair.get_outq(sock) != tcp_repair.get_outq_nsd(sock)


def _last_again(sock: socket.socket, known: Known | None) -> bytes:
    """What the peer has acknowledged last; says nothing new."""
    local, peer, _ = socket_ends.ends(sock)
    heard = hears(sock, local, tcp_repair.get_namespace(sock))
    if tcp_repair.get_state(sock) not in _WAITED_FOR or not heard:
        return b""
    number = repair_mode.received(sock)
    window = tcp_repair.get_window(sock).told(tcp_repair.get_info(sock).snd_wscale)
    acknowledged = known.acknowledged if known else repair_mode.acknowledged(sock)
    return raw_segment.build(
        peer, local, seq=number, ack=acknowledged, flags=raw_segment.ACK, window=window
    )  # fmt: skip


def begin(sock: socket.socket, *, unseen: bool) -> asking.Question | None:
    """Wake the peer of *sock*, isolated no more, which leaves repair mode next, by TCP_REPAIR 0.

    :param unseen: as for :func:`unacceptable`.
    :return: for :func:`tcpcp.endpoint.asking.ask` after that.
    """
    state = tcp_repair.get_state(sock)
    wake(sock, unacceptable(sock, state, unseen=unseen))
    return asking.question(sock, state)


def hears(sock: socket.socket, local: Endpoint, namespace: int, device: str | None = None) -> bool:
    """Whether what this thread feeds arrives at *sock*, which is of *namespace*.

    A socket bound to an interface hears nothing of it: that comes by the loopback interface, and what is not
    heard would draw a reset.

    :param device: the interface that it is bound to, or ""; None: it is asked.
    """
    try:
        ours = raw_segment.namespace(raw_segment.family(local))
        return ours == namespace and _is_reached(
            local, socket_ends.device(sock) if device is None else device
        )
    except KernelError:  # no descriptor left
        return False


def _is_reached(local: Endpoint, device: str) -> bool:
    if local.is_link_local:
        return raw_segment.stays_here(local, device)
    return not device and raw_segment.stays_here(local)


def wake(sock: socket.socket, segment: bytes, local: Endpoint | None = None) -> None:
    """Have *sock* acknowledge or send; best effort: where that fails the peer finds out later.

    :param segment: from :func:`unacceptable`, also in repair mode, or from :func:`overdue`, after that.
    :param local: where it is bound, if that is known.
    """
    if not segment:
        return
    try:
        local = local or socket_ends.local_end(sock)
        raw_segment.feed(segment, local, socket_ends.device(sock) if local.is_link_local else "")
    except TcpcpError:
        pass
