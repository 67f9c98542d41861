"""What the command `tcpcp-helper` says of arguments that make no sense: words, no names of its functions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcpcp.helper.__main__ import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mode", "rw"], "argument --mode: 'rw' is no file's mode"),
        (["--socket-owner", "no-such"], "argument --socket-owner: there is no user 'no-such'"),
        (["--socket-group", "no-such"], "argument --socket-group: there is no group 'no-such'"),
        (["--max-held", "-5"], "argument --max-held: '-5' is no number from 1 on"),
        (["--max-connections", "0"], "argument --max-connections: '0' is no number from 1 on"),
        (["--max-image-bytes", "1k"], "argument --max-image-bytes: '1k' is no number from 1 on"),
        (["--user", "no-such"], "there is no user 'no-such'"),
    ],
)
def test_what_is_wrong_with_an_argument_is_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_where_it_cannot_listen_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "sock", tmp_path / ("long" * 40)):
        assert main(["--user", "root", "--socket", str(path)]) == 1
        assert capsys.readouterr().err.startswith(f"tcpcp-helper: {path}: ")
