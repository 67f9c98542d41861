"""Whether some of a process's memory is still waited for, as the kernel's smaps says."""

from __future__ import annotations

import pytest

from migrate.inventory.incomplete import is_waited_for

SMAPS = """7f0000000000-7f0000001000 rw-p 00000000 00:00 0
Size:                  4 kB
VmFlags: rd wr mr mw me ac{} sd
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
VmFlags: rd wr mr mw me ac sd
"""


@pytest.mark.parametrize(("flags", "expected"), [(" um", True), ("", False), (" uw", False)])
def test_it_is_by_the_flag_of_a_mapping(flags: str, expected: bool) -> None:
    assert is_waited_for(SMAPS.format(flags)) is expected
