"""What a stream to the journal begins with."""

from __future__ import annotations

import pytest

from migrate.inventory import reconnections

#: As journald writes it. Source: systemd's src/journal/journald-stream.c stdout_stream_save().
STATE = (
    "# This is private data. Do not parse\nPRIORITY=30\nLEVEL_PREFIX=1\nFORWARD_TO_SYSLOG=0\nFORWARD_TO_KMSG=1\n"
    "FORWARD_TO_CONSOLE=0\nSTREAM_ID=0123456789abcdef0123456789abcdef\n"
)


@pytest.mark.parametrize(
    ("state", "header"),
    [
        (STATE + "IDENTIFIER=nginx\nUNIT=nginx.service\n", "nginx\nnginx.service\n30\n1\n0\n1\n0\n"),
        (STATE, "\n\n30\n1\n0\n1\n0\n"),
        (STATE + 'IDENTIFIER=a\\"b\\\\c\n', 'a"b\\c\n\n30\n1\n0\n1\n0\n'),
        (STATE + "IDENTIFIER=a\\012b\nUNIT=\\\n", "\n\\\n30\n1\n0\n1\n0\n"),  # it would be one line more
        ("", "program\n\n30\n1\n0\n0\n0\n"),
        ("PRIORITY=-1\nLEVEL_PREFIX=1000\nFORWARD_TO_KMSG\n", "\n\n0\n0\n0\n0\n0\n"),
    ],
)
def test_the_beginning_is_that_of_the_stream_before(state: str, header: str) -> None:
    assert reconnections.header(state, "program").decode() == header


@pytest.mark.parametrize(
    ("name", "its"),
    [
        ("/run/systemd/journal/stdout", True),
        ("/run/systemd/journal.web/stdout", True),
        ("/run/systemd/journal/socket", False),
        ("/srv/run/systemd/journal/stdout", False),
        ("/run/systemd/journal.a/b/stdout", False),
    ],
)
def test_which_is_the_journal(name: str, its: bool) -> None:
    assert reconnections.is_journal(name) is its
