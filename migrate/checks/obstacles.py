"""What CRIU cannot dump, or would not work on another host: the words for each kind of obstacle. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from migrate.checks import reconnections, together
from migrate.checks.subject import ORIGIN, Subject, names
from migrate.criu.worker import GHOST_LIMIT_BYTES
from migrate.errors import Reason
from migrate.pb.session_pb2 import HostInventory, Obstacle, ProcessInventory
from migrate.units import size


class Words(NamedTuple):
    """Templates; {who}, the process {pid}, has {what} as {descriptor}, of {size}."""

    text: str
    remedy: str


_APART = (
    "End that process first, or let one of the two close this; or name a parent of both, which moves both."
)

WORDS = {
    "namespace": Words(
        "{who} runs in another {what} namespace than migrate",
        "Move a container of podman, runc or crun by its name, --container NAME, and others with their runtime and"
        " the plug-in; start a service without PrivateTmp,"
        " ProtectSystem and the like; or run migrate in the same namespaces with nsenter.",
    ),
    "namespace-beside": Words(
        "{who} has a PID namespace of its own since it was moved here, and {what} has joined it: it would end when"
        " the process has moved",
        "End that process first (a shell of nsenter, a debugger).",
    ),
    "ipc-beside": Words(
        "{who} has an IPC namespace of its own, which {what} is in as well: that stays, and each would have a copy"
        " of what is in it (ipcs)",
        "End that process first, or name a parent of both, which moves both. unshare --ipc without --fork leaves"
        " none behind.",
    ),
    "namespace-mounts": Words(
        "{who} has the mounts of when it was moved here, and among them is not {what}, which has been mounted since"
        " and would have to work in there",
        "Have migrate use a CRIU of the host's own file system, by MIGRATE_CRIU.",
    ),
    "traced": Words(
        "{who} is being traced by process {what}, and only one program can trace",
        "End the debugger or strace with PID {what}.",
    ),
    "tracing": Words(
        "{who} traces {what}, which is not moved with it, and would be let go or killed when it has moved",
        "Let it detach, or end it, if it is a debugger or strace: kill -INT {pid}.",
    ),
    "held": Words(
        "{who} is held still by process {what}: it is being dumped or moved already",
        "Wait until that has ended, and leave process {what} alone: the process could end with it. If a migration"
        " has died, migrate --recover.",
    ),
    "incomplete": Words(
        "{who} was restored a moment ago, and some of its memory is still being filled in",
        "Try again in a moment. If it stays so, look for who does it: pgrep -af lazy-pages.",
    ),
    "frozen": Words(
        "{who} is frozen by its cgroup {what}, where CRIU cannot have it work",
        "Thaw it: systemctl thaw UNIT, docker unpause; if an earlier migration froze it, migrate --recover.",
    ),
    "limits": Words(
        "{who} runs as user {what}, and this root has no CAP_SYS_RESOURCE, without which CRIU cannot read the"
        " resource limits of other users' processes",
        "Run migrate with that capability, or run the program as root (nginx: `user root;`).",
    ),
    "cramped-descriptors": Words(
        "{who} has as many descriptors as it may have (ulimit -n), and CRIU needs a few in it while it dumps it",
        "Raise its limits, prlimit --pid {pid} --nofile={what}:{what}, as a root with CAP_SYS_RESOURCE; or let it"
        " close some.",
    ),
    "cramped-addresses": Words(
        "{who} has as much memory mapped as it may have (ulimit -v), and CRIU needs a little in it while it dumps"
        " it",
        "Raise its limits, prlimit --pid {pid} --as={what}:{what}, as a root with CAP_SYS_RESOURCE; or let it give"
        " back some.",
    ),
    "cramped-locked": Words(
        "{who} has as much memory locked as it may have (ulimit -l), all that it has (mlockall), and so is what"
        " CRIU needs in it while it dumps it",
        "Raise its limits, prlimit --pid {pid} --memlock={what}:{what}, as a root with CAP_SYS_RESOURCE; or let it"
        " unlock some.",
    ),
    "scheduling": Words(
        "{who} runs under {what}, which CRIU cannot set",
        "Give it another policy while it is moved: chrt --all-tasks --other --pid 0 PID, or --fifo.",
    ),
    "foreign-mount": Words(
        "{descriptor} of {who} is {what}, on no file system that the process can see: opened in another mount"
        " namespace",
        "If it is a stream, start the program with that on /dev/null or on a file that it can see itself; else let"
        " it close this before it is moved.",
    ),
    "foreign-place": Words(
        "{descriptor} of {who} is the place of {what} on no file system that the process can see: it was detached"
        " (open_tree(2), fsmount(2)), or opened in another mount namespace",
        "Let the program close it before it is moved, and open it anew when it needs it.",
    ),
    "message-queue": Words(
        "{descriptor} of {who} is the POSIX message queue {what}, which CRIU cannot dump",
        "Let the program close it before it is moved (mq_close), or configure it for unix sockets.",
    ),
    "secret-memory": Words(
        "{descriptor} of {who} is secret memory (memfd_secret(2)), which no other program can read, CRIU neither",
        "Let the program close and unmap it before it is moved, or configure it to keep keys in ordinary memory;"
        " with secretmem.enable=0 on the kernel's command line there is none for any program of this host.",
    ),
    "memory-executed": Words(
        "{who} runs a program out of memory ({what}, fexecve(3) of a memfd), which CRIU cannot open again",
        "Start the program from a file.",
    ),
    "path-length": Words(
        "{what} of {who} is at a path of 4096 bytes or more, which no call takes as a whole",
        "Let the program use a shorter path, or close it before it is moved.",
    ),
    "vdso": Words(
        "{who} has no vDSO any more, the kernel's part of every program: it has unmapped it, and CRIU cannot build"
        " one without",
        "Start the program so that it leaves that alone; some sandboxes do so, and checkers of memory.",
    ),
    "huge-pages": Words(
        "{who} uses huge pages ({what}), which CRIU does not always carry, and the destination may have none",
        "Configure the program for usual pages (PostgreSQL: `huge_pages = off`); transparent huge pages are moved.",
    ),
    "hidden-file": Words(
        "{who} uses {what}, and that path leads to another file now, or to none: something is mounted over it",
        "Unmount that (findmnt shows it), or start the program again, so that it opens what is there now.",
    ),
    "namespace-file": Words(
        "{descriptor} of {who} is a namespace ({what}) that is not one of its own, or was opened at a path",
        "Let the program close it before it is moved.",
    ),
    "proc-directory": Words(
        "{who} has the working directory {what}, in which CRIU cannot have it work again",
        "Let the program change to another directory, or start it in another one.",
    ),
    "terminal": Words(
        "{descriptor} of {who} is the terminal {what}, which cannot be moved",
        "Start it without a terminal: setsid PROGRAM </dev/null >LOG 2>&1",
    ),
    "device": Words(
        "{descriptor} of {who} is the device {what}, which belongs to this host",
        "Let the program close the device before it is moved.",
    ),
    "mapped-device": Words(
        "{who} has memory of the device {what} mapped",
        "Let the program give back the device before it is moved.",
    ),
    "lease": Words(
        "{descriptor} of {who} has a lease on {what}, which whoever opens the file breaks",
        "Let the program give the lease back before it is moved (Samba: `oplocks = no`).",
    ),
    "fifo-outside": Words(
        "{descriptor} of {who} is a named pipe, and a process outside of the tree has it open as well: {what}",
        "Let that process close it, or name a parent of both processes.",
    ),
    "pipe-outside": Words(
        "{descriptor} of {who} is a pipe, and a process outside of the tree has it open as well: {what}",
        _APART,
    ),
    "socket-outside": Words(
        "{descriptor} of {who} is a connection, and a process outside of the tree has it open as well: {what}",
        _APART,
    ),
    "memory-outside": Words(
        "{descriptor} of {who} is memory or a file without a name, and a process outside of the tree has it as"
        " well: {what}",
        _APART,
    ),
    "eventfd-outside": Words(
        "{descriptor} of {who} is an eventfd, by which a process outside of the tree wakes it, or is woken: {what}",
        _APART,
    ),
    "terminal-outside": Words(
        "{descriptor} of {who} is the master of a terminal that a process outside of the tree has open: {what}",
        _APART,
    ),
    "deleted-directory": Words(
        "{who} has the root directory {what}, which has been deleted",
        "Start the program again with a root directory that exists.",
    ),
    "renamed-file": Words(
        "{who} uses {what}, which has been deleted while the same file still has a name in another directory",
        "Give it a name beside the old one too (ln), or let the program open the file anew.",
    ),
    "deleted-file": Words(
        "{who} uses {what}, which has been deleted and holds {size}; at most"
        f" {size(GHOST_LIMIT_BYTES)} are carried",
        "If it was replaced by an upgrade, start the program again; if it is a temporary file, let the"
        " program close it.",
    ),
    "file-name": Words(
        "{who} uses {what}, whose name is not UTF-8",
        "Give the file a name that is, and start the program again.",
    ),
    "sysv-shm": Words(
        "{who} uses System V shared memory ({what}), which belongs to this host",
        "Start the program in an IPC namespace of its own, with which it moves: `unshare --ipc` before its command"
        " (PostgreSQL has such a segment however it is configured). Or configure it for POSIX shared memory or"
        " mmap.",
    ),
    "anonymous": Words(
        "{who} uses {what}, which CRIU cannot dump",
        "Configure the program to do without it.",
    ),
    "mapped-socket": Words(
        "{who} has the receive queue of a TCP connection mapped (TCP_ZEROCOPY_RECEIVE, {what}), which CRIU cannot"
        " dump",
        "Let the program unmap it before it is moved, or configure it to read without that.",
    ),
    "mapping-sparse": Words(
        "{who} has a private mapping of {size}, as programs built with AddressSanitizer have: CRIU cannot build one"
        " of 8 TiB or more",
        "Start the program with less address space reserved, or built without a sanitizer.",
    ),
    "place-only": Words(
        "{descriptor} of {who} is only the place of {what} (O_PATH); CRIU carries such places of files, directories"
        " and links alone",
        "Let the program close it before it is moved, and open it anew when it needs it.",
    ),
    "alarm-clock": Words(
        "{descriptor} of {who} is a timer of the clock {what}, which CRIU does not know",
        "Let the program close it before it is moved, or use a clock without _ALARM.",
    ),
    "watch-nameless": Words(
        "{descriptor} of {who} watches something for changes to which no path leads (file system {what}: a file of"
        " /proc, a deleted one, or one below another mount)",
        "Let the program close the descriptor (inotify, fanotify) before it is moved.",
    ),
    "watch-overlay": Words(
        "{descriptor} of {who} watches something for changes on overlayfs (file system {what}), where nobody can"
        " tell which path that has",
        "Put what it watches on a file system of another kind (a volume, a bind mount), or let the program close"
        " the descriptor (inotify, fanotify) before it is moved.",
    ),
    "watch-whole": Words(
        "{descriptor} of {who} watches a whole file system ({what}) by fanotify, which CRIU would forget",
        "Let the program watch a mount or directories, or close the descriptor before it is moved.",
    ),
    "watch-once": Words(
        "{descriptor} of {who} watches {what} for one event only (IN_ONESHOT), which CRIU would forget: it would be"
        " told of all",
        "Try again when that event has come, or let the program close the descriptor before it is moved.",
    ),
    "proc-thread": Words(
        "{descriptor} of {who} is {what}, of one thread: CRIU opens it before there are threads",
        "Let the program close it, or open it anew whenever it reads it.",
    ),
    "proc-outside": Words(
        "{descriptor} of {who} is {what}, which tells of a process that is not moved with it: there it would be"
        " another one's, or missing",
        "Let the program close it, or name a parent of both processes.",
    ),
    "proc-read": Words(
        "{descriptor} of {who} is {what}, of which the program has read some: there it would read on in what that"
        " says of CRIU",
        "Try again when the program has closed it, or has gone back to its beginning (lseek).",
    ),
    "pressure": Words(
        "{descriptor} of {who} is {what}, opened for writing: it may have asked to be woken under pressure (PSI),"
        " which CRIU would forget",
        "Let the program close it before it is moved (a service of systemd: MemoryPressureWatch=off), or open it"
        " for reading.",
    ),
    "watch-unread": Words(
        "{descriptor} of {who} has events ({what}) that it has not read yet, which CRIU would forget",
        "Try again when the program has read them.",
    ),
    "epoll-closed": Words(
        "{descriptor} of {who} is an epoll that watches a file by the number {what}, which was closed while a copy"
        " of it is open: CRIU cannot find the copy, or the epoll watches that as well",
        "Let the program take what it closes out of its epoll (EPOLL_CTL_DEL).",
    ),
    "epoll-disarmed": Words(
        "{descriptor} of {who} is an epoll that has told of descriptor {what} once (EPOLLONESHOT) and would tell of"
        " its end at once after the move, although the program has not armed it again",
        "Try again when the program has armed it again, or has closed it.",
    ),
    "eventfd-semaphore": Words(
        "{descriptor} of {who} is an eventfd that counts down by one (EFD_SEMAPHORE), which CRIU would forget",
        "Let the program close it before it is moved, or use a pipe.",
    ),
    "dnotify": Words(
        "{descriptor} of {who} is the directory {what}, of which it is sent signals (F_NOTIFY), which CRIU would"
        " forget",
        "Let the program close it before it is moved, or use inotify.",
    ),
    "thread-apart": Words(
        "a thread of {who} has its own {what}, which CRIU would forget",
        "Let the program end that thread before it is moved, or do it in a process of its own.",
    ),
    "leader-ended": Words(
        "the main thread of {who} has ended while others live, and CRIU dumps a process through that",
        "Start the program again so that its main thread waits for the others (pthread_join).",
    ),
    "exit-signal": Words(
        "{who} tells its parent of its end by {what} (clone(2)), which CRIU would make SIGCHLD",
        "Let the program make that process by fork(2), or clone(2) with SIGCHLD; or let it execute a program, after"
        " which it is SIGCHLD.",
    ),
    "shared": Words(
        "{who} shares {what} (clone(2), vfork(2)), which CRIU cannot dump",
        "Try again when it has executed its program or has ended.",
    ),
    "sysv-ipc": Words(
        "{who} uses System V IPC ({what}), which belongs to this host",
        "Configure the program for POSIX semaphores or file locks (Apache: `Mutex posixsem`), or remove that with"
        " ipcrm if nobody needs it any more; or start the program in an IPC namespace of its own, with which it"
        " moves: `unshare --ipc` before its command.",
    ),
    "sysv-queue": Words(
        "{who} has a message queue that CRIU cannot make again ({what})",
        "Let the program take its messages, or remove it with ipcrm if nobody needs it any more; its size is set"
        " with msgctl(2), the usual one with kernel.msgmnb.",
    ),
    "posix-queue": Words(
        "{who} has the POSIX message queue {what} in its IPC namespace, which CRIU would forget",
        "Let the program remove it (mq_unlink), or configure it for unix sockets.",
    ),
    "sysv-elsewhere": Words(
        "{who} has shared memory of System V ({what}) that a process that stays has attached as well, or that is"
        " not of its IPC namespace",
        "End that process first, or name a parent of both, which moves both.",
    ),
    "sysv-huge": Words(
        "{who} uses System V shared memory of huge pages ({what}), of which the destination may have none",
        "Configure the program for usual pages (PostgreSQL: `huge_pages = off`).",
    ),
    "multicast": Words(
        "{descriptor} of {who} has joined the multicast group {what}, which CRIU would forget",
        "Let the program leave the group before it is moved, or start it again there.",
    ),
    "pipe-packets": Words(
        "{descriptor} of {who} is a pipe that keeps packets apart (O_DIRECT), which CRIU cannot dump",
        "Let the program close it before it is moved.",
    ),
    "unix-credentials": Words(
        "{descriptor} of {who} is a unix socket in which messages wait that come with who sent them (SO_PASSCRED)",
        "Try again when the program has read them.",
    ),
    "unix-empty": Words(
        "{descriptor} of {who} is a unix socket in which an empty message waits: CRIU would take it for the end,"
        " and lose it with those behind it",
        "Try again when the program has read it, not sooner: behind other messages it shows only once.",
    ),
    "terminal-unread": Words(
        "{descriptor} of {who} is a side of {what} at which something waits to be read: CRIU would change its line"
        " ends and echo it again, and lose it if the move fails",
        "Try again when the program has read it.",
    ),
    "unix-sender": Words(
        "{descriptor} of {who} is a unix socket in which a datagram waits that comes with the name of its sender"
        " ({what}), which CRIU would forget",
        "Try again when the program has read it.",
    ),
    "unix-urgent": Words(
        "{descriptor} of {who} is a unix socket in which an urgent byte waits (MSG_OOB), which would be an ordinary"
        " one",
        "Try again when the program has read it.",
    ),
    "unix-relative": Words(
        "{descriptor} of {who} is a unix socket bound to {what}: CRIU finds no relative name that has .., // or a"
        " link in it, or whose file was renamed",
        "Let the program bind it to an absolute path, or to a name without any of these, and start it again.",
    ),
    "unix-misread": Words(
        "{descriptor} of {who} is a unix socket at {what}, bound to a relative name that ends as the kernel shows"
        " deleted files, for which CRIU takes it",
        "Let the program bind it to an absolute path, or to a name with another end, and start it again.",
    ),
    "unix-error": Words(
        "{descriptor} of {who} is a unix socket with an error that the program has not been told, which CRIU"
        " would forget",
        "Try again when the program has read from it, or has closed it.",
    ),
    "pidfd": Words(
        "{descriptor} of {who} refers to process {what}, which is not moved with it",
        "Name a parent of both processes, or let the program close the descriptor.",
    ),
    "pidfd-thread": Words(
        "{descriptor} of {who} is a pidfd of a thread (PIDFD_THREAD), which CRIU cannot make again",
        "Let the program close it before it is moved, or open one of the process.",
    ),
    "pipe-written": Words(
        "{descriptor} of {who} is a pipe that a process outside of the tree reads: it would break",
        "Start the program with this stream on a file, or name the process that started both.",
    ),
    "pipe-read": Words(
        "{descriptor} of {who} is a pipe that a process outside of the tree writes: it would end",
        "Start the program with this stream on a file or /dev/null, or name the process that started both.",
    ),
    "unix-outside": Words(
        "{descriptor} of {who} is a unix connection to a process outside of the tree ({what})",
        "Let it close the connection, or name the parent of both processes; or, if the program can bear that the"
        " connection is begun anew (most clients of D-Bus and SSSD do), pass --external-socket with the path, if it"
        " has one.",
    ),
    "in-flight": Words(
        "{descriptor} of {who} is a unix socket in which other descriptors wait to be taken: {what} of them"
        " (SCM_RIGHTS)",
        "Try again when the program has taken them.",
    ),
    "unix-unaccepted": Words(
        "{descriptor} of {who} is a unix connection ({what}) that has sent something and is not accepted yet",
        "Try again when the listening process of the tree has accepted it.",
    ),
    "netlink-unread": Words(
        "{descriptor} of {who} is a netlink socket with messages that the process has not read yet",
        "Try again when the program has read them.",
    ),
    "udp-corked": Words(
        "{descriptor} of {who} is a UDP socket that is corked (UDP_CORK): CRIU cannot dump what it holds back",
        "Try again when the program has taken the cork off.",
    ),
    "untold": Words(
        "{descriptor} of {who} is a TCP socket with {what}",
        "Try again when the program has read that, or has closed the socket.",
    ),
    "socket-namespace": Words(
        "{descriptor} of {who} is a socket of another network namespace ({what})",
        "Let the program close it, or run migrate in the namespace with the connections.",
    ),
    "socket-filter": Words(
        "{descriptor} of {who} is a socket with an eBPF filter (SO_ATTACH_BPF), which nobody can read",
        "Let the program take the filter off (SO_DETACH_FILTER) before it is moved, or use one of classic BPF.",
    ),
    "socket-kind": Words(
        "{descriptor} of {who} is a socket of a kind that CRIU cannot dump: {what}",
        "Configure the program to use TCP, UDP or unix sockets.",
    ),
    "tree-name": Words(
        "{what}, to be copied with {who}, has a name that is not UTF-8, and cannot be copied",
        "Rename it, or copy it yourself, and name the directories beside it with --copy-tree.",
    ),
    "tree-path": Words(
        "{what}, to be copied with {who}, is too deep in directories: a path has less than 4096 bytes",
        "Copy it yourself, and name the directories beside it with --copy-tree.",
    ),
    "tree-left-out": Words(
        "{who} has {what} open, which --copy-tree leaves out: a named pipe, a device, a socket, or on a file system"
        " that is mounted there",
        "Name the directories beside it with --copy-tree, one by one, and make this one there yourself (mkfifo,"
        " mount).",
    ),
    "tree-set-id": Words(
        "{what}, to be copied with {who}, is a program that runs as its owner, and is not copied",
        "Take these rights from it (chmod ug-s), or move it elsewhere and install it on the destination.",
    ),
}

#: What is no reason to refuse, but different after the move; templates as those of reasons.
NOTES = {
    "locked-on-fault": "{who} locks memory as it touches it (MLOCK_ONFAULT): after the move all of that is locked,"
    " and takes {size} more",
    "locked-future": "{who} has all of its memory locked (mlockall): what it maps after the move is not, even if it"
    " has asked for that (MCL_FUTURE)",
    "stopped-child": "{who} is stopped: after the move its parent is told of that (WUNTRACED, SIGCHLD) as if it had"
    " just happened",
    "epoll-oneshot": "{descriptor} of {who} is an epoll that has told of something once (EPOLLONESHOT): after the"
    " move it tells of an error or hang-up of that, even if the program has not armed it again",
    "epoll-busy": "{descriptor} of {who} is an epoll with parameters of its own for busy polling (EPIOCSPARAMS):"
    " after the move it has the usual ones",
    "terminal-exclusive": "{descriptor} of {who} is a side of {what} that nobody else may open (TIOCEXCL): after"
    " the move others may",
    "write-hint": "{descriptor} of {who} is a file of which it has said how long what is written will live"
    " (F_SET_RW_HINT): after the move the kernel does not know that",
    "processor-time": "{who} may use {what} s of processor time (ulimit -t): counted from 0 after the move",
    "memory-merge": "{who} has its memory merged with equal pages (PR_SET_MEMORY_MERGE): what it maps after the"
    " move is not",
    "datagrams": "{descriptor} of {who} is {what}: what it has not read when the process is frozen, or what arrives"
    " while it is, is lost",
    "terminal-line": "{descriptor} of {who} is the master of {what}, where input is taken by lines: one that is"
    " half typed when the process is frozen is lost",
    "unix-peer": "{descriptor} of {who} is a unix socket that tells of {what} (user:group) at its other end"
    " (SO_PEERCRED): after the move it tells of root, also to new clients of a listener",
    "watch-unlinked": "{descriptor} of {who} watches {what}, but not for what happens to files that are deleted"
    " there and still open (IN_EXCL_UNLINK): after the move it is told of that, too",
    "sysv-unused": "{what}: made since {who} began, by its user, and none that runs has used it: if it is the"
    " process's, it is not there after the move, and stays here",
    "sysv-undo": "semaphores in the IPC namespace of {who} ({what}): what the kernel would undo when a process ends"
    " (SEM_UNDO) is forgotten, if there is any, which nobody can tell: after the move it stays done",
    "tmpfile": "{descriptor} of {who} is a file that never had a name (O_TMPFILE, {what}): after the move it can be"
    " given none (linkat)",
    "listener-outside": "{descriptor} of {who} is a socket that a process outside of the tree has as well ({what}):"
    " it keeps it here, and has to itself who comes to it here after the move",
    "descriptor-outside": "a process outside of the tree has {descriptor} of {who}, too ({what}): it keeps it here,"
    " and after the move each has one of its own",
    "offset-outside": "{descriptor} of {who} is one open file with a descriptor of a process that stays ({what}):"
    " after the move each has a position and locks of its own in it, and a file of its own where it is not on"
    " storage that both hosts share",
    "pidfd-stays": "{what}, which stays, has a pidfd of {who}: it is told that the process has ended when it has"
    " moved",
    "session-stays": "{what}: of a session or process group of {who}, but not below it (their parent has ended,"
    " or is the process's own, CLONE_PARENT):"
    " they stay here, and run on",
    "lock-awaited": "{what}, which stays, waits for a lock that {who} has by {descriptor}: it gets it here when the"
    " process has moved, as a standby that becomes active, and then both run",
    "writer-outside": "{descriptor} of {who} is a file that a process that stays writes, too ({what}): after the"
    " move that goes to the file here, where it is not on storage that both hosts share",
}

#: Deleted files that hold more than this are told of: they are sent while the process is frozen.
_MANY_GHOST_BYTES = 64 << 20
#: In another namespace of these kinds every file or socket is a foreign one, which need not be told again.
_FOLLOWS = {"mnt": {"foreign-mount", "foreign-place", "hidden-file"}, "net": {"socket-namespace"}}

#: Where more can be said than for the kind in general.
_REMEDIES = {
    "/dev/tty": "Try again when this program has closed it, or has ended: an editor or a pager, as a rule. Where no"
    " other one has the master of its terminal, start it without: setsid PROGRAM </dev/null >LOG 2>&1",
    "anon_inode:[io_uring]": "Configure the program to do without it: most have a switch for io_uring.",
    "MPTCP": "Let the program use plain TCP: sysctl net.mptcp.enabled=0 and start it again; Go programs with"
    " GODEBUG=multipathtcp=0.",
}


def obstacles(subject: Subject) -> Iterator[Reason]:
    """Turn what the inventory found into reasons."""
    found = subject.process.obstacles
    others = {one.what for one in found if one.code == "namespace"}
    elsewhere = {code for kind in others for code in _FOLLOWS.get(kind, ())}
    anew = {(one.pid, one.fd) for one in reconnections.made_anew(subject.process, subject.along)}
    against = [
        one
        for one in found
        if not (_is_ghost(one) or one.code in NOTES or one.code in elsewhere)
        and not (one.code == "unix-outside" and (one.pid, one.fd) in anew)
    ]
    for group in _alike(against):
        yield _reason(subject, group)


def notes(process: ProcessInventory) -> list[str]:
    """Return what the inventory found that will be different although it is no reason to refuse."""
    subject = Subject(process, HostInventory(), HostInventory())
    found = _alike(one for one in process.obstacles if one.code in NOTES)
    told = together.notes((NOTES[one[0].code].format(**_fields(subject, one)) for one in found), subject)
    if (many := ghost_bytes(subject)) > _MANY_GHOST_BYTES:
        told.append(
            f"files that the process uses and that have been deleted hold {size(many)}, which are sent while it is"
            " frozen: over a link of 1 Gbit/s some 10 s for each GiB"
        )
    return told


def _alike(found: Iterable[Obstacle]) -> Iterable[list[Obstacle]]:
    """A terminal or a log is often on several descriptors."""
    same: dict[tuple[str, int, str], list[Obstacle]] = {}
    for one in found:
        same.setdefault((one.code, one.pid, one.what), []).append(one)
    return same.values()


def _is_ghost(one: Obstacle) -> bool:
    """Whether it is no obstacle, but a deleted file that CRIU carries inside the images."""
    return one.code == "deleted-file" and one.size_bytes <= GHOST_LIMIT_BYTES


def ghost_bytes(subject: Subject) -> int:
    """How much the deleted files hold that go along, each counted once."""
    found = {one.what: one.size_bytes for one in subject.process.obstacles if _is_ghost(one)}
    return sum(found.values())


def locked_bytes(subject: Subject) -> int:
    """How much more memory the tree takes after the move, since all that is locked is made."""
    return sum(one.size_bytes for one in subject.process.obstacles if one.code == "locked-on-fault")


def _reason(subject: Subject, same: list[Obstacle]) -> Reason:
    one = same[0]
    words = WORDS.get(one.code, Words("{who} has {what}, which cannot be moved", "Let the program close it."))
    fields = _fields(subject, same)
    remedy = _REMEDIES.get(one.what, words.remedy)
    return Reason(one.code, ORIGIN, words.text.format(**fields), remedy.format(**fields))


def _fields(subject: Subject, same: list[Obstacle]) -> dict[str, str]:
    return {
        "who": subject.who(same[0].pid),
        "what": same[0].what or "without a name",
        "pid": str(same[0].pid),
        "descriptor": _descriptors([one.fd for one in same if one.HasField("fd")]),
        "size": size(same[0].size_bytes),
    }


def _descriptors(numbers: list[int]) -> str:
    if not numbers:
        return "a mapping"
    noun = "descriptor" if len(numbers) == 1 else "each of the descriptors"
    return f"{noun} {names(map(str, numbers), most=5)}"
