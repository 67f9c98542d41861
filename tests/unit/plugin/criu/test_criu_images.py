"""CRIU's images: compiled from an ICI as CRIU writes them, edited without touching the rest.

golden/criu was written by CRIU 4.2.1 from a process on kernel 6.18 with connections in several states:
tcp-stream images (``--tcp-established --leave-running``), files.img, and the inventory of a dump with
``--tcp-close``. sockets.json is what the process itself then read from the same sockets in repair mode.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import struct
from typing import Any

import criu_stream
import pytest
from golden_icis import DIRECTORY, GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from pycriu import images
from strategies import damaged, icis

from tcpcp.criu import images as criu_images
from tcpcp.errors import CodecError
from tcpcp.record.ici import (
    FIN_ACKED,
    FIN_IN,
    FIN_OUT,
    Endpoint,
    Ici,
    Negotiated,
    ReceiveQueue,
    SendQueue,
    State,
    Timestamp,
    Window,
)

WRITTEN = DIRECTORY / "criu"
SOCKETS: dict[str, dict[str, Any]] = json.loads((WRITTEN / "sockets.json").read_text())
FILES = (WRITTEN / "files.img").read_bytes()
INVENTORY = (WRITTEN / "inventory.img").read_bytes()
PLAIN = GOLDEN["established"]


def endpoint(pair: list[Any]) -> Endpoint:
    ip = ipaddress.ip_address(pair[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return Endpoint(mapped or ip, pair[1])


def ici_of(facts: dict[str, Any]) -> Ici:
    """The ICI of a socket of which the kernel said *facts*; all send queues here are empty."""
    state, options = State(facts["state"]), facts["options"]
    assert not facts["sq"]
    return dataclasses.replace(
        PLAIN,
        state=state,
        local=endpoint(facts["local"]),
        peer=endpoint(facts["peer"]),
        ipv6_socket=facts["v6"],
        negotiated=Negotiated(
            bool(options & 1),
            bool(options & 2),
            bool(options & 4),
            bool(options & 8),
            facts["snd_wscale"],
            facts["rcv_wscale"],
            facts["mss"],
            1448,
        ),
        snd_nxt=facts["write_seq"] - facts["nsd"],
        rcv_nxt=facts["rcv_nxt"],
        window=Window(*facts["win"]),
        timestamp=Timestamp(facts["ts"], bool(options & 64)),
        send_queue=SendQueue(fin=state in FIN_OUT),
        receive_queue=ReceiveQueue(bytes.fromhex(facts["rq"]), state in FIN_IN),
    )


def entry(image: bytes) -> dict[str, Any]:
    (found,) = images.loads(image)["entries"]
    assert isinstance(found, dict)
    return found


def isk(files: bytes, inode: int) -> dict[str, Any]:
    found = [e["isk"] for e in images.loads(files)["entries"] if e.get("isk", {}).get("ino") == inode]
    assert len(found) == 1
    return dict(found[0])


@pytest.mark.parametrize("inode", sorted(SOCKETS))
def test_same_bytes_as_criu(inode: str) -> None:
    image = (WRITTEN / criu_images.tcp_stream_name(int(inode))).read_bytes()
    assert criu_images.tcp_stream(ici_of(SOCKETS[inode])) == image


def test_states_of_the_golden_sockets() -> None:
    states = {State(facts["state"]) for facts in SOCKETS.values()}
    assert states == {State.ESTABLISHED, State.FIN_WAIT2, State.CLOSE_WAIT}


def same(ici: Ici) -> Ici:
    """*ici* as it comes back: CRIU does not store whether a FIN with nothing unsent before it was sent."""
    queue = ici.send_queue
    if not queue.fin or queue.unsent or queue.fin_sent or ici.state in FIN_ACKED:
        return ici
    sent = dataclasses.replace(queue, fin_sent=True)
    return dataclasses.replace(ici, send_queue=sent, snd_nxt=(ici.snd_nxt + 1) % 2**32)


@given(icis())
def test_round_trip(ici: Ici) -> None:
    found = criu_stream.parse(criu_images.tcp_stream(ici), ici.state)
    expected = same(ici)
    assert (found.snd_nxt, found.send_queue) == (expected.snd_nxt, expected.send_queue)
    assert found.rcv_nxt == ici.rcv_nxt
    assert found.receive_queue == dataclasses.replace(ici.receive_queue, shut=False)
    assert found.negotiated == dataclasses.replace(ici.negotiated, advmss=0)
    assert found.window == ici.window
    assert found.timestamp == (ici.timestamp.value if ici.timestamp else None)
    assert found.microseconds == bool(ici.timestamp and ici.timestamp.microseconds)


@given(icis())
def test_soccr_starts_both_queues_where_they_start(ici: Ici) -> None:
    """soccr.c libsoccr_set_sk_data_noq(), written down again: what it gives to TCP_QUEUE_SEQ."""
    found = entry(criu_images.tcp_stream(ici))
    inq_seq = found["inq_seq"] - (ici.state in FIN_IN)
    outq_seq = found["outq_seq"] - (ici.state in FIN_OUT)
    assert (inq_seq - found["inq_len"]) % 2**32 == ici.copied_seq
    # After an acknowledged FIN, soccr puts that FIN in front of snd_una.
    acknowledged = ici.state in FIN_ACKED
    assert (outq_seq - found["outq_len"]) % 2**32 == (ici.snd_una - acknowledged) % 2**32


@given(icis())
def test_queues_follow_the_entry(ici: Ici) -> None:
    tail = ici.receive_queue.data + ici.send_queue.sent + ici.send_queue.unsent
    assert criu_images.tcp_stream(ici).endswith(tail)
    assert entry(criu_images.tcp_stream(ici))["unsq_len"] == len(ici.send_queue.unsent)


def test_without_scaling_the_shifts_are_said_all_the_same() -> None:
    """Else soccr says nothing of them, and the kernel keeps what connect() has computed from the sysctls."""
    found = entry(criu_images.tcp_stream(GOLDEN["bare"]))
    assert GOLDEN["bare"].negotiated.window_scaling is False
    assert found["opt_mask"] & criu_images.TCPI_OPT_WSCALE
    assert (found["snd_wscale"], found["rcv_wscale"]) == (0, 0)
    assert criu_stream.parse(
        criu_images.tcp_stream(GOLDEN["bare"]), State.ESTABLISHED
    ).negotiated == dataclasses.replace(GOLDEN["bare"].negotiated, advmss=0)


def test_closed_by_both_sides_with_bytes_to_read() -> None:
    ici = dataclasses.replace(
        PLAIN, state=State.CLOSE, send_queue=SendQueue(fin=True), receive_queue=ReceiveQueue(b"last", True)
    )
    found = entry(criu_images.tcp_stream(ici))
    assert (found["inq_seq"], found["outq_seq"]) == (ici.rcv_nxt, ici.snd_nxt)


@pytest.mark.parametrize("state", [State.LISTEN, State.SYN_SENT, State.TIME_WAIT])
def test_states_that_criu_cannot_rebuild(state: State) -> None:
    with pytest.raises(CodecError, match=state.name):
        criu_images.tcp_stream(dataclasses.replace(PLAIN, state=state))


def test_a_value_that_does_not_fit() -> None:
    window = dataclasses.replace(PLAIN.window, snd_wnd=2**32)
    with pytest.raises(CodecError, match="does not fit"):
        criu_images.tcp_stream(dataclasses.replace(PLAIN, window=window))


def test_sockets_of_files() -> None:
    sockets = {socket.inode: socket for socket in criu_images.inet_sockets(FILES)}
    for inode, facts in SOCKETS.items():
        found = sockets[int(inode)]
        assert (found.local, found.peer) == (endpoint(facts["local"]), endpoint(facts["peer"]))
        assert (found.state, found.ipv6, found.connected) == (facts["state"], facts["v6"], True)
    listening = {str(s.local): (s.ipv6, s.connected) for s in sockets.values() if s.state is State.LISTEN}
    assert listening == {"127.0.0.1:5000": (False, False), "[::]:5001": (True, False)}


def test_patching_states_changes_nothing_else() -> None:
    states = {int(inode): State.LAST_ACK for inode in SOCKETS}
    patched = criu_images.patch_files(FILES, states)
    for inode in states:
        assert isk(patched, inode) == {**isk(FILES, inode), "state": State.LAST_ACK}
    assert criu_images.patch_files(patched, {int(i): State(f["state"]) for i, f in SOCKETS.items()}) == FILES
    assert criu_images.patch_files(FILES, {}) == FILES


def test_a_connection_that_ended_becomes_an_unconnected_socket() -> None:
    inode = int(min(SOCKETS))
    found = isk(criu_images.patch_files(FILES, {}, closed=[inode]), inode)
    assert (found["state"], found["src_port"], found["dst_port"]) == (State.CLOSE, 0, 0)
    assert (set(found["src_addr"]), set(found["dst_addr"])) == ({0}, {0})
    assert found["shutdown"] == "BOTH" or found["shutdown"] == 3


def test_a_socket_that_never_had_a_connection_stays_as_it_is() -> None:
    inode = int(min(SOCKETS))
    unconnected = criu_images.patch_files(FILES, {}, closed=[inode])
    assert criu_images.patch_files(unconnected, {}, closed=[inode, 0xABC]) == unconnected


@pytest.mark.parametrize(("part", "prefix"), [("opts", "tcp_"), ("tcp_opts", "")])
@pytest.mark.parametrize(
    ("field", "value", "stays"),
    [
        ("keepidle", 86400, False),
        ("keepidle", 2**32 - 5, False),
        ("keepidle", 32767, True),
        ("keepintvl", 0, False),
        ("keepcnt", 200, False),
        ("keepcnt", 127, True),
    ],
)
def test_what_no_socket_can_be_given_is_taken_out(
    part: str, prefix: str, field: str, value: int, stays: bool
) -> None:
    """As a sysctl had it: restore would set it, and fail, of listeners and others too."""
    inode = next(one.inode for one in criu_images.inet_sockets(FILES) if one.state is State.LISTEN)
    if part not in criu_images.pb.inet_sk_entry.DESCRIPTOR.fields_by_name:
        pytest.skip("of newer CRIU")
    field = prefix + field
    files = with_option(FILES, inode, part, field, value)
    patched = criu_images.patch_files(files, {})
    assert (field in isk(patched, inode)[part]) is stays
    assert patched == files or not stays


def with_option(files: bytes, inode: int, part: str, field: str, value: int) -> bytes:
    """files.img with an option of one socket."""
    parts = [files[:8]]
    for _, entry in criu_images._records(files, "FILES", criu_images.pb.file_entry):
        if entry.HasField("isk") and entry.isk.ino == inode:
            setattr(getattr(entry.isk, part), field, value)
        message = entry.SerializeToString()
        parts += [len(message).to_bytes(4, "little"), message]
    return b"".join(parts)


def test_an_inode_that_is_not_there() -> None:
    with pytest.raises(CodecError, match="no socket with inode abc"):
        criu_images.patch_files(FILES, {0xABC: State.ESTABLISHED})


def test_inventory() -> None:
    before, after = entry(INVENTORY), entry(criu_images.patch_inventory(INVENTORY))
    assert before.pop("tcp_close") is True
    assert after == before


def read_all(data: bytes) -> None:
    for read in (
        lambda: list(criu_images.inet_sockets(data)),
        lambda: criu_images.patch_files(data, {}),
        lambda: criu_images.patch_inventory(data),
    ):
        with contextlib.suppress(CodecError):
            read()


@given(st.data())
def test_damaged_images_are_refused_or_read(data: st.DataObject) -> None:
    stream = criu_images.tcp_stream(PLAIN)
    read_all(data.draw(damaged(data.draw(st.sampled_from([FILES, INVENTORY, stream])))))


@given(st.binary(max_size=40))
def test_any_bytes(data: bytes) -> None:
    for head in (b"", FILES[:8], INVENTORY[:4], criu_images.tcp_stream(PLAIN)[:8]):
        read_all(head + data)


def test_a_cut_image_names_the_place() -> None:
    with pytest.raises(CodecError, match="FILES image: offset 8: cut short"):
        list(criu_images.inet_sockets(FILES[:20]))


def test_another_image_is_not_taken_for_it() -> None:
    with pytest.raises(CodecError, match="expected a CRIU image, INVENTORY"):
        criu_images.patch_inventory(FILES)


def test_five_thousand_sockets_are_patched_in_one_pass() -> None:
    """Not a measurement: that the result is right for many."""
    size = struct.unpack_from("<I", FILES, 8)[0]
    first = FILES[: 12 + size]
    record = next(e for e in images.loads(FILES)["entries"] if "isk" in e and e["isk"]["dst_port"])
    many = []
    for inode in range(1, 5001):
        many.append({**record, "isk": {**record["isk"], "ino": inode}})
    files = first + images.dumps({"magic": "FILES", "entries": many})[8:]
    patched = criu_images.patch_files(files, dict.fromkeys(range(1, 5001), State.FIN_WAIT1))
    assert {s.state for s in criu_images.inet_sockets(patched) if s.inode <= 5000} == {State.FIN_WAIT1}


def test_a_name_of_an_interface_that_is_no_text() -> None:
    """Protobuf gives bytes where a text of CRIU's messages is not UTF-8; they must not go further."""
    isk = {"id": 1, "ino": 5, "family": 10, "type": 1, "proto": 6, "state": 1, "src_port": 1, "dst_port": 2}
    isk |= {"flags": 0, "backlog": 0, "src_addr": [0, 0, 0, 1], "dst_addr": [0, 0, 0, 1], "ifname": "abcd"}
    entry = criu_images.pb.file_entry(type=2, id=1)
    entry.isk.fown.SetInParent()
    entry.isk.opts.SetInParent()
    for part in (entry.isk.fown, entry.isk.opts):
        for field in part.DESCRIPTOR.fields:
            if field.is_required:
                setattr(part, field.name, 0)
    for name, value in isk.items():
        if isinstance(value, list):
            getattr(entry.isk, name).extend(value)
        else:
            setattr(entry.isk, name, value)
    message = entry.SerializeToString()
    head = FILES[:8] + len(message).to_bytes(4, "little")
    assert [one.device for one in criu_images.inet_sockets(head + message)] == ["abcd"]
    with pytest.raises(CodecError, match="name of an interface"):
        list(criu_images.inet_sockets(head + message.replace(b"abcd", b"ab\xffd")))
