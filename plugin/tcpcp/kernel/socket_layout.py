"""Which fields of a TCP socket are read, and where the running kernel has them. See `kernel_fields`.

Source: include/net/sock.h, inet_sock.h, inet_connection_sock.h, include/linux/tcp.h, ipv6.h.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tcpcp.errors import KernelError
from tcpcp.kernel.btf import Extent, Types


def _paths(text: str) -> list[str]:
    return text.split()


_BTF = Path("/sys/kernel/btf/vmlinux")
_STRUCTS = _paths("""task_struct files_struct fdtable file socket sock inet_sock ipv6_pinfo inet_connection_sock
    tcp_sock""")
#: How the program gets from a descriptor to its socket.
_WAY = _paths("""task_struct.files files_struct.fdt fdtable.max_fds fdtable.fd file.private_data socket.file
    socket.sk sock.sk_socket sock.sk_protocol sock.sk_type sock.__sk_common.skc_family""")
#: From which follow both ends. Of an IPv6 address the two halves.
_ENDS = _paths("""sock.__sk_common.skc_family inet_sock.inet_sport sock.__sk_common.skc_dport
    sock.__sk_common.skc_rcv_saddr sock.__sk_common.skc_daddr sock.__sk_common.skc_v6_rcv_saddr
    sock.__sk_common.skc_v6_daddr""")
_IPV6 = frozenset({"sock.__sk_common.skc_v6_rcv_saddr", "sock.__sk_common.skc_v6_daddr"})
#: A kernel that is built without the one or the other has no such member.
KEYS = ("tcp_sock.md5sig_info", "tcp_sock.ao_info")
#: Two pointers: what goes in, what goes out.
POLICIES = "sock.sk_policy"
#: What part of the kernel has taken the socket over, such as a BPF program's map of sockets (include/net/sock.h
#: SK_USER_DATA_PSOCK).
OWNER = "sock.sk_user_data"
#: What is 0 where there is nothing special.
_SPECIAL = ("sock.sk_shutdown", "sock.sk_filter", "tcp_sock.urg_data")
#: The fields of :class:`tcpcp.kernel.fields.Numbers`, in its order.
_NUMBERS = _paths("""tcp_sock.write_seq tcp_sock.snd_nxt tcp_sock.snd_una tcp_sock.rcv_nxt
    sock.__sk_common.skc_state tcp_sock.urg_data tcp_sock.snd_up
    tcp_sock.copied_seq tcp_sock.snd_wl1 tcp_sock.snd_wnd
    tcp_sock.max_window tcp_sock.rcv_wnd tcp_sock.rcv_wup tcp_sock.snd_cwnd tcp_sock.snd_ssthresh
    tcp_sock.srtt_us tcp_sock.mdev_us sock.sk_sndbuf sock.sk_rcvbuf tcp_sock.window_clamp
    tcp_sock.rx_opt.ts_recent tcp_sock.rx_opt.ts_recent_stamp tcp_sock.tcp_wstamp_ns tcp_sock.tcp_clock_cache
    tcp_sock.ecn_flags sock.sk_txhash""")
#: The next of them, behind the others.
_IPV6_NUMBERS = _paths("ipv6_pinfo.flow_label")
#: What :class:`tcpcp.kernel.fields.Fields` cannot do without.
_LEAST = frozenset({"tcp_sock.rx_opt.ts_recent"})
#: What the handshake fixed.
_AGREED = _paths("""tcp_sock.rx_opt.tstamp_ok tcp_sock.rx_opt.wscale_ok tcp_sock.rx_opt.sack_ok
    tcp_sock.rx_opt.snd_wscale tcp_sock.rx_opt.rcv_wscale tcp_sock.rx_opt.mss_clamp tcp_sock.advmss
    tcp_sock.ecn_flags""")
#: What kind of socket it is.
_KIND = _paths("""sock.__sk_common.skc_state sock.__sk_common.skc_net sock.__sk_common.skc_family sock.sk_type
    sock.sk_protocol sock.__sk_common.skc_bound_dev_if tcp_sock.repair inet_connection_sock.icsk_ca_ops
    inet_connection_sock.icsk_ulp_ops""")
#: What stands behind socket options. Another kernel may have others: which options these tell apart is tried
#: out (`fingerprint`).
_SETTINGS = _paths("""
    sock.sk_userlocks sock.__sk_common.skc_flags sock.__sk_common.skc_reuse sock.__sk_common.skc_reuseport
    sock.__sk_common.skc_ipv6only sock.sk_priority sock.sk_lingertime sock.sk_rcvtimeo sock.sk_sndtimeo
    sock.sk_rcvlowat sock.sk_mark sock.sk_peek_off sock.sk_ll_usec sock.sk_prefer_busy_poll sock.sk_txrehash
    sock.sk_max_pacing_rate inet_sock.tos inet_sock.uc_ttl inet_sock.pmtudisc inet_sock.inet_flags
    inet_sock.min_ttl inet_sock.recverr inet_sock.freebind inet_sock.transparent inet_sock.recverr_rfc4884
    inet_connection_sock.icsk_user_timeout inet_connection_sock.icsk_rto_min inet_connection_sock.icsk_rto_max
    inet_connection_sock.icsk_delack_max tcp_sock.nonagle tcp_sock.keepalive_time tcp_sock.keepalive_intvl
    tcp_sock.keepalive_probes tcp_sock.linger2 tcp_sock.thin_lto tcp_sock.notsent_lowat tcp_sock.recvmsg_inq
    tcp_sock.tcp_tx_delay""")
_IPV6_SETTINGS = _paths("""ipv6_pinfo.pmtudisc ipv6_pinfo.tclass ipv6_pinfo.min_hopcount ipv6_pinfo.recverr
    ipv6_pinfo.recverr_rfc4884 ipv6_pinfo.autoflowlabel ipv6_pinfo.autoflowlabel_set""")

SLOT_BYTES = 8


_Slots = list[Extent | None]


@dataclass(frozen=True)
class Layout:
    """Where what is in a struct tcp_sock; each piece has up to 8 bytes. None: this kernel has not got it.

    :ivar way: of the structs on the way to the socket, by path.
    :ivar pinet6: the pointer to what an IPv6 socket has besides; *ipv6_settings* and *ipv6_numbers* are behind it.
    :ivar whole: all is there that has to be; else only what :class:`tcpcp.kernel.fields.Fields` needs.
    """

    way: dict[str, Extent]
    cookie: _Slots
    ends: _Slots
    special: _Slots
    settings: _Slots
    pinet6: Extent | None
    ipv6_settings: _Slots
    numbers: _Slots
    ipv6_numbers: _Slots
    refused: _Slots
    agreed: _Slots
    whole: bool


def of_kernel() -> Layout:
    """That of the running kernel; takes 40 ms.

    :raises KernelError: it does not say, or has not even what is always needed.
    """
    try:
        types = Types(_BTF.read_bytes(), _STRUCTS)
    except OSError as exc:
        raise KernelError(f"open({_BTF})", exc.errno or errno.ENOENT) from exc
    way = {path: types.extent(path) for path in _WAY}
    try:
        return _whole(types, way)
    except KernelError:
        numbers = [types.extent(path) if path in _LEAST else None for path in _NUMBERS]
        ends: _Slots = [None] * _ENDS_SLOTS
        refused = _of_what_is_refused(types)
        return Layout(way, [None], ends, [], [], None, [], numbers, [None], refused, [], whole=False)


#: The two addresses of IPv6 have two slots each.
_ENDS_SLOTS = len(_ENDS) + len(_IPV6)


def _whole(types: Types, way: dict[str, Extent]) -> Layout:
    refused = _of_what_is_refused(types)
    pinet6 = _optional(types, "inet_sock.pinet6")
    settings = [*_needed(types, _KIND), *(_optional(types, path) for path in _SETTINGS)]
    behind = [_optional(types, path) for path in _IPV6_SETTINGS] if pinet6 else []
    ipv6_numbers = [_optional(types, path) if pinet6 else None for path in _IPV6_NUMBERS]
    return Layout(
        way,
        _needed(types, ["sock.__sk_common.skc_cookie"]),
        _ends(types),
        [*_needed(types, _SPECIAL), *refused],
        _distinct(settings),
        pinet6,
        _distinct(behind),
        _needed(types, _NUMBERS),
        ipv6_numbers,
        refused,
        _distinct(_needed(types, _AGREED)),
        whole=True,
    )


def _of_what_is_refused(types: Types) -> _Slots:
    """Two keys, two policies of IPsec, and who has taken it over."""
    found = _optional(types, POLICIES)
    halves = (found.offset, found.offset + found.size // 2) if found else ()
    policies: _Slots = [Extent(at, found.size // 2) for at in halves if found] or [None, None]
    return [*(_optional(types, path) for path in KEYS), *policies, _optional(types, OWNER)]


def _needed(types: Types, paths: Iterable[str]) -> _Slots:
    return [types.extent(path) for path in paths]


def _optional(types: Types, path: str) -> Extent | None:
    try:
        return types.extent(path)
    except KernelError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return None


def _distinct(slots: _Slots) -> _Slots:
    """Bit fields share their bytes."""
    return [one for one in dict.fromkeys(slots) if one]


def _ends(types: Types) -> _Slots:
    slots: _Slots = []
    for path in _ENDS:
        if path not in _IPV6:
            slots.append(types.extent(path))
        elif found := _optional(types, path):
            slots += [Extent(found.offset, 8), Extent(found.offset + 8, 8)]
        else:
            slots += [None, None]
    return slots
