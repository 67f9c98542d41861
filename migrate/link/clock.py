"""How far the other host's clock is ahead of ours, estimated as NTP does (RFC 5905 section 8). Pure.

Every frame of the session carries a ``Stamp``, so that any two frames that cross the link are a request and its
answer: when the request was sent and the answer arrived, on our clock; when the request was received and the
answer sent, on the other's. Waiting on either side cancels out, and the pair with the shortest round trip has
the least that is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from migrate.pb.session_pb2 import Stamp


@dataclass(frozen=True, slots=True)
class Offset:
    """How far the other clock is ahead of ours, ns.

    :ivar uncertainty_ns: it is wrong by this at most, half of the round trip; drift since then is left out.
    """

    ns: int
    uncertainty_ns: int


def offset(sent: int, received: int, answered: int, arrived: int) -> Offset | None:
    """Return what one request and its answer tell; None if their times contradict each other.

    :param sent, arrived: ns of our clock: the request left, the answer came.
    :param received, answered: ns of the other clock: the request came, the answer left.
    """
    round_trip = (arrived - sent) - (answered - received)
    if not sent <= arrived or not received <= answered or round_trip < 0:
        return None
    return Offset((received - sent + answered - arrived) // 2, (round_trip + 1) // 2)


class Clocks:
    """Stamps what we send, reads the stamps of what comes, and keeps the best estimate.

    One thread takes, any number stamp.

    :param now_ns: our monotonic clock.
    :ivar offset: that of the shortest round trip so far, or None.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns
        self.offset: Offset | None = None
        self._began_ns = now_ns()
        self._last = (0, 0)

    def stamp(self) -> Stamp:
        """Return the stamp of a frame that is sent now."""
        answered_ns, received_ns = self._last
        return Stamp(sent_ns=self.now_ns(), answered_ns=answered_ns, received_ns=received_ns)

    def take(self, stamp: Stamp, arrived_ns: int) -> None:
        """Read the stamp of a frame that came at *arrived_ns* of our clock; nonsense is passed over."""
        self._last = (stamp.sent_ns, arrived_ns)
        if stamp.answered_ns < self._began_ns:  # the clock of nothing that we have sent
            return
        found = offset(stamp.answered_ns, stamp.received_ns, stamp.sent_ns, arrived_ns)
        if found and (self.offset is None or found.uncertainty_ns < self.offset.uncertainty_ns):
            self.offset = found
