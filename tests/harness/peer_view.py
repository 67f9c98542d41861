"""How a move looked to the peer: judges each connection of a capture that was taken there.

    python tests/harness/peer_view.py CAPTURE.pcap [--moves T1,T2] [--json FILE] [--tshark]
                              [--most-silence-ms MS] [--most-retransmissions N]

The capture holds whole packets (``tcpdump -w FILE -s 0``) and begins before the connections do, else the
window's edge cannot be known. Moves are in seconds since the epoch. Both directions are judged by the rules of
:mod:`harness.tcp_rules`. Silence and retransmissions are reported, and judged if a limit is given. Exit status:
0 all is well, 1 something is wrong, 2 the file cannot be read or holds no connection.

Segment sizes are seen only where offload joins nothing: ``ip link set DEVICE gso_max_segs 1`` at the sender.
With --tshark a second opinion, that of Wireshark's TCP analysis, stands beside; it decides nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from harness.pcap import Unreadable, read
from harness.tcp_rules import Connection, Direction, connections

_COLUMNS = ("from", "to", "packets", "bytes", "retrans", "silence ms", "segment", "faults")


def tshark_flags(path: Path) -> dict[str, int]:
    """What Wireshark's analysis finds remarkable, and how often.

    :raises OSError, subprocess.CalledProcessError: there is no tshark, or it cannot read the file.
    """
    command = [
        "tshark",
        "-r",
        str(path),
        "-Y",
        "tcp.analysis.flags",
        "-T",
        "fields",
        "-e",
        "_ws.expert.message",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(Counter(line for line in done.stdout.splitlines() if line))


def judge(
    path: Path,
    moves: Sequence[float] = (),
    *,
    most_silence_ms: float | None = None,
    most_retransmissions: int | None = None,
) -> dict[str, Any]:
    """The view of *path* as JSON types: ``ok``, and ``connections`` with a direction each way.

    :raises Unreadable: not a capture.
    """
    rows = [
        [_direction(one, side, other) for side, other in (one.ends, one.ends[::-1])]
        for one in connections(read(path), moves)
    ]
    for row in (row for pair in rows for row in pair):
        if most_silence_ms is not None and row["longest_silence_ms"] > most_silence_ms:
            row["faults"].append(f"silent for {row['longest_silence_ms']:.1f} ms")
        if most_retransmissions is not None and row["retransmitted"] > most_retransmissions:
            row["faults"].append(f"{row['retransmitted']} retransmissions")
    ok = bool(rows) and not any(row["faults"] for pair in rows for row in pair)
    return {"capture": str(path), "ok": ok, "connections": rows}


def _direction(one: Connection, side: tuple[str, int], other: tuple[str, int]) -> dict[str, Any]:
    mine: Direction = one.sides[side]
    return {
        "from": mine.name,
        "to": one.sides[other].name,
        "packets": mine.packets,
        "data_bytes": max(0, mine.data_bytes - 1) if mine.syn_seen else mine.data_bytes,
        "retransmitted": mine.retransmitted,
        "longest_silence_ms": round(mine.longest_silence_ms, 3),
        "silence_at_s": mine.silence_at_s,
        "segment_bytes": [max(mine.sizes[moved]) for moved in sorted(mine.sizes)],
        "joined": mine.joined,
        "window_known": mine.edge is not None,
        "faults": list(mine.faults),
    }


def table(view: dict[str, Any]) -> str:
    """*view* for people: a line a direction, then every fault."""
    rows = [row for pair in view["connections"] for row in pair]
    cells = [list(_COLUMNS)] + [_cells(row) for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    lines += [f"{row['from']} -> {row['to']}: {fault}" for row in rows for fault in row["faults"]]
    lines += [f"tshark: {count} x {text}" for text, count in view.get("tshark", {}).items()]
    if not rows:
        lines.append("no TCP connection in this capture")
    return "\n".join(line.rstrip() for line in lines)


def _cells(row: dict[str, Any]) -> list[str]:
    sizes = " ".join(map(str, row["segment_bytes"])) or ("joined" if row["joined"] else "-")
    numbers = (row["packets"], row["data_bytes"], row["retransmitted"], f"{row['longest_silence_ms']:.1f}")
    return [row["from"], row["to"], *map(str, numbers), sizes, str(len(row["faults"]) or "-")]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description="Judge what a move looked like to the peer.")
    parser.add_argument("capture", type=Path)
    parser.add_argument("--moves", default="", help="times of moves, seconds since the epoch, by commas")
    parser.add_argument("--json", type=Path, help="write the view there")
    parser.add_argument("--tshark", action="store_true", help="add Wireshark's opinion")
    parser.add_argument("--most-silence-ms", type=float)
    parser.add_argument("--most-retransmissions", type=int)
    options = parser.parse_args(argv)
    try:
        moves = [float(text) for text in options.moves.split(",") if text]
        limits = {
            "most_silence_ms": options.most_silence_ms,
            "most_retransmissions": options.most_retransmissions,
        }
        view = judge(options.capture, moves, **limits)
        if options.tshark:
            view["tshark"] = tshark_flags(options.capture)
    except (Unreadable, OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"peer_view: {options.capture}: {error}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(view, indent=1) + "\n")
    print(table(view))
    if not view["connections"]:
        return 2
    return 0 if view["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
