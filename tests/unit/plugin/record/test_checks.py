"""The sanity checks: a real connection's ICI passes, one wrong value does not, all wrong values are told."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest
from golden_icis import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from strategies import icis

from tcpcp.errors import IciError
from tcpcp.record import checks, seq
from tcpcp.record.ici import Congestion, Endpoint, Ici, Negotiated, ReceiveQueue, SendQueue, State, Timestamp

LIMITS = checks.Limits()
PLAIN = GOLDEN["established"]
HALF_CLOSED = dataclasses.replace(
    PLAIN, state=State.CLOSE_WAIT, receive_queue=ReceiveQueue(b"unread", fin=True)
)


def with_(part: str, **values: object) -> Ici:
    return dataclasses.replace(PLAIN, **{part: dataclasses.replace(getattr(PLAIN, part), **values)})


def local(text: str, port: int = 80) -> Ici:
    return dataclasses.replace(PLAIN, local=Endpoint(ipaddress.ip_address(text), port), ipv6_socket=True)


def peer(text: str, port: int = 80) -> Ici:
    return dataclasses.replace(PLAIN, peer=Endpoint(ipaddress.ip_address(text), port))


@given(icis())
def test_what_a_connection_can_have_passes(ici: Ici) -> None:
    assert checks.problems(ici, LIMITS) == []


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_icis_pass(name: str) -> None:
    checks.check(GOLDEN[name], LIMITS)


def test_port_zero_asks_for_any() -> None:
    checks.check(with_("local", port=0), LIMITS)


@pytest.mark.parametrize(
    ("ici", "says"),
    [
        (dataclasses.replace(PLAIN, version=1), "version is 1"),
        (dataclasses.replace(PLAIN, tag=-1), "tag is -1"),
        (dataclasses.replace(PLAIN, snd_nxt=2**32), "snd_nxt is 4294967296"),
        (with_("congestion", srtt_us=-5), "srtt_us is -5"),
        (with_("timestamp", ts_recent=2**32), "ts_recent is"),
        (local("0.0.0.0"), "local address is unspecified"),
        (local("0.1.2.3"), "local address is not unicast"),
        (local("255.255.255.255"), "local address is not unicast"),
        (peer("224.0.0.1"), "peer address is multicast"),
        (peer("ff02::1"), "peer address is multicast"),
        (peer("::"), "peer address is unspecified"),
        (peer("::ffff:10.0.0.1"), "peer address is IPv4-mapped"),
        (local("fe80::1%eth0"), "local address has a scope"),
        (peer("fd77:1::1"), "different families"),
        (peer("10.0.0.1", 0), "peer port is 0"),
        (peer("10.0.0.1", 65536), "peer port is 65536"),
        (local("10.0.0.1", -1), "local port is -1"),
        (dataclasses.replace(GOLDEN["last_ack_ipv6"], ipv6_socket=False, options={}), "ipv6_socket is false"),
        (dataclasses.replace(GOLDEN["last_ack_ipv6"], device=""), "link-local"),
        (dataclasses.replace(PLAIN, device="eth0/x"), "not a name of an interface"),
        (dataclasses.replace(PLAIN, device=".."), "not a name of an interface"),
        (dataclasses.replace(PLAIN, device="sixteen-letters-"), "not a name of an interface"),
        (dataclasses.replace(PLAIN, state=State.LISTEN), "state is LISTEN"),
        (dataclasses.replace(PLAIN, state=State.SYN_SENT), "state is SYN_SENT"),
        (dataclasses.replace(PLAIN, state=State.FIN_WAIT1), "send_queue.fin is False in state FIN_WAIT1"),
        (dataclasses.replace(PLAIN, state=State.CLOSE_WAIT), "receive_queue.fin is False in state"),
        (with_("send_queue", fin=True), "send_queue.fin is True in state ESTABLISHED"),
        (with_("receive_queue", fin=True), "receive_queue.fin is True in state ESTABLISHED"),
        (with_("send_queue", fin_sent=True), "without send_queue.fin"),
        (
            dataclasses.replace(PLAIN, state=State.FIN_WAIT1, send_queue=SendQueue(b"", b"xy", True, True)),
            "2 bytes before the FIN are unsent",
        ),
        (
            dataclasses.replace(PLAIN, state=State.FIN_WAIT2, send_queue=SendQueue(b"x", fin=True)),
            "must be empty in state FIN_WAIT2",
        ),
        (with_("negotiated", snd_wscale=15), "snd_wscale is 15"),
        (with_("negotiated", rcv_wscale=-1), "rcv_wscale is -1"),
        (with_("negotiated", window_scaling=False), "snd_wscale is 7 without window scaling"),
        (with_("negotiated", ecn=-1), "ecn is -1, must be true or false"),
        (with_("negotiated", sack=2), "sack is 2, must be true or false"),
        (with_("negotiated", mss_clamp=0), "mss_clamp is 0"),
        (with_("negotiated", advmss=65536), "advmss is 65536"),
        (with_("window", max_window=64255), "max_window 64255 is below snd_wnd 64256"),
        (with_("window", max_window=65536 << 7), "more than a segment can say"),
        (with_("window", rcv_wnd=2**30), "rcv_wnd 1073741824 is over"),
        (with_("window", snd_wl1=seq.add(PLAIN.rcv_nxt, 65537)), "snd_wl1"),
        (with_("window", rcv_wup=seq.add(PLAIN.rcv_nxt, 1)), "rcv_wup"),
        (with_("window", rcv_wup=seq.add(PLAIN.rcv_nxt, -(2**30))), "rcv_wup"),
        (with_("negotiated", timestamps=False), "timestamps were not negotiated"),
        (dataclasses.replace(PLAIN, timestamp=None), "timestamps were negotiated"),
        (dataclasses.replace(PLAIN, timestamp=Timestamp(4, microseconds=True)), "bit 0 says the other unit"),
        (dataclasses.replace(PLAIN, timestamp=Timestamp(5)), "bit 0 says the other unit"),
        (with_("congestion", algorithm=""), "congestion algorithm ''"),
        (with_("congestion", algorithm="cubic; rm"), "is not a name of one"),
        (with_("congestion", algorithm="cubic\n"), "is not a name of one"),
        (with_("congestion", algorithm="a" * 16), "is not a name of one"),
        (dataclasses.replace(PLAIN, options={"SO_PEERCRED": 1}), "SO_PEERCRED"),
        (dataclasses.replace(PLAIN, options={"IP_TOS": 256}), "IP_TOS is 256"),
        (dataclasses.replace(PLAIN, options={"IPV6_TCLASS": 1}), "IPV6_TCLASS"),
    ],
)
def test_one_wrong_value(ici: Ici, says: str) -> None:
    assert any(says in problem for problem in checks.problems(ici, LIMITS))
    with pytest.raises(IciError):
        checks.check(ici, LIMITS)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (checks.Limits(max_send_queue_bytes=9), "the send queue has 10 bytes, the limit is 9"),
        (checks.Limits(max_receive_queue_bytes=5), "the receive queue has 6 bytes, the limit is 5"),
        (checks.Limits(congestion_algorithms=frozenset({"reno"})), "cubic is not available here"),
    ],
)
def test_limits_of_the_host(limits: checks.Limits, says: str) -> None:
    assert says in "; ".join(checks.problems(PLAIN, limits))


def test_limits_reached_are_not_exceeded() -> None:
    checks.check(PLAIN, checks.Limits(10, 6, frozenset({"cubic"})))


def test_a_buffer_above_the_limit_is_no_reason() -> None:
    """It is made smaller when the connection is built; but one that the application has chosen is a reason."""
    options = {"SO_SNDBUF": 2**31 - 1, "SO_RCVBUF": 2**31 - 1}
    limits = checks.Limits(max_receive_buffer_bytes=131072, max_send_buffer_bytes=4608)
    checks.check(dataclasses.replace(PLAIN, options=options), limits)
    for bit, name in ((1, "SO_SNDBUF"), (2, "SO_RCVBUF")):
        chosen = dataclasses.replace(PLAIN, options={**options, "SO_BUF_LOCK": bit})
        assert [name in problem for problem in checks.problems(chosen, limits)] == [True]
    queue = SendQueue(b"x" * 100_000, b"y" * 100_000)
    checks.check(dataclasses.replace(PLAIN, send_queue=queue), limits)


def promising(window: int, *, unread: int = 0, wscale: int = 14) -> Ici:
    """Nothing has come since the window was announced."""
    return dataclasses.replace(
        PLAIN,
        negotiated=dataclasses.replace(PLAIN.negotiated, rcv_wscale=wscale),
        receive_queue=ReceiveQueue(bytes(unread)),
        window=dataclasses.replace(PLAIN.window, rcv_wnd=window, rcv_wup=PLAIN.rcv_nxt),
    )


def test_a_window_that_no_buffer_here_can_hold() -> None:
    """319 bytes could have the kernel give away a gigabyte."""
    limits = checks.Limits(max_receive_buffer_bytes=32 << 20)
    (problem,) = checks.problems(promising(1_000_000_000), limits)
    assert "1000000000 that the peer may send" in problem
    assert "raise the last number of net.ipv4.tcp_rmem" in problem


@pytest.mark.parametrize(
    ("ici", "buffer"),
    [
        (promising(0, unread=1 << 20), 4096),  # the queue is there: it was let in by another buffer
        (promising(16384), 4096),  # __tcp_select_window() rounds up to the shift
        (promising(65535, wscale=0), 2304),
        (promising(30 << 20, unread=2 << 20), 32 << 20),
        (promising(100 << 20), 32 << 20),  # SO_RCVBUFFORCE, up to what an ICI can hold
    ],
)
def test_windows_of_a_host_with_the_same_limits(ici: Ici, buffer: int) -> None:
    checks.check(ici, checks.Limits(max_receive_buffer_bytes=buffer))


def test_what_came_into_the_window_counts_once() -> None:
    """rcv_wnd is counted from rcv_wup: what has come since is unread, or was read."""
    limits = checks.Limits(max_receive_queue_bytes=2 << 20, max_receive_buffer_bytes=2 << 20)
    ici = promising(2 << 20, unread=2 << 20)
    assert checks.problems(ici, limits)
    window = dataclasses.replace(ici.window, rcv_wup=seq.add(ici.rcv_nxt, -(2 << 20)))
    checks.check(dataclasses.replace(ici, window=window), limits)


@pytest.mark.parametrize("mss", [48, 88, 536, 1460, 32767, 65495])
def test_segment_sizes(mss: int) -> None:
    """65495 is loopback's; a peer may announce less than net.ipv4.tcp_min_snd_mss."""
    fixed = dataclasses.replace(PLAIN.negotiated, mss_clamp=mss, advmss=mss)
    checks.check(dataclasses.replace(PLAIN, negotiated=fixed), LIMITS)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_shut_for_reading_in_any_state(name: str) -> None:
    queue = dataclasses.replace(GOLDEN[name].receive_queue, shut=True)
    checks.check(dataclasses.replace(GOLDEN[name], receive_queue=queue), LIMITS)


def test_the_kernels_own_window_checks_at_their_edge() -> None:
    """tcp_repair_set_window() takes equality in all three."""
    window = dataclasses.replace(
        HALF_CLOSED.window,
        snd_wnd=1000,
        max_window=1000,
        snd_wl1=seq.add(HALF_CLOSED.rcv_nxt, 65536),
        rcv_wup=HALF_CLOSED.rcv_nxt,
    )
    checks.check(dataclasses.replace(HALF_CLOSED, window=window), LIMITS)


def test_everything_wrong_is_told_at_once() -> None:
    ici = dataclasses.replace(
        PLAIN,
        peer=Endpoint(ipaddress.ip_address("224.0.0.1"), 0),
        negotiated=Negotiated(True, True, True, False, 15, 99, 0, 0),
        congestion=Congestion("", 1, 1, 1, 1),
        snd_nxt=-1,
    )
    with pytest.raises(IciError) as caught:
        checks.check(ici, LIMITS)
    assert len(caught.value.problems) == 8
    assert all(problem.startswith("10.77.1.100:80 - 224.0.0.1:0: ") for problem in caught.value.problems)


@given(icis(), st.data())
def test_numbers_of_any_size_give_sentences_and_nothing_else(ici: Ici, data: st.DataObject) -> None:
    numbers = st.integers(-(2**70), 2**70)
    window = dataclasses.replace(
        ici.window, **{field.name: data.draw(numbers) for field in dataclasses.fields(ici.window)}
    )
    fixed = dataclasses.replace(ici.negotiated, snd_wscale=data.draw(numbers), mss_clamp=data.draw(numbers))
    odd = dataclasses.replace(ici, window=window, negotiated=fixed, rcv_nxt=data.draw(numbers))
    assert all(isinstance(problem, str) for problem in checks.problems(odd, LIMITS))
