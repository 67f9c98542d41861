"""Moves a process with stock CRIU, as careful administrators would script it today; runs on the origin.

``stock.py PID DESTINATION ADDRESS/BITS DEVICE LOCK``; LOCK is ``nftables`` or ``iptables`` (CRIU's default).

Nothing is left undone that makes it faster or safer without changing CRIU:

- Before the freeze: one SSH connection, kept open for what follows; CRIU's kernel features probed and cached
  on both hosts; directories in memory; on the destination a packet filter that drops all to the service's
  address, and on the origin one that lets no reset out: no half-built moment is answered by a reset.
- ``criu dump --tcp-established``, which locks the connections and ends in killing the process.
- The address is withdrawn at the origin.
- One pipe, ``tar | ssh`` with a quick cipher: unpacked in memory, then at once, without another round trip,
  stock_restore.sh adds the address, announces it, and restores; CRIU's post-restore hook, before the sockets
  run, removes the filter, so that the answers to their wake-up probes are not lost.

Prints a line of JSON with the time of each part in ms.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKLOADS = HERE.parent / "tests" / "workloads"
WORK = "/run/stock"
IMAGES = f"{WORK}/images"
SSH = [
    "ssh",
    "-o",
    f"ControlPath={WORK}/ssh",
    "-o",
    "Ciphers=aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr",
]


def run(*command: str) -> None:
    """Run a program to its end. :raises SystemExit: it failed; its output is shown."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")


def prepare(destination: str, address: str) -> None:
    """Everything that can be done before the freeze."""
    Path(IMAGES).mkdir(parents=True, mode=0o700)
    # The one that stays in the background keeps its outputs open: nobody may wait for their end.
    master = [*SSH, "-o", "ControlMaster=yes", "-o", "ControlPersist=120", destination, "mkdir", "-p", IMAGES]
    null = subprocess.DEVNULL
    subprocess.run(master, stdin=null, stdout=null, stderr=null, check=True)
    run("criu", "check")
    run(*SSH, destination, "criu", "check")
    ip = address.partition("/")[0]
    run("nft", table("output", f"ip saddr {ip} tcp flags rst drop"))
    run(*SSH, destination, "nft", shlex.quote(table("input", f"ip daddr {ip} meta l4proto tcp drop")))


def table(hook: str, rule: str) -> str:
    """A packet filter of one rule, in nft's language."""
    return f"table inet stock {{ chain c {{ type filter hook {hook} priority 0; {rule}; }}; }}"


def dump(pid: str, lock: str) -> None:
    """CRIU's own part."""
    words = ["criu", "dump", "--tree", pid, "--images-dir", IMAGES, "--tcp-established"]
    words += ["--network-lock", lock, "--log-file", "dump.log"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"criu dump: status {done.returncode}\n{tail('dump.log')}")


def tail(name: str) -> str:
    """The end of one of CRIU's logs."""
    return "\n".join(Path(IMAGES, name).read_text(errors="replace").splitlines()[-15:])


def carry(destination: str, address: str, device: str, lock: str) -> str:
    """Copy the images and restore from them; return the times that the other side noted."""
    restore = ["sh", str(HERE / "stock_restore.sh"), IMAGES, address, device, lock, str(HERE), str(WORKLOADS)]
    with subprocess.Popen(["tar", "-C", IMAGES, "-c", "."], stdout=subprocess.PIPE) as tar:
        done = subprocess.run(
            [*SSH, destination, *restore], stdin=tar.stdout, capture_output=True, text=True, check=False
        )
    if done.returncode or tar.returncode:
        sys.exit(f"restore: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main(pid: str, destination: str, address: str, device: str, lock: str) -> None:
    """Do all of it, and tell how long each part took."""
    marks = [("", time.monotonic())]
    prepare(destination, address)
    marks.append(("prepare", time.monotonic()))
    dump(pid, lock)
    marks.append(("dump", time.monotonic()))
    run("ip", "address", "del", address, "dev", device)
    marks.append(("address", time.monotonic()))
    noted = carry(destination, address, device, lock)
    marks.append(("copy and restore", time.monotonic()))
    phases = {name: 1000 * (at - before) for (_, before), (name, at) in zip(marks, marks[1:], strict=False)}
    size = sum(path.stat().st_size for path in Path(IMAGES).iterdir())
    print(json.dumps({"phases_ms": phases, "image_bytes": size, "noted": noted.split()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
