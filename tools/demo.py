"""`make demo`: a redis server moves from one host to another while a client on a third uses it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from migrate.lab import Lab

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from harness.hosts import spawn  # noqa: E402
from harness.wait import eventually  # noqa: E402
from harness.workloads import Client  # noqa: E402

#: A number that is free on a destination with so few processes too, as on hosts that have run for a while.
FREE_PID = 4711


def play(lab: Lab) -> int:
    """The demonstration; 0 when nothing was lost."""
    origin, destination, peer = (lab.hosts[name] for name in ("origin", "destination", "peer"))
    command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/"]
    pid = spawn(origin, command, first_pid=FREE_PID)
    ping = ["redis-cli", "-h", lab.service.ipv4, "ping"]
    eventually(lambda: "PONG" in peer.exec(ping, check=False).stdout, "redis-server answers")
    print(f"redis-server runs on origin as PID {pid} and serves {lab.service.ipv4}")
    client = Client.start(peer, "redis_counter.py", lab.service.ipv4)
    before = client.ask()
    print(f"a client on peer increments a counter without pause: {before['incremented']} so far")
    print(f"\norigin$ migrate {pid} destination", flush=True)
    moved = origin.popen(["migrate", str(pid), "destination"])
    status = moved.wait(timeout=60)
    between = client.ask()
    after = client.stop()
    counter = int(peer.exec(["redis-cli", "-h", lab.service.ipv4, "get", "counter"]).stdout)
    where = destination.exec(["pgrep", "-x", "redis-server"], check=False).stdout.split()
    print("\nwhat the client saw")
    print(f"  increments      {after['incremented']}, of them {after['wrong_answers']} answered wrongly")
    print(f"  the counter     {counter}")
    print(f"  longest wait    {between['longest_answer_ms']} ms")
    print(f"  errors          {after['error'] or 'none'}")
    print(f"  reconnected     {'yes' if after['reconnected'] else 'never'}")
    print(f"redis-server runs on destination as PID {', '.join(where) or '-'}")
    good = (
        status == 0
        and counter == after["incremented"]
        and after["incremented"] > between["incremented"]
        and not (after["error"] or after["wrong_answers"] or after["reconnected"])
        and len(where) == 1
    )
    print("\nnothing was lost" if good else "\nSOMETHING WENT WRONG", flush=True)
    return 0 if good else 1


def main() -> int:
    """Lab up, play, lab down."""
    with Lab(f"demo-{os.getpid()}") as lab:
        print("lab up: origin, destination, gateway, peer")
        status = play(lab)
    print("lab down")
    return status


if __name__ == "__main__":
    sys.exit(main())
