"""How much processor time get, create and activate take for a connection. A program, not a test:

.venv/bin/python tests/facts/bench_passing.py [CONNECTIONS [BYTES]]
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from netns import Hosts  # noqa: E402

from tcpcp.endpoint import calls  # noqa: E402
from tcpcp.kernel import nft  # noqa: E402


def main(connections: int = 1000, size_bytes: int = 0) -> None:
    hosts = Hosts()
    pairs = [hosts.connect() for _ in range(connections)]
    socks = [sock for sock, _ in pairs]
    for _, peer in pairs:
        peer.sendall(b"x" * size_bytes)
    with hosts.here.entered():
        for _ in range(3):
            gc.collect()
            began = time.thread_time()
            icis = calls.get_many(socks)
            got = time.thread_time()
            calls.release_many(socks)
            released = time.thread_time()
            socks = calls.create_many(icis)
            created = time.thread_time()
            calls.activate_many(socks)
            activated = time.thread_time()
            parts = [got - began, created - released, activated - created, released - got]
            us = [f"{1e6 * part / connections:.1f}" for part in parts]
            total = 1e6 * sum(parts[:3]) / connections
            print(f"get {us[0]}, create {us[1]}, activate {us[2]}: {total:.1f} us (release {us[3]})")
    nft.close()
    hosts.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
