"""The program that a container's runtime finds as ``criu``: it becomes CRIU, and gives its place in the talk to us.

A runtime starts ``criu swrk NUMBER`` and speaks with it over that descriptor. This program hands the descriptor
to whoever has the socket that :data:`WHERE` beside it names, gets another one back, puts it in its place and
becomes the real CRIU. So CRIU is the runtime's child, as that expects (a restored tree becomes its child, too:
``rst_sibling``), every other descriptor that it was given has its number, and what the two say to each other goes
through our hands. If we end, both see the end of the talk.

A program of its own: it imports nothing of the project, and is copied to where the runtime finds it. What it has
to know is in a file, since a runtime need not pass an environment on: podman does not.

Source: criu/cr-service.c cr_service_work(); runc libcontainer/criu_linux.go criuSwrk(); criu/lib/c/criu.c
swrk_connect().
"""

import os
import socket
import sys
from pathlib import Path

#: Beside this program: the path of the socket, that of the real CRIU, and NAME=VALUE for its environment, any
#: number of them, with a NUL behind each.
WHERE = "where"


def main() -> None:
    """Become CRIU."""
    where, real, *more = Path(__file__).with_name(WHERE).read_text().split("\0")[:-1]
    words = sys.argv[1:]
    for one in more:
        name, _, value = one.partition("=")
        os.environ[name] = value
    if words[:1] == ["swrk"] and len(words) > 1:
        number = int(words[1])
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.connect(where)
            socket.send_fds(control, [b"swrk"], [number])
            _, descriptors, _, _ = socket.recv_fds(control, 16, 1)
        if not descriptors:  # nobody wants it any more
            sys.exit(1)
        os.dup2(descriptors[0], number)  # the runtime's own end is ours no more
        os.close(descriptors[0])
    os.execv(real, ["criu", *words])


if __name__ == "__main__":
    main()
