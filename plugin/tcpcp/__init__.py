"""TCP connection passing: moves one endpoint of a TCP connection to another host; the peer is not told.

After Almesberger's "TCP Connection Passing" (2004), on Linux's TCP_REPAIR. At the origin, where :func:`prepare`
makes the first of them quick::

    ici = tcpcp.get(sock)                     # isolated from here on
    channel.sendall(tcpcp.dumps(ici))
    tcpcp.release(sock)                       # once the destination has it; or tcpcp.resume(sock)

At the destination, once packets for the connection arrive there::

    sock = tcpcp.create(tcpcp.loads(data))
    tcpcp.activate(sock)

Needs CAP_NET_ADMIN, and for half-closed connections CAP_NET_RAW too.
"""

from tcpcp.endpoint.block import passing
from tcpcp.endpoint.calls import (
    activate,
    activate_many,
    create,
    create_many,
    get,
    get_many,
    inspect,
    max_size,
    prepare,
    release,
    release_many,
    renew,
    renew_many,
    resume,
    resume_many,
    size,
)
from tcpcp.endpoint.listener import Drained, drain, hold_new
from tcpcp.endpoint.new_connections import NewConnections
from tcpcp.errors import (
    AddressInUse,
    AlreadyGot,
    CodecError,
    Expired,
    IciError,
    IsolationError,
    KernelError,
    Moved,
    NotGot,
    OtherNamespace,
    PermissionDenied,
    TcpcpError,
    Unfed,
    Unsupported,
    WrongArgument,
)
from tcpcp.record.codec import dumps, loads
from tcpcp.record.ici import (
    Congestion,
    Endpoint,
    Ici,
    Negotiated,
    ReceiveQueue,
    SendQueue,
    State,
    Timestamp,
    Window,
)
from tcpcp.record.sealed import dumps_sealed, loads_sealed
from tcpcp.version import VERSION, __version__

__all__ = [
    "VERSION",
    "__version__",
    "AddressInUse",
    "AlreadyGot",
    "CodecError",
    "Congestion",
    "Drained",
    "Endpoint",
    "Expired",
    "Ici",
    "IciError",
    "IsolationError",
    "Moved",
    "KernelError",
    "Negotiated",
    "NewConnections",
    "NotGot",
    "OtherNamespace",
    "PermissionDenied",
    "ReceiveQueue",
    "SendQueue",
    "State",
    "TcpcpError",
    "Timestamp",
    "Unfed",
    "Unsupported",
    "Window",
    "WrongArgument",
    "activate",
    "activate_many",
    "create",
    "create_many",
    "drain",
    "dumps",
    "dumps_sealed",
    "get",
    "get_many",
    "hold_new",
    "inspect",
    "loads",
    "loads_sealed",
    "max_size",
    "passing",
    "prepare",
    "release",
    "release_many",
    "renew",
    "renew_many",
    "resume",
    "resume_many",
    "size",
]
