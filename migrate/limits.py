"""Every limit of time in one table: its name, its seconds, and what it bounds.

Pure. ``python -m migrate.limits`` prints the table. A limit bounds one thing; what waits for something else has
one of its own, so that a host that is slow in one thing is not called dead in another.

Before COMMIT three of them meet: each step has ``STEP_S`` as a whole, all of them from the moment in which
somebody outside could notice have ``MOST_GAP_S`` together, and who gives the answer may die or fall silent
before either is over. The first to come ends the wait.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """One row.

    :ivar name: the constant of this module.
    :ivar bounds: what may take so long, and what is done then.
    """

    name: str
    seconds: float
    bounds: str


TABLE: list[Limit] = []


def _limit(name: str, seconds: float, bounds: str) -> float:
    TABLE.append(Limit(name, seconds, bounds))
    return seconds


# --- what the user may choose ----------------------------------------------------------------------------

STEP_S = _limit("STEP_S", 60, "one step as a whole, --timeout; before COMMIT: rolled back")
MOST_GAP_S = _limit(
    "MOST_GAP_S", 10, "from holding new connections and freezing until COMMIT, --max-gap: rolled back"
)

# --- the session -----------------------------------------------------------------------------------------

CONNECT_S = _limit("CONNECT_S", 15, "making the SSH connection, unless ssh's configuration says otherwise")
SSH_AGENT_S = _limit("SSH_AGENT_S", 10, "an answer of ssh-agent: its keys are not used")
SSH_CLOSE_S = _limit("SSH_CLOSE_S", 5, "the end of the threads of an SSH connection")
SSH_STATUS_S = _limit("SSH_STATUS_S", 2, "the exit status of an agent whose stream has ended")
SSH_CONFIG_S = _limit("SSH_CONFIG_S", 15, "the ssh program, asked for its configuration of a host: not begun")
SSH_END_S = _limit("SSH_END_S", 1, "an ssh program that was told to end: killed")
SSH_LAST_WORDS_S = _limit("SSH_LAST_WORDS_S", 0.1, "the last words of an ssh program that has ended: lost")
KEEPALIVE_S = _limit("KEEPALIVE_S", 5, "silence of the SSH connection until it is asked whether it lives")
AGENT_START_S = _limit("AGENT_START_S", 60, "from starting the agent until it says hello: not begun")
DRIVER_HELLO_S = _limit("DRIVER_HELLO_S", 30, "from the agent's start until the driver says hello")
ANSWER_S = _limit("ANSWER_S", 150, "the agent's look at its host, its proof that CRIU works: not begun")
PING_S = _limit("PING_S", 1, "silence of ours until something is sent")
SILENCE_S = _limit("SILENCE_S", 5, "silence of a host that has spoken: the link is lost")
PATIENCE_S = _limit("PATIENCE_S", 3600, "the driver's next message, while its pings come")
LINK_CLOSE_S = _limit("LINK_CLOSE_S", 5, "the end of each thread of a link that was closed")
HEED_S = _limit("HEED_S", 0.1, "until who waits looks whether there is still a reason to")

# --- before the freeze -----------------------------------------------------------------------------------

STOPPED_LOOK_S = _limit(
    "STOPPED_LOOK_S", 0.5, "a driver that is stopped after --max-gap: continued, to roll back"
)
GUARDIAN_START_S = _limit("GUARDIAN_START_S", 60, "the start of a guardian, and its end: not begun")
KEEPER_START_S = _limit("KEEPER_START_S", 60, "the start of a keeper: not begun")
NAMESPACE_S = _limit("NAMESPACE_S", 60, "making a PID namespace: not begun")
PROBE_S = _limit("PROBE_S", 120, "a small dump and restore that shows whether CRIU works: refused")
SYSTEMCTL_S = _limit("SYSTEMCTL_S", 5, "systemd, asked about a unit: taken for one that starts it again")
UNIT_S = _limit(
    "UNIT_S", 60, "systemd, told to load, start, freeze or stop a unit; before COMMIT: rolled back"
)
VERSION_S = _limit("VERSION_S", 10, "a program that says its version: refused")
AHEAD_READ_S = _limit("AHEAD_READ_S", 60, "reading memory ahead: goes on with what was read")
AHEAD_S = _limit("AHEAD_S", 300, "sending one round of memory ahead: not begun")
UNSENT_S = _limit("UNSENT_S", 15, "closed connections that still send, before anything is held: refused")
DEFERRED_S = _limit("DEFERRED_S", 35, "clients that TCP_DEFER_ACCEPT hides, before anything is held: refused")
HANDSHAKE_S = _limit("HANDSHAKE_S", 1, "handshakes under way when new connections are held: left to them")

INSIDE_S = _limit(
    "INSIDE_S", 2, "accept queues that connections from the same host keep filling: these are held, too"
)

# --- from the freeze on ----------------------------------------------------------------------------------

GIVEN_BACK_S = _limit("GIVEN_BACK_S", 1, "memory that was held for CRIU, until it is given back: CRIU begins")
FILTER_MARGIN_S = _limit(
    "FILTER_MARGIN_S", 60, "how much longer than its work a filter holds that nobody renews any more"
)
UNSENT_FROZEN_S = _limit(
    "UNSENT_FROZEN_S",
    0.2,
    "closed connections that still send when the tree is frozen: thawed and waited again",
)
ABORT_S = _limit("ABORT_S", 2, "the destination's undo while the process stays frozen for it: goes on here")
UNDO_S = _limit("UNDO_S", 20, "the destination's undo when the process goes on here: a new agent is asked")
UNCONFIRMED_S = _limit(
    "UNCONFIRMED_S", 600, "a destination that has not confirmed its undo: addresses announced no more"
)
KEEPER_ANSWER_S = _limit("KEEPER_ANSWER_S", 2, "an answer of a keeper: rolled back; its end: killed")
CGROUP_FROZEN_S = _limit(
    "CGROUP_FROZEN_S", 1, "tasks that a tracer lets go on their way to the freezer: said"
)
ENDED_CALL_S = _limit(
    "ENDED_CALL_S", 1, "CRIU until it lets go of tasks whose system calls begin again: these end with EINTR"
)
CGROUP_EMPTY_S = _limit("CGROUP_EMPTY_S", 5, "tasks that are dying in a cgroup that is to be removed: said")
CRIU_CLOSE_S = _limit("CRIU_CLOSE_S", 10, "a CRIU that dumped and was hung up: killed")
CRIU_GIVE_UP_S = _limit("CRIU_GIVE_UP_S", 0.5, "a CRIU whose restore is given up: killed")
CRIU_END_S = _limit("CRIU_END_S", 30, "a CRIU whose driver or agent has died: killed")
ORPHANED_S = _limit(
    "ORPHANED_S", 5, "a restored unit until CRIU is its parent no more: systemd is told all the same"
)
RUNS_S = _limit("RUNS_S", 0.5, "a restored task, from CRIU's end to its own first instruction: seen as it is")
BEGINS_S = _limit(
    "BEGINS_S", 1, "restored tasks that neither wait nor run when CRIU was killed: taken for running"
)
LET_GO_S = _limit("LET_GO_S", 1, "a task that was let go until it is stopped no more: seen as it is")
SIGNALLED_S = _limit("SIGNALLED_S", 0.5, "a process that got a signal when it was let go: seen as it is")
EXEC_S = _limit(
    "EXEC_S", 0.2, "processes that are within execve(2) and have no environment: taken for others"
)
KILLED_S = _limit("KILLED_S", 5, "the end of processes that were killed: said")
RECONNECT_S = _limit(
    "RECONNECT_S", 5, "a unix socket to which a connection is made anew and that takes none: refused"
)
PODMAN_S = _limit("PODMAN_S", 30, "podman, which is asked, or is to forget a container: taken for a no")
IMAGE_READ_S = _limit(
    "IMAGE_READ_S", 300, "podman, until it writes more of an image that is sent along: not begun"
)
IMAGE_LOADED_S = _limit("IMAGE_LOADED_S", 600, "podman, which loads an image that has arrived: not begun")
FEED_S = _limit("FEED_S", 60, "who reads what arrives, and takes nothing of it: not begun")
ASKED_S = _limit("ASKED_S", 60, "what an origin may have a destination wait for an answer: under way")
SETTLE_S = _limit("SETTLE_S", 15, "a destination that is asked in doubt and still settles: asked later")
SETTLING_S = _limit("SETTLING_S", 10, "a guardian that still undoes the last migration: refused")
LATE_QUIET_S = _limit("LATE_QUIET_S", 0.1, "until no more packets are expected to come late")
LATE_S = _limit("LATE_S", 0.5, "packets that come late to the origin, in all")
COMMAND_S = _limit(
    "COMMAND_S", 5, "one stage of a command of --switch exec: killed; before COMMIT: rolled back"
)
GATEWAY_CONNECT_S = _limit("GATEWAY_CONNECT_S", 5, "the gateway of --switch route, until it greets: refused")
GATEWAY_ANSWER_S = _limit("GATEWAY_ANSWER_S", 2, "an answer of that gateway; before COMMIT: rolled back")
UNSWITCHED_QUIET_S = _limit(
    "UNSWITCHED_QUIET_S", 2, "with --switch none: until no more packets are expected at the origin"
)
UNSWITCHED_S = _limit("UNSWITCHED_S", 30, "with --switch none: packets that come to the origin, in all")
LOG_CLOSE_S = _limit("LOG_CLOSE_S", 2, "writing the last events of the log: lost")
LOG_KEPT_S = _limit("LOG_KEPT_S", 30 * 86400, "keeping the log of a migration, MIGRATE_LOG_DAYS: removed")
HOOK_S = _limit("HOOK_S", 60, "a hook of the configuration: killed; before the move it is refused")
SHOW_S = _limit("SHOW_S", 30, "whoever reads what is shown: shown no further")


def table() -> str:
    """It as text."""
    width = max(len(row.name) for row in TABLE)
    return "\n".join(f"{row.name.ljust(width)}  {row.seconds:>6g} s  {row.bounds}" for row in TABLE)


if __name__ == "__main__":
    print(table())
