"""``moves.py --moves 300``: one server with 30 streams goes back and forth; nothing may grow, on either host.

The kernel's own tables are looked at: descriptors, memory and mappings of the server, rules, routes, addresses,
processes, zombies and files of both hosts; BPF maps and cgroups of the machine, which are others' too, are told
only. Exit status 1 if a connection was lost, or something grew; the gaps are printed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import hosts  # noqa: E402
from world import SIDES, World  # noqa: E402

STREAMS = 15
#: Moves at either end whose medians are compared.
EDGE = 30
#: The server's resident memory may grow by so much over all moves: what Python's allocator does with 30 streams.
MEMORY_KB = 4096
_BPF_MAP_GET_NEXT_ID, _SYS_BPF = 12, 321
#: What of one look may not grow, and by how much at most: the table of mappings wavers with the allocator.
LEEWAY = {
    "descriptors": 0,
    "mappings": 8,
    "rules": 0,
    "routes": 0,
    "addresses": 0,
    "processes": 0,
    "files": 0,
}


def maps_of_machine() -> int:
    """How many BPF maps there are, whoever has them. Source: bpf(2), BPF_MAP_GET_NEXT_ID."""
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = (ctypes.c_uint32 * 3)()
    count = 0
    while (
        libc.syscall(_SYS_BPF, _BPF_MAP_GET_NEXT_ID, ctypes.byref(attributes), ctypes.sizeof(attributes)) == 0
    ):
        count += 1
        attributes[0] = attributes[1]
    return count


_COUNT = """
nft list ruleset | wc -l; (ip rule; ip -6 rule) | wc -l; ip address | grep -c inet
ps -e -o stat= | grep -c Z; ls -A /run/migrate /dev/shm /tmp | grep -vc beats
ls -d /run/migrate-* 2>/dev/null | wc -l
(ip route show table all; ip -6 route show table all) | grep -v fe80 | wc -l; ps -e | wc -l
"""
_NAMES = ("rules", "routing rules", "addresses", "zombies", "files", "run files", "routes", "processes")


def look(world: World, where: str) -> dict[str, int]:
    """The size of everything, summed over both hosts, and of the server on *where*."""
    found = dict.fromkeys(_NAMES, 0)
    for side in SIDES:
        words = world.host(side).exec(["sh", "-c", _COUNT], check=False).stdout.split()
        for name, word in zip(_NAMES, words, strict=True):
            found[name] += int(word)
    proc = Path(f"/proc/{hosts.find(world.host(where), 'server')[0].machine_pid}")
    found["descriptors"] = len([*(proc / "fd").iterdir()])
    found["mappings"] = len((proc / "maps").read_text().splitlines())
    found["memory kB"] = int((proc / "status").read_text().partition("VmRSS:")[2].split()[0])
    found["threads"] = len([*(proc / "task").iterdir()])
    found["maps of the machine"] = maps_of_machine()
    found["cgroups of the machine"] = len([*(world.host(where).root / "sys/fs/cgroup").glob("migrate-*")])
    return found


def quiet_look(world: World, where: str) -> dict[str, int]:
    """:func:`look` when guardians have ended; what wavers at its least in some seconds."""
    found = look(world, where)
    for _ in range(10):
        time.sleep(0.5)
        now = look(world, where)
        found = {name: min(count, now[name]) for name, count in found.items()}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=300)
    moves = parser.parse_args().moves
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the lab is taken down
    world = World(f"moves-{os.getpid()}")
    world.bench.streams = STREAMS
    try:
        return _several(world, moves)
    finally:
        world.close()


def _several(world: World, moves: int) -> int:
    world.bench.start()
    frozen: list[float] = []
    silences: list[float] = []
    first: dict[str, int] = {}
    for number in range(moves):
        start, end = SIDES[number % 2], SIDES[1 - number % 2]
        world.bench.ask()
        status, report = world.bench.migrate(str(world.bench.pid), end, host=start)
        seen = world.bench.ask()
        if status or seen["errors"]:
            print(f"move {number}: {status} {seen['errors']} {json.dumps(report)}", flush=True)
            return 1
        frozen.append(report["frozen_ms"])
        silences.append(seen["longest_silence_ms"])
        print(f"move {number}  frozen {frozen[-1]:.0f} ms  silence {silences[-1]:.0f} ms", flush=True)
        if number == 1:  # there and back once: from here on nothing grows
            first = quiet_look(world, end)
            print(f"at first {first}", flush=True)
        elif number % 50 == 49:
            print(f"now      {look(world, end)}", flush=True)
    world.bench.assert_streams()
    last = quiet_look(world, SIDES[moves % 2])
    print(f"at last  {last}")
    for name, values in (("frozen", frozen), ("silence", silences)):
        before, after = statistics.median(values[:EDGE]), statistics.median(values[-EDGE:])
        print(f"{name}: median {before:.0f} ms, then {after:.0f} ms: ratio {after / before:.2f}")
    grown = _grown(first, last)
    print("\n".join(grown) or "nothing has grown")
    return int(bool(grown))


def _grown(first: dict[str, int], last: dict[str, int]) -> list[str]:
    """What is more than it was; the machine's maps are everybody's, and are only told."""
    leeway = dict.fromkeys(_NAMES, 0) | LEEWAY | {"memory kB": MEMORY_KB, "threads": 0}
    return [
        f"{name} has grown: {first[name]} to {last[name]}"
        for name, most in leeway.items()
        if last[name] > first[name] + most
    ]


if __name__ == "__main__":
    sys.exit(main())
