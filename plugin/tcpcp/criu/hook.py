"""The program that CRIU calls by its action script: hands the hook to the resident helper, or does it itself.

Run by path, ``python -I -S hook.py``: it imports nothing of the project, since the processes are frozen while it
starts. A request is a message to :data:`SOCKET`, the stage and the root's PID in a line, with the directory of the
images as a descriptor; the answer is ``ok`` or ``no``. Where nobody answers the work is done in a Python that loads
all that it takes, a third of a second later.
"""

import os
import sys

SOCKET = "/run/tcpcp-criu/socket"
#: Longer than any stage lasts. A helper that hangs is as good as none.
WAIT_S = 10
#: As in :data:`tcpcp.criu.hooks.MAY_FAIL`: elsewhere a failure would lose what is restored.
MAY_FAIL = ("network-lock", "post-dump")


def ask(stage: str, root: str, directory: int) -> "bytes | None":
    """What the resident helper answers; None: there is none."""
    import _socket  # the half of what the module around it takes to be loaded

    asking = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        asking.settimeout(WAIT_S)
        asking.connect(SOCKET)
    except OSError:
        return None
    rights = directory.to_bytes(4, sys.byteorder)
    asking.sendmsg([f"{stage} {root}".encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    return asking.recv(16)


def main() -> int:
    """Take what CRIU says from the environment; 0: it may go on."""
    stage = os.environ.get("CRTOOLS_SCRIPT_ACTION", "")
    root = os.environ.get("CRTOOLS_INIT_PID", "") or "0"
    try:
        directory = os.open(os.environ.get("CRTOOLS_IMAGE_DIR", ""), os.O_RDONLY | os.O_DIRECTORY)
        answer = ask(stage, root, directory)
        if answer is None:
            os.set_inheritable(directory, True)
            words = ["-I", "-m", "tcpcp.criu.once", stage, root, str(directory)]
            os.execv(sys.executable, [sys.executable, *words])
    except OSError as error:
        print(f"tcpcp: {stage}: {error}", file=sys.stderr)
        answer = b"no"
    return int(answer != b"ok" and stage in MAY_FAIL)


if __name__ == "__main__":
    sys.exit(main())
