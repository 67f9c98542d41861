from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    ESTABLISHED: _ClassVar[State]
    SYN_SENT: _ClassVar[State]
    SYN_RECV: _ClassVar[State]
    FIN_WAIT1: _ClassVar[State]
    FIN_WAIT2: _ClassVar[State]
    TIME_WAIT: _ClassVar[State]
    CLOSE: _ClassVar[State]
    CLOSE_WAIT: _ClassVar[State]
    LAST_ACK: _ClassVar[State]
    LISTEN: _ClassVar[State]
    CLOSING: _ClassVar[State]
STATE_UNSPECIFIED: State
ESTABLISHED: State
SYN_SENT: State
SYN_RECV: State
FIN_WAIT1: State
FIN_WAIT2: State
TIME_WAIT: State
CLOSE: State
CLOSE_WAIT: State
LAST_ACK: State
LISTEN: State
CLOSING: State

class Endpoint(_message.Message):
    __slots__ = ("ip", "port")
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    ip: bytes
    port: int
    def __init__(self, ip: _Optional[bytes] = ..., port: _Optional[int] = ...) -> None: ...

class Negotiated(_message.Message):
    __slots__ = ("timestamps", "sack", "window_scaling", "ecn", "snd_wscale", "rcv_wscale", "mss_clamp", "advmss")
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    SACK_FIELD_NUMBER: _ClassVar[int]
    WINDOW_SCALING_FIELD_NUMBER: _ClassVar[int]
    ECN_FIELD_NUMBER: _ClassVar[int]
    SND_WSCALE_FIELD_NUMBER: _ClassVar[int]
    RCV_WSCALE_FIELD_NUMBER: _ClassVar[int]
    MSS_CLAMP_FIELD_NUMBER: _ClassVar[int]
    ADVMSS_FIELD_NUMBER: _ClassVar[int]
    timestamps: bool
    sack: bool
    window_scaling: bool
    ecn: bool
    snd_wscale: int
    rcv_wscale: int
    mss_clamp: int
    advmss: int
    def __init__(self, timestamps: _Optional[bool] = ..., sack: _Optional[bool] = ..., window_scaling: _Optional[bool] = ..., ecn: _Optional[bool] = ..., snd_wscale: _Optional[int] = ..., rcv_wscale: _Optional[int] = ..., mss_clamp: _Optional[int] = ..., advmss: _Optional[int] = ...) -> None: ...

class SendQueue(_message.Message):
    __slots__ = ("sent", "unsent", "fin", "fin_sent")
    SENT_FIELD_NUMBER: _ClassVar[int]
    UNSENT_FIELD_NUMBER: _ClassVar[int]
    FIN_FIELD_NUMBER: _ClassVar[int]
    FIN_SENT_FIELD_NUMBER: _ClassVar[int]
    sent: bytes
    unsent: bytes
    fin: bool
    fin_sent: bool
    def __init__(self, sent: _Optional[bytes] = ..., unsent: _Optional[bytes] = ..., fin: _Optional[bool] = ..., fin_sent: _Optional[bool] = ...) -> None: ...

class ReceiveQueue(_message.Message):
    __slots__ = ("data", "fin", "shut")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FIN_FIELD_NUMBER: _ClassVar[int]
    SHUT_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    fin: bool
    shut: bool
    def __init__(self, data: _Optional[bytes] = ..., fin: _Optional[bool] = ..., shut: _Optional[bool] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("snd_wl1", "snd_wnd", "max_window", "rcv_wnd", "rcv_wup")
    SND_WL1_FIELD_NUMBER: _ClassVar[int]
    SND_WND_FIELD_NUMBER: _ClassVar[int]
    MAX_WINDOW_FIELD_NUMBER: _ClassVar[int]
    RCV_WND_FIELD_NUMBER: _ClassVar[int]
    RCV_WUP_FIELD_NUMBER: _ClassVar[int]
    snd_wl1: int
    snd_wnd: int
    max_window: int
    rcv_wnd: int
    rcv_wup: int
    def __init__(self, snd_wl1: _Optional[int] = ..., snd_wnd: _Optional[int] = ..., max_window: _Optional[int] = ..., rcv_wnd: _Optional[int] = ..., rcv_wup: _Optional[int] = ...) -> None: ...

class Timestamp(_message.Message):
    __slots__ = ("value", "microseconds", "ts_recent")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    TS_RECENT_FIELD_NUMBER: _ClassVar[int]
    value: int
    microseconds: bool
    ts_recent: int
    def __init__(self, value: _Optional[int] = ..., microseconds: _Optional[bool] = ..., ts_recent: _Optional[int] = ...) -> None: ...

class Congestion(_message.Message):
    __slots__ = ("algorithm", "cwnd", "ssthresh", "srtt_us", "rttvar_us")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    CWND_FIELD_NUMBER: _ClassVar[int]
    SSTHRESH_FIELD_NUMBER: _ClassVar[int]
    SRTT_US_FIELD_NUMBER: _ClassVar[int]
    RTTVAR_US_FIELD_NUMBER: _ClassVar[int]
    algorithm: str
    cwnd: int
    ssthresh: int
    srtt_us: int
    rttvar_us: int
    def __init__(self, algorithm: _Optional[str] = ..., cwnd: _Optional[int] = ..., ssthresh: _Optional[int] = ..., srtt_us: _Optional[int] = ..., rttvar_us: _Optional[int] = ...) -> None: ...

class SocketOption(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...

class Ici(_message.Message):
    __slots__ = ("version", "tag", "state", "local", "peer", "ipv6_socket", "device", "negotiated", "snd_nxt", "rcv_nxt", "window", "timestamp", "congestion", "send_queue", "receive_queue", "options", "socket_filter")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    IPV6_SOCKET_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NEGOTIATED_FIELD_NUMBER: _ClassVar[int]
    SND_NXT_FIELD_NUMBER: _ClassVar[int]
    RCV_NXT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    CONGESTION_FIELD_NUMBER: _ClassVar[int]
    SEND_QUEUE_FIELD_NUMBER: _ClassVar[int]
    RECEIVE_QUEUE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SOCKET_FILTER_FIELD_NUMBER: _ClassVar[int]
    version: int
    tag: int
    state: State
    local: Endpoint
    peer: Endpoint
    ipv6_socket: bool
    device: str
    negotiated: Negotiated
    snd_nxt: int
    rcv_nxt: int
    window: Window
    timestamp: Timestamp
    congestion: Congestion
    send_queue: SendQueue
    receive_queue: ReceiveQueue
    options: _containers.RepeatedCompositeFieldContainer[SocketOption]
    socket_filter: bytes
    def __init__(self, version: _Optional[int] = ..., tag: _Optional[int] = ..., state: _Optional[_Union[State, str]] = ..., local: _Optional[_Union[Endpoint, _Mapping[str, object]]] = ..., peer: _Optional[_Union[Endpoint, _Mapping[str, object]]] = ..., ipv6_socket: _Optional[bool] = ..., device: _Optional[str] = ..., negotiated: _Optional[_Union[Negotiated, _Mapping[str, object]]] = ..., snd_nxt: _Optional[int] = ..., rcv_nxt: _Optional[int] = ..., window: _Optional[_Union[Window, _Mapping[str, object]]] = ..., timestamp: _Optional[_Union[Timestamp, _Mapping[str, object]]] = ..., congestion: _Optional[_Union[Congestion, _Mapping[str, object]]] = ..., send_queue: _Optional[_Union[SendQueue, _Mapping[str, object]]] = ..., receive_queue: _Optional[_Union[ReceiveQueue, _Mapping[str, object]]] = ..., options: _Optional[_Iterable[_Union[SocketOption, _Mapping[str, object]]]] = ..., socket_filter: _Optional[bytes] = ...) -> None: ...
