"""Every fault: a row of one table, and a function that does it and may return how it is undone.

A function gets the world, the words of its row ("how"), and does its work at once: what takes long is begun. What
it returns is called when the driver has ended and both sides have had the time to notice.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

import hosts
from world import NoVictim, World

Undo = Callable[[], None]
SIDES = ("origin", "destination")
SECONDS = {"1 s": 1.0, "10 s": 10.0, "for ever": 0.0}


@dataclass(frozen=True, slots=True)
class Fault:
    """One row.

    :ivar hows: one of these is drawn and given to *do*.
    :ivar deadly: whether the process itself may end of it.
    """

    do: Callable[[World, str], Undo | None]
    weight: float
    hows: tuple[str, ...] = ()
    deadly: bool = False


# --- processes that take part -----------------------------------------------------------------------------


def kill(world: World, how: str) -> None:
    """kill -9 of one of those who take part: "WHO SIDE"."""
    for one in world.victims(how):
        hosts.send(one, signal.SIGKILL)


def kill_together(world: World, how: str) -> None:
    """kill -9 of several who take part on one side, as one after the other as we can: "WHO ... SIDE"."""
    *names, side = how.split()
    found = []
    for name in names:
        with contextlib.suppress(NoVictim):
            found += world.victims(f"{name} {side}")
    if not found:
        raise NoVictim(how)
    for one in found:
        hosts.send(one, signal.SIGKILL)


def stop(world: World, how: str) -> Undo:
    """SIGSTOP, and SIGCONT some seconds later: "WHO SIDE SECONDS"."""
    who, _, seconds = how.rpartition(" ")
    found = world.victims(who)
    for one in found:
        hosts.send(one, signal.SIGSTOP)

    def go_on() -> None:
        for one in found:
            hosts.send(one, signal.SIGCONT)

    return world.later(float(seconds), go_on)


def ask_to_end(world: World, how: str) -> None:
    """Ctrl-C, SIGTERM, SIGHUP for the driver, once or twice; it may end of the first."""
    first, *again = how.split()
    hosts.send(world.victims("driver origin")[0], signal.Signals[f"SIG{first}"])
    with contextlib.suppress(NoVictim, ProcessLookupError):
        for name in again:
            world.sleep(0.1)
            hosts.send(world.victims("driver origin")[0], signal.Signals[f"SIG{name}"])


def starve(world: World, how: str) -> None:
    """A limit on the memory of one who takes part, just above what it has."""
    for one in world.victims(how):
        size = world.virtual_bytes(one) + (1 << 20)
        resource.prlimit(one.machine_pid, resource.RLIMIT_AS, (size, size))


def no_sshd(world: World, _: str) -> Undo:
    """No SSH at all on the destination any more: neither sessions nor a listener."""
    world.run("destination", "pkill -9 sshd")
    return lambda: world.run(
        "destination", "pgrep -f 'sshd.*[l]istener' || /usr/sbin/sshd -E /var/log/sshd.log"
    )


# --- the link and the network -----------------------------------------------------------------------------


def link(world: World, how: str) -> Undo:
    """Packets of SSH vanish, are refused, or come slowly: "WHAT for HOW LONG"."""
    what, _, long = how.partition(", ")
    mend = world.break_link(what)
    return world.later(SECONDS[long], mend) if SECONDS[long] else mend


def neighbours(world: World, how: str) -> None:
    """What a host knows of its neighbours is forgotten."""
    world.run(how, "ip neigh flush all; ip -6 neigh flush all")


def take_address(world: World, how: str) -> Undo:
    """A service address is on the destination already, where nobody else hears of it."""
    ip = world.lab.service.ipv4 if how == "IPv4" else world.lab.service.ipv6
    bits = "32" if how == "IPv4" else "128"
    world.run("destination", f"sysctl -qw net.ipv4.conf.eth0.arp_ignore=1; ip address add {ip}/{bits} dev lo")
    return lambda: world.run(
        "destination", f"ip address del {ip}/{bits} dev lo; sysctl -qw net.ipv4.conf.eth0.arp_ignore=0"
    )


# --- space and numbers ------------------------------------------------------------------------------------


def full(world: World, how: str) -> Undo:
    """A memory file system has a few pages left: "DIRECTORY SIDE"."""
    directory, side = how.split()
    used = f"$(df --output=used -B1 {directory} | tail -1)"
    world.run(side, f"mount -o remount,size=$(( {used} + 4096 )) {directory}")
    return lambda: world.run(side, f"mount -o remount,size=4g {directory}")


def take_pid(world: World, _: str) -> Undo:
    """Somebody else on the destination has the number of the process."""
    pid = world.bench.pid
    script = f"n=0; while [ $n -lt 20 ]; do n=$((n+1)); echo {pid - 1} > /proc/sys/kernel/ns_last_pid; " + (
        "sleep 4343 >/dev/null 2>&1 & [ $! = " + f"{pid} ] && exit 0; kill -9 $!; done"
    )
    world.run("destination", script)
    return lambda: world.run("destination", "pkill -9 -fx 'sleep 4343'")


# --- what happens to the process itself, and what it does -------------------------------------------------


def signalled(world: World, how: str) -> Undo | None:
    """A signal for the process, from anybody: "NAME SIDE"."""
    name, side = how.split()
    found = world.victims(f"server {side}")
    for one in found[:1]:
        hosts.send(one, signal.Signals[f"SIG{name}"])
    return (lambda: world.go_on_everywhere()) if name in ("STOP", "TSTP") else None


def many_conts(world: World, _: str) -> Undo:
    """SIGCONT again and again."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(0.01):
            for one in hosts.find(world.bench.origin, "server"):
                hosts.send(one, signal.SIGCONT)

    threading.Thread(target=loop, daemon=True).start()
    return ended.set


def owner_kills(world: World, how: str) -> None:
    """Its owner has had enough of it: "NAME SIDE"."""
    name, side = how.split()
    for one in world.victims(f"server {side}")[:1]:
        hosts.send(one, signal.Signals[f"SIG{name}"])


def mischief(world: World, how: str) -> None:
    """The process forks, has children that are other programs, or ends."""
    world.tell_server(how)


def callers(world: World, _: str) -> None:
    """500 new connections a second."""
    world.callers()


def _each(names: tuple[str, ...], *others: tuple[str, ...]) -> tuple[str, ...]:
    found = names
    for words in others:
        found = tuple(f"{one} {word}" for one in found for word in words)
    return found


WHO = (
    *("driver origin", "agent destination", "guardian origin", "guardian destination"),
    *("criu origin", "criu destination", "sshd destination", "keeper origin"),
)
LINK = ("cut", "cut to origin", "cut to destination", "reset", "slow")

FAULTS: dict[str, Fault] = {
    "kill": Fault(kill, 12, WHO),
    "kill-together": Fault(kill_together, 4, ("agent criu destination", "agent criu guardian destination")),
    "stop": Fault(stop, 9, _each(WHO[:-1], ("0.5", "3", "8"))),
    "interrupt": Fault(ask_to_end, 4, ("INT", "TERM", "HUP", "INT INT", "TERM TERM", "INT TERM")),
    "starve": Fault(starve, 2, ("driver origin", "agent destination", "criu destination")),
    "no-sshd": Fault(no_sshd, 1.5),
    "link": Fault(link, 8, tuple(f"{what}, {long}" for what in LINK for long in SECONDS)),
    "neighbours": Fault(neighbours, 2, ("gateway", "peer", *SIDES)),
    "address-taken": Fault(take_address, 2, ("IPv4", "IPv6")),
    "full": Fault(full, 3, _each(("/dev/shm", "/run"), SIDES)),
    "pid-taken": Fault(take_pid, 2),
    "signal": Fault(signalled, 4, _each(("USR1", "HUP", "WINCH", "CONT", "STOP"), SIDES)),
    "conts": Fault(many_conts, 1.5),
    "owner-kills": Fault(owner_kills, 3, _each(("KILL", "TERM"), SIDES), deadly=True),
    "does": Fault(mischief, 3, ("fork", "exec")),
    "exits": Fault(mischief, 1, ("exit",), deadly=True),
    "callers": Fault(callers, 3),
}


def drawn_from() -> dict[str, tuple[float, tuple[str, ...]]]:
    """For :func:`plan.draw`."""
    return {name: (fault.weight, fault.hows) for name, fault in FAULTS.items()}


__all__ = ["FAULTS", "NoVictim", "drawn_from"]
