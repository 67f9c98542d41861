"""The socket options that are not in `option_table`, by kernel name, and where they are instead. Pure.

Together the two name every option that an ICI carries or leaves out (`tcpcp.record`), which is every option of the
kernel's headers; a test compares. What no call reads is lost, and docs/supported.md says so.
"""

from __future__ import annotations

from collections.abc import Mapping

from tcpcp.record.option_names import IPPROTO_TCP, OPTIONS

_CRIU = "CRIU dumps and restores it"
_TCP = "of TCP only: an ICI carries it, or a listener's, or tells why not"
_READ_ONLY = "read only"
_ACT = "an act, not a state; what it has done is refused, or CRIU's"
_UNREAD = "no call reads it: docs/supported.md says that it is lost"
_REFUSED = "CRIU cannot dump such a socket, and says so"
_HOST = "of this host: its processors, its devices, its accounts of memory"
_NO_EFFECT = "has no effect, or cannot be changed, in Linux"
_ANOTHER = "another name, or another shape, of one that is carried"

_BY_REASON = {
    _CRIU: """SO_BROADCAST SO_NO_CHECK SO_PASSCRED SO_PASSSEC SO_LINGER SO_BINDTODEVICE SO_BINDTOIFINDEX
        SO_ATTACH_FILTER SO_GET_FILTER IP_HDRINCL IP_NODEFRAG IPV6_HDRINCL""",
    _TCP: """SO_TXREHASH TCP_CONGESTION TCP_MD5SIG TCP_MD5SIG_EXT TCP_ULP TCP_AO_ADD_KEY TCP_AO_DEL_KEY TCP_AO_INFO
        TCP_AO_GET_KEYS TCP_AO_REPAIR TCP_REPAIR TCP_REPAIR_QUEUE TCP_QUEUE_SEQ TCP_REPAIR_OPTIONS
        TCP_REPAIR_WINDOW TCP_TIMESTAMP TCP_ZEROCOPY_RECEIVE""",
    _READ_ONLY: """SO_TYPE SO_ERROR SO_ACCEPTCONN SO_PROTOCOL SO_DOMAIN SO_PEERNAME SO_PEERSEC SO_BPF_EXTENSIONS
        SO_MEMINFO SO_COOKIE SO_NETNS_COOKIE SO_PEERGROUPS SO_PEERCRED SO_PEERPIDFD SO_SNDLOWAT TCP_INFO
        TCP_CC_INFO TCP_IS_MPTCP TCP_SAVED_SYN IP_MTU IP_PKTOPTIONS IP_PROTOCOL IPV6_PATHMTU
        IPV6_2292PKTOPTIONS""",
    _ACT: """SO_DETACH_FILTER SO_DETACH_BPF SO_DETACH_REUSEPORT_BPF SO_CNX_ADVICE IPV6_ADDRFORM IP_ADD_MEMBERSHIP
        IP_DROP_MEMBERSHIP IP_UNBLOCK_SOURCE IP_BLOCK_SOURCE IP_ADD_SOURCE_MEMBERSHIP IP_DROP_SOURCE_MEMBERSHIP
        IP_MSFILTER IPV6_ADD_MEMBERSHIP IPV6_DROP_MEMBERSHIP IPV6_LEAVE_ANYCAST""",
    _REFUSED: "SO_ATTACH_BPF",
    _UNREAD: """SO_ATTACH_REUSEPORT_CBPF SO_ATTACH_REUSEPORT_EBPF SO_BUSY_POLL_BUDGET IP_XFRM_POLICY IPV6_PKTINFO
        IPV6_MTU IPV6_ROUTER_ALERT IPV6_JOIN_ANYCAST IPV6_FLOWLABEL_MGR""",
    _HOST: """SO_INCOMING_CPU SO_INCOMING_NAPI_ID SO_RESERVE_MEM SO_DEVMEM_LINEAR SO_DEVMEM_DMABUF
        SO_DEVMEM_DONTNEED""",
    _NO_EFFECT: """SO_BSDCOMPAT SO_SECURITY_AUTHENTICATION SO_SECURITY_ENCRYPTION_TRANSPORT
        SO_SECURITY_ENCRYPTION_NETWORK TCP_THIN_DUPACK TCP_COOKIE_TRANSACTIONS IPV6_NEXTHOP IPV6_AUTHHDR
        IPV6_USE_MIN_MTU""",
    _ANOTHER: """SO_RCVTIMEO_OLD SO_SNDTIMEO_OLD SO_RCVTIMEO_NEW SO_SNDTIMEO_NEW SO_TIMESTAMP_OLD SO_TIMESTAMPNS_OLD
        SO_TIMESTAMPING_OLD SO_SNDBUFFORCE SO_RCVBUFFORCE TCP_CM_INQ IP_RECVRETOPTS IP_ORIGDSTADDR
        IPV6_ORIGDSTADDR IPV6_HOPLIMIT IP_IPSEC_POLICY IPV6_IPSEC_POLICY IPV6_XFRM_POLICY""",
}

#: Option -> where it is.
ELSEWHERE: Mapping[str, str] = {
    **{one.name: _CRIU for one in OPTIONS.values() if one.saved_by_criu},
    **{one.name: _TCP for one in OPTIONS.values() if one.level == IPPROTO_TCP},
    **{name: reason for reason, names in _BY_REASON.items() for name in names.split()},
}
