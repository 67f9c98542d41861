"""Where the helper listens: it takes the place of a helper that was killed, and of nothing else."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tcpcp.helper.protocol import HelperError
from tcpcp.helper.server import listen


def test_what_a_helper_that_was_killed_has_left(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with listen(str(path), mode=0o600):
        pass
    with listen(str(path), mode=0o600), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.connect(str(path))
        with pytest.raises(HelperError, match="a helper is there already"):
            listen(str(path), mode=0o600)


def test_a_file_of_somebody_stays(tmp_path: Path) -> None:
    """Given by mistake, or as a link."""
    file, link = tmp_path / "important", tmp_path / "link"
    file.write_text("content")
    link.symlink_to(file)
    for path in (file, link, tmp_path):
        with pytest.raises(HelperError, match=f"{path}: is there, and is no socket"):
            listen(str(path), mode=0o600)
    assert file.read_text() == "content"
    assert link.is_symlink()
