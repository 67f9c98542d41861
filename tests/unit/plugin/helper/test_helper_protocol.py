"""The helper's packets: what is written is read, and whatever else comes is refused."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcp.errors import (
    Expired,
    IciError,
    IsolationError,
    KernelError,
    Moved,
    NotGot,
    PermissionDenied,
    TcpcpError,
    Unsupported,
)
from tcpcp.helper import descriptors, protocol
from tcpcp.helper.protocol import Failure, HelperError, Operation, ProtocolError, Request
from tcpcp.kernel.netfilter import Unanswered

ERRORS = [
    Unsupported("not a TCP socket"),
    PermissionDenied("no"),
    Expired("too late"),
    Moved("10.0.0.1:80 - 10.0.0.2:4000: 17 bytes are lost", 17),
    NotGot("10.0.0.1:80 - 10.0.0.2:4000: not got"),
    KernelError("setsockopt(TCP_REPAIR, 1)", errno.EPERM, "10.0.0.1:80 - 10.0.0.2:4000"),
    IsolationError("nf_tables refused: No such file or directory", errno.ENOENT),
    IciError(["one thing", "another thing"]),
    HelperError("has too much to do"),
]


@pytest.mark.parametrize("operation", Operation)
def test_requests(operation: Operation) -> None:
    request = Request(operation, 0 if operation is Operation.LEAVE else 17)
    assert protocol.parse_request(protocol.pack_request(request)) == request


@pytest.mark.parametrize("count", [0, protocol.MAX_SOCKETS + 1, 65535])
def test_a_count_that_does_not_fit(count: int) -> None:
    with pytest.raises(ProtocolError, match="sockets"):
        protocol.pack_request(Request(Operation.GET, count))
    packet = protocol.pack_request(Request(Operation.GET, 1))[:-2] + count.to_bytes(2, "big")
    with pytest.raises(ProtocolError, match="sockets"):
        protocol.parse_request(packet)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_arrive_as_they_were(error: TcpcpError) -> None:
    error.add_note("and the filter could not be removed")
    failure = protocol.parse_reply(protocol.pack_reply(protocol.failure_of(error)))
    assert failure is not None
    arrived = protocol.error_of(failure)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_one_that_only_the_inside_knows_arrives_as_what_it_is() -> None:
    arrived = protocol.error_of(protocol.failure_of(Unanswered("nf_tables did not answer", errno.ENOBUFS)))
    assert type(arrived) is IsolationError
    assert (str(arrived), arrived.errno) == ("nf_tables did not answer", errno.ENOBUFS)


@pytest.mark.parametrize("name", ["SystemExit", "OSError", "Nothing", "__class__", "KernelError"])
def test_only_errors_of_the_library_are_made(name: str) -> None:
    error = protocol.error_of(Failure(name, 1, ("a text",)))
    assert type(error) is HelperError
    assert "a text" in str(error)


def test_a_long_failure_fits_a_packet() -> None:
    error = IciError(["ä" * 5000] * 5000)
    packet = protocol.pack_reply(protocol.failure_of(error))
    assert len(packet) <= protocol.MAX_PACKET_BYTES
    failure = protocol.parse_reply(packet)
    assert failure is not None
    assert len(failure.texts) == protocol.MAX_TEXTS


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(noise: bytes) -> None:
    for packet in (noise, protocol.MAGIC + bytes([protocol.VERSION]) + noise):
        for parse in (protocol.parse_request, protocol.parse_reply):
            try:
                parse(packet)
            except ProtocolError:
                continue
            assert packet.startswith(protocol.MAGIC)


@given(st.data())
def test_a_reply_that_was_cut_is_refused(data: st.DataObject) -> None:
    packet = protocol.pack_reply(protocol.failure_of(ERRORS[4]))
    with pytest.raises(ProtocolError):
        protocol.parse_reply(packet[: data.draw(st.integers(0, len(packet) - 1))])


def test_sealed_memory() -> None:
    content = os.urandom(3_000_000)
    descriptor = descriptors.seal(content)
    assert descriptors.read_sealed(descriptor, len(content)) == content
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x", 0)
    with pytest.raises(ProtocolError, match="takes 1000"):
        descriptors.read_sealed(descriptor, 1000)
    os.close(descriptor)


def test_what_could_change_or_block_is_not_read() -> None:
    """A memfd that is not sealed, a pipe, a file."""
    unsealed = os.memfd_create("ici", os.MFD_ALLOW_SEALING)
    reading, writing = os.pipe()
    file = os.open(__file__, os.O_RDONLY)
    for descriptor in (unsealed, reading, file):
        with pytest.raises(ProtocolError, match="memfd"):
            descriptors.read_sealed(descriptor, 1 << 20)
    descriptors.close([unsealed, reading, writing, file])
