"""The program that CRIU calls by its action script: hands the hook to the resident helper, or does it itself.

Run by path, ``python -I -S hook.py``, where there is no perl: it imports nothing of the project, since the
processes are frozen while it starts. A request is a message to :data:`SOCKET`: the stage, the root's PID and the
path of the images, which is that of a descriptor of CRIU's; the answer is ``ok`` or ``no``. Where nobody answers
the work is done in a Python that loads all that it takes, a fifth of a second later.
"""

import os
import sys

SOCKET = "/run/tcpcp-criu/socket"
#: Longer than any stage lasts. A helper that hangs is as good as none.
WAIT_S = 10
#: As in :data:`tcpcp.criu.hooks.MAY_FAIL`: elsewhere a failure would lose what is restored.
MAY_FAIL = ("network-lock", "post-dump")


def ask(stage: str, root: str, images: str) -> "bytes | None":
    """What the resident helper answers; None: there is none."""
    import _socket  # the half of what the module around it takes to be loaded

    asking = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        asking.settimeout(WAIT_S)
        asking.connect(SOCKET)
    except OSError:
        return None
    asking.send(f"{stage} {root} {images}".encode())
    return asking.recv(16)


def main() -> int:
    """Take what CRIU says from the environment; 0: it may go on."""
    stage = os.environ.get("CRTOOLS_SCRIPT_ACTION", "")
    root = os.environ.get("CRTOOLS_INIT_PID", "") or "0"
    images = os.environ.get("CRTOOLS_IMAGE_DIR", "")
    try:
        answer = ask(stage, root, images)
        if answer is None:
            words = ["-I", "-m", "tcpcp.criu.once", stage, root, images]
            os.execv(sys.executable, [sys.executable, *words])
    except OSError as error:
        print(f"tcpcp: {stage}: {error}", file=sys.stderr)
        answer = b"no"
    return int(answer != b"ok" and stage in MAY_FAIL)


if __name__ == "__main__":
    sys.exit(main())
