"""This host's packet filter is changed, or asked; what it refuses is said with what it would need."""

from __future__ import annotations

from migrate.errors import SwitchError
from tcpcp.errors import IsolationError
from tcpcp.kernel import nft


def run(script: str, needs: str = "") -> str:
    """What nft says.

    :param needs: what to do where the kernel cannot, as a sentence.
    :raises SwitchError: it is refused.
    """
    try:
        return nft.run(script)
    except IsolationError as error:
        raise SwitchError(f"the kernel's packet filter refused: {error}", hint=needs) from error
