"""Passes connections for programs without CAP_NET_ADMIN: a small daemon, and the client to ask it with.

In a program that runs as a user whom the daemon knows::

    with helper.connect() as passing:
        ici = passing.get(sock)               # as tcpcp.get(sock)
        channel.sendall(tcpcp.dumps(ici))
        passing.release(sock)

`protocol`, `policy`: pure; `descriptors`: what travels beside the packets; `client`; on the other side `server`,
who asks, and for each user one `worker` with its `service`, what is done. What a user can do through it, and
what not: docs/helper.md.
"""

from tcpcp.helper.client import DEFAULT_PATH, Client, connect
from tcpcp.helper.protocol import HelperError

__all__ = ["DEFAULT_PATH", "Client", "HelperError", "connect"]
