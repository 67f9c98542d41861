"""The observer of what a migration has left on a host: by the host's own tools, never with the code under test."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from harness.hosts import MOVERS
from harness.wait import eventually
from migrate.lab import Host, Lab

#: Where a migration might leave something; what may stay: caches, what has arrived, and what mount(8) keeps.
PLACES = ("/run", "/run/migrate", "/dev/shm", "/tmp", "/srv", "/opt", "/")
MAY_STAY = {"/run/migrate", "/run/migrate/probe", "/run/migrate/.arrived", "/run/criu.kdat", "/run/mount"}
#: Where one keeps something while it is under way.
KEPT = ("/run/migrate/", "/run/migrate-", "/dev/shm/", "/tmp/migrate")
INTERFACES = {"interface lo", "interface eth0"}
#: What a host has running by itself.
OWN = ("init.py hold", "/usr/sbin/sshd", "lab keeper")
SESSIONS = ("sshd-session", "sshd:")
KEEPER = "lab keeper"
#: In the line of such an event, as migrate.events.line writes it.
UNEXPECTED = '"event": "unexpected"'

_PS = "ps -e -ww -o pid=,ppid=,stat=,args="
_LOOK = f"""
{_PS}; echo @@
grep -s '^TracerPid' /proc/[0-9]*/status | grep -v '[[:space:]]0$'; echo @@
nft list ruleset; echo @@
ip rule; ip -6 rule; ip route show table all; ip -6 route show table all
for ip in 10.77.1.254 fd77:1::fe; do ip -o route get $ip | sed 's/ uid .*//'; done
for one in /sys/class/net/*; do echo "interface ${{one##*/}}"; done; echo @@
ip -o address | awk '{{print $2, $4}}'; echo @@
find {" ".join(PLACES)} -mindepth 1 -maxdepth 1 2>/dev/null; true
"""


class Process(NamedTuple):
    """One process. :ivar state: the letters of ps."""

    state: str
    words: str


class View:
    """One host at one moment, as its own tools see it.

    :ivar processes: PID -> process, without what belongs to the host itself and what the test runs there.
    :ivar own: PID -> name of those of the host itself: its init, sshd and sessions of that.
    :ivar traced: who is traced, as /proc says.
    :ivar ruleset: of the packet filter, as text. :ivar network: its tables, routing rules, routes, interfaces.
    :ivar addresses: "interface address/length"; no link-local ones, which come when they have been tried out.
    :ivar names: all files and directories in :data:`PLACES`. :ivar files: those of migrations.
    """

    def __init__(self, host: Host) -> None:
        parts = [part.splitlines() for part in host.exec(["sh", "-c", _LOOK]).stdout.split("@@\n")]
        parents = self._processes(parts[0])
        self.traced = set(parts[1])
        self.ruleset = parts[2]
        tables = {line.removesuffix(" {") for line in self.ruleset if line.startswith("table ")}
        self.network = tables | {line for line in parts[3] if line and "fe80:" not in line}
        self.addresses = {line for line in parts[4] if "fe80:" not in line}
        self.names = {line for line in parts[5] if line not in MAY_STAY}
        self.files = {line for line in self.names if line.startswith(KEPT)}
        for pid, parent in parents.items():  # an ssh program by which such a guardian asks
            if self.reminds(self.processes.get(parent)):
                self.processes.pop(pid, None)

    def _processes(self, lines: list[str]) -> dict[int, int]:
        """The parent of each process that is looked at."""
        self.processes: dict[int, Process] = {}
        self.own: dict[int, str] = {}
        found = everybody(lines)
        # What a test runs here, this look too, is the child of a keeper.
        keepers = {pid for pid, (_, one) in found.items() if KEEPER in one.words}
        for pid, (parent, one) in found.items():
            if not keepers.isdisjoint((pid, parent)):
                continue
            if any(word in one.words for word in (*OWN, *SESSIONS)):
                # The name only: sshd writes the number of sessions into its command line.
                self.own[pid] = one.words.split()[0]
            else:
                self.processes[pid] = one
        return {pid: parent for pid, (parent, _) in found.items()}

    def reminds(self, process: Process | None) -> bool:
        """Whether it is a guardian that has settled everything and announces addresses a little longer."""
        words = process.words.split() if process else []
        return words[1:3] == ["-m", "migrate.recovery.guardian"] and words[3] not in self.files

    def everything(self) -> dict[str, set[str]]:
        """All of it as text, to be compared: a process that waits is as one that computes."""
        still = {
            f"{pid} {one.state[0].replace('R', 'S').replace('D', 'S')} {one.words}"
            for pid, one in self.processes.items()
        }
        own = {f"{pid} {name}" for pid, name in self.own.items()}
        return {
            "processes": still | own | self.traced,
            "network": {*self.ruleset, *self.network},
            "addresses": self.addresses,
            "files": self.names,
        }

    def changes(self, before: View) -> list[str]:
        """What is not as it was *before*."""
        old, new = before.everything(), self.everything()
        gone = [f"gone: {line}" for kind in old for line in sorted(old[kind] - new[kind])]
        return gone + [f"left: {line}" for kind in new for line in sorted(new[kind] - old[kind])]


def everybody(lines: list[str]) -> dict[int, tuple[int, Process]]:
    """PID -> parent and process, of lines of ps; but itself, and threads of the kernel, which a machine shows."""
    split = [line.split(None, 3) for line in lines]
    return {
        int(pid): (int(parent), Process(state, words))
        for pid, parent, state, words in split
        if not words.startswith("ps -e") and not _is_kernels(words)
    }


def _is_kernels(words: str) -> bool:
    return words.startswith("[") and not words.endswith("<defunct>")


def processes(host: Host) -> dict[int, str]:
    """PID -> command line of everything on *host* but what belongs to the host itself."""
    found = everybody(host.exec(_PS.split()).stdout.splitlines())
    return {pid: one.words for pid, (_, one) in found.items() if not any(word in one.words for word in OWN)}


def addresses(host: Host) -> set[str]:
    """Every address of *host*, says ``ip``."""
    found = json.loads(host.exec(["ip", "-json", "address"]).stdout)
    return {info["local"] for interface in found for info in interface["addr_info"]}


def assert_service_on(lab: Lab, where: str, *, all_of_it: bool = True) -> None:
    """The service addresses are on *where* alone.

    :param all_of_it: False: one of them may be on the other host, because the process does not use it.
    """
    found = {name: set(lab.service) & addresses(lab.hosts[name]) for name in MOVERS}
    assert sorted(address for one in found.values() for address in one) == sorted(lab.service), found
    assert found[where] == set(lab.service) or (found[where] and not all_of_it), found


def leftovers(host: Host) -> list[str]:
    """What a migration that is over has left on *host*."""
    now = View(host)
    odd = {line for line in now.network if line.startswith("table inet ") or re.search(r"\binitcwnd\b", line)}
    links = {line for line in now.network if line.startswith("interface ")} - INTERFACES
    return sorted(odd | links | now.files) + _beside_files(host)


def _beside_files(host: Host) -> list[str]:
    """What lies beside a user's files for a while.

    The hidden directories in root's home are the machine's: no test moves anything there, and to look through them
    takes longer than all the rest where they hold tool chains.
    """
    script = """
    find /tmp /srv /root /var/log -xdev -type d -path '/root/.*' ! -name .ssh ! -name '*.migrate-*' -prune \\
        -o -name '*.migrate-*' -print 2>/dev/null
    """
    return host.exec(["sh", "-c", script], check=False).stdout.splitlines()


def strange_logs(host: Host) -> list[str]:
    """What is in the directory of logs, which is to stay, and is no private file or directory of root's."""
    script = "find /var/log/migrate -printf '%y %m %u %P\\n' 2>/dev/null"
    lines = host.exec(["sh", "-c", script], check=False).stdout.splitlines()
    wanted = re.compile(
        r"d 700 root ([0-9a-f]{12})?|f 600 root [0-9a-f]{12}/(origin|destination)(\.jsonl|-criu-\w+\.log)"
    )
    return [line for line in lines if not wanted.fullmatch(line)]


def unexpected(lab: Lab) -> set[str]:
    """What was said, awaited or journalled beside the table of the steps: lines of all logs of both hosts."""
    words = ["sh", "-c", f"grep -h -s -F '{UNEXPECTED}' /var/log/migrate/*/*.jsonl"]
    return {line for name in MOVERS for line in lab.hosts[name].exec(words, check=False).stdout.splitlines()}


def helpers(host: Host) -> list[str]:
    """Processes of ours that still run on *host*, but for the init of a PID namespace of a moved tree."""
    ours = re.compile(r"migrate|criu")
    return [
        words for words in processes(host).values() if ours.search(words) and "pid_namespace" not in words
    ]


def assert_nothing_left(lab: Lab) -> None:
    """No rule, file, route, interface or process of a migration is left on either host."""
    for name in MOVERS:
        host = lab.hosts[name]
        assert leftovers(host) == [], name
        assert strange_logs(host) == [], name
        eventually(lambda host=host: helpers(host) == [], f"the helpers on {name} have ended")  # type: ignore[misc]
