"""How many sockets a process of the helper has room for: each is a descriptor, and the kernel gives it so many.

What is held is refused before that limit is reached. A request whose descriptors did not all fit could not be
told from one that makes no sense, and there would be none left to undo anything with.

Source: getrlimit(2) RLIMIT_NOFILE; net/core/scm.c scm_detach_fds().
"""

from __future__ import annotations

import resource

from tcpcp.helper.bounds import Bounds
from tcpcp.helper.protocol import MAX_SOCKETS, HelperError

#: What a worker has open beside sockets and connections: netlink, BPF programs, memory with an ICI; with some left.
RESERVE = 64
#: Of one request, which is received before it can be refused.
_REQUEST = MAX_SOCKETS + 1


def make(bounds: Bounds) -> Bounds:
    """Raise the soft limit of this process, and of those that it starts, as far as *bounds* need it.

    :return: *bounds* with as many held as there is room for.
    :raises HelperError: the hard limit leaves no room at all.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    beside = bounds.connections + RESERVE + _REQUEST
    limit = max(soft, min(beside + bounds.held, hard))
    if limit > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit <= beside:
        raise HelperError(
            f"{limit} descriptors (ulimit -Hn) are too few: {beside + 1} at least, {beside + bounds.held} for all"
        )
    return bounds._replace(held=min(bounds.held, limit - beside))
