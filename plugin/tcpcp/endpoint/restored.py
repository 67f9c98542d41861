"""Completes an endpoint that CRIU rebuilt: what CRIU does not save, and what the kernel computed too early."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Mapping

from tcpcp.endpoint import (
    builder,
    congestion,
    connecting,
    feeding,
    filling,
    host,
    receive_window,
    socket_options,
)
from tcpcp.endpoint import same_path as same_path_
from tcpcp.kernel import tcp_repair
from tcpcp.kernel.tcp_repair import NO_QUEUE
from tcpcp.record.ici import Ici, State

#: Larger than the segments into which CRIU's bytes are cut: it puts them in with the size that connect() has
#: computed, the least that a host has to take (net/ipv4/tcp_ipv4.c, net/ipv6/tcp_ipv6.c: TCP_MSS_DEFAULT).
_SEGMENT = {4: 536, 6: 1220}


def bytes_to_teach(ici: Ici) -> int:
    """How many bytes more CRIU's image of *ici* may have in front, for :func:`finish_restored` to make use of.

    CRIU puts in what was sent by one call, so that one byte more would be in one buffer with what follows. Where
    that is so, and no segment of the buffer is acknowledged as a whole, no time is measured (net/ipv4/tcp_input.c
    tcp_clean_rtx_queue(), tcp_tso_acked()). So it is a segment for each sample, where something was sent.
    """
    if ici.state is not State.ESTABLISHED or not same_path_.can_teach_rtt(ici):
        return 0
    size = _SEGMENT[ici.local.ip.version] if ici.send_queue.sent else 1
    return size * same_path_.bytes_to_teach(ici)


def finish_restored(
    sock: socket.socket,
    ici: Ici,
    *,
    present: Mapping[str, int] | None = None,
    same_path: bool = False,
    may_feed: bool = True,
) -> None:
    """Complete a socket that CRIU restored: what CRIU does not save and what the kernel computed too early.

    :param sock: the restored socket, still in repair mode; CRIU turns that off itself.
    :param ici: what it was restored from.
    :param present: options that a fresh socket is known to have; CRIU has changed only those it saves.
    :param same_path: give the connection the congestion window and threshold it had, where
        :func:`tcpcp.endpoint.congestion.prepare` was called and succeeded.
    :param may_feed: give it the round-trip time it had, where its image had :func:`bytes_to_teach` more at the
        head of the sent part of the send queue, and the peer's last timestamp where it is known. False: what is
        more there is taken out, or the peer would see it.
    :raises Unfed: what was fed did not arrive; to be called again, with *may_feed* False, before it may run.
    :raises KernelError: of the first call that failed. Where something was being taken out there is no
        connection; else it stays usable, if slower or with another option.
    """
    tcp_repair.resize_segments(sock, ici.local.ip.version == 6)
    connecting.choose_congestion(sock, ici)  # first: what may be taught depends on it
    if ici.state is State.ESTABLISHED:
        if may_feed:
            _hear(sock, ici)
        elif _in_front(sock, ici) > 0:
            _build_anew(sock, ici, same_path)
    else:
        # The segment that libsoccr feeds to the socket announces a window of its own, and the peer, which gets
        # no probe in these states, has no reason to say again what its window is: 3 s until more is sent.
        tcp_repair.set_window(sock, ici.window)
    congestion.restore(sock, ici, same_path=same_path)
    _set_options(sock, ici, present)
    tcp_repair.set_each(sock, receive_window.again(ici))
    if ici.receive_queue.shut:
        filling.shut_down(sock, socket.SHUT_RD)


def _set_options(sock: socket.socket, ici: Ici, present: Mapping[str, int] | None) -> None:
    socket_options.apply_all(sock, ici.options, but_criu_saved=True, present=present)
    if "SO_REUSEPORT" not in ici.options:
        # CRIU sets it to be able to bind, and takes it back of sockets without a connection only.
        tcp_repair.set_int(sock, socket.SOL_SOCKET, socket.SO_REUSEPORT, 0, "SO_REUSEPORT")


def _hear(sock: socket.socket, ici: Ici) -> None:
    """:func:`_feed_restored`, also where *sock* is bound to an interface."""
    deaf = feeding.is_deaf(ici)
    if deaf:
        connecting.bind_to_device(sock, "")
    try:
        _feed_restored(sock, ici)
    finally:  # what does not arrive is no reason to stay unbound: the caller goes on without it
        if deaf:
            connecting.bind_to_device(sock, ici.device)


def _feed_restored(sock: socket.socket, ici: Ici) -> None:
    """Segments for two purposes; then the window is what it was.

    :raises KernelError: it did not arrive.
    """
    more = _in_front(sock, ici)
    if more > 0:
        feeding.teach_rtt_by(sock, ici, more, ici.rcv_nxt)
    elif feeding.is_to_be_fed(ici):
        tcp_repair.select_queue(sock, NO_QUEUE)
        feeding.open_window(sock, ici, ici.rcv_nxt)
        before = 0 if feeding.window_field(ici) else tcp_repair.get_segments_in(sock)
        feeding.feed_last(sock, ici, ici.local, ici.rcv_nxt, ici.snd_una, before)
    else:
        return
    tcp_repair.set_window(sock, ici.window)


def _in_front(sock: socket.socket, ici: Ici) -> int:
    """How many bytes of the send queue of *sock*, established, are not the connection's but to teach it."""
    return tcp_repair.get_outq(sock) - len(ici.send_queue.sent) - len(ici.send_queue.unsent)


def _build_anew(sock: socket.socket, ici: Ici, same_path: bool) -> None:
    """Without what is in front of its send queue: nothing but an acknowledgement takes bytes out of one."""
    connecting.take_apart(sock)
    of_criu = dataclasses.replace(ici, socket_filter=b"")  # which has attached it, and may have locked it
    builder.complete(sock, of_criu, limits=host.limits_for_criu(), same_path=same_path, may_feed=False)
