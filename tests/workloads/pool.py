"""Connections from the host's own address to redis, which each increment a counter of their own without pause.

``pool.py ADDRESS CONNECTIONS``: ends at the first answer that is not the next number. When the key ``more`` is set
it opens one connection more; when ``large`` is, each sends a large value, and the key is gone.
It speaks to redis alone, so redis knows all about it.
"""

import socket
import sys
import time

LARGE_BYTES = 1_000_000


class Counting:
    """One connection, and how far its counter is."""

    def __init__(self, address: str, name: str) -> None:
        self.asking = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.asking.settimeout(60)
        self.asking.connect((address, 6379))
        self.answers = self.asking.makefile("rb")
        self.name, self.count = name, 0

    def say(self, *words: str) -> bytes:
        """What redis answers in one line."""
        parts = [f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]
        self.asking.sendall("".join(parts).encode())
        return self.answers.readline().strip()

    def go_on(self) -> None:
        """The next number."""
        self.count += 1
        answer = self.say("INCR", self.name)
        if answer != b":%d" % self.count:
            sys.exit(f"{self.name}: {answer!r} instead of {self.count}")


def main() -> None:
    """Count until killed."""
    address, number = sys.argv[1], int(sys.argv[2])
    pool = [Counting(address, f"counter-{one}") for one in range(number)]
    while True:
        for one in pool:
            one.go_on()
        if len(pool) == number and pool[0].say("EXISTS", "more") == b":1":
            pool.append(Counting(address, f"counter-{number}"))
        if pool[0].say("EXISTS", "large") == b":1":
            for one in pool:
                one.say("SET", f"large-{one.name}", "x" * LARGE_BYTES)
            pool[0].say("DEL", "large")
        time.sleep(0.002)


if __name__ == "__main__":
    main()
