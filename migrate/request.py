"""What the user asked for: the only thing that cli.py hands to the driver."""

from __future__ import annotations

from dataclasses import dataclass

from migrate import limits

AGENT = "migrate-agent"
TRANSPORT = "paramiko"
MEMORY = "ahead"
SWITCH = "address"
#: Ways to switch traffic that tell nothing of the path to either host.
ANYWHERE = ("exec", "none")
#: Connections keep their addresses, which are the origin's own.
FORWARD = "forward"
#: Found out before it is begun: :data:`FORWARD` is used for what needs it.
AUTO = "auto"
#: Those for which the service addresses are on both hosts all the time.
ON_BOTH = (*ANYWHERE, "route")


def apart(switch: str) -> tuple[str, str]:
    """How connections from the origin's own addresses are switched, and how service addresses are; "" where nothing
    is said of them: ``forward+route:gateway`` says both."""
    first, _, rest = switch.partition("+")
    return (first, rest) if first.partition(":")[0] == FORWARD else ("", switch)


def ways(switch: str) -> set[str]:
    """The names of the ways in *switch*."""
    return {one.partition(":")[0] for one in apart(switch) if one}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the destination is reached.

    :ivar transport: how the agent is reached; a name of ``migrate.transport``.
    :ivar agent: name or path of the agent's program on the destination.
    :ivar identity: file of the private key to use, "" for those of the user's ssh configuration.
    :ivar port: port of the destination's sshd, None for that of the ssh configuration.
    """

    transport: str = TRANSPORT
    agent: str = AGENT
    identity: str = ""
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Along:
    """What goes along with the process, and what stays although it goes.

    :ivar copy_files: copy files that the process has open or mapped and that are missing on the destination.
    :ivar copy_trees: directories that are copied with all that is in them; there they become as here.
    :ivar shell_job: the process may have a terminal, or belong to the session of a shell.
    :ivar leave_supervisor: who waits for the process here, and sees it die, starts no other one.
    :ivar addresses: service addresses that move beside those that the process's sockets use.
    :ivar external_sockets: paths of unix sockets, connections to which are begun anew there.
    :ivar no_address: move a server that is bound to a wildcard address, and has no client now, without any address.
    """

    copy_files: bool = False
    copy_trees: tuple[str, ...] = ()
    shell_job: bool = False
    leave_supervisor: bool = False
    addresses: tuple[str, ...] = ()
    external_sockets: tuple[str, ...] = ()
    no_address: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """How a process was named, if not by its PID: one of them, or none.

    :ivar process: the name of its program, or ``:`` and a TCP port on which it listens.
    :ivar container: the name of a container, and ``@`` with its runtime behind it if the user has said which.
    :ivar unit: the name of a service of systemd, with ``.service`` at its end.
    """

    process: str = ""
    container: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Move the process *pid* and its children to *host*.

    :ivar named: how else the process was named; *pid* is 0 then until it is known.
    :ivar host: a name of the user's ssh configuration, a host name or an address; ``user@`` may precede it.
    :ivar check: stop after the checks; nothing is touched.
    :ivar switch: how traffic is switched; a name of ``migrate.switch``, perhaps with a colon and arguments, or
        :data:`AUTO`.
    :ivar memory: what is sent of it before the freeze; a name of ``migrate.memory``.
    :ivar timeout_s: how long one step may take as a whole.
    :ivar max_gap_s: how long, before COMMIT, the process may be frozen and new connections be held.
    :ivar report_file: where the timeline is to be written when it is over; "" for nowhere.
    :ivar stop_at: for tests: a state of the machine; the driver stops there, says so, and waits to be killed.
    """

    pid: int
    host: str
    named: Named = Named()
    check: bool = False
    along: Along = Along()
    switch: str = SWITCH
    memory: str = MEMORY
    timeout_s: float = limits.STEP_S
    max_gap_s: float = limits.MOST_GAP_S
    way: Way = Way()
    report_file: str = ""
    stop_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralRequest:
    """Move several processes to one host, one after the other, all of which are looked at first.

    :ivar each: at least two, in the order in which they were named; they differ by the process alone.
    :ivar keep_going: move what can be moved, although one is refused or could not be moved.
    """

    each: tuple[Request, ...]
    keep_going: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverRequest:
    """Look for migrations that died on this host, undo what may be undone, explain the rest.

    :ivar resume: id of a migration in doubt whose process shall go on here, if the destination says that it
        does not run there.
    :ivar release: id of one whose process runs on the destination, which says so: the copy here is killed.
    :ivar force: do it although the destination cannot be asked: the user has looked there.
    """

    resume: str = ""
    release: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardsRequest:
    """List the connections that are forwarded from this host, or to it.

    :ivar end: id of a migration whose connections are to be forwarded no more; "" for none.
    """

    end: str = ""
