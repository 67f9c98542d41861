"""Brings a pair into the state of its case, and afterwards uses it up to its end, in both directions."""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import time
from collections.abc import Callable
from random import Random

from netns import eventually
from space_case import FIN_UNACKED, Case
from space_pairs import TCP, Pair, jump, stamp_near_wrap

SIOCINQ, SIOCOUTQ, SIOCOUTQNSD = 0x541B, 0x5411, 0x894B
SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_MEMINFO = 26, 27, 55
STATES = {
    "ESTABLISHED": 1,
    "FIN_WAIT1": 4,
    "FIN_WAIT2": 5,
    "CLOSE": 7,
    "CLOSE_WAIT": 8,
    "LAST_ACK": 9,
    "CLOSING": 11,
}
_DROP_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0)
#: tcpi_snd_mss, tcpi_snd_cwnd and tcpi_snd_wnd in struct tcp_info.
_SND_MSS, _CWND, SND_WND = 16, 80, 228


def queued(sock: socket.socket, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(sock.fileno(), request, b"\0" * 4), "little", signed=True)


def info(sock: socket.socket, offset: int = 0, size: int = 4) -> int:
    raw = sock.getsockopt(TCP, socket.TCP_INFO, 256)
    return int.from_bytes(raw[offset : offset + size], "little")


def state(sock: socket.socket) -> int:
    return info(sock, 0, 1)


def set_deaf(sock: socket.socket, deaf: bool) -> None:
    """No segment gets to *sock*: the kernel drops them before TCP sees them (tcp_v4_rcv(), tcp_filter())."""
    if deaf:
        # struct sock_fprog holds an address, so keep what it points to.
        import ctypes

        program = ctypes.create_string_buffer(_DROP_ALL)
        packed = struct.pack("@HP", 1, ctypes.addressof(program))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, packed)
    else:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _dropped(sock: socket.socket) -> int:
    """Segments that the filter has dropped: SO_MEMINFO, SK_MEMINFO_DROPS."""
    return struct.unpack_from("=I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36), 32)[0]


def write(sock: socket.socket, wrote: bytearray, data: bytes) -> int:
    """As much of *data* as fits now."""
    done = 0
    with contextlib.suppress(BlockingIOError):
        while done < len(data):
            done += sock.send(data[done:])
    wrote += data[:done]
    return done


def _settled(sock: socket.socket) -> None:
    eventually(lambda: queued(sock, SIOCOUTQ) == 0, "acknowledged")


def bring(pair: Pair, case: Case) -> None:
    """Into the state of *case*: what is unread first, the peer's FIN behind it, then what we send."""
    chance = Random(f"content {case.number}")
    here, there = pair.here, pair.there
    greet(pair)
    if case.advmss:
        # The route it was made by is gone, and while it went its MTU was 68 (rt_fibinfo_free() gives it to
        # blackhole_netdev); a segment size made from that is mended by what is sent next (tcp_current_mss()).
        greet(pair)
    if case.unread:
        sizes = (1, 700) if case.rcvbuf == 2304 else (1, 700, 1900)
        write(there, pair.there_wrote, chance.randbytes(chance.choice(sizes)))
        _settled(there)
    if case.state in ("CLOSE_WAIT", "LAST_ACK", "CLOSE"):
        there.shutdown(socket.SHUT_WR)
        eventually(lambda: state(here) == 8 and queued(there, SIOCOUTQ) == 0, "the peer's FIN")
    if case.state in ("FIN_WAIT2", "CLOSE"):
        here.shutdown(socket.SHUT_WR)
        eventually(lambda: state(here) == STATES[case.state], case.state)
    _send(pair, case, chance)
    if case.state in FIN_UNACKED and not (case.send == "sent" or case.send == "none"):
        here.shutdown(socket.SHUT_WR)
    if case.state == "CLOSING":
        there.shutdown(socket.SHUT_WR)
    eventually(lambda: state(here) == STATES[case.state], case.state)
    _check(pair, case)
    if "ts" in case.wrap and case.stamps and case.state != "CLOSE":
        jump(here, stamp_near_wrap(case, 4 if case.stamps == "ms" else 1500))


def _send(pair: Pair, case: Case, chance: Random) -> None:
    """Fill our send queue as the case says; with our FIN, where it can be sent at once, in the same breath."""
    here, there, wrote = pair.here, pair.there, pair.here_wrote
    fin = case.state in FIN_UNACKED
    if case.send == "unsent":
        _unsent(pair, case, chance)
        if case.deaf:
            set_deaf(there, True)
        return
    if not case.deaf:
        return
    size = 0
    if case.send in ("sent", "both"):
        size = max(1, _at_once(here) // 2)  # room is left for a FIN
    # The peer's FIN would acknowledge ours, and a peer in TIME_WAIT is no longer deaf.
    arrives = not case.lost and case.send != "both" and case.state not in ("LAST_ACK", "CLOSING")
    set_deaf(here if arrives else there, True)
    before, wrote_bytes = queued(there, SIOCINQ), len(wrote)
    if case.send == "both":
        size = _at_once(here) + 20_000
    write(here, wrote, chance.randbytes(size))
    size = len(wrote) - wrote_bytes  # a buffer that the kernel has not enlarged yet takes less
    if fin and case.send in ("none", "sent"):
        here.shutdown(socket.SHUT_WR)
    if arrives:
        _arrived(there, before + size, fin)
        eventually(lambda: _dropped(here) > 0, "the acknowledgement is lost")
        time.sleep(0.05)  # and that of the FIN too, which may be delayed by 40 ms
        set_deaf(there, True)
        set_deaf(here, False)
    elif case.send == "sent":
        eventually(lambda: queued(here, SIOCOUTQNSD) == 0, "sent, paced or not")
    elif case.send == "both":
        eventually(lambda: _full(pair, chance), "as much of it sent as can be")


def _full(pair: Pair, chance: Random) -> bool:
    """Nothing more can be sent, and something waits; with a pace and TCP_NOTSENT_LOWAT it was not all written."""
    here = pair.here
    if not queued(here, SIOCOUTQNSD):
        write(here, pair.here_wrote, chance.randbytes(20_000))
    unsent = queued(here, SIOCOUTQNSD)
    return bool(unsent) and queued(here, SIOCOUTQ) - unsent + info(here, _SND_MSS) > _at_once(here)


def _at_once(here: socket.socket) -> int:
    """How many bytes can be sent before anything is acknowledged."""
    return min(info(here, _CWND) * info(here, _SND_MSS), info(here, SND_WND))


def _arrived(there: socket.socket, size: int, fin: bool) -> None:
    """Wait until it has all come, and its acknowledgement been sent (and lost)."""
    eventually(lambda: queued(there, SIOCINQ) == size, "arrived")
    if fin:
        eventually(lambda: state(there) in (8, 7, 6), "our FIN arrived")
    there.setsockopt(TCP, socket.TCP_QUICKACK, 1)


#: At most; a whole segment would go at once.
CORKED_BYTES = 500


def _unsent(pair: Pair, case: Case, chance: Random) -> None:
    """Corked where no FIN pushes it, or behind a window that the peer's unread bytes have shut."""
    here = pair.here
    if case.state not in FIN_UNACKED and chance.random() < 0.5:
        here.setsockopt(TCP, socket.TCP_CORK, 1)
        write(here, pair.here_wrote, chance.randbytes(min(info(here, _SND_MSS) - 1, CORKED_BYTES)))
        return

    def shut() -> bool:
        write(here, pair.here_wrote, chance.randbytes(4000))
        # In what is left of a window a probe sends a part of a segment (tcp_write_wakeup()). And where nothing
        # is on its way, but the window is open, all waits for its pace (tcp_pacing_check()).
        is_shut = bool(queued(here, SIOCOUTQNSD)) and not info(here, SND_WND)
        # The peer may have dropped a segment for which it had no memory. One that is not deaf from now on has
        # taken it at last, or drops it again and again.
        settled = queued(here, SIOCOUTQNSD) == queued(here, SIOCOUTQ) or _timeouts(here) > 1
        return is_shut and (case.deaf or settled)

    eventually(shut, "the peer's window is shut", 10)


def _timeouts(here: socket.socket) -> int:
    """In a row, of a segment or of a window probe: tcpi_retransmits, tcpi_probes or, behind a window that was shut
    over a segment on its way, only tcpi_backoff (tcp_retransmit_timer() in net/ipv4/tcp_timer.c)."""
    return max(here.getsockopt(TCP, socket.TCP_INFO, 5)[2:])


def _check(pair: Pair, case: Case) -> None:
    """The harness has made what the case says."""
    here, fin = pair.here, case.state in FIN_UNACKED
    unsent = queued(here, SIOCOUTQNSD)
    sent = queued(here, SIOCOUTQ) - unsent
    wanted = {
        "none": (fin, False),
        "sent": (True, False),
        "unsent": (bool(sent), True),  # a window probe may have sent some of it
        "both": (True, True),
    }[case.send]
    if case.state not in ("FIN_WAIT2", "CLOSE"):
        assert (bool(sent), bool(unsent)) == wanted, f"not brought there: sent {sent}, unsent {unsent}"
    if case.unread:
        assert queued(here, SIOCINQ), "nothing is unread"


# --- the rest of the connection's life ------------------------------------------------------------------


class End:
    """One end that reads all, writes what it has to, and then shuts its side."""

    def __init__(
        self, sock: socket.socket, wrote: bytearray, got: bytearray, more: bytes, shut: bool
    ) -> None:
        self.sock, self.wrote, self.got, self.more, self.shut = sock, wrote, got, more, shut
        self.ended = False

    def step(self, may_shut: bool) -> None:
        if not self.ended:
            with contextlib.suppress(BlockingIOError):
                while data := self.sock.recv(1 << 20):
                    self.got += data
                self.ended = True
        if self.more:
            self.more = self.more[write(self.sock, self.wrote, self.more) :]
        elif may_shut and not self.shut:
            self.sock.shutdown(socket.SHUT_WR)
            self.shut = True


def talk(pair: Pair, case: Case, turn: int) -> None:
    """A few bytes both ways, read at once, all acknowledged afterwards."""
    chance = Random(f"talk {case.number} {turn}")
    sizes = 1, 800, 20_000 if min(_peer_mss(case)) > 500 else 3000
    for writer, reader, wrote, got in (
        (pair.here, pair.there, pair.here_wrote, pair.there_read),
        (pair.there, pair.here, pair.there_wrote, pair.here_read),
    ):
        _across(writer, reader, wrote, got, chance.randbytes(chance.choice(sizes)))
        _settled(writer)


def greet(pair: Pair) -> None:
    """A byte each way: both ends know the round-trip time then."""
    for writer, reader, wrote, got in (
        (pair.here, pair.there, pair.here_wrote, pair.there_read),
        (pair.there, pair.here, pair.there_wrote, pair.here_read),
    ):
        _across(writer, reader, wrote, got, b"!")
        _settled(writer)


def _across(
    writer: socket.socket, reader: socket.socket, wrote: bytearray, got: bytearray, data: bytes
) -> None:
    start = len(wrote)

    def went() -> bool:
        write(writer, wrote, data[len(wrote) - start :])
        with contextlib.suppress(BlockingIOError):
            while part := reader.recv(1 << 20):
                got.extend(part)
        return len(got) == len(wrote) == start + len(data)

    eventually(went, "talk")
    assert got == wrote, "other bytes"
    for sock in (writer, reader):
        sock.setsockopt(TCP, socket.TCP_QUICKACK, 1)


def live_on(pair: Pair, case: Case, seconds: float = 20.0) -> None:
    """Whatever can still be said is said, heard and compared; then both ends are closed in order."""
    chance = Random(f"use {case.number}")
    shut_here = case.state not in ("ESTABLISHED", "CLOSE_WAIT")
    shut_there = case.state not in ("ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2")
    if case.deaf:
        set_deaf(pair.there, False)
    if not shut_here:
        pair.here.setsockopt(TCP, socket.TCP_CORK, 0)
    size = 30_000 if min(_peer_mss(case)) > 500 else 5000
    more = [b"" if shut else chance.randbytes(size) for shut in (shut_here, shut_there)]
    here = End(pair.here, pair.here_wrote, pair.here_read, more[0], shut_here)
    there = End(pair.there, pair.there_wrote, pair.there_read, more[1], shut_there)
    _run(here, there, case, seconds)
    assert pair.there_read == pair.here_wrote, "the peer has read other bytes than we wrote"
    assert pair.here_read == pair.there_wrote, "we have read other bytes than the peer wrote"


def _peer_mss(case: Case) -> tuple[int, int]:
    return case.mss[0] or 1460, case.mss[1] or 1460


def _run(here: End, there: End, case: Case, seconds: float) -> None:
    poll = select.poll()
    for end in (here, there):
        poll.register(end.sock, select.POLLIN)
    deadline = time.monotonic() + seconds
    while not (here.ended and there.ended and here.shut and there.shut):
        here.step(case.first == "here" or here.ended)
        there.step(case.first == "there" or there.ended)
        assert time.monotonic() < deadline, (
            f"not within {seconds} s: here {state(here.sock)} got {len(here.got)} ended {here.ended} "
            f"unacknowledged {queued(here.sock, SIOCOUTQ)}, there {state(there.sock)} got {len(there.got)} "
            f"ended {there.ended} unacknowledged {queued(there.sock, SIOCOUTQ)}"
        )
        poll.poll(2)


def both_gone(pair: Pair) -> None:
    """Neither has anything left to be acknowledged: both FINs have been."""
    for sock in (pair.here, pair.there):
        _eventually_quiet(lambda sock=sock: state(sock) == STATES["CLOSE"])
        sock.close()


def _eventually_quiet(condition: Callable[[], bool]) -> None:
    eventually(condition, "the end of the connection")
