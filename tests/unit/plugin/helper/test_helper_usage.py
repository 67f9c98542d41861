"""What the command `tcpcp-helper` says of arguments that make no sense: words, no names of its functions."""

from __future__ import annotations

import pytest

from tcpcp.helper.__main__ import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mode", "rw"], "argument --mode: 'rw' is no file's mode"),
        (["--socket-owner", "no-such"], "argument --socket-owner: there is no user 'no-such'"),
        (["--socket-group", "no-such"], "argument --socket-group: there is no group 'no-such'"),
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
