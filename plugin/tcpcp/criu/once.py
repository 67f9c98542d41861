"""One hook of CRIU's in a Python of its own, for where no resident helper runs."""

from __future__ import annotations

import os
import sys

from tcpcp.criu import hooks, stages
from tcpcp.criu.hooks import Hook


def tell(text: str) -> None:
    """To whoever reads what CRIU, or the helper, says."""
    print(f"tcpcp: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """``python -m tcpcp.criu.once STAGE ROOT IMAGES``; 0: CRIU may go on."""
    stage, root, images = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    may_go_on = stage not in hooks.MAY_FAIL
    try:
        directory = os.open(images, os.O_RDONLY | os.O_DIRECTORY)
        stages.prepare()
        may_go_on = hooks.run(Hook(stage, directory, root, os.getpid(), tell))
    except Exception as error:  # whatever it is, CRIU may lose the tree by it
        tell(f"{stage}: {type(error).__name__}: {error}")
    return int(not may_go_on)


if __name__ == "__main__":
    sys.exit(main())
