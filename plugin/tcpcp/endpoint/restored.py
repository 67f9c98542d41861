"""Completes an endpoint that CRIU rebuilt: what CRIU does not save, and what the kernel computed too early."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from tcpcp.endpoint import congestion, connecting, feeding, filling, receive_window, socket_options
from tcpcp.endpoint import same_path as same_path_
from tcpcp.kernel import tcp_repair
from tcpcp.kernel.tcp_repair import NO_QUEUE
from tcpcp.record.ici import Ici, State


def teachable(ici: Ici) -> bool:
    """Whether CRIU's image of *ici* may have the one byte more that :func:`finish_restored` makes use of."""
    return ici.state is State.ESTABLISHED and same_path_.can_teach_rtt(ici)


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
    :param may_feed: give it the round-trip time it had, where its image had one byte more at the head of the
        sent part of the send queue, and the peer's last timestamp where it is known.
    :raises KernelError: of the first call that failed; the connection stays usable, if slower or with another
        option.
    """
    tcp_repair.resize_segments(sock, ici.local.ip.version == 6)
    if may_feed and ici.state is State.ESTABLISHED:
        deaf = feeding.is_deaf(ici)
        if deaf:
            connecting.bind_to_device(sock, "")
        try:
            _feed_restored(sock, ici)
        finally:  # what does not arrive is no reason to stay unbound: the caller goes on without it
            if deaf:
                connecting.bind_to_device(sock, ici.device)
    if ici.state is not State.ESTABLISHED:
        # The segment that libsoccr feeds to the socket announces a window of its own, and the peer, which gets
        # no probe in these states, has no reason to say again what its window is: 3 s until more is sent.
        tcp_repair.set_window(sock, ici.window)
    connecting.choose_congestion(sock, ici)
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


def _feed_restored(sock: socket.socket, ici: Ici) -> None:
    """One segment for two purposes; then the window is what it was.

    :raises KernelError: it did not arrive.
    """
    queue = ici.send_queue
    if tcp_repair.get_outq(sock) > len(queue.sent) + len(queue.unsent):
        same_path_.teach_rtt(sock, ici, ici.rcv_nxt, ici.snd_una, feeding.window_field(ici))
    elif feeding.is_to_be_fed(ici):
        tcp_repair.select_queue(sock, NO_QUEUE)
        feeding.open_window(sock, ici, ici.rcv_nxt)
        before = 0 if feeding.window_field(ici) else tcp_repair.get_segments_in(sock)
        feeding.feed_last(sock, ici, ici.local, ici.rcv_nxt, ici.snd_una, before)
    else:
        return
    tcp_repair.set_window(sock, ici.window)
