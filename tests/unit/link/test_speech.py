"""Which protocol two sides speak, and what a refusal says; payloads there and back in each."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator
from typing import Any

import pytest
from golden_icis import GOLDEN

from migrate.errors import MigrateError, ProtocolError, Refused
from migrate.files.images import MANIFEST_VERSION
from migrate.link import payloads, protocol_2, speech
from migrate.link.payloads import CHUNK_BYTES, Packets, Piece
from migrate.origin import connections
from migrate.pb import session_pb2 as pb
from migrate.version import VERSION
from tcpcp.record import codec, ici

OURS = range(speech.OLDEST, speech.NEWEST + 1)
#: protocol -> versions of the ICI's format and of the manifest's that it carries. One is not changed: a new row is.
CARRIED = {2: (3, 1), 3: (3, 1)}


def hello(newest: int, oldest: int = 0) -> pb.Hello:
    return pb.Hello(protocol=newest, oldest_protocol=oldest, version="9.9")


def test_what_is_carried_belongs_to_the_protocol() -> None:
    assert CARRIED[speech.NEWEST] == (ici.VERSION, MANIFEST_VERSION)
    assert {CARRIED[one] for one in OURS} == {(ici.VERSION, MANIFEST_VERSION)}, (
        "translate, or speak it no more"
    )


@pytest.mark.parametrize(
    ("driver", "answer"),
    [
        (hello(1), 3),
        (hello(2), 2),  # says no oldest, and takes nothing but its own
        (hello(3, 2), 3),
        (hello(3, 3), 3),
        (hello(4, 3), 3),
        (hello(9, 2), 3),
        (hello(5, 4), 3),  # none: what we speak, so that it can say so
        (hello(0), 3),
    ],
)
def test_the_agent_answers_with_the_newest_that_both_know(driver: pb.Hello, answer: int) -> None:
    assert speech.answer(driver) == answer


@pytest.mark.parametrize("protocol", OURS)
def test_the_driver_takes_what_the_agent_has_chosen(protocol: int) -> None:
    assert speech.agreed(hello(protocol)) == protocol


@pytest.mark.parametrize(
    ("agent", "spoken", "side"),
    [
        (hello(1), "9.9 (protocol 1)", f"{VERSION}, or one next to it, on the destination"),
        (hello(5, 4), "9.9 (protocols 4 to 5)", "9.9, or one next to it, on the origin"),
        (hello(0), "protocol 0", "on the destination"),
    ],
)
def test_a_refusal_says_which_side_and_how(agent: pb.Hello, spoken: str, side: str) -> None:
    with pytest.raises(Refused) as refused:
        speech.agreed(agent)
    (reason,) = refused.value.reasons
    assert spoken in reason.text and "protocols 2 to 3" in reason.text
    assert side in reason.remedy and "pip install" in reason.remedy


SAID: list[tuple[str, Any]] = [
    ("image", Piece("inventory.img", 7, b"abc")),
    ("image", Piece("empty.img")),
    ("copy", Piece("/a", 0, b"x", True, 0o644, 5, 6, 7, -8, {"user.a": b"1"})),
    ("copy", Piece("/a", removed=True)),
    ("gap", Packets([b"one", b"", b"three"])),
    ("gap", Packets([])),
    ("commit", pb.Commit()),
]


@pytest.mark.parametrize("protocol", OURS)
@pytest.mark.parametrize(("kind", "said"), SAID)
def test_what_is_said_is_heard(protocol: int, kind: str, said: Any) -> None:
    ((name, message, payload),) = speech.of(protocol, "").frames(said, kind)
    again = type(message).FromString(message.SerializeToString())
    assert speech.of(protocol, "").heard(name, again, payload) == (kind, said)
    if protocol == 2:
        assert payload == b""
    elif isinstance(said, (Piece, Packets)):
        assert payload == (said.data if isinstance(said, Piece) else b"".join(said.packets))


@pytest.mark.parametrize("sizes", [[], [2], [2, 2], [4], [1 << 31, 1 << 31]])
def test_sizes_that_are_not_those_of_the_packets(sizes: list[int]) -> None:
    with pytest.raises(ProtocolError, match="3 bytes of them"):
        payloads.joined(pb.GapPackets(sizes=sizes), b"abc")


@pytest.mark.parametrize(
    ("message", "payload"),
    [(pb.Connections(), b""), (pb.FileChunk(name="a"), b"x"), (pb.FileChunk(name="/b", hard_link="/a"), b"")],
)
def test_what_protocol_2_has_not(message: Any, payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="that protocol 2 has not"):
        speech.of(2, "").heard("image", message, payload)


@pytest.mark.parametrize(("kind", "said"), [("hello", hello(2)), ("host", pb.HostInventory(version="9.9"))])
def test_a_driver_of_protocol_2_hears_its_own_version(kind: str, said: Any) -> None:
    """It refuses a host whose version is another."""
    ((_, message, _),) = speech.of(2, "0.1.0").frames(said, kind)
    assert (message.version, said.version) == ("0.1.0", "9.9")
    ((_, message, _),) = speech.of(3, "0.1.0").frames(said, kind)
    assert message.version == "9.9"


def test_protocol_2_has_no_second_names() -> None:
    """Its destination would make an empty file."""
    with pytest.raises(MigrateError, match="/b is one more name of /a"):
        list(speech.of(2, "1").frames(Piece("/b", hard_link="/a", last=True), "copy"))


#: Every field of a Restore, and of what is in it, in the last version whose newest protocol was 2.
RESTORE_OF_2 = """
    manifest manifest.version manifest.migration_id manifest.files manifest.files.name manifest.files.size_bytes
    manifest.files.sha256 closed sockets sockets.inode sockets.holders sockets.holders.pid sockets.holders.fd
    listeners listeners.inode listeners.options listeners.congestion most_ms tasks tasks.pid tasks.state
    surroundings surroundings.pid surroundings.coredump_filter surroundings.personality surroundings.threads
    surroundings.threads.tid surroundings.threads.processors surroundings.threads.io_priority
    surroundings.threads.timer_slack_ns surroundings.limits surroundings.limits.resource surroundings.limits.soft
    surroundings.limits.hard renamed
"""
#: Those that are no loss: said otherwise there; of listeners never said, they are in ``others``.
NO_LOSS = {"connections", "listeners.values"}


def fields(message: Any, told: Container[str], path: str = "") -> Iterator[str]:
    """All of a descriptor, with the way to them, but for what is below one that is *told*."""
    for one in message.fields:
        yield (name := path + one.name)
        below = one.message_type
        if below is not None and name not in told and not below.GetOptions().map_entry:
            yield from fields(below, told, f"{name}.")


def test_a_field_that_protocol_2_has_not_is_told() -> None:
    """One more in Restore is to be told, too, or named here as no loss."""
    told = protocol_2.PASSED_OVER
    newer = set(fields(pb.Restore.DESCRIPTOR, told)) - set(RESTORE_OF_2.split())
    assert newer == set(told) | NO_LOSS


def first_words(restore: pb.Restore) -> list[str]:
    return [one.split(": ")[1].split()[0] for one in speech.of(2, "").unheard(restore)]


def test_what_a_partner_of_protocol_2_passes_over_is_told() -> None:
    """It does not know these fields, builds the process without them, and says nothing."""
    restore = pb.Restore(ended_calls=[pb.EndedCall(tid=7, number=202)])
    (calls,) = speech.of(2, "0.1.0").unheard(restore)
    assert calls == (
        "the destination's migrate 0.1.0 speaks protocol 2, which has less: system calls in which threads of"
        " it wait end there as by a signal (EINTR)"
    )
    restore.others.add(inode=1)
    threads = restore.surroundings.add().threads
    threads.add(tid=7, timer_slack_ns=50_000)
    assert first_words(restore) == ["system", "options"]
    threads.add(tid=8, slice_ns=3_000_000)
    assert first_words(restore) == ["system", "options", "threads"]
    for said in (pb.Restore(), pb.Commit(), Packets([b"x"])):
        assert speech.of(2, "").unheard(said) == []
    assert speech.Newest().unheard(restore) == []


def test_a_name_that_is_no_text_is_no_piece() -> None:
    for make in (lambda: Piece("\udc80"), lambda: Piece("a", attributes={"user.\udc80": b""})):
        with pytest.raises(UnicodeEncodeError):
            make()


def _sent(queue: int) -> ici.Ici:
    return dataclasses.replace(GOLDEN["established"], tag=queue, send_queue=ici.SendQueue(bytes(queue)))


@pytest.mark.parametrize(
    ("queues", "messages"),
    [([], 0), ([5], 1), ([100_000, 100_000, 100_001], 2), ([700_000, 5, 6], 3), ([5, 700_000], 4)],
)
def test_connections_are_said_in_messages_of_one_size(queues: list[int], messages: int) -> None:
    icis = [_sent(size) for size in queues]
    held = {one.tag: pb.HeldSocket(inode=one.tag) for one in icis}
    said = list(connections.batches(icis, held))
    assert len(said) == messages and all(0 < len(one.records) <= CHUNK_BYTES for one in said)
    assert list(codec.loads_many(b"".join(one.records for one in said))) == icis
    assert [holder.inode for one in said for holder in one.sockets] == queues
