"""Clients of load_shedding.py: so many connections, a numbered stream in both directions on each.

Plain sockets; it knows nothing of hosts or of passing. Prints one line of JSON: connections, numbers received
and sent, errors, and the longest time in ms for which a connection that was being sent to fell silent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

INTERVAL_S = 0.01


class Client:
    """One connection."""

    def __init__(self) -> None:
        self.sent = self.received = 0
        self.silence_s = 0.0
        self.error = ""

    async def run(self, address: str, port: int, numbers: int) -> None:
        """Until *numbers* have come, all in order; then have the server say how many it got."""
        reader, writer = await asyncio.open_connection(address, port)
        sending = asyncio.create_task(self._send(writer))
        try:
            await self._receive(reader, numbers)
            sending.cancel()
            writer.write(b"end\n")
            while not (line := await reader.readline()).startswith(b"end"):
                self._check(line)
            if line != b"end %d\n" % self.sent:
                raise ValueError(f"sent {self.sent} numbers, the server says {line!r}")
            if await reader.read():
                raise ValueError("something behind the end")
        except (OSError, ValueError) as error:
            self.error = str(error)
        finally:
            sending.cancel()
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"%d\n" % self.sent)
            self.sent += 1
            await asyncio.sleep(INTERVAL_S)

    async def _receive(self, reader: asyncio.StreamReader, numbers: int) -> None:
        heard = time.monotonic()
        while self.received < numbers:
            self._check(await reader.readline())
            now = time.monotonic()
            self.silence_s, heard = max(self.silence_s, now - heard), now

    def _check(self, line: bytes) -> None:
        if line != b"%d\n" % self.received:
            raise ValueError(f"{line!r} instead of {self.received}")
        self.received += 1


async def run(options: argparse.Namespace) -> int:
    """All clients at once; 0 if none saw anything wrong."""
    clients = [Client() for _ in range(options.connections)]
    await asyncio.gather(*(client.run(options.address, options.port, options.numbers) for client in clients))
    errors = [client.error for client in clients if client.error]
    report = {
        "connections": len(clients),
        "received": sum(client.received for client in clients),
        "sent": sum(client.sent for client in clients),
        "errors": errors,
        "longest_silence_ms": round(1000 * max(client.silence_s for client in clients), 1),
    }
    print(json.dumps(report))
    return 1 if errors else 0


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("address")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--connections", type=int, default=40)
    parser.add_argument("--numbers", type=int, default=500, help="to receive on each connection")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
