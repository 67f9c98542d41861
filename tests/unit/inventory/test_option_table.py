"""Every option that an ICI carries, or leaves out, is moved by somebody, or a reason is written down."""

from __future__ import annotations

from pathlib import Path

from migrate.inventory.option_table import ALL, PLAIN, UNCONNECTED
from migrate.inventory.options_elsewhere import ELSEWHERE
from tcpcp.record.option_names import OPTIONS
from tcpcp.record.options_left_out import NOT_CARRIED

ROOT = Path(__file__).resolve().parents[3]


def test_none_is_forgotten() -> None:
    """With tests/unit/plugin/record/test_option_names.py: no option of the kernel's headers."""
    assert [name for name in (*OPTIONS, *NOT_CARRIED) if name not in ALL and name not in ELSEWHERE] == []


def test_what_is_elsewhere_is_not_moved_here_but_tcps() -> None:
    both = {name for name in ALL.keys() & ELSEWHERE.keys() if not ELSEWHERE[name].startswith("CRIU")}
    assert both == {"TCP_FASTOPEN_CONNECT", "TCP_FASTOPEN_KEY"} & both


def test_numbers_are_those_of_an_ici() -> None:
    there = {name: (option.level, option.number) for name, option in OPTIONS.items() if name in ALL}
    assert there == {name: ALL[name][:2] for name in there}


def test_what_goes_the_way_of_an_ici_goes_no_other() -> None:
    assert not any(OPTIONS.keys() & table.keys() for table in UNCONNECTED.values())


def test_a_name_means_one_option() -> None:
    for table in (*PLAIN.values(), *UNCONNECTED.values()):
        assert table == {name: ALL[name] for name in table}


def test_what_no_call_reads_is_said() -> None:
    text = (ROOT / "docs/supported.md").read_text()
    unread = [name for name, reason in ELSEWHERE.items() if reason.startswith("no call reads")]
    assert [name for name in unread if name not in text] == []
