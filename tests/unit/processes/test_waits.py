"""System calls in which threads wait, as /proc shows them: which of them end, and begin again."""

from __future__ import annotations

import pytest

from migrate.processes import waits
from migrate.processes.waits import CLOCK_NANOSLEEP, FUTEX, NANOSLEEP, POLL, RESTART, Call

LINE = b"7 0x10 0x1 0xffffffff 0x0 0x0 0x0 0x7ffe0000 0x7f0000001002\n"
PC = 0x7F0000001002
STATUS = "SigPnd:\t0\nShdPnd:\t0\nSigIgn:\t0\nSigCgt:\t{caught:x}\nSigBlk:\t{blocked:x}\n"


def test_a_line() -> None:
    assert waits.parse(LINE) == Call(7, (16, 1, 0xFFFFFFFF, 0, 0, 0), 0x7FFE0000, PC)
    assert waits.parse(b"running\n") is None
    assert waits.parse(b"-1 0x7ffe0000 0x7f0000001002\n") is None


@pytest.mark.parametrize(
    ("code", "number", "made"),
    [
        ("00000000000f05", POLL, POLL),
        ("00000000000f05", RESTART, 0),
        ("b8230000000f05", RESTART, NANOSLEEP),
        ("b8230000000f05", FUTEX, FUTEX),
        ("b823000000cd80", POLL, 0),
        ("", POLL, 0),
    ],
)
def test_what_code_has_made(code: str, number: int, made: int) -> None:
    """int $0x80 has other numbers."""
    assert waits.made(bytes.fromhex(code), number) == made


@pytest.mark.parametrize(
    ("number", "arguments", "ends"),
    [
        (POLL, (1, 1, 0xFFFFFFFF), True),
        (NANOSLEEP, (1, 0), True),
        (CLOCK_NANOSLEEP, (1, 0, 1, 0), True),
        (CLOCK_NANOSLEEP, (1, 1, 1, 0), False),
        (FUTEX, (1, 0x80, 0, 1), True),
        (FUTEX, (1, 0x189, 0, 1), True),
        (FUTEX, (1, 0x189, 0, 0), False),
        (FUTEX, (1, 6, 0, 1), False),
        (0, (1, 1, 1, 1), False),
    ],
)
def test_which_the_kernel_remembers(number: int, arguments: tuple[int, ...], ends: bool) -> None:
    assert waits.has_limit(Call(number, (*arguments, 0, 0, 0, 0)[:6], 0, 0)) == ends


@pytest.mark.parametrize(
    ("caught", "blocked", "may"),
    [(0, 0, False), (1 << 14, 0, True), (1 << 14, 1 << 14, False), (1 << 10 | 3 << 31, 0, False)],
)
def test_whether_a_handler_may_run(caught: int, blocked: int, may: bool) -> None:
    """Those of the C library, and of the program's own mistakes (SIGSEGV), are no reason to wait for a signal."""
    assert waits.may_handle(STATUS.format(caught=caught, blocked=blocked).encode()) == may
    assert waits.may_handle(b"")


def test_what_a_call_that_begins_again_gets() -> None:
    registers = {"ax": waits.ENDED, "ip": PC, "di": 1, "si": 2, "dx": 3, "r10": 4}
    begun = {"ip": PC - 2}
    assert waits.again(POLL, registers) == begun | {"ax": POLL}
    assert waits.again(FUTEX, registers) == begun | {"ax": FUTEX}
    assert waits.again(NANOSLEEP, registers) == begun | {"ax": NANOSLEEP, "di": 2}
    assert waits.again(NANOSLEEP, registers | {"si": 0}) == begun | {"ax": NANOSLEEP}
    assert waits.again(CLOCK_NANOSLEEP, registers) == begun | {"ax": CLOCK_NANOSLEEP, "dx": 4}
    assert waits.again(CLOCK_NANOSLEEP, registers | {"r10": 0}) == begun | {"ax": CLOCK_NANOSLEEP}
