"""A peer that sends two parts, the second when it is told to, and reads all that it is sent.

``two_parts.py ADDRESS PORT BYTES``: sends the first part and prints ``ready``; at a line on standard input sends
the second and its end, reads to the other side's end, and prints the count and SHA-256 of that, as JSON.
"""

import hashlib
import json
import socket
import sys

from passer import content


def main() -> None:
    address, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with socket.create_connection((address, port)) as connection:
        connection.sendall(content("first", size))
        print("ready", flush=True)
        sys.stdin.readline()
        connection.sendall(content("second", size))
        connection.shutdown(socket.SHUT_WR)
        digest, count = hashlib.sha256(), 0
        while data := connection.recv(1 << 16):
            digest.update(data)
            count += len(data)
    print(json.dumps([count, digest.hexdigest()]), flush=True)


if __name__ == "__main__":
    main()
