"""`make demo`: a redis server moves from one host to another while a client on a third uses it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from subprocess import PIPE

from migrate.lab import Lab

FREE_PID = 4709
WORKLOADS = Path(__file__).resolve().parent.parent / "tests" / "workloads"


def ask(client: object, word: str = "") -> dict[str, object]:
    """What the client says of itself."""
    client.stdin.write(word + "\n")  # type: ignore[attr-defined]
    client.stdin.flush()  # type: ignore[attr-defined]
    return dict(json.loads(client.stdout.readline()))  # type: ignore[attr-defined]


def wait_for_redis(lab: Lab) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + 10
    ping = ["redis-cli", "-h", lab.service.ipv4, "ping"]
    while "PONG" not in lab.hosts["peer"].exec(ping, check=False).stdout:
        if time.monotonic() > deadline:
            raise SystemExit("demo: redis-server did not start")


def play(lab: Lab) -> int:
    """The demonstration; 0 when nothing was lost."""
    origin, destination, peer = (lab.hosts[name] for name in ("origin", "destination", "peer"))
    command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/"]
    # A number that is free on a destination with so few processes too, as on hosts that have run for a while.
    origin.exec(["sh", "-c", f"echo {FREE_PID} > /proc/sys/kernel/ns_last_pid"])
    pid = origin.spawn(command)
    wait_for_redis(lab)
    print(f"redis-server runs on origin as PID {pid} and serves {lab.service.ipv4}")
    client = peer.popen(
        [sys.executable, str(WORKLOADS / "redis_counter.py"), lab.service.ipv4],
        stdin=PIPE,
        stdout=PIPE,
        text=True,
    )
    client.stdout.readline()
    before = ask(client)
    print(f"a client on peer increments a counter without pause: {before['incremented']} so far")
    print(f"\norigin$ migrate {pid} destination", flush=True)
    moved = origin.popen(["migrate", str(pid), "destination"])
    status = moved.wait(timeout=60)
    between = ask(client)
    after = ask(client, "stop")
    client.wait(timeout=10)
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
        and int(str(after["incremented"])) > int(str(between["incremented"]))
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
